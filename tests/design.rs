//! What the documents say of the code is so.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use common::{Example, at_root, text_of};
use rehydrate::lazy::{self, Container, Listing, Machine};
use rehydrate::python::Field;
use rehydrate::{Input, LazyOptions, Object, Options, Profile, reference};

// --- Who imports whom ---

/// The half of the crate that a module is of. Each may import its own and those above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Half {
    /// What a loader inside CPython needs, or what shows and assembles that alone.
    Runtime,
    /// What knows dumps, or files of both kinds, and nothing of how an initializer is made.
    Between,
    /// What makes initializers, or needs what makes them.
    Compiler,
}

impl fmt::Display for Half {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Runtime => "runtime",
            Self::Between => "between",
            Self::Compiler => "compiler",
        })
    }
}

const RUNTIME: [&str; 19] = [
    "asm",
    "bundle",
    "caches",
    "common",
    "data",
    "error",
    "heap",
    "image",
    "isa",
    "lazy",
    "listing",
    "literal",
    "pyc",
    "python",
    "reference",
    "repr",
    "varint",
    "verify",
    "vm",
];

/// `file` reads dumps as well as initializers, so it is of neither half; a loader takes an `Image`.
const BETWEEN: [&str; 4] = ["compare", "file", "marshal", "tree"];

fn half(module: &str) -> Half {
    match module {
        module if RUNTIME.contains(&module) => Half::Runtime,
        module if BETWEEN.contains(&module) => Half::Between,
        _ => Half::Compiler,
    }
}

/// Every module of the library, a file or a folder of src/, with the modules that it names outside its tests.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(&at_root("src")) {
        let inside = path.strip_prefix(at_root("src")).expect("it is below src/");
        let module = inside.iter().next().and_then(|name| name.to_str()).expect("names are ASCII");
        let module = module.trim_end_matches(".rs");
        if !["lib", "main", "cli"].contains(&module) {
            let code = fs::read_to_string(&path).expect("it was just found");
            imports.entry(module.to_owned()).or_default().extend(named(&code));
        }
    }
    for (module, imported) in &mut imports {
        imported.remove(module);
    }
    imports
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let paths =
        fs::read_dir(folder).expect("the folder can be read").map(|entry| entry.expect("so can its entries").path());
    paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// The names behind `crate::`, in code that is not a test.
fn named(code: &str) -> BTreeSet<String> {
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let code: String = code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let mut names = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{').and_then(|group| group.split_once("};")) {
            Some((group, _)) => names.extend(top_level(group)),
            None => names.extend(first_name(rest)),
        }
    }
    names
}

/// `compile::{Options, compile}, emit` is `compile` and `emit`.
fn top_level(group: &str) -> Vec<String> {
    let mut depth = 0;
    let parts = group.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts.filter_map(first_name).collect()
}

fn first_name(code: &str) -> Option<String> {
    let code = code.trim_start();
    let end = code.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(code.len());
    Some(code[..end].to_owned()).filter(|name| !name.is_empty())
}

#[test]
fn names_behind_crate_are_found() {
    let code =
        "use crate::{a, b::{c, d}, e};\n// crate::f\nfn g() -> crate::h::I {}\n#[cfg(test)]\nmod t { use crate::j; }";
    assert_eq!(named(code).into_iter().collect::<Vec<_>>(), ["a", "b", "e", "h"]);
}

#[test]
fn each_half_imports_its_own_and_those_above() {
    let imports = imports();
    for (module, imported) in &imports {
        for other in imported {
            assert!(imports.contains_key(other), "{module} names crate::{other}, which is no module");
            assert!(half(other) <= half(module), "{module} ({}) imports {other} ({})", half(module), half(other));
        }
    }
}

#[test]
fn the_table_of_imports_is_current() {
    let mut rows: Vec<_> = imports().into_iter().map(|(module, imported)| (half(&module), module, imported)).collect();
    rows.sort();
    let mut table = "| module | half | imports |\n|---|---|---|\n".to_owned();
    for (half, module, imported) in rows {
        let imported: Vec<_> = imported.iter().map(|name| format!("`{name}`")).collect();
        table += &format!("| `{module}` | {half} | {} |\n", imported.join(", "));
    }
    hold("imports", &table);
}

// --- Generated parts ---

/// Holds a generated part of DESIGN.md against what it should be.
#[track_caller]
fn hold(name: &str, wanted: &str) {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let design = text_of("DESIGN.md");
    let part = design.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
    let (part, _) = part.unwrap_or_else(|| panic!("DESIGN.md has no part {begin}...{end}"));
    assert!(part.trim() == wanted.trim(), "between {begin} and {end} of DESIGN.md should stand\n\n{wanted}");
}

#[test]
fn the_table_of_instructions_is_current() {
    hold("isa", &reference::markdown());
}

#[test]
fn the_table_of_lazy_instructions_is_current() {
    hold("lazy ops", &lazy::markdown());
}

#[test]
fn the_example_of_the_lazy_container_is_what_the_commands_print() {
    let example = Example::open(&at_root("examples/pair.cpython-315.pyc"));
    let Ok(Input::Source(source)) = Input::read(&example.file, None) else { panic!("it is a .pyc") };
    let bytes = |file: &[u8]| file.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    let heap = &source.dump.heap;
    let bytecode = heap.ids().filter_map(|id| match heap[id] {
        Object::Code(code) => match heap[heap.code(code).object(Field::Code)] {
            Object::Bytes(bytecode) => Some(bytes(bytecode)),
            _ => None,
        },
        _ => None,
    });
    let bytecode: Vec<String> = bytecode.collect();
    let file = rehydrate::dehydrate(&source, LazyOptions::default()).expect("it is a module");
    let container = Container::open(&file).expect("it was just written");
    let listing = Listing::new(&container).expect("it can be hydrated");
    let mut machine = Machine::new(&container).traced();
    machine.hydrate_all().expect("it is whole");
    let trace = lazy::trace(&machine).expect("it is hydrated");
    let mut text = String::from("```text\n");
    text += &format!("co_code of the module in the .pyc: {}\n", bytecode[0]);
    text += &format!("co_code of f in the .pyc:          {}\n", bytecode[1]);
    text += "\n$ rehydrate compile --format lazy pair.cpython-315.pyc\n";
    text +=
        &format!("pair.cpython-315.pyc -> pair.cpython-315.pylazy ({} of {} bytes)\n", file.len(), example.file.len());
    text += &format!("\n$ rehydrate disasm pair.cpython-315.pylazy\n{listing}");
    text += &format!("\n$ rehydrate run --trace pair.cpython-315.pylazy | head -5\n{trace}```");
    hold("lazy", &text);
}

// --- The README ---

/// The blocks of the README that are fenced as `language`.
fn fenced(language: &str) -> Vec<String> {
    let readme = text_of("README.md");
    let begin = format!("\n```{language}\n");
    readme.split(&begin).skip(1).map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn the_readme_has_one_command_to_try_and_one_to_test() {
    let commands: Vec<String> = fenced("sh")
        .iter()
        .map(|block| {
            let commands: Vec<_> = block.lines().filter(|line| line.starts_with("cargo")).collect();
            let [command] = commands[..] else { panic!("one command of cargo is in\n{block}") };
            command.to_owned()
        })
        .collect();
    let [_, test] = &commands[..] else { panic!("two blocks of commands, not {commands:?}") };
    let ci = text_of(".ci/run");
    let tests: Vec<_> = ci.lines().filter(|line| line.starts_with("cargo test")).collect();
    assert_eq!(tests, [format!("{test} --locked")]);
}

#[test]
fn the_listing_of_the_readme_is_what_disasm_prints() {
    let example = Example::open(&at_root("examples/tuple_of_issue566.cpython-313.marshal"));
    let Ok(Input::Source(source)) = Input::read(&example.file, Some(example.python)) else { panic!("it is a dump") };
    let compiled =
        rehydrate::compile(&source, Options { profile: Profile::Core, ..Options::default() }).expect("it can be built");
    let verified = rehydrate::verify(compiled.image).expect("what is compiled is verified");
    let listing = rehydrate::disassemble(&verified, &[]).to_string();
    let instructions: Vec<_> = listing.lines().filter(|line| line.starts_with(' ')).collect();
    let blocks = fenced("text");
    let shown: Vec<_> = blocks.iter().map(|block| block.lines().collect::<Vec<_>>()).collect();
    assert!(shown.contains(&instructions), "the README should show\n{}", instructions.join("\n"));
}
