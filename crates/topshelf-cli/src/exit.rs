//! Errors to exit codes: 2 where the caller can mend it (arguments, files, missing models),
//! 1 for a failure, 130 after Ctrl-C.

use std::process::ExitCode;

use crate::say::say;
use topshelf::eval::EvalError;
use topshelf::remote::RemoteError;
use topshelf::tune::TuneError;
use topshelf::{Blame, EngineError, Error, IndexError, ModelError};

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
    if let Some(hint) = error.chain().find_map(hint) {
        say!("\nhint: {hint}");
    }
    ExitCode::from(code(error))
}

/// How to mend it on the command line; the libraries' own words name no flag.
fn hint(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<EngineError>() {
        return match error {
            EngineError::Core(error) => of_core(error),
            EngineError::Index(error) => of_index(error),
            EngineError::Model(error) => of_model(error),
            EngineError::Remote(error) => of_remote(error),
            EngineError::Tune(error) => of_tune(error),
            EngineError::UnprovenGate => Some(
                "`topshelf tune` looks for a gate on your own judged queries and proves it; --force uses this one \
                 without proof"
                    .to_owned(),
            ),
            EngineError::UnknownPrice { model } => Some(format!(
                "--max-cost needs to know what \"{model}\" costs: write [\"{model}\"] with input, output or search \
                 into prices.toml in TOPSHELF_HOME, or into the file of --prices (0 if it is free)"
            )),
            EngineError::NoneIsNoReranker => {
                Some("name a reranker, such as cross-encoder/ms-marco-MiniLM-L12-v2".to_owned())
            }
            _ => None,
        };
    }
    let core = || of_core(cause.downcast_ref::<Error>()?);
    let index = || of_index(cause.downcast_ref::<IndexError>()?);
    let model = || of_model(cause.downcast_ref::<ModelError>()?);
    let remote = || of_remote(cause.downcast_ref::<RemoteError>()?);
    let tune = || of_tune(cause.downcast_ref::<TuneError>()?);
    core().or_else(index).or_else(model).or_else(remote).or_else(tune)
}

fn of_core(error: &Error) -> Option<String> {
    match error {
        Error::TopExceedsDepth { top, .. } => Some(format!("--depth {top} fetches enough")),
        Error::AfterSpending { source, .. } => of_core(source),
        Error::Stage { source, .. } => hint(source.as_ref()),
        _ => None,
    }
}

fn of_index(error: &IndexError) -> Option<String> {
    Some(match error {
        IndexError::Missing { dir } => {
            format!("`topshelf index add PATH --index {}` makes one", dir.display())
        }
        IndexError::Format { .. } => {
            "`topshelf index add PATH --index NEW` builds it in the folder NEW".to_owned()
        }
        IndexError::EmbedderMismatch { expected, .. } => format!("--embed {expected}"),
        IndexError::NoVectors => {
            "an index has vectors unless it is made with --embed none; --retriever bm25 needs none"
                .to_owned()
        }
        IndexError::NoTokenVectors => {
            "`topshelf index add PATH --index NEW --token-vectors` makes one with them".to_owned()
        }
        IndexError::TokenDimension { .. } => "--token-vectors=f16".to_owned(),
        IndexError::NotIndexed { .. } => {
            "`topshelf index stats --files` lists what is in it".to_owned()
        }
        _ => return None,
    })
}

fn of_model(error: &ModelError) -> Option<String> {
    Some(match error {
        ModelError::UnknownModel { .. } => {
            "`topshelf models list` names the known ones; `topshelf models pull OWNER/NAME` gets others".to_owned()
        }
        ModelError::NotPulled { name } => format!("`topshelf models pull {name}` gets it"),
        ModelError::Damaged { name, .. } => {
            format!("`topshelf models pull {name} --force` gets it again")
        }
        _ => return None,
    })
}

fn of_remote(error: &RemoteError) -> Option<String> {
    match error {
        RemoteError::Budget { .. } => Some("--max-cost raises it".to_owned()),
        _ => None,
    }
}

fn of_tune(error: &TuneError) -> Option<String> {
    match error {
        TuneError::TooFewQueries { .. } => Some("`topshelf judge` makes more".to_owned()),
        TuneError::Core(error) => of_core(error),
        _ => None,
    }
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
        let blame = if let Some(error) = cause.downcast_ref::<EngineError>() {
            if matches!(error, EngineError::Index(IndexError::Interrupted)) {
                return 130;
            }
            error.blame()
        } else if let Some(error) = cause.downcast_ref::<Error>() {
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
