//! What a drop means: from where and why to what causes it and what changes that.
//!
//! Knowledge is data, looked up by function and reason name, never by number or kernel version.
//! Findings are decided by rules, pure functions from [`Facts`](facts::Facts), each with its
//! evidence.

mod apart;
pub mod facts;
pub mod knowledge;
mod late;
mod multicast;
mod named;
pub mod rules;
mod transmitted;
mod typed;

pub use self::{
    late::wind_back,
    multicast::settle as settle_multicast,
    rules::{at_hooks, filtered, findings, watch_list},
    transmitted::settle,
};
