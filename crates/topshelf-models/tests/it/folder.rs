//! Models in folders of the user's own.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use topshelf_models::{Family, ModelError, ModelFolder, Pooling, Store};

use super::support::flip;

const CROSS_ENCODER: &str = r#"{"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"},
        "max_position_embeddings": 512, "hidden_size": 384}"#;
const PLAIN: &str = r#"{"architectures": ["BertModel"], "hidden_size": 384}"#;
const MODULES: &str = r#"[{"type": "sentence_transformers.models.Transformer"},
    {"type": "sentence_transformers.models.Pooling"}]"#;

struct Folder(TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, content) in files {
            folder.add(name, content);
        }
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn add(&self, name: &str, content: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn open(&self) -> Result<ModelFolder, ModelError> {
        Store::at(self.path().join("store")).find(self.path().to_str().unwrap())
    }

    fn refused(&self) -> String {
        match self.open() {
            Err(error @ ModelError::Unsupported { .. }) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_cross_encoder_is_told_by_its_configuration() {
    let folder = Folder::with(&[
        ("model.onnx", "weights"),
        ("tokenizer.json", "{}"),
        ("config.json", CROSS_ENCODER),
    ]);
    let found = folder.open().unwrap();
    assert_eq!(found.spec.family, Family::CrossEncoder);
    assert_eq!((found.spec.max_tokens, found.spec.dimension), (512, None));
    assert_eq!(found.file("model.onnx"), folder.path().join("model.onnx"));
    assert!(found.spec.golden.is_empty());
}

#[test]
fn a_bi_encoder_is_told_by_sentence_transformers_files() {
    let folder = Folder::with(&[
        ("onnx/model.onnx", "f32"),
        ("onnx/model_quantized.onnx", "int8"),
        ("onnx/model_quantized.onnx_data", "tensors"),
        ("tokenizer.json", "{}"),
        ("config.json", PLAIN),
        ("modules.json", MODULES),
        ("1_Pooling/config.json", r#"{"pooling_mode_mean_tokens": true}"#),
        ("sentence_bert_config.json", r#"{"max_seq_length": 128}"#),
        ("config_sentence_transformers.json", r#"{"prompts": {"query": "query: "}}"#),
    ]);
    let spec = folder.open().unwrap().spec;
    assert_eq!(spec.family, Family::BiEncoder);
    assert_eq!(spec.pooling, Some(Pooling::Mean));
    assert_eq!((spec.max_tokens, spec.dimension), (128, Some(384)));
    assert_eq!((spec.query_prefix.as_str(), spec.passage_prefix.as_str()), ("query: ", ""));
    let found = folder.open().unwrap();
    assert!(found.file("model.onnx").ends_with("onnx/model_quantized.onnx"));
    assert_eq!(found.spec.files.len(), 3, "the external tensors are part of the model");
}

#[test]
fn topshelf_toml_says_what_the_others_do_not() {
    let folder = Folder::with(&[
        ("model.onnx", "weights"),
        ("onnx/other.onnx", "other"),
        ("tokenizer.json", "{}"),
        ("config.json", PLAIN),
        (
            "topshelf.toml",
            "name = \"ours\"\nfamily = \"bi-encoder\"\npooling = \"cls\"\nmax_tokens = 64\n\
             query_prefix = \"q: \"\nweights = \"onnx/other.onnx\"\n\
             [[golden]]\nquery = \"a\"\npassage = \"b\"\nscore = 0.5\ntolerance = 0.1\n\
             source = \"us\"\n",
        ),
    ]);
    let found = folder.open().unwrap();
    assert_eq!(found.spec.name, "ours");
    assert_eq!((found.spec.family, found.spec.pooling), (Family::BiEncoder, Some(Pooling::Cls)));
    assert_eq!((found.spec.max_tokens, found.spec.dimension), (64, Some(384)));
    assert_eq!(found.spec.query_prefix, "q: ");
    assert_eq!(found.spec.golden.len(), 1);
    assert!(found.file("model.onnx").ends_with("onnx/other.onnx"));
}

#[test]
fn the_fingerprint_follows_the_files_and_the_settings() {
    let files = [
        ("model.onnx", "weights"),
        ("tokenizer.json", "{}"),
        ("topshelf.toml", "family = \"cross-encoder\""),
    ];
    let folder = Folder::with(&files);
    let first = folder.open().unwrap().fingerprint;
    assert_eq!(Folder::with(&files).open().unwrap().fingerprint, first, "not where it lies");
    folder.add("topshelf.toml", "family = \"cross-encoder\"\nmax_tokens = 99");
    let second = folder.open().unwrap().fingerprint;
    flip(&folder.path().join("model.onnx"));
    let third = folder.open().unwrap().fingerprint;
    assert!(first != second && second != third && first != third);
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let folder = Folder::with(&[]);
    assert!(folder.refused().contains("there is no model.onnx"), "{}", folder.refused());
    folder.add("onnx/a.onnx", "a");
    assert!(folder.refused().contains("tokenizer.json is missing"), "{}", folder.refused());
    folder.add("tokenizer.json", "{}");
    assert!(folder.refused().contains("`family = \"…\"`"), "{}", folder.refused());
    folder.add("config.json", PLAIN);
    assert!(folder.refused().contains("BertModel"), "{}", folder.refused());
    folder.add("topshelf.toml", "family = \"bi-encoder\"");
    assert!(folder.refused().contains("`pooling = \"…\"`"), "{}", folder.refused());
    folder.add("topshelf.toml", "family = \"bi-encoder\"\npooling = \"mean\"");
    let found = folder.open().unwrap();
    assert!(found.file("model.onnx").ends_with(Path::new("onnx/a.onnx")), "the only export");

    folder.add("onnx/b.onnx", "b");
    assert!(folder.refused().contains("onnx/a.onnx, onnx/b.onnx"), "{}", folder.refused());
    folder.add("topshelf.toml", "weights = \"c.onnx\"");
    assert!(folder.refused().contains("c.onnx"), "{}", folder.refused());
    folder.add("topshelf.toml", "famly = \"bi-encoder\"");
    assert!(folder.refused().contains("famly"), "{}", folder.refused());
}
