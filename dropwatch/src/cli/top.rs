//! The options of `dropwatch top`.

use std::time::Duration;

use clap::{Args, ValueHint};

use super::{Color, Filters, values::duration};

#[derive(Debug, Args)]
#[command(after_help = "\
Keys: q quit, up and down select, enter shows all about a row, / searches, space freezes, s sorts, \
tab lists namespaces in place of locations, n shows one namespace alone, b shows harmless drops, ? tells \
them all.

Examples:
  sudo dropwatch top                   every second, until q
  sudo dropwatch top -i 250ms          faster
  sudo dropwatch top --netns gw        one network namespace alone")]
pub struct TopArgs {
    /// Only packets that match, as tcpdump takes them: 'tcp dst port 443 and net 10.0.0.0/8'
    #[arg(value_name = "EXPR", value_hint = ValueHint::Other)]
    pub expression: Vec<String>,
    /// Time between pictures: 1s, 250ms; a bare number is seconds
    #[arg(short, long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub interval: Duration,
    /// Show the call paths of sampled drops on a row's page
    #[arg(short = 'g', long)]
    pub stacks: bool,
    /// Do not look for causes: no counters of the host are read
    #[arg(long)]
    pub no_findings: bool,
    /// Show drops that are known to be harmless from the start
    #[arg(long)]
    pub all: bool,
    /// Explain what happens while loading and in the kernel, after the end
    #[arg(short, long)]
    pub verbose: bool,
    /// Colours: auto uses them unless NO_COLOR is set
    #[arg(long, value_enum, default_value = "auto")]
    pub color: Color,
    #[command(flatten)]
    pub filters: Filters,
}
