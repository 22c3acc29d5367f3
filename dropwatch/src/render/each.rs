//! A line for each drop, as it happens.
//!
//! ```text
//! 07:35:06.204518  nf_hook_slow+0x7d (NETFILTER_DROP) · gw · eth0 · tcp 192.168.0.2:51234 → 192.168.0.30:8080 SYN · on CPU: nginx/812
//! ```

use std::io;

use jiff::Timestamp;

use super::{
    Renderer, Style,
    details::{between, label, one_flow},
    palette::{STRONG, WEAK, paint},
    summary,
    words::{self, count, on_cpu},
};
use crate::report::{
    model::{Line, Sampled},
    nat::Nat,
    tunnel::Inner,
};

/// Columns of the clock at the head of a line.
const CLOCK: usize = 17;

/// Renders samples, and of the other lines what a command came to.
#[derive(Debug)]
pub struct EachDrop {
    style: Style,
}

impl Renderer for EachDrop {
    fn render(&self, line: &Line, page: &mut Vec<u8>) -> io::Result<()> {
        let medium = self.style.medium;
        let lines = match line {
            Line::Sample(sample) => medium.row(self.drop(sample), CLOCK),
            Line::End(end) => {
                let clock = |time| self.clock(time).chars().take(8).collect();
                end.run.iter().flat_map(|ran| summary::lines(ran, medium, clock)).collect()
            }
            Line::Start(_) | Line::Report(_) => Vec::new(),
        };
        let text: String = lines.into_iter().map(|line| line + "\n").collect();
        medium.write(&text, page)
    }
}

impl EachDrop {
    pub fn new(style: Style) -> Self {
        Self { style }
    }

    fn drop(&self, sample: &Sampled) -> String {
        let place = words::place(&sample.place, sample.address.known());
        let mut line = format!("{}  {}", self.clock(sample.time), paint(STRONG, place));
        for piece in facts(sample) {
            line += &format!(" · {piece}");
        }
        if sample.weight > 1 {
            let others = count(sample.weight - 1, "drop");
            line += &paint(WEAK, format!(" · after {others} not shown"));
        }
        line
    }

    /// `07:35:06.204518`
    fn clock(&self, time: Timestamp) -> String {
        let local = self.style.time_zone.to_datetime(time);
        let micros = local.subsec_nanosecond() / 1000;
        format!("{:02}:{:02}:{:02}.{micros:06}", local.hour(), local.minute(), local.second())
    }
}

/// Whose it was, as far as that is proved.
fn facts(sample: &Sampled) -> Vec<String> {
    let netns = sample.netns.as_ref().map(|netns| match &netns.name {
        Some(name) => label(name),
        None => format!("netns {}", netns.inum),
    });
    let interface = sample.interface.as_ref().map(|interface| match &interface.name {
        Some(name) => label(name),
        None => format!("ifindex {}", interface.index),
    });
    let mut facts = match (netns, interface) {
        (None, None) => vec!["netns and interface unknown".to_owned()],
        (netns, interface) => vec![
            netns.unwrap_or_else(|| "netns unknown".to_owned()),
            interface.unwrap_or_else(|| "interface unknown".to_owned()),
        ],
    };
    facts.push(sample.flow.as_ref().map_or_else(|| "protocol unknown".to_owned(), one_flow));
    if let Some(Inner { tunnel, tunnel_id: id, flow }) = &sample.inner {
        let id = id.map_or(String::new(), |id| format!(" {id}"));
        facts.push(format!("in {}{id}: {}", label(tunnel), one_flow(flow)));
    }
    if let Some(Nat { original, reply }) = &sample.nat {
        facts.push(format!("NAT {}, answers {}", between(original), between(reply)));
    }
    facts.extend(sample.task.as_ref().map(on_cpu));
    facts
}
