//! The JSON schema of each command's answer, and the test that holds docs/schema to it.
//!
//! After a change of [`crate::output`], `TOPSHELF_BLESS=1 cargo test -p topshelf-cli schemas`
//! writes the files anew.

use std::env;
use std::fs;
use std::path::Path;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use crate::output::{
    AskAnswer, DemoAnswer, EvalAnswer, EvalCompared, IndexAdded, IndexRemoved, IndexStats,
    JudgeAnswer, ModelShown, ModelsDone, ModelsList, RerankAnswer, ScoreCacheCleared,
    ScoreCacheStats, SearchAnswer, tuned::TuneAnswer,
};

/// What the command writes, not what it would accept: a field that is always there is required.
fn schema<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}

/// The schemas under the names of their files.
fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("models-list", schema::<ModelsList>()),
        ("models-show", schema::<ModelShown>()),
        ("models-pull", schema::<ModelsDone>()),
        ("models-verify", schema::<ModelsDone>()),
        ("index-add", schema::<IndexAdded>()),
        ("index-remove", schema::<IndexRemoved>()),
        ("index-stats", schema::<IndexStats>()),
        ("search", schema::<SearchAnswer>()),
        ("ask", schema::<AskAnswer>()),
        ("rerank", schema::<RerankAnswer>()),
        ("cache-stats", schema::<ScoreCacheStats>()),
        ("cache-clear", schema::<ScoreCacheCleared>()),
        ("judge", schema::<JudgeAnswer>()),
        ("eval", schema::<EvalAnswer>()),
        ("eval-compare", schema::<EvalCompared>()),
        ("tune", schema::<TuneAnswer>()),
        ("demo", schema::<DemoAnswer>()),
    ]
}

#[test]
fn the_files_in_docs_schema_are_those_of_the_answers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema");
    let bless = env::var_os("TOPSHELF_BLESS").is_some();
    let mut expected = Vec::new();
    for (name, schema) in schemas() {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = folder.join(format!("{name}.json"));
        if bless {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        // Line ends may have been changed by the checkout.
        let found = found.replace("\r\n", "\n");
        assert!(
            found == text,
            "{} is not the schema of what the program answers; if the change is meant, run the \
             test again with TOPSHELF_BLESS=1 and read the difference",
            path.display()
        );
        expected.push(format!("{name}.json"));
    }
    expected.sort();
    let mut there: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    assert_eq!(there, expected, "docs/schema holds the schema of each command and nothing else");
}
