//! What the test files share: the examples, and the CPythons of this machine.

// Each test file is a crate of its own, and uses its own part of this module.
#![allow(dead_code)]

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use rehydrate::lazy::Layout;
use rehydrate::python::{Field, FieldKind};
use rehydrate::{End, Input, LazyOptions, Options, Profile, Python, Sharing};

pub(crate) const SHARINGS: [Sharing; 3] = [Sharing::Structural, Sharing::Identity, Sharing::None];

/// A file of examples/, or one that a test makes.
#[derive(Debug, Clone)]
pub(crate) struct Example {
    pub(crate) name: String,
    pub(crate) file: Vec<u8>,
    pub(crate) python: Python,
}

impl Example {
    /// The Python version comes from the name, `NAME.cpython-3XX.ext`.
    pub(crate) fn open(path: &Path) -> Self {
        let name = path.file_name().and_then(|name| name.to_str()).expect("names are ASCII").to_owned();
        let version = name.split(".cpython-3").nth(1).and_then(|rest| rest.split('.').next());
        let python = version.and_then(|minor| Python::new(minor.parse().ok()?));
        let python = python.unwrap_or_else(|| panic!("{name} names no version"));
        Self { file: fs::read(path).unwrap_or_else(|error| panic!("{name}: {error}")), name, python }
    }

    /// Whether it is a dump made by hand, and not a compiled program.
    pub(crate) fn is_dump(&self) -> bool {
        self.name.ends_with(".marshal")
    }
}

/// Every file that is to be read, in the order of the names.
pub(crate) fn examples() -> Vec<Example> {
    files_of("examples")
}

/// Every file that is to be refused, in the order of the names.
pub(crate) fn refused() -> Vec<Example> {
    files_of("examples/refused")
}

fn files_of(folder: &str) -> Vec<Example> {
    let is_input =
        |path: &PathBuf| path.extension().is_some_and(|extension| extension == "pyc" || extension == "marshal");
    let mut paths: Vec<_> = fs::read_dir(at_root(folder))
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(is_input)
        .collect();
    paths.sort();
    paths.iter().map(|path| Example::open(path)).collect()
}

/// A path inside the package.
pub(crate) fn at_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A text file of the package.
pub(crate) fn text_of(path: &str) -> String {
    fs::read_to_string(at_root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn options(sharing: Sharing, source_flags: bool, end: End) -> Options {
    Options { sharing, end, source_flags, ..Options::default() }
}

/// Every sharing in the default profile, and every other profile: the ways in which initializers differ.
pub(crate) fn ways(source_flags: bool) -> Vec<Options> {
    let shared = SHARINGS.map(|sharing| options(sharing, source_flags, End::Return));
    let others = [Profile::Core, Profile::Load].map(|profile| Options { profile, ..shared[0] });
    [&shared[..], &others].concat()
}

/// A .pyc of a module with this bytecode, these names, and these constants, each as marshal has it.
pub(crate) fn module(python: Python, bytecode: &[u8], names: &[String], consts: &[Vec<u8>]) -> Vec<u8> {
    let header_len = python.header_len();
    let mut file = [&python.magic().to_le_bytes()[..], b"\r\n"].concat();
    file.resize(header_len, 0);
    file.extend(code(python, bytecode, names, consts));
    file
}

/// A code object as marshal has it.
pub(crate) fn code(python: Python, bytecode: &[u8], names: &[String], consts: &[Vec<u8>]) -> Vec<u8> {
    let sized = |code: u8, bytes: &[u8]| [&[code][..], &(bytes.len() as u32).to_le_bytes(), bytes].concat();
    let tuple = |items: &[Vec<u8>]| [&b"("[..], &(items.len() as u32).to_le_bytes(), &items.concat()].concat();
    let mut file = b"c".to_vec();
    for &field in &python.layout().fields {
        file.extend(match field {
            Field::Code => sized(b's', bytecode),
            Field::Consts => tuple(consts),
            Field::Names => tuple(&names.iter().map(|name| sized(b't', name.as_bytes())).collect::<Vec<_>>()),
            _ => match field.kind() {
                FieldKind::Number => vec![0; 4],
                FieldKind::Bytes => sized(b's', b""),
                FieldKind::Str => sized(b't', b"m"),
                FieldKind::Names | FieldKind::Tuple => tuple(&[]),
            },
        });
    }
    file
}

/// The examples that are compiled programs, and dumps of code objects, behind a header; those that a lazy container holds.
pub(crate) fn lazy_examples() -> Vec<Example> {
    let with_header = |mut example: Example| {
        if example.is_dump() {
            let mut header = [&example.python.magic().to_le_bytes()[..], b"\r\n"].concat();
            header.resize(example.python.header_len(), 0);
            example.file = [header, example.file].concat();
        }
        example
    };
    let is_held = |example: &Example| match Input::read(&example.file, None) {
        Ok(Input::Source(source)) => rehydrate::dehydrate(&source, LazyOptions::default()).is_ok(),
        _ => false,
    };
    examples().into_iter().map(with_header).filter(is_held).collect()
}

/// The ways in which lazy containers differ.
pub(crate) fn lazy_ways(source_flags: bool) -> Vec<LazyOptions> {
    let mut ways = Vec::new();
    for layout in [Layout::Draft, Layout::Compact] {
        for (sharing, strips) in
            [(Sharing::Structural, None), (Sharing::Identity, Some(true)), (Sharing::Identity, None)]
        {
            ways.push(LazyOptions { layout, sharing, strip_caches: strips, source_flags });
        }
    }
    ways
}

// --- CPython ---

/// The CPythons that are to be asked: those that `REHYDRATE_PYTHONS` names, separated by colons; else `python3.6` to
/// `python3.15` and `python3` of the PATH, one of each version.
pub(crate) fn interpreters() -> Vec<(PathBuf, Python)> {
    let named = env::var_os("REHYDRATE_PYTHONS").filter(|named| !named.is_empty());
    let programs: Vec<PathBuf> = match &named {
        Some(named) => env::split_paths(named).collect(),
        None => Python::all()
            .map(|python| format!("python{python}"))
            .chain(["python3".to_owned()])
            .map(Into::into)
            .collect(),
    };
    let mut found: Vec<(PathBuf, Python)> = Vec::new();
    for program in programs {
        let version = ask(&program);
        assert!(named.is_none() || version.is_some(), "REHYDRATE_PYTHONS: {} does not start", program.display());
        let Some(Some(python)) = version else { continue };
        if named.is_some() || found.iter().all(|(_, other)| *other != python) {
            found.push((program, python));
        }
    }
    found
}

/// `None` if it does not start, `Some(None)` if it is no CPython whose dumps are supported.
fn ask(program: &Path) -> Option<Option<Python>> {
    let script = "import sys, importlib.util as u; print(sys.implementation.name, *u.MAGIC_NUMBER[:2])";
    let output = Command::new(program).args(["-c", script]).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ["cpython", low, high] = text.split_whitespace().collect::<Vec<_>>()[..] else { return Some(None) };
    Some(Python::from_magic(u16::from_le_bytes([low.parse().ok()?, high.parse().ok()?])).ok())
}

/// Says something to whoever runs the tests, also if they pass: `eprintln!` would be kept from them.
pub(crate) fn announce(text: &str) {
    // If standard error is closed there is nobody to tell.
    _ = writeln!(std::io::stderr(), "{text}");
}
