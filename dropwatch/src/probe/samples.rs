//! Collecting what the kernel side has sampled.

use std::{collections::HashMap, io};

use aya::maps::{self, MapData, RingBuf};
use dropwatch_common::Netns;
use zerocopy::IntoBytes as _;

use super::{Probe, maps::Map};
use crate::report::sample::Sample;

/// The section of the kernel side's one mutable global, its interval number.
const EPOCH: &str = ".bss";

/// Most samples that are collected at once.
const MOST: usize = 1 << 17;

/// Samples of the attached program.
pub(super) struct Samples {
    ring: RingBuf<MapData>,
    /// An array with one value, the number of the interval.
    epoch: Map,
    interval: u32,
}

impl Samples {
    /// `None` where one is missing, or is not what it should be.
    pub(super) fn take_from(maps: &mut HashMap<String, Map>) -> Option<Self> {
        let ring = MapData::from_fd(maps.remove("SAMPLES")?.fd).ok()?;
        let ring = maps::Map::from_map_data(ring).ok()?;
        let epoch = maps.remove(EPOCH)?;
        let is_word = (epoch.key_size, epoch.value_size) == (size_of::<u32>(), size_of::<u32>());
        let epoch = is_word.then_some(epoch)?;
        Some(Self { ring: ring.try_into().ok()?, epoch, interval: 0 })
    }
}

impl Probe {
    /// Samples taken since the last call, and a new budget for every location. Nothing where
    /// samples are off. `number` is what a namespace is called in this run.
    pub fn samples(&mut self, number: impl FnMut(Netns) -> u32) -> io::Result<Vec<Sample>> {
        if let Some(samples) = &mut self.samples {
            samples.interval = samples.interval.wrapping_add(1);
            samples.epoch.set(samples.interval.as_bytes())?;
        }
        Ok(self.samples_so_far(number))
    }

    /// Samples taken since the last call, within an interval.
    pub fn samples_so_far(&mut self, mut number: impl FnMut(Netns) -> u32) -> Vec<Sample> {
        let Some(samples) = &mut self.samples else { return Vec::new() };
        let mut taken = Vec::new();
        while let Some(record) = samples.ring.next() {
            taken.extend(Sample::decode(&record, &mut number));
            // While others go on dropping, the ring may never be empty.
            if taken.len() == MOST {
                break;
            }
        }
        taken
    }
}
