//! Which elements of a map of verdicts sampled packets may have matched.

use std::{collections::BTreeSet, net::IpAddr, ops::RangeInclusive};

use crate::diagnose::facts::SeenValues;

/// What a rule looks up in its map: `ip daddr . udp dport vmap …` is `["daddr", "dport"]`. Empty where that is
/// not known.
pub(super) fn selectors(text: &str) -> Vec<&str> {
    let Some((before, _)) = text.split_once(" vmap ") else { return Vec::new() };
    let mut words = before.rsplit(' ').filter(|word| !word.is_empty());
    let mut found = Vec::new();
    while let Some(field) = words.next() {
        found.insert(0, field);
        // Its protocol, and a point before it if another one stands there.
        if words.next().is_none() || words.next() != Some(".") {
            return found;
        }
    }
    Vec::new()
}

/// Whether a key may be that of a sampled packet, as far as ports and addresses tell.
pub(super) fn may_be(selectors: &[&str], key: &str, seen: &SeenValues<'_>) -> bool {
    let parts: Vec<&str> = key.split(" . ").collect();
    if parts.len() != selectors.len() {
        return true;
    }
    selectors.iter().zip(parts).all(|(field, part)| match *field {
        "dport" => {
            let ports = range(part);
            seen.ports.is_empty()
                || ports.is_none_or(|ports| seen.ports.iter().any(|port| ports.contains(port)))
        }
        "saddr" => is_among(part, &seen.sources),
        "daddr" => is_among(part, &seen.destinations),
        _ => true,
    })
}

/// `80` or `80-90`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

/// Whether an address is among those that were seen, if it is one and any was.
pub(super) fn is_among(text: &str, seen: &BTreeSet<IpAddr>) -> bool {
    seen.is_empty() || text.parse().map_or(true, |address| seen.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rule_looks_up_stands_before_its_map() {
        assert_eq!(selectors("udp dport vmap @vm"), ["dport"]);
        assert_eq!(selectors("iif lo ip daddr . udp dport vmap { 1 : drop }"), ["daddr", "dport"]);
        assert_eq!(selectors("iifname vmap @vm"), ["iifname"]);
        assert_eq!(selectors("udp dport 9 drop"), [""; 0]);
    }

    #[test]
    fn keys_of_other_packets_are_left_out() {
        let seen = SeenValues {
            ports: [6005].into(),
            destinations: [[10, 0, 0, 1].into()].into(),
            ..SeenValues::default()
        };
        for (selectors, key, may) in [
            (&["dport"][..], "6005", true),
            (&["dport"], "6000-6010", true),
            (&["dport"], "53", false),
            (&["dport"], "domain", true),
            (&["sport"], "53", true),
            (&["daddr", "dport"], "10.0.0.1 . 6005", true),
            (&["daddr", "dport"], "10.0.0.2 . 6005", false),
            (&["daddr"], "10.0.0.0/24", true),
            (&["saddr"], "10.0.0.9", true),
            (&[], "53", true),
        ] {
            assert_eq!(may_be(selectors, key, &seen), may, "{selectors:?} {key}");
        }
    }
}
