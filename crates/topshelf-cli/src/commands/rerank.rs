//! `topshelf rerank`: the second stage alone, for those who have a retriever.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use serde_json::Value;
use topshelf::ingest::TEXT_FIELDS;
use topshelf::second_stage::RERANK_STAGE;
use topshelf::{Call, Passage, Query, Ranking, Scale};

use super::pipelines::{self, NamedProfile};
use super::{print, print_json};
use crate::args::RerankArguments;
use crate::exit::usage;
use crate::output::{RerankAnswer, RerankResult, RerankerRan, SecondStageRan, Span};
use crate::say::say;
use crate::table;

/// Characters of a document shown in the list.
const SHOWN: usize = 200;

/// A document as it was given.
struct Given {
    id: Option<String>,
    title: String,
    text: String,
}

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
    // The candidates stand in the order they came in, which is what an unscored one keeps.
    let passages = documents.iter().enumerate().map(|(line, document)| {
        // Ids of the caller's may repeat; the line does not.
        let id = format!("{line:09}");
        (Arc::new(Passage::standalone(id, &document.title, &document.text)), -(line as f32))
    });
    let candidates = Ranking::new("given", Scale::Rank, passages)?;
    let top = arguments.top.unwrap_or(documents.len());
    let call = Call::new();
    let (ranking, report) = pollster::block_on(stage.run(&call, &query, &candidates, top))?;
    let answered_by = report.answered_by();
    let signal = answered_by.map_or(RERANK_STAGE, |ran| ran.stage.as_str());
    let results = ranking
        .top(top)
        .into_hits()
        .into_iter()
        .enumerate()
        .map(|(place, hit)| {
            let index: usize = hit.passage.id.parse().unwrap_or_default(); // we wrote it above
            let score = hit.signal(signal).map(|signal| signal.score);
            RerankResult {
                rank: place + 1,
                index,
                id: documents[index].id.clone(),
                score,
                relevance_score: hit.relevance,
                span: hit.span.as_ref().map(Span::from),
                text: documents[index].text.clone(),
            }
        })
        .collect();
    let ran = answered_by.or(report.rerankers.last());
    let reranker = ran.map_or_else(|| RerankerRan::idle(stage.last()), RerankerRan::from);
    let answer = RerankAnswer {
        query: query.text().to_owned(),
        results,
        reranker,
        second_stage: SecondStageRan::from(&report),
        profile,
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
    for note in report.notes() {
        say!("note: {note}");
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Given>> {
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
fn parse(line: &str, number: usize) -> Result<Given> {
    let plain = |text: &str| Given { id: None, title: String::new(), text: text.to_owned() };
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
            Ok(Given { id, title: title.to_owned(), text: text.to_owned() })
        }
        _ => Ok(plain(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_kinds() {
        let text = |line: &str| parse(line, 1).unwrap().text;
        assert_eq!(text("plain {text}"), "plain {text}");
        assert_eq!(text("\"quoted\\n\""), "quoted\n");
        assert_eq!(text("{not json"), "{not json");
        let record = parse(r#"{"_id": 7, "title": "T", "passage": "x"}"#, 1).unwrap();
        assert_eq!(
            (record.id.as_deref(), record.title.as_str(), record.text.as_str()),
            (Some("7"), "T", "x")
        );
        let error = parse(r#"{"id": 7}"#, 3).err().unwrap();
        assert!(error.to_string().contains("line 3"), "{error}");
    }
}
