//! [`HostedReranker`]: a reranker that is a service.
//!
//! Documents are split into calls by the service's limits, several calls are out at once, and the
//! scores are put together in the order of the documents. A refusal that tells of a limit makes the
//! calls smaller. What fails in a way that may pass is tried again ([`crate::http`]); a service that
//! keeps failing is left alone for a while. A document without text is not sent and fails alone, as
//! does one that the service leaves out of its answer.
//!
//! A call runs on a thread of its own. When the caller goes away, no further call is made.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use topshelf_core::{
    Grain, ModelIdentity, Passage, PassageFailure, Query, RerankOutcome, RerankScore, Reranker,
    Scale, Usage,
};

use crate::breaker::Breaker;
use crate::caller::{Caller, on_a_thread};
use crate::dialect::{self, Target};
use crate::error::{RemoteError, Result};
use crate::http::Endpoint;
use crate::key::{self, NoKey};
use crate::price::{Amount, Meter};

/// The name of this stage in errors.
const STAGE: &str = "rerank";

/// How long one call is waited for.
const LIMIT: Duration = Duration::from_secs(30);

/// Calls that are out at once.
const AT_ONCE: usize = 4;

/// A service that reranks. Clones share what is known of its health.
#[derive(Clone)]
pub struct HostedReranker {
    service: Arc<Service>,
    identity: ModelIdentity,
}

struct Service {
    target: Target,
    /// Without a key where it wants one: then each call says so.
    endpoint: Result<Endpoint, NoKey>,
    breaker: Breaker,
    /// Documents in a call, at most: what is known, made smaller by refusals.
    most: AtomicUsize,
    meter: Meter,
}

impl HostedReranker {
    /// The service of that name, with the key that the environment has for it. `meter` counts what it
    /// costs.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Endpoint`] for an address that is none. A missing key is told when the service is
    /// asked, so that another reranker may stand in for it.
    pub fn new(target: Target, meter: Meter) -> Result<Self> {
        let dialect = target.dialect;
        let variable = dialect.key_variable();
        let own = dialect.address() != Some(target.address.as_str());
        let endpoint = match key::find(variable, !own) {
            Ok(key) => {
                let endpoint = Endpoint::new(&target.address, key, LIMIT)?;
                Ok(endpoint.with_header(dialect.key_header()))
            }
            Err(missing) => Err(missing),
        };
        let identity = ModelIdentity {
            name: target.name.clone(),
            // Whether the service still has the same model behind the name, only it knows.
            fingerprint: format!("{} {} {}", dialect.name(), target.address, target.model),
            engine: format!("{} at {}", dialect.name(), target.address),
        };
        let most = AtomicUsize::new(dialect.most_documents());
        let service = Service { target, endpoint, breaker: Breaker::default(), most, meter };
        Ok(Self { service: Arc::new(service), identity })
    }
}

/// Documents that go into one call: their places, in order.
type Call = Vec<usize>;

impl Service {
    fn endpoint(&self) -> Result<&Endpoint> {
        self.endpoint.as_ref().map_err(|missing| missing.error(self.target.dialect.name()))
    }

    /// The score of each document, or why it has none.
    fn score(
        &self,
        query: &str,
        documents: &[String],
        caller: &dyn Caller,
    ) -> Result<Vec<RerankOutcome>> {
        let endpoint = self.endpoint()?;
        let mut outcomes: Vec<RerankOutcome> = documents
            .iter()
            .map(|document| {
                Err(failure(if document.trim().is_empty() { "it has no text" } else { LEFT_OUT }))
            })
            .collect();
        let wanted: Call =
            (0..documents.len()).filter(|&place| !documents[place].trim().is_empty()).collect();
        let calls = Mutex::new(self.split(documents, &wanted));
        let found: Mutex<Vec<(usize, f32, Usage)>> = Mutex::new(Vec::with_capacity(wanted.len()));
        let failed: Mutex<Option<RemoteError>> = Mutex::new(None);
        // A function of its own, so that the lock is not held while the call is out.
        let next = || lock(&calls).pop();
        let work = || {
            while let Some(call) = next() {
                if lock(&failed).is_some() {
                    return;
                }
                let texts: Vec<&str> =
                    call.iter().map(|&place| documents[place].as_str()).collect();
                let outcome = self.call(endpoint, query, &texts, caller);
                match outcome {
                    Ok((scores, usage)) => {
                        // What the call took stands with its first score.
                        let mut usage = Some(usage);
                        let scored = call.iter().zip(scores).filter_map(|(&place, score)| {
                            Some((place, score?, usage.take().unwrap_or_default()))
                        });
                        lock(&found).extend(scored);
                    }
                    // The service has told of a limit.
                    Err(error) if self.smaller(&error, call.len()) => {
                        lock(&calls).extend(self.split(documents, &call));
                    }
                    Err(error) => {
                        lock(&failed).get_or_insert(error);
                    }
                }
            }
        };
        let threads = AT_ONCE.min(lock(&calls).len());
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // A thread that the system does not give is done without.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        for (place, score, usage) in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            outcomes[place] = outcome(score, usage);
        }
        Ok(outcomes)
    }

    /// One call: scores, and what it took.
    fn call(
        &self,
        endpoint: &Endpoint,
        query: &str,
        documents: &[&str],
        caller: &dyn Caller,
    ) -> Result<(Vec<Option<f32>>, Usage)> {
        let Target { dialect, model, .. } = &self.target;
        self.breaker.check(endpoint.address())?;
        // Services that count tokens count the query's with each document.
        let bytes: usize = documents.iter().map(|document| query.len() + document.len()).sum();
        let guess = Amount::guess(bytes, 0, documents.len());
        let settled = self.meter.run(guess, |told| {
            let request = dialect.request(model, query, documents);
            let answer = endpoint.post_while("", &request, caller);
            self.breaker.learn(&answer);
            let answer = answer?;
            *told = dialect::amount(&answer);
            dialect::scores(&answer, documents.len()).map_err(|reason| RemoteError::Unexpected {
                endpoint: endpoint.address().to_owned(),
                reason,
            })
        });
        let usage = settled.usage();
        caller.pays(usage);
        Ok((settled.answer?, usage))
    }

    /// The documents in calls within the limits, last first.
    fn split(&self, documents: &[String], places: &[usize]) -> Vec<Call> {
        let most = self.most.load(Ordering::Relaxed).max(1);
        let most_bytes = self.target.dialect.most_bytes();
        let mut calls: Vec<Call> = Vec::new();
        let mut bytes = 0;
        for &place in places {
            let own = documents[place].len();
            match calls.last_mut() {
                Some(call) if call.len() < most && bytes + own <= most_bytes => {
                    call.push(place);
                    bytes += own;
                }
                _ => {
                    calls.push(vec![place]);
                    bytes = own;
                }
            }
        }
        calls.reverse();
        calls
    }

    /// Whether a refusal tells that a call of so many documents was too large; if so, later ones are
    /// smaller.
    fn smaller(&self, error: &RemoteError, sent: usize) -> bool {
        let RemoteError::Refused { status: 400 | 413 | 422, reason, .. } = error else {
            return false;
        };
        let reason = reason.to_lowercase();
        let is_limit = ["batch size", "too many", "too large", "max allowed", "maximum", "tokens"];
        if sent < 2 || !is_limit.iter().any(|word| reason.contains(word)) {
            return false;
        }
        // "batch size 33 > maximum allowed batch size 32" says it itself; else half of it is tried.
        let stated = reason.rsplit_once("maximum allowed batch size").and_then(|(_, rest)| {
            rest.trim().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        });
        let most = stated.unwrap_or(sent / 2).clamp(1, sent - 1);
        self.most.fetch_min(most, Ordering::Relaxed);
        true
    }
}

const LEFT_OUT: &str = "the service left it out of its answer";

fn failure(reason: &str) -> PassageFailure {
    PassageFailure { reason: reason.to_owned() }
}

fn outcome(score: f32, usage: Usage) -> RerankOutcome {
    if !score.is_finite() {
        return Err(failure("the service gave a score that is no number"));
    }
    Ok(RerankScore { usage, ..RerankScore::new(score) })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Reranker for HostedReranker {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn scale(&self) -> Scale {
        self.service.target.dialect.scale(&self.service.target.model)
    }

    fn grain(&self) -> Grain {
        Grain::Call
    }

    async fn score(
        &self,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> topshelf_core::Result<Vec<RerankOutcome>> {
        if passages.is_empty() {
            return Ok(Vec::new());
        }
        let (service, query) = (Arc::clone(&self.service), query.text().to_owned());
        let documents: Vec<String> = passages.iter().map(|passage| passage.model_text()).collect();
        on_a_thread(STAGE, move |caller| service.score(&query, &documents, caller)).await
    }
}

impl fmt::Debug for HostedReranker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the key.
        f.debug_struct("HostedReranker").field("identity", &self.identity).finish_non_exhaustive()
    }
}
