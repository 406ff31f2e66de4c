//! Reads a marshal dump, losing nothing.
//!
//! Invariants:
//! - What CPython's `marshal.loads` accepts is read; what it refuses is refused, with the place and the reason. Two
//!   exceptions are accepted: some dumps that crash CPython (a key that is an unfinished tuple, constants that hold
//!   themselves); and equal keys nested deeper than the interpreter happens to compare, a RecursionError before 3.13.
//! - No recursion, and no allocation beyond a fixed multiple of the input: every item that a container claims needs a
//!   byte of its own among those left.
//! - Objects take their ids in the order of their type bytes; a reference takes the id of what it refers to.
//!
//! Source: CPython `Python/marshal.c`, `r_object`, of each version.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use num_bigint::{BigInt, Sign};

use super::{FLAG_REF, MAX_DEPTH, TypeCode};
use crate::error::{Error, ErrorKind, Result};
use crate::heap::fixed::N_FIXED;
use crate::heap::{Code, CodeId, Heap, Items, Object, ObjectId, Str, fixed};
use crate::python::{Field, FieldKind, Layout, Python, count_kinds};

/// A marshal dump as it was read.
#[derive(Debug, Clone)]
pub struct Dump<'a> {
    /// The objects.
    pub heap: Heap<'a>,
    /// The top-level object.
    pub root: ObjectId,
    /// How they were written.
    pub transcript: Transcript<'a>,
    /// The objects, each after what it holds, where the reader met them so.
    pub(crate) order: Option<Vec<ObjectId>>,
    /// Bytes of the input that the object takes; what follows is ignored by CPython and kept by us.
    pub len: usize,
    /// What follows the object.
    pub trailing: &'a [u8],
}

/// What the objects alone do not know: how each was written.
#[derive(Debug, Clone, Default)]
pub struct Transcript<'a> {
    /// The type bytes, in the order of the file.
    pub(crate) types: Vec<u8>,
    /// Whose they are; `None` for NULL.
    pub(crate) ids: Vec<ObjectId>,
    /// The index of each reference, in the order of the file.
    pub(crate) refs: Vec<u32>,
    /// The text of each text float, in the order of the file.
    pub(crate) texts: Vec<&'a [u8]>,
    /// The dump itself, where the objects cannot make it again: it has a part of which nothing is left.
    pub(crate) verbatim: Option<&'a [u8]>,
}

/// How much of a [`Transcript`] was written at some time.
#[derive(Debug, Clone, Copy)]
struct Mark {
    types: u32,
    refs: u32,
    texts: u32,
}

impl Transcript<'_> {
    fn mark(&self) -> Mark {
        // Inputs are below 2 GiB.
        Mark { types: self.types.len() as u32, refs: self.refs.len() as u32, texts: self.texts.len() as u32 }
    }

    fn truncate(&mut self, mark: Mark) {
        self.types.truncate(mark.types as usize);
        self.ids.truncate(mark.types as usize);
        self.refs.truncate(mark.refs as usize);
        self.texts.truncate(mark.texts as usize);
    }
}

/// Reads the dump of a Python version from the front of `input`.
///
/// # Errors
/// What `marshal.loads` refuses, with the byte and the path of the object; and inputs of 2 GiB and more.
pub fn read(input: &[u8], python: Python) -> Result<Dump<'_>> {
    if i32::try_from(input.len()).is_err() {
        return Err(ErrorKind::TooLarge.into());
    }
    // Measured on standard libraries: an object takes 30 bytes or more, an item 20, a type byte 13; a little room is left.
    let (n_objects, n_types) = (input.len() / 26 + 8, input.len() / 11 + 8);
    let mut reader = Reader {
        input,
        rest: input,
        heap: Heap::with_capacity(python, n_objects, input.len() / 16 + 8),
        layout: python.layout(),
        frames: Vec::with_capacity(16),
        pairs: Vec::new(),
        claimed: 0,
        refs: Vec::with_capacity(n_objects),
        transcript: Transcript {
            types: Vec::with_capacity(n_types),
            ids: Vec::with_capacity(n_types),
            refs: Vec::with_capacity(n_objects),
            texts: Vec::new(),
            verbatim: None,
        },
        order: Vec::with_capacity(n_objects),
        is_ordered: true,
        has_fixed: [false; N_FIXED],
        cut_short: false,
        hashable: Vec::new(),
        looked_through: BTreeMap::new(),
    };
    let root = reader.run()?;
    let (len, trailing) = (reader.at(), reader.rest);
    reader.transcript.verbatim = reader.cut_short.then_some(&input[..len]);
    let order = (reader.is_ordered && !reader.cut_short).then_some(reader.order);
    Ok(Dump { heap: reader.heap, root, transcript: reader.transcript, order, len, trailing })
}

/// An object whose items are being read.
#[derive(Debug, Clone, Copy)]
struct Frame {
    id: ObjectId,
    /// Its index, if its type byte is flagged.
    index: Option<u32>,
    at: usize,
    rest: Rest,
}

/// What an index refers to.
#[derive(Debug, Clone, Copy)]
enum Target {
    /// An object that is not complete, of a type that cannot hold itself.
    Reserved,
    /// One that is not complete.
    Open(ObjectId),
    /// One that is.
    Complete(ObjectId),
}

#[derive(Debug, Clone, Copy)]
enum Rest {
    /// Items of the heap's from `next` to the end of `items` are still to come.
    Items { next: u32, items: Items },
    /// The same, of a set, whose items must have a hash.
    Keys { next: u32, items: Items },
    /// A slice, with so many of its items. It claims no bytes: NULL may cut it short.
    Slice { n_items: u8, items: [ObjectId; 3] },
    /// Keys and values stand in `pairs` from `start` on; `mark` is where the next one begins.
    Pairs { start: u32, mark: Mark },
    /// The next field of the layout.
    Fields { code: CodeId, next: usize },
}

struct Reader<'a> {
    input: &'a [u8],
    /// What was not read yet.
    rest: &'a [u8],
    heap: Heap<'a>,
    layout: &'static Layout,
    frames: Vec<Frame>,
    /// Keys and values of the dicts that are open.
    pairs: Vec<ObjectId>,
    /// Items of open containers that have not begun; each needs a byte.
    claimed: usize,
    refs: Vec<Target>,
    transcript: Transcript<'a>,
    /// The objects in the order in which they were complete.
    order: Vec<ObjectId>,
    /// Whether each of them stands there after what it holds, and is held by another.
    is_ordered: bool,
    /// Which of the fixed objects stand there.
    has_fixed: [bool; N_FIXED],
    /// Whether NULL ended a dict from inside one of its keys or values.
    cut_short: bool,
    /// By object: already found to be hashable. Empty until the first compound key.
    hashable: Vec<bool>,
    /// What was found of long values of which many code objects may have the same: whether a tuple is of str alone, and how
    /// many kinds of variables are those of local ones.
    looked_through: BTreeMap<ObjectId, usize>,
}

/// Shorter values are looked through for each code object that has them.
const LONG: usize = 256;

impl<'a> Reader<'a> {
    fn at(&self) -> usize {
        self.input.len() - self.rest.len()
    }

    fn run(&mut self) -> Result<ObjectId> {
        loop {
            let Some(mut value) = self.object()? else { continue };
            // Deliver it; what it completes is delivered in turn.
            loop {
                let Some(frame) = self.frames.last_mut() else { return Ok(value) };
                match &mut frame.rest {
                    Rest::Items { next, items } => {
                        let at = *next;
                        *next += 1;
                        let is_last = *next == items.start + items.len;
                        self.heap.set_item(at, value);
                        if !is_last {
                            self.claimed -= 1;
                            break;
                        }
                    }
                    Rest::Keys { .. } => {
                        if !self.key(value)? {
                            break;
                        }
                    }
                    Rest::Slice { n_items, items } => {
                        items[usize::from(*n_items)] = value;
                        *n_items += 1;
                        if usize::from(*n_items) < items.len() {
                            break;
                        }
                    }
                    Rest::Pairs { start, mark } => {
                        *mark = self.transcript.mark();
                        let is_value = (self.pairs.len() - *start as usize) % 2 == 1;
                        self.pairs.push(value);
                        if is_value {
                            self.check_hashable(self.pairs[self.pairs.len() - 2], "a dict key")?;
                        }
                        break;
                    }
                    Rest::Fields { code, next } => {
                        let (code, at) = (*code, *next);
                        *next += 1;
                        self.heap.code_mut(code).set_object(self.layout.fields[at], value);
                        if self.layout.is_object(at + 1) || !self.numbers(code, at + 1)? {
                            break;
                        }
                        self.check_code(code)?;
                    }
                }
                value = self.complete();
            }
        }
    }

    /// Adds an item to the innermost container, a set. Whether it was the last.
    fn key(&mut self, value: ObjectId) -> Result<bool> {
        self.check_hashable(value, "a set item")?;
        let Some(Frame { rest: Rest::Keys { next, items }, .. }) = self.frames.last_mut() else {
            unreachable!("a set is innermost")
        };
        self.heap.set_item(*next, value);
        *next += 1;
        let is_last = *next == items.start + items.len;
        self.claimed -= usize::from(!is_last);
        Ok(is_last)
    }

    /// Closes the innermost container.
    fn complete(&mut self) -> ObjectId {
        let frame = self.frames.pop().expect("a frame was just filled");
        let items = match frame.rest {
            Rest::Items { items, .. } | Rest::Keys { items, .. } => Some(items),
            Rest::Slice { items, .. } => Some(self.heap.add_items(&items)),
            Rest::Pairs { .. } | Rest::Fields { .. } => None,
        };
        if let Some(items) = items {
            self.heap.set(frame.id, self.heap[frame.id].with_items(items));
        }
        if let Some(index) = frame.index {
            self.refs[index as usize] = Target::Complete(frame.id);
        }
        self.order.push(frame.id);
        frame.id
    }

    /// Notes whose type byte was read; of the fixed objects, which need no reading.
    fn fixed(&mut self, id: ObjectId) -> ObjectId {
        self.transcript.ids.push(id);
        if !std::mem::replace(&mut self.has_fixed[id.index()], true) {
            self.order.push(id);
        }
        id
    }

    /// Reads one type byte and its payload. `None`: a container was opened, or NULL closed a dict and was delivered.
    fn object(&mut self) -> Result<Option<ObjectId>> {
        let start = self.at();
        if self.frames.len() >= MAX_DEPTH {
            return Err(self.error(ErrorKind::TooDeep, start));
        }
        let Some((&byte, rest)) = self.rest.split_first() else {
            return Err(self.error(ErrorKind::UnexpectedEnd { what: "an object", needed: 1, left: 0 }, start));
        };
        self.rest = rest;
        let Some(code) = TypeCode::new(byte, self.heap.python()) else {
            return Err(self.error(ErrorKind::UnknownTypeCode(byte & !FLAG_REF), start));
        };
        self.transcript.types.push(byte);
        let object = match code {
            TypeCode::Null => {
                self.transcript.ids.push(fixed::NONE);
                return self.null(start);
            }
            TypeCode::None => return Ok(Some(self.fixed(fixed::NONE))),
            TypeCode::False => return Ok(Some(self.fixed(fixed::FALSE))),
            TypeCode::True => return Ok(Some(self.fixed(fixed::TRUE))),
            TypeCode::StopIteration => return Ok(Some(self.fixed(fixed::STOP_ITERATION))),
            TypeCode::Ellipsis => return Ok(Some(self.fixed(fixed::ELLIPSIS))),
            TypeCode::Ref => return self.reference(start).map(Some),
            TypeCode::Int => Object::Int(i64::from(self.i32("int")?)),
            TypeCode::Int64 => Object::Int(i64::from_le_bytes(self.array("int")?)),
            TypeCode::Long => {
                let value = self.long(start)?;
                let id = self.heap.add_int(value);
                return Ok(Some(self.leaf(byte, id)));
            }
            TypeCode::TextFloat => Object::Float(self.text_float(start)?),
            TypeCode::Float => Object::Float(u64::from_le_bytes(self.array("float")?)),
            TypeCode::TextComplex => Object::Complex { real: self.text_float(start)?, imag: self.text_float(start)? },
            TypeCode::Complex => Object::Complex {
                real: u64::from_le_bytes(self.array("complex")?),
                imag: u64::from_le_bytes(self.array("complex")?),
            },
            TypeCode::Bytes => Object::Bytes(self.sized("bytes")?),
            TypeCode::Unicode | TypeCode::InternedUnicode => {
                let bytes = self.sized("str")?;
                match Str::utf8(bytes, code == TypeCode::InternedUnicode) {
                    Ok(text) => Object::Str(text),
                    Err(bad) => return Err(self.error(ErrorKind::BadUtf8(bad), start)),
                }
            }
            TypeCode::Ascii => Object::Str(Str::latin1(self.sized("str")?, false)),
            TypeCode::InternedAscii => Object::Str(Str::latin1(self.sized("str")?, true)),
            TypeCode::ShortAscii | TypeCode::InternedShortAscii => {
                let [len] = self.array("str")?;
                let front = self.rest;
                self.take(usize::from(len), "str")?;
                Object::Str(Str::latin1_in(front, usize::from(len), code == TypeCode::InternedShortAscii))
            }
            TypeCode::SmallTuple => {
                let [len] = self.array("tuple")?;
                return self.container(byte, start, Object::Tuple, "tuple", i32::from(len), false);
            }
            TypeCode::Tuple => {
                let len = self.i32("tuple")?;
                return self.container(byte, start, Object::Tuple, "tuple", len, false);
            }
            TypeCode::List => {
                let len = self.i32("list")?;
                return self.container(byte, start, Object::List, "list", len, false);
            }
            TypeCode::Set => {
                let len = self.i32("set")?;
                return self.container(byte, start, Object::Set, "set", len, false);
            }
            TypeCode::FrozenSet => {
                let len = self.i32("frozenset")?;
                return self.container(byte, start, Object::FrozenSet, "frozenset", len, true);
            }
            TypeCode::Slice => {
                let id = self.heap.add(Object::Slice(Items::EMPTY));
                self.open(byte, start, id, true, Rest::Slice { n_items: 0, items: [fixed::NONE; 3] });
                return Ok(None);
            }
            TypeCode::Dict => return self.open_dict(byte, start, Object::Dict(Items::EMPTY), false),
            TypeCode::FrozenDict => return self.open_dict(byte, start, Object::FrozenDict(Items::EMPTY), true),
            TypeCode::Code => return self.open_code(byte, start),
        };
        let id = self.heap.add(object);
        Ok(Some(self.leaf(byte, id)))
    }

    /// Notes an object that is complete with its payload.
    fn leaf(&mut self, byte: u8, id: ObjectId) -> ObjectId {
        self.transcript.ids.push(id);
        self.order.push(id);
        self.flagged(byte, id)
    }

    /// Gives `id` the next index if its type byte is flagged.
    fn flagged(&mut self, byte: u8, id: ObjectId) -> ObjectId {
        if byte & FLAG_REF != 0 {
            self.refs.push(Target::Complete(id));
        }
        id
    }

    /// Gives an unfinished container the next index if its type byte is flagged, or keeps a place for it.
    fn open(&mut self, byte: u8, at: usize, id: ObjectId, late: bool, rest: Rest) {
        let index = (byte & FLAG_REF != 0).then_some(self.refs.len() as u32);
        if index.is_some() {
            self.refs.push(if late { Target::Reserved } else { Target::Open(id) });
        }
        self.transcript.ids.push(id);
        self.frames.push(Frame { id, index, at, rest });
    }

    fn container(
        &mut self,
        byte: u8,
        start: usize,
        object: fn(Items) -> Object<'a>,
        what: &'static str,
        len: i32,
        late: bool,
    ) -> Result<Option<ObjectId>> {
        let Ok(len) = u32::try_from(len) else {
            return Err(self.error(ErrorKind::NegativeLength { what, length: len }, start));
        };
        let free = self.rest.len().saturating_sub(self.claimed);
        if len as usize > free {
            let length = u64::from(len);
            return Err(self.error(ErrorKind::LengthTooLarge { what, length, left: free }, start));
        }
        let empty = object(Items::EMPTY);
        if len == 0 {
            if matches!(empty, Object::Tuple(_)) {
                self.fixed(fixed::EMPTY_TUPLE);
                return Ok(Some(self.flagged(byte, fixed::EMPTY_TUPLE)));
            }
            let id = self.heap.add(empty);
            return Ok(Some(self.leaf(byte, id)));
        }
        // The first item begins right here.
        self.claimed += len as usize - 1;
        let items = self.heap.reserve_items(len);
        // Without its items until it is complete, so that nothing looks into it.
        let id = self.heap.add(empty);
        let next = items.start;
        let rest = match empty {
            Object::Set(_) | Object::FrozenSet(_) => Rest::Keys { next, items },
            _ => Rest::Items { next, items },
        };
        self.open(byte, start, id, late, rest);
        Ok(None)
    }

    fn open_dict(&mut self, byte: u8, start: usize, empty: Object<'a>, late: bool) -> Result<Option<ObjectId>> {
        let id = self.heap.add(empty);
        let first = u32::try_from(self.pairs.len()).expect("inputs are below 2 GiB");
        let mark = self.transcript.mark();
        self.open(byte, start, id, late, Rest::Pairs { start: first, mark });
        Ok(None)
    }

    fn open_code(&mut self, byte: u8, start: usize) -> Result<Option<ObjectId>> {
        let code = self.heap.add_code(Code::EMPTY);
        let id = self.heap.add(Object::Code(code));
        self.open(byte, start, id, true, Rest::Fields { code, next: 0 });
        self.numbers(code, 0)?;
        Ok(None)
    }

    /// Reads the numbers of the innermost code object that stand before the next of its objects; `next` is its next
    /// field. Whether it is complete.
    fn numbers(&mut self, code: CodeId, next: usize) -> Result<bool> {
        let end = next + usize::from(self.layout.numbers_from[next]);
        if end > next {
            for field in &self.layout.fields[next..end] {
                let number = self.i32(field.name())?;
                self.heap.code_mut(code).set_number(*field, number);
            }
            if let Some(Frame { rest: Rest::Fields { next, .. }, .. }) = self.frames.last_mut() {
                *next = end;
            }
        }
        Ok(end == self.layout.fields.len())
    }

    /// NULL ends a dict, wherever a key or a value could stand. Some types that meet a NULL are NULL themselves, without
    /// an error: then the dict that holds them ends.
    fn null(&mut self, start: usize) -> Result<Option<ObjectId>> {
        let python = self.heap.python();
        let is_null = |frame: &Frame| match self.heap[frame.id] {
            Object::Slice(_) => true,
            Object::Code(_) => python.null_makes_code_null(),
            _ => false,
        };
        let holder = self.frames.iter().rposition(|frame| !is_null(frame));
        let Some(&Frame { id, rest: Rest::Pairs { start: first, mark }, .. }) = holder.map(|at| &self.frames[at])
        else {
            let what = match self.frames.last() {
                None => "marshal data",
                Some(Frame { id, .. }) => self.heap[*id].type_name(),
            };
            return Err(self.error(ErrorKind::NullObject(what), start));
        };
        let first = first as usize;
        if holder.is_some_and(|at| at + 1 < self.frames.len()) {
            self.cut_short(first, mark);
        }
        let items = self.heap.add_items(&self.pairs[first..]);
        self.is_ordered &= items.len().is_multiple_of(2);
        self.pairs.truncate(first);
        self.heap.set(id, self.heap[id].with_items(items));
        Ok(Some(self.complete()))
    }

    /// Leaves what is open inside the innermost dict, of which nothing is left but the objects it gave an index.
    ///
    /// The transcript becomes that of a dict which ends here, dropping a key, as every dict that drops something does.
    #[cold]
    fn cut_short(&mut self, first: usize, mark: Mark) {
        while self.frames.pop_if(|frame| !matches!(frame.rest, Rest::Pairs { .. })).is_some() {}
        let null = self.transcript.types.pop().expect("the NULL was just read");
        self.transcript.truncate(mark);
        if (self.pairs.len() - first).is_multiple_of(2) {
            self.pairs.push(fixed::NONE);
            self.transcript.types.push(TypeCode::None as u8);
            self.transcript.ids.push(fixed::NONE);
        }
        self.transcript.types.push(null);
        self.transcript.ids.push(fixed::NONE);
        self.cut_short = true;
    }

    fn reference(&mut self, start: usize) -> Result<ObjectId> {
        let index = self.i32("reference")?;
        let found = usize::try_from(index).ok().and_then(|index| self.refs.get(index));
        let why = match found {
            Some(&(Target::Complete(id) | Target::Open(id))) => {
                self.transcript.refs.push(index.cast_unsigned());
                self.transcript.ids.push(id);
                self.is_ordered &= !matches!(found, Some(Target::Open(_)));
                return Ok(id);
            }
            Some(Target::Reserved) => "the object is not complete, and its type cannot hold itself",
            None => "no object has this index",
        };
        Err(self.error(ErrorKind::InvalidReference { index: i64::from(index), why }, start))
    }

    /// Source: CPython `Python/marshal.c`, `r_PyLong`.
    fn long(&mut self, start: usize) -> Result<BigInt> {
        let n = self.i32("int")?;
        let Some(count) = n.checked_abs() else {
            return Err(self.error(ErrorKind::BadInteger("size out of range"), start));
        };
        let digits = self.take(2 * count.cast_unsigned() as usize, "int")?;
        let mut bytes = Vec::with_capacity(digits.len());
        let (mut pending, mut bits, mut top) = (0u32, 0, 1);
        for digit in digits.chunks_exact(2) {
            top = u32::from(u16::from_le_bytes([digit[0], digit[1]]));
            if top >= 1 << 15 {
                return Err(self.error(ErrorKind::BadInteger("digit of more than 15 bits"), start));
            }
            pending |= top << bits;
            bits += 15;
            while bits >= 8 {
                bytes.push((pending & 0xff) as u8);
                pending >>= 8;
                bits -= 8;
            }
        }
        if top == 0 {
            return Err(self.error(ErrorKind::BadInteger("with a leading digit of zero"), start));
        }
        bytes.push((pending & 0xff) as u8);
        Ok(BigInt::from_bytes_le(if n < 0 { Sign::Minus } else { Sign::Plus }, &bytes))
    }

    /// CPython copies the text behind a NUL and parses up to the first NUL.
    ///
    /// Source: CPython `Python/marshal.c`, `r_float_str`.
    fn text_float(&mut self, start: usize) -> Result<u64> {
        let [len] = self.array("float")?;
        let text = self.take(usize::from(len), "float")?;
        let parsed = text.split(|byte| *byte == 0).next().and_then(|text| std::str::from_utf8(text).ok());
        match parsed.and_then(|text| text.parse::<f64>().ok()) {
            Some(value) => {
                self.transcript.texts.push(text);
                Ok(value.to_bits())
            }
            None => {
                let text = String::from_utf8_lossy(text).into_owned();
                Err(self.error(ErrorKind::BadFloat(text), start))
            }
        }
    }

    #[inline]
    fn take(&mut self, needed: usize, what: &'static str) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(needed) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => Err(self.cut_off(what, needed)),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        match self.rest.split_first_chunk() {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(*bytes)
            }
            None => Err(self.cut_off(what, N)),
        }
    }

    #[cold]
    fn cut_off(&self, what: &'static str, needed: usize) -> Error {
        self.error(ErrorKind::UnexpectedEnd { what, needed, left: self.rest.len() }, self.at())
    }

    #[inline]
    fn i32(&mut self, what: &'static str) -> Result<i32> {
        Ok(i32::from_le_bytes(self.array(what)?))
    }

    #[inline]
    fn sized(&mut self, what: &'static str) -> Result<&'a [u8]> {
        let start = self.at();
        let length = self.i32(what)?;
        match usize::try_from(length) {
            Ok(len) => self.take(len, what),
            Err(_) => Err(self.error(ErrorKind::NegativeLength { what, length }, start)),
        }
    }

    /// Refuses a key whose hash CPython could not take. Of an unfinished tuple only the items that it has are looked at:
    /// if they are hashable, hashing it crashes CPython.
    fn check_hashable(&mut self, key: ObjectId, role: &'static str) -> Result<()> {
        if !self.heap[key].is_compound() {
            return Ok(());
        }
        self.hashable.resize(self.heap.len(), false);
        let filled = |id| {
            let of = |frame: &Frame| match frame.rest {
                Rest::Items { next, items } if frame.id == id => Some(Items { len: next - items.start, ..items }),
                _ => None,
            };
            self.heap.items(self.frames.iter().find_map(of).unwrap_or(Items::EMPTY))
        };
        match unhashable_item(&self.heap, key, &mut self.hashable, filled) {
            None => Ok(()),
            Some(what) => Err(self.error(ErrorKind::Unhashable { what, role }, self.at())),
        }
    }

    /// Whether it is a tuple whose items are still to come.
    fn is_unfinished(&self, id: ObjectId) -> bool {
        matches!(self.heap[id], Object::Tuple(Items::EMPTY)) && id != fixed::EMPTY_TUPLE
    }

    /// What the code constructor checks: types, then numbers.
    fn check_code(&mut self, id: CodeId) -> Result<()> {
        let layout = self.layout;
        let at = self.frames.last().map_or(0, |frame| frame.at);
        if !layout.tables.iter().chain(&layout.operands).all(|field| self.fits(id, *field)) {
            let field = layout.fields.iter().find(|field| !field.is_number() && !self.fits(id, **field));
            let field = *field.expect("tables and operands are all that is no number");
            return Err(self.error(self.wrong_type(field, self.heap.code(id).object(field)), at));
        }
        let kinds = self.heap.code(id).object(Field::LocalsPlusKinds);
        let n_locals = match self.heap[kinds] {
            Object::Bytes(bytes) => {
                Some(self.looked_through(kinds, bytes.len(), |_| count_kinds(bytes).n_locals as usize))
            }
            _ => None,
        };
        let code = self.heap.code(id);
        let len = |field| match self.heap[code.object(field)] {
            Object::Bytes(bytes) => bytes.len(),
            Object::Tuple(items) => items.len(),
            _ => 0,
        };
        let n_variables = n_locals.unwrap_or_else(|| len(Field::VarNames));
        let (python, number) = (self.heap.python(), |field| code.number(field));
        if let Some(why) = python.refuses_code(number, len).or_else(|| python.refuses_arguments(number, n_variables)) {
            return Err(self.error(ErrorKind::BadCode(why), at));
        }
        Ok(())
    }

    /// Whether a code object can have what it holds as its `field`.
    #[inline]
    fn fits(&mut self, id: CodeId, field: Field) -> bool {
        let held = self.heap.code(id).object(field);
        match (field.kind(), self.heap[held]) {
            (FieldKind::Bytes, Object::Bytes(_)) | (FieldKind::Str, Object::Str(_)) => true,
            (FieldKind::Tuple, Object::Tuple(_)) => !self.is_unfinished(held),
            (FieldKind::Names, Object::Tuple(items)) => {
                let is_str = |heap: &Heap<'_>, id: &ObjectId| matches!(heap[*id], Object::Str(_));
                let are_str = |heap: &Heap<'_>| usize::from(heap.items(items).iter().all(|id| is_str(heap, id)));
                !self.is_unfinished(held) && self.looked_through(held, items.len(), are_str) != 0
            }
            _ => false,
        }
    }

    /// What `look` finds of a value of some length.
    #[inline]
    fn looked_through(&mut self, id: ObjectId, len: usize, look: impl FnOnce(&Heap<'a>) -> usize) -> usize {
        if len < LONG {
            return look(&self.heap);
        }
        let heap = &self.heap;
        *self.looked_through.entry(id).or_insert_with(|| look(heap))
    }

    /// Says that a code object cannot have `held` as its `field`.
    #[cold]
    fn wrong_type(&self, field: Field, held: ObjectId) -> ErrorKind {
        let is_unfinished = self.is_unfinished(held);
        let expected = match field.kind() {
            FieldKind::Tuple | FieldKind::Names if is_unfinished => "a finished tuple",
            FieldKind::Bytes => "bytes",
            FieldKind::Str => "a str",
            FieldKind::Names => "a tuple of str",
            FieldKind::Tuple | FieldKind::Number => "a tuple",
        };
        let found = match &self.heap[held] {
            Object::Tuple(_) if is_unfinished => "one that holds the code object",
            Object::Tuple(_) if field.kind() == FieldKind::Names => "a tuple with other items",
            object => object.type_name(),
        };
        ErrorKind::WrongFieldType { field: field.name(), expected, found }
    }

    /// Builds the path of the innermost container, outermost first.
    #[cold]
    fn error(&self, kind: ErrorKind, at: usize) -> Error {
        let mut path = Vec::new();
        for frame in &self.frames {
            let what = match self.heap[frame.id] {
                Object::Code(_) => "code object",
                other => other.type_name(),
            };
            path.push(match frame.rest {
                Rest::Items { next, items } | Rest::Keys { next, items } => {
                    format!("{what} > item {}", next - items.start)
                }
                Rest::Slice { n_items, .. } => format!("{what} > item {n_items}"),
                Rest::Pairs { start, .. } => {
                    let n = self.pairs.len() - start as usize;
                    format!("{what} > {} {}", if n.is_multiple_of(2) { "key" } else { "value" }, n / 2)
                }
                Rest::Fields { next, .. } => match self.layout.fields.get(next) {
                    Some(field) => format!("{what} > {}", field.name()),
                    None => what.to_owned(),
                },
            });
        }
        Error::at(kind, at).inside(shorten(&path))
    }
}

/// Joins the steps of a path, leaving out the middle of very long ones.
pub(crate) fn shorten(path: &[String]) -> String {
    const ENDS: usize = 4;
    if path.len() <= 2 * ENDS {
        return path.join(" > ");
    }
    let left_out = path.len() - 2 * ENDS;
    format!("{} > ... {left_out} more ... > {}", path[..ENDS].join(" > "), path[path.len() - ENDS..].join(" > "))
}

/// The type inside `key` that has no hash, if there is one. What is already known to be hashable is in `known`, and what
/// is found to be is added.
pub(crate) fn unhashable(heap: &Heap<'_>, key: ObjectId, known: &mut [bool]) -> Option<&'static str> {
    unhashable_item(heap, key, known, |_| &[])
}

/// As [`unhashable`]; `filled` gives the items that an unfinished tuple has.
fn unhashable_item<'h>(
    heap: &'h Heap<'_>,
    key: ObjectId,
    known: &mut [bool],
    filled: impl Fn(ObjectId) -> &'h [ObjectId],
) -> Option<&'static str> {
    let mut todo = vec![key];
    // What is being hashed, by position in `todo`: it lies below what it holds.
    let mut open = IndexMap::<ObjectId, usize, foldhash::fast::FixedState>::default();
    while let Some(&id) = todo.last() {
        if open.last().is_some_and(|(_, at)| *at == todo.len() - 1) {
            open.pop();
            todo.pop();
            continue;
        }
        let was_known = std::mem::replace(&mut known[id.index()], true);
        if was_known && open.contains_key(&id) {
            return Some("object that holds itself");
        }
        if was_known || !heap[id].is_compound() {
            todo.pop();
            continue;
        }
        open.insert(id, todo.len() - 1);
        match heap[id] {
            Object::Tuple(Items::EMPTY) if id != fixed::EMPTY_TUPLE => todo.extend(filled(id)),
            // The items of a frozenset and the keys of a frozendict were keys themselves when it was made.
            Object::Tuple(_) | Object::Slice(_) | Object::FrozenDict(_) => todo.extend(heap.children(id)),
            Object::Code(code) => todo.push(heap.code(code).object(Field::Consts)),
            Object::List(_) | Object::Set(_) | Object::Dict(_) => return Some(heap[id].type_name()),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marshal::{write, write_exact};

    fn refused(dump: &[u8], minor: u8) -> String {
        read(dump, Python::new(minor).unwrap()).unwrap_err().to_string()
    }

    fn accepted(dump: &[u8], minor: u8) -> Vec<u8> {
        let dump_read = read(dump, Python::new(minor).unwrap()).unwrap();
        assert_eq!(write_exact(&dump_read), dump);
        write(&dump_read.heap, dump_read.root).unwrap()
    }

    /// A code object of Python 3.`minor` with the numbers that are given, one variable, and `consts`.
    fn code(minor: u8, numbers: &[(Field, i32)], consts: &[u8]) -> Vec<u8> {
        let mut dump = b"c".to_vec();
        for &field in &Python::new(minor).unwrap().layout().fields {
            let number = numbers.iter().find(|(name, _)| *name == field).map_or(0, |(_, number)| *number);
            match field {
                Field::Consts => dump.extend(consts),
                Field::VarNames | Field::LocalsPlusNames => dump.extend(b")\x01z\x01a"),
                Field::LocalsPlusKinds => dump.extend(b"s\x01\0\0\0 "),
                _ => match field.kind() {
                    FieldKind::Number => dump.extend(number.to_le_bytes()),
                    FieldKind::Bytes => dump.extend(b"s\0\0\0\0"),
                    FieldKind::Tuple | FieldKind::Names => dump.extend(b")\0"),
                    FieldKind::Str => dump.extend(b"z\0"),
                },
            }
        }
        dump
    }

    #[test]
    fn arguments_need_local_variables() {
        for minor in 6..=15 {
            accepted(&code(minor, &[(Field::ArgCount, 1)], b")\0"), minor);
            for numbers in [&[(Field::ArgCount, 2)][..], &[(Field::KwOnlyArgCount, 1), (Field::Flags, 4)]] {
                let said = refused(&code(minor, numbers, b")\0"), minor);
                assert!(said.contains("more arguments than local variables"), "3.{minor}: {said}");
            }
        }
    }

    #[test]
    fn argument_counts_wrap_around_as_in_c() {
        let numbers = [(Field::ArgCount, i32::MAX), (Field::KwOnlyArgCount, i32::MAX)];
        accepted(&code(11, &numbers, b")\0"), 11);
        assert!(refused(&code(10, &numbers, b")\0"), 10).contains("more arguments"));
    }

    #[test]
    fn a_negative_stack_size_is_refused_since_positional_only_arguments_exist() {
        accepted(&code(7, &[(Field::StackSize, -1)], b")\0"), 7);
        for minor in 8..=15 {
            let said = refused(&code(minor, &[(Field::StackSize, -1)], b")\0"), minor);
            assert!(said.contains("stack size or flags are negative"), "3.{minor}: {said}");
        }
    }

    #[test]
    fn constants_are_no_tuple_that_holds_the_code_object() {
        let dump = [b"\xa9\x01".to_vec(), code(13, &[], b"r\0\0\0\0")].concat();
        assert!(refused(&dump, 13).starts_with("co_consts is one that holds the code object, not a finished tuple"));
    }

    #[test]
    fn an_unfinished_tuple_with_a_list_in_it_is_no_key() {
        // ([], {the tuple})
        let said = refused(b"\xa9\x02[\0\0\0\0<\x01\0\0\0r\0\0\0\0", 13);
        assert!(said.starts_with("unhashable list as a set item"), "{said}");
    }

    #[test]
    fn a_tuple_that_holds_itself_is_no_key() {
        let said = refused(b"<\x01\0\0\0\xa9\x01r\0\0\0\0", 14);
        assert!(said.starts_with("unhashable object that holds itself as a set item"), "{said}");
    }

    #[test]
    fn null_inside_a_slice_ends_the_dict_around_it() {
        // {None: slice(7, <NULL>, as value, then as key.
        for dump in [&b"[\x02\0\0\0{N:\xe9\x07\0\0\x000r\0\0\0\0"[..], b"[\x02\0\0\0{:\xe9\x07\0\0\x000r\0\0\0\0"] {
            assert_eq!(accepted(dump, 14), b"[\x02\0\0\0{N0i\x07\0\0\0");
        }
        assert_eq!(accepted(b"{N:)\x01N0", 14), b"{N0");
        assert!(refused(b"[\x01\0\0\0:0", 14).starts_with("NULL object in slice"));
    }

    #[test]
    fn null_inside_code_ends_the_dict_around_it_up_to_3_10() {
        let dump = [&b"{"[..], &code(10, &[], b"0")].concat();
        let end = dump.iter().rposition(|byte| *byte == b'0').unwrap() + 1;
        assert_eq!(accepted(&dump[..end], 10), b"{N0");
        assert!(refused(&code(11, &[], b"0"), 11).starts_with("NULL object in code"));
    }
}
