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
