//! Drops that are the kernel's housekeeping, not a fault of the network.
//!
//! `NOT_SPECIFIED` by itself is never among them: it means that the caller was not yet taught to
//! give a reason, and most real drops of older kernels carry it.

use crate::report::model::{Reason, Symbol};

/// One kind of harmless drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Benign {
    pub cause: Cause,
    /// Why it is harmless.
    pub why: &'static str,
    /// The kernel file that frees these packets.
    pub source: &'static str,
}

/// What a harmless drop is recognised by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A drop reason of the kernel's core, wherever it occurs.
    Reason(&'static str),
    /// A function, where the kernel gives no reason: `NOT_SPECIFIED`, or none before 5.17.
    Function(&'static str),
}

/// All that is known to be harmless.
pub const BENIGN: &[Benign] = &[
    Benign {
        cause: Cause::Reason("QUEUE_PURGE"),
        why: "a socket closed with unread data, or a queue was emptied as its device went away",
        source: "net/core/skbuff.c",
    },
    Benign {
        cause: Cause::Reason("UNIX_DISCONNECT"),
        why: "a Unix datagram socket turned to another peer or its peer closed: no network packet",
        source: "net/unix/af_unix.c",
    },
    Benign {
        cause: Cause::Reason("OTHERHOST"),
        why: "promiscuous mode showed a frame whose MAC address is another station's",
        source: "net/ipv4/ip_input.c",
    },
    Benign {
        cause: Cause::Function("sk_stream_kill_queues"),
        why: "a stream socket closed with unread data",
        source: "net/core/stream.c",
    },
    Benign {
        cause: Cause::Function("inet_sock_destruct"),
        why: "an IP socket closed with unread data",
        source: "net/ipv4/af_inet.c",
    },
];

/// What is known about drops at `symbol` for `reason`, if they are harmless.
pub fn benign(symbol: Option<&Symbol>, reason: Option<&Reason>) -> Option<&'static Benign> {
    let subsystem = reason.and_then(|reason| reason.subsystem.as_deref()).unwrap_or("CORE");
    if subsystem != "CORE" {
        return None;
    }
    let reason = reason.map(|reason| reason.name.as_str());
    let function = symbol.map(|symbol| function_name(&symbol.name));
    let unexplained = matches!(reason, None | Some("NOT_SPECIFIED"));
    BENIGN.iter().find(|entry| match entry.cause {
        Cause::Reason(name) => reason == Some(name),
        Cause::Function(name) => unexplained && function == Some(name),
    })
}

/// Whether drops at `symbol` for `reason` are harmless.
pub fn is_benign(symbol: Option<&Symbol>, reason: Option<&Reason>) -> bool {
    benign(symbol, reason).is_some()
}

/// The function as the source names it, without what the compiler appended to its copies:
/// `.constprop.0`, `.isra.0`, `.part.0`, `.cold`. No C identifier holds a dot.
pub fn function_name(symbol: &str) -> &str {
    match symbol.find('.') {
        Some(end) if end > 0 => &symbol[..end],
        _ => symbol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(symbol: &str, reason: Option<(&str, &str)>) -> bool {
        let symbol = Symbol { name: symbol.to_owned(), offset: 4, module: None };
        let reason = reason.map(|(name, subsystem)| Reason {
            name: name.to_owned(),
            subsystem: Some(subsystem.to_owned()),
        });
        is_benign(Some(&symbol), reason.as_ref())
    }

    #[test]
    fn a_queue_discarded_at_close_is_benign() {
        assert!(check("skb_queue_purge_reason", Some(("QUEUE_PURGE", "CORE"))));
        assert!(check("unix_dgram_disconnected", Some(("UNIX_DISCONNECT", "CORE"))));
        assert!(check("ip_rcv_core", Some(("OTHERHOST", "CORE"))));
        assert!(check("inet_sock_destruct", Some(("NOT_SPECIFIED", "CORE"))));
        assert!(check("sk_stream_kill_queues", None));
        assert!(check("sk_stream_kill_queues.constprop.0.cold", None));
    }

    #[test]
    fn everything_else_is_not() {
        assert!(!check("nf_hook_slow", Some(("NETFILTER_DROP", "CORE"))));
        assert!(!check("tcp_v4_rcv", Some(("NOT_SPECIFIED", "CORE"))));
        assert!(!check("tcp_v4_rcv", None));
        assert!(!is_benign(None, None));
    }

    #[test]
    fn a_function_is_benign_only_where_no_reason_says_otherwise() {
        assert!(!check("inet_sock_destruct", Some(("PROTO_MEM", "CORE"))));
        assert!(!check("my_inet_sock_destruct", None));
    }

    #[test]
    fn another_subsystem_may_use_the_name_for_something_else() {
        assert!(!check("ovs_dp_process_packet", Some(("QUEUE_PURGE", "OPENVSWITCH"))));
    }

    #[test]
    fn compiler_suffixes_do_not_hide_a_function() {
        for symbol in ["f", "f.cold", "f.isra.0", "f.part.0", "f.constprop.0.isra.0", "f.llvm.7"] {
            assert_eq!(function_name(symbol), "f", "of {symbol}");
        }
        assert_eq!(function_name(".f"), ".f");
    }
}
