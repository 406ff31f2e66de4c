//! Builds real objects. Placeholder.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

/// Executes a container, or a whole .pyinit. Placeholder.
pub(crate) fn execute<'py>(
    py: Python<'py>,
    stream: &[u8],
    filename: Option<&Bound<'py, PyString>>,
) -> PyResult<Bound<'py, PyAny>> {
    let bad = |error: rehydrate::Error| PyValueError::new_err(error.to_string());
    let initializer = rehydrate::Initializer::read(stream).map_err(bad)?;
    let verified = rehydrate::verify(initializer.image).map_err(bad)?;
    let (heap, root) = rehydrate::run(&verified);
    let dump = rehydrate::marshal::write(&heap, root).map_err(bad)?;
    let value = py.import(intern!(py, "marshal"))?.call_method1(intern!(py, "loads"), (PyBytes::new(py, &dump),))?;
    if let Some(filename) = filename
        && value.hasattr(intern!(py, "co_filename"))?
    {
        py.import(intern!(py, "_imp"))?.call_method1(intern!(py, "_fix_co_filename"), (&value, filename))?;
    }
    Ok(value)
}

/// Placeholder.
pub(crate) fn status(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    Ok(PyDict::new(py))
}
