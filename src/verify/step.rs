//! What an executor is told of each instruction, in the pass that verifies it.
//!
//! Invariant: only the verifier makes a [`Checked`], so that nothing unverified can be executed.

use std::ops::Deref;

use crate::error::Error;
use crate::isa::{Instruction, Intrinsic};
use crate::python::{Derived, Field};

/// Executes each instruction as soon as it is verified: see [`crate::verify::execute`].
///
/// That all data is read is verified last. Until `execute` returns `Ok`, an executor must be able to drop what it has made.
pub trait Executor<'v> {
    /// Why it cannot go on.
    type Error: From<Error>;

    /// How deep constants of code objects, and what is hashed, may nest: an executor may have to recurse into them.
    const MAX_DEPTH: u16 = u16::MAX;

    /// Whether the executor knows that this is a name, in ASCII, and what [`crate::common::name_hash`] gives for it: else both
    /// are verified. Called before the name's [`Step::Name`]; `names` begins with it, and goes on with others.
    fn knows(&mut self, hash: u32, name: &'v [u8], names: &'v [u8]) -> bool {
        let _ = (hash, name, names);
        false
    }

    /// Told ahead of a hash that [`Self::knows`] will be asked for.
    fn expect(&self, hash: u32) {
        let _ = hash;
    }

    /// Executes an instruction.
    ///
    /// # Errors
    /// Whatever stops it.
    fn step(&mut self, step: Checked<Step<'v, '_>>) -> Result<(), Self::Error>;
}

/// Something that was verified.
#[derive(Debug, Clone, Copy)]
pub struct Checked<T>(T);

impl<T> Checked<T> {
    #[inline]
    pub(super) fn new(checked: T) -> Self {
        Self(checked)
    }

    /// What was verified.
    #[inline]
    pub fn get(self) -> T {
        self.0
    }
}

impl<T> Deref for Checked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What an instruction does. Each pops its operands, and pushes one value, if nothing else is said.
#[derive(Debug, Clone, Copy)]
pub enum Step<'v, 's> {
    /// LOAD_INT, LOAD_CHAR, LOAD_COMMON_CONST, LOAD_COMMON_NAME.
    Load(Instruction),
    /// The value of this slot, which is below the top.
    Copy(usize),
    /// MAKE_STRING, or one str of MAKE_STRINGS.
    Str {
        /// UTF-8 with surrogates as three bytes.
        text: &'v [u8],
        /// Whether it is not all ASCII.
        wide: bool,
        /// Whether CPython interned it.
        interned: bool,
    },
    /// One str of MAKE_NAMES or MAKE_IDENTIFIERS, in ASCII.
    Name(&'v [u8]),
    /// MAKE_BYTES.
    Bytes(&'v [u8]),
    /// MAKE_FLOAT: the bits.
    Float(u64),
    /// MAKE_LONG: two's complement, little-endian, the fewest bytes.
    Long(&'v [u8]),
    /// BUILD_TUPLE, BUILD_TUPLE_FROM.
    Tuple {
        /// The items.
        operands: Operands<'s>,
        /// Whether an item is, or holds, what the collector may have to free.
        holds_collectable: bool,
    },
    /// BUILD_LIST of so many.
    List(usize),
    /// BUILD_SET of so many, all with a hash.
    Set(usize),
    /// BUILD_MAP of so many pairs, all keys with a hash.
    Map(usize),
    /// BUILD_SLICE of start, stop and step.
    Slice,
    /// LIST_APPEND: appends the top to the list in this slot. Pushes nothing.
    Append(usize),
    /// MAP_ADD: adds the key below the top, and the top, to the dict in this slot. Pushes nothing.
    Add(usize),
    /// CALL_INTRINSIC_1 and CALL_INTRINSIC_2, with operands of the types that it takes.
    Intrinsic(Intrinsic),
    /// MAKE_CODE, MAKE_FULL_CODE.
    Code(CodeStep<'s>),
    /// RETURN_VALUE: the top is the result.
    Return,
    /// START_CODE: the code object on top is to be executed.
    Start,
}

/// Where operands stand. They are all below the top, in order, deepest first.
#[derive(Debug, Clone, Copy)]
pub enum Operands<'s> {
    /// The topmost values.
    Top(usize),
    /// Each in its place; those that are taken from the stack, from `base` on, in order.
    Mixed {
        /// Where the values begin that are popped.
        base: usize,
        /// The places.
        places: &'s [Place],
    },
}

/// Where an operand stands on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    #[inline]
    pub(super) fn new(slot: u32, is_copied: bool) -> Self {
        Self(slot << 1 | u32::from(is_copied))
    }

    /// So many slots further up.
    #[inline]
    pub(super) fn above(self, n: u32) -> Self {
        Self(self.0 + (n << 1))
    }

    /// The slot, from the bottom.
    #[inline]
    pub fn slot(self) -> usize {
        (self.0 >> 1) as usize
    }

    /// Whether the value also stays there.
    #[inline]
    pub fn is_copied(self) -> bool {
        self.0 & 1 != 0
    }
}

/// A code object.
#[derive(Debug, Clone, Copy)]
pub struct CodeStep<'s> {
    /// By field: those that are numbers. Others are 0.
    pub numbers: &'s [i32; Field::COUNT],
    /// The values of the version's operands, in the order of [`crate::python::Layout::operands`].
    pub operands: Operands<'s>,
    /// In the order of [`crate::python::Layout::tables`].
    pub tables: &'s [TableStep<'s>],
    /// What CPython derives, if MAKE_FULL_CODE states it.
    pub derived: Option<Derived>,
    /// Whether CPython's constructor of code objects finds all interned that it interns.
    pub is_interned: bool,
}

/// Bytecode, or a table.
#[derive(Debug, Clone, Copy)]
pub struct TableStep<'s> {
    /// The bytes; those of bytecode with its caches.
    pub bytes: &'s [u8],
    /// Where they come from.
    pub origin: TableOrigin,
    /// Whether it is bytecode as CPython holds it in memory. Nothing else is verified of the bytes of bytecode.
    pub is_quickened: bool,
}

/// Where a table comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableOrigin {
    /// It stands in its section, here for the first time. Those of more than one byte are numbered by section, in order.
    Inline,
    /// The table of this number in its section, again.
    Earlier(usize),
    /// The bytes object in this slot.
    Slot(usize),
}
