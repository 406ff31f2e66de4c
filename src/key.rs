//! When two objects may become one.
//!
//! Two objects merge when their keys are equal: Python code could then tell them apart only by `is`. A key is not built;
//! `Keys` hashes and compares the objects where they stand.
//!
//! Invariants:
//! - A key is a type and bits, never a Python value: 1, 1.0 and True have three keys, 0.0 and -0.0 two.
//! - The interned mark is part of a str's key, except where CPython keeps one object for the whole process.
//! - Lists, dicts, sets and code objects are keyed by identity. So is what a NaN is, or holds: it does not equal itself,
//!   and a set may hold it twice.

use std::hash::{BuildHasher, Hash, Hasher};

use indexmap::IndexMap;
use indexmap::map::RawEntryApiV1;
use indexmap::map::raw_entry_v1::RawEntryMut;

use crate::heap::{Encoding, Heap, Object, ObjectId, Str};

/// How far equal objects are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Equal immutable objects merge; code objects and mutable ones never do.
    #[default]
    Structural,
    /// What the dump shares is shared, no more and no less.
    Identity,
    /// Immutable objects are built anew at each use. For comparison.
    None,
}

/// Numbers objects, equal ones alike. The hasher is seeded by chance, against inputs made to collide; nothing depends on
/// the order of the hashes.
pub(crate) struct Keys<'h, 'a> {
    heap: &'h Heap<'a>,
    sharing: Sharing,
    /// The first object of each key, and its number.
    firsts: IndexMap<First, (), foldhash::fast::RandomState>,
}

#[derive(Clone, Copy)]
struct First {
    object: ObjectId,
    number: u32,
}

impl<'h, 'a> Keys<'h, 'a> {
    pub(crate) fn new(heap: &'h Heap<'a>, sharing: Sharing, capacity: usize) -> Self {
        let hasher = foldhash::fast::RandomState::default();
        Self { heap, sharing, firsts: IndexMap::with_capacity_and_hasher(capacity, hasher) }
    }

    /// The number of an object, which holds those numbered `held`: that of an equal one, or `next`. `held_by` gives what
    /// the object of another number holds.
    pub(crate) fn number<'g, N: Copy + Eq + Hash + 'g>(
        &mut self,
        id: ObjectId,
        held: &[N],
        held_by: impl Fn(u32) -> &'g [N],
        next: u32,
    ) -> u32 {
        let heap = self.heap;
        if !has_key(heap, id, self.sharing) {
            return next;
        }
        let mut hasher = self.firsts.hasher().build_hasher();
        hash(heap, id, &mut hasher);
        if !held.is_empty() {
            held.hash(&mut hasher);
        }
        let hash = hasher.finish();
        let same = |first: &First| is_same(heap, first.object, id) && held_by(first.number) == held;
        match self.firsts.raw_entry_mut_v1().from_hash(hash, same) {
            RawEntryMut::Occupied(entry) => entry.key().number,
            RawEntryMut::Vacant(entry) => {
                entry.insert_hashed_nocheck(hash, First { object: id, number: next }, ());
                next
            }
        }
    }
}

/// Whether another object can have the same key.
fn has_key(heap: &Heap<'_>, id: ObjectId, sharing: Sharing) -> bool {
    let is_nan = |bits| f64::from_bits(bits).is_nan();
    match heap[id] {
        Object::None | Object::False | Object::True | Object::Ellipsis | Object::StopIteration => false,
        Object::List(_) | Object::Set(_) | Object::Dict(_) | Object::Code(_) => false,
        Object::Float(bits) if is_nan(bits) => false,
        Object::Complex { real, imag } if is_nan(real) || is_nan(imag) => false,
        _ => sharing == Sharing::Structural || heap.is_process_wide(id),
    }
}

/// Hashes the type and the bits, without what is held.
fn hash(heap: &Heap<'_>, id: ObjectId, hasher: &mut impl Hasher) {
    let object = &heap[id];
    match *object {
        Object::Int(value) => value.hash(hasher),
        Object::Long(long) => heap.long(long).hash(hasher),
        Object::Float(bits) => bits.hash(hasher),
        Object::Complex { real, imag } => (real, imag).hash(hasher),
        Object::Bytes(bytes) => hasher.write(bytes),
        Object::Str(text) => match text.raw() {
            (bytes, Encoding::Ascii | Encoding::Utf8) => hasher.write(bytes),
            (_, Encoding::Latin1) => hasher.write(text.to_utf8(&mut Vec::new())),
        },
        _ => std::mem::discriminant(object).hash(hasher),
    }
}

/// Whether type and bits are the same, without what is held.
fn is_same(heap: &Heap<'_>, a: ObjectId, b: ObjectId) -> bool {
    let is_marked = |text: Str<'_>| text.is_interned() || text.is_cached();
    match (&heap[a], &heap[b]) {
        (Object::Int(a), Object::Int(b)) => a == b,
        (Object::Long(a), Object::Long(b)) => heap.long(*a) == heap.long(*b),
        (Object::Float(a), Object::Float(b)) => a == b,
        (Object::Complex { real, imag }, Object::Complex { real: other, imag: another }) => {
            (real, imag) == (other, another)
        }
        (Object::Bytes(a), Object::Bytes(b)) => a == b,
        (Object::Str(a), Object::Str(b)) => a.same_text(*b) && is_marked(*a) == is_marked(*b),
        (Object::Tuple(_), Object::Tuple(_))
        | (Object::FrozenSet(_), Object::FrozenSet(_))
        | (Object::FrozenDict(_), Object::FrozenDict(_))
        | (Object::Slice(_), Object::Slice(_)) => true,
        _ => false,
    }
}
