//! What verdicts name: a constructor for each kind of [`Object`].
//!
//! Each takes what the host answered, so no rule chooses fields of its own.

use std::net::SocketAddr;

use crate::report::{
    cgroup::unit,
    device::{BridgePort, Device, Filter, GroupProgram, Mac, Program, XdpProgram, written},
    evidence::{Queue, QueueId, TableFamily},
    facts::Owner,
    filter_rules::{Dropper, Keeper, Part},
    object::{Kind, Object},
    protocol::transport,
    question::{
        Connection, Neighbour, NextHop, Policy, PolicyDirection, Refuser, RulePlace, Tuple,
    },
};

impl Object {
    /// Adds the process that has it open, listens at it or holds it.
    fn of_process(self, owner: Option<&Owner>) -> Self {
        let Some(Owner { comm, pid, cgroup }) = owner else { return self };
        let unit = cgroup.as_deref().and_then(unit);
        self.with("process", comm).with("pid", *pid).with_any("unit", unit)
    }

    /// A rule or policy of the packet filter; `place` is its name. `count` is what its own counter counted in
    /// the interval of the report, where that is known.
    pub fn dropper(dropper: &Dropper, place: impl Into<String>, count: Option<u64>) -> Self {
        let kind = match (dropper.keeper, dropper.part) {
            (Keeper::Iptables, Part::Rule(_)) => Kind::IptablesRule,
            (Keeper::Iptables, Part::Policy) => Kind::IptablesPolicy,
            (Keeper::Ebtables, Part::Rule(_)) => Kind::EbtablesRule,
            (Keeper::Ebtables, Part::Policy) => Kind::EbtablesPolicy,
            (Keeper::Nft, Part::Rule(_)) => Kind::NftRule,
            (Keeper::Nft, Part::Policy) => Kind::NftPolicy,
        };
        let Dropper { family, table, chain, text, comment, .. } = dropper;
        let object = Self::new(kind, place)
            .with("family", family.name())
            .with("table", table)
            .with("chain", chain)
            .with_any("text", Some(text).filter(|text| !text.is_empty()))
            .with_any("comment", comment.as_ref())
            .with_any("count", count);
        match (dropper.keeper, dropper.part) {
            (_, Part::Policy) | (Keeper::Nft, Part::Rule(0)) => object,
            (Keeper::Nft, Part::Rule(handle)) => object.with("handle", handle),
            (_, Part::Rule(position)) => object.with("position", position),
        }
    }

    /// A rule that sends packets elsewhere.
    pub fn rule(place: &RulePlace) -> Self {
        match place {
            RulePlace::Legacy { family, table, chain, position } => {
                let (kind, family) = match family {
                    TableFamily::Ipv4 => (Kind::IptablesRule, "ip"),
                    TableFamily::Ipv6 => (Kind::IptablesRule, "ip6"),
                    TableFamily::Arp => (Kind::IptablesRule, "arp"),
                    TableFamily::Bridge => (Kind::EbtablesRule, "bridge"),
                };
                Self::new(kind, format!("{table} {chain}, rule {position}"))
                    .with("family", family)
                    .with("table", table)
                    .with("chain", chain)
                    .with("position", *position)
            }
            RulePlace::Nft { family, table, chain, .. } => {
                Self::new(Kind::NftRule, format!("{family} {table} {chain}"))
                    .with("family", *family)
                    .with("table", table)
                    .with("chain", chain)
            }
        }
    }

    /// A route or a routing rule that refuses.
    pub fn refuser(refuser: &Refuser, table_name: &str) -> Self {
        match refuser {
            Refuser::Route { kind, to, metric, rule, .. } => {
                Self::new(Kind::Route, format!("{} {to} in table {table_name}", kind.name()))
                    .with("type", kind.name())
                    .with("to", to.to_string())
                    .with("table", table_name)
                    .with("metric", *metric)
                    .with("rule", *rule)
            }
            Refuser::Rule { kind, preference } => {
                Self::new(Kind::RoutingRule, format!("{preference}: {}", kind.name()))
                    .with("type", kind.name())
                    .with("rule", *preference)
            }
        }
    }

    /// A next hop, and what is known of it.
    pub fn neighbour(hop: NextHop, device: Option<&str>, state: Neighbour) -> Self {
        let on = device.map(|device| format!(" dev {device}")).unwrap_or_default();
        Self::new(Kind::Neighbour, format!("{}{on}", hop.address))
            .with("address", hop.address.to_string())
            .with_any("device", device)
            .with("state", state.name())
    }

    /// A device that was asked about, and who has it open where it is a tap.
    pub fn device(device: &Device, reader: Option<&Owner>) -> Self {
        Self::new(Kind::Device, &device.name)
            .with("device", &device.name)
            .with("index", device.index)
            .with_any("type", device.kind.as_ref())
            .with("up", device.up)
            .with("carrier", device.carrier)
            .with("mtu", device.mtu)
            .with_any("peer", device.peer.as_ref().map(|peer| &peer.name))
            .with_any("peer_mtu", device.peer.as_ref().map(|peer| peer.mtu))
            .with_any("bridge", device.port.as_ref().map(|port| &port.bridge))
            .of_process(reader)
    }

    /// A device of which nothing but its name matters, and an address or a group there.
    pub fn interface(device: &str, address: Option<String>) -> Self {
        Self::new(Kind::Device, device).with("device", device).with_any("address", address)
    }

    /// A port of a bridge; `vlan` is the one that it does not have.
    pub fn bridge_port(device: &Device, port: &BridgePort, vlan: Option<u16>) -> Self {
        let BridgePort { bridge, state, hairpin, isolated, .. } = port;
        Self::new(Kind::BridgePort, format!("{} of {bridge}", device.name))
            .with("device", &device.name)
            .with("bridge", bridge)
            .with("state", state.name())
            .with("hairpin", *hairpin)
            .with("isolated", *isolated)
            .with_any("vlan", vlan)
    }

    /// A tunnel device that has no remote for a station; of any, without one.
    pub fn tunnel(device: &Device, station: Option<Mac>) -> Self {
        Self::new(Kind::Tunnel, &device.name)
            .with("device", &device.name)
            .with_any("type", device.kind.as_ref())
            .with_any("station", station.map(written))
    }

    /// A queueing discipline of a device, and what it dropped in the interval of the report.
    pub fn qdisc(device: &str, id: QueueId, queue: &Queue, count: u64) -> Self {
        Self::new(Kind::Qdisc, format!("{} {id} on {device}", queue.kind))
            .with("device", device)
            .with("type", &queue.kind)
            .with("handle", id.handle())
            .with_any("parent", id.parent())
            .with("count", count)
    }

    /// A filter of traffic control, or the program in its place; `count` is what its own action dropped
    /// since it was made.
    pub fn tc_filter(device: &str, egress: bool, filter: &Filter, count: Option<u64>) -> Self {
        let object = Self::new(Kind::TcFilter, &filter.name)
            .with("device", device)
            .with("direction", if egress { "egress" } else { "ingress" })
            .with("type", &filter.kind)
            .with_any("ever", count);
        let object = match &filter.handle {
            Some(handle) => object.with("preference", filter.preference).with("handle", handle),
            None => object,
        };
        object.of_program(filter.program.as_ref())
    }

    fn of_program(self, program: Option<&Program>) -> Self {
        let Some(Program { id, name }) = program else { return self };
        self.with("program_id", *id).with_any("program", name.as_ref())
    }

    /// An XDP program of a device.
    pub fn xdp(device: &str, xdp: &XdpProgram) -> Self {
        let program = &xdp.program;
        let name = program.name.clone().unwrap_or_else(|| format!("program {}", program.id));
        Self::new(Kind::XdpProgram, format!("{name} on {device}"))
            .with("device", device)
            .with("mode", xdp.mode.name())
            .of_program(Some(program))
    }

    /// A program of a control group.
    pub fn group_program(of: &GroupProgram, egress: bool) -> Self {
        let GroupProgram { group, program, .. } = of;
        let name = program.name.clone().unwrap_or_else(|| format!("program {}", program.id));
        Self::new(Kind::CgroupProgram, format!("{name} of {group}"))
            .with("group", group)
            .with_any("unit", unit(group))
            .with("direction", if egress { "egress" } else { "ingress" })
            .of_program(Some(program))
    }

    /// A socket, by its protocol (`udp`), its own end as far as it is known, and who holds it.
    pub fn socket(protocol: &str, local: Local, owner: Option<&Owner>) -> Self {
        let (address, port) = match local {
            Local::Whole(local) => (Some(local.ip().to_string()), Some(local.port())),
            Local::Port(port) => (None, Some(port)),
            Local::Unknown => (None, None),
        };
        let end = match (local, owner) {
            (Local::Whole(local), _) => format!(" {local}"),
            (Local::Port(port), _) => format!(" port {port}"),
            (Local::Unknown, Some(Owner { comm, pid, .. })) => format!(" of {comm} ({pid})"),
            (Local::Unknown, None) => String::new(),
        };
        Self::new(Kind::Socket, format!("{protocol}{end}"))
            .with("protocol", protocol)
            .with_any("address", address)
            .with_any("port", port)
            .of_process(owner)
    }

    /// A queue of the packet filter (NFQUEUE), and the listener's number; `None` where nobody listens.
    pub fn packet_queue(first: u16, last: u16, listener: Option<u32>) -> Self {
        let numbers = if first == last { first.to_string() } else { format!("{first}-{last}") };
        Self::new(Kind::PacketQueue, format!("queue {numbers}"))
            .with("number", first)
            .with_any("last", Some(last).filter(|last| *last != first))
            .with_any("listener", listener)
    }

    /// A policy of IPsec.
    pub fn policy(policy: &Policy, direction: PolicyDirection) -> Self {
        let Policy { from, to, index, blocks, .. } = policy;
        let (from, to) = (format!("{}/{}", from.0, from.1), format!("{}/{}", to.0, to.1));
        Self::new(Kind::IpsecPolicy, format!("src {from} dst {to} dir {}", direction.name()))
            .with("from", from)
            .with("to", to)
            .with("direction", direction.name())
            .with("index", *index)
            .with("blocks", *blocks)
    }

    /// A tracked connection, which stands for those that are translated alike.
    pub fn connection(connection: &Connection) -> Self {
        let Connection { original, reply } = connection;
        let protocol = transport(original.protocol);
        let Tuple { from, to, .. } = original;
        let name = format!("{protocol} {from} to {to}, answered by {}", reply.from);
        Self::new(Kind::ConntrackEntry, name)
            .with("protocol", &*protocol)
            .with("from", from.to_string())
            .with("to", to.to_string())
            .with("reply_from", reply.from.to_string())
            .with("reply_to", reply.to.to_string())
    }
}

impl Neighbour {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "not known",
            Self::Answers => "answers",
            Self::Answered => "answered once",
            Self::Awaited => "is being asked",
            Self::Failed => "failed",
        }
    }
}

/// What is known of a socket's own end.
#[derive(Clone, Copy, Debug)]
pub enum Local {
    Whole(SocketAddr),
    Port(u16),
    Unknown,
}

impl Local {
    /// Of a port that may be known.
    pub fn port(port: Option<u16>) -> Self {
        port.map_or(Self::Unknown, Self::Port)
    }
}
