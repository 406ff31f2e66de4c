//! What an executor is told of each instruction, in the pass that verifies it.
//!
//! Invariant: only the verifier makes a [`Checked`], and [`Items`], so that nothing unverified can be executed.

use std::mem::MaybeUninit;
use std::ops::Deref;

use super::value::{IMMORTAL, LIVE, Slot, Traits, UNTRACKED, Value};
use crate::error::Error;
use crate::isa::{Instruction, Intrinsic, MOVED};
use crate::python::{CodeNumbers, Derived, Python};
use crate::varint;

/// Executes each instruction as soon as it is verified: see [`crate::verify::execute`]. The stack is the verifier's; an
/// executor makes objects, of other objects.
///
/// An object stands for a reference to what was made. Who makes an object of others takes their references over, if that
/// succeeds, and none of them if it fails. That all data is read is verified last, so all objects may have to be released.
pub trait Executor<'v>: Sized {
    /// A value on the stack.
    type Object: Copy;

    /// Why it cannot go on.
    type Error: From<Error>;

    /// The one version whose images it executes, if it is one.
    const PYTHON: Option<Python> = None;

    /// How deep constants of code objects, and what is hashed, may nest: an executor may have to recurse into them.
    const MAX_DEPTH: u16 = u16::MAX;

    /// Whether the names that it knows are immortal: never freed, so that nobody counts references to them.
    const NAMES_ARE_IMMORTAL: bool = false;

    /// Whether it executes nothing, and a later execution wants to know how many values there are, and bytecode as it stands in
    /// marshal.
    const ONLY_VERIFIES: bool = false;

    /// Told ahead of a hash that will be looked for.
    #[inline]
    fn expect(&self, hash: u32) {
        let _ = hash;
    }

    /// Takes names off the front that the executor knows, in ASCII, with their [`crate::common::name_hash`], and appends them to
    /// `known`: of others both are verified. It may stop at any, and tells itself of those that come later.
    #[inline]
    fn known_names(&mut self, run: &mut NameRun<'v>, known: &mut Vec<Self::Object>) {
        let _ = (run, known);
    }

    /// What LOAD_COMMON_NAME loads from the table of a bundle, and another reference to it. The number may be any.
    #[inline]
    fn known_common_name(&mut self, number: u32) -> Option<Self::Object> {
        let _ = number;
        None
    }

    /// One name that the executor may know, in the same way.
    #[inline]
    fn known_name(&mut self, text: &'v [u8], hash: u32) -> Option<Self::Object> {
        let _ = (text, hash);
        None
    }

    /// A name of MAKE_NAMES or MAKE_IDENTIFIERS that the executor does not know, with its hash; and whether it is immortal.
    ///
    /// # Errors
    /// Whatever stops it.
    fn new_name(&mut self, name: Checked<&'v [u8]>, hash: u32) -> Result<(Self::Object, bool), Self::Error>;

    /// What LOAD_INT, LOAD_CHAR, LOAD_COMMON_CONST or LOAD_COMMON_NAME loads, and whether it is immortal.
    ///
    /// # Errors
    /// Whatever stops it.
    fn load(&mut self, instruction: Checked<Instruction>) -> Result<(Self::Object, bool), Self::Error>;

    /// The tuple of BUILD_TUPLE_FROM or BUILD_TUPLE_NEAR, or one of MAKE_FULL_CODE; `None` if [`Items::write_to`] said no.
    ///
    /// # Errors
    /// Whatever stops it, before it takes an item.
    fn tuple<const NEAR: bool>(
        &mut self,
        items: &mut Items<'_, 'v, Self, NEAR>,
    ) -> Result<Option<Self::Object>, Self::Error>;

    /// The code object of MAKE_CODE or MAKE_FULL_CODE.
    ///
    /// # Errors
    /// Whatever stops it.
    fn code(&mut self, code: &Checked<CodeStep<'_, Self::Object>>) -> Result<Self::Object, Self::Error>;

    /// The value that another instruction makes.
    ///
    /// # Errors
    /// Whatever stops it.
    fn value(&mut self, step: Checked<Step<'v, '_, Self::Object>>) -> Result<Self::Object, Self::Error>;

    /// Puts values into a list or dict that is on the stack.
    ///
    /// # Errors
    /// Whatever stops it.
    fn fill(&mut self, fill: Checked<Fill<'_, Self::Object>>) -> Result<(), Self::Error>;

    /// Makes another reference to an object.
    fn retain(object: Self::Object);

    /// Gives up a reference.
    fn release(object: Self::Object);
}

/// Names of MAKE_NAMES or MAKE_IDENTIFIERS, as they stand in the data. Nothing of it is verified.
#[derive(Debug, Clone, Copy)]
pub struct NameRun<'v> {
    pub(super) hashes: &'v [[u8; 4]],
    /// The lengths, and what follows.
    pub(super) counts: &'v [u8],
    /// The texts, one behind the other, and what follows.
    pub(super) names: &'v [u8],
}

/// So many hashes ahead, an executor has told itself of one.
pub const AHEAD: usize = 16;

impl<'v> NameRun<'v> {
    /// The hashes; the lengths, most of which take one byte, below 128; and the texts, one behind the other. Other things follow
    /// the last two.
    #[inline]
    pub fn parts(&self) -> (&'v [[u8; 4]], &'v [u8], &'v [u8]) {
        (self.hashes, self.counts, self.names)
    }

    /// Takes off the front so many names, whose lengths take a byte each, and which are so many bytes together.
    ///
    /// # Panics
    /// If there are not as many.
    #[inline]
    pub fn skip(&mut self, n: usize, n_bytes: usize) {
        (self.hashes, self.counts, self.names) = (&self.hashes[n..], &self.counts[n..], &self.names[n_bytes..]);
    }
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

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

/// What makes a value.
#[derive(Debug, Clone, Copy)]
pub enum Step<'v, 's, O> {
    /// MAKE_STRING, or one str of MAKE_STRINGS or MAKE_TEXTS.
    Str {
        /// UTF-8 with surrogates as three bytes.
        text: &'v [u8],
        /// Whether it is not all ASCII.
        wide: bool,
        /// Whether CPython interned it.
        interned: bool,
    },
    /// MAKE_BYTES.
    Bytes(&'v [u8]),
    /// MAKE_FLOAT: the bits.
    Float(u64),
    /// MAKE_LONG: two's complement, little-endian, the fewest bytes.
    Long(&'v [u8]),
    /// BUILD_TUPLE.
    Tuple {
        /// The items.
        items: Values<'s, O>,
        /// Whether an item is, or holds, what the collector may have to free.
        holds_collectable: bool,
    },
    /// BUILD_LIST.
    List(Values<'s, O>),
    /// BUILD_SET, of values that have a hash.
    Set(Values<'s, O>),
    /// BUILD_MAP: keys, which have a hash, and values in turn.
    Map(Values<'s, O>),
    /// BUILD_SLICE of start, stop and step.
    Slice(Values<'s, O>),
    /// CALL_INTRINSIC_1 and CALL_INTRINSIC_2, with operands of the types that it takes.
    Intrinsic(Intrinsic, Values<'s, O>),
}

/// What puts values into a container.
#[derive(Debug, Clone, Copy)]
pub enum Fill<'s, O> {
    /// LIST_APPEND: appends the value to the list.
    Append(O, Values<'s, O>),
    /// MAP_ADD: adds the key, which has a hash, and the value to the dict.
    Add(O, Values<'s, O>),
}

/// Values on top of the stack, deepest first.
#[derive(Debug, Clone, Copy)]
pub struct Values<'s, O>(pub(super) &'s [Slot<O>]);

impl<'s, O: Copy> Values<'s, O> {
    /// Each of them.
    #[inline]
    pub fn iter(self) -> impl ExactSizeIterator<Item = O> + 's {
        self.0.iter().map(|slot| slot.object)
    }
}

impl<O> TableOrigin<O> {
    #[inline(always)]
    pub(super) fn inline(is_numbered: bool) -> Self {
        if is_numbered { Self::Numbered } else { Self::Once }
    }
}

/// The items of a tuple, each verified when it is taken: from the stack, copied or moved. `NEAR` says that references are of two
/// bytes.
#[derive(Debug)]
pub struct Items<'s, 'v, E: Executor<'v>, const NEAR: bool> {
    pub(super) n: usize,
    /// Where each of them stands; of those that are not near, the last first.
    pub(super) references: &'s [u8],
    /// So many bytes of which were read.
    pub(super) at: usize,
    pub(super) stack: &'s mut [Slot<E::Object>],
    /// So many values, from the bottom of the stack on, are interned str that are immortal.
    pub(super) n_names: usize,
    /// The stack is taken down to here.
    pub(super) base: usize,
    /// What all those have that were had, and how deep they nest.
    pub(super) traits: Traits,
    /// Whether all of them are probably interned str that are immortal, and then whether they are; the traits do not say so.
    pub(super) are_names: bool,
}

impl<'v, E: Executor<'v>, const NEAR: bool> Items<'_, 'v, E, NEAR> {
    /// How many there are.
    #[inline]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Writes each of them, with a reference to it, to `places`, of which there are as many: whether all are on the stack. To be
    /// called once.
    #[inline(always)]
    pub fn write_to(&mut self, places: &mut [MaybeUninit<E::Object>]) -> bool {
        if NEAR {
            let are_names = E::NAMES_ARE_IMMORTAL && self.are_names;
            self.are_names = are_names && self.write_names_to(places);
            return self.are_names || self.write_near_to(places);
        }
        let references = self.references;
        self.are_names = false;
        places.iter_mut().rev().all(|place| {
            let next = varint::next(references, self.at);
            let item = next.and_then(|(reference, after)| Some((self.item(reference)?, after)));
            item.map(|(item, after)| (place.write(item), self.at = after)).is_some()
        })
    }

    /// The item of a reference that is a varint, with a reference to the object.
    fn item(&mut self, reference: u32) -> Option<E::Object> {
        let is_taken = reference == 0;
        let slot = (if is_taken { self.base } else { reference as usize }).wrapping_sub(1);
        let found = self.stack.get(slot).filter(|slot| slot.value.has(LIVE))?;
        if !is_taken {
            found.retain::<E>();
        }
        self.traits = self.traits.and(found.value);
        self.base -= usize::from(is_taken);
        Some(found.object)
    }

    #[inline(always)]
    fn write_near_to(&mut self, places: &mut [MaybeUninit<E::Object>]) -> bool {
        let references = self.references.as_chunks::<NEAR_LEN>().0;
        let n_copied = self.stack.len().min(usize::from(MOVED));
        for (at, (place, reference)) in places.iter_mut().zip(references).enumerate() {
            let reference = u16::from_le_bytes(*reference);
            // Most items are copies of what is immortal.
            if let Some(found) = self.stack[..n_copied].get(usize::from(reference))
                && found.value.has(IMMORTAL)
            {
                self.traits.all &= found.value.traits;
                place.write(found.object);
                continue;
            }
            let Some(item) = self.near(reference) else {
                self.at = NEAR_LEN * at;
                return false;
            };
            place.write(item);
        }
        self.at = NEAR_LEN * places.len();
        true
    }

    /// The item of a reference of two bytes, with a reference to the object.
    #[inline(always)]
    fn near(&mut self, reference: u16) -> Option<E::Object> {
        let slot = usize::from(reference & !MOVED);
        let found = self.stack.get_mut(slot).filter(|slot| slot.value.has(LIVE))?;
        self.traits = self.traits.and(found.value);
        let object = found.object;
        if reference & MOVED == 0 {
            found.retain::<E>();
        } else {
            found.value = Value::MOVED;
            self.n_names = self.n_names.min(slot);
        }
        Some(object)
    }

    /// As [`Self::write_to`] if all are names of the bottom of the stack, of which nothing has to be asked. If not, some places
    /// may have been written, without a reference.
    #[inline(always)]
    fn write_names_to(&mut self, places: &mut [MaybeUninit<E::Object>]) -> bool {
        let references = self.references.as_chunks::<NEAR_LEN>().0.get(..places.len());
        // What is moved is beyond the limit.
        let names = self.stack.get(..self.n_names.min(usize::from(MOVED)));
        let (Some(references), Some(names)) = (references, names) else { return false };
        for (place, reference) in places.iter_mut().zip(references) {
            let Some(name) = names.get(usize::from(u16::from_le_bytes(*reference))) else { return false };
            place.write(name.object);
        }
        self.at = NEAR_LEN * places.len();
        true
    }

    /// Whether one of those that were had is, or holds, what the collector may have to free.
    #[inline]
    pub fn hold_collectable(&self) -> bool {
        !self.are_names && self.traits.all & UNTRACKED == 0
    }
}

/// A code object.
#[derive(Debug, Clone, Copy)]
pub struct CodeStep<'s, O> {
    /// What is a number; before 3.11, some of them.
    pub numbers: CodeNumbers,
    /// The values of the version's operands, in the order of [`crate::python::Layout::operands`].
    pub operands: &'s [O],
    /// In the order of [`crate::python::Layout::tables`].
    pub tables: &'s [TableStep<'s, O>],
    /// What CPython derives, from 3.11 on.
    pub derived: Derived,
    /// Whether CPython's constructor of code objects finds all interned that it interns.
    pub is_interned: bool,
}

/// Bytecode, or a table.
#[derive(Debug, Clone, Copy)]
pub struct TableStep<'s, O> {
    /// The bytes; those of bytecode with its caches.
    pub bytes: &'s [u8],
    /// Where they come from.
    pub origin: TableOrigin<O>,
    /// Whether it is bytecode as CPython holds it in memory. Nothing else is verified of the bytes of bytecode.
    pub is_quickened: bool,
}

/// Where a table comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableOrigin<O> {
    /// It stands in its section, and has no number.
    Once,
    /// It stands in its section, here for the first time, and is numbered: section by section, in order.
    Numbered,
    /// The table of this number in its section, again.
    Earlier(usize),
    /// This bytes object, which stays where it is.
    Object(O),
}

/// Bytes of a reference of BUILD_TUPLE_NEAR.
pub(super) const NEAR_LEN: usize = size_of::<u16>();
