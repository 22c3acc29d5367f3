//! A link that is slower than its sender.

use std::{thread::sleep, time::Duration};

use anyhow::{Context as _, Result};

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

    /// The same rate is that of a class, which has this queue; without one the queue of 5 packets that the
    /// kernel makes for it.
    ///
    /// # Errors
    /// As [`Network::direct`], and without `tc` or sch_htb in the kernel.
    pub fn in_class(queue: Option<&str>) -> Result<Self> {
        let network = Network::direct()?;
        let client = network.client();
        let tc =
            |arguments: &str| output(client.command("tc").args(arguments.split(' '))).map(drop);
        // A class takes the length of its queue from the device as it is then.
        client.ip(&format!("link set dev {LINK} txqueuelen 5"))?;
        tc(&format!("qdisc add dev {LINK} root handle 1: htb default 20"))?;
        tc(&format!("class add dev {LINK} parent 1: classid 1:20 htb rate 1mbit"))?;
        client.ip(&format!("link set dev {LINK} txqueuelen 1000"))?;
        if let Some(queue) = queue {
            tc(&format!("qdisc add dev {LINK} parent 1:20 handle 20: {queue}"))?;
        }
        Ok(Self(network))
    }

    /// Packets that the class, or all of it, has dropped so far.
    ///
    /// # Errors
    /// Without `tc`, and where it does not say.
    pub fn dropped(&self) -> Result<u64> {
        let show = ["-s", "qdisc", "show", "dev", LINK, "root"];
        let shown = output(self.0.client().command("tc").args(show))?;
        let after = shown.split_once("(dropped ").context("no drops are shown")?.1;
        let number = after.split([',', ' ']).next().unwrap_or_default();
        number.parse().with_context(|| format!("no number: {shown}"))
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
