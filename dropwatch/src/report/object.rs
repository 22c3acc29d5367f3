//! What a finding's verdict names: the rule, route, device, socket or program, as data.
//!
//! Fields are numbers, texts and flags, never nested: whoever reads JSON can rely on that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An object of a host, by its kind and what its own tools know it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// [`Kind::name`]; recordings of newer versions may have others.
    pub kind: String,
    /// For people: `filter INPUT, rule 3`.
    pub name: String,
    #[serde(flatten)]
    pub fields: BTreeMap<String, Field>,
}

/// A fact about an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Field {
    Flag(bool),
    Number(u64),
    Text(String),
}

every! {
    /// What an object is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Kind {
        ArptablesPolicy,
        ArptablesRule,
        BridgePort,
        CgroupProgram,
        ConntrackEntry,
        Device,
        IpsecPolicy,
        IptablesPolicy,
        IptablesRule,
        Neighbour,
        NftPolicy,
        NftRule,
        PacketQueue,
        Qdisc,
        Route,
        RoutingRule,
        Socket,
        TcFilter,
        Tunnel,
        XdpProgram,
    }
}

impl Kind {
    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ArptablesPolicy => "arptables-policy",
            Self::ArptablesRule => "arptables-rule",
            Self::BridgePort => "bridge-port",
            Self::CgroupProgram => "cgroup-program",
            Self::ConntrackEntry => "conntrack-entry",
            Self::Device => "device",
            Self::IpsecPolicy => "ipsec-policy",
            Self::IptablesPolicy => "iptables-policy",
            Self::IptablesRule => "iptables-rule",
            Self::Neighbour => "neighbour",
            Self::NftPolicy => "nft-policy",
            Self::NftRule => "nft-rule",
            Self::PacketQueue => "packet-queue",
            Self::Qdisc => "qdisc",
            Self::Route => "route",
            Self::RoutingRule => "routing-rule",
            Self::Socket => "socket",
            Self::TcFilter => "tc-filter",
            Self::Tunnel => "tunnel",
            Self::XdpProgram => "xdp-program",
        }
    }
}

impl From<u64> for Field {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Field {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Field {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Field {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for Field {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for Field {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Object {
    /// An object without facts; `diagnose` has a constructor for each kind.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind: kind.name().to_owned(), name: name.into(), fields: BTreeMap::new() }
    }

    /// Adds a fact.
    pub fn with(mut self, field: &str, is: impl Into<Field>) -> Self {
        self.fields.insert(field.to_owned(), is.into());
        self
    }

    /// Adds a fact, where it is known.
    pub fn with_any(self, field: &str, is: Option<impl Into<Field>>) -> Self {
        match is {
            Some(is) => self.with(field, is),
            None => self,
        }
    }

    /// Every text that it has.
    pub fn texts(&self) -> impl Iterator<Item = &String> {
        let fields = self.fields.iter().flat_map(|(name, is)| match is {
            Field::Text(text) => [Some(name), Some(text)],
            Field::Flag(_) | Field::Number(_) => [Some(name), None],
        });
        [&self.kind, &self.name].into_iter().chain(fields.flatten())
    }
}
