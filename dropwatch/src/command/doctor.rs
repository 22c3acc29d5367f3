//! `dropwatch doctor`: what this kernel and these privileges allow, what each lack costs, and which
//! way of attaching is taken.
//!
//! It really loads and attaches the program, for a moment, so that it cannot be wrong about it.

use std::io;

use caps::Capability;
use dropwatch_common::offsets::Offsets;

use crate::{
    exit::Failure,
    kernel::{
        self, HostNames, HostRoot, Status, Surroundings,
        status::{Events, NO_REASONS, NO_TCP, ReasonSource, Symbols, Tracefs},
    },
    privilege::{self, CapabilityNeed},
    probe::{AttachError, Attempt, Prepared, Probe, Requested, plan, programs::Lack},
    render::doctor::{DoctorCheck, Mark, Section, doctor},
    report::model::Host,
    settings::{Color, Terminal},
    sink::output::ended_by_reader,
};

/// Examines the host and prints what it finds. Ends as a live run would: with the failure that
/// keeps dropwatch from running, if there is one.
pub fn examine(terminal: Terminal) -> Result<(), Failure> {
    let root = HostRoot::default();
    let mut names = HostNames::open(&root);
    let needs = privilege::check()?;
    let offsets = names.offsets().unwrap_or(Offsets::NONE);
    let requested = Requested { offsets, netns: true, samples: true, ..Requested::default() };
    let probe = Prepared::new().and_then(|prepared| prepared.attach(&requested));
    let status = names.status();
    let host = kernel::host(&root);

    let title = title(&host);
    let sections = [
        Section { title: "Privileges", checks: privileges(&needs, &probe, &status) },
        Section {
            title: "Ways to attach to the tracepoint, in order",
            checks: attach_plan(&requested, &probe),
        },
        Section { title: "Kernel", checks: kernel_facts(&probe, &status) },
        Section {
            title: "What can be seen from here",
            checks: surroundings(&Surroundings::look(&root)),
        },
        Section {
            title: "Losses that this kernel does not report as drops",
            checks: blind_spots(status.events),
        },
    ];
    let outcome = privilege::preflight().and(match &probe {
        Ok(_) => Ok(()),
        Err(error) if error.is_permission() => Err(Failure::Privilege(error.to_string())),
        Err(error) => Err(Failure::Kernel(error.to_string())),
    });
    let lacks =
        sections.iter().flat_map(|section| &section.checks).any(|check| check.mark == Mark::Lack);
    let verdict = match &outcome {
        Ok(()) if lacks => "dropwatch works here, with what is lacking above.".to_owned(),
        Ok(()) => "dropwatch works here.".to_owned(),
        Err(_) => "dropwatch cannot run here: see FAIL above.".to_owned(),
    };
    let out = &mut io::stdout().lock();
    let written = doctor(&title, &sections, &verdict, terminal.medium(Color::Auto), out);
    ended_by_reader(written).and(outcome)
}

/// What was examined, in a line.
pub(crate) fn title(host: &Host) -> String {
    format!("dropwatch {} on Linux {}, {}", env!("CARGO_PKG_VERSION"), host.kernel, host.host)
}

fn privileges(
    needs: &[(CapabilityNeed, bool)],
    probe: &Result<Probe, AttachError>,
    status: &Status,
) -> Vec<DoctorCheck> {
    // What this host gives without the capability.
    let spare = |capability| match capability {
        Capability::CAP_SYSLOG => matches!(status.symbols, Symbols::Known { .. }),
        Capability::CAP_DAC_READ_SEARCH => !matches!(status.reasons, ReasonSource::Unnamed { .. }),
        Capability::CAP_SYS_RESOURCE => probe.is_ok(),
        _ => false,
    };
    let check = |(need, met): &(CapabilityNeed, bool)| {
        let what = need.capability.to_string();
        if *met {
            return DoctorCheck::new(Mark::Fine, what, need.purpose);
        }
        if spare(need.capability) {
            return DoctorCheck::new(
                Mark::Note,
                what,
                format!("{}: not needed here", need.purpose),
            );
        }
        let mark = if need.required { Mark::Fatal } else { Mark::Lack };
        DoctorCheck::new(mark, what, need.purpose).costs(format!("{}: use sudo", need.cost))
    };
    needs.iter().map(check).collect()
}

fn attach_plan(requested: &Requested, probe: &Result<Probe, AttachError>) -> Vec<DoctorCheck> {
    let attempts: &[Attempt] = match probe {
        Ok(probe) => probe.attempts(),
        Err(AttachError::Refused(attempts)) => attempts,
        Err(_) => &[],
    };
    let check = |(index, candidate): (usize, plan::Candidate)| {
        let (mark, outcome) = match attempts.get(index).map(|attempt| &attempt.refusal) {
            Some(None) => (Mark::Fine, "attached".to_owned()),
            Some(Some(refusal)) if probe.is_ok() => (Mark::Note, refusal.to_string()),
            Some(Some(refusal)) => (Mark::Fatal, refusal.to_string()),
            None => (Mark::Note, "not tried".to_owned()),
        };
        DoctorCheck::new(mark, format!("{}. {candidate}", index + 1), outcome)
    };
    let candidates = requested.candidates().into_iter().enumerate().map(check);
    let lacks = probe.as_ref().map_or(&[][..], Probe::lacks);
    candidates.chain(lacks.iter().map(lacking)).collect()
}

/// An optional program that the kernel refuses.
fn lacking(Lack { program, what, refusal }: &Lack) -> DoctorCheck {
    DoctorCheck::new(Mark::Lack, program.tracepoint.to_string(), refusal.to_string()).costs(*what)
}

fn kernel_facts(probe: &Result<Probe, AttachError>, status: &Status) -> Vec<DoctorCheck> {
    let ring_buffer = match probe {
        Err(AttachError::TooOld) => DoctorCheck::new(Mark::Fatal, "ring buffer", "none")
            .costs("dropwatch cannot run: use Linux 5.8 or later"),
        Ok(_) => DoctorCheck::new(Mark::Fine, "ring buffer", "supported"),
        Err(_) => DoctorCheck::new(Mark::Note, "ring buffer", "cannot be tried without privileges"),
    };
    vec![
        ring_buffer,
        tracepoint(status),
        reasons(probe, status),
        symbols(status),
        bpf(status),
        tracefs(status),
    ]
}

fn tracepoint(status: &Status) -> DoctorCheck {
    const ARGUMENTS: [&str; 4] = ["skb", "location", "reason", "rx_sk"];
    match status.kfree_skb_args {
        Some(count) => {
            let known = ARGUMENTS.get(..count).unwrap_or(&ARGUMENTS).join(", ");
            DoctorCheck::new(Mark::Fine, "skb:kfree_skb", format!("arguments: {known}"))
        }
        None => DoctorCheck::new(Mark::Note, "skb:kfree_skb", "BTF does not tell its arguments"),
    }
}

fn reasons(probe: &Result<Probe, AttachError>, status: &Status) -> DoctorCheck {
    let lacks = |detail: &str, cost: &str| {
        DoctorCheck::new(Mark::Lack, "drop reasons", detail.to_owned()).costs(cost.to_owned())
    };
    if probe.as_ref().is_ok_and(|probe| !probe.has_reason()) {
        return lacks("none on this kernel", NO_REASONS);
    }
    match &status.reasons {
        ReasonSource::Btf { core, subsystems } => {
            let others: Vec<&str> =
                subsystems.iter().map(String::as_str).filter(|name| *name != "CORE").collect();
            let and = if others.is_empty() { "" } else { ", and " };
            let detail = format!("{core} from BTF{and}{}", others.join(", "));
            DoctorCheck::new(Mark::Fine, "drop reasons", detail)
        }
        ReasonSource::Tracefs { core, btf } => lacks(
            &format!("{core}, from tracefs ({btf})"),
            "reasons of subsystems are shown as numbers",
        ),
        ReasonSource::Absent => lacks("none on this kernel", NO_REASONS),
        ReasonSource::Unnamed { btf, tracefs } => {
            lacks(&format!("no names ({btf}; {tracefs})"), "reasons are shown as numbers")
        }
    }
}

fn symbols(status: &Status) -> DoctorCheck {
    match &status.symbols {
        Symbols::Known { functions, modules, .. } => DoctorCheck::new(
            Mark::Fine,
            "kernel symbols",
            format!("{functions} functions, {modules} modules"),
        ),
        Symbols::Restricted { .. } => DoctorCheck::new(Mark::Lack, "kernel symbols", "hidden")
            .costs(status.symbols.notice().unwrap_or_default()),
        Symbols::Unreadable { error } => {
            DoctorCheck::new(Mark::Lack, "kernel symbols", error.clone())
                .costs("locations are shown as addresses")
        }
    }
}

fn bpf(status: &Status) -> DoctorCheck {
    let what = "names of BPF programs";
    match status.bpf_jit_kallsyms {
        Some(0) => DoctorCheck::new(Mark::Lack, what, "hidden").costs(
            "drops inside them are shown as addresses: run `sysctl net.core.bpf_jit_kallsyms=1`",
        ),
        Some(_) => DoctorCheck::new(Mark::Fine, what, "shown"),
        None => DoctorCheck::new(Mark::Note, what, "this process may not know (root may)"),
    }
}

fn tracefs(status: &Status) -> DoctorCheck {
    let needed = !matches!(status.reasons, ReasonSource::Btf { .. } | ReasonSource::Absent);
    let mark = if needed { Mark::Lack } else { Mark::Note };
    let spare = if needed { "" } else { " (BTF serves)" };
    let detail = match &status.tracefs {
        Tracefs::Mounted(path) => {
            return DoctorCheck::new(Mark::Fine, "tracefs", path.display().to_string());
        }
        Tracefs::NotMounted => format!("not mounted{spare}"),
        Tracefs::Unreadable { error, .. } => format!("{error}{spare}"),
    };
    DoctorCheck::new(mark, "tracefs", detail)
}

/// Losses that this kernel does not report as drops, so that silence is not misread.
fn blind_spots(events: Events) -> Vec<DoctorCheck> {
    let last_ack = match events.listen_overflow {
        Some(true) => "the last ACK of a handshake is one, with the reason TCP_LISTEN_OVERFLOW; ",
        Some(false) => "the last ACK of a handshake is one, without a reason of its own; ",
        None => "",
    };
    let tcp = match events.tcp {
        Some(true) => None,
        Some(false) => {
            let check =
                DoctorCheck::new(Mark::Lack, "TCP's own drops", "not reported by this kernel");
            Some(check.costs(NO_TCP))
        }
        None => Some(DoctorCheck::new(
            Mark::Note,
            "TCP's own drops",
            "unknown without names of reasons",
        )),
    };
    let always = [
        DoctorCheck::new(Mark::Note, "full accept queue", "a refused SYN is no drop on any kernel")
            .costs(format!("{last_ack}see ListenOverflows in `nstat -az`")),
        DoctorCheck::new(Mark::Note, "network card, driver", "see `ethtool -S`, `ip -s -s link`"),
        DoctorCheck::new(
            Mark::Note,
            "XDP_DROP in the driver",
            "see the XDP program's own counters",
        ),
    ];
    always.into_iter().chain(tcp).collect()
}

/// What of the machine can be seen from here.
fn surroundings(surroundings: &Surroundings) -> Vec<DoctorCheck> {
    let Surroundings { all_processes, first_netns, names_of_host } = *surroundings;
    let processes = match all_processes {
        Some(true) => DoctorCheck::new(Mark::Fine, "processes", "all of the machine"),
        Some(false) => DoctorCheck::new(Mark::Lack, "processes", "those of this container"),
        None => DoctorCheck::new(Mark::Note, "processes", "whether these are all cannot be told"),
    };
    let netns = match first_netns {
        true => DoctorCheck::new(Mark::Fine, "own network namespace", "the host's"),
        false => DoctorCheck::new(Mark::Note, "own network namespace", "another than the host's"),
    };
    let names = match names_of_host {
        Some(true) => DoctorCheck::new(Mark::Fine, "names of `ip netns`", "the host's"),
        Some(false) => {
            DoctorCheck::new(Mark::Lack, "names of `ip netns`", "another /run than the host's")
        }
        None => DoctorCheck::new(
            Mark::Note,
            "names of `ip netns`",
            "whether they are the host's is hidden",
        ),
    };
    let mut checks = vec![processes, netns, names];
    if all_processes == Some(false) {
        // The names follow from that.
        checks.pop();
    }
    let lack = checks.iter_mut().find(|check| check.mark == Mark::Lack);
    if let (Some(lack), Some(notice)) = (lack, surroundings.notices().into_iter().next()) {
        lack.cost = notice;
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::programs::PROGRAMS;

    fn shown(events: Events) -> String {
        let checks = blind_spots(events);
        checks
            .iter()
            .map(|check| format!("{}: {}; {}\n", check.what, check.detail, check.cost))
            .collect()
    }

    #[test]
    fn the_names_of_reasons_say_what_is_reported() {
        let page = |tcp, listen_overflow| shown(Events { tcp, listen_overflow });
        let newest = page(Some(true), Some(true));
        assert!(!newest.contains("TCP's own drops"), "{newest}");
        assert!(newest.contains("reason TCP_LISTEN_OVERFLOW"), "{newest}");
        let older = page(Some(true), Some(false));
        assert!(older.contains("without a reason of its own"), "{older}");
        let oldest = page(Some(false), Some(false));
        assert!(oldest.contains("TCP's own drops: not reported by this kernel"), "{oldest}");
        assert!(page(None, None).contains("TCP's own drops: unknown"));
        for page in [newest, older, oldest] {
            assert!(page.contains("full accept queue: a refused SYN is no drop"), "{page}");
        }
    }

    #[test]
    fn an_optional_program_that_is_refused_is_a_lack() {
        let program = PROGRAMS[0];
        let refusal = plan::AttachRefusal::NoTracepoint { tracepoint: program.tracepoint };
        let check = lacking(&Lack { program, what: "retransmits are not counted", refusal });
        assert_eq!((check.mark, check.what.as_str()), (Mark::Lack, "skb:kfree_skb"));
        assert_eq!(check.detail, "this kernel has no tracepoint skb:kfree_skb");
        assert_eq!(check.cost, "retransmits are not counted");
    }

    #[test]
    fn a_container_lacks_the_processes_of_the_machine() {
        let container =
            Surroundings { all_processes: Some(false), first_netns: false, names_of_host: None };
        let [processes, netns] = &surroundings(&container)[..] else { panic!() };
        assert_eq!((processes.mark, netns.mark), (Mark::Lack, Mark::Note));
        assert!(processes.cost.contains("this is a container"), "{processes:?}");
        let host = Surroundings {
            all_processes: Some(true),
            first_netns: true,
            names_of_host: Some(true),
        };
        assert!(surroundings(&host).iter().all(|check| check.mark == Mark::Fine));
    }
}
