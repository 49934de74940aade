//! Text to the terms that BM25 matches: [`Analyser`].
//!
//! Words are found by Unicode's rules (UAX #29), lower-cased, cleared of stop words and stemmed.
//! For English that is the chain of Lucene's `EnglishAnalyzer`, which Anserini uses: possessive
//! 's removed, Lucene's 33 stop words, Porter's first stemmer (Porter 1980), so figures compare.
//! The other languages use their Snowball stemmer, and Snowball's stop list where there is one.
//! [`Language::Cjk`] cuts runs of Han, kana and Hangul into overlapping bigrams, as Lucene's
//! `CJKAnalyzer` does.
//!
//! Words of more than [`MAX_WORD_BYTES`] are data, not language, and are dropped.

use frostem::{Algorithm, Stemmer};
use serde::{Deserialize, Serialize};
use tantivy::tokenizer::{self as tv, StopWordFilter, TextAnalyzer, Token, TokenStream, Tokenizer};
use unicode_segmentation::UnicodeSegmentation;

/// The longest word that is indexed; about where Lucene's `StandardTokenizer` cuts.
pub const MAX_WORD_BYTES: usize = 255;

/// The language of an index, or how to treat text of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // the variants are what they say
#[non_exhaustive]
pub enum Language {
    #[default]
    English,
    Arabic,
    Danish,
    Dutch,
    Finnish,
    French,
    German,
    Greek,
    Hungarian,
    Italian,
    Norwegian,
    Portuguese,
    Romanian,
    Russian,
    Spanish,
    Swedish,
    Tamil,
    Turkish,
    /// Chinese, Japanese and Korean by character bigrams; other words as they are.
    Cjk,
    /// Words as they are: no stop words, no stemming.
    None,
}

impl Language {
    /// Every language with its name in options, its stemmer and its stop list.
    const TABLE: [(Self, &'static str, Option<Algorithm>, Option<tv::Language>); 20] = {
        use Algorithm as A;
        use Language as L;
        [
            (L::English, "english", Some(A::Porter), Some(tv::Language::English)),
            (L::Arabic, "arabic", Some(A::Arabic), Some(tv::Language::Arabic)),
            (L::Danish, "danish", Some(A::Danish), Some(tv::Language::Danish)),
            (L::Dutch, "dutch", Some(A::Dutch), Some(tv::Language::Dutch)),
            (L::Finnish, "finnish", Some(A::Finnish), Some(tv::Language::Finnish)),
            (L::French, "french", Some(A::French), Some(tv::Language::French)),
            (L::German, "german", Some(A::German), Some(tv::Language::German)),
            (L::Greek, "greek", Some(A::Greek), Some(tv::Language::Greek)),
            (L::Hungarian, "hungarian", Some(A::Hungarian), Some(tv::Language::Hungarian)),
            (L::Italian, "italian", Some(A::Italian), Some(tv::Language::Italian)),
            (L::Norwegian, "norwegian", Some(A::Norwegian), Some(tv::Language::Norwegian)),
            (L::Portuguese, "portuguese", Some(A::Portuguese), Some(tv::Language::Portuguese)),
            (L::Romanian, "romanian", Some(A::Romanian), Some(tv::Language::Romanian)),
            (L::Russian, "russian", Some(A::Russian), Some(tv::Language::Russian)),
            (L::Spanish, "spanish", Some(A::Spanish), Some(tv::Language::Spanish)),
            (L::Swedish, "swedish", Some(A::Swedish), Some(tv::Language::Swedish)),
            (L::Tamil, "tamil", Some(A::Tamil), Some(tv::Language::Tamil)),
            (L::Turkish, "turkish", Some(A::Turkish), Some(tv::Language::Turkish)),
            (L::Cjk, "cjk", None, None),
            (L::None, "none", None, None),
        ]
    };

    /// The names of all languages.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::TABLE.iter().map(|(_, name, ..)| *name)
    }

    /// Its name in options: `english`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The language of that name, in any case.
    pub fn by_name(name: &str) -> Option<Self> {
        let named = Self::TABLE.iter().find(|(_, known, ..)| known.eq_ignore_ascii_case(name));
        named.map(|(language, ..)| *language)
    }

    fn row(self) -> &'static (Self, &'static str, Option<Algorithm>, Option<tv::Language>) {
        // The table has a row for each variant, in the order of the variants.
        &Self::TABLE[self as usize]
    }
}

/// Turns text into terms.
#[derive(Clone)]
pub struct Analyser {
    words: TextAnalyzer,
    stemmer: Option<Algorithm>,
}

impl Analyser {
    /// The analyser of a language.
    pub fn new(language: Language) -> Self {
        let (_, _, stemmer, stop_list) = *language.row();
        let words = TextAnalyzer::builder(Words { language });
        let words = match stop_list.and_then(StopWordFilter::new) {
            Some(stop_words) => words.filter(stop_words).build(),
            None => words.build(),
        };
        Self { words, stemmer }
    }

    /// The terms of a text, in its order, repetitions included.
    ///
    /// ```
    /// use topshelf_index::analyse::{Analyser, Language};
    /// let mut english = Analyser::new(Language::English);
    /// assert_eq!(english.terms("The flea's life cycles"), ["flea", "life", "cycl"]);
    /// ```
    pub fn terms(&mut self, text: &str) -> Vec<String> {
        let stemmer = self.stemmer.map(Stemmer::new);
        let mut terms = Vec::new();
        let mut stream = self.words.token_stream(text);
        while stream.advance() {
            let word = &stream.token().text;
            terms.push(match &stemmer {
                Some(stemmer) => stemmer.stem(word).into_owned(),
                None => word.clone(),
            });
        }
        terms
    }
}

/// Lower-cased words by UAX #29; for English without possessive endings, for CJK as bigrams.
#[derive(Clone)]
struct Words {
    language: Language,
}

/// The words of one text.
struct WordStream {
    words: std::vec::IntoIter<String>,
    token: Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream {
        let mut words = Vec::new();
        let mut run = String::new(); // of CJK characters
        for word in text.split_word_bounds() {
            if self.language == Language::Cjk && word.chars().all(is_cjk) {
                run.push_str(word);
                continue;
            }
            bigrams(&mut run, &mut words);
            if word.len() > MAX_WORD_BYTES || !word.chars().any(char::is_alphanumeric) {
                continue;
            }
            let mut word = word.to_lowercase();
            if self.language == Language::English {
                for ending in ["'s", "\u{2019}s", "\u{ff07}s"] {
                    if let Some(stem) = word.strip_suffix(ending) {
                        word.truncate(stem.len());
                        break;
                    }
                }
            }
            words.push(word);
        }
        bigrams(&mut run, &mut words);
        WordStream { words: words.into_iter(), token: Token::default() }
    }
}

impl TokenStream for WordStream {
    fn advance(&mut self) -> bool {
        match self.words.next() {
            Some(word) => {
                self.token.text = word;
                self.token.position = self.token.position.wrapping_add(1);
                true
            }
            None => false,
        }
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

/// Empties `run` into `words`: each pair of neighbours, or the one character there is.
fn bigrams(run: &mut String, words: &mut Vec<String>) {
    let characters: Vec<char> = run.drain(..).collect();
    if let [only] = characters[..] {
        words.push(only.to_string());
    }
    words.extend(characters.windows(2).map(|pair| pair.iter().collect::<String>()));
}

/// Han, kana, Hangul and their extensions, by Unicode block.
fn is_cjk(c: char) -> bool {
    matches!(u32::from(c),
        0x1100..=0x11FF       // Hangul Jamo
        | 0x3005..=0x3007
        | 0x3040..=0x30FF     // kana
        | 0x3130..=0x318F     // Hangul compatibility Jamo
        | 0x31F0..=0x31FF
        | 0x3400..=0x4DBF     // Han extension A
        | 0x4E00..=0x9FFF     // Han
        | 0xAC00..=0xD7AF     // Hangul syllables
        | 0xF900..=0xFAFF
        | 0xFF66..=0xFF9F     // half-width kana
        | 0x20000..=0x3FFFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(language: Language, text: &str) -> Vec<String> {
        Analyser::new(language).terms(text)
    }

    #[test]
    fn english_as_lucene_does_it() {
        let got = terms(Language::English, "Dr. Smith's 1,000 cells aren't relational_algebra!");
        assert_eq!(got, ["dr", "smith", "1,000", "cell", "aren't", "relational_algebra"]);
        // Porter's first stemmer, not the second: "generously" tells them apart.
        assert_eq!(terms(Language::English, "generously"), ["gener"]);
    }

    #[test]
    fn stop_words_and_emoji_leave_nothing() {
        assert!(terms(Language::English, "the of and, is it?").is_empty());
        assert!(terms(Language::English, "🙂 🎉 … —").is_empty());
    }

    #[test]
    fn other_languages() {
        assert_eq!(terms(Language::German, "die Häuser und Gärten"), ["haus", "gart"]);
        assert_eq!(terms(Language::None, "The Houses"), ["the", "houses"]);
    }

    #[test]
    fn chinese_japanese_korean_by_bigrams() {
        assert_eq!(
            terms(Language::Cjk, "東京都 rust 한국어"),
            ["東京", "京都", "rust", "한국", "국어"]
        );
        assert_eq!(terms(Language::Cjk, "猫"), ["猫"]);
    }

    #[test]
    fn names_are_told_apart_and_found_again() {
        for name in Language::names() {
            assert_eq!(Language::by_name(name).map(Language::name), Some(name));
        }
        assert_eq!(Language::by_name("English"), Some(Language::English));
        assert_eq!(Language::by_name("klingon"), None);
    }
}
