//! What a drop means: from where and why to whether it matters.
//!
//! Knowledge is data, looked up by function and reason name, never by number or kernel version.

pub mod knowledge;
