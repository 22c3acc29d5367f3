//! What `dropwatch top` watches.

use super::{Limits, Show, Terminal, Watch};
use crate::{cli, exit::Failure, render::Format};

impl Watch {
    /// # Errors
    /// Usage, where there is no terminal to draw on.
    pub fn top(args: &cli::Top, terminal: Terminal) -> Result<Self, Failure> {
        if !terminal.stdout.is_terminal || terminal.dumb {
            return Err(Failure::Usage(
                "`dropwatch top` draws on a terminal, and this is none that it can draw on: \
                 `dropwatch -i 1s` prints the same as lines"
                    .to_owned(),
            ));
        }
        Ok(Self {
            interval: args.interval,
            count: None,
            duration: None,
            samples: true,
            sample_lines: false,
            pcap: None,
            record: None,
            metrics: None,
            limits: Limits::default(),
            stacks: args.stacks,
            packets: args.filters.packets(),
            keys: args.filters.keys(),
            filters: args.filters.typed(),
            later: args.filters.later,
            by: Vec::new(),
            findings: !args.no_findings,
            verbose: args.verbose,
            reasons: None,
            show: Show {
                format: Format::Text,
                view: Format::Text.view(Some(0), args.all),
                addresses: false,
                medium: terminal.medium(args.color),
            },
            aside: false,
        })
    }
}
