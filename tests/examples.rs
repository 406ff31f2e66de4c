//! What each stage makes of the examples.
//!
//! `INSTA_UPDATE=always cargo test --test examples` accepts what has changed.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::{Example, SHARINGS, at_root, examples, options, refused};
use insta::{Settings, assert_snapshot, glob};
use rehydrate::lazy::{self, Container, Listing, Machine};
use rehydrate::{End, Initializer, Input, LazyOptions, Object, Options, Sharing, Source, check, marshal, repr};

/// A stage: its name, and what it makes of an example; `None` where it has no snapshot.
type Stage = (&'static str, fn(&Example) -> Option<String>);

const LISTING: Stage = ("listing", listing);
const TREE: Stage = ("tree", tree);
const OBJECTS: Stage = ("objects", objects);
const CANONICAL: Stage = ("canonical", canonical);
const LAZY: Stage = ("lazy", lazy);
const STAGES: [Stage; 5] = [LISTING, TREE, OBJECTS, CANONICAL, LAZY];

/// Most lines of a snapshot. Left out: the larger programs, `deep_1999` and `wide_70000`, which nobody would read. What
/// is not made here is still judged by `every_example_passes_every_check`.
const MAX_LINES: usize = 66;

/// Most lines of a listing of 3.13: so the larger programs stand for one version, `classes` and `tables` for none.
const MAX_LINES_3_13: usize = 250;

fn listing(example: &Example) -> Option<String> {
    let source = source(example);
    let initializer = rehydrate::compile(&source, Options::default()).ok()?;
    let header = initializer.header_bytes();
    let verified = rehydrate::verify(initializer.image).expect("what is compiled is verified");
    let max_lines = if example.python.minor() == 13 { MAX_LINES_3_13 } else { MAX_LINES };
    readable(rehydrate::disassemble(&verified, header).to_string(), max_lines)
}

fn tree(example: &Example) -> Option<String> {
    readable(rehydrate::tree(&source(example)).to_string(), MAX_LINES)
}

/// What executing the initializer gives.
fn objects(example: &Example) -> Option<String> {
    if !example.is_dump() {
        return None;
    }
    let initializer = rehydrate::compile(&source(example), Options::default()).ok()?;
    let verified = rehydrate::verify(initializer.image).expect("what is compiled is verified");
    let (heap, root) = rehydrate::run(&verified);
    readable(repr::text(&heap, root), MAX_LINES)
}

/// The canonical dump as a tree, where it is another dump.
fn canonical(example: &Example) -> Option<String> {
    if !example.is_dump() {
        return None;
    }
    let dump = source(example).dump;
    let written = rehydrate::write_canonical(&dump.heap, dump.root).ok()?;
    if written == example.file {
        return None;
    }
    readable(tree_of(&Example { file: written, ..example.clone() }), MAX_LINES)
}

/// The lazy container, in the compact layout, and what hydrating it does.
fn lazy(example: &Example) -> Option<String> {
    if example.is_dump() {
        return None;
    }
    let container = rehydrate::dehydrate(&source(example), LazyOptions::default()).expect("it is a module");
    let container = Container::open(&container).expect("it was just written");
    let mut machine = Machine::new(&container).traced();
    machine.hydrate_all().expect("it is whole");
    let trace = lazy::trace(&machine).expect("it is hydrated");
    readable(format!("{}\n{trace}", Listing::new(&container).expect("it is hydrated")), MAX_LINES)
}

fn tree_of(example: &Example) -> String {
    rehydrate::tree(&source(example)).to_string()
}

fn readable(text: String, max_lines: usize) -> Option<String> {
    let is_readable = text.lines().count() <= max_lines && text.lines().all(|line| line.len() <= 2000);
    is_readable.then_some(text)
}

fn source(example: &Example) -> Source<'_> {
    match Input::read(&example.file, Some(example.python)) {
        Ok(Input::Source(source)) => source,
        Ok(Input::Initializer(_) | Input::Lazy(_)) => panic!("{} is an initializer", example.name),
        Err(error) => panic!("{}: {error}", example.name),
    }
}

/// Holds a stage against `snapshots/STAGE@EXAMPLE.snap`.
fn hold((name, stage): Stage) {
    settings().bind(|| {
        glob!("../examples", "*.{pyc,marshal}", |path| {
            if let Some(made) = stage(&Example::open(path)) {
                assert_snapshot!(name, made);
            }
        });
    });
}

fn settings() -> Settings {
    let mut settings = Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

#[test]
fn listings_are_those_of_the_snapshots() {
    hold(LISTING);
}

#[test]
fn trees_are_those_of_the_snapshots() {
    hold(TREE);
}

#[test]
fn objects_are_those_of_the_snapshots() {
    hold(OBJECTS);
}

#[test]
fn lazy_containers_are_those_of_the_snapshots() {
    hold(LAZY);
}

#[test]
fn canonical_dumps_are_those_of_the_snapshots() {
    hold(CANONICAL);
}

#[test]
fn every_refused_example_is_refused_for_its_reason() {
    let said: String = refused()
        .iter()
        .map(|example| match Input::read(&example.file, Some(example.python)) {
            Ok(_) => panic!("{} is read", example.name),
            Err(error) => format!("{}: {error}\n", example.name),
        })
        .collect();
    settings().bind(|| assert_snapshot!("refused", said));
}

#[test]
fn every_snapshot_is_made_by_a_test() {
    let mut made = BTreeSet::from(["refused.snap".to_owned()]);
    for example in examples() {
        let stages = STAGES.iter().filter(|(_, stage)| stage(&example).is_some());
        made.extend(stages.map(|(name, _)| format!("{name}@{}.snap", example.name)));
    }
    let kept: BTreeSet<_> = fs::read_dir(at_root("snapshots"))
        .expect("snapshots are kept")
        .map(|entry| entry.expect("the folder can be read").file_name().into_string().expect("names are ASCII"))
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "snap"))
        .collect();
    let orphans: Vec<_> = kept.difference(&made).collect();
    assert!(orphans.is_empty(), "no test makes {orphans:?} of snapshots/");
}

/// Why an example cannot be compiled, if it cannot: it is a cycle without a list or dict, which marshal can write and
/// nothing can build, or would be far larger without sharing.
fn refusal(example: &Example, sharing: Sharing) -> Option<&'static str> {
    match (example.name.split('.').next()?, sharing) {
        ("set_in_tuple_crash" | "tuple_in_itself", _) => {
            Some("compile: a cycle passes through no list or dict, so nothing can be built first: ")
        }
        ("doubled", Sharing::None) => Some("compile: building every value anew exceeds its budget of 1075648 bytes"),
        _ => None,
    }
}

#[test]
fn every_example_passes_every_check() {
    for example in examples() {
        let dump = source(&example).dump;
        let ends = match dump.heap[dump.root] {
            Object::Code(_) => &[End::Return, End::Start][..],
            _ => &[End::Return],
        };
        for sharing in SHARINGS {
            let refusal = refusal(&example, sharing);
            for end in ends {
                for source_flags in [true, false] {
                    let options = options(sharing, source_flags, *end);
                    let checked = check(&example.file, Some(example.python), options);
                    let said = checked.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
                    assert!(said.starts_with(refusal.unwrap_or("ok")), "{}, {options:?}: {said}", example.name);
                }
            }
        }
    }
}

#[test]
fn only_code_can_be_started() {
    for example in examples() {
        let source = source(&example);
        let compiled = rehydrate::compile(&source, options(SHARINGS[0], true, End::Start));
        let is_code = matches!(source.dump.heap[source.dump.root], Object::Code(_));
        match compiled {
            Ok(_) => assert!(is_code, "{} is started", example.name),
            Err(error) => assert!(!is_code, "{}: {error}", example.name),
        }
    }
}

#[test]
fn initializers_of_examples_are_checked_alone_and_turn_back() {
    for example in examples() {
        let source = source(&example);
        for sharing in SHARINGS {
            let Ok(compiled) = rehydrate::compile(&source, options(sharing, true, End::Return)) else { continue };
            let file = compiled.encode().expect("it is small");
            check(&file, None, Options::default()).unwrap_or_else(|error| panic!("{}: {error}", example.name));
            let read = Initializer::read(&file).expect("it was just checked");
            assert_eq!(rehydrate::decompile(read).as_ref(), Ok(&example.file), "{}, {sharing:?}", example.name);
        }
    }
}

#[test]
fn a_dump_written_anew_has_the_same_canonical_form() {
    for example in examples() {
        let dump = source(&example).dump;
        let Ok(plain) = marshal::write(&dump.heap, dump.root) else { continue };
        let again = marshal::read(&plain, example.python).unwrap_or_else(|error| panic!("{}: {error}", example.name));
        let canonical = rehydrate::write_canonical(&dump.heap, dump.root);
        assert_eq!(rehydrate::write_canonical(&again.heap, again.root), canonical, "{}", example.name);
        let Ok(canonical) = canonical else { continue };
        let dump = marshal::read(&canonical, example.python).expect("what is written can be read");
        assert_eq!(rehydrate::write_canonical(&dump.heap, dump.root).as_ref(), Ok(&canonical), "{}", example.name);
    }
}
