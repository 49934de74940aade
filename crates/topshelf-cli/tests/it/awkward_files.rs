//! A folder with all that goes wrong with files: each bad one is named with its reason, and all
//! others are indexed and found.

#![cfg(unix)]

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::program::{Outcome, run, write};

/// Who `nobody` is where user numbers are shared out as usual.
const NOBODY: u32 = 65534;

/// Good files, each with a word of its own.
const FOUND: [(&str, &str); 7] = [
    ("albatross", "mixed/good.md"),
    ("bandicoot", "mixed/page.html"),
    ("capybara", "mixed/notes.txt"),
    ("dromedary", "record-1"),
    ("echidna", "row-1"),
    ("flamingo", "mixed/paper.pdf"),
    ("gibbon", "mixed/lossy.txt"),
];

/// Bad files, and what is said of each.
const SKIPPED: [(&str, &str); 7] = [
    ("mixed/huge.txt", "its 200 MB are more than the 50 MB that are read; split it"),
    ("mixed/program", "it is binary"),
    ("mixed/empty.md", "it is empty"),
    ("mixed/scan.pdf", "its pages hold no text"),
    ("mixed/torn.pdf", "it cannot be read as PDF"),
    ("mixed/sub/up", "it is a link to a folder above itself"),
    ("mixed/dangling.md", "it is not there"),
];

fn write_files(dir: &Path) {
    write(dir, "mixed/good.md", "# Birds\n\nThe albatross glides for hours.\n");
    write(
        dir,
        "mixed/page.html",
        "<!DOCTYPE html><title>Beasts</title><p>The <b>bandicoot</b> digs at night.</p>",
    );
    write(dir, "mixed/notes.txt", "The capybara swims well.\n");
    write(
        dir,
        "mixed/records.jsonl",
        "{\"_id\": \"record-1\", \"text\": \"The dromedary has one hump.\"}\n{\"no text\": 1}\n{torn\n",
    );
    write(dir, "mixed/table.csv", "id,title,text\nrow-1,Spines,The echidna lays eggs.\n");
    write(dir, "mixed/paper.pdf", pdf("BT /F1 12 Tf 72 700 Td (The flamingo stands.) Tj ET"));
    // Mostly whole UTF-8, with one byte that is none.
    let mut lossy = "Im Zoo wohnt der gibbon, größer als gewöhnlich: ".as_bytes().to_vec();
    lossy.extend(b"\xff\n");
    write(dir, "mixed/lossy.txt", lossy);

    // It begins like a text, so that only its length speaks against it.
    write(dir, "mixed/huge.txt", "All work and no play.\n".repeat(1000));
    let huge = File::options().write(true).open(dir.join("mixed/huge.txt")).unwrap();
    huge.set_len(200_000_000).unwrap(); // sparse: it takes no room
    write(dir, "mixed/program", b"\x7fELF\x02\x01\x01\x00\x00\x00");
    write(dir, "mixed/empty.md", "");
    write(dir, "mixed/scan.pdf", pdf("0 0 612 792 re f"));
    write(dir, "mixed/torn.pdf", &pdf("BT ET")[..100]);
    fs::create_dir(dir.join("mixed/sub")).unwrap();
    symlink("..", dir.join("mixed/sub/up")).unwrap();
    symlink("nowhere.md", dir.join("mixed/dangling.md")).unwrap();
    write(dir, "mixed/secret.md", "# Secret\n\nThe hedgehog hides.\n");
    fs::set_permissions(dir.join("mixed/secret.md"), Permissions::from_mode(0o000)).unwrap();
}

/// A PDF of one page with this content.
fn pdf(content: &str) -> Vec<u8> {
    let stream = format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len());
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R \
         /Resources << /Font << /F1 5 0 R >> >> >>",
        &stream,
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ];
    let mut file = "%PDF-1.4\n".to_owned();
    let mut table = "0000000000 65535 f \n".to_owned();
    for (number, object) in (1..).zip(objects) {
        let _ = writeln!(table, "{:010} 00000 n ", file.len()); // a string takes all
        let _ = writeln!(file, "{number} 0 obj\n{object}\nendobj");
    }
    let (at, size) = (file.len(), objects.len() + 1);
    let _ = write!(
        file,
        "xref\n0 {size}\n{table}trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{at}\n%%EOF\n"
    );
    file.into_bytes()
}

/// Runs the program as a user to whom permissions apply. Root reads everything, so as root it
/// goes through `setpriv`; where that is not to be had the answer says that permissions were
/// not tested, by its second half.
fn run_unprivileged(dir: &Path, arguments: &[&str]) -> (Outcome, bool) {
    if File::open(dir.join("mixed/secret.md")).is_err() {
        return (run(dir, arguments), true);
    }
    let as_nobody = |program: &Path| {
        let mut command = Command::new("setpriv");
        let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        command.args(user).arg("--clear-groups").arg(program);
        command.current_dir(dir).stdin(Stdio::null());
        command
    };
    // The build folder may be closed to others; this one is not.
    fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
    let program = dir.join("topshelf");
    fs::copy(env!("CARGO_BIN_EXE_topshelf"), &program).unwrap();
    let works = as_nobody(&program).arg("--version").output();
    if !works.is_ok_and(|output| output.status.success()) {
        return (run(dir, arguments), false);
    }
    (as_nobody(&program).args(arguments).output().unwrap().into(), true)
}

/// The messages under a key of the answer by the file they speak of.
fn notices(answer: &Value, key: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("it is a text").to_owned();
    let notices = answer[key].as_array().expect("it is a list");
    notices.iter().map(|notice| (text(&notice["path"]), text(&notice["message"]))).collect()
}

#[test]
fn bad_files_are_named_and_good_ones_found() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write_files(dir);
    let arguments = ["index", "add", "mixed", "--index", "i", "--embed", "none", "--json"];
    let (outcome, permissions_apply) = run_unprivileged(dir, &arguments);
    let stderr = outcome.stderr.clone();
    let answer = outcome.json();

    let mut expected = SKIPPED.to_vec();
    if permissions_apply {
        expected.push(("mixed/secret.md", "there is no permission to read it"));
    }
    expected.push(("mixed/records.jsonl", "line 2: the record was left out"));
    expected.push(("mixed/records.jsonl", "line 3: the record was left out"));
    let skipped = notices(&answer, "skipped");
    for (path, reason) in &expected {
        let told = skipped
            .iter()
            .any(|(at, message)| at == path && message.contains(path) && message.contains(reason));
        assert!(told, "{path} is not told as \"{reason}\": {skipped:#?}");
        let line = |line: &str| line.contains(path) && line.contains(reason);
        assert!(stderr.lines().any(line), "{path} is not on standard error:\n{stderr}");
    }
    assert_eq!(skipped.len(), expected.len(), "{skipped:#?}");
    let [(path, warning)] = &notices(&answer, "warnings")[..] else {
        panic!("not one warning: {answer:#}")
    };
    assert_eq!(path, "mixed/lossy.txt");
    assert!(warning.contains("broken UTF-8: 1 places from byte 51"), "{warning}");
    assert!(stderr.contains(warning), "{stderr}");

    for (word, document) in FOUND {
        let arguments =
            ["search", word, "--index", "i", "--retriever", "bm25", "--rerank", "none", "--json"];
        let found = run(dir, &arguments).json();
        let hits: Vec<&Value> =
            found["hits"].as_array().unwrap().iter().map(|hit| &hit["document"]).collect();
        assert_eq!(hits, [document], "{word}");
    }
    let readable = FOUND.len() + usize::from(!permissions_apply);
    assert_eq!(answer["totals"]["documents"], readable, "{answer:#}");

    // What was skipped is looked at again, and told again; what was indexed is left in peace.
    let (outcome, _) = run_unprivileged(dir, &arguments);
    let again = outcome.json();
    assert_eq!((&again["files_added"], &again["files_updated"]), (&0.into(), &0.into()));
    assert_eq!(again["totals"], answer["totals"]);
    let again =
        notices(&again, "skipped").iter().filter(|(at, _)| at != "mixed/records.jsonl").count();
    assert_eq!(again, expected.len() - 2);
}
