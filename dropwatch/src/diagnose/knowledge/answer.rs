//! What there is to say about what somebody asks for.

use super::{
    counter::CounterEntry,
    entry::DropEntry,
    rule::RuleEntry,
    subject::{Subject, subjects},
    word::WordEntry,
};

/// Entries shown in full, whatever their kind, where there are no more of them.
const FEW: usize = 3;

/// What is known about a name, or about several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// Words of the outputs.
    pub words: Vec<&'a WordEntry>,
    /// Counters of the kernel.
    pub counters: Vec<Counted<'a>>,
    /// Topics, as they were typed: what follows has to do with them.
    pub topics: Vec<String>,
    /// Rules of findings about exactly this.
    pub rules: Vec<&'a RuleEntry>,
    /// Entries about exactly this.
    pub full: Vec<&'a DropEntry>,
    /// Rules that have to do with it.
    pub brief_rules: Vec<&'a RuleEntry>,
    /// Entries that have to do with it.
    pub brief: Vec<&'a DropEntry>,
    /// Functions of rows whose reason is explained, with their module: of them nothing more is known.
    pub functions: Vec<String>,
    /// Names beside the others that are not known.
    pub not_known: Vec<String>,
}

/// A counter, by those of its names that are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted<'a> {
    pub names: Vec<String>,
    /// `None` for one that the host has, and of which nothing more is known.
    pub known: Option<&'a CounterEntry>,
}

impl<'a> Explanation<'a> {
    /// Returns `None` where nothing was found. Shows everything in full where there is only a
    /// little.
    pub(super) fn new(
        mut rules: Vec<&'a RuleEntry>,
        mut full: Vec<&'a DropEntry>,
        mut brief_rules: Vec<&'a RuleEntry>,
        mut brief: Vec<&'a DropEntry>,
    ) -> Option<Self> {
        let all = rules.len() + full.len() + brief_rules.len() + brief.len();
        if all <= FEW {
            rules.append(&mut brief_rules);
            full.append(&mut brief);
        }
        (all > 0).then_some(Self { rules, full, brief_rules, brief, ..Self::default() })
    }

    /// Everything that has to do with a topic.
    pub(super) fn about(topic: &str, all: Vec<Subject<'a>>) -> Self {
        let (rules, entries) = subjects(all);
        let answer = Self::new(Vec::new(), Vec::new(), rules, entries).unwrap_or_default();
        Self { topics: vec![topic.to_owned()], ..answer }
    }

    /// Adds a counter. Those of which nothing more is known share one paragraph.
    fn count(&mut self, counted: Counted<'a>) {
        let alike = self.counters.iter_mut().find(|it| it.known.is_none());
        match alike {
            Some(alike) if counted.known.is_none() => add(&mut alike.names, counted.names),
            _ => add(&mut self.counters, vec![counted]),
        }
    }

    /// Merges two answers: each thing once, and in full if either shows it in full.
    pub(super) fn and(mut self, other: Self) -> Self {
        add(&mut self.words, other.words);
        for counted in other.counters {
            self.count(counted);
        }
        add(&mut self.topics, other.topics);
        add(&mut self.rules, other.rules);
        add(&mut self.full, other.full);
        add(&mut self.brief_rules, other.brief_rules);
        add(&mut self.brief, other.brief);
        add(&mut self.functions, other.functions);
        add(&mut self.not_known, other.not_known);
        self.brief_rules.retain(|rule| !self.rules.contains(rule));
        self.brief.retain(|entry| !self.full.contains(entry));
        self
    }
}

impl<'a> FromIterator<Explanation<'a>> for Explanation<'a> {
    fn from_iter<T: IntoIterator<Item = Explanation<'a>>>(answers: T) -> Self {
        answers.into_iter().reduce(Self::and).unwrap_or_default()
    }
}

fn add<T: PartialEq>(all: &mut Vec<T>, more: Vec<T>) {
    for one in more {
        if !all.contains(&one) {
            all.push(one);
        }
    }
}
