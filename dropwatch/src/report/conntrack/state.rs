//! States of tracked connections, and how long each is kept.

use super::super::protocol::number::{DCCP, GRE, ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE};

/// Bits of an entry's status (`enum ip_conntrack_status`,
/// include/uapi/linux/netfilter/nf_conntrack_common.h).
mod status {
    pub(super) const SEEN_REPLY: u32 = 1 << 1;
    pub(super) const ASSURED: u32 = 1 << 2;
    pub(super) const OFFLOAD: u32 = 1 << 14;
    pub(super) const HW_OFFLOAD: u32 = 1 << 15;
}

/// States of connections whose protocol has none, by what was seen of them, named as `conntrack -L`
/// marks them.
const UNREPLIED: &str = "UNREPLIED";
const REPLIED: &str = "REPLIED";
const ASSURED: &str = "ASSURED";
/// State of connections in a flow table, which bypasses connection tracking: the kernel reports no
/// state of their own.
const OFFLOAD: &str = "OFFLOAD";
/// A number that is none of the known states.
const UNKNOWN: &str = "UNKNOWN";

/// `enum tcp_conntrack` (include/uapi/linux/netfilter/nf_conntrack_tcp.h), each with the setting
/// that says how long it is kept.
const TCP_STATES: [(&str, Option<&str>); 10] = [
    ("NONE", None),
    ("SYN_SENT", Some("nf_conntrack_tcp_timeout_syn_sent")),
    ("SYN_RECV", Some("nf_conntrack_tcp_timeout_syn_recv")),
    ("ESTABLISHED", Some("nf_conntrack_tcp_timeout_established")),
    ("FIN_WAIT", Some("nf_conntrack_tcp_timeout_fin_wait")),
    ("CLOSE_WAIT", Some("nf_conntrack_tcp_timeout_close_wait")),
    ("LAST_ACK", Some("nf_conntrack_tcp_timeout_last_ack")),
    ("TIME_WAIT", Some("nf_conntrack_tcp_timeout_time_wait")),
    ("CLOSE", Some("nf_conntrack_tcp_timeout_close")),
    // Both sides opened at once; two minutes, without a setting.
    ("SYN_SENT2", None),
];

/// `enum sctp_conntrack` (nf_conntrack_sctp.h in the same folder).
const SCTP_STATES: [(&str, Option<&str>); 10] = [
    ("NONE", None),
    ("CLOSED", Some("nf_conntrack_sctp_timeout_closed")),
    ("COOKIE_WAIT", Some("nf_conntrack_sctp_timeout_cookie_wait")),
    ("COOKIE_ECHOED", Some("nf_conntrack_sctp_timeout_cookie_echoed")),
    ("ESTABLISHED", Some("nf_conntrack_sctp_timeout_established")),
    ("SHUTDOWN_SENT", Some("nf_conntrack_sctp_timeout_shutdown_sent")),
    ("SHUTDOWN_RECD", Some("nf_conntrack_sctp_timeout_shutdown_recd")),
    ("SHUTDOWN_ACK_SENT", Some("nf_conntrack_sctp_timeout_shutdown_ack_sent")),
    ("HEARTBEAT_SENT", Some("nf_conntrack_sctp_timeout_heartbeat_sent")),
    ("HEARTBEAT_ACKED", Some("nf_conntrack_sctp_timeout_heartbeat_acked")),
];

/// `enum ct_dccp_states` (include/linux/netfilter/nf_conntrack_dccp.h, until Linux 6.16).
const DCCP_STATES: [(&str, Option<&str>); 10] = [
    ("NONE", None),
    ("REQUEST", Some("nf_conntrack_dccp_timeout_request")),
    ("RESPOND", Some("nf_conntrack_dccp_timeout_respond")),
    ("PARTOPEN", Some("nf_conntrack_dccp_timeout_partopen")),
    ("OPEN", Some("nf_conntrack_dccp_timeout_open")),
    ("CLOSEREQ", Some("nf_conntrack_dccp_timeout_closereq")),
    ("CLOSING", Some("nf_conntrack_dccp_timeout_closing")),
    ("TIMEWAIT", Some("nf_conntrack_dccp_timeout_timewait")),
    ("IGNORE", None),
    ("INVALID", None),
];

/// The protocol's own states; none for most protocols.
fn states(protocol: u8) -> &'static [(&'static str, Option<&'static str>)] {
    match protocol {
        TCP => &TCP_STATES,
        SCTP => &SCTP_STATES,
        DCCP => &DCCP_STATES,
        _ => &[],
    }
}

/// The state of an entry: `own` is the number that its protocol (a number above IP) gives it, if
/// it does.
pub fn state(protocol: u8, own: Option<u8>, status: u32) -> &'static str {
    let known = states(protocol);
    let has = |bits| status & bits != 0;
    match own {
        _ if has(status::OFFLOAD | status::HW_OFFLOAD) => OFFLOAD,
        Some(own) if !known.is_empty() => {
            known.get(usize::from(own)).map_or(UNKNOWN, |(name, _)| name)
        }
        _ if has(status::ASSURED) => ASSURED,
        _ if has(status::SEEN_REPLY) => REPLIED,
        _ => UNREPLIED,
    }
}

/// The setting below `net.netfilter` that says how long an entry in this state is kept after its
/// last packet, seconds; `None` where there is none.
///
/// A rule may set another timeout for its connections (`ct timeout`, `-j CT --timeout`).
pub fn timeout(protocol: u8, state: &str) -> Option<&'static str> {
    match (protocol, state) {
        (_, OFFLOAD) => None,
        (UDP | UDP_LITE, ASSURED) => Some("nf_conntrack_udp_timeout_stream"),
        (UDP | UDP_LITE, _) => Some("nf_conntrack_udp_timeout"),
        (GRE, ASSURED) => Some("nf_conntrack_gre_timeout_stream"),
        (GRE, _) => Some("nf_conntrack_gre_timeout"),
        (ICMP, _) => Some("nf_conntrack_icmp_timeout"),
        (ICMPV6, _) => Some("nf_conntrack_icmpv6_timeout"),
        (TCP | SCTP | DCCP, _) => {
            states(protocol).iter().find(|(name, _)| *name == state).and_then(|(_, name)| *name)
        }
        _ => Some("nf_conntrack_generic_timeout"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN_REPLY: u32 = 1 << 1;

    #[test]
    fn states_are_the_protocols_own_or_what_was_seen() {
        assert_eq!(state(TCP, Some(7), SEEN_REPLY), "TIME_WAIT");
        assert_eq!(state(TCP, Some(200), SEEN_REPLY), "UNKNOWN");
        assert_eq!(state(SCTP, Some(4), 0), "ESTABLISHED");
        assert_eq!(state(UDP, None, 0), "UNREPLIED");
        assert_eq!(state(UDP, None, SEEN_REPLY), "REPLIED");
        assert_eq!(state(UDP, None, SEEN_REPLY | 1 << 2), "ASSURED");
        assert_eq!(state(UDP, Some(7), 0), "UNREPLIED", "a number that means nothing there");
        assert_eq!(state(TCP, None, SEEN_REPLY | 1 << 14), "OFFLOAD");
    }

    #[test]
    fn each_state_has_its_timeout() {
        assert_eq!(timeout(TCP, "TIME_WAIT"), Some("nf_conntrack_tcp_timeout_time_wait"));
        assert_eq!(timeout(TCP, "SYN_SENT2"), None);
        assert_eq!(timeout(TCP, OFFLOAD), None);
        assert_eq!(timeout(UDP, ASSURED), Some("nf_conntrack_udp_timeout_stream"));
        assert_eq!(timeout(UDP, REPLIED), Some("nf_conntrack_udp_timeout"));
        assert_eq!(timeout(ICMPV6, REPLIED), Some("nf_conntrack_icmpv6_timeout"));
        assert_eq!(timeout(253, UNREPLIED), Some("nf_conntrack_generic_timeout"));
    }
}
