//! Listings of full tables of connection tracking, each made by a thread of its own.

use std::{
    collections::BTreeMap,
    sync::mpsc::{self, Receiver},
    thread,
    time::Instant,
};

use crate::{
    kernel::{HostRoot, ReachableNetns, conntrack},
    report::conntrack::ConntrackTable,
};

/// Rows of each ranking of a table.
const TOP: usize = 3;

/// The listing of a full table, or the thread that is making it.
pub(super) struct TableReading {
    pub(super) since: Instant,
    pub(super) table: Option<ConntrackTable>,
    pub(super) reading: Option<Receiver<ConntrackTable>>,
}

impl TableReading {
    /// Starts to list the table of a namespace.
    pub(super) fn read(root: &HostRoot, reachable: &ReachableNetns) -> Self {
        let (root, reachable) = (root.clone(), reachable.clone());
        let (sender, receiver) = mpsc::channel();
        let work = move || {
            if let Ok(reading) = conntrack::read(&root, &reachable) {
                let table = reading.tally.table(TOP, &reading.timeouts);
                // Nobody waits any more when the run has ended.
                let _ = sender.send(table);
            }
        };
        let reading = thread::Builder::new().name("conntrack".into()).spawn(work);
        Self { since: Instant::now(), table: None, reading: reading.is_ok().then_some(receiver) }
    }

    /// Returns the listing; `None` where it takes longer than until `deadline`.
    fn take(&mut self, deadline: Instant) -> Option<ConntrackTable> {
        if let Some(reading) = &self.reading {
            match reading.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(table) => (self.table, self.reading) = (Some(table), None),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => self.reading = None,
            }
        }
        self.table.clone()
    }
}

/// Returns the listings of these namespaces' tables that are done by `deadline`.
pub(super) fn take(
    tables: &mut BTreeMap<u32, TableReading>,
    inums: &[u32],
    deadline: Instant,
) -> Vec<(u32, Option<ConntrackTable>)> {
    let take = |inum: &u32| (*inum, tables.get_mut(inum).and_then(|it| it.take(deadline)));
    inums.iter().map(take).collect()
}
