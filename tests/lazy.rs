//! The lazy container, from outside: what is held, what is built when, and what others may have written.

mod common;

use std::collections::BTreeSet;

use common::{Example, at_root, code, lazy_examples, lazy_ways, module};
use rehydrate::lazy::{self, Container, Event, Layout, Machine, State};
use rehydrate::{
    ErrorKind, Input, LazyOptions, Python, Sameness, Sharing, Source, check_lazy, dehydrate, difference, marshal,
};

const LAYOUTS: [Layout; 2] = [Layout::Draft, Layout::Compact];

fn source(file: &[u8]) -> Source<'_> {
    match Input::read(file, None) {
        Ok(Input::Source(source)) => source,
        other => panic!("not a .pyc: {other:?}"),
    }
}

fn int(value: u32) -> Vec<u8> {
    [&b"i"[..], &value.to_le_bytes()].concat()
}

/// LOAD_CONST, or another opcode, with an oparg of whatever length, for a version without inline caches.
fn instruction(opcode: u8, oparg: u32) -> Vec<u8> {
    const EXTENDED_ARG: u8 = 144;
    let [b3, b2, b1, low] = oparg.to_be_bytes();
    let high = [b3, b2, b1].into_iter().skip_while(|byte| *byte == 0);
    high.flat_map(|byte| [EXTENDED_ARG, byte]).chain([opcode, low]).collect()
}

const LOAD_CONST: u8 = 100;
const LOAD_NAME: u8 = 101;

// --- The round trip ---

#[test]
fn every_example_passes_every_check() {
    let examples = lazy_examples();
    assert!(examples.len() > 60, "{}", examples.len());
    for example in examples {
        for way in [lazy_ways(true), lazy_ways(false)].concat() {
            check_lazy(&example.file, None, way).unwrap_or_else(|error| panic!("{}, {way:?}: {error}", example.name));
        }
    }
}

#[test]
fn a_container_turns_back_into_the_identical_file() {
    for example in lazy_examples() {
        for way in lazy_ways(true) {
            let file = dehydrate(&source(&example.file), way).expect("it is held");
            let container = Container::open(&file).expect("it was just written");
            assert_eq!(rehydrate::turn_back(&container).as_ref(), Ok(&example.file), "{}, {way:?}", example.name);
            assert_eq!(rehydrate::check(&file, None, Default::default()), Ok(()), "{}, {way:?}", example.name);
        }
    }
}

#[test]
fn without_the_source_it_turns_back_into_equal_objects() {
    for example in lazy_examples() {
        let dump = source(&example.file);
        for way in lazy_ways(false) {
            let file = dehydrate(&dump, way).expect("it is held");
            let turned_back = rehydrate::turn_back(&Container::open(&file).expect("it was just written"));
            let turned_back = turned_back.expect("it is as deep as before");
            let sameness = if way.sharing == Sharing::Identity { Sameness::Identity } else { Sameness::Structural };
            let again = source(&turned_back).dump;
            let found = difference((&dump.dump.heap, dump.dump.root), (&again.heap, again.root), sameness);
            assert_eq!(found, None, "{}, {way:?}", example.name);
        }
    }
}

#[test]
fn seventy_thousand_constants_and_names_are_held() {
    let n = 70_000;
    let names: Vec<String> = (0..n).map(|at| format!("n{at}")).collect();
    let consts: Vec<Vec<u8>> = (0..n).map(|at| int(at + 1000)).collect();
    let bytecode: Vec<u8> =
        (0..n).step_by(97).flat_map(|at| [instruction(LOAD_CONST, at), instruction(LOAD_NAME, at)].concat()).collect();
    for python in Python::all() {
        let file = module(python, &bytecode, &names, &consts);
        for way in lazy_ways(true) {
            check_lazy(&file, None, way).unwrap_or_else(|error| panic!("{python}, {way:?}: {error}"));
        }
    }
}

#[test]
fn more_than_256_constants_of_two_code_objects_are_rewritten_in_place() {
    let python: Python = "3.10".parse().expect("it is known");
    let consts: Vec<Vec<u8>> = (0..300).map(|at| int(at + 1000)).collect();
    let bytecode: Vec<u8> = (0..300).flat_map(|at| instruction(LOAD_CONST, at)).collect();
    let inner = code(python, &bytecode, &[], &consts);
    let file = module(python, &bytecode, &[], &[&consts[..299], &[inner]].concat());
    for layout in LAYOUTS {
        let container =
            dehydrate(&source(&file), LazyOptions { layout, ..LazyOptions::default() }).expect("it is held");
        let container = Container::open(&container).expect("it was just written");
        let listing = lazy::Listing::new(&container).expect("it can be hydrated").to_string();
        assert_eq!(listing.matches(" LAZY_LOAD_CONSTANT ").count(), 600, "{layout:?}");
        assert!(!listing.contains(" LOAD_CONST "), "{layout:?}");
    }
}

// --- Laziness ---

fn pair(layout: Layout) -> Vec<u8> {
    let example = Example::open(&at_root("examples/pair.cpython-315.pyc"));
    let options = LazyOptions { layout, source_flags: false, ..LazyOptions::default() };
    dehydrate(&source(&example.file), options).expect("it is held")
}

#[test]
fn what_nobody_needs_stays_dehydrated() {
    for layout in LAYOUTS {
        let file = pair(layout);
        let container = Container::open(&file).expect("it was just written");
        let mut machine = Machine::new(&container).traced();
        assert_eq!([machine.state(0), machine.state(1)], [State::Dehydrated; 2]);
        assert_eq!(machine.touched().entries, [0; 4]);
        machine.hydrate(0).expect("it is whole");
        assert_eq!([machine.state(0), machine.state(1)], [State::Fully, State::Dehydrated]);
        assert_eq!(machine.touched().entries[0], 1);
        let is_built = |machine: &Machine<'_>| lazy::trace(machine).expect("it is hydrated").contains("(1, 'Hi')");
        assert!(!is_built(&machine), "{layout:?}");
        machine.hydrate(1).expect("it is whole");
        assert_eq!(machine.state(1), State::Fully);
        assert!(is_built(&machine), "{layout:?}");
    }
}

#[test]
fn one_constant_is_loaded_without_the_others() {
    let python: Python = "3.8".parse().expect("it is known");
    let shared = b"\xa9\x02z\x04spamz\x04eggs".to_vec();
    let consts = [shared, b")\x02r\0\0\0\0F".to_vec(), b")\x02TF".to_vec()];
    let file = module(python, b"", &[], &consts);
    for layout in LAYOUTS {
        let options = LazyOptions { layout, ..LazyOptions::default() };
        let container = dehydrate(&source(&file), options).expect("it is held");
        let container = Container::open(&container).expect("it was just written");
        let mut machine = Machine::new(&container).traced();
        let built = |machine: &Machine<'_>| {
            let is_constant = |event: &&Event| matches!(event, Event::Constant { .. });
            machine.events().iter().filter(is_constant).count()
        };
        let last = machine.load_constant(0, 2).expect("it is there");
        assert_eq!((machine.state(0), built(&machine)), (State::Partially, 1));
        // The second needs the first.
        machine.load_constant(0, 1).expect("it is there");
        assert_eq!((machine.state(0), built(&machine)), (State::Partially, 3));
        machine.load_constant(0, 0).expect("it is there");
        assert_eq!(machine.load_constant(0, 2), Ok(last));
        assert_eq!(built(&machine), 3);
        let error = machine.load_constant(0, 3).expect_err("there are three");
        assert_eq!(error.to_string(), "there is no constant 3: there are 3 (in code object 0)");
        machine.hydrate(0).expect("it is whole");
        assert_eq!((machine.state(0), built(&machine)), (State::Fully, 3));
    }
}

#[test]
fn each_constant_is_built_once() {
    for example in lazy_examples() {
        for way in lazy_ways(false) {
            let file = dehydrate(&source(&example.file), way).expect("it is held");
            let container = Container::open(&file).expect("it was just written");
            let mut machine = Machine::new(&container).traced();
            machine.hydrate_all().expect("it is whole");
            let constants = machine.events().iter().filter_map(|event| match event {
                Event::Constant { number, .. } => Some(*number),
                Event::Code { .. } => None,
            });
            let (n_built, built): (usize, BTreeSet<u32>) = (constants.clone().count(), constants.collect());
            assert_eq!(n_built, built.len(), "{}, {way:?}", example.name);
        }
    }
}

#[test]
fn hydrating_in_any_order_gives_the_same_objects() {
    for example in lazy_examples() {
        for layout in LAYOUTS {
            let options = LazyOptions { layout, ..LazyOptions::default() };
            let file = dehydrate(&source(&example.file), options).expect("it is held");
            let container = Container::open(&file).expect("it was just written");
            let (heap, root) = lazy::hydrate(&container).expect("it is whole");
            let mut machine = Machine::new(&container);
            for code in (0..container.counts()[0]).rev() {
                machine.hydrate(code).expect("it is whole");
            }
            let (other, top) = machine.finish();
            assert_eq!(difference((&heap, root), (&other, top), Sameness::Identity), None, "{}", example.name);
        }
    }
}

// --- What others wrote ---

/// The same container as the later draft has it: flags where the number of code objects stood, and that before its offsets;
/// with `from_marshal`, offsets count from the marshal header.
fn later_draft(file: &[u8], from_marshal: bool) -> Vec<u8> {
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
    let n_codes = u32::from(u16::from_le_bytes([file[22], file[23]]));
    let moved = 4_u32.wrapping_sub(if from_marshal { 16 } else { 0 });
    let offset =
        |at: usize| if number(at) & 1 == 0 { number(at).wrapping_add(moved) } else { number(at) }.to_le_bytes();
    let mut out = [&file[..22], &[0, 0], &file[24..28]].concat();
    out.extend(number(28).wrapping_add(moved).to_le_bytes());
    let mut at = 32;
    let mut len = n_codes;
    for kind in 0..4 {
        if kind > 0 {
            len = number(at);
            at += 4;
        }
        out.extend(len.to_le_bytes());
        for _ in 0..len {
            out.extend(offset(at));
            at += 4;
        }
    }
    out.extend_from_slice(&file[at..]);
    out
}

#[test]
fn both_published_drafts_are_read() {
    let file = pair(Layout::Draft);
    let own = Container::open(&file).expect("it was just written");
    let (heap, root) = lazy::hydrate(&own).expect("it is whole");
    for from_marshal in [false, true] {
        let other = later_draft(&file, from_marshal);
        let container = Container::open(&other).unwrap_or_else(|error| panic!("from_marshal {from_marshal}: {error}"));
        assert_eq!(container.counts(), own.counts());
        let (found, top) = lazy::hydrate(&container).expect("it is whole");
        assert_eq!(difference((&heap, root), (&found, top), Sameness::Identity), None);
        let cut = &other[..other.len() - 1];
        assert!(Container::open(cut).is_err());
    }
}

#[test]
fn other_versions_sizes_and_flags_are_refused() {
    let said = |layout, at: usize, value: u8| {
        let mut file = pair(layout);
        file[at] = value;
        Container::open(&file).map_or_else(|error| error.to_string(), |_| "opened".to_owned())
    };
    assert_eq!(said(Layout::Draft, 20, 2), "the container has an unknown version (at byte 0x14)");
    assert_eq!(said(Layout::Compact, 22, 1), "the container has unknown flags (at byte 0x16)");
    let size = "the size that the container states is not that of the file (at byte 0x1c)";
    assert_eq!(said(Layout::Compact, 31, 1), size);
    assert_eq!(said(Layout::Draft, 27, 0x7f), "the metadata's offset leaves the file (at byte 0x18)");
    let mut longer = pair(Layout::Compact);
    longer.push(0);
    longer[28] += 1;
    assert_eq!(
        Container::open(&longer).unwrap_err().to_string(),
        format!("bytes follow the binary data (at byte {:#x})", longer.len() - 1)
    );
}

// --- What it has no place for ---

fn refused(file: &[u8], options: LazyOptions) -> String {
    let Err(error) = dehydrate(&source(file), options) else { panic!("it is held") };
    assert!(matches!(error.kind(), ErrorKind::NotLazy(_)), "{error}");
    error.to_string()
}

#[test]
fn what_a_container_cannot_hold_is_refused() {
    let python: Python = "3.13".parse().expect("it is known");
    let (compact, draft) = (LazyOptions::default(), LazyOptions { layout: Layout::Draft, ..LazyOptions::default() });
    let held = |consts: &[Vec<u8>]| module(python, b"", &[], consts);
    let header = &held(&[])[..16];
    assert_eq!(
        refused(&[header, b"N"].concat(), compact),
        "a lazy container cannot hold a dump whose top-level object is no code object"
    );
    assert_eq!(
        refused(&held(&[b"\xdb\x01\0\0\0r\0\0\0\0".to_vec()]), compact),
        "a lazy container cannot hold an object that holds itself"
    );
    let in_a_set = [&b">\x01\0\0\0"[..], &code(python, b"", &[], &[])].concat();
    assert_eq!(
        refused(&held(&[in_a_set]), compact),
        "a lazy container cannot hold a code object in a set, or in a key"
    );
    let many = held(&vec![code(python, b"", &[], &[]); 65_535]);
    assert_eq!(
        refused(&many, draft),
        "a lazy container cannot hold more than 65,535 code objects in the draft's layout"
    );
    check_lazy(&many, None, compact).expect("the compact layout has no such limit");
    let fewer = held(&vec![code(python, b"", &[], &[]); 65_534]);
    check_lazy(&fewer, None, draft).expect("with the module's own, these are 65,535");
    let none = LazyOptions { sharing: Sharing::None, ..compact };
    assert!(refused(&held(&[]), none).contains("--sharing none"));
    let bare = marshal::read(b"N", python).expect("it is None");
    let bare = Source { header: None, dump: bare, marshal: b"N" };
    assert!(dehydrate(&bare, compact).unwrap_err().to_string().contains("bare dump"));
}

#[test]
fn lists_dicts_and_sets_are_constants_like_others() {
    let python: Python = "3.15".parse().expect("it is known");
    let list = b"\xdb\x02\0\0\0i\x00\x10\0\0i\x00\x10\0\0".to_vec();
    let consts = [
        list,
        b"r\0\0\0\0".to_vec(),
        b"{NT0".to_vec(),
        b"<\x01\0\0\0F".to_vec(),
        b"}NT0".to_vec(),
        b":NNi\x01\0\0\0".to_vec(),
    ];
    let file = module(python, b"", &[], &consts);
    for way in lazy_ways(true) {
        check_lazy(&file, None, way).unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
}

#[test]
fn bytecode_that_is_odd_or_that_others_hold_is_kept() {
    // 3.8: a constant that is the bytecode's own object; bytecode of an odd length; one that uses new opcodes.
    let python: Python = "3.8".parse().expect("it is known");
    for bytecode in [&b"d\0S"[..], b"\xff\0", b"\x90\x01\x90\x01\x90\x01\x90\x01d\0", b"\x90", b""] {
        let file = module(python, bytecode, &[], &[b"z\x02hi".to_vec()]);
        for way in lazy_ways(true) {
            check_lazy(&file, None, way).unwrap_or_else(|error| panic!("{bytecode:?}, {way:?}: {error}"));
        }
    }
    let mut file = module(python, b"d\0S\0", &[], &[b"r\0\0\0\0".to_vec()]);
    let at = file.windows(5).position(|five| five == b"s\x04\0\0\0").expect("it is there");
    file[at] |= 0x80;
    for way in lazy_ways(true) {
        check_lazy(&file, None, way).unwrap_or_else(|error| panic!("{way:?}: {error}"));
    }
}
