//! Memory is bounded by a multiple of the input.

// Counting allocations takes an allocator, and implementing one is unsafe.
#![allow(unsafe_code)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Example, code, examples, lazy_examples, lazy_ways, module, options, refused, ways};
use rehydrate::lazy::{self, Container};
use rehydrate::{End, Explanation, Initializer, Input, Python, Sharing};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is left to the system's allocator; the counts are beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes held at once during `work`, beyond those held before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let made = work();
    (made, PEAK.load(Ordering::Relaxed) - before)
}

/// What a stage may hold: so much for each byte of its input, and so much besides, in bytes.
#[derive(Debug, Clone, Copy)]
struct Bound {
    per_byte: usize,
    besides: usize,
}

impl Bound {
    fn of(self, file: &[u8]) -> usize {
        self.per_byte * file.len() + self.besides
    }
}

/// Reading; compiling and encoding; reading, verifying and running. The worst below take little more than half of it:
/// 35 for each byte, where objects take two bytes and an array moves to one twice as long, and 270 KB for 2000 open
/// containers in 4 KB.
const BOUND: Bound = Bound { per_byte: 64, besides: 256 << 10 };

/// Compiling without sharing, which stops at 64 bytes of output for each of input, and 1 MiB. The worst below takes 116.
const UNSHARED: Bound = Bound { per_byte: 256, besides: 4 << 20 };

/// Dehydrating: the graph, and each record and program before they are put together. The worst below takes 64.
const DEHYDRATED: Bound = Bound { per_byte: 128, besides: 1 << 20 };

/// Explaining, and spelling that: an object of two bytes has an entry with those that are equal to it. Besides, each is
/// compiled without sharing too, and an output names thousands of places. The worst below takes 2300, as a page.
const EXPLAINED: Bound = Bound { per_byte: 4096, besides: 16 << 20 };

/// Dumps of `n` objects that are large for their bytes. Arrays grow by powers of two: just more than one is the worst.
fn dense(n: usize) -> Vec<Example> {
    let python = "3.14".parse().expect("it is known");
    let tuple = |n: usize, item: &[u8]| [&b"("[..], &(n as u32).to_le_bytes(), &item.repeat(n)].concat();
    let int = |int: u32| [&b"i"[..], &(int + 256).to_le_bytes()].concat();
    let files = [
        ("None", tuple(n, b"N")),
        ("flagged str", tuple(n, b"\xfa\0")),
        ("str", tuple(n, b"z\0")),
        ("flagged empty tuples", tuple(n, b"\xa9\0")),
        ("tuples of one", tuple(n, b")\x01N")),
        ("empty dicts", tuple(n, b"{0")),
        ("dicts", tuple(n, b"{z\0N0")),
        ("dicts of None", tuple(n, b"{NN0")),
        ("slices", tuple(n, b":NNN")),
        ("lists", tuple(n, b"[\x01\0\0\0N")),
        ("text floats", tuple(n, b"f\x010")),
        ("text complexes", tuple(n, b"x\x010\x010")),
        ("floats", tuple(n, b"g\0\0\0\0\0\0\0\0")),
        ("ints", [&tuple(n, b"")[..5], &(0..n as u32).flat_map(int).collect::<Vec<_>>()].concat()),
        ("long ints", tuple(n, b"l\x05\0\0\0\0\0\0\0\0\0\0\0\0\x40")),
        ("one dict", [&b"{"[..], &b"NN".repeat(n), b"0"].concat()),
        ("one set", [&b"<"[..], &(n as u32).to_le_bytes(), &b")\x01N".repeat(n)].concat()),
        ("references", [&tuple(n, b"")[..5], b"\xfa\x02ab", &b"r\0\0\0\0".repeat(n - 1)].concat()),
        ("a tuple again", [&tuple(n, b"")[..5], b"\xa9\xff", &b"N".repeat(255), &b"r\0\0\0\0".repeat(n - 1)].concat()),
        ("deep", [&b")\x01".repeat(1999)[..], b"N"].concat()),
        ("deep dicts", [&b"{N".repeat(1999)[..], b"N", &b"0".repeat(1999)].concat()),
    ];
    files.map(|(name, file)| Example { name: name.to_owned(), file, python }).into()
}

/// A dump of `n` tuples, each of which holds the one before it twice: more paths than can be named.
fn pairs(n: u32) -> Example {
    let pair = |at: u32| [&b"\xa9\x02r"[..], &at.to_le_bytes(), b"r", &at.to_le_bytes()].concat();
    let file = [&b"("[..], &n.to_le_bytes(), b"\xa9\x01N", &(0..n - 1).flat_map(pair).collect::<Vec<_>>()].concat();
    Example { name: "pairs".to_owned(), file, python: "3.14".parse().expect("it is known") }
}

/// Initializers whose objects are large for their bytes.
fn dense_initializers() -> Vec<Example> {
    let n = 66_000;
    let lines = |what: &str| what.repeat(n) + &format!("BUILD_TUPLE {n}\n");
    let listings = [
        ("ints", lines("LOAD_INT 1\n")),
        ("lists", lines("BUILD_LIST 0\n")),
        ("dicts", lines("BUILD_MAP 0\n")),
        ("str", lines("MAKE_STRING ''\n")),
        ("growing lists", lines("BUILD_LIST 0\nLOAD_INT 1\nLIST_APPEND 1\n")),
        ("growing dicts", lines("BUILD_MAP 0\nLOAD_INT 1\nLOAD_INT 2\nMAP_ADD 1\n")),
        ("a growing list", "BUILD_LIST 0\n".to_owned() + &"LOAD_INT 1\nLIST_APPEND 1\n".repeat(n)),
        ("copies", "BUILD_LIST 0\n".to_owned() + &lines("COPY 1\n")),
        ("deep", "LOAD_INT 1\n".to_owned() + &"BUILD_TUPLE 1\n".repeat(n)),
        ("pairs", "LOAD_INT 1\n".to_owned() + &"COPY 1\nBUILD_TUPLE 2\n".repeat(n)),
    ];
    let python = "3.14".parse().expect("it is known");
    let assembled = |listing: &str| rehydrate::assemble(&format!(".python 3.14\n{listing}RETURN_VALUE\n"));
    let file = |(name, listing): (&str, String)| Example {
        name: name.to_owned(),
        file: assembled(&listing).expect("the listing is well-formed"),
        python,
    };
    listings.map(file).into()
}

/// A module that has the dump's object as its constant.
fn in_module(example: &Example) -> Example {
    Example { file: module(example.python, b"", &[], std::slice::from_ref(&example.file)), ..example.clone() }
}

/// Modules that are small for what they hydrate to.
fn dense_modules() -> Vec<Example> {
    let python: Python = "3.12".parse().expect("it is known");
    let names: Vec<String> = (0..20_000).map(|at| at.to_string()).collect();
    // LOAD_ATTR has nine entries of inline caches.
    let bytecode = [&[106, 0][..], &[0; 18]].concat().repeat(5_000);
    let small = code(python, &bytecode[..20], &names[..1], &[]);
    let files = [
        ("names", module(python, b"", &names, &[])),
        ("bytecode", module(python, &bytecode, &names[..1], &[])),
        ("code objects", module(python, b"", &[], &vec![small; 5_000])),
    ];
    files.map(|(name, file)| Example { name: name.to_owned(), file, python }).into()
}

/// The file, and copies in which every n-th four bytes, which may be a length, are huge, negative or zero.
fn mutated(example: &Example) -> Vec<Vec<u8>> {
    let step = example.file.len() / 40 + 1;
    let mut files = vec![example.file.clone()];
    for at in (0..example.file.len().saturating_sub(4)).step_by(step) {
        for value in [i32::MAX, -1, 0, 0x00ff_ffff, 0x7f7f_7f7f] {
            let mut file = example.file.clone();
            file[at..at + 4].copy_from_slice(&value.to_le_bytes());
            files.push(file);
        }
    }
    files
}

fn initializers(examples: &[Example]) -> Vec<Example> {
    let mut made = Vec::new();
    for example in examples {
        let Ok(Input::Source(source)) = Input::read(&example.file, Some(example.python)) else { continue };
        for way in ways(true) {
            if let Ok(compiled) = rehydrate::compile(&source, way) {
                let file = compiled.encode().expect("it is small");
                made.push(Example { file, ..example.clone() });
            }
        }
    }
    made
}

// One test: the allocator counts what every thread does.
#[test]
fn memory_is_bounded_by_the_input() {
    let large = dense(66_000);
    for example in large.iter().chain(&examples()).chain(&refused()) {
        for file in mutated(example) {
            let (read, held) = peak(|| Input::read(&file, Some(example.python)));
            assert!(held <= BOUND.of(&file), "reading {} bytes of {} held {held}", file.len(), example.name);
            let Ok(Input::Source(source)) = read else { continue };
            for way in ways(true) {
                let bound = if way.sharing == Sharing::None { UNSHARED } else { BOUND };
                let (_, held) = peak(|| rehydrate::compile(&source, way).and_then(|compiled| compiled.encode()));
                let len = file.len();
                assert!(held <= bound.of(&file), "compiling {len} bytes of {} ({way:?}) held {held}", example.name);
            }
        }
    }
    let files = [initializers(&large), initializers(&examples()), dense_initializers()].concat();
    for example in &files {
        for file in mutated(example) {
            let (_, held) = peak(|| {
                let verified = rehydrate::verify(Initializer::read(&file)?.image)?;
                let (heap, _) = rehydrate::run(&verified);
                Ok::<_, rehydrate::Error>(heap.len())
            });
            assert!(held <= BOUND.of(&file), "running {} bytes of {} held {held}", file.len(), example.name);
        }
    }
    for example in dense(66_000).iter().map(in_module).chain(dense_modules()).chain(lazy_examples()) {
        let Ok(Input::Source(source)) = Input::read(&example.file, None) else { continue };
        for way in lazy_ways(true) {
            let (made, held) = peak(|| rehydrate::dehydrate(&source, way));
            let (len, name) = (example.file.len(), &example.name);
            assert!(held <= DEHYDRATED.of(&example.file), "dehydrating {len} bytes of {name} ({way:?}) held {held}");
            let Ok(container) = made else { continue };
            for file in mutated(&Example { file: container, ..example.clone() }) {
                let (_, held) = peak(|| {
                    let container = Container::open(&file)?;
                    let (heap, _) = lazy::hydrate(&container)?;
                    Ok::<_, rehydrate::Error>(heap.len())
                });
                assert!(held <= BOUND.of(&file), "hydrating {} bytes of {name} ({way:?}) held {held}", file.len());
            }
        }
    }
    // Spelling takes longer than compiling, so what is spelled is smaller.
    let long_str = [&b"(\x3a\x20\0\0\xe1\xa0\x86\x01\0"[..], &[b'n'; 100_000], &b"r\0\0\0\0".repeat(8_249)].concat();
    let long_str = Example { name: "a long str again".to_owned(), file: long_str, ..large[0].clone() };
    let in_itself =
        [&b"\xdb\x3b\x20\0\0r\0\0\0\0\xe1\xa0\x86\x01\0"[..], &[b'n'; 100_000], &b"r\x01\0\0\0".repeat(8_249)].concat();
    let in_itself = Example { name: "a long str again in a list".to_owned(), file: in_itself, ..large[0].clone() };
    for example in [&long_str, &in_itself] {
        let Ok(Input::Source(source)) = Input::read(&example.file, Some(example.python)) else { panic!("a dump") };
        let (refused, held) = peak(|| rehydrate::compile(&source, options(Sharing::None, true, End::Return)));
        assert!(refused.is_err() && held <= UNSHARED.of(&example.file), "compiling {} held {held}", example.name);
    }
    for example in dense(8_250).iter().chain([&pairs(8_250), &long_str]).chain(&examples()) {
        let Ok(Input::Source(source)) = Input::read(&example.file, Some(example.python)) else { continue };
        for sharing in [Sharing::Structural, Sharing::None] {
            let (explained, held) = peak(|| rehydrate::explain(&source, options(sharing, true, End::Return)));
            let (file, name) = (&example.file, &example.name);
            assert!(held <= EXPLAINED.of(file), "explaining {} bytes of {name} held {held}", file.len());
            let Ok(explained) = explained else { continue };
            let found = explained.clone().with_value("(");
            let spells: [&dyn Fn(&Explanation) -> String; 4] =
                [&ToString::to_string, &Explanation::json, &Explanation::html, &Explanation::dot];
            for (at, spell) in spells.iter().enumerate() {
                let held = held + peak(|| (spell(&explained), found.to_string())).1;
                assert!(held <= EXPLAINED.of(file), "spelling {} bytes of {name} ({at}) held {held}", file.len());
            }
        }
    }
}
