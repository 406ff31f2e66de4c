//! Bundles: each module runs from the bundle as it runs alone, and what is damaged is refused.

mod common;

use std::collections::HashMap;

use common::{Example, examples};
use rayon::prelude::*;
use rehydrate::bundle::{Bundle, ModuleKind};
use rehydrate::bundler::{BundleOptions, Bundled, Extension, Part, bundle};
use rehydrate::isa::Op;
use rehydrate::verify::verify_with;
use rehydrate::{Input, Python, Sameness, Source, Verified, difference, disassemble, run, verify};

/// The examples of a version that are modules.
fn modules(python: Python) -> Vec<Example> {
    let is_module =
        |example: &Example| example.python == python && !example.is_dump() && !example.name.starts_with("erg");
    examples().into_iter().filter(is_module).collect()
}

fn source(example: &Example) -> Source<'_> {
    match Input::read(&example.file, None) {
        Ok(Input::Source(source)) => source,
        other => panic!("{} is no .pyc: {other:?}", example.name),
    }
}

fn name(example: &Example) -> String {
    example.name.split('.').next().unwrap_or_default().replace('-', "_")
}

fn part(example: &Example) -> Part<'_> {
    let Source { header, dump, .. } = source(example);
    Part {
        name: name(example),
        is_package: false,
        folder: 0,
        path: format!("{}.py", name(example)),
        header: header.expect("a .pyc has one"),
        heap: dump.heap,
        root: dump.root,
    }
}

fn bundled(examples: &[Example]) -> Bundled {
    let folders = ["/where/they/are".to_owned()];
    bundle(examples.iter().map(part).collect(), &[], &folders, BundleOptions::default()).expect("they can be bundled")
}

/// The versions with the .pyc header that bundles have.
fn versions() -> impl Iterator<Item = Python> {
    Python::all().filter(|python| python.header_len() == 16)
}

#[test]
fn each_module_runs_from_the_bundle_as_it_runs_alone() {
    for python in versions() {
        let modules = modules(python);
        let file = bundled(&modules).file;
        let bundle = Bundle::open(&file).expect("it was just written");
        let table = bundle.table().expect("the table is verified");
        for example in &modules {
            let module = bundle.find(&name(example)).expect("the index is whole").expect("it is there");
            let verified = bundle.verified(&module, &table).unwrap_or_else(|error| panic!("{}: {error}", example.name));
            let (heap, root) = run(&verified);
            let dump = source(example).dump;
            let why = difference((&dump.heap, dump.root), (&heap, root), Sameness::Structural);
            assert_eq!(why, None, "{}", example.name);
            let listing = disassemble(&verified, &[]).to_string();
            assert!(listing.contains("LOAD_MANY_CONSTS"), "{listing}");
        }
        assert_eq!(bundle.modules().count(), modules.len());
    }
}

#[test]
fn the_same_modules_give_the_same_bytes_in_any_order() {
    let mut modules = modules(Python::LATEST);
    let file = bundled(&modules).file;
    modules.reverse();
    assert_eq!(bundled(&modules).file, file);
}

#[test]
fn a_name_that_is_not_there_is_not_found() {
    let file = bundled(&modules(Python::LATEST)).file;
    let bundle = Bundle::open(&file).expect("it was just written");
    for name in ["", "greet", "greeting.part", "os"] {
        assert!(bundle.find(name).expect("the index is whole").is_none(), "{name}");
    }
}

#[test]
fn what_two_modules_need_stands_in_the_table_alone() {
    let modules = modules(Python::LATEST);
    let file = bundled(&modules).file;
    let bundle = Bundle::open(&file).expect("it was just written");
    let table = bundle.table().expect("it is verified");
    let rows = |verified: &Verified<'_>| -> Vec<(Op, String)> {
        let listing = disassemble(verified, &[]);
        listing.rows().map(|row| (row.instruction.op, row.operand)).collect()
    };
    let mut seen = HashMap::new();
    for module in bundle.modules() {
        let module = module.expect("the index is whole");
        let verified = bundle.verified(&module, &table).expect("it is verified");
        for (op, operand) in rows(&verified) {
            if matches!(op, Op::MakeNames | Op::MakeIdentifiers | Op::MakeString | Op::MakeFloat | Op::MakeLong) {
                let values = if operand.contains("' '") { operand.split("' '") } else { operand.split("\0") };
                for value in values.map(|value| value.trim_matches('\'').to_owned()) {
                    let other = seen.insert((op, value.clone()), module.name);
                    assert_eq!(other.filter(|other| *other != module.name), None, "{value} of {}", module.name);
                }
            }
        }
    }
    assert!(seen.len() > 50, "{seen:?}");
}

#[test]
fn an_image_of_a_bundle_is_refused_without_its_table() {
    let file = bundled(&modules(Python::LATEST)).file;
    let bundle = Bundle::open(&file).expect("it was just written");
    let module = bundle.find("greeting").expect("the index is whole").expect("it is there");
    let said = verify(bundle.module_image(&module).expect("it is whole")).unwrap_err().to_string();
    assert!(said.contains("it takes a value from the table of a bundle, and stands outside of one"), "{said}");
    // What has another bundle's table is refused where it is not enough.
    let pair: Vec<Example> =
        modules(Python::LATEST).into_iter().filter(|example| example.name.as_str() < "g").collect();
    let other = bundled(&pair[..1]).file;
    let other = Bundle::open(&other).expect("it was just written");
    let table = other.table().expect("it is verified");
    let image = bundle.module_image(&module).expect("it is whole");
    let said = verify_with(image, Some(&table)).unwrap_err().to_string();
    assert!(said.contains("the table of the bundle has no such entry"), "{said}");
}

#[test]
fn modules_that_make_no_bundle_are_refused() {
    let said = |parts: Vec<Part<'_>>| {
        let folders = ["".to_owned()];
        bundle(parts, &[], &folders, BundleOptions::default()).unwrap_err().to_string()
    };
    let (latest, older) = (modules(Python::LATEST), modules(Python::new(13).expect("a version")));
    assert_eq!(said(Vec::new()), "a bundle of no modules");
    let twice = said(vec![part(&latest[0]), part(&latest[0])]);
    assert!(twice.starts_with("two modules have this name (in module "), "{twice}");
    let mixed = said(vec![part(&latest[0]), Part { name: "zz".to_owned(), ..part(&older[0]) }]);
    assert!(mixed.ends_with("and this one is of another (in module zz)"), "{mixed}");
    let zero = said(vec![Part { path: "a\0.py".to_owned(), ..part(&latest[0]) }]);
    assert!(zero.starts_with("its name or path holds a zero byte"), "{zero}");
    let folders = ["a\0b".to_owned()];
    let zero = bundle(vec![part(&latest[0])], &[], &folders, BundleOptions::default()).unwrap_err().to_string();
    assert_eq!(zero, "the path of a folder holds a zero byte");
}

#[test]
fn extension_modules_are_found_where_they_lie() {
    let modules = modules(Python::LATEST);
    let extension = |name: &str, path: &str| Extension { name: name.to_owned(), folder: 1, path: path.to_owned() };
    let extensions = [extension("zlib", "zlib.so"), extension("a.fast", "a/fast.abi3.so")];
    let folders = ["/where/they/are".to_owned(), "lib".to_owned()];
    let make = |extensions: &[Extension]| {
        bundle(modules.iter().map(part).collect(), extensions, &folders, BundleOptions::default())
    };
    let file = make(&extensions).expect("they can be bundled").file;
    let bundle = Bundle::open(&file).expect("it was just written");
    assert_eq!(bundle.modules().count(), modules.len() + 2);
    let found = bundle.find("a.fast").expect("the index is whole").expect("it is there");
    assert_eq!((found.kind, found.folder, found.path), (ModuleKind::Extension, "lib", "a/fast.abi3.so"));
    assert!(found.image.is_empty());
    let said = bundle.module_image(&found).unwrap_err().to_string();
    assert!(said.starts_with("an extension module has no initializer in the bundle"), "{said}");
    // What the modules share does not depend on them.
    let alone = bundled(&modules).file;
    let alone = Bundle::open(&alone).expect("it was just written");
    for module in &modules {
        let [with, without] = [bundle, alone].map(|bundle| bundle.find(&name(module)).expect("whole").expect("there"));
        assert_eq!((with.kind, with.image), (ModuleKind::Source, without.image));
    }
    let twice = make(&[extension(&name(&modules[0]), "other.so")]).unwrap_err().to_string();
    assert!(twice.starts_with("two modules have this name (in module "), "{twice}");
}

#[test]
fn a_path_with_a_zero_byte_is_refused() {
    let modules = modules(Python::LATEST);
    let path = part(&modules[0]).path;
    let mut file = bundled(&modules[..1]).file;
    let at = file.windows(path.len()).position(|bytes| bytes == path.as_bytes()).expect("the path stands there");
    file[at + 1] = 0;
    let said = Bundle::open(&file).expect("its head is whole").find(&name(&modules[0])).unwrap_err().to_string();
    assert!(said.contains("holds a zero byte"), "{said}");
}

/// Reads all of a bundle that can be read.
fn read_all(file: &[u8]) -> rehydrate::Result<()> {
    let bundle = Bundle::open(file)?;
    let names: Vec<_> = bundle.modules().filter_map(|module| Some(module.ok()?.name.to_owned())).collect();
    for name in names.iter().map(String::as_str).chain(["missing"]) {
        bundle.find(name)?;
    }
    let table = bundle.table()?;
    for module in bundle.modules() {
        let module = module?;
        if module.kind == ModuleKind::Extension {
            continue;
        }
        let verified = bundle.verified(&module, &table)?;
        run(&verified);
        disassemble(&verified, &[]).rows().for_each(drop);
    }
    Ok(())
}

/// Every prefix of the index, and every single-byte change of it; of the initializers, those of some bytes.
#[test]
fn what_is_damaged_is_read_or_refused() {
    let modules = modules(Python::LATEST);
    let extensions = [Extension { name: "fast".to_owned(), folder: 0, path: "fast.so".to_owned() }];
    let folders = ["/where/they/are".to_owned()];
    let parts = modules[..4].iter().map(part).collect();
    let file = bundle(parts, &extensions, &folders, BundleOptions::default()).expect("they can be bundled").file;
    let index = file.windows(4).position(|bytes| bytes == b"PYI.").expect("the table stands behind the index");
    read_all(&file).expect("it is whole");
    let cut: Vec<usize> = (0..index).chain((index..file.len()).step_by(97)).collect();
    cut.par_iter().for_each(|len| assert!(read_all(&file[..*len]).is_err(), "cut to {len} bytes"));
    let places: Vec<usize> = (0..index).chain((index..file.len()).step_by(7)).collect();
    let n_refused: usize = places
        .par_iter()
        .map(|at| {
            let other =
                [file[*at] ^ 0x80, file[*at].wrapping_add(1), 0, 0xff].into_iter().filter(|byte| *byte != file[*at]);
            let refused = |byte| {
                let mut file = file.clone();
                file[*at] = byte;
                usize::from(read_all(&file).is_err())
            };
            other.map(refused).sum::<usize>()
        })
        .sum();
    assert!(n_refused > places.len(), "{n_refused}");
}
