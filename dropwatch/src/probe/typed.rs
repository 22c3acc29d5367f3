//! Writes this kernel's offsets where the program that ships has numbers for them.

use aya_obj::generated::{BPF_K, BPF_LDX, BPF_MEM, BPF_MOV, bpf_insn};
use dropwatch_common::{
    offsets::{NONE, Offsets},
    typed,
};

/// `BPF_ALU64` (include/uapi/linux/bpf.h).
const ALU64: u32 = 0x07;
/// Size bits of a load (`BPF_SIZE`, include/uapi/linux/bpf_common.h).
const SIZE: u32 = 0x18;

/// Writes the offset into a load that has a number in its place; of a field that this kernel lacks it
/// makes a zero.
pub(super) fn patch(code: &mut bpf_insn, offsets: &Offsets) {
    if u32::from(code.code) & !SIZE != BPF_LDX | BPF_MEM {
        return;
    }
    let number = u16::try_from(code.off).ok().and_then(|number| typed::offset(number, offsets));
    match number.map(|offset| (offset, i16::try_from(offset))) {
        None => {}
        Some((_, Ok(offset))) if i32::from(offset) != NONE => code.off = offset,
        Some(_) => {
            code.code = (ALU64 | BPF_MOV | BPF_K) as u8;
            code.off = 0;
            code.imm = 0;
            code.set_src_reg(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use aya_obj::Object;

    use super::{super::attach::OBJECT, *};

    fn numbers() -> Vec<u16> {
        let object = Object::parse(OBJECT).unwrap();
        let code = object.functions.values().flat_map(|function| &function.instructions);
        let of = |code: &bpf_insn| u16::try_from(code.off).ok();
        code.filter_map(of).filter(|number| *number >= typed::FIRST).collect()
    }

    #[test]
    fn every_number_in_the_object_stands_for_a_field() {
        let numbers = numbers();
        for number in &numbers {
            let field = number - number % typed::BYTES;
            assert!(typed::NUMBERS.contains(&field), "{number:#x}");
        }
        for number in typed::NUMBERS {
            assert!(numbers.contains(number), "{number:#x} is nowhere");
        }
    }

    fn load(number: u16) -> bpf_insn {
        let registers = bpf_insn::new_bitfield_1(3, 4);
        let off = number.cast_signed();
        let code = (BPF_LDX | BPF_MEM) as u8;
        bpf_insn { code, _bitfield_align_1: [], _bitfield_1: registers, off, imm: 0 }
    }

    fn patched(number: u16, offsets: &Offsets) -> (u8, u8, u8, i16, i32) {
        let mut code = load(number);
        patch(&mut code, offsets);
        (code.code, code.dst_reg(), code.src_reg(), code.off, code.imm)
    }

    #[test]
    fn a_field_that_the_kernel_lacks_is_zero() {
        let offsets =
            Offsets { skb_dev: 16, skb_sk: 1 << 20, dev_name: 32, skb_vlan: 32, ..Offsets::NONE };
        let load = (BPF_LDX | BPF_MEM) as u8;
        assert_eq!(patched(typed::SKB_DEV, &offsets), (load, 3, 4, 16, 0));
        assert_eq!(patched(typed::DEV_NAME + 12, &offsets), (load, 3, 4, 44, 0));
        assert_eq!(patched(typed::SKB_VLAN + 2, &offsets), (load, 3, 4, 34, 0));
        // `r3 = 0`; as for an offset that no load can have.
        assert_eq!(patched(typed::NET_OPS, &offsets), (0xb7, 3, 0, 0, 0));
        assert_eq!(patched(typed::NET_OPS + 4, &offsets), (0xb7, 3, 0, 0, 0));
        assert_eq!(patched(typed::SKB_SK, &offsets), (0xb7, 3, 0, 0, 0));
        assert_eq!(patched(8, &offsets), (load, 3, 4, 8, 0));
    }
}
