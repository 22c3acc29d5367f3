//! Verdicts about what connection tracking, queues of the packet filter and IPsec do to packets, which is
//! often dropped elsewhere.

use dropwatch::report::finding::{Finding, Value};
use testbed::{
    drops::{
        Cause,
        network::{CLIENT, SERVER},
        queued::Queued,
        secured::Secured,
        translated::{FewPorts, Keeps, Moved, OutOfWindow},
    },
    netns::Netns,
    unproved::unproved,
};

use crate::{harness::Run, reach::LONG};

/// What is found in these namespaces while so many packets are sent.
fn found_of(cause: &dyn Cause, others: &[&Netns], packets: u64) -> Vec<Finding> {
    let mut watched = vec![cause.netns()];
    watched.extend(others);
    let run = Run::within(&watched, &["-i", LONG]);
    assert_eq!(cause.send(packets).unwrap(), packets);
    run.stop().reports.into_iter().flat_map(|report| report.findings).collect()
}

fn named<'a>(findings: &'a [Finding], rule: &str) -> Option<&'a Finding> {
    findings.iter().find(|finding| finding.rule == rule)
}

fn counted(finding: &Finding, name: &str) -> Option<u64> {
    let evidence = finding.evidence.iter().find(|evidence| evidence.name == name)?;
    match evidence.value {
        Value::Number(number) => Some(number),
        _ => None,
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn ports_that_are_all_taken_are_told_from_a_collision() {
    let cause = FewPorts::new(Keeps::IptablesLegacy).unwrap();
    let findings = found_of(&cause, &[], 40);
    let failed = cause.failed().unwrap();
    assert_eq!(failed, 40 - FewPorts::PORTS, "all but those that found one");
    let finding = named(&findings, "conntrack_insert_failed").expect("found");
    let says = format!("found no free port for {failed} packets of new connections to {SERVER}:9");
    assert!(finding.title.ends_with(&says), "{finding:?}");
    assert_eq!(counted(finding, "insert_failed"), Some(failed));
    assert!(finding.actions[0].command.contains("40000-40004"), "{finding:?}");
}

/// The router drops the packets of a connection that is older than the rule; where the rule is what sends
/// them there, that nobody is there is all that is wrong.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_entry_is_stale_where_no_rule_would_make_it() {
    let findings = found_of(&Moved::new().unwrap(), &[], 20);
    let stale = named(&findings, "conntrack_stale").expect("found");
    assert_eq!(stale.explains.map(|explains| explains.drops), Some(20), "{findings:?}");
    let findings = found_of(&Moved::down().unwrap(), &[], 20);
    assert!(named(&findings, "neighbour_failed").is_some(), "{findings:?}");
    assert_eq!(named(&findings, "conntrack_stale"), None);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn answers_that_pass_untranslated_are_invalid_to_the_router() {
    let cause = OutOfWindow::new().unwrap();
    let before = cause.invalid().unwrap();
    let findings = found_of(&cause, &[cause.client()], 20);
    let finding = named(&findings, "conntrack_invalid").expect("found");
    assert_eq!(finding.explains.map(|explains| explains.drops), Some(20), "{finding:?}");
    assert_eq!(counted(finding, "invalid"), Some(cause.invalid().unwrap() - before));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_queue_that_is_full_is_told_from_one_that_nobody_hears() {
    let cause = Queued::full().unwrap();
    let findings = found_of(&cause, &[], 60);
    let lost = cause.dropped().unwrap();
    assert_eq!(lost, 60 - u64::from(Queued::ROOM));
    let finding = named(&findings, "packet_queue_full").expect("found");
    assert_eq!(counted(finding, "queue_dropped"), Some(lost));
    assert_eq!(finding.explains.map(|explains| explains.drops), Some(lost), "once, not twice");
    assert_eq!(named(&findings, "queue_without_listener"), None);

    let findings = found_of(&Queued::unheard().unwrap(), &[], 60);
    let finding = named(&findings, "queue_without_listener").expect("found");
    let says = format!("nobody listens at queue {} (NFQUEUE)", Queued::QUEUE);
    assert!(finding.title.starts_with(&says), "{finding:?}");
    assert_eq!(finding.explains.map(|explains| explains.drops), Some(60));
    assert_eq!(named(&findings, "packet_queue_full"), None);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_policy_that_asks_for_protection_is_named() {
    let causes = [
        (Secured::demanded as fn() -> anyhow::Result<Secured>, "InTmplMismatch", "dir in"),
        (Secured::without_state, "OutNoStates", "dir out"),
    ];
    for (make, counter, direction) in causes {
        let cause = make().unwrap();
        let Ok(0) = cause.counted(&format!("Xfrm{counter}")) else {
            return unproved("this kernel does not count for IPsec");
        };
        let findings = found_of(&cause, &[], 50);
        let finding = named(&findings, "ipsec").expect("found");
        let all = cause.counted(&format!("Xfrm{counter}")).unwrap();
        assert_eq!(all, 50, "the kernel counts each");
        assert_eq!(counted(finding, &format!("Xfrm.{counter}")), Some(all));
        assert_eq!(finding.explains.map(|explains| explains.drops), Some(all), "{finding:?}");
        assert!(finding.title.contains(&format!("src {CLIENT}/32 dst {SERVER}/32")), "{finding:?}");
        assert!(finding.actions[0].command.ends_with(direction), "{finding:?}");
    }
}
