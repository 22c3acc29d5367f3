//! Packets that find no way on.

use super::{Caused, RuleScenario};
use crate::drops::routing::NoRouter;

pub(super) const ALL: &[RuleScenario] = &[RuleScenario {
    name: "forwarding",
    about: "packets go by way of a host that is no router",
    rule: Some("forwarding_disabled"),
    mended: true,
    make: || Ok(Box::new(Caused(NoRouter::new()?, 50))),
}];
