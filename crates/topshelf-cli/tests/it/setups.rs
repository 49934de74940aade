//! The same question, asked in four ways: with flags, as a JSON body, by a profile, and through the library. A
//! hundred random setups have to give the same answer, byte for byte, or the same error.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};
use topshelf::engine::resolve;
use topshelf::{
    BlendScore, Engine, EngineError, EngineOptions, GateChoice, LongDocuments, OnFailure, Profile,
    Query, Retrievers, ScoreCacheUse, Setup, SetupPatch, Survivors, TokenVectorUse, UnprovenGate,
};
use topshelf_server::answer::{RunReport, SearchHit};

use super::program::{models, run, write};
use super::serve::Server;

const QUERY: &str = "how long do fleas live on a dog";
const SETUPS: usize = 100;

/// Numbers that are the same in every run (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// One of them, or nothing in half of the cases.
    fn maybe<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        (self.below(2) == 0).then(|| of[self.below(of.len())].clone())
    }
}

/// A random change to the default setup. Some of them are wrong, as those of people are.
fn patch(chance: &mut Chance) -> SetupPatch {
    let retrievers = ["bm25", "dense", "hybrid", "colbert", "bm25+dense+colbert", "hybrid-colbert"];
    let retrievers: Vec<Retrievers> = retrievers.map(|name| name.parse().unwrap()).to_vec();
    let weights = [vec![1.0, 0.5], vec![0.25, 0.75], vec![1.0, 1.0, 1.0]];
    let gates = ["none", "margin:bm25:2>=0.5", "agreement:3>=0.5", "spread:dense:3>=0.01"];
    let names = ["none", "minilm-l12", "colbert", "minilm-l12,colbert"];
    let then = [Survivors { model: "minilm-l12".to_owned(), keep: 3 }];
    SetupPatch {
        retriever: chance.maybe(&retrievers),
        depth: chance.maybe(&[5, 12, 30]),
        fusion: chance.maybe(&["rrf", "min-max", "z-score"]).map(|name| name.parse().unwrap()),
        rrf_k: chance.maybe(&[0.0, 10.0, 60.5]),
        weights: if chance.below(4) == 0 { weights[chance.below(3)].clone() } else { Vec::new() },
        k1: chance.maybe(&[0.0, 0.9, 1.7]),
        b: chance.maybe(&[0.0, 0.4, 1.0]),
        title_weight: chance.maybe(&[0.0, 1.0, 3.5]),
        rerank: chance.maybe(&names).map(str::to_owned),
        then: if chance.below(5) == 0 { then.to_vec() } else { Vec::new() },
        long_documents: chance.maybe(&[LongDocuments::Windows, LongDocuments::Head]),
        windows: chance.maybe(&[1, 2, 4]),
        window_tokens: chance.maybe(&[8, 32, 128]),
        blend: chance.maybe(&[0.0, 0.3, 0.75, 1.0]),
        blend_score: chance.maybe(&[BlendScore::MinMax, BlendScore::Probability]),
        gate: chance.maybe(&gates).map(|gate| gate.parse().unwrap()),
        min_relevance: if chance.below(4) == 0 { Some(0.01) } else { None },
        token_vectors: chance.maybe(&[TokenVectorUse::Encode]),
        top: chance.maybe(&[1, 4, 10]),
        on_failure: chance.maybe(&[OnFailure::Fail]),
        ..SetupPatch::default()
    }
}

fn name_of<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).unwrap().as_str().expect("it is a word").replace('_', "-")
}

fn fusion_of(patch: &SetupPatch) -> Option<&'static str> {
    use topshelf::{Fusion, Normalisation};
    patch.fusion.as_ref().map(|fusion| match fusion {
        Fusion::Rrf { .. } => "rrf",
        Fusion::Weighted { normalisation: Normalisation::MinMax, .. } => "min-max",
        Fusion::Weighted { normalisation: Normalisation::ZScore, .. } => "z-score",
    })
}

/// The patch as flags.
fn flags(patch: &SetupPatch) -> Vec<String> {
    let mut flags: Vec<String> = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        flags.extend(value.map(|value| format!("--{name}={value}")));
    };
    let number = |number: Option<f32>| number.map(|number| number.to_string());
    let count = |number: Option<usize>| number.map(|number| number.to_string());
    add("retriever", patch.retriever.map(|own| own.to_string()));
    add("depth", count(patch.depth));
    add("fusion", fusion_of(patch).map(str::to_owned));
    add("rrf-k", number(patch.rrf_k));
    let weights: Vec<String> = patch.weights.iter().map(ToString::to_string).collect();
    add("weights", (!weights.is_empty()).then(|| weights.join(",")));
    add("k1", number(patch.k1));
    add("b", number(patch.b));
    add("title-weight", number(patch.title_weight));
    add("rerank", patch.rerank.clone());
    for own in &patch.then {
        add("then", Some(format!("{}@{}", own.model, own.keep)));
    }
    add("long-documents", patch.long_documents.as_ref().map(name_of));
    add("windows", count(patch.windows));
    add("window-tokens", count(patch.window_tokens));
    add("blend", number(patch.blend));
    add("blend-score", patch.blend_score.as_ref().map(name_of));
    add("gate", patch.gate.as_ref().map(GateChoice::to_string));
    add("min-relevance", number(patch.min_relevance));
    add("top", count(patch.top));
    let switches = [
        ("--encode-anew", patch.token_vectors.is_some()),
        ("--strict", patch.on_failure.is_some()),
        ("--force", patch.gate.is_some()),
    ];
    flags.extend(switches.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned()));
    flags
}

/// The patch as the body of a search.
fn body(patch: &SetupPatch) -> Value {
    let mut body = Map::new();
    let mut add = |name: &str, value: Value| {
        if !value.is_null() {
            body.insert(name.to_owned(), value);
        }
    };
    add("query", json!(QUERY));
    add("retriever", json!(patch.retriever.map(|own| own.to_string())));
    add("depth", json!(patch.depth));
    add("fusion", json!(fusion_of(patch)));
    add("rrf_k", json!(patch.rrf_k));
    add("weights", if patch.weights.is_empty() { Value::Null } else { json!(patch.weights) });
    add("k1", json!(patch.k1));
    add("b", json!(patch.b));
    add("title_weight", json!(patch.title_weight));
    add("model", json!(patch.rerank));
    add("then", if patch.then.is_empty() { Value::Null } else { json!(patch.then) });
    add("long_documents", json!(patch.long_documents.as_ref().map(name_of)));
    add("windows", json!(patch.windows));
    add("window_tokens", json!(patch.window_tokens));
    add("blend", json!(patch.blend));
    add("blend_score", json!(patch.blend_score.as_ref().map(name_of)));
    add("gate", json!(patch.gate.as_ref().map(GateChoice::to_string)));
    add("min_relevance", json!(patch.min_relevance));
    add("encode_again", json!(patch.token_vectors.map(|_| true)));
    add("top_n", json!(patch.top));
    add("strict", json!(patch.on_failure.map(|_| true)));
    Value::Object(body)
}

/// What was answered, without what differs from run to run: times, and the profile's name.
fn told(hits: &Value, report: &Value) -> String {
    fn without_times(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.remove("milliseconds");
                fields.remove("profile");
                fields.values_mut().for_each(without_times);
            }
            Value::Array(values) => values.iter_mut().for_each(without_times),
            _ => {}
        }
    }
    let mut answer = json!({ "hits": hits, "report": report });
    without_times(&mut answer);
    answer.to_string()
}

/// A value as its text says it: a number of 32 bits has fewer digits there than as a number of 64.
fn read_back(value: &impl serde::Serialize) -> Value {
    let text = serde_json::to_string(value).expect("it can be written");
    serde_json::from_str(&text).expect("it can be read")
}

/// Through the library.
fn by_library(engine: &Engine, dir: &Path, patch: &SetupPatch) -> Result<String, EngineError> {
    let setup = resolve(None, &[patch], UnprovenGate::Accept)?;
    let index = engine.index(dir.join("i"))?;
    let pipeline = engine.pipeline(&index.now(), &setup)?;
    let answer = pipeline.run_blocking(&Query::new(QUERY)?)?;
    let scale = answer.ranking.scale();
    let hits = answer.ranking.hits().iter().enumerate();
    let hits: Vec<SearchHit> =
        hits.map(|(place, hit)| SearchHit::new(place + 1, hit, scale)).collect();
    Ok(told(&read_back(&hits), &read_back(&RunReport::from(&answer.report))))
}

/// With these arguments of `search`.
fn by_program(dir: &Path, arguments: &[String]) -> Result<String, String> {
    let fixed = ["search", QUERY, "--index", "i", "--json", "--no-cache"];
    let all: Vec<&str> = fixed.into_iter().chain(arguments.iter().map(String::as_str)).collect();
    let outcome = run(dir, &all);
    if outcome.code == Some(0) {
        let answer = outcome.json();
        return Ok(told(&answer["hits"], &answer["report"]));
    }
    assert_eq!(outcome.code, Some(2), "{arguments:?}: {outcome:?}");
    let error = outcome.stderr.strip_prefix("error: ").expect("an error").to_owned();
    Err(error.split("\n\nhint: ").next().unwrap_or_default().trim_end().to_owned())
}

/// By a request.
fn by_request(server: &Server, patch: &SetupPatch) -> Result<String, String> {
    let (status, answer) = server.post("/v1/search", &body(patch));
    if status == 200 {
        return Ok(told(&answer["hits"], &answer["report"]));
    }
    assert_eq!(status, 422, "{answer}");
    Err(answer["error"]["message"].as_str().expect("a message").to_owned())
}

#[test]
fn a_setup_gives_the_same_answer_however_it_is_given() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    models();
    run(dir, &["models", "pull", "colbert"]).success();
    for (name, lives) in [
        ("fleas", "A flea lives for up to a year on a dog or a cat. It jumps far."),
        ("dogs", "A dog lives for twelve years. Fleas live on dogs in summer."),
        ("cats", "A cat lives for fifteen years, a house cat longer."),
        ("long", "Dogs and cats have parasites. Some of them bite, some of them only itch."),
    ] {
        let text =
            format!("# {name}\n\n{lives}\n\n{}", "It is of no consequence here. ".repeat(20));
        write(dir, &format!("docs/{name}.md"), text);
    }
    run(
        dir,
        &[
            "index",
            "add",
            "docs",
            "--index",
            "i",
            "--token-vectors=int8",
            "--chunk",
            "60",
            "--overlap",
            "8",
        ],
    )
    .success();
    let reranker = "cross-encoder/ms-marco-MiniLM-L12-v2";
    let served = ["--no-cache", "--no-profile", "--rerank", reranker, "--rerank", "colbert"];
    let server = Server::start(dir, &[&["--index", "i"], &served[..]].concat());
    let engine = EngineOptions { score_cache: ScoreCacheUse::Bypass, ..EngineOptions::default() };
    let engine = Engine::open(engine).unwrap();

    let mut chance = Chance(18);
    let (mut answered, mut refused) = (0, 0);
    for number in 0..SETUPS {
        let patch = patch(&mut chance);
        let library = by_library(&engine, dir, &patch).map_err(|error| error.to_string());
        let mut arguments = flags(&patch);
        arguments.push("--no-profile".to_owned());
        assert_eq!(by_program(dir, &arguments), library, "{number}, flags: {patch:?}");
        assert_eq!(by_request(&server, &patch), library, "{number}, body: {patch:?}");
        match Setup::default().with(&patch) {
            Ok(setup) => {
                answered += 1;
                Profile { setup, evidence: None }.save(dir.join("topshelf.toml")).unwrap();
                let by_profile = by_program(dir, &["--force".to_owned()]);
                fs::remove_file(dir.join("topshelf.toml")).unwrap();
                assert_eq!(by_profile, library, "{number}, profile: {patch:?}");
            }
            Err(error) => {
                refused += 1;
                assert_eq!(library, Err(error.to_string()), "{number}");
            }
        }
    }
    assert!(answered > SETUPS / 4 && refused > 0, "{answered} answered, {refused} refused");
}
