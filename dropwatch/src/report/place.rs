//! What identifies where and why packets were dropped: a call site and a reason, by their names.

use serde::{Deserialize, Serialize};

/// A named place in the kernel's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Symbol {
    pub name: String,
    /// Bytes from the start of the function.
    pub offset: u64,
    /// `None` for the kernel proper.
    pub module: Option<String>,
}

/// A named drop reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reason {
    pub name: String,
    pub subsystem: Option<String>,
}

/// A call site and a reason, by their names. Rows, samples and sums hold it flattened: its fields are
/// theirs in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Function that freed the packet; null where it is unknown.
    pub symbol: Option<String>,
    /// Bytes from the start of `symbol`.
    pub offset: Option<u64>,
    /// Kernel module of `symbol`; null for the kernel proper.
    pub module: Option<String>,
    /// Drop reason; null where the kernel has none.
    pub reason: Option<String>,
    /// Subsystem that defines the reason, `CORE` for the kernel's own.
    pub subsystem: Option<String>,
}

impl Place {
    /// The place that a host gives these names to.
    pub fn new(symbol: Option<Symbol>, reason: Option<Reason>) -> Self {
        let (symbol, offset, module) = match symbol {
            Some(Symbol { name, offset, module }) => (Some(name), Some(offset), module),
            None => (None, None, None),
        };
        let (reason, subsystem) = match reason {
            Some(Reason { name, subsystem }) => (Some(name), subsystem),
            None => (None, None),
        };
        Self { symbol, offset, module, reason, subsystem }
    }

    /// Every name in it, for bounds on their lengths.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let Self { symbol, offset: _, module, reason, subsystem } = self;
        [symbol, module, reason, subsystem].into_iter().flatten().map(String::as_str)
    }
}
