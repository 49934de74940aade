//! What a model is, read off the configuration files that Hugging Face models carry beside
//! their weights. Used for a user's folder ([`crate::folder`]) and for a repository of the hub
//! that is not in the catalogue ([`crate::pull`]).
//!
//! | read from | for |
//! | --- | --- |
//! | `config.json` (transformers) | family by `architectures`, number of labels, `hidden_size`, positions |
//! | `modules.json` (sentence-transformers) | that it is a bi-encoder, and that nothing follows the pooling but a norm |
//! | `1_Pooling/config.json` | pooling |
//! | `sentence_bert_config.json`, `tokenizer_config.json` | the longest sequence |
//! | `config_sentence_transformers.json` | what is written before queries and passages; lengths, markers and skipped tokens of late interaction (PyLate) |
//! | `artifact.metadata` (ColBERT) | the same, as ColBERT's own checkpoints have it |
//! | `1_Dense/config.json` and so on | the layers behind a late-interaction model's states |
//!
//! What these files do not say is not guessed: the answer is then the reason, as a sentence
//! that goes on from "the model cannot be used:".

use std::collections::BTreeMap;

use serde_json::Value;

use crate::spec::{Expansion, Family, Pooling, TokenSettings};

const CONFIG: &str = "config.json";
const MODULES: &str = "modules.json";
const POOLING: &str = "1_Pooling/config.json";
const SENTENCE_BERT: &str = "sentence_bert_config.json";
const SENTENCE_TRANSFORMERS: &str = "config_sentence_transformers.json";
const TOKENIZER: &str = "tokenizer_config.json";

const COLBERT: &str = "artifact.metadata";

/// The configurations of dense layers.
const DENSE: [&str; 3] = ["1_Dense/config.json", "2_Dense/config.json", "3_Dense/config.json"];

/// The files that are read where they are present, as paths with `/` in the model's folder.
pub(crate) const FILES: [&str; 10] = [
    CONFIG,
    MODULES,
    POOLING,
    SENTENCE_BERT,
    SENTENCE_TRANSFORMERS,
    TOKENIZER,
    COLBERT,
    DENSE[0],
    DENSE[1],
    DENSE[2],
];

/// What a dense layer may do with its sums.
const IDENTITY: &str = "torch.nn.modules.linear.Identity";

/// Tokens of queries and passages where nothing says otherwise, as PyLate has them.
const QUERY_TOKENS: usize = 32;
const PASSAGE_TOKENS: usize = 180;

/// ASCII's punctuation: tokens of passages that late interaction gives no vector.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// Where the weights may lie, preferred first: quantised exports are the smallest, and ONNX runs
/// whatever the architecture.
pub(crate) const WEIGHTS: [&str; 6] = [
    "onnx/model_quantized.onnx",
    "onnx/model_int8.onnx",
    "onnx/model_qint8_avx512_vnni.onnx",
    "onnx/model.onnx",
    "model.onnx",
    "model.safetensors",
];

/// Endings of the file beside a large ONNX file that holds its tensors. The ONNX file refers to
/// it by name, so it keeps its name.
pub(crate) const EXTERNAL_DATA: [&str; 2] = ["_data", ".data"];

/// Tokenizers without a limit of their own say 10^30.
const NO_LIMIT: u64 = 1 << 20;

/// The longest sequence where nothing says otherwise: the positions of BERT.
pub(crate) const DEFAULT_MAX_TOKENS: usize = 512;

/// The configuration files of one model.
#[derive(Debug, Default)]
pub(crate) struct Description {
    files: BTreeMap<&'static str, Value>,
}

impl Description {
    /// Adds the content of one of [`FILES`].
    pub(crate) fn add(&mut self, name: &'static str, text: &str) -> Result<(), String> {
        let value = serde_json::from_str(text)
            .map_err(|error| format!("{name} cannot be read as JSON ({error})"))?;
        self.files.insert(name, value);
        Ok(())
    }

    /// The content of `config.json`.
    pub(crate) fn config(&self) -> Option<Value> {
        self.files.get(CONFIG).cloned()
    }

    /// The family, or why it cannot be told.
    pub(crate) fn family(&self) -> Result<Family, String> {
        let architecture = self.architecture();
        let modules = self.modules();
        if architecture == Some("HF_ColBERT")
            || modules.iter().any(|module| module.starts_with("pylate."))
        {
            return Ok(Family::LateInteraction);
        }
        if let Some(name) = architecture.filter(|name| name.ends_with("ForSequenceClassification"))
        {
            return match self.labels() {
                1 => Ok(Family::CrossEncoder),
                labels => {
                    Err(format!("it is a {name} with {labels} labels, and a cross-encoder has one"))
                }
            };
        }
        if !modules.is_empty() {
            return Self::bi_encoder(&modules);
        }
        Err(match architecture {
            Some(name) => format!(
                "config.json says {name}, which is neither a cross-encoder \
                 (…ForSequenceClassification with one label) nor, without modules.json, known \
                 to be a bi-encoder"
            ),
            None => {
                "config.json with `architectures` is missing, so its family is not known".into()
            }
        })
    }

    /// A bi-encoder is a transformer, a pooling and at most a norm; anything else would change
    /// the vector and is not run.
    fn bi_encoder(modules: &[&str]) -> Result<Family, String> {
        let kinds: Vec<&str> =
            modules.iter().map(|module| module.rsplit('.').next().unwrap_or(module)).collect();
        match kinds.as_slice() {
            ["Transformer", "Pooling"] | ["Transformer", "Pooling", "Normalize"] => {
                Ok(Family::BiEncoder)
            }
            _ => Err(format!(
                "modules.json lists {}; only Transformer, Pooling and Normalize are run",
                kinds.join(", ")
            )),
        }
    }

    /// A bi-encoder's pooling, or why it cannot be told.
    pub(crate) fn pooling(&self) -> Result<Pooling, String> {
        let Some(config) = self.files.get(POOLING) else {
            return Err(format!("{POOLING} is missing, so its pooling is not known"));
        };
        let mut modes: Vec<&str> = config
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| value.as_bool() == Some(true))
            .filter_map(|(key, _)| key.strip_prefix("pooling_mode_"))
            .collect();
        modes.extend(config["pooling_mode"].as_str());
        match modes.as_slice() {
            ["cls_token" | "cls"] => Ok(Pooling::Cls),
            ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
            _ => Err(format!(
                "{POOLING} asks for the pooling \"{}\"; cls and mean are run",
                modes.join(" + ")
            )),
        }
    }

    /// The longest sequence, special tokens included: the smallest limit that any file states.
    pub(crate) fn max_tokens(&self) -> Option<usize> {
        let sentence_bert = self.number(SENTENCE_BERT, "max_seq_length");
        let tokenizer = self.number(TOKENIZER, "model_max_length");
        [sentence_bert, tokenizer, self.positions()]
            .into_iter()
            .flatten()
            .filter(|&limit| limit > 0 && limit < NO_LIMIT)
            .min()
            .map(|limit| limit as usize)
    }

    /// The positions a sequence can take. The RoBERTa family counts them from the padding id
    /// plus one, so the first of its table are never used.
    fn positions(&self) -> Option<u64> {
        let positions = self.number(CONFIG, "max_position_embeddings")?;
        let model_type = self.files.get(CONFIG)?["model_type"].as_str().unwrap_or_default();
        let offset = match model_type {
            "roberta" | "xlm-roberta" | "camembert" | "mpnet" => {
                self.number(CONFIG, "pad_token_id").unwrap_or(1) + 1
            }
            _ => 0,
        };
        Some(positions.saturating_sub(offset))
    }

    /// The length of its hidden states.
    pub(crate) fn dimension(&self) -> Option<usize> {
        self.number(POOLING, "word_embedding_dimension")
            .or_else(|| self.number(CONFIG, "hidden_size"))
            .map(|size| size as usize)
    }

    /// What is written before a query.
    pub(crate) fn query_prefix(&self) -> String {
        let marker = self.marker("query_prefix", "query_token_id", "[unused0]");
        marker.unwrap_or_else(|| self.prompt(&["query"]))
    }

    /// What is written before a passage.
    pub(crate) fn passage_prefix(&self) -> String {
        let marker = self.marker("document_prefix", "doc_token_id", "[unused1]");
        marker.unwrap_or_else(|| self.prompt(&["document", "passage"]))
    }

    /// The token that marks a text of a late-interaction model: as PyLate says it, as ColBERT does,
    /// and what ColBERT takes without a word.
    fn marker(&self, pylate: &str, colbert: &str, usual: &str) -> Option<String> {
        let stated = |file: &str, key: &str| self.files.get(file)?.get(key)?.as_str();
        let stated = stated(SENTENCE_TRANSFORMERS, pylate).or_else(|| stated(COLBERT, colbert));
        let usual = (self.architecture() == Some("HF_ColBERT")).then_some(usual);
        stated.or(usual).map(str::to_owned)
    }

    /// How a late-interaction model reads texts.
    pub(crate) fn tokens(&self) -> TokenSettings {
        let number = |pylate: &str, colbert: &str| {
            self.number(SENTENCE_TRANSFORMERS, pylate).or_else(|| self.number(COLBERT, colbert))
        };
        let flag = |file: &str, key: &str| self.files.get(file)?.get(key)?.as_bool();
        let attended = flag(SENTENCE_TRANSFORMERS, "attend_to_expansion_tokens")
            .or_else(|| flag(COLBERT, "attend_to_mask_tokens"));
        let expands = flag(SENTENCE_TRANSFORMERS, "do_query_expansion").unwrap_or(true);
        let list =
            self.files.get(SENTENCE_TRANSFORMERS).and_then(|own| own["skiplist_words"].as_array());
        let skip = match list {
            Some(words) => {
                words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()
            }
            None if flag(COLBERT, "mask_punctuation") == Some(false) => Vec::new(),
            None => PUNCTUATION.chars().map(String::from).collect(),
        };
        TokenSettings {
            query_tokens: number("query_length", "query_maxlen")
                .map_or(QUERY_TOKENS, |n| n as usize),
            passage_tokens: number("document_length", "doc_maxlen")
                .map_or(PASSAGE_TOKENS, |n| n as usize),
            expansion: match (expands, attended.unwrap_or_default()) {
                (false, _) => Expansion::None,
                (true, true) => Expansion::Attended,
                (true, false) => Expansion::Unattended,
            },
            skip,
        }
    }

    /// The files of the dense layers behind a late-interaction model's states, in their order, or
    /// why they cannot be applied.
    pub(crate) fn dense(&self) -> Result<Vec<String>, String> {
        let modules = self.files.get(MODULES).and_then(Value::as_array);
        let mut files = Vec::new();
        for module in modules.into_iter().flatten() {
            let kind = module["type"].as_str().unwrap_or_default();
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" | "Normalize" => {}
                "Dense" => {
                    let path = module["path"].as_str().unwrap_or_default();
                    let config = format!("{path}/config.json");
                    let config = self.files.iter().find(|(name, _)| **name == config);
                    let Some((_, config)) = config else {
                        return Err(format!(
                            "{path}/config.json is missing, so its layer is not known"
                        ));
                    };
                    let activation = config["activation_function"].as_str().unwrap_or(IDENTITY);
                    if activation != IDENTITY || config["use_residual"].as_bool() == Some(true) {
                        return Err(format!(
                            "{path} has the activation {activation} or a residual; only linear \
                             layers are run"
                        ));
                    }
                    files.push(format!("{path}/model.safetensors"));
                }
                other => {
                    return Err(format!(
                        "modules.json lists {other}; Transformer, Dense and Normalize are run for \
                         late interaction"
                    ));
                }
            }
        }
        Ok(files)
    }

    fn prompt(&self, names: &[&str]) -> String {
        let prompts = self.files.get(SENTENCE_TRANSFORMERS).map(|config| &config["prompts"]);
        names.iter().find_map(|name| prompts?.get(name)?.as_str()).unwrap_or_default().to_owned()
    }

    fn number(&self, file: &str, key: &str) -> Option<u64> {
        let value = self.files.get(file)?.get(key)?;
        // 10^30 is written as an integer in tokenizer_config.json and read as a float.
        value.as_u64().or_else(|| value.as_f64().map(|value| value as u64))
    }

    fn architecture(&self) -> Option<&str> {
        self.files.get(CONFIG)?["architectures"].get(0)?.as_str()
    }

    /// Labels of a classifier; transformers takes two where the file is silent.
    fn labels(&self) -> usize {
        let config = self.files.get(CONFIG);
        config
            .and_then(|config| config["id2label"].as_object())
            .map(serde_json::Map::len)
            .or_else(|| self.number(CONFIG, "num_labels").map(|labels| labels as usize))
            .unwrap_or(2)
    }

    /// The types of the modules of sentence-transformers, in order.
    fn modules(&self) -> Vec<&str> {
        let modules = self.files.get(MODULES).and_then(Value::as_array);
        modules.into_iter().flatten().filter_map(|module| module["type"].as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&'static str, &str)]) -> Description {
        let mut description = Description::default();
        for (name, text) in files {
            description.add(name, text).unwrap();
        }
        description
    }

    const BI_ENCODER: &str = r#"[{"type": "sentence_transformers.models.Transformer"},
        {"type": "sentence_transformers.models.Pooling"},
        {"type": "sentence_transformers.models.Normalize"}]"#;

    #[test]
    fn one_label_is_a_cross_encoder_and_more_are_refused() {
        let config = |labels: &str| {
            let text = format!(
                r#"{{"architectures": ["BertForSequenceClassification"], "id2label": {labels}}}"#
            );
            of(&[(CONFIG, &text)]).family()
        };
        assert_eq!(config(r#"{"0": "LABEL_0"}"#), Ok(Family::CrossEncoder));
        let reason = config(r#"{"0": "no", "1": "yes"}"#).unwrap_err();
        assert!(reason.contains("with 2 labels"), "{reason}");
        let silent = of(&[(CONFIG, r#"{"architectures": ["XForSequenceClassification"]}"#)]);
        assert!(silent.family().unwrap_err().contains("with 2 labels"));
    }

    #[test]
    fn modules_tell_a_bi_encoder_and_projections_are_refused() {
        assert_eq!(of(&[(MODULES, BI_ENCODER)]).family(), Ok(Family::BiEncoder));
        let dense = BI_ENCODER.replace("models.Normalize", "models.Dense");
        let reason = of(&[(MODULES, &dense)]).family().unwrap_err();
        assert!(reason.contains("Transformer, Pooling, Dense"), "{reason}");
        let pylate = BI_ENCODER.replace("sentence_transformers.models.Normalize", "pylate.Dense");
        assert_eq!(of(&[(MODULES, &pylate)]).family(), Ok(Family::LateInteraction));
    }

    #[test]
    fn what_cannot_be_told_is_refused_with_the_reason() {
        let plain = of(&[(CONFIG, r#"{"architectures": ["BertModel"]}"#)]).family().unwrap_err();
        assert!(plain.contains("BertModel"), "{plain}");
        assert!(of(&[]).family().unwrap_err().contains("config.json"));
        let reason = Description::default().add(CONFIG, "{").unwrap_err();
        assert!(reason.contains("config.json"), "{reason}");
    }

    #[test]
    fn pooling_is_read_in_both_spellings() {
        for (text, pooling) in [
            (
                r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#,
                Pooling::Cls,
            ),
            (r#"{"pooling_mode_mean_tokens": true}"#, Pooling::Mean),
            (r#"{"pooling_mode": "mean"}"#, Pooling::Mean),
        ] {
            assert_eq!(of(&[(POOLING, text)]).pooling(), Ok(pooling));
        }
        let max = of(&[(POOLING, r#"{"pooling_mode_max_tokens": true}"#)]).pooling().unwrap_err();
        assert!(max.contains("\"max_tokens\""), "{max}");
        assert!(of(&[]).pooling().unwrap_err().contains("missing"));
    }

    #[test]
    fn the_smallest_stated_limit_holds() {
        let roberta =
            r#"{"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1}"#;
        let unlimited = r#"{"model_max_length": 1000000000000000019884624838656}"#;
        assert_eq!(of(&[(CONFIG, roberta), (TOKENIZER, unlimited)]).max_tokens(), Some(512));
        let sentence_bert = r#"{"max_seq_length": 256}"#;
        assert_eq!(
            of(&[(CONFIG, roberta), (SENTENCE_BERT, sentence_bert)]).max_tokens(),
            Some(256)
        );
        assert_eq!(of(&[(TOKENIZER, unlimited)]).max_tokens(), None);
    }

    #[test]
    fn prompts_and_dimension_are_read() {
        let prompts = r#"{"prompts": {"query": "query: ", "passage": "passage: "}}"#;
        let description =
            of(&[(SENTENCE_TRANSFORMERS, prompts), (CONFIG, r#"{"hidden_size": 384}"#)]);
        assert_eq!(description.query_prefix(), "query: ");
        assert_eq!(description.passage_prefix(), "passage: ");
        assert_eq!(description.dimension(), Some(384));
        assert_eq!(of(&[]).query_prefix(), "");
    }
}
