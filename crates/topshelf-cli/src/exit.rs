//! Errors to exit codes: 2 where the caller can mend it (arguments, files, missing models),
//! 1 for a failure, 130 after Ctrl-C.

use std::process::ExitCode;

use crate::say::say;
use topshelf::eval::EvalError;
use topshelf::remote::RemoteError;
use topshelf::tune::TuneError;
use topshelf::{Blame, Error, IndexError, ModelError};

/// An error of the caller's that no library has a variant for.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The shorthand for an error of the caller's.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(message.into()))
}

/// Says what went wrong and answers the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS; // the reader has seen enough, as with `| head`
    }
    say!("error: {}", said_once(error));
    ExitCode::from(code(error))
}

/// The error with its causes; what one says already is not said again.
fn said_once(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| {
        if said.contains(&cause) {
            said
        } else if said.is_empty() {
            cause
        } else {
            format!("{said}: {cause}")
        }
    })
}

fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        let blame = if let Some(error) = cause.downcast_ref::<Error>() {
            error.blame()
        } else if let Some(error) = cause.downcast_ref::<IndexError>() {
            if matches!(error, IndexError::Interrupted) {
                return 130;
            }
            error.blame()
        } else if let Some(error) = cause.downcast_ref::<ModelError>() {
            error.blame()
        } else if let Some(error) = cause.downcast_ref::<RemoteError>() {
            error.blame()
        } else if let Some(error) = cause.downcast_ref::<TuneError>() {
            error.blame()
        } else if cause.is::<EvalError>() || cause.is::<Usage>() {
            Blame::Caller // what the evaluator refuses is in the files it was given
        } else {
            continue;
        };
        return match blame {
            Blame::Caller => 2,
            Blame::Failure => 1,
        };
    }
    1
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
