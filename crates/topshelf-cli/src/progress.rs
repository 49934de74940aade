//! Progress: bars on a terminal, plain lines elsewhere, nothing between a program and its JSON.
//!
//! All of it goes to standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::say::say;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a plain line is printed.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Seconds of a step that count as much as the pace of the step before: a step begins slowly, and what
/// it does is seen in pieces.
const SETTLING: f64 = 5.0;

/// One task with a known or unknown amount of work.
pub(crate) struct Progress {
    what: String,
    unit: String,
    bar: Option<ProgressBar>,
    done: u64,
    total: Option<u64>,
    last_line: Instant,
}

impl Progress {
    /// Starts a task: `what` says what is being done, `total` how many units of `unit` it has.
    pub(crate) fn new(what: impl Into<String>, total: Option<u64>, unit: &str) -> Self {
        let progress = Self::quiet(what, total, unit);
        if progress.bar.is_none() {
            say!("{} ...", progress.what);
        }
        progress
    }

    /// [`Self::new`] for a task that has been announced already.
    pub(crate) fn quiet(what: impl Into<String>, total: Option<u64>, unit: &str) -> Self {
        let what = what.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
            bar.set_style(style(total, unit));
            bar.set_message(what.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let unit = unit.to_owned();
        Self { what, unit, bar, done: 0, total, last_line: Instant::now() }
    }

    /// Sets how many units there are.
    pub(crate) fn set_total(&mut self, total: u64) {
        self.total = Some(total);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_style(style(self.total, &self.unit));
        }
    }

    /// Sets how many units are done.
    pub(crate) fn set(&mut self, done: u64) {
        self.done = done;
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                match self.total {
                    Some(total) => say!("{}: {done} of {total}", self.what),
                    None => say!("{}: {done}", self.what),
                }
            }
            None => {}
        }
    }

    /// Adds units that are done.
    pub(crate) fn add(&mut self, units: u64) {
        self.set(self.done + units);
    }

    /// Prints a line without disturbing the bar.
    pub(crate) fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say!("{line}")),
            None => say!("{line}"),
        }
    }

    /// Ends the task: the bar goes away.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Several steps on one bar, with a forecast of the time that is left for all of them.
///
/// The work of all steps is counted in one unit, so that the pace of one predicts the next.
pub(crate) struct Forecast {
    what: String,
    bar: Option<ProgressBar>,
    done: u64,
    total: u64,
    pace: Pace,
    last_line: Instant,
}

/// Units a second, of this step and more and more seldom of the step before.
struct Pace {
    since: Instant,
    done: u64,
    before: Option<f64>,
}

impl Pace {
    fn new(before: Option<f64>) -> Self {
        Self { since: Instant::now(), done: 0, before }
    }

    /// The pace `elapsed` after the step began; `None` while nothing is known.
    fn per_second(&self, elapsed: Duration) -> Option<f64> {
        let (done, seconds) = (self.done as f64, elapsed.as_secs_f64());
        match self.before {
            Some(before) => Some((done + SETTLING * before) / (seconds + SETTLING)),
            None => (self.done > 0 && seconds > 0.0).then(|| done / seconds),
        }
    }
}

impl Forecast {
    /// Starts with a first step, of `total` units in all steps.
    pub(crate) fn new(what: impl Into<String>, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            // The template is well-formed.
            let style = ProgressStyle::with_template("{msg} {bar:20} {percent:>3}%{prefix}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let now = Instant::now();
        let pace = Pace::new(None);
        let mut forecast = Self { what: String::new(), bar, done: 0, total, pace, last_line: now };
        forecast.announce(what.into());
        forecast
    }

    /// Begins the next step.
    pub(crate) fn step(&mut self, what: impl Into<String>) {
        self.pace = Pace::new(self.pace.per_second(self.pace.since.elapsed()));
        self.announce(what.into());
    }

    /// Says more exactly what is being done in this step.
    pub(crate) fn show(&mut self, what: impl Into<String>) {
        self.what = what.into();
        if let Some(bar) = &self.bar {
            bar.set_message(self.what.clone());
        }
    }

    fn announce(&mut self, what: String) {
        self.show(what);
        if self.bar.is_none() {
            say!("{} ...", self.what);
        }
    }

    /// Corrects how many units are left in this step and the later ones.
    pub(crate) fn set_left(&mut self, left: u64) {
        self.total = self.done + left;
        if let Some(bar) = &self.bar {
            bar.set_length(self.total);
        }
    }

    /// Adds units that are done.
    pub(crate) fn add(&mut self, units: u64) {
        self.done += units;
        self.pace.done += units;
        let left = self.left().map_or(String::new(), |left| format!(", {} left", in_words(left)));
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.done.min(self.total));
                bar.set_prefix(left);
            }
            None if self.last_line.elapsed() >= LINE_EVERY => {
                self.last_line = Instant::now();
                let percent = (100 * self.done.min(self.total)).checked_div(self.total);
                say!("{}: {}%{left}", self.what, percent.unwrap_or(100));
            }
            None => {}
        }
    }

    /// The time that all that is left takes.
    pub(crate) fn left(&self) -> Option<Duration> {
        let pace = self.pace.per_second(self.pace.since.elapsed()).filter(|pace| *pace > 0.0)?;
        let left = self.total.saturating_sub(self.done) as f64 / pace;
        Duration::try_from_secs_f64(left).ok()
    }

    /// Prints something without disturbing the bar.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Prints a line without disturbing the bar.
    pub(crate) fn line(&self, line: &str) {
        self.suspend(|| say!("{line}"));
    }

    /// Ends the last step: the bar goes away.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A forecast in words, no more exact than it is.
pub(crate) fn in_words(left: Duration) -> String {
    match left.as_secs() {
        0..5 => "a few seconds".to_owned(),
        seconds @ 5..100 => format!("about {} s", 5 * (seconds + 1).div_ceil(5)),
        seconds => format!("about {} min", seconds.div_ceil(60)),
    }
}

/// A bar where the end is known, a spinner where it is not.
fn style(total: Option<u64>, unit: &str) -> ProgressStyle {
    let template = match total {
        Some(_) => format!("{{msg}} {{bar:30}} {{human_pos}}/{{human_len}} {unit}, {{eta}} left"),
        None => format!("{{spinner}} {{msg}} {{human_pos}} {unit}, {{elapsed}}"),
    };
    // Both templates are well-formed.
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_of_the_step_before_predicts_until_the_step_has_its_own() {
        let per_second = |done, before, seconds| {
            let pace = Pace { since: Instant::now(), done, before };
            pace.per_second(Duration::from_secs(seconds)).map(f64::round)
        };
        assert_eq!(per_second(0, None, 4), None);
        assert_eq!(per_second(40, None, 4), Some(10.0));
        assert_eq!(per_second(0, Some(50.0), 0), Some(50.0));
        assert_eq!(per_second(50, Some(50.0), 5), Some(30.0));
        assert_eq!(per_second(10_000, Some(50.0), 1000), Some(10.0));
    }

    #[test]
    fn what_is_left_is_predicted_from_the_pace_and_corrected() {
        let mut forecast = Forecast::new("reading", 100);
        assert_eq!(forecast.left(), None);
        forecast.add(50);
        forecast.pace.since -= Duration::from_secs(10);
        let seconds = |forecast: &Forecast| forecast.left().unwrap().as_secs_f64();
        assert!((seconds(&forecast) - 10.0).abs() < 0.1);
        forecast.set_left(5);
        assert!((seconds(&forecast) - 1.0).abs() < 0.1);
        forecast.add(20); // more than was predicted
        assert_eq!(forecast.left(), Some(Duration::ZERO));
    }

    #[test]
    fn forecasts_are_rounded() {
        let words = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!([words(0), words(4)], ["a few seconds", "a few seconds"]);
        assert_eq!([words(5), words(41)], ["about 10 s", "about 45 s"]);
        assert_eq!(
            [words(99), words(100), words(600)],
            ["about 100 s", "about 2 min", "about 10 min"]
        );
    }
}
