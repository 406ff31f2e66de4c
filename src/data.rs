//! The binary data of an image, read front to back by one cursor for each section.

use crate::caches::has_caches;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::isa::{INLINE, Instruction, MOVED, Op, Operand, Section, Table};
use crate::python::{CodeNumbers, Field, Layout, Python};
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

/// The numbers of a code object and where its tables stand, in the order of its [`Layout`], and whether those are numbered.
pub(crate) struct CodeCounts {
    pub(crate) numbers: [i32; MAX_NUMBERS],
    pub(crate) tables: [(Table, bool); MAX_TABLES],
}

/// Most numbers that a code object of any version has.
const MAX_NUMBERS: usize = 7;

/// Operands of MAKE_FULL_CODE.
pub(crate) const N_SLOTS: usize = 6;

/// The first so many of them may be tuples of its own: names, constants, names of variables.
pub(crate) const N_TUPLES: usize = 3;

/// Most tables that a code object of any version has.
pub(crate) const MAX_TABLES: usize = 4;

/// What MAKE_FULL_CODE takes from [`Section::Counts`]: numbers of fixed size, little-endian, so that none has to be found
/// before the next one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FullCode {
    /// Arguments, positional-only and keyword-only ones, size of the stack.
    pub(crate) small: [u16; 4],
    /// Flags, first line.
    pub(crate) large: [u32; 2],
    /// As [`Table::full_number`] gives them, in the order of marshal.
    pub(crate) tables: [u32; 4],
}

impl FullCode {
    /// Bytes that it takes.
    pub(crate) const LEN: usize = 32;

    /// Most bytes of a table of which it can tell the length.
    pub(crate) const MAX_TABLE: usize = (1 << 29) - 1;

    #[inline(always)]
    pub(crate) fn read(bytes: &[u8; Self::LEN]) -> Self {
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| u32::from(short(at)) | u32::from(short(at + 2)) << 16;
        Self {
            small: std::array::from_fn(|at| short(2 * at)),
            large: std::array::from_fn(|at| long(8 + 4 * at)),
            tables: std::array::from_fn(|at| long(16 + 4 * at)),
        }
    }

    pub(crate) fn write(self, counts: &mut Vec<u8>) {
        self.small.iter().for_each(|number| counts.extend(number.to_le_bytes()));
        self.large.iter().chain(&self.tables).for_each(|number| counts.extend(number.to_le_bytes()));
    }

    /// The numbers of a code object.
    #[inline(always)]
    pub(crate) fn numbers(self) -> CodeNumbers {
        let ([arg_count, pos_only_arg_count, kw_only_arg_count, stack_size], [flags, first_line]) =
            (self.small.map(i32::from), self.large);
        let (flags, first_line_no) = (flags.cast_signed(), first_line.cast_signed());
        CodeNumbers { arg_count, pos_only_arg_count, kw_only_arg_count, stack_size, flags, first_line_no }
    }

    /// The numbers for a code object, `None` if one is too large.
    pub(crate) fn of_numbers(numbers: [i32; 6]) -> Option<([u16; 4], [u32; 2])> {
        let [small @ .., flags, first_line] = numbers;
        let mut smaller = [0; 4];
        for (smaller, number) in smaller.iter_mut().zip(small) {
            *smaller = u16::try_from(number).ok()?;
        }
        Some((smaller, [flags.cast_unsigned(), first_line.cast_unsigned()]))
    }
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

    /// Where the operands of MAKE_FULL_CODE come from: slots, or, of the first ones, lengths of tuples and [`INLINE`].
    #[inline(always)]
    pub(crate) fn slots(&mut self) -> Result<[u16; N_SLOTS]> {
        let rest = &mut self.rest[Section::References as usize];
        match rest.split_first_chunk::<{ 2 * N_SLOTS }>() {
            Some((bytes, after)) => {
                *rest = after;
                Ok(std::array::from_fn(|at| u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]])))
            }
            None => Err(self.cut_short(Section::References, 2 * N_SLOTS as u32)),
        }
    }

    /// What MAKE_FULL_CODE takes from the counts.
    #[inline(always)]
    pub(crate) fn full_code(&mut self) -> Result<FullCode> {
        let rest = &mut self.rest[Section::Counts as usize];
        match rest.split_first_chunk() {
            Some((bytes, after)) => {
                *rest = after;
                Ok(FullCode::read(bytes))
            }
            None => Err(self.cut_short(Section::Counts, FullCode::LEN as u32)),
        }
    }

    /// What MAKE_CODE or MAKE_FULL_CODE takes from the counts, but for operands.
    pub(crate) fn code(&mut self, op: Op, layout: &Layout) -> Result<CodeCounts> {
        let mut counts = CodeCounts { numbers: [0; _], tables: [(Table::Inline(0), false); _] };
        if op == Op::MakeFullCode {
            let full = self.full_code()?;
            let numbers = full.numbers();
            for (number, field) in counts.numbers.iter_mut().zip(&layout.numbers) {
                *number = numbers.get(*field);
            }
            for ((table, field), number) in counts.tables.iter_mut().zip(&layout.tables).zip(full.tables) {
                *table = Table::of_full(number, *field == Field::Code);
            }
            return Ok(counts);
        }
        for number in &mut counts.numbers[..layout.numbers.len()] {
            *number = self.count()?.cast_signed();
        }
        for (table, field) in counts.tables.iter_mut().zip(&layout.tables) {
            *table = Table::of(self.count()?, *field == Field::Code && self.has_caches);
        }
        Ok(counts)
    }

    /// The text of one str of an instruction that makes many. Hashes stand apart.
    #[inline(always)]
    pub(crate) fn text(&mut self, op: Op) -> Result<&'v [u8]> {
        let len = self.count()?;
        self.take(op.texts(), len)
    }

    /// The hashes of so many of them.
    pub(crate) fn hashes(&mut self, n: u32) -> Result<&'v [[u8; 4]]> {
        let Some(n_bytes) = n.checked_mul(4) else { return Err(self.cut_short(Section::Hashes, n)) };
        Ok(self.take(Section::Hashes, n_bytes)?.as_chunks().0)
    }

    /// Where the operands of an instruction come from, if it says so.
    pub(crate) fn operands(
        &mut self,
        Instruction { op, oparg }: Instruction,
        python: Python,
        operands: &mut Vec<Operand>,
    ) -> Result<()> {
        operands.clear();
        match op {
            Op::BuildTupleFrom => {
                for _ in 0..oparg {
                    operands.push(self.reference()?.checked_sub(1).map_or(Operand::Taken, Operand::Copied));
                }
                // They stand there the last first.
                operands.reverse();
            }
            Op::BuildTupleNear => self.near(oparg, operands)?,
            Op::MakeFullCode => {
                for (at, slot) in self.slots()?.into_iter().enumerate() {
                    if at < N_TUPLES && slot & INLINE != 0 {
                        let n = u32::from(slot & !INLINE);
                        operands.push(Operand::Tuple(n));
                        self.near(n, operands)?;
                    } else {
                        operands.push(Operand::Copied(slot.into()));
                    }
                }
            }
            Op::MakeCode => {
                for at in 0..python.layout().operands.len() {
                    let is_copied = oparg >> at & 1 != 0;
                    operands.push(if is_copied { Operand::Copied(self.reference()?) } else { Operand::Taken });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// So many references of two bytes.
    fn near(&mut self, n: u32, operands: &mut Vec<Operand>) -> Result<()> {
        let Some(n_bytes) = n.checked_mul(2) else { return Err(self.cut_short(Section::References, n)) };
        let (references, _) = self.take(Section::References, n_bytes)?.as_chunks();
        operands.extend(references.iter().map(|reference| match u16::from_le_bytes(*reference) {
            slot if slot & MOVED == 0 => Operand::Copied(slot.into()),
            slot => Operand::Moved((slot & !MOVED).into()),
        }));
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
