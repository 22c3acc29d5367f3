//! What SystemTap's dropwatch.stp prints, line for line, for scripts that read it.
//!
//! ```text
//! Monitoring for dropped packets
//!
//! 10031 packets dropped at nf_hook_slow
//! 676 packets dropped at tcp_v4_rcv
//! Stopping dropped packet monitor
//! ```
//!
//! That script counts by address and prints the symbol alone, without offset, module or padding;
//! where it has no symbol, it prints the bare address. It has no place for notices and losses, which
//! the caller reports elsewhere, nor for details from samples.

use std::io;

use super::{BEGIN, Medium, Renderer, STOP, words::symbol};
use crate::report::model::{Line, Location};

/// Renders reports as the SystemTap script does. Needs a view that merges reasons.
#[derive(Clone, Copy, Debug)]
pub struct Classic {
    medium: Medium,
}

impl Classic {
    pub fn new(medium: Medium) -> Self {
        Self { medium }
    }
}

impl Renderer for Classic {
    fn render(&self, line: &Line, page: &mut Vec<u8>) -> io::Result<()> {
        let text = match line {
            Line::Start(_) => format!("{BEGIN}\n"),
            Line::Report(report) => {
                let row =
                    |row: &Location| format!("{} packets dropped at {}\n", row.count, symbol(row));
                format!("\n{}", report.locations.iter().map(row).collect::<String>())
            }
            Line::Sample(_) => return Ok(()),
            Line::End(_) => format!("{STOP}\n"),
        };
        self.medium.write(&text, page)
    }
}
