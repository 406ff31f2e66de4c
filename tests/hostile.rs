//! No input makes anything panic: what is changed by a byte, cut short, or made to do harm, is refused or works.
//!
//! There is no need to catch anything: a panic fails the test, and its message is followed by the input.

mod common;

use std::borrow::Cow;
use std::thread;

use common::{Example, SHARINGS, code, examples, lazy_examples, lazy_ways, module, options, refused, ways};
use rayon::prelude::*;
use rehydrate::lazy::{self, Alternative, Container, Layout, Listing, Machine, Report};
use rehydrate::{End, ErrorKind, Image, Initializer, Input, Options, Python, Sameness, Sharing, Source, Verified};
use rehydrate::{LazyOptions, check, check_lazy, difference, marshal, repr};

/// How much is tried of each input, in bytes over all its variants: small ones (up to 76 bytes) with all 255 changes
/// of every byte, larger ones with the first few of [`changes`], the largest with one change of every n-th byte.
const BYTES_PER_INPUT: usize = 1_500_000;

/// The other values for a byte, those first that find most: other flags and signs, none, all, off by one.
fn changes(byte: u8) -> impl Iterator<Item = u8> {
    let first = [byte ^ 0x80, byte ^ 1, 0, 0xff, byte.wrapping_add(1), 0x7f];
    (0..)
        .zip(first)
        .filter(move |(at, _)| first.iter().position(|other| *other == first[*at]) == Some(*at))
        .map(|(_, value)| value)
        .chain((0..=0xff).filter(move |value| !first.contains(value)))
        .filter(move |value| *value != byte)
}

/// A file with one byte changed or its end cut off.
#[derive(Debug, Clone, Copy)]
enum Variant {
    Prefix(usize),
    Change { at: usize, value: u8 },
}

impl Variant {
    fn of(self, file: &[u8]) -> Vec<u8> {
        match self {
            Self::Prefix(len) => file[..len].to_vec(),
            Self::Change { at, value } => {
                let mut file = file.to_vec();
                file[at] = value;
                file
            }
        }
    }

    /// The variants of a file that are tried; `cost` is how many bytes one of them counts for.
    fn all(file: &[u8], cost: usize) -> Vec<Self> {
        let n = BYTES_PER_INPUT / cost.max(1);
        let step = file.len() / n.max(1) + 1;
        let prefixes = (0..file.len()).step_by(step).map(Self::Prefix);
        let n_changes = (n / file.len().max(1)).max(1);
        let places = (0..file.len()).step_by(step);
        let changed =
            places.flat_map(|at| changes(file[at]).take(n_changes).map(move |value| Self::Change { at, value }));
        prefixes.chain(changed).collect()
    }
}

/// Says which input it was when something panics.
struct Witness<'f>(&'f str, &'f [u8]);

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let hex: String = self.1.iter().take(4000).map(|byte| format!("{byte:02x}")).collect();
            eprintln!("the input was a variant of {}, in hexadecimal: {hex}", self.0);
        }
    }
}

/// Tries variants; of each byte, so many times the work as of reading, compiling, running and writing.
fn try_variants(examples: &[Example], times: usize, everything: impl Fn(&[u8], Python) + Sync) {
    let variants: Vec<_> = examples
        .iter()
        .flat_map(|example| {
            // The sixty shared tuples of `doubled` take the whole budget of `--sharing none`, and of decompiling.
            let cost = if example.name.starts_with("doubled") { 50_000 } else { example.file.len() };
            Variant::all(&example.file, cost * times).into_iter().map(move |variant| (example, variant))
        })
        .collect();
    variants.par_iter().for_each(|(example, variant)| {
        let file = variant.of(&example.file);
        let _witness = Witness(&example.name, &file);
        everything(&file, example.python);
    });
}

/// All that a user can do to a file.
fn everything(file: &[u8], python: Python) {
    match Input::read(file, Some(python)) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(Input::Source(source)) => everything_of_source(file, &source),
        Ok(Input::Initializer(initializer)) => everything_of_initializer(file, &initializer),
        Ok(Input::Lazy(container)) => everything_of_container(&container),
    }
}

fn everything_of_container(container: &Container<'_>) {
    let hydrated = lazy::hydrate(container);
    let turned_back = rehydrate::turn_back(container);
    let listing = Listing::new(container).map(|listing| (listing.to_string(), listing.json()));
    let report = Report::new(container, ["<module>", "f"]).map(|report| (report.to_string(), report.json()));
    let alternative = Alternative::of(container);
    let mut machine = Machine::new(container).traced();
    // What went wrong does not make it go wrong differently, nor stop the others.
    let first = machine.hydrate_all();
    assert_eq!(first, machine.hydrate_all());
    let Ok((heap, root)) = hydrated else {
        assert!(turned_back.is_err() && listing.is_err() && report.is_err() && alternative.is_err() && first.is_err());
        return;
    };
    assert!(lazy::trace(&machine).is_ok_and(|trace| !trace.is_empty()));
    let is_too_long = |error: &rehydrate::Error| matches!(error.kind(), ErrorKind::BudgetExceeded { .. });
    assert!(listing.is_ok() || listing.is_err_and(|error| is_too_long(&error)));
    assert!(report.is_ok() && alternative.is_ok());
    assert!(!repr::text(&heap, root).is_empty());
    _ = marshal::write(&heap, root);
    _ = rehydrate::write_canonical(&heap, root);
}

fn everything_of_source(file: &[u8], source: &Source<'_>) {
    let dump = &source.dump;
    assert_eq!(rehydrate::tree(source).to_string().is_empty(), dump.len == 0);
    assert!(!repr::text(&dump.heap, dump.root).is_empty());
    _ = marshal::write(&dump.heap, dump.root);
    if let Ok(canonical) = rehydrate::write_canonical(&dump.heap, dump.root) {
        let again = marshal::read(&canonical, dump.heap.python()).expect("what is written can be read");
        assert_eq!(rehydrate::write_canonical(&again.heap, again.root), Ok(canonical));
    }
    for way in lazy_ways(true) {
        if let Err(error) = check_lazy(file, Some(dump.heap.python()), way) {
            assert!(matches!(error.kind(), ErrorKind::CheckFailed { step: "dehydrate", .. }), "{way:?}: {error}");
        }
    }
    // What is read passes every check, except that there are heaps that nothing can build.
    for sharing in SHARINGS {
        let checked = check(file, Some(dump.heap.python()), options(sharing, true, End::Return));
        if let Err(error) = checked {
            assert!(matches!(error.kind(), ErrorKind::CheckFailed { step: "compile", .. }), "{sharing:?}: {error}");
        }
    }
}

/// What is compiled is explained, in every format, and with a part of a text.
fn everything_explained(source: &Source<'_>, sharing: Sharing) {
    let options = options(sharing, true, End::Return);
    let explained = match (rehydrate::explain(source, options), rehydrate::compile(source, options)) {
        (Ok(explained), Ok(_)) => explained,
        (explained, compiled) => return assert_eq!(explained.map(drop), compiled.map(drop)),
    };
    let found = explained.clone().with_value("a");
    for text in [explained.to_string(), found.to_string(), explained.json(), explained.html(), explained.dot()] {
        assert!(!text.is_empty());
    }
}

fn everything_of_initializer(file: &[u8], initializer: &Initializer<'_>) {
    assert_eq!(initializer.encode().as_deref(), Ok(file));
    let decompiled = rehydrate::decompile(initializer.clone());
    let Ok(verified) = rehydrate::verify(initializer.image.clone()) else {
        assert!(decompiled.is_err());
        return;
    };
    let (heap, root) = rehydrate::run(&verified);
    assert!(!repr::text(&heap, root).is_empty());
    _ = marshal::write(&heap, root);
    _ = rehydrate::write_canonical(&heap, root);
    let listing = rehydrate::disassemble(&verified, initializer.header_bytes()).to_string();
    assert_eq!(rehydrate::assemble(&listing).as_deref(), Ok(file));
}

#[test]
fn variants_of_every_example_are_refused_or_work() {
    try_variants(&[examples(), refused()].concat(), 1, everything);
}

#[test]
fn variants_of_every_initializer_are_refused_or_work() {
    let mut initializers = Vec::new();
    for example in examples() {
        let Ok(Input::Source(source)) = Input::read(&example.file, Some(example.python)) else { continue };
        for way in ways(true) {
            let Ok(compiled) = rehydrate::compile(&source, way) else { continue };
            let file = compiled.encode().expect("it is small");
            let name = format!("{} ({:?}, {:?})", example.name, way.sharing, way.profile);
            if initializers.iter().all(|other: &Example| other.file != file) {
                initializers.push(Example { name, file, python: example.python });
            }
        }
    }
    try_variants(&initializers, 1, everything);
}

#[test]
fn variants_of_every_example_are_refused_or_explained() {
    try_variants(&examples(), 50, |file, python| {
        if let Ok(Input::Source(source)) = Input::read(file, Some(python)) {
            SHARINGS.into_iter().for_each(|sharing| everything_explained(&source, sharing));
        }
    });
}

#[test]
fn variants_of_listings_are_refused_or_assemble() {
    let listings: Vec<_> = examples()
        .into_iter()
        .filter(|example| example.file.len() < 2000)
        .filter_map(|example| {
            let Ok(Input::Source(source)) = Input::read(&example.file, Some(example.python)) else { return None };
            let compiled = rehydrate::compile(&source, Options::default()).ok()?;
            let header = compiled.header_bytes();
            let verified = rehydrate::verify(compiled.image).expect("what is compiled is verified");
            let file = rehydrate::disassemble(&verified, header).to_string().into_bytes();
            Some(Example { file, ..example.clone() })
        })
        .collect();
    try_variants(&listings, 1, |file, _| {
        if let Ok(text) = std::str::from_utf8(file)
            && let Ok(assembled) = rehydrate::assemble(text)
        {
            everything(&assembled, Python::LATEST);
        }
    });
}

#[test]
fn variants_of_every_lazy_container_are_refused_or_work() {
    let mut containers = Vec::new();
    for example in lazy_examples() {
        let Ok(Input::Source(source)) = Input::read(&example.file, None) else { unreachable!("it was read before") };
        for way in lazy_ways(true) {
            let file = rehydrate::dehydrate(&source, way).expect("the container holds it");
            let name = format!("{} ({way:?})", example.name);
            if containers.iter().all(|other: &Example| other.file != file) {
                containers.push(Example { name, file, python: example.python });
            }
        }
    }
    assert!(containers.len() > 100, "{}", containers.len());
    try_variants(&containers, 6, everything);
}

// --- Made to do harm: lazy containers ---

fn dehydrated(file: &[u8], layout: Layout) -> Vec<u8> {
    let Ok(Input::Source(source)) = Input::read(file, None) else { panic!("it is a .pyc") };
    let options = LazyOptions { layout, source_flags: false, strip_caches: Some(false), ..LazyOptions::default() };
    rehydrate::dehydrate(&source, options).expect("the container holds it")
}

/// What hydrating says.
fn said(file: &[u8]) -> String {
    let hydrated = Container::open(file).and_then(|container| lazy::hydrate(&container).map(drop));
    hydrated.map_or_else(|error| error.to_string(), |()| "ok".to_owned())
}

/// A module whose constants are two tuples, the first in the second, with a str and an int; and a nested code object.
fn nested() -> Vec<u8> {
    let python: Python = "3.8".parse().expect("it is known");
    let inner = b"\xa9\x02z\x04spami\x00\x10\x00\x00".to_vec();
    let outer = b")\x02r\x00\x00\x00\x00N".to_vec();
    let names = ["a".to_owned(), "b".to_owned()];
    let load = |at| [100, at];
    let bytecode = [load(0), load(1), load(2), [101, 0], [101, 1], [83, 0]].concat();
    module(python, &bytecode, &names, &[inner, outer, code(python, b"S\0", &names[..1], &[])])
}

/// Where the offsets of a file in the draft's layout stand, by kind: of the entries, not of their number.
fn offsets(file: &[u8]) -> [std::ops::Range<usize>; 4] {
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes")) as usize;
    let n_codes = usize::from(u16::from_le_bytes([file[22], file[23]]));
    let mut at = 32;
    let mut next = |len: Option<usize>| {
        let len = len.unwrap_or_else(|| {
            at += 4;
            number(at - 4)
        });
        at += 4 * len;
        at - 4 * len..at
    };
    [next(Some(n_codes)), next(None), next(None), next(None)]
}

fn with(file: &[u8], at: usize, number: u32) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at..at + 4].copy_from_slice(&number.to_le_bytes());
    file
}

#[test]
fn offsets_may_point_anywhere() {
    let file = dehydrated(&nested(), Layout::Draft);
    assert_eq!(said(&file), "ok");
    let places: Vec<usize> = offsets(&file).into_iter().flat_map(|places| places.step_by(4)).collect();
    assert!(places.len() > 10);
    let len = file.len() as u32;
    for place in places {
        for target in (0..len + 9).chain([u32::MAX, u32::MAX - 1, 0x7fff_ffff, 0x8000_0000]) {
            everything(&with(&file, place, target), Python::LATEST);
        }
    }
}

#[test]
fn offsets_that_leave_the_data_are_refused_at_opening() {
    let file = dehydrated(&nested(), Layout::Draft);
    let [codes, constants, ..] = offsets(&file);
    let why = "an offset leaves the binary data";
    assert_eq!(said(&with(&file, codes.start, 16)), format!("{why} (at byte 0x20, in code object 0)"));
    assert_eq!(said(&with(&file, codes.start, file.len() as u32)), format!("{why} (at byte 0x20, in code object 0)"));
    assert_eq!(said(&with(&file, constants.start, 2001)), format!("{why} (at byte 0x2c, in constant 0)"));
}

#[test]
fn redirects_lead_to_no_redirects() {
    let file = dehydrated(&nested(), Layout::Draft);
    let [_, constants, texts, _] = offsets(&file);
    for (range, what) in [(constants, "constant"), (texts, "string")] {
        // To itself; and two to each other.
        let itself = with(&file, range.start, 1);
        let each_other = with(&with(&file, range.start, 3), range.start + 4, 1);
        for file in [itself, each_other] {
            assert!(
                said(&file).starts_with("a redirect leads to another redirect (at byte "),
                "{what}: {}",
                said(&file)
            );
        }
    }
}

#[test]
fn a_constant_that_needs_itself_is_refused() {
    let file = dehydrated(&nested(), Layout::Draft);
    let [_, constants, ..] = offsets(&file);
    // `(('spam', 4096), None)` begins with LAZY_LOAD_CONSTANT 0: now of itself.
    let second = u32::from_le_bytes(file[constants.start + 4..constants.start + 8].try_into().unwrap()) as usize;
    assert_eq!(file[second + 8..second + 10], [4, 0]);
    let mut itself = file.clone();
    itself[second + 9] = 1;
    let path = "in code object 0 > constant 1";
    assert_eq!(said(&itself), format!("constant 1 is needed to build itself (at byte {:#x}, {path})", second + 10));
    // And through another: `('spam', 4096)` begins with MAKE_STRING.
    let first = u32::from_le_bytes(file[constants.start..constants.start + 4].try_into().unwrap()) as usize;
    let mut through = file.clone();
    through[first + 8..first + 10].copy_from_slice(&[4, 1]);
    let path = "in code object 0 > constant 0 > constant 1";
    assert_eq!(said(&through), format!("constant 0 is needed to build itself (at byte {:#x}, {path})", second + 10));
}

#[test]
fn a_code_object_that_holds_itself_is_refused() {
    let file = dehydrated(&nested(), Layout::Draft);
    let [_, constants, ..] = offsets(&file);
    let third = u32::from_le_bytes(file[constants.start + 8..constants.start + 12].try_into().unwrap()) as usize;
    // MAKE_CODE_OBJECT 1.
    assert_eq!(file[third + 8..third + 10], [0x12, 1]);
    let mut itself = file.clone();
    itself[third + 9] = 0;
    assert_eq!(said(&itself), "a code object holds one that does not come after it (in code object 0)");
}

#[test]
fn overlapping_entries_have_a_budget() {
    // A thousand str that all are the same megabyte of nothing.
    let python = "3.13".parse().expect("it is known");
    let names: Vec<String> = (0..1000).map(|at| format!("n{at:04}")).collect();
    let long = [&b"u"[..], &1_000_000_u32.to_le_bytes(), &[b' '; 1_000_000]].concat();
    let mut file = dehydrated(&module(python, b"", &names, &[long]), Layout::Draft);
    let [_, _, texts, _] = offsets(&file);
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let longest = texts.clone().step_by(4).map(number).find(|at| file[*at as usize..].starts_with(&[0xc0, 0x84, 0x3d]));
    let longest = longest.expect("it has a varint of a million");
    for at in texts.step_by(4) {
        file[at..at + 4].copy_from_slice(&longest.to_le_bytes());
    }
    assert!(said(&file).starts_with("hydrating exceeds its budget of "), "{}", said(&file));
}

#[test]
fn a_listing_of_overlapping_bytecode_has_a_budget() {
    // Two thousand code objects, all of which are made to have the longest bytecode.
    let python = "3.8".parse().expect("it is known");
    let small = code(python, b"S\0", &[], &[]);
    let long = code(python, &[9, 0].repeat(20_000), &[], &[]);
    let file = module(python, b"S\0", &[], &[vec![small; 2000], vec![long]].concat());
    let mut file = dehydrated(&file, Layout::Draft);
    let [codes, _, _, blobs] = offsets(&file);
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let longest = blobs.clone().step_by(4).map(number).find(|at| file[*at as usize..].starts_with(&[0xc0, 0xb8, 0x02]));
    let longest = longest.expect("it has a varint of forty thousand");
    assert_eq!(codes.len(), 4 * 2002);
    for at in blobs.step_by(4) {
        file[at..at + 4].copy_from_slice(&longest.to_le_bytes());
    }
    assert!(said(&file).starts_with("hydrating exceeds its budget of "), "{}", said(&file));
}

#[test]
fn a_hundred_thousand_levels_can_be_hydrated() {
    let mut wordcode = vec![2, 7];
    wordcode.extend([0x0b, 1].repeat(100_000));
    wordcode.extend([0x13, 0]);
    let python = "3.8".parse().expect("it is known");
    let file = dehydrated(&module(python, b"", &[], &[b")\x01i\x00\x10\x00\x00".to_vec()]), Layout::Draft);
    let [_, constants, ..] = offsets(&file);
    // The program stands at the end, where there is room; the float behind it stays.
    let end = file.len().next_multiple_of(4);
    let mut file = with(&file, constants.start, end as u32);
    file.resize(end, 0);
    file.extend(1_u32.to_le_bytes());
    file.extend((wordcode.len() as u32 / 2).to_le_bytes());
    file.extend(wordcode);
    let len = file.len() as u32;
    let file = with(&file, 28, len);
    assert_eq!(said(&file), "ok");
    everything(&file, python);
}

#[test]
fn a_program_is_verified_before_it_is_executed() {
    let file = dehydrated(&nested(), Layout::Draft);
    let [_, constants, ..] = offsets(&file);
    let first = u32::from_le_bytes(file[constants.start..constants.start + 4].try_into().unwrap()) as usize;
    // ('spam', 4096): MAKE_INTERNED_STRING, MAKE_LONG, BUILD_TUPLE 2, RETURN_CONSTANT 0.
    let at = |byte: usize, value: u8| {
        let mut file = file.clone();
        file[first + byte] = value;
        let said = said(&file);
        said.split(" (at byte").next().unwrap_or_default().to_owned()
    };
    assert_eq!(at(0, 9), "the header states a stack of 9, the instructions reach 2");
    assert_eq!(at(4, 3), "the constant ends without RETURN_CONSTANT");
    assert_eq!(at(8, 0xee), "unknown opcode 0xee");
    assert_eq!(at(9, 99), "MAKE_STRING 99: is out of range");
    assert_eq!(at(13, 3), "BUILD_TUPLE needs 3 values and the stack holds 2");
    assert_eq!(at(13, 1), "something is left behind RETURN_CONSTANT");
    assert_eq!(at(12, 0x0a), "MAKE_COMPLEX 2: is out of range");
    assert_eq!(at(15, 1), "RETURN_CONSTANT 1: is another constant");
}

// --- Made to do harm ---

fn assembled(instructions: &str) -> Vec<u8> {
    rehydrate::assemble(&format!(".python 3.13\n{instructions}\nRETURN_VALUE")).expect("the listing is well-formed")
}

fn image(file: &[u8]) -> Image<'_> {
    Initializer::read(file).expect("it was just assembled").image
}

fn verified(file: &[u8]) -> Verified<'_> {
    rehydrate::verify(image(file)).expect("it was just assembled")
}

#[test]
fn lengths_that_are_too_large_are_refused() {
    let file = assembled("MAKE_STRING 'spam'");
    for at in 8..8 + 14 {
        let huge = [&file[..at], b"\xff\xff\xff\xff\x07", &file[at + 1..]].concat();
        let refused = Initializer::read(&huge).and_then(|read| rehydrate::verify(read.image).map(drop));
        assert!(refused.is_err(), "number {} of the header", at - 8);
    }
}

#[test]
fn operands_that_are_too_large_are_refused() {
    let file = assembled("MAKE_STRING 'spam'");
    for opcode in 0..=u8::MAX {
        for operand in [0x7f_u8, 0xff] {
            let instructions = [&[1, operand, 1, 0xff, 1, 0xff, opcode, 0xff], &[0x1e, 0][..]].concat();
            let image = Image { instructions: Cow::Owned(instructions), ..image(&file) };
            assert!(rehydrate::verify(image).is_err(), "opcode {opcode:#x}");
        }
    }
}

#[test]
fn a_stack_that_is_too_large_is_refused() {
    let file = assembled("LOAD_INT 1");
    let image = Image { max_stack: u32::MAX, ..image(&file) };
    let error = rehydrate::verify(image).expect_err("the instructions reach one value");
    assert_eq!(*error.kind(), ErrorKind::WrongStack { stated: u32::MAX, reached: 1 });
}

#[test]
fn a_source_section_that_expands_without_bound_is_refused() {
    // A tuple that holds one str ten thousand times, to be written out each time.
    let lines = [&format!("MAKE_STRING '{}'\n", "n".repeat(10_000)), &*"COPY 1\n".repeat(9_999), "BUILD_TUPLE 10000"];
    let file = assembled(&lines.concat());
    // Its kind; a number of type bytes, ten thousand and one; no bit for any; no indexes, no texts.
    let source = [&[0, 0x91, 0x4e][..], &[0; 1251], &[0, 0]].concat();
    let initializer = Initializer { header: None, image: Image { source: Some(source.into()), ..image(&file) } };
    let error = rehydrate::decompile(initializer).expect_err("the dump would have 100 MB");
    assert!(matches!(error.kind(), ErrorKind::BudgetExceeded { .. }), "{error}");
}

#[test]
fn sixty_doublings_are_sixty_objects() {
    let file = assembled(&format!("LOAD_INT 7\n{}", "COPY 1\nBUILD_TUPLE 2\n".repeat(60)));
    everything(&file, Python::LATEST);
    let verified = verified(&file);
    let (heap, root) = rehydrate::run(&verified);
    assert!(heap.len() < 100);
    assert!(repr::text(&heap, root).len() < 2_000);
    assert!(rehydrate::disassemble(&verified, &[]).to_string().len() < 20_000);
    let dump = marshal::write(&heap, root).expect("it is 60 deep");
    assert_eq!(rehydrate::write_canonical(&heap, root).as_ref(), Ok(&dump));
    let again = marshal::read(&dump, heap.python()).expect("what is written can be read");
    for sameness in [Sameness::Identity, Sameness::Structural, Sameness::Value] {
        assert_eq!(difference((&heap, root), (&again.heap, again.root), sameness), None);
    }
    let again = Source { header: None, dump: again, marshal: &dump };
    everything_explained(&again, Sharing::Structural);
    let refused = rehydrate::compile(&again, options(Sharing::None, true, End::Return));
    assert!(matches!(refused.expect_err("2**60 leaves").kind(), ErrorKind::BudgetExceeded { .. }));
}

#[test]
fn sixty_doublings_are_keys() {
    let keys = format!("LOAD_INT 7\n{}", "COPY 1\nBUILD_TUPLE 2\n".repeat(60));
    for holder in ["BUILD_SET 2", "BUILD_TUPLE 2\nCALL_INTRINSIC_1 make_frozenset", "BUILD_MAP 1"] {
        everything(&assembled(&format!("{keys}{keys}{holder}")), Python::LATEST);
    }
}

#[test]
fn what_many_code_objects_share_is_looked_through_once() {
    let of_code = "code consts names localspluskinds filename name qualname linetable exceptiontable";
    for field in of_code.split(' ') {
        everything(&sharing_code_objects(&format!("co_{field}")), Python::LATEST);
    }
    let file = sharing_code_objects("co_code");
    let Ok(Input::Source(source)) = Input::read(&file, None) else { panic!("it is a .pyc") };
    for layout in [Layout::Draft, Layout::Compact] {
        let refused = rehydrate::dehydrate(&source, LazyOptions { layout, ..LazyOptions::default() });
        let refused = refused.expect_err("bytecode is stored for each code object");
        assert!(matches!(refused.kind(), ErrorKind::BudgetExceeded { what: "dehydrating", .. }), "{refused}");
    }
}

/// A .pyc of 3.13 whose module has 5,000 code objects with the same objects in them, of which one field's is of half a megabyte.
fn sharing_code_objects(field: &str) -> Vec<u8> {
    let len = |of: &str| if field == of { 500_000 } else { 1 };
    let u32s = |numbers: &[usize]| numbers.iter().flat_map(|n| (*n as u32).to_le_bytes()).collect::<Vec<u8>>();
    let sized = |code: u8, bytes: &[u8]| [&[code], &*u32s(&[bytes.len()]), bytes].concat();
    let tuple = |items: &[Vec<u8>]| [b"(", &*u32s(&[items.len()]), &items.concat()].concat();
    let names = |n: usize| tuple(&(0..n).map(|n| sized(b'A', format!("name_{n}").as_bytes())).collect::<Vec<_>>());
    let n_variables = len("co_localspluskinds") / 20;
    let [nop, return_value] = [30, 36];
    let before_line = [
        sized(b's', &[[nop, 0].repeat(len("co_code") / 2), vec![return_value, 0]].concat()),
        tuple(&vec![b"N".to_vec(); len("co_consts")]),
        names(len("co_names") / 20),
        names(n_variables),
        sized(b's', &vec![0x20; n_variables]),
        sized(b'a', &b"f".repeat(len("co_filename"))),
        sized(b'a', &b"n".repeat(len("co_name"))),
        sized(b'A', &b"q".repeat(len("co_qualname"))),
    ];
    let behind_line = [
        sized(b's', &[0x80, 0].repeat(len("co_linetable"))),
        sized(b's', &[0x80, 1, 2, 0].repeat(len("co_exceptiontable") / 4)),
    ];
    let code = |numbers: &[usize], before: &[Vec<u8>], line: usize, behind: &[Vec<u8>]| {
        [b"c", &*u32s(numbers), &before.concat(), &u32s(&[line]), &behind.concat()].concat()
    };
    let n_shared = before_line.len() + behind_line.len();
    let references: Vec<_> = (0..n_shared).map(|index| [b"r", &*u32s(&[index])].concat()).collect();
    let (before, behind) = references.split_at(before_line.len());
    // The first code object has them, the others refer to them.
    let flag = |mut value: Vec<u8>| {
        value[0] |= 0x80;
        value
    };
    let mut codes = vec![code(&[0, 0, 0, 1, 3], &before_line.map(flag), 1, &behind_line.map(flag))];
    codes.extend((2..=5_000).map(|line| code(&[0, 0, 0, 1, 3], before, line, behind)));
    let [empty, no_bytes, text] = [tuple(&[]), sized(b's', b""), sized(b'a', b"<module>")];
    let of_module = [
        sized(b's', &[return_value, 0]),
        tuple(&codes),
        empty.clone(),
        empty,
        no_bytes.clone(),
        text.clone(),
        text.clone(),
        text,
    ];
    let module = code(&[0, 0, 0, 1, 0], &of_module, 1, &[no_bytes.clone(), no_bytes]);
    [&3571_u16.to_le_bytes()[..], b"\r\n", &[0; 12], &module].concat()
}

#[test]
fn a_hundred_thousand_levels_can_be_run_and_shown_but_not_marshalled() {
    let levels = "BUILD_TUPLE 1\n".repeat(100_000);
    for holder in ["", "LOAD_INT 1\nBUILD_SET 2"] {
        let file = assembled(&format!("LOAD_INT 7\n{levels}{holder}"));
        everything(&file, Python::LATEST);
        let verified = verified(&file);
        let (heap, root) = rehydrate::run(&verified);
        let text = repr::text(&heap, root);
        assert_eq!(text.matches('(').count(), 100_000);
        let too_deep =
            |written: rehydrate::Result<Vec<u8>>| *written.expect_err("it is too deep").kind() == ErrorKind::TooDeep;
        assert!(too_deep(marshal::write(&heap, root)));
        assert!(too_deep(rehydrate::write_canonical(&heap, root)));
        let (again, top) = rehydrate::run(&verified);
        assert_eq!(difference((&heap, root), (&again, top), Sameness::Identity), None);
    }
}

#[test]
fn a_list_can_hold_itself() {
    let file = assembled("BUILD_LIST 0\nLOAD_FAST 0\nLIST_APPEND 1");
    everything(&file, Python::LATEST);
    let verified = verified(&file);
    let (heap, root) = rehydrate::run(&verified);
    assert_eq!(marshal::write(&heap, root).as_deref(), Ok(&b"\xdb\x01\0\0\0r\0\0\0\0"[..]));
}
