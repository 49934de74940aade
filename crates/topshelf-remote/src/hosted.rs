//! [`HostedReranker`]: a reranker that is a service.
//!
//! Documents are split into calls by the service's limits, several calls are out at once, and the
//! scores are put together in the order of the documents. A refusal that tells of a limit makes the
//! calls smaller. What fails in a way that may pass is tried again ([`crate::http`]); a service that
//! keeps failing is left alone for a while. A document without text is not sent and fails alone, as
//! does one that the service leaves out of its answer.
//!
//! Calls of the service run on threads of their own. Once the [`Call`] is withdrawn, no further one is made.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use topshelf_core::{
    Call, Grain, ModelIdentity, Passage, PassageFailure, Query, RerankOutcome, RerankScore,
    Reranker, Scale,
};

use crate::breaker::Breaker;
use crate::dialect::{self, Target};
use crate::error::{RemoteError, Result};
use crate::http::Endpoint;
use crate::key::{self, NoKey};
use crate::price::{Amount, Meter};
use crate::thread::on_a_thread;

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

/// Documents that go into one call of the service: their places, in order.
type Batch = Vec<usize>;

impl Service {
    fn endpoint(&self) -> Result<&Endpoint> {
        self.endpoint.as_ref().map_err(|missing| missing.error(self.target.dialect.name()))
    }

    /// The score of each document, or why it has none.
    fn score(&self, call: &Call, query: &str, documents: &[String]) -> Result<Vec<RerankOutcome>> {
        let endpoint = self.endpoint()?;
        let mut outcomes: Vec<RerankOutcome> = documents
            .iter()
            .map(|document| {
                Err(failure(if document.trim().is_empty() { "it has no text" } else { LEFT_OUT }))
            })
            .collect();
        let wanted: Batch =
            (0..documents.len()).filter(|&place| !documents[place].trim().is_empty()).collect();
        let batches = Mutex::new(self.split(documents, &wanted));
        let found: Mutex<Vec<(usize, f32)>> = Mutex::new(Vec::with_capacity(wanted.len()));
        let failed: Mutex<Option<RemoteError>> = Mutex::new(None);
        // A function of its own, so that the lock is not held while the service is asked.
        let next = || lock(&batches).pop();
        let work = || {
            while let Some(batch) = next() {
                if lock(&failed).is_some() {
                    return;
                }
                let texts: Vec<&str> =
                    batch.iter().map(|&place| documents[place].as_str()).collect();
                match self.ask(call, endpoint, query, &texts) {
                    Ok(scores) => {
                        let scored = batch.iter().zip(scores);
                        let scored = scored.filter_map(|(&place, score)| Some((place, score?)));
                        lock(&found).extend(scored);
                    }
                    // The service has named a limit.
                    Err(error) if self.smaller(&error, batch.len()) => {
                        lock(&batches).extend(self.split(documents, &batch));
                    }
                    Err(error) => {
                        lock(&failed).get_or_insert(error);
                    }
                }
            }
        };
        let threads = AT_ONCE.min(lock(&batches).len());
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
        for (place, score) in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
            outcomes[place] = outcome(score);
        }
        Ok(outcomes)
    }

    /// The scores from one call of the service; what it took is spent.
    fn ask(
        &self,
        call: &Call,
        endpoint: &Endpoint,
        query: &str,
        documents: &[&str],
    ) -> Result<Vec<Option<f32>>> {
        let Target { dialect, model, .. } = &self.target;
        self.breaker.check(endpoint.address())?;
        // Services that count tokens count the query's with each document.
        let bytes: usize = documents.iter().map(|document| query.len() + document.len()).sum();
        let guess = Amount::guess(bytes, 0, documents.len());
        let settled = self.meter.run(guess, |told| {
            let request = dialect.request(model, query, documents);
            let answer = endpoint.post("", &request, call);
            self.breaker.learn(&answer);
            let answer = answer?;
            *told = dialect::amount(&answer);
            dialect::scores(&answer, documents.len()).map_err(|reason| RemoteError::Unexpected {
                endpoint: endpoint.address().to_owned(),
                reason,
            })
        });
        call.spend(settled.usage());
        settled.answer
    }

    /// The documents in calls within the limits, last first.
    fn split(&self, documents: &[String], places: &[usize]) -> Vec<Batch> {
        let most = self.most.load(Ordering::Relaxed).max(1);
        let most_bytes = self.target.dialect.most_bytes();
        let mut batches: Vec<Batch> = Vec::new();
        let mut bytes = 0;
        for &place in places {
            let own = documents[place].len();
            match batches.last_mut() {
                Some(batch) if batch.len() < most && bytes + own <= most_bytes => {
                    batch.push(place);
                    bytes += own;
                }
                _ => {
                    batches.push(vec![place]);
                    bytes = own;
                }
            }
        }
        batches.reverse();
        batches
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

fn outcome(score: f32) -> RerankOutcome {
    if !score.is_finite() {
        return Err(failure("the service gave a score that is no number"));
    }
    Ok(RerankScore::new(score))
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
        call: &Call,
        query: &Query,
        passages: &[Arc<Passage>],
    ) -> topshelf_core::Result<Vec<RerankOutcome>> {
        if passages.is_empty() {
            return Ok(Vec::new());
        }
        let (service, query) = (Arc::clone(&self.service), query.text().to_owned());
        let documents: Vec<String> = passages.iter().map(|passage| passage.model_text()).collect();
        on_a_thread(STAGE, call, move |call| service.score(call, &query, &documents)).await
    }
}

impl fmt::Debug for HostedReranker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the key.
        f.debug_struct("HostedReranker").field("identity", &self.identity).finish_non_exhaustive()
    }
}
