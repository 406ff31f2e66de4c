//! No input makes anything panic: what is changed by a byte, cut short, or made to do harm, is refused or works.
//!
//! There is no need to catch anything: a panic fails the test, and its message is followed by the input.

mod common;

use std::borrow::Cow;
use std::thread;

use common::{Example, SHARINGS, examples, options, refused, ways};
use rayon::prelude::*;
use rehydrate::{End, ErrorKind, Image, Initializer, Input, Options, Python, Sameness, Sharing, Source, Verified};
use rehydrate::{check, difference, marshal, repr};

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
    }
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
