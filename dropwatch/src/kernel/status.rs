//! What a host lets dropwatch name, and what the rest costs.

use std::path::Path;

pub use super::root::Tracefs;

/// Outcome of looking for names on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub symbols: Symbols,
    /// `net.core.bpf_jit_kallsyms`; `None` where it cannot be read.
    pub bpf_jit_kallsyms: Option<u32>,
    pub reasons: ReasonSource,
    pub tracefs: Tracefs,
    pub events: Events,
    /// Arguments of the raw tracepoint `kfree_skb`, from BTF; `None` where BTF does not say.
    pub kfree_skb_args: Option<usize>,
}

/// Which losses this kernel makes drop events of, as the names of its reasons show; `None` where
/// nothing gives their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// What TCP drops itself: data without room, out of window, out of order.
    pub tcp: Option<bool>,
    /// The last acknowledgement of a handshake that finds the accept queue full, by a reason of its
    /// own (`TCP_LISTEN_OVERFLOW`, Linux 6.14).
    pub listen_overflow: Option<bool>,
}

/// What a kernel without reasons costs.
pub const NO_REASONS: &str = "this kernel gives no drop reasons (Linux 5.17 added them), so \
     drops are told apart by location alone";
/// What is lost where TCP drops without an event.
pub(crate) const NO_TCP: &str = "TCP's own drops do not appear, since this kernel makes no events of \
     them (Linux 5.18 and later do): see TcpExt in `nstat -az`";

/// Where symbols come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Symbols {
    Known {
        functions: usize,
        modules: usize,
        /// Lines of the kernel's list that were not understood.
        skipped: u64,
        /// Times the list was read, the first included.
        reads: u64,
        /// Why the modules, or the list when read again, could not be read, if so.
        error: Option<String>,
    },
    /// The kernel prints zeros for addresses.
    Restricted {
        /// `kernel.kptr_restrict`; `None` where it cannot be read.
        kptr_restrict: Option<u32>,
        /// `kernel.perf_event_paranoid`; `None` where it cannot be read.
        perf_event_paranoid: Option<i32>,
    },
    Unreadable {
        error: String,
    },
}

/// Where names of drop reasons come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReasonSource {
    Btf {
        /// Core reasons with a name.
        core: usize,
        /// Subsystems that the kernel declares, the core included where it has a list.
        subsystems: Vec<String>,
    },
    Tracefs {
        core: usize,
        /// Why BTF did not serve.
        btf: String,
    },
    /// The kernel gives no reasons.
    Absent,
    /// Nothing gives their names.
    Unnamed { btf: String, tracefs: String },
}

impl Status {
    /// One sentence for each name that is lost: what, why, what it costs, the way out. Empty when
    /// nothing is. Names of reasons count only where the tracepoint gives any.
    pub fn notices(&self, has_reason: bool) -> Vec<String> {
        let reasons = if has_reason { self.reasons.notice(&self.tracefs) } else { None };
        let tcp = (self.events.tcp == Some(false)).then(|| NO_TCP.to_owned());
        [self.symbols.notice(), reasons, tcp].into_iter().flatten().collect()
    }
}

impl Symbols {
    /// What is lost where symbols cannot be read.
    pub fn notice(&self) -> Option<String> {
        match self {
            Self::Known { error: None, .. } => None,
            Self::Known { error: Some(error), .. } => Some(format!(
                "kernel modules cannot be followed ({error}), so functions of those that dropwatch \
                 has not read are shown as addresses: start it again, as root"
            )),
            Self::Restricted { .. } => {
                let (cause, way_out) = self.hidden()?;
                Some(format!(
                    "kernel symbols are hidden ({cause}), so locations are shown as addresses: \
                     {way_out}"
                ))
            }
            Self::Unreadable { error } => Some(format!(
                "kernel symbols cannot be read ({error}), so locations are shown as addresses: \
                 mount /proc, on a kernel with CONFIG_KALLSYMS"
            )),
        }
    }
}

impl Symbols {
    /// Why the kernel prints zeros for addresses, and the way out; `None` where it does not.
    ///
    /// `kallsyms_show_value` (kernel/ksyms_common.c, kernel/kallsyms.c before Linux 6.5) shows them to
    /// anybody where `kptr_restrict` is 0 and `perf_event_paranoid` 1 or lower, and to `CAP_SYSLOG` where
    /// `kptr_restrict` is 0 or 1.
    pub fn hidden(&self) -> Option<(String, &'static str)> {
        let Self::Restricted { kptr_restrict, perf_event_paranoid } = self else { return None };
        Some(match (kptr_restrict, perf_event_paranoid) {
            (Some(0), Some(paranoid @ 2..)) => (
                format!(
                    "perf_event_paranoid is {paranoid}, though kptr_restrict is 0, and CAP_SYSLOG is \
                     missing"
                ),
                "run as root, with CAP_SYSLOG, or set kernel.perf_event_paranoid=1",
            ),
            (Some(level @ 0..=1), _) => (
                format!("kptr_restrict is {level} and CAP_SYSLOG is missing"),
                "run as root, or with CAP_SYSLOG",
            ),
            (Some(level), _) => {
                (format!("kptr_restrict is {level}"), "sysctl kernel.kptr_restrict=1")
            }
            (None, _) => (
                "every address reads as zero".to_owned(),
                "run as root, with kernel.kptr_restrict at 1 or lower",
            ),
        })
    }
}

impl ReasonSource {
    fn notice(&self, tracefs: &Tracefs) -> Option<String> {
        match self {
            Self::Btf { .. } => None,
            Self::Tracefs { btf, .. } => Some(format!(
                "drop reasons of subsystems cannot be named ({btf}), so theirs are shown as \
                 numbers: use a kernel with CONFIG_DEBUG_INFO_BTF"
            )),
            Self::Absent => Some(
                "this kernel gives no drop reasons, so drops are told apart by location alone: \
                 Linux 5.17 and later give them"
                    .to_owned(),
            ),
            Self::Unnamed { btf, tracefs: why } => Some(format!(
                "drop reasons cannot be named ({btf}; {why}), so they are shown as numbers: {}",
                match tracefs {
                    Tracefs::NotMounted => "mount -t tracefs tracefs /sys/kernel/tracing",
                    Tracefs::Unreadable { .. } => "run as root, or with CAP_DAC_READ_SEARCH",
                    Tracefs::Mounted(_) => "use a kernel with CONFIG_DEBUG_INFO_BTF",
                }
            )),
        }
    }
}

/// `path: error`, as notices quote a failure.
pub(crate) fn failure(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Status {
        Status {
            symbols: Symbols::Known { functions: 1, modules: 0, skipped: 0, reads: 1, error: None },
            bpf_jit_kallsyms: Some(1),
            reasons: ReasonSource::Btf { core: 1, subsystems: vec![] },
            tracefs: Tracefs::NotMounted,
            events: Events { tcp: Some(true), listen_overflow: Some(true) },
            kfree_skb_args: Some(4),
        }
    }

    #[test]
    fn silent_when_nothing_is_lost() {
        assert_eq!(complete().notices(true), [""; 0], "tracefs is not needed beside BTF");
    }

    #[test]
    fn hidden_symbols_name_the_setting_and_the_way_out() {
        let closed = |kptr_restrict, perf_event_paranoid| {
            let symbols = Symbols::Restricted { kptr_restrict, perf_event_paranoid };
            Status { symbols, bpf_jit_kallsyms: Some(0), ..complete() }.notices(true)
        };
        let notice = |kptr_restrict| closed(kptr_restrict, None);
        assert_eq!(
            closed(Some(0), Some(2)),
            [
                "kernel symbols are hidden (perf_event_paranoid is 2, though kptr_restrict is 0, and \
              CAP_SYSLOG is missing), so locations are shown as addresses: run as root, with \
              CAP_SYSLOG, or set kernel.perf_event_paranoid=1"
            ]
        );
        assert_eq!(closed(Some(2), Some(2)), notice(Some(2)));
        assert_eq!(closed(Some(1), Some(4)), notice(Some(1)));
        assert_eq!(
            notice(Some(2)),
            ["kernel symbols are hidden (kptr_restrict is 2), so locations are shown as \
              addresses: sysctl kernel.kptr_restrict=1"]
        );
        for level in [0, 1] {
            assert_eq!(
                notice(Some(level)),
                [format!(
                    "kernel symbols are hidden (kptr_restrict is {level} and CAP_SYSLOG is \
                     missing), so locations are shown as addresses: run as root, or with \
                     CAP_SYSLOG"
                )]
            );
        }
    }

    #[test]
    fn tcps_own_drops_are_missed_whether_or_not_there_are_reasons() {
        let events = |tcp| Events { tcp, listen_overflow: None };
        let notices =
            |tcp, has_reason| Status { events: events(tcp), ..complete() }.notices(has_reason);
        for has_reason in [true, false] {
            assert_eq!(notices(Some(false), has_reason), [NO_TCP]);
            assert_eq!(notices(Some(true), has_reason), [""; 0]);
            assert_eq!(notices(None, has_reason), [""; 0], "nothing is said that is not known");
        }
    }

    #[test]
    fn every_loss_is_one_line_with_a_way_out() {
        let unnamed = ReasonSource::Unnamed { btf: "no BTF".into(), tracefs: "not mounted".into() };
        let losses = [
            Status { reasons: unnamed, ..complete() },
            Status { reasons: ReasonSource::Absent, ..complete() },
            Status {
                reasons: ReasonSource::Tracefs { core: 9, btf: "no BTF".into() },
                ..complete()
            },
            Status { symbols: Symbols::Unreadable { error: "gone".into() }, ..complete() },
        ];
        for status in losses {
            let notices = status.notices(true);
            assert_eq!(notices.len(), 1, "{notices:?}");
            assert!(!notices[0].contains('\n') && notices[0].contains(": "), "{notices:?}");
        }
    }
}
