//! What Python code does with streams that it has in hand.

use std::fs::File;
use std::path::PathBuf;
use std::sync::OnceLock;

use memmap2::Mmap;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use rehydrate::{Error, ErrorKind, Initializer, Input, Options, Profile, Sharing, Source, common, image, marshal};

use crate::bytes::Bytes;
use crate::execute::execute;

/// ValueError, with the text of ours: what is wrong, where, and inside what.
pub(crate) fn refused(error: Error) -> PyErr {
    match error.kind() {
        // Its text has advice for the command line.
        ErrorKind::NotPyc => PyValueError::new_err(NEITHER),
        _ => PyValueError::new_err(error.to_string()),
    }
}

const NEITHER: &str =
    "neither a stream nor a .pyinit: neither PYI. nor the header of a .pyc stands there (at byte 0x0)";

/// The magic number that this interpreter writes into a .pyc. To ask it takes as long as to load a small module.
pub(crate) fn own_magic(_py: Python<'_>) -> u16 {
    static MAGIC: OnceLock<u16> = OnceLock::new();
    // SAFETY: we are attached. The number's upper half is `\r\n`.
    *MAGIC.get_or_init(|| (unsafe { ffi::PyImport_GetMagicNumber() } & 0xffff) as u16)
}

/// How a stream begins that this version writes for this interpreter.
pub(crate) fn stream_start(py: Python<'_>) -> [u8; 8] {
    let [m0, m1, m2, m3] = image::MAGIC;
    let [low, high] = own_magic(py).to_le_bytes();
    [m0, m1, m2, m3, image::VERSION, common::VERSION, low, high]
}

/// Refuses streams of another Python: their code objects would crash this one.
///
/// What else is wrong with the stream is for the executor to say.
fn check_magic(py: Python<'_>, stream: &[u8]) -> PyResult<()> {
    let at = match stream.starts_with(&image::MAGIC) {
        true => 6,
        false if stream.get(2..4) == Some(b"\r\n") => 0,
        false => return Err(PyValueError::new_err(NEITHER)),
    };
    let Some(&[low, high]) = stream.get(at..at + 2) else { return Ok(()) };
    let (magic, own) = (u16::from_le_bytes([low, high]), own_magic(py));
    if magic == own {
        return Ok(());
    }
    let whose = match rehydrate::Python::from_magic(magic) {
        Ok(python) => format!("of Python {python}"),
        Err(_) => "of an unknown version of Python".to_owned(),
    };
    Err(PyValueError::new_err(format!(
        "the stream is {whose}, with magic number {magic}; this interpreter's is {own} (at byte {at:#x})"
    )))
}

/// Build the object that an initializer describes.
///
/// *data* is a bytes-like object that holds a bare stream, as `dumps` makes it, or a whole .pyinit, whose header is not
/// looked at. *filename* becomes the co_filename of the module's code object, and of those in it that have the same one.
///
/// A stream that ends in START_CODE is executed in a new module, and gives back that.
///
/// Raises ValueError, with position and reason, if the stream is damaged, or of another Python. The stream is verified, and
/// cannot crash the interpreter; running the bytecode of a code object that was made up can, as with marshal.
#[pyfunction]
#[pyo3(signature = (data, /, *, filename=None))]
pub(crate) fn loads<'py>(
    py: Python<'py>,
    data: Bytes<'py>,
    filename: Option<&Bound<'py, PyString>>,
) -> PyResult<Bound<'py, PyAny>> {
    check_magic(py, &data)?;
    execute(py, &data, filename)
}

/// Build the object that a .pyinit describes.
///
/// As `loads`, of a file, which is mapped and not copied: it must not be changed in place meanwhile. (To replace it by
/// another, as everything here does, is fine.) Raises OSError too.
#[pyfunction]
#[pyo3(signature = (path, *, filename=None))]
pub(crate) fn load<'py>(
    py: Python<'py>,
    path: PathBuf,
    filename: Option<&Bound<'py, PyString>>,
) -> PyResult<Bound<'py, PyAny>> {
    let mapped = map(&path).map_err(|error| match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, strip(&error), path.into_os_string())),
        // A name with a NUL in it.
        None => PyValueError::new_err(error.to_string()),
    })?;
    let stream = mapped.as_deref().unwrap_or_default();
    check_magic(py, stream)?;
    execute(py, stream, filename)
}

/// Maps a file; an empty one has nothing to map.
pub(crate) fn map(path: &std::path::Path) -> std::io::Result<Option<Mmap>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(std::io::Error::from_raw_os_error(libc::EISDIR));
    }
    if metadata.len() == 0 {
        return Ok(None);
    }
    // SAFETY: as of every mapped library, the file must not be changed in place meanwhile, which the documents say; we
    // ourselves only ever replace such files as a whole.
    unsafe { Mmap::map(&file) }.map(Some)
}

/// Rust's texts of system errors end in their number, which Python writes itself.
pub(crate) fn strip(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// A profile, by its name on the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProfileName(Profile);

impl FromPyObject<'_, '_> for ProfileName {
    type Error = PyErr;

    fn extract(name: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        match &*name.extract::<String>()? {
            "load" => Ok(Self(Profile::Load)),
            "compact" => Ok(Self(Profile::Compact)),
            "core" => Ok(Self(Profile::Core)),
            other => Err(PyValueError::new_err(format!("no profile: {other:?}; there are load, compact and core"))),
        }
    }
}

/// A way of sharing, by its name on the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharingName(Sharing);

impl FromPyObject<'_, '_> for SharingName {
    type Error = PyErr;

    fn extract(name: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        match &*name.extract::<String>()? {
            "structural" => Ok(Self(Sharing::Structural)),
            "identity" => Ok(Self(Sharing::Identity)),
            "none" => Ok(Self(Sharing::None)),
            other => {
                Err(PyValueError::new_err(format!("no sharing: {other:?}; there are structural, identity and none")))
            }
        }
    }
}

const LOAD: ProfileName = ProfileName(Profile::Load);
const STRUCTURAL: SharingName = SharingName(Sharing::Structural);

fn options(ProfileName(profile): ProfileName, SharingName(sharing): SharingName) -> Options {
    Options { profile, sharing, source_flags: false, ..Options::default() }
}

/// The Python whose marshal format this interpreter writes.
fn own_python(py: Python<'_>) -> PyResult<rehydrate::Python> {
    rehydrate::Python::from_magic(own_magic(py)).map_err(refused)
}

/// Describe a value by an initializer: anything that `marshal.dumps` takes.
///
/// *profile* chooses the instructions: "load" (the fastest to load), "compact" (the smallest) or "core" (no more than
/// faster-cpython/ideas issue 566 names and CPython has). *sharing* says which objects become one: "structural" (equal
/// immutable ones), "identity" (those that are one now) or "none".
///
/// Raises ValueError if marshal does not take the value, or if it holds an immutable object that holds itself.
#[pyfunction]
#[pyo3(signature = (value, /, *, profile=LOAD, sharing=STRUCTURAL), text_signature = "(value, /, *, profile='load', sharing='structural')")]
pub(crate) fn dumps<'py>(
    py: Python<'py>,
    value: &Bound<'py, PyAny>,
    profile: ProfileName,
    sharing: SharingName,
) -> PyResult<Bound<'py, PyBytes>> {
    let dump =
        py.import(intern!(py, "marshal"))?.call_method1(intern!(py, "dumps"), (value,))?.cast_into::<PyBytes>()?;
    let (dump, python, magic) = (dump.as_bytes(), own_python(py)?, own_magic(py));
    let stream = py.detach(|| {
        let source = Source { header: None, dump: marshal::read(dump, python)?, marshal: dump };
        let mut compiled = rehydrate::compile(&source, options(profile, sharing))?;
        compiled.image.magic = magic;
        compiled.encode()
    });
    Ok(PyBytes::new(py, &stream.map_err(refused)?))
}

/// Compiles the bytes of a .pyc into those of a .pyinit, with the same header.
#[pyfunction]
#[pyo3(
    signature = (pyc, /, *, profile=LOAD, sharing=STRUCTURAL, source_flags=false),
    text_signature = "(pyc, /, *, profile='load', sharing='structural', source_flags=False)"
)]
pub(crate) fn compile_pyc<'py>(
    py: Python<'py>,
    pyc: Bytes<'py>,
    profile: ProfileName,
    sharing: SharingName,
    source_flags: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let pyc: &[u8] = &pyc;
    let compiled = py.detach(|| match Input::read(pyc, None)? {
        Input::Source(source) => {
            rehydrate::compile(&source, Options { source_flags, ..options(profile, sharing) })?.encode()
        }
        Input::Initializer(_) => {
            Err(Error::at(ErrorKind::BadContainer("it is an initializer already, and not a .pyc"), 0))
        }
        Input::Lazy(_) => Err(not_here()),
    });
    Ok(PyBytes::new(py, &compiled.map_err(refused)?))
}

/// List the instructions of an initializer, of whichever Python, with what each pushes.
///
/// A .pyc is compiled first; *profile* and *sharing* are for that.
#[pyfunction]
#[pyo3(
    signature = (data, /, *, profile=LOAD, sharing=STRUCTURAL),
    text_signature = "(data, /, *, profile='load', sharing='structural')"
)]
pub(crate) fn disassemble(
    py: Python<'_>,
    data: Bytes<'_>,
    profile: ProfileName,
    sharing: SharingName,
) -> PyResult<String> {
    let data: &[u8] = &data;
    py.detach(|| {
        let initializer = match Input::read(data, None)? {
            Input::Source(source) => rehydrate::compile(&source, options(profile, sharing))?,
            Input::Initializer(initializer) => initializer,
            Input::Lazy(_) => return Err(not_here()),
        };
        let header = initializer.header_bytes();
        let verified = rehydrate::verify(initializer.image)?;
        Ok(rehydrate::disassemble(&verified, header).to_string())
    })
    .map_err(refused)
}

/// Say what an initializer, or a .pyc, shares, and why; of the values in whose literal or place *value* is, if it is given.
///
/// An initializer does not say why it is as it is: what it builds is compiled again, with *profile* and *sharing*.
#[pyfunction]
#[pyo3(
    signature = (data, /, *, value=None, profile=LOAD, sharing=STRUCTURAL),
    text_signature = "(data, /, *, value=None, profile='load', sharing='structural')"
)]
pub(crate) fn explain(
    py: Python<'_>,
    data: Bytes<'_>,
    value: Option<&str>,
    profile: ProfileName,
    sharing: SharingName,
) -> PyResult<String> {
    let data: &[u8] = &data;
    let options = options(profile, sharing);
    py.detach(|| match Input::read(data, None)? {
        Input::Source(source) => explained(&source, options, value),
        Input::Initializer(initializer) => {
            let verified = rehydrate::verify(initializer.image)?;
            let (heap, root) = rehydrate::run(&verified);
            let dump = marshal::write(&heap, root)?;
            let source =
                Source { header: None, dump: marshal::read(&dump, verified.python())?, marshal: dump.as_slice() };
            explained(&source, options, value)
        }
        Input::Lazy(_) => Err(not_here()),
    })
    .map_err(refused)
}

#[cold]
fn not_here() -> Error {
    Error::at(ErrorKind::BadContainer("it is a lazy container: `python -m rehydrate` reads those"), 0)
}

fn explained(source: &Source<'_>, options: Options, value: Option<&str>) -> Result<String, Error> {
    let mut explanation = rehydrate::explain(source, options)?;
    if let Some(text) = value {
        explanation = explanation.with_value(text);
    }
    Ok(explanation.to_string())
}

/// Check that an initializer, of whichever Python, can be executed.
///
/// Raises ValueError that says what is wrong with it.
#[pyfunction]
#[pyo3(signature = (data, /))]
pub(crate) fn verify(py: Python<'_>, data: Bytes<'_>) -> PyResult<()> {
    let data: &[u8] = &data;
    py.detach(|| rehydrate::verify(Initializer::read(data)?.image).map(drop)).map_err(refused)
}

/// Assembles what `disassemble` printed.
#[pyfunction]
#[pyo3(signature = (listing, /))]
pub(crate) fn assemble<'py>(py: Python<'py>, listing: &str) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(py, &rehydrate::assemble(listing).map_err(refused)?))
}
