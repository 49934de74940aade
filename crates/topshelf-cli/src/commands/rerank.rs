//! `topshelf rerank`: the second stage alone, for those who have a retriever.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;

use anyhow::Result;
use serde_json::Value;
use topshelf::ingest::TEXT_FIELDS;
use topshelf::{Call, ListedDocument, Query, RankedDocument};

use super::pipelines::{self, NamedProfile};
use super::{print, print_json};
use crate::args::RerankArguments;
use crate::exit::usage;
use crate::output::{RerankAnswer, RerankResult, RerankerRan, SecondStageRan, Span};
use crate::say::say;
use crate::table;

/// Characters of a document shown in the list.
const SHOWN: usize = 200;

/// A document with the id that it was given with, if any.
type Document = (Option<String>, ListedDocument);

pub(super) fn run(arguments: &RerankArguments) -> Result<()> {
    let query = Query::new(&arguments.query)?;
    if arguments.top == Some(0) {
        return Err(topshelf::Error::TopZero.into());
    }
    let options = &arguments.second_stage;
    let engine = pipelines::engine(&options.spending, arguments.cache.score_cache())?;
    let profile = NamedProfile::open(&arguments.profile)?;
    let setup = pipelines::setup(profile.as_ref(), &[options.patch()], options)?;
    let profile = profile.map(|own| own.name());
    let Some(stage) = engine.second_stage(&setup, None)? else {
        return Err(match profile.filter(|_| options.rerank.is_none()) {
            Some(profile) => usage(format!(
                "{profile} says that reranking does not pay here; name a cross-encoder with --rerank, or use \
                 --no-profile"
            )),
            None => usage("`--rerank none` leaves nothing to do; name a cross-encoder"),
        });
    };
    let documents = read(&arguments.docs)?;
    if documents.is_empty() {
        return Err(usage(
            "there are no documents; give one a line on standard input or with --docs FILE",
        ));
    }
    let (ids, documents): (Vec<_>, Vec<ListedDocument>) = documents.into_iter().unzip();
    let top = arguments.top.unwrap_or(documents.len());
    let ranked = pollster::block_on(stage.rank(&Call::new(), &query, &documents, top))?;
    let report = ranked.report;
    let result = |(place, ranked): (usize, RankedDocument)| RerankResult {
        rank: place + 1,
        index: ranked.index,
        id: ids[ranked.index].clone(),
        score: ranked.score,
        relevance_score: ranked.relevance,
        span: ranked.span.as_ref().map(Span::from),
        text: documents[ranked.index].text.clone(),
    };
    let results = ranked.documents.into_iter().enumerate().map(result).collect();
    let answered_by = report.answered_by();
    let ran = answered_by.or(report.rerankers.last());
    let reranker = ran.map_or_else(|| RerankerRan::idle(stage.last()), RerankerRan::from);
    let answer = RerankAnswer {
        query: query.text().to_owned(),
        results,
        reranker,
        second_stage: SecondStageRan::from(&report),
        profile,
        notes: report.notes().iter().map(ToString::to_string).collect(),
    };
    if arguments.format.json {
        return print_json(&answer);
    }
    if answer.results.is_empty() {
        print("nothing relevant found")?;
    }
    let lines = answer.results.iter().map(|result| {
        let score = result.score.map_or("    none".to_owned(), |score| format!("{score:>8.3}"));
        let id = result.id.as_ref().map(|id| format!("{id}  ")).unwrap_or_default();
        format!(
            "{:>3}. {score}  [{}]  {id}{}",
            result.rank,
            result.index,
            table::shorten(from(&result.text, result.span.as_ref()), SHOWN)
        )
    });
    for line in lines {
        print(&line)?;
    }
    if let Some(profile) = &answer.profile {
        say!("note: as {profile} has it");
    }
    for note in &answer.notes {
        say!("note: {note}");
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Document>> {
    let input: Box<dyn Read> = if path == Path::new("-") {
        if std::io::stdin().is_terminal() {
            say!("reading documents from the terminal, one a line; Ctrl-D ends them");
        }
        Box::new(std::io::stdin())
    } else {
        let file = std::fs::File::open(path);
        Box::new(file.map_err(|error| usage(format!("cannot read {}: {error}", path.display())))?)
    };
    let mut documents = Vec::new();
    for (number, line) in BufReader::new(input).split(b'\n').enumerate() {
        let line = line?;
        let line = std::str::from_utf8(&line).map_err(|error| {
            usage(format!(
                "line {} is not UTF-8 ({error}); convert the documents, for instance with iconv",
                number + 1
            ))
        })?;
        let line = line.trim_start_matches('\u{feff}').trim();
        if !line.is_empty() {
            documents.push(parse(line, number + 1)?);
        }
    }
    Ok(documents)
}

/// The part of a text that counted.
fn from<'t>(text: &'t str, span: Option<&Span>) -> &'t str {
    span.map_or(text, |span| &text[span.start..span.end])
}

/// A line: an object, a JSON string, or plain text. What begins like an object but is none is
/// plain text too; only an object without a text is refused.
fn parse(line: &str, number: usize) -> Result<Document> {
    let plain = |text: &str| (None, ListedDocument::from(text.to_owned()));
    if !line.starts_with(['{', '"']) {
        return Ok(plain(line));
    }
    match serde_json::from_str::<Value>(line) {
        Ok(Value::String(text)) => Ok(plain(&text)),
        Ok(Value::Object(fields)) => {
            let text = TEXT_FIELDS.iter().find_map(|key| fields.get(*key).and_then(Value::as_str));
            let text = text.ok_or_else(|| {
                let keys = TEXT_FIELDS.join(", ");
                usage(format!("line {number} is a record without a text; it needs one of {keys}"))
            })?;
            let id = ["id", "_id"].iter().find_map(|key| fields.get(*key)).map(|id| match id {
                Value::String(id) => id.clone(),
                other => other.to_string(),
            });
            let title = fields.get("title").and_then(Value::as_str).unwrap_or_default();
            let (title, text) = (title.to_owned(), text.to_owned());
            Ok((id, ListedDocument { title, text }))
        }
        _ => Ok(plain(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_kinds() {
        let text = |line: &str| parse(line, 1).unwrap().1.text;
        assert_eq!(text("plain {text}"), "plain {text}");
        assert_eq!(text("\"quoted\\n\""), "quoted\n");
        assert_eq!(text("{not json"), "{not json");
        let (id, record) = parse(r#"{"_id": 7, "title": "T", "passage": "x"}"#, 1).unwrap();
        assert_eq!(
            (id.as_deref(), record.title.as_str(), record.text.as_str()),
            (Some("7"), "T", "x")
        );
        let error = parse(r#"{"id": 7}"#, 3).err().unwrap();
        assert!(error.to_string().contains("line 3"), "{error}");
    }
}
