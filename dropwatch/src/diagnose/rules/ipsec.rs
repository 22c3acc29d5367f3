//! IPsec refuses packets, or does not send them.
//!
//! Each cause has a counter of its own (`/proc/net/xfrm_stat`, Documentation/networking/xfrm_proc.rst). A
//! policy says which packets are to be protected, a state (security association) how. What comes in and
//! should have been protected is freed with XFRM_POLICY (`xfrm_policy_check` of whoever takes it); what
//! goes out and has no state goes to `dst_discard_out` (`make_blackhole`, net/xfrm/xfrm_policy.c).
//!
//! Which policy that is, the host is asked for a sampled packet.

use super::{Counts, Draft, Facts, Kept, Makes, Rule, Verdict, by_rate, matters};
use crate::{
    diagnose::{
        facts::{NetnsFacts, Rows},
        knowledge::{NOT_SPECIFIED, function_name},
    },
    report::{
        finding::Finding,
        flow::number_above_ip,
        object::Object,
        question::{Ask, Policy, PolicyDirection, Secured},
    },
};

/// A counter, and what it says of the packets.
struct Cause {
    counter: &'static str,
    says: &'static str,
    /// Whether a policy decided; else a state did.
    by_policy: bool,
}

const fn policy(counter: &'static str, says: &'static str) -> Cause {
    Cause { counter, says, by_policy: true }
}

const fn state(counter: &'static str, says: &'static str) -> Cause {
    Cause { counter, says, by_policy: false }
}

const IN: [Cause; 15] = [
    policy("Xfrm.InTmplMismatch", "they came without the protection that a policy asks for"),
    policy("Xfrm.InPolBlock", "a policy forbids them"),
    policy("Xfrm.InNoPols", "no policy lets them in"),
    policy("Xfrm.InPolError", "their policy cannot be applied"),
    state("Xfrm.InNoStates", "no state has their SPI and address"),
    state("Xfrm.InStateProtoError", "their state cannot read them (another key, or damage)"),
    state("Xfrm.InStateModeError", "their state has another mode"),
    state("Xfrm.InStateSeqError", "their sequence numbers are outside of the replay window"),
    state("Xfrm.InStateExpired", "their state has expired"),
    state("Xfrm.InStateMismatch", "their state is for another encapsulation"),
    state("Xfrm.InStateInvalid", "their state is not valid"),
    state("Xfrm.InHdrError", "their headers make no sense"),
    state("Xfrm.InBufferError", "there was no memory to take them apart"),
    state("Xfrm.InError", "an error that has no counter of its own"),
    state("Xfrm.FwdHdrError", "their headers make no sense to forward them by"),
];

const OUT: [Cause; 13] = [
    policy("Xfrm.OutNoStates", "there is no state (security association) for their policy"),
    policy("Xfrm.OutPolBlock", "a policy forbids them"),
    policy("Xfrm.OutPolDead", "their policy is being removed"),
    policy("Xfrm.OutPolError", "their policy cannot be applied"),
    policy("Xfrm.OutBundleGenError", "no way to send them could be made of their states"),
    policy("Xfrm.OutBundleCheckError", "the way to send them is not valid any more"),
    policy("Xfrm.AcquireError", "nobody is there to agree on keys for their policy"),
    state("Xfrm.OutStateProtoError", "their state cannot protect them"),
    state("Xfrm.OutStateModeError", "their state has a mode that does not suit them"),
    state("Xfrm.OutStateSeqError", "the sequence numbers of their state are used up"),
    state("Xfrm.OutStateExpired", "their state has expired"),
    state("Xfrm.OutStateInvalid", "their state is not valid"),
    state("Xfrm.OutError", "an error that has no counter of its own"),
];

/// The same counters, as rules list them.
const COUNTERS: &[&str] = &{
    let mut names = [""; IN.len() + OUT.len()];
    let mut n = 0;
    while n < IN.len() {
        names[n] = IN[n].counter;
        n += 1;
    }
    while n < names.len() {
        names[n] = OUT[n - IN.len()].counter;
        n += 1;
    }
    names
};

/// Where packets are freed that a state refuses, without a reason.
const INPUT: &[&str] = &["xfrm_input", "xfrm_input_resume", "xfrm4_rcv_encap", "xfrm6_rcv_encap"];
/// Where packets go that may not be sent.
const OUTPUT: &[&str] =
    &["dst_discard_out", "dst_discard", "xfrm_output_resume", "xfrm_output", "xfrm_output2"];
/// Who asks whether a policy lets in what came (`xfrm_policy_check` and its like), and frees it if not: the
/// whole of what older kernels say of it, which have no reasons.
const CHECKS: &[&str] = &[
    "ip_forward",
    "ip6_forward",
    "ip_protocol_deliver_rcu",
    "ip6_protocol_deliver_rcu",
    "icmp_rcv",
    "icmpv6_rcv",
    "raw_rcv",
    "rawv6_rcv",
    "tcp_v4_rcv",
    "tcp_v6_rcv",
    "__udp4_lib_rcv",
    "__udp6_lib_rcv",
    "udp_queue_rcv_one_skb",
    "udpv6_queue_rcv_one_skb",
];
/// What forwards has policies of its own.
const FORWARD: [&str; 2] = ["ip_forward", "ip6_forward"];

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "ipsec",
        severity: "warning, notice up to 10 a second",
        says: "IPsec refuses packets, or does not send them",
        rests_on: "`/proc/net/xfrm_stat`: one counter for each cause",
    }],
    counters: COUNTERS,
    counts: &[
        Counts::of(Kept::Netns(COUNTERS.split_at(IN.len()).0), &[], INPUT),
        Counts::of(Kept::Netns(COUNTERS.split_at(IN.len()).0), &["XFRM_POLICY"], &[]),
        Counts::of(Kept::Netns(COUNTERS.split_at(IN.len()).1), &["XFRM_POLICY"], &FORWARD),
        Counts::of(Kept::Netns(COUNTERS.split_at(IN.len()).1), &[], OUTPUT),
    ],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    let both = facts.namespaces().flat_map(|namespace| {
        [(&IN[..], true), (&OUT[..], false)].map(|(causes, came_in)| (namespace, causes, came_in))
    });
    let decided =
        both.map(|(namespace, causes, came_in)| refused(facts, namespace, causes, came_in));
    decided.filter_map(Verdict::of).collect()
}

fn refused(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    causes: &[Cause],
    came_in: bool,
) -> Result<Option<Finding>, Ask> {
    let mut counted: Vec<(&Cause, u64)> =
        causes.iter().map(|cause| (cause, namespace.delta(cause.counter))).collect();
    counted.retain(|(_, count)| *count > 0);
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let all = counted.iter().fold(0, |sum: u64, (_, count)| sum.saturating_add(*count));
    let Some(&(main, _)) = counted.first().filter(|_| matters(all, facts)) else { return Ok(None) };
    let rows = rows(facts, came_in, main.by_policy);
    let here = rows.within(namespace);
    let policy = match (main.by_policy, namespace.netns(), packet(&here, came_in)) {
        (true, Some(netns), Some(packet)) => facts.policy(netns.number(), packet)?.ok().flatten(),
        _ => None,
    };
    let (name, said) = (namespace.name(), facts.selected(all, &rows));
    let which = policy.as_ref().map(|policy| format!(": {}", shown(policy))).unwrap_or_default();
    let title = match came_in {
        true => format!("IPsec in {name} refused {said} packets: {}{which}", main.says),
        false => format!("IPsec in {name} did not send {said} packets: {}{which}", main.says),
    };
    let severity = by_rate(all, facts);
    let mut draft = Draft::new(facts, "ipsec", severity, main.counter, title).at(namespace);
    if !rows.is_empty() {
        draft = draft.explains(all.min(rows.count()), &rows);
    }
    for (cause, count) in &counted {
        draft = draft.counted(cause.counter, *count, "xfrm_stat");
    }
    let direction = packet(&here, came_in).map(|packet| packet.direction);
    draft = match (policy, direction) {
        (Some(policy), Some(direction)) => draft.names(Object::policy(&policy, direction)).run(
            &format!("ip xfrm policy get index {} dir {}", policy.index, direction.name()),
            "that policy; `tmpl` is the protection that it asks for",
        ),
        _ if main.by_policy => {
            draft.run("ip xfrm policy", "the policies; `tmpl` is the protection")
        }
        _ => draft,
    };
    let note = "the states (security associations), without their keys, and what each has refused: \
                an IKE program makes them, or `ip xfrm state add`; shows nothing as long as there are none";
    Ok(Some(draft.run("ip -s xfrm state list nokeys", note).done()))
}

fn rows<'a>(facts: &Facts<'a>, came_in: bool, by_policy: bool) -> Rows<'a> {
    if came_in {
        let mut rows = facts.rows(&["XFRM_POLICY"], &[]);
        if rows.is_empty() && by_policy {
            rows = facts.rows(&["XFRM_POLICY"], CHECKS);
        }
        rows.0.extend(facts.rows(&[NOT_SPECIFIED], INPUT).0);
        return rows;
    }
    let mut rows = facts.rows(&[NOT_SPECIFIED], OUTPUT);
    rows.0.extend(facts.rows(&["XFRM_POLICY"], &FORWARD).0);
    rows
}

/// The sampled packet to ask about.
fn packet(rows: &Rows<'_>, came_in: bool) -> Option<Secured> {
    let flow = rows.flows(1).into_iter().next()?;
    let forwards = |function: &str| FORWARD.contains(&function_name(function));
    let direction = match came_in {
        false => PolicyDirection::Out,
        true if rows.0.iter().any(|row| row.place.symbol.as_deref().is_some_and(forwards)) => {
            PolicyDirection::Forward
        }
        true => PolicyDirection::In,
    };
    Some(Secured {
        direction,
        protocol: number_above_ip(&flow)?,
        from: flow.src?,
        from_port: flow.src_port,
        to: flow.dst?,
        to_port: flow.dst_port,
    })
}

/// A policy, as `ip xfrm policy` begins it.
fn shown(policy: &Policy) -> String {
    let Policy { from, to, index, .. } = policy;
    format!("src {}/{} dst {}/{} (index {index})", from.0, from.1, to.0, to.1)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        finding::Severity,
        flow::Flow,
        question::{Answer, Question},
    };

    fn flow() -> Flow {
        Flow {
            protocol: Some("udp".into()),
            src: Some([10, 107, 0, 1].into()),
            src_port: Some(5555),
            dst: Some([10, 107, 0, 2].into()),
            dst_port: Some(9000),
            ..Flow::default()
        }
    }

    fn asked(direction: PolicyDirection) -> Question {
        Question::Policy(Secured {
            direction,
            protocol: 17,
            from: [10, 107, 0, 1].into(),
            from_port: Some(5555),
            to: [10, 107, 0, 2].into(),
            to_port: Some(9000),
        })
    }

    const POLICY: Policy = Policy {
        from: (std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 107, 0, 0)), 24),
        to: (std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 107, 0, 2)), 32),
        index: 8,
        plain: true,
        blocks: false,
    };

    fn came_in(function: &str) -> TestHost {
        TestHost::new()
            .row(50, function, "XFRM_POLICY")
            .flow(flow())
            .counted("Xfrm.InTmplMismatch", 50)
    }

    #[test]
    fn the_policy_of_what_came_in_unprotected_is_named() {
        let answer = Answer::Policy(Some(POLICY));
        let host = came_in("udp_queue_rcv_one_skb").answer(asked(PolicyDirection::In), answer);
        let found = host.run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "IPsec in gw refused 50 packets: they came without the protection that a policy asks \
             for: src 10.107.0.0/24 dst 10.107.0.2/32 (index 8)"
        );
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(finding.explains.map(|it| it.drops), Some(50));
        let commands: Vec<_> = finding.actions.iter().map(|it| it.command.as_str()).collect();
        assert_eq!(
            commands,
            [
                "ip netns exec gw ip xfrm policy get index 8 dir in",
                "ip netns exec gw ip -s xfrm state list nokeys"
            ]
        );
    }

    #[test]
    fn what_is_forwarded_has_policies_of_its_own() {
        let answer = Answer::Policy(Some(POLICY));
        let found = came_in("ip_forward").answer(asked(PolicyDirection::Forward), answer);
        let found = found.run(&RULE);
        assert!(found[0].actions[0].command.ends_with("index 8 dir fwd"), "{found:?}");
    }

    #[test]
    fn a_kernel_without_reasons_says_it_by_the_function() {
        let without_reason = |function, counter| {
            let answer = Answer::Policy(Some(POLICY));
            let host = TestHost::new().row(50, function, "").flow(flow()).counted(counter, 50);
            let found = host.answer(asked(PolicyDirection::In), answer).run(&RULE);
            (found[0].explains.map(|it| it.drops), found[0].title.ends_with("(index 8)"))
        };
        let counter = "Xfrm.InTmplMismatch";
        assert_eq!(without_reason("udp_queue_rcv_one_skb", counter), (Some(50), true));
        assert_eq!(without_reason("unix_stream_connect", counter), (None, false));
        let by_state = without_reason("udp_queue_rcv_one_skb", "Xfrm.InStateProtoError");
        assert_eq!(by_state, (None, false), "a state refuses before");
    }

    #[test]
    fn what_is_not_answered_names_no_policy() {
        let found = came_in("udp_queue_rcv_one_skb").run(&RULE);
        assert!(found[0].title.ends_with("that a policy asks for"), "{found:?}");
        assert_eq!(found[0].actions[0].command, "ip netns exec gw ip xfrm policy");
    }

    #[test]
    fn what_goes_out_without_a_state_is_not_sent() {
        let found = TestHost::new()
            .row(50, "dst_discard_out", "NOT_SPECIFIED")
            .flow(flow())
            .counted("Xfrm.OutNoStates", 50)
            .answer(asked(PolicyDirection::Out), Answer::Policy(Some(POLICY)))
            .run(&RULE);
        assert!(
            found[0].title.starts_with("IPsec in gw did not send 50 packets: there is no state"),
            "{found:?}"
        );
        assert_eq!(found[0].explains.map(|it| it.drops), Some(50));
    }

    #[test]
    fn a_state_that_refuses_is_a_matter_of_states() {
        let found = TestHost::new().counted("Xfrm.InStateProtoError", 50).run(&RULE);
        assert_eq!(found[0].explains, None, "no drop event of these is known");
        assert_eq!(found[0].actions[0].command, "ip netns exec gw ip -s xfrm state list nokeys");
    }

    #[test]
    fn without_its_counter_a_drop_is_not_ipsecs() {
        let other = TestHost::new().row(50, "dst_discard_out", "NOT_SPECIFIED");
        assert_eq!(other.counted("Xfrm.OutNoStates", 0).run(&RULE), []);
        assert_eq!(TestHost::new().counted("Xfrm.OutNoStates", 2).run(&RULE), [], "IKE begins");
    }
}
