//! Packets that reach a host and no reader.

use super::RuleScenario;

pub(super) const ALL: &[RuleScenario] = &[];
