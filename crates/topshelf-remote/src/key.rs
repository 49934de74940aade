//! Keys: from a variable of the environment, or from the file that one with `_FILE` behind it names.

use crate::error::RemoteError;

/// Why there is no key.
#[derive(Debug)]
pub(crate) struct NoKey {
    variable: &'static str,
    /// The file that should hold it, and why it cannot be read.
    file: Option<(String, String)>,
}

impl NoKey {
    /// As the error of a call to that service.
    pub(crate) fn error(&self, service: &str) -> RemoteError {
        let variable = self.variable.to_owned();
        match &self.file {
            None => RemoteError::NoKey { service: service.to_owned(), variable },
            Some((path, reason)) => {
                RemoteError::KeyFile { variable, path: path.clone(), reason: reason.clone() }
            }
        }
    }
}

/// The key, if there is one; that there is none is an error where it `is_needed`.
pub(crate) fn find(variable: &'static str, is_needed: bool) -> Result<Option<String>, NoKey> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let key = match (set(variable), set(&format!("{variable}_FILE"))) {
        (Some(key), _) => Some(key.trim().to_owned()),
        (None, None) => None,
        (None, Some(path)) => match std::fs::read_to_string(&path) {
            Ok(key) => Some(key.trim().to_owned()).filter(|key| !key.is_empty()),
            Err(error) => return Err(NoKey { variable, file: Some((path, error.to_string())) }),
        },
    };
    if key.is_none() && is_needed {
        return Err(NoKey { variable, file: None });
    }
    Ok(key)
}
