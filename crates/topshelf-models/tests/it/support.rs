//! Miniature models for the tests of the store: a few bytes in place of weights, in a wheel or
//! on a hub of the tests' own.

use std::cell::RefCell;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use topshelf_models::pull::{Environment, HubSettings, PullOptions, PullProgress};
use topshelf_models::{Catalogue, Store};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Tells a test that it runs as the child of itself, and where its fixture lies.
const ROLE: &str = "TOPSHELF_TEST_FIXTURE";

/// Names of the two miniature models, both in one wheel.
pub(crate) const CROSS: &str = "tiny/cross";
pub(crate) const BI: &str = "tiny/bi";

/// SHA-256 in hex.
pub(crate) fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes that do not compress, the same at every call.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Hears the steps of a pull.
#[derive(Default)]
pub(crate) struct Steps {
    messages: RefCell<Vec<String>>,
    bytes: RefCell<Vec<(u64, u64)>>,
}

impl Steps {
    pub(crate) fn messages(&self) -> Vec<String> {
        self.messages.borrow().clone()
    }

    pub(crate) fn downloads(&self) -> usize {
        self.messages.borrow().iter().filter(|step| step.starts_with("downloading")).count()
    }

    pub(crate) fn last_bytes(&self) -> Option<(u64, u64)> {
        self.bytes.borrow().last().copied()
    }
}

impl PullProgress for Steps {
    fn step(&self, message: &str) {
        self.messages.borrow_mut().push(message.to_owned());
    }

    fn bytes(&self, done: u64, total: u64) {
        self.bytes.borrow_mut().push((done, total));
    }
}

/// A folder with a package index of one wheel, an empty store, and an empty hub cache.
pub(crate) struct Fixture {
    _temporary: Option<TempDir>,
    pub(crate) root: PathBuf,
}

impl Fixture {
    /// A wheel with the given weights for each model.
    pub(crate) fn new(weights: &[u8]) -> Self {
        let temporary = tempfile::tempdir().expect("a temporary folder");
        let root = temporary.path().to_owned();
        let wheel = wheel(weights);
        fs::create_dir(root.join("index")).unwrap();
        fs::write(root.join("index/tinymodels-1.0-py3-none-any.whl"), &wheel).unwrap();
        fs::write(root.join("catalogue.toml"), catalogue(weights, &wheel)).unwrap();
        Self { _temporary: Some(temporary), root }
    }

    /// The fixture of the parent, where this process is the child of a test.
    pub(crate) fn of_parent() -> Option<Self> {
        env::var_os(ROLE).map(|root| Self { _temporary: None, root: root.into() })
    }

    /// This test program, running only the named test, as the child of that test.
    pub(crate) fn child(&self, test: &str) -> Command {
        let mut command = Command::new(env::current_exe().expect("the test program"));
        command.args([test, "--exact", "--nocapture"]).env(ROLE, &self.root).stdout(Stdio::piped());
        command
    }

    /// The text of the catalogue.
    pub(crate) fn catalogue(&self) -> String {
        fs::read_to_string(self.root.join("catalogue.toml")).unwrap()
    }

    pub(crate) fn store(&self) -> Store {
        self.store_with(&self.catalogue())
    }

    pub(crate) fn store_with(&self, catalogue: &str) -> Store {
        let catalogue = Catalogue::parse(catalogue).expect("the catalogue of the tests");
        Store::at(self.root.join("store")).with_catalogue(catalogue)
    }

    /// Pulls from the fixture's wheel; no hub can be reached.
    pub(crate) fn options(&self) -> PullOptions {
        let index = self.root.join("index").to_string_lossy().into_owned();
        PullOptions {
            from: None,
            force: false,
            environment: Environment {
                python: None,
                pip_options: vec!["--no-index".into(), "--find-links".into(), index],
                hub: HubSettings {
                    cache: Some(self.root.join("hub")),
                    offline: true,
                    ..HubSettings::default()
                },
            },
        }
    }

    /// What lies in the store, without the lock files.
    pub(crate) fn store_entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join("store")).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with(".lock-"))
            .collect();
        names.sort();
        names
    }
}

/// The content of the two tokenizers.
fn tokenizer(model: &str) -> String {
    format!("{{\"model\": \"{model}\"}}")
}

fn wheel(weights: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut add = |name: &str, content: &[u8]| {
        zip.start_file(name, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    };
    for model in ["cross", "bi"] {
        add(&format!("tinymodels/{model}/model.onnx"), weights);
        add(&format!("tinymodels/{model}/tokenizer.json"), tokenizer(model).as_bytes());
    }
    add(
        "tinymodels-1.0.dist-info/METADATA",
        b"Metadata-Version: 2.1\nName: tinymodels\nVersion: 1.0\n",
    );
    add(
        "tinymodels-1.0.dist-info/WHEEL",
        b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    );
    add("tinymodels-1.0.dist-info/RECORD", b"");
    zip.finish().unwrap().into_inner()
}

fn catalogue(weights: &[u8], wheel: &[u8]) -> String {
    let mut text = format!("[defaults]\ncross-encoder = \"{CROSS}\"\nbi-encoder = \"{BI}\"\n");
    for (name, folder, family, settings) in
        [(CROSS, "cross", "cross-encoder", ""), (BI, "bi", "bi-encoder", "pooling = \"cls\"")]
    {
        let tokenizer = tokenizer(folder);
        write!(
            text,
            r#"
[[models]]
name = "{name}"
aliases = ["the-{folder}"]
family = "{family}"
description = "A miniature."
licence = "MIT"
language = "en"
max_tokens = 512
{settings}
files = [
    {{ name = "model.onnx", sha256 = "{}", bytes = {} }},
    {{ name = "tokenizer.json", sha256 = "{}", bytes = {} }},
]

[[models.sources]]
kind = "pip"
package = "tinymodels"
version = "1.0"
wheel_sha256 = "{}"
wheel_bytes = {}
folder = "tinymodels/{folder}"

[[models.sources]]
kind = "hub"
repo = "{name}"
revision = "main"
paths = ["onnx/model.onnx", "tokenizer.json"]
sha256 = []
"#,
            sum(weights),
            weights.len(),
            sum(tokenizer.as_bytes()),
            tokenizer.len(),
            sum(wheel),
            wheel.len(),
        )
        .unwrap();
    }
    text
}

/// Changes one bit in the middle of a file, keeping its length.
pub(crate) fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Cuts one byte off a file.
pub(crate) fn truncate(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
}
