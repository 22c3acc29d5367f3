//! A diagnosis, as reports and recordings hold it: what is wrong, what proves it, what to change.
//!
//! A finding never stands without evidence, and what it explains is never more than what was
//! counted.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use serde::{Deserialize, Serialize};

use super::{facts::Netns, number::share, object::Object, place::Place};

/// A cause of drops, or of losses that no drop event shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the rule that found it: `conntrack_table_full`.
    pub rule: String,
    pub severity: Severity,
    /// Where; null for the host as a whole, and where it is not known.
    pub netns: Option<Netns>,
    /// What it is about, besides the rule and the namespace: `TCP port 11`. The same for as long as the
    /// cause is, however much that does. Empty where there is nothing else, and in recordings of
    /// older versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// The cause in one line.
    pub title: String,
    /// What the verdict names: a rule, a route, a device, a socket; absent where it names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Box<Object>>,
    /// The drops of the report that it explains; null for losses that no drop event shows.
    pub explains: Option<Explains>,
    pub evidence: Vec<Evidence>,
    pub actions: Vec<Action>,
    /// Why there is no command for the network namespace that it is about; absent where commands
    /// can be run there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<Unreachable>,
    /// The rows among whose drops those are that it explains. For views of a live run; not part of a
    /// recording.
    #[serde(skip)]
    pub places: Vec<Place>,
}

/// A network namespace that no command can be printed for: without a proved way into it, a command
/// would change or show another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreachable {
    /// The namespace is proved to have ended before the report.
    pub ended: bool,
    /// Why no command can be printed, for people.
    pub why: String,
}

every! {
    /// How much a finding matters. The most severe is the least.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Severity {
        /// A limit of this host is reached, and what it refuses is lost although nothing is wrong with
        /// it. It goes on for as long as the load does.
        Critical,
        /// Packets are refused by a decision (a rule, a route, a filter) or because something is
        /// broken or missing. Right or wrong: somebody has to say.
        Warning,
        /// Small, or usual in small numbers; worth knowing when it is the largest part.
        Notice,
    }
}

/// Findings of one rule and severity that are summed instead of shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoreFindings {
    pub rule: String,
    pub severity: Severity,
    pub findings: u64,
    /// In how many namespaces they are; without those of no namespace that is known.
    pub namespaces: u64,
    /// Drops that they explain.
    pub drops: u64,
}

/// What of a finding decides whether it is shown.
#[derive(Clone, Copy, Debug)]
pub struct FindingKind<'a> {
    pub severity: Severity,
    pub rule: &'a str,
    pub netns: Option<&'a Netns>,
    pub drops: u64,
}

impl Finding {
    pub fn kind(&self) -> FindingKind<'_> {
        let drops = self.explains.map_or(0, |explains| explains.drops);
        let Self { severity, rule, netns, .. } = self;
        FindingKind { severity: *severity, rule, netns: netns.as_ref(), drops }
    }
}

/// Takes the findings out of `findings` that are beyond the first `most` of their rule and severity, and
/// sums them: one cause in hundreds of namespaces must not hide all others. The most severe sums first,
/// then those that explain the most.
pub fn sum_up<T>(
    findings: &mut Vec<T>,
    most: usize,
    kind: impl Fn(&T) -> FindingKind<'_>,
) -> Vec<MoreFindings> {
    let mut met: BTreeMap<(Severity, String), (usize, MoreFindings, BTreeSet<u32>)> =
        BTreeMap::new();
    findings.retain(|finding| {
        let FindingKind { severity, rule, netns, drops } = kind(finding);
        let (shown, more, namespaces) =
            met.entry((severity, rule.to_owned())).or_insert_with(|| {
                let (rule, none) = (rule.to_owned(), 0);
                let more =
                    MoreFindings { rule, severity, findings: none, namespaces: none, drops: none };
                (0, more, BTreeSet::new())
            });
        if *shown < most {
            *shown += 1;
            return true;
        }
        more.findings += 1;
        more.drops = more.drops.saturating_add(drops);
        namespaces.extend(netns.map(Netns::number));
        more.namespaces = namespaces.len() as u64;
        false
    });
    let more = met.into_values().map(|(_, more, _)| more);
    let mut more: Vec<MoreFindings> = more.filter(|more| more.findings > 0).collect();
    more.sort_by_key(|more| (more.severity, Reverse(more.drops)));
    more
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// Part of a report's drops.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explains {
    pub drops: u64,
    /// Part of the report's drops, as [`share`] rounds it.
    pub share: f64,
}

impl Explains {
    pub fn of(drops: u64, all: u64) -> Self {
        Self { drops, share: share(drops, all) }
    }
}

/// A number or setting that a finding rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub name: String,
    pub value: Value,
    /// Counted in the report's interval; else how things stand at its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delta: bool,
    /// Where it was read.
    pub source: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Number(u64),
    Text(String),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Something to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// For a shell, as root, in the namespaces that dropwatch itself was started in. Complete:
    /// nothing is to be filled in.
    pub command: String,
    /// What it does, and what it costs.
    pub note: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A severity, a rule, a namespace and drops.
    type OfKind = (usize, u8, u32, u64);

    fn kind(of: &(OfKind, String)) -> FindingKind<'_> {
        let ((severity, _, _, drops), rule) = of;
        let severity = Severity::ALL[severity % Severity::ALL.len()];
        FindingKind { severity, rule, netns: None, drops: *drops }
    }

    #[test]
    fn the_first_of_a_rule_are_whole_and_the_rest_one_sum() {
        let of = |at: u32| (at, Netns::new(None, at / 2));
        let mut findings: Vec<(u32, Netns)> = (0..300).map(of).collect();
        let more = sum_up(&mut findings, 5, |(at, netns)| FindingKind {
            severity: Severity::Warning,
            rule: if *at == 299 { "mtu" } else { "closed_port" },
            netns: Some(netns),
            drops: u64::from(1000 - at),
        });
        assert_eq!(findings, [0, 1, 2, 3, 4, 299].map(of));
        let [more] = &more[..] else { panic!("{more:?}") };
        let drops = (5..299).map(|at| 1000 - at).sum();
        assert_eq!((more.rule.as_str(), more.findings, more.drops), ("closed_port", 294, drops));
        assert_eq!(more.namespaces, 148, "the third has one that is whole, and one that is not");
    }

    proptest! {
        #[test]
        fn none_is_lost_and_no_rule_has_more_than_its_part(
            kinds in proptest::collection::vec((0..3_usize, 0..4_u8, any::<u32>(), 0..9_u64), 0..60),
            most in 0..6_usize,
        ) {
            let all: Vec<(OfKind, String)> =
                kinds.into_iter().map(|it| (it, format!("rule_{}", it.1))).collect();
            let mut shown = all.clone();
            let more = sum_up(&mut shown, most, kind);
            for severity in Severity::ALL {
                for rule in (0..4).map(|rule| format!("rule_{rule}")) {
                    let is_of = |it: &&(OfKind, String)| {
                        kind(it).severity == *severity && it.1 == rule
                    };
                    let of: Vec<_> = all.iter().filter(is_of).collect();
                    let whole: Vec<_> = shown.iter().filter(is_of).collect();
                    prop_assert_eq!(&whole[..], &of[..of.len().min(most)]);
                    let rest = more.iter().filter(|it| it.severity == *severity && it.rule == rule);
                    let rest: Vec<_> = rest.map(|it| (it.findings, it.drops)).collect();
                    let left = &of[of.len().min(most)..];
                    let sum = (left.len() as u64, left.iter().map(|it| it.0.3).sum::<u64>());
                    prop_assert_eq!(rest, if left.is_empty() { vec![] } else { vec![sum] });
                }
            }
            prop_assert!(more.is_sorted_by_key(|it| it.severity));
        }
    }
}
