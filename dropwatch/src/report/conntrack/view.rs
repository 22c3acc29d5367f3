//! What `dropwatch conntrack` shows of a namespace, documented in `docs/json.md`.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    super::{
        facts::Netns,
        model::{Host, SCHEMA_VERSION},
        number::{rate, to_microsecond},
        timestamp,
    },
    counters::{ConntrackCounter, ConntrackCounters},
    stats::ConntrackStats,
    table::ConntrackTable,
};

/// One namespace at one moment: one line of JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConntrackView {
    #[serde(flatten)]
    pub host: Host,
    #[serde(serialize_with = "timestamp::serialize")]
    pub time: Timestamp,
    pub netns: Netns,
    #[serde(flatten)]
    pub stats: ConntrackStats,
    pub memory_bytes: Option<u64>,
    pub memory_at_limit_bytes: Option<u64>,
    /// What was counted since the line before; null in the first one of a namespace.
    pub interval: Option<ConntrackInterval>,
    pub table: ConntrackTable,
}

/// What the counters did between two lines.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ConntrackInterval {
    /// Monotonic time between the two, seconds.
    pub interval_s: f64,
    pub counters: ConntrackCounters,
}

impl ConntrackInterval {
    /// From `before` to `now`, `length` apart; `None` where they are not of one namespace.
    pub fn between(
        before: &ConntrackCounters,
        now: &ConntrackCounters,
        length: Duration,
    ) -> Option<Self> {
        let counters = now.since(before)?;
        Some(Self { interval_s: to_microsecond(length), counters })
    }

    /// What `counter` counted, per second.
    pub fn rate(&self, counter: ConntrackCounter) -> Option<f64> {
        let length = Duration::try_from_secs_f64(self.interval_s).ok()?;
        self.counters.get(counter).map(|count| rate(count, length))
    }
}

impl ConntrackView {
    pub fn new(
        (host, time): (Host, Timestamp),
        netns: Netns,
        stats: ConntrackStats,
        interval: Option<ConntrackInterval>,
        table: ConntrackTable,
    ) -> Self {
        let (memory_bytes, memory_at_limit_bytes) = (stats.memory_now(), stats.memory_at_limit());
        Self { host, time, netns, stats, memory_bytes, memory_at_limit_bytes, interval, table }
    }

    /// Returns the line as it is written: `v` and `type` come first.
    pub fn line(&self) -> impl Serialize + '_ {
        #[derive(Serialize)]
        struct Tagged<'a> {
            v: u32,
            r#type: &'static str,
            #[serde(flatten)]
            body: &'a ConntrackView,
        }
        Tagged { v: SCHEMA_VERSION, r#type: "conntrack", body: self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_measured_time() {
        let counters = |drops| {
            let mut counters = ConntrackCounters::default();
            counters.add(ConntrackCounter::Drop, drops);
            counters
        };
        let length = Duration::from_millis(2500);
        let interval = ConntrackInterval::between(&counters(100), &counters(350), length).unwrap();
        assert_eq!(interval.rate(ConntrackCounter::Drop), Some(100.0));
        assert_eq!(interval.rate(ConntrackCounter::Found), None);
    }
}
