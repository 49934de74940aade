//! The tier that machines share: scores in Redis or Valkey, a single server or a cluster.
//!
//! * **Never in the way.** Two threads of its own talk to the server, one asks and one tells. A caller
//!   waits for an answer for [`SharedOptions::patience`] and no longer, and then does without.
//! * **Out of reach.** After a failure the server is left alone for a second, after the next for two, up
//!   to half a minute; until then every pair counts as missing at once.
//! * **Damage.** Entries are sealed ([`crate::entry`]); one that does not open counts as missing.
//! * **Bounded** by the server: each entry goes after [`SharedOptions::keep`], and a server with
//!   `maxmemory` and a policy that evicts (`allkeys-lru`) decides which go before. One that is full and
//!   evicts nothing refuses to store, which is counted and does no harm.
//! * **One round trip a query.** A key is `topshelf:{tag}` and the pair's 32 bytes; the tag follows from
//!   model and query, and the braces make a cluster keep all pairs of a query on one node, so that one
//!   `MGET` fetches them all.
//!
//! Values are 16 bytes. A wrong score cannot come out of it by accident; whoever may write to the
//! server can put one in on purpose, so it has to be one that others cannot reach.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use futures_timer::Delay;
use redis::cluster::{ClusterClient, ClusterConnection, cluster_pipe};
use redis::{Client, Connection, IntoConnectionInfo, RedisResult};
use serde::Serialize;

use crate::entry::Entry;
use crate::key::{PairKey, Tag};

/// Questions, and sets of entries, that wait for the server; more are dropped.
const QUEUE: usize = 256;

/// How long the server is left alone after a first failure, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long it may take to store entries, which nobody waits for.
const STORING: Duration = Duration::from_secs(2);

/// Entries in one pipeline.
const PIPELINE: usize = 500;

/// Where the shared tier is.
#[derive(Debug, Clone)]
pub struct SharedOptions {
    nodes: Vec<String>,
    /// How long a query waits for it.
    pub patience: Duration,
    /// How long an entry is kept.
    pub keep: Duration,
}

/// Why an address cannot be one.
#[derive(Debug, thiserror::Error)]
#[error("the address {number} of the shared cache cannot be used: {reason}")]
pub struct SharedError {
    /// Which of them, from 1. Addresses themselves may hold a password and are not repeated.
    number: usize,
    reason: String,
}

impl SharedOptions {
    /// One address is a single server, several are nodes of one cluster:
    /// `redis://[user:password@]host:port[/database]`. Fifty milliseconds of patience, thirty days.
    ///
    /// # Errors
    ///
    /// [`SharedError`] for what is no address, and for none at all. Whether anybody is there is not
    /// asked.
    ///
    /// ```
    /// use topshelf_cache::SharedOptions;
    /// assert!(SharedOptions::new(["redis://10.0.0.1:6379"]).is_ok());
    /// assert!(SharedOptions::new(["http://10.0.0.1"]).is_err());
    /// ```
    pub fn new<S: Into<String>>(nodes: impl IntoIterator<Item = S>) -> Result<Self, SharedError> {
        let nodes: Vec<String> = nodes.into_iter().map(Into::into).collect();
        if nodes.is_empty() {
            return Err(SharedError { number: 1, reason: "there is none".to_owned() });
        }
        for (place, node) in nodes.iter().enumerate() {
            let refuse = |reason: String| Err(SharedError { number: place + 1, reason });
            if node.starts_with("rediss:") {
                return refuse(
                    "TLS is not built in; use a tunnel, or a network of your own".into(),
                );
            }
            if let Err(error) = node.as_str().into_connection_info() {
                return refuse(error.to_string());
            }
        }
        let (patience, keep) = (Duration::from_millis(50), Duration::from_hours(30 * 24));
        Ok(Self { nodes, patience, keep })
    }
}

/// What is known of the tier.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SharedStats {
    /// Its nodes, without user and password.
    pub nodes: Vec<String>,
    /// Entries that were stored.
    pub stored: u64,
    /// Entries that were not, because the server refused or did not keep up.
    pub dropped: u64,
    /// Entries that were read and were not what was stored.
    pub damaged: u64,
    /// Queries that did not wait any longer.
    pub late: u64,
    /// What the server last failed with; absent while it works.
    pub trouble: Option<String>,
}

/// The shared tier.
pub(crate) struct Shared {
    state: Arc<State>,
    /// Gone only while dropping.
    asking: Option<SyncSender<Question>>,
    telling: Option<SyncSender<Told>>,
    threads: Vec<JoinHandle<()>>,
}

struct Question {
    tag: Tag,
    keys: Vec<PairKey>,
    answer: oneshot::Sender<Vec<(PairKey, Entry)>>,
}

enum Told {
    Entries(Tag, Vec<(PairKey, Entry)>),
    /// Answers once all before it is stored or dropped.
    Flush(SyncSender<()>),
}

struct State {
    options: SharedOptions,
    stored: AtomicU64,
    dropped: AtomicU64,
    damaged: AtomicU64,
    late: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Shared {
    /// Starts the tier's threads. They connect when they are first asked.
    pub(crate) fn open(options: &SharedOptions) -> Self {
        let state = Arc::new(State {
            options: options.clone(),
            stored: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            late: AtomicU64::new(0),
            trouble: Mutex::default(),
        });
        let (asking, questions) = sync_channel(QUEUE);
        let (telling, told) = sync_channel(QUEUE);
        let (one, other) = (Arc::clone(&state), Arc::clone(&state));
        let threads = vec![
            std::thread::spawn(move || answer(&one, &questions)),
            std::thread::spawn(move || store(&other, &told)),
        ];
        Self { state, asking: Some(asking), telling: Some(telling), threads }
    }

    pub(crate) fn stats(&self) -> SharedStats {
        let State { options, stored, dropped, damaged, late, trouble } = self.state.as_ref();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SharedStats {
            nodes: options.nodes.iter().map(|node| without_password(node)).collect(),
            stored: count(stored),
            dropped: count(dropped),
            damaged: count(damaged),
            late: count(late),
            trouble: trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Those of the pairs that the server knows; none if it does not say within the patience.
    pub(crate) async fn get(&self, tag: Tag, keys: Vec<PairKey>) -> Vec<(PairKey, Entry)> {
        if keys.is_empty() {
            return Vec::new();
        }
        let (answer, mut receiver) = oneshot::channel();
        let question = Question { tag, keys, answer };
        let sent = self.asking.as_ref().is_some_and(|asking| asking.try_send(question).is_ok());
        if !sent {
            self.state.late.fetch_add(1, Ordering::Relaxed);
            return Vec::new();
        }
        let mut delay = Delay::new(self.state.options.patience);
        std::future::poll_fn(move |context| {
            use std::future::Future;
            use std::pin::Pin;
            if let Poll::Ready(found) = Pin::new(&mut receiver).poll(context) {
                return Poll::Ready(found.unwrap_or_default());
            }
            Pin::new(&mut delay).poll(context).map(|()| {
                self.state.late.fetch_add(1, Ordering::Relaxed);
                Vec::new()
            })
        })
        .await
    }

    /// Whether the server is there, on a connection of its own.
    pub(crate) fn ask(&self) -> SharedStats {
        let mut link = Link::new(&self.state, STORING);
        link.with(Server::ping);
        self.stats()
    }

    /// Stores entries, when there is time.
    pub(crate) fn insert(&self, tag: Tag, entries: Vec<(PairKey, Entry)>) {
        let count = entries.len() as u64;
        let Some(telling) = &self.telling else { return };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            telling.try_send(Told::Entries(tag, entries))
        {
            self.state.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Waits until all that was to be stored is, or was dropped.
    pub(crate) fn flush(&self) {
        let (done, waiting) = sync_channel(1);
        if let Some(telling) = &self.telling
            && telling.send(Told::Flush(done)).is_ok()
        {
            let _ = waiting.recv(); // the thread has ended if it does not answer
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        (self.asking, self.telling) = (None, None);
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic there has cost entries and nothing else
        }
    }
}

fn answer(state: &Arc<State>, questions: &Receiver<Question>) {
    let mut link = Link::new(state, state.options.patience);
    while let Ok(Question { tag, keys, answer }) = questions.recv() {
        if answer.is_canceled() {
            continue; // its caller has lost patience
        }
        let found = link.with(|server| server.get(tag, &keys)).unwrap_or_default();
        let known = keys.iter().zip(found).filter_map(|(key, bytes)| {
            let entry = Entry::open(key, &bytes?);
            if entry.is_none() {
                state.damaged.fetch_add(1, Ordering::Relaxed);
            }
            Some((*key, entry?))
        });
        let _ = answer.send(known.collect()); // its caller may have gone meanwhile
    }
}

fn store(state: &Arc<State>, told: &Receiver<Told>) {
    let mut link = Link::new(state, STORING);
    while let Ok(told) = told.recv() {
        match told {
            Told::Entries(tag, entries) => {
                for some in entries.chunks(PIPELINE) {
                    let stored = link.with(|server| server.set(tag, some, state.options.keep));
                    let counter = if stored.is_some() { &state.stored } else { &state.dropped };
                    counter.fetch_add(some.len() as u64, Ordering::Relaxed);
                }
            }
            Told::Flush(done) => {
                let _ = done.send(()); // nobody may wait any more
            }
        }
    }
}

/// A connection that is made when it is needed and given up for a while when it fails.
struct Link<'a> {
    state: &'a State,
    timeout: Duration,
    server: Option<Server>,
    pause: Duration,
    /// Until when the server is left alone.
    alone: Option<Instant>,
}

impl<'a> Link<'a> {
    fn new(state: &'a State, timeout: Duration) -> Self {
        Self { state, timeout, server: None, pause: FIRST_PAUSE, alone: None }
    }

    /// Does something with the server; `None` if that failed or was not tried.
    fn with<T>(&mut self, mut act: impl FnMut(&mut Server) -> RedisResult<T>) -> Option<T> {
        if self.alone.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let result = match &mut self.server {
            Some(server) => act(server),
            None => Server::connect(&self.state.options, self.timeout).and_then(|mut server| {
                let result = act(&mut server);
                self.server = Some(server);
                result
            }),
        };
        let mut trouble = self.state.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(value) => {
                (*trouble, self.pause, self.alone) = (None, FIRST_PAUSE, None);
                Some(value)
            }
            Err(error) => {
                *trouble = Some(error.to_string());
                // An answer that comes too late would be taken for that of the next question.
                self.server = None;
                self.alone = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                None
            }
        }
    }
}

/// A server or a cluster.
enum Server {
    One(Box<Connection>),
    Cluster(Box<ClusterConnection>),
}

impl Server {
    fn connect(options: &SharedOptions, timeout: Duration) -> RedisResult<Self> {
        // A connection takes more turns than a question.
        let connecting = timeout.max(Duration::from_millis(500));
        if let [node] = options.nodes.as_slice() {
            let connection =
                Client::open(node.as_str())?.get_connection_with_timeout(connecting)?;
            connection.set_read_timeout(Some(timeout))?;
            connection.set_write_timeout(Some(timeout))?;
            return Ok(Self::One(Box::new(connection)));
        }
        let nodes: Vec<&str> = options.nodes.iter().map(String::as_str).collect();
        let cluster = ClusterClient::builder(nodes)
            .connection_timeout(connecting)
            .response_timeout(timeout)
            .retries(1)
            .build()?;
        Ok(Self::Cluster(Box::new(cluster.get_connection()?)))
    }

    fn ping(&mut self) -> RedisResult<()> {
        match self {
            Self::One(connection) => redis::cmd("PING").exec(connection.as_mut()),
            Self::Cluster(connection) => redis::cmd("PING").exec(connection.as_mut()),
        }
    }

    /// The value of each key.
    fn get(&mut self, tag: Tag, keys: &[PairKey]) -> RedisResult<Vec<Option<Vec<u8>>>> {
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(name(tag, key));
        }
        match self {
            Self::One(connection) => command.query(connection.as_mut()),
            Self::Cluster(connection) => command.query(connection.as_mut()),
        }
    }

    fn set(&mut self, tag: Tag, entries: &[(PairKey, Entry)], keep: Duration) -> RedisResult<()> {
        let set = |key: &PairKey, entry: &Entry| {
            let mut command = redis::cmd("SET");
            command.arg(name(tag, key)).arg(&entry.seal(key)[..]);
            command.arg("EX").arg(keep.as_secs().max(1));
            command
        };
        match self {
            Self::One(connection) => {
                let mut pipe = redis::pipe();
                for (key, entry) in entries {
                    pipe.add_command(set(key, entry)).ignore();
                }
                pipe.exec(connection.as_mut())
            }
            Self::Cluster(connection) => {
                let mut pipe = cluster_pipe();
                for (key, entry) in entries {
                    pipe.add_command(set(key, entry)).ignore();
                }
                pipe.exec(connection.as_mut())
            }
        }
    }
}

/// The server's key of a pair.
fn name(tag: Tag, key: &PairKey) -> Vec<u8> {
    let mut name = format!("topshelf:{{{tag}}}").into_bytes();
    name.extend(key.as_bytes());
    name
}

fn without_password(node: &str) -> String {
    match (node.find("://"), node.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}{}", &node[..scheme + 3], &node[at + 1..])
        }
        _ => node.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_told() {
        assert_eq!(without_password("redis://me:secret@host:1/2"), "redis://host:1/2");
        assert_eq!(without_password("redis://me:p@ss@host:1"), "redis://host:1");
        assert_eq!(without_password("redis://host:1"), "redis://host:1");
        for wrong in ["redis://u:secret@:port", "rediss://u:secret@host", "secret"] {
            let error = SharedOptions::new([wrong]).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(SharedOptions::new(Vec::<String>::new()).is_err());
    }
}
