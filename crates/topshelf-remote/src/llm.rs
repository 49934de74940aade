//! [`RemoteModel`]: an LLM behind an endpoint as a [`LanguageModel`], and how one is named: [`Place`].
//!
//! Several questions are out at once; what fails in a way that may pass is tried again
//! ([`crate::http`]), and an endpoint that keeps failing is left alone for a while. A question that is
//! refused for itself (400, 413, 422) fails alone; whatever else goes wrong is an error of all. Once the
//! [`Call`] is withdrawn, no further question is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use topshelf_core::{Ask, Call, LanguageModel, ModelIdentity, PassageFailure, Tell, Written};

use crate::breaker::Breaker;
use crate::chat::{Api, ChatModel, CountedAnswer};
use crate::error::{RemoteError, Result};
use crate::key::{self, NoKey};
use crate::price::{Amount, Meter};
use crate::thread::on_a_thread;

/// The name of this stage in errors.
const STAGE: &str = "rerank";

/// Questions that are out at once.
const AT_ONCE: usize = 4;

/// The variable with the key of a server of one's own.
const OWN_KEY: &str = "TOPSHELF_LLM_KEY";

/// Where a model answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// How it is spoken to.
    pub api: Api,
    /// The address, up to and with `/v1`.
    pub address: String,
}

impl Place {
    /// `openai`, `anthropic`, the address of an OpenAI-compatible server, or `anthropic+` and that of one
    /// which speaks like Anthropic.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Endpoint`] for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        for api in [Api::OpenAi, Api::Anthropic] {
            if text == api.name() {
                return Ok(Self { api, address: api.address().to_owned() });
            }
        }
        let (api, address) = match text.strip_prefix("anthropic+") {
            Some(address) => (Api::Anthropic, address),
            None => (Api::OpenAi, text),
        };
        if !["http://", "https://"].iter().any(|scheme| address.starts_with(scheme)) {
            return Err(RemoteError::Endpoint { endpoint: address.to_owned() });
        }
        Ok(Self { api, address: address.trim_end_matches('/').to_owned() })
    }
}

/// An LLM behind an endpoint.
pub struct RemoteModel {
    client: Arc<Client>,
    identity: ModelIdentity,
}

struct Client {
    /// Without a key where one is wanted: then each question says so.
    chat: Result<ChatModel, NoKey>,
    service: &'static str,
    address: String,
    breaker: Breaker,
    meter: Meter,
}

impl RemoteModel {
    /// The model of that name there, with the key that the environment has for it. `meter` counts what
    /// it costs.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Endpoint`] for an address that is none. A missing key is told when something is
    /// asked, so that another reranker may stand in.
    pub fn new(model: &str, place: &Place, meter: Meter) -> Result<Self> {
        let Place { api, address } = place;
        let is_vendor = address == api.address();
        let variable = if is_vendor { api.key_variable() } else { OWN_KEY };
        let chat = match key::find(variable, is_vendor) {
            Ok(key) => Ok(ChatModel::with_api(*api, address, model, key)?),
            Err(missing) => Err(missing),
        };
        let identity = ModelIdentity {
            name: format!("llm:{model}@{address}"),
            // Whether there is still the same model behind the name, only the server knows.
            fingerprint: format!("{} {address} {model}", api.name()),
            engine: format!("{} at {address}", api.name()),
        };
        let (service, address, breaker) = (api.name(), address.clone(), Breaker::default());
        Ok(Self { client: Arc::new(Client { chat, service, address, breaker, meter }), identity })
    }
}

type Outcome = std::result::Result<Written, PassageFailure>;

impl Client {
    /// Asks within the budget. What it took is spent on the call, also if the answer breaks off.
    fn metered(
        &self,
        call: &Call,
        ask: &Ask,
        question: impl FnOnce(&mut CountedAnswer) -> Result<()>,
    ) -> Result<Written> {
        let bytes = ask.prompt.texts().map(str::len).sum();
        let guess = Amount::guess(bytes, ask.max_tokens, 0);
        let settled = self.meter.run(guess, |told| {
            let mut counted = CountedAnswer::default();
            let outcome = question(&mut counted);
            let is_nothing = counted == CountedAnswer::default();
            let CountedAnswer { written, amount } = counted;
            *told = match &outcome {
                Err(_) if is_nothing => None,
                Err(_) => Some(amount.broken_off(guess, written.text.len())),
                Ok(()) => (amount.input + amount.output > 0).then_some(amount),
            };
            outcome.map(|()| written)
        });
        call.spend(settled.usage());
        settled.answer
    }

    fn write(&self, call: &Call, asks: &[Ask]) -> Result<Vec<Outcome>> {
        let chat = self.chat.as_ref().map_err(|missing| missing.error(self.service))?;
        let outcomes: Vec<Mutex<Option<Outcome>>> = asks.iter().map(|_| Mutex::default()).collect();
        let failed: Mutex<Option<RemoteError>> = Mutex::new(None);
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(place) =
                Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < asks.len())
            {
                if lock(&failed).is_some() {
                    return;
                }
                let ask = &asks[place];
                let asked = self.breaker.check(&self.address).and_then(|()| {
                    self.metered(call, ask, |counted| {
                        let answer = chat.answer(call, ask);
                        self.breaker.learn(&answer);
                        *counted = answer?;
                        Ok(())
                    })
                });
                match asked {
                    Ok(written) => *lock(&outcomes[place]) = Some(Ok(written)),
                    Err(RemoteError::Refused { status: 400 | 413 | 422, reason, .. }) => {
                        *lock(&outcomes[place]) = Some(Err(PassageFailure { reason }));
                    }
                    Err(error) => {
                        lock(&failed).get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..AT_ONCE.min(asks.len()) {
                // A thread that the system does not give is done without.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut outcomes: Vec<Outcome> = outcomes
            .into_iter()
            .filter_map(|outcome| outcome.into_inner().unwrap_or_else(PoisonError::into_inner))
            .collect();
        // Where nothing at all is answered, it is no fault of a single passage.
        if outcomes.iter().all(std::result::Result::is_err)
            && let Some(Err(PassageFailure { reason })) = outcomes.pop()
        {
            let endpoint = self.address.clone();
            return Err(RemoteError::Refused { endpoint, status: 400, reason });
        }
        Ok(outcomes)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl LanguageModel for RemoteModel {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    async fn write(&self, call: &Call, asks: &[Ask]) -> topshelf_core::Result<Vec<Outcome>> {
        if asks.is_empty() {
            return Ok(Vec::new());
        }
        let (client, asks) = (Arc::clone(&self.client), asks.to_vec());
        on_a_thread(STAGE, call, move |call| client.write(call, &asks)).await
    }

    async fn stream(&self, call: &Call, ask: &Ask, tell: Tell) -> topshelf_core::Result<Written> {
        let (client, ask) = (Arc::clone(&self.client), ask.clone());
        on_a_thread(STAGE, call, move |call| {
            let chat = client.chat.as_ref().map_err(|missing| missing.error(client.service))?;
            client.metered(call, &ask, |counted| chat.stream(call, &ask, tell.as_ref(), counted))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named() {
        let place = |text: &str| Place::parse(text).map(|place| (place.api, place.address));
        assert_eq!(place("openai").unwrap(), (Api::OpenAi, Api::OpenAi.address().to_owned()));
        assert_eq!(place("anthropic").unwrap().0, Api::Anthropic);
        let local = "http://localhost:8080/v1";
        assert_eq!(place("http://localhost:8080/v1/").unwrap(), (Api::OpenAi, local.to_owned()));
        let (api, address) = place("anthropic+http://localhost:8080/v1").unwrap();
        assert_eq!((api, address.as_str()), (Api::Anthropic, local));
        assert!(place("localhost").is_err());
    }
}
