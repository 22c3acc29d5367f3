use super::{super::testing::*, *};
use crate::report::{
    evidence::Addresses,
    flow::Flow,
    question::{Answer, Question, Refusal},
};

const TO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 2, 100));

fn counted(drops: u64, counted: u64) -> TestHost {
    TestHost::new()
        .row(drops, "ip_error", "IP_INADDRERRORS")
        .counted("Ip.InAddrErrors", counted)
        .interface("eth0")
}

fn host(drops: u64, count: u64, switch: &str) -> Vec<Finding> {
    counted(drops, count).setting("net.ipv4.ip_forward", switch).run(&RULE)
}

fn no_router(to: IpAddr) -> TestHost {
    let flow = Flow { dst: Some(to), ..Flow::default() };
    counted(10, 10).flow(flow).setting("net.ipv4.ip_forward", "0")
}

fn leads(device: u32, via: Option<[u8; 4]>, local: bool) -> Answer {
    let via = via.map(Into::into);
    Answer::Route(Route::Leads(Leads { local, device: Some(device), via, ..Leads::default() }))
}

/// The findings' names where the host answers so.
fn rules(answer: Answer) -> Vec<String> {
    let found = no_router(TO).answer(Question::Route(Packet::to(TO)), answer).run(&RULE);
    found.into_iter().map(|finding| finding.rule).collect()
}

#[test]
fn a_host_that_is_no_router_is_named_with_its_switch() {
    let found = host(10, 10, "0");
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert_eq!(finding.title, "gw does not forward IPv4: 10 packets for other hosts refused");
    assert_eq!(finding.explains.map(|e| e.drops), Some(10));
    assert_eq!(finding.actions[0].command, "ip netns exec gw sysctl -w net.ipv4.ip_forward=1");
}

#[test]
fn the_switch_of_the_device_decides() {
    let device = "net/ipv4/conf/eth0/forwarding";
    let with = |all: &str, own: &str| {
        let host = counted(10, 10).setting("net.ipv4.ip_forward", all).setting(device, own);
        let command = |finding: &Finding| finding.actions[0].command.clone();
        host.run(&RULE).first().map(command).unwrap_or_default()
    };
    assert_eq!(with("1", "0"), format!("ip netns exec gw sysctl -w {device}=1"));
    assert_eq!(with("0", "0"), "ip netns exec gw sysctl -w net.ipv4.ip_forward=1");
    assert_eq!(with("0", "1"), "", "it does forward");
    assert_eq!(with("1", "1"), "");
}

#[test]
fn an_address_of_the_same_link_is_another_hosts() {
    let answer = leads(2, None, false);
    let found = no_router(TO).answer(Question::Route(Packet::to(TO)), answer).run(&RULE);
    let [finding] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        finding.title,
        "10 packets for 198.18.2.100 came to gw, which does not have it: it is on the link of eth0 \
         that they came in by"
    );
    let commands: Vec<_> = finding.actions.iter().map(|a| a.command.as_str()).collect();
    assert_eq!(commands, ["ip netns exec gw ip route get 198.18.2.100"], "no switch helps");
}

#[test]
fn what_goes_to_all_of_a_smaller_network_is_nobodys_mistake_here() {
    let to = [198, 18, 2, 255].into();
    let answer = leads(2, None, false);
    let host = no_router(to).answer(Question::Route(Packet::to(to)), answer);
    assert_eq!(host.run(&RULE), []);
}

#[test]
fn ipv6_without_a_route_is_not_forwarded_either() {
    let to: IpAddr = "2001:db8::9".parse().unwrap();
    let host = |function, reason, switch: &str| {
        let flow = Flow { dst: Some(to), ..Flow::default() };
        TestHost::new()
            .row(10, function, reason)
            .flow(flow)
            .counted("Ip6.InNoRoutes", 10)
            .setting("net.ipv6.conf.all.forwarding", switch)
            .answer(
                Question::Route(Packet::to(to)),
                Answer::Route(Route::Refused(Refusal::NoRoute.into())),
            )
            .run(&RULE)
    };
    for (function, reason) in
        [("ip6_pkt_discard", "IP_INNOROUTES"), ("ip6_pkt_drop", NOT_SPECIFIED)]
    {
        let found = host(function, reason, "0");
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!(finding.title, "gw does not forward IPv6: 10 packets for other hosts refused");
        let commands: Vec<_> = finding.actions.iter().map(|it| it.command.as_str()).collect();
        let switch = "ip netns exec gw sysctl -w net.ipv6.conf.all.forwarding=1";
        let route = "ip netns exec gw ip -6 route show table all match 2001:db8::9";
        assert_eq!(commands, [switch, route]);
        assert_eq!(host(function, reason, "1"), [], "there the route is what is missing");
    }
}

#[test]
fn what_lies_behind_the_host_is_for_a_router() {
    assert_eq!(rules(leads(3, None, false)), ["forwarding_disabled"], "another link");
    let router = Some([198, 18, 2, 1]);
    assert_eq!(rules(leads(2, router, false)), ["forwarding_disabled"], "behind a router");
    let refused = Answer::Route(Route::Refused(Refusal::NoRoute.into()));
    assert_eq!(rules(refused.clone()), ["forwarding_disabled"]);
    assert_eq!(rules(leads(1, None, true)), [""; 0], "it is this host's own by now");
    let found = no_router(TO).answer(Question::Route(Packet::to(TO)), refused).run(&RULE);
    let missing = "ip netns exec gw ip route show table all match 198.18.2.100";
    assert_eq!(found[0].actions[1].command, missing);
}

#[test]
fn each_of_two_kinds_has_its_part() {
    let other: IpAddr = [203, 0, 113, 9].into();
    let flows = [TO, other].map(|to| Flow { dst: Some(to), ..Flow::default() });
    let found = counted(10, 10)
        .flows(&flows)
        .setting("net.ipv4.ip_forward", "0")
        .answer(Question::Route(Packet::to(TO)), leads(2, None, false))
        .answer(Question::Route(Packet::to(other)), leads(3, None, false))
        .run(&RULE);
    let explained: Vec<_> =
        found.iter().map(|f| (f.rule.as_str(), f.explains.unwrap().drops)).collect();
    assert_eq!(explained, [("address_elsewhere", 5), ("forwarding_disabled", 5)]);
}

#[test]
fn an_ipv6_address_that_somebody_else_has_is_named() {
    let to: IpAddr = "2001:2::5".parse().unwrap();
    let host = |failed| {
        let flow = Flow { dst: Some(to), ..Flow::default() };
        let mut host = TestHost::new()
            .row(10, "ip6_forward", NOT_SPECIFIED)
            .interface("eth0")
            .flow(flow)
            .device(2, "eth0", 1500)
            .counted("Ip6.InAddrErrors", 10)
            .setting("net.ipv6.conf.all.forwarding", "0");
        let unusable = [(to, UnusableAddress { device: 2, failed })].into();
        let addresses = Addresses { own: [to].into(), unusable, ..Addresses::default() };
        host.now.namespaces.get_mut(&GW).unwrap().addresses = Some(addresses);
        host.run(&RULE)
    };
    let failed = host(true);
    assert_eq!(
        failed[0].title,
        "10 packets for 2001:2::5 refused in gw: the address failed duplicate address detection on \
         eth0"
    );
    let command = "ip netns exec gw ip -6 address show dev eth0 dadfailed";
    assert_eq!(failed[0].actions[0].command, command);
    assert_eq!(failed.len(), 1);
    assert!(host(false)[0].title.ends_with("the address is still tentative on eth0"));
}

#[test]
fn a_router_has_another_reason_to_refuse() {
    assert_eq!(host(10, 10, "1"), []);
}

#[test]
fn another_namespaces_drops_are_not_this_ones() {
    assert_eq!(host(10, 0, "0"), []);
    assert_eq!(host(2, 10, "0"), [], "a few are nothing");
}
