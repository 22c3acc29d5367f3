//! Writes a finding, piece by piece.

use std::{borrow::Cow, fmt};

use crate::{
    diagnose::{
        facts::{Facts, NetnsFacts, Rows},
        knowledge,
    },
    report::{
        facts::Netns,
        finding::{Action, Evidence, Explains, Finding, Severity, Unreachable, Value},
        object::Object,
    },
};

/// Settings that all namespaces share, although they are below `net.`; they are set on the host.
/// (`net/core/sysctl_net_core.c`, `net/netfilter/nf_conntrack_standalone.c`, `net/core/neighbour.c`,
/// `net/ipv4/sysctl_net_ipv4.c`.)
pub const HOST_WIDE: &[&str] = &[
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_buckets",
    "net.core.netdev_max_backlog",
    "net.core.netdev_budget",
    "net.core.netdev_budget_usecs",
    "net.core.rmem_max",
    "net.core.rmem_default",
    "net.core.flow_limit_cpu_bitmap",
    "net.ipv4.udp_mem",
    "net.ipv4.tcp_mem",
    "net.ipv4.neigh.default.gc_thresh2",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.ipv6.neigh.default.gc_thresh2",
    "net.ipv6.neigh.default.gc_thresh3",
];

/// Most settings are kept as an `int`.
const MOST: u64 = i32::MAX as u64;

/// Whether a setting is one for the whole host.
pub fn is_host_wide(name: &str) -> bool {
    HOST_WIDE.contains(&name)
}

/// A finding in the making.
pub(super) struct Draft<'a> {
    facts: &'a Facts<'a>,
    namespace: Option<NetnsFacts<'a>>,
    /// What commands start with, so that they run in the right namespace, or why there are none.
    prefix: Result<&'a str, Unreachable>,
    finding: Finding,
}

impl<'a> Draft<'a> {
    /// Begins a finding of `rule` about the host as a whole. `subject` is [`Finding::subject`].
    pub(super) fn new(
        facts: &'a Facts<'a>,
        rule: &str,
        severity: Severity,
        subject: impl Into<String>,
        title: impl Into<String>,
    ) -> Self {
        debug_assert!(facts.rule().makes(rule), "the rule does not list {rule}");
        let finding = Finding {
            rule: rule.to_owned(),
            severity,
            netns: None,
            subject: subject.into(),
            title: title.into(),
            object: None,
            explains: None,
            evidence: Vec::new(),
            actions: Vec::new(),
            unreachable: None,
            places: Vec::new(),
        };
        Self { facts, namespace: None, prefix: facts.host_prefix(), finding }
    }

    /// Makes the finding one about this namespace, whose settings it quotes and in which its
    /// commands run.
    pub(super) fn at(self, namespace: NetnsFacts<'a>) -> Self {
        let prefix = self.facts.prefix_in(namespace);
        Self { namespace: Some(namespace), prefix, ..self.somewhere(namespace.netns()) }
    }

    /// Makes the finding one about a namespace that samples name, even if its counters could not be
    /// read; `None` where samples name none.
    pub(super) fn somewhere(mut self, netns: Option<&Netns>) -> Self {
        self.finding.netns = netns.cloned();
        self.prefix = self.facts.prefix(netns);
        self.namespace = netns.and_then(|netns| self.facts.namespace(netns.number()));
        self
    }

    /// Says what the verdict names, of a kind that the table in `carried.rs` lists for the rule.
    pub(super) fn names(mut self, object: Object) -> Self {
        self.finding.object = Some(Box::new(object));
        self
    }

    /// The same, where there is one.
    pub(super) fn names_any(self, object: Option<Object>) -> Self {
        match object {
            Some(object) => self.names(object),
            None => self,
        }
    }

    /// Sets how many of the drops of `rows` the finding explains.
    pub(super) fn explains(mut self, drops: u64, rows: &Rows<'_>) -> Self {
        self.finding.places = rows.0.iter().map(|row| row.place.clone()).collect();
        self.finding.explains = Some(Explains::of(drops, self.facts.report.drops));
        self
    }

    /// Adds as evidence how much something was counted in the interval. Where drops stand in for a
    /// counter, they are the evidence; a counter that nobody could read is none.
    pub(super) fn counted(self, name: &str, value: u64, source: &str) -> Self {
        let unread = self
            .namespace
            .filter(|namespace| !namespace.is_comparable() && self.facts.rule().asks_for(name));
        let Some(namespace) = unread else {
            return self.evidence(name, value.into(), true, source);
        };
        match namespace.proof(name).filter(|_| value > 0) {
            Some(proof) => self.evidence(proof.reason, value.into(), true, "kfree_skb"),
            None => self,
        }
    }

    /// Adds as evidence how much something was counted in the interval, unless that is nothing.
    pub(super) fn counted_too(self, name: &str, value: u64, source: &str) -> Self {
        if value > 0 { self.counted(name, value, source) } else { self }
    }

    /// Adds as evidence the value of something at the end of the interval.
    pub(super) fn state(self, name: &str, value: impl Into<Value>, source: &str) -> Self {
        self.evidence(name, value.into(), false, source)
    }

    /// Adds the value of a setting as evidence, where the host has it.
    pub(super) fn setting(self, name: &str) -> Self {
        match self.value_of(name) {
            Some(value) => {
                let value = value.parse().map_or_else(|_| Value::from(value), Value::Number);
                self.evidence(name, value, false, "sysctl")
            }
            None => self,
        }
    }

    /// Adds a command that gives a setting another value; `why` explains the value. What the change
    /// does and costs comes from the knowledge table.
    pub(super) fn set(self, name: &str, value: impl fmt::Display, why: &str) -> Self {
        let known = knowledge::knob(general(name).as_ref());
        let texts = known.into_iter().flat_map(|knob| {
            [Some(knob.effect.as_str()), knob.cost.as_deref()].into_iter().flatten()
        });
        let note: Vec<&str> =
            Some(why).filter(|why| !why.is_empty()).into_iter().chain(texts).collect();
        // A device's name may hold dots, which only the other notation keeps apart.
        let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
        let shown = if name.contains('/') { quote(&path).into_owned() } else { name.to_owned() };
        let prefix =
            if is_host_wide(name) { self.facts.host_prefix() } else { self.prefix.clone() };
        self.action(prefix, format_args!("sysctl -w {shown}={value}"), note.join("; "))
    }

    /// Twice the live value of a setting, of each of its numbers, and not less than `least`, which
    /// is what kernels start with. Nothing where the live value is not known.
    pub(super) fn double(self, name: &str, least: u64, why: &str) -> Self {
        let Some(live) = self.value_of(name) else { return self };
        let doubled = |number: &str| {
            let number: u64 = number.parse().ok()?;
            Some(number.saturating_mul(2).clamp(least, MOST).to_string())
        };
        let numbers: Option<Vec<String>> = live.split_whitespace().map(doubled).collect();
        match numbers {
            Some(numbers) => self.set(name, quote(&numbers.join(" ")), why),
            None => self,
        }
    }

    /// Adds a command for the namespace of the finding. It must be complete: nothing is filled in
    /// later.
    pub(super) fn run(self, command: &str, note: &str) -> Self {
        let prefix = self.prefix.clone();
        self.action(prefix, format_args!("{command}"), note.to_owned())
    }

    /// Adds a command for another namespace than that of the finding, if it can be run there.
    pub(super) fn run_in(self, namespace: NetnsFacts<'a>, command: &str, note: &str) -> Self {
        match self.facts.prefix(namespace.netns()) {
            Ok(prefix) => self.action(Ok(prefix), format_args!("{command}"), note.to_owned()),
            Err(_) => self,
        }
    }

    /// A command that asks about the machine as a whole, whatever the namespace. `ip netns exec` would
    /// even hide what it looks at: it mounts a `/sys` of its own, which has no control groups.
    pub(super) fn run_on_host(self, command: &str, note: &str) -> Self {
        let prefix = self.facts.host_prefix();
        self.action(prefix, format_args!("{command}"), note.to_owned())
    }

    /// Returns the value of a setting: that of the namespace, else that of the host.
    pub(super) fn value_of(&self, name: &str) -> Option<&'a str> {
        let inside = self.namespace.filter(|_| !is_host_wide(name));
        inside.and_then(|namespace| namespace.setting(name)).or_else(|| self.facts.setting(name))
    }

    /// Returns the finding. Where its namespace is out of reach it says so, even without any
    /// command.
    pub(super) fn done(mut self) -> Finding {
        if self.finding.netns.is_some()
            && let Err(unreachable) = self.prefix
        {
            // Its program went with it: no setting helps that, be it of the machine or not.
            if unreachable.ended {
                self.finding.actions.clear();
            }
            self.finding.unreachable = Some(unreachable);
        }
        self.finding
    }

    fn evidence(mut self, name: &str, value: Value, delta: bool, source: &str) -> Self {
        let (name, source) = (name.to_owned(), source.to_owned());
        self.finding.evidence.push(Evidence { name, value, delta, source });
        self
    }

    /// Adds `command` where it can be run as printed, else why it cannot.
    fn action(
        mut self,
        prefix: Result<&str, Unreachable>,
        command: fmt::Arguments<'_>,
        note: String,
    ) -> Self {
        match prefix {
            Ok(prefix) => {
                self.finding.actions.push(Action { command: format!("{prefix}{command}"), note });
            }
            Err(unreachable) => self.finding.unreachable = Some(unreachable),
        }
        self
    }
}

/// The name that the knowledge table has for a setting of one device:
/// `net/ipv4/conf/eth0/rp_filter` is `net.ipv4.conf.all.rp_filter`.
fn general(name: &str) -> Cow<'_, str> {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        ["net", family, kind @ ("conf" | "neigh"), _, setting] => {
            let all = if *kind == "conf" { "all" } else { "default" };
            Cow::Owned(format!("net.{family}.{kind}.{all}.{setting}"))
        }
        _ => Cow::Borrowed(name),
    }
}

/// `word` as a shell takes it for one word: names of devices and namespaces are anyone's choice.
pub(super) fn quote(word: &str) -> Cow<'_, str> {
    crate::report::shell::quote(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_devices_are_known_by_their_general_name() {
        assert_eq!(general("net/ipv4/conf/eth0.100/rp_filter"), "net.ipv4.conf.all.rp_filter");
        assert_eq!(
            general("net/ipv6/neigh/eth0/unres_qlen_bytes"),
            "net.ipv6.neigh.default.unres_qlen_bytes"
        );
        assert_eq!(general("net.core.rmem_max"), "net.core.rmem_max");
    }
}
