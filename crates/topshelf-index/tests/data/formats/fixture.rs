//! Makes a small index with the code of the commit that it is compiled at; `make.sh` runs it.
//!
//! Lines that begin with `//1: ` or `//2: ` are for format 1, or for formats 2 and 3.

use std::fs;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use topshelf_core::{EmbedKind, Embedder, ModelIdentity};
//2: use topshelf_core::{TokenEmbedder, TokenVectors};
use topshelf_index::chunk::ChunkOptions;
use topshelf_index::{AddOptions, Settings, Writer, add};
//2: use topshelf_index::{Models, Tier, TokenVectorInfo};

/// `Bag` of the tests: words by feature hashing.
struct Bag(ModelIdentity);

fn fnv1a(word: &str) -> u64 {
    let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 7
}

fn words(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphanumeric());
    words.filter(|word| !word.is_empty()).map(str::to_lowercase)
}

#[async_trait]
impl Embedder for Bag {
    fn identity(&self) -> &ModelIdentity {
        &self.0
    }

    fn dimension(&self) -> usize {
        64
    }

    fn max_tokens(&self) -> usize {
        512
    }

    fn count_tokens(&self, text: &str) -> usize {
        words(text).count()
    }

    async fn embed(&self, _: EmbedKind, texts: &[&str]) -> topshelf_core::Result<Vec<Vec<f32>>> {
        let embed = |text: &&str| {
            let mut vector = vec![0.0_f32; 64];
            for word in words(text) {
                let hash = fnv1a(&word);
                vector[hash as usize % 64] += if hash >> 32 & 1 == 0 { 1.0 } else { -1.0 };
            }
            let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            vector.iter().map(|x| x / norm).collect()
        };
        Ok(texts.iter().map(embed).collect())
    }
}

//2: /// `Words` of the tests: a direction for each word.
//2: struct Words(ModelIdentity);
//2:
//2: fn direction(word: &str) -> Vec<f32> {
//2:     let mut state = word.bytes().fold(0x9e37_79b9_u64, |hash, byte| {
//2:         (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
//2:     });
//2:     let mut vector: Vec<f32> = (0..32)
//2:         .map(|i| {
//2:             state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
//2:             let own = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
//2:             own + if i % 3 == 0 { 0.6 } else { 0.2 }
//2:         })
//2:         .collect();
//2:     let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
//2:     vector.iter_mut().for_each(|x| *x /= norm);
//2:     vector
//2: }
//2:
//2: #[async_trait]
//2: impl TokenEmbedder for Words {
//2:     fn identity(&self) -> &ModelIdentity {
//2:         &self.0
//2:     }
//2:
//2:     fn dimension(&self) -> usize {
//2:         32
//2:     }
//2:
//2:     async fn embed_tokens(
//2:         &self,
//2:         _: EmbedKind,
//2:         texts: &[&str],
//2:     ) -> topshelf_core::Result<Vec<TokenVectors>> {
//2:         let encode = |text: &&str| TokenVectors {
//2:             dimension: 32,
//2:             values: text.split_whitespace().flat_map(direction).collect(),
//2:             truncated_tokens: 0,
//2:         };
//2:         Ok(texts.iter().map(encode).collect())
//2:     }
//2: }

fn identity(name: &str, fingerprint: &str) -> ModelIdentity {
    ModelIdentity {
        name: name.to_owned(),
        fingerprint: fingerprint.to_owned(),
        //2: engine: "test".to_owned(),
    }
}

fn main() {
    // Two folders: of the documents, and of the index to make.
    let folders: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let (docs, dir): (&Path, &Path) = (&folders[0], &folders[1]);
    let bag = Bag(identity("bag", "bag-64"));
    let settings = Settings::with_embedder(&bag);
    //2: let words = Words(identity("words", "words-32"));
    //2: let info = TokenVectorInfo::of(&words, Tier::Int8);
    //2: let settings = Settings { token_vectors: Some(info), ..settings };
    let options = AddOptions {
        chunk: Some(ChunkOptions { max_tokens: 256, overlap_tokens: 32 }),
        relative_to: Some(docs.to_owned()),
        ..AddOptions::default()
    };
    //1: let models = Some(&bag as &dyn Embedder);
    //2: let models = Models { embedder: Some(&bag), tokens: Some(&words) };
    let writer = Writer::create_or_open(dir, &settings).unwrap();
    let report = add(writer, &[docs.to_owned()], models, &options, &mut |_| {}).unwrap();
    assert_eq!(report.documents, 4, "{report:?}");
    fs::remove_file(dir.join("writer.lock")).unwrap();
}
