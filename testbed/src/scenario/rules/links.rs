//! Packets that a device, or what stands beside it, does not take; each with the same traffic where it
//! does.

use anyhow::{Result, ensure};

use super::{End, RuleScenario, Trouble, caused, ended};
use crate::{
    drops::{
        Cause, bridge_port::Ports, control_group::Service, overlay::Overlay, pair::Pair,
        redirect::Redirected, routing::BetterRoute, tap::Tap,
    },
    netns::Netns,
};

pub(super) const ALL: &[RuleScenario] = &[
    RuleScenario {
        name: "no-carrier",
        about: "a link whose other end is switched off",
        finds: &["no_carrier"],
        end: End::Command,
        make: || caused(Pair::without_carrier()?, 50),
    },
    RuleScenario {
        name: "no-carrier-arp",
        about: "nobody hears who has an address: there is no carrier",
        finds: &["no_carrier"],
        end: End::Command,
        make: || caused(Pair::unheard()?, 50),
    },
    RuleScenario {
        name: "no-carrier-route",
        about: "the better route leads out of a link without carrier",
        finds: &["no_carrier"],
        end: End::Command,
        make: || caused(BetterRoute::new()?, 50),
    },
    RuleScenario {
        name: "pair-healthy",
        about: "large datagrams between two ends that are alike",
        finds: &[],
        end: End::Healthy,
        make: || caused(Pair::healthy()?, 50),
    },
    RuleScenario {
        name: "narrow-end",
        about: "the other end of a pair takes less than is sent",
        finds: &["narrow_end"],
        end: End::Command,
        make: || caused(Pair::narrow()?, 50),
    },
    RuleScenario {
        name: "narrow-port",
        about: "a bridge's port takes less than the others",
        finds: &["narrow_end"],
        end: End::Command,
        make: || caused(Ports::narrow()?, 50),
    },
    RuleScenario {
        name: "bridge-healthy",
        about: "datagrams through a bridge",
        finds: &[],
        end: End::Healthy,
        make: || caused(Ports::healthy()?, 50),
    },
    RuleScenario {
        name: "bridge-hairpin",
        about: "a station reaches itself by way of a bridge",
        finds: &["bridge_port"],
        end: End::Command,
        make: || caused(Ports::back()?, 50),
    },
    RuleScenario {
        name: "own-service",
        about: "a station calls a service that is translated to itself",
        finds: &["bridge_port"],
        end: End::Command,
        make: || caused(Ports::own_service()?, 50),
    },
    RuleScenario {
        name: "bridge-hairpin-on",
        about: "the same, and its port may send back",
        finds: &[],
        end: End::Healthy,
        make: || caused(Ports::back_with_hairpin()?, 50),
    },
    RuleScenario {
        name: "bridge-one-port",
        about: "two stations behind one port of a bridge",
        finds: &[],
        end: End::Healthy,
        make: || caused(Ports::behind_one_port()?, 50),
    },
    RuleScenario {
        name: "bridge-isolated",
        about: "two ports of a bridge are kept apart",
        finds: &["bridge_port"],
        end: End::Command,
        make: || caused(Ports::isolated()?, 50),
    },
    RuleScenario {
        name: "bridge-disabled",
        about: "a port of a bridge is switched off",
        finds: &["bridge_port"],
        end: End::Command,
        make: || caused(Ports::disabled()?, 50),
    },
    RuleScenario {
        name: "bridge-vlan",
        about: "a port of a bridge does not have the VLAN of what comes in",
        finds: &["bridge_vlan"],
        end: End::Command,
        make: || caused(Ports::tagged(false)?, 50),
    },
    RuleScenario {
        name: "bridge-vlan-both",
        about: "the same, and both ports have it",
        finds: &[],
        end: End::Healthy,
        make: || caused(Ports::tagged(true)?, 50),
    },
    RuleScenario {
        name: "vxlan-no-remote",
        about: "a VXLAN device has no remote for a station",
        finds: &["tunnel_without_remote"],
        end: End::Person,
        make: || Ok(Box::new(Unknown { overlay: Overlay::new()?, is_known: false })),
    },
    RuleScenario {
        name: "vxlan-remote",
        about: "the same, and it has one",
        finds: &[],
        end: End::Healthy,
        make: || {
            let overlay = Overlay::new()?;
            overlay.mend()?;
            Ok(Box::new(Unknown { overlay, is_known: true }))
        },
    },
    RuleScenario {
        name: "redirect-down",
        about: "a tc filter redirects to a device that is down",
        finds: &["redirect_down"],
        end: End::Command,
        make: || caused(Redirected::to_nowhere()?, 50),
    },
    RuleScenario {
        name: "redirect",
        about: "a tc filter redirects to a device that is up",
        finds: &[],
        end: End::Healthy,
        make: || caused(Redirected::new()?, 50),
    },
    RuleScenario {
        name: "tap-full",
        about: "a process does not read its tap",
        finds: &["tap_full"],
        end: End::Command,
        make: || caused(Tap::unread()?, 4 * Tap::QUEUE),
    },
    RuleScenario {
        name: "tap-read",
        about: "a process reads its tap",
        finds: &[],
        end: End::Healthy,
        make: || caused(Tap::read()?, 4 * Tap::QUEUE),
    },
    RuleScenario {
        name: "group-egress",
        about: "a program of a control group refuses what is sent",
        finds: &["program"],
        end: End::Person,
        make: || {
            // The commands show the program; a person takes it away.
            ended(Service::refused()?, 50, |service| {
                service.end();
                Ok(())
            })
        },
    },
    RuleScenario {
        name: "group-free",
        about: "a control group without a program",
        finds: &[],
        end: End::Healthy,
        make: || caused(Service::new()?, 50),
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

    fn mend(&mut self) -> Result<()> {
        self.is_known = true;
        self.overlay.mend()
    }
}
