//! Totals as metrics, in the formats that scrapers ask for: OpenMetrics 1.0, and the older text
//! format of Prometheus.
//!
//! Both are written here, as no library writes both: they differ in what a counter's family is
//! called and in the last line.

use std::{collections::BTreeMap, fmt::Write as _};

use super::clean::clean;
use crate::report::{
    number::unix_seconds,
    place::Place,
    totals::{FindingKey, GroupKey, NamespaceKey, Totals},
};

/// What a scraper takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// <https://openmetrics.io>, 1.0.
    OpenMetrics,
    /// Prometheus' text format, 0.0.4.
    Text,
}

impl Exposition {
    /// The better one of those that an `Accept` header names.
    pub fn of_accept(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The kinds of metrics that there are.
#[derive(Clone, Copy)]
enum MetricKind {
    Counter,
    Gauge,
    Info,
}

/// Writes totals as a page of metrics.
pub fn page(totals: &Totals, exposition: Exposition) -> String {
    let mut page = MetricsPage { text: String::new(), exposition };
    page.drops(totals);
    page.namespaces(totals);
    page.rest(totals);
    page.findings(totals);
    page.conntrack(totals);
    if exposition == Exposition::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

struct MetricsPage {
    text: String,
    exposition: Exposition,
}

impl MetricsPage {
    fn drops(&mut self, totals: &Totals) {
        let unnamed = Place::default();
        let other = |count, benign| (place("other", &unnamed, benign), count);
        let others = [other(totals.other, false), other(totals.other_benign, true)];
        let places = totals.places.iter().map(|((it, benign), count)| {
            (place(it.symbol.as_deref().unwrap_or("unknown"), it, *benign), *count)
        });
        let help = "Packets that the kernel dropped, and whether that is known to be harmless.";
        self.counter("dropwatch_drops", help, places.chain(others));
    }

    /// The same drops once more, each sum bounded by itself.
    fn namespaces(&mut self, totals: &Totals) {
        let help = "The same drops by network namespace and reason.";
        let namespaces = totals.namespaces.iter().map(|(key, sum)| {
            let NamespaceKey { netns, reason, benign } = key;
            let benign = boolean(*benign);
            (labels(&[("netns", netns), ("reason", reason), ("benign", benign)]), sum)
        });
        self.counter("dropwatch_namespace_drops", help, namespaces);
        let mut groups = totals.groups.iter().peekable();
        if groups.peek().is_some() {
            let help = "The same drops by what --by asks for.";
            let group = |key: &GroupKey| {
                let values: Vec<_> = key.iter().map(|(label, it)| (*label, it.as_str())).collect();
                labels(&values)
            };
            self.counter("dropwatch_group_drops", help, groups.map(|(key, sum)| (group(key), sum)));
        }
    }

    fn rest(&mut self, totals: &Totals) {
        let lost = totals.lost;
        let causes = [
            ("map_full", lost.map_full),
            ("map_busy", lost.map_busy),
            ("recursion", lost.recursion),
            ("samples", lost.samples),
            ("stacks", lost.stacks),
            ("pcap", lost.pcap),
            ("unsampled", lost.unsampled),
        ];
        let help = "What could not be counted at its place, or shown in detail, by cause.";
        let causes = causes.into_iter().map(|(cause, count)| (labels(&[("cause", cause)]), count));
        self.counter("dropwatch_lost", help, causes);
        if let Some(undecided) = totals.undecided {
            let help = "Drops of which the filters could not be decided; in no other metric.";
            self.counter("dropwatch_filter_undecided", help, [(String::new(), undecided)]);
        }
        self.counter("dropwatch_reports", "Reports made.", [(String::new(), totals.reports)]);
        let help = "Nominal time between reports, which all of these come from.";
        self.family("dropwatch_interval_seconds", MetricKind::Gauge, Some("seconds"), help);
        self.sample("dropwatch_interval_seconds", "", totals.interval_s);
        if let Some(last) = totals.last {
            let name = "dropwatch_last_report_timestamp_seconds";
            let help = "End of the last report, in Unix time.";
            self.family(name, MetricKind::Gauge, Some("seconds"), help);
            self.sample(name, "", unix_seconds(last.as_millisecond()));
        }
        self.family(
            "dropwatch_build",
            MetricKind::Info,
            None,
            "What counts, and what is counted on.",
        );
        let kernel = totals.host.kernel.as_str();
        let build = labels(&[("version", &totals.version), ("kernel", kernel)]);
        self.sample("dropwatch_build_info", &build, 1);
    }

    fn findings(&mut self, totals: &Totals) {
        let help = "Causes of drops and losses that the last report found.";
        let last = totals.findings.iter().map(|(it, count)| (found(it), *count));
        self.gauge("dropwatch_findings", help, last, u64::saturating_add);
        let help = "Reports in which a cause of drops and losses was found.";
        let reports = totals.found.iter().map(|(it, sums)| (found(it), sums.reports));
        self.counter("dropwatch_finding_reports", help, reports);
        let help = "Drops that a cause explains.";
        let drops = totals.found.iter().map(|(it, sums)| (found(it), sums.drops));
        self.counter("dropwatch_finding_drops", help, drops);
    }

    fn conntrack(&mut self, totals: &Totals) {
        let netns = |netns: &String| labels(&[("netns", netns)]);
        if !totals.conntrack.is_empty() {
            let help = "Connections that a network namespace tracks.";
            let entries = totals.conntrack.iter().map(|(name, it)| (netns(name), it.entries));
            self.gauge("dropwatch_conntrack_entries", help, entries, u64::saturating_add);
            let help = "Connections that a network namespace may track (nf_conntrack_max).";
            let limits = totals.conntrack.iter();
            let limits = limits.filter_map(|(name, it)| Some((netns(name), it.limit?)));
            self.gauge("dropwatch_conntrack_limit", help, limits, u64::max);
        }
        if !totals.refused.is_empty() {
            let help = "Packets that connection tracking refused.";
            let refused = totals.refused.iter().map(|(name, sum)| (netns(name), *sum));
            self.counter("dropwatch_conntrack_drops", help, refused);
        }
    }

    fn counter(&mut self, name: &str, help: &str, series: impl IntoIterator<Item = (String, u64)>) {
        self.family(name, MetricKind::Counter, None, help);
        self.samples(&format!("{name}_total"), series, u64::saturating_add);
    }

    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (String, u64)>,
        merge: fn(u64, u64) -> u64,
    ) {
        self.family(name, MetricKind::Gauge, None, help);
        self.samples(name, series, merge);
    }

    /// Sums samples with equal labels, since a scraper takes no set of labels twice: names that
    /// differ only in characters that are cleaned away become equal, and so does one that is
    /// spelled `other`.
    fn samples(
        &mut self,
        name: &str,
        series: impl IntoIterator<Item = (String, u64)>,
        merge: fn(u64, u64) -> u64,
    ) {
        let mut merged: BTreeMap<String, u64> = BTreeMap::new();
        for (labels, value) in series {
            merged.entry(labels).and_modify(|it| *it = merge(*it, value)).or_insert(value);
        }
        for (labels, value) in merged {
            self.sample(name, &labels, value);
        }
    }

    fn family(&mut self, name: &str, kind: MetricKind, unit: Option<&str>, help: &str) {
        let (name, kind) = match (self.exposition, kind) {
            (Exposition::OpenMetrics, MetricKind::Counter) => (name.to_owned(), "counter"),
            (Exposition::OpenMetrics, MetricKind::Info) => (name.to_owned(), "info"),
            (Exposition::Text, MetricKind::Counter) => (format!("{name}_total"), "counter"),
            (Exposition::Text, MetricKind::Info) => (format!("{name}_info"), "gauge"),
            (_, MetricKind::Gauge) => (name.to_owned(), "gauge"),
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        if let (Exposition::OpenMetrics, Some(unit)) = (self.exposition, unit) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        self.line(format_args!("{name}{labels} {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _done = writeln!(self.text, "{line}");
    }
}

/// The labels of a place that is called `symbol`; without its offset, which builds differ in.
fn place(symbol: &str, place: &Place, benign: bool) -> String {
    let Place { symbol: _, offset: _, module, reason, subsystem } = place;
    let [module, reason, subsystem] =
        [module, reason, subsystem].map(|text| text.as_deref().unwrap_or_default());
    labels(&[
        ("symbol", symbol),
        ("module", module),
        ("reason", reason),
        ("subsystem", subsystem),
        ("benign", boolean(benign)),
    ])
}

fn boolean(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn found((rule, severity, netns): &FindingKey) -> String {
    labels(&[("rule", rule), ("severity", severity.name()), ("netns", netns)])
}

/// Labels as they stand behind a metric's name.
fn labels(labels: &[(&str, &str)]) -> String {
    let labels: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", labels.join(","))
}

/// A label's value: names are anyone's choice.
fn escaped(value: &str) -> String {
    clean(value).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
