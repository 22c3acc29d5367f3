//! Two floods on one CPU, one interrupting the other.
//!
//! A first flood drops in process context: its link has no carrier, so each frame dies in the
//! sender (`tx_dropped`). A second one, sent from another CPU, is steered (RPS) to the first's CPU,
//! where it arrives in softirq, at times while the first is inside the tracing program. From Linux
//! 6.0 on the kernel then skips the nested run and counts it in `recursion_misses`; before, the
//! program runs nested.

use anyhow::{Result, bail};

use crate::{
    flood::{ETHERTYPE, Sent, Wire},
    pid1::{OtherDrops, Pid1Drops},
};

/// The CPU that both floods end on, and the one the second starts on.
const MEETING: usize = 0;
const OTHER: usize = 1;

/// What a nested flood dropped, counted by the links.
#[derive(Clone, Copy, Debug)]
pub struct Nested {
    /// Died in the sender's context: `tx_dropped` of the link without carrier.
    pub process: u64,
    /// Died in softirq: `rx_dropped` of the steered link.
    pub softirq: u64,
    /// Drops of others on the CPU where both floods end. Those that the kernel skips, because they
    /// interrupted the program while it handled a frame, are in `recursion_misses`, too.
    pub others: u64,
    /// Of both, those that PID 1 happened to be interrupted for; see [`Pid1Drops`].
    pub in_pid1: u64,
}

impl Nested {
    /// Drops of both floods.
    pub fn total(&self) -> u64 {
        self.process + self.softirq
    }
}

/// The wires of a nested flood.
#[derive(Debug)]
pub struct NestedFlood {
    cut: Wire,
    steered: Wire,
}

impl NestedFlood {
    /// # Errors
    /// On a machine with one CPU, without root or `ip`, and when interrupted.
    pub fn new() -> Result<Self> {
        if std::thread::available_parallelism()?.get() < 2 {
            bail!("a nested flood needs two CPUs: one sends, the other is interrupted");
        }
        let cut = Wire::new()?;
        cut.cut()?;
        let steered = Wire::new()?;
        steered.steer_to(MEETING)?;
        Ok(Self { cut, steered })
    }

    /// Sends `frames` on each wire at once and counts what the links dropped.
    ///
    /// # Errors
    /// When a socket fails, or frames got through that should have died.
    pub fn run(&self, frames: u64) -> Result<Nested> {
        let before = (self.cut.sent()?.tx_dropped, self.steered.received()?.rx_dropped);
        let pid1 = Pid1Drops::of_ethertype(ETHERTYPE)?;
        let others = OtherDrops::start(MEETING, ETHERTYPE)?;
        let (process, softirq) = std::thread::scope(|scope| {
            let process = scope.spawn(|| self.cut.flood(frames, Some(MEETING)));
            let softirq = self.steered.flood(frames, Some(OTHER));
            (process.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), softirq)
        });
        let (process, softirq) = (process?, softirq?);
        self.drain(before.1 + softirq.accepted)?;
        let nested = Nested {
            process: self.cut.sent()?.tx_dropped - before.0,
            softirq: self.steered.received()?.rx_dropped - before.1,
            others: others.sum()?,
            in_pid1: pid1.stop()?,
        };
        expect_all("without carrier", process, (0, nested.process))?;
        expect_all("steered", softirq, (nested.softirq, 0))?;
        Ok(nested)
    }

    /// Steered frames may still wait in the other CPU's backlog when the sender is done.
    fn drain(&self, rx_dropped: u64) -> Result<()> {
        for _ in 0..200 {
            if self.steered.received()?.rx_dropped >= rx_dropped {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        bail!("steered frames are missing after two seconds")
    }
}

/// `counted` is what its link has accepted and refused.
fn expect_all(which: &str, sent: Sent, counted: (u64, u64)) -> Result<()> {
    if (sent.accepted, sent.refused) != counted {
        bail!("the flood {which} was {sent:?}, but its link counts {counted:?}");
    }
    Ok(())
}
