//! Queues of the packet filter at which a program listens, as the calling thread's namespace has them.

use std::{collections::BTreeMap, io::Read};

use super::{HostRoot, lines::for_each_line};
use crate::report::evidence::PacketQueue;

/// A line for each queue (`seq_show`, net/netfilter/nfnetlink_queue.c). Only root may read it.
const QUEUES: &str = "proc/thread-self/net/netfilter/nfnetlink_queue";
/// Longest line, bytes: nine numbers.
const MAX_LINE: usize = 256;
/// Most queues of a namespace that are looked at.
const MAX_QUEUES: usize = 1024;

/// The queues by number; none where no program listens, or the kernel has no such queues.
pub(super) fn read(root: &HostRoot) -> BTreeMap<u16, PacketQueue> {
    root.open(QUEUES).map(parse).unwrap_or_default()
}

/// Queue, port of the listener, packets that wait, what is copied of each and how much, packets lost
/// since the queue was full, packets lost since the program's socket was.
fn parse(reader: impl Read) -> BTreeMap<u16, PacketQueue> {
    let mut queues = BTreeMap::new();
    let _skipped = for_each_line(reader, MAX_LINE, |line| {
        let line = String::from_utf8_lossy(line);
        let numbers: Vec<u64> = line.split_whitespace().map_while(|it| it.parse().ok()).collect();
        let [number, listener, waiting, _, _, dropped, user_dropped, ..] = numbers[..] else {
            return;
        };
        let (Ok(number), Ok(listener)) = (number.try_into(), listener.try_into()) else { return };
        if queues.len() < MAX_QUEUES {
            queues.insert(number, PacketQueue { listener, waiting, dropped, user_dropped });
        }
    });
    queues
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Linux 6.18 writes it, of a queue that takes ten packets.
    #[test]
    fn a_queue_has_a_listener_and_two_counters_of_losses() {
        let text =
            "    5   7384    10 2    64    50     3       10  1\n   odd\n70000 1 1 2 64 0 0 1 1\n";
        let expected = PacketQueue { listener: 7384, waiting: 10, dropped: 50, user_dropped: 3 };
        assert_eq!(parse(text.as_bytes()), [(5, expected)].into());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,300}") {
            let _ = parse(text.as_bytes());
        }
    }
}
