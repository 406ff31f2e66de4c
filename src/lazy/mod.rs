//! The lazy container: constants and code objects that are built when they are first needed.
//!
//! It is the "New PYC format" that was proposed for CPython, and never finished inside the interpreter. A file is a table of
//! code objects, one of constants, one of str and one of blobs, each entry found by an offset. Opening it reads the offsets
//! and nothing else. A code object is *dehydrated* until somebody needs it: its bytecode takes constants by number
//! (`LAZY_LOAD_CONSTANT`), and a constant is a little program that is executed once.
//!
//! Two layouts hold the same: [`Layout::Draft`] is the published one, version 0, of aligned 32-bit numbers;
//! [`Layout::Compact`], version 1, is ours. DESIGN.md has both to the byte.
//!
//! Invariants:
//! - [`Container::open`] looks at the header and the offset arrays alone.
//! - A code object needs only such code objects as come after it, so none holds itself.
//! - Nothing is executed before it is verified, and nothing recurses.
//!
//! Sources: faster-cpython/ideas issues 32 and 64; gvanrossum/cpython, branch `pyco`, `Tools/pyco` ("New PYC Format").

mod hydrate;
pub(crate) mod layout;
mod listing;
pub(crate) mod opcodes;
pub(crate) mod ops;
mod report;
pub(crate) mod rewrite;

use std::cell::OnceCell;
use std::ops::Range;

pub use hydrate::{Cause, Event, Machine, State, Touched, hydrate};
pub use listing::{Listing, code_names, trace};
pub use ops::markdown;
pub use report::{Alternative, Report};

use crate::error::{Error, ErrorKind, Result};
use crate::pyc::Header;
use crate::python::Python;
use layout::Cursor;

/// The first bytes of a container, behind the header of the .pyc.
pub const MAGIC: [u8; 4] = *b"PYC.";

/// How the container is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Version 0: the published draft's.
    Draft,
    /// Version 1: ours, of varints.
    #[default]
    Compact,
}

/// A kind of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Code,
    Constant,
    Text,
    Blob,
}

impl What {
    pub(crate) const ALL: [Self; 4] = [Self::Code, Self::Constant, Self::Text, Self::Blob];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Code => "code object",
            Self::Constant => "constant",
            Self::Text => "string",
            Self::Blob => "blob",
        }
    }
}

/// The offsets of one kind of entries.
#[derive(Debug, Clone)]
pub(crate) struct Table<'a> {
    /// How many.
    pub(crate) len: u32,
    /// Bytes of each offset.
    width: usize,
    offsets: &'a [u8],
    /// Where the offsets stand in the file.
    pub(crate) place: usize,
    /// Where the entries stand in the file.
    pub(crate) area: Range<usize>,
}

impl<'a> Table<'a> {
    /// An offset as it stands there; the number is in range.
    #[inline]
    pub(crate) fn entry(&self, number: u32) -> u32 {
        let at = number as usize * self.width;
        let bytes = &self.offsets[at..at + self.width];
        match *bytes {
            [a] => u32::from(a),
            [a, b] => u32::from_le_bytes([a, b, 0, 0]),
            [a, b, c] => u32::from_le_bytes([a, b, c, 0]),
            _ => u32::from_le_bytes(bytes.try_into().expect("offsets have one to four bytes")),
        }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = u32> + use<'_, 'a> {
        (0..self.len).map(|number| self.entry(number))
    }
}

/// Bytes of an offset that can point to the end of so many.
pub(crate) fn width(area: usize) -> usize {
    (1..4).find(|width| area < 1 << (8 * width)).unwrap_or(4)
}

/// A lazy container, and the header of its .pyc. See the [module](self).
#[derive(Debug, Clone)]
pub struct Container<'a> {
    header: Header<'a>,
    pub(crate) file: &'a [u8],
    layout: Layout,
    /// Where offsets of the draft's layout count from.
    base: usize,
    tables: [Table<'a>; 4],
    /// Compact layout: so many str, from the first on, are interned.
    n_interned: u32,
    metadata: &'a [u8],
    /// By code object: its bytecode as it was before it was rewritten.
    bytecode: Vec<OnceCell<Box<[u8]>>>,
}

/// Bytes of the header that every version has.
pub(crate) const HEADER_LEN: usize = 16;

impl<'a> Container<'a> {
    /// Opens a file: reads the headers and the offset arrays, and nothing they point to.
    ///
    /// # Errors
    /// As [`Header::candidates`]; lengths and offsets that leave the file, at the file's byte.
    pub fn open(file: &'a [u8]) -> Result<Self> {
        let header = Header::candidates(file)?
            .into_iter()
            .find(|header| file[header.bytes().len()..].starts_with(&MAGIC))
            .ok_or_else(|| Error::at(ErrorKind::BadContainer("no lazy container stands behind the header"), 0))?;
        let start = header.bytes().len();
        let mut cursor = Cursor::new(file, start + MAGIC.len(), file.len(), "the container's header");
        let versions = cursor.u32()?;
        let (metadata, total_size) = (cursor.u32()? as usize, cursor.u32()? as usize);
        // The later draft counts from the marshal header: total_size tells.
        let base = match () {
            () if total_size == file.len() => 0,
            () if total_size == file.len() - start => start,
            () => {
                let why = "the size that the container states is not that of the file";
                return Err(Error::at(ErrorKind::BadContainer(why), start + 12));
            }
        };
        let end = match metadata {
            0 => file.len(),
            offset if offset <= total_size && offset + base >= cursor.at => offset + base,
            _ => {
                return Err(Error::at(ErrorKind::BadContainer("the metadata's offset leaves the file"), start + 8));
            }
        };
        let mut container = Self {
            header,
            file,
            layout: Layout::Draft,
            base,
            tables: std::array::from_fn(|_| Table { len: 0, width: 4, offsets: &[], place: 0, area: 0..0 }),
            n_interned: 0,
            metadata: &file[end..],
            bytecode: Vec::new(),
        };
        let (version, rest) = (versions & 0xffff, versions >> 16);
        match version {
            0 => container.open_draft(rest, cursor.at, end)?,
            1 if rest == 0 => container.open_compact(cursor.at, end)?,
            1 => return Err(Error::at(ErrorKind::BadContainer("the container has unknown flags"), start + 6)),
            _ => return Err(Error::at(ErrorKind::BadContainer("the container has an unknown version"), start + 4)),
        }
        if container.table(What::Code).len == 0 {
            return Err(Error::at(ErrorKind::BadContainer("the container has no code object"), start + 6));
        }
        container.bytecode.resize_with(container.table(What::Code).len as usize, OnceCell::new);
        Ok(container)
    }

    /// The first draft has the number of code objects in the header, the later one has flags there, which are 0, and the
    /// number before the offsets, as for the other kinds. No container is without code objects, so this tells.
    fn open_draft(&mut self, n_code_objects: u32, at: usize, end: usize) -> Result<()> {
        let mut cursor = Cursor::new(self.file, at, end, "the offsets");
        for what in What::ALL {
            let len = match what {
                What::Code if n_code_objects > 0 => n_code_objects,
                _ => cursor.u32()?,
            };
            let place = cursor.at;
            let offsets = cursor.take((len as usize).saturating_mul(4))?;
            self.tables[what as usize] = Table { len, width: 4, offsets, place, area: 0..0 };
        }
        let area = cursor.at..end;
        for (table, what) in self.tables.iter_mut().zip(What::ALL) {
            table.area = area.clone();
            let place = area.start - self.base..area.end - self.base;
            let fits = |entry: u32| match entry & 1 {
                0 => place.contains(&(entry as usize)),
                _ => entry >> 1 < table.len,
            };
            if let Some(number) = table.entries().position(|entry| !fits(entry)) {
                let why = "an offset leaves the binary data";
                let number = format!("{} {number}", what.name());
                return Err(Error::at(ErrorKind::BadContainer(why), table.place).inside(number));
            }
        }
        Ok(())
    }

    fn open_compact(&mut self, at: usize, end: usize) -> Result<()> {
        self.layout = Layout::Compact;
        let mut cursor = Cursor::new(self.file, at, end, "the container's header");
        let mut lens = [0; 4];
        for len in &mut lens {
            *len = cursor.varint()?;
        }
        self.n_interned = cursor.varint()?;
        if self.n_interned > lens[What::Text as usize] {
            return Err(Error::at(ErrorKind::BadContainer("more str are interned than there are"), cursor.at));
        }
        let mut areas = [0; 4];
        for area in &mut areas {
            *area = cursor.varint()? as usize;
        }
        let mut offsets = Cursor::new(self.file, cursor.at, end, "the offsets");
        for (at, table) in self.tables.iter_mut().enumerate() {
            let (place, width) = (offsets.at, width(areas[at]));
            let len = lens[at];
            *table = Table { len, width, offsets: offsets.take(len as usize * width)?, place, area: 0..0 };
        }
        let mut areas_at = Cursor::new(self.file, offsets.at, end, "the binary data");
        for (table, len) in self.tables.iter_mut().zip(areas) {
            let start = areas_at.at;
            areas_at.take(len)?;
            table.area = start..areas_at.at;
            // Each offset is where an entry ends and the next one begins.
            let mut last = 0;
            let rises = table.entries().all(|entry| std::mem::replace(&mut last, entry) <= entry);
            if !rises || last as usize != len {
                let why = "the offsets do not rise to the end of what they point to";
                return Err(Error::at(ErrorKind::BadContainer(why), table.place));
            }
        }
        if areas_at.at != end {
            return Err(Error::at(ErrorKind::BadContainer("bytes follow the binary data"), areas_at.at));
        }
        Ok(())
    }

    /// The header of the .pyc.
    pub fn header(&self) -> Header<'a> {
        self.header
    }

    /// The Python whose code objects these are.
    pub fn python(&self) -> Python {
        self.header.python()
    }

    /// How it is laid out.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// How many code objects, constants, str and blobs it has, redirects included.
    pub fn counts(&self) -> [u32; 4] {
        What::ALL.map(|what| self.table(what).len)
    }

    /// What the objects alone do not know of the marshal dump, if it was kept. See [`crate::source`].
    pub fn source(&self) -> Option<&'a [u8]> {
        (!self.metadata.is_empty()).then_some(self.metadata)
    }

    /// Bytes without the header of the .pyc and what was kept of the source.
    pub fn payload_len(&self) -> usize {
        self.file.len() - self.header.bytes().len() - self.metadata.len()
    }

    /// Bytes that opening reads: headers and offsets.
    pub(crate) fn opened_len(&self) -> usize {
        self.table(What::Code).area.start
    }

    /// The whole file.
    pub fn file(&self) -> &'a [u8] {
        self.file
    }
}
