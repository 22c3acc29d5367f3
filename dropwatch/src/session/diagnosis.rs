//! From a report and the evidence that was read with it to findings.

use super::{Session, awaited::Interval};
use crate::{
    diagnose,
    kernel::evidence::{Collector, Unread},
    report::{facts::Netns, late::LateDrops, model::Report},
};

/// Most namespaces of a run that are remembered as having ended unread.
const MAX_UNREAD: usize = 1024;

impl Session {
    /// Marks what samples and evidence show to be harmless, and has the rules make findings of the
    /// evidence that was read with the report's counters.
    pub(super) fn diagnose(
        &mut self,
        report: &mut Report,
        selected: &Interval,
        late: &[LateDrops],
    ) {
        if let Some(evidence) = &mut self.evidence {
            let (before, now) = evidence.both();
            diagnose::wind_back(report, late, before, now);
        }
        let now = self.evidence.as_ref().map(Collector::now);
        let unclaimed = diagnose::settle_multicast(report, self.reporter.ends(), now);
        self.reporter.add_benign(unclaimed);
        let Some(evidence) = &self.evidence else { return };
        let devices = self.reporter.devices();
        let sent = diagnose::settle(report, devices, evidence.before(), evidence.now());
        self.reporter.add_benign(sent);
        let filtered = diagnose::filtered(report, evidence.before(), evidence.now());
        if let Some(evidence) = &mut self.evidence {
            let Self { probe, names, reporter, .. } = self;
            let mut late = || {
                let again = probe.read_again(|netns| names.namespaces().number(netns));
                let late = again.map(|again| reporter.late_since_report(&again, names));
                diagnose::at_hooks(&late.unwrap_or_default())
            };
            evidence.read_filters(&filtered, self.pace.interval(), &mut late);
        }
        let Some(evidence) = &self.evidence else { return };
        // Rules may ask this host about the packets that were sampled.
        let mut answer = evidence.answerer(self.pace.interval());
        report.findings =
            diagnose::findings(report, evidence.before(), evidence.now(), &mut answer);
        // The counters of a namespace whose drops are left out would be held against those of
        // others.
        report.findings.retain(|it| {
            it.netns.as_ref().is_none_or(|it| selected.has(self.names.known(it.number())))
        });
        if self.narrowed {
            // What rests on none of the selected drops is about other packets, or cannot be told.
            report.findings.retain(|it| it.explains.is_some_and(|explains| explains.drops > 0));
            return;
        }
        let Unread { known, passed } = evidence.unread();
        let known = known
            .iter()
            .filter(|it| selected.has(self.names.known(it.number())))
            .map(Netns::to_string);
        // What has no number any more passes where no namespace is named.
        let passed = passed.iter().filter(|_| selected.has(dropwatch_common::Netns::NONE)).cloned();
        let room = MAX_UNREAD.saturating_sub(self.unread.len());
        self.unread.extend(known.chain(passed).take(room));
    }
}
