//! The source ports that NAT may give to a sampled connection, and how many of them are taken.

use std::net::SocketAddr;

use super::{Draft, Facts, netfilter, packet_queue};
use crate::{
    diagnose::facts::{NetnsFacts, Rows},
    report::{
        filter_rules::is_word,
        object::Object,
        question::{Ask, Does, NatPorts, PortsInUse, RulePlace, RuleTarget, Sought, Tuple},
    },
};

/// Part of the allowed ports in use from where on NAT finds none: of many it tries a hundred or so
/// (`nf_nat_l4proto_unique_tuple`, net/netfilter/nf_nat_core.c), and connections end while one looks.
const TAKEN: f64 = 0.9;
/// Ports that NAT chooses from where a rule names none: those of the same kind (the same function).
const KINDS: [(u16, u16); 3] = [(1, 511), (512, 1023), (1024, u16::MAX)];

/// The ports for connections like the sampled one.
pub(super) struct Ports {
    /// The rule that allows them.
    rule: RulePlace,
    /// Whether the rule names them; else they are all of their kind.
    named: bool,
    first: u16,
    last: u16,
    server: SocketAddr,
    in_use: PortsInUse,
}

/// What the host says of the ports for connections like the sampled one.
pub(super) enum Allowed {
    Ports(Ports),
    /// No packet is sampled whose source was translated, or no rule of the namespace does that.
    Nothing,
    /// It was asked, and does not say.
    Unanswered,
}

/// Asks about a sampled packet that was lost after its source was translated.
pub(super) fn ask(
    facts: &Facts<'_>,
    namespace: NetnsFacts<'_>,
    rows: &Rows<'_>,
) -> Result<Allowed, Ask> {
    let after = rows.on_paths(netfilter::hook);
    let flow = rows.flows(1).into_iter().next().filter(|_| after[..] == ["POSTROUTING"]);
    let (Some(packet), Some(netns)) = (flow.as_ref().and_then(Tuple::of), namespace.netns()) else {
        return Ok(Allowed::Nothing);
    };
    let netns = netns.number();
    let Ok(rules) = facts.targets(netns, Sought::SourceNat)? else {
        return Ok(Allowed::Unanswered);
    };
    let Some((rule, named, (first, last))) = allowed(rules, packet.from.port()) else {
        return Ok(Allowed::Nothing);
    };
    let (server, address, protocol) = (packet.to, packet.from.ip(), packet.protocol);
    let ports = NatPorts { protocol, server, address, first, last };
    let Ok(in_use) = facts.ports_in_use(netns, ports)? else { return Ok(Allowed::Unanswered) };
    Ok(Allowed::Ports(Ports { rule, named, first, last, server, in_use }))
}

/// The narrowest range that a rule allows and that has the packet's port.
fn allowed(rules: Vec<RuleTarget>, port: u16) -> Option<(RulePlace, bool, (u16, u16))> {
    let ranges = rules.into_iter().filter_map(|RuleTarget { does, rule }| {
        let Does::SourceNat { ports } = does else { return None };
        let kind = || KINDS.into_iter().find(|(first, last)| (*first..=*last).contains(&port));
        let (first, last) = ports.or_else(kind)?;
        (first..=last).contains(&port).then_some((rule, ports.is_some(), (first, last)))
    });
    ranges.min_by_key(|(_, _, (first, last))| last - first)
}

impl Ports {
    /// Whether NAT finds none that is free.
    pub(super) fn are_taken(&self) -> bool {
        let PortsInUse { probed, taken } = self.in_use;
        probed > 0 && f64::from(taken) >= f64::from(probed) * TAKEN
    }

    /// Whether a rule gives them that iptables does not show.
    pub(super) fn are_of_nft(&self) -> bool {
        matches!(self.rule, RulePlace::Nft { by_iptables: false, .. })
    }

    /// Adds what the rules allow and what is in use.
    pub(super) fn shown<'a>(&self, draft: Draft<'a>) -> Draft<'a> {
        let Self { first, last, server, in_use: PortsInUse { probed, taken }, .. } = self;
        draft
            .names(Object::rule(&self.rule))
            .state("ports that NAT may give", format!("{first}-{last}"), "packet filter")
            .state("in use", format!("{taken} of {probed} looked at, to {server}"), "ctnetlink")
    }

    /// Adds the command that lets the rule give more ports, where it names some.
    pub(super) fn widened<'a>(&self, facts: &Facts<'_>, draft: Draft<'a>) -> Draft<'a> {
        if !self.named || (self.first, self.last) == (1024, u16::MAX) {
            return draft;
        }
        let all = "1024-65535";
        let now = match self.first == self.last {
            true => self.first.to_string(),
            false => format!("{}-{}", self.first, self.last),
        };
        let (program, family) = match &self.rule {
            RulePlace::Legacy { family, .. } => {
                (packet_queue::legacy_program(facts, *family), None)
            }
            RulePlace::Nft { family, by_iptables: true, .. } => {
                (packet_queue::nft_program(facts, family), None)
            }
            RulePlace::Nft { family, table, chain, .. } => {
                (facts.rule_programs().native.then_some("nft"), Some((family, table, chain)))
            }
        };
        let Some(program) = program else { return draft };
        let command = match family {
            // A port of its own may be a port that the rule matches, too: what stands before it tells.
            None => format!(
                "sh -c \"{program}-save -c -t nat | sed -E -e '/-j MASQUERADE/s/--to-ports \
                 {now}( |$)/--to-ports {all}\\1/' -e '/-j SNAT/s/(--to-source [^ \
                 ]*):{now}( |$)/\\1:{all}\\2/' | {program}-restore -c -T nat\""
            ),
            // Names that a shell would take apart are not put into a script.
            Some((family, table, chain)) if is_word(table) && is_word(chain) => format!(
                "sh -c \"{{ echo flush chain {family} {table} {chain}; nft -s list chain {family} \
                 {table} {chain} | sed -E 's/( to [^ ]*):{now}( |$)/\\1:{all}\\2/'; }} | nft -f -\""
            ),
            Some(_) => return draft,
        };
        draft.run(
            &command,
            "lets the rule give all ports from 1024 on; choose fewer where others have some of them",
        )
    }
}
