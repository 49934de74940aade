//! Who may ask: [`Keys`], from a file of hashes.
//!
//! ```toml
//! [[key]]
//! name = "search-team"
//! sha256 = "…"          # of the key, in hex; `topshelf keys new` makes both
//! per_minute = 600      # requests; no limit if that is not said
//! may_change = true     # documents of the indexes, and have them read anew; false if that is not said
//! ```
//!
//! A key is compared by its hash, in a time that does not depend on where it differs, with every key of
//! the file. Keys are random and long, so their hash needs neither salt nor slowness. Requests are counted
//! by a bucket for each key: a minute's worth may come at once, after that they come as it fills.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::error::{Result, ServeError};

/// The keys of a server.
#[derive(Debug)]
pub struct Keys {
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    name: String,
    hash: [u8; 32],
    may_change: bool,
    bucket: Option<Mutex<Bucket>>,
}

/// Whose a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    /// The name of the key.
    pub name: String,
    /// Whether it is good for changing what is served.
    pub may_change: bool,
}

/// Requests that a key may still make.
#[derive(Debug)]
struct Bucket {
    size: f64,
    left: f64,
    at: Instant,
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    per_minute: Option<u32>,
    #[serde(default)]
    may_change: bool,
}

impl Keys {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// [`ServeError::Failed`] if it cannot be read, or has no key.
    pub fn open(path: &Path) -> Result<Self> {
        let wrong = |reason: String| ServeError::Failed {
            reason: format!("the keys in {} cannot be used: {reason}", path.display()),
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let file: File = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if file.key.is_empty() {
            let reason = "there is none in it; a key is a [[key]] with a name and a sha256";
            return Err(wrong(reason.to_owned()));
        }
        let keys = file.key.into_iter().map(|entry| {
            let Entry { name, sha256, per_minute, may_change } = entry;
            let hash = from_hex(&sha256).ok_or_else(|| {
                wrong(format!("the sha256 of \"{name}\" is not 64 hexadecimal digits"))
            })?;
            let bucket = per_minute.map(|size| Mutex::new(Bucket::full(f64::from(size))));
            Ok(Key { name, hash, may_change, bucket })
        });
        Ok(Self { keys: keys.collect::<Result<_>>()? })
    }

    /// Lets keys that were there before go on with what they have left.
    pub(crate) fn carry_on(&self, before: &Self) {
        for key in &self.keys {
            let same = before.keys.iter().find(|own| own.hash == key.hash);
            if let (Some(new), Some(old)) = (&key.bucket, same.and_then(|own| own.bucket.as_ref()))
            {
                let old = old.lock().unwrap_or_else(PoisonError::into_inner);
                let mut new = new.lock().unwrap_or_else(PoisonError::into_inner);
                (new.left, new.at) = (old.left.min(new.size), old.at);
            }
        }
    }

    /// Whose key a request has, if that may ask now.
    ///
    /// # Errors
    ///
    /// [`ServeError::NoKey`], [`ServeError::WrongKey`], [`ServeError::RateLimited`].
    pub fn check(&self, headers: &HeaderMap) -> Result<KeyHolder> {
        let given = presented(headers).ok_or(ServeError::NoKey)?;
        let hash: [u8; 32] = Sha256::digest(given.as_bytes()).into();
        // All of them, whichever it is.
        let found = self.keys.iter().fold(None, |found, key| {
            if bool::from(key.hash.ct_eq(&hash)) { Some(key) } else { found }
        });
        let key = found.ok_or(ServeError::WrongKey)?;
        if let Some(bucket) = &key.bucket {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            bucket
                .take(Instant::now())
                .map_err(|retry_after| ServeError::RateLimited { retry_after })?;
        }
        Ok(KeyHolder { name: key.name.clone(), may_change: key.may_change })
    }
}

/// The key in a request: `Authorization: Bearer KEY`, or `Api-Key: KEY` as some clients send it.
fn presented(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    let plain = || headers.get("api-key").and_then(|value| value.to_str().ok()).map(str::trim);
    bearer.or_else(plain).filter(|key| !key.is_empty())
}

impl Bucket {
    fn full(size: f64) -> Self {
        Self { size, left: size, at: Instant::now() }
    }

    /// Takes one, or says after what time there will be one.
    fn take(&mut self, now: Instant) -> std::result::Result<(), Duration> {
        let per_second = self.size / 60.0;
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + elapsed * per_second).min(self.size);
        self.at = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        let seconds = (1.0 - self.left) / per_second;
        Err(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_mins(1)))
    }
}

/// The hash of a key as the file has it.
pub fn hash(key: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(key.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a string takes all
        text
    })
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Keys> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.toml");
        std::fs::write(&path, text).unwrap();
        Keys::open(&path)
    }

    fn with(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn a_key_is_known_by_its_hash() {
        let entry = |name, key| format!("[[key]]\nname = \"{name}\"\nsha256 = \"{}\"\n", hash(key));
        let text = format!("{}{}may_change = true\n", entry("a", "secret"), entry("b", "other"));
        let keys = keys(&text).unwrap();
        let holder = |name, value| keys.check(&with(name, value)).unwrap();
        let a = KeyHolder { name: "a".to_owned(), may_change: false };
        assert_eq!(holder("authorization", "Bearer secret"), a);
        assert_eq!(holder("authorization", "bearer  secret"), a);
        assert_eq!(holder("api-key", "secret"), a);
        let b = KeyHolder { name: "b".to_owned(), may_change: true };
        assert_eq!(holder("api-key", "other"), b);
        assert!(matches!(keys.check(&HeaderMap::new()), Err(ServeError::NoKey)));
        assert!(matches!(
            keys.check(&with("authorization", "Basic secret")),
            Err(ServeError::NoKey)
        ));
        let wrong = keys.check(&with("authorization", "Bearer secre"));
        assert!(matches!(wrong, Err(ServeError::WrongKey)));
    }

    #[test]
    fn a_file_without_a_usable_key_is_refused() {
        for text in ["", "[[key]]\nname = \"a\"\nsha256 = \"zz\"", "nonsense", "[[key]]\nname = 1"]
        {
            assert!(keys(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bucket_fills_by_the_minute() {
        let mut bucket = Bucket::full(2.0);
        let start = bucket.at;
        assert!(bucket.take(start).is_ok());
        assert!(bucket.take(start).is_ok());
        assert_eq!(bucket.take(start), Err(Duration::from_secs(30)));
        assert!(bucket.take(start + Duration::from_secs(31)).is_ok());
        assert!(bucket.take(start + Duration::from_secs(31)).is_err());
        let later = start + Duration::from_hours(1);
        assert!(bucket.take(later).is_ok() && bucket.take(later).is_ok());
        assert!(bucket.take(later).is_err());
    }
}
