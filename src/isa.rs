//! The instruction set, declared once.
//!
//! Every instruction is two bytes, an opcode and an oparg, as in CPython's wordcode; EXTENDED_ARG puts eight more bits
//! above the next oparg, at most three times. From the one table below come the opcodes, the encoder, the decoder, the
//! mnemonics, the stack effects, the listing and its assembler, `rehydrate isa`, the table of DESIGN.md and the C
//! header. Only the meaning (the virtual machine) and the lowering (the emitter) match on opcodes by hand.
//!
//! Sources: faster-cpython/ideas issues 566 and 609; CPython `Python/bytecodes.c` for the stock instructions.

use crate::error::{Error, ErrorKind, Result};
use crate::python::Field;

/// A part of an image's binary data. Each is read front to back, by one cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Interned str, in UTF-8.
    Names,
    /// Other str, in UTF-8.
    Strings,
    /// bytes constants.
    Bytes,
    /// Floats and ints.
    Numbers,
    /// The numbers of code objects and the lengths of their tables.
    Counts,
    /// Bytecode.
    Bytecode,
    /// Line tables.
    LineTables,
    /// Exception tables.
    ExceptionTables,
    /// Kinds of local variables.
    Kinds,
    /// Slots from which instructions take their operands, and numbers of common values.
    References,
    /// Hashes of names.
    Hashes,
}

impl Section {
    /// All, in the order of the image.
    pub const ALL: [Self; 11] = [
        Self::Names,
        Self::Strings,
        Self::Bytes,
        Self::Numbers,
        Self::Counts,
        Self::Bytecode,
        Self::LineTables,
        Self::ExceptionTables,
        Self::Kinds,
        Self::References,
        Self::Hashes,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Strings => "strings",
            Self::Bytes => "bytes",
            Self::Numbers => "numbers",
            Self::Counts => "counts",
            Self::Bytecode => "bytecode",
            Self::LineTables => "line tables",
            Self::ExceptionTables => "exception tables",
            Self::Kinds => "kinds",
            Self::References => "references",
            Self::Hashes => "hashes",
        }
    }

    /// Where MAKE_CODE finds a table.
    pub fn of_table(field: Field) -> Self {
        match field {
            Field::LineTable => Self::LineTables,
            Field::ExceptionTable => Self::ExceptionTables,
            Field::LocalsPlusKinds => Self::Kinds,
            _ => Self::Bytecode,
        }
    }
}

/// Where a table of a code object stands: what [`Section::Counts`] holds of it, as one number whose low bits tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// The next so many bytes of its section. Low bit 0. Those that are numbered are so section by section.
    Inline(u32),
    /// As many bytes of bytecode without its inline caches. See `caches.rs`.
    Stripped(u32),
    /// As many bytes of bytecode as CPython holds it in a new code object: what MAKE_FULL_CODE keeps whole.
    Quickened(u32),
    /// The table of this number in the same section, again. Low bits 01.
    Earlier(u32),
    /// The bytes object in this stack slot. Low bits 11.
    Slot(u32),
}

impl Table {
    /// Its number in MAKE_CODE. Bytecode of versions with inline caches has an even length: bit 1 says that it is kept whole.
    pub(crate) fn number(self, has_caches: bool) -> u32 {
        match self {
            Self::Stripped(len) => len << 1,
            Self::Inline(len) if has_caches => len << 1 | 0b10,
            Self::Inline(len) => len << 1,
            Self::Quickened(_) => unreachable!("MAKE_CODE has none"),
            Self::Earlier(number) => number << 2 | 0b01,
            Self::Slot(slot) => slot << 2 | 0b11,
        }
    }

    /// What its number says in MAKE_CODE, and whether it is numbered, as all are there of more than one byte.
    pub(crate) fn of(number: u32, has_caches: bool) -> (Self, bool) {
        let table = match number & 0b11 {
            0b01 => Self::Earlier(number >> 2),
            0b11 => Self::Slot(number >> 2),
            0b00 if has_caches => Self::Stripped(number >> 1),
            0b10 if has_caches => Self::Inline(number >> 1 & !1),
            _ => Self::Inline(number >> 1),
        };
        (table, matches!(table, Self::Inline(2..) | Self::Stripped(2..)))
    }

    /// Its number in MAKE_FULL_CODE. Bit 1 says that it is numbered, and of bytecode, bit 2 that it is as CPython holds it.
    pub(crate) fn full_number(self, is_numbered: bool) -> u32 {
        let low = if is_numbered { 0b10 } else { 0 };
        match self {
            Self::Inline(len) => len << 2 | low,
            Self::Stripped(len) => len << 3 | low,
            Self::Quickened(len) => len << 3 | 0b100 | low,
            Self::Earlier(number) => number << 2 | 0b01,
            Self::Slot(slot) => slot << 2 | 0b11,
        }
    }

    /// What its number says in MAKE_FULL_CODE, and whether it is numbered.
    #[inline(always)]
    pub(crate) fn of_full(number: u32, is_code: bool) -> (Self, bool) {
        let table = match (number & 0b11, is_code) {
            (0b01, _) => Self::Earlier(number >> 2),
            (0b11, _) => Self::Slot(number >> 2),
            (_, false) => Self::Inline(number >> 2),
            (_, true) if number & 0b100 == 0 => Self::Stripped(number >> 3),
            (_, true) => Self::Quickened(number >> 3),
        };
        (table, number & 0b11 == 0b10)
    }
}

/// What an oparg says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oparg {
    /// Nothing: it is 0.
    Unused,
    /// Bits above the next oparg.
    High,
    /// The int itself, 0 to 255.
    Int,
    /// A Latin-1 code point.
    Char,
    /// An entry of [`crate::common::CONSTS`], or, behind those, of the table of a bundle.
    CommonConst,
    /// An entry of [`crate::common::NAMES`], or, behind those, of the table of a bundle.
    CommonName,
    /// Values, each a number in [`Section::References`]: an entry as of LOAD_COMMON_CONST or LOAD_COMMON_NAME.
    Commons,
    /// A stack slot, 0 the bottom.
    Slot,
    /// A distance from the top of the stack, 1 the top.
    Depth,
    /// Bytes taken from the section.
    Length(Section),
    /// Values taken from the stack.
    Count,
    /// Values made.
    Strings,
    /// Values, each with a number in [`Section::References`]: 0 takes it from the stack, n + 1 copies slot n. The last value
    /// comes first there, so that a loader meets what it takes from the top down.
    References,
    /// Values, each with two bytes in [`Section::References`]: a slot, which is copied, or a slot and 0x8000, which is
    /// moved.
    NearReferences,
    /// A bit for each operand, the lowest for the first pushed: 1 copies the slot that stands in [`Section::References`],
    /// 0 takes it from the stack.
    Mask,
    /// Nothing: it is 0. For each operand two bytes in [`Section::References`]: the slot that is copied, or the length of a tuple
    /// and 0x8000. The items of such tuples follow, as those of [`Oparg::NearReferences`].
    Slots,
    /// Pairs of values taken from the stack.
    Pairs,
    /// An entry of [`Intrinsic::ALL`].
    Intrinsic,
}

/// What an instruction takes from the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pops {
    /// So many values.
    Fixed(u32),
    /// So many for each unit of the oparg.
    PerOparg(u32),
    /// What the version's MAKE_CODE takes, less what it copies.
    Code,
    /// As many as have the number 0 in [`Section::References`].
    References,
}

/// What an instruction pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushes {
    /// So many values.
    Fixed(u32),
    /// As many as its oparg says.
    Oparg,
}

/// Where an instruction comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// CPython has it, with this meaning.
    Stock,
    /// faster-cpython/ideas issue 566 names it.
    Issue566,
    /// Ours.
    Own,
}

/// A row of the table.
#[derive(Debug)]
pub struct Info {
    /// The opcode.
    pub op: Op,
    /// The mnemonic. MAKE_STRING stands for four opcodes: see [`Info::text`].
    pub mnemonic: &'static str,
    /// What the oparg says.
    pub oparg: Oparg,
    /// What it takes from the stack.
    pub pops: Pops,
    /// How many values it pushes.
    pub pushes: Pushes,
    /// Where it comes from.
    pub origin: Origin,
    /// For MAKE_STRING: whether the text is beyond ASCII, and whether it is interned.
    pub text: Option<TextClass>,
    /// What it does.
    pub meaning: &'static str,
}

/// Which of its four opcodes MAKE_STRING has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextClass {
    /// Not all ASCII.
    pub wide: bool,
    /// Interned by CPython.
    pub interned: bool,
}

/// This becomes this:
///
/// ```text
/// 0x10 BuildTuple "BUILD_TUPLE" (Count) Pops::PerOparg(1) => 1, Stock, "Pushes a tuple of them, deepest first";
/// ```
///
/// `Op::BuildTuple = 0x10`, and a row of `TABLE`.
macro_rules! instructions {
    ($($code:literal $op:ident $mnemonic:literal ($oparg:expr) $pops:expr => $pushes:expr,
       $origin:ident, $($text:ident)? $meaning:literal;)*) => {
        /// An opcode. The bytes are part of the format: images outlive builds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Op { $(#[doc = $meaning] $op = $code,)* }

        impl Op {
            /// The opcode of a byte.
            #[inline]
            pub fn new(byte: u8) -> Option<Self> {
                match byte { $($code => Some(Self::$op),)* _ => None }
            }

            /// Its row of the table.
            pub fn info(self) -> &'static Info {
                match self {
                    $(Self::$op => const {
                        &Info {
                            op: Op::$op,
                            mnemonic: $mnemonic,
                            oparg: $oparg,
                            pops: $pops,
                            pushes: pushes($pushes),
                            origin: Origin::$origin,
                            text: instructions!(@text $($text)?),
                            meaning: $meaning,
                        }
                    },)*
                }
            }
        }

        /// Every opcode, in the order of the bytes.
        pub const OPS: &[Op] = &[$(Op::$op),*];
    };
    (@text) => { None };
    (@text ascii) => { Some(TextClass { wide: false, interned: false }) };
    (@text utf8) => { Some(TextClass { wide: true, interned: false }) };
    (@text interned) => { Some(TextClass { wide: false, interned: true }) };
    (@text interned_utf8) => { Some(TextClass { wide: true, interned: true }) };
}

impl Op {
    /// The section that holds the texts of an instruction that makes many str.
    pub(crate) fn texts(self) -> Section {
        if self == Self::MakeTexts { Section::Strings } else { Section::Names }
    }

    /// Whether it makes str with their hashes.
    pub(crate) fn has_hashes(self) -> bool {
        matches!(self, Self::MakeNames | Self::MakeIdentifiers)
    }

    /// Of an instruction that loads many common values: the one that loads one of them.
    pub(crate) fn of_one(self) -> Self {
        match self {
            Self::LoadManyNames => Self::LoadCommonName,
            Self::LoadManyConsts => Self::LoadCommonConst,
            other => other,
        }
    }
}

/// The oparg's number where the table says so, else the number it says.
const fn pushes(number: u32) -> Pushes {
    if number == OPARG { Pushes::Oparg } else { Pushes::Fixed(number) }
}

/// What the table says where an instruction pushes as many values as its oparg says.
const OPARG: u32 = u32::MAX;

instructions! {
    0x01 ExtendedArg "EXTENDED_ARG" (Oparg::High) Pops::Fixed(0) => 0, Stock,
        "Puts eight more bits above the next oparg";
    0x02 LoadInt "LOAD_INT" (Oparg::Int) Pops::Fixed(0) => 1, Issue566,
        "Pushes a small int";
    0x03 LoadCommonConst "LOAD_COMMON_CONST" (Oparg::CommonConst) Pops::Fixed(0) => 1, Issue566,
        "Pushes a common constant";
    0x04 LoadCommonName "LOAD_COMMON_NAME" (Oparg::CommonName) Pops::Fixed(0) => 1, Issue566,
        "Pushes a common name, interned";
    0x05 LoadFast "LOAD_FAST" (Oparg::Slot) Pops::Fixed(0) => 1, Stock,
        "Pushes the value of a stack slot: without local variables, the stack begins at slot 0";
    0x06 Copy "COPY" (Oparg::Depth) Pops::Fixed(0) => 1, Stock,
        "Pushes the value at a distance from the top";
    0x07 LoadChar "LOAD_CHAR" (Oparg::Char) Pops::Fixed(0) => 1, Own,
        "Pushes the str of one Latin-1 character";
    0x08 MakeString "MAKE_STRING" (Oparg::Length(Section::Strings)) Pops::Fixed(0) => 1, Issue566,
        ascii "Pushes a str of ASCII";
    0x09 MakeStringUtf8 "MAKE_STRING" (Oparg::Length(Section::Strings)) Pops::Fixed(0) => 1, Issue566,
        utf8 "Pushes a str of UTF-8 with surrogates, not all ASCII";
    0x0a MakeStringInterned "MAKE_STRING" (Oparg::Length(Section::Names)) Pops::Fixed(0) => 1, Issue566,
        interned "Pushes an interned str of ASCII";
    0x0b MakeStringInternedUtf8 "MAKE_STRING" (Oparg::Length(Section::Names)) Pops::Fixed(0) => 1, Issue566,
        interned_utf8 "Pushes an interned str of UTF-8 with surrogates, not all ASCII";
    0x0c MakeBytes "MAKE_BYTES" (Oparg::Length(Section::Bytes)) Pops::Fixed(0) => 1, Issue566,
        "Pushes bytes";
    0x0d MakeFloat "MAKE_FLOAT" (Oparg::Unused) Pops::Fixed(0) => 1, Issue566,
        "Pushes a float of 8 bytes, IEEE 754, little-endian";
    0x0e MakeLong "MAKE_LONG" (Oparg::Length(Section::Numbers)) Pops::Fixed(0) => 1, Issue566,
        "Pushes an int of bytes, two's complement, little-endian, the fewest that hold it";
    0x0f MakeStrings "MAKE_STRINGS" (Oparg::Strings) Pops::Fixed(0) => OPARG, Own,
        "Pushes so many interned str of ASCII; their lengths stand in the counts";
    0x10 BuildTuple "BUILD_TUPLE" (Oparg::Count) Pops::PerOparg(1) => 1, Stock,
        "Pushes a tuple of its operands, deepest first";
    0x11 BuildList "BUILD_LIST" (Oparg::Count) Pops::PerOparg(1) => 1, Stock,
        "Pushes a list of its operands, deepest first";
    0x12 BuildSet "BUILD_SET" (Oparg::Count) Pops::PerOparg(1) => 1, Stock,
        "Pushes a set, its operands added deepest first";
    0x13 BuildMap "BUILD_MAP" (Oparg::Pairs) Pops::PerOparg(2) => 1, Stock,
        "Pushes a dict of key, value, key, value, ..., deepest first";
    0x14 BuildSlice "BUILD_SLICE" (Oparg::Count) Pops::PerOparg(1) => 1, Stock,
        "Pushes a slice of start, stop and step; its oparg is 3";
    0x15 ListAppend "LIST_APPEND" (Oparg::Depth) Pops::Fixed(1) => 0, Stock,
        "Appends the top to the list at a distance from the top below it";
    0x16 MapAdd "MAP_ADD" (Oparg::Depth) Pops::Fixed(2) => 0, Stock,
        "Adds a key and the value above it to the dict at a distance from the top below them";
    0x17 BuildTupleFrom "BUILD_TUPLE_FROM" (Oparg::References) Pops::References => 1, Own,
        "Pushes a tuple of so many values, each from the stack or from a slot";
    0x18 CallIntrinsic1 "CALL_INTRINSIC_1" (Oparg::Intrinsic) Pops::Fixed(1) => 1, Stock,
        "Pushes what an intrinsic function makes of one value";
    0x19 CallIntrinsic2 "CALL_INTRINSIC_2" (Oparg::Intrinsic) Pops::Fixed(2) => 1, Stock,
        "Pushes what an intrinsic function makes of two values";
    0x1a MakeCode "MAKE_CODE" (Oparg::Mask) Pops::Code => 1, Issue566,
        "Pushes a code object of names, constants, tuples of variable names, name, qualname and filename";
    0x1b MakeNames "MAKE_NAMES" (Oparg::Strings) Pops::Fixed(0) => OPARG, Own,
        "As MAKE_STRINGS, of str that code objects use as names, with their hashes";
    0x1c MakeIdentifiers "MAKE_IDENTIFIERS" (Oparg::Strings) Pops::Fixed(0) => OPARG, Own,
        "As MAKE_NAMES, of constants that look like names, and of names and filenames of code objects";
    0x1d MakeFullCode "MAKE_FULL_CODE" (Oparg::Slots) Pops::Fixed(0) => 1, Own,
        "As MAKE_CODE, with numbers of fixed size, tuples of its own, and bytecode as CPython holds it, or without its caches";
    0x1e ReturnValue "RETURN_VALUE" (Oparg::Unused) Pops::Fixed(1) => 0, Stock,
        "Ends with the top as the result; what lies below is dropped";
    0x1f StartCode "START_CODE" (Oparg::Unused) Pops::Fixed(1) => 0, Issue566,
        "Ends by executing the code object on top as the module's code";
    0x20 LoadManyNames "LOAD_MANY_NAMES" (Oparg::Commons) Pops::Fixed(0) => OPARG, Own,
        "Pushes so many common names, of the table of a bundle too; their numbers stand in the references";
    0x21 LoadManyConsts "LOAD_MANY_CONSTS" (Oparg::Commons) Pops::Fixed(0) => OPARG, Own,
        "As LOAD_MANY_NAMES, of common constants";
    0x22 BuildTupleNear "BUILD_TUPLE_NEAR" (Oparg::NearReferences) Pops::Fixed(0) => 1, Own,
        "Pushes a tuple of so many values from slots below 32768, each copied, or moved, which leaves its slot empty";
    0x23 MakeTexts "MAKE_TEXTS" (Oparg::Strings) Pops::Fixed(0) => OPARG, Own,
        "Pushes so many str of ASCII that are not interned; their lengths stand in the counts";
}

/// A function of CALL_INTRINSIC_1 or CALL_INTRINSIC_2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intrinsic {
    /// A complex of its real and imaginary part, two floats.
    MakeComplex,
    /// A frozenset of a tuple, its items added in order.
    MakeFrozenSet,
    /// A frozendict of a dict that nothing else holds.
    MakeFrozenDict,
}

impl Intrinsic {
    /// All, at their operands.
    pub const ALL: [Self; 3] = [Self::MakeComplex, Self::MakeFrozenSet, Self::MakeFrozenDict];

    /// The operand.
    pub fn operand(self) -> u32 {
        self as u32
    }

    /// What a listing calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MakeComplex => "make_complex",
            Self::MakeFrozenSet => "make_frozenset",
            Self::MakeFrozenDict => "make_frozendict",
        }
    }

    /// The instruction that calls it.
    pub fn op(self) -> Op {
        match self {
            Self::MakeComplex => Op::CallIntrinsic2,
            Self::MakeFrozenSet | Self::MakeFrozenDict => Op::CallIntrinsic1,
        }
    }
}

/// Where an operand of an instruction comes from that says so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand {
    /// From the top of what is left of the stack.
    Taken,
    /// From this slot, which keeps it.
    Copied(u32),
    /// From this slot, which is empty then.
    Moved(u32),
    /// It is a tuple of so many of those that follow.
    Tuple(u32),
}

impl Operand {
    /// The slot that it stands in.
    pub(crate) fn slot(self) -> Option<u32> {
        match self {
            Self::Copied(slot) | Self::Moved(slot) => Some(slot),
            Self::Taken | Self::Tuple(_) => None,
        }
    }
}

/// Set in a reference of two bytes: the slot is moved.
pub(crate) const MOVED: u16 = 0x8000;

/// Set in two bytes of an operand of MAKE_FULL_CODE: it is a tuple of so many items, which follow.
pub(crate) const INLINE: u16 = 0x8000;

/// An instruction, its EXTENDED_ARGs folded into its operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instruction {
    /// The opcode.
    pub op: Op,
    /// The oparg.
    pub oparg: u32,
}

impl Instruction {
    /// How many values it takes from the stack; `operands` say where from, if it says so itself.
    pub(crate) fn pops(self, operands: &[Operand]) -> u64 {
        match self.op.info().pops {
            Pops::Fixed(n) => u64::from(n),
            Pops::PerOparg(n) => u64::from(n) * u64::from(self.oparg),
            Pops::Code | Pops::References => {
                operands.iter().filter(|operand| **operand == Operand::Taken).count() as u64
            }
        }
    }

    /// How many values it pushes.
    pub(crate) fn pushes(self) -> u64 {
        match self.op.info().pushes {
            Pushes::Fixed(n) => u64::from(n),
            Pushes::Oparg => u64::from(self.oparg),
        }
    }

    /// Bytes that it takes, EXTENDED_ARGs included.
    #[inline]
    pub fn len(op_arg: u32) -> usize {
        match op_arg {
            0..0x100 => 2,
            0x100..0x1_0000 => 4,
            0x1_0000..0x100_0000 => 6,
            _ => 8,
        }
    }

    /// Appends its bytes.
    #[inline]
    pub fn encode(self, out: &mut Vec<u8>) {
        if let Ok(oparg) = u8::try_from(self.oparg) {
            out.extend_from_slice(&[self.op as u8, oparg]);
            return;
        }
        let [low, high @ ..] = self.oparg.to_le_bytes();
        let extended = Self::len(self.oparg) / 2 - 1;
        for byte in high[..extended].iter().rev() {
            out.extend_from_slice(&[Op::ExtendedArg as u8, *byte]);
        }
        out.extend_from_slice(&[self.op as u8, low]);
    }

    /// Reads the instruction at `at`, and where the next one begins.
    ///
    /// # Errors
    /// An unknown opcode, a lone byte, an EXTENDED_ARG that is needless, one too many, or the last.
    #[inline]
    pub fn decode(instructions: &[u8], at: usize) -> Result<(Self, usize)> {
        if let Some(&[byte, oparg]) = instructions.get(at..at + 2)
            && let Some(op) = Op::new(byte)
            && op != Op::ExtendedArg
        {
            return Ok((Self { op, oparg: u32::from(oparg) }, at + 2));
        }
        Self::decode_extended(instructions, at)
    }

    #[cold]
    fn decode_extended(instructions: &[u8], start: usize) -> Result<(Self, usize)> {
        let bad = |why| Err(Error::at(ErrorKind::BadOperand { mnemonic: "EXTENDED_ARG", operand: 0, why }, start));
        let (mut at, mut high) = (start, 0u32);
        loop {
            let &[byte, oparg] = match instructions.get(at..) {
                Some([byte, oparg, ..]) => &[*byte, *oparg],
                Some([_]) => return Err(Error::at(ErrorKind::BadEnd("the instructions end inside one"), at)),
                _ if at > start => return bad("stands at the end"),
                _ => return Err(Error::at(ErrorKind::BadEnd("the instructions end without RETURN_VALUE"), at)),
            };
            let Some(op) = Op::new(byte) else {
                return Err(Error::at(ErrorKind::UnknownOpcode(byte), at));
            };
            at += 2;
            if op != Op::ExtendedArg {
                return Ok((Self { op, oparg: high << 8 | u32::from(oparg) }, at));
            }
            if oparg == 0 && high == 0 {
                return bad("is needless");
            }
            if high > 0xffff {
                return bad("stands four times in a row");
            }
            high = high << 8 | u32::from(oparg);
        }
    }
}

/// The most values on the stack, or in one instruction: what 32-bit positions and CPython's int can count.
pub const MAX_OPARG: u32 = i32::MAX as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_decodes_to_what_was_encoded() {
        for &op in OPS.iter().filter(|op| **op != Op::ExtendedArg) {
            for oparg in [0, 1, 255, 256, 65535, 65536, 0xff_ffff, 0x100_0000, u32::MAX] {
                let mut bytes = Vec::new();
                Instruction { op, oparg }.encode(&mut bytes);
                assert_eq!(bytes.len(), Instruction::len(oparg));
                assert_eq!(Instruction::decode(&bytes, 0).unwrap(), (Instruction { op, oparg }, bytes.len()));
            }
        }
    }

    #[test]
    fn opcodes_are_their_bytes() {
        let mut seen = 0;
        for byte in 0..=255 {
            if let Some(op) = Op::new(byte) {
                assert_eq!(op as u8, byte);
                assert_eq!(op.info().op, op);
                seen += 1;
            }
        }
        assert_eq!(seen, OPS.len());
    }

    #[test]
    fn extended_arg_has_one_spelling() {
        let said = |bytes: &[u8]| Instruction::decode(bytes, 0).unwrap_err().to_string();
        assert_eq!(said(&[1, 0, 2, 5]), "EXTENDED_ARG 0: is needless (at byte 0x0)");
        assert_eq!(said(&[1, 1]), "EXTENDED_ARG 0: stands at the end (at byte 0x0)");
        assert_eq!(said(&[1, 1, 1, 1, 1, 1, 1, 1, 2, 5]), "EXTENDED_ARG 0: stands four times in a row (at byte 0x0)");
        assert_eq!(said(&[0xee, 0]), "unknown opcode 0xee (at byte 0x0)");
        assert_eq!(said(&[2]), "the instructions end inside one (at byte 0x0)");
        assert_eq!(said(&[]), "the instructions end without RETURN_VALUE (at byte 0x0)");
    }
}
