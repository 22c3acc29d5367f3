//! Connection tracking of one network namespace: its use, what it costs, what it counted, and who
//! fills it.
//!
//! [`ConntrackStats`] are the numbers that a verdict rests on; [`ConntrackView`] is the serialised
//! truth that `dropwatch conntrack` renders, documented in `docs/json.md`.

mod counters;
mod state;
mod stats;
mod table;
mod tally;
mod view;

pub use self::{
    counters::{ConntrackCounter, ConntrackCounters},
    state::{state, timeout},
    stats::{BUCKET_BYTES, ConntrackStats},
    table::{ConntrackTable, Ranked, Ranking, Service, SourceAddress, StateRow},
    tally::{ConntrackEntry, ConntrackTally, Endpoint},
    view::{ConntrackInterval, ConntrackView},
};
