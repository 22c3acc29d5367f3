//! The least that a program at the tracepoint can cost: one that does nothing.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use aya_obj::{
    btf::{Btf, BtfKind},
    generated::bpf_insn,
};

use super::sys;

/// `r0 = 0; exit`.
const CODE: [u8; 2] = [0xb7, 0x95];

/// An empty program that is attached to `skb:kfree_skb`, until dropped.
pub(super) struct Empty {
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Empty {
    /// With typed arguments, or raw ones.
    pub(super) fn attach(typed: bool) -> Result<Self> {
        let arguments = if typed { sys::Arguments::Typed(typedef()?) } else { sys::Arguments::Raw };
        let code = CODE.map(|code| bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
            off: 0,
            imm: 0,
        });
        let program =
            sys::Code { name: "empty", arguments, instructions: &code, license: c"Dual MIT/GPL" };
        let program = sys::load(&program, &mut []).context("cannot load an empty program")?;
        let name = (!typed).then_some(c"kfree_skb");
        let link = sys::attach_tracepoint(name, program.as_fd())
            .context("cannot attach an empty program")?;
        Ok(Self { _program: program, _link: link })
    }
}

/// The number of the type that the tracepoint's arguments have.
fn typedef() -> Result<u32> {
    let types = Btf::from_sys_fs().context("cannot read the kernel's types")?;
    types
        .id_by_type_name_kind("btf_trace_kfree_skb", BtfKind::Typedef)
        .context("the kernel's types lack the tracepoint")
}
