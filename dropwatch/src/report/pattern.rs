//! The most specific flow pattern that covers a clear majority.
//!
//! A pattern is a flow in which some fields vary. Of all sets of fields that could vary, the one
//! that says the most wins, among those that leave one pattern a clear majority of the weight; of those
//! that say as much, the one that covers more. Where that would name no end of the packets (no address,
//! and no port of a known protocol), a plain majority is enough: half of the drops by name, with their
//! share, help more than all of them as `*`. There, too, the most specific wins, however little a wider
//! one lacks of a clear majority.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use super::{
    facts::{Field, Pattern},
    flow::Flow,
    number::share,
    precision::Precision,
};

/// Part of the weight that a pattern covers at least, percent.
const CLEAR: u64 = 80;

/// Part of the weight that a pattern covers at least where a clear majority has no end in common,
/// percent.
const PLAIN: u64 = 50;

const FIELDS: [Field; 6] =
    [Field::SrcPort, Field::DstPort, Field::Kind, Field::Src, Field::Dst, Field::Protocol];

impl Field {
    /// How much a pattern loses when this varies. A source port is chosen by chance mostly; an
    /// address says whom to ask, and is worth both ports.
    fn cost(self) -> u32 {
        match self {
            Self::SrcPort => 2,
            Self::DstPort | Self::Kind => 3,
            Self::Src | Self::Dst => 6,
            Self::Protocol => 24,
        }
    }

    /// `flow` without this field.
    fn clear(self, flow: &mut Flow) {
        match self {
            Self::SrcPort => flow.src_port = None,
            Self::DstPort => flow.dst_port = None,
            Self::Kind => (flow.kind, flow.fragment) = (None, false),
            Self::Src => flow.src = None,
            Self::Dst => flow.dst = None,
            Self::Protocol => (flow.protocol, flow.vlan) = (None, None),
        }
    }

    /// `flow` with this field alone.
    fn only(self, flow: &Flow) -> Flow {
        let mut alone = flow.clone();
        FIELDS.iter().filter(|field| **field != self).for_each(|field| field.clear(&mut alone));
        alone
    }
}

/// The pattern of flows with their weights, of `total` weight together with those of no known flow, as
/// far as `precision` allows: a part that samples may have made larger than it is does not count as
/// covered.
///
/// `None` where less than a clear majority has a known flow. The result does not depend on the order of
/// the flows.
pub fn pattern(flows: &BTreeMap<Flow, u64>, total: u64, precision: Precision) -> Option<Pattern> {
    let known = flows.values().fold(0, |sum: u64, weight| sum.saturating_add(*weight));
    let covers = |weight: u64, percent| precision.covers(weight, total, percent);
    if known == 0 || !covers(known, CLEAR) {
        return None;
    }
    let coded = encode(flows);
    // Every set of fields that do vary, as a bit mask; the cheapest first.
    let varied = (0..FIELDS.len())
        .filter(|field| coded.windows(2).any(|two| two[0].0[*field] != two[1].0[*field]))
        .fold(0_u32, |mask, field| mask | 1 << field);
    let mut masks: Vec<u32> = (0..1 << FIELDS.len()).filter(|mask| mask & !varied == 0).collect();
    masks.sort_by_key(|mask| (cost(*mask), *mask));
    let mut plain = None;
    for equals in masks.chunk_by(|a, b| cost(*a) == cost(*b)) {
        let mut candidates: Vec<(Pattern, u64)> = Vec::with_capacity(equals.len());
        for mask in equals {
            let (first, weight) = heaviest(&coded, *mask)?;
            if covers(weight, PLAIN) {
                let mut flow = flows.keys().nth(first)?.clone();
                let varies: Vec<Field> = fields(*mask).collect();
                varies.iter().for_each(|field| field.clear(&mut flow));
                candidates.push((Pattern { flow, varies, share: share(weight, total) }, weight));
            }
        }
        // Stable: of those that cover as much, the one with the lowest mask is first.
        candidates.sort_by_key(|(it, weight)| (!it.names_end(), Reverse(*weight)));
        for (found, weight) in candidates {
            match (covers(weight, CLEAR), found.names_end()) {
                (true, true) => return Some(found),
                (true, false) => return Some(plain.unwrap_or(found)),
                (false, true) => plain = plain.or(Some(found)),
                (false, false) => {}
            }
        }
    }
    plain
}

impl Pattern {
    /// Whether a flow is one of those that it stands for.
    pub fn covers(&self, flow: &Flow) -> bool {
        let mut flow = flow.clone();
        self.varies.iter().for_each(|field| field.clear(&mut flow));
        flow == self.flow
    }

    /// Whether it says of the packets all that is known, or whom to ask about them: an address, or a
    /// port with its protocol. A port alone may be anybody's.
    fn names_end(&self) -> bool {
        let Flow { protocol, src, src_port, dst, dst_port, .. } = &self.flow;
        let has_port = src_port.is_some() || dst_port.is_some();
        self.varies.is_empty() || src.is_some() || dst.is_some() || (has_port && protocol.is_some())
    }
}

fn fields(mask: u32) -> impl Iterator<Item = Field> {
    FIELDS.iter().enumerate().filter(move |(bit, _)| mask & 1 << bit != 0).map(|(_, field)| *field)
}

fn cost(mask: u32) -> u32 {
    fields(mask).map(Field::cost).sum()
}

/// A flow's fields as small numbers: equal fields have equal numbers.
type Code = [u32; FIELDS.len()];

fn encode(flows: &BTreeMap<Flow, u64>) -> Vec<(Code, u64)> {
    let mut numbers = FIELDS.map(|_| HashMap::new());
    let encode = |(flow, weight): (&Flow, &u64)| {
        let mut code = Code::default();
        for ((digit, numbers), field) in code.iter_mut().zip(&mut numbers).zip(FIELDS) {
            let next = numbers.len() as u32;
            *digit = *numbers.entry(field.only(flow)).or_insert(next);
        }
        (code, *weight)
    };
    flows.iter().map(encode).collect()
}

/// The first flow of the heaviest group of those that agree outside `mask`, and the group's weight.
fn heaviest(coded: &[(Code, u64)], mask: u32) -> Option<(usize, u64)> {
    let mut groups: HashMap<Code, (usize, u64)> = HashMap::with_capacity(coded.len());
    for (index, (code, weight)) in coded.iter().enumerate() {
        let mut masked = *code;
        for (bit, digit) in masked.iter_mut().enumerate() {
            if mask & 1 << bit != 0 {
                *digit = u32::MAX;
            }
        }
        let (_, sum) = groups.entry(masked).or_insert((index, 0));
        *sum = sum.saturating_add(*weight);
    }
    groups.into_values().min_by_key(|(first, weight)| (Reverse(*weight), *first))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn flow(src: &str, src_port: u16, dst: &str, dst_port: u16, kind: &'static str) -> Flow {
        Flow {
            protocol: Some("tcp".into()),
            src: src.parse().ok(),
            src_port: Some(src_port),
            dst: dst.parse().ok(),
            dst_port: Some(dst_port),
            kind: Some(kind.into()),
            ..Flow::default()
        }
    }

    fn of(flows: impl IntoIterator<Item = (Flow, u64)>) -> Pattern {
        let flows: BTreeMap<_, _> = flows.into_iter().collect();
        pattern(&flows, flows.values().sum(), Precision::Exact).unwrap()
    }

    #[test]
    fn a_client_that_opens_connections() {
        let flows =
            (0..64).map(|n| (flow("192.168.0.2", 40_000 + n, "192.168.0.30", 8080, "SYN"), 3));
        let expected =
            Flow { src_port: None, ..flow("192.168.0.2", 0, "192.168.0.30", 8080, "SYN") };
        let found = of(flows);
        assert_eq!(found, Pattern { flow: expected, varies: vec![Field::SrcPort], share: 1.0 });
    }

    #[test]
    fn a_server_that_answers_many() {
        let flows =
            (0..50).map(|n| (flow("10.0.0.1", 80, &format!("10.1.0.{n}"), 1000 + n, "ACK"), 1));
        let found = of(flows);
        assert_eq!(found.varies, [Field::DstPort, Field::Dst]);
        assert_eq!(found.flow.src_port, Some(80));
    }

    #[test]
    fn a_few_others_do_not_blur_it_but_show_in_the_share() {
        let main = flow("10.0.0.1", 5, "10.0.0.2", 80, "SYN");
        let other = flow("10.9.0.1", 6, "10.0.0.3", 22, "ACK");
        let found = of([(main.clone(), 80), (other.clone(), 20)]);
        assert_eq!(found, Pattern { flow: main.clone(), varies: Vec::new(), share: 0.8 });
        // Less would do only where nothing but the protocol is common to all.
        let found = of([(main.clone(), 79), (other.clone(), 21)]);
        assert_eq!(found, Pattern { flow: main.clone(), varies: Vec::new(), share: 0.79 });
        let same_server = Flow { dst: main.dst, ..other.clone() };
        let found = of([(main.clone(), 79), (same_server, 21)]);
        assert_eq!((found.flow.dst, found.share, found.varies.len()), (main.dst, 1.0, 4));
        let third = flow("10.9.0.2", 7, "10.0.0.4", 23, "RST");
        let found = of([(main, 49), (other, 21), (third, 30)]);
        assert_eq!(found.varies.len(), 5);
        assert_eq!((found.flow.protocol.as_deref(), found.share), (Some("tcp"), 1.0));
    }

    #[test]
    fn protocols_vary_last() {
        let tcp = flow("10.0.0.1", 5, "10.0.0.2", 80, "SYN");
        let icmp = Flow {
            protocol: Some("icmp".into()),
            src_port: None,
            dst_port: None,
            ..flow("10.0.0.1", 0, "10.0.0.2", 0, "echo request")
        };
        let found = of([(tcp, 1), (icmp, 1)]);
        assert!(found.varies(Field::Protocol) && found.varies(Field::SrcPort));
        assert_eq!(found.flow.dst, "10.0.0.2".parse().ok());
    }

    #[test]
    fn flows_that_are_mostly_unknown_have_no_pattern() {
        let flows = BTreeMap::from([(flow("10.0.0.1", 5, "10.0.0.2", 80, "SYN"), 79)]);
        let exact = Precision::Exact;
        assert_eq!(pattern(&flows, 100, exact), None);
        assert_eq!(pattern(&BTreeMap::new(), 0, exact), None);
        assert!(pattern(&flows, 98, exact).is_some());
    }

    /// The same packets but for one field each.
    fn plain_udp(dst_port: u16) -> Flow {
        let flow = flow("10.9.0.1", 1, "10.9.0.2", dst_port, "");
        Flow { protocol: Some("udp".into()), kind: None, ..flow }
    }

    #[test]
    fn a_stray_packet_does_not_take_the_name_from_more_than_half() {
        let main = plain_udp(53);
        let stray = flow("10.9.0.7", 1, "10.9.0.8", 443, "SYN");
        let others = (2..41).map(|n| {
            (flow(&format!("10.9.1.{n}"), 9000 + n, &format!("10.9.2.{n}"), 80 + n, "SYN"), 1)
        });
        let found = of(others.chain([(main.clone(), 60), (stray, 1)]));
        assert_eq!(found, Pattern { flow: main, varies: Vec::new(), share: 0.6 });
    }

    #[test]
    fn a_port_of_any_protocol_names_nobody() {
        // A clear majority has nothing in common but the port, of whatever protocol.
        let main = plain_udp(53);
        let port = |n: u16| flow(&format!("10.9.1.{n}"), 1, &format!("10.9.2.{n}"), 80 + n, "SYN");
        let other = |n: u16| Flow { src_port: Some(n), ..port(n) };
        let strays = (2..32).map(|n| (port(n), 1)).chain((40..50).map(|n| (other(n), 1)));
        let found = of(strays.chain([(main.clone(), 60)]));
        assert_eq!(found, Pattern { flow: main, varies: Vec::new(), share: 0.6 });
    }

    #[test]
    fn of_patterns_that_say_as_much_the_one_that_covers_more_is_shown() {
        let to = |dst: &str, src: &str| flow(src, 5, dst, 80, "SYN");
        let found = of([
            (to("10.0.0.1", "10.1.0.1"), 70),
            (to("10.0.0.1", "10.1.0.2"), 19),
            (to("10.0.0.2", "10.1.0.1"), 11),
        ]);
        assert_eq!((found.varies, found.share), (vec![Field::Src], 0.89));
        let found = of([
            (to("10.0.0.1", "10.1.0.1"), 70),
            (to("10.0.0.1", "10.1.0.2"), 11),
            (to("10.0.0.2", "10.1.0.1"), 19),
        ]);
        assert_eq!((found.varies, found.share), (vec![Field::Dst], 0.89));
    }

    /// Flows of few values, so that many have some in common.
    fn some_flows() -> impl Strategy<Value = BTreeMap<Flow, u64>> {
        let ip = |n: u8| Some(std::net::IpAddr::from([10, 0, 0, n]));
        let field = 1..4_u8;
        let flow =
            (field.clone(), field.clone(), field.clone(), field.clone(), field.clone(), field)
                .prop_map(move |(protocol, src, src_port, dst, dst_port, kind)| Flow {
                    protocol: [None, Some("tcp".into()), Some("udp".into())]
                        [usize::from(protocol) - 1]
                        .clone(),
                    src: ip(src),
                    src_port: Some(src_port.into()),
                    dst: ip(dst),
                    dst_port: Some(dst_port.into()),
                    kind: (kind > 1).then(|| kind.to_string().into()),
                    ..Flow::default()
                });
        proptest::collection::btree_map(flow, prop_oneof![1..4_u64, 1..100_u64], 1..12)
    }

    proptest! {
        #[test]
        fn the_most_specific_of_a_clear_majority_wins_or_else_of_half(
            flows in some_flows(),
            unknown in 0..30_u64,
        ) {
            let total = flows.values().sum::<u64>() + unknown;
            let Some(found) = pattern(&flows, total, Precision::Exact) else {
                let known: u64 = flows.values().sum();
                prop_assert!(known * 100 < total * CLEAR);
                return Ok(());
            };
            // Every pattern that there is, with what it covers, by looking at each flow.
            let weight_of = |it: &Pattern| -> u64 {
                flows.iter().filter(|(flow, _)| it.covers(flow)).map(|(_, weight)| *weight).sum()
            };
            let all = (0..1 << FIELDS.len()).flat_map(|mask| {
                flows.keys().map(move |flow| {
                    let (mut flow, varies): (_, Vec<_>) = (flow.clone(), fields(mask).collect());
                    varies.iter().for_each(|field| field.clear(&mut flow));
                    (cost(mask), Pattern { flow, varies, share: 0.0 })
                })
            });
            let own_cost: u32 = found.varies.iter().map(|field| field.cost()).sum();
            let own = weight_of(&found);
            prop_assert_eq!(found.share, share(own, total));
            let is_clear = own * 100 >= total * CLEAR;
            prop_assert!(is_clear || (own * 100 >= total * PLAIN && found.names_end()));
            for (cost, other) in all {
                let weight = weight_of(&other);
                let is_better = cost < own_cost || (cost == own_cost && weight > own);
                if !is_better || !other.names_end() {
                    continue;
                }
                prop_assert!(weight * 100 < total * CLEAR, "clear, and more specific: {:?}", other);
                let counts = !is_clear || !found.names_end();
                prop_assert!(
                    !counts || weight * 100 < total * PLAIN,
                    "half, and more specific: {:?}", other
                );
            }
        }
    }

    #[test]
    fn what_chance_may_have_made_the_majority_is_no_pattern() {
        let syn = |port| flow("10.0.0.1", 5, "10.0.0.2", port, "SYN");
        let flows = BTreeMap::from([(syn(80), 83), (syn(81), 17)]);
        let of = |samples| pattern(&flows, 100, Precision::Estimated(samples)).expect("a pattern");
        assert!(of(24.0).varies(Field::DstPort), "83 % of 24 samples may be 70 %");
        assert!(!of(2000.0).varies(Field::DstPort));
        assert_eq!(of(24.0).share, 1.0);
    }
}
