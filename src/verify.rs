//! Checks an image, so that executing it needs no checks: ahead ([`verify()`]), or in the same pass ([`execute`]).
//!
//! One pass over the instructions with a stack of types; no instruction jumps, so there are no paths to walk.
//!
//! Invariants of [`Verified`]:
//! - Every operand is in its range, and every value it reaches is on the stack.
//! - Every byte of data is there, is read by exactly one instruction, and is in the form that the emitter writes.
//! - MAKE_CODE's operands have the types, its tables the lengths, and its numbers the ranges that CPython demands.
//! - What is put into a set, or is a key, has a hash.
//! - Hashes are those of the names; the derived numbers of MAKE_FULL_CODE are what CPython would derive.
//! - The stack's greatest height is the one stated, and the last instruction is the only one that ends.

mod step;

pub use step::{Checked, CodeStep, Executor, Operands, Place, Step, TableOrigin, TableStep};

use crate::caches::{self, has_caches};
use crate::common;
use crate::data::Data;
use crate::error::{Error, ErrorKind, Result};
use crate::heap::Str;
use crate::image::Image;
use crate::isa::{Instruction, Intrinsic, MAX_OPARG, Op, Oparg, Section, Table};
use crate::python::{Field, FieldKind, Layout, Python, count_kinds};
use crate::varint;

/// An image that [`verify`] accepted: the only kind that can be executed or listed.
#[derive(Debug, Clone)]
pub struct Verified<'a> {
    image: Image<'a>,
    python: Python,
    /// Values that are made, as far as they need room of their own.
    n_objects: usize,
    /// Items of all containers.
    n_items: usize,
    /// Bytecode whose caches were left out, whole; and where each piece of it ends.
    restored: Vec<u8>,
    restored_ends: Vec<usize>,
    starts: bool,
}

impl<'a> Verified<'a> {
    /// The image.
    pub fn image(&self) -> &Image<'a> {
        &self.image
    }

    /// The Python whose code objects it makes.
    pub fn python(&self) -> Python {
        self.python
    }

    /// Whether it ends in START_CODE.
    pub fn starts_code(&self) -> bool {
        self.starts
    }

    /// The bytecode of each code object whose caches were left out, whole, in order.
    pub(crate) fn restored(&self) -> impl Iterator<Item = &[u8]> {
        let starts = [0].into_iter().chain(self.restored_ends.iter().copied());
        starts.zip(&self.restored_ends).map(|(start, end)| &self.restored[start..*end])
    }

    pub(crate) fn n_objects(&self) -> usize {
        self.n_objects
    }

    pub(crate) fn n_items(&self) -> usize {
        self.n_items
    }
}

/// What is known of a value on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Value {
    traits: u16,
    /// How deep it nests, or more than can be counted.
    depth: u16,
    /// Length of a tuple; of bytes, where [`Verifier::bytes`] has them.
    len: u32,
}

/// What a value is: one of these, or none.
const STR: u16 = 1;
const BYTES: u16 = 2;
const FLOAT: u16 = 4;
const TUPLE: u16 = 8;
const LIST: u16 = 0x10;
const DICT: u16 = 0x20;
const CODE: u16 = 0x40;
/// It is a tuple whose items are all str.
const NAMES: u16 = 0x80;
/// It has a hash.
const HASHABLE: u16 = 0x100;
/// It is an interned str, or a tuple of such.
const INTERNED: u16 = 0x200;
/// As a constant, it holds no str that CPython's constructor of code objects would intern and that is not interned.
const SETTLED: u16 = 0x400;
/// The collector of cycles does not track it, nor what it holds.
const UNTRACKED: u16 = 0x800;
/// It is no dict that stands nowhere else. A copy makes any dict such.
const STALE: u16 = 0x1000;
/// It is a dict that stands nowhere else, of which a frozendict would have a hash.
const FREEZABLE: u16 = 0x2000;
/// It holds nothing.
const LEAF: u16 = 0x4000;

/// What every one of some values has, and how deep they nest.
#[derive(Debug, Clone, Copy)]
struct Traits {
    all: u16,
    depth: u16,
}

impl Traits {
    const OF_NONE: Self = Self { all: !0, depth: 0 };

    fn of(values: impl Iterator<Item = Value>) -> Self {
        values.fold(Self::OF_NONE, |Self { all, depth }, value| Self {
            all: all & value.traits,
            depth: depth.max(value.depth),
        })
    }

    /// What holds the values: it has the traits of `own`, as far as all of them have those that are `inherited`.
    #[inline(always)]
    fn holder(self, own: u16, inherited: u16) -> Value {
        Value { traits: own & (self.all | !inherited), depth: self.depth.saturating_add(1), len: 0 }
    }
}

/// Where bytecode is.
#[derive(Debug, Clone, Copy)]
enum Bytecode<'v> {
    /// In the image, as it stands in marshal.
    Plain(&'v [u8]),
    /// In the image, as CPython holds it.
    Quickened(&'v [u8]),
    /// In [`Verifier::restored`], as it stands in marshal.
    Restored(usize, usize),
}

impl Value {
    /// A value that holds none, with these traits too.
    const fn leaf(traits: u16) -> Self {
        Self { traits: traits | HASHABLE | SETTLED | UNTRACKED | STALE | LEAF, depth: 0, len: 0 }
    }

    #[inline]
    fn str(is_interned: bool, is_settled: bool) -> Self {
        let value = Self::leaf(STR | if is_interned { INTERNED } else { 0 });
        Self { traits: value.traits & if is_settled { !0 } else { !SETTLED }, ..value }
    }

    #[inline]
    fn has(self, traits: u16) -> bool {
        self.traits & traits == traits
    }

    /// A dict that something else holds, or that grows, is none to make a frozendict of.
    #[inline]
    fn share(&mut self) {
        if !self.has(STALE) {
            self.traits = self.traits & !FREEZABLE | STALE;
        }
    }

    fn name(self) -> &'static str {
        let names = [
            (STR, "a str"),
            (BYTES, "bytes"),
            (FLOAT, "a float"),
            (NAMES, "a tuple of str"),
            (TUPLE, "a tuple with other items"),
            (LIST, "a list"),
            (DICT, "a dict"),
            (CODE, "a code object"),
        ];
        names.into_iter().find(|(traits, _)| self.has(*traits)).map_or("another object", |(_, name)| name)
    }
}

/// Verifies an image.
///
/// # Errors
/// What does not hold of the invariants, with its byte and the part of the image it is in.
pub fn verify(image: Image<'_>) -> Result<Verified<'_>> {
    let mut verifier = Verifier::new(&image, Nothing)?;
    verifier.keeps_plain = true;
    let starts = verifier.run(image.max_stack)?;
    let Verifier { python, n_objects, n_items, restored, restored_ends, .. } = verifier;
    Ok(Verified { python, n_objects, n_items, restored, restored_ends, starts, image })
}

/// Verifies an image, and gives each instruction to an executor as soon as it is verified. Of quickened bytecode it is not
/// verified that its caches are those of a new code object: what else they may be changes how fast it runs, and nothing else.
///
/// # Errors
/// As [`verify`], and those of the executor.
pub fn execute<'v, E: Executor<'v>>(image: &'v Image<'_>, executor: E) -> std::result::Result<E, E::Error> {
    let mut verifier = Verifier::new(image, executor)?;
    verifier.run(image.max_stack)?;
    Ok(verifier.executor)
}

/// Executes nothing.
struct Nothing;

impl Executor<'_> for Nothing {
    type Error = Error;

    fn step(&mut self, _: Checked<Step<'_, '_>>) -> Result<()> {
        Ok(())
    }
}

struct Verifier<'v, E> {
    python: Python,
    layout: &'static Layout,
    /// By operand of MAKE_CODE: the traits that it must have, and those that it has if all is interned that CPython interns.
    operand_traits: Vec<(u16, u16)>,
    instructions: &'v [u8],
    data: Data<'v>,
    executor: E,
    /// Whether bytecode is also wanted as it stands in marshal.
    keeps_plain: bool,
    /// Where the instruction begins.
    at: usize,
    stack: Vec<Value>,
    reached: usize,
    /// Where the operands of the instruction are, if it says so itself.
    places: Vec<Place>,
    /// The bytes that were on the stack.
    bytes: Vec<&'v [u8]>,
    /// The pieces of bytecode that stand in the data, by number.
    bytecodes: Vec<Bytecode<'v>>,
    /// By section of tables: the others that stand there, by number.
    tables: [Vec<&'v [u8]>; Section::ALL.len()],
    /// Of the tables of kinds that MAKE_FULL_CODE named: how many variables are of each.
    kind_counts: Vec<Option<[u32; 3]>>,
    /// Bytecode whose caches were left out, whole.
    restored: Vec<u8>,
    /// Where each piece of it ends.
    restored_ends: Vec<usize>,
    n_objects: usize,
    n_items: usize,
}

impl<'v, E: Executor<'v>> Verifier<'v, E> {
    fn new(image: &'v Image<'_>, executor: E) -> Result<Self> {
        let python = image.python()?;
        Ok(Self {
            python,
            layout: python.layout(),
            operand_traits: operand_traits(python),
            instructions: &image.instructions,
            data: Data::new(image),
            executor,
            keeps_plain: false,
            at: 0,
            // What the header states is believed only as far as the instructions can reach.
            stack: Vec::with_capacity((image.max_stack as usize).min(image.instructions.len() / 2)),
            reached: 0,
            places: Vec::new(),
            // The first ones are no bytes at all: those of LOAD_COMMON_CONST.
            bytes: vec![&[]],
            bytecodes: Vec::new(),
            tables: Default::default(),
            kind_counts: Vec::new(),
            restored: Vec::new(),
            restored_ends: Vec::new(),
            n_objects: 0,
            n_items: 0,
        })
    }

    /// Whether the end is START_CODE.
    fn run(&mut self, max_stack: u32) -> std::result::Result<bool, E::Error> {
        let starts = loop {
            let (instruction, next) =
                Instruction::decode(self.instructions, self.at).map_err(|error| error.inside("the instructions"))?;
            self.step(instruction)?;
            self.reached = self.reached.max(self.stack.len());
            if matches!(instruction.op, Op::StartCode | Op::ReturnValue) {
                if next != self.instructions.len() {
                    let why = "instructions follow the end";
                    return Err(Error::at(ErrorKind::BadEnd(why), next).inside("the instructions").into());
                }
                break instruction.op == Op::StartCode;
            }
            self.at = next;
        };
        self.data.check_end()?;
        let reached = u32::try_from(self.reached).expect("instructions are below 2 GiB");
        if reached != max_stack {
            return Err(Error::from(ErrorKind::WrongStack { stated: max_stack, reached }).into());
        }
        Ok(starts)
    }

    #[inline]
    fn execute(&mut self, step: Step<'v, '_>) -> std::result::Result<(), E::Error> {
        self.executor.step(Checked::new(step))
    }

    #[inline(always)]
    fn step(&mut self, instruction: Instruction) -> std::result::Result<(), E::Error> {
        match instruction.op {
            Op::BuildTupleFrom => self.tuple_from(instruction),
            Op::MakeFullCode => self.full_code(instruction),
            Op::LoadInt | Op::LoadChar | Op::LoadCommonConst | Op::LoadCommonName => self.load(instruction),
            Op::MakeString => self.text(instruction),
            Op::MakeStrings | Op::MakeNames | Op::MakeIdentifiers => self.strings(instruction),
            _ => self.any(instruction),
        }
    }

    /// Any instruction that loaders do not meet often.
    fn any(&mut self, instruction: Instruction) -> std::result::Result<(), E::Error> {
        let Instruction { op, oparg } = instruction;
        self.check_operand(instruction)?;
        let needed = self.needed(instruction)?;
        if needed > self.stack.len() as u64 {
            return Err(self.underflow(instruction, needed).into());
        }
        let n = oparg as usize;
        let base = self.stack.len() - needed as usize;
        let value = match op {
            Op::ExtendedArg => unreachable!("decoding folds it"),
            Op::BuildTupleFrom
            | Op::MakeFullCode
            | Op::LoadInt
            | Op::LoadChar
            | Op::LoadCommonConst
            | Op::LoadCommonName
            | Op::MakeString
            | Op::MakeStrings
            | Op::MakeNames
            | Op::MakeIdentifiers => unreachable!("a step of their own"),
            Op::LoadFast => {
                let value = self.copy(instruction, n)?;
                self.execute(Step::Copy(n))?;
                value
            }
            Op::Copy => {
                let slot = self.reach(instruction, self.stack.len())?;
                let value = self.copy(instruction, slot)?;
                self.execute(Step::Copy(slot))?;
                value
            }
            Op::MakeStringUtf8 | Op::MakeStringInterned | Op::MakeStringInternedUtf8 => return self.text(instruction),
            Op::MakeBytes => {
                let bytes = self.data.take(Section::Bytes, oparg)?;
                self.bytes.push(bytes);
                let len = u32::try_from(self.bytes.len() - 1).map_err(|_| Error::from(ErrorKind::TooLarge))?;
                self.execute(Step::Bytes(bytes))?;
                Value { len, ..Value::leaf(BYTES) }
            }
            Op::MakeFloat => {
                let bits = self.data.float()?;
                self.execute(Step::Float(bits))?;
                Value::leaf(FLOAT)
            }
            Op::MakeLong => {
                let bytes = self.long(instruction)?;
                self.execute(Step::Long(bytes))?;
                Value::leaf(0)
            }
            Op::BuildTuple => {
                let value = tuple(Traits::of(self.stack[base..].iter().copied()), n);
                self.execute(Step::Tuple { operands: Operands::Top(n), holds_collectable: !value.has(UNTRACKED) })?;
                value
            }
            Op::BuildList => {
                let traits = Traits::of(self.stack[base..].iter().copied());
                self.execute(Step::List(n))?;
                traits.holder(LIST | SETTLED | STALE, 0)
            }
            Op::BuildSet => {
                self.check_hashable(&self.stack[base..], 1, "a set item")?;
                let traits = Traits::of(self.stack[base..].iter().copied());
                self.execute(Step::Set(n))?;
                traits.holder(SETTLED | STALE, SETTLED)
            }
            Op::BuildMap => {
                self.check_hashable(&self.stack[base..], 2, "a dict key")?;
                let traits = Traits::of(self.stack[base..].iter().copied());
                self.execute(Step::Map(n))?;
                let freezable = if traits.all & HASHABLE != 0 { FREEZABLE } else { 0 };
                traits.holder(DICT | SETTLED | freezable, SETTLED)
            }
            Op::BuildSlice => {
                let traits = Traits::of(self.stack[base..].iter().copied());
                self.execute(Step::Slice)?;
                traits.holder(HASHABLE | SETTLED | STALE, HASHABLE | SETTLED)
            }
            Op::ListAppend | Op::MapAdd => {
                let slot = self.reach(instruction, base)?;
                if !self.stack[slot].has(if op == Op::ListAppend { LIST } else { DICT }) {
                    return Err(self.wrong(instruction, "the value it reaches has another type").into());
                }
                if op == Op::MapAdd {
                    self.check_hashable(&self.stack[base..], 2, "a dict key")?;
                    self.stack[slot].share();
                }
                self.execute(if op == Op::ListAppend { Step::Append(slot) } else { Step::Add(slot) })?;
                self.n_items += needed as usize;
                self.stack.truncate(base);
                return Ok(());
            }
            Op::CallIntrinsic1 | Op::CallIntrinsic2 => {
                let value = self.intrinsic(instruction, base)?;
                self.execute(Step::Intrinsic(Intrinsic::ALL[n]))?;
                value
            }
            Op::MakeCode => {
                let places = std::mem::take(&mut self.places);
                let value = self.code(instruction, base, &places)?;
                self.places = places;
                value
            }
            Op::ReturnValue => return self.execute(Step::Return),
            Op::StartCode => {
                if !self.stack[base].has(CODE) {
                    return Err(self.wrong(instruction, "the top is no code object").into());
                }
                return self.execute(Step::Start);
            }
        };
        self.n_objects += usize::from(!matches!(op, Op::LoadFast | Op::Copy));
        self.n_items += (needed as usize).max(self.places.len());
        self.stack.truncate(base);
        self.stack.push(value);
        Ok(())
    }

    /// LOAD_INT, LOAD_CHAR, LOAD_COMMON_CONST, LOAD_COMMON_NAME.
    #[inline(always)]
    fn load(&mut self, instruction: Instruction) -> std::result::Result<(), E::Error> {
        if instruction.oparg > 0xff || instruction.op == Op::LoadCommonConst {
            self.check_operand(instruction)?;
        }
        self.execute(Step::Load(instruction))?;
        self.n_objects += 1;
        self.stack.push(load(instruction));
        Ok(())
    }

    /// BUILD_TUPLE_FROM.
    #[inline(always)]
    fn tuple_from(&mut self, instruction: Instruction) -> std::result::Result<(), E::Error> {
        let n = instruction.oparg as usize;
        let rest = *self.data.rest(Section::References);
        // Each takes a byte at least.
        if n > rest.len() {
            return Err(self.data.bad_varint(Section::References).into());
        }
        if self.places.len() < n {
            self.places.resize(n, Place::new(0, false));
        }
        let stack = &self.stack[..];
        let (mut all, mut n_taken, mut at) = (!0, 0, 0);
        for place in &mut self.places[..n] {
            let Some((reference, after)) = varint::next(rest, at) else {
                return Err(self.data.bad_varint(Section::References).into());
            };
            at = after;
            *place = match stack.get((reference as usize).wrapping_sub(1)) {
                Some(value) => {
                    all &= value.traits;
                    Place::new(reference - 1, true)
                }
                None if reference == 0 => {
                    n_taken += 1;
                    // Counted from the first that is taken.
                    Place::new(n_taken - 1, false)
                }
                None => return Err(self.underflow(instruction, u64::from(reference)).into()),
            };
        }
        *self.data.rest(Section::References) = &rest[at..];
        let Some(base) = stack.len().checked_sub(n_taken as usize) else {
            return Err(self.underflow(instruction, u64::from(n_taken)).into());
        };
        if n_taken > 0 {
            for place in &mut self.places[..n] {
                let is_taken = u32::from(!place.is_copied());
                *place = place.above(base as u32 * is_taken);
                all &= stack[place.slot()].traits;
            }
        }
        if all & STALE == 0 {
            self.share_copied(n);
        }
        let stack = &self.stack[..];
        let depth = match all & LEAF {
            0 => self.places[..n].iter().map(|place| stack[place.slot()].depth).max().unwrap_or_default(),
            _ => 0,
        };
        let value = tuple(Traits { all, depth }, n);
        let operands = Operands::Mixed { base, places: &self.places[..n] };
        self.executor.step(Checked::new(Step::Tuple { operands, holds_collectable: !value.has(UNTRACKED) }))?;
        self.n_objects += 1;
        self.n_items += n;
        self.stack.truncate(base);
        self.stack.push(value);
        Ok(())
    }

    /// How many values it takes from the stack. Of MAKE_CODE, finds where its operands are.
    fn needed(&mut self, instruction: Instruction) -> Result<u64> {
        if instruction.op != Op::MakeCode {
            self.places.clear();
            return Ok(instruction.pops(&[]));
        }
        let n = self.layout.operands.len();
        self.places.resize(n, Place::new(0, false));
        let mut places = std::mem::take(&mut self.places);
        let n_taken = self.find(instruction, &mut places);
        self.places = places;
        n_taken
    }

    /// Finds the operands of a code object: those that its mask names are copied. How many are taken.
    #[inline(always)]
    fn find(&mut self, instruction: Instruction, places: &mut [Place]) -> Result<u64> {
        let height = self.stack.len() as u32;
        let n_taken = places.len() as u32 - instruction.oparg.count_ones();
        let Some(mut taken) = height.checked_sub(n_taken) else { return Ok(u64::from(n_taken)) };
        for (at, place) in places.iter_mut().enumerate() {
            let is_copied = instruction.oparg >> at & 1 != 0;
            let slot = match is_copied {
                true => self.data.reference()?,
                false => {
                    taken += 1;
                    taken - 1
                }
            };
            if slot >= height {
                return Err(self.underflow(instruction, u64::from(slot) + 1));
            }
            *place = Place::new(slot, is_copied);
        }
        Ok(u64::from(n_taken))
    }

    /// A dict that is copied is fresh no more.
    #[cold]
    fn share_copied(&mut self, n: usize) {
        for place in self.places[..n].iter().filter(|place| place.is_copied()) {
            self.stack[place.slot()].share();
        }
    }

    /// The operand's own range.
    fn check_operand(&self, instruction: Instruction) -> Result<()> {
        let Instruction { op, oparg } = instruction;
        let within = |n: usize| (oparg as usize) < n;
        let fits = match op.info().oparg {
            Oparg::Unused => oparg == 0,
            Oparg::High => unreachable!("decoding folds it"),
            Oparg::Int | Oparg::Char => within(256),
            Oparg::Mask => within(1 << self.python.layout().operands.len()),
            Oparg::Strings => (1..=MAX_OPARG).contains(&oparg),
            Oparg::CommonConst => within(common::CONSTS.len()),
            Oparg::CommonName => within(common::NAMES.len()),
            Oparg::Intrinsic => Intrinsic::ALL.get(oparg as usize).is_some_and(|intrinsic| intrinsic.op() == op),
            Oparg::Count if op == Op::BuildSlice => oparg == 3,
            Oparg::Slot | Oparg::Depth | Oparg::Length(_) | Oparg::Count | Oparg::Pairs | Oparg::References => {
                oparg <= MAX_OPARG
            }
        };
        if !fits {
            return Err(self.wrong(instruction, "the operand is out of range"));
        }
        let known = match op {
            Op::BuildSlice => self.python.has_slices(),
            Op::CallIntrinsic1 if oparg == Intrinsic::MakeFrozenDict.operand() => self.python.has_frozendict(),
            Op::MakeFullCode => self.python.first_traceable(&[]).is_some(),
            _ => true,
        };
        if known { Ok(()) } else { Err(self.wrong(instruction, "this Python's marshal knows no such object")) }
    }

    /// The slot that an operand reaches from `top` down.
    fn reach(&self, instruction: Instruction, top: usize) -> Result<usize> {
        match instruction.oparg as usize {
            0 => Err(self.wrong(instruction, "a distance begins at 1")),
            depth => top.checked_sub(depth).ok_or_else(|| self.underflow(instruction, depth as u64)),
        }
    }

    fn copy(&mut self, instruction: Instruction, slot: usize) -> Result<Value> {
        let n_slots = slot as u64 + 1;
        let Some(value) = self.stack.get_mut(slot) else { return Err(self.underflow(instruction, n_slots)) };
        value.share();
        let value = *value;
        Ok(value)
    }

    /// MAKE_STRING, of each of its four kinds.
    fn text(&mut self, instruction: Instruction) -> std::result::Result<(), E::Error> {
        let Some(class) = instruction.op.info().text else { unreachable!("MAKE_STRING has a class of text") };
        if instruction.oparg > MAX_OPARG {
            self.check_operand(instruction)?;
        }
        let section = if class.interned { Section::Names } else { Section::Strings };
        let text = self.data.take(section, instruction.oparg)?;
        if text.is_ascii() == class.wide || class.wide && Str::utf8(text, class.interned).is_err() {
            return Err(self.wrong_text(instruction, section, text).into());
        }
        self.execute(Step::Str { text, wide: class.wide, interned: class.interned })?;
        self.n_objects += 1;
        self.stack.push(Value::str(class.interned, class.interned || !is_name_like(text)));
        Ok(())
    }

    /// What is wrong with the text that was read last.
    #[cold]
    fn wrong_text(&self, instruction: Instruction, section: Section, text: &[u8]) -> Error {
        match Str::utf8(text, false) {
            Err(bad) => {
                let start = self.data.position(section) - text.len();
                Error::at(ErrorKind::BadUtf8(bad), start).inside(format!("section {}", section.name()))
            }
            Ok(text) if text.is_ascii() => self.wrong(instruction, "the text is all ASCII"),
            Ok(_) => self.wrong(instruction, "the text is not ASCII"),
        }
    }

    fn long(&mut self, instruction: Instruction) -> Result<&'v [u8]> {
        let bytes = self.data.take(Section::Numbers, instruction.oparg)?;
        let shortest = match bytes {
            [] => false,
            [_] => true,
            [.., below, top] => !matches!((top, below >> 7), (0, 0) | (0xff, 1)),
        };
        if shortest { Ok(bytes) } else { Err(self.wrong(instruction, "fewer bytes hold the int")) }
    }

    /// MAKE_STRINGS, MAKE_NAMES, MAKE_IDENTIFIERS.
    fn strings(&mut self, instruction: Instruction) -> std::result::Result<(), E::Error> {
        let Instruction { op, oparg } = instruction;
        if oparg == 0 || oparg > MAX_OPARG {
            self.check_operand(instruction)?;
        }
        let n = oparg as usize;
        if op.has_hashes() {
            let hashes = self.data.hashes(oparg)?;
            for (at, hash) in hashes.iter().enumerate() {
                if let Some(later) = hashes.get(at + AHEAD) {
                    self.executor.expect(u32::from_le_bytes(*later));
                }
                let (hash, names) = (u32::from_le_bytes(*hash), self.data.names());
                let text = self.data.text()?;
                // A name that is known is ASCII.
                if !self.executor.knows(hash, text, names) {
                    self.check_name(instruction, text, hash)?;
                }
                self.execute(Step::Name(text))?;
            }
        } else {
            for _ in 0..n {
                let text = self.data.text()?;
                if !text.is_ascii() {
                    return Err(self.wrong(instruction, "the text is not ASCII").into());
                }
                self.execute(Step::Str { text, wide: false, interned: true })?;
            }
        }
        self.stack.resize(self.stack.len() + n, Value::str(true, true));
        self.n_objects += n;
        Ok(())
    }

    /// Refuses a name that is not ASCII, or has another hash.
    #[cold]
    fn check_name(&self, instruction: Instruction, text: &[u8], hash: u32) -> Result<()> {
        match text.is_ascii() {
            false => Err(self.wrong(instruction, "the text is not ASCII")),
            true if common::name_hash(text) != hash => Err(self.wrong(instruction, "the hash is another name's")),
            true => Ok(()),
        }
    }

    /// Refuses items and keys that have no hash, or that nest deeper than the executor can hash.
    fn check_hashable(&self, values: &[Value], step: usize, role: &'static str) -> Result<()> {
        if let Some(value) = values.iter().step_by(step).find(|value| !value.has(HASHABLE)) {
            let what = if value.has(TUPLE) { "tuple" } else { value.name() };
            return Err(Error::at(ErrorKind::Unhashable { what, role }, self.at).inside("the instructions"));
        }
        match values.iter().step_by(step).find(|value| value.depth > E::MAX_DEPTH) {
            None => Ok(()),
            Some(_) => Err(Error::at(ErrorKind::TooDeep, self.at).inside("the instructions")),
        }
    }

    fn intrinsic(&self, instruction: Instruction, base: usize) -> Result<Value> {
        let values = &self.stack[base..];
        let traits = Traits::of(values.iter().copied());
        let (fits, value) = match Intrinsic::ALL[instruction.oparg as usize] {
            Intrinsic::MakeComplex => (traits.all & FLOAT != 0, Value::leaf(0)),
            Intrinsic::MakeFrozenSet => {
                if values[0].has(TUPLE) {
                    self.check_hashable(values, 1, "a set item")?;
                }
                (values[0].has(TUPLE), traits.holder(HASHABLE | SETTLED | STALE, SETTLED))
            }
            Intrinsic::MakeFrozenDict => {
                let hashable = if values[0].has(FREEZABLE) { HASHABLE } else { 0 };
                let is_fresh = values[0].has(DICT) && !values[0].has(STALE);
                (is_fresh, traits.holder(hashable | SETTLED | STALE, SETTLED))
            }
        };
        if fits { Ok(value) } else { Err(self.wrong(instruction, "an operand has another type")) }
    }

    /// MAKE_FULL_CODE: as MAKE_CODE, of the one layout of the versions that have it.
    #[inline(always)]
    fn full_code(&mut self, instruction: Instruction) -> std::result::Result<(), E::Error> {
        let (op, python) = (instruction.op, self.python);
        if instruction.oparg >= 1 << N_OPERANDS || python.first_traceable(&[]).is_none() {
            self.check_operand(instruction)?;
        }
        let mut places = [Place::new(0, false); N_OPERANDS];
        let n_taken = self.find(instruction, &mut places)?;
        let Some(base) = self.stack.len().checked_sub(n_taken as usize) else {
            return Err(self.underflow(instruction, n_taken).into());
        };
        let operands = places.map(|place| self.stack[place.slot()]);
        let [names, consts, variables, name, qualname, filename] = operands;
        let texts = name.traits & qualname.traits & filename.traits;
        if names.traits & variables.traits & NAMES == 0 || consts.traits & TUPLE == 0 || texts & STR == 0 {
            return Err(self.wrong_operands(&operands).into());
        }
        if consts.depth > E::MAX_DEPTH {
            return Err(Error::at(ErrorKind::TooDeep, self.at).inside("the instructions").into());
        }
        let mut interned = names.traits & variables.traits & (consts.traits | !SETTLED);
        if python.interns_code_names() {
            interned &= texts;
        }
        let [args, posonly, kwonly, stack_size, flags, first_line, code, kinds, line_table, exception_table, derived @ ..] =
            self.data.counts::<N_COUNTS>()?;
        let (bytecode, origin) = self.bytecode(op, Table::of(code, true, op))?;
        let kinds = self.table(op, Section::Kinds, kinds)?;
        let line_table = self.table(op, Section::LineTables, line_table)?;
        let exception_table = self.table(op, Section::ExceptionTables, exception_table)?;
        let [n_locals, n_cells, n_free] = self.count_kinds(&kinds);
        let (bytes, is_quickened) = match bytecode {
            Bytecode::Plain(bytes) => (bytes, false),
            Bytecode::Quickened(bytes) => (bytes, true),
            Bytecode::Restored(start, end) => (&self.restored[start..end], false),
        };
        if derived != [n_locals, n_cells, n_free, python.first_traceable(bytes).unwrap_or_default()] {
            return Err(self.wrong(instruction, "CPython derives other numbers").into());
        }
        let mut numbers = [0; Field::COUNT];
        for (field, number) in [
            (Field::ArgCount, args),
            (Field::PosOnlyArgCount, posonly),
            (Field::KwOnlyArgCount, kwonly),
            (Field::StackSize, stack_size),
            (Field::Flags, flags),
            (Field::FirstLineNo, first_line),
        ] {
            numbers[field as usize] = number.cast_signed();
        }
        let number = |field: Field| numbers[field as usize];
        let len = |field: Field| match field {
            Field::Code => bytes.len(),
            Field::LocalsPlusNames => variables.len as usize,
            _ => kinds.bytes.len(),
        };
        let refused = python.refuses_code(number, len);
        if let Some(why) = refused.or_else(|| python.refuses_arguments(number, n_locals as usize)) {
            return Err(Error::at(ErrorKind::BadCode(why), self.at).inside("the instructions").into());
        }
        let bytecode = TableStep { bytes, origin, is_quickened };
        self.executor.step(Checked::new(Step::Code(CodeStep {
            numbers: &numbers,
            operands: Operands::Mixed { base, places: &places },
            tables: &[bytecode, kinds, line_table, exception_table],
            derived: Some(derived),
            is_interned: interned & INTERNED != 0,
        })))?;
        self.n_objects += 1;
        self.n_items += N_OPERANDS;
        self.stack.truncate(base);
        self.stack.push(code_value(consts));
        Ok(())
    }

    /// How many variables of each kind there are. Most tables of kinds stand there again and again.
    #[inline(always)]
    fn count_kinds(&mut self, kinds: &TableStep<'_>) -> [u32; 3] {
        match kinds.origin {
            TableOrigin::Earlier(number) => match self.kind_counts.get(number) {
                Some(Some(counts)) => *counts,
                _ => self.count_kinds_of(number, kinds.bytes),
            },
            _ => count_kinds(kinds.bytes),
        }
    }

    #[cold]
    fn count_kinds_of(&mut self, number: usize, kinds: &[u8]) -> [u32; 3] {
        if self.kind_counts.len() <= number {
            self.kind_counts.resize(number + 1, None);
        }
        *self.kind_counts[number].insert(count_kinds(kinds))
    }

    /// MAKE_CODE.
    fn code(
        &mut self,
        instruction: Instruction,
        base: usize,
        places: &[Place],
    ) -> std::result::Result<Value, E::Error> {
        let (python, layout) = (self.python, self.layout);
        let mut lens = [0; Field::COUNT];
        let (mut consts, mut not_interned) = (Value::leaf(0), 0);
        for ((&field, place), &(needed, interned)) in layout.operands.iter().zip(places).zip(&self.operand_traits) {
            let value = self.stack[place.slot()];
            if !value.has(needed) {
                return Err(self.wrong_operand(field, value).into());
            }
            not_interned |= interned & !value.traits;
            match field {
                Field::Consts => consts = value,
                Field::LocalsPlusNames | Field::VarNames => lens[field as usize] = value.len as usize,
                _ => {}
            }
        }
        let is_interned = not_interned == 0;
        if consts.depth > E::MAX_DEPTH {
            return Err(Error::at(ErrorKind::TooDeep, self.at).inside("the instructions").into());
        }
        let mut numbers = [0; Field::COUNT];
        for field in &layout.numbers {
            numbers[*field as usize] = self.data.count()?.cast_signed();
        }
        let nothing = TableStep { bytes: &[], origin: TableOrigin::Inline, is_quickened: false };
        let (mut tables, mut bytecode) = ([nothing; MAX_TABLES], Bytecode::Plain(&[]));
        let mut kinds: &[u8] = &[];
        for (&field, table) in layout.tables.iter().zip(&mut tables) {
            let number = self.data.count()?;
            if field == Field::Code {
                let stands = Table::of(number, has_caches(python), instruction.op);
                (bytecode, table.origin) = self.bytecode(instruction.op, stands)?;
                continue;
            }
            *table = self.table(instruction.op, Section::of_table(field), number)?;
            lens[field as usize] = table.bytes.len();
            if field == Field::LocalsPlusKinds {
                kinds = table.bytes;
            }
        }
        // Of all versions the first table.
        tables[0].bytes = match bytecode {
            Bytecode::Plain(bytes) | Bytecode::Quickened(bytes) => bytes,
            Bytecode::Restored(start, end) => &self.restored[start..end],
        };
        lens[Field::Code as usize] = tables[0].bytes.len();
        let counts = count_kinds(kinds);
        let number = |field: Field| numbers[field as usize];
        let n_locals = lens[Field::VarNames as usize] + counts[0] as usize;
        let refused = python.refuses_code(number, |field| lens[field as usize]);
        if let Some(why) = refused.or_else(|| python.refuses_arguments(number, n_locals)) {
            return Err(Error::at(ErrorKind::BadCode(why), self.at).inside("the instructions").into());
        }
        self.executor.step(Checked::new(Step::Code(CodeStep {
            numbers: &numbers,
            operands: Operands::Mixed { base, places },
            tables: &tables[..layout.tables.len()],
            derived: None,
            is_interned,
        })))?;
        Ok(code_value(consts))
    }

    /// Which of the operands of MAKE_FULL_CODE has another type.
    #[cold]
    fn wrong_operands(&self, operands: &[Value; N_OPERANDS]) -> Error {
        let mut operands = self.layout.operands.iter().zip(operands).zip(&self.operand_traits);
        match operands.find(|((_, value), (needed, _))| !value.has(*needed)) {
            Some(((field, value), _)) => self.wrong_operand(*field, *value),
            None => unreachable!("one of them was refused"),
        }
    }

    #[cold]
    fn wrong_operand(&self, field: Field, found: Value) -> Error {
        let expected = match field.kind() {
            FieldKind::Str => "a str",
            FieldKind::Names => "a tuple of str",
            FieldKind::Tuple | FieldKind::Number | FieldKind::Bytes => "a tuple",
        };
        let kind = ErrorKind::WrongFieldType { field: field.name(), expected, found: found.name() };
        Error::at(kind, self.at).inside("the instructions")
    }

    /// Bytecode, and where it comes from.
    #[inline(always)]
    fn bytecode(&mut self, op: Op, stands: Table) -> Result<(Bytecode<'v>, TableOrigin)> {
        let bytecode = match stands {
            Table::Inline(len) => Bytecode::Plain(self.data.take(Section::Bytecode, len)?),
            Table::Quickened(len) if !self.keeps_plain => Bytecode::Quickened(self.data.take(Section::Bytecode, len)?),
            Table::Quickened(len) => {
                let bytes = self.data.take(Section::Bytecode, len)?;
                let start = self.restored.len();
                if !caches::unquicken(self.python, bytes, &mut self.restored) {
                    let instruction = Instruction { op, oparg: len };
                    return Err(self.wrong(instruction, "its bytecode is not as CPython quickens it"));
                }
                self.restored_from(start)
            }
            Table::Stripped(len) => {
                let bytes = self.data.take(Section::Bytecode, len)?;
                let start = self.restored.len();
                caches::restore(self.python, bytes, &mut self.restored);
                self.restored_from(start)
            }
            Table::Earlier(number) => {
                let earlier = self.bytecodes.get(number as usize).copied();
                let bytecode = earlier.ok_or_else(|| self.no_earlier(op, number))?;
                return Ok((bytecode, TableOrigin::Earlier(number as usize)));
            }
            Table::Slot(slot) => {
                let bytes = self.bytes_in(op, slot)?;
                return Ok((Bytecode::Plain(bytes), TableOrigin::Slot(slot as usize)));
            }
        };
        let len = match bytecode {
            Bytecode::Plain(bytes) | Bytecode::Quickened(bytes) => bytes.len(),
            Bytecode::Restored(start, end) => end - start,
        };
        if len > 1 {
            self.bytecodes.push(bytecode);
        }
        self.n_objects += 1;
        Ok((bytecode, TableOrigin::Inline))
    }

    /// Another table, and where it comes from.
    #[inline(always)]
    fn table(&mut self, op: Op, section: Section, number: u32) -> Result<TableStep<'v>> {
        let (bytes, origin) = match Table::of(number, false, op) {
            Table::Inline(len) => {
                let bytes = self.data.take(section, len)?;
                if len > 1 {
                    self.tables[section as usize].push(bytes);
                }
                self.n_objects += 1;
                (bytes, TableOrigin::Inline)
            }
            Table::Earlier(number) => {
                let bytes = self.tables[section as usize].get(number as usize).copied();
                let bytes = bytes.ok_or_else(|| self.no_earlier(op, number))?;
                (bytes, TableOrigin::Earlier(number as usize))
            }
            Table::Slot(slot) => (self.bytes_in(op, slot)?, TableOrigin::Slot(slot as usize)),
            Table::Stripped(_) | Table::Quickened(_) => unreachable!("only bytecode has caches"),
        };
        Ok(TableStep { bytes, origin, is_quickened: false })
    }

    /// The bytes in a slot.
    fn bytes_in(&self, op: Op, slot: u32) -> Result<&'v [u8]> {
        match self.stack.get(slot as usize) {
            Some(value) if value.has(BYTES) => Ok(self.bytes[value.len as usize]),
            _ => Err(self.wrong(Instruction { op, oparg: slot }, "no bytes stand in this slot")),
        }
    }

    #[cold]
    fn no_earlier(&self, op: Op, number: u32) -> Error {
        self.wrong(Instruction { op, oparg: number }, "no earlier table has this number")
    }

    /// The bytecode that was put back from `start` on.
    fn restored_from(&mut self, start: usize) -> Bytecode<'v> {
        self.restored_ends.push(self.restored.len());
        Bytecode::Restored(start, self.restored.len())
    }

    #[cold]
    fn wrong(&self, instruction: Instruction, why: &'static str) -> Error {
        let mnemonic = instruction.op.info().mnemonic;
        let kind = ErrorKind::BadOperand { mnemonic, operand: instruction.oparg, why };
        Error::at(kind, self.at).inside("the instructions")
    }

    #[cold]
    fn underflow(&self, instruction: Instruction, needed: u64) -> Error {
        let (mnemonic, depth) = (instruction.op.info().mnemonic, self.stack.len());
        Error::at(ErrorKind::StackUnderflow { mnemonic, needed, depth }, self.at).inside("the instructions")
    }
}

const _: () = assert!(common::NAMES.len() == 256);

/// So many names ahead, an executor is told of a hash.
const AHEAD: usize = 8;

/// Most tables that a code object of any version has.
const MAX_TABLES: usize = 4;

/// What MAKE_FULL_CODE takes: names, constants, names of variables, name, qualname, filename.
const N_OPERANDS: usize = 6;

/// Its numbers in the counts: the fields that are numbers, where each table stands, what CPython derives.
const N_COUNTS: usize = 6 + MAX_TABLES + 4;

/// Whether CPython interns a constant with this text.
///
/// Source: CPython `Objects/codeobject.c`, `all_name_chars`.
fn is_name_like(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

fn operand_traits(python: Python) -> Vec<(u16, u16)> {
    let of = |field: &Field| match field.kind() {
        FieldKind::Str => (STR, if python.interns_code_names() { INTERNED } else { 0 }),
        FieldKind::Names => (NAMES, INTERNED),
        FieldKind::Tuple | FieldKind::Number | FieldKind::Bytes => (TUPLE, SETTLED),
    };
    python.layout().operands.iter().map(of).collect()
}

/// A code object with these constants.
fn code_value(consts: Value) -> Value {
    let traits = Traits { all: consts.traits, depth: consts.depth };
    traits.holder(CODE | HASHABLE | SETTLED | UNTRACKED | STALE, HASHABLE)
}

/// A tuple of so many items.
#[inline(always)]
fn tuple(traits: Traits, n: usize) -> Value {
    let inherited = HASHABLE | INTERNED | SETTLED | UNTRACKED;
    let names = if traits.all & STR != 0 { NAMES } else { 0 };
    Value { len: n as u32, ..traits.holder(TUPLE | names | STALE | inherited, inherited) }
}

fn load(instruction: Instruction) -> Value {
    use common::CommonConst;
    let interned = Value::str(true, true);
    match instruction.op {
        Op::LoadCommonName | Op::LoadChar => interned,
        Op::LoadCommonConst => match common::CONSTS[instruction.oparg as usize].0 {
            CommonConst::EmptyStr => interned,
            CommonConst::EmptyTuple => tuple(Traits::OF_NONE, 0),
            CommonConst::EmptyBytes => Value::leaf(BYTES),
            CommonConst::EmptyFrozenSet => Traits::OF_NONE.holder(HASHABLE | SETTLED | STALE, 0),
            _ => Value::leaf(0),
        },
        _ => Value::leaf(0),
    }
}
