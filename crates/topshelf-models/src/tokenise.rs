//! Text to token ids, and ids to the sequences that a model reads.
//!
//! Query and document are tokenised **once each**, without special tokens. A pair is then put
//! together from their ids: special tokens and type ids come from the model's own template, which
//! is read off its `tokenizer.json` by sending two marked tokens through the post-processor. So
//! `[CLS] q [SEP] d [SEP]` of BERT and `<s> q </s></s> d </s>` of RoBERTa are one code path.
//!
//! **The window.** Only the document is cut, at its end; how many tokens went is told. A query
//! that would take more than half of the window is cut to half of it (and that is told too), so
//! that there is always room to read the document.
//!
//! **Text is never structure.** `[SEP]` written in a document is read as the characters it
//! consists of, not as a separator: a document cannot pretend to be two.
//!
//! Truncation and padding settings in `tokenizer.json` are what its exporter happened to use;
//! they are ignored.
//!
//! **Time.** `tokenizers` 0.23 with BERT's vocabulary takes 0.95 µs a token on one thread, 4.8 MB/s
//! of English (AMD EPYC, 3,000 passages of msmarco-dl19; 1,000 abstracts of SciFact the same). For
//! 100 documents of 55 tokens that is 5.2 ms, and 2.7 ms on two threads: below 2 percent of what
//! the encoder then takes. A quarter of it goes into Unicode's tables, which are asked of every
//! character whether it is a control character, a mark or punctuation, and a fifth into the
//! allocator; no option gives the same ids without. Offsets are not computed (`encode_fast`). A
//! document that was seen before costs 0.3 µs, at 340 bytes (`token_cache`).

use std::iter;
use std::ops::Range;
use std::panic;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokenizers::{Encoding, Token, Tokenizer};

use crate::encoder::Sequence;
use crate::engine::default_threads;
use crate::error::{ModelError, Result};
use crate::spec::ModelFolder;
use crate::token_cache::{DEFAULT_LIMIT, Key, TokenCache, TokenCacheCounts};

/// Bytes of a token, as a rule.
const BYTES_PER_TOKEN: usize = 4;

/// Bytes of text that are worth a thread: 0.43 ms of work, against 0.05 ms to start it.
const BYTES_PER_THREAD: usize = 2 * 1024;

/// A sequence put together, and what did not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    /// What the model reads.
    pub sequence: Sequence,
    /// Tokens cut off the end of the text, or of the document in a pair.
    pub truncated_tokens: usize,
    /// Tokens cut off the end of the query in a pair.
    pub query_truncated_tokens: usize,
}

/// A model's tokenizer with its template and its window.
pub struct TextTokenizer {
    name: String,
    tokenizer: Tokenizer,
    single: Template,
    pair: Template,
    unknown: Option<u32>,
    max_tokens: usize,
    threads: usize,
    cache: TokenCache,
}

impl TextTokenizer {
    /// Reads `tokenizer.json` of the folder; the window is the spec's. It runs on
    /// [`default_threads`], and its cache of documents has the size that `TOPSHELF_TOKEN_CACHE`
    /// says: a number of MiB, 32 where it is unset.
    ///
    /// # Errors
    ///
    /// [`ModelError::Io`] if it cannot be read, [`ModelError::Damaged`] if it is no tokenizer,
    /// [`ModelError::Unsupported`] if its template or the window leaves no room for text,
    /// [`ModelError::Setting`] if the variable's value means nothing.
    pub fn load(folder: &ModelFolder) -> Result<Self> {
        let path = folder.file("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|source| ModelError::Io {
            what: "cannot read",
            path: path.clone(),
            source,
        })?;
        let cache = TokenCache::from_env()?;
        Ok(Self { cache, ..Self::from_bytes(&bytes, folder, &path)? })
    }

    fn from_bytes(bytes: &[u8], folder: &ModelFolder, path: &Path) -> Result<Self> {
        let name = folder.spec.name.clone();
        let damaged = |error: tokenizers::Error| ModelError::Damaged {
            name: name.clone(),
            path: path.to_owned(),
            reason: error.to_string(),
        };
        let unsupported = |reason: String| {
            let dir = folder.dir.clone();
            ModelError::Unsupported { dir, reason }
        };
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(damaged)?;
        tokenizer.with_truncation(None).map_err(damaged)?;
        tokenizer.with_padding(None);
        tokenizer.set_encode_special_tokens(true);
        let single = Template::read(&tokenizer, Arity::Single).map_err(unsupported)?;
        let pair = Template::read(&tokenizer, Arity::Pair).map_err(unsupported)?;
        let max_tokens = folder.spec.max_tokens;
        // Half the window for the query, its special tokens, and at least one for the document.
        if max_tokens < 2 * (pair.special + 1) {
            return Err(unsupported(format!(
                "max_tokens is {max_tokens}, which leaves no room for text beside the {} special \
                 tokens of a pair",
                pair.special
            )));
        }
        let unknown = ["[UNK]", "<unk>"].iter().find_map(|token| tokenizer.token_to_id(token));
        let (threads, cache) = (default_threads(), TokenCache::new(DEFAULT_LIMIT));
        Ok(Self { name, tokenizer, single, pair, unknown, max_tokens, threads, cache })
    }

    /// The same on at most so many threads.
    #[must_use]
    pub fn with_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// The number of tokens the model reads at once, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The ids of a text, without special tokens and without a limit.
    ///
    /// # Errors
    ///
    /// [`ModelError::Tokenise`] with what the tokenizer says.
    pub fn tokenise(&self, text: &str) -> Result<Vec<u32>> {
        self.tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec()).map_err(
            |error| ModelError::Tokenise { name: self.name.clone(), reason: error.to_string() },
        )
    }

    /// [`Self::tokenise`] for each text, in several threads where there is enough of it. A text
    /// that fails fails alone.
    pub fn tokenise_all<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Vec<Result<Vec<u32>>> {
        let one = |text: &T| self.tokenise(text.as_ref());
        let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
        let threads = (bytes / BYTES_PER_THREAD).min(self.threads).min(texts.len());
        if threads < 2 {
            return texts.iter().map(one).collect();
        }
        // Each takes the next text as soon as it is free, so long texts and late starters delay
        // the end by one text at most.
        let next = AtomicUsize::new(0);
        let take = || -> Vec<(usize, Result<Vec<u32>>)> {
            iter::from_fn(|| {
                let index = next.fetch_add(1, Ordering::Relaxed);
                texts.get(index).map(|text| (index, one(text)))
            })
            .collect()
        };
        let mut done = thread::scope(|scope| {
            // A thread that the system does not give is done without.
            let start = |_| thread::Builder::new().spawn_scoped(scope, take).ok();
            let others: Vec<_> = (1..threads).filter_map(start).collect();
            let mut done = take();
            for other in others {
                done.extend(other.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
            }
            done
        });
        done.sort_unstable_by_key(|&(index, _)| index);
        done.into_iter().map(|(_, ids)| ids).collect()
    }

    /// [`Self::tokenise_all`] for documents that may come again: their ids are kept, as
    /// `src/token_cache.rs` says, and are the same as without.
    pub fn tokenise_documents<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Vec<Result<Vec<u32>>> {
        if !self.cache.is_on() {
            return self.tokenise_all(texts);
        }
        let keys: Vec<Key> = texts.iter().map(|text| Key::of(text.as_ref())).collect();
        let found: Vec<Option<Vec<u32>>> = keys.iter().map(|&key| self.cache.get(key)).collect();
        let missing: Vec<usize> =
            (0..texts.len()).filter(|&index| found[index].is_none()).collect();
        let new_texts: Vec<&str> = missing.iter().map(|&index| texts[index].as_ref()).collect();
        let mut new = missing.iter().zip(self.tokenise_all(&new_texts)).map(|(&index, ids)| {
            if let Ok(ids) = &ids {
                self.cache.put(keys[index], ids);
            }
            ids
        });
        found.into_iter().filter_map(|ids| ids.map(Ok).or_else(|| new.next())).collect()
    }

    /// About how many tokens the model reads of a sequence with so many bytes of text.
    pub fn guess(&self, bytes: usize) -> usize {
        (self.single.special + bytes / BYTES_PER_TOKEN).min(self.max_tokens)
    }

    /// What the cache of documents did so far.
    pub fn cache_counts(&self) -> TokenCacheCounts {
        self.cache.counts()
    }

    /// Whether the vocabulary has none of these tokens; so too if there are none.
    pub fn knows_none(&self, ids: &[u32]) -> bool {
        ids.iter().all(|&id| Some(id) == self.unknown)
    }

    /// One text between its special tokens.
    pub fn single(&self, text: &[u32]) -> Assembled {
        let kept = text.len().min(self.max_tokens - self.single.special);
        Assembled {
            sequence: self.single.fill(&text[..kept], &[]),
            truncated_tokens: text.len() - kept,
            query_truncated_tokens: 0,
        }
    }

    /// One text behind a marker and between its special tokens, at most `limit` tokens in all.
    pub fn marked(&self, marker: Option<u32>, text: &[u32], limit: usize) -> Assembled {
        let markers = usize::from(marker.is_some());
        let room = limit.min(self.max_tokens).saturating_sub(self.single.special + markers);
        let kept = text.len().min(room);
        let text_kept: Vec<u32> = marker.into_iter().chain(text[..kept].iter().copied()).collect();
        Assembled {
            sequence: self.single.fill(&text_kept, &[]),
            truncated_tokens: text.len() - kept,
            query_truncated_tokens: 0,
        }
    }

    /// The number of tokens of the vocabulary's own around a single text.
    pub fn single_special(&self) -> usize {
        self.single.special
    }

    /// How many of them stand before it.
    pub fn single_start(&self) -> usize {
        let is_text = |piece: &Piece| matches!(piece, Piece::First { .. });
        self.single.pieces.iter().position(is_text).unwrap_or_default()
    }

    /// The id of a token as the vocabulary writes it.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// A token as the vocabulary writes it; empty for an id without one.
    pub fn token(&self, id: u32) -> String {
        self.tokenizer.id_to_token(id).unwrap_or_default()
    }

    /// For each token of a text the bytes that it stands for, as far as tokenizer and normaliser
    /// can tell.
    ///
    /// # Errors
    ///
    /// As [`Self::tokenise`].
    pub fn spans(&self, text: &str) -> Result<Vec<Range<usize>>> {
        let encoding = self.tokenizer.encode(text, false).map_err(|error| {
            ModelError::Tokenise { name: self.name.clone(), reason: error.to_string() }
        })?;
        Ok(encoding.get_offsets().iter().map(|&(start, end)| start..end).collect())
    }

    /// Query and document with the special tokens of a pair.
    pub fn pair(&self, query: &[u32], document: &[u32]) -> Assembled {
        let query_kept = query.len().min(self.max_tokens / 2);
        let room = self.max_tokens - self.pair.special - query_kept;
        let kept = document.len().min(room);
        Assembled {
            sequence: self.pair.fill(&query[..query_kept], &document[..kept]),
            truncated_tokens: document.len() - kept,
            query_truncated_tokens: query.len() - query_kept,
        }
    }
}

/// One text or two.
#[derive(Clone, Copy, PartialEq)]
enum Arity {
    Single,
    Pair,
}

/// What stands where in a sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Piece {
    Special { id: u32, type_id: u32 },
    First { type_id: u32 },
    Second { type_id: u32 },
}

/// A post-processor's arrangement of one text or two.
#[derive(Debug, Clone, PartialEq)]
struct Template {
    pieces: Vec<Piece>,
    special: usize,
}

impl Template {
    /// Stand for the texts while the template is read; no vocabulary reaches so far.
    const FIRST: u32 = u32::MAX;
    const SECOND: u32 = u32::MAX - 1;

    /// Sends one marked token for each text through the post-processor and reads where they
    /// come out and what stands around them.
    fn read(tokenizer: &Tokenizer, arity: Arity) -> std::result::Result<Self, String> {
        let marked = |id| Encoding::from_tokens(vec![Token::new(id, "x".to_owned(), (0, 1))], 0);
        let second = (arity == Arity::Pair).then(|| marked(Self::SECOND));
        let arranged = tokenizer
            .post_process(marked(Self::FIRST), second, true)
            .map_err(|error| format!("its template of special tokens fails: {error}"))?;
        let pieces: Vec<Piece> = arranged
            .get_ids()
            .iter()
            .zip(arranged.get_type_ids())
            .map(|(&id, &type_id)| match id {
                Self::FIRST => Piece::First { type_id },
                Self::SECOND => Piece::Second { type_id },
                _ => Piece::Special { id, type_id },
            })
            .collect();
        let count =
            |wanted: fn(&Piece) -> bool| pieces.iter().filter(|piece| wanted(piece)).count();
        let texts = (
            count(|piece| matches!(piece, Piece::First { .. })),
            count(|piece| matches!(piece, Piece::Second { .. })),
        );
        if texts != (1, usize::from(arity == Arity::Pair)) {
            return Err(format!(
                "its template of special tokens uses the texts {} and {} times, not once each",
                texts.0, texts.1
            ));
        }
        let special = pieces.len() - texts.0 - texts.1;
        Ok(Self { pieces, special })
    }

    fn fill(&self, first: &[u32], second: &[u32]) -> Sequence {
        let length = self.special + first.len() + second.len();
        let mut ids = Vec::with_capacity(length);
        let mut type_ids = Vec::with_capacity(length);
        for piece in &self.pieces {
            let type_id = match *piece {
                Piece::Special { id, type_id } => {
                    ids.push(id);
                    type_id
                }
                Piece::First { type_id } => {
                    ids.extend_from_slice(first);
                    type_id
                }
                Piece::Second { type_id } => {
                    ids.extend_from_slice(second);
                    type_id
                }
            };
            type_ids.resize(ids.len(), type_id);
        }
        Sequence { ids, type_ids, unattended: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Catalogue;
    use crate::spec::Family;

    /// A vocabulary of words with the given post-processor.
    fn tokenizer(post_processor: &str, max_tokens: usize) -> Result<TextTokenizer> {
        let json = format!(
            r#"{{"version": "1.0", "normalizer": null, "decoder": null,
                "truncation": {{"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}},
                "padding": {{"strategy": {{"Fixed": 9}}, "direction": "Right", "pad_to_multiple_of": null,
                             "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}},
                "added_tokens": [{{"id": 2, "content": "[SEP]", "single_word": false, "lstrip": false,
                                   "rstrip": false, "normalized": false, "special": true}}],
                "pre_tokenizer": {{"type": "WhitespaceSplit"}},
                "post_processor": {post_processor},
                "model": {{"type": "WordLevel", "unk_token": "[UNK]",
                    "vocab": {{"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "a": 4, "b": 5, "c": 6}}}}}}"#
        );
        let mut spec = Catalogue::builtin().default_for(Family::CrossEncoder).unwrap().clone();
        spec.max_tokens = max_tokens;
        let folder = ModelFolder { spec, dir: "dir".into(), fingerprint: String::new() };
        TextTokenizer::from_bytes(json.as_bytes(), &folder, Path::new("tokenizer.json"))
    }

    const BERT: &str = r#"{"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}"#;
    const ROBERTA: &str = r#"{"type": "RobertaProcessing", "sep": ["[SEP]", 2],
        "cls": ["[CLS]", 1], "trim_offsets": true, "add_prefix_space": false}"#;
    const TEMPLATE: &str = r#"{"type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
                 {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"[SEP]": {"id": "[SEP]", "ids": [2, 2], "tokens": ["[SEP]", "[SEP]"]}}}"#;

    fn pair(post_processor: &str) -> (Vec<u32>, Vec<u32>) {
        let sequence = tokenizer(post_processor, 100).unwrap().pair(&[4, 5], &[6]).sequence;
        (sequence.ids, sequence.type_ids)
    }

    #[test]
    fn each_template_is_read_off_the_tokenizer() {
        assert_eq!(pair(BERT), (vec![1, 4, 5, 2, 6, 2], vec![0, 0, 0, 0, 1, 1]));
        assert_eq!(pair(ROBERTA), (vec![1, 4, 5, 2, 2, 6, 2], vec![0; 7]));
        assert_eq!(pair(TEMPLATE), (vec![6, 2, 2, 4, 5], vec![1, 1, 1, 0, 0]));
        assert_eq!(pair("null"), (vec![4, 5, 6], vec![0, 0, 0]));
        let single = tokenizer(BERT, 100).unwrap().single(&[4, 5]).sequence;
        assert_eq!(single.ids, [1, 4, 5, 2]);
    }

    #[test]
    fn put_together_it_is_what_the_tokenizer_makes_of_the_texts() {
        let own = tokenizer(BERT, 100).unwrap();
        let whole = own.tokenizer.encode(("a b", "c a"), true).unwrap();
        let assembled = own.pair(&own.tokenise("a b").unwrap(), &own.tokenise("c a").unwrap());
        assert_eq!(assembled.sequence.ids, whole.get_ids());
        assert_eq!(assembled.sequence.type_ids, whole.get_type_ids());
    }

    #[test]
    fn the_document_is_cut_and_the_query_only_beyond_half_of_the_window() {
        let own = tokenizer(BERT, 10).unwrap();
        let cut = own.pair(&[4; 3], &[5; 9]);
        assert_eq!(cut.sequence.ids, [1, 4, 4, 4, 2, 5, 5, 5, 5, 2]);
        assert_eq!((cut.truncated_tokens, cut.query_truncated_tokens), (5, 0));
        let long = own.pair(&[4; 30], &[5; 9]);
        assert_eq!(long.sequence.ids, [1, 4, 4, 4, 4, 4, 2, 5, 5, 2]);
        assert_eq!((long.truncated_tokens, long.query_truncated_tokens), (7, 25));
        let text = own.single(&[4; 30]);
        assert_eq!((text.sequence.len(), text.truncated_tokens), (10, 22));
    }

    #[test]
    fn a_separator_in_a_text_is_no_separator() {
        let own = tokenizer(BERT, 100).unwrap();
        assert_eq!(own.tokenise("a[SEP]b").unwrap(), [3]); // one unknown word
        let mut careless = own.tokenizer.clone();
        careless.set_encode_special_tokens(false);
        assert_eq!(careless.encode("a[SEP]b", false).unwrap().get_ids(), [4, 2, 5]);
    }

    #[test]
    fn many_texts_give_what_each_gives_alone() {
        let texts: Vec<String> =
            (0..40).map(|n| ["a ", "b ", "c "][n % 3].repeat(200 + 50 * n)).collect();
        assert!(texts.iter().map(String::len).sum::<usize>() > 4 * BYTES_PER_THREAD);
        for threads in [0, 1, 2, 4, 100] {
            let own = tokenizer(BERT, 100).unwrap().with_threads(threads);
            for (text, ids) in texts.iter().zip(own.tokenise_all(&texts)) {
                assert_eq!(ids.unwrap(), own.tokenise(text).unwrap());
            }
            assert!(own.tokenise_all::<&str>(&[]).is_empty());
        }
    }

    #[test]
    fn documents_have_the_same_ids_with_a_cache_and_without() {
        let with_cache = |limit| {
            let cache = TokenCache::new(limit);
            TextTokenizer { cache, ..tokenizer(BERT, 100).unwrap() }
        };
        let (none, small, large) = (with_cache(0), with_cache(2_000), with_cache(1 << 20));
        let all: Vec<String> = (0..60).map(|n| "a b c x ".repeat(n % 17)).collect();
        for texts in [&all[..], &all[20..50], &[], &all[3..40], &all[..]] {
            let ids = |own: &TextTokenizer| -> Vec<Vec<u32>> {
                own.tokenise_documents(texts).into_iter().map(Result::unwrap).collect()
            };
            let expected = ids(&none);
            assert_eq!(expected.len(), texts.len());
            assert_eq!(ids(&small), expected);
            assert_eq!(ids(&large), expected);
        }
        // Each of the 17 texts is looked up three or four times in the first call, and found
        // in every later one.
        let counts = large.cache_counts();
        assert_eq!((counts.misses, counts.hits), (60, 30 + 37 + 60));
        assert!(small.cache_counts().bytes <= 2_000);
        assert_eq!(none.cache_counts(), TokenCacheCounts::default());
    }

    #[test]
    fn a_document_that_fails_is_not_kept_and_fails_alone() {
        let mut own = tokenizer(BERT, 100).unwrap();
        let json = r#"{"type": "WordLevel", "unk_token": "[NONE]", "vocab": {"a": 4}}"#;
        let model: tokenizers::models::wordlevel::WordLevel = serde_json::from_str(json).unwrap();
        own.tokenizer.with_model(model);
        for _ in 0..2 {
            let ids = own.tokenise_documents(&["a a", "unknown", "a"]);
            assert_eq!(ids[0].as_ref().unwrap(), &[4, 4]);
            assert!(matches!(ids[1], Err(ModelError::Tokenise { .. })));
            assert_eq!(ids[2].as_ref().unwrap(), &[4]);
        }
        assert_eq!(own.cache_counts().misses, 4);
    }

    #[test]
    fn only_unknown_tokens_are_noticed() {
        let own = tokenizer(BERT, 100).unwrap();
        assert!(own.knows_none(&own.tokenise("x y").unwrap()));
        assert!(own.knows_none(&[]));
        assert!(!own.knows_none(&own.tokenise("x a").unwrap()));
    }

    #[test]
    fn a_window_without_room_is_refused() {
        assert!(matches!(tokenizer(BERT, 7), Err(ModelError::Unsupported { .. })));
        assert!(tokenizer(BERT, 8).is_ok());
        assert!(matches!(tokenizer("{", 8), Err(ModelError::Damaged { .. })));
    }
}
