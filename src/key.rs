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
    /// the object of another number holds. `object` is what stands at `id`: who knows its type dispatches on it once.
    #[inline(always)]
    pub(crate) fn number<'g, N: Copy + Eq + Into<u32> + 'g>(
        &mut self,
        id: ObjectId,
        object: Object<'_>,
        held: &[N],
        held_by: impl Fn(u32) -> &'g [N],
        next: u32,
    ) -> u32 {
        let heap = self.heap;
        if self.sharing != Sharing::Structural && !heap.is_process_wide(id) {
            return next;
        }
        let mut hasher = self.firsts.hasher().build_hasher();
        if !hash(heap, &object, &mut hasher) {
            return next;
        }
        for pair in held.chunks(2) {
            let [low, high] = [pair[0], pair[pair.len() - 1]].map(|number| u64::from(number.into()));
            hasher.write_u64(low | high << 32);
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

/// Hashes the type and the bits, without what is held. `false` if no other object can have the same key.
#[inline(always)]
fn hash(heap: &Heap<'_>, object: &Object<'_>, hasher: &mut impl Hasher) -> bool {
    let is_nan = |bits| f64::from_bits(bits).is_nan();
    match *object {
        Object::Str(text) => match text.raw() {
            (bytes, Encoding::Ascii | Encoding::Utf8) => hasher.write(bytes),
            (_, Encoding::Latin1) => hasher.write(text.to_utf8(&mut Vec::new())),
        },
        Object::Bytes(bytes) => hasher.write(bytes),
        Object::Tuple(_) | Object::FrozenSet(_) | Object::FrozenDict(_) | Object::Slice(_) => {
            std::mem::discriminant(object).hash(hasher);
        }
        Object::Int(value) => hasher.write_i64(value),
        Object::Long(long) => heap.long(long).hash(hasher),
        Object::Float(bits) if !is_nan(bits) => hasher.write_u64(bits),
        Object::Complex { real, imag } if !is_nan(real) && !is_nan(imag) => (real, imag).hash(hasher),
        Object::Float(_) | Object::Complex { .. } => return false,
        Object::None | Object::False | Object::True | Object::Ellipsis | Object::StopIteration => return false,
        Object::List(_) | Object::Set(_) | Object::Dict(_) | Object::Code(_) => return false,
    }
    true
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
