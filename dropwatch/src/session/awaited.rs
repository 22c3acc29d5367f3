//! Network namespaces to filter by whose names others may get while the run goes on.
//!
//! The kernel sends no message when a namespace is given a name, so the name is looked up again and
//! again: a few system calls each time. A name that another namespace has got meanwhile means that
//! one. This goes on while a report is read, or what such a namespace drops meanwhile would not be
//! counted.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use dropwatch_common::{
    Netns,
    filter::{LATER, MOST, NetnsRule, NetnsValue, kind},
};
use tokio::time::sleep_until;

use crate::{
    exit::Failure,
    filter::{Packets, lets_through},
    kernel::{HostRoot, NetnsFile, netns_file},
    report::keys::Choice,
    verbose,
};

/// Time between two looks. What a namespace drops before the first one that sees it is not counted.
const EVERY: Duration = Duration::from_millis(25);

/// What a value of `--netns` means, by inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// The namespace that had the name when the run began.
    One(u32),
    /// With `--later`: whichever has the name, of which there may be none so far.
    Whichever(Option<u32>),
}

impl Meant {
    /// The one that it means now.
    pub fn now(self) -> Option<u32> {
        match self {
            Self::One(inum) => Some(inum),
            Self::Whichever(inum) => inum,
        }
    }
}

/// Has the rule of `--netns` with an index mean a namespace.
type Set = Box<dyn FnMut(usize, NetnsValue) -> io::Result<()>>;

/// What a rule means while there is none.
const NONE: NetnsValue = NetnsValue::any(LATER);

/// The namespaces that `--netns` names and that may come, and go, while the run goes on.
pub struct Awaited {
    root: HostRoot,
    names: Vec<Name>,
    /// Of those that are looked for no more and that the filter includes, the ones that never came.
    never: Vec<String>,
    next: Instant,
    set: Set,
    selected: Selected,
}

struct Name {
    /// Of its rule among those of `--netns`.
    index: usize,
    name: String,
    /// As the kernel side compares.
    value: NetnsValue,
    /// Where that was found; `None` before the first look and while there is none.
    file: Option<NetnsFile>,
    /// Whether it counts once it is there.
    included: bool,
    came: bool,
}

impl Awaited {
    /// The namespaces of `packets` of which `meant` says that another one may get the name. The kernel
    /// side learns by `set` what they stand for, and reports by `selected`.
    pub fn new(
        root: HostRoot,
        packets: &Packets,
        meant: &[Meant],
        set: impl FnMut(usize, NetnsValue) -> io::Result<()> + 'static,
        selected: Selected,
    ) -> Self {
        let names = packets.netns.iter().zip(meant).enumerate();
        let name = |(index, (choice, meant)): (usize, (&Choice<String>, &Meant))| {
            let Meant::Whichever(inum) = *meant else { return None };
            let value = inum.map_or(NONE, NetnsValue::any);
            if inum.is_some() {
                selected.change(index, value);
            }
            let (name, included, came) = (choice.value.clone(), !choice.exclude, inum.is_some());
            Some(Name { index, name, value, file: None, included, came })
        };
        let names = names.filter_map(name).collect();
        Self { root, names, never: Vec::new(), next: Instant::now(), set: Box::new(set), selected }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Waits until it is time to [`look`](Self::look); for ever where there is nothing to look for.
    pub async fn due(&self) {
        match self.is_empty() {
            true => std::future::pending().await,
            false => sleep_until(self.next.into()).await,
        }
    }

    /// Looks for none any more.
    pub fn give_up(&mut self) {
        let names = self.names.drain(..);
        self.never.extend(names.filter(|it| it.included && !it.came).map(|it| it.name));
    }

    /// Names of the namespaces that never came until the end, of those that were to be counted.
    pub fn never(&self) -> &[String] {
        &self.never
    }

    /// Looks every name up, and has the kernel side filter by those that stand for another
    /// namespace now.
    ///
    /// # Errors
    /// When the kernel side cannot be changed.
    pub fn look(&mut self) -> Result<(), Failure> {
        self.next = Instant::now() + EVERY;
        for Name { index, name, value, file, came, .. } in &mut self.names {
            let there = netns_file(&self.root, name);
            if *file == there {
                continue;
            }
            // The number alone would be that of whichever namespace gets it until the next look.
            let found = there.as_ref().map(NetnsFile::netns);
            let now = found.map_or(NONE, NetnsValue::new);
            let is_known = found.is_some_and(|netns| value.is(netns));
            if *value != now {
                let set = (self.set)(*index, now);
                set.with_context(|| format!("cannot filter by the network namespace {name}"))?;
                self.selected.change(*index, now);
            }
            let is_news = *value != now && !is_known;
            (*value, *file) = (now, there);
            *came |= found.is_some();
            if is_news {
                let news = if found.is_some() { "is there now" } else { "is not there any more" };
                verbose::to_stderr(&format!("the network namespace {name} {news}"));
            }
        }
        Ok(())
    }
}

/// Which network namespaces `--netns` selects, shared between whoever looks for them and whoever
/// reads reports.
#[derive(Clone)]
pub struct Selected(Arc<Mutex<Rules>>);

struct Rules {
    /// As the kernel side compares now.
    now: [NetnsRule; MOST],
    /// Namespaces that were selected earlier in this interval.
    before: Vec<NetnsValue>,
}

/// The namespaces that were selected at any moment of an interval.
pub(super) struct Interval(Rules);

impl Selected {
    pub fn new(rules: [NetnsRule; MOST]) -> Self {
        Self(Arc::new(Mutex::new(Rules { now: rules, before: Vec::new() })))
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the rule `index` mean the namespace `value`.
    fn change(&self, index: usize, value: NetnsValue) {
        let mut rules = self.rules();
        let Rules { now, before } = &mut *rules;
        if let Some(rule) = now.get_mut(index) {
            let old = rule.value;
            if rule.kind == kind::INCLUDE && old.inum != LATER && !before.contains(&old) {
                before.push(old);
            }
            rule.value = value;
        }
    }

    /// Ends an interval. To be called before its counters are read: what changes later belongs to
    /// the next one, in which a namespace that was selected until then still has drops.
    pub(super) fn end_interval(&self) -> Interval {
        let mut rules = self.rules();
        let before = std::mem::take(&mut rules.before);
        Interval(Rules { now: rules.now, before })
    }
}

impl Interval {
    /// Whether the namespace was selected.
    pub(super) fn has(&self, netns: Netns) -> bool {
        let Rules { now, before } = &self.0;
        lets_through(now, |it| it.is(netns)) || before.iter().any(|it| it.is(netns))
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, os::unix::fs::symlink, path::PathBuf, rc::Rc};

    use dropwatch_common::NO_COOKIE;

    use super::*;
    use crate::{kernel::netns_named, report::keys::Choice};

    /// Where no cookie is known.
    fn of(inum: u32) -> Netns {
        Netns { inum, cookie: NO_COOKIE }
    }

    fn rule(kind: u32, value: u32) -> [NetnsRule; MOST] {
        let mut rules = dropwatch_common::filter::Filter::NONE.netns;
        rules[0] = NetnsRule { kind, value: NetnsValue::any(value) };
        rules
    }

    /// A place for a name, and the options that ask for it.
    fn late(name: &str) -> (PathBuf, Packets) {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        let value = path.to_str().unwrap().to_owned();
        let netns = vec![Choice { exclude: false, value }];
        (path, Packets { netns, ..Packets::default() })
    }

    #[test]
    fn a_namespace_counts_for_as_long_as_it_has_its_name() {
        let (path, packets) = late("awaited");
        let selected = Selected::new(rule(kind::INCLUDE, LATER));
        let changes = Rc::new(RefCell::new(Vec::new()));
        let changed = Rc::clone(&changes);
        let set = move |index, netns: NetnsValue| {
            changed.borrow_mut().push((index, netns.inum));
            Ok(())
        };
        let root = HostRoot::default();
        let mut awaited =
            Awaited::new(root.clone(), &packets, &[Meant::Whichever(None)], set, selected.clone());
        awaited.look().unwrap();
        assert!(changes.borrow().is_empty(), "there is none yet");
        symlink("/proc/self/ns/net", &path).unwrap();
        let inum = netns_named(&root, path.to_str().unwrap()).unwrap();
        assert!(!selected.end_interval().has(of(inum)));
        awaited.look().unwrap();
        awaited.look().unwrap();
        assert!(selected.end_interval().has(of(inum)));
        std::fs::remove_file(&path).unwrap();
        awaited.look().unwrap();
        assert_eq!(*changes.borrow(), [(0, inum), (0, LATER)]);
        assert!(
            selected.end_interval().has(of(inum)),
            "it was asked for in a part of the interval"
        );
        assert!(!selected.end_interval().has(of(inum)));
        awaited.give_up();
        assert_eq!(awaited.never(), [""; 0], "it was there for a while");
    }

    #[test]
    fn a_number_that_is_given_again_is_no_more_than_a_number() {
        let of = |cookie| Netns { inum: 7, cookie };
        let selected = Selected::new(rule(kind::INCLUDE, LATER));
        selected.change(0, NetnsValue::new(of(1)));
        let interval = selected.end_interval();
        assert_eq!([1, 2].map(|cookie| interval.has(of(cookie))), [true, false]);
        selected.change(0, NetnsValue::new(of(3)));
        let interval = selected.end_interval();
        assert_eq!([1, 2, 3].map(|cookie| interval.has(of(cookie))), [true, false, true]);
    }

    #[test]
    fn one_that_never_comes_is_remembered_where_it_was_to_be_counted() {
        let (_, mut packets) = late("never");
        let left_out = Choice { exclude: true, value: "other".to_owned() };
        packets.netns.push(left_out);
        let selected = Selected::new(rule(kind::INCLUDE, LATER));
        let meant = [Meant::Whichever(None); 2];
        let mut awaited =
            Awaited::new(HostRoot::default(), &packets, &meant, |_, _| Ok(()), selected);
        awaited.look().unwrap();
        assert_eq!(awaited.never(), [""; 0], "it may still come");
        awaited.give_up();
        assert_eq!(awaited.never(), [packets.netns[0].value.clone()]);
    }

    #[test]
    fn one_that_goes_while_a_report_is_read_is_in_the_next_one_too() {
        let selected = Selected::new(rule(kind::INCLUDE, 7));
        let read = selected.end_interval();
        selected.change(0, NONE);
        assert!(read.has(of(7)), "its drops until then are in this report");
        assert!(selected.end_interval().has(of(7)), "and those after the reading in the next");
    }

    #[test]
    fn what_is_left_out_is_never_asked_for() {
        let selected = Selected::new(rule(kind::EXCLUDE, 7));
        selected.change(0, NetnsValue::any(8));
        let interval = selected.end_interval();
        assert_eq!([7, 8].map(|inum| interval.has(of(inum))), [true, false]);
    }

    #[test]
    fn a_name_stays_to_be_looked_for_where_the_kernel_side_cannot_be_changed() {
        let (path, packets) = late("refused");
        symlink("/proc/self/ns/net", &path).unwrap();
        let selected = Selected::new(rule(kind::INCLUDE, LATER));
        let set = |_, _| Err(io::ErrorKind::PermissionDenied.into());
        let mut awaited = Awaited::new(
            HostRoot::default(),
            &packets,
            &[Meant::Whichever(None)],
            set,
            selected.clone(),
        );
        let error = awaited.look().unwrap_err().to_string();
        assert!(error.starts_with("cannot filter by the network namespace"), "{error}");
        assert!(awaited.look().is_err());
        std::fs::remove_file(&path).unwrap();
    }
}
