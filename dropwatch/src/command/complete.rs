//! What values can be, for the completions of shells. Needs no privileges; with them it knows more.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use anyhow::anyhow;

use crate::{
    cli::CompletedKind,
    diagnose::knowledge::{self, KnowledgeTable},
    exit::Failure,
    kernel::{HostRoot, Namespaces, names::reasons},
    report::protocol,
    sink::output::ended_by_reader,
};

/// Prints all values of `kind`, one a line.
///
/// # Errors
/// When they cannot be printed.
pub fn print(kind: CompletedKind) -> Result<(), Failure> {
    let table =
        knowledge::table().map_err(|error| anyhow!("the knowledge table is damaged: {error}"))?;
    let mut page = Vec::new();
    for value in values(kind, table, &HostRoot::default()).into_iter().filter(|it| is_word(it)) {
        page.extend_from_slice(value.as_bytes());
        page.push(b'\n');
    }
    ended_by_reader(io::stdout().lock().write_all(&page)).map(drop)
}

fn values(kind: CompletedKind, table: &KnowledgeTable, root: &HostRoot) -> BTreeSet<String> {
    let functions = || table.functions().map(str::to_owned);
    let explained = || table.entries.iter().flat_map(|entry| entry.reasons.iter().cloned());
    match kind {
        CompletedKind::Reason => match reasons(root) {
            // A kernel without any, or one that does not show them to this user.
            none if none.is_empty() => explained().collect(),
            reasons => reasons.into_iter().collect(),
        },
        CompletedKind::Symbol => functions().collect(),
        CompletedKind::Netns => Namespaces::new(root).names().into_iter().collect(),
        CompletedKind::Iface => Namespaces::new(root).interfaces(&[]).names,
        CompletedKind::Proto => protocol::names().map(str::to_owned).collect(),
        CompletedKind::Topic => table.names().into_iter().collect(),
    }
}

/// Whether every shell takes `value` for a word as it is. Anyone who may make an interface chooses
/// its name, and bash expands what it is given as completions.
fn is_word(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.:/@+-".contains(c);
    value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && value.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::processes::fixture::FakeHost;

    #[test]
    fn what_a_shell_could_run_is_no_word() {
        for value in ["NO_SOCKET", "eth0.100", "docker/1f-a", "vrf:red", "0x88cc", "_start"] {
            assert!(is_word(value), "{value}");
        }
        for value in ["", "$(id)", "`id`", "a b", "a;b", "-rf", "a\nb", "a'b", "a\\b", "a*", "~x"] {
            assert!(!is_word(value), "{value}");
        }
    }

    #[test]
    fn a_bare_host_has_what_is_known_of_all() {
        let (host, table) = (FakeHost::new(), knowledge::table().unwrap());
        let has = |kind, value: &str| values(kind, table, &host.root()).contains(value);
        assert!(
            has(CompletedKind::Reason, "NO_SOCKET") && !has(CompletedKind::Reason, "nf_hook_slow")
        );
        for topic in ["NO_SOCKET", "nf_hook_slow", "conntrack_table_full", "net.core.somaxconn"] {
            assert!(has(CompletedKind::Topic, topic), "{topic}");
        }
        assert!(has(CompletedKind::Symbol, "nf_hook_slow") && has(CompletedKind::Proto, "icmpv6"));
        assert!(values(CompletedKind::Netns, table, &host.root()).len() <= 1);
    }

    #[test]
    fn namespaces_are_those_with_a_name() {
        let host = FakeHost::new();
        host.link("run/netns/gw", "/proc/self/ns/net");
        host.link("proc/self/ns/net", "/proc/self/ns/net");
        let netns = values(CompletedKind::Netns, knowledge::table().unwrap(), &host.root());
        assert!(netns.contains("gw"), "{netns:?}");
    }
}
