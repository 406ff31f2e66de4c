//! What a file holds: a marshal dump, an initializer, or a lazy container; each behind the header of a .pyc, the first two
//! also bare.

use std::borrow::Cow;

use crate::bundle;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, Image};
use crate::lazy::{self, Container};
use crate::marshal::{self, Dump};
use crate::pyc::Header;
use crate::python::Python;

/// A marshal dump, and the header of its .pyc.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// The header; `None` for a bare dump.
    pub header: Option<Header<'a>>,
    /// What the dump holds.
    pub dump: Dump<'a>,
    /// The dump's bytes, with what follows its object.
    pub marshal: &'a [u8],
}

/// An initializer, and the header of the .pyc that it was compiled from.
#[derive(Debug, Clone)]
pub struct Initializer<'a> {
    /// The header; `None` if it was a bare dump.
    pub header: Option<Header<'a>>,
    /// The container.
    pub image: Image<'a>,
}

/// A file, told by its content.
#[derive(Debug, Clone)]
pub enum Input<'a> {
    /// A .pyc, or a bare marshal dump.
    Source(Source<'a>),
    /// A .pyinit.
    Initializer(Initializer<'a>),
    /// A .pylazy.
    Lazy(Box<Container<'a>>),
}

impl<'a> Input<'a> {
    /// Reads a file; a bare marshal dump as one of `python`.
    ///
    /// # Errors
    /// Whatever is wrong with its header, its dump or its container, at the file's byte; [`ErrorKind::NotPyc`] for
    /// anything else, if `python` is `None`.
    pub fn read(file: &'a [u8], python: Option<Python>) -> Result<Self> {
        if file.starts_with(&image::MAGIC) {
            return Initializer::read(file).map(Self::Initializer);
        }
        if file.starts_with(&bundle::MAGIC) {
            return Err(Error::at(ErrorKind::BadContainer("it is a bundle: show, disasm and verify read those"), 0));
        }
        // A dump whose third and fourth byte are these would be one str of more than 160 MB.
        if file.get(2..4) != Some(b"\r\n")
            && let Some(python) = python
        {
            let dump = marshal::read(file, python)?;
            return Ok(Self::Source(Source { header: None, dump, marshal: file }));
        }
        let headers = Header::candidates(file)?;
        if headers.iter().any(|header| file[header.bytes().len()..].starts_with(&image::MAGIC)) {
            return Initializer::read(file).map(Self::Initializer);
        }
        if headers.iter().any(|header| file[header.bytes().len()..].starts_with(&lazy::MAGIC)) {
            return Container::open(file).map(|container| Self::Lazy(Box::new(container)));
        }
        let mut refused = None;
        for header in headers {
            let (skipped, rest) = file.split_at(header.bytes().len());
            match marshal::read(rest, header.python()) {
                Ok(dump) => return Ok(Self::Source(Source { header: Some(header), dump, marshal: rest })),
                Err(error) => _ = refused.get_or_insert(error.shifted(skipped.len())),
            }
        }
        Err(refused.unwrap_or_else(|| Error::at(ErrorKind::NotPyc, 0)))
    }
}

impl<'a> Initializer<'a> {
    /// Reads a .pyinit.
    ///
    /// # Errors
    /// As [`Header::candidates`] and [`Image::decode`], at the file's byte.
    pub fn read(file: &'a [u8]) -> Result<Self> {
        if file.starts_with(&image::MAGIC) {
            return Ok(Self { header: None, image: Image::decode(file)? });
        }
        let headers = Header::candidates(file)?;
        let header = headers.into_iter().find(|header| file[header.bytes().len()..].starts_with(&image::MAGIC));
        let Some(header) = header else {
            return Err(Error::at(ErrorKind::BadContainer("no container stands behind the header"), 0));
        };
        let (skipped, rest) = file.split_at(header.bytes().len());
        let image = Image::decode(rest).map_err(|error| error.shifted(skipped.len()))?;
        if image.magic != header.magic() {
            let kind = ErrorKind::BadContainer("the header and the container have different magic numbers");
            return Err(Error::at(kind, skipped.len()));
        }
        Ok(Self { header: Some(header), image })
    }

    /// The bytes of a .pyinit.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut file = self.header.map_or_else(Vec::new, |header| header.bytes().to_vec());
        self.image.encode(&mut file)?;
        Ok(file)
    }

    /// The header's bytes, or none.
    pub fn header_bytes(&self) -> &'a [u8] {
        self.header.map_or(&[], Header::bytes)
    }
}

/// The name by which a module with this filename is imported, as far as the filename tells.
pub(crate) fn module_name(filename: &str) -> Cow<'_, str> {
    let mut parts = filename.rsplit(['/', '\\']);
    let file = parts.next().unwrap_or_default();
    let stem = file.split('.').next().unwrap_or_default();
    match (stem, parts.next()) {
        ("__init__", Some(package)) => Cow::Borrowed(package),
        _ => Cow::Borrowed(stem),
    }
}
