//! SHA-256 of files, and the fingerprint of a model.
//!
//! The fingerprint names what is computed: two folders with the same fingerprint give the same
//! scores, so caches and indexes are keyed by it. It is the SHA-256 over the settings that
//! change the computation and over the sums of the files, and it is made from the recorded sums,
//! so that loading a model does not read its weights twice.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::spec::{ModelSpec, Pooling};

/// Read and hashed at a time.
const BLOCK: usize = 1 << 20;

/// SHA-256 in lower-case hex, and length, of all that `source` gives.
pub(crate) fn copy_hashed(
    source: &mut impl Read,
    sink: &mut impl Write,
) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK];
    let mut bytes = 0;
    loop {
        let read = match source.read(&mut block) {
            Ok(0) => return Ok((hex(&hash.finalize()), bytes)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hash.update(&block[..read]);
        sink.write_all(&block[..read])?;
        bytes += read as u64;
    }
}

/// SHA-256 in lower-case hex, and length, of a file.
pub(crate) fn of_file(path: &Path) -> io::Result<(String, u64)> {
    copy_hashed(&mut File::open(path)?, &mut io::sink())
}

/// The fingerprint of a model; see the top of this file.
///
/// Each part is preceded by its length, so that no two models give the same input.
pub(crate) fn fingerprint(spec: &ModelSpec) -> String {
    let pooling = match spec.pooling {
        None => "",
        Some(Pooling::Cls) => "cls",
        Some(Pooling::Mean) => "mean",
    };
    let family = spec.family.to_string();
    let max_tokens = spec.max_tokens.to_string();
    let mut parts: Vec<&str> = vec![
        "topshelf model 1",
        &family,
        &max_tokens,
        pooling,
        &spec.query_prefix,
        &spec.passage_prefix,
    ];
    let tokens = spec.tokens.as_ref().and_then(|tokens| serde_json::to_string(tokens).ok());
    parts.extend(tokens.as_deref());
    let mut files: Vec<_> = spec.files.iter().collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    for file in files {
        parts.extend([file.name.as_str(), file.sha256.as_str()]);
    }
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// In lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(DIGITS[usize::from(nibble)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalogue;

    #[test]
    fn the_sum_is_sha256() {
        let mut copy = Vec::new();
        let (sum, bytes) = copy_hashed(&mut &b"abc"[..], &mut copy).unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(sum, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((bytes, copy.as_slice()), (3, &b"abc"[..]));
    }

    #[test]
    fn the_fingerprint_follows_what_is_computed_and_nothing_else() {
        let spec = Catalogue::builtin().find("bge-small").unwrap();
        let original = fingerprint(spec);
        assert_eq!(original.len(), 64);

        let mut same = spec.clone();
        same.description = "other words".into();
        same.files.reverse();
        same.golden.clear();
        assert_eq!(fingerprint(&same), original);

        let changes: [fn(&mut ModelSpec); 5] = [
            |spec| spec.query_prefix.clear(),
            |spec| spec.pooling = Some(Pooling::Mean),
            |spec| spec.max_tokens = 256,
            |spec| spec.files[0].sha256 = "0".repeat(64),
            |spec| std::mem::swap(&mut spec.query_prefix, &mut spec.passage_prefix),
        ];
        for change in changes {
            let mut other = spec.clone();
            change(&mut other);
            assert_ne!(fingerprint(&other), original);
        }
    }
}
