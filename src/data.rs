//! The binary data of an image, read front to back by one cursor for each section.

use crate::caches::has_caches;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::isa::{Instruction, Op, Section, Table};
use crate::python::{Field, Python};
use crate::varint;

/// The cursors of an image.
#[derive(Debug, Clone)]
pub(crate) struct Data<'v> {
    /// What was not read yet.
    rest: [&'v [u8]; Section::ALL.len()],
    lens: [usize; Section::ALL.len()],
    /// Whether bytecode of its Python has inline caches.
    has_caches: bool,
}

impl<'v> Data<'v> {
    pub(crate) fn new(image: &'v Image<'_>) -> Self {
        let rest = Section::ALL.map(|section| image.section(section));
        Self { rest, lens: rest.map(<[u8]>::len), has_caches: image.python().is_ok_and(has_caches) }
    }

    /// How much of a section was read.
    pub(crate) fn position(&self, section: Section) -> usize {
        self.lens[section as usize] - self.rest[section as usize].len()
    }

    /// What was not read yet of a section, for a reader of its own; what it leaves.
    #[inline]
    pub(crate) fn rest(&mut self, section: Section) -> &mut &'v [u8] {
        &mut self.rest[section as usize]
    }

    #[inline(always)]
    pub(crate) fn take(&mut self, section: Section, len: u32) -> Result<&'v [u8]> {
        let rest = &mut self.rest[section as usize];
        match rest.split_at_checked(len as usize) {
            Some((bytes, after)) => {
                *rest = after;
                Ok(bytes)
            }
            None => Err(self.cut_short(section, len)),
        }
    }

    #[cold]
    pub(crate) fn cut_short(&self, section: Section, len: u32) -> Error {
        let left = self.rest[section as usize].len();
        self.error(section, ErrorKind::UnexpectedEnd { what: section.name(), needed: len as usize, left })
    }

    #[cold]
    pub(crate) fn bad_varint(&self, section: Section) -> Error {
        let what = if section == Section::References { "the references" } else { "the counts" };
        self.error(section, ErrorKind::BadVarint(what))
    }

    pub(crate) fn float(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(Section::Numbers, 8)?.try_into().expect("8 bytes were taken")))
    }

    /// A number of a code object.
    #[inline(always)]
    pub(crate) fn count(&mut self) -> Result<u32> {
        let rest = &mut self.rest[Section::Counts as usize];
        match varint::split(rest) {
            Some((number, after)) => {
                *rest = after;
                Ok(number)
            }
            None => Err(self.bad_varint(Section::Counts)),
        }
    }

    /// As many of them as there is room for.
    #[inline(always)]
    pub(crate) fn counts(&mut self, counts: &mut [u32]) -> Result<()> {
        let (rest, mut at) = (self.rest[Section::Counts as usize], 0);
        for count in counts {
            match varint::next(rest, at) {
                Some((number, after)) => (*count, at) = (number, after),
                None => return Err(self.bad_varint(Section::Counts)),
            }
        }
        self.rest[Section::Counts as usize] = &rest[at..];
        Ok(())
    }

    #[inline]
    pub(crate) fn table(&mut self, op: Op, field: Field) -> Result<Table> {
        let number = self.count()?;
        Ok(Table::of(number, field == Field::Code && self.has_caches, op))
    }

    /// The text of one str of MAKE_STRINGS, MAKE_NAMES or MAKE_IDENTIFIERS. Hashes stand apart.
    #[inline(always)]
    pub(crate) fn text(&mut self) -> Result<&'v [u8]> {
        let len = self.count()?;
        self.take(Section::Names, len)
    }

    /// The hashes of so many of them.
    pub(crate) fn hashes(&mut self, n: u32) -> Result<&'v [[u8; 4]]> {
        let Some(n_bytes) = n.checked_mul(4) else { return Err(self.cut_short(Section::Hashes, n)) };
        Ok(self.take(Section::Hashes, n_bytes)?.as_chunks().0)
    }

    /// Where the operands of an instruction come from, if it says so: a slot, or `None` for the stack.
    pub(crate) fn operands(
        &mut self,
        Instruction { op, oparg }: Instruction,
        python: Python,
        operands: &mut Vec<Option<u32>>,
    ) -> Result<()> {
        operands.clear();
        match op {
            Op::BuildTupleFrom => {
                for _ in 0..oparg {
                    operands.push(self.reference()?.checked_sub(1));
                }
                // They stand there the last first.
                operands.reverse();
            }
            Op::MakeCode | Op::MakeFullCode => {
                for at in 0..python.layout().operands.len() {
                    let is_copied = oparg >> at & 1 != 0;
                    operands.push(if is_copied { Some(self.reference()?) } else { None });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The numbers of so many common values.
    ///
    /// # Errors
    /// If they are not there.
    pub(crate) fn commons(&mut self, n: u32, numbers: &mut Vec<u32>) -> Result<()> {
        numbers.clear();
        let rest = self.rest[Section::References as usize];
        // Each takes a byte at least.
        if n as usize > rest.len() {
            return Err(self.bad_varint(Section::References));
        }
        let mut at = 0;
        numbers.reserve(n as usize);
        for _ in 0..n {
            let Some((number, after)) = varint::next(rest, at) else {
                return Err(self.bad_varint(Section::References));
            };
            at = after;
            numbers.push(number);
        }
        self.rest[Section::References as usize] = &rest[at..];
        Ok(())
    }

    #[inline]
    pub(crate) fn reference(&mut self) -> Result<u32> {
        let rest = &mut self.rest[Section::References as usize];
        match varint::split(rest) {
            Some((number, after)) => {
                *rest = after;
                Ok(number)
            }
            None => Err(self.bad_varint(Section::References)),
        }
    }

    /// # Errors
    /// [`ErrorKind::UnreadData`] if a section goes on.
    pub(crate) fn check_end(&self) -> Result<()> {
        for section in Section::ALL {
            let left = self.rest[section as usize].len();
            if left > 0 {
                return Err(self.error(section, ErrorKind::UnreadData { section: section.name(), left }));
            }
        }
        Ok(())
    }

    #[cold]
    fn error(&self, section: Section, kind: ErrorKind) -> Error {
        Error::at(kind, self.position(section)).inside(format!("section {}", section.name()))
    }
}
