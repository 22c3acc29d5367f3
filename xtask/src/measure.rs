//! Measuring a running dropwatch from outside.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use aya::{
    maps::{HashMap, Map, MapData, loaded_maps},
    util::nr_cpus,
};
use dropwatch_common::{Counter, CpuKey, DropKey};

/// Time that all threads of a process have spent on CPUs, from `/proc/PID/task/*/schedstat`.
pub(crate) fn on_cpu(pid: u32) -> Result<Duration> {
    let mut nanos = 0_u64;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Time that a process has spent on CPUs, in user space and in the kernel, with that of threads which have
/// ended, from `/proc/PID/stat`.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    /// `USER_HZ`, in which all kernels count for user space (include/asm-generic/param.h).
    const TICKS: u64 = 100;
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields 14 and 15; the second one is a name in parentheses, which may hold anything.
    let (_, rest) = text.rsplit_once(") ").context("no name in /proc/PID/stat")?;
    let times = rest.split(' ').skip(11).take(2).map(str::parse::<u64>);
    let ticks = times.sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// A value of `/proc/PID/status`.
pub(crate) fn kilobytes(status: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(status).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

/// A counter map, its keys and values as bytes: aya's own bound for both can only be promised, that of
/// zerocopy is proved.
pub(crate) type CounterMap =
    HashMap<MapData, [u8; size_of::<CpuKey>()], [u8; size_of::<Counter>()]>;

/// The counter map of the dropwatch that was started last.
pub(crate) fn counters() -> Result<CounterMap> {
    let newest = loaded_maps()
        .filter_map(Result::ok)
        .filter(|map| map.name_as_str() == Some("DROPS"))
        .max_by_key(aya::maps::MapInfo::id)
        .context("dropwatch has no counter map")?;
    Ok(Map::HashMap(MapData::from_id(newest.id())?).try_into()?)
}

/// Counts `count` drops at each key on every CPU, as the kernel side would: no host drops packets
/// at hundreds of places at will.
pub(crate) fn count_at(counters: &mut CounterMap, keys: &[DropKey], count: u64) -> Result<()> {
    let cpus = nr_cpus().map_err(|(_, error)| error).context("cannot count the CPUs")? as u32;
    let value: [u8; size_of::<Counter>()] =
        zerocopy::transmute!(Counter { count, ..Counter::default() });
    for (key, cpu) in keys.iter().flat_map(|key| (0..cpus).map(move |cpu| (key, cpu))) {
        let key: [u8; size_of::<CpuKey>()] = zerocopy::transmute!(CpuKey::new(*key, cpu));
        counters.insert(key, value, 0)?;
    }
    Ok(())
}

/// Different keys: up to a few hundred functions of the kernel, then more reasons at each.
pub(crate) fn keys(count: usize) -> Result<Vec<DropKey>> {
    let functions = function_addresses(count.min(FUNCTIONS))?;
    let keys = (2..).flat_map(|reason| functions.iter().map(move |at| DropKey::new(*at, reason)));
    Ok(keys.take(count).collect())
}

const FUNCTIONS: usize = 500;

/// Addresses inside kernel functions, spread over the kernel.
fn function_addresses(count: usize) -> Result<Vec<u64>> {
    let text = fs::read_to_string("/proc/kallsyms").context("cannot read kernel symbols")?;
    let functions: Vec<u64> = text
        .lines()
        .filter_map(|line| {
            let (address, rest) = line.split_once(' ')?;
            let address = u64::from_str_radix(address, 16).ok()?;
            (rest.starts_with("T ") && !rest.contains('\t')).then_some(address)
        })
        .collect();
    ensure!(functions.len() > count * 10, "kernel symbols are hidden");
    // The first ones are entry code, the last ones belong to code that is freed after boot.
    let half = &functions[functions.len() / 4..functions.len() / 2];
    Ok(half.iter().step_by(half.len() / count).take(count).map(|address| address + 1).collect())
}
