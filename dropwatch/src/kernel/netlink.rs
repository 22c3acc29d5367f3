//! Questions to the kernel over a netlink socket, and the attributes of its answers.
//!
//! Answers are read message by message into one buffer, whatever their number. They come from the
//! kernel alone (the sender's port is checked), and still nothing that they say is believed: every
//! length is checked, and what does not add up ends the message that it stands in.

use std::{io, net::IpAddr};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NlasIterator,
};
use netlink_sys::{Socket, SocketAddr};

/// The kernel fills at most 32 KiB at a time (`netlink_recvmsg`, net/netlink/af_netlink.c).
const BUFFER: usize = 64 << 10;
/// Bytes before a message's own content (`struct nlmsghdr`).
const HEADER: usize = 16;
/// Bytes before an attribute's value (`struct nlattr`).
const ATTRIBUTE_HEADER: usize = 4;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NetlinkError {
    /// The kernel's own answer, or a failure of the socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the kernel's answer is malformed")]
    Malformed,
}

/// A socket to one netlink family, in the network namespace that it was made in.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// # Errors
    /// `EPROTONOSUPPORT` where the kernel lacks the family.
    pub(super) fn open(family: isize) -> io::Result<Self> {
        let mut socket = Socket::new(family)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Has the kernel take what the header of a question for all says as a filter (Linux 4.20). Without
    /// that it sends everything.
    ///
    /// # Errors
    /// Where the kernel cannot.
    pub(super) fn filters(self) -> io::Result<Self> {
        self.socket.set_netlink_get_strict_chk(true)?;
        Ok(self)
    }

    /// Asks for one thing, and hands the content of each message of the answer to `each`.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub(super) fn ask(
        &mut self,
        message_type: u16,
        content: &[u8],
        each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        self.send(message_type, NLM_F_REQUEST, content)?;
        self.receive(false, each)
    }

    /// Asks for all that there is (a dump).
    ///
    /// # Errors
    /// The kernel's refusal; what was handed over before it is not all.
    pub(super) fn ask_all(
        &mut self,
        message_type: u16,
        content: &[u8],
        each: impl FnMut(&[u8]),
    ) -> Result<(), NetlinkError> {
        self.send(message_type, NLM_F_REQUEST | NLM_F_DUMP, content)?;
        self.receive(true, each)
    }

    fn send(&mut self, message_type: u16, flags: u16, content: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = vec![0; HEADER + content.len()];
        message[HEADER..].copy_from_slice(content);
        let length = message.len().try_into().map_err(io::Error::other)?;
        let mut header = NetlinkBuffer::new(&mut message);
        header.set_length(length);
        header.set_message_type(message_type);
        header.set_flags(flags);
        header.set_sequence_number(self.sequence);
        self.socket.send(&message, 0).map(drop)
    }

    fn receive(&mut self, all: bool, mut each: impl FnMut(&[u8])) -> Result<(), NetlinkError> {
        loop {
            self.buffer.clear();
            // With MSG_TRUNC the length is that of the message, even where it did not fit.
            let received = match self.socket.recv(&mut self.buffer, libc::MSG_TRUNC) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received?,
            };
            if received == 0 || received > self.buffer.len() {
                return Err(NetlinkError::Malformed);
            }
            for message in messages(&self.buffer) {
                let message = message?;
                // An answer to a question before this one.
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    // An error of zero is an acknowledgement.
                    NLMSG_ERROR => return refusal(message.content),
                    _ => each(message.content),
                }
                if !all {
                    return Ok(());
                }
            }
        }
    }
}

/// One message of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Message<'a> {
    kind: u16,
    sequence: u32,
    content: &'a [u8],
}

/// The messages in a buffer; ends with the first that does not add up.
fn messages(mut buffer: &[u8]) -> impl Iterator<Item = Result<Message<'_>, NetlinkError>> {
    std::iter::from_fn(move || {
        if buffer.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut buffer);
        let Ok(header) = NetlinkBuffer::new_checked(rest) else {
            return Some(Err(NetlinkError::Malformed));
        };
        let length = header.length() as usize;
        let Some(content) = rest.get(HEADER..length) else {
            return Some(Err(NetlinkError::Malformed));
        };
        buffer = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        let (kind, sequence) = (header.message_type(), header.sequence_number());
        Some(Ok(Message { kind, sequence, content }))
    })
}

/// What `struct nlmsgerr` says: a negative error number.
fn refusal(content: &[u8]) -> Result<(), NetlinkError> {
    let Some(code) = content.first_chunk() else { return Err(NetlinkError::Malformed) };
    match i32::from_ne_bytes(*code) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.saturating_neg()).into()),
    }
}

/// Type and value of each attribute in `bytes`, up to the first that does not add up.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(|attribute| {
        let attribute = attribute.ok()?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        Some((kind, attribute.into_inner().get(ATTRIBUTE_HEADER..length)?))
    })
}

/// Adds an attribute (`struct nlattr`) to a message's content, padded.
pub(super) fn add_attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// An attribute's value that is an address of IPv4 or IPv6.
pub(super) fn address(value: &[u8]) -> Option<IpAddr> {
    match *value {
        [a, b, c, d] => Some([a, b, c, d].into()),
        _ => Some(<[u8; 16]>::try_from(value).ok()?.into()),
    }
}

/// The first four bytes of an attribute's value.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*value.first_chunk()?))
}

#[cfg(test)]
pub(super) mod fixture {
    /// An attribute as the kernel writes it.
    pub(in super::super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u16::try_from(value.len() + 4).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{fixture::attribute, *};

    fn message(kind: u16, sequence: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(16 + content.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn messages_follow_each_other_aligned() {
        let buffer = [message(7, 1, b"abc"), message(8, 1, b"")].concat();
        let read: Vec<_> = messages(&buffer).map(Result::unwrap).collect();
        assert_eq!(read[0], Message { kind: 7, sequence: 1, content: b"abc" });
        assert_eq!(read[1], Message { kind: 8, sequence: 1, content: b"" });
        let cut = &buffer[..buffer.len() - 1];
        assert!(matches!(messages(cut).nth(1), Some(Err(NetlinkError::Malformed))));
        assert_eq!(messages(cut).count(), 2, "it ends there");
    }

    #[test]
    fn refusals_are_the_kernels_error_numbers() {
        assert!(refusal(&0_i32.to_ne_bytes()).is_ok());
        let Err(NetlinkError::Io(error)) = refusal(&(-libc::EPERM).to_ne_bytes()) else { panic!() };
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(matches!(refusal(b"x"), Err(NetlinkError::Malformed)));
    }

    #[test]
    fn attributes_lose_their_flags_and_padding() {
        let bytes = [attribute(0x8001, b"nested"), attribute(2, b"x")].concat();
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read, [(1, &b"nested"[..]), (2, b"x")]);
        assert_eq!(attributes(&bytes[..bytes.len() - 4]).count(), 1, "the second one is cut");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_go_on_forever(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / 16 + 1);
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4 + 1);
            let _ = refusal(&bytes);
        }
    }
}
