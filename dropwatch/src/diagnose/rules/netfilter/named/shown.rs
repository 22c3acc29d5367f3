//! A rule or policy in words, the commands that show it, and what its text says that it matches.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr};

use super::{
    super::{super::quote, NFT_RULES},
    MOST_LISTED, Proof,
    elements::is_among,
};
use crate::{
    diagnose::facts::Rows,
    report::filter_rules::{Dropper, Family, Keeper, Part, Uncounted, is_word},
};

/// `an iptables rule`, `an nftables policy`.
pub(super) fn whose(dropper: &Dropper) -> String {
    let program = match (dropper.keeper, dropper.family) {
        (Keeper::Iptables, Family::Ip6) => "ip6tables",
        (Keeper::Iptables, _) => "iptables",
        (Keeper::Arptables, _) => "arptables",
        (Keeper::Nft, _) => "nftables",
    };
    let what = match dropper.part {
        Part::Policy => "policy",
        Part::Rule(_) if dropper.by_map => "verdict map",
        Part::Rule(_) => "rule",
    };
    format!("an {program} {what}")
}

/// `filter INPUT, rule 3`; `inet fw in, handle 8`.
pub(super) fn place(dropper: &Dropper) -> String {
    let Dropper { table, chain, .. } = dropper;
    let place = match dropper.keeper {
        Keeper::Nft => format!("{} {table} {chain}", dropper.family.name()),
        Keeper::Iptables | Keeper::Arptables => format!("{table} {chain}"),
    };
    match (dropper.keeper, dropper.part) {
        (_, Part::Policy) | (Keeper::Nft, Part::Rule(0)) => place,
        (Keeper::Nft, Part::Rule(handle)) => format!("{place}, handle {handle}"),
        (_, Part::Rule(position)) => format!("{place}, rule {position}"),
    }
}

pub(super) fn describe(dropper: &Dropper, elements: &[&str]) -> String {
    let mut text = place(dropper);
    match dropper.part {
        Part::Policy => text.push_str(" (policy)"),
        Part::Rule(_) => _ = write!(text, " ({})", dropper.text),
    }
    if !elements.is_empty() {
        let shown = elements.len().min(MOST_LISTED);
        let _ = write!(text, ", element {}", elements[..shown].join(" or "));
    }
    match dropper.counted {
        Some(_) => _ = write!(text, ", {} packets in all its life", dropper.ever),
        None if dropper.ever > 0 => _ = write!(text, ", whose counter stands at {}", dropper.ever),
        None => {}
    }
    text
}

/// Why it does not count what it drops.
pub(super) fn lack(uncounted: Uncounted) -> &'static str {
    match uncounted {
        Uncounted::NoCounter => "it has no counter",
        Uncounted::BeforeMatch => {
            "its counter stands before its match, and counts more than it drops"
        }
        Uncounted::Shared => "its counter is others', too",
    }
}

/// The command that shows it, and nothing else.
pub(super) fn command(dropper: &Dropper) -> String {
    let Dropper { program, family, table, chain, .. } = dropper;
    if dropper.keeper == Keeper::Nft && !(is_word(table) && is_word(chain)) {
        return NFT_RULES.to_owned();
    }
    let (table, chain) = (quote(table), quote(chain));
    match (dropper.keeper, dropper.part) {
        (Keeper::Iptables, Part::Rule(position)) => {
            format!("{program} -t {table} -nvL {chain} {position}")
        }
        (Keeper::Iptables, Part::Policy) => {
            format!("{program} -t {table} -nvL {chain} | head -n 1")
        }
        // It takes no position: the line of the chain comes first.
        (Keeper::Arptables, part) => {
            let line = match part {
                Part::Rule(position) => position.saturating_add(1),
                Part::Policy => 1,
            };
            format!("{program} -t {table} -vnL {chain} | sed -n {line}p")
        }
        (Keeper::Nft, part) => {
            let list = format!("nft -a list chain {} {table} {chain}", family.name());
            match part {
                Part::Rule(0) => list,
                Part::Rule(handle) => format!("{list} | grep '# handle {handle}$'"),
                Part::Policy => format!("{list} | grep 'policy drop'"),
            }
        }
    }
}

/// What shows the counter or the map by name that a rule of nftables has, and what to look for.
pub(super) fn object(dropper: &Dropper) -> Option<(String, &'static str)> {
    let Dropper { keeper, family, table, text, .. } = dropper;
    let map = || {
        let mut words = text.split(' ').skip_while(|word| *word != "vmap");
        words.nth(1)?.strip_prefix('@').filter(|_| dropper.by_map)
    };
    let (kind, name, note) = match &dropper.counter {
        Some(counter) => ("counter", counter.as_str(), "its counter, which no other rule has"),
        None => ("map", map()?, "the elements: the one with `drop` does it"),
    };
    let is_plain = *keeper == Keeper::Nft && is_word(table) && is_word(name);
    is_plain.then(|| (format!("nft list {kind} {} {table} {name}", family.name()), note))
}

pub(super) fn shows(dropper: &Dropper, proof: &Proof) -> &'static str {
    match (dropper.part, proof) {
        (Part::Policy, Proof::Elimination) => "shows it; packets that no rule decides on end there",
        (Part::Policy, _) => "shows it with its counter; packets that no rule decides on end there",
        (Part::Rule(_), Proof::Elimination) if dropper.by_map => {
            "shows it; an element of its map drops"
        }
        (Part::Rule(_), Proof::Elimination) => match dropper.uncounted {
            Uncounted::NoCounter => "shows it; with `counter` it would count",
            Uncounted::BeforeMatch => "shows it; with `counter` behind its match it would count",
            Uncounted::Shared => "shows it; with a `counter` of its own it would count",
        },
        (Part::Rule(_), _) => "shows it with its counter",
    }
}

/// The setting that has bridged packets asked for by rules of IP (net/bridge/br_netfilter_hooks.c).
pub(super) fn bridge_setting(family: Family) -> Option<&'static str> {
    match family {
        Family::Ip | Family::Inet => Some("net.bridge.bridge-nf-call-iptables"),
        Family::Ip6 => Some("net.bridge.bridge-nf-call-ip6tables"),
        Family::Arp | Family::Bridge | Family::Netdev => None,
    }
}

/// The sets and maps that a rule looks addresses or ports up in.
pub(super) fn sets(text: &str) -> Vec<&str> {
    let mut words = text.split(' ');
    let mut sets = Vec::new();
    while let Some(word) = words.next() {
        match (word, word.strip_prefix('@')) {
            ("--match-set", _) => sets.extend(words.next()),
            (_, Some(set)) if !set.contains(',') => sets.push(set),
            _ => {}
        }
    }
    sets
}

/// Whether a rule may match any of the sampled packets, as far as a port, an address or a protocol tells.
/// What is quoted, as comments are, matches nothing.
pub(super) fn may_match(text: &str, rows: &Rows<'_>) -> bool {
    let text = text.replace("\\\"", "");
    let outside = text.split('"').step_by(2).flat_map(|text| text.split(' '));
    let words: Vec<&str> = outside.filter(|word| !word.is_empty()).collect();
    let seen = rows.seen();
    let has = |name: &str| seen.protocols.is_empty() || seen.protocols.contains(name);
    let is_port = |port: &str| {
        seen.ports.is_empty() || port.parse().map_or(true, |port: u16| seen.ports.contains(&port))
    };
    let is_host = |address: &str, all: &BTreeSet<IpAddr>| {
        let end = ["/32", "/128"].iter().find_map(|end| address.strip_suffix(end));
        is_among(end.unwrap_or(address), all)
    };
    // Of a rule of iptables, a word before says that it matches all others.
    let inner = words.windows(3).all(|words| match words {
        [protocol @ ("tcp" | "udp"), "dport", port] => has(protocol) && is_port(port),
        ["ip" | "ip6", "saddr", address] => is_among(address, &seen.sources),
        ["ip" | "ip6", "daddr", address] => is_among(address, &seen.destinations),
        ["!", ..] => true,
        [_, "-p", protocol @ ("tcp" | "udp")] => has(protocol),
        [_, "--dport", port] => is_port(port),
        [_, "-s", address] => is_host(address, &seen.sources),
        [_, "-d", address] => is_host(address, &seen.destinations),
        _ => true,
    });
    let first = match &words[..] {
        ["-p", protocol @ ("tcp" | "udp"), ..] => has(protocol),
        ["-s", address, ..] => is_host(address, &seen.sources),
        ["-d", address, ..] => is_host(address, &seen.destinations),
        _ => true,
    };
    inner && first
}
