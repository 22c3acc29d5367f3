//! Everyone who is measured.

use testbed::flood::Wire;

use super::table::{
    BPFTRACE, BY_IFACE, DROPWATCH, DROPWATCH_STACKS, EMPTY, EMPTY_TYPED, EXPRESSION, NOBODY, PERF,
    PERF_STACKS,
};

/// Somebody who watches drops.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) frames: Frames,
}

pub(super) enum Kind {
    Nobody,
    /// Two instructions; with arguments that have types, or raw.
    Empty {
        typed: bool,
    },
    /// dropwatch with these options; [`RECEIVER`] is the namespace where the frames die.
    Dropwatch(&'static [&'static str]),
    /// A command that prints a line once it has attached.
    Speaking(&'static [&'static str]),
    /// One that says nothing.
    Silent(&'static [&'static str]),
}

/// What the floods are of, while the tool watches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Frames {
    /// Of an ethertype that nobody handles.
    Unhandled,
    /// UDP for another station: there are headers to read. They die elsewhere, so what watching
    /// adds by the clock is not beside the others'.
    Datagrams,
}

/// In options: the name of the namespace where the frames die.
pub(super) const RECEIVER: &str = "RECEIVER";

const fn tool(name: &'static str, kind: Kind) -> Tool {
    Tool { name, kind, frames: Frames::Unhandled }
}

const fn of_datagrams(name: &'static str, kind: Kind) -> Tool {
    Tool { name, kind, frames: Frames::Datagrams }
}

pub(super) const TOOLS: [Tool; 21] = [
    tool(NOBODY, Kind::Nobody),
    tool(EMPTY, Kind::Empty { typed: false }),
    tool(EMPTY_TYPED, Kind::Empty { typed: true }),
    tool("dropwatch --no-samples", Kind::Dropwatch(&["--no-samples", "--no-findings"])),
    tool(DROPWATCH, Kind::Dropwatch(&[])),
    tool(DROPWATCH_STACKS, Kind::Dropwatch(&["-g"])),
    tool("dropwatch --netns", Kind::Dropwatch(&["--netns", RECEIVER])),
    tool("dropwatch --iface", Kind::Dropwatch(&["--iface", Wire::RECEIVER_LINK])),
    tool("dropwatch --proto", Kind::Dropwatch(&["--proto", "0x88b5"])),
    // Asks for the same.
    tool(EXPRESSION, Kind::Dropwatch(&["ether proto 0x88b5"])),
    of_datagrams("dropwatch --proto udp", Kind::Dropwatch(&["--proto", "udp"])),
    of_datagrams("dropwatch --host", Kind::Dropwatch(&["--host", "198.18.0.0/15"])),
    of_datagrams("dropwatch --port", Kind::Dropwatch(&["--port", "9"])),
    tool("dropwatch --by netns", Kind::Dropwatch(&["--by", "netns"])),
    tool(BY_IFACE, Kind::Dropwatch(&["--by", "netns,iface"])),
    tool("… ,protocol", Kind::Dropwatch(&["--by", "netns,iface,protocol"])),
    of_datagrams("… ,protocol,cpu of UDP", Kind::Dropwatch(&["--by", "netns,iface,protocol,cpu"])),
    tool(
        BPFTRACE,
        Kind::Speaking(&[
            "bpftrace",
            "-e",
            "tracepoint:skb:kfree_skb { @[args->location] = count(); }",
        ]),
    ),
    tool(
        "bpftrace, also by netns",
        Kind::Speaking(&[
            "bpftrace",
            "-e",
            "tracepoint:skb:kfree_skb { $skb = (struct sk_buff *)args->skbaddr; \
             @[args->location, $skb->dev->nd_net.net->ns.inum] = count(); }",
        ]),
    ),
    tool(
        PERF,
        Kind::Silent(&["perf", "record", "-q", "-a", "-e", "skb:kfree_skb", "-o", "/dev/null"]),
    ),
    tool(
        PERF_STACKS,
        Kind::Silent(&[
            "perf",
            "record",
            "-q",
            "-a",
            "-g",
            "-e",
            "skb:kfree_skb",
            "-o",
            "/dev/null",
        ]),
    ),
];
