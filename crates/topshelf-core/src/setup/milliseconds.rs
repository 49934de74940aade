//! A duration as a number of milliseconds above 0, for serde.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

/// Writes milliseconds, or nothing.
#[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
pub(super) fn serialize<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => to.serialize_f64(time.as_secs_f64() * 1e3),
        None => to.serialize_none(),
    }
}

/// Reads milliseconds.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(from)? else { return Ok(None) };
    super::milliseconds(number).map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use crate::setup::{LONGEST_DEADLINE, Setup, SetupPatch, milliseconds};

    #[test]
    fn a_deadline_is_above_zero_and_a_day_at_most() {
        assert_eq!(milliseconds(1.5).unwrap(), Duration::from_micros(1500));
        assert_eq!(milliseconds(86_400_000.0).unwrap(), LONGEST_DEADLINE);
        for wrong in [0.0, -1.0, 1e-9, 86_400_001.0, 1e300, f64::NAN, f64::INFINITY] {
            let said = milliseconds(wrong).unwrap_err().to_string();
            assert!(said.contains("above 0 and up to 86400000"), "{said}");
            let patch = serde_json::from_value::<SetupPatch>(json!({ "deadline_ms": wrong }));
            assert!(!wrong.is_finite() || patch.is_err(), "{wrong}"); // JSON has no NaN: it becomes null
        }
        for wrong in [Duration::ZERO, LONGEST_DEADLINE + Duration::from_nanos(1)] {
            let patch = SetupPatch { deadline: Some(wrong), ..SetupPatch::default() };
            let said = Setup::default().with(&patch).unwrap_err().to_string();
            assert!(said.contains("the deadline") && said.contains("up to a day"), "{said}");
        }
    }
}
