//! Text to token ids and back for a language model in a GGUF file: [`Vocabulary`].
//!
//! Byte-level BPE (`tokenizer.ggml.model` = `gpt2`): the file holds vocabulary and merges; how text is
//! split before them goes by a name (`tokenizer.ggml.pre`), and what the names stand for is llama.cpp's
//! table. Other kinds of tokenizers are refused.
//!
//! A conversation becomes a text by the model's own template (Jinja, `tokenizer.chat_template`). It is
//! rendered with place-holders for what is said, so that markers are read in the template alone: **text
//! is never structure**, and `<|im_end|>` in a document is read as the characters it consists of.

use std::collections::HashMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, context};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, Tokenizer};
use topshelf_core::{Message, Prompt};

use super::gguf::{Gguf, Value};

/// How Qwen 2 and later split text.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How Llama 3 does.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Marks where what is said stands in a rendered template; of a private plane of Unicode.
const MARK: char = '\u{f1ce1}';

/// A vocabulary with its template.
pub(crate) struct Vocabulary {
    /// Reads markers.
    marked: Tokenizer,
    /// Reads text only.
    plain: Tokenizer,
    /// What each token stands for; empty for markers.
    bytes: Vec<Vec<u8>>,
    template: Option<String>,
    bos: Option<u32>,
    /// Tokens that end an answer.
    pub(crate) ends: Vec<u32>,
}

impl Vocabulary {
    /// The vocabulary in a file; the error says why it cannot be used.
    pub(crate) fn of(gguf: &Gguf) -> Result<Self, String> {
        let model = gguf.text("tokenizer.ggml.model").unwrap_or("none");
        if model != "gpt2" {
            return Err(format!(
                "its tokenizer is of kind {model:?}; byte-level BPE (\"gpt2\") is read"
            ));
        }
        let texts = |name: &str| match gguf.value(name) {
            Some(Value::Texts(texts)) => Ok(texts),
            _ => Err(format!("it has no {name}")),
        };
        let tokens = texts("tokenizer.ggml.tokens")?;
        let merges = texts("tokenizer.ggml.merges")?;
        let kinds = match gguf.value("tokenizer.ggml.token_type") {
            Some(Value::Numbers(kinds)) => kinds.as_slice(),
            _ => &[],
        };
        let pairs = merges.iter().map(|merge| {
            let pair = merge.split_once(' ').ok_or_else(|| format!("a merge is {merge:?}"))?;
            Ok::<_, String>((pair.0.to_owned(), pair.1.to_owned()))
        });
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        let vocabulary: Vocab = tokens.iter().cloned().zip(0_u32..).collect();
        let bpe = BPE::builder()
            .vocab_and_merges(vocabulary, pairs)
            .build()
            .map_err(|error| format!("its vocabulary does not fit together: {error}"))?;
        let mut plain = Tokenizer::new(bpe);
        plain
            .with_pre_tokenizer(Some(split(gguf.text("tokenizer.ggml.pre").unwrap_or("default"))?));
        let mut marked = plain.clone();
        // Control and user-defined tokens.
        let is_marker = |id: usize| kinds.get(id).is_some_and(|kind| matches!(*kind as u8, 3 | 4));
        let markers = tokens.iter().enumerate().filter(|(id, _)| is_marker(*id));
        let markers: Vec<AddedToken> = markers
            .map(|(_, token)| AddedToken::from(token.as_str(), true).normalized(false))
            .collect();
        marked.add_special_tokens(markers).map_err(|error| format!("its markers: {error}"))?;
        let of_char: HashMap<char, u8> = byte_chars();
        let bytes = tokens
            .iter()
            .enumerate()
            .map(|(id, token)| {
                let chars = token.chars().filter(|_| !is_marker(id));
                chars.filter_map(|c| of_char.get(&c).copied()).collect()
            })
            .collect();
        let id = |name: &str| {
            let id = gguf.number(name).map(|id| id as u32);
            id.filter(|id| (*id as usize) < tokens.len())
        };
        let mut ends: Vec<u32> = ["eos", "eot", "eom"]
            .iter()
            .filter_map(|name| id(&format!("tokenizer.ggml.{name}_token_id")))
            .collect();
        ends.extend(
            ["<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<end_of_turn>"].iter().filter_map(
                |marker| {
                    let place = tokens.iter().position(|token| token == marker)?;
                    is_marker(place).then_some(place as u32)
                },
            ),
        );
        ends.sort_unstable();
        ends.dedup();
        let adds_bos =
            matches!(gguf.value("tokenizer.ggml.add_bos_token"), Some(Value::Bool(true)));
        let bos = id("tokenizer.ggml.bos_token_id").filter(|_| adds_bos);
        let template = gguf.text("tokenizer.chat_template").map(str::to_owned);
        Ok(Self { marked, plain, bytes, template, bos, ends })
    }

    /// The number of tokens of a text.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.plain.encode_fast(text, false).map_or(0, |encoding| encoding.len())
    }

    /// The ids of a text in which nothing is a marker.
    pub(crate) fn plain(&self, text: &str) -> Result<Vec<u32>, String> {
        ids(&self.plain, text)
    }

    /// The ids of a prompt, with the markers of the model's template or of the prompt itself.
    pub(crate) fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>, String> {
        let mut ids: Vec<u32> = self.bos.into_iter().collect();
        match prompt {
            Prompt::Raw(text) => ids.extend(self::ids(&self.marked, text)?),
            Prompt::Chat(messages) => {
                let rendered = self.render(messages)?;
                // What stands between two marks is the number of a message.
                for (i, part) in rendered.split(MARK).enumerate() {
                    if i % 2 == 0 {
                        ids.extend(self::ids(&self.marked, part)?);
                    } else {
                        let number: Option<usize> = part.parse().ok();
                        let said = number.and_then(|n| messages.get(n)).map(|m| m.content.as_str());
                        ids.extend(self::ids(&self.plain, said.unwrap_or_default())?);
                    }
                }
                // Templates often write the first token themselves.
                if ids.len() > 1 && self.bos == Some(ids[0]) && ids[0] == ids[1] {
                    ids.remove(0);
                }
            }
        }
        Ok(ids)
    }

    /// The conversation by the template, with marks instead of what is said.
    fn render(&self, messages: &[Message]) -> Result<String, String> {
        let template = self.template.as_deref();
        let template =
            template.ok_or("it has no template for conversations (tokenizer.chat_template)")?;
        let messages: Vec<_> = messages
            .iter()
            .enumerate()
            .map(|(i, message)| context! { role => message.role.name(), content => format!("{MARK}{i}{MARK}") })
            .collect();
        let mut environment = Environment::new();
        // As transformers sets it.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| error.to_string())?);
        environment.add_function(
            "raise_exception",
            |reason: String| -> Result<String, minijinja::Error> {
                Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, reason))
            },
        );
        let values =
            context! { messages, add_generation_prompt => true, bos_token => "", eos_token => "" };
        let rendered = environment.render_str(template, values);
        rendered.map_err(|error| format!("its template for conversations cannot be used: {error}"))
    }

    /// The text of tokens; bytes that are no UTF-8 become replacement characters.
    pub(crate) fn text(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> =
            ids.iter().filter_map(|id| self.bytes.get(*id as usize)).flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, String> {
    let encoding = tokenizer.encode_fast(text, false);
    encoding.map(|encoding| encoding.get_ids().to_vec()).map_err(|error| error.to_string())
}

/// What goes by a name in `tokenizer.ggml.pre`.
fn split(name: &str) -> Result<PreTokenizerWrapper, String> {
    let bytes = |use_regex: bool| ByteLevel::new(false, true, use_regex).into();
    let by = |pattern: &str| -> Result<PreTokenizerWrapper, String> {
        let pattern = SplitPattern::Regex(pattern.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
        Ok(split.map_err(|error| error.to_string())?.into())
    };
    let steps = match name {
        "qwen2" | "deepseek-r1-qwen" => vec![by(QWEN2)?, bytes(false)],
        "llama-bpe" | "llama3" | "llama-v3" => vec![by(LLAMA3)?, bytes(false)],
        "smollm" => vec![Digits::new(true).into(), bytes(true)],
        "gpt-2" | "gpt2" | "default" => vec![bytes(true)],
        other => {
            return Err(format!(
                "its text is split as {other:?}; qwen2, llama-bpe, smollm and gpt-2 are known"
            ));
        }
    };
    Ok(Sequence::new(steps).into())
}

/// The characters by which byte-level vocabularies write bytes (Radford et al., GPT-2, 2019): printable
/// ones of Latin-1 stand for themselves, the others for what follows from U+0100 on.
fn byte_chars() -> HashMap<char, u8> {
    let is_printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let mut next = 256_u32;
    (0..=255_u8)
        .filter_map(|byte| {
            if is_printable(byte) {
                return Some((char::from(byte), byte));
            }
            let c = char::from_u32(next)?;
            next += 1;
            Some((c, byte))
        })
        .collect()
}
