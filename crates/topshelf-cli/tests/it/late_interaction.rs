//! Late interaction from outside: token vectors in an index, and what answered what.

use serde_json::Value;

use super::program::{models, run, write};

/// Passages in two files, with token vectors.
fn with_index(dir: &std::path::Path, tier: &str) {
    models();
    run(dir, &["models", "pull", "colbert"]).success();
    write(dir, "docs/fleas.md", "# Fleas\n\nA flea lives for up to a year. It jumps far.\n");
    write(dir, "docs/cats.md", "# Cats\n\nA cat lives for fifteen years.\n");
    let tier = format!("--token-vectors={tier}");
    let add = ["index", "add", "docs", "--index", "i", "--embed", "none", &tier];
    run(dir, &add).success();
}

const SEARCH: [&str; 8] = [
    "search",
    "how old do fleas get",
    "--index",
    "i",
    "--rerank",
    "colbert",
    "--no-profile",
    "--explain",
];

fn engine(answer: &Value) -> &str {
    answer["report"]["second_stage"]["rerankers"][0]["engine"].as_str().expect("an engine")
}

#[test]
fn stored_vectors_are_used_and_tokens_explained() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir, "int8");
    let stored = run(dir, &[&SEARCH[..], &["--json"]].concat()).json();
    let anew = run(dir, &[&SEARCH[..], &["--json", "--encode-anew"]].concat()).json();
    assert!(engine(&stored).starts_with("stored int8 vectors"), "{}", engine(&stored));
    assert!(engine(&anew).starts_with("topshelf-"), "{}", engine(&anew));
    let score = |answer: &Value| answer["hits"][0]["score"].as_f64().expect("a score");
    assert!((score(&stored) - score(&anew)).abs() < 0.02, "{} {}", score(&stored), score(&anew));
    assert_eq!(stored["hits"][0]["document"], "docs/fleas.md");
    let matches = stored["hits"][0]["matches"].as_array().expect("matches");
    assert_eq!(matches.len(), 32);
    let of = |word: &str| matches.iter().find(|found| found["query"] == word).expect("the word");
    let text = "Fleas\nA flea lives for up to a year. It jumps far.";
    let span = &of("##s")["span"];
    let (start, end) = (span["start"].as_u64().unwrap(), span["end"].as_u64().unwrap());
    assert!(text.get(start as usize..end as usize).is_some(), "{span}");

    let told = run(dir, &SEARCH).success();
    assert!(told.contains("old → "), "{told}");
    assert!(!told.contains('\u{1b}'), "no colours in a pipe: {told}");

    let stats = run(dir, &["index", "stats", "--index", "i", "--check", "--json"]).json();
    let kept = &stats["token_vectors"];
    assert_eq!((kept["tier"].as_str(), kept["dimension"].as_u64()), (Some("int8"), Some(96)));
    assert!(kept["drift"].is_null());
    // Added later, without being told of token vectors again.
    write(dir, "docs/dogs.md", "# Dogs\n\nA dog lives for twelve years.\n");
    run(dir, &["index", "add", "docs", "--index", "i"]).success();
    let stats = run(dir, &["index", "stats", "--index", "i", "--json"]).json();
    assert!(stats["token_vectors"]["vectors"].as_u64() > kept["vectors"].as_u64());
    assert!(stats["token_vectors"]["drift"].is_number());
    let told = run(dir, &["index", "stats", "--index", "i"]).success();
    assert!(told.contains("times as badly"), "{told}");
}

#[test]
fn a_tier_that_is_none_and_one_that_was_not_chosen_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir, "2bit");
    for (tier, says) in [("3bit", "f16, int8, 4bit, 2bit"), ("int8", "build a new index")] {
        let tier = format!("--token-vectors={tier}");
        let refused = run(dir, &["index", "add", "docs", "--index", "i", &tier]);
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(says), "{refused:?}");
    }
    let refused = run(
        dir,
        &["index", "add", "docs", "--index", "j", "--token-vectors", "--token-model", "minilm-l12"],
    );
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("is a cross-encoder"), "{refused:?}");
    // Cross-encoders do not mind the token vectors.
    run(dir, &["search", "fleas", "--index", "i", "--no-profile"]).success();
}

#[test]
fn tokens_find_passages_alone_and_fused_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    with_index(dir, "4bit");
    let search = ["search", "how old do fleas get", "--index", "i", "--rerank", "none"];
    let by = |retriever: &str| {
        let rest = ["--no-profile", "--json", "--retriever", retriever];
        run(dir, &[&search[..], &rest].concat()).json()
    };
    let names = |answer: &Value| -> Vec<String> {
        let ran = answer["report"]["retrievers"].as_array().expect("what ran");
        ran.iter().map(|own| own["name"].as_str().expect("a name").to_owned()).collect()
    };
    let alone = by("colbert");
    assert_eq!(names(&alone), ["colbert"]);
    assert_eq!(alone["hits"][0]["document"], "docs/fleas.md");
    assert_eq!(alone["hits"].as_array().map(Vec::len), Some(2));
    let fused = by("hybrid-colbert");
    assert_eq!(names(&fused), ["bm25", "colbert"]);
    assert_eq!(fused["hits"][0]["document"], "docs/fleas.md");
    // The second stage gives the candidates the very scores that they were found with.
    let both =
        ["--no-profile", "--json", "--retriever", "colbert", "--rerank", "colbert", "--blend=1"];
    let both = run(dir, &[&search[..4], &both].concat()).json();
    assert_eq!(both["hits"][0]["score"], alone["hits"][0]["score"]);
}

#[test]
fn an_index_without_token_vectors_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(dir, "docs/fleas.md", "# Fleas\n\nA flea lives for up to a year.\n");
    run(dir, &["index", "add", "docs", "--index", "i", "--embed", "none"]).success();
    let search = ["search", "fleas", "--index", "i", "--no-profile", "--retriever", "colbert"];
    let refused = run(dir, &search);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("--token-vectors"), "{refused:?}");
}

/// The default model as it is without its projection: states of 384 numbers.
fn without_projection(dir: &std::path::Path) {
    models();
    run(dir, &["models", "pull", "colbert"]).success();
    let shown = run(dir, &["models", "show", "colbert", "--json"]).json();
    let folder = std::path::PathBuf::from(shown["folder"].as_str().expect("a folder"));
    std::fs::create_dir(dir.join("bare")).unwrap();
    for name in ["model.onnx", "tokenizer.json"] {
        std::fs::copy(folder.join(name), dir.join("bare").join(name)).unwrap();
    }
    write(
        dir,
        "bare/topshelf.toml",
        "name = \"./bare\"\nfamily = \"late-interaction\"\nquery_prefix = \"[unused0]\"\npassage_prefix = \"[unused1]\"\n\
         tokens = { query_tokens = 32, passage_tokens = 300, expansion = \"unattended\" }\n",
    );
}

#[test]
fn states_without_a_projection_are_reduced_in_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    without_projection(dir);
    // As many vectors as a reduction to 96 numbers wants.
    for n in 0..30 {
        let text =
            format!("# Chapter {n}\n\nHere is told of {n} birds and of the year {}.\n", 1900 + n);
        write(dir, &format!("docs/{n}.md"), text);
    }
    write(dir, "docs/fleas.md", "# Fleas\n\nA flea lives for up to a year. It jumps far.\n");
    let add = ["index", "add", "docs", "--index", "i", "--embed", "none"];
    run(dir, &[&add[..], &["--token-vectors=int8", "--token-model", "./bare"]].concat()).success();
    let stats = run(dir, &["index", "stats", "--index", "i", "--check", "--json"]).json();
    assert_eq!(stats["token_vectors"]["dimension"], 96);
    for rest in [
        ["--retriever", "colbert", "--rerank", "none"],
        ["--retriever", "bm25", "--rerank", "./bare"],
    ] {
        let search = ["search", "how old do fleas get", "--index", "i", "--no-profile", "--json"];
        let found = run(dir, &[&search[..], &rest].concat()).json();
        assert_eq!(found["hits"][0]["document"], "docs/fleas.md", "{rest:?}");
    }
    // Added later, with what was learnt.
    write(dir, "docs/dogs.md", "# Dogs\n\nA dog lives for twelve years.\n");
    run(dir, &add).success();
    run(dir, &["index", "stats", "--index", "i", "--check"]).success();
}
