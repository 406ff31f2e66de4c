//! The marshal format: reading it without loss, writing it exactly or plainly.
//!
//! - [`read`] turns bytes into a [`Dump`]: a [`Heap`](crate::heap::Heap) and a [`Transcript`] of what the heap alone does not know.
//! - [`write_exact`] turns both back into the identical bytes.
//! - [`write()`] writes a heap alone, a flag exactly where a reference follows.

mod read;
mod walk;
mod write;

pub use read::{Dump, Transcript, read};
pub(crate) use read::{shorten, unhashable};
pub(crate) use walk::{Event, Step, walk};
pub(crate) use write::{CACHED, Recorded, Script, kind, write_payload, write_script};
pub use write::{write, write_exact};

use crate::python::Python;

/// Set in a type byte: the object takes the next index, for references.
pub(crate) const FLAG_REF: u8 = 0x80;

/// Most objects that can be open at once, the innermost leaf included.
///
/// Source: CPython `Python/marshal.c`, `MAX_MARSHAL_STACK_DEPTH` (outside Windows and WASI).
pub(crate) const MAX_DEPTH: usize = 2000;

macro_rules! type_codes {
    ($($(#[$doc:meta])* $code:literal $name:ident $first:literal;)*) => {
        /// What the low seven bits of a type byte mean.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(crate) enum TypeCode { $($(#[$doc])* $name = $code,)* }

        /// By type byte without its flag: its code, and the first minor version that reads it.
        static TYPE_CODES: [(Option<TypeCode>, u8); 128] = {
            let mut codes = [(None, 0); 128];
            $(codes[$code as usize] = (Some(TypeCode::$name), $first);)*
            codes
        };
    };
}

impl TypeCode {
    /// The code, with or without its flag, if `python` reads it.
    #[inline]
    pub(crate) fn new(byte: u8, python: Python) -> Option<Self> {
        let (code, first) = TYPE_CODES[usize::from(byte & !FLAG_REF)];
        code.filter(|_| python.minor() >= first)
    }
}

/// Whether an object with this type code, flagged, takes an index.
#[inline]
pub(crate) const fn takes_index(code: u8) -> bool {
    !matches!(code, b'0' | b'N' | b'F' | b'T' | b'S' | b'.' | b'r')
}

// Code, name, first minor version of those supported that reads it.
//
// Source: CPython `Python/marshal.c`, the `TYPE_*` definitions.
type_codes! {
    /// No object: ends a dict.
    b'0' Null 6;
    b'N' None 6;
    b'F' False 6;
    b'T' True 6;
    b'S' StopIteration 6;
    b'.' Ellipsis 6;
    /// i32.
    b'i' Int 6;
    /// i64, read but never written.
    b'I' Int64 6;
    /// i32 count and sign, 15-bit digits.
    b'l' Long 6;
    /// u8 length and text.
    b'f' TextFloat 6;
    b'g' Float 6;
    /// Twice u8 length and text.
    b'x' TextComplex 6;
    b'y' Complex 6;
    /// i32 length and bytes.
    b's' Bytes 6;
    /// i32 length and UTF-8.
    b'u' Unicode 6;
    b't' InternedUnicode 6;
    /// i32 length, a byte a character.
    b'a' Ascii 6;
    b'A' InternedAscii 6;
    /// u8 length, a byte a character.
    b'z' ShortAscii 6;
    b'Z' InternedShortAscii 6;
    /// i32 count and items.
    b'(' Tuple 6;
    /// u8 count and items.
    b')' SmallTuple 6;
    b'[' List 6;
    b'<' Set 6;
    b'>' FrozenSet 6;
    /// Key, value, key, value, ..., NULL.
    b'{' Dict 6;
    b'}' FrozenDict 15;
    /// Start, stop, step.
    b':' Slice 14;
    /// The fields of the version's layout.
    b'c' Code 6;
    /// i32 index.
    b'r' Ref 6;
}
