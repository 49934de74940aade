//! The program under test: started in a folder, fed, and what comes back.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// What the program answered.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The exit code; `None` if a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Outcome {
    /// What was printed on standard output by a run that succeeded.
    pub(super) fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// The JSON object printed by a run that succeeded.
    pub(super) fn json(self) -> Value {
        let text = self.success();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
        let code = output.status.code();
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// The program with these arguments, to be started in `dir`. Without the score cache, which is the
/// user's own; a test that is about it sets it, and a home of its own, again.
pub(super) fn topshelf(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_topshelf"));
    command.current_dir(dir).args(arguments).stdin(Stdio::null());
    command.env("TOPSHELF_SCORE_CACHE", "0");
    command
}

/// Runs the program in `dir` to its end.
pub(super) fn run(dir: &Path, arguments: &[&str]) -> Outcome {
    topshelf(dir, arguments).output().expect("the program starts").into()
}

/// [`run`] with something on standard input.
pub(super) fn run_with_input(dir: &Path, arguments: &[&str], input: &[u8]) -> Outcome {
    let mut command = topshelf(dir, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input); // one that refuses its arguments does not read
    }
    child.wait_with_output().expect("the program ends").into()
}

/// Sees to it that the default models are on this machine.
pub(super) fn models() {
    static PULLED: OnceLock<()> = OnceLock::new();
    PULLED.get_or_init(|| {
        run(Path::new("."), &["models", "pull"]).success();
    });
}

/// The folder of a pulled model.
fn model_folder(name: &str) -> PathBuf {
    models();
    let shown = run(Path::new("."), &["models", "show", name, "--json"]).json();
    PathBuf::from(shown["folder"].as_str().expect("the model is here"))
}

/// A `TOPSHELF_HOME` below `dir` with the default models and nothing else in its store. The
/// files are links to the real ones: replace them, never write into them.
pub(super) fn home_with_models(dir: &Path) -> PathBuf {
    let home = dir.join("home");
    for name in ["minilm-l12", "bge-small"] {
        let from = model_folder(name);
        let to = home.join("models").join(from.file_name().expect("a model has a folder"));
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(&from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            // A copy onto a link would empty the real file.
            assert!(!to.exists(), "the home is there already");
            // Links do not cross file systems; copies do.
            fs::hard_link(entry.path(), &to)
                .or_else(|_| fs::copy(entry.path(), &to).map(drop))
                .unwrap();
        }
    }
    home
}

/// Writes a file and the folders above it.
pub(super) fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("the name is below dir")).unwrap();
    fs::write(path, content).unwrap();
}

/// Copies a folder and all that is in it.
pub(super) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}
