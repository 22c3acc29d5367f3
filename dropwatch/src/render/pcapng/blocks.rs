//! Blocks and options, the parts that a pcapng file is made of (draft-ietf-opsawg-pcapng, sections
//! 3 and 4), in little-endian byte order.

/// Longest text of an option, bytes; its length field would allow 65,535.
const MAX_TEXT: usize = 1024;

/// Block types.
pub(super) mod block {
    pub(in super::super) const SECTION_HEADER: u32 = 0x0A0D_0D0A;
    pub(in super::super) const INTERFACE: u32 = 1;
    pub(in super::super) const ENHANCED_PACKET: u32 = 6;
}

/// Option codes; those below 2 are common to all blocks.
pub(super) mod option {
    pub(in super::super) const END: u16 = 0;
    pub(in super::super) const COMMENT: u16 = 1;
    pub(in super::super) const SECTION_OS: u16 = 3;
    pub(in super::super) const SECTION_APPLICATION: u16 = 4;
    pub(in super::super) const INTERFACE_NAME: u16 = 2;
    pub(in super::super) const INTERFACE_TIME_RESOLUTION: u16 = 9;
    pub(in super::super) const PACKET_FLAGS: u16 = 2;
}

/// A block: type, length, body, length again; the body is padded to four bytes.
pub(super) fn write_block(page: &mut Vec<u8>, block_type: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let mut content = Vec::new();
    body(&mut content);
    pad(&mut content);
    let length = (content.len() as u32 + 12).to_le_bytes();
    page.extend(block_type.to_le_bytes());
    page.extend(length);
    page.extend(content);
    page.extend(length);
}

/// An option that is UTF-8 text, cut at a character.
pub(super) fn write_text(body: &mut Vec<u8>, code: u16, text: &str) {
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|&at| text.is_char_boundary(at));
    write_option(body, code, &text.as_bytes()[..end.unwrap_or(0)]);
}

/// An option: code, length of the value without padding, value. `value` is at most [`MAX_TEXT`].
pub(super) fn write_option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

/// Zeros up to a multiple of four, counted from the start of a block's body, which is aligned.
pub(super) fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}
