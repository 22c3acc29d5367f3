//! The least that a program at the tracepoint can cost: one that does nothing.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use aya_obj::generated::bpf_insn;

use super::sys;

/// `r0 = 0; exit`.
const CODE: [u8; 2] = [0xb7, 0x95];

/// An empty program that is attached to `skb:kfree_skb`, until dropped.
pub(super) struct Empty {
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Empty {
    pub(super) fn attach() -> Result<Self> {
        let code = CODE.map(|code| bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
            off: 0,
            imm: 0,
        });
        let program = sys::Code {
            name: "empty",
            arguments: sys::Arguments::Raw,
            instructions: &code,
            license: c"Dual MIT/GPL",
        };
        let program = sys::load(&program, &mut []).context("cannot load an empty program")?;
        let link = sys::attach_tracepoint(Some(c"kfree_skb"), program.as_fd())
            .context("cannot attach an empty program")?;
        Ok(Self { _program: program, _link: link })
    }
}
