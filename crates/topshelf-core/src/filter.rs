//! Conditions on metadata: `lang = en AND (year >= 2024 OR NOT draft = true)`.
//!
//! Grammar, keywords in any case:
//!
//! ```text
//! filter    := and ( OR and )*
//! and       := unary ( AND unary )*
//! unary     := NOT unary | ( filter ) | condition
//! condition := field ( = | != | < | <= | > | >= ) value
//!            | field IN ( value, ... )  |  field EXISTS
//! field     := letters, digits, _ - . / :  or "quoted"; dots step into objects
//! value     := word | number | true | false | "quoted" | 'quoted'
//! ```
//!
//! A field that holds a list satisfies a condition if one of its items does. A document without
//! the field satisfies no condition on it, `!=` included; write `NOT field = value` for
//! "anything but". Numbers compare as numbers, also when the document holds them as text;
//! texts compare without regard to case for `=`, `!=` and `IN`, by code point for the others, so
//! ISO dates order as dates. The fields `document` and `title` name the document itself unless
//! its metadata has fields of those names.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::passage::Metadata;

/// A condition on metadata, read from its text form.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    text: String,
    expression: Expression,
}

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    And(Vec<Expression>),
    Or(Vec<Expression>),
    Not(Box<Expression>),
    Compare { field: String, operator: Operator, literal: Literal },
    In { field: String, literals: Vec<Literal> },
    Exists { field: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A value as written; its number, if it reads as one, is kept beside the text because only the
/// document tells which of the two is meant.
#[derive(Debug, Clone, PartialEq)]
struct Literal {
    text: String,
    number: Option<f64>,
}

/// What a filter looks at.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The document's id.
    pub document: &'a str,
    /// The document's title.
    pub title: &'a str,
    /// The document's own fields.
    pub metadata: &'a Metadata,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    ///
    /// [`Error::Filter`] with the position of the fault and what was expected there.
    ///
    /// ```
    /// use topshelf_core::{Filter, filter::Subject};
    /// let filter = Filter::parse("lang = en AND year >= 2024")?;
    /// let metadata = serde_json::json!({"lang": "en", "year": 2025});
    /// let metadata = metadata.as_object().unwrap();
    /// assert!(filter.matches(Subject { document: "a.md", title: "A", metadata }));
    /// # Ok::<(), topshelf_core::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { source: text, tokens: tokens(text)?, next: 0, depth: 0 };
        let expression = parser.or()?;
        match parser.peek() {
            None => Ok(Self { text: text.trim().to_owned(), expression }),
            Some(_) => Err(parser.fault("AND, OR or the end was expected")),
        }
    }

    /// Whether the subject satisfies the condition.
    pub fn matches(&self, subject: Subject<'_>) -> bool {
        self.expression.matches(subject)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expression {
    fn matches(&self, subject: Subject<'_>) -> bool {
        match self {
            Self::And(all) => all.iter().all(|e| e.matches(subject)),
            Self::Or(any) => any.iter().any(|e| e.matches(subject)),
            Self::Not(inner) => !inner.matches(subject),
            Self::Compare { field, operator, literal } => {
                any_value(subject, field, &|value| compare(value, *operator, literal))
            }
            Self::In { field, literals } => any_value(subject, field, &|value| {
                literals.iter().any(|literal| compare(value, Operator::Equal, literal))
            }),
            Self::Exists { field } => any_value(subject, field, &|_| true),
        }
    }
}

/// Whether a value of the field satisfies `test`: the field itself or, in a list, any item.
fn any_value(subject: Subject<'_>, field: &str, test: &dyn Fn(&Value) -> bool) -> bool {
    match lookup(subject.metadata, field) {
        Some(Value::Null) => false,
        Some(Value::Array(items)) => items.iter().any(test),
        Some(value) => test(value),
        None => match field {
            "document" => test(&Value::String(subject.document.to_owned())),
            "title" => test(&Value::String(subject.title.to_owned())),
            _ => false,
        },
    }
}

/// The value under `field`: the key itself, or a path of keys joined by dots.
fn lookup<'a>(metadata: &'a Metadata, field: &str) -> Option<&'a Value> {
    if let Some(value) = metadata.get(field) {
        return Some(value);
    }
    let (head, rest) = field.split_once('.')?;
    lookup(metadata.get(head)?.as_object()?, rest)
}

fn compare(value: &Value, operator: Operator, literal: &Literal) -> bool {
    let ordering = match value {
        Value::Number(number) => match (number.as_f64(), literal.number) {
            (Some(left), Some(right)) => left.partial_cmp(&right),
            _ => None,
        },
        Value::String(text) => {
            let numbers = text.trim().parse::<f64>().ok().zip(literal.number);
            Some(match numbers {
                Some((left, right)) => left.partial_cmp(&right).unwrap_or(Ordering::Equal),
                None => compare_texts(text, operator, &literal.text),
            })
        }
        Value::Bool(flag) => match literal.text.to_ascii_lowercase().as_str() {
            "true" => Some(flag.cmp(&true)),
            "false" => Some(flag.cmp(&false)),
            _ => None,
        },
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let Some(ordering) = ordering else {
        return operator == Operator::NotEqual;
    };
    match operator {
        Operator::Equal => ordering.is_eq(),
        Operator::NotEqual => ordering.is_ne(),
        Operator::Less => ordering.is_lt(),
        Operator::LessOrEqual => ordering.is_le(),
        Operator::Greater => ordering.is_gt(),
        Operator::GreaterOrEqual => ordering.is_ge(),
    }
}

fn compare_texts(left: &str, operator: Operator, right: &str) -> Ordering {
    let equality = matches!(operator, Operator::Equal | Operator::NotEqual);
    if equality && left.to_lowercase() == right.to_lowercase() {
        Ordering::Equal
    } else {
        left.cmp(right)
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Operator(Operator),
    Open,
    Close,
    Comma,
}

/// A token and the character position where it starts, from 1.
type Placed = (usize, Token);

fn fault(source: &str, at: usize, reason: &str) -> Error {
    Error::Filter { filter: source.trim().to_owned(), at, reason: reason.to_owned() }
}

fn tokens(source: &str) -> Result<Vec<Placed>> {
    let mut tokens = Vec::new();
    let mut characters = source.chars().enumerate().peekable();
    while let Some((index, c)) = characters.next() {
        let at = index + 1;
        let followed_by_equals = characters.peek().is_some_and(|(_, next)| *next == '=');
        let token = match c {
            c if c.is_whitespace() => continue,
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '=' => {
                if followed_by_equals {
                    characters.next();
                }
                Token::Operator(Operator::Equal)
            }
            '!' if followed_by_equals => {
                characters.next();
                Token::Operator(Operator::NotEqual)
            }
            '<' | '>' => {
                if followed_by_equals {
                    characters.next();
                }
                Token::Operator(match (c, followed_by_equals) {
                    ('<', true) => Operator::LessOrEqual,
                    ('<', false) => Operator::Less,
                    (_, true) => Operator::GreaterOrEqual,
                    (_, false) => Operator::Greater,
                })
            }
            '"' | '\'' => {
                let mut text = String::new();
                loop {
                    match characters.next() {
                        Some((_, end)) if end == c => break,
                        Some((_, '\\')) => text.extend(characters.next().map(|(_, next)| next)),
                        Some((_, other)) => text.push(other),
                        None => return Err(fault(source, at, "a quote is not closed")),
                    }
                }
                Token::Quoted(text)
            }
            _ => {
                let special = |c: char| c.is_whitespace() || "()=!<>,\"'".contains(c);
                if special(c) {
                    return Err(fault(source, at, "a comparison is one of = != < <= > >="));
                }
                let mut text = String::from(c);
                while let Some((_, next)) = characters.next_if(|(_, next)| !special(*next)) {
                    text.push(next);
                }
                Token::Word(text)
            }
        };
        tokens.push((at, token));
    }
    Ok(tokens)
}

/// Nesting beyond this is refused rather than risking the stack.
const MAX_DEPTH: usize = 64;

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Placed>,
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    fn fault(&self, reason: &str) -> Error {
        let end = self.source.chars().count() + 1;
        let at = self.tokens.get(self.next).map_or(end, |(at, _)| *at);
        fault(self.source, at, reason)
    }

    fn accept(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.next += usize::from(found);
        found
    }

    fn accept_keyword(&mut self, keyword: &str) -> bool {
        let found =
            matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        self.next += usize::from(found);
        found
    }

    fn or(&mut self) -> Result<Expression> {
        let mut any = vec![self.and()?];
        while self.accept_keyword("or") {
            any.push(self.and()?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Expression::Or(any) })
    }

    fn and(&mut self) -> Result<Expression> {
        let mut all = vec![self.unary()?];
        while self.accept_keyword("and") {
            all.push(self.unary()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::And(all) })
    }

    fn unary(&mut self) -> Result<Expression> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fault("the filter is nested too deeply"));
        }
        let expression = if self.accept_keyword("not") {
            Expression::Not(Box::new(self.unary()?))
        } else if self.accept(&Token::Open) {
            let inner = self.or()?;
            if !self.accept(&Token::Close) {
                return Err(self.fault("a closing parenthesis was expected"));
            }
            inner
        } else {
            self.condition()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn condition(&mut self) -> Result<Expression> {
        let field = self.text("the name of a field was expected")?;
        if self.accept_keyword("exists") {
            return Ok(Expression::Exists { field });
        }
        if self.accept_keyword("in") {
            if !self.accept(&Token::Open) {
                return Err(self.fault("IN takes values in parentheses: lang IN (en, de)"));
            }
            let mut literals = vec![self.literal()?];
            while self.accept(&Token::Comma) {
                literals.push(self.literal()?);
            }
            if !self.accept(&Token::Close) {
                return Err(self.fault("a comma or a closing parenthesis was expected"));
            }
            return Ok(Expression::In { field, literals });
        }
        let Some(Token::Operator(operator)) = self.peek() else {
            return Err(self.fault("a comparison was expected: = != < <= > >= IN EXISTS"));
        };
        let operator = *operator;
        self.next += 1;
        Ok(Expression::Compare { field, operator, literal: self.literal()? })
    }

    fn text(&mut self, expected: &str) -> Result<String> {
        match self.peek() {
            Some(Token::Word(text) | Token::Quoted(text)) => {
                let text = text.clone();
                self.next += 1;
                Ok(text)
            }
            _ => Err(self.fault(expected)),
        }
    }

    fn literal(&mut self) -> Result<Literal> {
        let text = self.text("a value was expected")?;
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        Ok(Literal { text, number })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(filter: &str, metadata: &serde_json::Value) -> bool {
        let metadata = metadata.as_object().unwrap();
        let subject = Subject { document: "docs/a.md", title: "A", metadata };
        Filter::parse(filter).unwrap_or_else(|e| panic!("{e}")).matches(subject)
    }

    #[test]
    fn conditions() {
        let metadata = serde_json::json!({
            "lang": "en", "year": 2024, "draft": false, "tags": ["Rust", "search"],
            "version": "2.10", "date": "2024-05-01", "author": {"name": "Ann"}, "none": null,
        });
        for (filter, expected) in [
            ("lang = en", true),
            ("lang == EN", true),
            ("lang != en", false),
            ("lang != de", true),
            ("missing != de", false),
            ("NOT missing = de", true),
            ("year >= 2024", true),
            ("year > 2024", false),
            ("year = 2024.0", true),
            ("year = twenty", false),
            ("draft = false", true),
            ("draft = true", false),
            ("tags = rust", true),
            ("tags IN (go, 'search')", true),
            ("tags = go", false),
            ("date >= 2024-04-30 and date < 2024-06-01", true),
            ("author.name = ann", true),
            ("none EXISTS", false),
            ("lang exists", true),
            ("lang = de OR year = 2024 AND draft = false", true),
            ("(lang = de OR year = 2024) AND draft = true", false),
            ("document = 'docs/a.md'", true),
            ("title = A", true),
        ] {
            assert_eq!(matches(filter, &metadata), expected, "{filter}");
        }
    }

    #[test]
    fn faults_name_their_place() {
        for (filter, at) in [
            ("", 1),
            ("lang", 5),
            ("lang = ", 8),
            ("lang ~ en", 6),
            ("lang = \"en", 8),
            ("(lang = en", 11),
            ("lang = en year = 3", 11),
            ("lang IN en", 9),
            ("lang ! en", 6),
        ] {
            match Filter::parse(filter) {
                Err(Error::Filter { at: found, .. }) => assert_eq!(found, at, "{filter}"),
                other => panic!("{filter}: {other:?}"),
            }
        }
        assert!(Filter::parse(&"(".repeat(100_000)).is_err());
        assert!(Filter::parse(&"not ".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in ".{0,60}") {
            let _ = Filter::parse(&text);
        }
    }
}
