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
//! | words on standard error | [`say`] |
//! | errors to exit codes | [`exit`] |
//!
//! Results go to standard output, everything else to standard error.

#![deny(clippy::print_stderr)] // a line that cannot be written must not end the program: see `say`

mod args;
mod commands;
mod exit;
mod output;
mod progress;
mod report;
mod say;
#[cfg(test)]
mod schemas;
mod table;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let report_panic = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The PDF extractor panics on files that it does not understand; that is told as a skipped
        // file and needs no backtrace.
        if std::thread::current().name() != Some(topshelf::ingest::PDF_THREAD) {
            report_panic(panic);
        }
    }));
    let arguments = args::Arguments::parse(); // exits with 2 itself, after saying why
    match commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error),
    }
}
