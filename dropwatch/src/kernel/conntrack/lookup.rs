//! One entry by the tuple of its answers: the question, and the whole entry that the kernel answers with.

use std::net::{IpAddr, SocketAddr};

use super::message::{
    NFGENMSG, entry,
    tuple::{self, IP, PROTO, PROTO_DST_PORT, PROTO_NUM, PROTO_SRC_PORT},
};
use crate::{
    kernel::netlink::{add_attribute, attributes},
    report::question::{Connection, Tuple},
};

/// Marks an attribute whose value is attributes (`NLA_F_NESTED`).
const NESTED: u16 = libc::NLA_F_NESTED as u16;

/// Asks for the entry whose answers are to have this tuple; `None` for addresses of two families.
pub(in crate::kernel) fn by_reply(reply: &Tuple) -> Option<Vec<u8>> {
    let (family, source, destination) = match (reply.from.ip(), reply.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let (from, to) = (from.octets().to_vec(), to.octets().to_vec());
            (libc::AF_INET, (tuple::V4_SRC, from), (tuple::V4_DST, to))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let (from, to) = (from.octets().to_vec(), to.octets().to_vec());
            (libc::AF_INET6, (tuple::V6_SRC, from), (tuple::V6_DST, to))
        }
        _ => return None,
    };
    let (mut addresses, mut above, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, address) in [source, destination] {
        add_attribute(&mut addresses, kind, &address);
    }
    add_attribute(&mut above, PROTO_NUM, &[reply.protocol]);
    add_attribute(&mut above, PROTO_SRC_PORT, &reply.from.port().to_be_bytes());
    add_attribute(&mut above, PROTO_DST_PORT, &reply.to.port().to_be_bytes());
    add_attribute(&mut whole, IP | NESTED, &addresses);
    add_attribute(&mut whole, PROTO | NESTED, &above);
    // Version 0, no resource.
    let mut message = vec![u8::try_from(family).ok()?, 0, 0, 0];
    add_attribute(&mut message, entry::TUPLE_REPLY | NESTED, &whole);
    Some(message)
}

/// Both directions of an entry; `None` for what is not one, or has no ports.
pub(in crate::kernel) fn connection(message: &[u8]) -> Option<Connection> {
    let (mut original, mut reply) = (None, None);
    for (kind, value) in attributes(message.get(NFGENMSG..)?) {
        match kind {
            entry::TUPLE_ORIG => original = Some(ends(value)?),
            entry::TUPLE_REPLY => reply = Some(ends(value)?),
            _ => {}
        }
    }
    Some(Connection { original: original?, reply: reply? })
}

fn ends(value: &[u8]) -> Option<Tuple> {
    let tuple = tuple_of(value)?;
    let [source, destination] = [tuple.source, tuple.destination];
    Some(Tuple {
        protocol: tuple.protocol,
        from: SocketAddr::new(source.address, source.port?),
        to: SocketAddr::new(destination.address, destination.port?),
    })
}

use super::message::tuple as tuple_of;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tuple(from: &str, to: &str) -> Tuple {
        Tuple { protocol: 17, from: from.parse().unwrap(), to: to.parse().unwrap() }
    }

    /// What is asked for is what an entry says of itself.
    #[test]
    fn a_question_and_an_answer_have_one_form() {
        for (from, to) in [("10.0.1.2:53", "10.0.0.2:4000"), ("[fd00::53]:53", "[fd00::2]:4000")] {
            let reply = tuple(from, to);
            let question = by_reply(&reply).unwrap();
            let (_, asked) = attributes(&question[NFGENMSG..]).next().unwrap();
            assert_eq!(ends(asked), Some(reply));
            let mut answer = vec![2, 0, 0, 0];
            add_attribute(&mut answer, entry::TUPLE_ORIG | NESTED, asked);
            assert_eq!(connection(&answer), None, "one direction is no connection");
            add_attribute(&mut answer, entry::TUPLE_REPLY | NESTED, asked);
            assert_eq!(connection(&answer), Some(Connection { original: reply, reply }));
        }
        assert_eq!(by_reply(&tuple("10.0.1.2:53", "[fd00::2]:4000")), None);
    }

    /// As `strace conntrack -G -p udp --reply-src 10.0.1.2 …` has it.
    #[test]
    fn a_question_is_as_conntrack_asks_it() {
        let question = by_reply(&tuple("10.0.1.2:53", "10.0.0.2:4000")).unwrap();
        let expected = [
            &[2, 0, 0, 0][..],
            &[52, 0, 2, 128],
            &[20, 0, 1, 128, 8, 0, 1, 0, 10, 0, 1, 2, 8, 0, 2, 0, 10, 0, 0, 2],
            &[28, 0, 2, 128, 5, 0, 1, 0, 17, 0, 0, 0],
            &[6, 0, 2, 0, 0, 53, 0, 0, 6, 0, 3, 0, 0x0f, 0xa0, 0, 0],
        ]
        .concat();
        assert_eq!(question, expected);
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = connection(&bytes);
        }
    }
}
