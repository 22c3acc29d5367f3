//! Makes the kernel's instructions of the code of a filter expression, and puts them into the object.
//!
//! Classic BPF has the packet, two registers and sixteen cells; here the packet is a
//! [`View`], which a register points to, and cells are on the stack. No instruction calls anything.
//! What lies beyond the end of the packet refuses it, as in a capture; what lies behind the part that
//! can be told leaves it undecided.

use std::mem::offset_of;

use aya_obj::{
    Object,
    generated::{
        BPF_ALU, BPF_ALU64, BPF_B, BPF_END, BPF_EXIT, BPF_H, BPF_JA, BPF_JMP, BPF_JMP32, BPF_K,
        BPF_LDX, BPF_MEM, BPF_MOV, BPF_ST, BPF_STX, BPF_TO_BE, BPF_W, BPF_X, bpf_insn,
    },
};
use dropwatch_common::expression::{ADDRESSES, BYTES, FUNCTION, READ, View, verdict};
use thiserror::Error;

use crate::filter::expression::{
    CELLS, Comparison, ExpressionCode, Instruction, Operand, Operation, Register,
};

/// Registers. None that a function has to leave as they were, and none is kept across a call.
mod register {
    /// The verdict; before it, how long a packet has to be for a load.
    pub(super) const NEEDED: u8 = 0;
    pub(super) const VIEW: u8 = 1;
    pub(super) const ACCUMULATOR: u8 = 2;
    pub(super) const INDEX: u8 = 3;
    /// An address, or what is compared.
    pub(super) const OTHER: u8 = 4;
    /// How many bytes of the frame can be told.
    pub(super) const READABLE: u8 = 5;
    pub(super) const FRAME: u8 = 10;
}
use register::{ACCUMULATOR, FRAME, INDEX, NEEDED, OTHER, READABLE, VIEW};

/// Conditions of jumps (include/uapi/linux/bpf_common.h, bpf.h).
const EQUAL: u32 = 0x10;
const GREATER: u32 = 0x20;
const GREATER_OR_EQUAL: u32 = 0x30;
const ANY_BIT: u32 = 0x40;
const NOT_EQUAL: u32 = 0x50;
const LESS: u32 = 0xa0;
const LESS_OR_EQUAL: u32 = 0xb0;

/// The code of an expression is too long for the kernel's jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the filter expression is too long for the kernel")]
pub(super) struct TooFar;

/// Puts the code of the expression where the object has a function for it.
///
/// Needed before its calls are relocated.
pub(super) fn insert(object: &mut Object, code: &[bpf_insn]) -> bool {
    let mut functions = object.functions.values_mut();
    let Some(function) = functions.find(|function| function.name == FUNCTION) else { return false };
    function.instructions = code.to_vec();
    // Of another length than what the linker left: no relocation within that is one of this code.
    function.section_offset = usize::MAX >> 1 & !7;
    true
}

/// How many bytes the kernel side is to read of each packet: what the expression may ask for, in whole
/// words of 64 bits, which is how the kernel copies; at least one.
pub(super) fn reads(program: &ExpressionCode) -> u32 {
    program.asks_for().clamp(1, READ as u32).next_multiple_of(8)
}

/// Where a jump leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// The code of an instruction, by its number.
    Instruction(usize),
    End(End),
}

/// Ways to end, in the order in which they stand behind the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A load needs more than can be told: the packet is refused if it is shorter, else undecided.
    Short,
    Undecided,
    No,
    Yes,
}

const ENDS: [End; 4] = [End::Short, End::Undecided, End::No, End::Yes];

/// Code that is being written.
#[derive(Default)]
struct Writer {
    code: Vec<bpf_insn>,
    /// Jumps of which only the target is known.
    jumps: Vec<(usize, Target)>,
}

/// Makes a function of a [`View`] that returns one of [`verdict`].
///
/// # Errors
/// Where a jump would be too long.
pub(super) fn translate(program: &ExpressionCode) -> Result<Vec<bpf_insn>, TooFar> {
    let instructions = program.instructions();
    let mut writer = Writer::default();
    writer.begin(instructions);
    // The verifier refuses code that no way leads to.
    let mut reached = vec![false; instructions.len()];
    let mut places = vec![None; instructions.len()];
    if let Some(first) = reached.first_mut() {
        *first = true;
    }
    for (number, instruction) in instructions.iter().enumerate() {
        if !reached[number] {
            continue;
        }
        places[number] = Some(writer.code.len());
        for next in followers(number, instruction).into_iter().flatten() {
            if let Some(reached) = reached.get_mut(next) {
                *reached = true;
            }
        }
        writer.instruction(number, instruction);
    }
    writer.finish(&places)
}

/// The instructions that may come after one.
fn followers(number: usize, instruction: &Instruction) -> [Option<usize>; 2] {
    match *instruction {
        Instruction::Return(_) | Instruction::ReturnAccumulator => [None, None],
        Instruction::Jump(target) => [Some(target), None],
        Instruction::Branch { yes, no, .. } => [Some(yes), Some(no)],
        _ => [Some(number + 1), None],
    }
}

fn of(register: Register) -> u8 {
    match register {
        Register::Accumulator => ACCUMULATOR,
        Register::Index => INDEX,
    }
}

/// Where a cell is, from the end of the stack's frame on.
fn cell(number: u32) -> i16 {
    (number as i16 - CELLS as i16) * 4
}

impl Writer {
    fn push(&mut self, code: u32, to: u8, from: u8, off: i16, imm: u32) {
        let registers = bpf_insn::new_bitfield_1(to, from);
        let code = code as u8;
        let imm = imm.cast_signed();
        self.code.push(bpf_insn { code, _bitfield_align_1: [], _bitfield_1: registers, off, imm });
    }

    fn set(&mut self, to: u8, value: u32) {
        self.push(BPF_ALU | BPF_MOV | BPF_K, to, 0, 0, value);
    }

    fn copy(&mut self, to: u8, from: u8) {
        self.push(BPF_ALU | BPF_MOV | BPF_X, to, from, 0, 0);
    }

    /// Loads a word of the view.
    fn word(&mut self, to: u8, field: usize) {
        self.push(BPF_LDX | BPF_MEM | BPF_W, to, VIEW, field as i16, 0);
    }

    /// Jumps if two registers compare so, as numbers of 64 bits.
    fn jump_if(&mut self, condition: u32, left: u8, right: u8, target: Target) {
        self.jumps.push((self.code.len(), target));
        self.push(BPF_JMP | condition | BPF_X, left, right, 0, 0);
    }

    /// Jumps if a register of 32 bits compares so with the operand.
    fn jump_if_operand(&mut self, condition: u32, left: u8, right: Operand, target: Target) {
        self.jumps.push((self.code.len(), target));
        match right {
            Operand::Constant(value) => {
                self.push(BPF_JMP32 | condition | BPF_K, left, 0, 0, value);
            }
            Operand::Index => self.push(BPF_JMP32 | condition | BPF_X, left, INDEX, 0, 0),
        }
    }

    fn jump(&mut self, target: Target) {
        self.jumps.push((self.code.len(), target));
        self.push(BPF_JMP | BPF_JA, 0, 0, 0, 0);
    }

    /// What stands before the first instruction.
    fn begin(&mut self, instructions: &[Instruction]) {
        let has = |is: fn(&Instruction) -> bool| instructions.iter().any(is);
        self.set(ACCUMULATOR, 0);
        self.set(INDEX, 0);
        self.word(READABLE, offset_of!(View, readable));
        if has(|code| matches!(code, Instruction::LoadCell(..) | Instruction::StoreCell(..))) {
            for number in 0..CELLS {
                self.push(BPF_ST | BPF_MEM | BPF_W, FRAME, 0, cell(number), 0);
            }
        }
    }

    fn instruction(&mut self, number: usize, instruction: &Instruction) {
        match *instruction {
            Instruction::Load { bytes, at, behind_index: false } => {
                self.load_at(ACCUMULATOR, bytes, at);
            }
            Instruction::Load { bytes, at, behind_index: true } => self.load_behind(bytes, at),
            Instruction::LoadHeaderLength { at } => {
                self.load_at(INDEX, 1, at);
                self.push(BPF_ALU | and() | BPF_K, INDEX, 0, 0, 0x0f);
                self.push(BPF_ALU | operation(Operation::ShiftLeft) | BPF_K, INDEX, 0, 0, 2);
            }
            Instruction::LoadConstant(to, value) => self.set(of(to), value),
            Instruction::LoadLength(to) => self.word(of(to), offset_of!(View, length)),
            Instruction::LoadCell(to, number) => {
                self.push(BPF_LDX | BPF_MEM | BPF_W, of(to), FRAME, cell(number), 0);
            }
            Instruction::StoreCell(from, number) => {
                self.push(BPF_STX | BPF_MEM | BPF_W, FRAME, of(from), cell(number), 0);
            }
            Instruction::Calculate(operation, with) => self.calculate(operation, with),
            Instruction::Negate => self.push(BPF_ALU | 0x80, ACCUMULATOR, 0, 0, 0),
            Instruction::Copy(Register::Index) => self.copy(INDEX, ACCUMULATOR),
            Instruction::Copy(Register::Accumulator) => self.copy(ACCUMULATOR, INDEX),
            Instruction::Jump(target) => self.jump(Target::Instruction(target)),
            Instruction::Branch { comparison, with, yes, no } => {
                self.branch(number, comparison, with, yes, no);
            }
            Instruction::Return(0) => self.jump(Target::End(End::No)),
            Instruction::Return(_) => self.jump(Target::End(End::Yes)),
            Instruction::ReturnAccumulator => {
                let nothing = Operand::Constant(0);
                self.jump_if_operand(EQUAL, ACCUMULATOR, nothing, Target::End(End::No));
                self.jump(Target::End(End::Yes));
            }
        }
    }

    /// Loads from so far behind the begin of the frame.
    fn load_at(&mut self, to: u8, bytes: u32, at: u32) {
        let needed = at.saturating_add(bytes);
        // No packet is that long; and the kernel's constants have a sign.
        if needed > i32::MAX.cast_unsigned() {
            return self.fail(End::No);
        }
        self.set(NEEDED, needed);
        if needed > BYTES as u32 {
            return self.fail(End::Short);
        }
        if at < ADDRESSES as u32 {
            self.word(OTHER, offset_of!(View, first));
            let unknown = Target::End(End::Undecided);
            self.jump_if_operand(GREATER, OTHER, Operand::Constant(at), unknown);
        }
        self.jump_if(GREATER, NEEDED, READABLE, Target::End(End::Short));
        self.load(to, VIEW, bytes, at);
    }

    /// Ends, in a way that leaves what follows to be reached as far as the verifier can see: it does
    /// not take code that no way leads to, and another way may lead there.
    fn fail(&mut self, end: End) {
        // Readable are as many bytes as there are, or fewer.
        let always = Operand::Constant(u32::MAX);
        self.jump_if_operand(LESS_OR_EQUAL, READABLE, always, Target::End(end));
    }

    /// Loads from so far behind the index.
    fn load_behind(&mut self, bytes: u32, at: u32) {
        if at > i32::MAX.cast_unsigned() {
            return self.fail(End::No);
        }
        let add = BPF_ALU64 | operation(Operation::Add);
        // The index is added to a constant, not a constant to its copy: the verifier of Linux 6.12 takes
        // registers that differ by a constant for one, and what a comparison says of one for known of the
        // other (`sync_linked_regs()`, kernel/bpf/verifier.c). Where it comes to know the sum of the two
        // exactly, it then knows bounds that contradict each other, and refuses the load.
        self.set(OTHER, at);
        self.push(add | BPF_X, OTHER, INDEX, 0, 0);
        self.set(NEEDED, bytes);
        self.push(add | BPF_X, NEEDED, OTHER, 0, 0);
        // The verifier sees the bound in a comparison with a constant alone.
        self.jumps.push((self.code.len(), Target::End(End::Short)));
        self.push(BPF_JMP | GREATER | BPF_K, OTHER, 0, 0, BYTES as u32 - bytes);
        self.jump_if(GREATER, NEEDED, READABLE, Target::End(End::Short));
        if at < ADDRESSES as u32 {
            self.word(NEEDED, offset_of!(View, first));
            self.jump_if(GREATER, NEEDED, OTHER, Target::End(End::Undecided));
        }
        self.push(add | BPF_X, OTHER, VIEW, 0, 0);
        self.load(ACCUMULATOR, OTHER, bytes, 0);
    }

    /// Loads bytes of the frame, which are there, from so far behind a pointer.
    fn load(&mut self, to: u8, from: u8, bytes: u32, at: u32) {
        let size = match bytes {
            1 => BPF_B,
            2 => BPF_H,
            _ => BPF_W,
        };
        let at = offset_of!(View, bytes) as i16 + at as i16;
        self.push(BPF_LDX | BPF_MEM | size, to, from, at, 0);
        if bytes > 1 {
            self.push(BPF_ALU | BPF_END | BPF_TO_BE, to, 0, 0, bytes * 8);
        }
    }

    fn calculate(&mut self, done: Operation, with: Operand) {
        let code = BPF_ALU | operation(done);
        let shift = matches!(done, Operation::ShiftLeft | Operation::ShiftRight);
        match with {
            // The kernel refuses such a distance.
            Operand::Constant(32..) if shift => self.set(ACCUMULATOR, 0),
            Operand::Constant(value) => self.push(code | BPF_K, ACCUMULATOR, 0, 0, value),
            Operand::Index if shift => {
                // The processor would take it modulo 32.
                self.push(BPF_JMP32 | GREATER | BPF_K, INDEX, 0, 2, 31);
                self.push(code | BPF_X, ACCUMULATOR, INDEX, 0, 0);
                self.push(BPF_JMP | BPF_JA, 0, 0, 1, 0);
                self.set(ACCUMULATOR, 0);
            }
            Operand::Index => {
                if matches!(done, Operation::Divide | Operation::Remainder) {
                    let nothing = Operand::Constant(0);
                    self.jump_if_operand(EQUAL, INDEX, nothing, Target::End(End::No));
                }
                self.push(code | BPF_X, ACCUMULATOR, INDEX, 0, 0);
            }
        }
    }

    fn branch(
        &mut self,
        number: usize,
        comparison: Comparison,
        with: Operand,
        yes: usize,
        no: usize,
    ) {
        let next = number + 1;
        let (condition, opposite) = match comparison {
            Comparison::Equal => (EQUAL, Some(NOT_EQUAL)),
            Comparison::Greater => (GREATER, Some(LESS_OR_EQUAL)),
            Comparison::GreaterOrEqual => (GREATER_OR_EQUAL, Some(LESS)),
            Comparison::AnyBit => (ANY_BIT, None),
        };
        if yes == next && no == next {
            return;
        }
        if let Some(opposite) = opposite.filter(|_| yes == next) {
            return self.jump_if_operand(opposite, ACCUMULATOR, with, Target::Instruction(no));
        }
        self.jump_if_operand(condition, ACCUMULATOR, with, Target::Instruction(yes));
        if no != next {
            self.jump(Target::Instruction(no));
        }
    }

    /// Writes the ends that are in use, then where all jumps lead.
    fn finish(mut self, places: &[Option<usize>]) -> Result<Vec<bpf_insn>, TooFar> {
        let mut ends = [None; ENDS.len()];
        for end in ENDS {
            let leads_here = |(_, target): &(usize, Target)| *target == Target::End(end);
            // A packet that is not too short is undecided: the next end.
            let falls_through = end == End::Undecided && ends[End::Short as usize].is_some();
            if !falls_through && !self.jumps.iter().any(leads_here) {
                continue;
            }
            ends[end as usize] = Some(self.code.len());
            let said = match end {
                End::Short => {
                    self.word(OTHER, offset_of!(View, length));
                    self.jump_if(GREATER, NEEDED, OTHER, Target::End(End::No));
                    continue;
                }
                End::Undecided => verdict::UNDECIDED,
                End::No => verdict::NO,
                End::Yes => verdict::YES,
            };
            self.set(NEEDED, said);
            self.push(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
        }
        for (from, target) in &self.jumps {
            let to = match *target {
                Target::Instruction(number) => places.get(number).copied().flatten(),
                Target::End(end) => ends[end as usize],
            };
            // Every instruction that is jumped to has been reached.
            let distance = to.and_then(|to| to.checked_sub(from + 1)).ok_or(TooFar)?;
            self.code[*from].off = distance.try_into().map_err(|_| TooFar)?;
        }
        Ok(self.code)
    }
}

fn and() -> u32 {
    operation(Operation::And)
}

/// `BPF_OP` of an operation; the kernel's later instructions have the same.
fn operation(operation: Operation) -> u32 {
    match operation {
        Operation::Add => 0x00,
        Operation::Subtract => 0x10,
        Operation::Multiply => 0x20,
        Operation::Divide => 0x30,
        Operation::Or => 0x40,
        Operation::And => 0x50,
        Operation::ShiftLeft => 0x60,
        Operation::ShiftRight => 0x70,
        Operation::Remainder => 0x90,
        Operation::Xor => 0xa0,
    }
}

#[cfg(test)]
mod tests;
