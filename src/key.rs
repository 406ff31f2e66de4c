//! When two objects may become one.
//!
//! Two objects merge when their [`Key`]s are equal: Python code could then tell them apart only by `is`.
//!
//! Invariants:
//! - A key is a type and bits, never a Python value: 1, 1.0 and True have three keys, 0.0 and -0.0 two.
//! - The interned mark is part of a str's key, except where CPython keeps one object for the whole process.
//! - Lists, dicts, sets and code objects are keyed by identity. So is what a NaN is, or holds: it does not equal itself,
//!   and a set may hold it twice. So is what takes part in a cycle.

use std::hash::{Hash, Hasher};

use indexmap::IndexMap;
use num_bigint::BigInt;

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

/// What an object is, with what it holds by number.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key<'h> {
    Identity(ObjectId),
    Int(i64),
    Long(&'h BigInt),
    Float(u64),
    Complex(u64, u64),
    Bytes(&'h [u8]),
    Str(Text<'h>, bool),
    Tuple(Box<[u32]>),
    FrozenSet(Box<[u32]>),
    FrozenDict(Box<[u32]>),
    Slice(Box<[u32]>),
}

/// Text that is equal however it is encoded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text<'h>(pub(crate) Str<'h>);

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.same_text(other.0)
    }
}

impl Eq for Text<'_> {}

impl Hash for Text<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0.raw() {
            (bytes, Encoding::Ascii | Encoding::Utf8) => bytes.hash(state),
            (_, Encoding::Latin1) => self.0.to_utf8(&mut Vec::new()).hash(state),
        }
    }
}

/// Keys in the order of their first objects. The hasher is seeded by chance, against inputs made to collide; the order
/// does not depend on it.
pub(crate) type KeyMap<'h> = IndexMap<Key<'h>, u32, foldhash::fast::RandomState>;

impl<'h> Key<'h> {
    /// The key of an object, under `sharing`; `number` gives the number of each object that it holds.
    ///
    /// `None`: nothing else can have its key.
    pub(crate) fn new(
        heap: &'h Heap<'_>,
        id: ObjectId,
        sharing: Sharing,
        number: impl Fn(ObjectId) -> u32,
    ) -> Option<Self> {
        if sharing != Sharing::Structural && !heap.is_process_wide(id) {
            return None;
        }
        let items = |items| heap.items(items).iter().map(|item| number(*item)).collect();
        let nan = |bits| f64::from_bits(bits).is_nan();
        Some(match heap[id] {
            Object::None | Object::False | Object::True | Object::Ellipsis | Object::StopIteration => {
                Self::Identity(id)
            }
            Object::Int(value) => Self::Int(value),
            Object::Long(long) => Self::Long(heap.long(long)),
            Object::Float(bits) if nan(bits) => return None,
            Object::Float(bits) => Self::Float(bits),
            Object::Complex { real, imag } if nan(real) || nan(imag) => return None,
            Object::Complex { real, imag } => Self::Complex(real, imag),
            Object::Bytes(bytes) => Self::Bytes(bytes),
            Object::Str(text) => Self::Str(Text(text), text.is_interned() || text.is_cached()),
            Object::Tuple(range) => Self::Tuple(items(range)),
            Object::FrozenSet(range) => Self::FrozenSet(items(range)),
            Object::FrozenDict(range) => Self::FrozenDict(items(range)),
            Object::Slice(range) => Self::Slice(items(range)),
            Object::List(_) | Object::Set(_) | Object::Dict(_) | Object::Code(_) => return None,
        })
    }
}
