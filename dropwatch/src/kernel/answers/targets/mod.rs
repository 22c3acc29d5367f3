//! Rules that send packets elsewhere: to a program's queue, or through address translation.
//!
//! Legacy tables are read as the programs of iptables read them, nftables over netlink; neither needs a
//! program of this host. Tables are listed before they are read, and nftables is asked only where it is in
//! use, so nothing is loaded.

mod info;
mod legacy;
mod nft;

use super::Unanswered;
use crate::report::question::{RuleTarget, Sought};

/// Most rules in one answer: a table with more of them has no simple answer.
const MOST: usize = 256;

pub(super) fn ask(sought: Sought) -> Result<Vec<RuleTarget>, Unanswered> {
    let mut found = legacy::targets(sought)?;
    found.extend(nft::targets(sought)?);
    if found.len() > MOST {
        return Err(Unanswered::Failed);
    }
    Ok(found)
}
