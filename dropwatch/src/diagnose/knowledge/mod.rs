//! What is known about drop reasons and the functions that drop.
//!
//! It is data: the TOML files beside this one, a topic each. Entries are recognised by names of
//! reasons and functions, never by numbers or kernel versions, and each names the kernel files it
//! rests on. The same table says what `dropwatch explain` shows and which drops reports fold away
//! as the kernel's housekeeping. `NOT_SPECIFIED` by itself is never among the latter: it means that
//! the caller was not yet taught to give a reason, and most real drops of older kernels carry it.

mod answer;
mod counter;
mod entry;
mod left_out;
mod line;
mod listed;
mod near;
mod pasted;
mod rule;
mod search;
mod subject;
mod word;

use std::{
    collections::BTreeMap,
    sync::{LazyLock, OnceLock},
};

use serde::Deserialize;

use self::subject::Texts;
pub use self::{
    answer::{Counted, Explanation},
    counter::CounterEntry,
    entry::{
        BLANKS, Benign, CORE, Check, DropEntry, Knob, KnobAction, NOT_SPECIFIED, Quantity, blanks,
    },
    near::Unknown,
    rule::RuleEntry,
    word::WordEntry,
};
use crate::report::model::{Reason, Symbol};

/// One file for each topic, in the order that they are listed in.
const TOPICS: [&str; 13] = [
    include_str!("firewall.toml"),
    include_str!("sockets.toml"),
    include_str!("tcp.toml"),
    include_str!("ip.toml"),
    include_str!("neighbours.toml"),
    include_str!("queues.toml"),
    include_str!("devices.toml"),
    include_str!("bridge.toml"),
    include_str!("tunnels.toml"),
    include_str!("unsaid_ip.toml"),
    include_str!("unsaid_sockets.toml"),
    include_str!("unsaid_devices.toml"),
    HOUSEKEEPING,
];

/// The topic that holds every entry about harmless drops. It is read by itself for reports: the
/// whole table would cost a live run some milliseconds.
const HOUSEKEEPING: &str = include_str!("housekeeping.toml");

/// What findings mean.
const RULES: [&str; 2] = [include_str!("rules.toml"), include_str!("rules_links.toml")];

/// What counters of the kernel count.
const COUNTERS: [&str; 3] = [
    include_str!("counters_ip.toml"),
    include_str!("counters_tcp.toml"),
    include_str!("counters_devices.toml"),
];

/// What the words of the outputs mean.
const WORDS: [&str; 2] = [include_str!("words_text.toml"), include_str!("words_json.toml")];

/// What holds for all of them.
const COMMON: &str = include_str!("table.toml");

/// All that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnowledgeTable {
    pub entries: Vec<DropEntry>,
    /// What findings mean.
    pub rules: Vec<RuleEntry>,
    /// What counters of the kernel count.
    pub counters: Vec<CounterEntry>,
    /// What the words of the outputs mean.
    pub words: Vec<WordEntry>,
    /// Words that are a topic, beside those of the rules.
    topics: Vec<String>,
    /// Drop reasons of the core that no entry explains.
    pub not_yet_explained: Vec<String>,
    /// Quantities and functions that only some hosts have, with what they need.
    pub needs: BTreeMap<String, String>,
    /// What texts are compared with: made when the first one is.
    texts: OnceLock<Texts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicFile {
    topic: String,
    entry: Vec<DropEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    rule: Vec<RuleEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CountersFile {
    counter: Vec<CounterEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WordsFile {
    word: Vec<WordEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommonFile {
    topics: Vec<String>,
    not_yet_explained: Vec<String>,
    needs: BTreeMap<String, String>,
}

impl KnowledgeTable {
    fn parse() -> Result<Self, toml::de::Error> {
        let CommonFile { topics, not_yet_explained, needs } = toml::from_str(COMMON)?;
        let mut entries = Vec::new();
        for text in TOPICS {
            entries.append(&mut topic(text)?);
        }
        let mut rules = Vec::new();
        for text in RULES {
            let RulesFile { mut rule } = toml::from_str(text)?;
            rules.append(&mut rule);
        }
        let mut counters = Vec::new();
        for text in COUNTERS {
            let CountersFile { mut counter } = toml::from_str(text)?;
            counters.append(&mut counter);
        }
        let mut words = Vec::new();
        for text in WORDS {
            let WordsFile { mut word } = toml::from_str(text)?;
            words.append(&mut word);
        }
        let texts = OnceLock::new();
        Ok(Self { entries, rules, counters, words, topics, not_yet_explained, needs, texts })
    }

    fn texts(&self) -> &Texts {
        self.texts.get_or_init(|| Texts::of(self))
    }

    /// Words, and some of several, that are a topic.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let of_rules = self.rules.iter().flat_map(RuleEntry::topics);
        self.topics.iter().map(String::as_str).chain(of_rules)
    }

    /// What is known about changing a setting.
    pub fn knob(&self, sysctl: &str) -> Option<&Knob> {
        let is_about =
            |knob: &&Knob| matches!(&knob.action, KnobAction::Set(name) if name == sysctl);
        self.entries.iter().flat_map(|entry| &entry.knobs).find(is_about)
    }

    /// Every function that an entry names, with repetitions.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().flat_map(|entry| entry.at.iter().chain(&entry.seen_at)).map(|f| &**f)
    }
}

/// Entries of one topic's file.
fn topic(text: &str) -> Result<Vec<DropEntry>, toml::de::Error> {
    let TopicFile { topic, entry } = toml::from_str(text)?;
    Ok(entry.into_iter().map(|entry| DropEntry { topic: topic.clone(), ..entry }).collect())
}

/// The table, read on first use.
///
/// # Errors
/// The table in this program is damaged; tests show that it is not.
pub fn table() -> Result<&'static KnowledgeTable, &'static toml::de::Error> {
    static TABLE: LazyLock<Result<KnowledgeTable, toml::de::Error>> =
        LazyLock::new(KnowledgeTable::parse);
    TABLE.as_ref()
}

/// Entries about harmless drops: the few that every row of every report is compared with.
fn always_benign() -> &'static [DropEntry] {
    static ENTRIES: LazyLock<Vec<DropEntry>> = LazyLock::new(|| {
        let mut entries = topic(HOUSEKEEPING).unwrap_or_default();
        entries.retain(|entry| matches!(entry.benign, Benign::Always(_)));
        entries
    });
    &ENTRIES
}

/// What is known about drops at `symbol` for `reason`, if they are harmless.
pub fn benign(symbol: Option<&Symbol>, reason: Option<&Reason>) -> Option<&'static DropEntry> {
    let subsystem = reason.and_then(|reason| reason.subsystem.as_deref()).unwrap_or(CORE);
    // Before Linux 5.17 no caller gave a reason.
    let reason = reason.map_or(NOT_SPECIFIED, |reason| &reason.name);
    let function = symbol.map(|symbol| function_name(&symbol.name));
    let here = |entry: &DropEntry| function.is_some_and(|name| entry.is_about(name));
    always_benign()
        .iter()
        .find(|entry| entry.has_reason(subsystem, reason) && (entry.at.is_empty() || here(entry)))
}

/// What is known about changing a setting.
pub fn knob(sysctl: &str) -> Option<&'static Knob> {
    table().ok()?.knob(sysctl)
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
        assert!(check("inet_sock_destruct", Some(("NOT_SPECIFIED", "CORE"))));
        assert!(check("sk_stream_kill_queues", None));
        assert!(check("sk_stream_kill_queues.constprop.0.cold", None));
        for function in ["udp_destruct_common", "udpv6_destruct_sock", "skb_queue_purge", "unix_gc"]
        {
            assert!(check(function, None), "{function}");
            assert!(check(function, Some(("NOT_SPECIFIED", "CORE"))), "{function}");
            assert!(!check(function, Some(("SOCKET_RCVBUFF", "CORE"))), "{function}");
        }
        assert!(check("unix_release_sock", Some(("SOCKET_CLOSE", "CORE"))));
    }

    #[test]
    fn what_was_no_packet_yet_and_copies_for_captures_are_benign() {
        for function in [
            "__ip_flush_pending_frames.isra.0",
            "ip6_flush_pending_frames",
            "packet_rcv",
            "tpacket_rcv",
            "ip6_mc_input",
        ] {
            assert!(check(function, None), "{function}");
            assert!(check(function, Some(("NOT_SPECIFIED", "CORE"))), "{function}");
            assert!(!check(function, Some(("NETFILTER_DROP", "CORE"))), "{function}");
        }
        assert!(check("tpacket_rcv", Some(("PACKET_SOCK_ERROR", "CORE"))));
        assert!(!check("ip_finish_output2", None));
    }

    #[test]
    fn what_was_sent_is_no_drop() {
        for function in ["vmxnet3_tq_tx_complete.isra.0", "e100_tx_clean", "bnxt_tx_int"] {
            assert!(check(function, Some(("NOT_SPECIFIED", "CORE"))), "{function}");
            assert!(check(function, None), "{function}");
        }
        // What the same drivers do not send, and what only counters distinguish.
        for function in
            ["vmxnet3_rq_rx_complete", "vmxnet3_xmit_frame", "e100_poll", "net_tx_action"]
        {
            assert!(!check(function, Some(("NOT_SPECIFIED", "CORE"))), "{function}");
        }
    }

    #[test]
    fn everything_else_is_not() {
        assert!(!check("nf_hook_slow", Some(("NETFILTER_DROP", "CORE"))));
        assert!(!check("tcp_v4_rcv", Some(("NOT_SPECIFIED", "CORE"))));
        // IP of a VLAN that has no interface is lost for this reason.
        for function in ["ip_rcv_core", "ip6_rcv_core"] {
            assert!(!check(function, Some(("OTHERHOST", "CORE"))), "{function}");
        }
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

    #[test]
    fn what_is_always_harmless_is_in_the_topic_that_reports_read() {
        let always = |entry: &&DropEntry| matches!(entry.benign, Benign::Always(_));
        let all: Vec<&DropEntry> = table().expect("table").entries.iter().filter(always).collect();
        assert_eq!(all, always_benign().iter().collect::<Vec<_>>());
        assert_eq!(all.len(), 32);
    }
}
