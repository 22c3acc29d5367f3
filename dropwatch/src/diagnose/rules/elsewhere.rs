//! Drops that connection tracking in another namespace has to do with: packets that it sends to a wrong
//! place, or lets pass as they are.
//!
//! A sampled packet of the drops is looked up in the namespaces that track connections. It is found by the
//! tuple of its answers, so that only a connection that is really tracked there counts.

use super::{Facts, Verdict};
use crate::{
    diagnose::facts::{NetnsFacts, Rows},
    report::{
        finding::Finding,
        flow::Flow,
        question::{Ask, Connection, Tuple},
    },
};

/// Rows, flows of a row, and namespaces that are looked at: each look-up is a question.
const ROWS: usize = 3;
const FLOWS: usize = 2;
const TRACKERS: usize = 3;

/// Drops and what tracks their connection.
pub(super) struct Tracked<'a> {
    pub(super) tracker: NetnsFacts<'a>,
    pub(super) connection: Connection,
}

/// What of the drops of `rows` has to do with which connection: one of each kind that `key` tells apart.
/// `reply` is the tuple that the connection's answers have, by a packet; `judge` decides.
pub(super) fn look<'a, K: PartialEq>(
    facts: &Facts<'a>,
    rows: &Rows<'a>,
    is_asked: impl Fn(&NetnsFacts<'a>) -> bool,
    reply: impl Fn(Tuple) -> Tuple,
    key: impl Fn(&Connection) -> K,
    judge: impl Fn(&Tracked<'a>) -> Result<Option<Finding>, Ask>,
) -> Vec<Verdict> {
    let mut trackers = facts.trackers();
    trackers.retain(is_asked);
    trackers.truncate(TRACKERS);
    let mut known: Vec<(Option<u32>, K)> = Vec::new();
    let mut verdicts = Vec::new();
    for flow in flows(rows) {
        let Some(tuple) = Tuple::of(&flow) else { continue };
        for tracker in &trackers {
            let Some(netns) = tracker.netns() else { continue };
            let connection = match facts.connection(netns.number(), reply(tuple)) {
                Ok(answer) => answer.ok().flatten(),
                Err(ask) => {
                    verdicts.push(Verdict::Ask(ask));
                    continue;
                }
            };
            let Some(connection) = connection else { continue };
            let kind = (Some(netns.number()), key(&connection));
            if !known.contains(&kind) {
                known.push(kind);
                verdicts.extend(Verdict::of(judge(&Tracked { tracker: *tracker, connection })));
            }
        }
    }
    verdicts
}

/// The commonest flows of the largest rows.
fn flows(rows: &Rows<'_>) -> Vec<Flow> {
    let mut largest = rows.0.clone();
    largest.sort_by_key(|row| std::cmp::Reverse(row.count));
    let mut flows: Vec<Flow> = Vec::new();
    for row in largest.into_iter().take(ROWS) {
        for flow in Rows(vec![row]).flows(FLOWS) {
            if !flows.contains(&flow) {
                flows.push(flow);
            }
        }
    }
    flows
}
