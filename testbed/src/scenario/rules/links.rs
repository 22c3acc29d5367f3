//! Packets that a device, or what stands beside it, does not take; each with the same traffic where it
//! does.

use std::process::Command;

use anyhow::{Result, ensure};

use super::{Caused, RuleScenario, Trouble};
use crate::{
    command::output,
    drops::{
        Cause, bridge_port::Ports, control_group::Service, overlay::Overlay, pair::Pair,
        redirect::Redirected, tap::Tap,
    },
    netns::Netns,
};

pub(super) const ALL: &[RuleScenario] = &[
    RuleScenario {
        name: "no-carrier",
        about: "a link whose other end is switched off",
        rule: Some("no_carrier"),
        mended: true,
        make: || Ok(Box::new(Told(Pair::without_carrier()?, 50))),
    },
    RuleScenario {
        name: "no-carrier-arp",
        about: "nobody hears who has an address: there is no carrier",
        rule: Some("no_carrier"),
        mended: true,
        make: || Ok(Box::new(Told(Pair::unheard()?, 50))),
    },
    RuleScenario {
        name: "pair-healthy",
        about: "large datagrams between two ends that are alike",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(Pair::healthy()?, 50))),
    },
    RuleScenario {
        name: "narrow-end",
        about: "the other end of a pair takes less than is sent",
        rule: Some("narrow_end"),
        mended: true,
        make: || Ok(Box::new(Told(Pair::narrow()?, 50))),
    },
    RuleScenario {
        name: "narrow-port",
        about: "a bridge's port takes less than the others",
        rule: Some("narrow_end"),
        mended: true,
        make: || Ok(Box::new(Told(Ports::narrow()?, 50))),
    },
    RuleScenario {
        name: "bridge-healthy",
        about: "datagrams through a bridge",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(Ports::healthy()?, 50))),
    },
    RuleScenario {
        name: "bridge-hairpin",
        about: "a station reaches itself by way of a bridge",
        rule: Some("bridge_port"),
        mended: true,
        make: || Ok(Box::new(Told(Ports::back()?, 50))),
    },
    RuleScenario {
        name: "bridge-hairpin-on",
        about: "the same, and its port may send back",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(Ports::back_with_hairpin()?, 50))),
    },
    RuleScenario {
        name: "bridge-one-port",
        about: "two stations behind one port of a bridge",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(Ports::behind_one_port()?, 50))),
    },
    RuleScenario {
        name: "bridge-isolated",
        about: "two ports of a bridge are kept apart",
        rule: Some("bridge_port"),
        mended: true,
        make: || Ok(Box::new(Told(Ports::isolated()?, 50))),
    },
    RuleScenario {
        name: "bridge-disabled",
        about: "a port of a bridge is switched off",
        rule: Some("bridge_port"),
        mended: true,
        make: || Ok(Box::new(Told(Ports::disabled()?, 50))),
    },
    RuleScenario {
        name: "bridge-vlan",
        about: "a port of a bridge does not have the VLAN of what comes in",
        rule: Some("bridge_vlan"),
        mended: true,
        make: || Ok(Box::new(Told(Ports::tagged(false)?, 50))),
    },
    RuleScenario {
        name: "bridge-vlan-both",
        about: "the same, and both ports have it",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(Ports::tagged(true)?, 50))),
    },
    RuleScenario {
        name: "vxlan-no-remote",
        about: "a VXLAN device has no remote for a station",
        rule: Some("tunnel_without_remote"),
        mended: true,
        make: || Ok(Box::new(Unknown { overlay: Overlay::new()?, is_known: false })),
    },
    RuleScenario {
        name: "vxlan-remote",
        about: "the same, and it has one",
        rule: None,
        mended: false,
        make: || {
            let overlay = Overlay::new()?;
            overlay.mend()?;
            Ok(Box::new(Unknown { overlay, is_known: true }))
        },
    },
    RuleScenario {
        name: "redirect-down",
        about: "a tc filter redirects to a device that is down",
        rule: Some("redirect_down"),
        mended: true,
        make: || Ok(Box::new(Told(Redirected::to_nowhere()?, 50))),
    },
    RuleScenario {
        name: "redirect",
        about: "a tc filter redirects to a device that is up",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(Redirected::new()?, 50))),
    },
    RuleScenario {
        name: "tap-full",
        about: "a process does not read its tap",
        rule: Some("tap_full"),
        mended: true,
        make: || Ok(Box::new(Told(Tap::unread()?, 4 * Tap::QUEUE))),
    },
    RuleScenario {
        name: "tap-read",
        about: "a process reads its tap",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(Tap::read()?, 4 * Tap::QUEUE))),
    },
    RuleScenario {
        name: "group-egress",
        about: "a program of a control group refuses what is sent",
        rule: Some("program"),
        mended: true,
        make: || Ok(Box::new(Refused(Service::refused()?))),
    },
    RuleScenario {
        name: "group-free",
        about: "a control group without a program",
        rule: None,
        mended: false,
        make: || Ok(Box::new(Caused(Service::new()?, 50))),
    },
];

/// What this kernel lacks for a scenario.
pub(super) fn lacking(name: &str) -> Option<&'static str> {
    let (device, why) = match name {
        _ if name.starts_with("bridge-vlan") => {
            ("bridge vlan_filtering 1", "bridges of this kernel filter no VLANs")
        }
        _ if name.starts_with("vxlan-") => ("vxlan id 42 dstport 4789", "this kernel has no VXLAN"),
        _ => return None,
    };
    let netns = Netns::new("lacking").ok()?;
    netns.ip(&format!("link add probe type {device}")).is_err().then_some(why)
}

/// Runs each command as it is printed, and returns the first; `None` where one does not work.
fn all_work(commands: &[String]) -> Option<String> {
    for command in commands {
        if let Err(error) = output(Command::new("sh").args(["-c", command])) {
            eprintln!("{error:#}");
            return None;
        }
    }
    commands.first().cloned()
}

/// Trouble that the finding's first command ends, and of which every command works.
struct Told<C>(C, u64);

impl<C: Cause> Trouble for Told<C> {
    fn happen(&mut self) -> Result<()> {
        self.0.send(self.1).map(drop)
    }

    fn choose(&self, commands: &[String]) -> Option<String> {
        all_work(commands)
    }
}

/// The commands show what the device knows; a person adds what it does not.
struct Unknown {
    overlay: Overlay,
    is_known: bool,
}

impl Trouble for Unknown {
    fn happen(&mut self) -> Result<()> {
        self.overlay.send(50)?;
        let received = self.overlay.received()?;
        let expected = if self.is_known { 50 } else { 0 };
        ensure!(received == expected, "{received} datagrams reach the other end");
        Ok(())
    }

    fn choose(&self, commands: &[String]) -> Option<String> {
        all_work(commands)
    }

    fn mend(&mut self) -> Result<()> {
        self.is_known = true;
        self.overlay.mend()
    }
}

/// The commands show the program; a person takes it away.
struct Refused(Service);

impl Trouble for Refused {
    fn happen(&mut self) -> Result<()> {
        self.0.send(50).map(drop)
    }

    fn choose(&self, commands: &[String]) -> Option<String> {
        all_work(commands)
    }

    fn mend(&mut self) -> Result<()> {
        self.0.end();
        Ok(())
    }
}
