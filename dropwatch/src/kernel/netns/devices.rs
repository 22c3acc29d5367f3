//! Names of interfaces that outlive their namespace.
//!
//! Drops of a namespace's last moments are reported when it is gone, and nobody can be asked any more.
//! So the names that were seen while it lived are kept, by its number in the run, which stands for its
//! cookie: no other namespace is ever given them.
//!
//! They are as of the last look. An interface that got another name, or left, after it keeps the name that
//! it had then. Within a namespace the kernel counts indexes up, and gives one again only after all others
//! (`dev_new_index`, net/core/dev.c, until 6.5; `dev_index_reserve` since); but one that is asked for by
//! number, or that comes with an interface from another namespace, may be one that was there before. Then
//! the name is that of the last one seen.

use std::collections::BTreeMap;

/// Most names that are kept of all namespaces of a run: some MiB.
const MOST: usize = 32 << 10;
/// Most of one namespace, so that one cannot take the room of all.
const MOST_OF_ONE: usize = 1024;

/// Names by number of the namespace in the run and by index of the interface there.
#[derive(Debug, Default)]
pub(super) struct Devices(BTreeMap<(u32, u32), String>);

impl Devices {
    /// Keeps the names that interfaces of this namespace have now, in place of those that they had before;
    /// as many as there is room for.
    pub fn keep(&mut self, number: u32, names: impl IntoIterator<Item = (u32, String)>) {
        let mut room = MOST_OF_ONE.saturating_sub(self.of(number).count());
        for (index, name) in names {
            let is_new = !self.0.contains_key(&(number, index));
            if is_new && (room == 0 || self.0.len() >= MOST) {
                continue;
            }
            room -= usize::from(is_new);
            self.0.insert((number, index), name);
        }
    }

    /// What an interface of this namespace was called when it was seen last.
    pub fn name(&self, number: u32, index: u32) -> Option<&str> {
        self.0.get(&(number, index)).map(String::as_str)
    }

    fn of(&self, number: u32) -> impl Iterator<Item = (&(u32, u32), &String)> {
        self.0.range((number, 0)..=(number, u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[(u32, &str)]) -> Vec<(u32, String)> {
        names.iter().map(|(index, name)| (*index, (*name).to_owned())).collect()
    }

    #[test]
    fn the_last_name_that_was_seen_is_kept_for_its_namespace_alone() {
        let mut devices = Devices::default();
        devices.keep(7, names(&[(1, "lo"), (2, "eth0"), (3, "gone")]));
        devices.keep(7, names(&[(1, "lo"), (2, "renamed")]));
        devices.keep(1, names(&[(2, "of a later one with that inode number")]));
        let of = |index| devices.name(7, index);
        assert_eq!([1, 2, 3, 4].map(of), [Some("lo"), Some("renamed"), Some("gone"), None]);
        assert_eq!(devices.name(8, 2), None);
    }

    #[test]
    fn no_namespace_takes_the_room_of_all_and_all_have_a_bound() {
        let many = |of: u32| (0..2000).map(move |index| (index, format!("veth{of}-{index}")));
        let mut devices = Devices::default();
        devices.keep(7, many(7));
        devices.keep(7, many(7));
        assert_eq!(devices.0.len(), MOST_OF_ONE);
        devices.keep(8, names(&[(2, "eth0")]));
        assert_eq!(devices.name(8, 2), Some("eth0"));
        (100..200).for_each(|number| devices.keep(number, many(number)));
        assert_eq!(devices.0.len(), MOST);
        devices.keep(7, names(&[(0, "renamed")]));
        assert_eq!(devices.name(7, 0), Some("renamed"), "what is known is kept right");
    }
}
