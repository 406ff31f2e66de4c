//! The header of a .pyc file.
//!
//! | bytes | 3.6 | 3.7 and later | Erg, 12 bytes | Erg, 16 bytes |
//! |---|---|---|---|---|
//! | 0-4 | magic | magic | magic | magic |
//! | 4-8 | timestamp | flags | 0 | 0 |
//! | 8-12 | source size | timestamp, or half a hash | timestamp | timestamp |
//! | 12-16 | code | source size, or half a hash | code | 0 |
//!
//! Where 12 and 16 bytes are both possible, 16 wins if the marshal dump behind it reads.
//!
//! Sources: PEP 552; CPython `Lib/importlib/_bootstrap_external.py`, `_classify_pyc`; the Erg compiler's
//! `doc/EN/python/bytecode_specification.md` (both of its published forms).

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::python::Python;

/// The header of a .pyc, kept byte for byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    bytes: &'a [u8],
    python: Python,
}

/// What a header says of the source it was compiled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Stale when the source's time or size differ.
    Timestamp {
        /// Seconds since 1970, modulo 2**32.
        seconds: u32,
        /// Bytes of the source, modulo 2**32; Erg's 12-byte header has none.
        size: Option<u32>,
    },
    /// Stale when the source's hash differs, if it is checked at all.
    Hash {
        /// `importlib.util.source_hash` of the source.
        hash: u64,
        /// Whether importlib compares it.
        checked: bool,
    },
}

impl<'a> Header<'a> {
    /// The lengths that the header of `file` can have, likeliest first; at most two.
    ///
    /// # Errors
    /// Whatever [`Python::from_magic`] refuses, a header that is too short, flags that importlib does not know.
    pub fn candidates(file: &'a [u8]) -> Result<Vec<Self>> {
        let Some((magic, [b'\r', b'\n', ..])) = file.split_at_checked(2) else {
            return Err(Error::at(ErrorKind::NotPyc, 0));
        };
        let python = Python::from_magic(u16::from_le_bytes([magic[0], magic[1]]))?;
        let too_short = |needed| Error::at(ErrorKind::HeaderTooShort { needed, left: file.len() }, 0);
        let word = |at: usize| {
            file.get(at..at + 4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes were taken")))
        };
        let header = |len: usize| file.get(..len).map(|bytes| Self { bytes, python });
        let flags = word(4).ok_or_else(|| too_short(python.header_len()))?;
        let twelve = header(12).ok_or_else(|| too_short(python.header_len()))?;
        if python.header_len() == 12 {
            let erg = (flags == 0 && word(12) == Some(0)).then(|| header(16)).flatten();
            return Ok(erg.into_iter().chain([twelve]).collect());
        }
        if flags & !0b11 != 0 {
            return Err(Error::at(ErrorKind::UnknownHeaderFlags(flags), 4));
        }
        let mut all: Vec<Self> = header(16).into_iter().collect();
        if flags == 0 {
            all.push(twelve);
        }
        if all.is_empty() { Err(too_short(16)) } else { Ok(all) }
    }

    /// The header again, from its own bytes.
    ///
    /// # Errors
    /// As [`Header::candidates`], or if none of them is as long as `bytes`.
    pub fn exact(bytes: &'a [u8]) -> Result<Self> {
        Self::candidates(bytes)?
            .into_iter()
            .find(|header| header.bytes.len() == bytes.len())
            .ok_or_else(|| Error::at(ErrorKind::HeaderTooShort { needed: 16, left: bytes.len() }, 0))
    }

    /// The header's bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The Python that wrote the file.
    pub fn python(self) -> Python {
        self.python
    }

    /// The magic number: that of the release, or of a pre-release.
    pub fn magic(self) -> u16 {
        u16::from_le_bytes([self.bytes[0], self.bytes[1]])
    }

    /// What it says of the source.
    pub fn source(self) -> Source {
        let word = |at: usize| u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes were taken"));
        let has_flags = self.bytes.len() == 16 || self.python.header_len() == 16;
        match (has_flags, self.bytes.len()) {
            (true, 16) if word(4) & 1 != 0 => {
                Source::Hash { hash: u64::from(word(8)) | u64::from(word(12)) << 32, checked: word(4) & 2 != 0 }
            }
            (true, 16) => Source::Timestamp { seconds: word(8), size: Some(word(12)) },
            (true, _) => Source::Timestamp { seconds: word(8), size: None },
            (false, _) => Source::Timestamp { seconds: word(4), size: Some(word(8)) },
        }
    }
}

impl fmt::Display for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Python {}, magic {}, header {} bytes, ", self.python, self.magic(), self.bytes.len())?;
        match self.source() {
            Source::Timestamp { seconds, size: Some(size) } => write!(f, "source of {size} bytes at time {seconds}"),
            Source::Timestamp { seconds, size: None } => write!(f, "source at time {seconds}"),
            Source::Hash { hash, checked } => {
                write!(f, "source hash {hash:016x}, {}checked", if checked { "" } else { "not " })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn lengths(file: &[u8]) -> Vec<usize> {
        Header::candidates(file).unwrap().iter().map(|header| header.bytes().len()).collect()
    }

    const MAGIC_3_6: u32 = 0x0a0d_0d33;
    const MAGIC_3_13: u32 = 0x0a0d_0df3;

    #[test]
    fn headers_have_12_bytes_in_3_6_and_16_later() {
        assert_eq!(lengths(&header(&[MAGIC_3_6, 77, 5, 0xe3])), [12]);
        assert_eq!(lengths(&header(&[MAGIC_3_13, 1, 5, 6, 0xe3])), [16]);
    }

    #[test]
    fn erg_headers_are_possible_where_flags_are_zero() {
        assert_eq!(lengths(&header(&[MAGIC_3_13, 0, 77, 0xe3, 0])), [16, 12]);
        assert_eq!(lengths(&header(&[MAGIC_3_6, 0, 77, 0, 0xe3])), [16, 12]);
        assert_eq!(lengths(&header(&[MAGIC_3_13, 0, 77])), [12]);
    }

    #[test]
    fn a_header_says_what_its_source_is() {
        let said = |words: &[u32]| {
            let bytes = header(words);
            Header::exact(&bytes).unwrap().to_string()
        };
        assert_eq!(
            said(&[MAGIC_3_13, 0, 77, 9]),
            "Python 3.13, magic 3571, header 16 bytes, source of 9 bytes at time 77"
        );
        assert_eq!(
            said(&[MAGIC_3_13, 3, 1, 2]),
            "Python 3.13, magic 3571, header 16 bytes, source hash 0000000200000001, checked"
        );
        assert_eq!(said(&[MAGIC_3_6, 77, 9]), "Python 3.6, magic 3379, header 12 bytes, source of 9 bytes at time 77");
        assert_eq!(said(&[MAGIC_3_13, 0, 77]), "Python 3.13, magic 3571, header 12 bytes, source at time 77");
    }

    #[test]
    fn bad_headers_are_refused() {
        let said = |file: &[u8]| Header::candidates(file).unwrap_err().to_string();
        assert!(said(b"").starts_with("not a .pyc"));
        assert!(said(b"\xf3\r\r").starts_with("not a .pyc"));
        assert_eq!(said(b"\xf3\r\r\n\0\0"), "a .pyc needs a header of 16 bytes, and only 6 are here (at byte 0x0)");
        assert_eq!(said(&header(&[MAGIC_3_13, 4, 0, 0])), "header flags 0x4 are unknown (at byte 0x4)");
        assert!(said(&header(&[MAGIC_3_13, 1, 0])).contains("16 bytes"));
    }
}
