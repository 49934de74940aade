//! What systems take of models and services that are paid by use, for the reports: USD where prices are
//! known, calls, tokens and searches where not. Means of a query, so that systems over the same queries
//! compare.

use super::chart::{Axis, Chart, Point};
use super::page::Cell;
use crate::output::tuned::TunedPaid;
use crate::output::{EvalAnswer, SystemMeasured};

/// A column: its header, and what it shows of a query.
type Column = (&'static str, fn(&TunedPaid) -> String);

/// USD, where something has a price.
const MONEY: [Column; 2] = [
    ("USD a query", |paid| paid.cost.map_or(String::new(), |cost| money(cost, 6))),
    ("USD a thousand", |paid| paid.cost.map_or(String::new(), |cost| money(cost * 1e3, 2))),
];

/// What is counted, where something has none.
const COUNTED: [Column; 4] = [
    ("calls", |paid| count(paid.calls)),
    ("tokens read", |paid| count(paid.input_tokens)),
    ("tokens written", |paid| count(paid.output_tokens)),
    ("searches", |paid| count(paid.searches)),
];

/// The columns of a table of what is paid.
pub(super) struct Columns(Vec<Column>);

impl Columns {
    /// Those that the rows need; none where nothing is paid by use.
    pub(super) fn of(rows: &[Option<TunedPaid>]) -> Self {
        let used: Vec<&TunedPaid> = rows.iter().flatten().collect();
        let is_priced = |paid: &&TunedPaid| paid.cost.is_some();
        let mut columns = Vec::new();
        if used.iter().any(is_priced) {
            columns.extend(MONEY);
        }
        if !used.iter().all(is_priced) {
            let is_used = |(_, show): &Column| used.iter().any(|paid| show(paid) != "0");
            columns.extend(COUNTED.into_iter().filter(is_used));
        }
        Self(columns)
    }

    /// Their headers.
    pub(super) fn headers(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(header, _)| *header)
    }

    /// A row's cells. What uses nothing costs nothing; a price that is not known is left out.
    pub(super) fn cells(&self, row: Option<&TunedPaid>) -> Vec<Cell> {
        let shown = |show: fn(&TunedPaid) -> String| row.map_or("0".to_owned(), show);
        self.0.iter().map(|(_, show)| Cell::Number(shown(*show))).collect()
    }
}

/// What a system of `eval` took for a query, as a mean.
pub(super) fn of_system(system: &SystemMeasured) -> Option<TunedPaid> {
    let second = system.second_stage.as_ref()?;
    let usage = second.usage.as_ref()?;
    let queries = second.queries.all().max(1) as f64;
    Some(TunedPaid {
        calls: usage.calls as f64 / queries,
        input_tokens: usage.input_tokens as f64 / queries,
        output_tokens: usage.output_tokens as f64 / queries,
        searches: usage.searches as f64 / queries,
        cost: usage.cost.map(|cost| cost / queries),
    })
}

/// Quality against money, where some of it is paid and all sums are known.
pub(super) fn against_cost(answer: &EvalAnswer) -> Option<String> {
    let point = |system: &SystemMeasured| {
        let cost = of_system(system).map_or(Some(0.0), |paid| paid.cost)?;
        let (y, label) = (*system.measures.get(&answer.measure)?, Some(system.name.clone()));
        Some(Point { x: cost * 1e3, y, label, chosen: false })
    };
    let points: Vec<Point> = answer.systems.iter().filter_map(point).collect();
    if points.len() < 2 || points.iter().all(|point| point.x <= 0.0) {
        return None;
    }
    let (x, y) = (Axis::linear("USD of a thousand queries"), Axis::linear(&answer.measure));
    Some(Chart::new("Quality against cost", x, y).dots("", 1, points).html())
}

/// USD with so many digits behind the point; two that count where nothing would be left of it.
fn money(dollars: f64, digits: usize) -> String {
    if dollars > 0.0 && dollars < 0.1_f64.powi(digits as i32) {
        format!("{dollars:.1e}")
    } else {
        format!("{dollars:.digits$}")
    }
}

fn count(count: f64) -> String {
    if count > 0.0 { format!("{count:.1}") } else { "0".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paid(calls: f64, cost: Option<f64>) -> TunedPaid {
        TunedPaid { calls, input_tokens: 30.0, output_tokens: 0.0, searches: 0.0, cost }
    }

    fn headers(rows: &[Option<TunedPaid>]) -> Vec<String> {
        Columns::of(rows).headers().map(str::to_owned).collect()
    }

    #[test]
    fn money_is_told_where_it_is_known_and_counts_where_not() {
        assert!(headers(&[None]).is_empty());
        let priced = Some(paid(2.0, Some(0.000_49)));
        assert_eq!(headers(&[None, priced]), ["USD a query", "USD a thousand"]);
        let counted = ["calls", "tokens read"];
        assert_eq!(headers(&[Some(paid(2.0, None))]), counted, "nothing is written or searched");
        assert_eq!(headers(&[priced, Some(paid(2.0, None))]).len(), 4);
    }

    #[test]
    fn small_sums_do_not_become_nothing() {
        assert_eq!(money(0.000_49, 6), "0.000490");
        assert_eq!(money(0.004, 2), "4.0e-3");
        assert_eq!(money(0.0, 2), "0.00");
        assert_eq!((count(0.0), count(2.5)), ("0".to_owned(), "2.5".to_owned()));
    }
}
