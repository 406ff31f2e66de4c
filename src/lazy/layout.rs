//! The bytes of the container, in both layouts: read here, and written here.
//!
//! What a code object's record holds is a [`Record`] in either layout, so that nothing behind this file knows which it was.
//!
//! Invariants:
//! - Everything that is read lies inside its area; a redirect leads to an entry that is none.
//! - What [`write_code`] writes, [`Container::code`] reads.
//! - Reading allocates nothing but what `scratch` grows by, one entry for each byte or more of the record.

use super::{Container, Layout, Table, What};
use crate::common;
use crate::error::{Error, ErrorKind, Result};
use crate::python::{Field, FieldKind, Python};
use crate::varint;

/// The bytecode is rewritten.
pub(crate) const REWRITTEN: u32 = 1;
/// The bytecode stands without its inline caches.
pub(crate) const STRIPPED: u32 = 2;
/// The bytecode is one object with that of other code objects; which, a number says.
pub(crate) const SHARED: u32 = 4;

/// Stands for the number of items of a tuple that is a constant, in the draft's layout.
const IS_CONSTANT: u32 = u32::MAX;

/// A str by its number in the table, and whether it is interned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TextRef {
    pub(crate) number: u32,
    pub(crate) is_interned: bool,
}

/// How a code object's constant is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConstRef {
    Int(u8),
    Common(u8),
    Constant(u32),
    /// Compact layout: a str needs no program.
    Text(TextRef),
    /// Compact layout: nor does a code object.
    Code(u32),
    /// Compact layout: nor does an int of a blob, if nothing else holds the same object.
    Long(u32),
}

/// A table of a code object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableRef<'a> {
    Inline(&'a [u8]),
    Blob(u32),
}

/// A tuple of a code object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TupleRef {
    /// A constant, because something else holds it too.
    Constant(u32),
    /// Entries of the string table in a row.
    Range { base: u32, len: u32 },
    /// So many of [`Scratch::names`], or of [`Scratch::consts`], from the first one on.
    List { start: usize, len: usize },
}

/// What the lists of a record hold.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) names: Vec<TextRef>,
    pub(crate) consts: Vec<ConstRef>,
}

/// What the container holds of a code object. A field of another kind has a value that says nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) flags: u32,
    /// Which bytecode it is, of those that several code objects share.
    pub(crate) shared: u32,
    pub(crate) numbers: [i32; Field::COUNT],
    pub(crate) texts: [TextRef; Field::COUNT],
    pub(crate) tables: [TableRef<'a>; Field::COUNT],
    pub(crate) tuples: [TupleRef; Field::COUNT],
}

impl Record<'_> {
    pub(crate) fn new() -> Self {
        Self {
            flags: 0,
            shared: 0,
            numbers: [0; Field::COUNT],
            texts: [TextRef { number: 0, is_interned: false }; Field::COUNT],
            tables: [TableRef::Blob(0); Field::COUNT],
            tuples: [TupleRef::Constant(0); Field::COUNT],
        }
    }
}

/// Reads front to back, up to an end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    file: &'a [u8],
    pub(crate) at: usize,
    end: usize,
    what: &'static str,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(file: &'a [u8], at: usize, end: usize, what: &'static str) -> Self {
        Self { file, at, end, what }
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let left = self.end - self.at;
        if len > left {
            return Err(Error::at(ErrorKind::UnexpectedEnd { what: self.what, needed: len, left }, self.at));
        }
        self.at += len;
        Ok(&self.file[self.at - len..self.at])
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes were taken")))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32> {
        // Nearly all are short.
        if let Some(&byte) = self.file[..self.end].get(self.at)
            && byte < 0x80
        {
            self.at += 1;
            return Ok(u32::from(byte));
        }
        let number = varint::read(&self.file[..self.end], &mut self.at);
        number.ok_or_else(|| Error::at(ErrorKind::BadVarint(self.what), self.at))
    }

    fn left(&self) -> usize {
        self.end - self.at
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.take(self.left()).expect("so many are left")
    }

    fn bad(&self, why: &'static str) -> Error {
        Error::at(ErrorKind::BadContainer(why), self.at)
    }

    /// A number below `count`.
    fn below(&self, what: &'static str, number: u32, count: u32) -> Result<u32> {
        if number < count {
            return Ok(number);
        }
        Err(Error::at(ErrorKind::NoSuchEntry { what, number, count }, self.at))
    }
}

impl<'a> Container<'a> {
    pub(crate) fn table(&self, what: What) -> &Table<'a> {
        &self.tables[what as usize]
    }

    /// Follows a redirect, if there is one: the number of the entry that it leads to.
    #[inline]
    pub(crate) fn resolve(&self, what: What, number: u32) -> Result<u32> {
        let table = self.table(what);
        let refused = |number| {
            let kind = ErrorKind::NoSuchEntry { what: what.name(), number, count: table.len };
            Err(Error::at(kind, table.place))
        };
        if number >= table.len {
            return refused(number);
        }
        if self.layout == Layout::Compact {
            return Ok(number);
        }
        let entry = table.entry(number);
        if entry & 1 == 0 {
            return Ok(number);
        }
        let target = entry >> 1;
        if target >= table.len {
            return refused(target);
        }
        if table.entry(target) & 1 != 0 {
            let at = table.place + 4 * number as usize;
            return Err(Error::at(ErrorKind::BadContainer("a redirect leads to another redirect"), at));
        }
        Ok(target)
    }

    /// The bytes of an entry, from its first one on; in the compact layout up to its last.
    #[inline]
    pub(crate) fn cursor(&self, what: What, number: u32) -> Result<Cursor<'a>> {
        let number = self.resolve(what, number)?;
        let table = self.table(what);
        let (start, end) = match self.layout {
            // Opening has checked that offsets lie in the area.
            Layout::Draft => (self.base + table.entry(number) as usize, table.area.end),
            Layout::Compact => {
                let start = number.checked_sub(1).map_or(0, |before| table.entry(before));
                (table.area.start + start as usize, table.area.start + table.entry(number) as usize)
            }
        };
        Ok(Cursor::new(self.file, start, end, what.name()))
    }

    /// The text of a str, in UTF-8 with surrogates.
    pub(crate) fn text(&self, number: u32) -> Result<(&'a [u8], usize)> {
        self.sized(What::Text, number)
    }

    /// bytes, and where they stand.
    pub(crate) fn bytes(&self, number: u32) -> Result<(&'a [u8], usize)> {
        self.sized(What::Blob, number)
    }

    fn sized(&self, what: What, number: u32) -> Result<(&'a [u8], usize)> {
        let mut cursor = self.cursor(what, number)?;
        let len = match self.layout {
            Layout::Draft => cursor.varint()? as usize,
            Layout::Compact => cursor.left(),
        };
        let at = cursor.at;
        Ok((cursor.take(len)?, at))
    }

    /// The bits of a float.
    pub(crate) fn float(&self, number: u32) -> Result<u64> {
        let mut cursor = self.cursor(What::Blob, number)?;
        let bits = cursor.take(8)?.try_into().expect("eight bytes were taken");
        self.check_end(&cursor)?;
        Ok(u64::from_le_bytes(bits))
    }

    /// The bytes of a varint of any length: absolute value and, in the lowest bit, the sign; and where they stand.
    pub(crate) fn long(&self, number: u32) -> Result<(&'a [u8], usize)> {
        let mut cursor = self.cursor(What::Blob, number)?;
        let (start, rest) = (cursor.at, &self.file[cursor.at..cursor.end]);
        let Some(last) = rest.iter().position(|byte| *byte < 0x80) else { return Err(cursor.bad("an int ends early")) };
        let bytes = cursor.take(last + 1)?;
        if last > 0 && bytes[last] == 0 || bytes == [1] {
            return Err(Error::at(ErrorKind::BadVarint("an int"), start));
        }
        self.check_end(&cursor)?;
        Ok((bytes, start))
    }

    /// Most values on the stack, and the wordcode, of a constant; and where that stands.
    pub(crate) fn constant(&self, number: u32) -> Result<(u32, &'a [u8], usize)> {
        let mut cursor = self.cursor(What::Constant, number)?;
        match self.layout {
            Layout::Draft => {
                let (max_stack, n_instructions) = (cursor.u32()?, cursor.u32()?);
                let at = cursor.at;
                Ok((max_stack, cursor.take(2 * n_instructions as usize)?, at))
            }
            Layout::Compact => Ok((cursor.varint()?, cursor.rest(), cursor.at)),
        }
    }

    /// Where an entry of the compact layout has more bytes than it needs, something is wrong.
    fn check_end(&self, cursor: &Cursor<'_>) -> Result<()> {
        if self.layout == Layout::Compact && cursor.left() > 0 {
            return Err(cursor.bad("bytes follow what an entry holds"));
        }
        Ok(())
    }

    /// Reads the record of a code object into `record`; its lists are appended to `scratch`. How many bytes it takes.
    pub(crate) fn code(&self, number: u32, record: &mut Record<'a>, scratch: &mut Scratch) -> Result<usize> {
        let mut cursor = self.cursor(What::Code, number)?;
        let start = cursor.at;
        match self.layout {
            Layout::Draft => self.draft(&mut cursor, record, scratch)?,
            Layout::Compact => self.compact(&mut cursor, record, scratch)?,
        }
        self.check_end(&cursor)?;
        Ok(cursor.at - start)
    }

    fn flags(&self, cursor: &Cursor<'_>, flags: u32) -> Result<u32> {
        if flags & !(REWRITTEN | STRIPPED | SHARED) != 0 {
            return Err(cursor.bad("a code object has unknown flags"));
        }
        Ok(flags)
    }

    fn draft(&self, cursor: &mut Cursor<'a>, record: &mut Record<'a>, scratch: &mut Scratch) -> Result<()> {
        record.flags = cursor.u32()?;
        self.flags(cursor, record.flags)?;
        record.shared = cursor.u32()?;
        let layout = self.python().layout();
        for &field in &layout.numbers {
            record.numbers[field as usize] = cursor.u32()?.cast_signed();
        }
        for &field in &layout.tables {
            record.tables[field as usize] = TableRef::Blob(cursor.u32()?);
        }
        for &field in &layout.fields {
            let at = field as usize;
            match field.kind() {
                FieldKind::Str => {
                    let number = cursor.u32()?;
                    record.texts[at] = TextRef { number: number >> 1, is_interned: number & 1 != 0 };
                }
                FieldKind::Names | FieldKind::Tuple => {
                    let (base, len) = (cursor.u32()?, cursor.u32()?);
                    record.tuples[at] = match (len, field.kind()) {
                        (IS_CONSTANT, _) => TupleRef::Constant(base),
                        (_, FieldKind::Names) => TupleRef::Range { base, len },
                        _ => self.draft_consts(base, len, cursor, scratch)?,
                    };
                }
                FieldKind::Number | FieldKind::Bytes => {}
            }
        }
        Ok(())
    }

    /// The constants of a code object: what is lazy among them stands in a row, from `base` on.
    fn draft_consts(&self, base: u32, len: u32, cursor: &mut Cursor<'a>, scratch: &mut Scratch) -> Result<TupleRef> {
        let len = len as usize;
        let kinds = cursor.take(len.saturating_mul(4))?;
        let (start, mut next) = (scratch.consts.len(), base);
        for kind in kinds.as_chunks::<4>().0 {
            let kind = u32::from_le_bytes(*kind);
            scratch.consts.push(match kind & 3 {
                0 if kind == 0 => {
                    next = next.wrapping_add(1);
                    ConstRef::Constant(self.resolve(What::Constant, next.wrapping_sub(1))?)
                }
                1 => ConstRef::Int(cursor.below("int", kind >> 2, 256)? as u8),
                2 => ConstRef::Common(cursor.below("common constant", kind >> 2, common::CONSTS.len() as u32)? as u8),
                _ => return Err(cursor.bad("a constant is of an unknown kind")),
            });
        }
        Ok(TupleRef::List { start, len })
    }

    fn compact(&self, cursor: &mut Cursor<'a>, record: &mut Record<'a>, scratch: &mut Scratch) -> Result<()> {
        record.flags = cursor.varint()?;
        self.flags(cursor, record.flags)?;
        if record.flags & SHARED != 0 {
            record.shared = cursor.varint()?;
        }
        let layout = self.python().layout();
        for &field in &layout.numbers {
            record.numbers[field as usize] = cursor.varint()?.cast_signed();
        }
        for &field in &layout.tables {
            let number = cursor.varint()?;
            record.tables[field as usize] = match number & 1 {
                0 => TableRef::Inline(cursor.take(number as usize >> 1)?),
                _ => TableRef::Blob(number >> 1),
            };
        }
        for &field in &layout.fields {
            let at = field as usize;
            match field.kind() {
                FieldKind::Str => record.texts[at] = self.text_ref(cursor.varint()?),
                FieldKind::Names | FieldKind::Tuple => {
                    let number = cursor.varint()?;
                    let len = number as usize >> 1;
                    if number & 1 == 0 && len > cursor.left() {
                        let (what, left) = ("tuple", cursor.left());
                        return Err(Error::at(ErrorKind::LengthTooLarge { what, length: len as u64, left }, cursor.at));
                    }
                    record.tuples[at] = if number & 1 != 0 {
                        TupleRef::Constant(number >> 1)
                    } else if field.kind() == FieldKind::Names {
                        let start = scratch.names.len();
                        for _ in 0..len {
                            scratch.names.push(self.text_ref(cursor.varint()?));
                        }
                        TupleRef::List { start, len }
                    } else {
                        let start = scratch.consts.len();
                        for _ in 0..len {
                            scratch.consts.push(self.compact_const(cursor)?);
                        }
                        TupleRef::List { start, len }
                    };
                }
                FieldKind::Number | FieldKind::Bytes => {}
            }
        }
        Ok(())
    }

    /// In the compact layout the interned str stand first.
    pub(crate) fn text_ref(&self, number: u32) -> TextRef {
        TextRef { number, is_interned: number < self.n_interned }
    }

    fn compact_const(&self, cursor: &mut Cursor<'a>) -> Result<ConstRef> {
        let number = cursor.varint()?;
        let Some(number) = number.checked_sub(N_COMMON) else {
            cursor.below("common constant", number, common::CONSTS.len() as u32)?;
            return Ok(ConstRef::Common(number as u8));
        };
        Ok(match number & 3 {
            0 => ConstRef::Constant(number >> 2),
            1 => ConstRef::Text(self.text_ref(number >> 2)),
            2 => ConstRef::Code(number >> 2),
            _ => match (number >> 2).checked_sub(256) {
                None => ConstRef::Int((number >> 2) as u8),
                Some(blob) => ConstRef::Long(blob),
            },
        })
    }
}

/// The first of these numbers are common constants.
const N_COMMON: u32 = 16;

/// Appends the record of a code object. Its lists are in `scratch`; for the draft's layout, `base` is where the run of its
/// lazy constants begins.
pub(crate) fn write_code(
    layout: Layout,
    python: Python,
    record: &Record<'_>,
    scratch: &Scratch,
    base: u32,
    out: &mut Vec<u8>,
) {
    match layout {
        Layout::Draft => write_draft(python, record, scratch, base, out),
        Layout::Compact => write_compact(python, record, scratch, out),
    }
}

fn write_draft(python: Python, record: &Record<'_>, scratch: &Scratch, base: u32, out: &mut Vec<u8>) {
    let layout = python.layout();
    let mut put = |number: u32| out.extend_from_slice(&number.to_le_bytes());
    put(record.flags);
    put(record.shared);
    layout.numbers.iter().for_each(|field| put(record.numbers[*field as usize].cast_unsigned()));
    for &field in &layout.tables {
        match record.tables[field as usize] {
            TableRef::Blob(number) => put(number),
            TableRef::Inline(_) => unreachable!("in the draft's layout, tables are blobs"),
        }
    }
    for &field in &layout.fields {
        match (field.kind(), record.tuples[field as usize]) {
            (FieldKind::Str, _) => {
                let text = record.texts[field as usize];
                put(text.number << 1 | u32::from(text.is_interned));
            }
            (FieldKind::Names | FieldKind::Tuple, TupleRef::Constant(number)) => {
                put(number);
                put(IS_CONSTANT);
            }
            (FieldKind::Names, TupleRef::Range { base, len }) => {
                put(base);
                put(len);
            }
            (FieldKind::Tuple, TupleRef::List { start, len }) => {
                put(base);
                put(len as u32);
                for held in &scratch.consts[start..start + len] {
                    put(match held {
                        ConstRef::Constant(_) => 0,
                        ConstRef::Int(value) => u32::from(*value) << 2 | 1,
                        ConstRef::Common(number) => u32::from(*number) << 2 | 2,
                        ConstRef::Text(_) | ConstRef::Code(_) | ConstRef::Long(_) => {
                            unreachable!("in the draft's layout, these are constants")
                        }
                    });
                }
            }
            (FieldKind::Names | FieldKind::Tuple, _) => unreachable!("names are ranges, constants are a list"),
            (FieldKind::Number | FieldKind::Bytes, _) => {}
        }
    }
}

fn write_compact(python: Python, record: &Record<'_>, scratch: &Scratch, out: &mut Vec<u8>) {
    let layout = python.layout();
    varint::write(out, record.flags);
    if record.flags & SHARED != 0 {
        varint::write(out, record.shared);
    }
    for field in &layout.numbers {
        varint::write(out, record.numbers[*field as usize].cast_unsigned());
    }
    for &field in &layout.tables {
        match record.tables[field as usize] {
            TableRef::Blob(number) => varint::write(out, number << 1 | 1),
            TableRef::Inline(bytes) => {
                varint::write(out, (bytes.len() as u32) << 1);
                out.extend_from_slice(bytes);
            }
        }
    }
    for &field in &layout.fields {
        match (field.kind(), record.tuples[field as usize]) {
            (FieldKind::Str, _) => varint::write(out, record.texts[field as usize].number),
            (FieldKind::Names | FieldKind::Tuple, TupleRef::Constant(number)) => varint::write(out, number << 1 | 1),
            (FieldKind::Names, TupleRef::List { start, len }) => {
                varint::write(out, (len as u32) << 1);
                scratch.names[start..start + len].iter().for_each(|name| varint::write(out, name.number));
            }
            (FieldKind::Tuple, TupleRef::List { start, len }) => {
                varint::write(out, (len as u32) << 1);
                for held in &scratch.consts[start..start + len] {
                    varint::write(
                        out,
                        match held {
                            ConstRef::Common(number) => u32::from(*number),
                            ConstRef::Constant(number) => N_COMMON + (number << 2),
                            ConstRef::Text(text) => N_COMMON + (text.number << 2 | 1),
                            ConstRef::Code(number) => N_COMMON + (number << 2 | 2),
                            ConstRef::Int(value) => N_COMMON + (u32::from(*value) << 2 | 3),
                            ConstRef::Long(blob) => N_COMMON + ((blob + 256) << 2 | 3),
                        },
                    );
                }
            }
            (FieldKind::Names | FieldKind::Tuple, TupleRef::Range { .. }) => {
                unreachable!("in the compact layout, names are a list")
            }
            (FieldKind::Number | FieldKind::Bytes, _) => {}
        }
    }
}

/// Appends an int as a varint of any length.
pub(crate) fn write_long(value: &num_bigint::BigInt, out: &mut Vec<u8>) {
    let (sign, bytes) = value.to_bytes_le();
    // The sign is the lowest bit of the number, so everything moves up by one.
    let (mut pending, mut n_bits) = (u32::from(sign == num_bigint::Sign::Minus), 1);
    let start = out.len();
    for byte in bytes {
        pending |= u32::from(byte) << n_bits;
        n_bits += 8;
        while n_bits >= 7 {
            out.push((pending & 0x7f) as u8 | 0x80);
            pending >>= 7;
            n_bits -= 7;
        }
    }
    out.push(pending as u8);
    while out.len() > start + 1 && out[out.len() - 1] == 0 {
        out.pop();
        let last = out.len() - 1;
        out[last] &= 0x7f;
    }
}

/// The int of such a varint, if it has at most nine bytes: the absolute value has 62 bits then.
#[inline]
pub(crate) fn read_short(bytes: &[u8]) -> Option<i64> {
    if bytes.len() > 9 {
        return None;
    }
    let number = bytes.iter().rev().fold(0_u64, |number, byte| number << 7 | u64::from(byte & 0x7f));
    let value = (number >> 1).cast_signed();
    Some(if number & 1 == 0 { value } else { -value })
}

/// The int of such a varint.
pub(crate) fn read_long(bytes: &[u8]) -> num_bigint::BigInt {
    let (mut digits, mut pending, mut n_bits) = (Vec::with_capacity(bytes.len()), 0_u32, 0);
    let is_minus = bytes[0] & 1 != 0;
    for (at, byte) in bytes.iter().enumerate() {
        let (bits, len) = if at == 0 { ((byte & 0x7f) >> 1, 6) } else { (byte & 0x7f, 7) };
        pending |= u32::from(bits) << n_bits;
        n_bits += len;
        if n_bits >= 8 {
            digits.push(pending as u8);
            pending >>= 8;
            n_bits -= 8;
        }
    }
    digits.push(pending as u8);
    let sign = if is_minus { num_bigint::Sign::Minus } else { num_bigint::Sign::Plus };
    num_bigint::BigInt::from_bytes_le(sign, &digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_bigint::BigInt;

    #[test]
    fn ints_read_as_written() {
        let written = |value: &BigInt| {
            let mut out = Vec::new();
            write_long(value, &mut out);
            out
        };
        for text in ["0", "1", "-1", "63", "-64", "64", "256", "2147483648", "-9223372036854775809", &"9".repeat(90)] {
            let value: BigInt = text.parse().unwrap();
            assert_eq!(read_long(&written(&value)), value, "{text}");
            if let Some(short) = read_short(&written(&value)) {
                assert_eq!(BigInt::from(short), value, "{text}");
            }
        }
        assert_eq!(written(&BigInt::from(300)), [0xd8, 0x04]);
        assert_eq!(written(&BigInt::from(-3)), [7]);
        assert_eq!(written(&BigInt::from(0)), [0]);
        for shift in 0..80_u32 {
            let value = -(BigInt::from(1) << shift);
            assert_eq!(read_long(&written(&value)), value);
            let short = read_short(&written(&value));
            assert_eq!(short.map(BigInt::from), (shift <= 61).then_some(value.clone()));
            assert_ne!(written(&value).last(), Some(&0));
        }
    }
}
