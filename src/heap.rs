//! The objects of a dump: what the marshal reader and the virtual machine both return.
//!
//! References are resolved: two places that hold one object hold one [`ObjectId`]. Text and bytes are borrowed from the
//! input. Nothing here recurses, so depth costs no stack.
//!
//! Invariants:
//! - None, False, True, Ellipsis, StopIteration and the empty tuple stand once, at fixed ids.
//! - The items of a container are a run of [`Heap::items`]; a dict's are key, value, key, value, ….
//! - An odd item at the end of a dict is a key that CPython reads and drops, because NULL stands where its value should.

use std::fmt;
use std::ops::Index;

use num_bigint::BigInt;

use crate::python::{Field, FieldKind, Python};

/// The name of an object of a [`Heap`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(u32);

impl ObjectId {
    /// Its position in the heap.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn number(self) -> u32 {
        self.0
    }

    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "o{}", self.0)
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The objects that stand at fixed ids in every heap.
pub mod fixed {
    use super::{Object, ObjectId};

    /// `None`.
    pub const NONE: ObjectId = ObjectId(0);
    /// `False`.
    pub const FALSE: ObjectId = ObjectId(1);
    /// `True`.
    pub const TRUE: ObjectId = ObjectId(2);
    /// `Ellipsis`.
    pub const ELLIPSIS: ObjectId = ObjectId(3);
    /// `StopIteration`.
    pub const STOP_ITERATION: ObjectId = ObjectId(4);
    /// `()`.
    pub const EMPTY_TUPLE: ObjectId = ObjectId(5);

    /// How many there are.
    pub(crate) const N_FIXED: usize = 6;

    /// The fixed id of an object like this one, if it has one.
    pub(crate) fn of(object: &Object<'_>) -> Option<ObjectId> {
        Some(match object {
            Object::None => NONE,
            Object::False => FALSE,
            Object::True => TRUE,
            Object::Ellipsis => ELLIPSIS,
            Object::StopIteration => STOP_ITERATION,
            Object::Tuple(items) if items.is_empty() => EMPTY_TUPLE,
            _ => return None,
        })
    }
}

/// How the bytes of a [`Str`] encode its characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Every character is ASCII.
    Ascii,
    /// UTF-8, in which surrogates stand as three bytes each; not all ASCII.
    Utf8,
    /// One byte a character, up to U+00FF; not all ASCII. Only the marshal reader makes these.
    Latin1,
}

/// A str: its characters, and whether it is interned.
#[derive(Debug, Clone, Copy)]
pub struct Str<'a> {
    bytes: &'a [u8],
    encoding: Encoding,
    interned: bool,
}

impl<'a> Str<'a> {
    /// A str of one-byte characters.
    pub(crate) fn latin1(bytes: &'a [u8], interned: bool) -> Self {
        let encoding = if bytes.is_ascii() { Encoding::Ascii } else { Encoding::Latin1 };
        Self { bytes, encoding, interned }
    }

    /// A str of the first `len` one-byte characters of `front`, which has as many.
    ///
    /// Most are short, and how short is anyone's guess: with bytes behind them, one look tells what they are.
    #[inline]
    pub(crate) fn latin1_in(front: &'a [u8], len: usize, interned: bool) -> Self {
        let bytes = &front[..len];
        match front.first_chunk::<16>() {
            Some(chunk) if len <= chunk.len() => {
                let others = u128::MAX.checked_shl(8 * len as u32).unwrap_or(0);
                let is_ascii = u128::from_le_bytes(*chunk) & !others & u128::from_le_bytes([0x80; 16]) == 0;
                Self { bytes, encoding: if is_ascii { Encoding::Ascii } else { Encoding::Latin1 }, interned }
            }
            _ => Self::latin1(bytes, interned),
        }
    }

    /// A str of UTF-8, surrogates included.
    ///
    /// # Errors
    /// The position of the first byte that is not.
    pub(crate) fn utf8(bytes: &'a [u8], interned: bool) -> Result<Self, usize> {
        if bytes.is_ascii() {
            return Ok(Self { bytes, encoding: Encoding::Ascii, interned });
        }
        check_utf8(bytes).map(|()| Self { bytes, encoding: Encoding::Utf8, interned })
    }

    /// Whether CPython interns it.
    pub fn is_interned(self) -> bool {
        self.interned
    }

    /// The same text with another interned mark.
    #[must_use]
    pub(crate) fn with_interned(self, interned: bool) -> Self {
        Self { interned, ..self }
    }

    /// Whether all characters are ASCII.
    pub fn is_ascii(self) -> bool {
        self.encoding == Encoding::Ascii
    }

    /// The bytes as they are held, and what they mean.
    pub fn raw(self) -> (&'a [u8], Encoding) {
        (self.bytes, self.encoding)
    }

    /// The code points, surrogates included.
    pub fn code_points(self) -> CodePoints<'a> {
        CodePoints { bytes: self.bytes, latin1: self.encoding == Encoding::Latin1 }
    }

    /// The text in UTF-8 with surrogates, in `buffer` where it has to be converted.
    pub fn to_utf8<'b>(self, buffer: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        if self.encoding != Encoding::Latin1 {
            return self.bytes;
        }
        buffer.clear();
        buffer.extend(self.bytes.iter().flat_map(|byte| char::from(*byte).to_string().into_bytes()));
        buffer
    }

    /// Whether both have the same characters.
    pub fn same_text(self, other: Str<'_>) -> bool {
        if self.encoding == other.encoding {
            self.bytes == other.bytes
        } else {
            self.code_points().eq(other.code_points())
        }
    }

    /// Whether CPython keeps one object of this text for the whole process, interned or not: the empty str and those
    /// of one Latin-1 character.
    pub fn is_cached(self) -> bool {
        match self.encoding {
            Encoding::Ascii | Encoding::Latin1 => self.bytes.len() <= 1,
            Encoding::Utf8 => self.bytes.len() == 2 && self.bytes[0] < 0xc4,
        }
    }

    /// Whether the code constructor interns it as a constant: nothing but ASCII letters, digits and underscores.
    ///
    /// Source: CPython `Objects/codeobject.c`, `all_name_chars`.
    pub fn is_identifier_like(self) -> bool {
        self.bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    }
}

/// Checks UTF-8 in which surrogates may stand as three bytes each.
///
/// Source: CPython `Python/codecs.c`, the `surrogatepass` error handler.
fn check_utf8(bytes: &[u8]) -> Result<(), usize> {
    let mut rest = bytes;
    while let Err(error) = std::str::from_utf8(rest) {
        let bad = error.valid_up_to();
        match rest[bad..] {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] => rest = &rest[bad + 3..],
            _ => return Err(bytes.len() - rest.len() + bad),
        }
    }
    Ok(())
}

/// The code points of a [`Str`].
#[derive(Debug, Clone)]
pub struct CodePoints<'a> {
    bytes: &'a [u8],
    latin1: bool,
}

impl Iterator for CodePoints<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (&first, rest) = self.bytes.split_first()?;
        let (length, mut point) = match first {
            _ if self.latin1 => (0, u32::from(first)),
            0..0x80 => (0, u32::from(first)),
            0x80..0xe0 => (1, u32::from(first & 0x1f)),
            0xe0..0xf0 => (2, u32::from(first & 0x0f)),
            0xf0.. => (3, u32::from(first & 0x07)),
        };
        for byte in &rest[..length] {
            point = point << 6 | u32::from(byte & 0x3f);
        }
        self.bytes = &rest[length..];
        Some(point)
    }
}

/// A run of [`Heap::items`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Items {
    pub(crate) start: u32,
    pub(crate) len: u32,
}

impl Items {
    pub(crate) const EMPTY: Self = Self { start: 0, len: 0 };

    /// How many items.
    pub fn len(self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// The name of a big integer of a [`Heap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongId(u32);

/// The name of a code object's fields in a [`Heap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeId(u32);

impl CodeId {
    /// Its position among the code objects of the heap.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// An object: its type and value, with other objects by id.
#[derive(Debug, Clone, Copy)]
pub enum Object<'a> {
    /// `None`.
    None,
    /// `False`.
    False,
    /// `True`.
    True,
    /// `Ellipsis`.
    Ellipsis,
    /// The class `StopIteration`.
    StopIteration,
    /// An int of up to 64 bits.
    Int(i64),
    /// A larger int.
    Long(LongId),
    /// The bits of a float.
    Float(u64),
    /// The bits of a complex number.
    Complex {
        /// Real part.
        real: u64,
        /// Imaginary part.
        imag: u64,
    },
    /// bytes.
    Bytes(&'a [u8]),
    /// str.
    Str(Str<'a>),
    /// tuple.
    Tuple(Items),
    /// list.
    List(Items),
    /// set, in the order of the file.
    Set(Items),
    /// frozenset, in the order of the file.
    FrozenSet(Items),
    /// dict, in the order of the file.
    Dict(Items),
    /// frozendict, in the order of the file.
    FrozenDict(Items),
    /// slice: start, stop, step.
    Slice(Items),
    /// A code object.
    Code(CodeId),
}

impl Object<'_> {
    /// The Python type's name.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::False | Self::True => "bool",
            Self::Ellipsis => "Ellipsis",
            Self::StopIteration => "StopIteration",
            Self::Int(_) | Self::Long(_) => "int",
            Self::Float(_) => "float",
            Self::Complex { .. } => "complex",
            Self::Bytes(_) => "bytes",
            Self::Str(_) => "str",
            Self::Tuple(_) => "tuple",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::FrozenSet(_) => "frozenset",
            Self::Dict(_) => "dict",
            Self::FrozenDict(_) => "frozendict",
            Self::Slice(_) => "slice",
            Self::Code(_) => "code",
        }
    }

    /// Whether it holds other objects.
    pub fn is_compound(&self) -> bool {
        matches!(
            self,
            Self::Tuple(_)
                | Self::List(_)
                | Self::Set(_)
                | Self::FrozenSet(_)
                | Self::Dict(_)
                | Self::FrozenDict(_)
                | Self::Slice(_)
                | Self::Code(_)
        )
    }

    /// Whether what it holds must have a hash: sets and dicts.
    pub(crate) fn has_keys(&self) -> bool {
        matches!(self, Self::Set(_) | Self::FrozenSet(_) | Self::Dict(_) | Self::FrozenDict(_))
    }

    /// The same kind of container with other items; other objects as they are.
    #[must_use]
    pub(crate) fn with_items(self, items: Items) -> Self {
        match self {
            Self::Tuple(_) => Self::Tuple(items),
            Self::List(_) => Self::List(items),
            Self::Set(_) => Self::Set(items),
            Self::FrozenSet(_) => Self::FrozenSet(items),
            Self::Dict(_) => Self::Dict(items),
            Self::FrozenDict(_) => Self::FrozenDict(items),
            Self::Slice(_) => Self::Slice(items),
            other => other,
        }
    }

    /// Whether it can change after it was made, or is compared by identity here: lists, dicts, sets, code objects.
    /// Such objects never merge.
    pub fn has_identity(&self) -> bool {
        matches!(self, Self::List(_) | Self::Set(_) | Self::Dict(_) | Self::Code(_))
    }
}

/// The fields of a code object.
///
/// A field that the version does not have is 0, or `None`.
#[derive(Debug, Clone, Copy)]
pub struct Code {
    numbers: [i32; Field::COUNT],
}

impl Code {
    pub(crate) const EMPTY: Self = Self { numbers: [0; Field::COUNT] };

    /// A number.
    pub fn number(&self, field: Field) -> i32 {
        self.numbers[field as usize]
    }

    /// An object.
    pub fn object(&self, field: Field) -> ObjectId {
        ObjectId(self.numbers[field as usize].cast_unsigned())
    }

    pub(crate) fn set_number(&mut self, field: Field, number: i32) {
        self.numbers[field as usize] = number;
    }

    pub(crate) fn set_object(&mut self, field: Field, id: ObjectId) {
        self.numbers[field as usize] = id.0.cast_signed();
    }
}

/// Objects that refer to each other, and the Python whose they are.
#[derive(Debug, Clone)]
pub struct Heap<'a> {
    python: Python,
    objects: Vec<Object<'a>>,
    items: Vec<ObjectId>,
    longs: Vec<BigInt>,
    codes: Vec<Code>,
}

impl<'a> Heap<'a> {
    /// A heap with the fixed objects alone.
    pub fn new(python: Python) -> Self {
        Self::with_capacity(python, 0, 0)
    }

    /// As [`Self::new`], with room for so many other objects, and items of all containers.
    pub(crate) fn with_capacity(python: Python, objects: usize, items: usize) -> Self {
        use Object::{Ellipsis, False, None, StopIteration, True, Tuple};
        let mut heap = Self {
            python,
            objects: Vec::with_capacity(fixed::N_FIXED + objects),
            items: Vec::with_capacity(items),
            longs: Vec::new(),
            // One object in twelve is a code object, as measured.
            codes: Vec::with_capacity(objects / 12),
        };
        heap.objects.extend([None, False, True, Ellipsis, StopIteration, Tuple(Items::EMPTY)]);
        heap
    }

    /// The version whose code objects these are.
    pub fn python(&self) -> Python {
        self.python
    }

    /// How many objects there are, the fixed ones included.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Never: the fixed objects are always there.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Every id, in the order of creation.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = ObjectId> + use<> {
        (0..u32::try_from(self.objects.len()).expect("ids are 32 bits")).map(ObjectId)
    }

    /// The items of a container.
    pub fn items(&self, items: Items) -> &[ObjectId] {
        &self.items[items.start as usize..][..items.len()]
    }

    /// A big integer.
    pub fn long(&self, id: LongId) -> &BigInt {
        &self.longs[id.0 as usize]
    }

    /// A code object's fields.
    pub fn code(&self, id: CodeId) -> &Code {
        &self.codes[id.0 as usize]
    }

    /// Every code object.
    pub fn codes(&self) -> impl Iterator<Item = &Code> {
        self.codes.iter()
    }

    /// What an object holds, in the order of marshal: tables of code objects are included, a key that CPython drops is
    /// not.
    pub fn children<'h>(&'h self, id: ObjectId) -> Children<'h> {
        match self[id] {
            Object::Tuple(items)
            | Object::List(items)
            | Object::Set(items)
            | Object::FrozenSet(items)
            | Object::Slice(items) => Children::Items(self.items(items)),
            Object::Dict(items) | Object::FrozenDict(items) => Children::Items(&self.items(items)[..items.len() & !1]),
            Object::Code(code) => Children::Code(self.code(code), &self.python.layout().fields),
            _ => Children::Items(&[]),
        }
    }

    pub(crate) fn add(&mut self, object: Object<'a>) -> ObjectId {
        let id = ObjectId(u32::try_from(self.objects.len()).expect("inputs are below 2 GiB"));
        self.objects.push(object);
        id
    }

    pub(crate) fn set(&mut self, id: ObjectId, object: Object<'a>) {
        self.objects[id.index()] = object;
    }

    /// Room for `len` items, to be filled by [`Self::set_item`].
    pub(crate) fn reserve_items(&mut self, len: u32) -> Items {
        let start = u32::try_from(self.items.len()).expect("inputs are below 2 GiB");
        self.items.resize(self.items.len() + len as usize, fixed::NONE);
        Items { start, len }
    }

    pub(crate) fn set_item(&mut self, at: u32, id: ObjectId) {
        self.items[at as usize] = id;
    }

    /// How many items all containers have together.
    pub(crate) fn n_items(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn add_items(&mut self, items: &[ObjectId]) -> Items {
        let start = u32::try_from(self.items.len()).expect("inputs are below 2 GiB");
        self.items.extend_from_slice(items);
        Items { start, len: u32::try_from(items.len()).expect("inputs are below 2 GiB") }
    }

    /// An int, in whichever form it has.
    pub(crate) fn add_int(&mut self, value: BigInt) -> ObjectId {
        match i64::try_from(&value) {
            Ok(small) => self.add(Object::Int(small)),
            Err(_) => {
                self.longs.push(value);
                self.add(Object::Long(LongId(u32::try_from(self.longs.len() - 1).expect("fewer than objects"))))
            }
        }
    }

    /// What the `place`-th of the [`Self::children`] of an object is called: its field, or its number.
    pub(crate) fn name_of_child(&self, id: ObjectId, place: usize) -> String {
        match self[id] {
            Object::Code(_) => {
                let fields = self.python.layout().fields.iter().filter(|field| !field.is_number());
                fields.map(|field| field.name()).nth(place).unwrap_or_default().to_owned()
            }
            Object::Dict(_) | Object::FrozenDict(_) => {
                format!("{} {}", if place.is_multiple_of(2) { "key" } else { "value" }, place / 2)
            }
            _ => format!("item {place}"),
        }
    }

    /// What a container holds that is no code object, as by [`Self::children`].
    pub(crate) fn held(&self, id: ObjectId) -> &[ObjectId] {
        match self.children(id) {
            Children::Items(items) => items,
            Children::Code(..) => &[],
        }
    }

    pub(crate) fn set_int(&mut self, id: ObjectId, value: BigInt) {
        let copy = self.add_int(value);
        self.objects[id.index()] = self.objects[copy.index()];
    }

    /// An object of another heap, holding what `place` gives for what it holds.
    pub(crate) fn copy_of(
        &mut self,
        from: &Heap<'a>,
        id: ObjectId,
        place: impl Fn(ObjectId) -> ObjectId,
    ) -> Object<'a> {
        match from[id] {
            Object::Long(long) => {
                self.longs.push(from.long(long).clone());
                Object::Long(LongId(u32::try_from(self.longs.len() - 1).expect("fewer than objects")))
            }
            Object::Code(code) => {
                let mut copy = *from.code(code);
                for &field in &from.python.layout().fields {
                    if field.kind() != FieldKind::Number {
                        copy.set_object(field, place(copy.object(field)));
                    }
                }
                Object::Code(self.add_code(copy))
            }
            object if object.is_compound() => {
                let start = u32::try_from(self.items.len()).expect("inputs are below 2 GiB");
                self.items.extend(from.children(id).map(place));
                let len = u32::try_from(self.items.len()).expect("inputs are below 2 GiB") - start;
                object.with_items(Items { start, len })
            }
            object => object,
        }
    }

    pub(crate) fn add_code(&mut self, code: Code) -> CodeId {
        self.codes.push(code);
        CodeId(u32::try_from(self.codes.len() - 1).expect("fewer than objects"))
    }

    pub(crate) fn code_mut(&mut self, id: CodeId) -> &mut Code {
        &mut self.codes[id.0 as usize]
    }

    /// Whether CPython holds one object for all equal ones of the process, so that sharing says nothing: the singletons,
    /// `()`, small ints, empty and one-byte bytes, one-character Latin-1 str, interned str.
    ///
    /// Source: CPython `Objects/longobject.c` (-5 to 256 in every version), `bytesobject.c`, `unicodeobject.c`.
    pub fn is_process_wide(&self, id: ObjectId) -> bool {
        match self[id] {
            Object::None | Object::False | Object::True | Object::Ellipsis | Object::StopIteration => true,
            Object::Tuple(items) => items.is_empty(),
            Object::Int(value) => (-5..=256).contains(&value),
            Object::Bytes(bytes) => bytes.len() <= 1,
            Object::Str(text) => text.is_interned() || text.is_cached(),
            _ => false,
        }
    }
}

impl<'a> Index<ObjectId> for Heap<'a> {
    type Output = Object<'a>;

    fn index(&self, id: ObjectId) -> &Object<'a> {
        &self.objects[id.index()]
    }
}

/// What an object holds. See [`Heap::children`].
#[derive(Debug, Clone)]
pub enum Children<'h> {
    /// Items of a container.
    Items(&'h [ObjectId]),
    /// Objects of a code object, and the fields that are left.
    Code(&'h Code, &'h [Field]),
}

impl Iterator for Children<'_> {
    type Item = ObjectId;

    fn next(&mut self) -> Option<ObjectId> {
        match self {
            Self::Items(items) => {
                let (first, rest) = items.split_first()?;
                *items = rest;
                Some(*first)
            }
            Self::Code(code, fields) => loop {
                let (field, rest) = fields.split_first()?;
                *fields = rest;
                if field.kind() != FieldKind::Number {
                    return Some(code.object(*field));
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogates_are_text_and_other_broken_utf8_is_not() {
        for good in [&b"a\xed\xa0\x80b"[..], b"\xed\xbf\xbf", "é€𝄞".as_bytes(), b"\xed\xa0\xbd\xed\xb8\x80"] {
            assert!(Str::utf8(good, false).is_ok(), "{good:x?}");
        }
        let bad = |bytes| Str::utf8(bytes, false).unwrap_err();
        assert_eq!(bad(b"ab\xff"), 2);
        assert_eq!(bad(b"\xed\xa0\x80\xed\xa0"), 3);
        assert_eq!(bad(b"\xc0\x80"), 0);
    }

    #[test]
    fn latin1_and_utf8_of_one_text_are_the_same() {
        let latin1 = Str::latin1(b"caf\xe9", false);
        let utf8 = Str::utf8("café".as_bytes(), true).unwrap();
        assert!(latin1.same_text(utf8) && utf8.same_text(latin1));
        assert_eq!(latin1.to_utf8(&mut Vec::new()), "café".as_bytes());
        assert_eq!(utf8.code_points().collect::<Vec<_>>(), [0x63, 0x61, 0x66, 0xe9]);
    }

    #[test]
    fn one_latin1_character_is_cached_and_one_other_is_not() {
        assert!(Str::utf8("é".as_bytes(), false).unwrap().is_cached());
        assert!(Str::latin1(b"\xe9", false).is_cached());
        assert!(!Str::utf8("€".as_bytes(), false).unwrap().is_cached());
        assert!(!Str::utf8("Ā".as_bytes(), false).unwrap().is_cached());
        assert!(!Str::utf8(b"ab", false).unwrap().is_cached());
    }

    #[test]
    fn objects_stay_small() {
        assert_eq!(size_of::<Object<'_>>(), 24);
    }
}
