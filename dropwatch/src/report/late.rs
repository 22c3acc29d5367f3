//! Drops that came behind the counters of a report, while what findings rest on was read.
//!
//! They are the next report's. This one needs them for its counters of the host, which were read later
//! than those of drops and so have counted some of them already.

use std::collections::HashMap;

use dropwatch_common::{DropKey, NO_NETNS};

use super::place::Place;

/// Drops at one place in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateDrops {
    pub place: Place,
    /// Number of the namespace in the run; `None` where none is proved.
    pub netns: Option<u32>,
    pub count: u64,
}

/// What was counted between two readings, of the keys that `place` gives a place.
pub fn between(
    then: &HashMap<DropKey, u64>,
    now: &HashMap<DropKey, u64>,
    mut place: impl FnMut(DropKey) -> Option<Place>,
) -> Vec<LateDrops> {
    let late = now.iter().filter_map(|(key, count)| {
        let count = count.saturating_sub(then.get(key).copied().unwrap_or(0));
        let netns = Some(key.netns).filter(|netns| *netns != NO_NETNS);
        (count > 0).then(|| Some(LateDrops { place: place(*key)?, netns, count })).flatten()
    });
    late.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rose_is_late_and_what_is_not_selected_is_left_out() {
        let key = |location, netns| DropKey::new(location, 2).within(netns);
        let then = [(key(1, 7), 5), (key(2, 7), 5), (key(3, 8), 1)].into();
        let now = [(key(1, 7), 9), (key(2, 7), 5), (key(3, 8), 2), (key(1, NO_NETNS), 3)].into();
        let place = |key: DropKey| (key.location != 3).then(Place::default);
        let mut late = between(&then, &now, place);
        late.sort_by_key(|it| it.count);
        let of = |netns, count| LateDrops { place: Place::default(), netns, count };
        assert_eq!(late, [of(None, 3), of(Some(7), 4)]);
    }
}
