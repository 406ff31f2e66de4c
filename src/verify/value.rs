//! What the verifier knows of the values on its stack.

use super::step::Executor;
use crate::common::{self, CommonConst};
use crate::isa::{Instruction, Op};

/// A place on the stack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot<O> {
    pub(super) object: O,
    pub(super) value: Value,
}

impl<O: Copy> Slot<O> {
    /// Makes another reference, if references are counted.
    #[inline(always)]
    pub(super) fn retain<'v, E: Executor<'v, Object = O>>(&self) {
        if self.value.is_counted() {
            E::retain(self.object);
        }
    }

    /// Gives one up, if they are counted.
    #[inline(always)]
    pub(super) fn release<'v, E: Executor<'v, Object = O>>(&self) {
        if self.value.is_counted() {
            E::release(self.object);
        }
    }
}

/// What is known of a value on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) traits: u16,
    /// How deep it nests, or more than can be counted.
    pub(super) depth: u16,
    /// Length of a tuple; of bytes, where [`super::Verifier::bytes`] has them.
    pub(super) len: u32,
}

/// What a value is: one of these, or none.
pub(super) const STR: u16 = 1;
pub(super) const BYTES: u16 = 2;
pub(super) const FLOAT: u16 = 4;
pub(super) const TUPLE: u16 = 8;
pub(super) const LIST: u16 = 0x10;
pub(super) const DICT: u16 = 0x20;
pub(super) const CODE: u16 = 0x40;
/// It is a tuple whose items are all str.
pub(super) const NAMES: u16 = 0x80;
/// It has a hash.
pub(super) const HASHABLE: u16 = 0x100;
/// It is an interned str, or a tuple of such.
pub(super) const INTERNED: u16 = 0x200;
/// As a constant, it holds no str that CPython's constructor of code objects would intern and that is not interned.
pub(super) const SETTLED: u16 = 0x400;
/// The collector of cycles does not track it, nor what it holds.
pub(super) const UNTRACKED: u16 = 0x800;
/// It is no dict that stands nowhere else. A copy makes any dict such.
pub(super) const STALE: u16 = 0x1000;
/// It is a dict that stands nowhere else, of which a frozendict would have a hash.
pub(super) const FREEZABLE: u16 = 0x2000;
/// It is there: of a slot whose value was moved this is not so.
pub(super) const LIVE: u16 = 0x4000;
/// It is never freed, nobody counts references to it, and it holds no other value.
pub(super) const IMMORTAL: u16 = 0x8000;

/// What every one of some values has, and how deep they nest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traits {
    pub(super) all: u16,
    pub(super) depth: u16,
}

impl Traits {
    pub(super) const OF_NONE: Self = Self { all: !0, depth: 0 };

    pub(super) fn of<O: Copy>(slots: &[Slot<O>]) -> Self {
        slots.iter().fold(Self::OF_NONE, |traits, slot| traits.and(slot.value))
    }

    #[inline(always)]
    pub(super) fn and(self, value: Value) -> Self {
        Self { all: self.all & value.traits, depth: self.depth.max(value.depth) }
    }

    /// What holds the values: it has the traits of `own`, as far as all of them have those that are `inherited`.
    #[inline(always)]
    pub(super) fn holder(self, own: u16, inherited: u16) -> Value {
        Value { traits: LIVE | own & (self.all | !inherited), depth: self.depth.saturating_add(1), len: 0 }
    }
}

impl Value {
    /// What is left in a slot whose value was moved: nothing.
    pub(super) const MOVED: Self = Self { traits: 0, depth: 0, len: 0 };

    /// A value of which nothing is known but that there is one.
    pub(super) const UNKNOWN: Self = Self { traits: LIVE, depth: 0, len: 0 };

    /// A value that holds none, with these traits too.
    pub(super) const fn leaf(traits: u16) -> Self {
        Self { traits: traits | LIVE | HASHABLE | SETTLED | UNTRACKED | STALE, depth: 0, len: 0 }
    }

    #[inline]
    pub(super) fn str(is_interned: bool, is_settled: bool) -> Self {
        let value = Self::leaf(STR | if is_interned { INTERNED } else { 0 });
        Self { traits: value.traits & if is_settled { !0 } else { !SETTLED }, ..value }
    }

    /// Whether it is there, and references to it are counted.
    #[inline(always)]
    pub(super) fn is_counted(self) -> bool {
        self.traits & (LIVE | IMMORTAL) == LIVE
    }

    /// The same, of an object that is immortal, or of one that is not. Of what holds others it is not noted.
    #[inline]
    pub(super) fn immortal(self, is_immortal: bool) -> Self {
        let is_immortal = is_immortal && self.depth == 0;
        Self { traits: self.traits & !IMMORTAL | if is_immortal { IMMORTAL } else { 0 }, ..self }
    }

    #[inline]
    pub(super) fn has(self, traits: u16) -> bool {
        self.traits & traits == traits
    }

    /// A dict that something else holds, or that grows, is none to make a frozendict of.
    #[inline]
    pub(super) fn share(&mut self) {
        if self.has(LIVE) && !self.has(STALE) {
            self.traits = self.traits & !FREEZABLE | STALE;
        }
    }

    pub(super) fn name(self) -> &'static str {
        let names = [
            (STR, "a str"),
            (BYTES, "bytes"),
            (FLOAT, "a float"),
            (NAMES, "a tuple of str"),
            (TUPLE, "a tuple with other items"),
            (LIST, "a list"),
            (DICT, "a dict"),
            (CODE, "a code object"),
        ];
        if !self.has(LIVE) {
            return "nothing";
        }
        names.into_iter().find(|(traits, _)| self.has(*traits)).map_or("another object", |(_, name)| name)
    }
}

/// A tuple of so many items.
#[inline(always)]
pub(super) fn tuple(traits: Traits, n: usize) -> Value {
    let inherited = HASHABLE | INTERNED | SETTLED | UNTRACKED;
    let names = if traits.all & STR != 0 { NAMES } else { 0 };
    Value { len: n as u32, ..traits.holder(TUPLE | names | STALE | inherited, inherited) }
}

/// What LOAD_INT, LOAD_CHAR, LOAD_COMMON_CONST or LOAD_COMMON_NAME loads.
pub(super) fn load(instruction: Instruction) -> Value {
    let interned = Value::str(true, true);
    match instruction.op {
        Op::LoadCommonName | Op::LoadChar => interned,
        Op::LoadCommonConst => match common::CONSTS[instruction.oparg as usize].0 {
            CommonConst::EmptyStr => interned,
            CommonConst::EmptyTuple => tuple(Traits::OF_NONE, 0),
            CommonConst::EmptyBytes => Value::leaf(BYTES),
            CommonConst::EmptyFrozenSet => Traits::OF_NONE.holder(HASHABLE | SETTLED | STALE, 0),
            _ => Value::leaf(0),
        },
        _ => Value::leaf(0),
    }
}
