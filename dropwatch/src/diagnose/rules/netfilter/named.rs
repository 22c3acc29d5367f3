//! Which rule or policy dropped the packets, by counters that it keeps itself.
//!
//! What its counter counted between two readings is its part, and the sum of all parts is held against
//! the exact number of drops in the same time. What does not count (rules of nftables without
//! `counter`, policies of its chains) is named where nothing else is left that could have done it.

mod elements;
mod shown;

use std::{collections::BTreeSet, fmt::Write as _};

use self::shown::{
    bridge_setting, command, describe, lack, may_match, object, place, sets, shows, whose,
};
use super::{
    super::{Draft, Facts, matters},
    Place, bridged, places,
};
use crate::{
    diagnose::facts::{NetnsFacts, Rows},
    report::{
        filter_rules::{Dropper, Family, FilterReading, Keeper, Since},
        finding::{Evidence, Finding, Severity, Value},
        model::Location,
        object::Object,
    },
};

/// Most rules of a namespace that have a finding each.
const MOST: usize = 8;
/// Most candidates that are listed.
const MOST_LISTED: usize = 4;

/// What the rules of a namespace say about its drops.
pub(super) enum Named {
    /// All that can be said: which ones it was, or that none of them was it.
    Settled(Vec<Finding>),
    /// Findings for some, and so many drops that are left for a rule that is not known, with what is
    /// known of it.
    Open(Vec<Finding>, u64, Vec<Evidence>),
}

/// What `left` of the drops of a namespace rules have to answer for; `None` where its rules are not known.
pub(super) fn named(facts: &Facts<'_>, left: &[(&Location, u64)]) -> Option<Named> {
    let mut namespaces = facts.namespaces();
    let (namespace, None) = (namespaces.next()?, namespaces.next()) else { return None };
    let reading = namespace.now.filter.as_ref()?;
    let rows = Rows(left.iter().map(|(row, _)| *row).collect());
    let drops = left.iter().fold(0, |sum: u64, (_, drops)| sum.saturating_add(*drops));
    if !matters(drops, facts) {
        return Some(Named::Settled(Vec::new()));
    }
    let places = places(&rows);
    let case = Case { facts, namespace, reading, rows: &rows, drops, is_late: false, places };
    case.by_counters()
}

/// What rules that were read late say about the drops of the report before, where this one has none.
pub(super) fn late(facts: &Facts<'_>) -> Vec<Finding> {
    let rows = Rows(Vec::new());
    let late = facts.namespaces().filter_map(|namespace| {
        let reading = namespace.now.filter.as_ref().filter(|reading| reading.is_late)?;
        let (rows, places) = (&rows, None);
        let case = Case { facts, namespace, reading, rows, drops: 0, is_late: true, places };
        case.by_counters()
    });
    let found = late.flat_map(|named| match named {
        Named::Settled(found) | Named::Open(found, _, _) => found,
    });
    found.collect()
}

struct Case<'a> {
    facts: &'a Facts<'a>,
    namespace: NetnsFacts<'a>,
    reading: &'a FilterReading,
    rows: &'a Rows<'a>,
    /// Of this report.
    drops: u64,
    /// There are none, since all were before it.
    is_late: bool,
    /// Where the packets were dropped; `None` where samples do not tell.
    places: Option<BTreeSet<Place>>,
}

/// What proves that it was one.
enum Proof {
    Counter,
    /// Nothing is known of the time before.
    WholeCounter,
    OnlyCounter,
    /// Nothing else is left.
    Elimination,
}

impl<'a> Case<'a> {
    fn by_counters(&self) -> Option<Named> {
        match self.reading.since {
            Since::Read(_) => self.by_difference(),
            // Rules may have come with a number, so all of them together have to be right.
            Since::Birth if self.sum().abs_diff(self.reading.drops) <= self.slack() => {
                self.by_difference()
            }
            Since::Birth | Since::Ever => Some(self.by_whole_counters()),
        }
    }

    /// Packets that all counters counted that can have counted these.
    fn sum(&self) -> u64 {
        let counted = self.counting().into_iter().filter_map(|it| it.counted);
        counted.fold(self.reading.more, u64::saturating_add)
    }

    fn by_difference(&self) -> Option<Named> {
        let reading = self.reading;
        let counting = self.counting();
        if !reading.is_fresh && counting.is_empty() {
            return None;
        }
        let sum = self.sum();
        let all = reading.drops.max(1);
        // Where rules count more than was dropped, each gets its share of what was.
        let explained = |counted: u64| scale(counted, self.drops, all.max(sum));
        let mut findings: Vec<Finding> = Vec::new();
        for dropper in counting.iter().take(MOST) {
            let counted = dropper.counted.unwrap_or(0);
            let drops = explained(counted);
            if matters(if self.is_late { counted } else { drops }, self.facts) {
                findings.push(self.finding(dropper, drops, sum, &Proof::Counter));
            }
        }
        // Counters that somebody has set say nothing, and all of them may be.
        if reading.changed && sum > reading.drops.saturating_add(self.slack()) {
            return Some(self.unknown(Vec::new(), self.drops, Vec::new()));
        }
        let missing = reading.drops.saturating_sub(sum);
        let rest = scale(missing, self.drops, all);
        if missing <= self.slack() || !matters(rest, self.facts) {
            return Some(Named::Settled(findings));
        }
        Some(self.rest(findings, rest))
    }

    /// So many drops are of a rule that is not known; `counting` are candidates besides those that do not
    /// count.
    fn unknown(&self, findings: Vec<Finding>, rest: u64, counting: Vec<&Dropper>) -> Named {
        let unsure = self.may_be(&self.reading.unsure);
        let all: Vec<&Dropper> = counting.into_iter().chain(unsure).chain(self.silent()).collect();
        Named::Open(findings, rest, self.candidates(&all))
    }

    /// Drops that no counter explains: of what does not count, if it is one.
    fn rest(&self, mut findings: Vec<Finding>, rest: u64) -> Named {
        let silent: Vec<&Dropper> = self.silent();
        let is_all = self.reading.more_silent == 0 && self.gaps().is_empty();
        // What was dropped before the first reading is in no difference.
        let counting = self.counting();
        let missing = self.reading.drops.saturating_sub(self.reading.counted());
        let before = |it: &Dropper| it.ever.saturating_sub(it.counted.unwrap_or(0));
        let earlier = counting.iter().copied().chain(self.earlier());
        let earlier: Vec<&Dropper> =
            earlier.filter(|it| self.reading.is_first && before(it) > 0).collect();
        match &earlier[..] {
            // What dropped them may be gone, or have come since.
            _ if self.reading.changed => return self.unknown(findings, rest, earlier),
            [] => {}
            [only]
                if silent.is_empty()
                    && is_all
                    && before(only) >= missing
                    && counting.iter().all(|it| it == only) =>
            {
                let proof = match only.ever == self.reading.drops {
                    true => Proof::WholeCounter,
                    false => Proof::OnlyCounter,
                };
                let found = self.finding(only, self.drops, self.reading.drops, &proof);
                return Named::Settled(vec![found]);
            }
            _ => return self.unknown(findings, rest, earlier),
        }
        match &silent[..] {
            [] if is_all => Named::Settled(findings),
            [only] if is_all => {
                findings.push(self.finding(only, rest, rest, &Proof::Elimination));
                Named::Settled(findings)
            }
            _ => self.unknown(findings, rest, Vec::new()),
        }
    }

    /// The first reading came after the drops.
    fn by_whole_counters(&self) -> Named {
        let (counting, silent) = (self.counting(), self.silent());
        let is_all = self.reading.more_silent == 0 && self.gaps().is_empty();
        let drops = self.reading.drops;
        let equal: Vec<_> = counting.iter().filter(|it| it.counted == Some(drops)).collect();
        let found = match (&counting[..], &silent[..], &equal[..]) {
            ([], [], _) if is_all => return Named::Settled(Vec::new()),
            ([], [only], _) if is_all => Some((*only, Proof::Elimination)),
            (_, _, [only]) => Some((**only, Proof::WholeCounter)),
            ([only], [], _) if is_all && only.counted > Some(drops) => {
                Some((*only, Proof::OnlyCounter))
            }
            _ => None,
        };
        match found {
            Some((dropper, proof)) => {
                Named::Settled(vec![self.finding(dropper, self.drops, drops, &proof)])
            }
            None => self.unknown(Vec::new(), self.drops, counting),
        }
    }

    fn finding(&self, dropper: &Dropper, drops: u64, sum: u64, proof: &Proof) -> Finding {
        let (facts, reading) = (self.facts, self.reading);
        let whose = whose(dropper);
        let place = place(dropper);
        let title = format!("{whose} drops packets in {}: {place}", self.namespace.name());
        let mut draft = Draft::new(
            facts,
            "netfilter_rule",
            Severity::Warning,
            format!("{whose} {place}"),
            title,
        )
        .at(self.namespace)
        .explains(drops, self.rows);
        let own = matches!(proof, Proof::Counter).then_some(dropper.counted).flatten();
        let own = own.filter(|_| reading.is_fresh && reading.drops == self.drops);
        draft = draft.names(Object::dropper(dropper, place, own));
        let source = match dropper.keeper {
            Keeper::Nft => "nft list ruleset".to_owned(),
            Keeper::Iptables => format!("{}-save -c", dropper.program),
            Keeper::Arptables => format!("{} -vnL", dropper.program),
        };
        if !dropper.text.is_empty() {
            draft = draft.state("rule", dropper.text.as_str(), &source);
        }
        // Counted in the interval of the report, no more and no less.
        let is_of_report = reading.is_fresh && reading.drops == self.drops;
        let counted = dropper.counted.unwrap_or(0);
        draft = match proof {
            Proof::Counter if is_of_report => draft.counted("by its own counter", counted, &source),
            Proof::Counter => draft.state("by its own counter", self.window(counted), &source),
            Proof::WholeCounter => draft.state(
                "its whole counter",
                format!("{}, just as many as were dropped; it was not read before", dropper.ever),
                &source,
            ),
            Proof::OnlyCounter => draft.state(
                "its whole counter",
                format!("{}; no other there has ever dropped a packet", dropper.ever),
                &source,
            ),
            Proof::Elimination => {
                let lack = lack(dropper.uncounted);
                let value = format!("{lack}, and nothing else there can have dropped them");
                draft.state("by elimination", value, &source)
            }
        };
        let at = self.at();
        let explains = match reading.drops {
            _ if !matches!(proof, Proof::Counter) => None,
            all if sum == all && counted == all => Some(format!("all {all} drops{at}")),
            all if sum == all => Some(format!("{counted} of {all} drops{at}, rules explain all")),
            all if sum.abs_diff(all) <= self.slack() => Some(format!(
                "{} of {all} drops{at}; the counters were read a moment apart",
                counted.min(all)
            )),
            all if sum < all && reading.changed => {
                Some(format!("{counted} of {all} drops{at}; rules were changed meanwhile"))
            }
            all if sum < all => Some(format!(
                "{counted} of {all} drops{at}, {} are not explained by rules that count",
                all - sum
            )),
            // Filters leave out what counters count.
            _ => None,
        };
        if let Some(explains) = explains {
            draft = draft.state("explains", explains, "kfree_skb");
        }
        let sets = sets(&dropper.text);
        if !sets.is_empty() {
            draft = draft.state("sets", sets.join(", "), &source);
        }
        for row in &self.rows.0 {
            let function = row.place.symbol.as_deref().unwrap_or("unknown");
            draft = draft.counted(&format!("NETFILTER_DROP at {function}"), row.count, "kfree_skb");
        }
        let elements = self.elements(dropper);
        if !elements.is_empty() {
            let name = if elements.len() == 1 { "element" } else { "elements, one of them" };
            let listed: Vec<&str> = elements.iter().copied().take(MOST_LISTED).collect();
            let more = elements.len().saturating_sub(MOST_LISTED);
            let more = if more > 0 { format!("; {more} more") } else { String::new() };
            draft = draft.state(name, listed.join(", ") + &more, &source);
        }
        if let Some(counter) = &dropper.counter {
            draft = draft.state("counter", counter.as_str(), &source);
        }
        draft = draft.run(&command(dropper), shows(dropper, proof));
        draft = match object(dropper) {
            Some((command, note)) => draft.run(&command, note),
            None => draft,
        };
        if let (true, Some(setting)) = (bridged(self.rows), bridge_setting(dropper.family)) {
            draft = draft.state("hook", "of bridged packets (br_netfilter)", "sampled call paths");
            let why = "bridged packets pass without rules of IP: of all bridges in this namespace";
            draft = draft.set(setting, 0, why);
        }
        draft.done()
    }

    /// What was counted between two readings that are not the report's begin and end.
    fn window(&self, counted: u64) -> String {
        let mut text = format!("{counted} packets");
        if let Since::Read(time) = self.reading.since {
            let _ = write!(text, " in {:.0} s", time.as_secs_f64());
        }
        if !self.reading.is_fresh {
            let age = self.reading.age.as_secs_f64();
            let _ = write!(text, ", up to {age:.0} s ago, when rules were read last");
        }
        text
    }

    /// ` at INPUT in gw`
    fn at(&self) -> String {
        let mut hooks: Vec<&str> =
            self.places.iter().flatten().map(|(hook, _)| hook.name()).collect();
        hooks.dedup();
        let at = match &hooks[..] {
            [] => String::new(),
            hooks => format!(" at {}", hooks.join(" and ")),
        };
        format!("{at} in {}", self.namespace.name())
    }

    /// What may have been dropped after one counter was read and before the other.
    fn slack(&self) -> u64 {
        let window = match self.reading.since {
            Since::Read(time) => time.as_secs_f64(),
            Since::Birth | Since::Ever => self.facts.report.interval_s,
        };
        let part = self.reading.took.as_secs_f64() / window.max(self.reading.took.as_secs_f64());
        let meanwhile = (self.reading.drops as f64 * part.min(0.1)) as u64;
        meanwhile.saturating_add(self.reading.ahead)
    }

    fn counting(&self) -> Vec<&'a Dropper> {
        self.reading.counting.iter().filter(|it| self.is_here(it)).collect()
    }

    fn earlier(&self) -> Vec<&'a Dropper> {
        self.reading.earlier.iter().filter(|it| self.is_here(it)).collect()
    }

    fn silent(&self) -> Vec<&'a Dropper> {
        self.may_be(&self.reading.silent)
    }

    /// Those that may have matched a sampled packet.
    fn may_be(&self, droppers: &'a [Dropper]) -> Vec<&'a Dropper> {
        let here = droppers.iter().filter(|it| self.is_here(it));
        let may = |it: &&Dropper| {
            may_match(&it.text, self.rows)
                && (it.elements.is_empty() || !self.elements(it).is_empty())
        };
        here.filter(may).collect()
    }

    /// The elements of a map that may have matched a sampled packet.
    fn elements<'d>(&self, dropper: &'d Dropper) -> Vec<&'d str> {
        let selectors = elements::selectors(&dropper.text);
        let (seen, all) = (self.rows.seen(), dropper.elements.iter());
        all.map(String::as_str).filter(|it| elements::may_be(&selectors, it, &seen)).collect()
    }

    /// Whether packets come to it where these were dropped.
    fn is_here(&self, dropper: &Dropper) -> bool {
        let Some(places) = &self.places else { return true };
        places.iter().any(|(hook, families)| {
            dropper.hooks.contains(*hook) && families.contains(&dropper.family)
        })
    }

    /// Why not all rules are known that packets come to where these were dropped.
    fn gaps(&self) -> Vec<&'a str> {
        let families = |family: Family| match &self.places {
            Some(places) => places.iter().any(|(_, families)| families.contains(&family)),
            None => true,
        };
        let gaps = self.reading.gaps.iter().filter(|it| it.family.is_none_or(families));
        gaps.map(|gap| gap.why.as_str()).collect()
    }

    fn candidates(&self, all: &[&Dropper]) -> Vec<Evidence> {
        let evidence = |name: &str, value: String| Evidence {
            name: name.to_owned(),
            value: Value::Text(value),
            delta: false,
            source: "the packet filter's rules".to_owned(),
        };
        let mut known = Vec::new();
        if self.reading.changed {
            let changed = "were changed during this report; they are counted from now on";
            known.push(evidence("rules", changed.to_owned()));
        }
        if !all.is_empty() {
            let listed = all.iter().take(MOST_LISTED);
            let listed: Vec<String> = listed.map(|it| describe(it, &self.elements(it))).collect();
            let more = all.len().saturating_sub(MOST_LISTED) + self.reading.more_silent;
            let more = if more > 0 { format!("; {more} more") } else { String::new() };
            known.push(evidence("candidates", listed.join("; ") + &more));
        }
        known.extend(self.gaps().into_iter().map(|why| evidence("not known", why.to_owned())));
        known
    }
}

/// `part` of `whole`, of as many as `drops`.
fn scale(part: u64, drops: u64, whole: u64) -> u64 {
    let scaled = u128::from(part) * u128::from(drops) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(drops).min(drops)
}

#[cfg(test)]
mod tests;
