//! The options of `dropwatch conntrack`.

use std::time::Duration;

use clap::{ArgAction, Args};

use super::{
    Color,
    filters::name,
    values::{duration, whole_number},
};

#[derive(Debug, Args)]
#[command(after_help = "\
It answers what people ask of `conntrack -L | awk | sort | uniq -c`, without
holding the table, however large it is:
  states   why entries are there: many in TIME_WAIT are short connections that
           have ended, many in SYN_SENT were never answered
  sources, destinations, DNAT targets
           whose connections they are, where to, and where NAT sent them
  memory   what the table takes now, and what it would take when full
  drop     packets lost because there was no room: raise nf_conntrack_max, or
           lower the timeout of the state that most entries are in

Needs CAP_NET_ADMIN, and CAP_SYS_ADMIN for other namespaces than its own.

Examples:
  sudo dropwatch conntrack                   every network namespace, once
  sudo dropwatch conntrack --netns gw -n 20  one of them, with longer lists
  sudo dropwatch conntrack --watch=1s        every second, with rates
  sudo dropwatch conntrack --json            one JSON object a namespace")]
pub struct ConntrackArgs {
    /// Only this network namespace (repeatable): its name, `host`, /proc/PID/ns/net
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub netns: Vec<String>,
    /// Sources, destinations and DNAT targets to list; 0 lists all
    #[arg(short = 'n', long, value_name = "N", default_value = "5", value_parser = whole_number)]
    pub top: usize,
    /// Repeat until Ctrl-C, with rates; every 5 seconds unless told otherwise
    #[arg(short, long, value_name = "INTERVAL", num_args = 0..=1, require_equals = true, default_missing_value = "5s", value_parser = duration)]
    pub watch: Option<Duration>,
    /// One JSON object a line for each namespace
    #[arg(long)]
    pub json: bool,
    /// Colours: auto uses them on a terminal, unless NO_COLOR is set
    #[arg(long, value_enum, default_value = "auto", action = ArgAction::Set)]
    pub color: Color,
}
