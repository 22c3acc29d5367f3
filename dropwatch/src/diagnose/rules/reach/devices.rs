//! Trouble that the host's answers about devices show.

use super::*;

/// Trouble that the host's answers about devices show.
pub(super) fn of_devices(row: impl Fn(u64, &str, &str) -> TestHost) -> Vec<TestHost> {
    let port = |change: fn(&mut BridgePort)| {
        let mut port = BridgePort { bridge: "br;id".into(), ..BridgePort::default() };
        change(&mut port);
        Some(port)
    };
    let name = "e;id".into();
    let peer = Peer { index: 9, name, mtu: 1400, netns: Some(GW), ..Peer::default() };
    let device = || Device {
        index: 2,
        name: DEVICE.into(),
        up: true,
        carrier: true,
        mtu: 1500,
        ..Device::default()
    };
    let is =
        |host: TestHost, device| host.answer(Question::Device(2), Answer::Device(Box::new(device)));
    let own = [2, 0, 0, 0, 0, 7];
    let back = Question::Forwarding(Frame { port: 2, to: own });
    let at_port = || row(50, "br_handle_frame_finish", "NOT_SPECIFIED").stations(own, own);
    let hairpin = Device { port: port(|_| {}), ..device() };
    let isolated = Device { port: port(|port| port.isolated = true), ..device() };
    let sent = |port: &Device, to: Device| {
        is(at_port(), port.clone()).answer(back, Answer::Forwarding(Some(Box::new(to))))
    };
    let program = Program { id: 12, name: Some("sd_fw_egress".into()) };
    let group = GroupProgram {
        group: "/a.service".into(),
        folder: "/sys/fs/cgroup/a;id".into(),
        program: program.clone(),
    };
    let groups = Question::GroupPrograms(GroupHook { pid: None, egress: true });
    let target = Some(Target { redirects: true, device: Some(Device { up: false, ..device() }) });
    let action = Action { kind: "mirred".into(), overlimits: 50, target, ..Action::default() };
    let filter = Filter { name: "u32".into(), actions: vec![action], ..Filter::default() };
    let hook = Question::Filters(Hook { device: 2, egress: false });
    let tap = Device { kind: Some("tun".into()), ..device() };
    let vxlan = Device { kind: Some("vxlan".into()), ..device() };
    let ring = Link { name: DEVICE.into(), ..Link::default() };
    let xdp = vec![XdpProgram { program, ..XdpProgram::default() }];
    vec![
        is(
            row(50, "__dev_queue_xmit", "QDISC_DROP"),
            Device { carrier: false, peer: Some(peer.clone()), ..device() },
        ),
        is(row(50, "f", "QDISC_DROP"), Device { up: false, carrier: false, ..device() }),
        is(
            row(50, "__dev_forward_skb2", "NOT_SPECIFIED"),
            Device { peer: Some(Peer { up: true, ..peer }), ..device() },
        ),
        is(
            row(50, "br_dev_queue_push_xmit", "NOT_SPECIFIED").device(3, "wide", 9000),
            hairpin.clone(),
        ),
        sent(&hairpin, hairpin.clone()),
        sent(&isolated, Device { index: 3, ..isolated.clone() }),
        is(
            row(50, "br_handle_frame", "BRIDGE_INGRESS_STP_STATE"),
            Device { port: port(|port| port.state = PortState::Listening), ..device() },
        ),
        is(
            row(50, "br_handle_frame", "BRIDGE_INGRESS_STP_STATE"),
            Device { port: port(|port| port.state = PortState::Disabled), ..device() },
        ),
        is(row(50, "__allowed_ingress", "NOT_SPECIFIED"), hairpin.clone())
            .answer(Question::PortVlans(2), Answer::PortVlans(Some(PortVlans::default()))),
        is(row(50, "vxlan_xmit", "NOT_SPECIFIED").stations(own, own), vxlan)
            .answer(Question::Remote(Frame { port: 2, to: own }), Answer::Remote(false)),
        is(row(50, "tun_net_xmit", "FULL_RING").link(&ring, "tx_dropped", 50), tap),
        row(50, "f", "TC_INGRESS").answer(hook, Answer::Filters(vec![filter])),
        is(row(50, "f", "XDP"), Device { xdp, ..device() }),
        row(50, "f", "BPF_CGROUP_EGRESS").answer(groups, Answer::GroupPrograms(vec![group])),
    ]
}
