//! Values of options, as people write them. Errors say in a few words what is wrong.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use dropwatch_common::sample::PACKET_BYTES;

/// Shortest interval: reading the counters has a cost, and a report takes a moment to read.
const SHORTEST: Duration = Duration::from_millis(10);
/// Most samples a second: 128 MiB of the kernel's memory hold so many.
const MOST_SAMPLES: u32 = 100_000;
/// Longest interval or run: a year.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

pub(super) fn whole_number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "not a whole number".to_owned())
}

pub(super) fn whole(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "not a whole number".to_owned())
}

/// `127.0.0.1:9435`, `[::]:9435`; `9435` is the loopback address's.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    text.parse().map_err(|_| {
        "not a port, and not an address with one such as 127.0.0.1:9435 or [::]:9435".to_owned()
    })
}

/// Packets a second.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err("not a number of packets a second".to_owned()),
    }
}

pub(super) fn at_least_one(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("not a whole number".to_owned()),
    }
}

/// Samples a second.
pub(super) fn samples_a_second(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(samples @ 1..=MOST_SAMPLES) => Ok(samples),
        Ok(_) => Err(format!("must be from 1 to {MOST_SAMPLES} a second")),
        Err(_) => Err("not a whole number".to_owned()),
    }
}

pub(super) fn snaplen(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes @ 1..=PACKET_BYTES) => Ok(bytes),
        Ok(_) => Err(format!("must be from 1 to {PACKET_BYTES}, all that a sample holds")),
        Err(_) => Err("not a whole number".to_owned()),
    }
}

/// `5s`, `500ms`, `1m30s`, `2h`, or a number of seconds.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = match text.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => text
            .parse::<jiff::SignedDuration>()
            .map_err(|_| "not a duration such as 5s, 500ms or 1m30s")?
            .as_secs_f64(),
    };
    if seconds.is_nan() || seconds < SHORTEST.as_secs_f64() {
        return Err("must be at least 10ms".to_owned());
    }
    if seconds > LONGEST.as_secs_f64() {
        return Err("must be at most a year".to_owned());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_write_them() {
        for (text, millis) in [
            ("5s", 5_000),
            ("5", 5_000),
            ("0.5", 500),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1m 30s", 90_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn durations_that_cannot_be_are_refused() {
        for text in
            ["0", "0s", "-5s", "-1", "1ms", "x", "", "nan", "inf", "1e300", "9999d", "5 s s"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
