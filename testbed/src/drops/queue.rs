//! A link that is slower than its sender.

use std::{thread::sleep, time::Duration};

use anyhow::Result;

use super::{
    Cause, PORT,
    network::{CLIENT, LINK, Network, SERVER},
};
use crate::{command::output, machine::longer, netns::Netns};

/// A client whose link is shaped to a megabit a second, with a short queue.
#[derive(Debug)]
pub struct Shaped(Network);

impl Shaped {
    /// Longer than the queue takes to empty: 3,000 bytes.
    const EMPTYING: Duration = Duration::from_millis(100);

    /// # Errors
    /// As [`Network::direct`], and without `tc` or sch_tbf in the kernel.
    pub fn new() -> Result<Self> {
        let network = Network::direct()?;
        network.listen(SERVER)?;
        let shaper = format!("qdisc add dev {LINK} root tbf rate 1mbit burst 2000 limit 3000");
        output(network.client().command("tc").args(shaper.split(' ')))?;
        Ok(Self(network))
    }

    /// The link is as fast as it can.
    ///
    /// # Errors
    /// When it cannot be changed.
    pub fn open(&self) -> Result<()> {
        let shaper = format!("qdisc del dev {LINK} root");
        output(self.0.client().command("tc").args(shaper.split(' '))).map(drop)
    }
}

/// More datagrams than the queue takes; how many are dropped is up to the clock.
impl Cause for Shaped {
    fn netns(&self) -> &Netns {
        self.0.client()
    }

    fn send(&self, packets: u64) -> Result<u64> {
        let source = self.0.source(CLIENT)?;
        self.0.client().enter(|| {
            for _ in 0..packets {
                // The kernel may tell the sender of a drop.
                let _dropped = source.send_to(b"too many", (SERVER, PORT));
            }
            Ok(())
        })?;
        sleep(longer(Self::EMPTYING));
        self.0.datagrams(&source, (SERVER, PORT), 0)?;
        Ok(packets)
    }
}
