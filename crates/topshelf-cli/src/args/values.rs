//! Values with a form of their own.

use std::time::Duration;

use topshelf::LONGEST_DEADLINE;

/// A time with its unit.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    let (number, seconds) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(""), 1.0),
    };
    let number = number.trim().parse().ok().filter(|number: &f64| *number > 0.0);
    number
        .and_then(|number| Duration::try_from_secs_f64(number * seconds).ok())
        .ok_or_else(|| "give a time above 0 with its unit, such as 150ms or 1.5s".to_owned())
}

/// A time that a deadline can be.
pub(crate) fn deadline(text: &str) -> Result<Duration, String> {
    let time = time(text)?;
    if time > LONGEST_DEADLINE {
        return Err("give a deadline of up to a day; without one there is no limit".to_owned());
    }
    Ok(time)
}

pub(super) fn not_negative(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "give a number of 0 or more".to_owned())
}

pub(super) fn share(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or_else(|| "give a number from 0 to 1".to_owned())
}

pub(super) fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "give a number of 1 or more".to_owned())
}

pub(super) fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
    number
        .filter(|number| (0.0..=100.0).contains(number))
        .map(|number: f64| number / 100.0)
        .ok_or_else(|| "give a share from 0% to 100%, such as 1%".to_owned())
}
