//! What this machine can do in the time that the slow group has: processors without integer dot products
//! take eight times as long as those with them, and the gate has its limits.

use std::sync::OnceLock;
use std::time::Instant;

use topshelf::CrossEncoder;

/// Seconds that one part of the group may take.
const LIMIT: f64 = 300.0;

/// Tokens of the cross-encoder in the time of one of a language model with 1.5 billion weights.
pub(crate) const OF_LANGUAGE_MODEL: u64 = 125;

/// Tokens a second that the cross-encoder reads here, measured once.
fn pace() -> f64 {
    static PACE: OnceLock<f64> = OnceLock::new();
    *PACE.get_or_init(|| {
        super::pull_default_models();
        let model = CrossEncoder::load("minilm-l12").expect("the model");
        let text = "a text of the length that passages have ".repeat(14);
        let pairs: Vec<(&str, String)> =
            (0..32).map(|n| ("what is it about", format!("{n} {text}"))).collect();
        let tokens = 120 * pairs.len();
        model.predict(&pairs[..4]).expect("scores"); // the threads are there from here on
        let start = Instant::now();
        model.predict(&pairs).expect("scores");
        tokens as f64 / start.elapsed().as_secs_f64()
    })
}

/// Whether a part that reads so many tokens ends in time. One that does not is told as not run, and with
/// `TOPSHELF_SLOW=all` every one is run.
pub(crate) fn affords(part: &str, tokens: u64) -> bool {
    let seconds = tokens as f64 / pace();
    let all = std::env::var_os("TOPSHELF_SLOW").is_some_and(|value| value == "all");
    if all || seconds <= LIMIT {
        return true;
    }
    println!(
        "#### NOT RUN: {part}: {tokens} tokens would take {seconds:.0} s at the {:.0} tokens a second of \
         this machine; TOPSHELF_SLOW=all runs it nevertheless",
        pace()
    );
    false
}
