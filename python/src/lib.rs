//! Loads module initializers inside CPython.

mod execute;
mod layout;
mod make;
mod names;
mod probe;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    use super::*;
    use crate::execute;
    use pyo3::exceptions::PyValueError;
    use pyo3::types::{PyBytes, PyDict, PyString};
    use std::ffi::OsString;

    /// Placeholder.
    #[pyfunction]
    #[pyo3(signature = (data, /, *, filename=None))]
    fn loads<'py>(
        py: Python<'py>,
        data: &[u8],
        filename: Option<&Bound<'py, PyString>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        execute::execute(py, data, filename)
    }

    #[pyfunction]
    fn status(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        execute::status(py)
    }

    #[pyfunction]
    #[pyo3(signature = (path=None))]
    fn _force_path(py: Python<'_>, path: Option<&str>) -> PyResult<()> {
        execute::force_path(py, path)
    }

    #[pyfunction]
    fn dumps<'py>(py: Python<'py>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let bad = |error: rehydrate::Error| PyValueError::new_err(error.to_string());
        let dump = py.import("marshal")?.call_method1("dumps", (value,))?;
        let dump: &[u8] = dump.extract()?;
        let v = py.version_info();
        let python = rehydrate::Python::new(v.minor).unwrap();
        let rehydrate::Input::Source(source) = rehydrate::Input::read(dump, Some(python)).map_err(bad)? else {
            unreachable!()
        };
        let options =
            rehydrate::Options { profile: rehydrate::Profile::Load, source_flags: false, ..Default::default() };
        Ok(PyBytes::new(py, &rehydrate::compile(&source, options).map_err(bad)?.encode().map_err(bad)?))
    }

    /// Placeholder.
    #[pyfunction]
    fn _main(args: Vec<OsString>) -> u8 {
        rehydrate::cli::main(args)
    }
}
