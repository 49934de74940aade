//! Tokens of documents that come again, as a caller sees them.

use std::env;

use topshelf_models::{CrossEncoder, ModelError, TokenCacheCounts};

use super::inference::{CROSS, bits, folder};
use super::native::{ROLE, child};

const QUERIES: [&str; 2] = ["what do hedgehogs eat", "how are violins tuned"];
const DOCUMENTS: [&str; 3] = ["Beetles and worms.", "By turning the pegs.", "It rained."];

fn scores(model: &CrossEncoder, query: &str) -> Vec<u32> {
    bits(&model.predict(&DOCUMENTS.map(|document| (query, document))).unwrap())
}

#[test]
fn clones_share_what_they_read_and_score_it_the_same() {
    let model = CrossEncoder::from_folder(&folder(CROSS)).unwrap();
    let before = model.token_cache(); // a first load reads the golden pairs
    let first = QUERIES.map(|query| scores(&model, query));
    let counts = model.token_cache();
    assert_eq!((counts.misses - before.misses, counts.hits - before.hits), (3, 3));
    let again = QUERIES.map(|query| scores(&model.clone(), query));
    assert_eq!(first, again);
    let counts = model.token_cache();
    assert_eq!((counts.misses - before.misses, counts.hits - before.hits), (3, 9));
    assert!(counts.bytes > before.bytes);
}

#[test]
fn the_variable_turns_it_off_and_a_wrong_value_is_refused() {
    if env::var_os(ROLE).is_some() {
        match CrossEncoder::from_folder(&folder(CROSS)) {
            Ok(model) => {
                scores(&model, QUERIES[0]);
                println!("counts {:?}", model.token_cache());
            }
            Err(error @ ModelError::Setting { .. }) => println!("refused: {error}"),
            Err(other) => panic!("{other}"),
        }
        return;
    }
    let with = |value| {
        let test = "it::token_cache::the_variable_turns_it_off_and_a_wrong_value_is_refused";
        child(test, &[("TOPSHELF_TOKEN_CACHE", value)])
    };
    let none = format!("counts {:?}", TokenCacheCounts::default());
    assert!(with("0").contains(&none));
    let some = with("1");
    assert!(some.contains("counts ") && !some.contains(&none), "{some}");
    let refused = with("much");
    assert!(refused.contains("refused: TOPSHELF_TOKEN_CACHE is \"much\"; unset it"), "{refused}");
}
