//! Packets that came in by another interface than the way back to their source leads out of.
//!
//! `__fib_validate_source` (net/ipv4/fib_frontend.c) looks up the route to the source: in strict
//! mode it has to lead out of the interface that the packet came in by, in loose mode any route
//! will do. `ip_rcv_finish_core` (net/ipv4/ip_input.c) counts and drops what fails. The larger of
//! the setting for all devices and the device's own is in force, so that 2 for the device alone is
//! loose whatever the other says.
//!
//! Where the host answers that the way back leads out of that very interface, or in loose mode anywhere,
//! that is not what is wrong at the end of the report, and what is advised would change nothing.

use super::{Counts, Draft, Facts, Kept, Makes, Proof, Rule, Verdict, matters};
use crate::{
    diagnose::facts::NetnsFacts,
    report::{
        finding::{Finding, Severity},
        object::Object,
        question::{Ask, Leads, Packet, Refused, Refuser, Route},
    },
};

const COUNTER: &str = "TcpExt.IPReversePathFilter";
const ALL: &str = "net.ipv4.conf.all.rp_filter";
/// Whether the way back is looked up with the mark of the packet, for all devices and for one
/// (`IN_DEV_SRC_VMARK`, include/linux/inetdevice.h).
const MARK: &str = "net.ipv4.conf.all.src_valid_mark";
const FUNCTIONS: &[&str] = &["ip_rcv_finish_core", "ip_rcv_finish"];

const LOOSE: &str = "2";

pub(super) const RULE: Rule = Rule {
    findings: &[Makes {
        name: "reverse_path_filter",
        severity: "warning",
        says: "packets come in by another way than the one back",
        rests_on: "`IPReversePathFilter`",
    }],
    counters: &["TcpExt.IPReversePathFilter"],
    proofs: &[Proof::of(&[COUNTER], "IP_RPFILTER", &[])],
    settings: &["net.ipv4.conf.all.rp_filter", MARK],
    device_settings: &["net/ipv4/conf/DEV/rp_filter", "net/ipv4/conf/DEV/src_valid_mark"],
    counts: &[Counts::of(Kept::Netns(&[COUNTER]), &[], FUNCTIONS)],
    check_or_ask,
    ..Rule::NONE
};

fn check_or_ask(facts: &Facts<'_>) -> Vec<Verdict> {
    facts.namespaces().filter_map(|namespace| Verdict::of(refused(facts, namespace))).collect()
}

fn refused(facts: &Facts<'_>, namespace: NetnsFacts<'_>) -> Result<Option<Finding>, Ask> {
    let counted = namespace.delta(COUNTER);
    let rows = facts.rows_for("IP_RPFILTER", FUNCTIONS);
    let drops = counted.min(rows.count());
    if !matters(drops, facts) {
        return Ok(None);
    }
    let here = rows.within(namespace);
    let device = here.device();
    let own = device.map(|device| format!("net/ipv4/conf/{device}/rp_filter"));
    let source = here.source();
    let by_mark = device.map(|device| format!("net/ipv4/conf/{device}/src_valid_mark"));
    let by_mark = [Some(MARK), by_mark.as_deref()].into_iter().flatten();
    let packet = here.packet(true).map(|packet| {
        let is_looked_at = by_mark.clone().any(|name| namespace.setting(name) == Some("1"));
        Packet { mark: if is_looked_at { packet.mark } else { 0 }, ..packet }
    });
    let settings = [Some(ALL), own.as_deref()];
    let is_loose =
        settings.into_iter().flatten().any(|name| namespace.setting(name) == Some(LOOSE));
    let back = match (namespace.netns(), packet) {
        (Some(netns), Some(packet)) => way_back(facts, netns.number(), packet)?,
        _ => None,
    };
    if let Some((Route::Leads(Leads { local: false, device: leads, .. }), came_in)) = back
        && (is_loose || leads == Some(came_in))
    {
        return Ok(None);
    }
    let by = device.map(|device| format!(" by {device}")).unwrap_or_default();
    let from = source.map(|source| format!(" from {source}")).unwrap_or_default();
    let title = format!(
        "reverse-path filter of {} refused {} packets{from} that came in{by}",
        namespace.name(),
        facts.selected(counted, &here)
    );
    let mut draft = Draft::new(
        facts,
        "reverse_path_filter",
        Severity::Warning,
        device.unwrap_or_default(),
        title,
    )
    .at(namespace)
    .explains(drops, &rows)
    .names_any(device.map(|device| Object::interface(device, None)))
    .counted(COUNTER, counted, "netstat")
    .setting(ALL);
    if let Some(own) = &own {
        draft = draft.setting(own);
    }
    if let Some((route, _)) = back {
        draft = draft.state("way back", described(namespace, route), "rtnetlink");
    }
    if let Some(own) = own.filter(|_| !is_loose) {
        draft = draft.set(&own, LOOSE, "loose, for this interface alone");
    }
    let mark = packet.map_or(0, |packet| packet.mark);
    let missing = if is_loose { ": none does, so one is missing" } else { "" };
    let (command, note) = match source {
        Some(source) => (Packet::command(source, mark), "where the way back leads"),
        None => ("ip route show table all".to_owned(), "whether a way back to the senders leads"),
    };
    Ok(Some(draft.run(&command, &format!("{note}{missing}")).done()))
}

/// The way back of such a packet at the end of the report, and the index of the device that it came in
/// by. The kernel looks it up as it would for an answer: to the source, from the address that the packet
/// was for, and with its mark where that is looked at. Without an answer the finding stands, since the filter did count these packets.
fn way_back(facts: &Facts<'_>, netns: u32, packet: Packet) -> Result<Option<(Route, u32)>, Ask> {
    let Packet { to, from: Some(source), iif: Some(device), .. } = packet else { return Ok(None) };
    let above = packet.above.turned();
    let back = Packet { to: source, from: Some(to), iif: None, above, own: true, ..packet };
    Ok(facts.route(netns, back)?.ok().map(|route| (route, device)))
}

/// Where the way back leads, in a few words.
fn described(namespace: NetnsFacts<'_>, route: Route) -> String {
    match route {
        Route::Leads(Leads { local: true, .. }) => "to this host itself".to_owned(),
        Route::Leads(Leads { device, via, .. }) => {
            let link = device.and_then(|index| namespace.now.links.get(&index));
            let out = link.map_or("another device", |link| link.name.as_str());
            let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
            format!("out of {out}{via}")
        }
        Route::Refused(Refused { by: Some(Refuser::Route { kind, to, .. }), .. }) => {
            format!("none: {} {to}", kind.name())
        }
        Route::Refused(Refused { by: Some(Refuser::Rule { kind, preference }), .. }) => {
            format!("none: routing rule {preference}, {}", kind.name())
        }
        Route::Refused(Refused { by: None, .. }) => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};
    use crate::report::{
        flow::Flow,
        question::{Answer, Question},
    };

    fn host(drops: u64, counted: u64) -> TestHost {
        TestHost::new()
            .row(drops, "ip_rcv_finish_core", "IP_RPFILTER")
            .interface("eth0.100")
            .counted(COUNTER, counted)
    }

    #[test]
    fn the_device_is_set_to_loose() {
        let flow = Flow { src: Some([198, 19, 0, 9].into()), ..Flow::default() };
        let found = host(50, 50).flow(flow).setting(ALL, "1").run(&RULE);
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            finding.title,
            "reverse-path filter of gw refused 50 packets from 198.19.0.9 that came in by eth0.100"
        );
        let commands: Vec<_> = finding.actions.iter().map(|a| a.command.as_str()).collect();
        assert_eq!(
            commands,
            [
                "ip netns exec gw sysctl -w net/ipv4/conf/eth0.100/rp_filter=2",
                "ip netns exec gw ip route get 198.19.0.9"
            ]
        );
    }

    #[test]
    fn a_loose_filter_refuses_only_what_has_no_route() {
        for name in [ALL, "net/ipv4/conf/eth0.100/rp_filter"] {
            let found = host(50, 50).setting(name, "2").run(&RULE);
            let [action] = &found[0].actions[..] else { panic!("{found:?}") };
            assert_eq!(action.command, "ip netns exec gw ip route show table all");
            assert!(action.note.ends_with("one is missing"), "{}", action.note);
        }
    }

    /// What a host finds whose way back leads out of `device`.
    fn found(device: u32, mode: &str) -> Vec<Finding> {
        let (from, to) = ([198, 19, 0, 9].into(), [198, 18, 2, 2].into());
        let flow = Flow { src: Some(from), dst: Some(to), ..Flow::default() };
        let back = Packet { from: Some(to), own: true, ..Packet::to(from) };
        let leads = Leads { device: Some(device), ..Leads::default() };
        host(50, 50)
            .flow(flow)
            .setting(ALL, mode)
            .device(device, "eth1", 1500)
            .answer(Question::Route(back), Answer::Route(Route::Leads(leads)))
            .run(&RULE)
    }

    #[test]
    fn a_way_back_that_is_right_by_now_needs_no_change() {
        assert_eq!(found(2, "1"), [], "it leads out of eth0.100");
        let way = |it: &&crate::report::finding::Evidence| it.name == "way back";
        let other = found(3, "1");
        let way = other[0].evidence.iter().find(way).map(|it| it.value.clone());
        assert_eq!(way, Some("out of eth1".into()), "by another device");
        assert_eq!(found(3, LOOSE), [], "any will do");
    }

    #[test]
    fn the_way_back_is_asked_with_the_mark_where_that_is_looked_at() {
        let (from, to) = ([198, 19, 0, 9].into(), [198, 18, 2, 2].into());
        let flow = Flow { src: Some(from), dst: Some(to), ..Flow::default() };
        let way = |mark, device| {
            let back = Packet { from: Some(to), mark, own: true, ..Packet::to(from) };
            let leads = Leads { device: Some(device), ..Leads::default() };
            (Question::Route(back), Answer::Route(Route::Leads(leads)))
        };
        let marked = || {
            let (host, (plain, out)) = (host(50, 50).flow(flow.clone()).mark(7), way(0, 2));
            let (with_mark, elsewhere) = way(7, 3);
            host.setting(ALL, "1").answer(plain, out).answer(with_mark, elsewhere)
        };
        assert_eq!(marked().run(&RULE), [], "without the mark it leads back");
        for name in [MARK, "net/ipv4/conf/eth0.100/src_valid_mark"] {
            let found = marked().setting(name, "1").run(&RULE);
            let last = found[0].actions.last().map(|action| action.command.as_str());
            assert_eq!(last, Some("ip netns exec gw ip route get 198.19.0.9 mark 0x7"));
        }
    }

    #[test]
    fn where_samples_are_missing_no_device_is_set() {
        let found = host(50, 50).unsampled().run(&RULE);
        let [action] = &found[0].actions[..] else { panic!("{found:?}") };
        assert_eq!(action.command, "ip netns exec gw ip route show table all");
    }

    #[test]
    fn the_rest_of_what_the_function_drops_is_something_else() {
        let host = host(5, 5).row(900, "ip_rcv_finish_core", "NOT_SPECIFIED").interface("eth1");
        let found = host.run(&RULE);
        assert_eq!(found, [], "less than one in a hundred");
        let found = TestHost::new()
            .row(90, "ip_rcv_finish_core", "NOT_SPECIFIED")
            .counted(COUNTER, 7)
            .run(&RULE);
        assert_eq!(found[0].explains.map(|e| e.drops), Some(7), "a kernel without this reason");
    }

    #[test]
    fn nothing_counted_is_nothing_found() {
        assert_eq!(host(50, 0).run(&RULE), []);
        assert_eq!(host(2, 50).run(&RULE), []);
    }
}
