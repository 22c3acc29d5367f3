//! Call paths: where they begin, and which callers are worth showing.

use super::facts::Context;

/// Most callers that a path is shortened to.
pub const CALLERS: usize = 3;

/// What the way to a drop passes through, whatever the cause: the wrappers of netfilter's hooks and
/// of lists of packets, and the functions that free packets.
const PLUMBING: &[&str] = &[
    "NF_HOOK",
    "nf_hook",
    "nf_hook_slow",
    "nf_hook_slow_list",
    "__kfree_skb",
    "kfree_skb",
    "kfree_skb_list",
    "kfree_skb_list_reason",
    "kfree_skb_partial",
    "kfree_skb_reason",
    "sk_skb_reason_drop",
    "skb_queue_purge",
    "skb_queue_purge_reason",
];

/// Functions at which the kernel's work on a packet begins: softirqs, system calls, threads. What
/// called them, such as the code that an interrupt stopped, has nothing to do with the packet.
const ERRANDS: &[&str] = &[
    "__do_softirq",
    "__irq_exit_rcu",
    "__local_bh_enable_ip",
    "__napi_poll",
    "__run_timers",
    "call_timer_fn",
    "do_softirq",
    "do_softirq_own_stack",
    "do_syscall_64",
    "el0_svc",
    "expire_timers",
    "handle_softirqs",
    "invoke_syscall",
    "irq_exit_rcu",
    "kthread",
    "net_rx_action",
    "net_tx_action",
    "process_backlog",
    "process_one_work",
    "ret_from_fork",
    "ret_from_fork_asm",
    "rcu_do_batch",
    "run_ksoftirqd",
    "run_timer_softirq",
    "worker_thread",
    "x64_sys_call",
];

/// Beginnings of names with the same meaning: entry code and system calls of all architectures.
const ERRAND_PREFIXES: &[&str] =
    &["__arm64_sys_", "__do_sys_", "__se_sys_", "__x64_sys_", "asm_", "entry_SYSCALL", "sysvec_"];

/// Beginnings of functions of the tracing itself.
const TRACING: &[&str] =
    &["__bpf_", "__traceiter_", "bpf_", "perf_trace_", "trace_", "trampoline_", "__probestub_"];

/// A function's name as the source has it, without what the compiler appended to its copies.
fn plain(name: &str) -> &str {
    match name.find('.') {
        Some(end) if end > 0 => &name[..end],
        _ => name,
    }
}

fn is_plumbing(name: &str) -> bool {
    PLUMBING.contains(&plain(name)) || name.starts_with("__x86_indirect_")
}

fn is_errand(name: &str) -> bool {
    ERRANDS.contains(&plain(name)) || ERRAND_PREFIXES.iter().any(|start| name.starts_with(start))
}

/// How many frames of a path lie before the drop location, whose function is `location`.
///
/// The first frame is the location where the kernel reports an address of the path. Some callers
/// report another one of the same function. Else what traces and frees is passed over.
pub fn before_location(frames: &[Option<&str>], location: Option<&str>) -> usize {
    let same = |frame: &Option<&str>| frame.is_some() && *frame == location;
    let machinery = |frame: &Option<&str>| {
        let tracing = |name: &str| TRACING.iter().any(|start| name.starts_with(start));
        frame.is_none_or(|name| tracing(name) || is_plumbing(name))
    };
    frames
        .iter()
        .position(same)
        .or_else(|| frames.iter().position(|frame| !machinery(frame)))
        .unwrap_or(frames.len())
}

/// The callers worth showing, of those of a drop location, nearest first.
///
/// Leaves out plumbing, and everything beyond the function at which the work on the packet began.
/// If that leaves nothing, returns the nearest caller that has a name; nothing if none has.
pub fn informative(callers: &[Option<String>]) -> Vec<Option<String>> {
    let errand = callers.iter().position(|name| name.as_deref().is_some_and(is_errand));
    let own = callers.get(..errand.unwrap_or(callers.len())).unwrap_or_default();
    let mut shown: Vec<_> = own
        .iter()
        .filter(|name| !name.as_deref().is_some_and(is_plumbing))
        .take(CALLERS)
        .cloned()
        .collect();
    if shown.iter().all(Option::is_none) {
        shown = callers.iter().find(|name| name.is_some()).cloned().into_iter().collect();
    }
    shown
}

/// Functions that a softirq begins with. Polling a device is not among them: a thread or a system call
/// may do that, too.
const SOFTIRQ: &[&str] = &[
    "__do_softirq",
    "__irq_exit_rcu",
    "do_softirq",
    "do_softirq_own_stack",
    "handle_softirqs",
    "irq_exit_rcu",
    "net_rx_action",
    "net_tx_action",
    "run_ksoftirqd",
    "run_timer_softirq",
];

/// Functions that a task's own work begins with, or its end.
const OWN: &[&str] = &[
    "do_exit",
    "do_fast_syscall_32",
    "do_syscall_64",
    "el0_svc",
    "exit_to_user_mode_loop",
    "invoke_syscall",
    "kthread",
    "ret_from_fork",
    "ret_from_fork_asm",
    "task_work_run",
    "worker_thread",
    "x64_sys_call",
];

/// Beginnings of names with the same meaning as [`OWN`].
const OWN_PREFIXES: &[&str] =
    &["__arm64_sys_", "__do_sys_", "__ia32_sys_", "__se_sys_", "__x64_sys_", "entry_SYSCALL"];

/// What the CPU did, by the callers of a drop location, nearest first: the first that tells decides.
/// `None` where none does, since the path is unnamed, cut off or could not be read.
pub fn context<'a>(callers: impl IntoIterator<Item = Option<&'a str>>) -> Option<Context> {
    callers.into_iter().flatten().find_map(|name| {
        let name = plain(name);
        let begins = |prefixes: &[&str]| prefixes.iter().any(|start| name.starts_with(start));
        if SOFTIRQ.contains(&name) {
            Some(Context::Softirq)
        } else if OWN.contains(&name) || begins(OWN_PREFIXES) {
            Some(Context::Task)
        } else if name.ends_with("common_interrupt") || begins(&["sysvec_", "asm_sysvec_"]) {
            Some(Context::Interrupt)
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_caller_that_tells_decides_what_the_cpu_did() {
        let of = |callers: &[&str]| {
            context(callers.iter().map(|name| Some(*name).filter(|name| !name.is_empty())))
        };
        let sent = ["udp_sendmsg", "__sys_sendto", "__x64_sys_sendto", "do_syscall_64"];
        assert_eq!(of(&sent), Some(Context::Task));
        // What a sender's own CPU receives, it receives in a softirq.
        let received = ["ip_rcv", "process_backlog", "__napi_poll", "net_rx_action.isra.0"];
        assert_eq!(of(&[&received[..], &sent].concat()), Some(Context::Softirq));
        assert_eq!(of(&received[..3]), None);
        assert_eq!(of(&["__napi_poll", "napi_threaded_poll", "kthread"]), Some(Context::Task));
        assert_eq!(of(&["a", "handle_irq", "__common_interrupt"]), Some(Context::Interrupt));
        assert_eq!(of(&["a", "sysvec_x", "do_syscall_64"]), Some(Context::Interrupt));
        assert_eq!(of(&["sock_release", "task_work_run", "a"]), Some(Context::Task));
        assert_eq!(of(&["", "ip_rcv"]), None);
        assert_eq!(of(&[]), None);
    }

    fn short(callers: &[&str]) -> Vec<String> {
        let name = |name: &&str| (!name.is_empty()).then(|| (*name).to_owned());
        let callers: Vec<_> = callers.iter().map(name).collect();
        informative(&callers).into_iter().map(Option::unwrap_or_default).collect()
    }

    #[test]
    fn only_what_tells_is_left() {
        let received = ["ip_rcv", "__netif_receive_skb_one_core", "process_backlog", "__napi_poll"];
        assert_eq!(short(&received), received[..2]);
        let wrapped = ["nf_hook.constprop.0", "ip_local_deliver", "ip_list_rcv", "a", "b"];
        assert_eq!(short(&wrapped), wrapped[1..4]);
        let sent = ["udp_sendmsg", "__sys_sendto", "__x64_sys_sendto", "do_syscall_64"];
        assert_eq!(short(&sent), sent[..2]);
        let timer = ["neigh_timer_handler", "call_timer_fn", "__run_timers", "run_timer_softirq"];
        assert_eq!(short(&timer), timer[..1]);
        // A softirq that ran on top of a sender: the sender has nothing to do with it.
        let nested = ["icmp_rcv", "__do_softirq", "do_softirq", "ip_finish_output2"];
        assert_eq!(short(&nested), ["icmp_rcv"]);
    }

    #[test]
    fn the_nearest_caller_is_better_than_none() {
        assert_eq!(short(&["net_rx_action", "handle_softirqs"]), ["net_rx_action"]);
        assert_eq!(short(&["", "ip_rcv", "net_rx_action"]), ["", "ip_rcv"]);
        assert_eq!(short(&["", "", "net_rx_action"]), ["net_rx_action"]);
        assert_eq!(short(&["", ""]), [""; 0]);
        assert_eq!(short(&[]), [""; 0]);
    }

    #[test]
    fn a_path_begins_at_the_location() {
        let path = [None, Some("bpf_trace_run4"), Some("kfree_skb_reason"), Some("ip_rcv")];
        assert_eq!(before_location(&path, Some("ip_rcv")), 3);
        assert_eq!(before_location(&path, Some("net_tx_action")), 3);
        assert_eq!(before_location(&path, None), 3);
        assert_eq!(before_location(&path[..3], None), 3);
        assert_eq!(before_location(&path, Some("kfree_skb_reason")), 2);
        assert_eq!(before_location(&[], Some("ip_rcv")), 0);
    }
}
