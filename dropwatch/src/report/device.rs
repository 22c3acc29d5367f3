//! What a host answers about a device, and about what decides there over packets.

/// A link-layer address of Ethernet.
pub type Mac = [u8; 6];

/// A link-layer address as `ip` writes it.
pub fn written(address: Mac) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// A network device at the end of a report, as its namespace knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    pub index: u32,
    pub name: String,
    /// `veth`, `tun`, `bridge`; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// It is switched on (`IFF_UP`).
    pub up: bool,
    /// There is somebody at the other end (`IFF_LOWER_UP`). Never of a device that is off.
    pub carrier: bool,
    /// Bytes behind the link-layer header.
    pub mtu: u32,
    /// Packets that came to it and were dropped, since it was made.
    pub rx_dropped: u64,
    /// Packets that its transmit queue, or the ring of a tap, holds.
    pub queue_length: u32,
    /// The other end of a veth.
    pub peer: Option<Peer>,
    /// What it is to the bridge that it is a port of.
    pub port: Option<BridgePort>,
    pub xdp: Vec<XdpProgram>,
}

/// The other end of a veth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    pub index: u32,
    pub name: String,
    pub up: bool,
    pub mtu: u32,
    /// Packets that came to it and were dropped, since it was made.
    pub rx_dropped: u64,
    /// Number in the run of the namespace that it is in; `None` where that is not known.
    pub netns: Option<u32>,
}

/// A port of a bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BridgePort {
    /// Name of the bridge.
    pub bridge: String,
    pub state: PortState,
    /// Frames may leave by it that came in by it.
    pub hairpin: bool,
    /// It exchanges no frames with other isolated ports.
    pub isolated: bool,
}

/// The VLANs of a port, whose bridge filters by them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortVlans {
    /// That of frames without a tag (`pvid`).
    pub native: Option<u16>,
    /// The first and the last of each range.
    pub ranges: Vec<(u16, u16)>,
}

impl PortVlans {
    pub fn has(&self, vlan: u16) -> bool {
        self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&vlan))
    }
}

/// Whether a port of a bridge takes part (`BR_STATE_*`, include/uapi/linux/if_bridge.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortState {
    Disabled,
    Listening,
    Learning,
    #[default]
    Forwarding,
    Blocking,
}

impl PortState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Listening => "listening",
            Self::Learning => "learning",
            Self::Forwarding => "forwarding",
            Self::Blocking => "blocking",
        }
    }
}

/// A frame that came in by a port of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frame {
    /// Index of the port.
    pub port: u32,
    pub to: Mac,
}

/// A BPF program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Number that the kernel gives to no other as long as it is loaded.
    pub id: u32,
    /// What its author called it, cleaned; `None` where it has no name, or it may not be read.
    pub name: Option<String>,
}

/// An XDP program of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpProgram {
    pub mode: XdpMode,
    pub program: Program,
}

/// Who runs an XDP program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    Driver,
    #[default]
    Generic,
    Hardware,
}

impl XdpMode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Generic => "generic",
            Self::Hardware => "hardware",
        }
    }
}

/// Where traffic control has filters at a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hook {
    /// Index of the device.
    pub device: u32,
    pub egress: bool,
}

/// A filter of traffic control, or a BPF program in its place (tcx, Linux 6.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// What tells it from all others there: `u32 pref 49152 handle 800::800`, `tcx`.
    pub name: String,
    /// `u32`, `flower`, `bpf`, `tcx`.
    pub kind: String,
    /// Its place among the others.
    pub preference: u32,
    /// As `tc` writes it; tcx has none.
    pub handle: Option<String>,
    /// A program decides by itself (direct action), and nobody counts its verdicts.
    pub decides: bool,
    /// That program; `None` for one of classic BPF, which has no number.
    pub program: Option<Program>,
    pub actions: Vec<Action>,
}

/// An action of a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Action {
    /// `gact`, `mirred`, `police`.
    pub kind: String,
    pub index: u32,
    /// Packets that it dropped since it was made, by its own counter.
    pub dropped: u64,
    /// Packets that were over its limit, or that it could not hand on, since it was made.
    pub overlimits: u64,
    /// The device that it redirects or copies to.
    pub target: Option<Target>,
}

/// Where an action sends packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Packets leave their own way, not copies of them.
    pub redirects: bool,
    /// `None` where the device is gone.
    pub device: Option<Device>,
}

/// Which programs of control groups decide over packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupHook {
    /// The process whose packets they are; all groups where it is not known.
    pub pid: Option<u32>,
    pub egress: bool,
}

/// A program of a control group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupProgram {
    /// Path of the group below the root of its hierarchy: `/system.slice/a.service`.
    pub group: String,
    /// The folder that stands for it on this host.
    pub folder: String,
    pub program: Program,
}
