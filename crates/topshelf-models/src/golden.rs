//! Golden pairs: at its first load a model must give the known scores of known inputs, or it is
//! refused.
//!
//! Wrong weights, a tokenizer of another model, a lost prefix or the wrong pooling all run
//! without an error and give plausible numbers. They do not give these.
//!
//! A pass is noted in the file `golden.ok` in the model's folder, so that later loads cost
//! nothing. The note holds everything that could change the outcome; where any of it differs, or
//! where the folder cannot be written, the pairs are run again.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::error::{ModelError, Result};
use crate::spec::{Golden, ModelFolder};

/// The file that notes a pass.
const NOTE: &str = "golden.ok";

/// What a pass holds for.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    fingerprint: String,
    golden: Vec<Golden>,
    engine: String,
    topshelf: String,
    cpu: String,
}

/// Compares `score` with the folder's golden pairs, unless that has been done before.
///
/// # Errors
///
/// [`ModelError::Golden`] with the first pair that is off, and what `score` answers.
pub(crate) fn check(
    folder: &ModelFolder,
    engine: &str,
    score: impl Fn(&Golden) -> Result<f32>,
) -> Result<()> {
    if folder.spec.golden.is_empty() {
        return Ok(());
    }
    let path = folder.dir.join(NOTE);
    let note = Note {
        fingerprint: folder.fingerprint.clone(),
        golden: folder.spec.golden.clone(),
        engine: engine.to_owned(),
        topshelf: env!("CARGO_PKG_VERSION").to_owned(),
        cpu: std::env::consts::ARCH.to_owned(),
    };
    let noted = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
    if noted.as_ref() == Some(&note) {
        return Ok(());
    }
    for golden in &folder.spec.golden {
        let got = score(golden)?;
        // Written so that NaN fails.
        let fits = (got - golden.score).abs() <= golden.tolerance;
        if !fits {
            return Err(ModelError::Golden {
                name: folder.spec.name.clone(),
                got,
                expected: golden.score,
                tolerance: golden.tolerance,
            });
        }
    }
    // A note that cannot be written, or half of one, only means that the pairs run again.
    if let Ok(text) = serde_json::to_vec_pretty(&note) {
        let _ = fs::write(&path, text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::catalogue::Catalogue;
    use crate::spec::Family;

    fn folder(dir: &std::path::Path) -> ModelFolder {
        let mut spec = Catalogue::builtin().default_for(Family::CrossEncoder).unwrap().clone();
        spec.golden.truncate(1);
        spec.golden[0].score = 2.0;
        spec.golden[0].tolerance = 0.5;
        ModelFolder { spec, dir: dir.to_owned(), fingerprint: "one".into() }
    }

    #[test]
    fn a_pass_is_noted_and_holds_until_something_changes() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = folder(dir.path());
        let runs = Cell::new(0);
        let score = |_: &Golden| {
            runs.set(runs.get() + 1);
            Ok(2.4)
        };
        check(&folder, "e", score).unwrap();
        check(&folder, "e", score).unwrap();
        assert_eq!(runs.get(), 1);
        check(&folder, "another engine", score).unwrap();
        assert_eq!(runs.get(), 2);
        folder.fingerprint = "two".into();
        check(&folder, "another engine", score).unwrap();
        assert_eq!(runs.get(), 3);
        folder.spec.golden[0].tolerance = 0.1;
        assert!(check(&folder, "another engine", score).is_err());
    }

    #[test]
    fn a_miss_and_nan_are_refused_every_time() {
        let dir = tempfile::tempdir().unwrap();
        for wrong in [1.4, f32::NAN] {
            for _ in 0..2 {
                let error = check(&folder(dir.path()), "e", |_| Ok(wrong)).unwrap_err();
                assert!(matches!(error, ModelError::Golden { .. }), "{error}");
            }
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_checked_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let gone = folder(&dir.path().join("gone"));
        let runs = Cell::new(0);
        for _ in 0..2 {
            check(&gone, "e", |_| {
                runs.set(runs.get() + 1);
                Ok(2.0)
            })
            .unwrap();
        }
        assert_eq!(runs.get(), 2);
    }
}
