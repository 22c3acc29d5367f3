//! `dropwatch conntrack`: what connection tracking holds and costs, in each network namespace.
//!
//! Needs nothing of the kernel side: all of it is read over netlink and from `/proc`. A namespace
//! that ends meanwhile is left out; one that cannot be read is named in a notice, and only where
//! none can be read does the command fail.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use caps::Capability;
use jiff::{Timestamp, tz::TimeZone};
use tokio::{runtime, time::sleep_until};

use crate::{
    exit::Failure,
    kernel::{
        self, HostRoot, Namespaces, ReachableNetns,
        conntrack::{ConntrackError, ConntrackReading, read},
    },
    notify, privilege,
    render::{ConntrackText, Style, json_line},
    report::{
        conntrack::{ConntrackCounters, ConntrackInterval, ConntrackView},
        model::Host,
    },
    session::pace::Pace,
    settings,
    sink::output::{Output, ended_by_reader},
    supervise::signals::Stop,
    verbose,
};

/// Shows connection tracking once, or again and again until a signal.
pub fn show(settings: &settings::Conntrack) -> Result<(), Failure> {
    let root = HostRoot::default();
    let viewer = Viewer {
        settings,
        host: kernel::host(&root),
        namespaces: Namespaces::new(&root),
        root,
        before: HashMap::new(),
    };
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    let result = runtime.block_on(viewer.show());
    // A write that a stalled reader holds up must not hold up the end.
    runtime.shutdown_background();
    result
}

struct Viewer<'a> {
    settings: &'a settings::Conntrack,
    root: HostRoot,
    host: Host,
    namespaces: Namespaces,
    /// Counters of the page before, by namespace, and when they were read.
    before: HashMap<u32, (ConntrackCounters, Instant)>,
}

impl Viewer<'_> {
    async fn show(mut self) -> Result<(), Failure> {
        let mut output = Output::stdout().context("cannot use standard output")?;
        let Some(interval) = self.settings.watch else {
            let page = self.page()?.unwrap_or_default();
            output.write(page).await.context("cannot write the output")?;
            return ended_by_reader(output.flushed().await).map(drop);
        };
        let mut stop = Stop::new().context("cannot listen to signals")?;
        let (begin, mut pace) = (Instant::now(), Pace::new(interval));
        let mut before_first = true;
        while let Some(page) = self.page()? {
            output.write(page).await.context("cannot write the output")?;
            // The first page says that the tables can be read. Later ones say nothing new.
            if before_first {
                notify::ready();
                before_first = false;
            }
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                written = output.flushed() => if ended_by_reader(written)? {
                    return Ok(());
                }
            }
            let due = begin + pace.due(begin.elapsed());
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                () = sleep_until(due.into()) => {}
            }
            pace.advance(begin.elapsed());
            self.namespaces.begin_report();
        }
        Ok(())
    }

    /// Reads every namespace and renders them; `None` once all that there were have ended.
    fn page(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let (reachable, mut notices) = self.reachable()?;
        let time = Timestamp::now();
        let before = std::mem::take(&mut self.before);
        let (mut namespaces, mut failures) = (Vec::new(), Vec::new());
        for netns in reachable {
            match read(&self.root, &netns) {
                Ok(reading) => namespaces.push(self.line(time, &netns, &reading, &before)),
                Err(ConntrackError::Gone) => {}
                Err(error) => failures.push((netns, error)),
            }
        }
        if namespaces.is_empty() {
            let ended = failures.is_empty() && !before.is_empty();
            return if ended { Ok(None) } else { Err(failure(failures)) };
        }
        notices.extend(notices_of(&failures));
        if !self.settings.json {
            let style = Style { medium: self.settings.medium, time_zone: TimeZone::system() };
            let mut page = ConntrackText::new(style).page(time, &notices, &namespaces);
            if !before.is_empty() {
                page.insert(0, b'\n');
            }
            return Ok(Some(page));
        }
        notices.iter().for_each(|notice| verbose::to_stderr(notice));
        let mut page = Vec::new();
        for namespace in &namespaces {
            json_line(&namespace.line(), &mut page).context("cannot write the output")?;
        }
        Ok(Some(page))
    }

    /// The namespaces to look at, and what is known to be missing from them.
    fn reachable(&mut self) -> Result<(Vec<ReachableNetns>, Vec<String>), Failure> {
        if self.settings.netns.is_empty() {
            let reachable = self.namespaces.all();
            let hidden = self.namespaces.hidden();
            // With the capability, those of a container's supervisor stay hidden at most.
            let blind = hidden > 0 && !privilege::may_use(Capability::CAP_SYS_PTRACE);
            let notice = blind.then(|| {
                format!(
                    "{hidden} processes hide their network namespaces: run with sudo, for \
                     CAP_SYS_PTRACE"
                )
            });
            return Ok((reachable, notice.into_iter().collect()));
        }
        let mut reachable: Vec<ReachableNetns> = Vec::new();
        for name in &self.settings.netns {
            match self.namespaces.reach_by_name(name) {
                Ok(netns) if reachable.iter().any(|known| known.netns.inum == netns.netns.inum) => {
                }
                Ok(netns) => reachable.push(netns),
                // It was there when the run began.
                Err(_) if !self.before.is_empty() => {}
                Err(error) => return Err(Failure::Usage(format!("--netns: {error}"))),
            }
        }
        Ok((reachable, Vec::new()))
    }

    fn line(
        &mut self,
        time: Timestamp,
        netns: &ReachableNetns,
        ConntrackReading { stats, tally, timeouts }: &ConntrackReading,
        before: &HashMap<u32, (ConntrackCounters, Instant)>,
    ) -> ConntrackView {
        let (inum, now) = (netns.netns.inum, Instant::now());
        self.before.insert(inum, (stats.counters, now));
        let interval = before.get(&inum).and_then(|(counters, then)| {
            let length: Duration = now.duration_since(*then);
            ConntrackInterval::between(counters, &stats.counters, length)
        });
        let table = tally.table(self.settings.top, timeouts);
        ConntrackView::new((self.host.clone(), time), netns.netns.clone(), *stats, interval, table)
    }
}

/// Why there is nothing to show.
fn failure(failures: Vec<(ReachableNetns, ConntrackError)>) -> Failure {
    let Some((netns, error)) = failures.into_iter().next() else {
        return anyhow!("the network namespace is gone").into();
    };
    let message = error.to_string();
    match error {
        ConntrackError::Enter | ConntrackError::Hidden | ConntrackError::Refused => {
            Failure::Privilege(message)
        }
        ConntrackError::Absent | ConntrackError::NoNetlink => Failure::Kernel(message),
        ConntrackError::Gone | ConntrackError::Io(_) => {
            anyhow!("{message} of {}", name(&netns)).into()
        }
    }
}

/// One sentence for each cause, with the namespaces that it keeps from being shown.
fn notices_of(failures: &[(ReachableNetns, ConntrackError)]) -> Vec<String> {
    let mut causes: Vec<(String, Vec<String>)> = Vec::new();
    for (netns, error) in failures {
        let cause = error.to_string();
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, names)) => names.push(name(netns)),
            None => causes.push((cause, vec![name(netns)])),
        }
    }
    let notice = |(cause, names): (String, Vec<String>)| format!("{}: {cause}", names.join(", "));
    causes.into_iter().map(notice).collect()
}

fn name(netns: &ReachableNetns) -> String {
    netns.netns.name.clone().unwrap_or_else(|| format!("netns {}", netns.netns.inum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit;

    fn netns() -> ReachableNetns {
        Namespaces::new(&HostRoot::default()).all().remove(0)
    }

    #[test]
    fn a_failure_ends_with_the_code_of_its_cause() {
        let code = |error| failure(vec![(netns(), error)]).code();
        assert_eq!(code(ConntrackError::Refused), exit::PRIVILEGE);
        assert_eq!(code(ConntrackError::Enter), exit::PRIVILEGE);
        assert_eq!(code(ConntrackError::Absent), exit::KERNEL);
        assert_eq!(code(ConntrackError::NoNetlink), exit::KERNEL);
        assert_eq!(code(ConntrackError::Io("no".into())), exit::RUNTIME);
        assert_eq!(failure(Vec::new()).code(), exit::RUNTIME);
    }

    #[test]
    fn a_cause_is_reported_once_with_all_that_it_concerns() {
        let failures = [(netns(), ConntrackError::Enter), (netns(), ConntrackError::Enter)];
        let notices = notices_of(&failures);
        assert_eq!(notices.len(), 1, "{notices:?}");
        let name = name(&failures[0].0);
        assert!(notices[0].starts_with(&format!("{name}, {name}: missing CAP_SYS_ADMIN")));
    }
}
