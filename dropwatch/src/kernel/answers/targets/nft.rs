//! Rules of nftables, listed over netlink (`NFT_MSG_GETRULE`, net/netfilter/nf_tables_api.c).
//!
//! A rule is a list of expressions. What one of them looks up another has put into a register before: a
//! constant is known, what comes of a map is not. Such a rule may send packets anywhere.

use std::{collections::BTreeMap, net::IpAddr};

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::{
    super::{Unanswered, unanswered},
    info,
};
use crate::{
    kernel::{
        HostRoot,
        netlink::{Netlink, NetlinkError, address, attributes},
        packet_filter::has_nftables,
    },
    report::question::{Does, RulePlace, RuleTarget, Sought},
};

/// `NFNL_SUBSYS_NFTABLES`, and `NFT_MSG_GETRULE` of it.
const GET_RULE: u16 = (10 << 8) | 7;
/// `struct nfgenmsg` of a question: every family, version 0, no resource.
const ANYTHING: [u8; 4] = [0; 4];
const NFGENMSG: usize = 4;
/// Longest rule list read, rules: more than a kube-proxy of 10,000 services has.
const MOST_RULES: usize = 100_000;

/// `enum nft_rule_attributes`
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const EXPRESSIONS: u16 = 4;
/// `enum nft_expr_attributes`
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFT_QUEUE_FLAG_BYPASS`
const BYPASS: u16 = 1;
/// `NFT_NAT_SNAT`, `NFT_NAT_DNAT`
const SNAT: u32 = 0;
const DNAT: u32 = 1;

/// Families as `nft` calls them (`NFPROTO_*`).
const FAMILIES: [(u8, &str); 6] =
    [(1, "inet"), (2, "ip"), (3, "arp"), (5, "netdev"), (7, "bridge"), (10, "ip6")];

/// The rules of the calling thread's namespace that do what is sought.
pub(super) fn targets(sought: Sought) -> Result<Vec<RuleTarget>, Unanswered> {
    if !has_nftables(&HostRoot::default()) {
        return Ok(Vec::new());
    }
    let mut netlink = Netlink::open(NETLINK_NETFILTER).map_err(|error| unanswered(&error))?;
    let mut rules = Rules::new(sought);
    match netlink.ask_all(GET_RULE, &ANYTHING, |message| rules.add(message)) {
        Ok(()) if rules.read <= MOST_RULES => Ok(rules.done()),
        Ok(()) | Err(NetlinkError::Malformed) => Err(Unanswered::Failed),
        Err(NetlinkError::Io(error)) => match error.raw_os_error() {
            // No nftables in this kernel.
            Some(libc::EINVAL | libc::EOPNOTSUPP) => Ok(Vec::new()),
            _ => Err(unanswered(&error)),
        },
    }
}

/// The rules read so far.
struct Rules {
    sought: Sought,
    read: usize,
    found: Vec<(RuleTarget, (u8, String))>,
    /// Tables with expressions of iptables.
    by_iptables: Vec<(u8, String)>,
}

impl Rules {
    fn new(sought: Sought) -> Self {
        Self { sought, read: 0, found: Vec::new(), by_iptables: Vec::new() }
    }

    /// Looks at one `NFT_MSG_NEWRULE`.
    fn add(&mut self, message: &[u8]) {
        self.read += 1;
        if self.read > MOST_RULES || self.found.len() > super::MOST {
            return;
        }
        let (mut table, mut chain, mut does) = (String::new(), String::new(), None);
        let Some((&family, body)) = message.first().zip(message.get(NFGENMSG..)) else { return };
        let mut by_iptables = false;
        for (kind, value) in attributes(body) {
            match kind {
                TABLE => table = text(value),
                CHAIN => chain = text(value),
                EXPRESSIONS => (does, by_iptables) = read(value, family, self.sought),
                _ => {}
            }
        }
        let key = (family, table.clone());
        if by_iptables && !self.by_iptables.contains(&key) && self.by_iptables.len() < super::MOST {
            self.by_iptables.push(key.clone());
        }
        let known = FAMILIES.iter().find(|(number, _)| *number == family);
        if let (Some(does), Some((_, family))) = (does, known) {
            let rule = RulePlace::Nft { family, table, chain, by_iptables };
            self.found.push((RuleTarget { does, rule }, key));
        }
    }

    /// Where one rule of a table is written by iptables, all are to be shown by it.
    fn done(self) -> Vec<RuleTarget> {
        let Self { found, by_iptables: tables, .. } = self;
        let settled = found.into_iter().map(|(mut target, key)| {
            if let RulePlace::Nft { by_iptables, .. } = &mut target.rule {
                *by_iptables = tables.contains(&key);
            }
            target
        });
        settled.collect()
    }
}

/// What the expressions of a rule do, and whether one of them is iptables'.
fn read(expressions: &[u8], family: u8, sought: Sought) -> (Option<Does>, bool) {
    let mut registers: BTreeMap<u32, &[u8]> = BTreeMap::new();
    let (mut does, mut by_iptables) = (None, false);
    for (_, expression) in attributes(expressions) {
        let (mut name, mut data) = ("", &[][..]);
        for (kind, value) in attributes(expression) {
            match kind {
                NAME => name = std::str::from_utf8(value).unwrap_or("").trim_end_matches('\0'),
                DATA => data = value,
                _ => {}
            }
        }
        let field = |sought: u16| attributes(data).find(|(kind, _)| *kind == sought);
        let word = |kind: u16| {
            let (_, value) = field(kind)?;
            Some(u32::from_be_bytes(value.try_into().ok()?))
        };
        let half = |kind: u16| {
            let (_, value) = field(kind)?;
            Some(u16::from_be_bytes(value.try_into().ok()?))
        };
        // What a register holds that this field names: an unknown one where the register does not say.
        let register = |kind: u16| Some(registers.get(&word(kind)?).copied());
        match (name, sought) {
            ("immediate", _) => {
                let value = field(2).and_then(|(_, data)| attributes(data).next());
                if let (Some(to), Some((_, value))) = (word(1), value) {
                    registers.insert(to, value);
                }
            }
            // Whatever else writes to a register makes it unknown.
            ("lookup", _) => _ = word(3).map(|to| registers.remove(&to)),
            ("match", _) => by_iptables = true,
            ("target", _) => {
                by_iptables = true;
                let target = field(1).map(|(_, name)| text(name)).unwrap_or_default();
                let revision = word(2).and_then(|it| u8::try_from(it).ok()).unwrap_or(0);
                let info = field(3).map_or(&[][..], |(_, info)| info);
                does = info::does(&target, revision, info, family == 10, sought).or(does);
            }
            ("queue", Sought::Queue) => {
                let first = half(1).unwrap_or(0);
                // The number may come from a register.
                let last = match half(1) {
                    Some(first) => first.saturating_add(half(2).unwrap_or(1).max(1) - 1),
                    None => u16::MAX,
                };
                let bypass = half(3).unwrap_or(0) & BYPASS != 0;
                does = Some(Does::Queue { first, last, bypass });
            }
            ("masq", Sought::SourceNat) => {
                does = Some(Does::SourceNat { ports: ports(register(2), register(3)) });
            }
            ("nat", Sought::SourceNat) if word(1) == Some(SNAT) => {
                does = Some(Does::SourceNat { ports: ports(register(5), register(6)) });
            }
            ("nat", Sought::To(address)) if word(1) == Some(DNAT) => {
                does = reaches(register(3), register(4), address).then_some(Does::Destination);
            }
            _ => {}
        }
    }
    (does, by_iptables)
}

/// What a field names: no register, one whose content is not known, or its content.
type Register<'a> = Option<Option<&'a [u8]>>;

fn ports(first: Register<'_>, last: Register<'_>) -> Option<(u16, u16)> {
    let port =
        |register: Register<'_>| Some(u16::from_be_bytes(*register.flatten()?.first_chunk()?));
    let first = port(first)?;
    Some((first, port(last).unwrap_or(first)))
}

/// Whether a translation to these addresses may be one to `to`.
fn reaches(first: Register<'_>, last: Register<'_>, to: IpAddr) -> bool {
    let Some(first) = first else { return false };
    let Some(first) = first.and_then(address) else { return true };
    match last {
        None => first == to,
        Some(None) => true,
        Some(Some(last)) => address(last).is_none_or(|last| (first..=last).contains(&to)),
    }
}

/// A name up to its final zero, cleaned: those of tables and chains are anyone's choice.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    crate::kernel::clean(&String::from_utf8_lossy(&value[..end]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::netlink::fixture::attribute;

    fn expression(name: &str, fields: &[Vec<u8>]) -> Vec<u8> {
        let name = [name.as_bytes(), b"\0"].concat();
        attribute(1, &[attribute(NAME, &name), attribute(DATA, &fields.concat())].concat())
    }

    fn word(kind: u16, value: u32) -> Vec<u8> {
        attribute(kind, &value.to_be_bytes())
    }

    fn constant(register: u32, value: &[u8]) -> Vec<u8> {
        expression("immediate", &[word(1, register), attribute(2, &attribute(1, value))])
    }

    fn rule(family: u8, expressions: &[Vec<u8>]) -> Vec<u8> {
        [
            vec![family, 0, 0, 0],
            attribute(TABLE, b"t\0"),
            attribute(CHAIN, b"c\0"),
            attribute(EXPRESSIONS, &expressions.concat()),
        ]
        .concat()
    }

    fn found(expressions: &[Vec<u8>], sought: Sought) -> Vec<Does> {
        let mut rules = Rules::new(sought);
        rules.add(&rule(2, expressions));
        rules.done().into_iter().map(|target| target.does).collect()
    }

    #[test]
    fn a_queue_has_numbers_or_one_that_is_looked_up() {
        let half = |kind, value: u16| attribute(kind, &value.to_be_bytes());
        let of = |fields: &[Vec<u8>]| found(&[expression("queue", fields)], Sought::Queue);
        let queue = |first, last, bypass| [Does::Queue { first, last, bypass }];
        assert_eq!(of(&[half(1, 5), half(2, 1)]), queue(5, 5, false));
        assert_eq!(of(&[half(1, 5), half(2, 4), half(3, 1)]), queue(5, 8, true));
        assert_eq!(of(&[word(4, 1)]), queue(0, u16::MAX, false));
        assert_eq!(of(&[]).len(), 1);
        assert_eq!(found(&[expression("counter", &[])], Sought::Queue), []);
    }

    #[test]
    fn ports_of_source_nat_are_constants_of_registers() {
        let ports =
            [constant(1, &40_000_u16.to_be_bytes()), constant(2, &40_004_u16.to_be_bytes())];
        let masq = expression("masq", &[word(2, 1), word(3, 2)]);
        let known = [Does::SourceNat { ports: Some((40_000, 40_004)) }];
        assert_eq!(found(&[ports.concat(), masq.clone()], Sought::SourceNat), known);
        assert_eq!(found(&[masq], Sought::SourceNat), [Does::SourceNat { ports: None }]);
        let snat = expression("nat", &[word(1, SNAT), word(5, 1), word(6, 2)]);
        assert_eq!(found(&[ports.concat(), snat], Sought::SourceNat), known);
    }

    #[test]
    fn a_destination_is_a_constant_or_may_be_any() {
        let to = Sought::To([10, 104, 1, 11].into());
        let dnat = expression("nat", &[word(1, DNAT), word(3, 1)]);
        let of = |expressions: &[Vec<u8>]| found(expressions, to).len();
        assert_eq!(of(&[constant(1, &[10, 104, 1, 11]), dnat.clone()]), 1);
        assert_eq!(of(&[constant(1, &[10, 104, 1, 12]), dnat.clone()]), 0);
        assert_eq!(of(std::slice::from_ref(&dnat)), 1, "of a map");
        let replaced = expression("lookup", &[word(3, 1)]);
        assert_eq!(of(&[constant(1, &[10, 104, 1, 12]), replaced, dnat]), 1);
        let range = expression("nat", &[word(1, DNAT), word(3, 1), word(4, 2)]);
        let ends = [constant(1, &[10, 104, 1, 9]), constant(2, &[10, 104, 1, 12])];
        assert_eq!(of(&[ends.concat(), range]), 1);
        assert_eq!(of(&[expression("nat", &[word(1, SNAT), word(3, 1)])]), 0);
    }

    #[test]
    fn tables_of_iptables_are_known_by_one_of_its_expressions() {
        let mut rules = Rules::new(Sought::Queue);
        rules.add(&rule(2, &[expression("queue", &[])]));
        rules.add(&rule(2, &[expression("match", &[])]));
        let info = [5_u16, 1, 0].map(u16::to_ne_bytes).concat();
        let target = [attribute(1, b"NFQUEUE\0"), word(2, 3), attribute(3, &info)];
        rules.add(&rule(10, &[expression("target", &target)]));
        let found: Vec<_> = rules.done().into_iter().map(|it| (it.does, it.rule)).collect();
        let [(_, RulePlace::Nft { family: "ip", by_iptables: true, .. }), (does, other)] =
            &found[..]
        else {
            panic!("{found:?}")
        };
        assert_eq!(*does, Does::Queue { first: 5, last: 5, bypass: false });
        assert!(matches!(other, RulePlace::Nft { family: "ip6", by_iptables: true, .. }));
    }

    proptest! {
        #[test]
        fn no_message_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            for sought in [Sought::Queue, Sought::SourceNat, Sought::To([1, 2, 3, 4].into())] {
                let mut rules = Rules::new(sought);
                rules.add(&bytes);
                rules.add(&rule(2, std::slice::from_ref(&bytes)));
                let _ = rules.done();
            }
        }
    }
}
