//! Every way in which drops can interrupt one another, played through.
//!
//! Floods in a virtual machine prove little here: emulated CPUs take interrupts between blocks of
//! code only, and real ones hit a window of nanoseconds rarely. So the same [`count`] runs on a model
//! of one CPU's memory that may start another drop before any step, and all choices are tried.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
};

use dropwatch_common::{
    Counter, DropKey, Lost, NO_NETNS, NO_REASON, Turn,
    count::{self, Hit, SLOTS, Slot, Steps, Word, Words, busy, home, tag},
};

/// A namespace that counts at the same place as another one, in the same slot by choice.
const NETNS: u32 = 0xf000_0000;
const SAME: u32 = NETNS + 0x90;
/// Keys of one pair of slots, two of them with the same first choice: the third to come has no room.
const KEYS: [DropKey; 3] = [
    DropKey::new(0x1000, 2).within(NETNS),
    DropKey::new(0x1000, 2).within(SAME),
    DropKey::new(0x1052, 65).within(NETNS),
];

/// Cookies of the namespace that has the number [`NETNS`] in the end, and of the one that had it before.
const YOUNGER: u64 = 9;
const OLDER: u64 = 7;

fn tag_of(key: &DropKey) -> u64 {
    tag(key.reason, key.netns)
}

#[test]
fn the_keys_of_these_tests_share_their_slots() {
    let [first, same, other] = KEYS.map(|key| home(key.location, tag_of(&key)));
    assert_eq!((same, other), (first, first ^ 1));
}

/// Which drops have been counted before, for an older namespace if `turning`, and what room the map has.
struct Setting {
    before: &'static [usize],
    turning: bool,
    room: usize,
}

#[test]
fn no_interruption_loses_or_moves_a_count() {
    let mut played = 0;
    for before in [&[][..], &[0], &[1], &[0, 1], &[0, 1, 2]] {
        for room in [0, 1, 3] {
            for outer in 0..KEYS.len() {
                let setting = Setting { before, turning: false, room };
                played += play(&setting, outer, 2, Blind::ToNothing).unwrap();
            }
        }
    }
    let setting = Setting { before: &[], turning: false, room: 3 };
    played += play(&setting, 0, 3, Blind::ToNothing).unwrap();
    assert!(played > 80_000, "{played} ways");
}

#[test]
fn no_interruption_gives_a_count_to_another_namespace() {
    let mut played = 0;
    // The last one has its second key in the map.
    for before in [&[0][..], &[0, 0, 1], &[2, 1, 0, 0]] {
        for outer in 0..KEYS.len() {
            let setting = Setting { before, turning: true, room: 3 };
            played += play(&setting, outer, 2, Blind::ToNothing).unwrap();
        }
    }
    assert!(played > 10_000, "{played} ways");
}

/// These tests would notice: each guard is needed.
#[test]
fn blind_to_either_guard_it_goes_wrong() {
    let setting = Setting { before: &[], turning: false, room: 3 };
    assert!(play(&setting, 0, 1, Blind::ToClaims).is_err());
    assert!(play(&setting, 0, 1, Blind::ToBusySlots).is_err());
    let setting = Setting { before: &[0], turning: true, room: 3 };
    assert!(play(&setting, 0, 1, Blind::ToTurns).is_err());
}

/// What an interruption does not see.
#[derive(Clone, Copy, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "read as `blind to …`")]
enum Blind {
    ToNothing,
    ToClaims,
    ToBusySlots,
    ToTurns,
}

/// Plays one drop of `outer` with up to `most` others that interrupt it, in every way. Returns how
/// many ways there are, or what went wrong in one of them.
fn play(setting: &Setting, outer: usize, most: usize, blind: Blind) -> Result<usize, &'static str> {
    let mut choices: Vec<usize> = Vec::new();
    for played in 1.. {
        let cpu = Cpu::new(choices, most, setting, blind);
        cpu.begin(setting);
        cpu.drop_of(outer);
        cpu.check()?;
        choices = cpu.choices.into_inner();
        // The next way: the last choice that has an alternative takes it.
        while choices.last() == Some(&KEYS.len()) {
            choices.pop();
        }
        match choices.last_mut() {
            Some(last) => *last += 1,
            None => return Ok(played),
        }
    }
    unreachable!()
}

/// The memory of one CPU.
struct Cpu {
    /// At each step: 0 goes on, `n` lets a drop of `KEYS[n - 1]` interrupt.
    choices: RefCell<Vec<usize>>,
    next: Cell<usize>,
    /// Interruptions that may still come.
    left: Cell<usize>,
    blind: Blind,
    room: usize,
    /// The two slots that all keys share: location, tag, count, claiming, cookie.
    slots: [[Cell<u64>; 5]; 2],
    /// What `then` keeps for each slot, in two steps.
    followed: [Cell<u64>; 2],
    map: [Cell<Option<u64>>; 3],
    map_cookies: [Cell<u64>; 3],
    /// The one that the namespaces of all keys have now.
    cookie: Cell<u64>,
    /// Whether they had another one before; if not, nothing can come between the steps that ask.
    turning: bool,
    turns: RefCell<BTreeSet<Turn>>,
    /// Drops that were begun, and those that had no room, by key.
    dropped: [Cell<u64>; 3],
    /// Those of the older namespaces.
    of_older: [Cell<u64>; 3],
    lost: [Cell<u64>; 3],
    /// What a reader saw last, by key.
    seen: [Cell<u64>; 3],
    fault: Cell<Option<&'static str>>,
}

#[derive(Clone, Copy)]
enum Place {
    Slot(usize),
    Map(usize),
}

impl Cpu {
    fn new(choices: Vec<usize>, most: usize, setting: &Setting, blind: Blind) -> Self {
        Self {
            choices: RefCell::new(choices),
            next: Cell::new(0),
            left: Cell::new(most),
            blind,
            room: setting.room,
            slots: Default::default(),
            followed: Default::default(),
            map: Default::default(),
            map_cookies: Default::default(),
            cookie: Cell::new(YOUNGER),
            turning: setting.turning,
            turns: RefCell::default(),
            dropped: Default::default(),
            of_older: Default::default(),
            lost: Default::default(),
            seen: Default::default(),
            fault: Cell::default(),
        }
    }

    /// Counts what comes before without interruption.
    fn begin(&self, setting: &Setting) {
        let left = self.left.replace(0);
        if setting.turning {
            self.cookie.set(OLDER);
        }
        for &key in setting.before {
            self.drop_of(key);
            if setting.turning {
                self.of_older[key].set(self.of_older[key].get() + 1);
            }
        }
        self.cookie.set(YOUNGER);
        self.left.set(left);
    }

    fn drop_of(&self, key: usize) {
        self.dropped[key].set(self.dropped[key].get() + 1);
        let then = |place, _count| {
            if let Place::Slot(slot) = place {
                let value = self.followed[slot].get();
                self.step();
                self.followed[slot].set(value + 1);
            }
        };
        let (location, tag) = (KEYS[key].location, tag_of(&KEYS[key]));
        let words = Words { location, tag, cookie: self.cookie.get() };
        // Of every other drop there is no more to do than can be done at once.
        let more = |place, count| {
            let more = count % 2 == 0;
            if !more {
                then(place, count);
            }
            more
        };
        let counted = match count::hit(self, words, more) {
            Hit::Counted => Ok(()),
            Hit::Held => {
                count::release(self, words, then);
                Ok(())
            }
            Hit::Missed => count::miss(self, words, then),
        };
        if counted.is_err() {
            self.lost[key].set(self.lost[key].get() + 1);
        }
    }

    /// Between two steps a reader may look, and another drop may come.
    fn step(&self) {
        self.read();
        while self.left.get() > 0 {
            let at = self.next.replace(self.next.get() + 1);
            let mut choices = self.choices.borrow_mut();
            if at == choices.len() {
                choices.push(0);
            }
            let choice = choices[at];
            drop(choices);
            let Some(key) = choice.checked_sub(1) else { return };
            self.left.set(self.left.get() - 1);
            self.drop_of(key);
        }
    }

    /// What is counted for each key, as a reader on another CPU adds it up.
    fn sums(&self) -> [u64; 3] {
        let mut sums = [0, 1, 2].map(|key| self.map[key].get().unwrap_or(0));
        for [location, tag, count, ..] in &self.slots {
            let counter = Counter { count: count.get(), ..Counter::default() };
            let slot =
                Slot { location: location.get(), tag: tag.get(), counter, ..Slot::default() };
            let Some(key) = slot.key() else { continue };
            match KEYS.iter().position(|known| *known == key) {
                Some(key) => sums[key] += count.get(),
                None => self.fault.set(Some("a key that nobody dropped at")),
            }
        }
        sums
    }

    /// What is counted for the older namespaces, as a reader on another CPU adds it up. Where all that a
    /// counter has was counted before, there need not be a turn.
    fn sums_of_older(&self) -> [u64; 3] {
        let mut sums = [0; 3];
        let of = |counter, key: &DropKey, count, cookie| {
            let turns = self.turns.borrow();
            let mut turns = turns.iter().filter(|it| (it.counter, it.key) == (counter, *key));
            if cookie == OLDER { count } else { turns.next().map_or(0, |turn| turn.until) }
        };
        for (key, sum) in KEYS.iter().zip(&mut sums) {
            let index = KEYS.iter().position(|known| known == key).expect("one of them");
            let count = self.map[index].get().unwrap_or(0);
            *sum += of(Turn::IN_MAP, key, count, self.map_cookies[index].get());
            for (slot, [location, tag, count, _, cookie]) in self.slots.iter().enumerate() {
                let here = Slot { location: location.get(), tag: tag.get(), ..Slot::default() };
                if here.key() == Some(*key) {
                    // Of the pair, whichever it is.
                    let slot = home(KEYS[0].location, tag_of(&KEYS[0])) & !1 | slot;
                    *sum += of(slot as u32, key, count.get(), cookie.get());
                }
            }
        }
        sums
    }

    fn read(&self) {
        // Nothing more is counted for namespaces that have ended.
        if self.turning && self.cookie.get() == YOUNGER {
            for (sum, older) in self.sums_of_older().into_iter().zip(&self.of_older) {
                if sum != older.get() {
                    self.fault.set(Some("a count of another namespace"));
                }
            }
        }
        for (sum, seen) in self.sums().into_iter().zip(&self.seen) {
            if sum < seen.replace(sum) {
                self.fault.set(Some("a count fell"));
            }
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        self.read();
        let sums = self.sums();
        for ((sum, lost), dropped) in sums.into_iter().zip(&self.lost).zip(&self.dropped) {
            if sum + lost.get() != dropped.get() {
                return Err("a count is lost, or another key's");
            }
        }
        for ([_, _, count, claiming, _], followed) in self.slots.iter().zip(&self.followed) {
            if count.get() != followed.get() {
                return Err("what follows a count was interrupted on its slot");
            }
            if claiming.get() != 0 {
                return Err("a claim does not end");
            }
        }
        self.fault.get().map_or(Ok(()), Err)
    }

    fn word(&self, word: Word) -> &Cell<u64> {
        match word {
            Word::Claiming(slot) => &self.slots[slot % 2][3],
            Word::Location(slot) => &self.slots[slot % 2][0],
            Word::Tag(slot) => &self.slots[slot % 2][1],
            Word::Count(slot) => &self.slots[slot % 2][2],
            Word::Cookie(slot) => &self.slots[slot % 2][4],
        }
    }
}

impl Steps for Cpu {
    type Place = Place;

    fn load(&self, word: Word) -> u64 {
        if self.turning || !matches!(word, Word::Cookie(_)) {
            self.step();
        }
        match word {
            Word::Claiming(_) if self.blind == Blind::ToClaims => 0,
            Word::Tag(_) if self.blind == Blind::ToBusySlots => idle(self.word(word).get()),
            _ => self.word(word).get(),
        }
    }

    fn store(&self, word: Word, value: u64) {
        self.step();
        let before = self.word(word).replace(value);
        let (before, value) = match word {
            Word::Tag(_) => (idle(before), idle(value)),
            _ => (before, value),
        };
        // A reader takes the two words of a key one after the other, at any time.
        if matches!(word, Word::Location(_) | Word::Tag(_)) && before != 0 && before != value {
            self.fault.set(Some("a key changed"));
        }
    }

    fn slot(&self, slot: usize) -> Place {
        Place::Slot(slot % 2)
    }

    fn count(&self, counter: Place) -> u64 {
        match counter {
            Place::Map(index) => self.map[index].get().unwrap_or(0),
            Place::Slot(_) => 0,
        }
    }

    fn cookie(&self, counter: Place) -> u64 {
        if self.turning {
            self.step();
        }
        match counter {
            Place::Map(index) => self.map_cookies[index].get(),
            Place::Slot(_) => 0,
        }
    }

    fn set_cookie(&self, counter: Place, cookie: u64) {
        self.step();
        match counter {
            Place::Map(index) => self.map_cookies[index].set(cookie),
            Place::Slot(_) => self.fault.set(Some("a slot's counter was taken for the map's")),
        }
    }

    fn note(&self, turn: Turn) -> Result<(), Lost> {
        self.step();
        if self.blind != Blind::ToTurns {
            self.turns.borrow_mut().insert(turn);
        }
        self.step();
        Ok(())
    }

    fn find(&self, key: &DropKey) -> Option<Place> {
        self.step();
        let index = KEYS.iter().position(|known| known == key).expect("one of the keys");
        let found = self.map[index].get().map(|_| Place::Map(index));
        // What an interruption inserts while this looks may be missed.
        self.step();
        found
    }

    fn insert(&self, key: &DropKey) -> Result<(), Lost> {
        self.step();
        let index = KEYS.iter().position(|known| known == key).expect("one of the keys");
        if self.map[index].get().is_some() {
            return Ok(());
        }
        let entries = self.map.iter().filter(|entry| entry.get().is_some()).count();
        if entries == self.room {
            return Err(Lost::MapFull);
        }
        self.map[index].set(Some(0));
        Ok(())
    }

    fn add(&self, counter: Place) {
        self.step();
        match counter {
            Place::Map(index) => self.map[index].set(self.map[index].get().map(|count| count + 1)),
            Place::Slot(_) => self.fault.set(Some("a slot's counter was taken for the map's")),
        }
    }
}

/// The tag of a key that has one, busy or not.
fn idle(tag: u64) -> u64 {
    if KEYS.iter().any(|key| busy(tag_of(key)) == tag) { busy(tag) } else { tag }
}

#[test]
fn both_words_make_a_key() {
    let slot = |location, tag| Slot { location, tag, ..Slot::default() }.key();
    // The least and the most that each part of a tag can be.
    for reason in [0, 2, 5 << 16 | 3, NO_REASON] {
        for netns in [NO_NETNS, NETNS, u32::MAX] {
            let key = DropKey::new(0x1000, reason).within(netns);
            let tag = tag_of(&key);
            assert_eq!((slot(0x1000, tag), slot(0x1000, busy(tag))), (Some(key), Some(key)));
            assert_eq!((slot(0, tag), slot(0, busy(tag))), (None, None));
        }
    }
    assert_eq!((slot(0, 0), slot(0x1000, 0)), (None, None));
}

#[test]
fn many_keys_spread() {
    let mut used = vec![0_u32; SLOTS / 2];
    // Return addresses as a kernel has them: some of a few hundred functions.
    for place in 0..SLOTS as u64 / 2 {
        let location = 0xffff_ffff_8100_0000 + place * 0x1a35 + place % 7;
        used[home(location, tag(2, NO_NETNS)) / 2] += 1;
    }
    let elsewhere: u32 = used.iter().map(|keys| keys.saturating_sub(2)).sum();
    assert!(elsewhere < SLOTS as u32 / 2 / 8, "{elsewhere} of {} find no slot", SLOTS / 2);
}

#[test]
fn many_namespaces_spread() {
    let mut used = vec![0_u32; SLOTS / 2];
    // Numbers are given from the lowest free one on.
    for netns in 0..SLOTS as u32 / 8 {
        for place in 0..4 {
            let location = 0xffff_ffff_8100_0000 + place * 0x1a35;
            used[home(location, tag(2, NETNS + netns)) / 2] += 1;
        }
    }
    let elsewhere: u32 = used.iter().map(|keys| keys.saturating_sub(2)).sum();
    assert!(elsewhere < SLOTS as u32 / 2 / 8, "{elsewhere} of {} find no slot", SLOTS / 2);
}
