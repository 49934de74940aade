//! Files that come with the program, because no package has them; `assets/README.md` says what they
//! are and whose.

use std::fs;
use std::path::Path;

use super::write_error;
use crate::error::{ModelError, Result};
use crate::spec::ModelSpec;

/// Model, file, content.
const ASSETS: [(&str, &str, &[u8]); 1] = [(
    "answerdotai/answerai-colbert-small-v1",
    "projection-0.safetensors",
    include_bytes!("../../assets/answerai-colbert-small-v1/projection-0.safetensors"),
)];

/// Writes what the program has of a model's files into the folder `into`.
pub(super) fn write(spec: &ModelSpec, into: &Path) -> Result<()> {
    for file in spec.files.iter().filter(|file| file.built_in) {
        let content = content(&spec.name, &file.name).ok_or_else(|| ModelError::Catalogue {
            reason: format!("{} is to come with the program and does not", file.name),
        })?;
        let path = into.join(&file.name);
        fs::write(&path, content).map_err(|source| write_error(&path, source))?;
    }
    Ok(())
}

fn content(model: &str, file: &str) -> Option<&'static [u8]> {
    let found = ASSETS.iter().find(|(of, name, _)| (*of, *name) == (model, file));
    found.map(|(.., content)| *content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalogue;
    use crate::digest;

    #[test]
    fn they_are_what_the_catalogue_says() {
        let models = Catalogue::builtin().models().iter();
        let files = models.flat_map(|spec| spec.files.iter().map(move |file| (spec, file)));
        let mut found = 0;
        for (spec, file) in files.filter(|(_, file)| file.built_in) {
            let mut content = content(&spec.name, &file.name).unwrap();
            let sum = digest::copy_hashed(&mut content, &mut std::io::sink()).unwrap();
            assert_eq!(sum, (file.sha256.clone(), file.bytes));
            found += 1;
        }
        assert_eq!(found, ASSETS.len());
    }
}
