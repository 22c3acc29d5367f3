//! Drop reasons, as the running kernel numbers and names them.
//!
//! Numbers move between kernels (`NOT_SPECIFIED` has been 0, 1 and 2), so none is compiled in. A
//! reason is 32 bits: the upper half names the subsystem that defines it, 0 being the core
//! (`SKB_DROP_REASON_SUBSYS_MASK`, `include/net/dropreason.h`, Linux 6.4).
//!
//! Names are those the kernel prints:
//!
//! - core: enumerators of `skb_drop_reason` without their prefix (`drop_reasons[]` in
//!   `net/core/skbuff.c` and the tracepoint's own list);
//! - subsystems: the whole enumerator, `RX_DROP_U_REPLAY`, `OVS_DROP_METER`, as
//!   `net/mac80211/main.c` and `net/openvswitch/datapath.c` register them; the value that is the
//!   subsystem's number alone is a reason of mac80211 (`RX_DROP_UNUSABLE`), elsewhere a marker
//!   whose name begins with two underscores. (`qdisc_drop_reason` is registered nowhere: packets
//!   that carry one are freed with the core's `QDISC_DROP`.)

use std::collections::{BTreeMap, HashMap};

use dropwatch_common::NO_REASON;

use super::{btf::Btf, clean, tracefs::EventFormat};
use crate::report::{keys::Glob, model::Reason};

const CORE: &str = "CORE";
const CORE_ENUM: &str = "skb_drop_reason";
const SUBSYSTEM_ENUM: &str = "skb_drop_reason_subsys";
const CORE_PREFIX: &str = "SKB_DROP_REASON_";
const SUBSYSTEM_PREFIX: &str = "SKB_DROP_REASON_SUBSYS_";

/// Names of the running kernel's drop reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reasons {
    names: HashMap<u32, String>,
    /// Upper half of the reasons of each subsystem, with its name.
    subsystems: BTreeMap<u16, String>,
}

impl Reasons {
    /// Reasons of the core, and of the subsystems that `vmlinux` itself defines. `None` where the
    /// kernel has no drop reasons (before Linux 5.17).
    pub fn from_btf(vmlinux: &Btf<'_>) -> Option<Self> {
        let core = vmlinux.find_enum(CORE_ENUM)?;
        let mut reasons = Self::default();
        for (name, value) in vmlinux.enumerators(core) {
            // SKB_NOT_DROPPED_YET and SKB_CONSUMED have the short prefix.
            let name = name.strip_prefix(CORE_PREFIX).or_else(|| name.strip_prefix("SKB_"));
            reasons.add_core(name.unwrap_or_default(), value);
        }
        if let Some(subsystems) = vmlinux.find_enum(SUBSYSTEM_ENUM) {
            for (name, value) in vmlinux.enumerators(subsystems) {
                let name = name.strip_prefix(SUBSYSTEM_PREFIX).unwrap_or_default();
                if let Ok(id) = u16::try_from(value)
                    && !matches!(name, "" | "NUM")
                {
                    reasons.subsystems.insert(id, clean(name));
                }
            }
        }
        reasons.add_subsystems(vmlinux);
        Some(reasons)
    }

    /// Reasons of the core, from the description of `skb:kfree_skb`. `None` where the event has no
    /// reason.
    pub fn from_tracefs(kfree_skb: &EventFormat) -> Option<Self> {
        kfree_skb.field("reason")?;
        let mut reasons = Self::default();
        for (value, name) in kfree_skb.names("reason") {
            reasons.add_core(&name, i64::from(value));
        }
        Some(reasons)
    }

    /// Adds the reasons that a module's BTF defines for declared subsystems.
    pub fn add_module(&mut self, module: &Btf<'_>) {
        self.add_subsystems(module);
    }

    fn add_core(&mut self, name: &str, value: i64) {
        if let Ok(value) = u32::try_from(value)
            && !matches!(name, "" | "MAX" | "SUBSYS_MASK")
        {
            self.names.entry(value).or_insert_with(|| clean(name));
        }
    }

    /// Adds every `*_drop_reason` enumeration's values that carry a declared subsystem's number.
    fn add_subsystems(&mut self, btf: &Btf<'_>) {
        let enums = btf.enums().filter(|ty| ty.name.ends_with("_drop_reason"));
        for ty in enums.filter(|ty| ty.name != CORE_ENUM) {
            let last = btf.enumerators(ty).map(|(_, value)| value).max();
            for (name, value) in btf.enumerators(ty) {
                let Ok(reason) = u32::try_from(value) else { continue };
                let end = name.ends_with("_MAX") && Some(value) == last;
                if self.declares(reason) && !end && !name.is_empty() && !name.starts_with("__") {
                    self.names.entry(reason).or_insert_with(|| clean(name));
                }
            }
        }
    }

    /// Whether `reason` has a name.
    pub fn is_named(&self, reason: u32) -> bool {
        self.names.contains_key(&reason)
    }

    /// Whether any reason matches: one with a name, or a number as those without are shown.
    pub fn any(&self, glob: &Glob) -> bool {
        let numbered = || {
            let (subsystem, number) = glob.text().split_once(':')?;
            let number = number.strip_prefix("0x").or_else(|| number.strip_prefix("0X"))?;
            let number = u16::from_str_radix(number, 16).ok()?;
            let ids = self.subsystems.iter().map(|(id, name)| (*id, name.as_str()));
            let id = match subsystem.to_ascii_lowercase().strip_prefix("subsys") {
                Some(id) => id.parse().ok()?,
                None => {
                    let mut ids = ids.chain([(0, CORE)]);
                    ids.find(|(_, name)| name.eq_ignore_ascii_case(subsystem))?.0
                }
            };
            // A reason with a name is never shown as a number, so its number cannot match.
            let shown = self.name(u32::from(id) << 16 | u32::from(number))?;
            Some(glob.matches(&shown.name))
        };
        self.names.values().any(|name| glob.matches(name)) || numbered().unwrap_or(false)
    }

    /// Whether a reason has exactly this name.
    pub fn is_named_so(&self, name: &str) -> bool {
        self.names.values().any(|known| known == name)
    }

    /// Every name, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.values().map(String::as_str)
    }

    /// Whether the core has a reason of this name.
    pub fn has_core(&self, name: &str) -> bool {
        self.names.iter().any(|(reason, known)| subsystem_id(*reason) == 0 && known == name)
    }

    /// Whether TCP gives reasons for what it drops itself, past the checks of its header.
    ///
    /// These reasons came with `tcp_drop_reason()` (net/ipv4/tcp_input.c, Linux 5.18), which made drop
    /// events of what had been freed without any until then (`__kfree_skb()` in `tcp_drop()`). The
    /// tracepoint's argument is older and was taken over into kernels without them; so is
    /// `TCP_CSUM`, which the look at the header gives (`tcp_v4_rcv()`, net/ipv4/tcp_ipv4.c, Linux
    /// 5.17).
    pub fn has_tcp_own(&self) -> bool {
        let is_own = |name: &str| name.starts_with("TCP_") && name != "TCP_CSUM";
        self.names.iter().any(|(reason, name)| subsystem_id(*reason) == 0 && is_own(name))
    }

    /// Whether `reason` is of a subsystem, other than the core, that the kernel declares.
    pub fn declares(&self, reason: u32) -> bool {
        subsystem_id(reason) != 0 && self.subsystems.contains_key(&subsystem_id(reason))
    }

    /// Reasons of the core that have a name.
    pub fn core(&self) -> usize {
        self.names.keys().filter(|&&reason| subsystem_id(reason) == 0).count()
    }

    /// Names of the declared subsystems, by number, the core first.
    pub fn subsystems(&self) -> impl Iterator<Item = &str> {
        self.subsystems.values().map(String::as_str)
    }

    /// Name of `reason`, `SUBSYSTEM:0xNNNN` where it has none; `None` for [`NO_REASON`] alone.
    pub fn name(&self, reason: u32) -> Option<Reason> {
        if reason == NO_REASON {
            return None;
        }
        let subsystem = match (subsystem_id(reason), self.subsystems.get(&subsystem_id(reason))) {
            (0, _) => CORE.to_owned(),
            (_, Some(name)) => name.clone(),
            (id, None) => format!("subsys{id}"),
        };
        let name = match self.names.get(&reason) {
            Some(name) => name.clone(),
            None => format!("{subsystem}:0x{:04x}", reason & 0xffff),
        };
        Some(Reason { name, subsystem: Some(subsystem) })
    }
}

/// `SKB_DROP_REASON_SUBSYS_SHIFT` is 16, and the mask is what is above it.
fn subsystem_id(reason: u32) -> u16 {
    (reason >> 16) as u16
}
