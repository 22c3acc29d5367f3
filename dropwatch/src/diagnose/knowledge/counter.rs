//! What is known about a counter of the kernel, and the ways to write its name.

use serde::{Deserialize, Serialize};

use super::{
    KnowledgeTable,
    answer::{Counted, Explanation},
    entry::DropEntry,
    pasted,
    rule::RuleEntry,
};

/// Where counters come from that are not in `/proc`, and what shows them.
const SHOWN_BY: [(&str, &str); 4] = [
    ("link.", "ip -s -s link show dev DEV"),
    ("driver.", "ethtool -S DEV"),
    ("conntrack.", "conntrack -S"),
    ("Xfrm.", "cat /proc/net/xfrm_stat"),
];

/// What one counter counts, or some that count alike.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CounterEntry {
    /// Its names, with their group: `Udp.InErrors`, `softnet.dropped`, `link.rx_missed_errors`.
    pub names: Vec<String>,
    /// What programs call it that show it under another name.
    #[serde(default, skip_serializing)]
    pub(super) aliases: Vec<String>,
    pub meaning: String,
    /// Rules that rest on it, or that find what raises it.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Drops that raise it, as a report names them; none where no event goes with it.
    #[serde(default)]
    pub drops: Vec<String>,
    /// Files of the kernel's sources and documents that it rests on.
    pub source: Vec<String>,
}

impl CounterEntry {
    /// Which of its names `typed` is, in any spelling.
    pub(super) fn named(&self, typed: &str) -> Vec<&str> {
        let names = self.names.iter().map(String::as_str);
        if self.aliases.iter().any(|alias| same_letters(alias, typed)) {
            return match self.names.iter().find(|name| is_counter(typed, name)) {
                Some(name) => vec![name],
                None => names.collect(),
            };
        }
        names.filter(|name| is_counter(typed, name)).collect()
    }

    /// The command that shows counters of that group, where no file of `/proc` does.
    pub fn shown_by(name: &str) -> Option<&'static str> {
        SHOWN_BY.iter().find(|(group, _)| name.starts_with(group)).map(|(_, command)| *command)
    }
}

impl KnowledgeTable {
    pub(super) fn is_counter(&self, name: &str) -> bool {
        self.counters.iter().any(|counter| !counter.named(name).is_empty())
    }

    /// What a counter counts, and the rules and drops that go with it.
    pub(super) fn find_counter(&self, typed: &str) -> Option<Explanation<'_>> {
        let name = &bare(pasted::without_values(typed));
        let about = |counter: &'_ CounterEntry| {
            let names: Vec<String> = counter.named(name).into_iter().map(str::to_owned).collect();
            (!names.is_empty()).then_some(names)
        };
        let counted = self.counters.iter().filter_map(|counter| {
            let names = about(counter)?;
            let rules: Vec<&RuleEntry> =
                self.rules.iter().filter(|rule| counter.rules.contains(&rule.rule)).collect();
            let drops: Vec<&DropEntry> =
                counter.drops.iter().filter_map(|drops| self.drops(drops)).collect();
            let mut answer = match rules.len() {
                0..=2 => Explanation::new(rules, Vec::new(), Vec::new(), drops),
                _ => Explanation::new(Vec::new(), Vec::new(), rules, drops),
            }
            .unwrap_or_default();
            answer.counters = vec![Counted { names, known: Some(counter) }];
            Some(answer)
        });
        counted.reduce(Explanation::and)
    }
}

/// A counter without the file or the command that shows it:
/// `/sys/class/net/eth0/statistics/rx_missed_errors`, `conntrack -S drop`, `ethtool -S eth0 x`.
fn bare(typed: &str) -> String {
    if let Some((_, name)) = typed.rsplit_once("/statistics/") {
        return format!("link.{name}");
    }
    match typed.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["conntrack", "-S", name] => format!("conntrack.{name}"),
        ["ethtool", "-S", _, name] => format!("driver.{name}"),
        _ => typed.to_owned(),
    }
}

/// Whether `typed` is a way to write the name of a counter: `Udp.InErrors`, `UdpInErrors`,
/// `Udp: InErrors`, `udp_in_errors`, and without its group `InErrors`; of `link.rx_missed_errors`
/// also `rx_missed`, as `ip` has it.
pub(super) fn is_counter(typed: &str, name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let short = name.strip_prefix("link.").and_then(|last| last.strip_suffix("_errors"));
    let is_short = || short.is_some_and(|it| it.contains('_') && same_letters(typed, it));
    same_letters(typed, name) || same_letters(typed, last) || is_short()
}

/// Whether two names have the same letters and digits, whatever the case and what stands between.
pub(super) fn same_letters(one: &str, other: &str) -> bool {
    fn letters(text: &str) -> impl Iterator<Item = u8> {
        text.bytes().filter(u8::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase())
    }
    letters(one).next().is_some() && letters(one).eq(letters(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_known_in_any_spelling() {
        for typed in ["TcpExt.ListenOverflows", "TcpExtListenOverflows", "ListenOverflows"] {
            assert!(is_counter(typed, "TcpExt.ListenOverflows"), "{typed}");
        }
        for typed in ["udp:RcvbufErrors", "Udp: RcvbufErrors", "UDP_RCVBUF_ERRORS"] {
            assert!(is_counter(typed, "Udp.RcvbufErrors"), "{typed}");
        }
        for (typed, name) in [
            ("RcvbufErrors", "Udp.InErrors"),
            ("Udp6InErrors", "Udp.InErrors"),
            ("Errors", "Udp.InErrors"),
            ("", "Udp.InErrors"),
            ("..", "Udp.InErrors"),
        ] {
            assert!(!is_counter(typed, name), "{typed}");
        }
    }
}
