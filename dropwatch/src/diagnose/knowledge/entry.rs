//! One entry of the table, as its TOML has it.

use serde::{Deserialize, Deserializer, Serialize};

/// Subsystem of the reasons that the core of the network code gives.
pub const CORE: &str = "CORE";

/// The reason of drops by callers in the kernel that give no reason of their own.
pub const NOT_SPECIFIED: &str = "NOT_SPECIFIED";

/// Words in commands that stand for what the table cannot know, and what each is. Other words in
/// capitals are the programs' own.
pub const BLANKS: [(&str, &str); 18] = [
    ("ADDRESS", "an address of the packets"),
    ("BRIDGE", "a bridge"),
    ("CHAIN", "a chain of the ruleset"),
    ("DEV", "the interface"),
    ("FAMILY", "a family of the ruleset"),
    ("FUNCTION", "the function of the row"),
    ("GATEWAY", "the next router"),
    ("KIB", "a number of KiB"),
    ("KIND", "the kind that is there"),
    ("MAXIMUM", "the most that the card takes"),
    ("N", "a number"),
    ("NETWORK", "the network to reach"),
    ("REMOTE", "the address of the far end"),
    ("SERVICE", "a service"),
    ("SOURCE", "the source of the packets"),
    ("TABLE", "a table of the ruleset"),
    ("TIME", "a time"),
    ("UNIT", "a unit of systemd"),
];

/// The words of `commands` that are to be filled in, each with what it is, in the alphabet's order.
pub fn blanks<'a>(
    commands: impl IntoIterator<Item = &'a str>,
) -> Vec<(&'static str, &'static str)> {
    let mut found: Vec<_> = commands.into_iter().flat_map(blanks_of).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn blanks_of(command: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let (command, _remark) = command.split_once("  # ").unwrap_or((command, ""));
    let words = command.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter_map(|word| BLANKS.into_iter().find(|(blank, _)| *blank == word))
}

/// What is known about drops for some reasons, at some functions.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DropEntry {
    /// What its file is about.
    #[serde(skip_deserializing)]
    pub topic: String,
    /// The cause in a few words.
    pub title: String,
    /// Subsystem that the reasons belong to.
    #[serde(default = "core")]
    pub subsystem: String,
    /// Drop reasons that it speaks of; empty only where there is no event.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Functions at which alone the entry holds; empty where it holds wherever the reasons occur.
    #[serde(default)]
    pub at: Vec<String>,
    /// Functions that are known to drop for these reasons; it holds elsewhere, too.
    #[serde(default)]
    pub seen_at: Vec<String>,
    /// The kernel loses packets this way without calling them dropped.
    #[serde(default)]
    pub unseen: bool,
    #[serde(deserialize_with = "one_line")]
    pub meaning: String,
    #[serde(default)]
    pub benign: Benign,
    /// Where to look next.
    #[serde(default)]
    pub check: Vec<Check>,
    /// What can be changed.
    #[serde(default)]
    pub knobs: Vec<Knob>,
    /// Files of the kernel's sources and documents that it rests on.
    pub source: Vec<String>,
}

/// Whether such drops may be harmless.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Benign {
    #[default]
    Never,
    /// Under this condition.
    When(String),
    /// Always, and why. Reports fold such drops into one line.
    Always(String),
}

/// Where to look: a number with a value on this host, or a command.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(from = "String", into = "String")]
pub enum Check {
    Number(Quantity),
    Command(String),
}

/// Written `$ command`, or as the name of a quantity.
impl From<String> for Check {
    fn from(text: String) -> Self {
        match text.strip_prefix("$ ") {
            Some(command) => Self::Command(command.to_owned()),
            None => Self::Number(Quantity::from(text)),
        }
    }
}

impl From<Check> for String {
    fn from(check: Check) -> Self {
        match check {
            Check::Command(command) => format!("$ {command}"),
            Check::Number(quantity) => quantity.name().to_owned(),
        }
    }
}

/// Something that has a value on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// A counter by its group and name: `Udp.RcvbufErrors`, `softnet.dropped`.
    Counter(String),
    /// A setting by its name: `net.ipv4.ip_forward`.
    Sysctl(String),
}

/// Settings are those below `net.` and `vm.`; what else is named is a counter.
impl From<String> for Quantity {
    fn from(name: String) -> Self {
        if name.starts_with("net.") || name.starts_with("vm.") {
            Self::Sysctl(name)
        } else {
            Self::Counter(name)
        }
    }
}

impl Quantity {
    pub fn name(&self) -> &str {
        match self {
            Self::Counter(name) | Self::Sysctl(name) => name,
        }
    }
}

/// Something that can be changed.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "RawKnob")]
pub struct Knob {
    #[serde(flatten)]
    pub action: KnobAction,
    /// What changing it does.
    pub effect: String,
    /// What that costs or risks, where it does.
    pub cost: Option<String>,
}

/// How to change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KnobAction {
    /// Another value of this setting.
    Set(String),
    /// A command, in which words of [`BLANKS`] are to be filled in.
    Run(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKnob {
    set: Option<String>,
    run: Option<String>,
    effect: String,
    cost: Option<String>,
}

impl TryFrom<RawKnob> for Knob {
    type Error = &'static str;

    fn try_from(raw: RawKnob) -> Result<Self, Self::Error> {
        let action = match (raw.set, raw.run) {
            (Some(sysctl), None) => KnobAction::Set(sysctl),
            (None, Some(command)) => KnobAction::Run(command),
            _ => return Err("a knob has either `set` or `run`"),
        };
        Ok(Self { action, effect: raw.effect, cost: raw.cost })
    }
}

impl DropEntry {
    /// Returns the reasons and functions as a report names them: `NO_SOCKET at udp_rcv, udpv6_rcv`.
    /// That older kernels give no reason at these functions is left out, since it holds for all.
    pub fn name(&self) -> String {
        let given = |reason: &&String| self.reasons.len() == 1 || *reason != NOT_SPECIFIED;
        let given: Vec<&str> = self.reasons.iter().filter(given).map(String::as_str).collect();
        let reasons = given.join(", ");
        let at = self.at.join(", ");
        match (self.unseen, at.is_empty()) {
            (true, _) => format!("no event, at {at}"),
            (false, true) => reasons,
            (false, false) => format!("{reasons} at {at}"),
        }
    }

    /// Everything with a value on a host that it names.
    pub fn quantities(&self) -> impl Iterator<Item = Quantity> {
        let checks = self.check.iter().filter_map(|check| match check {
            Check::Number(quantity) => Some(quantity.clone()),
            Check::Command(_) => None,
        });
        let knobs = self.knobs.iter().filter_map(|knob| match &knob.action {
            KnobAction::Set(sysctl) => Some(Quantity::Sysctl(sysctl.clone())),
            KnobAction::Run(_) => None,
        });
        checks.chain(knobs)
    }

    /// The commands that it names, which may have [`BLANKS`].
    pub fn commands(&self) -> impl Iterator<Item = &str> {
        commands(&self.check, &self.knobs)
    }

    /// Whether it speaks of `reason` of `subsystem`.
    pub(super) fn has_reason(&self, subsystem: &str, reason: &str) -> bool {
        self.subsystem == subsystem && self.reasons.iter().any(|name| name == reason)
    }

    /// Whether it holds at `function` alone, or at some others like it.
    pub(super) fn is_about(&self, function: &str) -> bool {
        self.at.iter().any(|name| name == function)
    }

    /// Whether `function` is known to drop for these reasons, and others may, too.
    pub(super) fn is_seen_at(&self, function: &str) -> bool {
        self.seen_at.iter().any(|name| name == function)
    }
}

/// Commands among things to look at and to change.
pub(super) fn commands<'a>(check: &'a [Check], knobs: &'a [Knob]) -> impl Iterator<Item = &'a str> {
    let checks = check.iter().filter_map(|check| match check {
        Check::Command(command) => Some(command.as_str()),
        Check::Number(_) => None,
    });
    let knobs = knobs.iter().filter_map(|knob| match &knob.action {
        KnobAction::Run(command) => Some(command.as_str()),
        KnobAction::Set(_) => None,
    });
    checks.chain(knobs)
}

fn core() -> String {
    CORE.to_owned()
}

/// Text that the table breaks into lines, without the breaks.
pub(super) fn one_line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}
