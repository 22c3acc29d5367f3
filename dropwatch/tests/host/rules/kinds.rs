//! Named counters, maps of verdicts, tables and families: each is told apart.

use std::process::Command;

use dropwatch::report::finding::{Finding, Value};
use testbed::{
    command::output,
    drops::{Cause, filter::Questions, ruled::Ruled},
    netns::Netns,
    unproved::unproved,
};

use super::{
    DATAGRAMS, NFT, PORT, assert_counted, assert_names, counter, dropped, evidence, found, only,
    send, shown, with_rules,
};

/// Runs one of the finding's commands as printed; what it shows.
fn shown_by(finding: &Finding, command: usize) -> String {
    output(Command::new("sh").args(["-c", &finding.actions[command].command])).unwrap()
}

fn handle(finding: &Finding) -> String {
    let shown = shown(finding);
    shown.trim().rsplit(' ').next().unwrap().to_owned()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_named_counter_is_its_rules_own() {
    let rules = "add counter inet fw refused; \
                 add rule inet fw in udp dport 6002 counter name refused drop'";
    let netns = with_rules(&format!("{NFT}{rules}"));
    let counted = "nft list counter inet fw refused | grep -o 'packets.*'";
    let findings = found(&netns, || dropped(&netns, DATAGRAMS, counted));
    let finding = only(&findings);
    let place = format!("inet fw in, handle {}", handle(finding));
    assert_names(finding, &netns, "an nftables rule", &place);
    assert_counted(finding);
    assert_eq!(*evidence(finding, "counter"), "refused".into());
    assert!(shown_by(finding, 1).contains("packets 777"), "{finding:?}");
}

/// What it counts is nobody's own, so samples have to tell which of the two it was.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_named_counter_of_two_rules_is_no_ones() {
    let rules = "add counter inet fw refused; \
                 add rule inet fw in udp dport 6003 counter name refused drop; \
                 add rule inet fw in udp dport 6002 counter name refused drop'";
    let netns = with_rules(&format!("{NFT}{rules}"));
    let findings = found(&netns, || send(&netns, PORT, DATAGRAMS));
    let finding = only(&findings);
    evidence(finding, "by elimination");
    assert!(shown(finding).contains("6002"), "{finding:?}");
}

fn assert_by_element(finding: &Finding, netns: &Netns) {
    let place = format!("inet fw in, handle {}", handle(finding));
    assert_names(finding, netns, "an nftables verdict map", &place);
    assert_eq!(*evidence(finding, "element"), "6002".into(), "{finding:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_element_of_a_map_within_a_rule_is_named() {
    let rule = "add rule inet fw in udp dport vmap { 54 : accept, 6002 : drop, 6003 : drop }'";
    let netns = with_rules(&format!("{NFT}{rule}"));
    let findings = found(&netns, || send(&netns, PORT, DATAGRAMS));
    assert_by_element(only(&findings), &netns);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_element_of_a_map_with_a_name_is_named() {
    let rules = "add map inet fw ports { type inet_service : verdict; }; \
                 add element inet fw ports { 54 : accept, 6002 : drop, 6003 : drop }; \
                 add rule inet fw in udp dport vmap @ports'";
    let netns = with_rules(&format!("{NFT}{rules}"));
    let findings = found(&netns, || send(&netns, PORT, DATAGRAMS));
    let finding = only(&findings);
    assert_by_element(finding, &netns);
    assert_eq!(*evidence(finding, "sets"), "ports".into());
    assert!(shown_by(finding, 1).contains("6002 : drop"), "{finding:?}");

    // One none of whose elements drops is passed over for a rule that does.
    output(netns.command("nft").arg("delete element inet fw ports { 6002, 6003 }")).unwrap();
    output(netns.command("nft").arg("add rule inet fw in udp dport 6000-6010 drop")).unwrap();
    let findings = found(&netns, || send(&netns, PORT, DATAGRAMS));
    let finding = only(&findings);
    assert!(finding.title.starts_with("an nftables rule drops"), "{finding:?}");
    assert!(shown(finding).contains("6000-6010"), "{finding:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_tables_of_iptables_are_told_apart() {
    let netns = with_rules("");
    for (table, chain, port) in
        [("raw", "PREROUTING", 6001), ("mangle", "INPUT", 6002), ("security", "INPUT", 6003)]
    {
        let rule = format!("-w -t {table} -A {chain} -p udp --dport {port} -j DROP");
        if output(netns.command("iptables-legacy").args(rule.split(' '))).is_err() {
            return unproved("iptables has no table `security` here");
        }
    }
    let findings = found(&netns, || {
        send(&netns, 6001, 300);
        send(&netns, 6003, 200);
        dropped(&netns, 100, "iptables-legacy -w -t mangle -nvxL INPUT 1");
    });
    let mut parts: Vec<(&str, u64)> = findings
        .iter()
        .map(|it| (it.title.rsplit(": ").next().unwrap(), it.explains.unwrap().drops))
        .collect();
    parts.sort_unstable();
    let expected = [
        ("mangle INPUT, rule 1", 100),
        ("raw PREROUTING, rule 1", 300),
        ("security INPUT, rule 1", 200),
    ];
    assert_eq!(parts, expected, "{findings:?}");
    for finding in &findings {
        assert!(shown(finding).contains("dpt:600"), "{finding:?}");
    }
}

/// Has a rule of nft drop packets: what its own counter says, and the family and table of the finding.
fn of_family(cause: &impl Cause, chain: &str) {
    let netns = cause.netns();
    let findings = found(netns, || {
        cause.send(DATAGRAMS).unwrap();
    });
    let finding = only(&findings);
    let counted = counter(netns, &format!("nft list chain {chain} | grep -o 'packets.*'"));
    assert_eq!(counted, DATAGRAMS);
    let place = format!("{chain}, handle {}", handle(finding));
    assert_names(finding, netns, "an nftables rule", &place);
    assert_eq!(*evidence(finding, "by its own counter"), DATAGRAMS.into(), "{finding:?}");
    let Value::Text(explains) = evidence(finding, "explains") else { panic!("{finding:?}") };
    assert!(explains.starts_with(&format!("all {DATAGRAMS} drops at ")), "{explains}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_rule_of_bridges_is_named_with_its_family() {
    match Ruled::bridge_by_nft() {
        Ok(cause) => of_family(&cause, "bridge t c"),
        Err(error) => unproved(&format!("nft has no family of bridges here: {error}")),
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_rule_of_a_device_is_named_with_its_family() {
    match Ruled::ingress_by_nft() {
        Ok(cause) => of_family(&cause, "netdev t c"),
        Err(error) => unproved(&format!("nft has no family of devices here: {error}")),
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_rule_of_arp_is_named_with_its_family() {
    match Questions::by_nft() {
        Ok(cause) => of_family(&cause, "arp t c"),
        Err(error) => unproved(&format!("nft has no family of ARP here: {error}")),
    }
}

/// Of the packets that are dropped at one place, few are of this family.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_rule_of_arp_is_named_beside_one_of_ip() {
    let Ok(cause) = Questions::by_nft() else {
        return unproved("nft has no family of ARP here");
    };
    let netns = cause.netns();
    let rules = "add table ip u; add chain ip u in { type filter hook input priority 0; }; \
                 add rule ip u in udp dport 6002 counter drop";
    output(netns.command("nft").arg(rules)).unwrap();
    let findings = found(netns, || {
        cause.send(30).unwrap();
        dropped(netns, DATAGRAMS, "nft list chain ip u in | grep -o 'packets.*'");
    });
    assert_eq!(counter(netns, "nft list chain arp t c | grep -o 'packets.*'"), 30);
    for (place, drops) in [("arp t c, handle ", 30), ("ip u in, handle ", DATAGRAMS)] {
        let finding = findings.iter().find(|it| it.title.contains(place)).expect(place);
        assert_eq!(finding.explains.unwrap().drops, drops, "{finding:?}");
        assert_eq!(*evidence(finding, "by its own counter"), drops.into(), "{finding:?}");
        let Value::Text(explains) = evidence(finding, "explains") else { panic!("{finding:?}") };
        assert!(explains.ends_with("rules explain all"), "{explains}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_rule_of_arptables_is_named() {
    let Ok(cause) = Questions::by_arptables() else {
        return unproved("arptables-legacy is not installed, or this kernel has no tables of ARP");
    };
    let findings = found(cause.netns(), || {
        cause.send(DATAGRAMS).unwrap();
    });
    let finding = only(&findings);
    assert_names(finding, cause.netns(), "an arptables rule", "filter INPUT, rule 2");
    assert_eq!(*evidence(finding, "by its own counter"), DATAGRAMS.into(), "{finding:?}");
    let shown = shown(finding);
    assert!(shown.contains("198.18.9.9") && shown.contains("pcnt=777"), "{shown}");
}
