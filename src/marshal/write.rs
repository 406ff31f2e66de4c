//! Writes a heap as a marshal dump.
//!
//! [`write_script`] does the writing; a [`Script`] decides each type byte: the transcript of a dump that was read, the
//! source section of an initializer, or [`Plain`].

use num_bigint::{BigInt, Sign};

use super::{Dump, Event, FLAG_REF, MAX_DEPTH, Step, Transcript, TypeCode, walk};
use crate::error::{Error, ErrorKind, Result};
use crate::heap::{Heap, Object, ObjectId, Str};

/// Decides how each object is written.
pub(crate) trait Script<'s> {
    /// The type byte of the next object in the order of marshal; `None` for the NULL that ends a dict.
    fn type_byte(&mut self, heap: &Heap<'_>, id: Option<ObjectId>) -> Result<u8>;

    /// The index that the reference to `id` carries.
    fn reference(&mut self, id: ObjectId) -> Result<u32>;

    /// The next text of a text float.
    fn text(&mut self) -> Result<&'s [u8]>;
}

/// Writes the identical bytes that a dump was read from.
pub fn write_exact(dump: &Dump<'_>) -> Vec<u8> {
    if let Some(verbatim) = dump.transcript.verbatim {
        return [verbatim, dump.trailing].concat();
    }
    let mut script = Recorded::new(&dump.transcript);
    let mut out = Vec::with_capacity(dump.len + dump.trailing.len());
    write_script(&dump.heap, dump.root, &mut script, usize::MAX, &mut out)
        .expect("a dump that was read fits its own transcript");
    out.extend_from_slice(dump.trailing);
    out
}

/// Writes the objects below `root` as CPython's newest marshal version for the heap's Python does: a flag exactly where
/// a reference follows, the shortest form of every type.
///
/// # Errors
/// [`ErrorKind::TooDeep`] and [`ErrorKind::HoldsItself`] if CPython could not read it back;
/// [`ErrorKind::Unmarshallable`] for types that its marshal does not know.
pub fn write(heap: &Heap<'_>, root: ObjectId) -> Result<Vec<u8>> {
    let mut seen = vec![Seen::No; heap.len()];
    // The objects that hold the current one, outermost first; and by object, where it stood there last.
    let (mut open, mut places): (Vec<ObjectId>, Vec<u32>) = (Vec::new(), vec![0; heap.len()]);
    walk(heap, root, |event| {
        let Event::Object { id, step, depth } = event else { return Ok(true) };
        check_writable(heap, id, depth)?;
        open.truncate(depth);
        let is_open = || open.get(places[id.index()] as usize) == Some(&id);
        let seen = &mut seen[id.index()];
        let first = *seen == Seen::No;
        if !first && only_referable_once_complete(&heap[id], step) && is_open() {
            return Err(ErrorKind::HoldsItself(heap[id].type_name()).into());
        }
        places[id.index()] = depth as u32;
        open.push(id);
        *seen = if first { Seen::Once } else { Seen::Again };
        Ok(first)
    })?;
    let mut script = Plain { seen, indexes: vec![None; heap.len()], next: 0 };
    let mut out = Vec::new();
    write_script(heap, root, &mut script, usize::MAX, &mut out)?;
    Ok(out)
}

/// Whether a reference at `step` to the object finds it only once it is complete: its type keeps a mere place until then,
/// or the constructor of code objects looks into it.
///
/// Source: CPython `Python/marshal.c`, `r_ref_reserve`.
fn only_referable_once_complete(object: &Object<'_>, step: Step) -> bool {
    match object {
        Object::FrozenSet(_) | Object::FrozenDict(_) | Object::Slice(_) | Object::Code(_) => true,
        Object::Tuple(_) => matches!(step, Step::Field(_)),
        _ => false,
    }
}

fn check_writable(heap: &Heap<'_>, id: ObjectId, depth: usize) -> Result<()> {
    let python = heap.python();
    if depth >= MAX_DEPTH {
        return Err(ErrorKind::TooDeep.into());
    }
    let known = match heap[id] {
        Object::Slice(_) => python.has_slices(),
        Object::FrozenDict(_) => python.has_frozendict(),
        _ => true,
    };
    if known {
        Ok(())
    } else {
        let what = heap[id].type_name();
        Err(ErrorKind::Unmarshallable { what, python: python.to_string() }.into())
    }
}

/// Writes what is below `root` as `script` says, up to `limit` bytes.
///
/// # Errors
/// Those of the script; [`ErrorKind::BadSource`] where a type byte does not fit its object; and
/// [`ErrorKind::BudgetExceeded`].
pub(crate) fn write_script<'s>(
    heap: &Heap<'_>,
    root: ObjectId,
    script: &mut impl Script<'s>,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    let python = heap.python();
    walk(heap, root, |event| {
        if out.len() > limit {
            return Err(ErrorKind::BudgetExceeded { what: "the marshal dump", budget: limit as u64 }.into());
        }
        match event {
            Event::Number { number, .. } => {
                out.extend_from_slice(&number.to_le_bytes());
                Ok(false)
            }
            Event::Null { .. } => {
                let byte = script.type_byte(heap, None)?;
                if TypeCode::new(byte, python) != Some(TypeCode::Null) {
                    return Err(misfit());
                }
                out.push(byte);
                Ok(false)
            }
            Event::Object { id, .. } => {
                let byte = script.type_byte(heap, Some(id))?;
                out.push(byte);
                let code = TypeCode::new(byte, python).ok_or_else(misfit)?;
                if code == TypeCode::Ref {
                    out.extend_from_slice(&script.reference(id)?.to_le_bytes());
                    return Ok(false);
                }
                write_payload(heap, id, code, script, out)?;
                Ok(true)
            }
        }
    })
}

#[cold]
fn misfit() -> Error {
    ErrorKind::BadSource("a type byte does not fit its object").into()
}

/// Writes what follows the type byte, up to the first item.
pub(crate) fn write_payload<'s>(
    heap: &Heap<'_>,
    id: ObjectId,
    code: TypeCode,
    script: &mut impl Script<'s>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let object = &heap[id];
    match (code, object) {
        (TypeCode::None, Object::None)
        | (TypeCode::False, Object::False)
        | (TypeCode::True, Object::True)
        | (TypeCode::StopIteration, Object::StopIteration)
        | (TypeCode::Ellipsis, Object::Ellipsis)
        | (TypeCode::Dict, Object::Dict(_))
        | (TypeCode::FrozenDict, Object::FrozenDict(_))
        | (TypeCode::Slice, Object::Slice(_))
        | (TypeCode::Code, Object::Code(_)) => {}
        (TypeCode::Int, Object::Int(value)) => {
            out.extend_from_slice(&i32::try_from(*value).map_err(|_| misfit())?.to_le_bytes());
        }
        (TypeCode::Int64, Object::Int(value)) => out.extend_from_slice(&value.to_le_bytes()),
        (TypeCode::Long, Object::Int(value)) => write_long(&BigInt::from(*value), out)?,
        (TypeCode::Long, Object::Long(long)) => write_long(heap.long(*long), out)?,
        (TypeCode::Float, Object::Float(bits)) => out.extend_from_slice(&bits.to_le_bytes()),
        (TypeCode::TextFloat, Object::Float(_)) => write_short(script.text()?, out)?,
        (TypeCode::Complex, Object::Complex { real, imag }) => {
            out.extend_from_slice(&real.to_le_bytes());
            out.extend_from_slice(&imag.to_le_bytes());
        }
        (TypeCode::TextComplex, Object::Complex { .. }) => {
            write_short(script.text()?, out)?;
            write_short(script.text()?, out)?;
        }
        (TypeCode::Bytes, Object::Bytes(bytes)) => write_sized(bytes, out),
        (TypeCode::Unicode | TypeCode::InternedUnicode, Object::Str(text)) => {
            write_sized(text.to_utf8(&mut Vec::new()), out);
        }
        (TypeCode::Ascii | TypeCode::InternedAscii, Object::Str(text)) => {
            write_sized(to_latin1(*text, &mut Vec::new())?, out);
        }
        (TypeCode::ShortAscii | TypeCode::InternedShortAscii, Object::Str(text)) => {
            write_short(to_latin1(*text, &mut Vec::new())?, out)?;
        }
        (TypeCode::SmallTuple, Object::Tuple(items)) => out.push(u8::try_from(items.len).map_err(|_| misfit())?),
        (TypeCode::Tuple, Object::Tuple(items))
        | (TypeCode::List, Object::List(items))
        | (TypeCode::Set, Object::Set(items))
        | (TypeCode::FrozenSet, Object::FrozenSet(items)) => out.extend_from_slice(&items.len.to_le_bytes()),
        _ => return Err(misfit()),
    }
    Ok(())
}

/// The text with one byte a character.
fn to_latin1<'b>(text: Str<'b>, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]> {
    if let (bytes, crate::heap::Encoding::Ascii | crate::heap::Encoding::Latin1) = text.raw() {
        return Ok(bytes);
    }
    for point in text.code_points() {
        buffer.push(u8::try_from(point).map_err(|_| misfit())?);
    }
    Ok(buffer)
}

fn write_sized(bytes: &[u8], out: &mut Vec<u8>) {
    let len = i32::try_from(bytes.len()).expect("inputs are below 2 GiB");
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn write_short(bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.push(u8::try_from(bytes.len()).map_err(|_| misfit())?);
    out.extend_from_slice(bytes);
    Ok(())
}

/// Source: CPython `Python/marshal.c`, `w_PyLong`.
fn write_long(value: &BigInt, out: &mut Vec<u8>) -> Result<()> {
    let (sign, bytes) = value.to_bytes_le();
    let place = out.len();
    out.extend_from_slice(&[0; 4]);
    let (mut pending, mut bits) = (0u32, 0);
    for byte in bytes {
        pending |= u32::from(byte) << bits;
        bits += 8;
        if bits >= 15 {
            out.extend_from_slice(&((pending & 0x7fff) as u16).to_le_bytes());
            pending >>= 15;
            bits -= 15;
        }
    }
    if pending != 0 {
        out.extend_from_slice(&(pending as u16).to_le_bytes());
    }
    // A whole last digit of zeros comes from the padding of the topmost byte.
    while out.len() > place + 4 && out.ends_with(&[0, 0]) {
        out.truncate(out.len() - 2);
    }
    let count = i32::try_from((out.len() - place - 4) / 2).map_err(|_| Error::new(ErrorKind::TooLarge))?;
    let count = if sign == Sign::Minus { -count } else { count };
    out[place..place + 4].copy_from_slice(&count.to_le_bytes());
    Ok(())
}

/// The script of a dump that was read.
pub(crate) struct Recorded<'t, 'a> {
    transcript: &'t Transcript<'a>,
    types: usize,
    refs: usize,
    texts: usize,
}

impl<'t, 'a> Recorded<'t, 'a> {
    pub(crate) fn new(transcript: &'t Transcript<'a>) -> Self {
        Self { transcript, types: 0, refs: 0, texts: 0 }
    }
}

impl<'a> Script<'a> for Recorded<'_, 'a> {
    fn type_byte(&mut self, _: &Heap<'_>, _: Option<ObjectId>) -> Result<u8> {
        self.types += 1;
        self.transcript.types.get(self.types - 1).copied().ok_or_else(misfit)
    }

    fn reference(&mut self, _: ObjectId) -> Result<u32> {
        self.refs += 1;
        self.transcript.refs.get(self.refs - 1).copied().ok_or_else(misfit)
    }

    fn text(&mut self) -> Result<&'a [u8]> {
        self.texts += 1;
        self.transcript.texts.get(self.texts - 1).copied().ok_or_else(misfit)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    No,
    Once,
    Again,
}

/// The script of [`write()`].
struct Plain {
    seen: Vec<Seen>,
    indexes: Vec<Option<u32>>,
    next: u32,
}

impl Script<'static> for Plain {
    fn type_byte(&mut self, heap: &Heap<'_>, id: Option<ObjectId>) -> Result<u8> {
        let Some(id) = id else { return Ok(TypeCode::Null as u8) };
        if self.indexes[id.index()].is_some() {
            return Ok(TypeCode::Ref as u8);
        }
        let code = shortest(&heap[id]) as u8;
        // The singletons take no index.
        let takes_index =
            !matches!(heap[id], Object::None | Object::False | Object::True | Object::Ellipsis | Object::StopIteration);
        if takes_index && self.seen[id.index()] == Seen::Again {
            self.indexes[id.index()] = Some(self.next);
            self.next += 1;
            return Ok(code | FLAG_REF);
        }
        Ok(code)
    }

    fn reference(&mut self, id: ObjectId) -> Result<u32> {
        self.indexes[id.index()].ok_or_else(misfit)
    }

    fn text(&mut self) -> Result<&'static [u8]> {
        Err(misfit())
    }
}

/// The kind of str that CPython keeps one object of: whether it is written as interned depends on who is asked.
pub(crate) const CACHED: u8 = 1;

/// Objects of one kind are expected to have the same type byte: that of [`shortest`], or [`CACHED`].
#[inline(always)]
pub(crate) fn kind(object: &Object<'_>) -> u8 {
    match object {
        Object::Str(text) if text.is_cached() => CACHED,
        _ => shortest(object) as u8,
    }
}

/// The code that the newest marshal versions write.
#[inline(always)]
fn shortest(object: &Object<'_>) -> TypeCode {
    match object {
        Object::None => TypeCode::None,
        Object::False => TypeCode::False,
        Object::True => TypeCode::True,
        Object::Ellipsis => TypeCode::Ellipsis,
        Object::StopIteration => TypeCode::StopIteration,
        Object::Int(value) if i32::try_from(*value).is_ok() => TypeCode::Int,
        Object::Int(_) | Object::Long(_) => TypeCode::Long,
        Object::Float(_) => TypeCode::Float,
        Object::Complex { .. } => TypeCode::Complex,
        Object::Bytes(_) => TypeCode::Bytes,
        Object::Str(text) => match (text.is_ascii(), text.raw().0.len() < 256, text.is_interned()) {
            (true, true, false) => TypeCode::ShortAscii,
            (true, true, true) => TypeCode::InternedShortAscii,
            (true, false, false) => TypeCode::Ascii,
            (true, false, true) => TypeCode::InternedAscii,
            (false, _, false) => TypeCode::Unicode,
            (false, _, true) => TypeCode::InternedUnicode,
        },
        Object::Tuple(items) if items.len() < 256 => TypeCode::SmallTuple,
        Object::Tuple(_) => TypeCode::Tuple,
        Object::List(_) => TypeCode::List,
        Object::Set(_) => TypeCode::Set,
        Object::FrozenSet(_) => TypeCode::FrozenSet,
        Object::Dict(_) => TypeCode::Dict,
        Object::FrozenDict(_) => TypeCode::FrozenDict,
        Object::Slice(_) => TypeCode::Slice,
        Object::Code(_) => TypeCode::Code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::fixed;
    use crate::python::Python;

    /// What writing says of `[object]` where `object` holds the list.
    fn said_of(object: fn(crate::heap::Items) -> Object<'static>, n_items: usize) -> String {
        let mut heap = Heap::new(Python::LATEST);
        let list = heap.add(Object::None);
        let mut items = vec![fixed::NONE; n_items];
        items[0] = list;
        let items = heap.add_items(&items);
        let holder = heap.add(object(items));
        let items = heap.add_items(&[holder]);
        heap.set(list, Object::List(items));
        assert!(write(&heap, list).is_ok());
        write(&heap, holder).map_or_else(|error| error.to_string(), |_| "written".to_owned())
    }

    #[test]
    fn what_marshal_keeps_a_place_for_cannot_hold_itself_through_a_list() {
        assert_eq!(said_of(Object::Tuple, 1), "written");
        assert_eq!(said_of(Object::List, 1), "written");
        let refused = "a slice holds itself, and marshal could not read it back";
        assert_eq!(said_of(Object::Slice, 3), refused);
        assert_eq!(said_of(Object::FrozenSet, 1), refused.replace("slice", "frozenset"));
        assert_eq!(said_of(Object::FrozenDict, 2), refused.replace("slice", "frozendict"));
    }
}
