//! Capabilities: what a run needs, what is missing, and giving up what is no longer needed.
//!
//! What each one is for stands in one table, [`NEEDS`], which `dropwatch doctor` prints.

use caps::{CapSet, Capability, CapsHashSet};

use crate::exit::Failure;

/// Something that dropwatch does, and the capability that the kernel asks for it.
#[derive(Clone, Copy, Debug)]
pub struct CapabilityNeed {
    pub purpose: &'static str,
    pub capability: Capability,
    /// Without it nothing works.
    pub required: bool,
    /// What its absence costs.
    pub cost: &'static str,
}

/// `CAP_SYS_ADMIN` stands in for `CAP_BPF` and `CAP_PERFMON` (`bpf_capable()`,
/// `perfmon_capable()`, include/linux/capability.h, Linux 5.8).
pub const NEEDS: &[CapabilityNeed] = &[
    CapabilityNeed {
        purpose: "load the counting program",
        capability: Capability::CAP_BPF,
        required: true,
        cost: "dropwatch cannot run",
    },
    CapabilityNeed {
        purpose: "attach it to the kernel's tracepoint",
        capability: Capability::CAP_PERFMON,
        required: true,
        cost: "dropwatch cannot run",
    },
    CapabilityNeed {
        purpose: "lock memory for maps (before Linux 5.11)",
        capability: Capability::CAP_SYS_RESOURCE,
        required: false,
        cost: "the limit on locked memory applies (`ulimit -l`)",
    },
    CapabilityNeed {
        purpose: "read kernel symbols",
        capability: Capability::CAP_SYSLOG,
        required: false,
        cost: "locations are shown as addresses",
    },
    CapabilityNeed {
        purpose: "find processes of namespaces and sockets",
        capability: Capability::CAP_SYS_PTRACE,
        required: false,
        cost: "namespaces without a name are shown by number, sockets without a process",
    },
    CapabilityNeed {
        purpose: "name interfaces of other namespaces",
        capability: Capability::CAP_SYS_ADMIN,
        required: false,
        cost: "those interfaces are shown by number",
    },
    CapabilityNeed {
        purpose: "read connection tracking",
        capability: Capability::CAP_NET_ADMIN,
        required: false,
        cost: "`dropwatch conntrack` cannot run, and findings cannot tell a full table",
    },
    CapabilityNeed {
        purpose: "read rules of iptables with their counters",
        capability: Capability::CAP_NET_RAW,
        required: false,
        cost: "findings name no rule of iptables that drops",
    },
    CapabilityNeed {
        purpose: "read tracefs (where there is no BTF)",
        capability: Capability::CAP_DAC_READ_SEARCH,
        required: false,
        cost: "reasons are shown as numbers",
    },
];

/// What findings need for as long as the run lasts: to enter namespaces, and to read connection
/// tracking and the rules of the packet filter there. The last one is for a program alone, whose raw
/// socket iptables asks for rules.
pub const FOR_FINDINGS: &[Capability] = &[
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
];

/// What running the host's programs takes, in a container without them.
pub const FOR_HOST_PROGRAMS: &[Capability] = &[Capability::CAP_SYS_CHROOT];

/// What naming the namespaces and interfaces of sampled packets needs for as long as the run lasts.
pub const FOR_NAMESPACES: &[Capability] =
    &[Capability::CAP_SYS_PTRACE, Capability::CAP_SYS_ADMIN, Capability::CAP_DAC_READ_SEARCH];

/// What a new file of `--output` needs that belongs to whoever called sudo: it may lie in a folder
/// of theirs, or of somebody else.
pub const FOR_FILES: &[Capability] = &[Capability::CAP_CHOWN, Capability::CAP_DAC_OVERRIDE];

/// What handing signals on to a command needs that runs as another user, or becomes one.
pub const FOR_SIGNALS: &[Capability] = &[Capability::CAP_KILL];

/// Whether this process may use a capability now, itself or through `CAP_SYS_ADMIN`.
fn has(effective: &CapsHashSet, capability: Capability) -> bool {
    let implied = matches!(capability, Capability::CAP_BPF | Capability::CAP_PERFMON)
        && effective.contains(&Capability::CAP_SYS_ADMIN);
    implied || effective.contains(&capability)
}

/// Capabilities of this process, as the kernel checks them.
fn effective() -> Result<CapsHashSet, Failure> {
    caps::read(None, CapSet::Effective)
        .map_err(|error| anyhow::anyhow!("cannot read this process's capabilities: {error}").into())
}

/// Every need, with whether it is met.
pub fn check() -> Result<Vec<(CapabilityNeed, bool)>, Failure> {
    let effective = effective()?;
    Ok(NEEDS.iter().map(|&need| (need, has(&effective, need.capability))).collect())
}

/// Whether this process may use `capability`; not where that cannot be read.
pub fn may_use(capability: Capability) -> bool {
    effective().is_ok_and(|effective| has(&effective, capability))
}

/// Fails with the names of the required capabilities that are missing.
pub fn preflight() -> Result<(), Failure> {
    let missing: Vec<String> = check()?
        .into_iter()
        .filter(|(need, met)| need.required && !met)
        .map(|(need, _)| need.capability.to_string())
        .collect();
    match missing.as_slice() {
        [] => Ok(()),
        names => Err(missing_message(names)),
    }
}

fn missing_message(names: &[String]) -> Failure {
    Failure::Privilege(format!(
        "missing {}, needed to count drops in the kernel: run with sudo",
        names.join(" and ")
    ))
}

/// Gives up every capability but those of `kept` that are there; `CAP_BPF` stays if `works` fails
/// without it.
///
/// Some kernels ask for `CAP_BPF` on every map read (`unprivileged_bpf_disabled` before Linux
/// 5.19), so the effective set is emptied first, which can be taken back. Of the calling thread:
/// call it before other threads are started.
pub fn keep_only(kept: &[Capability], works: impl Fn() -> bool) -> Result<(), Failure> {
    let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let mut kept: CapsHashSet =
        kept.iter().copied().filter(|capability| permitted.contains(capability)).collect();
    set_effective(&kept)?;
    if !works() {
        let bpf = [Capability::CAP_BPF, Capability::CAP_SYS_ADMIN];
        kept.extend(bpf.into_iter().find(|capability| permitted.contains(capability)));
    }
    set(&kept)
}

fn set(kept: &CapsHashSet) -> Result<(), Failure> {
    // Ambient first: it may hold nothing that the other sets lack. Kernels since 4.3 have it.
    let cleared = caps::clear(None, CapSet::Ambient)
        .and_then(|()| caps::set(None, CapSet::Inheritable, &CapsHashSet::new()))
        .and_then(|()| caps::set(None, CapSet::Effective, kept))
        .and_then(|()| caps::set(None, CapSet::Permitted, kept));
    cleared.map_err(|error| cannot_drop(&error))
}

fn set_effective(set: &CapsHashSet) -> Result<(), Failure> {
    caps::set(None, CapSet::Effective, set).map_err(|error| cannot_drop(&error))
}

fn cannot_drop(error: &caps::errors::CapsError) -> Failure {
    anyhow::anyhow!("cannot give up capabilities: {error}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_of(capabilities: &[Capability]) -> CapsHashSet {
        capabilities.iter().copied().collect()
    }

    #[test]
    fn sys_admin_stands_in_for_bpf_and_perfmon_only() {
        let admin = set_of(&[Capability::CAP_SYS_ADMIN]);
        assert!(has(&admin, Capability::CAP_BPF));
        assert!(has(&admin, Capability::CAP_PERFMON));
        assert!(!has(&admin, Capability::CAP_SYSLOG));
        assert!(!has(&set_of(&[Capability::CAP_PERFMON]), Capability::CAP_BPF));
    }

    #[test]
    fn the_message_names_what_is_missing_and_the_way_out() {
        let failure = missing_message(&["CAP_BPF".into(), "CAP_PERFMON".into()]);
        assert_eq!(failure.code(), crate::exit::PRIVILEGE);
        assert_eq!(
            failure.to_string(),
            "missing CAP_BPF and CAP_PERFMON, needed to count drops in the kernel: run with sudo"
        );
    }
}
