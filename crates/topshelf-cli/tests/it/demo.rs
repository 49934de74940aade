//! `topshelf demo`: interrupted and killed it goes on where it was; any folder will do; wrong input is
//! refused with what would be accepted.

#![cfg(unix)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::json::validate;
use super::program::{Outcome, home_with_models, topshelf, write};

/// Judged questions in the small collection.
const QUESTIONS: usize = 14;

/// Longer than this nothing may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// A folder with a cargo home of a few packages, and a home with the models.
struct Scene {
    dir: tempfile::TempDir,
    home: PathBuf,
    questions: BTreeSet<String>,
}

impl Scene {
    /// Packages of Cargo.lock whose documents hold the quotations of a few questions.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = home_with_models(dir.path());
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let lockfile = fs::read_to_string(root.join("../../Cargo.lock")).unwrap();
        let lockfile: toml::Value = toml::from_str(&lockfile).unwrap();
        let packages = lockfile["package"].as_array().unwrap();
        let questions = fs::read_to_string(root.join("data/demo/questions.jsonl")).unwrap();
        let mut asked = BTreeSet::new();
        for line in questions.lines() {
            let question: Value = serde_json::from_str(line).unwrap();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let answer = &question["answers"][0];
            let (name, file, quote) =
                (text(&answer["crate"]), text(&answer["file"]), text(&answer["quote"]));
            let package = packages.iter().find(|package| package["name"].as_str() == Some(&name));
            let Some(package) = package.filter(|_| answer["grade"] == 2) else { continue };
            let folder = format!("{name}-{}", package["version"].as_str().unwrap());
            let file = format!("cargo/registry/src/index/{folder}/{file}");
            let mut document = fs::read_to_string(dir.path().join(&file)).unwrap_or_default();
            let _ = write!(document, "\n# {folder}\n\n{quote}\n");
            for n in 0..4 {
                let filler = format!("Release {n} of {folder} has nothing new for its users. ");
                let _ = write!(document, "\n## Notes {n}\n\n{}\n", filler.repeat(4));
            }
            write(dir.path(), &file, document);
            asked.insert(text(&question["id"]));
            if asked.len() == QUESTIONS {
                return Self { dir, home, questions: asked };
            }
        }
        panic!("few of the packages that the questions are about are in Cargo.lock");
    }

    fn demo(&self, arguments: &[&str]) -> Command {
        self.command(&[&["demo", "--cargo-home", "cargo"], arguments].concat())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = topshelf(self.dir.path(), arguments);
        command.env("TOPSHELF_HOME", &self.home);
        command
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.command(arguments).output().unwrap().into()
    }

    /// The questions in the journal, in its order; whole lines only.
    fn measured(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join("i.measured.jsonl")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let query = |line: &str| -> String {
            let line: Value = serde_json::from_str(line).unwrap();
            line["query"].as_str().unwrap().to_owned()
        };
        whole.lines().skip(1).map(query).collect()
    }

    /// Starts the demo and waits until it has measured `more` questions.
    fn start(&self, more: usize) -> Child {
        let wanted = self.measured().len() + more;
        let mut command = self.demo(&["--index", "i"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let start = Instant::now();
        while self.measured().len() < wanted {
            assert!(start.elapsed() < PATIENCE, "it measures nothing");
            assert_eq!(child.try_wait().unwrap(), None, "it ended before it could be interrupted");
            thread::sleep(Duration::from_millis(2));
        }
        child
    }
}

/// Sends Ctrl-C and answers what was said.
fn interrupt(child: &mut Child, stderr: &mut impl Read) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -INT {}", child.id())).status();
    assert!(sent.unwrap().success());
    let start = Instant::now();
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    // It ends at once; other tests may keep the processors busy.
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?} to stop", start.elapsed());
    assert!(said.ends_with("stopped; the same command goes on from here\n"), "{said}");
}

/// The figures of an answer without its times.
fn figures(answer: &Value) -> Vec<(String, Value, Value)> {
    let systems = answer["evaluation"]["systems"].as_array().unwrap();
    let of_system = |system: &Value| {
        (system["name"].to_string(), system["measures"].clone(), system["per_query"].clone())
    };
    systems.iter().map(of_system).collect()
}

#[test]
fn interrupted_and_killed_it_goes_on_where_it_was() {
    let scene = Scene::new();
    // While the index is made.
    let mut command = scene.demo(&["--index", "i"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert_eq!(said, "indexing a first part ...\n");
    interrupt(&mut child, &mut stderr);

    // While questions are asked: once by Ctrl-C, once by SIGKILL.
    let mut child = scene.start(2);
    let mut stderr = child.stderr.take().unwrap();
    interrupt(&mut child, &mut stderr);
    let first = scene.measured();
    assert!((2..QUESTIONS).contains(&first.len()), "{first:?}");
    let mut child = scene.start(2);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    let second = scene.measured();
    assert!(second.len() < QUESTIONS && second.starts_with(&first), "{second:?}");
    // What a kill in the middle of a line leaves.
    let journal = scene.dir.path().join("i.measured.jsonl");
    let mut file = fs::File::options().append(true).open(&journal).unwrap();
    file.write_all(b"{\"query\":\"q0").unwrap();

    let outcome = Outcome::from(scene.demo(&["--index", "i", "--json"]).output().unwrap());
    assert!(outcome.stderr.contains("the measurement was cut off after"), "{}", outcome.stderr);
    let answer = outcome.json();
    validate("demo", &answer);
    assert_eq!(answer["resumed"], second.len());
    assert_eq!(answer["evaluation"]["queries"], QUESTIONS);
    let all = scene.measured();
    assert!(all.starts_with(&second), "{all:?}");
    assert_eq!(all.len(), QUESTIONS, "something is measured twice: {all:?}");
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), scene.questions);

    // Everything is there: nothing is measured again, and the table is the same to the byte.
    let before = fs::read(&journal).unwrap();
    let [one, two] =
        [(), ()].map(|()| Outcome::from(scene.demo(&["--index", "i"]).output().unwrap()).success());
    assert_eq!(fs::read(&journal).unwrap(), before);
    for expected in [
        "Question: ",
        "questions were left out",
        "note: all questions were measured by an earlier run",
        "hybrid+rerank ",
        "In words: the first result answers",
        "demo --folder docs/ --query",
    ] {
        assert!(one.contains(expected), "{expected:?} is not in\n{one}");
    }
    let table = |text: &str| {
        let rows = text.lines().skip_while(|line| !line.starts_with("system "));
        rows.take_while(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(table(&one), table(&two));
    assert!(table(&one).len() >= 5, "{one}");
    let is_wide = |line: &&str| line.chars().count() > 100 && !line.contains('/'); // a path may be long
    assert_eq!(one.lines().find(is_wide), None);

    // And the figures are those of a run that nobody interrupted.
    let undisturbed = Outcome::from(scene.demo(&["--index", "j", "--json"]).output().unwrap());
    let undisturbed = undisturbed.json();
    assert_eq!(undisturbed["resumed"], 0);
    assert_eq!(figures(&undisturbed), figures(&answer));
}

#[test]
fn a_folder_and_a_question_of_ones_own() {
    let scene = Scene::new();
    let dir = scene.dir.path();
    write(dir, "my docs/login.md", "# Log in\n\nTo log in, send your key in the header.\n");
    write(dir, "my docs/logout.md", "# Log out\n\nClose the window, and you are out.\n");
    // Names and texts that would clear the screen and turn the line around.
    let hostile = "log in \u{1b}[31mred\u{7} \u{202e}txet \u{9b}2J in";
    write(dir, "my docs/\u{1b}[2J\u{202e}evil.md", hostile);
    write(dir, "my docs/wide.md", format!("log in {} {}", "漢字".repeat(300), "w".repeat(900)));
    write(dir, "my docs/picture.png", b"\x89PNG\r\n\x1a\n");
    let arguments = ["demo", "--folder", "my docs", "--query", "How do I log in?"];
    let outcome = scene.run(&arguments);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    for text in [&outcome.stdout, &outcome.stderr] {
        let odd = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!text.contains(odd), "{text:?}");
    }
    for expected in [
        "login.md#0",
        "Reranked: a cross-encoder read",
        "Nobody has judged this question",
        "demo --folder 'my docs' --query",
        "--explain 'How do I log in?'",
    ] {
        assert!(outcome.stdout.contains(expected), "{expected:?} is not in\n{}", outcome.stdout);
    }
    assert!(outcome.stderr.contains("skipped: "), "{}", outcome.stderr);

    // Again as JSON: the index is there, and it follows the folder.
    fs::remove_file(dir.join("my docs/wide.md")).unwrap();
    let answer = scene.run(&[&arguments[..], &["--json"]].concat()).json();
    validate("demo", &answer);
    assert_eq!(answer["totals"]["documents"], 3);
    assert_eq!(answer["evaluation"], Value::Null);
    assert_eq!(answer["example"]["hits"][0]["id"], "login.md#0");

    // What a link brought in from elsewhere goes with the link.
    #[cfg(unix)]
    {
        write(dir, "elsewhere/log in.md", "How do I log in? By the back door.\n");
        let link = dir.join("my docs/link");
        std::os::unix::fs::symlink(dir.join("elsewhere"), &link).unwrap();
        let answer = scene.run(&[&arguments[..], &["--json"]].concat()).json();
        assert_eq!(answer["totals"]["documents"], 4);
        fs::remove_file(link).unwrap();
        let answer = scene.run(&[&arguments[..], &["--json"]].concat()).json();
        assert_eq!(answer["totals"]["documents"], 3);
    }

    // An index with other documents in it is somebody's own.
    write(dir, "other/cat.md", "# Cats\n\nA cat lives for fifteen years.\n");
    let made = scene.run(&["index", "add", "my docs", "other", "--index", "own.index"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    fs::create_dir(dir.join("empty")).unwrap();
    write(dir, "binary/picture.png", b"\x89PNG\r\n\x1a\n");
    fs::create_dir_all(dir.join("bare/registry/src/index/unheard-of-1.0.0")).unwrap();
    for (arguments, expected) in [
        (&["--folder", "my docs"][..], "--folder needs a question"),
        (&["--folder", "nowhere", "--query", "q"], "there is no folder nowhere"),
        (&["--folder", "my docs/login.md", "--query", "q"], "is a file"),
        (&["--folder", "empty", "--query", "q"], "is empty"),
        (&["--folder", "binary", "--query", "q"], "nothing in binary could be indexed"),
        (&["--folder", "my docs", "--query", " "], "query"),
        (
            &["--folder", "my docs", "--query", "q", "--index", "own.index"],
            "also holds other documents",
        ),
        (
            &["--folder", "my docs", "--query", "q", "--index", "my docs/i"],
            "cannot lie in the folder",
        ),
        (&["--folder", "my docs", "--query", "the of"], "no word"),
        (&["--folder", "my docs", "--full", "--query", "q"], "cannot be used with"),
        (&["--cargo-home", "nowhere"], "cargo's registry folder is not here"),
        (&["--cargo-home", "bare"], "none of the packages this program was built from"),
    ] {
        let outcome = scene.run(&[&["demo"], arguments].concat());
        assert_eq!(outcome.code, Some(2), "{arguments:?}: {outcome:?}");
        assert!(outcome.stderr.contains(expected), "{arguments:?}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{arguments:?}");
    }
}
