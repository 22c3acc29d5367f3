//! The samples of an interval, summed up for each drop location and reason.
//!
//! Memory and time are bounded whatever the kernel sends: of each location at most `MAX_SAMPLES`
//! samples are looked at (`report/weighed.rs`). The result does not depend on the order in which samples
//! arrive.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use dropwatch_common::DropKey;

use super::{
    address::Address,
    facts::{
        CallPath, Callers, Cpu, Details, Direction, Fact, FlowTracked, Frame, Interface, Netns,
        Owner, ProtocolName, Routed, Values,
    },
    flow::{AboveIp, Flow},
    names::Names,
    namespaces::SampledFlow,
    number::share,
    path::{before_location, informative},
    pattern::pattern,
    place::Symbol,
    precision::Precision,
    sample::Sample,
    weighed::{Weighed, limit, weigh, weighed, worth},
};

/// Most flows that a report lists of one namespace's drops at a location.
pub const FLOWS: usize = 3;

/// Most call paths that a report lists under a location.
pub const MAX_PATHS: usize = 32;

/// Most processes that are searched for, of one location: each costs a look into `/proc`.
const MAX_OWNERS: usize = 32;

/// Longest name of a namespace, an interface or a process, characters. Such names come from
/// anyone who may create one.
const MAX_NAME: usize = 256;
/// Longest path of a control group that is passed on, bytes (`PATH_MAX`).
const MAX_CGROUP: usize = 4096;

/// A device that samples of a row name, and the drops that these stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Inode number of its namespace.
    pub netns: u32,
    pub index: u32,
    pub weight: u64,
}

/// Addresses that samples of a row have in common; `None` is one that they do not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Number of their namespace in the run.
    pub netns: Option<u32>,
    pub src: Option<IpAddr>,
    pub dst: Option<IpAddr>,
    pub samples: u64,
}

/// The samples of an interval by location and reason, and the names that were asked for already.
pub struct SamplesByKey<'a> {
    /// Of all namespaces.
    by_key: HashMap<DropKey, Vec<Weighed<'a>>>,
    /// Of each one; those of none that is proved, too.
    by_netns: HashMap<DropKey, Vec<Weighed<'a>>>,
    symbols: HashMap<u64, Option<Symbol>>,
}

impl<'a> SamplesByKey<'a> {
    pub fn new(samples: &'a [Sample]) -> Self {
        let by_key = weighed(samples, |sample| sample.key.everywhere());
        let by_netns = weighed(samples, |sample| sample.key);
        Self { by_key, by_netns, symbols: HashMap::new() }
    }

    /// Has them stand for none but the `drops` of their interval, by key and namespace.
    pub fn within(mut self, drops: &HashMap<DropKey, u64>) -> Self {
        let mut everywhere: HashMap<DropKey, u64> = HashMap::new();
        for (key, count) in drops {
            let sum = everywhere.entry(key.everywhere()).or_default();
            *sum = sum.saturating_add(*count);
        }
        for (samples, drops) in [(&mut self.by_key, &everywhere), (&mut self.by_netns, drops)] {
            samples.retain(|key, samples| {
                limit(samples, drops.get(key).copied().unwrap_or(0));
                !samples.is_empty()
            });
        }
        self
    }

    /// What the samples of `key` have in common, in all namespaces; `None` if there are none.
    pub fn details(&mut self, key: DropKey, names: &mut dyn Names) -> Option<Details> {
        let samples = self.by_key.get(&key)?;
        Some(in_common(samples, &mut self.symbols, names))
    }

    /// What the samples of `key` have in common that are of its namespace.
    pub fn details_within(&mut self, key: DropKey, names: &mut dyn Names) -> Option<Details> {
        let samples = self.by_netns.get(&key)?;
        Some(in_common(samples, &mut self.symbols, names))
    }

    /// What the sampled packets of `key` were that are of its namespace, at most [`FLOWS`].
    pub fn flows_within(&mut self, key: DropKey, names: &mut dyn Names) -> Vec<SampledFlow> {
        let Some(samples) = self.by_netns.get(&key) else { return Vec::new() };
        let total = weigh(samples);
        let mut rest = samples.clone();
        let mut flows = Vec::new();
        while flows.len() < FLOWS && !rest.is_empty() {
            let flow;
            (flow, rest) = heaviest_flow(rest, total, &mut self.symbols, names);
            flows.push(flow);
        }
        flows
    }

    /// From where to where the samples of `key` went that its [`Details`] are made of.
    pub fn ends(&self, key: DropKey) -> Vec<Ends> {
        let mut samples = BTreeMap::new();
        for sample in self.by_key.get(&key).into_iter().flatten() {
            let flow = Flow::of(sample).unwrap_or_default();
            add(&mut samples, (sample.netns, flow.src, flow.dst), 1);
        }
        let of = |((netns, src, dst), samples)| Ends { netns, src, dst, samples };
        samples.into_iter().map(of).collect()
    }

    /// Every device that samples of `key` name.
    pub fn devices(&self, key: DropKey) -> Vec<Device> {
        let mut devices = BTreeMap::new();
        for sample in self.by_key.get(&key).into_iter().flatten() {
            if let Some(device) = device(sample) {
                add(&mut devices, device, sample.weight);
            }
        }
        let of = |((netns, index), weight)| Device { netns, index, weight };
        devices.into_iter().map(of).collect()
    }

    /// The whole call paths of the samples of `key`, the heaviest first, at most [`MAX_PATHS`].
    pub fn paths(&mut self, key: DropKey, addresses: bool, names: &mut dyn Names) -> Vec<CallPath> {
        let Some(samples) = self.by_key.get(&key) else { return Vec::new() };
        let mut paths: BTreeMap<&[u64], (u64, u64)> = BTreeMap::new();
        for sample in samples {
            let from = begin(sample, &mut self.symbols, names);
            let Some(stack) = sample.stack.get(from..).filter(|stack| !stack.is_empty()) else {
                continue;
            };
            let (samples, weight) = paths.entry(stack).or_default();
            *samples += 1;
            *weight = weight.saturating_add(sample.weight);
        }
        let total = weigh(samples);
        let mut paths: Vec<_> = paths.into_iter().collect();
        paths.sort_by_key(|(stack, (_, weight))| (Reverse(*weight), *stack));
        paths.truncate(MAX_PATHS);
        let symbols = &mut self.symbols;
        let mut frame = |address: &u64| frame(*address, addresses, symbols, names);
        paths
            .into_iter()
            .map(|(stack, (samples, weight))| CallPath {
                samples,
                weight,
                share: share(weight, total),
                frames: stack.iter().map(&mut frame).collect(),
            })
            .collect()
    }
}

/// What samples have in common.
fn in_common(
    samples: &[Weighed<'_>],
    symbols: &mut HashMap<u64, Option<Symbol>>,
    names: &mut dyn Names,
) -> Details {
    let weight = weigh(samples);
    let effective = worth(samples);
    let mut callers = Weights::default();
    let (mut namespaces, mut devices) = (Weights::default(), Weights::default());
    let (mut sent, mut tracked, mut cpus) =
        (Weights::default(), Weights::default(), Weights::default());
    let (mut protocols, mut flows) = (Weights::default(), BTreeMap::new());
    let mut values = Values::default();
    for sample in samples {
        namespaces.add(sample.netns, sample.weight);
        cpus.add(Some(sample.cpu), sample.weight);
        devices.add(device(sample), sample.weight);
        sent.add(sample.outgoing, sample.weight);
        tracked.add(sample.conntrack, sample.weight);
        let path = short_path(sample, symbols, names);
        let flow = Flow::of(sample);
        values.add(path.clone(), flow.as_ref(), sample.mark, sample.weight);
        values.add_link_layer(sample, sample.weight);
        callers.add(path, sample.weight);
        protocols.add(flow.as_ref().and_then(|flow| flow.protocol.clone()), sample.weight);
        if let Some(flow) = flow {
            add(&mut flows, flow, sample.weight);
        }
    }
    Details {
        samples: samples.len() as u64,
        effective_samples: Some(effective),
        weight,
        netns: namespaces.most(|number| netns(number, names)),
        interface: devices.most(|(inum, index)| interface(inum, index, names)),
        direction: sent.most(|outgoing| Direction { outgoing }),
        protocol: protocols.most(|name| ProtocolName { name: name.into_owned() }),
        flow: pattern(&flows, weight, Precision::new(Some(effective), weight)),
        path: callers.most(|callers| Callers { callers }),
        conntrack: tracked.most(|entry| FlowTracked { entry }),
        owner: owners(samples, names).most(|owner| owner),
        cpu: cpus.most(|cpu| Cpu { cpu }),
        values,
    }
}

impl Values {
    /// Adds a sample that stands for so many drops.
    pub(crate) fn add(
        &mut self,
        path: Option<Vec<Option<String>>>,
        flow: Option<&Flow>,
        mark: u32,
        weight: u64,
    ) {
        if let Some(callers) = path {
            add(&mut self.paths, Callers { callers }, weight);
        }
        let Some(flow) = flow else { return };
        add(&mut self.flows, flow.clone(), weight);
        if let Some(protocol) = &flow.protocol {
            add(&mut self.protocols, protocol.clone(), weight);
        }
        for (address, sums) in [(flow.src, &mut self.sources), (flow.dst, &mut self.destinations)] {
            if let Some(address) = address {
                add(sums, address, weight);
            }
        }
        if let Some(to) = flow.dst {
            add(&mut self.routed, Routed { to, mark, above: AboveIp::of(flow) }, weight);
        }
        if let Some(port) = flow.dst_port {
            add(&mut self.destination_ports, port, weight);
        }
    }

    /// Adds the device and the stations of a sample that stands for so many drops.
    fn add_link_layer(&mut self, sample: &Sample, weight: u64) {
        if let Some(device) = sample.ifindex.filter(|_| sample.netns.is_some()) {
            add(&mut self.devices, device, weight);
        }
        let header = sample.packet.split_first_chunk().filter(|_| sample.link_header);
        if let Some((to, rest)) = header
            && let Some(from) = rest.first_chunk()
        {
            add(&mut self.stations, (*to, *from), weight);
        }
    }
}

/// Those of the samples that came by the interface that most came by, and are of their pattern; and
/// the others.
fn heaviest_flow<'a>(
    samples: Vec<Weighed<'a>>,
    total: u64,
    symbols: &mut HashMap<u64, Option<Symbol>>,
    names: &mut dyn Names,
) -> (SampledFlow, Vec<Weighed<'a>>) {
    let mut devices = Weights::default();
    for sample in &samples {
        devices.add(device(sample), sample.weight);
    }
    let by = devices.most(|device| device).map(|fact| fact.is);
    let (mut of_it, mut rest): (Vec<_>, Vec<_>) =
        samples.into_iter().partition(|sample| device(sample) == by);
    let mut flows = BTreeMap::new();
    for sample in &of_it {
        if let Some(flow) = Flow::of(sample) {
            add(&mut flows, flow, sample.weight);
        }
    }
    let weight = weigh(&of_it);
    let mut pattern = pattern(&flows, weight, Precision::new(Some(worth(&of_it)), weight));
    if let Some(pattern) = &mut pattern {
        let others;
        (of_it, others) = of_it
            .into_iter()
            .partition(|sample| Flow::of(sample).is_some_and(|flow| pattern.covers(&flow)));
        rest.extend(others);
        // Of the packets that this is about.
        pattern.share = 1.0;
    }
    let mut callers = Weights::default();
    for sample in &of_it {
        callers.add(short_path(sample, symbols, names), sample.weight);
    }
    let flow = SampledFlow {
        interface: by.map(|(inum, index)| interface(inum, index, names)),
        flow: pattern,
        path: callers.most(|callers| Callers { callers }).map(|fact| fact.is),
        share: share(weigh(&of_it), total),
        samples: of_it.len() as u64,
    };
    (flow, rest)
}

/// Adds `weight` to what stands for `value`.
fn add<T: Ord>(sums: &mut BTreeMap<T, u64>, value: T, weight: u64) {
    let sum = sums.entry(value).or_default();
    *sum = sum.saturating_add(weight);
}

/// The inode number of the namespace, and the index, of the device that a sample names.
fn device(sample: &Sample) -> Option<(u32, u32)> {
    sample.netns.zip(sample.ifindex)
}

/// Weights of the values of one field; `None` is the unknown value.
struct Weights<T>(BTreeMap<Option<T>, u64>);

impl<T> Default for Weights<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord> Weights<T> {
    fn add(&mut self, value: Option<T>, weight: u64) {
        add(&mut self.0, value, weight);
    }

    /// The heaviest value, with its share; `None` if that is the unknown one.
    fn most<U>(self, name: impl FnOnce(T) -> U) -> Option<Fact<U>> {
        let total = self.0.values().fold(0, |sum: u64, weight| sum.saturating_add(*weight));
        let mut heaviest: Option<(Option<T>, u64)> = None;
        for (value, weight) in self.0 {
            // Of equal weights the first one counts, which is the unknown value: a known one must
            // have more.
            if heaviest.as_ref().is_none_or(|(_, most)| weight > *most) {
                heaviest = Some((value, weight));
            }
        }
        let (value, weight) = heaviest?;
        Some(Fact { is: name(value?), share: share(weight, total) })
    }
}

/// A namespace by its number in the run.
pub(super) fn netns(number: u32, names: &mut dyn Names) -> Netns {
    let mut netns = names.netns(number);
    netns.name = bounded(netns.name);
    netns
}

/// Name of a device, with its index.
pub(super) fn interface(netns: u32, index: u32, names: &mut dyn Names) -> Interface {
    Interface { name: bounded(names.interface(netns, index)), index }
}

/// The process behind a socket's inode number.
pub(super) fn owner(socket: u64, names: &mut dyn Names) -> Option<Owner> {
    let Owner { comm, pid, cgroup } = names.owner(socket)?;
    let cgroup = cgroup.filter(|path| path.len() <= MAX_CGROUP);
    Some(Owner { comm: bounded(Some(comm))?, pid, cgroup })
}

/// Cuts a name that is too long; `None` for an empty one.
fn bounded(name: Option<String>) -> Option<String> {
    let mut name = name.filter(|name| !name.is_empty())?;
    if let Some((end, _)) = name.char_indices().nth(MAX_NAME) {
        name.truncate(end);
    }
    Some(name)
}

/// Processes by the weight of the samples of their sockets.
fn owners(samples: &[Weighed<'_>], names: &mut dyn Names) -> Weights<Owner> {
    let mut sockets = BTreeMap::new();
    let mut owners = Weights::default();
    for sample in samples {
        match sample.socket {
            Some(socket) => add(&mut sockets, socket, sample.weight),
            None => owners.add(None, sample.weight),
        }
    }
    let mut sockets: Vec<_> = sockets.into_iter().collect();
    sockets.sort_by_key(|(socket, weight)| (Reverse(*weight), *socket));
    for (index, (socket, weight)) in sockets.into_iter().enumerate() {
        let found = if index < MAX_OWNERS { owner(socket, names) } else { None };
        owners.add(found, weight);
    }
    owners
}

fn symbol<'a>(
    address: u64,
    symbols: &'a mut HashMap<u64, Option<Symbol>>,
    names: &mut dyn Names,
) -> Option<&'a Symbol> {
    symbols.entry(address).or_insert_with(|| names.symbol(address)).as_ref()
}

/// The frame of a stack at which its path begins.
fn begin(
    sample: &Sample,
    symbols: &mut HashMap<u64, Option<Symbol>>,
    names: &mut dyn Names,
) -> usize {
    if sample.stack.first().is_none_or(|first| *first == sample.key.location) {
        return 0;
    }
    let mut name = |address: u64| symbol(address, symbols, names).map(|symbol| symbol.name.clone());
    let functions: Vec<_> = sample.stack.iter().map(|address| name(*address)).collect();
    let functions: Vec<_> = functions.iter().map(Option::as_deref).collect();
    before_location(&functions, name(sample.key.location).as_deref())
}

/// The callers that are worth showing; `None` where there is no call path, or none of it has a name.
fn short_path(
    sample: &Sample,
    symbols: &mut HashMap<u64, Option<Symbol>>,
    names: &mut dyn Names,
) -> Option<Vec<Option<String>>> {
    let from = begin(sample, symbols, names);
    let callers = sample.stack.get(from + 1..)?;
    let mut name = |address: &u64| Some(symbol(*address, symbols, names)?.name.clone());
    let callers: Vec<_> = callers.iter().map(&mut name).collect();
    Some(informative(&callers)).filter(|callers| !callers.is_empty())
}

fn frame(
    address: u64,
    public: bool,
    symbols: &mut HashMap<u64, Option<Symbol>>,
    names: &mut dyn Names,
) -> Frame {
    let named = symbol(address, symbols, names);
    Frame {
        symbol: named.map(|symbol| symbol.name.clone()),
        offset: named.map(|symbol| symbol.offset),
        module: named.and_then(|symbol| symbol.module.clone()),
        address: if public { Address::Public(address) } else { Address::Withheld(address) },
    }
}

/// The whole call path of one sample.
pub(super) fn frames(sample: &Sample, public: bool, names: &mut dyn Names) -> Vec<Frame> {
    let mut symbols = HashMap::new();
    let from = begin(sample, &mut symbols, names);
    let stack = sample.stack.get(from..).unwrap_or_default();
    stack.iter().map(|address| frame(*address, public, &mut symbols, names)).collect()
}

#[cfg(test)]
mod tests;
