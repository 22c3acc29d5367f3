//! Options whose value is one of a few words: what each word is called and means. The values are those
//! of the rest of the program, so that a new one cannot be forgotten here.

use clap::{ValueEnum, builder::PossibleValue};

use crate::{
    render::Format,
    report::{finding::Severity, model::groups::By},
    settings::Color,
};

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Text => "Ranked table with reasons and shares",
            Self::Classic => "As SystemTap's dropwatch.stp",
            Self::Json => "One JSON object a line",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for Severity {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Critical => "A limit of this host is reached",
            Self::Warning => {
                "Packets are refused by a decision, or because something is broken or missing"
            }
            Self::Notice => "Small, or usual in small numbers",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ValueEnum for By {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Netns => "Network namespace",
            Self::Iface => "Interface, in its namespace",
            Self::Protocol => "tcp, udp, arp, …",
            Self::Direction => "Came in by a device, or sent by this host",
            Self::Cpu => "CPU: is one of them hot?",
        };
        Some(PossibleValue::new(self.word()).help(help))
    }
}

impl ValueEnum for Color {
    fn value_variants<'a>() -> &'a [Self] {
        Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }))
    }
}
