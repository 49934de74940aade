use proptest::prelude::*;

use super::*;
use crate::ingest::{Format, IngestOptions, SourceFile, documents};

fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// Counts as byte-level vocabularies do at worst, so that a single character is several tokens.
fn bytes(text: &str) -> usize {
    text.len()
}

fn read(name: &str, format: Format, text: &str) -> Document {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let id = name.to_owned();
    let source = SourceFile { path, id, bytes: text.len() as u64, modified: None, format };
    documents(&source, &IngestOptions::default()).next().unwrap().unwrap()
}

fn markdown(text: &str) -> Document {
    read("doc.md", Format::Markdown, text)
}

fn cut(text: &str, max_tokens: usize, overlap_tokens: usize) -> Vec<Passage> {
    chunk(&markdown(text), &ChunkOptions { max_tokens, overlap_tokens }, &words)
}

fn texts(passages: &[Passage]) -> Vec<&str> {
    passages.iter().map(|passage| passage.text.as_str()).collect()
}

#[test]
fn sections_are_not_mixed_and_carry_their_trail() {
    let long = "word ".repeat(60);
    let text = format!(
        "# Guide\n\nIntro {long}\n\n## Install\n\nInstall {long}\n\n## Use\n\nUse {long}\n"
    );
    let passages = cut(&text, 100, 0);
    let trails: Vec<String> = passages.iter().map(Passage::trail).collect();
    assert_eq!(trails, ["Guide", "Guide > Install", "Guide > Use"]);
    assert!(passages[1].text.starts_with("Install word"));
    assert_eq!(passages[2].id, "doc.md#2");
}

#[test]
fn small_sections_of_one_parent_are_joined() {
    let text = "# News\n\n## 1.1\n\n### Added\n\n- one thing\n\n### Fixed\n\n- another\n\n\
                ## 1.0\n\n- first\n";
    let passages = cut(text, 100, 0);
    assert_eq!(passages[0].trail(), "News > 1.1");
    assert_eq!(passages[0].text, "### Added\n\n- one thing\n\n### Fixed\n\n- another");
    assert_eq!(passages[1].trail(), "News > 1.0");
}

#[test]
fn small_sections_without_a_parent_are_joined_but_not_with_the_text_before_them() {
    let passages = cut("Before.\n\n## 1.1\n\n- one\n\n## 1.0\n\n- two\n", 100, 0);
    assert_eq!(texts(&passages), ["Before.", "## 1.1\n\n- one\n\n## 1.0\n\n- two"]);
    assert!(passages[1].headings.is_empty());
}

#[test]
fn sections_below_two_headings_of_the_same_name_are_not_siblings() {
    let passages = cut("# A\n\n## B\n\none\n\n# A\n\n## B\n\ntwo\n", 100, 0);
    assert_eq!(texts(&passages), ["one", "two"]);
}

#[test]
fn a_long_paragraph_is_cut_between_sentences_with_overlap() {
    let text = "One two three. Four five six. Seven eight nine. Ten eleven twelve.";
    // The title, "doc", takes one word of the seven.
    let expected = [
        "One two three. Four five six.",
        "Four five six. Seven eight nine.",
        "Seven eight nine. Ten eleven twelve.",
    ];
    assert_eq!(texts(&cut(text, 7, 3)), expected);
    let wrapped = text.replace(' ', "\n");
    assert_eq!(texts(&cut(&wrapped, 7, 3)), expected.map(|text| text.replace(' ', "\n")));
}

#[test]
fn the_overlap_holds_as_many_sentences_as_fit() {
    let text = "One two. Three four. Five six. Seven eight. Nine ten.";
    assert_eq!(
        texts(&cut(text, 9, 4)),
        ["One two. Three four. Five six. Seven eight.", "Five six. Seven eight. Nine ten."]
    );
}

#[test]
fn code_is_cut_between_lines() {
    let text = "let a = 1. + 2.;\nlet b = 2.;\nlet c = 3.;\n";
    let document = read("code.rs", Format::Text, text);
    let options = ChunkOptions { max_tokens: 12, overlap_tokens: 0 };
    let passages = chunk(&document, &options, &words);
    assert_eq!(texts(&passages), ["let a = 1. + 2.;\nlet b = 2.;", "let c = 3.;"]);
}

#[test]
fn headings_or_a_title_alone_are_one_passage() {
    let passages = cut("# One\n\n## Two\n", 100, 0);
    assert_eq!(texts(&passages), ["# One\n\n## Two"]);
    let mut document = markdown("x");
    (document.text, document.blocks, document.title) = (String::new(), vec![], "Only".into());
    let passages = chunk(&document, &ChunkOptions::default(), &words);
    assert_eq!((passages.len(), passages[0].model_text().as_str()), (1, "Only\n"));
    document.title.clear();
    assert_eq!(chunk(&document, &ChunkOptions::default(), &words), []);
}

#[test]
fn long_trails_leave_their_outer_headings_out() {
    let text = format!(
        "# {}\n\n## {}\n\n### Near and dear\n\nText here.\n",
        "outer ".repeat(8),
        "middle ".repeat(8)
    );
    let passages = cut(&text, 40, 0);
    let mut document = markdown(&text);
    document.title.clear();
    let options = ChunkOptions { max_tokens: 40, overlap_tokens: 0 };
    let untitled = chunk(&document, &options, &words);
    assert_eq!(passages[0].headings, ["Near and dear"]);
    assert_eq!(untitled[0].headings, ["Near and dear"]);
    assert_eq!(cut(&text, 400, 0)[0].headings.len(), 3);
}

#[test]
fn a_heading_as_long_as_a_paragraph_is_read_as_one() {
    let heading = "long ".repeat(30);
    let passages = cut(&format!("# Top\n\n## {heading}\n\nText.\n"), 40, 0);
    assert!(passages[0].text.starts_with("## long long"), "{passages:?}");
    assert!(passages.iter().all(|passage| words(&passage.model_text()) <= 40));
}

#[test]
fn text_without_spaces_and_blobs_are_cut() {
    let chinese = "跳蚤可以活一年".repeat(100);
    let count = |text: &str| text.chars().count();
    let options = ChunkOptions { max_tokens: 50, overlap_tokens: 5 };
    let passages = chunk(&markdown(&chinese), &options, &count);
    assert!(passages.len() >= 14 && passages.iter().all(|p| count(&p.text) <= 50));
    let sentences = "跳蚤可以活一年。牠們吸血。".repeat(100);
    let passages = chunk(&markdown(&sentences), &options, &count);
    assert!(passages.iter().all(|p| p.text.ends_with('。')), "{:?}", texts(&passages));
    let blob = "A".repeat(100_000);
    let passages = chunk(&markdown(&blob), &options, &words);
    assert!(passages.iter().all(|p| p.text.len() <= 50 * BYTES_A_TOKEN), "{}", passages.len());
    let heaped = format!("e{}", "\u{301}".repeat(10_000));
    let passages = chunk(&markdown(&heaped), &options, &words);
    assert!(passages.iter().all(|p| p.text.len() <= 50 * BYTES_A_TOKEN), "{}", passages.len());
}

#[test]
fn what_is_counted_stays_linear() {
    for piece in ["A sentence of words. ", "word ", "字", "x", "line\n\n", "# h\n\n", "a. "] {
        let text = piece.repeat(400_000 / piece.len());
        let counted = std::cell::Cell::new(0);
        let count = |text: &str| {
            assert!(text.len() <= 257 * BYTES_A_TOKEN, "{} bytes at once", text.len());
            counted.set(counted.get() + text.len());
            text.len().div_ceil(4)
        };
        let document = read("doc.txt", Format::Text, &text);
        let passages = chunk(&document, &ChunkOptions::default(), &count);
        assert!(passages.len() > 100);
        let times = counted.get() as f64 / text.len() as f64;
        assert!(times < 12.0, "{piece:?}: counted {times} times");
    }
}

/// Markdown of headings, prose, lists and text without spaces.
fn texts_of_all_kinds() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "[a-z]{1,8}( [a-zä]{1,8}){0,30}[.]",
        "[a-z]{1,8}([ \n][a-zä]{1,8}[.,]?){0,30}",
        "#{1,4} [a-z]{1,6}",
        "- [a-z]{1,5} [a-z]{1,5}",
        "```\n([a-z]{1,9} ?){1,20}\n([a-z]{1,9} ?){1,20}\n```",
        "<!-- [a-z ]{0,40} -->",
        "[日本語字。]{1,40}",
        "[👩🏽‍🚀e\u{301}🇩🇪]{1,30}",
    ];
    prop::collection::vec(part, 0..25).prop_map(|parts| parts.join("\n\n"))
}

/// What holds for passages whatever the counter.
fn check(
    document: &Document,
    options: &ChunkOptions,
    count: &dyn Fn(&str) -> usize,
) -> Result<(), TestCaseError> {
    let passages = chunk(document, options, count);
    let mut covered = vec![false; document.text.len()];
    let mut last = 0;
    for (n, passage) in passages.iter().enumerate() {
        prop_assert_eq!(&passage.id, &format!("{}#{n}", document.id));
        prop_assert_eq!(&passage.text, &document.text[passage.range.clone()]);
        prop_assert!(n == 0 || passage.range.start > last);
        last = passage.range.start;
        let is_one_grapheme = {
            use unicode_segmentation::UnicodeSegmentation;
            passage.text.graphemes(true).nth(1).is_none()
        };
        let tokens = count(&passage.model_text());
        prop_assert!(
            tokens <= options.max_tokens || is_one_grapheme,
            "{tokens} tokens: {:?}",
            passage.model_text()
        );
        covered[passage.range.clone()].fill(true);
    }
    for block in &document.blocks {
        if !matches!(block.kind, BlockKind::Heading { .. }) {
            let text = &document.text[block.range.clone()];
            let lost = text
                .char_indices()
                .find(|(at, c)| !covered[block.range.start + at] && !c.is_whitespace());
            prop_assert_eq!(lost, None);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn passages_are_slices_in_order_within_the_budget_and_lose_nothing(
        text in texts_of_all_kinds(),
        max_tokens in 10usize..60,
        overlap_tokens in 0usize..12,
    ) {
        prop_assume!(text.contains(char::is_alphabetic));
        let options = ChunkOptions { max_tokens, overlap_tokens };
        let document = Document { id: "d".into(), ..parsed(&text) };
        check(&document, &options, &words)?;
        let options = ChunkOptions { max_tokens: max_tokens * 4, ..options };
        check(&document, &options, &bytes)?;
    }
}

fn parsed(text: &str) -> Document {
    markdown(&format!("{text}\n\nEnd.\n"))
}
