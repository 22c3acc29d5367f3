//! Rules that are changed while dropwatch runs, with counters that stay: what each has dropped is told,
//! or that it is not known.

use std::process::Command;

use dropwatch::report::finding::{Finding, Value};
use testbed::{command::output, netns::Netns, unproved::unproved};

use super::{
    DATAGRAMS, NFT, PORT, assert_counted, assert_names, counter, dropped, evidence, found, only,
    send, shown, with_rules,
};

fn sh(netns: &Netns, command: &str) -> String {
    output(netns.command("sh").args(["-c", command])).unwrap()
}

fn text<'a>(finding: &'a Finding, name: &str) -> &'a str {
    let Value::Text(text) = evidence(finding, name) else { panic!("{finding:?}") };
    text
}

fn restores() -> bool {
    output(Command::new("iptables-legacy-restore").arg("--version")).is_ok()
}

/// The finding names no rule, and says why.
fn assert_changed(finding: &Finding) {
    assert!(finding.title.contains("rule or policy drops packets"), "{finding:?}");
    assert!(text(finding, "rules").starts_with("were changed during this report"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_reloaded_ruleset_of_nftables_blames_no_counter_of_before() {
    let rule =
        "add rule inet fw in udp dport 6001 counter drop; add rule inet fw in udp dport 6002 drop'";
    let netns = with_rules(&format!("{NFT}{rule}"));
    send(&netns, 6001, 200);
    let counted = "nft list chain inet fw in | grep 6001 | grep -o 'packets.*'";
    let findings = found(&netns, || {
        let edit = "(echo flush ruleset; nft list ruleset | \
                    sed 's/^.*udp dport 6001/tcp dport 22 accept\\n&/') | nft -f -";
        sh(&netns, edit);
        send(&netns, PORT, 40);
    });
    assert_eq!(counter(&netns, counted), 200, "it kept its counter");
    let finding = only(&findings);
    assert_changed(finding);
    assert_eq!(finding.explains.unwrap().drops, 40);
    let candidates = text(finding, "candidates");
    assert!(candidates.contains("6002") && !candidates.contains("6001"), "{candidates}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_edited_rule_of_iptables_takes_no_drops_from_its_neighbour() {
    if !restores() {
        return unproved("iptables-legacy-restore is not installed");
    }
    let netns = with_rules(
        "iptables-legacy -w -A INPUT -p udp --dport 6001 -j DROP
         iptables-legacy -w -A INPUT -p udp --dport 6002 -j DROP",
    );
    send(&netns, 6001, 200);
    let findings = found(&netns, || {
        let edit = "iptables-legacy-save -c | sed s/6001/6009/ | iptables-legacy-restore -w -c";
        sh(&netns, edit);
        dropped(&netns, DATAGRAMS, "iptables-legacy -w -nvxL INPUT 2");
    });
    assert_eq!(counter(&netns, "iptables-legacy -w -nvxL INPUT 1"), 200, "it kept its counter");
    let finding = only(&findings);
    assert_names(finding, &netns, "an iptables rule", "filter INPUT, rule 2");
    assert_counted(finding);
}

/// One kept what it had counted, one has another's number, and one is new with a number of its own.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn rules_of_iptables_that_change_places_are_not_taken_for_each_other() {
    if !restores() {
        return unproved("iptables-legacy-restore is not installed");
    }
    let restore = |rules: &str| {
        let rules = format!("*filter\\n:INPUT ACCEPT [0:0]\\n{rules}COMMIT\\n");
        format!("printf '{rules}' | iptables-legacy-restore -w -c")
    };
    let rule = |packets: u64, rule: &str| {
        format!("[{packets}:50000] -A INPUT -p udp -m udp --dport {rule} -j DROP\\n")
    };
    let first = restore(&(rule(1000, "6002") + &rule(40, "6001")));
    let comment = "6002 -m comment --comment x";
    let then = restore(&(rule(40, "6001") + &rule(1000, comment) + &rule(60, "6009")));
    let netns = with_rules(&first);
    let findings = found(&netns, || {
        send(&netns, PORT, 50);
        sh(&netns, &then);
        send(&netns, PORT, 50);
    });
    assert_eq!(counter(&netns, "iptables-legacy -w -nvxL INPUT 2"), 1050);
    let finding = only(&findings);
    assert_changed(finding);
    assert_eq!(finding.explains.unwrap().drops, 100);
    assert!(text(finding, "candidates").contains("whose counter stands at 1050"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_rule_that_is_put_in_again_with_a_number_has_not_counted_it() {
    let rules = "add rule inet fw in udp dport 6001 counter packets 500 bytes 5000 drop; \
                 add rule inet fw in udp dport 6002 drop'";
    let netns = with_rules(&format!("{NFT}{rules}"));
    let findings = found(&netns, || {
        send(&netns, PORT, 80);
        sh(
            &netns,
            "nft 'flush chain inet fw in; \
             add rule inet fw in udp dport 6001 counter packets 560 bytes 1000 drop; \
             add rule inet fw in udp dport 6002 drop'",
        );
        send(&netns, PORT, 40);
    });
    let finding = only(&findings);
    assert_changed(finding);
    assert_eq!(finding.explains.unwrap().drops, 120);
    assert!(!text(finding, "candidates").contains("6001"), "{finding:?}");
}

/// What stands in a comment is no rule, whatever it looks like, and hides none.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_comment_with_line_ends_forges_no_rule() {
    let netns = with_rules(
        "iptables-legacy -w -A INPUT -p udp --dport 6002 -m comment --comment \
         \"$(printf 'a\\n[0:0] -A INPUT -p tcp -j DROP\\nCOMMIT\\n#')\" -j DROP
         iptables-legacy -w -A INPUT -p udp --dport 6003 -j DROP",
    );
    let findings = found(&netns, || {
        send(&netns, 6003, 70);
        dropped(&netns, 140, "iptables-legacy -w -nvxL INPUT 1");
    });
    let mut found: Vec<(&str, u64)> = findings
        .iter()
        .map(|it| (it.title.rsplit(": ").next().unwrap(), it.explains.unwrap().drops))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [("filter INPUT, rule 1", 140), ("filter INPUT, rule 2", 70)]);
    let second = findings.iter().find(|it| it.title.ends_with("rule 2")).unwrap();
    assert!(text(second, "explains").ends_with("rules explain all"), "{second:?}");
    assert!(shown(second).contains("6003"), "{second:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_counter_before_the_match_is_not_called_missing() {
    let netns = with_rules(&format!("{NFT}add rule inet fw in counter udp dport 6002 drop'"));
    let findings = found(&netns, || {
        send(&netns, 6004, 20);
        send(&netns, PORT, DATAGRAMS);
    });
    let finding = findings.iter().find(|it| it.rule == "netfilter_rule").expect("a rule");
    let counted = counter(&netns, "nft list chain inet fw in | grep 6002 | grep -o 'packets.*'");
    assert!(counted >= DATAGRAMS + 20, "what its match let pass, too: {counted}");
    let elimination = text(finding, "by elimination");
    assert!(elimination.starts_with("its counter stands before its match"), "{elimination}");
    assert_eq!(finding.explains.unwrap().drops, DATAGRAMS);
}
