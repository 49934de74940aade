//! Tuning: which pipeline pays on these judged queries, and the profile that says so.
//!
//! ```text
//! stages ─► record ─► Recording ─┬─ training ─► fit, search ─► Setup ─┬─► Profile (topshelf.toml)
//!                                └─ held out ─────────────────────────┴─► Tuned, all figures
//! ```
//!
//! Every stage is asked once for every query and its answers are recorded; then hundreds of setups
//! are tried by replaying the recording through the real policies of `topshelf_core`. So a setup's
//! figures are those that the pipeline would have, and trying one costs microseconds.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`profile`] | a setup on disk, with the evidence for it |
//! | [`record`](mod@record) | asks the stages, and replays what they answered |
//! | [`rate`](mod@rate) | what rerankers take of time and money |
//! | [`judged`] | the judgments, their two halves, folds |
//! | [`blend`], [`calibration`], [`gate`] | fit one policy each |
//! | [`search`] | puts them together: [`tune`] |
//! | [`outcome`] | what is told of it |
//!
//! The rule that all of it keeps: **what is fitted on the training half is measured on the held-out
//! half**, or, where a choice has to be made before, on folds that it was not fitted on.

pub mod blend;
pub mod calibration;
mod error;
pub mod gate;
pub mod judged;
pub mod outcome;
pub mod profile;
pub mod rate;
pub mod record;
pub mod search;
mod trial;

pub use error::{Result, TuneError};
pub use judged::{Halves, Judged, Unit};
pub use outcome::Tuned;
pub use profile::Profile;
pub use record::{Recording, Stages, record};
pub use search::{Budget, TuneOptions, tune};
