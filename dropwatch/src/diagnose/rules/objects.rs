//! The programs and filters that can have dropped packets, as the host lists them.

use super::{
    Draft, Facts,
    draft::quote,
    program::{ProgramKind, ShowCommand},
};
use crate::{
    diagnose::facts::{Rows, name},
    report::{
        cgroup::unit,
        device::{Action, Device, Filter, GroupHook, GroupProgram, Hook, Program, XdpProgram},
        facts::Netns,
        finding::{Finding, Severity},
        model::Location,
        object::Object,
        question::{Ask, Unanswered},
    },
};

/// What can have dropped the packets of a row.
#[derive(Default)]
pub(super) struct Objects {
    /// Each of them; with one alone, that is it.
    pub(super) found: Vec<Suspect>,
    /// The one that did it, if that is a redirection which leads nowhere.
    pub(super) redirect: Option<Redirect>,
}

/// A program or a filter.
pub(super) struct Suspect {
    pub(super) is: Object,
    pub(super) name: String,
    pub(super) source: &'static str,
    /// Its own counter since it was made.
    pub(super) counted: Option<(String, u64)>,
    /// Commands for the host that show it, and what they show.
    pub(super) show: Vec<(String, &'static str)>,
}

/// A redirection to a device that takes nothing.
pub(super) struct Redirect {
    is: Object,
    filter: String,
    action: Action,
    /// `None` where it is gone.
    to: Option<Device>,
}

/// Asks for what can have dropped the packets of `rows` in `netns`.
pub(super) fn of(
    facts: &Facts<'_>,
    netns: &Netns,
    kind: &ProgramKind,
    rows: &Rows<'_>,
) -> Result<Objects, Ask> {
    let netns = netns.number();
    let device = rows.device_index();
    match (kind.reason, device) {
        ("TC_INGRESS" | "TC_EGRESS", Some(device)) => {
            let hook = Hook { device, egress: kind.reason == "TC_EGRESS" };
            let on = rows.device().unwrap_or_default();
            let suspects = |filters| suspects(on, hook.egress, filters);
            Ok(facts.filters(netns, hook)?.map_or_else(|_| Objects::default(), suspects))
        }
        ("XDP", Some(device)) => {
            let device = facts.device(netns, device)?.map(|it| *it).unwrap_or_default();
            let suspect = |xdp: XdpProgram| Suspect {
                is: Object::xdp(&device.name, &xdp),
                name: format!("{}, {} mode", called(&xdp.program), xdp.mode.name()),
                source: "rtnetlink",
                counted: None,
                show: vec![shown(&xdp.program)],
            };
            let found = device.xdp.clone().into_iter().map(suspect).collect();
            Ok(Objects { found, redirect: None })
        }
        ("BPF_CGROUP_EGRESS", _) => {
            let found = groups(facts, netns, rows, true)?;
            Ok(Objects { found, redirect: None })
        }
        _ => Ok(Objects::default()),
    }
}

/// The programs of control groups that decide over packets of these rows: those of their process, or of
/// all groups where that is gone.
pub(super) fn groups(
    facts: &Facts<'_>,
    netns: u32,
    rows: &Rows<'_>,
    egress: bool,
) -> Result<Vec<Suspect>, Ask> {
    let owner = rows.owner();
    let hook = GroupHook { pid: owner.map(|owner| owner.pid), egress };
    let mut found = facts.group_programs(netns, hook)?;
    if found == Err(Unanswered::Gone) {
        // What is attached to the group that it was in is there as long as that is.
        found = facts.group_programs(netns, GroupHook { pid: None, egress })?.map(|all| {
            let was_in = |it: &GroupProgram| {
                let Some(owner) = owner else { return true };
                let group = owner.cgroup.as_deref().unwrap_or("/");
                it.group == "/"
                    || group == it.group
                    || group.strip_prefix(&it.group).is_some_and(|rest| rest.starts_with('/'))
            };
            all.into_iter().filter(was_in).collect()
        });
    }
    let suspect = |found: GroupProgram| {
        let is = Object::group_program(&found, egress);
        let GroupProgram { group, folder, program } = found;
        let of = unit(&group).unwrap_or(group);
        let systemd = program.name.as_deref().is_some_and(|name| name.starts_with("sd_fw_"));
        let note = if systemd {
            "what is attached there; systemd calls its own so: IPAddressDeny= and IPAddressAllow= of the unit"
        } else {
            "what is attached there"
        };
        Suspect {
            is,
            name: format!("{} of control group {of}", called(&program)),
            source: "bpf",
            counted: None,
            show: vec![(format!("bpftool cgroup show {}", quote(&folder)), note), shown(&program)],
        }
    };
    Ok(found.unwrap_or_default().into_iter().map(suspect).collect())
}

/// `sd_fw_egress (program 12)`.
fn called(program: &Program) -> String {
    match &program.name {
        Some(name) => format!("{name} (program {})", program.id),
        None => format!("program {}", program.id),
    }
}

fn shown(program: &Program) -> (String, &'static str) {
    (format!("bpftool prog show id {}", program.id), "its tag, who loaded it and when")
}

/// The filters that can have dropped something.
fn suspects(device: &str, egress: bool, filters: Vec<Filter>) -> Objects {
    let (mut found, mut redirects) = (Vec::new(), Vec::new());
    for filter in filters {
        let is = |count| Object::tc_filter(device, egress, &filter, count);
        if filter.decides {
            let program = filter.program.as_ref();
            let name = match program {
                Some(program) => format!("{}: {}", filter.name, called(program)),
                None => filter.name.clone(),
            };
            let show = program.map(shown).into_iter().collect();
            found.push(Suspect { is: is(None), name, source: "rtnetlink", counted: None, show });
        }
        for action in filter.actions.clone() {
            let lost = action.target.as_ref().is_some_and(|target| {
                let takes = target.device.as_ref().is_some_and(|it| it.up && it.carrier);
                target.redirects && !takes
            });
            if lost && action.overlimits > 0 {
                let to = action.target.as_ref().and_then(|target| target.device.clone());
                let is = is(Some(action.overlimits));
                redirects.push(Redirect { is, filter: filter.name.clone(), action, to });
            } else if action.dropped > 0 {
                let counter = format!("dropped by {} {}", action.kind, action.index);
                found.push(Suspect {
                    is: is(Some(action.dropped)),
                    name: format!("{}, action {}", filter.name, action.kind),
                    source: "rtnetlink",
                    counted: Some((counter, action.dropped)),
                    show: Vec::new(),
                });
            }
        }
    }
    // With anything else that drops, it is one of several.
    match (redirects.pop(), found.is_empty() && redirects.is_empty()) {
        (Some(redirect), true) => Objects { found, redirect: Some(redirect) },
        (Some(last), false) => {
            redirects.push(last);
            found.extend(redirects.into_iter().map(|it| Suspect {
                is: it.is,
                name: format!("{}, which redirects to {}", it.filter, target(it.to.as_ref())),
                source: "rtnetlink",
                counted: Some((counter(&it.action), it.action.overlimits)),
                show: Vec::new(),
            }));
            Objects { found, redirect: None }
        }
        (None, _) => Objects { found, redirect: None },
    }
}

fn counter(action: &Action) -> String {
    format!("overlimits of {} {}", action.kind, action.index)
}

/// `ifb0, which is down`.
fn target(to: Option<&Device>) -> String {
    match to {
        None => "a device that is gone".to_owned(),
        Some(Device { name, up: false, .. }) => format!("{name}, which is down"),
        Some(Device { name, .. }) => format!("{name}, which has no carrier"),
    }
}

/// A finding about packets of `device` that a filter redirects to nowhere.
pub(super) fn redirected(
    facts: &Facts<'_>,
    netns: &Netns,
    device: &str,
    kind: &ProgramKind,
    redirect: &Redirect,
    row: &Location,
) -> Finding {
    let rows = Rows(vec![row]);
    let Redirect { is, filter, action, to } = redirect;
    // It counts all since it was made, and never less than in this interval.
    let drops = row.count.min(action.overlimits);
    let title = format!(
        "a tc filter redirects packets of {device} in {} to {}: {drops} dropped",
        name(Some(netns)),
        target(to.as_ref())
    );
    let mut draft = Draft::new(facts, "redirect_down", Severity::Warning, device, title)
        .somewhere(Some(netns))
        .explains(drops, &rows)
        .names(is.clone())
        .counted(kind.reason, row.count, "kfree_skb")
        .state("the filter", filter.as_str(), "rtnetlink")
        .state(&counter(action), action.overlimits, "rtnetlink");
    if let Some(Device { name, up: false, .. }) = to {
        let command = format!("ip link set dev {} up", quote(name));
        draft = draft.run(&command, "switches that device on");
    } else if let Some(Device { name, .. }) = to {
        draft = draft.run(
            &format!("ip -details link show dev {}", quote(name)),
            "NO-CARRIER: who is to be at its other end",
        );
    }
    if let ShowCommand::Device(before, after) = &kind.show {
        let note = "the filter; overlimits of its action rise as long as this goes on";
        draft = draft.run(&format!("{before}{}{after}", quote(device)), note);
    }
    draft.done()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{program::RULE, testing::*},
        *,
    };
    use crate::report::{
        device::{Target, XdpMode},
        facts::Owner,
        question::{Answer, Question},
    };

    fn redirecting(to: Option<Device>, overlimits: u64) -> Filter {
        let target = Some(Target { redirects: true, device: to });
        let kind = "mirred".to_owned();
        let action = Action { kind, index: 1, overlimits, target, ..Action::default() };
        let name = "u32 pref 49152 handle 800::800".to_owned();
        Filter { name, actions: vec![action], ..Filter::default() }
    }

    fn ifb(up: bool) -> Option<Device> {
        Some(Device { name: "ifb0".into(), up, carrier: up, ..Device::default() })
    }

    fn dropping(dropped: u64) -> Filter {
        let action = Action { kind: "gact".into(), index: 2, dropped, ..Action::default() };
        let name = "flower pref 1 handle 0x1".to_owned();
        Filter { name, actions: vec![action], ..Filter::default() }
    }

    fn found(filters: Vec<Filter>) -> Finding {
        let hook = Hook { device: 2, egress: false };
        let host = TestHost::new()
            .row(50, "__netif_receive_skb_core", "TC_INGRESS")
            .interface("eth0")
            .answer(Question::Filters(hook), Answer::Filters(filters));
        host.run(&RULE).remove(0)
    }

    #[test]
    fn a_redirection_to_a_device_that_is_down_is_no_filter_that_drops() {
        let finding = found(vec![redirecting(ifb(false), 50)]);
        assert_eq!(finding.rule, "redirect_down");
        let says = "a tc filter redirects packets of eth0 in gw to ifb0, which is down: 50 dropped";
        assert_eq!(finding.title, says);
        assert_eq!(finding.actions[0].command, "ip netns exec gw ip link set dev ifb0 up");
        let gone = found(vec![redirecting(None, 50)]);
        assert!(gone.title.contains("to a device that is gone: 50"), "{gone:?}");
    }

    #[test]
    fn a_redirection_that_works_is_not_blamed() {
        for filter in [redirecting(ifb(true), 50), redirecting(ifb(false), 0)] {
            let finding = found(vec![filter.clone(), dropping(50)]);
            assert_eq!(finding.rule, "program");
            let says = ": flower pref 1 handle 0x1, action gact";
            assert!(finding.title.ends_with(says), "{finding:?}");
            assert_eq!(finding.evidence[2].name, "dropped by gact 2");
            let alone = found(vec![filter]);
            assert_eq!(alone.evidence.len(), 1, "nothing is named: {alone:?}");
        }
    }

    #[test]
    fn of_several_that_can_have_done_it_each_is_listed() {
        let program = Program { id: 7, name: Some("lb".into()) };
        let decides = Filter {
            name: "bpf pref 2 handle 0x1".into(),
            decides: true,
            program: Some(program),
            ..Filter::default()
        };
        let finding = found(vec![redirecting(ifb(false), 50), dropping(9), decides]);
        assert_eq!(finding.rule, "program");
        assert!(finding.title.ends_with("on eth0 in gw"), "{finding:?}");
        let listed = finding.evidence.iter().filter(|it| it.name == "one of").count();
        assert_eq!(listed, 3);
    }

    #[test]
    fn an_xdp_program_has_a_name_and_a_mode() {
        let program = Program { id: 7, name: Some("filter".into()) };
        let xdp = vec![XdpProgram { mode: XdpMode::Generic, program }];
        let device = Device { index: 2, xdp, ..Device::default() };
        let host = TestHost::new()
            .row(50, "do_xdp_generic", "XDP")
            .interface("eth0")
            .answer(Question::Device(2), Answer::Device(Box::new(device)));
        let finding = host.run(&RULE).remove(0);
        let says =
            "an XDP program dropped 50 packets on eth0 in gw: filter (program 7), generic mode";
        assert_eq!(finding.title, says);
        assert_eq!(finding.actions[1].command, "bpftool prog show id 7");
    }

    #[test]
    fn a_control_group_is_called_by_its_unit() {
        let program = GroupProgram {
            group: "/system.slice/a.service".into(),
            folder: "/sys/fs/cgroup/system.slice/a.service".into(),
            program: Program { id: 12, name: Some("sd_fw_egress".into()) },
        };
        let of = |group: &str, gone: bool| {
            let owner = Owner { comm: "web".into(), pid: 3, cgroup: Some(group.into()) };
            let host =
                TestHost::new().row(50, "ip_finish_output", "BPF_CGROUP_EGRESS").owner(owner);
            let hook = GroupHook { pid: (!gone).then_some(3), egress: true };
            let answer = Answer::GroupPrograms(vec![program.clone()]);
            host.answer(Question::GroupPrograms(hook), answer).run(&RULE).remove(0)
        };
        for gone in [false, true] {
            let finding = of("/system.slice/a.service", gone);
            let says = ": sd_fw_egress (program 12) of control group a.service";
            assert!(finding.title.ends_with(says), "{finding:?}");
            let first = "bpftool cgroup show /sys/fs/cgroup/system.slice/a.service";
            assert_eq!(finding.actions[0].command, first);
        }
        let other = of("/system.slice/b.service", true);
        assert_eq!(other.actions[0].command, "bpftool cgroup tree", "{other:?}");
    }
}
