//! A bounded reader of BTF, the kernel's compact type information.
//!
//! One walk over the types checks every bound and remembers where each type starts; the rest
//! reads in place and copies nothing. The layout is `Documentation/bpf/btf.rst` and
//! `include/uapi/linux/btf.h`. A module's BTF is split: its type numbers and its string offsets
//! go on where the kernel's end.

use thiserror::Error;

/// First two bytes, in the byte order of the machine that wrote them.
const MAGIC: u16 = 0xeb9f;
/// Bytes of the header that every version has.
const HEADER: usize = 24;
/// Longest chain of typedefs, pointers and qualifiers followed.
const MAX_CHAIN: usize = 16;

/// Why bytes are not usable as BTF.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BtfError {
    #[error("not BTF: the magic number is missing")]
    Magic,
    #[error("BTF of another byte order")]
    ByteOrder,
    #[error("BTF is cut short or damaged: {0} reaches outside the data")]
    Bounds(&'static str),
    #[error("BTF type {id} is of kind {kind}, which this version of dropwatch does not know")]
    UnknownKind { id: u32, kind: u8 },
}

/// What a type is, `BTF_KIND_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BtfKind {
    Int = 1,
    Ptr,
    Array,
    Struct,
    Union,
    Enum,
    Fwd,
    Typedef,
    Volatile,
    Const,
    Restrict,
    Func,
    FuncProto,
    Var,
    Datasec,
    Float,
    DeclTag,
    TypeTag,
    Enum64,
}

impl BtfKind {
    fn new(kind: u8) -> Option<Self> {
        use BtfKind::*;
        const KINDS: [BtfKind; 19] = [
            Int, Ptr, Array, Struct, Union, Enum, Fwd, Typedef, Volatile, Const, Restrict, Func,
            FuncProto, Var, Datasec, Float, DeclTag, TypeTag, Enum64,
        ];
        KINDS.get(usize::from(kind).checked_sub(1)?).copied()
    }

    /// Bytes behind the common part of a type with `vlen` elements.
    fn tail(self, vlen: usize) -> usize {
        match self {
            BtfKind::Int | BtfKind::Var | BtfKind::DeclTag => 4,
            BtfKind::Array => 12,
            BtfKind::Enum | BtfKind::FuncProto => 8 * vlen,
            BtfKind::Struct | BtfKind::Union | BtfKind::Datasec | BtfKind::Enum64 => 12 * vlen,
            BtfKind::Ptr
            | BtfKind::Fwd
            | BtfKind::Typedef
            | BtfKind::Volatile
            | BtfKind::Const
            | BtfKind::Restrict
            | BtfKind::Func
            | BtfKind::Float
            | BtfKind::TypeTag => 0,
        }
    }
}

/// A type, read in place.
#[derive(Clone, Copy, Debug)]
pub struct BtfType<'a> {
    pub kind: BtfKind,
    /// Elements: members, enumerators, parameters.
    pub vlen: usize,
    /// Empty for anonymous types.
    pub name: &'a str,
    signed: bool,
    /// Size in bytes, or the number of another type, as the kind has it.
    size_or_type: u32,
    tail: &'a [u8],
}

/// Type information of the kernel, or of one module on top of it.
#[derive(Debug)]
pub struct Btf<'a> {
    base: Option<&'a Btf<'a>>,
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type starts in `types`; the first has number `first_id`.
    starts: Vec<u32>,
    first_id: u32,
    first_string: usize,
}

impl<'a> Btf<'a> {
    /// Reads the kernel's BTF.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        Self::read(data, None)
    }

    /// Reads a module's BTF, which is split from `base`.
    pub fn parse_split(data: &'a [u8], base: &'a Btf<'a>) -> Result<Self, BtfError> {
        Self::read(data, Some(base))
    }

    fn read(data: &'a [u8], base: Option<&'a Btf<'a>>) -> Result<Self, BtfError> {
        let magic = data.first_chunk().ok_or(BtfError::Magic)?;
        match u16::from_ne_bytes(*magic) {
            MAGIC => {}
            magic if magic.swap_bytes() == MAGIC => return Err(BtfError::ByteOrder),
            _ => return Err(BtfError::Magic),
        }
        let header = data.get(..HEADER).ok_or(BtfError::Bounds("the header"))?;
        let word = |at| word(header, at).ok_or(BtfError::Bounds("the header"));
        let body = data.get(word(4)?..).ok_or(BtfError::Bounds("the header"))?;
        let part = |offset: usize, length, name| {
            let end = offset.checked_add(length).ok_or(BtfError::Bounds(name))?;
            body.get(offset..end).ok_or(BtfError::Bounds(name))
        };
        let types = part(word(8)?, word(12)?, "the type section")?;
        let strings = part(word(16)?, word(20)?, "the string section")?;
        let mut btf = Self {
            base,
            types,
            strings,
            starts: Vec::new(),
            first_id: base.map_or(1, |base| base.first_id + base.starts.len() as u32),
            first_string: base.map_or(0, |base| base.first_string + base.strings.len()),
        };
        btf.index()?;
        Ok(btf)
    }

    /// Finds where each type starts, and that each is whole.
    fn index(&mut self) -> Result<(), BtfError> {
        let mut at = 0;
        while at < self.types.len() {
            let id = self.first_id.saturating_add(self.starts.len() as u32);
            let info = word(self.types, at + 4).ok_or(BtfError::Bounds("a type"))? as u32;
            let (kind, vlen) = (kind_of(info), vlen_of(info));
            let kind = BtfKind::new(kind).ok_or(BtfError::UnknownKind { id, kind })?;
            self.starts.push(u32::try_from(at).map_err(|_| BtfError::Bounds("a type"))?);
            at += 12 + kind.tail(vlen);
        }
        if at > self.types.len() { Err(BtfError::Bounds("the last type")) } else { Ok(()) }
    }

    /// The type numbered `id`; `None` for `void` (0) and numbers that are not given.
    pub fn get(&self, id: u32) -> Option<BtfType<'a>> {
        let Some(index) = id.checked_sub(self.first_id) else { return self.base?.get(id) };
        let at = *self.starts.get(index as usize)? as usize;
        let info = word(self.types, at + 4)? as u32;
        let (kind, vlen) = (BtfKind::new(kind_of(info))?, vlen_of(info));
        Some(BtfType {
            kind,
            vlen,
            name: self.string(word(self.types, at)?),
            signed: info >> 31 == 1,
            size_or_type: word(self.types, at + 8)? as u32,
            tail: self.types.get(at + 12..at + 12 + kind.tail(vlen))?,
        })
    }

    /// Types of this BTF, without those of its base.
    pub fn types(&self) -> impl Iterator<Item = BtfType<'a>> + '_ {
        (self.first_id..).take(self.starts.len()).filter_map(|id| self.get(id))
    }

    /// Types of one of these kinds of this BTF, without those of its base.
    ///
    /// A kernel has 150,000 types: the kind is looked at before the name is.
    pub fn of_kinds<'b>(&'b self, kinds: &'b [BtfKind]) -> impl Iterator<Item = BtfType<'a>> + 'b {
        self.numbered(kinds).map(|(_, ty)| ty)
    }

    /// Types of one of these kinds of this BTF, each with its number.
    fn numbered<'b>(
        &'b self,
        kinds: &'b [BtfKind],
    ) -> impl Iterator<Item = (u32, BtfType<'a>)> + 'b {
        let is_of_kinds = |start: u32| {
            let info = word(self.types, start as usize + 4).unwrap_or(0) as u32;
            BtfKind::new(kind_of(info)).is_some_and(|kind| kinds.contains(&kind))
        };
        let ids =
            (self.first_id..).zip(&self.starts).filter(move |(_, start)| is_of_kinds(**start));
        ids.filter_map(|(id, _)| Some((id, self.get(id)?)))
    }

    /// Enumerations of this BTF, without those of its base.
    pub fn enums(&self) -> impl Iterator<Item = BtfType<'a>> + '_ {
        self.of_kinds(&[BtfKind::Enum, BtfKind::Enum64])
    }

    /// First enumeration of that name that has enumerators.
    pub fn find_enum(&self, name: &str) -> Option<BtfType<'a>> {
        self.enums().find(|ty| ty.vlen > 0 && ty.name == name)
    }

    /// Names and values of an enumeration; nothing for another kind of type. Unsigned 64-bit
    /// values past `i64::MAX` wrap.
    pub fn enumerators(&self, ty: BtfType<'a>) -> impl Iterator<Item = (&'a str, i64)> + '_ {
        let width = match ty.kind {
            BtfKind::Enum => 8,
            BtfKind::Enum64 => 12,
            _ => usize::MAX,
        };
        ty.tail.chunks_exact(width).filter_map(move |element| {
            let name = self.string(word(element, 0)?);
            let low = word(element, 4)? as u32;
            let value = match word(element, 8) {
                Some(high) => (high as i64) << 32 | i64::from(low),
                None if ty.signed => i64::from(low.cast_signed()),
                None => i64::from(low),
            };
            Some((name, value))
        })
    }

    /// Structures by their names, found in one walk; the first that has members.
    pub fn find_structs<const N: usize>(&self, names: [&str; N]) -> [Option<BtfType<'a>>; N] {
        let mut found = [None; N];
        for ty in self.of_kinds(&[BtfKind::Struct]).filter(|ty| ty.vlen > 0) {
            if let Some(index) = names.iter().position(|name| *name == ty.name)
                && found[index].is_none()
            {
                found[index] = Some(ty);
            }
        }
        found
    }

    /// Bytes from the start of a structure to the member at `path`, whose parts are separated by
    /// dots: `ns.inum`. Members of anonymous structures and unions belong to what encloses them,
    /// as in C. `None` where there is no such member, or it is a bit field.
    pub fn offset_of(&self, ty: BtfType<'a>, path: &str) -> Option<u32> {
        let (name, rest) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
        let BtfMember { bits, width: 0, ty: member } = self.member(ty, name, MAX_CHAIN)? else {
            return None;
        };
        let offset = (bits % 8 == 0).then_some(bits / 8)?;
        let Some(rest) = rest else { return Some(offset) };
        Some(offset + self.offset_of(self.resolved(member)?, rest)?)
    }

    /// Whether the member `name` of a structure is a number, no structure or pointer.
    pub fn is_integer(&self, ty: BtfType<'a>, name: &str) -> bool {
        let member = self.member(ty, name, MAX_CHAIN);
        let member = member.and_then(|member| self.resolved(member.ty));
        member.is_some_and(|member| member.kind == BtfKind::Int)
    }

    /// Bits from the start of a structure to the bit field `name`, which is `width` bits wide. On a
    /// little-endian machine, bit 0 of a byte is its lowest.
    pub fn bits_of(&self, ty: BtfType<'a>, name: &str, width: u32) -> Option<u32> {
        let member = self.member(ty, name, MAX_CHAIN)?;
        (member.width == width).then_some(member.bits)
    }

    /// A member by its name; looks into anonymous members, `depth` deep.
    fn member(&self, ty: BtfType<'a>, name: &str, depth: usize) -> Option<BtfMember> {
        if !matches!(ty.kind, BtfKind::Struct | BtfKind::Union) {
            return None;
        }
        // The flag that marks signed enumerations says here that offsets hold bit-field sizes.
        let sized = ty.signed;
        ty.tail.chunks_exact(12).find_map(|member| {
            let (own, ty, bits) =
                (self.string(word(member, 0)?), word(member, 4)? as u32, word(member, 8)? as u32);
            let (width, bits) = if sized { (bits >> 24, bits & 0x00ff_ffff) } else { (0, bits) };
            if own == name {
                return Some(BtfMember { bits, width, ty });
            }
            if !own.is_empty() || depth == 0 {
                return None;
            }
            let inner = self.member(self.resolved(ty)?, name, depth - 1)?;
            Some(BtfMember { bits: bits + inner.bits, ..inner })
        })
    }

    /// The type behind typedefs and qualifiers.
    fn resolved(&self, id: u32) -> Option<BtfType<'a>> {
        let mut ty = self.get(id)?;
        for _ in 0..MAX_CHAIN {
            match ty.kind {
                BtfKind::Typedef
                | BtfKind::Const
                | BtfKind::Volatile
                | BtfKind::Restrict
                | BtfKind::TypeTag => {
                    ty = self.get(ty.size_or_type)?;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    /// Arguments that the tracepoint `event` gives to a raw tracepoint program; `None` where the
    /// kernel does not describe it.
    ///
    /// The type is `typedef void (*btf_trace_<event>)(void *, …)` (`include/trace/bpf_probe.h`):
    /// its first parameter is the tracepoint's own and is not counted.
    pub fn tracepoint_args(&self, event: &str) -> Option<usize> {
        self.tracepoint(event)?.vlen.checked_sub(1)
    }

    /// Which of those arguments points to the structure `name`: 0 is the first of them.
    pub fn tracepoint_arg_to(&self, event: &str, name: &str) -> Option<usize> {
        // `struct btf_param`: name and type, four bytes each.
        let (parameters, _) = self.tracepoint(event)?.tail.as_chunks::<8>();
        parameters.iter().skip(1).position(|[_, _, _, _, ty @ ..]| {
            let ty = self.get(u32::from_ne_bytes(*ty)).filter(|ty| ty.kind == BtfKind::Ptr);
            let target = ty.and_then(|ty| self.without_qualifiers(ty.size_or_type));
            target.is_some_and(|ty| {
                matches!(ty.kind, BtfKind::Struct | BtfKind::Fwd) && ty.name == name
            })
        })
    }

    /// The number of the type by which a program with typed arguments is attached to the tracepoint
    /// `event`.
    pub fn tracepoint_type(&self, event: &str) -> Option<u32> {
        let name = format!("btf_trace_{event}");
        self.numbered(&[BtfKind::Typedef]).find(|(_, ty)| ty.name == name).map(|(id, _)| id)
    }

    /// The function that a program at the tracepoint `event` is, with its parameters.
    fn tracepoint(&self, event: &str) -> Option<BtfType<'a>> {
        let typedef = self.get(self.tracepoint_type(event)?)?;
        let pointer = self.without_qualifiers(typedef.size_or_type)?;
        let function = self.without_qualifiers(pointer.size_or_type)?;
        (pointer.kind == BtfKind::Ptr && function.kind == BtfKind::FuncProto).then_some(function)
    }

    /// The type `id`, behind names and qualifiers that it has.
    fn without_qualifiers(&self, id: u32) -> Option<BtfType<'a>> {
        let mut ty = self.get(id)?;
        for _ in 0..MAX_CHAIN {
            ty = match ty.kind {
                BtfKind::Typedef | BtfKind::Const | BtfKind::Volatile | BtfKind::Restrict => {
                    self.get(ty.size_or_type)?
                }
                _ => return Some(ty),
            };
        }
        None
    }

    /// String at `offset`, empty where there is none or it is not text.
    fn string(&self, offset: usize) -> &'a str {
        let Some(offset) = offset.checked_sub(self.first_string) else {
            return self.base.map_or("", |base| base.string(offset));
        };
        let rest = self.strings.get(offset..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == 0).unwrap_or(0);
        str::from_utf8(&rest[..end]).unwrap_or("")
    }
}

/// Where a member is, and what.
struct BtfMember {
    /// From the start of the structure.
    bits: u32,
    /// Bits of a bit field; 0 for any other member.
    width: u32,
    /// Number of the member's type.
    ty: u32,
}

fn word(data: &[u8], at: usize) -> Option<usize> {
    let bytes = data.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes) as usize)
}

/// Bits 24 to 30 of a type's info word. Kinds have used five of them so far; the others are
/// required to be zero, so a wider reading is the same today and safe tomorrow.
fn kind_of(info: u32) -> u8 {
    (info >> 24 & 0x7f) as u8
}

/// Bits 0 to 23, of which 16 are in use, the others required to be zero.
fn vlen_of(info: u32) -> usize {
    (info & 0x00ff_ffff) as usize
}
