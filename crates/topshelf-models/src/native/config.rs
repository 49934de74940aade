//! `config.json` of transformers to an [`Architecture`]: [`read`].
//!
//! What is not stated has the default of transformers' configuration class; what is not
//! understood is refused with the reason, as a sentence that goes on from "because".

use serde_json::Value;

use super::architecture::{
    Activation, Architecture, BlockKind, Head, HeadPooling, NormPlace, Perceptron, Positions,
    Relative,
};

/// The architecture that a `config.json` describes.
pub(crate) fn read(config: &Value) -> Result<Architecture, String> {
    let config = Config(config);
    match config.text("model_type").unwrap_or_default() {
        "bert" => bert(config, 0, head(Activation::Tanh)),
        "roberta" | "xlm-roberta" | "camembert" => {
            let offset = config.size("pad_token_id", 1)? + 1;
            bert(config, offset, head(Activation::Tanh))
        }
        "electra" => bert(config, 0, head(Activation::Gelu)),
        "distilbert" => distilbert(config),
        "modernbert" => modernbert(config),
        "deberta-v2" => deberta(config),
        "" => Err("its config.json has no model_type".to_owned()),
        other => Err(format!("model_type \"{other}\" is not one of the native engine's families")),
    }
}

/// A head over the first token.
fn head(activation: Activation) -> Head {
    Head { pooling: HeadPooling::First, activation }
}

/// BERT and those that differ from it in names, position offset and head.
fn bert(config: Config<'_>, offset: usize, head: Head) -> Result<Architecture, String> {
    let kind = config.text("position_embedding_type").unwrap_or("absolute");
    if kind != "absolute" {
        return Err(format!("position_embedding_type \"{kind}\" is not known"));
    }
    if config.flag("is_decoder") || config.flag("add_cross_attention") {
        return Err("it is a decoder".to_owned());
    }
    let hidden = config.size("hidden_size", if config.is("electra") { 256 } else { 768 })?;
    let default_intermediate = if config.is("electra") { 1024 } else { 3072 };
    Ok(Architecture {
        hidden,
        embedding_width: if config.is("electra") {
            config.size("embedding_size", 128)?
        } else {
            hidden
        },
        heads: config.heads(
            hidden,
            "num_attention_heads",
            if config.is("electra") { 4 } else { 12 },
        )?,
        intermediate: config.size("intermediate_size", default_intermediate)?,
        max_positions: Some(config.size("max_position_embeddings", 512)?.saturating_sub(offset)),
        norm_epsilon: config.number("layer_norm_eps").unwrap_or(1e-12),
        norm: NormPlace::After,
        activation: config.activation("hidden_act")?,
        perceptron: Perceptron::Plain,
        positions: Positions::Absolute { offset },
        blocks: alike(config.size("num_hidden_layers", 12)?),
        head: config.has_head().then_some(head),
        labels: config.labels(),
    })
}

fn distilbert(config: Config<'_>) -> Result<Architecture, String> {
    let hidden = config.size("dim", 768)?;
    Ok(Architecture {
        hidden,
        embedding_width: hidden,
        heads: config.heads(hidden, "n_heads", 12)?,
        intermediate: config.size("hidden_dim", 3072)?,
        max_positions: Some(config.size("max_position_embeddings", 512)?),
        norm_epsilon: 1e-12,
        norm: NormPlace::After,
        activation: config.activation("activation")?,
        perceptron: Perceptron::Plain,
        positions: Positions::Absolute { offset: 0 },
        blocks: alike(config.size("n_layers", 6)?),
        head: config.has_head().then_some(head(Activation::Relu)),
        labels: config.labels(),
    })
}

fn modernbert(config: Config<'_>) -> Result<Architecture, String> {
    let hidden = config.size("hidden_size", 768)?;
    let window = config.size("local_attention", 128)? / 2;
    let every = config.size("global_attn_every_n_layers", 3)?.max(1);
    let layers = config.size("num_hidden_layers", 22)?;
    let kinds = config.0.get("layer_types").and_then(Value::as_array);
    if kinds.is_some_and(|kinds| kinds.len() != layers) {
        return Err("layer_types does not name each layer".to_owned());
    }
    let blocks = (0..layers)
        .map(|i| {
            let global = match kinds {
                Some(kinds) => kinds[i].as_str() == Some("full_attention"),
                None => i.is_multiple_of(every),
            };
            if global {
                let base = config.rotary_base("full_attention", "global_rope_theta", 160_000.0)?;
                return Ok(BlockKind { window: None, rotary_base: base });
            }
            let base = config.rotary_base("sliding_attention", "local_rope_theta", 10_000.0)?;
            Ok(BlockKind { window: Some(window), rotary_base: base })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let pooling = match config.text("classifier_pooling").unwrap_or("cls") {
        "cls" => HeadPooling::First,
        "mean" => HeadPooling::Mean,
        other => return Err(format!("classifier_pooling \"{other}\" is not known")),
    };
    let head = Head { pooling, activation: config.activation("classifier_activation")? };
    Ok(Architecture {
        hidden,
        embedding_width: hidden,
        heads: config.heads(hidden, "num_attention_heads", 12)?,
        intermediate: config.size("intermediate_size", 1152)?,
        max_positions: Some(config.size("max_position_embeddings", 8192)?),
        norm_epsilon: config.number("norm_eps").unwrap_or(1e-5),
        norm: NormPlace::Before,
        activation: config.activation("hidden_activation")?,
        perceptron: Perceptron::Gated,
        positions: Positions::Rotary,
        blocks,
        head: config.has_head().then_some(head),
        labels: config.labels(),
    })
}

fn deberta(config: Config<'_>) -> Result<Architecture, String> {
    if !config.flag("relative_attention") {
        return Err("it is a DeBERTa without relative attention".to_owned());
    }
    if config.size("conv_kernel_size", 0)? > 0 {
        return Err("its first layer has a convolution".to_owned());
    }
    let hidden = config.size("hidden_size", 1536)?;
    let max_positions = config.size("max_position_embeddings", 512)?;
    // -1 stands for the positions there are, and for no buckets.
    let stated = config.positive("max_relative_positions");
    let terms = match config.0.get("pos_att_type") {
        Some(Value::String(terms)) => terms.split('|').map(str::to_owned).collect(),
        Some(Value::Array(terms)) => {
            terms.iter().filter_map(|term| term.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    };
    if let Some(term) = terms.iter().find(|term| !["p2c", "c2p"].contains(&term.trim())) {
        return Err(format!("pos_att_type \"{term}\" is not known"));
    }
    let has = |wanted: &str| terms.iter().any(|term| term.trim() == wanted);
    let relative = Relative {
        buckets: config.positive("position_buckets"),
        max_distance: stated.unwrap_or(max_positions),
        content_to_position: has("c2p"),
        position_to_content: has("p2c"),
    };
    let activation = match config.text("pooler_hidden_act") {
        Some(name) => activation(name)?,
        None => Activation::Gelu,
    };
    Ok(Architecture {
        hidden,
        embedding_width: config.size("embedding_size", hidden)?,
        heads: config.heads(hidden, "num_attention_heads", 24)?,
        intermediate: config.size("intermediate_size", 6144)?,
        // Only a position table, which few of them have, sets a limit.
        max_positions: (config.0["position_biased_input"] != false).then_some(max_positions),
        norm_epsilon: config.number("layer_norm_eps").unwrap_or(1e-7),
        norm: NormPlace::After,
        activation: config.activation("hidden_act")?,
        perceptron: Perceptron::Plain,
        positions: Positions::Relative(relative),
        blocks: alike(config.size("num_hidden_layers", 24)?),
        head: config.has_head().then_some(head(activation)),
        labels: config.labels(),
    })
}

fn alike(layers: usize) -> Vec<BlockKind> {
    vec![BlockKind { window: None, rotary_base: 0.0 }; layers]
}

fn activation(name: &str) -> Result<Activation, String> {
    Ok(match name {
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        "silu" | "swish" => Activation::Silu,
        "tanh" => Activation::Tanh,
        other => return Err(format!("the activation \"{other}\" is not known")),
    })
}

#[derive(Clone, Copy)]
struct Config<'a>(&'a Value);

impl<'a> Config<'a> {
    fn text(self, key: &str) -> Option<&'a str> {
        self.0.get(key)?.as_str()
    }

    fn is(self, model_type: &str) -> bool {
        self.text("model_type") == Some(model_type)
    }

    fn flag(self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    fn number(self, key: &str) -> Option<f32> {
        self.0.get(key)?.as_f64().map(|number| number as f32)
    }

    /// A count; `default` where it is not stated.
    fn size(self, key: &str, default: usize) -> Result<usize, String> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_u64()
                .filter(|&size| size < 1 << 32)
                .map(|size| size as usize)
                .ok_or_else(|| format!("{key} is {value}, which is no count")),
        }
    }

    /// A count, where it is stated and positive.
    fn positive(self, key: &str) -> Option<usize> {
        let value = self.0.get(key)?.as_i64()?;
        (value > 0 && value < 1 << 32).then_some(value as usize)
    }

    fn heads(self, hidden: usize, key: &str, default: usize) -> Result<usize, String> {
        let heads = self.size(key, default)?;
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return Err(format!("{heads} heads do not share {hidden} dimensions evenly"));
        }
        Ok(heads)
    }

    fn activation(self, key: &str) -> Result<Activation, String> {
        activation(self.text(key).unwrap_or("gelu"))
    }

    fn rotary_base(self, layer: &str, old: &str, default: f32) -> Result<f32, String> {
        let of_layer = &self.0["rope_parameters"][layer];
        if let Some(kind) = of_layer["rope_type"].as_str().filter(|&kind| kind != "default") {
            return Err(format!("rope_type \"{kind}\" is not known"));
        }
        let stated = of_layer["rope_theta"].as_f64().map(|base| base as f32);
        Ok(stated.or_else(|| self.number(old)).unwrap_or(default))
    }

    fn has_head(self) -> bool {
        let name = self.0["architectures"][0].as_str().unwrap_or_default();
        name.ends_with("ForSequenceClassification")
    }

    fn labels(self) -> usize {
        if !self.has_head() {
            return 0;
        }
        let labels = self.0["id2label"].as_object().map(serde_json::Map::len);
        labels.or_else(|| self.positive("num_labels")).unwrap_or(2)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn roberta_counts_positions_from_behind_the_padding() {
        let config = json!({"model_type": "xlm-roberta", "hidden_size": 1024, "num_attention_heads": 16,
            "pad_token_id": 1, "max_position_embeddings": 514, "layer_norm_eps": 1e-5,
            "architectures": ["XLMRobertaForSequenceClassification"], "id2label": {"0": "LABEL_0"}});
        let architecture = read(&config).unwrap();
        assert_eq!(architecture.positions, Positions::Absolute { offset: 2 });
        assert_eq!(architecture.max_positions, Some(512));
        assert_eq!((architecture.labels, architecture.blocks.len()), (1, 12));
    }

    #[test]
    fn modernbert_has_windows_between_global_layers_in_both_spellings() {
        let old = json!({"model_type": "modernbert", "num_hidden_layers": 4, "local_attention": 16,
            "global_attn_every_n_layers": 3, "local_rope_theta": 500.0});
        let new = json!({"model_type": "modernbert", "num_hidden_layers": 4, "local_attention": 16,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
            "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}});
        let windows = [None, Some(8), Some(8), None];
        for config in [old, new] {
            let architecture = read(&config).unwrap();
            let found: Vec<_> = architecture.blocks.iter().map(|block| block.window).collect();
            assert_eq!(found, windows);
            assert_eq!(architecture.blocks[1].rotary_base.to_bits(), 500.0_f32.to_bits());
            assert_eq!(architecture.blocks[0].rotary_base.to_bits(), 160_000.0_f32.to_bits());
            assert_eq!(architecture.head, None);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_reason() {
        for (config, reason) in [
            (json!({"model_type": "t5"}), "\"t5\""),
            (json!({}), "model_type"),
            (json!({"model_type": "bert", "hidden_act": "mish"}), "\"mish\""),
            (
                json!({"model_type": "bert", "position_embedding_type": "relative_key"}),
                "relative_key",
            ),
            (json!({"model_type": "bert", "num_attention_heads": 7}), "7 heads"),
            (json!({"model_type": "bert", "hidden_size": -3}), "hidden_size is -3"),
            (json!({"model_type": "deberta-v2"}), "without relative"),
            (
                json!({"model_type": "deberta-v2", "relative_attention": true, "conv_kernel_size": 3}),
                "convolution",
            ),
        ] {
            let error = read(&config).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
