//! The crate as its user sees it: figures against trec_eval's, files good and broken, properties.

#[path = "it/beir.rs"]
mod beir;
#[path = "it/files.rs"]
mod files;
#[path = "it/goldens.rs"]
mod goldens;
#[path = "it/properties.rs"]
mod properties;
