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
//! the caller reports elsewhere, nor for what samples tell.

use std::io::{self, Write};

use super::{BEGIN, Renderer, STOP, words::symbol};
use crate::report::model::Line;

/// Renders reports as the SystemTap script does. Wants a view that merges reasons.
#[derive(Clone, Copy, Debug)]
pub struct Classic;

impl Renderer for Classic {
    fn render(&self, line: &Line, page: &mut Vec<u8>) -> io::Result<()> {
        match line {
            Line::Start(_) => writeln!(page, "{BEGIN}"),
            Line::Report(report) => {
                writeln!(page)?;
                report.locations.iter().try_for_each(|row| {
                    writeln!(page, "{} packets dropped at {}", row.count, symbol(row))
                })
            }
            Line::Sample(_) => Ok(()),
            Line::End(_) => writeln!(page, "{STOP}"),
        }
    }
}
