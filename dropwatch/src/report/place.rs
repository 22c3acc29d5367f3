//! What tells places of drops apart.

use super::model::Location;

/// A call site and a reason, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// `None` for a location without a name.
    pub symbol: Option<String>,
    /// Bytes from the start of `symbol`.
    pub offset: Option<u64>,
    pub module: Option<String>,
    pub reason: Option<String>,
    pub subsystem: Option<String>,
}

impl Place {
    pub fn of(row: &Location) -> Self {
        Self {
            symbol: row.symbol.clone(),
            offset: row.offset,
            module: row.module.clone(),
            reason: row.reason.clone(),
            subsystem: row.subsystem.clone(),
        }
    }
}
