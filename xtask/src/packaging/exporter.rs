//! Hosts that do not exist, with an exporter each: what a dashboard shows has to come from somewhere.

use std::time::Instant;

use anyhow::Result;

use super::{http::serve, prometheus::Target};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// In each page, hosts are told apart by how much it drops, packets per second.
const HOSTS: [(&str, u64); 3] = [("gw", 500), ("web", 40), ("db", 1)];

/// Starts them. The first has a full conntrack table, which no scrape ever meets a report of, and
/// loses what exporters can lose.
///
/// # Errors
/// If there is no port for one.
pub(super) fn start() -> Result<Vec<Target>> {
    HOSTS
        .into_iter()
        .map(|(name, rate)| {
            let start = Instant::now();
            let page = move || page(rate, start.elapsed().as_millis(), now());
            Ok(Target { instance: name.to_owned(), address: serve(OPEN_METRICS, page)? })
        })
        .collect()
}

/// Seconds since 1970.
fn now() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()
}

/// What an exporter says after so many milliseconds at `rate` drops per second.
fn page(rate: u64, elapsed: u128, now: u64) -> String {
    let dropped = u128::from(rate) * elapsed / 1000;
    let full = u8::from(rate >= 100);
    let entries = if full == 1 { 1000 } else { 12 };
    let lost = dropped / 100 * u128::from(full);
    let refused = dropped * u128::from(full);
    let found = elapsed / 1000 * u128::from(full);
    let reports = elapsed / 5000 + 1;
    format!(
        r#"# TYPE dropwatch_build_info gauge
dropwatch_build_info{{version="0.1.0",kernel="6.18.44"}} 1
# TYPE dropwatch_drops counter
dropwatch_drops_total{{symbol="nf_hook_slow",module="",reason="NETFILTER_DROP",subsystem="CORE",benign="false"}} {dropped}
dropwatch_drops_total{{symbol="ovs_dp_upcall",module="openvswitch",reason="",subsystem="",benign="false"}} {few}
dropwatch_drops_total{{symbol="inet_sock_destruct",module="",reason="QUEUE_PURGE",subsystem="CORE",benign="true"}} {dropped}
dropwatch_drops_total{{symbol="other",module="",reason="",subsystem="",benign="false"}} {few}
dropwatch_drops_total{{symbol="other",module="",reason="",subsystem="",benign="true"}} {few}
dropwatch_drops_total{{symbol="unknown",module="",reason="",subsystem="",benign="false"}} {lost}
# TYPE dropwatch_namespace_drops counter
dropwatch_namespace_drops_total{{netns="nat",reason="NETFILTER_DROP",benign="false"}} {dropped}
dropwatch_namespace_drops_total{{netns="host",reason="",benign="false"}} {few}
dropwatch_namespace_drops_total{{netns="host",reason="QUEUE_PURGE",benign="true"}} {dropped}
dropwatch_namespace_drops_total{{netns="other",reason="",benign="false"}} {few}
dropwatch_namespace_drops_total{{netns="other",reason="",benign="true"}} {few}
dropwatch_namespace_drops_total{{netns="unknown",reason="",benign="false"}} {lost}
# TYPE dropwatch_lost counter
dropwatch_lost_total{{cause="map_full"}} {lost}
dropwatch_lost_total{{cause="map_busy"}} 0
dropwatch_lost_total{{cause="recursion"}} 0
dropwatch_lost_total{{cause="samples"}} {lost}
dropwatch_lost_total{{cause="stacks"}} 0
dropwatch_lost_total{{cause="pcap"}} 0
# TYPE dropwatch_findings gauge
dropwatch_findings{{rule="ttl_expired",severity="notice",netns=""}} 1
# TYPE dropwatch_finding_reports counter
dropwatch_finding_reports_total{{rule="conntrack_table_full",severity="critical",netns="nat"}} {found}
dropwatch_finding_reports_total{{rule="ttl_expired",severity="notice",netns=""}} {reports}
# TYPE dropwatch_finding_drops counter
dropwatch_finding_drops_total{{rule="conntrack_table_full",severity="critical",netns="nat"}} {refused}
dropwatch_finding_drops_total{{rule="ttl_expired",severity="notice",netns=""}} {few}
# TYPE dropwatch_conntrack_entries gauge
dropwatch_conntrack_entries{{netns="nat"}} {entries}
# TYPE dropwatch_conntrack_limit gauge
dropwatch_conntrack_limit{{netns="nat"}} 1000
# TYPE dropwatch_conntrack_drops counter
dropwatch_conntrack_drops_total{{netns="nat"}} {refused}
# TYPE dropwatch_reports counter
dropwatch_reports_total {reports}
# TYPE dropwatch_interval_seconds gauge
dropwatch_interval_seconds 5
# TYPE dropwatch_last_report_timestamp_seconds gauge
dropwatch_last_report_timestamp_seconds {now}
# EOF
"#,
        few = dropped / 10,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_grow_and_the_page_ends() {
        let (first, later) = (page(500, 1000, 7), page(500, 3000, 9));
        assert!(first.contains(r#"reason="NETFILTER_DROP",subsystem="CORE",benign="false"} 500"#));
        assert!(later.contains(r#"reason="NETFILTER_DROP",subsystem="CORE",benign="false"} 1500"#));
        assert!(later.ends_with("\n# EOF\n"));
    }
}
