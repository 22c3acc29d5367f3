//! Drops by group, as the lines below a report in the text format.
//!
//! ```text
//! by netns, iface, protocol
//!    4500   93.1%  gw   eth0  tcp
//!     300    6.2%  web  eth0  udp
//!      33    0.7%  unknown
//! ```
//!
//! None of these lines can be taken for a row of a location: none has its words.

use super::{details::label, medium::Medium, words::Percent, wrap::columns};
use crate::report::{
    model::groups::{By, GroupRow, Groups},
    number::share,
};

/// How far in the rows are, columns.
const INDENT: usize = 3;
/// Columns from the counts to the names, and a bit.
const REST: usize = 12;

/// The lines about `groups`: what they are by, then one for each.
pub(super) fn lines(groups: &Groups, medium: Medium) -> Vec<String> {
    let words: Vec<_> = groups.by.iter().map(|by| by.word()).collect();
    let mut lines = vec![format!("by {}", words.join(", "))];
    let mut rows: Vec<(u64, Vec<String>)> =
        groups.rows.iter().map(|row| (row.count, cells(&groups.by, row))).collect();
    for (count, word) in [(groups.unknown, "unknown"), (groups.other, "other")] {
        if count > 0 {
            rows.push((count, vec![word.to_owned()]));
        }
    }
    let digits = rows.iter().map(|(count, _)| count.to_string().len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..groups.by.len())
        .map(|column| {
            rows.iter().filter_map(|(_, cells)| cells.get(column)).map(|cell| columns(cell)).max()
        })
        .map(|widest| widest.unwrap_or(0))
        .collect();
    for (count, cells) in rows {
        let percent = Percent(share(count, groups.drops)).to_string();
        let mut line = format!("{:INDENT$}{count:>digits$}  {percent:>6}", "");
        for (cell, column) in cells.iter().zip(&widths) {
            let pad = column.saturating_sub(columns(cell));
            line += &format!("  {cell}{:pad$}", "");
        }
        lines.extend(medium.row(line.trim_end().to_owned(), INDENT + digits + REST));
    }
    lines
}

fn cells(by: &[By], row: &GroupRow) -> Vec<String> {
    let has_netns = by.contains(&By::Netns);
    let cell = |by: &By| match by {
        By::Netns => netns(row),
        By::Iface if has_netns => interface(row),
        // Interfaces of several namespaces have one name, so the namespace is shown with it where
        // it has no column of its own.
        By::Iface => format!("{} ({})", interface(row), netns(row)),
        By::Protocol => row.protocol.as_deref().map_or_else(unknown, label),
        By::Direction => row.direction.as_deref().map_or_else(unknown, label),
        By::Cpu => row.cpu.map_or_else(unknown, |cpu| format!("cpu {cpu}")),
    };
    by.iter().map(cell).collect()
}

fn netns(row: &GroupRow) -> String {
    row.netns.as_ref().map_or_else(unknown, |netns| match &netns.name {
        Some(name) => label(name),
        None => format!("netns {}", netns.inum),
    })
}

fn interface(row: &GroupRow) -> String {
    row.interface.as_ref().map_or_else(unknown, |interface| match &interface.name {
        Some(name) => label(name),
        None => format!("ifindex {}", interface.index),
    })
}

/// Shown as unknown where a row of a recording lacks what its heading announces.
fn unknown() -> String {
    "unknown".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::facts::{Interface, Netns};

    fn groups(by: &[By]) -> Groups {
        let row = |name: Option<&str>, protocol: &'static str, count| GroupRow {
            netns: Some(Netns::new(name.map(str::to_owned), 4_026_532_246)),
            interface: Some(Interface { name: Some("eth0".to_owned()), index: 3 }),
            protocol: Some(protocol.into()),
            cpu: Some(1),
            count,
            ..GroupRow::default()
        };
        Groups {
            by: by.to_vec(),
            drops: 5_000,
            rows: vec![row(Some("gw\x1b[31m"), "tcp", 4_500), row(None, "ip-proto-253", 490)],
            unknown: 10,
            other: 0,
        }
    }

    #[test]
    fn columns_line_up_and_unknown_is_said_where_something_is() {
        assert_eq!(
            lines(&groups(&[By::Netns, By::Iface, By::Protocol]), Medium::default()),
            [
                "by netns, iface, protocol",
                "   4500   90.0%  gw\u{fffd}[31m           eth0  tcp",
                "    490    9.8%  netns 4026532246  eth0  ip-proto-253",
                "     10    0.2%  unknown",
            ]
        );
        let none = Groups { by: vec![By::Cpu], other: 7, drops: 7, ..Groups::default() };
        assert_eq!(lines(&none, Medium::default()), ["by cpu", "   7  100.0%  other"]);
        let unknown = Groups { unknown: 7, other: 0, ..none };
        assert_eq!(lines(&unknown, Medium::default()), ["by cpu", "   7  100.0%  unknown"]);
    }

    #[test]
    fn an_interface_alone_says_whose_it_is() {
        let lines = lines(&groups(&[By::Iface, By::Cpu]), Medium::default());
        assert_eq!(lines[2], "    490    9.8%  eth0 (netns 4026532246)  cpu 1");
    }
}
