//! Files of one folder that name each other in a circle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::code::File;

/// The circles between the files of a room, each once: `report/a.rs → report/b.rs → report/a.rs`.
pub fn circles(files: &[File], room: &str) -> Vec<String> {
    let files: BTreeMap<String, &File> =
        files.iter().filter(|file| file.room() == room).map(|it| (it.module(), it)).collect();
    let named: BTreeMap<&str, BTreeSet<&str>> =
        files.values().map(|file| (file.name.as_str(), files_named(file, &files))).collect();
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    for start in named.keys() {
        if let Some(circle) = way_back(start, &named)
            && known.insert(circle.iter().copied().collect::<BTreeSet<_>>())
        {
            found.push(circle.join(" → ") + " → " + start);
        }
    }
    found
}

/// Those of `files` that `file` names: of each path the file in which it goes on, or ends.
fn files_named<'a>(file: &File, files: &BTreeMap<String, &'a File>) -> BTreeSet<&'a str> {
    let module = |path: &String| {
        let mut path = path.as_str();
        loop {
            if let Some(found) = files.get(path) {
                return Some(found.name.as_str());
            }
            path = path.rsplit_once("::")?.0;
        }
    };
    file.paths.iter().filter_map(module).filter(|name| *name != file.name).collect()
}

/// The shortest way from `start` back to it, without its end.
fn way_back<'a>(
    start: &'a str,
    named: &BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> Option<Vec<&'a str>> {
    let mut ways = VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in named.get(way.last()?)? {
            if *next == start {
                return Some(way);
            }
            if seen.insert(*next) {
                ways.push_back([&way[..], &[*next]].concat());
            }
        }
    }
    None
}
