//! What a drop means: from where and why to what causes it and what changes that.
//!
//! Knowledge is data, looked up by function and reason name, never by number or kernel version.
//! Findings are decided by rules, pure functions from [`Facts`](facts::Facts), each with its
//! evidence.

pub mod facts;
pub mod knowledge;
pub mod rules;
mod transmitted;

pub use self::{
    rules::{findings, watch_list},
    transmitted::settle,
};
