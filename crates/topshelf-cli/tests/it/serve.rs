//! `topshelf serve`: that the program serves what its commands compute, and obeys its options; what happens to
//! clients that go away, and how it ends. What each route answers is tested in `topshelf-server`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::program::{models, run, run_with_input, topshelf, write};

/// A server that ends with the test.
pub(super) struct Server {
    child: Child,
    /// `127.0.0.1:PORT`.
    address: String,
}

impl Server {
    /// Starts one on a free port.
    pub(super) fn start(dir: &Path, arguments: &[&str]) -> Self {
        models();
        let mut all = vec!["serve", "--port", "0"];
        all.extend(arguments);
        let mut child = topshelf(dir, &all)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the server says where it is");
        let address = line.trim().strip_prefix("http://").expect("an address").to_owned();
        Self { child, address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sends a request and answers status, head and body.
    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
        let mut stream = self.send(method, path, headers, body);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), head.to_lowercase(), body.to_owned())
    }

    /// Sends a request and leaves the answer to the caller.
    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_mins(2))).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}content-length: \
             {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        stream
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, body) = self.ask("POST", path, "", &body.to_string());
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    /// A figure of `/metrics`; 0 if it is not there.
    fn metric(&self, name: &str) -> f64 {
        let (_, _, text) = self.ask("GET", "/metrics", "", "");
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().expect("kill starts");
        assert!(sent.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }
}

const QUERY: &str = "How long does a flea live?";
const DOCUMENTS: [&str; 4] = [
    "Dogs sleep for half of the day.",
    "An adult flea lives for about a hundred days.",
    "Fleas are small insects without wings.",
    "The flea market opens at nine.",
];

/// The order and the probabilities that the command line gives without a server.
fn expected(dir: &Path, rerank: &str) -> Vec<(u64, f64)> {
    let lines = DOCUMENTS.join("\n");
    let arguments = ["rerank", QUERY, "--rerank", rerank, "--json"];
    let answer = run_with_input(dir, &arguments, lines.as_bytes()).json();
    pairs(&answer["results"], "relevance_score")
}

fn pairs(results: &Value, score: &str) -> Vec<(u64, f64)> {
    let results = results.as_array().expect("results");
    let pair =
        |result: &Value| (result["index"].as_u64().unwrap(), result[score].as_f64().unwrap());
    results.iter().map(pair).collect()
}

fn assert_same(got: &[(u64, f64)], wanted: &[(u64, f64)], what: &str) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    for (got, wanted) in got.iter().zip(wanted) {
        assert!(got.0 == wanted.0 && (got.1 - wanted.1).abs() < 1e-6, "{what}: {got:?} {wanted:?}");
    }
}

#[test]
fn a_server_has_the_order_and_the_scores_of_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let wanted = expected(dir.path(), "local");
    let asked = json!({"model": "local", "query": QUERY, "documents": DOCUMENTS});
    for path in ["/v2/rerank", "/topshelf/v1/rerank"] {
        let (status, answer) = server.post(path, &asked);
        assert_eq!(status, 200, "{path}: {answer}");
        assert_same(&pairs(&answer["results"], "relevance_score"), &wanted, path);
    }
}

/// The model, the scale and the probabilities are those of the reranker that answered.
#[test]
fn after_a_failover_the_answer_names_the_reranker_that_stood_in() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens on port 9.
    let service = "http://127.0.0.1:9/rerank";
    let server = Server::start(dir.path(), &["--rerank", "local", "--rerank", service]);
    let documents = json!(DOCUMENTS);
    let model = format!("{service},local");
    let asked = json!({"model": model, "query": QUERY, "documents": documents});
    let (status, answer) = server.post("/topshelf/v1/rerank", &asked);
    assert_eq!(status, 200, "{answer}");
    let named = (answer["model"].as_str(), answer["scale"].as_str());
    assert_eq!(named, (Some("cross-encoder/ms-marco-MiniLM-L12-v2"), Some("logit")), "{answer}");
    let failures = answer["second_stage"]["failures"].as_array().expect("failures");
    assert_eq!(failures.len(), 1, "{answer}");
    let wanted = expected(dir.path(), "local");
    assert_same(&pairs(&answer["results"], "relevance_score"), &wanted, "after the failover");
}

/// What the project's own clients get from the project's own server.
#[test]
fn a_round_trip_by_our_own_clients() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let wanted = expected(dir.path(), "local");
    for (name, path) in [
        ("cohere", "/v2/rerank#local"),
        ("cohere-v1", "/cohere/v1/rerank#local"),
        ("jina", "/jina/v1/rerank#local"),
        ("voyage", "/voyage/v1/rerank#local"),
        ("tei", "/rerank"),
    ] {
        let rerank = format!("{name}+{}", server.url(path));
        let got = expected_with_keys(dir.path(), &rerank);
        assert_same(&got, &wanted, name);
    }
    let got = expected_with_keys(dir.path(), &server.url("/vllm/v1/rerank#local"));
    assert_same(&got, &wanted, "vllm");
}

/// [`expected`] with a key for every vendor, which our server does not ask for.
fn expected_with_keys(dir: &Path, rerank: &str) -> Vec<(u64, f64)> {
    let arguments = ["rerank", QUERY, "--rerank", rerank, "--strict", "--json"];
    let mut command = topshelf(dir, &arguments);
    for name in ["COHERE_API_KEY", "VOYAGE_API_KEY", "JINA_API_KEY"] {
        command.env(name, "key");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    child.stdin.take().unwrap().write_all(DOCUMENTS.join("\n").as_bytes()).unwrap();
    let output = child.wait_with_output().expect("the program ends");
    assert!(output.status.success(), "{rerank}: {}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    // The number as the server gave it: not every dialect says that it is a probability.
    pairs(&answer["results"], "score")
}

#[test]
fn documents_of_an_index_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    write(
        dir.path(),
        "docs/fleas.md",
        "# Fleas\n\nAn adult flea lives for about a hundred days.\n",
    );
    models();
    run(dir.path(), &["index", "add", "docs", "--index", "d.index"]).success();
    let server = Server::start(dir.path(), &["--index", "d.index", "--writable"]);
    let zebra = json!({"documents": [
        {"id": "z", "title": "Zebra", "text": "A zebra has stripes.", "metadata": {"lang": "en"}},
    ]});
    let (status, answer) = server.post("/v1/documents", &zebra);
    assert_eq!(
        (status, &answer["added"], &answer["index"]["documents"]),
        (200, &json!(1), &json!(2))
    );
    let (_, answer) = server.post("/v1/documents", &zebra);
    assert_eq!(answer["unchanged"], 1);
    let asked = json!({"query": "zebra stripes", "filter": "lang = en", "top_n": 1});
    let (status, answer) = server.post("/v1/search", &asked);
    assert_eq!((status, &answer["hits"][0]["document"]), (200, &json!("z")), "{answer}");
    // Words that are in no word index are looked up by meaning alone, and the answer says so.
    let asked = json!({"query": "the of and", "top_n": 1, "strict": true}).to_string();
    let (status, head, answer) = server.ask("POST", "/v1/search", "", &asked);
    assert_eq!(status, 200, "{answer}");
    let warning = "x-topshelf-warning: bm25 has nothing to look up (it has only stop words";
    assert!(head.contains(warning) && head.contains("from dense alone"), "{head}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["report"]["retrievers"][0]["outcome"], "nothing_to_look_up", "{answer}");
    let ids = json!({"ids": ["z", "y"]}).to_string();
    let (_, _, answer) = server.ask("DELETE", "/v1/documents", "", &ids);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["removed"], &answer["unknown"]), (&json!(1), &json!(["y"])));
    drop(server);
    let server = Server::start(dir.path(), &["--index", "d.index"]);
    let (status, answer) = server.post("/v1/documents", &zebra);
    assert!(status == 403 && answer["error"]["type"] == "read_only", "{answer}");
}

#[test]
fn a_model_from_a_folder_is_served_and_its_path_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    models();
    let shown = run(dir.path(), &["models", "show", "minilm-l12", "--json"]).json();
    let folder = shown["folder"].as_str().expect("the model is here");
    let own = dir.path().join("private-place");
    super::program::copy_folder(Path::new(folder), &own);
    write(&own, "topshelf.toml", "family = \"cross-encoder\"\n");
    let path = own.to_str().unwrap();
    let served =
        ["--no-profile", "--rerank", path, "--rerank", path, "--alias", "mine=private-place"];
    let server = Server::start(dir.path(), &served);
    let (status, _, listed) = server.ask("GET", "/v1/models", "", "");
    assert!(status == 200 && !listed.contains(path), "{listed}");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let of_rerankers = listed.to_string().matches("cross-encoder\"").count();
    assert!(of_rerankers <= 2, "one model, once: {listed}");
    let body = json!({"query": "q", "documents": ["a", "b"], "model": path});
    assert_eq!(server.post("/topshelf/v1/rerank", &body).0, 200);
    // What stands between names does not count, and a name has a bound.
    let body =
        json!({"query": "q", "documents": ["a"], "model": format!("{path}{}", ",".repeat(5_000))});
    assert_eq!(server.post("/topshelf/v1/rerank", &body).0, 422);
}

#[test]
fn documents_are_cut_as_the_index_cuts() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "docs/fleas.md", "# Fleas\n\nAn adult flea lives for a hundred days.\n");
    let text = "The keeper of the light winds the clock at dusk. ".repeat(60);
    let document = json!({"documents": [{"id": "keeper", "text": text}]});
    let passages = |name: &str, options: &[&str]| {
        let add = ["index", "add", "docs", "--index", name, "--embed", "none"];
        let before = run(dir.path(), &[&add[..], options, &["--json"]].concat()).json();
        let server = Server::start(dir.path(), &["--index", name, "--writable"]);
        let (status, answer) = server.post("/v1/documents", &document);
        assert_eq!((status, &answer["added"]), (200, &json!(1)), "{answer}");
        let stats = run(dir.path(), &["index", "stats", "--index", name, "--json"]).json();
        assert_eq!(stats["chunking"], before["chunking"]);
        assert_eq!(stats["other_chunking"]["files"], 0);
        answer["index"]["passages"].as_u64().unwrap() - 1
    };
    assert_eq!(passages("whole.index", &["--whole"]), 1);
    let long = passages("long.index", &[]);
    let short = passages("short.index", &["--chunk", "64", "--overlap", "0"]);
    assert!((3..=5).contains(&long) && (10..=20).contains(&short), "{long} and {short} passages");
}

#[test]
fn keys_that_were_made_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.txt", "A zebra is striped.");
    let add = ["index", "add", "a.txt", "--index", "d.index", "--embed", "none"];
    run(dir.path(), &add).success();
    let new = |more: &[&str]| {
        let all = [&["keys", "new", "team", "--file", "keys.toml"], more].concat();
        run(dir.path(), &all).success().trim().to_owned()
    };
    let keys = [new(&["--per-minute", "2"]), new(&["--may-change"])];
    let kept = std::fs::read_to_string(dir.path().join("keys.toml")).unwrap();
    assert!(keys.iter().all(|key| !kept.contains(key)), "the file has hashes, not keys");
    let options = ["--keys", "keys.toml", "--index", "d.index", "--writable"];
    let server = Server::start(dir.path(), &options);
    let [asks, changes] = keys.map(|key| format!("api-key: {key}\r\n"));
    let lion = json!({"documents": [{"id": "l", "text": "A lion roars."}]}).to_string();
    let add = |key: &str| server.ask("POST", "/v1/documents", key, &lion);
    assert_eq!(add("").0, 401);
    let (status, _, answer) = add(&asks);
    assert!(status == 403 && answer.contains("may_not_change"), "{answer}");
    assert_eq!(add(&changes).0, 200);
    assert_eq!(server.ask("POST", "/v1/index/reload", &changes, "").0, 200);
    // The second request of this minute, which a reload does not give back, and the third.
    assert_eq!(server.ask("GET", "/v1/index", &asks, "").0, 200);
    assert_eq!(server.ask("GET", "/v1/index", &asks, "").0, 429);
}

/// What is sent to `/v1/traces`, until the sender has nothing more to say for some time.
fn collect(collector: TcpListener) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        loop {
            let (mut stream, _) = collector.accept().expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("the same connection"));
            loop {
                let (mut line, mut head) = (String::new(), String::new());
                while reader.read_line(&mut line).expect("a line") > 0 && line.trim() != "" {
                    head.push_str(&std::mem::take(&mut line).to_lowercase());
                }
                if head.is_empty() {
                    break;
                }
                if head.starts_with("get /end") {
                    return all;
                }
                assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
                assert!(head.contains("content-type: application/x-protobuf"), "{head}");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let mut body = vec![0; length.expect("a length").parse().expect("a number")];
                reader.read_exact(&mut body).expect("a body");
                all.extend(body);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("sent");
            }
        }
    })
}

#[test]
#[cfg(unix)]
fn a_trace_has_the_stages_of_a_request_and_no_text() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.txt", DOCUMENTS.join("\n\n"));
    run(dir.path(), &["index", "add", "a.txt", "--index", "d.index"]).success();
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = collector.local_addr().unwrap();
    let collected = collect(collector);
    let url = format!("http://{address}");
    let options = ["--traces", &url, "--index", "d.index", "--log", "json", "--log-queries"];
    let mut server = Server::start(dir.path(), &options);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("traceparent: 00-{trace}-b7ad6b7169203331-01\r\n");
    let search = json!({"query": QUERY, "retriever": "hybrid"}).to_string();
    let (status, _, answer) = server.ask("POST", "/v1/search", &parent, &search);
    assert_eq!(status, 200, "{answer}");
    // The same, but for its answer, which comes in two parts.
    let streamed = "2af7651916cd43dd8448eb211c80319c";
    let parent = format!("traceparent: 00-{streamed}-b7ad6b7169203331-01\r\n");
    let search = json!({"query": QUERY, "retriever": "hybrid", "stream": true}).to_string();
    let (status, _, answer) = server.ask("POST", "/v1/search", &parent, &search);
    assert!(status == 200 && answer.contains("event: answer"), "{answer}");
    // The caller did not want these traced.
    let silent = "traceparent: 00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n";
    let (status, ..) = server.ask("POST", "/v2/rerank", silent, &large(1));
    assert_eq!(status, 200);
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success(), "what is left is sent before it ends");
    TcpStream::connect(address).unwrap().write_all(b"GET /end HTTP/1.1\r\n\r\n").unwrap();
    let sent = collected.join().expect("the collector has no complaint");
    let has = |wanted: &[u8]| sent.windows(wanted.len()).any(|bytes| bytes == wanted);
    for span in ["POST /v1/search", "retrieve", "bm25", "dense", "rerank", "encode", "waited_ms"] {
        assert!(has(span.as_bytes()), "{span}");
    }
    let bytes = |hex: &str| -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    };
    assert!(has(&bytes(trace)) && has(&bytes("b7ad6b7169203331")), "part of the caller's trace");
    let spans = |trace: &str| sent.windows(16).filter(|own| *own == bytes(trace)).count();
    assert_eq!(spans(streamed), spans(trace), "no stage of a stream is lost");
    assert!(!has(b"/v2/rerank"), "the caller's sampling holds");
    for text in [QUERY].iter().chain(&DOCUMENTS) {
        assert!(!has(text.as_bytes()), "{text}");
    }
}

#[test]
#[cfg(unix)]
fn an_index_is_read_where_nothing_may_be_written() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.txt", "A zebra is striped.");
    let add = ["index", "add", "a.txt", "--index", "d.index", "--embed", "none"];
    run(dir.path(), &add).success();
    let text = dir.path().join("d.index/text");
    let may = |mode: u32| {
        for folder in [&text, &dir.path().join("d.index")] {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    for is_locked in [true, false] {
        if !is_locked {
            std::fs::remove_file(text.join(".tantivy-meta.lock")).unwrap();
        }
        may(0o555);
        // To root no permission is denied, unless it gives that power away.
        let own =
            topshelf(dir.path(), &["search", "zebra", "--index", "d.index", "--rerank", "none"]);
        let mut lesser = Command::new("setpriv");
        lesser.args(["--bounding-set", "-dac_override,-dac_read_search", "--"]);
        lesser.arg(own.get_program()).args(own.get_args()).current_dir(dir.path());
        lesser.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let is_root = std::fs::write(text.join("probe"), "").is_ok();
        let outcome = if is_root { lesser } else { own }.output().expect("it starts");
        let _ = std::fs::remove_file(text.join("probe")); // there is one for root only
        may(0o755);
        let told = String::from_utf8_lossy(&outcome.stderr).into_owned();
        let found = String::from_utf8_lossy(&outcome.stdout).into_owned();
        assert!(outcome.status.success() && found.contains("zebra"), "{told}");
        assert!(!is_locked || text.join(".tantivy-meta.lock").exists());
        assert!(is_locked || !text.join(".tantivy-meta.lock").exists(), "it was writable");
    }
}

#[test]
fn an_address_that_others_reach_wants_keys() {
    let dir = tempfile::tempdir().unwrap();
    let outcome = run(dir.path(), &["serve", "--host", "0.0.0.0", "--port", "0"]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("--keys"), "{outcome:?}");
}

/// Long enough to be under way for a while.
fn large(documents: usize) -> String {
    let documents: Vec<String> = (0..documents)
        .map(|n| {
            format!("Document {n} says that the {n}th flea of the market lives for {n} days. ")
                .repeat(6)
        })
        .collect();
    json!({"model": "local", "query": QUERY, "documents": documents}).to_string()
}

#[test]
fn a_client_that_goes_away_costs_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let gone: Vec<TcpStream> =
        (0..4).map(|_| server.send("POST", "/v2/rerank", "", &large(2000))).collect();
    let waits = |wanted: f64| {
        let start = Instant::now();
        while (server.metric("topshelf_requests_in") - wanted).abs() > 0.1 {
            assert!(start.elapsed() < Duration::from_mins(1), "never {wanted} requests in");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    waits(4.0);
    drop(gone);
    waits(0.0);
    let before = server.metric("topshelf_batches_total{model=\"cross");
    std::thread::sleep(Duration::from_millis(1500));
    let after = server.metric("topshelf_batches_total{model=\"cross");
    assert!(after - before <= 1.0, "calls for nobody: {before} and then {after}");
    let small = json!({"model": "local", "query": QUERY, "documents": DOCUMENTS});
    assert_eq!(server.post("/v2/rerank", &small).0, 200);
}

#[test]
fn many_clients_at_once_get_the_bits_that_each_gets_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &["--max-wait", "60s"]);
    let asked = |n: usize| {
        let documents: Vec<String> =
            (0..=n).map(|i| format!("{} {n} {i}", DOCUMENTS[i % DOCUMENTS.len()])).collect();
        json!({"model": "local", "query": QUERY, "documents": documents})
    };
    let alone: Vec<Value> =
        (0..12).map(|n| server.post("/v2/rerank", &asked(n)).1["results"].clone()).collect();
    let together: Vec<Value> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..12)
            .map(|n| {
                let (server, asked) = (&server, asked(n));
                scope.spawn(move || server.post("/v2/rerank", &asked).1["results"].clone())
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

#[cfg(unix)]
#[test]
fn a_signal_lets_what_is_under_way_end_and_a_reload_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), &[]);
    let mut under_way = server.send("POST", "/v2/rerank", "", &large(16));
    std::thread::sleep(Duration::from_millis(300));
    server.signal("-HUP");
    std::thread::sleep(Duration::from_millis(100));
    server.signal("-TERM");
    let mut answer = String::new();
    under_way.read_to_string(&mut answer).expect("the answer comes nevertheless");
    assert!(answer.starts_with("HTTP/1.1 200"), "{}", &answer[..answer.len().min(200)]);
    let ended = server.child.wait().expect("the server ends");
    assert!(ended.success(), "{ended}");
}
