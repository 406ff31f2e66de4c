//! The container of an initializer: instructions, binary data grouped by kind, and what is known of their source.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `PYI.` |
//! | 1 | version of the container: [`VERSION`] |
//! | 1 | version of the tables of common names and constants: [`crate::common::VERSION`] |
//! | 2 | Python's magic number, little-endian |
//! | varint | most values on the stack |
//! | varint | length of the module's name |
//! | varint | length of the filename |
//! | varint | length of the instructions |
//! | 11 varints | length of each [`Section`] |
//! | varint | length of the source section, 0 if there is none |
//! | | module's name, filename (UTF-8, for people), instructions, sections, source section |
//!
//! Nothing follows. A `.pyinit` file is the header of the source's .pyc, if it had one, and this.

use std::borrow::Cow;

use crate::common;
use crate::error::{Error, ErrorKind, Result};
use crate::isa::Section;
use crate::python::Python;
use crate::varint;

/// The first bytes of a container.
pub const MAGIC: [u8; 4] = *b"PYI.";

/// The version of the container that is written and read.
pub const VERSION: u8 = 5;

/// A decoded container. Nothing in it is checked yet: see [`crate::verify()`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image<'a> {
    /// Python's magic number, that of a pre-release included.
    pub magic: u16,
    /// Most values on the stack.
    pub max_stack: u32,
    /// The module's name, for people.
    pub module: Cow<'a, str>,
    /// The module's filename, for people.
    pub filename: Cow<'a, str>,
    /// The instructions.
    pub instructions: Cow<'a, [u8]>,
    /// The binary data, by [`Section`].
    pub sections: [Cow<'a, [u8]>; Section::ALL.len()],
    /// What the objects alone do not know of the marshal dump. See [`crate::source`].
    pub source: Option<Cow<'a, [u8]>>,
}

impl<'a> Image<'a> {
    /// The Python whose code objects these are.
    ///
    /// # Errors
    /// As [`Python::from_magic`].
    pub fn python(&self) -> Result<Python> {
        Python::from_magic(self.magic)
    }

    /// One kind of binary data.
    pub fn section(&self, section: Section) -> &[u8] {
        &self.sections[section as usize]
    }

    /// Bytes of instructions and binary data: what is left without the container and the source section.
    pub fn payload_len(&self) -> usize {
        self.instructions.len() + self.sections.iter().map(|section| section.len()).sum::<usize>()
    }

    /// Appends the container's bytes.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if a part is 2 GiB or more.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        let parts = [self.module.as_bytes(), self.filename.as_bytes(), &self.instructions]
            .into_iter()
            .chain(self.sections.iter().map(|section| &**section))
            .chain([self.source.as_deref().unwrap_or_default()]);
        out.reserve(parts.clone().map(<[u8]>::len).sum::<usize>() + 64);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[VERSION, common::VERSION]);
        out.extend_from_slice(&self.magic.to_le_bytes());
        varint::write(out, self.max_stack);
        for part in parts.clone() {
            let len = i32::try_from(part.len()).map_err(|_| ErrorKind::TooLarge)?;
            varint::write(out, len.cast_unsigned());
        }
        for part in parts {
            out.extend_from_slice(part);
        }
        Ok(())
    }

    /// Reads a container that fills `bytes`.
    ///
    /// # Errors
    /// Another magic or version, lengths that do not add up to the bytes that are there, names that are not UTF-8.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        let bad = |why, at| Error::at(ErrorKind::BadContainer(why), at);
        let Some((fixed, _)) = bytes.split_first_chunk::<8>() else {
            return Err(bad("the container ends inside its header", bytes.len()));
        };
        let [m0, m1, m2, m3, version, tables, magic @ ..] = *fixed;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(bad("the container does not begin with PYI.", 0));
        }
        if version != VERSION {
            return Err(bad("the container has an unknown version", 4));
        }
        if tables != common::VERSION {
            return Err(bad("the tables of common names and constants have an unknown version", 5));
        }
        let mut at = fixed.len();
        let mut number =
            || varint::read(bytes, &mut at).ok_or_else(|| Error::at(ErrorKind::BadVarint("the header"), at));
        let max_stack = number()?;
        let mut lengths = [0; 3 + Section::ALL.len() + 1];
        for length in &mut lengths {
            *length = number()? as usize;
        }
        let mut take = |length: usize| {
            let part = bytes[at..].get(..length).ok_or_else(|| {
                let left = bytes.len() - at;
                Error::at(ErrorKind::UnexpectedEnd { what: "the container", needed: length, left }, at)
            })?;
            at += length;
            Ok::<_, Error>((part, at - length))
        };
        let mut text = |length| {
            let (part, at) = take(length)?;
            let text = std::str::from_utf8(part).map_err(|_| bad("a name in the header is not UTF-8", at))?;
            Ok::<_, Error>(Cow::Borrowed(text))
        };
        let module = text(lengths[0])?;
        let filename = text(lengths[1])?;
        let instructions = Cow::Borrowed(take(lengths[2])?.0);
        let mut sections = [const { Cow::Borrowed::<[u8]>(&[]) }; Section::ALL.len()];
        for (section, length) in sections.iter_mut().zip(&lengths[3..]) {
            *section = Cow::Borrowed(take(*length)?.0);
        }
        let source = match lengths[lengths.len() - 1] {
            0 => None,
            length => Some(Cow::Borrowed(take(length)?.0)),
        };
        if at != bytes.len() {
            return Err(bad("bytes follow the container", at));
        }
        let image =
            Self { magic: u16::from_le_bytes(magic), max_stack, module, filename, instructions, sections, source };
        image.python().map_err(|error| Error::at(error.kind().clone(), 6))?;
        Ok(image)
    }
}
