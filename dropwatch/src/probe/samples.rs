//! Collecting what the kernel side has sampled.

use aya::{
    Ebpf,
    maps::{Array, MapData, MapError, RingBuf},
};

use super::Probe;
use crate::report::sample::Sample;

/// The section of the kernel side's one mutable global, its interval number.
const EPOCH: &str = ".bss";

/// Samples of the attached program.
pub(super) struct Samples {
    ring: RingBuf<MapData>,
    epoch: Array<MapData, u32>,
    interval: u32,
}

impl Samples {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, MapError> {
        let map = |ebpf: &mut Ebpf, name: &str| {
            ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() })
        };
        Ok(Self {
            ring: map(ebpf, "SAMPLES")?.try_into()?,
            epoch: map(ebpf, EPOCH)?.try_into()?,
            interval: 0,
        })
    }
}

impl Probe {
    /// Samples taken since the last call, and a new budget for every location. Nothing where
    /// samples are off.
    pub fn samples(&mut self) -> Result<Vec<Sample>, MapError> {
        let Some(samples) = &mut self.samples else { return Ok(Vec::new()) };
        samples.interval = samples.interval.wrapping_add(1);
        samples.epoch.set(0, samples.interval, 0)?;
        let mut taken = Vec::new();
        while let Some(record) = samples.ring.next() {
            taken.extend(Sample::decode(&record));
        }
        Ok(taken)
    }
}
