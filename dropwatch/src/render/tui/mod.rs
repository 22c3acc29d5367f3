//! The full-screen live view: what it knows ([`state`], and its [`rows`]), and how that looks ([`view`]).
//!
//! Pure: reports, keys and the size of the screen come in as values.

pub mod rows;
pub mod search;
pub mod state;
pub mod view;

mod detail;
