//! Rules and policies of the packet filter that drop, and what their counters say.
//!
//! Values alone: `kernel::packet_filter` reads them, `diagnose` decides which of them dropped the
//! packets of a report.

use std::{fmt, time::Duration};

/// What a packet is, as tables know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Ip,
    Ip6,
    /// Tables of nftables for both.
    Inet,
    Arp,
    Bridge,
    /// Tables of nftables at one device.
    Netdev,
}

impl Family {
    /// As nft writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        }
    }

    /// The family that nft calls so.
    pub fn of(name: &str) -> Option<Self> {
        let all = [Self::Ip, Self::Ip6, Self::Inet, Self::Arp, Self::Bridge, Self::Netdev];
        all.into_iter().find(|family| family.name() == name)
    }
}

/// A place in a packet's way at which rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    /// Of a device.
    Ingress,
    Egress,
}

impl Hook {
    const ALL: [Self; 7] = [
        Self::Prerouting,
        Self::Input,
        Self::Forward,
        Self::Output,
        Self::Postrouting,
        Self::Ingress,
        Self::Egress,
    ];

    /// As iptables names its chains.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
            Self::Ingress => "INGRESS",
            Self::Egress => "EGRESS",
        }
    }

    /// The hook of that name, whatever its case: nft writes it in small letters.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name().eq_ignore_ascii_case(name))
    }
}

/// A set of hooks: those from which a chain can be reached.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Hooks(u8);

impl Hooks {
    pub fn insert(&mut self, hook: Hook) {
        self.0 |= 1 << hook as u8;
    }

    pub fn contains(self, hook: Hook) -> bool {
        self.0 & 1 << hook as u8 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds those of `other`; whether any is new.
    pub fn join(&mut self, other: Self) -> bool {
        let before = *self;
        self.0 |= other.0;
        *self != before
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Hook::ALL.iter().filter(|hook| self.contains(**hook))).finish()
    }
}

/// Whether nft takes a name for one word: it parses what its arguments are together, whatever a shell has
/// quoted (`string` in src/scanner.l, nftables 1.0).
pub fn is_word(name: &str) -> bool {
    let within = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(within)
}

/// What keeps a rule, and shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keeper {
    /// iptables or ip6tables, in tables of their own or in those of nftables.
    Iptables,
    /// arptables, in tables of its own.
    Arptables,
    Nft,
}

/// What drops: a rule, or what a chain does with packets that no rule decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Of iptables and arptables, the position in its chain, from 1; of nft, the handle, 0 where nft
    /// shows none.
    Rule(u64),
    Policy,
}

/// Why what drops does not count what it drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncounted {
    NoCounter,
    /// Its counter stands before something that some packets do not match, and counts them, too.
    BeforeMatch,
    /// Its counter has a name, and others count with it.
    Shared,
}

/// A rule or policy whose verdict is to drop or to reject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropper {
    pub keeper: Keeper,
    /// The command that shows it: `iptables-legacy`, `nft`.
    pub program: String,
    pub family: Family,
    pub table: String,
    pub chain: String,
    pub part: Part,
    /// As the program writes it, without counters, on one line and without what moves a cursor. Empty
    /// for a policy.
    pub text: String,
    pub comment: Option<String>,
    /// From where its chain can be reached.
    pub hooks: Hooks,
    /// The verdict is that of a map's element, or may be.
    pub by_map: bool,
    /// Of a map, the keys that drop, as far as there is room for them. Empty where they are not known.
    pub elements: Vec<String>,
    /// The named counter of nftables that is its own, if it has one.
    pub counter: Option<String>,
    /// Why it does not count, if it does not.
    pub uncounted: Uncounted,
    /// Packets that it dropped in the time of the reading; `None` where it does not count them, or where
    /// nobody knows at what its counter stood before.
    pub counted: Option<u64>,
    /// Where the reading keeps its counter for the next one: by chain, and by place in that.
    pub key: (u64, usize),
    /// Packets that it has dropped in all its life, as far as it counts them.
    pub ever: u64,
}

/// Since when counters are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// They were read before, so long before this reading.
    Read(Duration),
    /// The namespace began while dropwatch counted, and they with it.
    Birth,
    /// Nobody knows: they are what they have counted in all their life.
    Ever,
}

/// What drops in a network namespace, and what it counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterReading {
    pub since: Since,
    /// Packets that were dropped in the namespace in that time, at hooks, without those that are proved
    /// to be connection tracking's.
    pub drops: u64,
    /// Read for this report, and not for one before it.
    pub is_fresh: bool,
    /// Read for one before it, and done since.
    pub is_late: bool,
    /// How long before the end of this report it was read.
    pub age: Duration,
    /// How long the reading took: what was dropped meanwhile may be in some counters and not in others.
    pub took: Duration,
    /// Packets that rules had counted at the reading before, beyond those that were known to be dropped by
    /// then: they are among the drops of this one, and no more among what is counted.
    pub ahead: u64,
    /// The reading before was that of the start, which comes some moments after drops are counted.
    pub is_first: bool,
    /// What has counted nothing in that time and something before, as far as there is room for it.
    pub earlier: Vec<Dropper>,
    /// What counted something, the most first.
    pub counting: Vec<Dropper>,
    /// Packets that were counted by others than those.
    pub more: u64,
    /// What drops without counting, as far as there is room for it.
    pub silent: Vec<Dropper>,
    /// How many more there are.
    pub more_silent: usize,
    /// What drops, or from where it is reached, was changed since the reading before.
    pub changed: bool,
    /// What came meanwhile, or whose counter was set, and may have counted something, as far as there is
    /// room for it: it is counted from now on.
    pub unsure: Vec<Dropper>,
    /// What of the rules could not be read, and why; empty where they are all there.
    pub gaps: Vec<Gap>,
}

/// Rules that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Those of this family; `None` where it may be any.
    pub family: Option<Family>,
    /// For people, with the way out if there is one.
    pub why: String,
}

impl FilterReading {
    /// Packets that all counters counted together.
    pub fn counted(&self) -> u64 {
        let counted = self.counting.iter().filter_map(|it| it.counted);
        counted.fold(self.more, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_have_one_name_in_two_cases() {
        for hook in Hook::ALL {
            assert_eq!(Hook::of(&hook.name().to_lowercase()), Some(hook));
            assert_eq!(Hook::of(hook.name()), Some(hook));
        }
        assert_eq!(Hook::of("BROUTING"), None);
    }

    #[test]
    fn a_set_of_hooks_grows() {
        let mut hooks = Hooks::default();
        hooks.insert(Hook::Egress);
        let mut all = Hooks::default();
        assert!(all.is_empty() && all.join(hooks) && !all.join(hooks));
        assert!(all.contains(Hook::Egress) && !all.contains(Hook::Input));
    }
}
