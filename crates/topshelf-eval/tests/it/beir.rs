//! Folders in BEIR's layout, whole and broken.

use std::fs;
use std::path::{Path, PathBuf};

use topshelf_eval::{BeirFolder, CorpusReader, EvalError};

/// A folder that is removed when the test ends, however it ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let root =
            std::env::temp_dir().join(format!("topshelf-beir-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(root)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing can be done about a folder that does not want to go.
        let _ = fs::remove_dir_all(&self.0);
    }
}

const CORPUS: &str = "\u{feff}{\"_id\": \"d1\", \"title\": \"Fleas\", \"text\": \"They jump.\"}\r\n\
                      \r\n\
                      {\"_id\": 2, \"title\": null, \"text\": \"\", \"lang\": \"en\", \
                       \"metadata\": {\"url\": \"u\", \"lang\": \"de\"}}\r\n";
const QUERIES: &str = "{\"_id\": \"q2\", \"text\": \"second\"}\n\
                       {\"_id\": \"q1\", \"text\": \"first\", \"metadata\": {}}\n\
                       {\"_id\": \"q3\", \"text\": \"not judged\"}\n";

#[test]
fn a_whole_folder() {
    let folder = Folder::new(
        "whole",
        &[
            ("corpus.jsonl", CORPUS),
            ("queries.jsonl", QUERIES),
            ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\t2\t2\nq8\td1\t1\n"),
            ("qrels/dev.tsv", "q3\td1\t1\n"),
            ("qrels/notes.txt", ""),
        ],
    );
    let beir = BeirFolder::open(folder.path()).unwrap();
    assert_eq!(beir.splits().unwrap(), ["dev", "test"]);

    let documents: Vec<_> = beir.corpus().unwrap().map(Result::unwrap).collect();
    assert_eq!(documents.len(), 2);
    assert_eq!((documents[0].id.as_str(), documents[0].title.as_str()), ("d1", "Fleas"));
    assert!(documents[0].metadata.is_empty());
    assert_eq!((documents[1].id.as_str(), documents[1].title.as_str()), ("2", ""));
    let metadata = serde_json::to_value(&documents[1].metadata).unwrap();
    assert_eq!(metadata, serde_json::json!({"lang": "en", "url": "u"}));

    let topics = beir.topics("test").unwrap();
    let ids: Vec<&str> = topics.topics.iter().map(|topic| topic.id.as_str()).collect();
    assert_eq!(ids, ["q2", "q1"]);
    assert_eq!(topics.topics[1].text, "first");
    assert_eq!(topics.without_text, ["q8"]);
    assert_eq!(topics.qrels.query_count(), 3);
}

#[test]
fn a_corpus_goes_on_after_a_bad_line() {
    let text = "{\"_id\": \"a\", \"text\": \"x\"}\n\
                {\"_id\": \"b\", \"title\": \"no text\"}\n\
                {\"_id\": \"c\", \"text\": \"cut o\n\
                {\"_id\": \"\", \"text\": \"x\"}\n\
                {\"_id\": [1], \"text\": \"x\"}\n\
                {\"_id\": \"d\", \"text\": \"x\"}\n";
    let read: Vec<_> = CorpusReader::new(text.as_bytes(), "corpus.jsonl").collect();
    assert_eq!(read.len(), 6);
    for (index, said) in [
        (1, "corpus.jsonl, line 2: missing field `text`"),
        (2, "corpus.jsonl, line 3: "),
        (3, "line 4: _id must be a string that is not empty"),
        (4, "line 5: _id must be a string"),
    ] {
        let fault = read[index].as_ref().unwrap_err().to_string();
        assert!(fault.contains(said), "{fault}");
        assert!(!fault.contains("line 1"), "{fault}");
    }
    assert_eq!(read[5].as_ref().unwrap().id, "d");

    let read: Vec<_> =
        CorpusReader::new(&b"\xff\n{\"_id\": \"a\", \"text\": \"x\"}"[..], "corpus.jsonl")
            .collect();
    assert!(matches!(read[0], Err(EvalError::NotUtf8 { line: 1, .. })));
    assert!(read[1].is_ok());
}

#[test]
fn a_failing_reader_ends_the_corpus() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is gone"))
        }
    }
    let mut corpus = CorpusReader::new(std::io::BufReader::new(Failing), "corpus.jsonl");
    let fault = corpus.next().unwrap().unwrap_err().to_string();
    assert_eq!(fault, "corpus.jsonl: the disk is gone");
    assert!(corpus.next().is_none());
}

#[test]
fn what_is_missing_is_named() {
    let folder = Folder::new("missing", &[("corpus.jsonl", CORPUS), ("queries.jsonl", QUERIES)]);
    let fault = BeirFolder::open(folder.path()).unwrap_err().to_string();
    assert!(fault.contains("qrels is missing"), "{fault}");

    let folder = Folder::new(
        "splits",
        &[
            ("corpus.jsonl", CORPUS),
            ("queries.jsonl", QUERIES),
            ("qrels/test.tsv", "q7\td1\t1\n"),
            ("qrels/dev.tsv", "q1\td1\t1\n"),
        ],
    );
    let beir = BeirFolder::open(folder.path()).unwrap();
    let fault = beir.topics("train").unwrap_err().to_string();
    assert!(fault.contains("no split \"train\"; it has: dev, test"), "{fault}");
    let fault = beir.topics("test").unwrap_err().to_string();
    assert!(fault.contains("\"q7\""), "{fault}");
}

#[test]
fn a_query_id_used_twice_is_refused() {
    let folder = Folder::new(
        "twice",
        &[
            ("corpus.jsonl", CORPUS),
            ("queries.jsonl", "{\"_id\": 1, \"text\": \"a\"}\n{\"_id\": \"1\", \"text\": \"b\"}\n"),
            ("qrels/test.tsv", "1\td1\t1\n"),
        ],
    );
    let fault = BeirFolder::open(folder.path()).unwrap().topics("test").unwrap_err();
    assert!(matches!(fault, EvalError::DuplicateQuery { line: 2, first_line: 1, .. }), "{fault}");
}
