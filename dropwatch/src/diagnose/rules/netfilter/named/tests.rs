use std::time::Duration;

use super::{
    super::{super::testing::*, RULE},
    *,
};
use crate::report::{
    facts::Callers,
    filter_rules::{Gap, Hook, Hooks, Part, Uncounted},
    flow::Flow,
};

const MINUTE: Duration = Duration::from_secs(60);

fn reading(drops: u64, counting: &[Dropper], silent: &[Dropper]) -> FilterReading {
    FilterReading {
        since: Since::Read(MINUTE),
        drops,
        is_fresh: true,
        is_late: false,
        age: Duration::ZERO,
        took: Duration::ZERO,
        ahead: 0,
        is_first: false,
        earlier: Vec::new(),
        counting: counting.to_vec(),
        more: 0,
        silent: silent.to_vec(),
        more_silent: 0,
        changed: false,
        unsure: Vec::new(),
        gaps: Vec::new(),
    }
}

fn at(hook: Hook) -> Hooks {
    let mut hooks = Hooks::default();
    hooks.insert(hook);
    hooks
}

fn iptables(position: u64, counted: u64) -> Dropper {
    Dropper {
        keeper: Keeper::Iptables,
        program: "iptables-legacy".to_owned(),
        family: Family::Ip,
        table: "filter".to_owned(),
        chain: "INPUT".to_owned(),
        part: Part::Rule(position),
        text: "-p udp -m set --match-set bad src -j DROP".to_owned(),
        comment: None,
        hooks: at(Hook::Input),
        by_map: false,
        elements: Vec::new(),
        counter: None,
        uncounted: Uncounted::NoCounter,
        counted: Some(counted),
        key: (0, 0),
        ever: counted,
    }
}

fn nft(part: Part, text: &str) -> Dropper {
    Dropper {
        keeper: Keeper::Nft,
        program: "nft".to_owned(),
        family: Family::Inet,
        table: "fw".to_owned(),
        chain: "in".to_owned(),
        part,
        text: text.to_owned(),
        counted: None,
        ..iptables(0, 0)
    }
}

/// Drops at a hook.
fn host(drops: u64, caller: &str) -> TestHost {
    TestHost::new().row(drops, "nf_hook_slow", "NETFILTER_DROP").callers(&[caller])
}

fn run(drops: u64, reading: FilterReading) -> Vec<Finding> {
    host(drops, "ip_local_deliver").filter(reading).run(&RULE)
}

fn shown(finding: &Finding, name: &str) -> String {
    match finding.evidence.iter().find(|it| it.name == name).map(|it| &it.value) {
        Some(Value::Text(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        None => panic!("no {name}: {finding:?}"),
    }
}

fn parts(found: &[Finding]) -> Vec<(&str, u64)> {
    let part = |it: &'_ Finding| it.explains.map_or(0, |explains| explains.drops);
    found.iter().map(|it| (it.subject.as_str(), part(it))).collect()
}

#[test]
fn a_rule_is_named_with_its_counter_and_what_it_explains() {
    let found = run(777, reading(777, &[iptables(3, 777)], &[]));
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert_eq!(finding.title, "an iptables rule drops packets in gw: filter INPUT, rule 3");
    assert_eq!(shown(finding, "by its own counter"), "777");
    assert_eq!(shown(finding, "explains"), "all 777 drops at INPUT in gw");
    assert_eq!(shown(finding, "sets"), "bad");
    let command = "ip netns exec gw iptables-legacy -t filter -nvL INPUT 3";
    assert_eq!(finding.actions[0].command, command);
}

#[test]
fn parts_add_up_and_what_is_missing_is_said() {
    let rules = [iptables(3, 600), iptables(7, 100)];
    let found = run(777, reading(777, &rules, &[]));
    let subject = |rule| format!("an iptables rule filter INPUT, rule {rule}");
    assert_eq!(parts(&found), [(&*subject(3), 600), (&*subject(7), 100)]);
    assert_eq!(
        shown(&found[0], "explains"),
        "600 of 777 drops at INPUT in gw, 77 are not explained by rules that count"
    );
    let found = run(700, reading(700, &rules, &[]));
    assert_eq!(shown(&found[1], "explains"), "100 of 700 drops at INPUT in gw, rules explain all");
}

#[test]
fn what_does_not_count_is_named_where_nothing_else_is_left() {
    let policy = nft(Part::Policy, "");
    let found = run(777, reading(777, &[iptables(3, 700)], std::slice::from_ref(&policy)));
    let names =
        [("an iptables rule filter INPUT, rule 3", 700), ("an nftables policy inet fw in", 77)];
    assert_eq!(parts(&found), names);
    assert_eq!(
        found[1].actions[0].command,
        "ip netns exec gw nft -a list chain inet fw in | grep 'policy drop'"
    );
    let two = [policy, nft(Part::Rule(8), "udp dport 6002 drop")];
    let found = run(777, reading(777, &[], &two));
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert_eq!(finding.title, "a packet filter rule or policy drops packets at INPUT in gw");
    let candidates = "inet fw in (policy); inet fw in, handle 8 (udp dport 6002 drop)";
    assert_eq!(shown(finding, "candidates"), candidates);
}

/// A rule of nftables that decides by a map, of whose elements these drop.
fn mapped(text: &str, elements: &[&str]) -> Dropper {
    let elements = elements.iter().map(|&element| element.to_owned()).collect();
    Dropper { by_map: true, elements, ..nft(Part::Rule(11), text) }
}

fn to_port(port: u16) -> Flow {
    Flow { protocol: Some("udp".into()), dst_port: Some(port), ..Flow::default() }
}

#[test]
fn the_element_of_a_map_is_named() {
    let map = mapped("udp dport vmap @vm", &["53", "6005"]);
    let host = |port| host(50, "ip_local_deliver").flow(to_port(port));
    let found = host(6005).filter(reading(50, &[], std::slice::from_ref(&map))).run(&RULE);
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert_eq!(finding.title, "an nftables verdict map drops packets in gw: inet fw in, handle 11");
    assert_eq!(shown(finding, "element"), "6005");
    assert_eq!(shown(finding, "sets"), "vm");
    assert_eq!(finding.actions[1].command, "ip netns exec gw nft list map inet fw vm");
    // None of its elements can have done it.
    assert_eq!(host(6006).filter(reading(50, &[], std::slice::from_ref(&map))).run(&RULE), []);
    let two = [map, nft(Part::Rule(12), "udp dport 6000-6010 drop")];
    let found = host(6005).filter(reading(50, &[], &two)).run(&RULE);
    let candidates = "inet fw in, handle 11 (udp dport vmap @vm), element 6005; inet fw in, handle \
                      12 (udp dport 6000-6010 drop)";
    assert_eq!(shown(&found[0], "candidates"), candidates);
}

#[test]
fn a_named_counter_is_shown_with_its_rule() {
    let rule = Dropper {
        counter: Some("refused".to_owned()),
        counted: Some(777),
        ..nft(Part::Rule(8), "udp dport 6002 counter name \"refused\" drop")
    };
    let found = run(777, reading(777, &[rule], &[]));
    assert_eq!(shown(&found[0], "by its own counter"), "777");
    assert_eq!(found[0].actions[1].command, "ip netns exec gw nft list counter inet fw refused");
}

#[test]
fn rules_of_arp_are_shown_by_their_line() {
    let rule = Dropper {
        keeper: Keeper::Arptables,
        program: "arptables-legacy".to_owned(),
        family: Family::Arp,
        text: "-j DROP -i * -o * -s 1.2.3.4".to_owned(),
        ..iptables(3, 777)
    };
    let ip = iptables(1, 5);
    let found = host(777, "arp_rcv").filter(reading(777, &[rule, ip], &[])).run(&RULE);
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert_eq!(finding.title, "an arptables rule drops packets in gw: filter INPUT, rule 3");
    let command = "ip netns exec gw arptables-legacy -t filter -vnL INPUT | sed -n 4p";
    assert_eq!(finding.actions[0].command, command);
}

/// Names are anyone's choice, and nft takes its arguments for one text.
#[test]
fn names_that_nft_would_take_apart_are_in_no_command() {
    let rule = Dropper { table: "x; flush ruleset".to_owned(), ..nft(Part::Rule(8), "drop") };
    let found = run(777, reading(777, &[], &[rule]));
    assert_eq!(found[0].actions[0].command, "ip netns exec gw nft -a list ruleset");
}

#[test]
fn samples_leave_out_rules_that_cannot_match() {
    let rules = [
        nft(Part::Rule(8), "udp dport 6002 drop"),
        nft(Part::Rule(9), "udp dport 53 drop"),
        nft(Part::Rule(10), "tcp dport 6002 drop"),
        nft(Part::Rule(11), "ip saddr 192.0.2.9 drop"),
        Dropper { hooks: at(Hook::Forward), ..nft(Part::Policy, "") },
        Dropper { family: Family::Ip6, ..nft(Part::Policy, "") },
    ];
    let flow = Flow {
        protocol: Some("udp".into()),
        src: Some([198, 18, 1, 2].into()),
        dst_port: Some(6002),
        ..Flow::default()
    };
    let found = host(50, "ip_local_deliver").flow(flow).filter(reading(50, &[], &rules)).run(&RULE);
    assert_eq!(parts(&found), [("an nftables rule inet fw in, handle 8", 50)]);
    let expected = "ip netns exec gw nft -a list chain inet fw in | grep '# handle 8$'";
    assert_eq!(found[0].actions[0].command, expected);
}

#[test]
fn samples_leave_out_rules_of_iptables_that_cannot_match() {
    let rule = |position, text: &str| Dropper {
        text: text.to_owned(),
        counted: None,
        ever: 40,
        ..iptables(position, 0)
    };
    let rules = [
        rule(1, "-s 198.18.1.2/32 -p udp -m udp --dport 6002 -j DROP"),
        rule(2, "-p udp -m udp --dport 53 -j DROP"),
        rule(3, "-p tcp -m tcp ! --dport 53 -j DROP"),
        rule(4, "! -p tcp -m comment --comment \"not \\\" -p tcp\" -m udp ! --dport 6002 -j DROP"),
        rule(5, "-s 198.18.1.3/32 -j DROP"),
    ];
    let flow = Flow { src: Some([198, 18, 1, 2].into()), ..to_port(6002) };
    let reading = FilterReading { changed: true, unsure: rules.to_vec(), ..reading(50, &[], &[]) };
    let found = host(50, "ip_local_deliver").flow(flow).filter(reading).run(&RULE);
    let candidates = shown(&found[0], "candidates");
    let named: Vec<_> = candidates.split("; ").map(|it| &it[..20]).collect();
    assert_eq!(named, ["filter INPUT, rule 1", "filter INPUT, rule 4"], "{candidates}");
}

#[test]
fn rules_that_changed_are_candidates_and_nothing_is_left_by_elimination() {
    let changed = |counting: &[Dropper], unsure: &[Dropper], silent: &[Dropper]| FilterReading {
        changed: true,
        unsure: unsure.to_vec(),
        ..reading(777, counting, silent)
    };
    let came = Dropper { counted: None, ever: 900, ..iptables(4, 0) };
    let policy = nft(Part::Policy, "");
    let found = run(777, changed(&[iptables(3, 700)], &[came], std::slice::from_ref(&policy)));
    let unknown = "a packet filter rule or policy at INPUT";
    assert_eq!(parts(&found), [("an iptables rule filter INPUT, rule 3", 700), (unknown, 77)]);
    assert_eq!(
        shown(&found[0], "explains"),
        "700 of 777 drops at INPUT in gw; rules were changed meanwhile"
    );
    assert_eq!(
        shown(&found[1], "rules"),
        "were changed during this report; they are counted from now on"
    );
    let candidates = shown(&found[1], "candidates");
    assert!(candidates.contains("rule 4") && candidates.contains("whose counter stands at 900"));
    // One that is gone may have dropped them.
    assert_eq!(parts(&run(777, changed(&[], &[], &[policy]))), [(unknown, 777)]);
    assert_eq!(parts(&run(777, changed(&[], &[], &[]))), [(unknown, 777)]);
    // What explains all is not doubted, and more than all is no counter's.
    let all = run(777, changed(&[iptables(3, 777)], &[], &[]));
    assert_eq!(parts(&all), [("an iptables rule filter INPUT, rule 3", 777)]);
    assert_eq!(parts(&run(777, changed(&[iptables(3, 778)], &[], &[]))), [(unknown, 777)]);
}

#[test]
fn what_does_not_count_is_said_to_lack_what_it_lacks() {
    let lacks = |uncounted| {
        let rule = Dropper { uncounted, ..nft(Part::Rule(8), "counter udp dport 6002 drop") };
        let found = run(777, reading(777, &[], &[rule]));
        (shown(&found[0], "by elimination"), found[0].actions[0].note.clone())
    };
    let (why, note) = lacks(Uncounted::BeforeMatch);
    assert!(why.starts_with("its counter stands before its match"), "{why}");
    assert!(format!("{note:?}").contains("behind its match"), "{note:?}");
    assert!(lacks(Uncounted::Shared).0.starts_with("its counter is others', too"));
    assert!(lacks(Uncounted::NoCounter).0.starts_with("it has no counter"));
}

/// Of a hundred, some are of another family.
#[test]
fn rules_of_the_rarest_hook_count_too() {
    let path = |caller: &str| Callers { callers: vec![Some(caller.to_owned())] };
    let arp = Dropper {
        family: Family::Arp,
        counted: Some(3),
        ..nft(Part::Rule(2), "arp operation request counter drop")
    };
    let rules = [iptables(3, 97), Dropper { table: "ar".to_owned(), ..arp }];
    let mut host = TestHost::new().row(100, "nft_do_chain", "NETFILTER_DROP");
    host = host.paths(&[path("ip_local_deliver")]);
    host = host.details(|details| {
        details.values.paths =
            [(path("ip_local_deliver"), 97), (path("arp_rcv"), 3)].into_iter().collect();
    });
    let found = host.filter(reading(100, &rules, &[])).run(&RULE);
    let names = [
        ("an iptables rule filter INPUT, rule 3", 97),
        ("an nftables rule arp ar in, handle 2", 3),
    ];
    assert_eq!(parts(&found), names);
    assert_eq!(shown(&found[1], "explains"), "3 of 100 drops at INPUT in gw, rules explain all");
}

#[test]
fn where_no_rule_can_have_done_it_none_is_blamed() {
    assert_eq!(run(777, reading(777, &[], &[])), []);
    let elsewhere = Dropper { hooks: at(Hook::Output), ..iptables(1, 777) };
    assert_eq!(run(777, reading(777, &[elsewhere], &[])), []);
    let gap = Gap { family: None, why: "nft is not installed".to_owned() };
    let found = run(777, FilterReading { gaps: vec![gap], ..reading(777, &[], &[]) });
    assert_eq!(found[0].title, "a packet filter rule or policy drops packets at INPUT in gw");
    assert_eq!(shown(&found[0], "not known"), "nft is not installed");
    let of_arp = Gap { family: Some(Family::Arp), why: String::new() };
    assert_eq!(run(777, FilterReading { gaps: vec![of_arp], ..reading(777, &[], &[]) }), []);
}

#[test]
fn a_counter_that_nobody_read_before_is_called_that() {
    let ever = |drops, counting: &[Dropper]| FilterReading {
        since: Since::Ever,
        ..reading(drops, counting, &[])
    };
    let whole = |found: &[Finding]| shown(&found[0], "its whole counter");
    let found = run(777, ever(777, &[iptables(3, 9_000), iptables(4, 777)]));
    assert_eq!(parts(&found), [("an iptables rule filter INPUT, rule 4", 777)]);
    assert_eq!(whole(&found), "777, just as many as were dropped; it was not read before");
    let found = run(777, ever(777, &[iptables(3, 9_000)]));
    assert_eq!(whole(&found), "9000; no other there has ever dropped a packet");
    let found = run(777, ever(777, &[iptables(3, 9_000), iptables(4, 800)]));
    assert_eq!(parts(&found), [("a packet filter rule or policy at INPUT", 777)]);
    assert!(shown(&found[0], "candidates").contains("rule 4"));
    let found = run(777, ever(777, &[iptables(3, 700)]));
    assert_eq!(parts(&found), [("a packet filter rule or policy at INPUT", 777)]);
}

/// Rules may be restored with counters into a namespace that is new.
#[test]
fn counters_of_a_new_namespace_have_to_come_to_its_drops() {
    let born = |counting: &[Dropper], silent: &[Dropper]| FilterReading {
        since: Since::Birth,
        ..reading(777, counting, silent)
    };
    let found = run(777, born(&[iptables(3, 700), iptables(4, 77)], &[]));
    assert_eq!(shown(&found[0], "by its own counter"), "700");
    let unknown = [("a packet filter rule or policy at INPUT", 777)];
    assert_eq!(parts(&run(777, born(&[iptables(3, 700), iptables(4, 700)], &[]))), unknown);
    assert_eq!(parts(&run(777, born(&[iptables(3, 50)], &[nft(Part::Policy, "")]))), unknown);
}

#[test]
fn what_was_dropped_before_the_first_reading_is_not_missed() {
    let first = |counting: &[Dropper], earlier: &[Dropper]| FilterReading {
        is_first: true,
        earlier: earlier.to_vec(),
        ..reading(777, counting, &[])
    };
    let idle = |position, ever| Dropper { ever, ..iptables(position, 0) };
    let found = run(777, first(&[], &[idle(3, 777)]));
    assert_eq!(parts(&found), [("an iptables rule filter INPUT, rule 3", 777)]);
    let found = run(777, first(&[Dropper { ever: 900, ..iptables(3, 500) }], &[]));
    assert_eq!(parts(&found), [("an iptables rule filter INPUT, rule 3", 777)]);
    assert!(shown(&found[0], "its whole counter").starts_with("900; no other"));
    let found = run(777, first(&[], &[idle(3, 777), idle(4, 1_000)]));
    assert_eq!(parts(&found), [("a packet filter rule or policy at INPUT", 777)]);
    let found = run(777, first(&[], &[idle(3, 700)]));
    assert_eq!(parts(&found), [("a packet filter rule or policy at INPUT", 777)]);
    let late = FilterReading { is_first: false, ..first(&[], &[idle(3, 777)]) };
    assert_eq!(run(777, late), []);
}

#[test]
fn between_two_readings_the_last_one_tells() {
    let old = |counting: &[Dropper]| FilterReading {
        is_fresh: false,
        age: Duration::from_secs(5),
        ..reading(2_000, counting, &[])
    };
    let found = run(50, old(&[iptables(3, 2_000)]));
    assert_eq!(parts(&found), [("an iptables rule filter INPUT, rule 3", 50)]);
    assert_eq!(
        shown(&found[0], "by its own counter"),
        "2000 packets in 60 s, up to 5 s ago, when rules were read last"
    );
    let found = run(50, old(&[]));
    assert_eq!(parts(&found), [("a packet filter rule or policy at INPUT", 50)]);
}

#[test]
fn what_comes_late_is_about_the_drops_before() {
    let late =
        FilterReading { is_fresh: false, is_late: true, ..reading(777, &[iptables(3, 777)], &[]) };
    let found = TestHost::new().filter(late).run(&RULE);
    assert_eq!(parts(&found), [("an iptables rule filter INPUT, rule 3", 0)]);
    assert_eq!(shown(&found[0], "explains"), "all 777 drops in gw");
}

#[test]
fn what_was_dropped_while_rules_were_read_is_not_missed() {
    let took = Duration::from_secs(1);
    let found = run(6_000, FilterReading { took, ..reading(6_000, &[iptables(3, 5_950)], &[]) });
    assert_eq!(
        shown(&found[0], "explains"),
        "5950 of 6000 drops at INPUT in gw; the counters were read a moment apart"
    );
    // The first of two readings came after more drops than its report has.
    let found = run(31, FilterReading { ahead: 8, ..reading(31, &[iptables(3, 23)], &[]) });
    let expected = "23 of 31 drops at INPUT in gw; the counters were read a moment apart";
    assert_eq!(shown(&found[0], "explains"), expected);
}

#[test]
fn bridged_packets_are_told_apart() {
    let policy = Dropper { part: Part::Policy, hooks: at(Hook::Forward), ..iptables(0, 50) };
    let bridge = Dropper { family: Family::Bridge, ..nft(Part::Policy, "") };
    let found = host(50, "br_nf_forward_ip")
        .filter(reading(50, &[Dropper { text: String::new(), ..policy }], &[bridge]))
        .run(&RULE);
    assert_eq!(parts(&found), [("an iptables policy filter INPUT", 50)]);
    let commands: Vec<_> = found[0].actions.iter().map(|it| it.command.as_str()).collect();
    assert_eq!(
        commands,
        [
            "ip netns exec gw iptables-legacy -t filter -nvL INPUT | head -n 1",
            "ip netns exec gw sysctl -w net.bridge.bridge-nf-call-iptables=0"
        ]
    );
}
