//! Reads one recorded line back, trusting nothing in it.
//!
//! A line is accepted only if this version of dropwatch could have written its numbers: the sums
//! hold, the rates are finite, the texts have a sane length. Fields that it does not know are passed
//! over, since schema version 1 may grow.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::error::Category;
use thiserror::Error;

use super::{
    facts::{CallPath, Details, Fact, Frame},
    finding::{Finding, Value},
    flow::Flow,
    model::{
        End, Host, Line, Location, Other, RanCommand, Report, SCHEMA_VERSION, Sampled, Start,
        groups::{GroupRow, Groups},
    },
    namespaces::{NamespaceDrops, SampledFlow},
    snapshot::Lost,
    tunnel::Inner,
};

/// Longest text in a field, bytes. Kernel symbols end at `KSYM_NAME_LEN`
/// (`include/linux/kallsyms.h`: 512 since 6.1); notices are a sentence or two.
pub const MAX_TEXT: usize = 4096;

/// Highest rate that a line may claim, per second: all that 64 bits count, in a nanosecond, and more.
const MAX_RATE: f64 = 1e30;

/// Longest time that a line may claim to cover, seconds: more than 64 bits of nanoseconds.
const MAX_SECONDS: f64 = 2e10;

/// Most functions that a call path may have, and most call paths of a location: more than this
/// version writes, and little enough to draw.
const MAX_FRAMES: usize = 128;

/// What a number in JSON cannot end with, but the first part of one can.
const PARTIAL_NUMBER: [char; 5] = ['.', 'e', 'E', '+', '-'];

/// Why a line is not one of ours. Messages complete "line 7 …".
#[derive(Clone, Debug, PartialEq, Error)]
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
    Inconsistent(Contradiction),
}

/// What no dropwatch could have written, although it is JSON of the right shape.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum Contradiction {
    #[error("{unknown} drops lost their location, of {drops} in all")]
    LostBeyondDrops { unknown: u64, drops: u64 },
    #[error("the sum of lost overflows")]
    LostOverflows,
    #[error("{benign} of {drops} drops are benign")]
    BenignBeyondDrops { benign: u64, drops: u64 },
    #[error("the summary's rows do not sum to its {drops} drops")]
    SummarySum { drops: u64 },
    #[error("groups do not sum to their {drops} drops")]
    GroupSum { drops: u64 },
    #[error("locations and other sum to {sum}, drops is {drops}")]
    LocationSum { sum: u64, drops: u64 },
    #[error("the sum of locations and other overflows")]
    LocationSumOverflows,
    #[error("namespaces of a location do not sum to its {count} drops")]
    NamespaceSum { count: u64 },
    #[error("seq and intervals count from 1")]
    CountsFromZero,
    #[error("other counts {count} drops, {unknown} of unknown location, where lost has {lost}")]
    OtherUnknown { count: u64, unknown: u64, lost: u64 },
    #[error("other counts {located} drops, {benign} of them benign")]
    OtherBenign { located: u64, benign: u64 },
    #[error("other counts {located} drops at {locations} locations")]
    OtherLocations { located: u64, locations: u64 },
    #[error("a finding explains {explained} drops of {drops}")]
    ExplainsTooMany { explained: u64, drops: u64 },
    #[error("a location has count {count} and total {total}")]
    LocationCount { count: u64, total: u64 },
    #[error("{samples} samples stand for {weight} drops")]
    Weight { samples: u64, weight: u64 },
    #[error("a sample stands for no drop")]
    NoWeight,
    #[error("{length} {what}")]
    TooMany { what: &'static str, length: usize },
    #[error("{name} is {value}")]
    OutOfRange { name: &'static str, value: f64 },
    #[error("a text of {length} bytes, where {MAX_TEXT} is the most")]
    LongText { length: usize },
}

/// Decodes one line.
pub fn decode(text: &str) -> Result<Line, DecodeError> {
    #[derive(Deserialize)]
    struct Head {
        v: Option<serde_json::Value>,
        r#type: Option<serde_json::Value>,
    }
    let head: Head = serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Eof => DecodeError::Truncated,
        // The parser calls a number that was cut behind its point a syntax error, not an early end.
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
        Some("sample") => Line::Sample(body(text, "sample")?),
        _ => return Err(DecodeError::UnknownType(excerpt(&kind.to_string()))),
    };
    check(&line).map_err(DecodeError::Inconsistent)?;
    Ok(line)
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

fn check(line: &Line) -> Result<(), Contradiction> {
    match line {
        Line::Start(start) => check_start(start),
        Line::Report(report) => check_report(report),
        Line::Sample(sample) => check_sample(sample),
        Line::End(end) => check_end(end),
    }
}

fn check_start(start: &Start) -> Result<(), Contradiction> {
    check_host(&start.host)?;
    check_text(&start.dropwatch)?;
    start.notices.iter().chain(&start.filters).try_for_each(|text| check_text(text))?;
    check_number("interval_s", start.interval_s, MAX_SECONDS)
}

fn check_end(end: &End) -> Result<(), Contradiction> {
    check_host(&end.host)?;
    check_number("duration_s", end.duration_s, MAX_SECONDS)?;
    // Drops without a location of which the filters were undecided are in `lost`, but not among the
    // drops.
    let lost = unknown_location(&end.lost)?;
    let unknown = lost.saturating_sub(end.filter_undecided.unwrap_or(0));
    if unknown > end.drops {
        return Err(Contradiction::LostBeyondDrops { unknown, drops: end.drops });
    }
    check_benign(end.benign, end.drops)?;
    end.run.as_ref().map_or(Ok(()), |ran| check_ran(ran))
}

fn check_ran(ran: &RanCommand) -> Result<(), Contradiction> {
    let RanCommand { command, duration_s, summary, .. } = ran;
    check_length("words of a command", command.len())?;
    command.iter().try_for_each(|word| check_text(word))?;
    check_number("duration_s", *duration_s, MAX_SECONDS)?;
    check_number("duration_s", summary.duration_s, MAX_SECONDS)?;
    check_number("rate", summary.rate, MAX_RATE)?;
    let rows = &summary.locations;
    let sum = rows.iter().try_fold(summary.other, |sum, row| sum.checked_add(row.count));
    if sum != Some(summary.drops) {
        return Err(Contradiction::SummarySum { drops: summary.drops });
    }
    check_benign(summary.benign, summary.drops)?;
    for row in rows {
        row.place.texts().try_for_each(check_text)?;
        check_number("rate", row.rate, MAX_RATE)?;
        check_number("share", row.share, 1.0)?;
    }
    for found in &summary.findings {
        let name = found.netns.as_ref().and_then(|netns| netns.name.as_ref());
        [&found.rule, &found.subject, &found.title]
            .into_iter()
            .chain(name)
            .try_for_each(|text| check_text(text))?;
    }
    if let Some(worst) = summary.worst {
        check_benign(worst.benign, worst.drops)?;
        check_number("interval_s", worst.interval_s, MAX_SECONDS)?;
        check_number("rate", worst.rate, MAX_RATE)?;
    }
    let Some(before) = summary.before else { return Ok(()) };
    check_benign(before.benign, before.drops)?;
    check_number("duration_s", before.duration_s, MAX_SECONDS)
}

fn check_benign(benign: u64, drops: u64) -> Result<(), Contradiction> {
    match benign > drops {
        true => Err(Contradiction::BenignBeyondDrops { benign, drops }),
        false => Ok(()),
    }
}

fn check_groups(groups: &Groups) -> Result<(), Contradiction> {
    let counts = groups.rows.iter().map(|row| row.count).chain([groups.unknown, groups.other]);
    let sum = counts.into_iter().try_fold(0_u64, |sum, count| sum.checked_add(count));
    if sum != Some(groups.drops) {
        return Err(Contradiction::GroupSum { drops: groups.drops });
    }
    groups.rows.iter().try_for_each(check_group)
}

/// Takes the row apart field by field, so that a new field does not compile before it is bounded
/// here.
fn check_group(row: &GroupRow) -> Result<(), Contradiction> {
    let GroupRow { netns, interface, protocol, direction, cpu: _, count: _, rate, share, total: _ } =
        row;
    let netns = netns.as_ref().and_then(|netns| netns.name.as_deref());
    let interface = interface.as_ref().and_then(|interface| interface.name.as_deref());
    let texts = [netns, interface, protocol.as_deref(), direction.as_deref()];
    texts.into_iter().flatten().try_for_each(check_text)?;
    check_number("rate", *rate, MAX_RATE)?;
    check_number("share", *share, 1.0)
}

fn check_report(report: &Report) -> Result<(), Contradiction> {
    check_host(&report.host)?;
    check_number("interval_s", report.interval_s, MAX_SECONDS)?;
    check_number("rate", report.rate, MAX_RATE)?;
    if report.seq == 0 || report.intervals == 0 {
        return Err(Contradiction::CountsFromZero);
    }
    report.locations.iter().try_for_each(check_location)?;
    report.groups.as_deref().map_or(Ok(()), check_groups)?;
    // Their number has no bound of its own, since each of hundreds of namespaces may have some.
    report.findings.iter().try_for_each(|finding| check_finding(finding, report.drops))?;

    let Other { locations, count, unknown_location: unknown, known_benign, .. } = report.other;
    let sum = report.locations.iter().try_fold(count, |sum, row| sum.checked_add(row.count));
    match sum {
        Some(sum) if sum == report.drops => {}
        Some(sum) => return Err(Contradiction::LocationSum { sum, drops: report.drops }),
        None => return Err(Contradiction::LocationSumOverflows),
    }
    let lost = unknown_location(&report.lost)?;
    // Of drops without a location, filters leave some undecided, which `other` does not count.
    let undecided = report.filter_undecided.unwrap_or(0);
    if !(lost.saturating_sub(undecided)..=lost).contains(&unknown) || unknown > count {
        return Err(Contradiction::OtherUnknown { count, unknown, lost });
    }
    let located = count - unknown;
    if known_benign > located {
        return Err(Contradiction::OtherBenign { located, benign: known_benign });
    }
    if located < locations || (located > 0 && locations == 0) {
        return Err(Contradiction::OtherLocations { located, locations });
    }
    Ok(())
}

fn check_finding(finding: &Finding, drops: u64) -> Result<(), Contradiction> {
    let Finding { rule, netns, subject, title, object, explains, evidence, actions, .. } = finding;
    let unreachable = &finding.unreachable;
    let name = netns.as_ref().and_then(|netns| netns.name.as_ref());
    let values = evidence.iter().filter_map(|evidence| match &evidence.value {
        Value::Text(text) => Some(text),
        Value::Number(_) => None,
    });
    let names = evidence.iter().flat_map(|evidence| [&evidence.name, &evidence.source]);
    let done = actions.iter().flat_map(|action| [&action.command, &action.note]);
    let why = unreachable.as_ref().map(|unreachable| &unreachable.why);
    let texts =
        [rule, subject, title].into_iter().chain(name).chain(values).chain(names).chain(done);
    let texts = texts.chain(why).chain(object.iter().flat_map(|object| object.texts()));
    texts.into_iter().try_for_each(|text| check_text(text))?;
    check_length("pieces of evidence", evidence.len())?;
    check_length("actions", actions.len())?;
    check_length("facts about an object", object.as_ref().map_or(0, |it| it.fields.len()))?;
    let Some(explains) = explains else { return Ok(()) };
    if explains.drops > drops {
        return Err(Contradiction::ExplainsTooMany { explained: explains.drops, drops });
    }
    check_number("share", explains.share, 1.0)
}

fn check_host(host: &Host) -> Result<(), Contradiction> {
    [&host.host, &host.boot_id, &host.kernel].into_iter().try_for_each(|text| check_text(text))
}

fn check_location(row: &Location) -> Result<(), Contradiction> {
    row.place.texts().try_for_each(check_text)?;
    check_number("rate", row.rate, MAX_RATE)?;
    check_number("share", row.share, 1.0)?;
    if row.count == 0 || row.total < row.count {
        return Err(Contradiction::LocationCount { count: row.count, total: row.total });
    }
    row.details.as_ref().map_or(Ok(()), check_details)?;
    check_length("call paths of a location", row.stacks.len())?;
    row.stacks.iter().try_for_each(check_path)?;
    check_namespaces(row)
}

/// Where there are none, the kernel did not tell them apart.
fn check_namespaces(row: &Location) -> Result<(), Contradiction> {
    let counts = row.namespaces.iter().map(|it| it.count);
    let sum = counts.into_iter().try_fold(0_u64, |sum, count| sum.checked_add(count));
    if !row.namespaces.is_empty() && sum != Some(row.count) {
        return Err(Contradiction::NamespaceSum { count: row.count });
    }
    row.namespaces.iter().try_for_each(check_namespace)
}

/// Takes it apart field by field, so that a new field does not compile before it is bounded here.
fn check_namespace(netns: &NamespaceDrops) -> Result<(), Contradiction> {
    let NamespaceDrops {
        name,
        inum: _,
        ended: _,
        number: _,
        count,
        rate,
        share,
        total,
        flows,
        effective_samples,
        details: _,
    } = netns;
    name.as_deref().map_or(Ok(()), check_text)?;
    check_number("rate", *rate, MAX_RATE)?;
    check_number("share", *share, 1.0)?;
    if *count == 0 || total < count {
        return Err(Contradiction::LocationCount { count: *count, total: *total });
    }
    check_length("flows of a namespace", flows.len())?;
    check_effective(*effective_samples)?;
    for SampledFlow { interface, flow, path, share, samples } in flows {
        if *samples == 0 {
            return Err(Contradiction::Weight { samples: 0, weight: 0 });
        }
        check_number("share", *share, 1.0)?;
        let interface = interface.as_ref().and_then(|interface| interface.name.as_deref());
        interface.map_or(Ok(()), check_text)?;
        if let Some(path) = path {
            check_length("callers of a namespace", path.callers.len())?;
            path.callers.iter().flatten().try_for_each(|text| check_text(text))?;
        }
        if let Some(pattern) = flow {
            check_number("share", pattern.share, 1.0)?;
            check_flow(&pattern.flow)?;
        }
    }
    Ok(())
}

fn check_details(details: &Details) -> Result<(), Contradiction> {
    fn shared<T>(fact: &Option<Fact<T>>) -> Option<(&T, f64)> {
        fact.as_ref().map(|fact| (&fact.is, fact.share))
    }
    let Details { samples, effective_samples, weight, .. } = *details;
    if samples == 0 || weight < samples {
        return Err(Contradiction::Weight { samples, weight });
    }
    check_effective(effective_samples)?;
    let netns = shared(&details.netns).map(|(is, share)| (is.name.as_ref(), share));
    let interface = shared(&details.interface).map(|(is, share)| (is.name.as_ref(), share));
    let protocol = shared(&details.protocol).map(|(is, share)| (Some(&is.name), share));
    let owner = shared(&details.owner).map(|(is, share)| (Some(&is.comm), share));
    let cgroup = shared(&details.owner).map(|(is, share)| (is.cgroup.as_ref(), share));
    let rest = [
        shared(&details.direction).map(|(_, share)| share),
        shared(&details.conntrack).map(|(_, share)| share),
        shared(&details.cpu).map(|(_, share)| share),
        shared(&details.path).map(|(_, share)| share),
        details.flow.as_ref().map(|pattern| pattern.share),
    ];
    for (text, share) in [netns, interface, protocol, owner, cgroup].into_iter().flatten() {
        text.map_or(Ok(()), |text| check_text(text))?;
        check_number("share", share, 1.0)?;
    }
    rest.into_iter().flatten().try_for_each(|share| check_number("share", share, 1.0))?;
    if let Some((path, _)) = shared(&details.path) {
        check_length("callers of a location", path.callers.len())?;
        path.callers.iter().flatten().try_for_each(|text| check_text(text))?;
    }
    details.flow.as_ref().map_or(Ok(()), |pattern| check_flow(&pattern.flow))
}

fn check_effective(effective: Option<f64>) -> Result<(), Contradiction> {
    effective.map_or(Ok(()), |value| check_number("effective_samples", value, MAX_RATE))
}

fn check_path(path: &CallPath) -> Result<(), Contradiction> {
    check_number("share", path.share, 1.0)?;
    check_frames(&path.frames)
}

fn check_frames(frames: &[Frame]) -> Result<(), Contradiction> {
    check_length("frames of a call path", frames.len())?;
    let texts = frames.iter().flat_map(|frame| [&frame.symbol, &frame.module]);
    texts.flatten().try_for_each(|text| check_text(text))
}

fn check_flow(flow: &Flow) -> Result<(), Contradiction> {
    [&flow.protocol, &flow.kind].into_iter().flatten().try_for_each(|text| check_text(text))
}

fn check_sample(sample: &Sampled) -> Result<(), Contradiction> {
    check_host(&sample.host)?;
    check_number("at_s", sample.at_s, MAX_SECONDS)?;
    sample.place.texts().try_for_each(check_text)?;
    let netns = sample.netns.iter().filter_map(|netns| netns.name.as_ref());
    let interface = sample.interface.iter().filter_map(|interface| interface.name.as_ref());
    let owner = sample.owner.iter().flat_map(|owner| [Some(&owner.comm), owner.cgroup.as_ref()]);
    let task = sample.task.iter().map(|task| &task.comm);
    netns
        .chain(interface)
        .chain(owner.flatten())
        .chain(task)
        .try_for_each(|text| check_text(text))?;
    if sample.weight == 0 {
        return Err(Contradiction::NoWeight);
    }
    sample.flow.as_ref().map_or(Ok(()), check_flow)?;
    if let Some(Inner { tunnel, tunnel_id: _, flow }) = &sample.inner {
        check_text(tunnel)?;
        check_flow(flow)?;
    }
    check_frames(&sample.stack)
}

fn check_length(what: &'static str, length: usize) -> Result<(), Contradiction> {
    if length <= MAX_FRAMES { Ok(()) } else { Err(Contradiction::TooMany { what, length }) }
}

fn unknown_location(lost: &Lost) -> Result<u64, Contradiction> {
    lost.map_full
        .checked_add(lost.map_busy)
        .and_then(|sum| sum.checked_add(lost.recursion))
        .ok_or(Contradiction::LostOverflows)
}

/// JSON has no NaN, and its reader refuses numbers beyond a double, so only the bounds are left.
fn check_number(name: &'static str, value: f64, max: f64) -> Result<(), Contradiction> {
    if (0.0..=max).contains(&value) {
        Ok(())
    } else {
        Err(Contradiction::OutOfRange { name, value })
    }
}

fn check_text(text: &str) -> Result<(), Contradiction> {
    if text.len() <= MAX_TEXT {
        Ok(())
    } else {
        Err(Contradiction::LongText { length: text.len() })
    }
}
