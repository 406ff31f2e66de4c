//! Loads module initializers inside CPython.
//!
//! `execute` builds the objects; everything else here gives it streams: `convert` those that Python code has in hand,
//! `hook` those of an import. Python's side of the package stands in `rehydrate/`.

mod arenas;
mod bundle;
mod bytes;
mod cache;
mod convert;
mod effort;
mod execute;
mod heap;
mod hook;
mod huge;
mod layout;
mod make;
mod names;
mod offsets;
mod prefetch;
mod probe;
mod readable;

use pyo3::prelude::*;

/// The native half of the package rehydrate, which documents what is public.
#[pymodule]
mod _native {
    use super::*;
    use pyo3::exceptions::PyImportError;
    use pyo3::ffi;
    use pyo3::types::{PyBytes, PyDict};
    use std::ffi::OsString;

    #[pymodule_export]
    use super::bundle::{Bundle, find_modules, get_bundled_code, make_bundle};
    #[pymodule_export]
    use super::convert::{assemble, compile_pyc, disassemble, dumps, explain, load, loads, verify};
    #[pymodule_export]
    use super::hook::{Method, counts, find_spec, get_code, prepare};
    #[pymodule_export]
    use super::huge::huge_pages;

    /// What the executor knows of this interpreter, and which of its paths are active.
    #[pyfunction]
    fn status(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        execute::status(py)
    }

    /// Makes code objects in another way from now on, or, without a name, in the fastest one that is possible: `direct`,
    /// `constructor` or `marshal`. For tests and benchmarks.
    #[pyfunction]
    #[pyo3(signature = (path=None))]
    fn _force_path(py: Python<'_>, path: Option<&str>) -> PyResult<()> {
        execute::force_path(py, path)
    }

    /// What the interpreter says of its layout: names, which number of its table each is, what it should be, and what it is.
    /// For tests.
    #[pyfunction]
    fn _offsets() -> Vec<(&'static str, usize, u64, u64)> {
        let offsets = offsets::offsets().unwrap_or_default();
        offsets.into_iter().map(|offset| (offset.name, offset.at, offset.ours, offset.theirs)).collect()
    }

    /// Builds what an initializer makes, and runs nothing: of one that ends in START_CODE the code object. For tests.
    #[pyfunction]
    fn _build<'py>(py: Python<'py>, data: &Bound<'py, PyBytes>) -> PyResult<Bound<'py, PyAny>> {
        execute::execute_unstarted(py, data.as_bytes(), None)
    }

    /// Does what a command line says, the name of the program first, and gives the exit status.
    #[pyfunction]
    fn _main(py: Python<'_>, args: Vec<OsString>) -> u8 {
        py.detach(|| rehydrate::cli::main(args))
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // What is found out once is kept for the process, objects included, and they are the main interpreter's. CPython
        // refuses us itself, but only in isolated subinterpreters, from 3.12 on.
        // SAFETY: we are attached.
        if unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) } != 0 {
            return Err(PyImportError::new_err("rehydrate cannot be loaded into a subinterpreter"));
        }
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("STREAM_START", PyBytes::new(module.py(), &convert::stream_start(module.py())))
    }
}
