//! Recordings of hosts that do not exist, as `dropwatch --json` writes them (docs/json.md).

use serde_json::{Value, json};

/// Reports of each recording.
pub(super) const REPORTS: u64 = 3;
/// Nominal interval, seconds.
const INTERVAL: u64 = 5;
/// What hosts drop for: function and reason.
const PLACES: [(&str, &str); 4] = [
    ("nf_hook_slow", "NETFILTER_DROP"),
    ("udp_queue_rcv_one_skb", "SOCKET_RCVBUFF"),
    ("tcp_v4_rcv", "NO_SOCKET"),
    ("ip_rcv_finish_core", "IP_RPFILTER"),
];

/// A host of a fleet, which drops in its own way.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) reason: &'static str,
    symbol: &'static str,
    /// Drops in each report, at the place and at an unknown one.
    pub(super) count: u64,
    pub(super) unknown: u64,
    /// Harmless drops in each report.
    pub(super) benign: u64,
    /// Whether its conntrack table is full, in every report but the last.
    pub(super) is_full: bool,
}

impl Host {
    /// The first of a fleet is 0. Each drops more than those before it; every third has harmless
    /// drops, too, every fourth loses a few locations, every seventh is at a limit.
    pub(super) fn number(index: u64) -> Self {
        let place = usize::try_from(index).unwrap_or_default() % PLACES.len();
        let (symbol, reason) = PLACES[place];
        Self {
            name: format!("host-{:02}", index + 1),
            reason,
            symbol,
            count: 100 * (index + 1),
            unknown: if index % 4 == 3 { 5 } else { 0 },
            benign: if index.is_multiple_of(3) { 100_000 } else { 0 },
            is_full: index.is_multiple_of(7),
        }
    }

    /// Drops of each report in a network namespace of their own; the rest is in the host's.
    pub(super) fn in_nat(&self) -> u64 {
        self.count / 4
    }

    /// All drops of the recording that are not harmless.
    pub(super) fn drops(&self) -> u64 {
        REPORTS * (self.count + self.unknown)
    }

    /// Its harmless drops.
    pub(super) fn benign_drops(&self) -> u64 {
        REPORTS * self.benign
    }

    /// The recording, one JSON object a line.
    pub(super) fn record(&self) -> String {
        let mut lines =
            vec![self.line("start", &json!({
            "dropwatch": "0.1.0", "time": time(0), "interval_s": INTERVAL as f64, "notices": [],
        }))];
        lines.extend((1..=REPORTS).map(|seq| self.report(seq)));
        lines.push(self.line("end", &json!({
            "time": time(REPORTS), "duration_s": (REPORTS * INTERVAL) as f64, "reports": REPORTS,
            "drops": self.drops() + self.benign_drops(), "lost": lost(REPORTS * self.unknown),
        })));
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn report(&self, seq: u64) -> String {
        let drops = self.count + self.unknown + self.benign;
        let rate = |count: u64| count as f64 / INTERVAL as f64;
        let share = |count: u64| (count as f64 / drops as f64 * 1000.0).round() / 1000.0;
        let finding = json!({
            "rule": "conntrack_table_full", "severity": "critical",
            "netns": {"name": "nat", "inum": 4_026_532_246_u64},
            "title": "conntrack table full in nat: 1000 of 1000 entries",
            "explains": {"drops": self.count, "share": share(self.count)},
            "evidence": [
                {"name": "drop", "value": self.count, "delta": true, "source": "ctnetlink"},
                {"name": "entries", "value": 1000, "source": "ctnetlink"},
                {"name": "nf_conntrack_max", "value": 1000, "source": "ctnetlink"},
            ],
            "actions": [],
        });
        let findings = if self.is_full && seq < REPORTS { vec![finding] } else { Vec::new() };
        let row = |symbol: &str, reason: &str, count: u64, benign: bool| {
            json!({
                "symbol": symbol, "offset": 125, "module": null, "reason": reason,
                "subsystem": "CORE", "count": count, "rate": rate(count), "share": share(count),
                "total": seq * count, "benign": benign, "new": seq == 1,
            })
        };
        let netns = |name: &str, inum: u32, count: u64| {
            json!({
                "name": name, "inum": inum, "count": count, "rate": rate(count),
                "share": (count as f64 / self.count as f64 * 1000.0).round() / 1000.0,
                "total": seq * count,
            })
        };
        let mut harmful = row(self.symbol, self.reason, self.count, false);
        harmful["namespaces"] = json!([
            netns("host", 4_026_531_840, self.count - self.in_nat()),
            netns("nat", 4_026_532_246, self.in_nat()),
        ]);
        let mut rows = vec![harmful];
        if self.benign > 0 {
            rows.push(row("inet_sock_destruct", "QUEUE_PURGE", self.benign, true));
        }
        self.line(
            "report",
            &json!({
                "seq": seq, "start": time(seq - 1), "end": time(seq), "interval_s": INTERVAL as f64,
                "intervals": 1, "drops": drops, "rate": rate(drops),
                "locations": rows,
                "other": {"locations": 0, "count": self.unknown, "unknown_location": self.unknown},
                "lost": lost(self.unknown), "findings": findings,
            }),
        )
    }

    fn line(&self, kind: &str, fields: &Value) -> String {
        let mut line = json!({
            "v": 1, "type": kind, "host": self.name,
            "boot_id": "9c4e0d3a-2f5b-4d8e-8f4d-0a6f1f1f7a11", "kernel": "6.18.44",
        });
        if let (Some(line), Some(fields)) = (line.as_object_mut(), fields.as_object()) {
            line.extend(fields.clone());
        }
        line.to_string()
    }
}

fn lost(map_full: u64) -> Value {
    json!({"map_full": map_full, "map_busy": 0, "recursion": 0, "samples": 0, "stacks": 0})
}

/// The wall clock after so many intervals.
fn time(intervals: u64) -> String {
    format!("2026-11-22T07:35:{:02}.000Z", intervals * INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_hold() {
        for host in (0..20).map(Host::number) {
            let record = host.record();
            let lines: Vec<Value> =
                record.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let (end, reports) = (&lines[lines.len() - 1], &lines[1..lines.len() - 1]);
            let drops: u64 = reports.iter().filter_map(|line| line["drops"].as_u64()).sum();
            assert_eq!(end["drops"], drops);
            assert_eq!(drops, host.drops() + host.benign_drops());
            for report in reports {
                let rows = report["locations"].as_array().unwrap().iter();
                let located: u64 = rows.map(|row| row["count"].as_u64().unwrap()).sum();
                let other = report["other"]["count"].as_u64().unwrap();
                assert_eq!(report["drops"], located + other);
                assert_eq!(report["lost"]["map_full"], report["other"]["unknown_location"]);
            }
        }
    }
}
