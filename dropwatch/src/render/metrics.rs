//! Totals as metrics, in the formats that scrapers ask for: OpenMetrics 1.0, and the older text
//! format of Prometheus.
//!
//! Both are written here, as no library writes both: they differ in what a counter's family is
//! called and in the last line.

use std::fmt::Write as _;

use super::clean::clean;
use crate::report::{place::Place, totals::Totals};

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
enum Kind {
    Counter,
    Gauge,
    Info,
}

/// Writes totals as a page of metrics.
pub fn page(totals: &Totals, exposition: Exposition) -> String {
    let mut page = Page { text: String::new(), exposition };
    page.drops(totals);
    page.rest(totals);
    page.findings(totals);
    page.conntrack(totals);
    if exposition == Exposition::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

struct Page {
    text: String,
    exposition: Exposition,
}

impl Page {
    fn drops(&mut self, totals: &Totals) {
        let name = "dropwatch_drops";
        self.family(name, Kind::Counter, None, "Packets that the kernel dropped.");
        for (place, count) in &totals.places {
            let Place { symbol, module, reason, subsystem, .. } = place;
            self.place(symbol.as_deref().unwrap_or("unknown"), [module, reason, subsystem], *count);
        }
        self.place("other", [&None, &None, &None], totals.other);
    }

    fn place(&mut self, symbol: &str, rest: [&Option<String>; 3], count: u64) {
        let [module, reason, subsystem] = rest.map(|text| text.as_deref().unwrap_or_default());
        let labels =
            [("symbol", symbol), ("module", module), ("reason", reason), ("subsystem", subsystem)];
        self.sample("dropwatch_drops_total", &labels, count);
    }

    fn rest(&mut self, totals: &Totals) {
        let lost = totals.lost;
        let help = "What could not be counted at its place, or shown in detail, by cause.";
        self.family("dropwatch_lost", Kind::Counter, None, help);
        for (cause, count) in [
            ("map_full", lost.map_full),
            ("map_busy", lost.map_busy),
            ("recursion", lost.recursion),
            ("samples", lost.samples),
            ("stacks", lost.stacks),
            ("pcap", lost.pcap),
        ] {
            self.sample("dropwatch_lost_total", &[("cause", cause)], count);
        }
        if let Some(undecided) = totals.undecided {
            let help = "Drops of which the filters could not be decided; in no other metric.";
            self.family("dropwatch_filter_undecided", Kind::Counter, None, help);
            self.sample("dropwatch_filter_undecided_total", &[], undecided);
        }
        self.family("dropwatch_reports", Kind::Counter, None, "Reports made.");
        self.sample("dropwatch_reports_total", &[], totals.reports);
        let help = "Nominal time between reports, which all of these come from.";
        self.family("dropwatch_interval_seconds", Kind::Gauge, Some("seconds"), help);
        self.sample("dropwatch_interval_seconds", &[], totals.interval_s);
        if let Some(last) = totals.last {
            let name = "dropwatch_last_report_timestamp_seconds";
            let help = "End of the last report, in Unix time.";
            self.family(name, Kind::Gauge, Some("seconds"), help);
            self.sample(name, &[], last.as_millisecond() as f64 / 1e3);
        }
        self.family("dropwatch_build", Kind::Info, None, "What counts, and what is counted on.");
        let kernel = ("kernel", totals.host.kernel.as_str());
        self.sample("dropwatch_build_info", &[("version", &totals.version), kernel], 1);
    }

    fn findings(&mut self, totals: &Totals) {
        let help = "Causes of drops and losses that the last report found.";
        self.family("dropwatch_findings", Kind::Gauge, None, help);
        for ((rule, severity, netns), count) in &totals.findings {
            let labels = [("rule", rule.as_str()), ("severity", severity.name()), ("netns", netns)];
            self.sample("dropwatch_findings", &labels, *count);
        }
    }

    fn conntrack(&mut self, totals: &Totals) {
        if totals.conntrack.is_empty() {
            return;
        }
        let help = "Connections that a network namespace tracks.";
        self.family("dropwatch_conntrack_entries", Kind::Gauge, None, help);
        for (netns, it) in &totals.conntrack {
            self.sample("dropwatch_conntrack_entries", &[("netns", netns)], it.entries);
        }
        let help = "Connections that a network namespace may track (nf_conntrack_max).";
        self.family("dropwatch_conntrack_limit", Kind::Gauge, None, help);
        for (netns, it) in &totals.conntrack {
            if let Some(limit) = it.limit {
                self.sample("dropwatch_conntrack_limit", &[("netns", netns)], limit);
            }
        }
        let help = "Packets that connection tracking refused.";
        self.family("dropwatch_conntrack_drops", Kind::Counter, None, help);
        for (netns, it) in &totals.conntrack {
            self.sample("dropwatch_conntrack_drops_total", &[("netns", netns)], it.drops);
        }
    }

    fn family(&mut self, name: &str, kind: Kind, unit: Option<&str>, help: &str) {
        let (name, kind) = match (self.exposition, kind) {
            (Exposition::OpenMetrics, Kind::Counter) => (name.to_owned(), "counter"),
            (Exposition::OpenMetrics, Kind::Info) => (name.to_owned(), "info"),
            (Exposition::Text, Kind::Counter) => (format!("{name}_total"), "counter"),
            (Exposition::Text, Kind::Info) => (format!("{name}_info"), "gauge"),
            (_, Kind::Gauge) => (name.to_owned(), "gauge"),
        };
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        if let (Exposition::OpenMetrics, Some(unit)) = (self.exposition, unit) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        match labels.is_empty() {
            true => self.line(format_args!("{name} {value}")),
            false => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _done = writeln!(self.text, "{line}");
    }
}

/// A label's value: names are anyone's choice.
fn escaped(value: &str) -> String {
    clean(value).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
