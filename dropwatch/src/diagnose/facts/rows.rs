//! Rows of a report that a rule picked, and what they have in common.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::NetnsFacts;
use crate::report::{
    device::Mac,
    facts::{Callers, Details, Netns, Owner, Routed, Values},
    flow::{AboveIp, Flow},
    model::Location,
    precision::Precision,
    protocol::Term,
    question::Packet,
};

/// Part of the drops of which something has to hold before a sentence says it of all of them. What a
/// sentence leaves out is a stray packet or two.
const NEARLY_ALL: f64 = 0.95;

/// Most devices of some rows that a rule asks about.
const MOST_DEVICES: usize = 8;

/// Rows of a report.
#[derive(Clone, Debug)]
pub struct Rows<'a>(pub Vec<&'a Location>);

/// What sampled packets have; a set is empty where samples do not show it.
#[derive(Debug, Default)]
pub struct SeenValues<'a> {
    pub protocols: BTreeSet<&'a str>,
    pub sources: BTreeSet<IpAddr>,
    pub destinations: BTreeSet<IpAddr>,
    /// Those that they were for.
    pub ports: BTreeSet<u16>,
}

impl<'a> Rows<'a> {
    /// Sum of their drops.
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, row| sum.saturating_add(row.count))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the rows of which most sampled packets were dropped in the namespace with this number in the run.
    pub fn of_netns(&self, number: u32) -> Self {
        let inside = |row: &&&Location| netns(row).is_some_and(|netns| netns.number() == number);
        Self(self.0.iter().filter(inside).copied().collect())
    }

    /// Rows by the namespace that samples name for most of their drops; last, those for which they
    /// name none.
    pub fn by_netns(&self) -> Vec<(Option<&'a Netns>, Self)> {
        let known = self.namespaces().into_iter().map(|is| (Some(is), self.of_netns(is.number())));
        let unknown = Self(self.0.iter().filter(|row| netns(row).is_none()).copied().collect());
        known.chain(Some((None, unknown)).filter(|(_, rows)| !rows.is_empty())).collect()
    }

    /// The sampled packet of the largest row that shows where one was going: what varies among the
    /// packets of that row is left out. With `came_in`, by the device that samples name.
    pub fn packet(&self, came_in: bool) -> Option<Packet> {
        let shown = |row: &&'a Location| {
            let details = row.details.as_ref()?;
            let flow = &details.flow.as_ref()?.flow;
            let device = details.interface.as_ref().map(|fact| fact.is.index);
            let iif = if came_in { device } else { None };
            let routed = Self(vec![*row]).routed_to(flow.dst?);
            Some((row.count, Packet { from: flow.src, iif, ..of(routed) }))
        };
        let shown = self.0.iter().filter_map(shown);
        shown.max_by_key(|(count, _)| *count).map(|(_, packet)| packet)
    }

    /// Of each of the `most` addresses that most packets were going to, one of those packets, and the drops
    /// that samples give to the address. Their source is the one that most came from, unless samples
    /// show another; the device as in [`Rows::packet`], all else as most had it.
    pub fn packets(&self, came_in: bool, most: usize) -> Vec<(Packet, f64)> {
        let packet = self.packet_like(came_in);
        let destinations = self.destinations().into_iter().take(most);
        destinations.map(|(to, drops)| (packet(self.routed_to(to)), drops)).collect()
    }

    /// The same, of each of what routing may decide by.
    pub fn routed_packets(&self, came_in: bool, most: usize) -> Vec<(Packet, f64)> {
        let packet = self.packet_like(came_in);
        let routed = self.routed().into_iter().take(most);
        routed.map(|(routed, drops)| (packet(routed), drops)).collect()
    }

    /// Makes a packet that is routed so, like those of samples.
    fn packet_like(&self, came_in: bool) -> impl Fn(Routed) -> Packet {
        let shown = self.packet(came_in);
        let sources = self.sums(|values| &values.sources);
        let source = move |to: IpAddr| {
            let sources = sources.iter().map(|(from, _)| *from);
            sources.into_iter().find(|from| from.is_ipv4() == to.is_ipv4())
        };
        let iif = self.0.iter().max_by_key(|row| row.count).filter(|_| came_in).and_then(|row| {
            let interface = row.details.as_ref()?.interface.as_ref()?;
            Some(interface.is.index)
        });
        move |routed| match shown.filter(|it| it.to == routed.to && it.from.is_some()) {
            Some(Packet { from, iif, .. }) => Packet { from, iif, ..of(routed) },
            None => Packet { from: source(routed.to), iif, ..of(routed) },
        }
    }

    /// What routing decides about their packets by, and the drops that samples give to each, the most first.
    /// Clients take a port of their own for each connection: where that is not one, it is none.
    pub fn routed(&self) -> Vec<(Routed, f64)> {
        let mut sums: BTreeMap<Routed, (f64, Option<u16>)> = BTreeMap::new();
        for (routed, drops) in self.sums(|values| &values.routed) {
            let from_port = routed.above.from_port;
            let above = AboveIp { from_port: None, ..routed.above };
            let (sum, port) = sums.entry(Routed { above, ..routed }).or_insert((0.0, from_port));
            *sum += drops;
            *port = port.filter(|port| Some(*port) == from_port);
        }
        let with_port = |(routed, (drops, from_port)): (Routed, _)| {
            (Routed { above: AboveIp { from_port, ..routed.above }, ..routed }, drops)
        };
        sorted(sums.into_iter().map(with_port).collect())
    }

    /// How most of their packets to `address` are routed.
    fn routed_to(&self, address: IpAddr) -> Routed {
        let routed = self.routed().into_iter().map(|(routed, _)| routed);
        let none = Routed { to: address, mark: 0, above: AboveIp::default() };
        routed.into_iter().find(|routed| routed.to == address).unwrap_or(none)
    }

    /// The mark that most of their packets to `address` had; 0 for none.
    pub fn mark_to(&self, address: IpAddr) -> u32 {
        self.routed_to(address).mark
    }

    /// The addresses that their packets were going to, with the drops that samples give to each, the most
    /// first.
    pub fn destinations(&self) -> Vec<(IpAddr, f64)> {
        self.sums(|values| &values.destinations)
    }

    /// The flows of their sampled packets, the commonest first, at most `most`. Each is of one packet at
    /// least, not what several have in common.
    pub fn flows(&self, most: usize) -> Vec<Flow> {
        let sums = self.sums(|values| &values.flows);
        sums.into_iter().take(most).map(|(flow, _)| flow).collect()
    }

    /// How many of their drops have a flow for which `is` holds, as samples share them out: all where all
    /// samples do.
    pub fn count_of(&self, is: impl Fn(&Flow) -> bool) -> u64 {
        let sums = self.sums(|values| &values.flows);
        let sum: f64 = sums.iter().filter(|(flow, _)| is(flow)).map(|(_, drops)| drops).sum();
        // Sums of parts may fall short of the whole by less than a packet.
        (sum + 0.5) as u64
    }

    /// The namespaces that samples name for most of the drops of a row, each once.
    pub fn namespaces(&self) -> Vec<&'a Netns> {
        let mut found: Vec<&Netns> = self.0.iter().filter_map(|row| netns(row)).collect();
        found.sort_by_key(|netns| netns.number());
        found.dedup_by_key(|netns| netns.number());
        found
    }

    /// Returns the rows of which most sampled packets were dropped in `namespace`.
    pub fn within(&self, namespace: NetnsFacts<'_>) -> Self {
        namespace.netns().map_or_else(|| Self(Vec::new()), |netns| self.of_netns(netns.number()))
    }

    /// The port that nearly all of their packets were for, as far as samples show.
    pub fn port(&self) -> Option<u16> {
        self.of_all(|values| &values.destination_ports)
    }

    /// The port that the packets of the largest row came from, as far as its flow's pattern tells.
    pub fn source_port(&self) -> Option<u16> {
        let largest = self.0.iter().max_by_key(|row| row.count)?;
        largest.details.as_ref()?.flow.as_ref()?.flow.src_port
    }

    /// The ports that samples show packets to have been for.
    pub fn ports(&self) -> Vec<u16> {
        self.sums(|values| &values.destination_ports).into_iter().map(|(port, _)| port).collect()
    }

    /// The port that more than half of their packets were for.
    pub fn main_port(&self) -> Option<u16> {
        let (port, drops) = self.sums(|values| &values.destination_ports).into_iter().next()?;
        (drops > self.count() as f64 / 2.0).then_some(port)
    }

    /// Whether samples show of at least half of the packets which ports they were for.
    pub fn shows_ports(&self) -> bool {
        let sums = self.sums(|values| &values.destination_ports);
        let shown: f64 = sums.iter().map(|(_, drops)| drops).sum();
        shown > 0.0 && shown >= self.count() as f64 / 2.0
    }

    /// The address that nearly all of their packets came from.
    pub fn source(&self) -> Option<IpAddr> {
        self.of_all(|values| &values.sources)
    }

    /// The address that nearly all of their packets were going to.
    pub fn destination(&self) -> Option<IpAddr> {
        self.of_all(|values| &values.destinations)
    }

    /// The protocols of nearly all of their packets, the commonest first; none where samples do not
    /// show so many.
    pub fn protocols(&self) -> Vec<Term> {
        let sums = self.sums(|values| &values.protocols);
        match self.is_nearly_all(sums.iter().map(|(_, drops)| drops).sum()) {
            true => self.leading(sums),
            false => Vec::new(),
        }
    }

    /// What `of` makes of nearly all of their call paths, the commonest first; none where it makes
    /// nothing of some.
    pub fn on_paths<T: Ord + Clone>(&self, of: impl Fn(&Callers) -> Option<T>) -> Vec<T> {
        self.leading(self.sums_on_paths(of))
    }

    /// As [`on_paths`](Self::on_paths), of the rarest, too.
    pub fn on_all_paths<T: Ord + Clone>(&self, of: impl Fn(&Callers) -> Option<T>) -> Vec<T> {
        self.sums_on_paths(of).into_iter().map(|(is, _)| is).collect()
    }

    fn sums_on_paths<T: Ord + Clone>(&self, of: impl Fn(&Callers) -> Option<T>) -> Vec<(T, f64)> {
        let mut sums: BTreeMap<T, f64> = BTreeMap::new();
        for (callers, drops) in self.sums(|values| &values.paths) {
            if let Some(is) = of(&callers) {
                *sums.entry(is).or_default() += drops;
            }
        }
        let mut sums = sorted(sums);
        if !self.is_nearly_all(sums.iter().map(|(_, drops)| drops).sum()) {
            sums.clear();
        }
        sums
    }

    /// What the sampled packets have, whatever part of the drops they stand for.
    pub fn seen(&self) -> SeenValues<'a> {
        let mut seen = SeenValues::default();
        for values in self.0.iter().filter_map(|row| Some(&row.details.as_ref()?.values)) {
            seen.protocols.extend(values.protocols.keys().map(|term| &**term));
            seen.sources.extend(values.sources.keys());
            seen.destinations.extend(values.destinations.keys());
            seen.ports.extend(values.destination_ports.keys());
        }
        seen
    }

    /// The device that nearly all of their packets came in by, or were sent by.
    pub fn device(&self) -> Option<&'a str> {
        self.fact_of_all(|details| {
            let fact = details.interface.as_ref()?;
            Some((fact.is.name.as_deref()?, fact.share))
        })
    }

    /// Index of the device that nearly all of their packets came in by, or were sent by.
    pub fn device_index(&self) -> Option<u32> {
        self.of_all(|values| &values.devices)
    }

    /// Indexes of the devices of sampled drops, at most a few, the ones with the most drops first.
    pub fn devices(&self) -> Vec<u32> {
        let sums = self.sums(|values| &values.devices).into_iter();
        sums.map(|(device, _)| device).take(MOST_DEVICES).collect()
    }

    /// The stations that nearly all of their frames were for and from.
    pub fn stations(&self) -> Option<(Mac, Mac)> {
        self.of_all(|values| &values.stations)
    }

    /// Their drops by the index of the device, with the rows that have some of them. Of a row with
    /// several devices, the drops of each are known only where every drop was sampled; else they are left
    /// out.
    pub fn by_device(&self) -> BTreeMap<u32, (Self, u64)> {
        let mut found: BTreeMap<u32, (Self, u64)> = BTreeMap::new();
        for row in &self.0 {
            let only = Self(vec![row]).device_index().map(|device| (device, row.count));
            let sampled = row.details.as_ref().filter(|details| details.samples == row.count);
            let each = || sampled.into_iter().flat_map(|details| details.values.devices.clone());
            let parts: Vec<(u32, u64)> = match only {
                Some(only) => vec![only],
                None => each().collect(),
            };
            for (device, drops) in parts {
                let (rows, sum) = found.entry(device).or_insert_with(|| (Self(Vec::new()), 0));
                rows.0.push(row);
                *sum = sum.saturating_add(drops);
            }
        }
        let asked = self.devices();
        found.retain(|device, _| asked.contains(device));
        found
    }

    /// The process that holds the socket of nearly all of their packets.
    pub fn owner(&self) -> Option<&'a Owner> {
        self.fact_of_all(|details| details.owner.as_ref().map(|fact| (&fact.is, fact.share)))
    }

    /// The value that `of` gives for nearly all of the drops, as samples share them out.
    fn fact_of_all<T: PartialEq>(&self, of: impl Fn(&'a Details) -> Option<(T, f64)>) -> Option<T> {
        let mut sums: Vec<(T, f64)> = Vec::new();
        for row in &self.0 {
            let Some((what, share)) = row.details.as_ref().and_then(&of) else { continue };
            let precision = row.details.as_ref().map_or(Precision::Unknown, Details::precision);
            // What is surely theirs: samples may have made a share larger than it is.
            let drops = precision.at_least(share) * row.count as f64;
            match sums.iter_mut().find(|(known, _)| *known == what) {
                Some((_, sum)) => *sum += drops,
                None => sums.push((what, drops)),
            }
        }
        sums.into_iter().find(|(_, drops)| self.is_nearly_all(*drops)).map(|(what, _)| what)
    }

    fn of_all<T: Ord + Clone + 'a>(
        &self,
        of: impl Fn(&'a Values) -> &'a BTreeMap<T, u64>,
    ) -> Option<T> {
        let (value, drops) = self.sums(of).into_iter().next()?;
        self.is_nearly_all(drops).then_some(value)
    }

    /// Values with the drops that samples give to each, the most first.
    fn sums<T: Ord + Clone + 'a>(
        &self,
        of: impl Fn(&'a Values) -> &'a BTreeMap<T, u64>,
    ) -> Vec<(T, f64)> {
        let mut sums: BTreeMap<T, f64> = BTreeMap::new();
        for row in &self.0 {
            let Some(details) = row.details.as_ref().filter(|details| details.weight > 0) else {
                continue;
            };
            let scale = row.count as f64 / details.weight as f64;
            for (value, weight) in of(&details.values) {
                *sums.entry(value.clone()).or_default() += *weight as f64 * scale;
            }
        }
        sorted(sums)
    }

    /// The first of `sums` that are nearly all of the drops together.
    fn leading<T>(&self, sums: Vec<(T, f64)>) -> Vec<T> {
        let mut drops = 0.0;
        let needed = |(_, more): &(T, f64)| {
            let enough = self.is_nearly_all(drops);
            drops += more;
            !enough
        };
        sums.into_iter().take_while(needed).map(|(value, _)| value).collect()
    }

    /// Whether so many are nearly all of their drops.
    pub fn is_nearly_all(&self, drops: f64) -> bool {
        drops > 0.0 && drops >= self.count() as f64 * NEARLY_ALL
    }

    /// Interfaces that the samples name, with the drops of their rows, the most first.
    pub fn interfaces(&self) -> Vec<(&'a str, u64)> {
        let mut found: Vec<(&str, u64)> = Vec::new();
        for row in &self.0 {
            let details = row.details.as_ref();
            let name = details.and_then(|d| d.interface.as_ref()?.is.name.as_deref());
            let Some(name) = name else { continue };
            match found.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count = count.saturating_add(row.count),
                None => found.push((name, row.count)),
            }
        }
        found.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        found
    }
}

/// A packet that is routed so, from wherever.
fn of(Routed { to, mark, above }: Routed) -> Packet {
    Packet { mark, above, ..Packet::to(to) }
}

/// The most first.
fn sorted<T: Ord>(sums: BTreeMap<T, f64>) -> Vec<(T, f64)> {
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    sums
}

/// The namespace that surely more than half of a row's sampled drops were in.
fn netns(row: &Location) -> Option<&Netns> {
    let details = row.details.as_ref()?;
    let fact = details.netns.as_ref()?;
    (details.precision().at_least(fact.share) > 0.5).then_some(&fact.is)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::rules::testing::TestHost;

    /// A row of a thousand drops, of which samples of this effective number say so.
    fn row(share: f64, effective_samples: f64) -> Vec<Location> {
        let owner = Owner { comm: "curl".into(), pid: 7, cgroup: None };
        let host = TestHost::new().row(1000, "nf_hook_slow", "NETFILTER_DROP").owner(owner);
        let host = host.details(|details| {
            details.samples = 300;
            details.effective_samples = Some(effective_samples);
            details.netns.as_mut().expect("a namespace").share = share;
            details.owner.as_mut().expect("an owner").share = share;
        });
        host.report().locations
    }

    #[test]
    fn more_than_half_and_nearly_all_is_what_surely_is() {
        let known = |share, effective_samples| {
            let rows = row(share, effective_samples);
            let rows = Rows(rows.iter().collect());
            (rows.owner().is_some(), rows.namespaces().len() == 1)
        };
        assert_eq!(known(0.55, 24.0), (false, false), "may be less than half");
        assert_eq!(known(0.55, 2000.0), (false, true));
        assert_eq!(
            known(0.96, 24.0),
            (false, true),
            "of all packets, it may be less than nearly all"
        );
        assert_eq!(known(0.96, 2000.0), (true, true));
        assert_eq!(known(0.501, 1000.0), (false, true), "each drop was sampled");
        assert_eq!(known(0.501, 999.0), (false, false));
        assert_eq!(known(1.0, 1.0), (true, true), "all samples agree");
    }
}
