//! Reads one recorded line back, trusting nothing in it.
//!
//! A line is accepted only if this version of dropwatch could have written its numbers: the sums
//! hold, the rates are finite, the texts have a sane length. Fields that it does not know are passed
//! over, since schema version 1 may grow.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, error::Category};
use thiserror::Error;

use super::model::{End, Host, Line, Location, Lost, Other, Report, SCHEMA_VERSION, Start};

/// Longest text in a field, bytes. Kernel symbols end at `KSYM_NAME_LEN`
/// (`include/linux/kallsyms.h`: 512 since 6.1); notices are a sentence or two.
pub const MAX_TEXT: usize = 4096;

/// Highest rate that a line may claim, per second: all that 64 bits count, in a nanosecond, and more.
const MAX_RATE: f64 = 1e30;

/// Longest time that a line may claim to cover, seconds: 317 years.
const MAX_SECONDS: f64 = 1e10;

/// What a number in JSON cannot end with, but the first part of one can.
const PARTIAL_NUMBER: [char; 5] = ['.', 'e', 'E', '+', '-'];

/// Why a line is not one of ours. Messages complete "line 7 …".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("ends in the middle: the recording was cut off there")]
    Truncated,
    #[error("is not JSON ({0})")]
    NotJson(String),
    #[error("is JSON, but not dropwatch's: it has no {0}")]
    Foreign(&'static str),
    #[error(
        "has schema version {0}, which a newer dropwatch recorded; this one reads version \
         {SCHEMA_VERSION}"
    )]
    Newer(u64),
    #[error("has schema version {0}, which no dropwatch ever wrote")]
    NoSuchVersion(String),
    #[error("has the unknown type {0}")]
    UnknownType(String),
    #[error("is not a valid {kind} line ({cause})")]
    Malformed { kind: &'static str, cause: String },
    #[error("contradicts itself: {0}")]
    Inconsistent(String),
}

/// Decodes one line. `None` is a line of a known kind that has nothing to render.
pub fn decode(text: &str) -> Result<Option<Line>, DecodeError> {
    #[derive(Deserialize)]
    struct Head {
        v: Option<Value>,
        r#type: Option<Value>,
    }
    let head: Head = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Eof => DecodeError::Truncated,
        // The parser takes a number that was cut after its point for a wrong one.
        Category::Syntax if error.column() == text.len() && text.ends_with(PARTIAL_NUMBER) => {
            DecodeError::Truncated
        }
        Category::Data => DecodeError::Foreign("\"v\" and \"type\""),
        Category::Syntax | Category::Io => DecodeError::NotJson(cause(&error)),
    })?;
    let version = head.v.ok_or(DecodeError::Foreign("\"v\""))?;
    let kind = head.r#type.ok_or(DecodeError::Foreign("\"type\""))?;
    match version.as_u64() {
        Some(v) if v == u64::from(SCHEMA_VERSION) => {}
        Some(v) if v > u64::from(SCHEMA_VERSION) => return Err(DecodeError::Newer(v)),
        _ => return Err(DecodeError::NoSuchVersion(excerpt(&version.to_string()))),
    }
    let line = match kind.as_str() {
        Some("start") => Line::Start(body(text, "start")?),
        Some("report") => Line::Report(body(text, "report")?),
        Some("end") => Line::End(body(text, "end")?),
        // Reserved for single packets, which say nothing about counts.
        Some("sample") => return Ok(None),
        _ => return Err(DecodeError::UnknownType(excerpt(&kind.to_string()))),
    };
    check(&line).map_err(DecodeError::Inconsistent)?;
    Ok(Some(line))
}

fn body<T: DeserializeOwned>(text: &str, kind: &'static str) -> Result<T, DecodeError> {
    serde_json::from_str(text)
        .map_err(|error| DecodeError::Malformed { kind, cause: cause(&error) })
}

/// The message with its column alone: a line of NDJSON is always "line 1" to the parser.
fn cause(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = excerpt(message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what));
    match error.column() {
        0 => what,
        column => format!("{what} at column {column}"),
    }
}

/// The beginning of a text that is as long as a recording makes it.
fn excerpt(text: &str) -> String {
    const MAX: usize = 100;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn check(line: &Line) -> Result<(), String> {
    match line {
        Line::Start(start) => check_start(start),
        Line::Report(report) => check_report(report),
        Line::End(end) => check_end(end),
    }
}

fn check_start(start: &Start) -> Result<(), String> {
    check_host(&start.host)?;
    check_text(&start.dropwatch)?;
    start.notices.iter().try_for_each(|text| check_text(text))?;
    check_number("interval_s", start.interval_s, MAX_SECONDS)
}

fn check_end(end: &End) -> Result<(), String> {
    check_host(&end.host)?;
    check_number("duration_s", end.duration_s, MAX_SECONDS)?;
    let unknown = unknown_location(&end.lost)?;
    if unknown > end.drops {
        return Err(format!("{unknown} drops lost their location, of {} in all", end.drops));
    }
    Ok(())
}

fn check_report(report: &Report) -> Result<(), String> {
    check_host(&report.host)?;
    check_number("interval_s", report.interval_s, MAX_SECONDS)?;
    check_number("rate", report.rate, MAX_RATE)?;
    if report.seq == 0 || report.intervals == 0 {
        return Err("seq and intervals count from 1".to_owned());
    }
    report.locations.iter().try_for_each(check_location)?;

    let Other { locations, count, unknown_location: unknown, .. } = report.other;
    let sum = report.locations.iter().try_fold(count, |sum, row| sum.checked_add(row.count));
    match sum {
        Some(sum) if sum == report.drops => {}
        Some(sum) => {
            return Err(format!("locations and other sum to {sum}, drops is {}", report.drops));
        }
        None => return Err("the sum of locations and other overflows".to_owned()),
    }
    let lost = unknown_location(&report.lost)?;
    if unknown != lost || unknown > count {
        return Err(format!(
            "other counts {count} drops, {unknown} of unknown location, where lost has {lost}"
        ));
    }
    let located = count - unknown;
    if located < locations || (located > 0 && locations == 0) {
        return Err(format!("other counts {located} drops at {locations} locations"));
    }
    Ok(())
}

fn check_host(host: &Host) -> Result<(), String> {
    [&host.host, &host.boot_id, &host.kernel].into_iter().try_for_each(|text| check_text(text))
}

fn check_location(row: &Location) -> Result<(), String> {
    let texts = [&row.symbol, &row.module, &row.reason, &row.subsystem];
    texts.into_iter().flatten().try_for_each(|text| check_text(text))?;
    check_number("rate", row.rate, MAX_RATE)?;
    check_number("share", row.share, 1.0)?;
    if row.count == 0 || row.total < row.count {
        return Err(format!("a location has count {} and total {}", row.count, row.total));
    }
    Ok(())
}

fn unknown_location(lost: &Lost) -> Result<u64, String> {
    lost.map_full
        .checked_add(lost.map_busy)
        .and_then(|sum| sum.checked_add(lost.recursion))
        .ok_or_else(|| "the sum of lost overflows".to_owned())
}

/// JSON has no NaN, and its reader refuses numbers beyond a double, so only the bounds are left.
fn check_number(name: &str, value: f64, max: f64) -> Result<(), String> {
    if (0.0..=max).contains(&value) { Ok(()) } else { Err(format!("{name} is {value}")) }
}

fn check_text(text: &str) -> Result<(), String> {
    if text.len() <= MAX_TEXT {
        Ok(())
    } else {
        Err(format!("a text of {} bytes, where {MAX_TEXT} is the most", text.len()))
    }
}
