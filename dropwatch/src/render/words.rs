//! Numbers in words, for the formats that people read.

use std::fmt::{self, Display};

use super::clean;
use crate::report::model::{Address, Location, Lost};

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
pub(super) fn count(n: u64, noun: &str) -> impl Display {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// `no drops in 5.0s`, `1 drop in 100ms`.
pub(super) fn drops_in(drops: u64, seconds: f64) -> String {
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

/// `nf_hook_slow+0x7d [module] (NETFILTER_DROP)`, of the name that [`symbol`] gives. What has no name
/// has no offset either.
pub(super) fn place(
    symbol: &str,
    offset: Option<u64>,
    module: Option<&str>,
    reason: Option<&str>,
) -> String {
    let mut place = symbol.to_owned();
    if let Some(offset) = offset {
        place += &format!("+{offset:#x}");
    }
    if let Some(module) = module {
        place += &format!(" [{}]", clean(module));
    }
    if let Some(reason) = reason {
        place += &format!(" ({})", clean(reason));
    }
    place
}

/// The same of a row.
pub(super) fn location(row: &Location) -> String {
    let offset = row.symbol.as_ref().and(row.offset);
    place(&symbol(row), offset, row.module.as_deref(), row.reason.as_deref())
}

/// The function's name without offset; an unnamed location's raw address.
pub(super) fn symbol(row: &Location) -> String {
    match (&row.symbol, row.address.known()) {
        (None, Some(raw)) => Address::hex(raw),
        (name, _) => function(name.as_deref()),
    }
}

/// A function's name as one word.
pub(super) fn function(name: Option<&str>) -> String {
    match name {
        Some(name) => clean(name).replace(char::is_whitespace, "\u{fffd}"),
        None => "[unknown]".to_owned(),
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
        let all = Lost { recursion: 1, map_full: 2, map_busy: 3, samples: 4, stacks: 5, pcap: 6 };
        assert_eq!(
            losses(&all).unwrap(),
            "6 not located: 1 nested, 2 map full, 3 map busy; 4 samples lost, 5 stacks lost, \
             6 packets not captured"
        );
        let details = Lost { samples: 4, ..none };
        assert_eq!(losses(&details).unwrap(), "4 samples lost");
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
