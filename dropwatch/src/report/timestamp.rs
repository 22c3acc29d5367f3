//! Wall-clock labels in JSON: RFC 3339 in UTC with exactly three decimals; nine for a packet's.
//!
//! A fixed width keeps recordings sortable as text, and finer digits than the label deserves out of
//! them. Reading is lenient: any RFC 3339 time with an offset, of any precision.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{time:.3}"))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
    let text = String::deserialize(from)?;
    // The text is not repeated in the message: it is unbounded and may hold anything.
    text.parse().map_err(|_| D::Error::custom("not an RFC 3339 time such as 2026-11-22T07:35:05Z"))
}

/// RFC 3339 in UTC with nine decimals, for what is measured to the nanosecond.
pub(super) mod nanosecond {
    use jiff::Timestamp;
    use serde::Serializer;

    pub(in super::super) use super::deserialize;

    pub(in super::super) fn serialize<S: Serializer>(
        time: &Timestamp,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{time:.9}"))
    }
}

/// What is left of `time` in a recording: whole milliseconds.
pub(super) fn to_millisecond(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, to_string};

    use super::*;

    #[derive(serde::Serialize, Deserialize)]
    struct Label(#[serde(with = "super")] Timestamp);

    #[test]
    fn three_decimals_always() {
        for (given, printed) in [
            ("2026-11-22T07:35:05Z", "2026-11-22T07:35:05.000Z"),
            ("2026-11-22T07:35:05.1239999Z", "2026-11-22T07:35:05.123Z"),
            ("2026-11-22T08:35:05.5+01:00", "2026-11-22T07:35:05.500Z"),
        ] {
            let label: Label = from_str(&format!("{given:?}")).unwrap();
            assert_eq!(to_string(&label).unwrap(), format!("{printed:?}"));
            let shown = format!("{:.3}", to_millisecond(label.0));
            assert_eq!(shown, printed);
        }
    }

    #[test]
    fn refuses_what_is_not_a_time() {
        for given in ["\"\"", "\"yesterday\"", "\"2026-11-22\"", "1795332905", "null"] {
            assert!(from_str::<Label>(given).is_err(), "{given} was accepted");
        }
    }
}
