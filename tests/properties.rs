//! The equation and its kin, over random heaps of every version.
//!
//! Heaps are made as marshal dumps, by a writer of their own: what it writes, CPython accepts.

mod common;

use std::borrow::Cow;
use std::fmt;

use common::{SHARINGS, lazy_ways, options};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::Union;
use proptest::test_runner::RngSeed;
use rehydrate::isa::{Instruction, OPS, Op, Section};
use rehydrate::lazy::{Container, Listing};
use rehydrate::marshal::{self, Dump};
use rehydrate::python::{Field, FieldKind};
use rehydrate::{
    End, Heap, Image, Initializer, Input, Object, Optimize, Options, Profile, Python, Sameness, Sharing, Source,
};
use rehydrate::{ErrorKind, check, check_lazy, difference};

/// The same cases on every run: `PROPTEST_RNG_SEED` in the environment tries others.
fn cases(n: u32) -> ProptestConfig {
    let seed = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(566);
    ProptestConfig { cases: n, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..ProptestConfig::default() }
}

// --- What a dump is made of ---

/// An object as it stands in a dump. Where it may not stand, [`Writer`] writes the nearest thing that may.
#[derive(Debug, Clone)]
enum Item {
    /// A type code and its payload.
    Leaf(Vec<u8>),
    /// One of the objects that a reference could be to.
    Ref(Index),
    /// `(`, `)`, `[`, `<` or `>`.
    Sequence(u8, Vec<Node>),
    /// `{` or `}`; and a key that is dropped, because NULL stands where its value should.
    Dict(u8, Vec<(Node, Node)>, Option<Box<Node>>),
    Slice(Box<[Node; 3]>),
    Code(Box<CodeItem>),
}

#[derive(Debug, Clone)]
struct Node {
    item: Item,
    flagged: bool,
}

#[derive(Debug, Clone)]
struct CodeItem {
    args: u8,
    positional_only: u8,
    keyword_only: u8,
    numbers: [i32; 4],
    consts: Vec<Node>,
    names: Vec<Vec<u8>>,
    n_more_locals: u8,
    tables: [Vec<u8>; 3],
    /// Which fields are references, if some fit, and which are flagged.
    refs: u32,
    flags: u32,
    pick: Index,
}

/// A dump, and the Python that reads it.
#[derive(Clone)]
struct Made {
    python: Python,
    bytes: Vec<u8>,
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "3.{}: {}", self.python.minor(), self.bytes.escape_ascii())
    }
}

impl Made {
    fn dump(&self) -> Dump<'_> {
        marshal::read(&self.bytes, self.python).unwrap_or_else(|error| panic!("{}: {error}", self.bytes.escape_ascii()))
    }
}

fn dumps() -> impl Strategy<Value = Made> {
    let python = select(Python::all().collect::<Vec<_>>());
    (python, node(), vec(any::<u8>(), 0..4)).prop_map(|(python, node, trailing)| {
        let mut writer = Writer { python, out: Vec::new(), entries: Vec::new() };
        writer.node(&node, Place { hashed: false, cycles: true });
        writer.out.extend(trailing);
        Made { python, bytes: writer.out }
    })
}

/// Opcodes that are rewritten for the lazy container in one version or another, and EXTENDED_ARG.
const REWRITTEN: &[u8] = &[
    67, 69, 71, 144, 144, 81, 82, 83, 100, 100, 103, 121, 172, 59, 61, 63, 72, 73, 75, 79, 80, 90, 91, 92, 93, 95, 96,
    97, 101, 106, 108, 109, 110, 114, 115, 116, 141, 160, 175,
];

/// A .pyc whose bytecode has instructions that are rewritten, among any others.
fn modules() -> impl Strategy<Value = Made> {
    let python = select(Python::all().collect::<Vec<_>>());
    let opcode = prop_oneof![30 => select(REWRITTEN), 1 => any::<u8>()];
    let oparg = prop_oneof![4 => 0..6_u8, 1 => any::<u8>()];
    (python, code(node()), vec((opcode, oparg), 0..24)).prop_map(|(python, mut code, instructions)| {
        code.tables[0] = instructions.into_iter().flat_map(|(opcode, oparg)| [opcode, oparg]).collect();
        let mut bytes = [&python.magic().to_le_bytes()[..], b"\r\n"].concat();
        bytes.resize(python.header_len(), 0);
        let mut writer = Writer { python, out: bytes, entries: Vec::new() };
        let node = Node { item: Item::Code(Box::new(code)), flagged: false };
        writer.node(&node, Place { hashed: false, cycles: true });
        Made { python, bytes: writer.out }
    })
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![4 => leaf().prop_map(Item::Leaf), 3 => any::<Index>().prop_map(Item::Ref)];
    let leaf = (leaf, any::<bool>()).prop_map(|(item, flagged)| Node { item, flagged });
    leaf.prop_recursive(5, 48, 6, |node| {
        let sequence = (select(&b"()[[<>"[..]), vec(node.clone(), 0..6));
        let pairs = vec((node.clone(), node.clone()), 0..4);
        let dropped = proptest::option::weighted(0.1, node.clone().prop_map(Box::new));
        let item = prop_oneof![
            6 => sequence.prop_map(|(code, items)| Item::Sequence(code, items)),
            2 => (select(&b"{{}"[..]), pairs, dropped).prop_map(|(code, pairs, dropped)| Item::Dict(code, pairs, dropped)),
            1 => [node.clone(), node.clone(), node.clone()].prop_map(|items| Item::Slice(Box::new(items))),
            2 => code(node).prop_map(|code| Item::Code(Box::new(code))),
        ];
        (item, any::<bool>()).prop_map(|(item, flagged)| Node { item, flagged })
    })
}

fn code(node: impl Strategy<Value = Node>) -> impl Strategy<Value = CodeItem> {
    let numbers = (0..4_u8, 0..4_u8, 0..3_u8, [any::<i32>(), any::<i32>(), any::<i32>(), any::<i32>()]);
    let names = vec(prop_oneof![text(), select(vec![b"self".to_vec(), b"x".to_vec()])], 1..6);
    let tables = [vec(any::<u8>(), 0..6), vec(any::<u8>(), 0..3), vec(any::<u8>(), 0..3)];
    let picks = (any::<u32>(), any::<u32>(), any::<Index>());
    (numbers, vec(node, 0..4), names, 0..3_u8, tables, picks).prop_map(
        |(
            (args, positional_only, keyword_only, numbers),
            consts,
            names,
            n_more_locals,
            tables,
            (refs, flags, pick),
        )| {
            CodeItem {
                args,
                positional_only,
                keyword_only,
                numbers,
                consts,
                names,
                n_more_locals,
                tables,
                refs,
                flags,
                pick,
            }
        },
    )
}

const TEXTS: &[&str] = &["", "é", "ÿ", "Ā", "naïve", "€uro", "𝄞", "__name__", "two words", "it's\n\\"];
const SURROGATES: &[&[u8]] = &[b"\xed\xa0\x80", b"a\xed\xbf\xbf"];

/// UTF-8, surrogates included; few enough texts that some are equal.
fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[ab_]{0,2}".prop_map(String::into_bytes),
        select(TEXTS).prop_map(|text| text.as_bytes().to_vec()),
        select(SURROGATES).prop_map(<[u8]>::to_vec),
        "\\PC{0,8}".prop_map(String::into_bytes),
        (0..300_usize).prop_map(|n| vec![b'n'; n]),
    ]
}

fn leaf() -> impl Strategy<Value = Vec<u8>> {
    let number_text = || select(&["1.5", "-0.0", "1e300", "1e999", "-inf", "nan", "0.1", ".5"][..]);
    let int = prop_oneof![-7..260_i64, any::<i64>(), select(&[i64::MIN, i64::MAX, 1 << 31, -(1 << 31) - 1][..])];
    let bits =
        || prop_oneof![any::<u64>(), any::<f64>().prop_map(f64::to_bits), select(&[0, 1 << 63, 0x7ff8 << 48][..])];
    let latin1 = || vec(prop_oneof![Just(b'a'), any::<u8>()], 0..4);
    Union::new([
        select(&b"NFTS."[..]).prop_map(|code| vec![code]).boxed(),
        int.clone().prop_map(|int| [&b"i"[..], &(int as i32).to_le_bytes()].concat()).boxed(),
        int.prop_map(|int| [&b"I"[..], &int.to_le_bytes()].concat()).boxed(),
        (any::<bool>(), vec(0..0x8000_u16, 0..8), 1..0x8000_u16)
            .prop_map(|(minus, low, top)| long(minus, &low, top))
            .boxed(),
        Just(b"l\0\0\0\0".to_vec()).boxed(),
        number_text().prop_map(|text| short(b'f', text.as_bytes())).boxed(),
        (number_text(), number_text())
            .prop_map(|(real, imag)| {
                [short(b'x', real.as_bytes()), short(b'x', imag.as_bytes())[1..].to_vec()].concat()
            })
            .boxed(),
        bits().prop_map(|bits| [&b"g"[..], &bits.to_le_bytes()].concat()).boxed(),
        (bits(), bits()).prop_map(|(a, b)| [&b"y"[..], &a.to_le_bytes(), &b.to_le_bytes()].concat()).boxed(),
        vec(any::<u8>(), 0..4).prop_map(|bytes| sized(b's', &bytes)).boxed(),
        (select(&b"ut"[..]), text()).prop_map(|(code, text)| sized(code, &text)).boxed(),
        (select(&b"aA"[..]), latin1()).prop_map(|(code, text)| sized(code, &text)).boxed(),
        (select(&b"zZ"[..]), latin1()).prop_map(|(code, text)| short(code, &text)).boxed(),
    ])
}

fn sized(code: u8, bytes: &[u8]) -> Vec<u8> {
    [&[code][..], &(bytes.len() as u32).to_le_bytes(), bytes].concat()
}

fn short(code: u8, bytes: &[u8]) -> Vec<u8> {
    [&[code, bytes.len() as u8][..], bytes].concat()
}

fn long(minus: bool, low: &[u16], top: u16) -> Vec<u8> {
    let n = low.len() as i32 + 1;
    let digits = low.iter().chain([&top]).flat_map(|digit| digit.to_le_bytes());
    [b'l'].into_iter().chain(if minus { -n } else { n }.to_le_bytes()).chain(digits).collect()
}

// --- Writing it so that CPython accepts it ---

/// Where an object stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// It will be hashed: inside a set, or a key.
    hashed: bool,
    /// The object around it is a list, or a dict for whose value it stands. A reference to a tuple that is not complete
    /// makes a cycle, and only there one that can be built.
    cycles: bool,
}

/// What a reference can be to.
#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: Kind,
    hashable: bool,
    complete: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Str,
    Bytes,
    Names,
    Tuple,
    /// A list, dict or set, which a reference can be to before it is complete.
    Growing,
    Other,
}

struct Writer {
    python: Python,
    out: Vec<u8>,
    entries: Vec<Entry>,
}

const FLAG: u8 = 0x80;

impl Writer {
    fn node(&mut self, Node { item, flagged }: &Node, place: Place) {
        match item {
            Item::Leaf(bytes) => self.leaf(bytes, *flagged),
            Item::Ref(pick) => {
                let fits = |entry: &Entry| match (entry.complete, entry.kind) {
                    _ if place.hashed => entry.complete && entry.hashable,
                    (true, _) | (false, Kind::Growing) => true,
                    (false, Kind::Tuple) => place.cycles,
                    (false, _) => false,
                };
                if !self.reference(pick, *flagged, fits) {
                    self.leaf(b"N", *flagged);
                }
            }
            Item::Sequence(code, items) => {
                let code = match code {
                    b'[' if place.hashed => b'(',
                    b'<' if place.hashed => b'>',
                    code => *code,
                };
                self.sequence(code, items, *flagged, place.hashed);
            }
            Item::Dict(code, pairs, dropped) => self.dict(*code, pairs, dropped.as_deref(), *flagged, place.hashed),
            Item::Slice(items) if self.python.has_slices() => {
                let entry = self.open(b':', *flagged, Kind::Other);
                items.iter().for_each(|item| self.node(item, Place { cycles: false, ..place }));
                self.close(entry, place.hashed);
            }
            Item::Slice(items) => self.sequence(b')', &items[..], *flagged, place.hashed),
            Item::Code(code) => self.code(code, *flagged, place.hashed),
        }
    }

    fn leaf(&mut self, bytes: &[u8], flagged: bool) {
        if flagged && !b"NFTS.".contains(&bytes[0]) {
            let kind = match bytes[0] {
                b's' => Kind::Bytes,
                b'u' | b't' | b'a' | b'A' | b'z' | b'Z' => Kind::Str,
                _ => Kind::Other,
            };
            self.entries.push(Entry { kind, hashable: true, complete: true });
        }
        self.out.push(bytes[0] | if flagged { FLAG } else { 0 });
        self.out.extend_from_slice(&bytes[1..]);
    }

    /// Whether there is something to refer to.
    fn reference(&mut self, pick: &Index, flagged: bool, fits: impl Fn(&Entry) -> bool) -> bool {
        let fitting: Vec<usize> = (0..self.entries.len()).filter(|at| fits(&self.entries[*at])).collect();
        if fitting.is_empty() {
            return false;
        }
        self.out.push(b'r' | if flagged { FLAG } else { 0 });
        self.out.extend_from_slice(&(*pick.get(&fitting) as u32).to_le_bytes());
        true
    }

    /// Begins an object that holds others, and gives its index.
    fn open(&mut self, code: u8, flagged: bool, kind: Kind) -> Option<usize> {
        self.out.push(code | if flagged { FLAG } else { 0 });
        flagged.then(|| {
            self.entries.push(Entry { kind, hashable: false, complete: false });
            self.entries.len() - 1
        })
    }

    fn close(&mut self, entry: Option<usize>, hashable: bool) {
        if let Some(at) = entry {
            self.entries[at] = Entry { hashable, complete: true, ..self.entries[at] };
        }
    }

    fn sequence(&mut self, code: u8, items: &[Node], flagged: bool, hashed: bool) {
        let kind = match code {
            b'(' | b')' => Kind::Tuple,
            b'[' | b'<' => Kind::Growing,
            _ => Kind::Other,
        };
        let entry = self.open(code, flagged, kind);
        match code {
            b')' => self.out.push(items.len() as u8),
            _ => self.out.extend_from_slice(&(items.len() as u32).to_le_bytes()),
        }
        let place = Place { hashed: hashed || b"<>".contains(&code), cycles: code == b'[' };
        items.iter().for_each(|item| self.node(item, place));
        self.close(entry, hashed || code == b'>');
    }

    fn dict(&mut self, code: u8, pairs: &[(Node, Node)], dropped: Option<&Node>, flagged: bool, hashed: bool) {
        let is_frozen = code == b'}' && self.python.has_frozendict();
        if hashed && !is_frozen {
            let items: Vec<Node> = pairs.iter().flat_map(|(key, value)| [key.clone(), value.clone()]).collect();
            return self.sequence(b'(', &items, flagged, hashed);
        }
        let entry = match is_frozen {
            true => self.open(b'}', flagged, Kind::Other),
            false => self.open(b'{', flagged, Kind::Growing),
        };
        for (key, value) in pairs {
            self.node(key, Place { hashed: true, cycles: false });
            self.node(value, Place { hashed, cycles: !is_frozen });
        }
        if let Some(key) = dropped {
            self.node(key, Place { hashed: true, cycles: false });
        }
        self.out.push(b'0');
        self.close(entry, hashed);
    }

    fn code(&mut self, code: &CodeItem, flagged: bool, hashed: bool) {
        let entry = self.open(b'c', flagged, Kind::Other);
        let layout = self.python.layout();
        // Arguments are local variables, *args and **kwargs too.
        let n_locals = usize::from(code.args + code.keyword_only + code.n_more_locals) + 2;
        for (at, &field) in layout.fields.iter().enumerate() {
            let (by_ref, flagged) = (code.refs >> at & 1 != 0, code.flags >> at & 1 != 0);
            let name = &code.names[at % code.names.len()];
            match (field, field.kind()) {
                (_, FieldKind::Number) => self.out.extend_from_slice(&number(code, field).to_le_bytes()),
                (Field::Consts, _) => {
                    if !(by_ref && self.reference(&code.pick, flagged, |entry| is_tuple(entry, hashed))) {
                        self.sequence(b')', &code.consts, flagged, hashed);
                    }
                }
                (_, FieldKind::Tuple | FieldKind::Names) => {
                    let exact = matches!(field, Field::VarNames | Field::LocalsPlusNames);
                    let fits = |entry: &Entry| entry.complete && entry.kind == Kind::Names;
                    if exact || !by_ref || !self.reference(&code.pick, flagged, fits) {
                        let n = if exact { n_locals } else { code.names.len() - 1 };
                        self.names(n, code, flagged, exact);
                    }
                }
                (_, FieldKind::Str) => {
                    let fits = |entry: &Entry| entry.kind == Kind::Str;
                    if !(by_ref && self.reference(&code.pick, flagged, fits)) {
                        self.leaf(&sized(b"tu"[at % 2], name), flagged);
                    }
                }
                (Field::Code, _) => self.leaf(&sized(b's', &code.tables[0].repeat(2)), flagged),
                (Field::LocalsPlusKinds, _) => self.leaf(&sized(b's', &vec![0x20; n_locals]), flagged),
                (_, FieldKind::Bytes) => {
                    let fits = |entry: &Entry| entry.kind == Kind::Bytes;
                    if !(by_ref && self.reference(&code.pick, flagged, fits)) {
                        self.leaf(&sized(b's', &code.tables[1 + at % 2]), flagged);
                    }
                }
            }
        }
        self.close(entry, hashed);
    }

    /// A tuple of names. One of exactly so many variables is no other's, whose number may differ.
    fn names(&mut self, n: usize, code: &CodeItem, flagged: bool, exact: bool) {
        let entry = self.open(b')', flagged, if exact { Kind::Tuple } else { Kind::Names });
        self.out.push(n as u8);
        for at in 0..n {
            self.leaf(&sized(b't', &code.names[at % code.names.len()]), code.flags >> (at + 8) & 1 != 0);
        }
        self.close(entry, true);
    }
}

fn is_tuple(entry: &Entry, hashed: bool) -> bool {
    entry.complete && matches!(entry.kind, Kind::Tuple | Kind::Names) && (entry.hashable || !hashed)
}

fn number(code: &CodeItem, field: Field) -> i32 {
    match field {
        Field::ArgCount => i32::from(code.args),
        Field::PosOnlyArgCount => i32::from(code.positional_only.min(code.args)),
        Field::KwOnlyArgCount => i32::from(code.keyword_only),
        Field::NLocals => code.numbers[0] & i32::MAX,
        Field::StackSize => code.numbers[1] & i32::MAX,
        Field::Flags => code.numbers[2] & i32::MAX,
        _ => code.numbers[3],
    }
}

// --- What holds of all ---

fn compiled<'a>(dump: &Dump<'a>, made: &'a Made, options: Options) -> Initializer<'a> {
    let source = Source { header: None, dump: dump.clone(), marshal: &made.bytes };
    rehydrate::compile(&source, options).unwrap_or_else(|error| panic!("{}: {error}", made.bytes.escape_ascii()))
}

/// Whether equal objects can have but one form: no marks of interned names, no order of sets, no equal keys.
fn has_one_form(heap: &Heap<'_>) -> bool {
    heap.ids().all(|id| match heap[id] {
        Object::Set(_) | Object::FrozenSet(_) | Object::Code(_) => false,
        Object::Dict(items) | Object::FrozenDict(items) => items.len() < 4,
        _ => true,
    })
}

/// The sharing modes in which an initializer keeps all that the canonical form depends on. Code objects intern their
/// names in place, which shows in what shares them; a key that is dropped may be one, and is not built.
fn kept_by(heap: &Heap<'_>) -> &'static [Sharing] {
    let is_code = |id| matches!(heap[id], Object::Code(_));
    match heap.ids().any(is_code) {
        true if heap.ids().any(|id| drops_a_key(&heap[id])) => &[],
        true => &[Sharing::Identity],
        false => &[Sharing::Structural, Sharing::Identity],
    }
}

fn drops_a_key(object: &Object<'_>) -> bool {
    matches!(object, Object::Dict(items) | Object::FrozenDict(items) if items.len() % 2 == 1)
}

/// Every choice that the compiler has, but how an initializer ends.
fn choices() -> impl Strategy<Value = Options> {
    let profile = select(&[Profile::Core, Profile::Compact, Profile::Load][..]);
    let optimize = select(&[Optimize::Size, Optimize::Speed][..]);
    let strip_caches = select(&[None, Some(true), Some(false)][..]);
    (profile, optimize, strip_caches, any::<bool>()).prop_map(|(profile, optimize, strip_caches, source_flags)| {
        Options { profile, optimize, strip_caches, source_flags, ..Options::default() }
    })
}

/// The canonical dump; `None` where dropping equal keys leaves an object that marshal could not read back.
fn canonical(heap: &Heap<'_>, root: rehydrate::ObjectId) -> Option<Vec<u8>> {
    match rehydrate::write_canonical(heap, root) {
        Ok(bytes) => Some(bytes),
        Err(error) if matches!(error.kind(), ErrorKind::HoldsItself(_)) => None,
        Err(error) => panic!("canonical: {error}"),
    }
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn every_heap_passes_every_check(made in dumps(), choice in choices()) {
        let dump = made.dump();
        let end = if matches!(dump.heap[dump.root], Object::Code(_)) { End::Start } else { End::Return };
        for sharing in SHARINGS {
            let options = Options { sharing, end, ..choice };
            let checked = check(&made.bytes, Some(made.python), options);
            prop_assert_eq!(checked.map_err(|error| error.to_string()), Ok(()), "{:?}", options);
        }
    }

    #[test]
    fn every_module_that_a_lazy_container_holds_passes_every_check(made in modules()) {
        for way in [lazy_ways(true), lazy_ways(false)].concat() {
            let dehydrated = match Input::read(&made.bytes, None) {
                Ok(Input::Source(source)) => rehydrate::dehydrate(&source, way),
                other => return Err(TestCaseError::fail(format!("not a .pyc: {other:?}"))),
            };
            match dehydrated {
                Ok(file) => {
                    if let Err(error) = check_lazy(&made.bytes, None, way) {
                        return Err(TestCaseError::fail(format!("{way:?}: {error}")));
                    }
                    let container = Container::open(&file).expect("it was just written");
                    prop_assert!(Listing::new(&container).is_ok());
                }
                Err(error) => prop_assert!(matches!(error.kind(), ErrorKind::NotLazy(_)), "{}", error),
            }
        }
    }

    #[test]
    fn dehydrating_again_gives_the_same_bytes(made in modules()) {
        let Ok(Input::Source(source)) = Input::read(&made.bytes, None) else { panic!("it is a .pyc") };
        for way in lazy_ways(true) {
            prop_assert_eq!(rehydrate::dehydrate(&source, way), rehydrate::dehydrate(&source, way));
        }
    }

    #[test]
    fn a_dump_is_written_exactly(made in dumps()) {
        prop_assert_eq!(marshal::write_exact(&made.dump()), made.bytes);
    }

    #[test]
    fn a_canonical_dump_is_its_own(made in dumps()) {
        let dump = made.dump();
        let Some(written) = canonical(&dump.heap, dump.root) else { return Ok(()) };
        let again = marshal::read(&written, made.python).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(canonical(&again.heap, again.root), Some(written.clone()));
        if has_one_form(&dump.heap) {
            let why = difference((&dump.heap, dump.root), (&again.heap, again.root), Sameness::Structural);
            prop_assert_eq!(why, None);
        }
    }

    #[test]
    fn a_canonical_dump_depends_on_the_objects_alone(made in dumps()) {
        let dump = made.dump();
        let wanted = canonical(&dump.heap, dump.root);
        let plain = marshal::write(&dump.heap, dump.root);
        let plain = plain.map_err(|error| TestCaseError::fail(error.to_string()))?;
        let again = marshal::read(&plain, made.python).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&canonical(&again.heap, again.root), &wanted, "of the plain dump");
        for sharing in kept_by(&dump.heap) {
            let image = compiled(&dump, &made, options(*sharing, false, End::Return)).image;
            let verified = rehydrate::verify(image).map_err(|error| TestCaseError::fail(error.to_string()))?;
            let (heap, root) = rehydrate::run(&verified);
            prop_assert_eq!(&canonical(&heap, root), &wanted, "of what an initializer made");
        }
    }

    #[test]
    fn a_listing_assembles_to_the_file_it_lists(made in dumps(), sharing in select(&SHARINGS[..])) {
        let dump = made.dump();
        let initializer = compiled(&dump, &made, options(sharing, true, End::Return));
        let file = initializer.encode().expect("it is small");
        let verified = rehydrate::verify(initializer.image).expect("what is compiled is verified");
        let listing = rehydrate::disassemble(&verified, &[]).to_string();
        prop_assert!(listing.is_ascii());
        prop_assert_eq!(rehydrate::assemble(&listing).map_err(|error| error.to_string()), Ok(file));
    }

    #[test]
    fn compiling_again_gives_the_same_bytes(made in dumps(), sharing in select(&SHARINGS[..])) {
        let encoded = || compiled(&made.dump(), &made, options(sharing, true, End::Return)).encode();
        prop_assert_eq!(encoded(), encoded());
    }

    #[test]
    fn everything_can_be_shown(made in dumps()) {
        let dump = made.dump();
        let text = rehydrate::repr::text(&dump.heap, dump.root);
        prop_assert!(text.is_ascii() && text.ends_with('\n'));
        let n_types = {
            let Ok(Input::Source(source)) = Input::read(&made.bytes, Some(made.python)) else {
                return Err(TestCaseError::fail("it was read before"));
            };
            rehydrate::tree(&source).to_string().lines().count()
        };
        prop_assert!(n_types > 0);
    }

    #[test]
    fn instructions_decode_to_what_was_encoded(ops in vec((select(OPS), prop_oneof![0..0x300_u32, any::<u32>()]), 0..20)) {
        let instructions: Vec<_> = ops
            .into_iter()
            .filter(|(op, _)| *op != Op::ExtendedArg)
            .map(|(op, oparg)| Instruction { op, oparg })
            .collect();
        let mut bytes = Vec::new();
        instructions.iter().for_each(|instruction| instruction.encode(&mut bytes));
        let (mut at, mut decoded) = (0, Vec::new());
        while at < bytes.len() {
            let (instruction, next) = Instruction::decode(&bytes, at).expect("it was just encoded");
            prop_assert_eq!(next - at, Instruction::len(instruction.oparg));
            decoded.push(instruction);
            at = next;
        }
        prop_assert_eq!(decoded, instructions);
    }

    #[test]
    fn an_image_decodes_to_what_was_encoded(
        python in select(Python::all().collect::<Vec<_>>()),
        max_stack: u32,
        names in ["\\PC{0,200}", "\\PC{0,3}"],
        instructions in vec(any::<u8>(), 0..300),
        sections in vec(vec(any::<u8>(), 0..200), Section::ALL.len()),
        source in proptest::option::of(vec(any::<u8>(), 1..10)),
    ) {
        let [module, filename] = names.map(Cow::Owned);
        let mut sections = sections.into_iter();
        let image = Image {
            magic: python.magic(),
            max_stack,
            module,
            filename,
            instructions: Cow::Owned(instructions),
            sections: Section::ALL.map(|_| Cow::Owned(sections.next().expect("one for each"))),
            source: source.map(Cow::Owned),
        };
        let mut bytes = Vec::new();
        image.encode(&mut bytes).expect("it is small");
        let decoded = Image::decode(&bytes);
        prop_assert_eq!(decoded.as_ref(), Ok(&image));
        for end in 0..bytes.len() {
            prop_assert!(Image::decode(&bytes[..end]).is_err(), "the first {} of {} bytes", end, bytes.len());
        }
    }
}
