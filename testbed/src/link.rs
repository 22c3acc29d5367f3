//! Virtual Ethernet pairs and what their links count.

use std::{process::Command, thread, time::Duration};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{command::output, netns::Netns};

/// Joins two namespaces by a pair of links, each named as given; both ends are left down.
///
/// # Errors
/// When `ip link add` fails.
pub fn veth(a: &Netns, a_link: &str, b: &Netns, b_link: &str) -> Result<()> {
    output(Command::new("ip").args(["link", "add", a_link, "netns", a.name()]).args([
        "type",
        "veth",
        "peer",
        "name",
        b_link,
        "netns",
        b.name(),
    ]))
    .map(drop)
}

/// Frame counters of a link (`struct rtnl_link_stats64`, `include/uapi/linux/if_link.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames that came in or went out.
    pub packets: u64,
    /// Those that went out.
    pub sent: u64,
    /// Frames that came in and were discarded: no handler, or no room in the CPU's backlog.
    pub rx_dropped: u64,
    /// Frames that could not be sent, for example because the link has no carrier.
    pub tx_dropped: u64,
}

/// Reads the counters of `link` in `netns`.
///
/// # Errors
/// When there is no such link, or `ip` prints something else than its JSON.
pub fn stats(netns: &Netns, link: &str) -> Result<LinkStats> {
    let text = netns.ip(&format!("-s -j link show dev {link}"))?;
    parse(&text).with_context(|| format!("cannot read the counters of {link}"))
}

/// Waits until no frame has come in or gone out at `link` for `pause`, and for at most ten of them:
/// what was sent has arrived then.
///
/// # Errors
/// When its counters cannot be read.
pub fn wait_until_quiet(netns: &Netns, link: &str, pause: Duration) -> Result<()> {
    let mut before = stats(netns, link)?.packets;
    for _ in 0..10 {
        thread::sleep(pause);
        let now = stats(netns, link)?.packets;
        if now == before {
            break;
        }
        before = now;
    }
    Ok(())
}

fn parse(json: &str) -> Result<LinkStats> {
    #[derive(Deserialize)]
    struct Link {
        stats64: Stats,
    }
    #[derive(Deserialize)]
    struct Stats {
        rx: Direction,
        tx: Direction,
    }
    #[derive(Deserialize)]
    struct Direction {
        packets: u64,
        dropped: u64,
    }
    let [Link { stats64: Stats { rx, tx } }]: [Link; 1] = serde_json::from_str(json)?;
    Ok(LinkStats {
        packets: rx.packets + tx.packets,
        sent: tx.packets,
        rx_dropped: rx.dropped,
        tx_dropped: tx.dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_iproute2_json() {
        let json = r#"[{"ifname":"in0","stats64":{
            "rx":{"bytes":1,"packets":9,"errors":0,"dropped":7,"over_errors":0,"multicast":0},
            "tx":{"bytes":1,"packets":3,"errors":0,"dropped":2,"carrier_errors":0,"collisions":0}}}]"#;
        let expected = LinkStats { packets: 12, sent: 3, rx_dropped: 7, tx_dropped: 2 };
        assert_eq!(parse(json).unwrap(), expected);
    }

    #[test]
    fn refuses_a_link_without_counters() {
        assert!(parse(r#"[{"ifname":"in0"}]"#).is_err());
        assert!(parse("[]").is_err());
        assert!(parse("").is_err());
    }
}
