//! `dropwatch conntrack`: a namespace's connections as a page.
//!
//! ```text
//! 07:35:10  connection tracking in 2 network namespaces
//!
//! gw: 14288 of 16384 entries (87.2%)
//!    memory 5.5 MiB, 6.0 MiB at the limit
//!           = entries × 256 B + 262144 buckets × 8 B
//!    counted, and per second in the last 5.0s
//!      10031   2006/s  drop  packets dropped: no entry for them
//!    states, and how long each is kept (net.netfilter.nf_conntrack_*)
//!      9283   65.0%  tcp TIME_WAIT  120 s  tcp_timeout_time_wait
//!    sources
//!      14116   98.8%  192.168.0.2
//!        172    1.2%  192.168.0.96
//!
//! web: no entries, room for 16384
//! ```

use jiff::Timestamp;

use super::{
    Style,
    clean::clean,
    details::label,
    palette::{ALARM, CAUTION, STRONG, WEAK, paint},
    words::{Bytes, PerSecond, Percent, count},
    wrap::columns,
};
use crate::report::{
    conntrack::{
        BUCKET_BYTES, ConntrackCounter, ConntrackStats, ConntrackView, Ranked, Ranking, StateRow,
    },
    facts::Netns,
    number::share,
};

/// Least share of the limit at which it is pointed out that there is not much room left.
const NEARLY_FULL: f64 = 0.9;
/// How far in the rows of a namespace are.
const ROW: &str = "     ";
/// How far in goes on what a screen has no room for, columns.
const REST: usize = 7;
/// What the names of all its settings begin with; shown once.
const PREFIX: &str = "nf_conntrack_";

/// Writes pages for people.
#[derive(Debug)]
pub struct ConntrackText {
    style: Style,
}

impl ConntrackText {
    pub fn new(style: Style) -> Self {
        Self { style }
    }

    /// One moment: what could not be read, then every namespace. Those without entries that never
    /// lost a packet are a line each.
    pub fn page(
        &self,
        time: Timestamp,
        notices: &[String],
        namespaces: &[ConntrackView],
    ) -> Vec<u8> {
        let local = self.style.time_zone.to_datetime(time);
        let clock = format!("{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second());
        let number = count(namespaces.len() as u64, "network namespace");
        let mut lines = vec![format!("{clock}  connection tracking in {number}")];
        lines.extend(notices.iter().map(|notice| format!("Note: {}", clean(notice))));
        for namespace in namespaces {
            lines.push(String::new());
            Self::namespace(namespace, &mut lines);
        }
        let medium = self.style.medium;
        let lines = lines.into_iter().flat_map(|line| medium.row(line.trim_end().to_owned(), REST));
        let text: String = lines.map(|line| line + "\n").collect();
        let mut page = Vec::new();
        // Writing to a Vec cannot fail.
        let _infallible = medium.write(&text, &mut page);
        page
    }

    fn namespace(namespace: &ConntrackView, lines: &mut Vec<String>) {
        let stats = &namespace.stats;
        lines.push(format!("{}: {}", paint(STRONG, name(&namespace.netns)), Self::usage(stats)));
        if stats.entries == 0
            && namespace.table.entries == 0
            && !stats.counters.iter().any(|(_, n)| n > 0)
        {
            return;
        }
        lines.extend(memory(stats).into_iter().map(|line| format!("   {line}")));
        Self::counters(namespace, lines);
        Self::states(namespace, lines);
        let table = &namespace.table;
        let service = |row: &Ranked<_>| format!("{}", row.is);
        ranking("sources", &table.sources, |row| row.is.address.to_string(), lines);
        ranking("destinations", &table.destinations, service, lines);
        ranking("DNAT targets", &table.dnat_targets, service, lines);
        if table.unread > 0 {
            lines.push(format!("   {} not understood", count(table.unread, "entry")));
        }
    }

    fn usage(stats: &ConntrackStats) -> String {
        let entries = stats.entries;
        let Some(limit) = stats.limit else { return format!("{entries} entries, limit unknown") };
        if entries == 0 {
            return format!("no entries, room for {limit}");
        }
        let used = share(entries, limit);
        let text = format!("{entries} of {limit} entries ({})", Percent(used));
        match used {
            used if used >= 1.0 => paint(ALARM, format!("{text}, full")),
            used if used >= NEARLY_FULL => paint(CAUTION, text),
            _ => text,
        }
    }

    /// Counters that have counted something; that no packet was dropped is said, too.
    fn counters(namespace: &ConntrackView, lines: &mut Vec<String>) {
        let counters = namespace.stats.counters;
        let shown: Vec<_> = counters
            .iter()
            .filter(|(counter, count)| *count > 0 || *counter == ConntrackCounter::Drop)
            .collect();
        if shown.is_empty() {
            return;
        }
        let digits = shown.iter().map(|(_, count)| count.to_string().len()).max().unwrap_or(0);
        let names = shown.iter().map(|(counter, _)| counter.name().len()).max().unwrap_or(0);
        lines.push(match namespace.interval {
            Some(interval) => {
                format!("   counted, and per second in the last {:.1}s", interval.interval_s)
            }
            None => "   counted since the namespace began".to_owned(),
        });
        for (counter, count) in shown {
            let rate = namespace.interval.and_then(|interval| {
                let delta = interval.counters.get(counter)?;
                let rate = interval.rate(counter)?;
                Some(if delta == 0 { "0/s".to_owned() } else { PerSecond(rate).to_string() })
            });
            let rate = rate.map_or_else(String::new, |rate| format!("  {rate:>7}"));
            let name = counter.name();
            let line = format!("{ROW}{count:>digits$}{rate}  {name:names$}");
            let line = match counter {
                ConntrackCounter::Drop | ConntrackCounter::InsertFailed if count > 0 => {
                    paint(ALARM, line)
                }
                _ => line,
            };
            lines.push(format!("{line}  {}", paint(WEAK, meaning(counter))));
        }
    }

    fn states(namespace: &ConntrackView, lines: &mut Vec<String>) {
        let rows = &namespace.table.states;
        if rows.is_empty() {
            return;
        }
        lines.push(format!("   states, and how long each is kept (net.netfilter.{PREFIX}*)"));
        let width = |text: fn(&StateRow) -> String| {
            rows.iter().map(|row| columns(&text(row))).max().unwrap_or(0)
        };
        let counts = width(|row| row.count.to_string());
        let names = width(|row| format!("{} {}", row.protocol, row.state));
        let seconds = width(kept);
        for row in rows {
            let name = format!("{} {}", row.protocol, row.state);
            let line = format!(
                "{ROW}{:>counts$}  {:>6}  {name:names$}",
                row.count,
                Percent(row.share).to_string()
            );
            let setting = row.timeout_setting.unwrap_or_default();
            let setting = setting.strip_prefix(PREFIX).unwrap_or(setting);
            let kept = format!("{:>seconds$}  {setting}", kept(row));
            lines.push(format!("{line}  {}", paint(WEAK, kept.trim_end())));
        }
    }
}

fn name(netns: &Netns) -> String {
    netns.name.as_deref().map_or_else(|| format!("netns {}", netns.inum), label)
}

fn kept(row: &StateRow) -> String {
    row.timeout_s.map_or_else(String::new, |seconds| format!("{seconds} s"))
}

/// What it takes now and at the limit, and how that is computed.
fn memory(stats: &ConntrackStats) -> Vec<String> {
    let (Some(now), Some(buckets), Some(object)) =
        (stats.memory_now(), stats.buckets, stats.object_bytes)
    else {
        return vec!["memory unknown: the kernel does not tell the size of an entry".to_owned()];
    };
    let at_limit = stats
        .memory_at_limit()
        .map_or_else(String::new, |bytes| format!(", {} at the limit", Bytes(bytes)));
    vec![
        format!("memory {}{at_limit}", Bytes(now)),
        format!("       = entries × {object} B + {buckets} buckets × {BUCKET_BYTES} B"),
    ]
}

/// What a counter means, in as few words as fit beside it.
fn meaning(counter: ConntrackCounter) -> &'static str {
    match counter {
        ConntrackCounter::Drop => "packets dropped: no entry for them",
        ConntrackCounter::EarlyDrop => "unanswered entries given up",
        ConntrackCounter::InsertFailed => "packets dropped in a collision",
        ConntrackCounter::ChainTooLong => "of those, for want of buckets",
        ConntrackCounter::ClashResolve => "collisions without a loss",
        ConntrackCounter::Invalid => "packets that fit no connection",
        ConntrackCounter::Error => "invalid ICMP errors",
        ConntrackCounter::Found => "ports that NAT found taken",
        ConntrackCounter::Insert => "entries added by programs",
        ConntrackCounter::SearchRestart => "look-ups begun again",
    }
}

fn ranking<T>(
    title: &str,
    ranking: &Ranking<T>,
    named: impl Fn(&Ranked<T>) -> String,
    lines: &mut Vec<String>,
) {
    let Ranking { rows, distinct, error } = ranking;
    let listed = rows.len() as u64;
    lines.push(match distinct {
        Some(0) => return,
        Some(all) if *all == listed => format!("   {title}"),
        Some(all) => format!("   {title}, {listed} of {all}"),
        None if rows.is_empty() => {
            let most = error.saturating_mul(2);
            format!("   {title}: very many, none with more than {most} entries")
        }
        None => format!("   {title}, the largest of very many (counts up to {error} too low)"),
    });
    let digits = rows.iter().map(|row| row.count.to_string().len()).max().unwrap_or(0);
    for row in rows {
        let percent = Percent(row.share).to_string();
        lines.push(format!("{ROW}{:>digits$}  {percent:>6}  {}", row.count, clean(&named(row))));
    }
}
