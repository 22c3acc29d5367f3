//! What each command does, a file each: it puts together what the other folders give, and prints.

pub mod complete;
pub mod conntrack;
pub mod cost;
pub mod doctor;
pub mod explain;
pub mod replay;
pub mod top;
pub mod watch;
