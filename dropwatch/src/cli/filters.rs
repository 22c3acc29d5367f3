//! The options that leave drops out.

use clap::{Args, ValueHint};
use dropwatch_common::filter::{Bits, Lengths, Masked, Ports, Protocol};

use crate::{
    exit::Failure,
    filter::{self, Packets, TypedExpression, bits},
    report::{
        keys::{Choice, Function, Glob, KeyError, Keys},
        protocol,
        shell::{is_hidden, quote},
    },
};

/// Letters of an expression that are shown.
const MOST_SHOWN: usize = 500;

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
    /// Only TCP with these flags set: syn,ack; of those behind a slash no other: syn/syn,ack
    #[arg(long, value_name = "FLAGS", value_parser = filtered(|text| Choice::parse(text, bits::tcp_flags)))]
    pub tcp_flags: Vec<Filtered<Bits>>,
    /// Only packets of so many bytes, or a range (64-128, 1401-), where they are dropped
    #[arg(long, value_name = "BYTES", value_parser = filtered(|text| Choice::parse(text, filter::lengths)))]
    pub length: Vec<Filtered<Lengths>>,
    /// Only packets with this mark, or some bits of it (0x10/0xf0)
    #[arg(long, value_name = "MARK", value_parser = filtered(|text| Choice::parse(text, bits::mark)))]
    pub mark: Vec<Filtered<Bits>>,
    /// Only packets that came in by a device (in), or that this host sent (out)
    #[arg(long, value_name = "in|out", value_parser = filtered(|text| Choice::parse(text, filter::direction)))]
    pub direction: Vec<Filtered<u32>>,
    /// Only packets that match this one expression, as tcpdump takes it (pcap-filter(7))
    #[arg(long, value_name = "EXPR", value_hint = ValueHint::Other)]
    pub filter: Option<String>,
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
    /// The expression that packets are to match: of the option, or the words that stand free.
    ///
    /// # Errors
    /// Usage, where there are both.
    pub fn expression(&self, free: &[String]) -> Result<Option<TypedExpression>, Failure> {
        match (&self.filter, free) {
            (Some(_), [_, ..]) => Err(Failure::Usage(format!(
                "--filter is given, and {} would be another expression: join them by `and` or `or`",
                quote(&free.join(" "))
            ))),
            (given, []) => Ok(given
                .as_ref()
                .map(|text| TypedExpression { text: text.clone(), is_free: false })),
            (None, words) => Ok(Some(TypedExpression { text: words.join(" "), is_free: true })),
        }
    }

    /// The filters that the kernel side decides, on packets.
    pub fn packets(&self, expression: Option<TypedExpression>) -> Packets {
        Packets {
            netns: choices(&self.netns),
            iface: choices(&self.iface),
            protocol: choices(&self.proto),
            host: choices(&self.host),
            port: choices(&self.port),
            tcp_flags: choices(&self.tcp_flags),
            length: choices(&self.length),
            mark: choices(&self.mark),
            direction: choices(&self.direction),
            expression,
        }
    }

    /// The filters that user space decides, on rows.
    pub fn keys(&self) -> Keys {
        Keys { reasons: choices(&self.reason), symbols: choices(&self.symbol) }
    }

    /// All filters as they were typed, in the order of the help.
    pub fn typed(&self, expression: Option<&TypedExpression>) -> Vec<String> {
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
            of("--tcp-flags", &self.tcp_flags),
            of("--length", &self.length),
            of("--mark", &self.mark),
            of("--direction", &self.direction),
            expression.map(|it| format!("--filter {}", shown(&it.text))).into_iter().collect(),
        ]
        .concat()
    }
}

/// An expression as it stands in the first lines of a run: on one line, as a shell takes it.
fn shown(expression: &str) -> String {
    let words: Vec<&str> = expression.split_whitespace().collect();
    let line = words.join(" ").replace(is_hidden, "\u{fffd}");
    match line.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", quote(&line[..end])),
        None => quote(&line).into_owned(),
    }
}

fn choices<T: Clone>(given: &[Filtered<T>]) -> Vec<Choice<T>> {
    given.iter().map(|filtered| filtered.choice.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_shown_as_one_word_of_a_shell() {
        assert_eq!(shown("udp  dst\tport 53\n"), "'udp dst port 53'");
        assert_eq!(shown("tcp"), "tcp");
        assert_eq!(shown("host \u{1b}[2J"), "'host \u{fffd}[2J'");
        let long = shown(&"or tcp ".repeat(1_000));
        assert!(long.len() < 600 && long.ends_with("…"), "{long}");
    }

    #[test]
    fn there_is_one_expression_whichever_way_it_is_given() {
        let filters = |filter: Option<&str>| Filters {
            reason: Vec::new(),
            symbol: Vec::new(),
            netns: Vec::new(),
            iface: Vec::new(),
            proto: Vec::new(),
            host: Vec::new(),
            port: Vec::new(),
            tcp_flags: Vec::new(),
            length: Vec::new(),
            mark: Vec::new(),
            direction: Vec::new(),
            filter: filter.map(str::to_owned),
            later: false,
        };
        let words = ["tcp", "port", "443"].map(str::to_owned);
        let expression = |filter, free| filters(filter).expression(free).ok();
        let given = |text: &str, is_free| TypedExpression { text: text.to_owned(), is_free };
        assert_eq!(expression(None, &[]), Some(None));
        assert_eq!(expression(Some("udp"), &[]), Some(Some(given("udp", false))));
        assert_eq!(expression(None, &words), Some(Some(given("tcp port 443", true))));
        assert_eq!(expression(Some("udp"), &words), None);
        assert_eq!(filters(None).typed(Some(&given("a b", true))), ["--filter 'a b'"]);
    }
}
