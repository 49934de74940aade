//! Progress: bars on a terminal, plain lines elsewhere, nothing between a program and its JSON.
//!
//! All of it goes to standard error.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a plain line is printed.
const LINE_EVERY: Duration = Duration::from_secs(5);

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
            eprintln!("{} ...", progress.what);
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
                    Some(total) => eprintln!("{}: {done} of {total}", self.what),
                    None => eprintln!("{}: {done}", self.what),
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
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Ends the task: the bar goes away.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
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
