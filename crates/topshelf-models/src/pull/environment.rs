//! What the environment says of pulling: [`Environment`]. Read in one place, so that a caller
//! can state it all instead.
//!
//! | variable | for |
//! | --- | --- |
//! | `TOPSHELF_PYTHON` | the interpreter whose pip downloads |
//! | `HF_ENDPOINT` | another address of the hub, as a mirror's |
//! | `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` | where the hub's cache on this machine lies, as for Hugging Face's own tools |
//! | `HF_TOKEN` | the token for private repositories; otherwise the file `token` in `HF_HOME` |
//! | `HF_HUB_OFFLINE` | use the cache only |
//!
//! pip reads its own configuration and `PIP_…` variables, and both follow the usual proxy
//! variables.

use std::env;
use std::fmt;
use std::fs;
use std::path::PathBuf;

use crate::store::variable;

/// The hub itself.
const HUB: &str = "https://huggingface.co";

/// What programs and places a pull uses.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The Python interpreter whose pip downloads; `None` to look for one.
    pub python: Option<PathBuf>,
    /// Further options for `pip download`, as `--index-url`.
    pub pip_options: Vec<String>,
    /// The hub and its cache.
    pub hub: HubSettings,
}

/// The Hugging Face hub and its cache on this machine.
#[derive(Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// Its address, without a slash at the end.
    pub endpoint: String,
    /// The folder of the cache (`…/huggingface/hub`); `None` where no home folder is known.
    pub cache: Option<PathBuf>,
    /// The token that is sent with each request, if any.
    pub token: Option<String>,
    /// Whether only the cache may be used.
    pub offline: bool,
}

impl Default for HubSettings {
    /// The public hub, no cache, no token.
    fn default() -> Self {
        Self { endpoint: HUB.into(), cache: None, token: None, offline: false }
    }
}

/// Says whether there is a token, and not which.
impl fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("offline", &self.offline)
            .finish()
    }
}

impl Environment {
    /// What the environment variables of this process say.
    pub fn from_env() -> Self {
        Self {
            python: variable("TOPSHELF_PYTHON").map(PathBuf::from),
            pip_options: Vec::new(),
            hub: HubSettings::from_env(),
        }
    }
}

impl HubSettings {
    /// What the environment variables of this process say.
    pub fn from_env() -> Self {
        let text = |name| variable(name).and_then(|value| value.into_string().ok());
        let home = variable("HF_HOME").map(PathBuf::from).or_else(|| {
            let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache")));
            cache.map(|cache| cache.join("huggingface"))
        });
        let cache = variable("HF_HUB_CACHE").map(PathBuf::from);
        let cache = cache.or_else(|| home.as_ref().map(|home| home.join("hub")));
        let kept = || fs::read_to_string(home.as_ref()?.join("token")).ok();
        let token = text("HF_TOKEN").or_else(kept).map(|token| token.trim().to_owned());
        let offline = text("HF_HUB_OFFLINE").is_some_and(|value| {
            ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str())
        });
        Self {
            endpoint: text("HF_ENDPOINT")
                .map_or_else(|| HUB.into(), |endpoint| endpoint.trim_end_matches('/').to_owned()),
            cache,
            token: token.filter(|token| !token.is_empty()),
            offline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_not_printed() {
        let settings = HubSettings { token: Some("hf_secret".into()), ..HubSettings::default() };
        let printed = format!("{settings:?}");
        assert!(printed.contains("Some(\"…\")") && !printed.contains("secret"), "{printed}");
    }
}
