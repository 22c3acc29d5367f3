//! Listening TCP sockets of the calling thread's namespace, from `/proc/net/tcp`.
//!
//! They come before all others there (`tcp_seq_start`, net/ipv4/tcp_ipv4.c), so reading ends at the
//! first socket that does not listen, however many connections there are. `ss` asks the kernel by
//! netlink instead, which may load a module.

use std::io::{BufRead, BufReader, Read};

use super::HostRoot;
use crate::report::evidence::Listener;

/// Tables of TCP sockets, of IPv4 and of IPv6 (`/proc/net/tcp`, proc_pid_net(5)).
const FILES: [&str; 2] = ["proc/thread-self/net/tcp", "proc/thread-self/net/tcp6"];
/// Most bytes read of one file, which is enough for some thousand listening sockets.
const MAX_FILE: u64 = 1 << 20;
/// `TCP_LISTEN` (include/net/tcp_states.h), as the files have it.
const LISTEN: &str = "0A";

/// The socket at which the most connections wait to be accepted; `None` where none waits.
pub(super) fn fullest(root: &HostRoot) -> Option<Listener> {
    let files = FILES.iter().filter_map(|name| root.open(name).ok());
    files.filter_map(fullest_of).max_by_key(|listener| listener.waiting)
}

fn fullest_of(file: impl Read) -> Option<Listener> {
    let lines = BufReader::new(file.take(MAX_FILE)).lines().map_while(Result::ok).skip(1);
    let listeners = lines.map_while(|line| parse(&line));
    listeners.filter(|listener| listener.waiting > 0).max_by_key(|listener| listener.waiting)
}

/// One line; `None` for a socket that does not listen, and for none at all.
fn parse(line: &str) -> Option<Listener> {
    // Number, local address, remote address, state, queues to send and received.
    let mut words = line.split_whitespace().skip(1);
    let (local, _remote, state) = (words.next()?, words.next()?, words.next()?);
    let (_, waiting) = words.next()?.split_once(':').filter(|_| state == LISTEN)?;
    let (_, port) = local.rsplit_once(':')?;
    Some(Listener {
        port: u16::from_str_radix(port, 16).ok()?,
        waiting: u64::from_str_radix(waiting, 16).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n";

    #[test]
    fn the_longest_queue_of_those_that_listen_counts() {
        let text = format!(
            "{HEAD}   0: 0100007F:0016 00000000:0000 0A 00000000:00000002 00:00000000\n\
             \x20  1: 00000000:1B5B 00000000:0000 0A 00000000:0000001F 00:00000000\n\
             \x20  2: 0100007F:0016 0100007F:D2F0 01 00000000:00000FFF 00:00000000\n\
             \x20  3: 00000000:0050 00000000:0000 0A 00000000:00000FFF 00:00000000\n"
        );
        let expected = Listener { port: 7003, waiting: 31 };
        assert_eq!(fullest_of(text.as_bytes()), Some(expected), "the rest is not looked at");
    }

    #[test]
    fn an_empty_queue_and_broken_lines_are_nothing() {
        let idle = "   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000\n";
        for text in ["", HEAD, &format!("{HEAD}{idle}"), &format!("{HEAD} 0: x y 0A z\n")] {
            assert_eq!(fullest_of(text.as_bytes()), None, "of {text:?}");
        }
    }

    #[test]
    fn ipv6_addresses_are_longer() {
        let line = "   0: 00000000000000000000000000000000:01BB \
                    00000000000000000000000000000000:0000 0A 00000000:00000001 00:00000000";
        assert_eq!(parse(line), Some(Listener { port: 443, waiting: 1 }));
    }
}
