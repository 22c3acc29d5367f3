//! The options that leave drops out.

use clap::Args;
use dropwatch_common::filter::{Masked, Ports, Protocol};

use crate::{
    filter::{self, Packets},
    report::{
        keys::{Choice, Function, Glob, KeyError, Keys},
        protocol,
    },
};

/// Which drops to count. Values of one option are alternatives; every option must let a drop
/// through.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters (repeatable; '!VALUE' excludes)")]
pub struct Filters {
    /// Only drops for this reason; * stands for anything
    #[arg(long, value_name = "NAME", value_parser = filtered(Choice::reason))]
    pub reason: Vec<Filtered<Glob>>,
    /// Only drops in this function, or at this call (NAME+0x7d); * stands for anything
    #[arg(long, value_name = "NAME", value_parser = filtered(Choice::function))]
    pub symbol: Vec<Filtered<Function>>,
    /// Only packets of this network namespace: its name, `host`, /proc/PID/ns/net
    #[arg(long, value_name = "NAME", value_parser = filtered(|text| Choice::parse(text, name)))]
    pub netns: Vec<Filtered<String>>,
    /// Only packets at this interface
    #[arg(long, value_name = "NAME", value_parser = filtered(|text| Choice::parse(text, filter::interface)))]
    pub iface: Vec<Filtered<Masked>>,
    /// Only this protocol: tcp, udp, icmp, arp, ipv6, a number, 0x88cc
    #[arg(long, value_name = "PROTOCOL", value_parser = filtered(|text| Choice::parse(text, protocol::parse)))]
    pub proto: Vec<Filtered<Protocol>>,
    /// Only packets from or to this address, or network (10.0.0.0/8)
    #[arg(long, value_name = "ADDRESS", value_parser = filtered(|text| Choice::parse(text, filter::host)))]
    pub host: Vec<Filtered<Masked>>,
    /// Only packets from or to this port, or range (8000-8099)
    #[arg(long, value_name = "PORT", value_parser = filtered(|text| Choice::parse(text, filter::ports)))]
    pub port: Vec<Filtered<Ports>>,
    /// Take names that are not there yet: interfaces, namespaces, what modules bring
    #[arg(long)]
    pub later: bool,
}

/// A choice, and how it was typed.
#[derive(Clone, Debug)]
pub struct Filtered<T> {
    pub choice: Choice<T>,
    pub typed: String,
}

/// Has a parser of values keep how each was typed.
fn filtered<T, E>(
    parse: impl Fn(&str) -> Result<Choice<T>, E> + Clone,
) -> impl Fn(&str) -> Result<Filtered<T>, E> + Clone {
    move |text| Ok(Filtered { choice: parse(text)?, typed: text.to_owned() })
}

/// Any name that is not empty.
///
/// # Errors
/// [`KeyError::NoName`].
pub(super) fn name(text: &str) -> Result<String, KeyError> {
    if text.is_empty() { Err(KeyError::NoName) } else { Ok(text.to_owned()) }
}

impl Filters {
    /// The filters that the kernel side decides, on packets.
    pub fn packets(&self) -> Packets {
        Packets {
            netns: choices(&self.netns),
            iface: choices(&self.iface),
            protocol: choices(&self.proto),
            host: choices(&self.host),
            port: choices(&self.port),
        }
    }

    /// The filters that user space decides, on rows.
    pub fn keys(&self) -> Keys {
        Keys { reasons: choices(&self.reason), symbols: choices(&self.symbol) }
    }

    /// All filters as they were typed, in the order of the help.
    pub fn typed(&self) -> Vec<String> {
        fn of<T>(option: &str, given: &[Filtered<T>]) -> Vec<String> {
            given.iter().map(|filtered| format!("{option} {}", filtered.typed)).collect()
        }
        [
            of("--reason", &self.reason),
            of("--symbol", &self.symbol),
            of("--netns", &self.netns),
            of("--iface", &self.iface),
            of("--proto", &self.proto),
            of("--host", &self.host),
            of("--port", &self.port),
        ]
        .concat()
    }
}

fn choices<T: Clone>(given: &[Filtered<T>]) -> Vec<Choice<T>> {
    given.iter().map(|filtered| filtered.choice.clone()).collect()
}
