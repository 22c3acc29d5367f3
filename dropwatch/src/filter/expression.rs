//! The code of a filter expression, as `tcpdump -ddd` prints it: classic BPF.
//!
//! The output of a program is not trusted. What this reads is bounded, ends, jumps forward only and
//! within itself, and has no instruction that nobody here knows.

use thiserror::Error;

/// Most instructions that the code of an expression may have. Each becomes up to ten of the kernel's,
/// whose jumps reach 32,767 instructions far.
pub const MOST: usize = 1_024;
/// Cells of the memory that the code has (`BPF_MEMWORDS`, include/uapi/linux/bpf_common.h).
pub const CELLS: u32 = 16;

/// One of the two registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// `A`, in which values are computed.
    Accumulator,
    /// `X`, which is an index into the packet, or the other operand.
    Index,
}

/// The operand beside the accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    Constant(u32),
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Add,
    Subtract,
    Multiply,
    /// Never by the constant 0. By an index of 0, the packet is refused.
    Divide,
    /// As `Divide`.
    Remainder,
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
}

/// A comparison, of numbers without sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    Greater,
    GreaterOrEqual,
    /// A bit is set in both.
    AnyBit,
}

/// An instruction. A load from beyond the end of the packet refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Loads that many bytes (1, 2 or 4), in network byte order, from so far behind the begin of the
    /// packet, or behind that and the index.
    Load {
        bytes: u32,
        at: u32,
        behind_index: bool,
    },
    /// Sets the index to four times the lower half of a byte: the length of an IPv4 header.
    LoadHeaderLength {
        at: u32,
    },
    LoadConstant(Register, u32),
    LoadLength(Register),
    /// From a cell, below [`CELLS`].
    LoadCell(Register, u32),
    StoreCell(Register, u32),
    Calculate(Operation, Operand),
    Negate,
    /// To that register, from the other.
    Copy(Register),
    /// To that instruction.
    Jump(usize),
    /// Compares the accumulator, then goes to one or the other.
    Branch {
        comparison: Comparison,
        with: Operand,
        yes: usize,
        no: usize,
    },
    /// Ends; the packet matches unless this is 0.
    Return(u32),
    /// Ends; the packet matches unless the accumulator is 0.
    ReturnAccumulator,
}

impl Instruction {
    /// The greatest value that this may give to the index; 0 where it gives it none.
    fn greatest_index(&self) -> u32 {
        match *self {
            // Fifteen words.
            Self::LoadHeaderLength { .. } => 60,
            Self::LoadConstant(Register::Index, value) => value,
            Self::LoadLength(Register::Index)
            | Self::LoadCell(Register::Index, _)
            | Self::Copy(Register::Index) => u32::MAX,
            _ => 0,
        }
    }
}

/// Why some text is not the code of an expression that packets can be filtered by.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CodeError {
    #[error("it takes more than {MOST} instructions; make it shorter, or use --host and --port")]
    TooLong,
    #[error("it goes through a packet in a loop (protochain does), which the kernel does not")]
    Loop,
    #[error("it asks for {0}, which a packet that is dropped cannot be asked for")]
    Ancillary(&'static str),
    #[error("its code is not understood ({0})")]
    Unknown(&'static str),
}

/// Code that can be run: not empty, each jump leads forward to an instruction, and no way leads out of
/// it but by its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionCode(Vec<Instruction>);

impl ExpressionCode {
    /// Reads what `tcpdump -ddd` prints: a line with the number of instructions, then one for each,
    /// with its code, two distances to jump, and a constant, all decimal.
    ///
    /// # Errors
    /// Why it is no code, or none that can be run.
    pub fn parse(text: &[u8]) -> Result<Self, CodeError> {
        let text = str::from_utf8(text).map_err(|_| CodeError::Unknown("not text"))?;
        let mut lines = text.lines();
        let count = lines.next().and_then(|line| line.trim().parse::<usize>().ok());
        let count = count.ok_or(CodeError::Unknown("no number of instructions"))?;
        if count > MOST {
            return Err(CodeError::TooLong);
        }
        let mut code = Vec::with_capacity(count);
        for line in lines {
            if code.len() == count {
                return Err(CodeError::Unknown("more instructions than announced"));
            }
            code.push(Raw::parse(line)?.decode(code.len(), count)?);
        }
        if code.len() != count {
            return Err(CodeError::Unknown("fewer instructions than announced"));
        }
        match code.last() {
            Some(Instruction::Return(_) | Instruction::ReturnAccumulator) => Ok(Self(code)),
            _ => Err(CodeError::Unknown("no end")),
        }
    }

    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }

    /// How many bytes of a frame, from its begin on, hold all that it may ever ask for. Where only the
    /// frame tells, that is [`u32::MAX`].
    pub fn asks_for(&self) -> u32 {
        let index = self.0.iter().map(Instruction::greatest_index).max().unwrap_or(0);
        let asks = |instruction: &Instruction| match *instruction {
            Instruction::Load { bytes, at, behind_index } => {
                at.saturating_add(bytes).saturating_add(if behind_index { index } else { 0 })
            }
            Instruction::LoadHeaderLength { at } => at.saturating_add(1),
            _ => 0,
        };
        self.0.iter().map(asks).max().unwrap_or(0)
    }
}

/// `struct sock_filter` (include/uapi/linux/filter.h).
struct Raw {
    code: u16,
    yes: u8,
    no: u8,
    constant: u32,
}

/// Names that the kernel gives what stands beside a packet, in steps of four (`SKF_AD_*`,
/// include/uapi/linux/filter.h).
const ANCILLARY: [&str; 16] = [
    "protocol",
    "pkttype",
    "ifindex",
    "nlattr",
    "nlattr_nest",
    "mark",
    "queue",
    "hatype",
    "rxhash",
    "cpu",
    "alu_xor_x",
    "vlan_tag",
    "vlan_tag_present",
    "pay_offset",
    "random",
    "vlan_tpid",
];
/// Where their numbers begin (`SKF_AD_OFF`), and those of headers that the kernel has found
/// (`SKF_LL_OFF`, the lower of two), of the same file.
const SKF_AD_OFF: u32 = (-0x1000_i32).cast_unsigned();
const SKF_LL_OFF: u32 = (-0x20_0000_i32).cast_unsigned();

impl Raw {
    fn parse(line: &str) -> Result<Self, CodeError> {
        let malformed = CodeError::Unknown("not four numbers");
        let mut numbers = line.split_ascii_whitespace();
        let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
        let four = (|| {
            let (code, yes, no, constant) = (next()?, next()?, next()?, next()?);
            Some(Self {
                code: code.try_into().ok()?,
                yes: yes.try_into().ok()?,
                no: no.try_into().ok()?,
                constant,
            })
        })();
        if numbers.next().is_some() {
            return Err(malformed);
        }
        four.ok_or(malformed)
    }

    /// As the instruction of that number, among so many.
    fn decode(&self, number: usize, count: usize) -> Result<Instruction, CodeError> {
        use Register::{Accumulator, Index};
        let constant = self.constant;
        let load = |bytes, behind_index: bool| {
            let named = constant.wrapping_sub(SKF_AD_OFF) as usize / 4;
            match ANCILLARY.get(named) {
                Some(name) if constant >= SKF_AD_OFF => Err(CodeError::Ancillary(name)),
                _ if !behind_index && constant >= SKF_LL_OFF => {
                    Err(CodeError::Ancillary("headers that the kernel has found"))
                }
                _ => Ok(Instruction::Load { bytes, at: constant, behind_index }),
            }
        };
        let cell = |of: fn(Register, u32) -> Instruction, register| match constant {
            ..CELLS => Ok(of(register, constant)),
            _ => Err(CodeError::Unknown("no such cell of memory")),
        };
        // BPF_CLASS, BPF_SIZE, BPF_MODE and others, include/uapi/linux/bpf_common.h.
        Ok(match self.code {
            0x20 => load(4, false)?,
            0x28 => load(2, false)?,
            0x30 => load(1, false)?,
            0x40 => load(4, true)?,
            0x48 => load(2, true)?,
            0x50 => load(1, true)?,
            0xb1 => {
                load(1, false)?;
                Instruction::LoadHeaderLength { at: constant }
            }
            0x00 => Instruction::LoadConstant(Accumulator, constant),
            0x01 => Instruction::LoadConstant(Index, constant),
            0x80 => Instruction::LoadLength(Accumulator),
            0x81 => Instruction::LoadLength(Index),
            0x60 => cell(Instruction::LoadCell, Accumulator)?,
            0x61 => cell(Instruction::LoadCell, Index)?,
            0x02 => cell(Instruction::StoreCell, Accumulator)?,
            0x03 => cell(Instruction::StoreCell, Index)?,
            0x84 => Instruction::Negate,
            0x07 => Instruction::Copy(Index),
            0x87 => Instruction::Copy(Accumulator),
            0x06 => Instruction::Return(constant),
            0x16 => Instruction::ReturnAccumulator,
            0x05 => Instruction::Jump(target(number, constant, count)?),
            code if code & 0x07 == 0x04 => self.calculate()?,
            code if code & 0x07 == 0x05 => Instruction::Branch {
                comparison: self.comparison()?,
                with: self.operand(),
                yes: target(number, self.yes.into(), count)?,
                no: target(number, self.no.into(), count)?,
            },
            _ => return Err(CodeError::Unknown("no such instruction")),
        })
    }

    fn operand(&self) -> Operand {
        if self.code & 0x08 == 0 { Operand::Constant(self.constant) } else { Operand::Index }
    }

    fn calculate(&self) -> Result<Instruction, CodeError> {
        let operation = match self.code & !0x0f {
            0x00 => Operation::Add,
            0x10 => Operation::Subtract,
            0x20 => Operation::Multiply,
            0x30 => Operation::Divide,
            0x40 => Operation::Or,
            0x50 => Operation::And,
            0x60 => Operation::ShiftLeft,
            0x70 => Operation::ShiftRight,
            0x90 => Operation::Remainder,
            0xa0 => Operation::Xor,
            _ => return Err(CodeError::Unknown("no such operation")),
        };
        let by_zero = self.operand() == Operand::Constant(0);
        if by_zero && matches!(operation, Operation::Divide | Operation::Remainder) {
            return Err(CodeError::Unknown("division by zero"));
        }
        Ok(Instruction::Calculate(operation, self.operand()))
    }

    fn comparison(&self) -> Result<Comparison, CodeError> {
        Ok(match self.code & !0x0f {
            0x10 => Comparison::Equal,
            0x20 => Comparison::Greater,
            0x30 => Comparison::GreaterOrEqual,
            0x40 => Comparison::AnyBit,
            _ => return Err(CodeError::Unknown("no such comparison")),
        })
    }
}

/// Where a jump of that distance leads.
fn target(number: usize, distance: u32, count: usize) -> Result<usize, CodeError> {
    // Distances are without sign, so one that leads back is one of 2 GiB and more.
    if distance > i32::MAX.cast_unsigned() {
        return Err(CodeError::Loop);
    }
    let target = number + 1 + distance as usize;
    if target < count { Ok(target) } else { Err(CodeError::Unknown("a jump out of it")) }
}

#[cfg(test)]
mod tests;
