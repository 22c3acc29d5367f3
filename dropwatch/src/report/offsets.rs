//! Offsets that were typed and at which nothing was dropped, while something was beside them.
//!
//! That a call returns at an offset of a function can be read nowhere, so a mistyped one is taken, and
//! counts nothing. What was counted elsewhere in the function shows it.

use std::collections::{BTreeMap, HashMap};

use dropwatch_common::DropKey;

use super::{
    keys::{Choice, Function, Keys},
    names::Names,
};

/// Most offsets listed of one function.
const MOST: usize = 4;

/// For each function of `keys` that was typed with an offset at which none of `drops` was, and that
/// dropped elsewhere, its place among `keys` and a sentence that says so.
pub fn without_drops(
    keys: &Keys,
    drops: &HashMap<DropKey, u64>,
    names: &mut dyn Names,
) -> Vec<(usize, String)> {
    let typed = keys.symbols.iter().enumerate();
    let typed: Vec<_> = typed.filter(|(_, choice)| choice.value.offset.is_some()).collect();
    if typed.is_empty() {
        return Vec::new();
    }
    let mut counted: Vec<BTreeMap<u64, u64>> = vec![BTreeMap::new(); typed.len()];
    for (key, count) in drops.iter().filter(|(_, count)| **count > 0) {
        let Some(symbol) = names.symbol(key.location) else { continue };
        for ((_, choice), counted) in typed.iter().zip(&mut counted) {
            if choice.value.is_in(&symbol) {
                let sum = counted.entry(symbol.offset).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
    }
    let said = typed
        .into_iter()
        .zip(counted)
        .filter_map(|((index, choice), counted)| Some((index, say(choice, counted)?)));
    said.collect()
}

fn say(
    Choice { exclude, value }: &Choice<Function>,
    counted: BTreeMap<u64, u64>,
) -> Option<String> {
    let typed = value.offset?;
    if counted.is_empty() || counted.contains_key(&typed) {
        return None;
    }
    let mut counted: Vec<(u64, u64)> = counted.into_iter().collect();
    counted.sort_by_key(|(offset, _)| offset.abs_diff(typed));
    let listed: Vec<String> =
        counted.iter().take(MOST).map(|(at, count)| format!("{count} at +{at:#x}")).collect();
    let more = if counted.len() > MOST { ", …" } else { "" };
    let not = if *exclude { "!" } else { "" };
    Some(format!(
        "--symbol {not}{value}: nothing was dropped at that offset so far; in that function: {}{more}",
        listed.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::place::{Reason, Symbol};

    /// Locations are offsets in `f`, but for those from 1000 on.
    struct InF;

    impl Names for InF {
        fn symbol(&mut self, address: u64) -> Option<Symbol> {
            let name = if address < 1000 { "f.isra.0" } else { "g" };
            Some(Symbol { name: name.into(), offset: address % 1000, module: None })
        }
        fn reason(&mut self, _: u32) -> Option<Reason> {
            None
        }
    }

    fn said(typed: &[&str], drops: &[(u64, u64)]) -> Vec<(usize, String)> {
        let symbols = typed.iter().map(|text| Choice::function(text).unwrap()).collect();
        let keys = Keys { symbols, ..Keys::default() };
        let key = |location| DropKey { location, ..DropKey::default() };
        let drops = drops.iter().map(|(at, count)| (key(*at), *count)).collect();
        without_drops(&keys, &drops, &mut InF)
    }

    #[test]
    fn a_mistyped_offset_is_told_by_what_was_dropped_beside_it() {
        let drops = [(0x4c, 130), (0x80, 2), (1000 + 0x4b, 7)];
        let expected = "--symbol f+0x4b: nothing was dropped at that offset so far; in that function: \
                        130 at +0x4c, 2 at +0x80";
        assert_eq!(said(&["g", "f+0x4b"], &drops), [(1, expected.to_owned())]);
        assert!(said(&["!f+0x4b"], &drops)[0].1.starts_with("--symbol !f+0x4b: "));
    }

    #[test]
    fn an_offset_with_drops_and_a_function_without_any_are_nothing_to_say() {
        assert_eq!(said(&["f+0x4c", "g+0x4b", "f"], &[(0x4c, 1), (1000 + 0x4b, 1)]), []);
        assert_eq!(said(&["f+0x4b"], &[(1000, 1), (0x4c, 0)]), []);
        let many: Vec<_> = (1..9).map(|at| (at, 1)).collect();
        assert!(
            said(&["f+0x63"], &many)[0]
                .1
                .ends_with("1 at +0x8, 1 at +0x7, 1 at +0x6, 1 at +0x5, …")
        );
    }
}
