//! Checks an image, so that executing it needs no checks: ahead ([`verify()`]), or in the same pass ([`execute`]).
//!
//! One pass over the instructions with a stack of types; no instruction jumps, so there are no paths to walk.
//!
//! Invariants of [`Verified`]:
//! - Every operand is in its range, and every value it reaches is on the stack.
//! - Every byte of data is there, is read by exactly one instruction, and is in the form that the emitter writes.
//! - MAKE_CODE's operands have the types, its tables the lengths, and its numbers the ranges that CPython demands.
//! - What is put into a set, or is a key, has a hash.
//! - Hashes are those of the names; a str that says how often it is used stays on the stack to the end, and is copied so
//!   often; the derived numbers of MAKE_FULL_CODE are what CPython would derive.
//! - The stack's greatest height is the one stated, and the last instruction is the only one that ends.

mod step;

pub use step::{Checked, CodeStep, Executor, Operands, Place, Step, TableOrigin, TableStep};

use crate::caches;
use crate::common;
use crate::data::{Batched, Data};
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

/// Str that say how often they are used.
#[derive(Debug, Clone, Copy)]
struct Batch<'v> {
    /// Where they are made.
    at: usize,
    /// The first of them.
    slot: usize,
    n: u32,
    /// The counts from theirs on.
    counts: &'v [u8],
}

impl Batch<'_> {
    /// How often one of them says that it is used.
    fn stated(self, number: usize) -> Option<u32> {
        let mut at = 0;
        let mut number_of = |_| varint::read(self.counts, &mut at);
        // Each has its length before it.
        (0..2 * number + 2).map(&mut number_of).last()?
    }
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
    /// By slot, as far as one of them says how often it is used: how many of these uses were not seen, modulo 2³².
    unseen: Vec<u32>,
    batches: Vec<Batch<'v>>,
    /// The pieces of bytecode that stand in the data, by number.
    bytecodes: Vec<Bytecode<'v>>,
    /// By section of tables: the others that stand there, by number.
    tables: [Vec<&'v [u8]>; Section::ALL.len()],
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
            unseen: Vec::new(),
            batches: Vec::new(),
            bytecodes: Vec::new(),
            tables: Default::default(),
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
        self.check_uses()?;
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

    fn step(&mut self, instruction: Instruction) -> std::result::Result<(), E::Error> {
        let Instruction { op, oparg } = instruction;
        if !(oparg < 0x100 && takes_any_byte(op)) {
            self.check_operand(instruction)?;
        }
        let needed = self.needed(instruction)?;
        if needed > self.stack.len() as u64 {
            return Err(self.underflow(instruction, needed).into());
        }
        let n = oparg as usize;
        let base = self.stack.len() - needed as usize;
        if base < self.unseen.len() && needed > 0 {
            let why = "it takes a str from the stack that says how often it is copied";
            return Err(self.wrong(instruction, why).into());
        }
        let value = match op {
            Op::ExtendedArg => unreachable!("decoding folds it"),
            Op::LoadInt | Op::LoadChar | Op::LoadCommonConst | Op::LoadCommonName => {
                self.execute(Step::Load(instruction))?;
                load(instruction)
            }
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
            Op::MakeString | Op::MakeStringUtf8 | Op::MakeStringInterned | Op::MakeStringInternedUtf8 => {
                self.text(instruction)?
            }
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
            Op::MakeStrings | Op::MakeNames | Op::MakeIdentifiers => return self.strings(instruction),
            Op::BuildTuple => {
                let value = tuple(Traits::of(self.stack[base..].iter().copied()), n);
                self.build_tuple(Operands::Top(n), value)?;
                value
            }
            Op::BuildTupleFrom => {
                let places = std::mem::take(&mut self.places);
                let value = tuple(self.traits(&places), n);
                self.build_tuple(Operands::Mixed { base, places: &places }, value)?;
                self.places = places;
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
            Op::MakeCode | Op::MakeFullCode => {
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

    /// How many values it takes from the stack. Of an instruction that says where each operand is, finds where, and what
    /// is copied.
    #[inline(always)]
    fn needed(&mut self, instruction: Instruction) -> Result<u64> {
        let Instruction { op, oparg } = instruction;
        match op {
            Op::BuildTupleFrom => {
                let len = oparg as usize;
                // Each takes a byte at least.
                if len > self.data.rest(Section::References).len() {
                    return Err(self.data.bad_varint(Section::References));
                }
                self.find(instruction, len, None)
            }
            Op::MakeCode | Op::MakeFullCode => self.find(instruction, self.layout.operands.len(), Some(oparg)),
            _ => {
                self.places.clear();
                Ok(instruction.pops(&[]))
            }
        }
    }

    /// Finds the operands of an instruction: those that its mask names are copied, or the references say which.
    #[inline(always)]
    fn find(&mut self, instruction: Instruction, len: usize, mask: Option<u32>) -> Result<u64> {
        self.places.resize(len, Place::new(0, false));
        let height = self.stack.len() as u32;
        let unseen = &mut self.unseen[..];
        let mut rest = *self.data.rest(Section::References);
        let mut n_taken = 0;
        // What is wrong is told behind the loop, which is the shorter for it.
        let mut beyond = None;
        let mut is_cut = false;
        for (at, place) in self.places.iter_mut().enumerate() {
            if let Some(mask) = mask
                && mask >> at & 1 == 0
            {
                *place = Place::new(n_taken, false);
                n_taken += 1;
                continue;
            }
            let Some((reference, after)) = varint::split(rest) else {
                is_cut = true;
                break;
            };
            rest = after;
            if mask.is_none() && reference == 0 {
                *place = Place::new(n_taken, false);
                n_taken += 1;
                continue;
            }
            let slot = if mask.is_none() { reference - 1 } else { reference };
            if slot >= height {
                beyond = Some(slot);
                break;
            }
            *place = Place::new(slot, true);
            if let Some(unseen) = unseen.get_mut(slot as usize) {
                *unseen = unseen.wrapping_sub(1);
            }
        }
        *self.data.rest(Section::References) = rest;
        if is_cut {
            return Err(self.data.bad_varint(Section::References));
        }
        if let Some(slot) = beyond {
            return Err(self.underflow(instruction, u64::from(slot) + 1));
        }
        if n_taken > 0
            && let Some(base) = height.checked_sub(n_taken)
        {
            // Those that are taken were counted from the first.
            for place in self.places.iter_mut().filter(|place| !place.is_copied()) {
                *place = Place::new(base + place.slot() as u32, false);
            }
        }
        Ok(u64::from(n_taken))
    }

    /// What is known of operands. A dict that is copied is fresh no more.
    #[inline(always)]
    fn traits(&mut self, places: &[Place]) -> Traits {
        let stack = &self.stack[..];
        let mut all = !0;
        for place in places {
            all &= stack[place.slot()].traits;
        }
        if all & (STALE | LEAF) == STALE | LEAF { Traits { all, depth: 0 } } else { self.deep_traits(places) }
    }

    fn deep_traits(&mut self, places: &[Place]) -> Traits {
        for place in places.iter().filter(|place| place.is_copied()) {
            self.stack[place.slot()].share();
        }
        Traits::of(places.iter().map(|place| self.stack[place.slot()]))
    }

    /// Counts a copy.
    #[inline(always)]
    fn see(&mut self, slot: usize) {
        if let Some(unseen) = self.unseen.get_mut(slot) {
            *unseen = unseen.wrapping_sub(1);
        }
    }

    #[inline]
    fn build_tuple(&mut self, operands: Operands<'_>, value: Value) -> std::result::Result<(), E::Error> {
        self.execute(Step::Tuple { operands, holds_collectable: !value.has(UNTRACKED) })
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
        self.see(slot);
        Ok(value)
    }

    /// Refuses a str that is copied more or less often than it says.
    fn check_uses(&self) -> Result<()> {
        for batch in &self.batches {
            let unseen = &self.unseen[batch.slot..batch.slot + batch.n as usize];
            if let Some(number) = unseen.iter().position(|unseen| *unseen != 0) {
                let stated = batch.stated(number).unwrap_or_default();
                let kind = ErrorKind::WrongUses { stated, seen: stated.wrapping_sub(unseen[number]) };
                return Err(Error::at(kind, batch.at).inside("the instructions"));
            }
        }
        Ok(())
    }

    fn text(&mut self, instruction: Instruction) -> std::result::Result<Value, E::Error> {
        let Some(class) = instruction.op.info().text else { unreachable!("MAKE_STRING has a class of text") };
        let section = if class.interned { Section::Names } else { Section::Strings };
        let start = self.data.position(section);
        let text = self.data.take(section, instruction.oparg)?;
        match Str::utf8(text, class.interned) {
            Err(bad) => {
                let error = Error::at(ErrorKind::BadUtf8(bad), start);
                return Err(error.inside(format!("section {}", section.name())).into());
            }
            Ok(text) if text.is_ascii() == class.wide => {
                let why = if class.wide { "the text is all ASCII" } else { "the text is not ASCII" };
                return Err(self.wrong(instruction, why).into());
            }
            Ok(_) => {}
        }
        self.execute(Step::Str { text, wide: class.wide, interned: class.interned })?;
        Ok(Value::str(class.interned, class.interned || !is_name_like(text)))
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
        let slot = self.stack.len();
        if op.counts_uses() {
            self.unseen.resize(slot, 0);
            self.batches.push(Batch { at: self.at, slot, n: oparg, counts: self.data.rest(Section::Counts) });
            // As many as can be, whatever the operand says: each has a hash.
            let n = (oparg as usize).min(self.data.rest(Section::Hashes).len() / 4);
            self.unseen.reserve(n);
            self.stack.reserve(n);
        }
        for _ in 0..oparg {
            let names = self.data.names();
            let Batched { text, uses, hash } = self.data.batched(op)?;
            match (uses, hash) {
                (Some(stated), Some(hash)) => {
                    // A name that is known is ASCII.
                    if !self.executor.knows(hash, text, names) {
                        self.check_name(instruction, text, hash)?;
                    }
                    self.unseen.push(stated);
                }
                _ if !text.is_ascii() => return Err(self.wrong(instruction, "the text is not ASCII").into()),
                _ => {}
            }
            self.execute(Step::Name { op, text, uses: uses.unwrap_or_default() })?;
            self.stack.push(Value::str(true, true));
        }
        self.n_objects += oparg as usize;
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
            if field == Field::Code {
                (bytecode, table.origin) = self.bytecode(instruction.op)?;
                continue;
            }
            let (bytes, origin) = self.table(instruction.op, field)?;
            *table = TableStep { bytes, origin, is_quickened: false };
            lens[field as usize] = bytes.len();
            if field == Field::LocalsPlusKinds {
                kinds = bytes;
            }
        }
        // Of all versions the first table.
        tables[0].is_quickened = matches!(bytecode, Bytecode::Quickened(_));
        tables[0].bytes = match bytecode {
            Bytecode::Plain(bytes) | Bytecode::Quickened(bytes) => bytes,
            Bytecode::Restored(start, end) => &self.restored[start..end],
        };
        lens[Field::Code as usize] = tables[0].bytes.len();
        let counts = count_kinds(kinds);
        let is_full = instruction.op == Op::MakeFullCode;
        let derived = match is_full {
            false => None,
            true => {
                let [n_locals, n_cells, n_free] = counts;
                let first = python.first_traceable(tables[0].bytes).unwrap_or_default();
                Some([n_locals, n_cells, n_free, first])
            }
        };
        if let Some(derived) = derived
            && self.data.derived()? != derived
        {
            return Err(self.wrong(instruction, "CPython derives other numbers").into());
        }
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
            derived,
            is_interned,
        })))?;
        Ok(Traits::of([consts].into_iter()).holder(CODE | HASHABLE | SETTLED | UNTRACKED | STALE, HASHABLE))
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
    fn bytecode(&mut self, op: Op) -> Result<(Bytecode<'v>, TableOrigin)> {
        let bytecode = match self.data.table(op, Field::Code)? {
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
    fn table(&mut self, op: Op, field: Field) -> Result<(&'v [u8], TableOrigin)> {
        let section = Section::of_table(field);
        match self.data.table(op, field)? {
            Table::Inline(len) => {
                let bytes = self.data.take(section, len)?;
                if len > 1 {
                    self.tables[section as usize].push(bytes);
                }
                self.n_objects += 1;
                Ok((bytes, TableOrigin::Inline))
            }
            Table::Earlier(number) => {
                let bytes = self.tables[section as usize].get(number as usize).copied();
                let bytes = bytes.ok_or_else(|| self.no_earlier(op, number))?;
                Ok((bytes, TableOrigin::Earlier(number as usize)))
            }
            Table::Slot(slot) => Ok((self.bytes_in(op, slot)?, TableOrigin::Slot(slot as usize))),
            Table::Stripped(_) | Table::Quickened(_) => unreachable!("only bytecode has caches"),
        }
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

/// Whether every operand of one byte is in range.
#[inline(always)]
fn takes_any_byte(op: Op) -> bool {
    matches!(
        op,
        Op::LoadInt
            | Op::LoadChar
            | Op::LoadCommonName
            | Op::LoadFast
            | Op::Copy
            | Op::MakeString
            | Op::MakeStringUtf8
            | Op::MakeStringInterned
            | Op::MakeStringInternedUtf8
            | Op::MakeBytes
            | Op::MakeLong
            | Op::BuildTuple
            | Op::BuildTupleFrom
    )
}

const _: () = assert!(common::NAMES.len() == 256);

/// Most tables that a code object of any version has.
const MAX_TABLES: usize = 4;

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
