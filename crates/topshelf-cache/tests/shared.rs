//! The shared tier with real servers: one that is killed, paused, full and damaged, and a cluster of
//! three masters and three replicas of which a master is killed in the middle.
//!
//! Needs `redis-server` and `redis-cli` on the path; `just shared-cache` sees to it.

#[path = "it/support.rs"]
#[allow(dead_code)] // each of the two test programs uses a part of it
mod support;

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use support::{Counting, ask_and_check, numbered, with_cache};
use tempfile::TempDir;
use topshelf_cache::{CacheOptions, ScoreCache, SharedOptions};

/// A server that goes away with its value.
struct Server {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Server {
    fn start(options: &[&str]) -> Self {
        Self::start_at(free_port(), options)
    }

    fn start_at(port: u16, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = spawn(port, folder.path(), options);
        let own = Self { child, port, folder };
        wait_until("the server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        own
    }

    fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = spawn(self.port, self.folder.path(), &[]);
        let port = self.port;
        wait_until("the server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    fn command(&self, arguments: &[&str]) -> String {
        cli(self.port, arguments)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, folder: &Path, options: &[&str]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "no", "--dir"])
        .arg(folder)
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is on the path; `just shared-cache` installs it")
}

fn cli(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(arguments)
        .output()
        .expect("redis-cli is on the path");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A port whose cluster port, 10,000 above it, is free as well.
fn free_port() -> u16 {
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        if port < 55_000 && free(port + 10_000) && free(port) {
            return port;
        }
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_mins(1), "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What another machine would have: a cache without memory of its own of what was.
fn machine(addresses: &[String]) -> Arc<ScoreCache> {
    let mut shared = SharedOptions::new(addresses.to_vec()).unwrap();
    shared.patience = Duration::from_millis(200);
    let options = CacheOptions { shared: Some(shared), ..CacheOptions::default() };
    let (cache, trouble) = ScoreCache::open(&options);
    assert!(trouble.is_none());
    Arc::new(cache)
}

/// Asks as a machine that knows nothing; answers how many pairs were known and the cache.
fn ask_anew(addresses: &[String], query: &str, pairs: usize) -> (usize, Arc<ScoreCache>) {
    let cache = machine(addresses);
    let reranker = with_cache(Counting::new(), &cache);
    let known = ask_and_check(&reranker, query, &numbered(0..pairs));
    cache.flush();
    (known, cache)
}

#[test]
fn what_one_machine_scored_another_finds() {
    let server = Server::start(&[]);
    let addresses = [server.address()];
    let (known, cache) = ask_anew(&addresses, "q", 70);
    assert_eq!((known, cache.stats().shared.unwrap().stored), (0, 70));

    let cache = machine(&addresses);
    let counting = Counting::new();
    let scored = Arc::clone(&counting.pairs);
    let reranker = with_cache(counting, &cache);
    assert_eq!(ask_and_check(&reranker, "q", &numbered(0..100)), 70);
    assert_eq!(scored.load(Ordering::SeqCst), 30);
    let stats = cache.stats();
    assert_eq!((stats.shared_hits, stats.scored), (70, 30));
    // Now it is in memory, and nobody is asked.
    assert_eq!(ask_and_check(&reranker, "q", &numbered(0..100)), 100);
    assert_eq!((cache.stats().shared_hits, cache.stats().memory_hits), (70, 100));
    assert_eq!(ask_anew(&addresses, "another", 10).0, 0);
    let kept: u64 = {
        let key = server.command(&["--raw", "RANDOMKEY"]);
        assert!(key.starts_with("topshelf:{"), "{key:?}");
        server.command(&["DBSIZE"]).trim().parse().unwrap()
    };
    assert_eq!(kept, 110);
}

#[test]
fn a_server_that_dies_costs_its_scores_and_no_answer() {
    let mut server = Server::start(&[]);
    let addresses = [server.address()];
    ask_anew(&addresses, "q", 50);
    let cache = machine(&addresses);
    let reranker = with_cache(Counting::new(), &cache);
    assert_eq!(ask_and_check(&reranker, "q", &numbered(0..50)), 50);
    server.kill();
    let start = Instant::now();
    for query in 0..50 {
        assert_eq!(ask_and_check(&reranker, &format!("new {query}"), &numbered(0..50)), 0);
    }
    // Left alone, it costs nothing: one query may have waited.
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    wait_until("it is told", || cache.stats().shared.unwrap().trouble.is_some());
    server.restart();
    wait_until("it works again", || {
        std::thread::sleep(Duration::from_millis(200));
        ask_and_check(&reranker, &format!("{:?}", Instant::now()), &numbered(0..5));
        cache.flush();
        cache.stats().shared.unwrap().trouble.is_none()
    });
    assert!(cache.stats().shared.unwrap().stored > 0);
}

#[test]
fn nobody_there_is_no_failure() {
    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    let (known, cache) = ask_anew(&[nowhere], "q", 20);
    assert_eq!(known, 0);
    let stats = cache.stats().shared.unwrap();
    assert_eq!((stats.stored, stats.dropped), (0, 20));
    assert!(stats.trouble.is_some());
}

#[test]
fn patience_has_an_end() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let addresses = [server.address()];
    ask_anew(&addresses, "q", 20);
    let port = server.port;
    let sleeping = std::thread::spawn(move || cli(port, &["DEBUG", "SLEEP", "3"]));
    std::thread::sleep(Duration::from_millis(300));
    let cache = machine(&addresses);
    let reranker = with_cache(Counting::new(), &cache);
    let start = Instant::now();
    assert_eq!(ask_and_check(&reranker, "q", &numbered(0..20)), 0);
    let took = start.elapsed();
    assert!(took < Duration::from_millis(600), "{took:?}");
    assert_eq!(cache.stats().shared.unwrap().late, 1);
    sleeping.join().unwrap();
}

#[test]
fn what_was_damaged_there_is_scored_again() {
    let server = Server::start(&[]);
    let addresses = [server.address()];
    ask_anew(&addresses, "q", 30);
    // The same value under every key: right for none of them but one, at most.
    let script = "local keys = redis.call('KEYS', '*') \
                  local value = redis.call('GET', keys[1]) \
                  for n, key in ipairs(keys) do redis.call('SET', key, value) end return #keys";
    assert_eq!(server.command(&["EVAL", script, "0"]).trim(), "30");
    let (known, cache) = ask_anew(&addresses, "q", 30);
    assert_eq!((known, cache.stats().shared.unwrap().damaged), (1, 29));
    // And mended.
    assert_eq!(ask_anew(&addresses, "q", 30).0, 30);
    let script = "for n, key in ipairs(redis.call('KEYS', '*')) do \
                  redis.call('SET', key, 'short') end";
    server.command(&["EVAL", script, "0"]);
    assert_eq!(ask_anew(&addresses, "q", 30).0, 0);
}

#[test]
fn a_full_server_stores_nothing_and_harms_nothing() {
    let server = Server::start(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]);
    let (known, cache) = ask_anew(&[server.address()], "q", 50);
    assert_eq!(known, 0);
    let stats = cache.stats().shared.unwrap();
    assert_eq!((stats.stored, stats.dropped), (0, 50));
    let trouble = stats.trouble.unwrap();
    assert!(trouble.contains("memory") || trouble.contains("OOM"), "{trouble}");
}

#[test]
fn a_cluster_that_loses_a_master_in_the_middle() {
    let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
    let mut nodes: Vec<Server> = (0..6).map(|_| Server::start(&options)).collect();
    let places: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let mut create = vec!["--cluster", "create"];
    create.extend(places.iter().map(String::as_str));
    create.extend(["--cluster-replicas", "1", "--cluster-yes"]);
    let said = cli(nodes[0].port, &create);
    assert!(said.contains("All 16384 slots covered"), "{said}");
    wait_until("the replicas are in step", || {
        nodes.iter().all(|node| {
            let info = node.command(&["INFO", "replication"]);
            info.contains("role:master") && info.contains("connected_slaves:1")
                || info.contains("master_link_status:up")
        })
    });

    let addresses: Vec<String> = nodes.iter().map(Server::address).collect();
    let queries = 60;
    for query in 0..queries {
        ask_anew(&addresses, &format!("q{query}"), 20);
    }
    let sizes: Vec<u64> =
        nodes.iter().map(|node| node.command(&["DBSIZE"]).trim().parse().unwrap()).collect();
    assert!(sizes.iter().all(|size| *size > 0), "spread over all nodes: {sizes:?}");

    let cache = machine(&addresses);
    let reranker = with_cache(Counting::new(), &cache);
    let mut known = Vec::new();
    for query in 0..queries {
        if query == queries / 2 {
            let master = nodes
                .iter()
                .position(|node| node.command(&["ROLE"]).starts_with("master"))
                .unwrap();
            nodes[master].kill();
        }
        // Every score is right, whatever happens; `ask_and_check` holds it to that.
        known.push(ask_and_check(&reranker, &format!("q{query}"), &numbered(0..20)));
    }
    assert_eq!(known[..queries / 2].iter().sum::<usize>(), queries / 2 * 20);

    // A replica takes over, and all that was stored is there.
    wait_until("the cluster has healed", || {
        std::thread::sleep(Duration::from_millis(200));
        let living = |node: &&Server| node.command(&["PING"]).contains("PONG");
        nodes.iter().find(living).unwrap().command(&["CLUSTER", "INFO"]).contains("state:ok")
    });
    wait_until("every score is found again", || {
        (0..queries).all(|query| ask_anew(&addresses, &format!("q{query}"), 20).0 == 20)
    });
}
