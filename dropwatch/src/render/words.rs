//! Numbers in words, for the formats that people read.

use std::fmt::{self, Display};

use super::{clean, details::label};
use crate::report::{
    facts::{Context, Task},
    model::{Address, Location, Lost, Place},
};

/// What was lost, by cause, in the words of the reports: `12 not located: 12 nested`.
///
/// `None` if nothing was.
pub fn losses(lost: &Lost) -> Option<String> {
    let list = |causes: &[(u64, &str)]| {
        let named = causes.iter().filter(|(count, _)| *count > 0);
        named.map(|(count, cause)| format!("{count} {cause}")).collect::<Vec<_>>().join(", ")
    };
    let drops = list(&[
        (lost.recursion, "nested"),
        (lost.map_full, "map full"),
        (lost.map_busy, "map busy"),
    ]);
    let details = list(&[
        (lost.samples, "samples lost"),
        (lost.stacks, "stacks lost"),
        (lost.pcap, "packets not captured"),
        (lost.unsampled, "not sampled"),
    ]);
    match (drops.is_empty(), details.is_empty()) {
        (true, true) => None,
        (true, false) => Some(details),
        (false, true) => Some(format!("{} not located: {drops}", lost.unknown_location())),
        (false, false) => {
            Some(format!("{} not located: {drops}; {details}", lost.unknown_location()))
        }
    }
}

/// `376 B`, `1.4 MiB`: bytes in words.
pub struct Bytes(pub u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        for unit in ["KiB", "MiB", "GiB", "TiB"] {
            value /= 1024.0;
            // What would round to 1024.0 is 1.0 of the next.
            if value < 1023.95 {
                return write!(f, "{value:.1} {unit}");
            }
        }
        write!(f, "{:.1} PiB", value / 1024.0)
    }
}

/// `1 location`, `2 locations`.
pub fn count(n: u64, noun: &str) -> impl Display {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// `no drops in 5.0s`, `1 drop in 100ms`.
pub fn drops_in(drops: u64, seconds: f64) -> String {
    let drops = if drops == 0 { "no drops".to_owned() } else { count(drops, "drop").to_string() };
    format!("{drops} in {}", Span(seconds))
}

/// `, 12 of them benign`, behind a number of drops; nothing where none is.
pub(super) fn of_them_benign(benign: u64) -> String {
    match benign {
        0 => String::new(),
        benign => format!(", {benign} of them benign"),
    }
}

/// Seconds: `5.0s`; milliseconds where they would not round to one: `250ms`.
struct Span(f64);

impl Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0.95 { write!(f, "{:.0}ms", self.0 * 1e3) } else { write!(f, "{:.1}s", self.0) }
    }
}

/// `2141/s`; slow rates with a decimal, and never zero for a rate that is not.
pub(super) struct PerSecond(pub(super) f64);

impl Display for PerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0.0 => write!(f, "<0.1/s"),
            slow if slow < 10.0 => write!(f, "{slow:.1}/s"),
            rate => write!(f, "{rate:.0}/s"),
        }
    }
}

/// `93.7%` of a share from 0 to 1, and never zero for a share that is not.
pub(super) struct Percent(pub(super) f64);

impl Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0.0 { write!(f, "<0.1%") } else { write!(f, "{:.1}%", self.0 * 100.0) }
    }
}

/// `nf_hook_slow+0x7d [module] (NETFILTER_DROP)`, in a line of its own words. An unnamed location has
/// its raw address for a name, where `address` is known, and no offset.
pub(super) fn place(place: &Place, address: Option<u64>) -> String {
    let Place { symbol, offset, module, reason, subsystem: _ } = place;
    let mut words: String = named(symbol.as_deref(), address);
    if let Some(offset) = symbol.as_ref().and(*offset) {
        words += &format!("+{offset:#x}");
    }
    if let Some(module) = module {
        words += &format!(" [{}]", clean(module));
    }
    if let Some(reason) = reason {
        words += &format!(" ({})", clean(reason));
    }
    words
}

/// What a row is about: `nf_hook_slow+0x7d [module] (NETFILTER_DROP)`.
pub(super) fn location(row: &Location) -> String {
    place(&row.place, row.address.known())
}

/// The function's name without offset; an unnamed location's raw address.
pub(super) fn symbol(row: &Location) -> String {
    named(row.place.symbol.as_deref(), row.address.known())
}

fn named(symbol: Option<&str>, address: Option<u64>) -> String {
    match (symbol, address) {
        (None, Some(raw)) => Address::hex(raw),
        (name, _) => function(name),
    }
}

/// A function's name as one word.
pub(super) fn function(name: Option<&str>) -> String {
    match name {
        Some(name) => clean(name).replace(char::is_whitespace, "\u{fffd}"),
        None => "[unknown]".to_owned(),
    }
}

/// `by nginx/812` where the task itself was at it. Else `on CPU: nginx/812`: it only happened to run
/// there.
pub(super) fn on_cpu(task: &Task) -> String {
    let Task { comm, pid, context } = task;
    let name = match pid {
        0 => "idle".to_owned(),
        pid => format!("{}/{pid}", label(comm)),
    };
    match context {
        Some(Context::Task) => format!("by {name}"),
        Some(Context::Softirq | Context::Interrupt) | None => format!("on CPU: {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_named_by_cause() {
        let none = Lost::default();
        assert_eq!(losses(&none), None);
        let nested = Lost { recursion: 12, ..none };
        assert_eq!(losses(&nested).unwrap(), "12 not located: 12 nested");
        let all = Lost {
            recursion: 1,
            map_full: 2,
            map_busy: 3,
            samples: 4,
            stacks: 5,
            pcap: 6,
            unsampled: 7,
        };
        assert_eq!(
            losses(&all).unwrap(),
            "6 not located: 1 nested, 2 map full, 3 map busy; 4 samples lost, 5 stacks lost, \
             6 packets not captured, 7 not sampled"
        );
        let details = Lost { samples: 4, ..none };
        assert_eq!(losses(&details).unwrap(), "4 samples lost");
    }

    #[test]
    fn a_task_is_charged_only_with_what_is_its_own() {
        let task = |pid, context| on_cpu(&Task { comm: "a b".to_owned(), pid, context });
        assert_eq!(task(812, Some(Context::Task)), "by a b/812");
        assert_eq!(task(812, Some(Context::Softirq)), "on CPU: a b/812");
        assert_eq!(task(812, Some(Context::Interrupt)), "on CPU: a b/812");
        assert_eq!(task(812, None), "on CPU: a b/812");
        assert_eq!(task(0, Some(Context::Softirq)), "on CPU: idle");
    }

    #[test]
    fn small_is_not_nothing() {
        assert_eq!(Percent(0.0).to_string(), "<0.1%");
        assert_eq!(Percent(0.001).to_string(), "0.1%");
        assert_eq!(Percent(0.999).to_string(), "99.9%");
        assert_eq!(Percent(1.0).to_string(), "100.0%");
        assert_eq!(PerSecond(0.0).to_string(), "<0.1/s");
        assert_eq!(PerSecond(0.4).to_string(), "0.4/s");
        assert_eq!(PerSecond(2141.4).to_string(), "2141/s");
        assert_eq!(drops_in(0, 0.1), "no drops in 100ms");
        assert_eq!(drops_in(1, 5.0), "1 drop in 5.0s");
    }

    #[test]
    fn bytes_have_the_unit_that_fits() {
        for (bytes, words) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), words);
        }
    }
}
