//! The command `topshelf`.
//!
//! The one place where models, index, evaluation and pipeline are put together; the logic is in
//! the library crates.
//!
//! | for | see |
//! | --- | --- |
//! | the commands and their options | [`args`] |
//! | what each command does | [`commands`] |
//! | what the commands print: the JSON objects and the tables | [`output`], [`table`] |
//! | progress on a terminal and elsewhere | [`progress`] |
//! | errors to exit codes | [`exit`] |
//!
//! Results go to standard output, everything else to standard error.

mod args;
mod commands;
mod exit;
mod output;
mod progress;
mod table;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = args::Arguments::parse(); // exits with 2 itself, after saying why
    match commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
