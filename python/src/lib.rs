//! Loads module initializers inside CPython.

use pyo3::prelude::*;

#[pymodule]
mod _native {
    use super::*;
    use pyo3::exceptions::PyValueError;
    use pyo3::types::{PyBytes, PyString};
    use std::ffi::OsString;

    /// Placeholder.
    #[pyfunction]
    #[pyo3(signature = (data, /, *, filename=None))]
    fn loads<'py>(
        py: Python<'py>,
        data: &[u8],
        filename: Option<&Bound<'py, PyString>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = filename;
        let bad = |error: rehydrate::Error| PyValueError::new_err(error.to_string());
        let initializer = rehydrate::Initializer::read(data).map_err(bad)?;
        let verified = rehydrate::verify(initializer.image).map_err(bad)?;
        let (heap, root) = rehydrate::run(&verified);
        let dump = rehydrate::marshal::write(&heap, root).map_err(bad)?;
        py.import("marshal")?.call_method1("loads", (PyBytes::new(py, &dump),))
    }

    /// Placeholder.
    #[pyfunction]
    fn _main(args: Vec<OsString>) -> u8 {
        rehydrate::cli::main(args)
    }
}
