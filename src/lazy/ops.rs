//! The instructions that build constants.
//!
//! A constant is a little program of its own: wordcode without jumps, arguments or local variables, that leaves one value on
//! its stack and ends in RETURN_CONSTANT. Its opargs are numbers in the tables of the whole file. The numbers of these
//! opcodes are ours, the same for every version of Python: a version may leave too few unused, and what builds a constant
//! does not depend on it.

use crate::error::{Error, ErrorKind, Result};

macro_rules! ops {
    ($($opcode:literal $op:ident $name:literal $oparg:ident $pops:literal * $per:literal $doc:literal;)*) => {
        /// An instruction that builds constants.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum Op { $(#[doc = $doc] $op = $opcode,)* }

        const OPS: &[(Op, &str)] = &[$((Op::$op, $doc)),*];

        impl Op {
            fn new(byte: u8) -> Option<Self> {
                match byte { $($opcode => Some(Self::$op),)* _ => None }
            }

            /// What it is called.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$op => $name,)* }
            }

            /// What its oparg is.
            pub(crate) fn oparg(self) -> Oparg {
                match self { $(Self::$op => Oparg::$oparg,)* }
            }

            /// How many values it pops, before it pushes one.
            pub(crate) fn pops(self, oparg: u32) -> u64 {
                match self { $(Self::$op => $pops + $per * u64::from(oparg),)* }
            }
        }
    };
}

/// What an oparg is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Oparg {
    Bits,
    Int,
    Common,
    Constant,
    Text,
    Blob,
    Code,
    /// How many values, or pairs of values.
    Count,
    /// Always 0.
    Unused,
    /// Always 3.
    Three,
    /// The constant itself.
    Own,
}

impl Oparg {
    fn name(self) -> &'static str {
        match self {
            Self::Bits => "bits",
            Self::Int => "int",
            Self::Common => "common constant",
            Self::Constant => "constant",
            Self::Text => "str",
            Self::Blob => "blob",
            Self::Code => "code object",
            Self::Count => "count",
            Self::Unused => "0",
            Self::Three => "3",
            Self::Own => "itself",
        }
    }
}

/// The instructions as a table of Markdown.
pub fn markdown() -> String {
    let mut table = "| opcode | mnemonic | oparg | pops | does |\n|---|---|---|---|---|\n".to_owned();
    for (op, meaning) in OPS {
        let pops = match (op.pops(0), op.pops(1) - op.pops(0)) {
            (pops, 0) => pops.to_string(),
            (_, 1) => "oparg".to_owned(),
            (_, per) => format!("{per}*oparg"),
        };
        let (byte, name, oparg) = (*op as u8, op.name(), op.oparg().name());
        table.push_str(&format!("| `{byte:#04x}` | `{name}` | {oparg} | {pops} | {meaning} |\n"));
    }
    table
}

// Opcode, variant, mnemonic, oparg, how many values it pops (so many, and so many for each of the oparg), what it does.
ops! {
    0x01 ExtendedArg "EXTENDED_ARG" Bits 0 * 0 "Puts eight more bits above the next oparg";
    0x02 MakeInt "MAKE_INT" Int 0 * 0 "Pushes a small int";
    0x03 LoadCommon "LAZY_LOAD_COMMON" Common 0 * 0 "Pushes a common constant";
    0x04 LazyLoadConstant "LAZY_LOAD_CONSTANT" Constant 0 * 0 "Pushes another constant, which is built first if it is not";
    0x05 MakeString "MAKE_STRING" Text 0 * 0 "Pushes a str that is not interned";
    0x06 MakeInternedString "MAKE_INTERNED_STRING" Text 0 * 0 "Pushes a str that is interned";
    0x07 MakeBytes "MAKE_BYTES" Blob 0 * 0 "Pushes bytes";
    0x08 MakeLong "MAKE_LONG" Blob 0 * 0 "Pushes an int";
    0x09 MakeFloat "MAKE_FLOAT" Blob 0 * 0 "Pushes a float";
    0x0a MakeComplex "MAKE_COMPLEX" Unused 2 * 0 "Pushes a complex number of two floats";
    0x0b BuildTuple "BUILD_TUPLE" Count 0 * 1 "Pushes a tuple, its items deepest first";
    0x0c BuildList "BUILD_LIST" Count 0 * 1 "Pushes a list";
    0x0d BuildSet "BUILD_SET" Count 0 * 1 "Pushes a set";
    0x0e BuildMap "BUILD_MAP" Count 0 * 2 "Pushes a dict of so many keys and values";
    0x0f BuildSlice "BUILD_SLICE" Three 3 * 0 "Pushes a slice of start, stop and step";
    0x10 MakeFrozenSet "MAKE_FROZEN_SET" Count 0 * 1 "Pushes a frozenset";
    0x11 MakeFrozenDict "MAKE_FROZEN_DICT" Count 0 * 2 "Pushes a frozendict of so many keys and values";
    0x12 MakeCodeObject "MAKE_CODE_OBJECT" Code 0 * 0 "Pushes a code object as it is: dehydrated, if nobody needed it yet";
    0x13 ReturnConstant "RETURN_CONSTANT" Own 1 * 0 "Stores the constant, and goes on where it was needed";
}

/// Appends an instruction.
pub(crate) fn encode(op: Op, oparg: u32, out: &mut Vec<u8>) {
    let [b3, b2, b1, low] = oparg.to_be_bytes();
    for high in [b3, b2, b1].into_iter().skip_while(|high| *high == 0) {
        out.extend_from_slice(&[Op::ExtendedArg as u8, high]);
    }
    out.extend_from_slice(&[op as u8, low]);
}

/// Reads the instruction at `at`, which is moved behind it.
///
/// # Errors
/// An unknown opcode, an end inside an instruction, an oparg of more than 32 bits; at the byte of `wordcode`.
#[inline]
pub(crate) fn decode(wordcode: &[u8], at: &mut usize) -> Result<(Op, u32)> {
    let mut oparg = 0_u32;
    loop {
        let Some(&[opcode, low]) = wordcode.get(*at..*at + 2) else {
            return Err(Error::at(ErrorKind::BadEnd("the constant ends without RETURN_CONSTANT"), *at));
        };
        let op = Op::new(opcode).ok_or_else(|| Error::at(ErrorKind::UnknownOpcode(opcode), *at))?;
        if oparg >> 24 != 0 {
            let why = "the oparg has more than 32 bits";
            return Err(Error::at(ErrorKind::BadOperand { mnemonic: op.name(), operand: oparg, why }, *at));
        }
        *at += 2;
        oparg = oparg << 8 | u32::from(low);
        if op != Op::ExtendedArg {
            return Ok((op, oparg));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_decode_to_what_was_encoded() {
        for byte in 2..=0x13 {
            let op = Op::new(byte).unwrap();
            for oparg in [0, 255, 256, 65_535, 65_536, u32::MAX] {
                let (mut wordcode, mut at) = (Vec::new(), 0);
                encode(op, oparg, &mut wordcode);
                assert_eq!(decode(&wordcode, &mut at), Ok((op, oparg)));
                assert_eq!(at, wordcode.len());
            }
        }
        assert_eq!(Op::new(0), None);
        assert_eq!(Op::new(0x14), None);
    }

    #[test]
    fn wordcode_that_is_cut_or_unknown_is_refused() {
        let said = |wordcode: &[u8]| decode(wordcode, &mut 0).unwrap_err().to_string();
        assert_eq!(said(&[]), "the constant ends without RETURN_CONSTANT (at byte 0x0)");
        assert_eq!(said(&[1, 1]), "the constant ends without RETURN_CONSTANT (at byte 0x2)");
        assert_eq!(said(&[0xee, 1]), "unknown opcode 0xee (at byte 0x0)");
        assert_eq!(
            said(&[1, 1, 1, 1, 1, 1, 1, 1, 2, 0]),
            "MAKE_INT 16843009: the oparg has more than 32 bits (at byte 0x8)"
        );
    }
}
