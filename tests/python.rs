//! Builds the extension module for every CPython from 3.11 on that is found, and runs its tests there.
//!
//! The tests are Python's, in python/tests. A cargo within this one, which has built all that it builds, builds the module in
//! the same target directory, where most of what it depends on is there already: of an interpreter, only pyo3 and the module
//! itself are built anew.

mod common;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use common::{announce, at_root, interpreters};
use rehydrate::Python;
use tempfile::TempDir;

/// The first version for which the module is built.
const FIRST: u8 = 11;

#[test]
fn the_extension_passes_its_tests_in_every_interpreter() {
    let first = Python::new(FIRST).expect("a version");
    let found: Vec<_> = interpreters().into_iter().filter(|(_, python)| *python >= first).collect();
    if found.is_empty() {
        announce("THE EXTENSION MODULE WAS NOT TESTED: no CPython from 3.11 on, on the PATH or in REHYDRATE_PYTHONS");
        return;
    }
    let versions: Vec<_> = found.iter().map(|(_, python)| python.to_string()).collect();
    announce(&format!("building the extension module for CPython {}, and testing it there", versions.join(", ")));
    // While one is tested, the next is built.
    let failures: Vec<String> = thread::scope(|scope| {
        let tests: Vec<_> = found
            .iter()
            .map(|(program, python)| {
                let package = package(program);
                let is_newest = found.last().is_some_and(|(newest, _)| newest == program);
                scope.spawn(move || test(program, *python, &package, is_newest))
            })
            .collect();
        tests.into_iter().filter_map(|test| test.join().expect("it does not panic").err()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A folder that holds the package, with the module built for an interpreter.
fn package(program: &Path) -> TempDir {
    let built = build(program);
    let folder = TempDir::new().expect("a folder can be made");
    let package = folder.path().join("rehydrate");
    fs::create_dir(&package).expect("the folder is new");
    for entry in fs::read_dir(at_root("python/rehydrate")).expect("the package is there") {
        let path = entry.expect("the folder can be read").path();
        if path.is_file() {
            fs::copy(&path, package.join(path.file_name().expect("it is a file"))).expect("it can be copied");
        }
    }
    let suffix = said(Command::new(program).args(["-c", "import _imp; print(_imp.extension_suffixes()[0])"]));
    fs::copy(built, package.join(format!("_native{}", suffix.trim()))).expect("it can be copied");
    folder
}

/// Builds the module for an interpreter, and gives the library's path.
fn build(program: &Path) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in the target directory");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--package", "rehydrate-python", "--locked", "--quiet", "--manifest-path"])
        .arg(at_root("Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .env("PYO3_PYTHON", program);
    // What the outer cargo says of its own package.
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PKG_")) {
        command.env_remove(name);
    }
    said(&mut command);
    let (prefix, suffix) = (env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
    target.join("debug").join(format!("{prefix}_native{suffix}"))
}

/// Runs the tests; if `checks_memory`, also under an allocator that finds what is written outside of its blocks.
fn test(program: &Path, python: Python, package: &TempDir, checks_memory: bool) -> Result<(), String> {
    let allocators = [None, Some("debug")];
    for allocator in &allocators[..1 + usize::from(checks_memory)] {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PYTHON")) {
            command.env_remove(name);
        }
        command
            .args(["-B", "-m", "unittest", "discover", "--start-directory"])
            .arg(at_root("python/tests"))
            .env("PYTHONPATH", package.path())
            .envs(allocator.map(|allocator| ("PYTHONMALLOC", allocator)));
        let output = command.output().expect("it started before");
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            return Err(format!("CPython {python}, PYTHONMALLOC={allocator:?}: {}\n{complaint}", output.status));
        }
    }
    Ok(())
}

/// What a command prints, which has to succeed.
fn said(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}
