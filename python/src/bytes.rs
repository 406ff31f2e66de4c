//! Bytes that Python code hands over.

use std::ops::Deref;

use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The bytes of a bytes-like object, which do not change.
///
/// Those of `bytes` are borrowed. All others are copied: a bytearray or a mapped file can change between being verified
/// and being executed, by a finalizer that the collector runs, another thread or another process.
pub(crate) enum Bytes<'py> {
    Borrowed(Bound<'py, PyBytes>),
    Copied(Vec<u8>),
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes.as_bytes(),
            Self::Copied(bytes) => bytes,
        }
    }
}

impl<'py> FromPyObject<'_, 'py> for Bytes<'py> {
    type Error = PyErr;

    /// # Errors
    /// TypeError if the object is not bytes-like, BufferError if its bytes are not contiguous.
    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match object.cast_exact::<PyBytes>() {
            Ok(bytes) => Ok(Self::Borrowed(bytes.to_owned())),
            Err(_) => copied(object.py(), &object).map(Self::Copied),
        }
    }
}

fn copied(py: Python<'_>, object: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut view = ffi::Py_buffer::new();
    // SAFETY: the object is alive, and the view is released below.
    if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut view, ffi::PyBUF_SIMPLE) } < 0 {
        let error = PyErr::fetch(py);
        return Err(match error.is_instance_of::<PyBufferError>(py) {
            true => PyBufferError::new_err("the bytes of the object are not contiguous"),
            false => error,
        });
    }
    let len = usize::try_from(view.len).unwrap_or_default();
    let bytes = match len {
        0 => Vec::new(),
        // SAFETY: a simple view is of `len` contiguous bytes, and nobody else runs while we are attached.
        _ => unsafe { std::slice::from_raw_parts(view.buf.cast::<u8>(), len) }.to_vec(),
    };
    // SAFETY: it was filled above, and is released once.
    unsafe { ffi::PyBuffer_Release(&raw mut view) };
    Ok(bytes)
}
