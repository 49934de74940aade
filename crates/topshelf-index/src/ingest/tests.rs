//! Folders with everything in them that can go wrong, and bytes of any kind.

use std::fs::{self, File};
use std::path::Path;

use proptest::prelude::*;

use super::pdf::tests::{line, pdf};
use super::*;
use crate::chunk::{ChunkOptions, chunk};

/// All documents below a folder, and what was not read.
fn read_all(path: &Path, options: &IngestOptions) -> (Vec<Document>, Vec<Skipped>) {
    let (mut read, mut skipped) = (Vec::new(), Vec::new());
    for found in walk(&[path.to_owned()], options) {
        match found {
            Ok(source) => {
                for document in documents(&source, options) {
                    document.map_or_else(|s| skipped.push(s), |d| read.push(d));
                }
            }
            Err(error) => skipped.push(error),
        }
    }
    (read, skipped)
}

#[test]
fn a_title_that_says_nothing_gets_the_folder_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("parser-2.1");
    std::fs::create_dir(&folder).unwrap();
    let title = |name: &str, content: &str| {
        let path = folder.join(name);
        std::fs::write(&path, content).unwrap();
        let options = IngestOptions::default();
        let source = walk(&[path], &options).remove(0).unwrap();
        documents(&source, &options).next().unwrap().unwrap().title
    };
    assert_eq!(title("CHANGELOG.md", "# Changelog\n\n- x\n"), "parser-2.1 Changelog");
    assert_eq!(title("README.md", "No heading.\n"), "parser-2.1 README");
    assert_eq!(title("guide.md", "# Writing parsers\n\nx\n"), "Writing parsers");
}

#[cfg(unix)]
#[test]
fn each_file_that_cannot_be_read_is_named_and_the_others_are_read() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("good.md"), "# Fleas\n\nThey jump.\n").unwrap();
    fs::write(at("good.pdf"), pdf(&[&line("Text on a page")])).unwrap();
    fs::write(at("huge.txt"), "text ".repeat(4000)).unwrap();
    File::options().write(true).open(at("huge.txt")).unwrap().set_len(200_000_000).unwrap();
    fs::write(at("program.bin"), b"\x7fELF\x02\x01\x01\x00\x00").unwrap();
    fs::write(at("empty.md"), "").unwrap();
    fs::write(at("blank.md"), " \n\n<!-- nothing -->\n").unwrap();
    fs::write(at("broken.txt"), b"na\xc3\xafve caf\xc3\xa9s, then \xff\xfe.").unwrap();
    fs::write(at("scan.pdf"), pdf(&["0 0 10 10 re f"])).unwrap();
    fs::write(at("torn.pdf"), &pdf(&[&line("x")])[..60]).unwrap();
    fs::create_dir(at("sub")).unwrap();
    symlink(dir.path(), at("sub/up")).unwrap();
    fs::write(at("secret.md"), "secret").unwrap();
    fs::set_permissions(at("secret.md"), fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser reads it all the same.
    let is_secret = fs::read(at("secret.md")).is_err();

    let (read, skipped) = read_all(dir.path(), &IngestOptions::default());
    let told = |name: &str| {
        let of_file: Vec<&Skipped> = skipped.iter().filter(|s| s.path == at(name)).collect();
        assert_eq!(of_file.len(), 1, "{name}: {skipped:?}");
        let message = of_file[0].to_string();
        assert!(message.contains(name), "{message}");
        of_file[0].reason.clone()
    };
    let limit = IngestOptions::default().max_file_bytes;
    assert_eq!(told("huge.txt"), SkipReason::TooLarge { bytes: 200_000_000, limit });
    assert_eq!(told("program.bin"), SkipReason::Binary);
    assert_eq!(told("empty.md"), SkipReason::Empty);
    assert_eq!(told("blank.md"), SkipReason::Empty);
    assert_eq!(told("scan.pdf"), SkipReason::PdfWithoutText);
    assert!(matches!(told("torn.pdf"), SkipReason::PdfBroken { .. }));
    assert_eq!(told("sub/up"), SkipReason::SymlinkLoop);
    if is_secret {
        assert_eq!(told("secret.md"), SkipReason::Permission);
    }
    let names: Vec<&str> = read.iter().filter_map(|d| d.id.rsplit('/').next()).collect();
    let all = ["broken.txt", "good.md", "good.pdf", "secret.md"];
    assert_eq!(names, all[..all.len() - usize::from(is_secret)]);
    let broken = &read[0].warnings[0];
    assert!(broken.to_string().contains("broken.txt"), "{broken}");
    assert_eq!(broken.reason, WarningReason::BrokenUtf8 { at: 20, places: 2 });
}

#[test]
fn a_path_that_is_not_there_is_told_and_a_hidden_one_that_is_named_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let hidden = dir.path().join(".notes.md");
    fs::write(&hidden, "# Notes\n\nHidden.\n").unwrap();
    let options = IngestOptions::default();
    assert_eq!(walk(&[dir.path().to_owned()], &options), []);
    let found = walk(&[hidden.clone(), dir.path().join("absent")], &options);
    assert_eq!(found[0].as_ref().unwrap().path, hidden);
    assert_eq!(found[1].as_ref().unwrap_err().reason, SkipReason::NotFound);
}

/// What every reader promises, and that passages can be made of it.
fn check(document: &Document) {
    let mut end = 0;
    for block in &document.blocks {
        assert!(block.range.start >= end && block.range.start < block.range.end, "{document:?}");
        assert!(!document.text[block.range.clone()].trim().is_empty());
        end = block.range.end;
    }
    let count = |text: &str| text.split_whitespace().count();
    let options = ChunkOptions { max_tokens: 16, overlap_tokens: 4 };
    for passage in chunk(document, &options, &count) {
        assert_eq!(passage.text, document.text[passage.range]);
    }
}

fn check_bytes(name: &str, bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    let options = IngestOptions { max_record_bytes: 64, ..IngestOptions::default() };
    let (read, skipped) = read_all(&path, &options);
    let is_record = name.ends_with("csv") || name.ends_with("jsonl");
    assert!(is_record || read.len() + skipped.len() == 1, "{read:?} {skipped:?}");
    read.iter().for_each(check);
}

const NAMES: [&str; 6] = ["a.md", "a.html", "a.txt", "a.rs", "a.jsonl", "a.csv"];

/// Pieces of markup, whole and torn.
fn markup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "# ",
            "## ",
            "\n",
            "\n\n",
            "- ",
            "> ",
            "```",
            "    ",
            "---\n",
            "+++\n",
            "===\n",
            "| a |",
            "|---|",
            "<!--",
            "-->",
            "<",
            ">",
            "</",
            "<h1>",
            "</h1>",
            "<p>",
            "<pre>",
            "</pre>",
            "<nav>",
            "<script>",
            "<title>",
            "&amp;",
            "&#x",
            "[a](b)",
            "![",
            "](",
            "[^1]: ",
            "a: 1\n",
            "t = 1\n",
            "{\"text\": \"",
            "\"}",
            "\",\"",
            "\"",
            ",",
            "\\u00",
            "\r\n",
            "\u{feff}",
            "1. ",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
        "[a-z é漢\u{301}.]{0,12}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(
        name in prop::sample::select(NAMES.to_vec()),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        check_bytes(name, &bytes);
    }

    #[test]
    fn no_markup_makes_a_reader_panic(
        name in prop::sample::select(NAMES.to_vec()),
        bytes in markup(),
    ) {
        check_bytes(name, &bytes);
    }

    #[test]
    fn no_damage_to_a_pdf_makes_its_reader_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        length in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = pdf(&[&line("Fleas and cats"), "q /Loop Do Q", &line("They jump.")]);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(length.index(bytes.len()));
        }
        prop_assume!(!bytes.is_empty());
        check_bytes("a.pdf", &bytes);
    }
}
