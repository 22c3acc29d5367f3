//! Connection tracking of one network namespace: its use, what it costs, what it counted, and who
//! fills it.
//!
//! [`Stats`] are the numbers that a verdict rests on; [`Conntrack`] is the serialised truth that
//! `dropwatch conntrack` renders, documented in `docs/json.md`.

mod counters;
mod state;
mod stats;
mod table;
mod tally;
mod view;

pub use self::{
    counters::{Counter, Counters},
    state::{state, timeout},
    stats::{BUCKET_BYTES, Stats},
    table::{Address, Ranking, Row, Service, StateRow, Table},
    tally::{Endpoint, Entry, Tally},
    view::{Conntrack, Interval},
};
