//! Sampled call paths as a tree, as readers of `perf report -g` expect it: the drop location first,
//! each caller below the function it called, shares where paths part.
//!
//! ```text
//! |
//! ---nf_hook_slow
//!    |
//!    |--75.0%--ip_rcv
//!    |          __netif_receive_skb_one_core
//!    |
//!     --25.0%--__ip_local_out
//!               udp_sendmsg
//! ```

use std::cmp::Reverse;

use super::{
    details::{function, percent_with},
    words::Percent,
    wrap::wrap,
};
use crate::report::{
    facts::{CallPath, Details, Frame},
    number::share,
    precision::Precision,
};

/// Columns that a name has at least: branches that leave less go on at the same place.
const NAME: usize = 20;

/// What shares are of, and how exact they are.
#[derive(Clone, Copy)]
struct Whole {
    total: u64,
    precision: Precision,
}

impl Whole {
    fn part(self, weight: u64) -> String {
        let share = share(weight, self.total);
        match self.precision {
            Precision::Estimated(_) => percent_with("~", share, self.precision),
            Precision::Exact | Precision::Unknown => Percent(share).to_string(),
        }
    }
}

/// A function, reached on paths of `weight`, with those that called it.
#[derive(Default)]
struct Node {
    name: String,
    weight: u64,
    callers: Vec<Node>,
}

impl Node {
    /// The node for a caller of this one, new or not.
    fn caller(&mut self, name: String) -> &mut Self {
        let index = match self.callers.iter().position(|caller| caller.name == name) {
            Some(index) => index,
            None => {
                self.callers.push(Self { name, ..Self::default() });
                self.callers.len() - 1
            }
        };
        &mut self.callers[index]
    }

    fn add(&mut self, path: &CallPath) {
        let mut node = self;
        node.weight = node.weight.saturating_add(path.weight);
        for frame in &path.frames {
            node = node.caller(name(frame));
            node.weight = node.weight.saturating_add(path.weight);
        }
    }

    /// Heaviest callers first.
    fn sort(&mut self) {
        self.callers
            .sort_by(|a, b| (Reverse(a.weight), &a.name).cmp(&(Reverse(b.weight), &b.name)));
        self.callers.iter_mut().for_each(Self::sort);
    }
}

fn name(frame: &Frame) -> String {
    let name = function(frame.symbol.as_deref());
    match &frame.module {
        Some(module) => format!("{name} [{}]", function(Some(module))),
        None => name,
    }
}

/// The lines of the tree, `width` columns wide unless a name is longer; the last one says what
/// is not in it. Empty without paths.
pub(super) fn lines(paths: &[CallPath], details: Option<&Details>, width: usize) -> Vec<String> {
    let mut root = Node::default();
    paths.iter().for_each(|path| root.add(path));
    root.sort();
    let mut lines = Vec::new();
    if root.callers.is_empty() {
        return lines;
    }
    let total = details.map_or(root.weight, |details| details.weight).max(root.weight);
    let whole = Whole { total, precision: details.map_or(Precision::Unknown, Details::precision) };
    let deepest = width.saturating_sub(NAME);
    lines.push("|".to_owned());
    let chain = match root.callers.as_slice() {
        [only] if only.weight == total => Some(only),
        _ => None,
    };
    match chain {
        Some(only) => {
            lines.push(format!("---{}", only.name));
            below(only, "   ", whole, deepest, &mut lines);
        }
        None => branches(&root.callers, "", whole, deepest, &mut lines),
    }
    let drawn = paths.iter().fold(0, |sum: u64, path| sum.saturating_add(path.samples));
    if let Some(all) = details.map(|details| details.samples)
        && all > drawn
    {
        let (rest, plural) = (all - drawn, if all == 1 { "" } else { "s" });
        let line = format!("({rest} of {all} sample{plural} on other paths, or unreadable ones)");
        lines.extend(wrap(&line, width));
    }
    lines
}

/// What called `node`: a chain goes straight on, and parts where there is more than one caller or
/// where some paths end.
fn below(mut node: &Node, indent: &str, whole: Whole, deepest: usize, lines: &mut Vec<String>) {
    while let [only] = node.callers.as_slice() {
        if only.weight != node.weight {
            break;
        }
        lines.push(format!("{indent}{}", only.name));
        node = only;
    }
    if !node.callers.is_empty() {
        lines.push(format!("{indent}|"));
        branches(&node.callers, indent, whole, deepest, lines);
    }
}

fn branches(callers: &[Node], indent: &str, whole: Whole, deepest: usize, lines: &mut Vec<String>) {
    for (index, caller) in callers.iter().enumerate() {
        let last = index + 1 == callers.len();
        let (fork, rail) = if last { (" --", "   ") } else { ("|--", "|  ") };
        let percent = whole.part(caller.weight);
        lines.push(format!("{indent}{fork}{percent}--{}", caller.name));
        let deeper = format!("{indent}{rail}{:width$}", "", width = percent.len() + 2);
        let deeper = if deeper.len() > deepest { indent } else { &deeper };
        below(caller, deeper, whole, deepest, lines);
        if !last {
            lines.push(format!("{indent}|"));
        }
    }
}
