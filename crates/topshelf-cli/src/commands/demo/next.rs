//! What to type next: commands that can be copied as they stand.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::args::DemoArguments;
use crate::commands::{display, print};
use crate::table;

/// After a question about a folder.
pub(super) fn print_for_folder(
    arguments: &DemoArguments,
    folder: &Path,
    index: &Path,
    question: &str,
) -> Result<()> {
    let own = given(arguments);
    let (folder, index) = (quoted(&display(folder)), quoted(&display(index)));
    // What begins with a hyphen is an option unless `--` stands before it.
    let hyphen = if question.starts_with('-') { "-- " } else { "" };
    let question = quoted(question);
    print_commands(&[
        ("another question", format!("demo{own} --folder {folder} --query 'how do I ...?'")),
        ("this one, explained", format!("search --index {index} --explain {hyphen}{question}")),
        ("the prompt for an LLM", format!("search --index {index} --prompt {hyphen}{question}")),
        ("an index to keep", format!("index add {folder} --index my.index")),
    ])?;
    print(&format!("The demo's index of this folder stays in {index}."))
}

/// After the measurement.
pub(super) fn print_for_packages(arguments: &DemoArguments, index: &Path) -> Result<()> {
    let own = given(arguments);
    let mut commands = vec![
        ("your own files", "demo --folder docs/ --query 'how do I ...?'".to_owned()),
        ("another question", format!("demo{own} --query 'how do I get random numbers?'")),
    ];
    if !arguments.full {
        commands.push(("100 candidates", "demo --full".to_owned()));
    }
    commands.push(("an index to keep", "index add docs/ --index docs.index".to_owned()));
    commands.push(("searching it", "search 'how do I ...?' --index docs.index".to_owned()));
    print_commands(&commands)?;
    print(&format!(
        "The demo's index and what was measured stay in {}.",
        table::plain(&display(index))
    ))
}

/// The options that were given and that another call needs too.
fn given(arguments: &DemoArguments) -> String {
    let of = |option: &str, path: &Option<PathBuf>| {
        path.as_ref().map(|path| format!(" {option} {}", quoted(&display(path))))
    };
    let full = arguments.full.then(|| " --full".to_owned());
    let options =
        [full, of("--index", &arguments.index), of("--cargo-home", &arguments.cargo_home)];
    options.into_iter().flatten().collect()
}

fn print_commands(commands: &[(&str, String)]) -> Result<()> {
    let program = program();
    let width = commands.iter().map(|(what, _)| what.len()).max().unwrap_or_default();
    let line = |(what, command): &(&str, String)| format!("  {what:<width$}  {program} {command}");
    let lines: Vec<String> = commands.iter().map(line).collect();
    print(&format!("What to type next:\n{}", lines.join("\n")))
}

/// How this program was called, if that can be typed again; `topshelf` otherwise.
fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    if !called.is_empty() && quoted(&called) == called { called } else { "topshelf".to_owned() }
}

/// A word for a POSIX shell, without what would do something to a terminal.
pub(super) fn quoted(word: &str) -> String {
    let word: String = word.chars().filter(|c| table::is_text(*c)).collect();
    let is_safe = |c: char| c.is_alphanumeric() || "_./-:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(is_safe) {
        return word;
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_change_them() {
        assert_eq!(quoted("docs/guide-1.md"), "docs/guide-1.md");
        assert_eq!(quoted("my docs"), "'my docs'");
        assert_eq!(quoted("what's $HOME?"), "'what'\\''s $HOME?'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("a\u{1b}[2Jb"), "'a[2Jb'");
    }
}
