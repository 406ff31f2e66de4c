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
use crate::python::{DERIVED, Field, FieldKind, Layout, Python, count_kinds};

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
    kind: Kind,
    traits: u8,
    /// Length of a tuple; of bytes, where [`Verifier::bytes`] has them.
    len: u32,
}

/// It has a hash; of a fresh dict, a frozendict of it would have one.
const HASHABLE: u8 = 1;
/// It is an interned str, or a tuple of such.
const INTERNED: u8 = 2;
/// As a constant, it holds no str that CPython's constructor of code objects would intern and that is not interned.
const SETTLED: u8 = 4;
/// The collector of cycles does not track it, nor what it holds.
const UNTRACKED: u8 = 8;
const ALL_TRAITS: u8 = HASHABLE | INTERNED | SETTLED | UNTRACKED;

/// What is known of bytes that are, or can become, a table of a code object.
#[derive(Debug, Clone, Copy)]
struct Held<'v> {
    bytes: Bytes<'v>,
    /// If they are kinds of variables: how many are local, cells, and free.
    kinds: [u32; 3],
    /// If they are bytecode: the first instruction that is traced.
    first_traceable: u32,
}

/// Where the bytes of a table are.
#[derive(Debug, Clone, Copy)]
enum Bytes<'v> {
    Data(&'v [u8]),
    /// In the image, as CPython holds it.
    Quickened(&'v [u8]),
    /// In [`Verifier::restored`].
    Restored(usize, usize),
}

impl<'v> Bytes<'v> {
    fn get<'s>(self, restored: &'s [u8]) -> &'s [u8]
    where
        'v: 's,
    {
        match self {
            Self::Data(bytes) | Self::Quickened(bytes) => bytes,
            Self::Restored(start, end) => &restored[start..end],
        }
    }
}

impl<'v> Held<'v> {
    /// `section` is where the bytes stand.
    #[inline]
    fn new(python: Python, section: Section, bytes: Bytes<'v>, restored: &[u8]) -> Self {
        let can_be = |table| matches!(section, Section::Bytes) || section == table;
        Self {
            kinds: if can_be(Section::Kinds) { count_kinds(bytes.get(restored)) } else { [0; 3] },
            first_traceable: match can_be(Section::Bytecode) {
                true => python.first_traceable(bytes.get(restored)).unwrap_or_default(),
                false => 0,
            },
            bytes,
        }
    }
}

/// Uses of a str that says how often it is used.
#[derive(Debug, Clone, Copy)]
struct Uses {
    /// Where it is made.
    at: usize,
    stated: u32,
    seen: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Other,
    Float,
    Str,
    Bytes,
    /// All items are str.
    NameTuple,
    Tuple,
    List,
    /// A dict that stands nowhere else.
    FreshDict,
    Dict,
    Code,
}

impl Value {
    fn new(kind: Kind) -> Self {
        let traits = match kind {
            Kind::List => SETTLED,
            Kind::FreshDict | Kind::Dict => HASHABLE | SETTLED,
            _ => HASHABLE | SETTLED | UNTRACKED,
        };
        Self { kind, traits, len: 0 }
    }

    #[inline]
    fn str(is_interned: bool, is_settled: bool) -> Self {
        let traits = if is_interned { INTERNED } else { 0 } | if is_settled { SETTLED } else { 0 };
        Self { kind: Kind::Str, traits: HASHABLE | UNTRACKED | traits, len: 0 }
    }

    /// The value without some traits.
    fn less(self, traits: u8) -> Self {
        Self { traits: self.traits & !traits, ..self }
    }

    fn has(self, traits: u8) -> bool {
        self.traits & traits == traits
    }

    /// Whether it can be a key.
    fn has_hash(self) -> bool {
        self.has(HASHABLE) && self.kind != Kind::FreshDict
    }

    /// A dict that something else holds, or that grows, is none to make a frozendict of.
    fn share(&mut self) {
        if self.kind == Kind::FreshDict {
            *self = Self::new(Kind::Dict).less(HASHABLE);
        }
    }

    fn name(self) -> &'static str {
        match self.kind {
            Kind::Other => "another object",
            Kind::Float => "a float",
            Kind::Str => "a str",
            Kind::Bytes => "bytes",
            Kind::NameTuple => "a tuple of str",
            Kind::Tuple => "a tuple with other items",
            Kind::List => "a list",
            Kind::FreshDict | Kind::Dict => "a dict",
            Kind::Code => "a code object",
        }
    }
}

/// What every one of some values has.
fn common_traits(values: &[Value]) -> u8 {
    values.iter().fold(ALL_TRAITS, |traits, value| {
        // A dict that could become a frozendict has no hash itself.
        traits & if value.kind == Kind::FreshDict { value.traits & !HASHABLE } else { value.traits }
    })
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
    bytes: Vec<Held<'v>>,
    /// By slot, as far as one of them says how often it is used; the others say nothing.
    uses: Vec<Option<Uses>>,
    /// By section of tables: the inline tables, by number.
    tables: [Vec<Held<'v>>; Section::ALL.len()],
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
        // The first ones are no bytes at all: those of LOAD_COMMON_CONST.
        let no_bytes = Held::new(python, Section::Bytes, Bytes::Data(&[]), &[]);
        Ok(Self {
            python,
            layout: python.layout(),
            instructions: &image.instructions,
            data: Data::new(image),
            executor,
            keeps_plain: false,
            at: 0,
            // What the header states is believed only as far as the instructions can reach.
            stack: Vec::with_capacity((image.max_stack as usize).min(image.instructions.len() / 2)),
            reached: 0,
            places: Vec::new(),
            bytes: vec![no_bytes],
            uses: Vec::new(),
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
        self.check_operand(instruction)?;
        let needed = self.needed(instruction)?;
        if needed > self.stack.len() as u64 {
            return Err(self.underflow(instruction, needed).into());
        }
        let n = oparg as usize;
        let base = self.stack.len() - needed as usize;
        if base < self.uses.len() && needed > 0 {
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
                self.bytes.push(Held::new(self.python, Section::Bytes, Bytes::Data(bytes), &[]));
                let len = u32::try_from(self.bytes.len() - 1).map_err(|_| Error::from(ErrorKind::TooLarge))?;
                self.execute(Step::Bytes(bytes))?;
                Value { len, ..Value::new(Kind::Bytes) }
            }
            Op::MakeFloat => {
                let bits = self.data.float()?;
                self.execute(Step::Float(bits))?;
                Value::new(Kind::Float)
            }
            Op::MakeLong => {
                let bytes = self.long(instruction)?;
                self.execute(Step::Long(bytes))?;
                Value::new(Kind::Other)
            }
            Op::MakeStrings | Op::MakeNames | Op::MakeIdentifiers => return self.strings(instruction),
            Op::BuildTuple => {
                let value = tuple(&self.stack[base..]);
                self.build_tuple(Operands::Top(n), value)?;
                value
            }
            Op::BuildTupleFrom => {
                let places = std::mem::take(&mut self.places);
                let value = self.gather(instruction, &places)?;
                self.build_tuple(Operands::Mixed { base, places: &places }, value)?;
                self.places = places;
                value
            }
            Op::BuildList => {
                self.execute(Step::List(n))?;
                Value::new(Kind::List)
            }
            Op::BuildSet => {
                self.check_hashable(&self.stack[base..], 1, "a set item")?;
                let traits = common_traits(&self.stack[base..]);
                self.execute(Step::Set(n))?;
                Value::new(Kind::Other).less(HASHABLE | UNTRACKED | SETTLED & !traits)
            }
            Op::BuildMap => {
                self.check_hashable(&self.stack[base..], 2, "a dict key")?;
                let traits = common_traits(&self.stack[base..]);
                self.execute(Step::Map(n))?;
                Value::new(Kind::FreshDict).less(!traits & (HASHABLE | SETTLED))
            }
            Op::BuildSlice => {
                let traits = common_traits(&self.stack[base..]);
                self.execute(Step::Slice)?;
                Value::new(Kind::Other).less(UNTRACKED | !traits & (HASHABLE | SETTLED))
            }
            Op::ListAppend | Op::MapAdd => {
                let slot = self.reach(instruction, base)?;
                let wanted = if op == Op::ListAppend { &[Kind::List][..] } else { &[Kind::Dict, Kind::FreshDict] };
                if !wanted.contains(&self.stack[slot].kind) {
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
                if self.stack[base].kind != Kind::Code {
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

    /// How many values it takes from the stack. Those of an instruction that says where each operand is: where that is.
    #[inline]
    fn needed(&mut self, instruction: Instruction) -> Result<u64> {
        let Instruction { op, oparg } = instruction;
        self.places.clear();
        let n_operands = match op {
            Op::BuildTupleFrom => oparg as usize,
            Op::MakeCode | Op::MakeFullCode => self.layout.operands.len(),
            _ => return Ok(instruction.pops(&[])),
        };
        let (height, mut n_taken) = (self.stack.len() as u32, 0);
        for at in 0..n_operands {
            let copied = match op {
                Op::BuildTupleFrom => self.data.reference()?.checked_sub(1),
                _ if oparg >> at & 1 != 0 => Some(self.data.reference()?),
                _ => None,
            };
            match copied {
                Some(slot) if slot < height => self.places.push(Place::new(slot, true)),
                Some(slot) => return Err(self.underflow(instruction, u64::from(slot) + 1)),
                None => {
                    self.places.push(Place::new(n_taken, false));
                    n_taken += 1;
                }
            }
        }
        if let Some(base) = height.checked_sub(n_taken) {
            // Those that are taken were counted from the first.
            for place in self.places.iter_mut().filter(|place| !place.is_copied()) {
                *place = Place::new(base + place.slot() as u32, false);
            }
        }
        Ok(u64::from(n_taken))
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
        if let Some(Some(uses)) = self.uses.get_mut(slot) {
            uses.seen = uses.seen.saturating_add(1);
        }
        Ok(value)
    }

    /// Refuses a str that is copied more or less often than it says.
    fn check_uses(&self) -> Result<()> {
        match self.uses.iter().flatten().find(|uses| uses.seen != uses.stated) {
            None => Ok(()),
            Some(&Uses { at, stated, seen }) => {
                Err(Error::at(ErrorKind::WrongUses { stated, seen }, at).inside("the instructions"))
            }
        }
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
        for _ in 0..oparg {
            let Batched { text, uses, hash } = self.data.batched(op)?;
            if !text.is_ascii() {
                return Err(self.wrong(instruction, "the text is not ASCII").into());
            }
            let hash = hash.unwrap_or_else(|| common::name_hash(text));
            if let Some(stated) = uses {
                if !self.executor.is_hash_of(hash, text) {
                    return Err(self.wrong(instruction, "the hash is another name's").into());
                }
                self.uses.resize(self.stack.len(), None);
                self.uses.push(Some(Uses { at: self.at, stated, seen: 0 }));
            }
            self.execute(Step::Name { op, text, uses: uses.unwrap_or_default(), hash })?;
            self.stack.push(Value::str(true, true));
        }
        self.n_objects += oparg as usize;
        Ok(())
    }

    /// The tuple of operands, of which some are copied.
    #[inline]
    fn gather(&mut self, instruction: Instruction, places: &[Place]) -> Result<Value> {
        let (mut kind, mut traits) = (Kind::NameTuple, ALL_TRAITS);
        for place in places {
            let value = self.operand(instruction, *place)?;
            if value.kind != Kind::Str {
                kind = Kind::Tuple;
            }
            traits &= common_traits(&[value]);
        }
        Ok(Value { kind, traits, len: places.len() as u32 })
    }

    /// What is known of an operand, which is copied if it stays where it is.
    #[inline]
    fn operand(&mut self, instruction: Instruction, place: Place) -> Result<Value> {
        match place.is_copied() {
            true => self.copy(instruction, place.slot()),
            false => Ok(self.stack[place.slot()]),
        }
    }

    fn check_hashable(&self, values: &[Value], step: usize, role: &'static str) -> Result<()> {
        match values.iter().step_by(step).find(|value| !value.has_hash()) {
            None => Ok(()),
            Some(value) => {
                let what = if value.kind == Kind::Tuple { "tuple" } else { value.name() };
                Err(Error::at(ErrorKind::Unhashable { what, role }, self.at).inside("the instructions"))
            }
        }
    }

    fn intrinsic(&self, instruction: Instruction, base: usize) -> Result<Value> {
        let values = &self.stack[base..];
        let traits = common_traits(values);
        let (fits, value) = match Intrinsic::ALL[instruction.oparg as usize] {
            Intrinsic::MakeComplex => (values.iter().all(|value| value.kind == Kind::Float), Value::new(Kind::Other)),
            Intrinsic::MakeFrozenSet => {
                let is_tuple = matches!(values[0].kind, Kind::Tuple | Kind::NameTuple);
                if is_tuple {
                    self.check_hashable(values, 1, "a set item")?;
                }
                (is_tuple, Value::new(Kind::Other).less(UNTRACKED | !traits & SETTLED))
            }
            Intrinsic::MakeFrozenDict => {
                let value = Value::new(Kind::Other).less(UNTRACKED | !values[0].traits & (HASHABLE | SETTLED));
                (values[0].kind == Kind::FreshDict, value)
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
        let (mut is_hashable, mut is_interned) = (true, true);
        for (&field, place) in layout.operands.iter().zip(places) {
            let value = self.operand(instruction, *place)?;
            let (fits, expected) = match field.kind() {
                FieldKind::Str => (value.kind == Kind::Str, "a str"),
                FieldKind::Names => (value.kind == Kind::NameTuple, "a tuple of str"),
                _ => (matches!(value.kind, Kind::Tuple | Kind::NameTuple), "a tuple"),
            };
            if !fits {
                let kind = ErrorKind::WrongFieldType { field: field.name(), expected, found: value.name() };
                return Err(Error::at(kind, self.at).inside("the instructions").into());
            }
            match field.kind() {
                FieldKind::Str => is_interned &= !python.interns_code_names() || value.has(INTERNED),
                FieldKind::Names => {
                    lens[field as usize] = value.len as usize;
                    is_interned &= value.has(INTERNED);
                }
                _ => {
                    is_hashable = value.has(HASHABLE);
                    is_interned &= value.has(SETTLED);
                }
            }
        }
        let mut numbers = [0; Field::COUNT];
        for field in &layout.numbers {
            numbers[*field as usize] = self.data.count()?.cast_signed();
        }
        let mut n_locals = lens[Field::VarNames as usize];
        let mut derived = [0; DERIVED.len()];
        let (mut tables, mut n_tables) = ([None; MAX_TABLES], 0);
        for &field in &layout.tables {
            let (held, origin) = self.table(instruction.op, field)?;
            lens[field as usize] = held.bytes.get(&self.restored).len();
            match field {
                Field::LocalsPlusKinds => {
                    n_locals = held.kinds[0] as usize;
                    derived[..3].copy_from_slice(&held.kinds);
                }
                Field::Code => derived[3] = held.first_traceable,
                _ => {}
            }
            tables[n_tables] = Some((held.bytes, origin));
            n_tables += 1;
        }
        let is_full = instruction.op == Op::MakeFullCode;
        if is_full && self.data.derived()? != derived {
            return Err(self.wrong(instruction, "CPython derives other numbers").into());
        }
        let number = |field: Field| numbers[field as usize];
        let refused = python.refuses_code(number, |field| lens[field as usize]);
        if let Some(why) = refused.or_else(|| python.refuses_arguments(number, n_locals)) {
            return Err(Error::at(ErrorKind::BadCode(why), self.at).inside("the instructions").into());
        }
        let nothing = TableStep { bytes: &[], origin: TableOrigin::Inline, is_quickened: false };
        let mut steps = [nothing; MAX_TABLES];
        for (step, table) in steps.iter_mut().zip(tables) {
            if let Some((bytes, origin)) = table {
                let is_quickened = matches!(bytes, Bytes::Quickened(_));
                *step = TableStep { bytes: bytes.get(&self.restored), origin, is_quickened };
            }
        }
        self.executor.step(Checked::new(Step::Code(CodeStep {
            numbers: &numbers,
            operands: Operands::Mixed { base, places },
            tables: &steps[..n_tables],
            derived: is_full.then_some(derived),
            is_interned,
        })))?;
        Ok(Value::new(Kind::Code).less(if is_hashable { 0 } else { HASHABLE }))
    }

    /// A table, and where it comes from.
    fn table(&mut self, op: Op, field: Field) -> Result<(Held<'v>, TableOrigin)> {
        let bad = |verifier: &Self, oparg, why| verifier.wrong(Instruction { op, oparg }, why);
        let section = Section::of_table(field);
        let (bytes, len) = match self.data.table(op, field, self.python)? {
            Table::Inline(len) => (Bytes::Data(self.data.take(section, len)?), len),
            Table::Stripped(len) => {
                let bytes = self.data.take(section, len)?;
                let start = self.restored.len();
                caches::restore(self.python, bytes, &mut self.restored);
                (self.restored_from(start), len)
            }
            Table::Quickened(len) => {
                let bytes = self.data.take(section, len)?;
                if self.keeps_plain {
                    let start = self.restored.len();
                    if !caches::unquicken(self.python, bytes, &mut self.restored) {
                        return Err(bad(self, len, "its bytecode is not as CPython quickens it"));
                    }
                    (self.restored_from(start), len)
                } else {
                    (Bytes::Quickened(bytes), len)
                }
            }
            Table::Earlier(number) => {
                let held = self.tables[section as usize].get(number as usize).copied();
                let held = held.ok_or_else(|| bad(self, number, "no earlier table has this number"))?;
                return Ok((held, TableOrigin::Earlier(number as usize)));
            }
            Table::Slot(slot) => {
                return match self.stack.get(slot as usize) {
                    Some(&Value { kind: Kind::Bytes, len, .. }) => {
                        Ok((self.bytes[len as usize], TableOrigin::Slot(slot as usize)))
                    }
                    _ => Err(bad(self, slot, "no bytes stand in this slot")),
                };
            }
        };
        let held = Held::new(self.python, section, bytes, &self.restored);
        if held.bytes.get(&self.restored).len() > 1 {
            self.tables[section as usize].push(held);
        }
        let _ = len;
        self.n_objects += 1;
        Ok((held, TableOrigin::Inline))
    }

    /// The bytecode that was put back from `start` on.
    fn restored_from(&mut self, start: usize) -> Bytes<'v> {
        self.restored_ends.push(self.restored.len());
        Bytes::Restored(start, self.restored.len())
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

/// Most tables that a code object of any version has.
const MAX_TABLES: usize = 4;

/// Whether CPython interns a constant with this text.
///
/// Source: CPython `Objects/codeobject.c`, `all_name_chars`.
fn is_name_like(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

fn tuple(items: &[Value]) -> Value {
    let kind = if items.iter().all(|value| value.kind == Kind::Str) { Kind::NameTuple } else { Kind::Tuple };
    let len = u32::try_from(items.len()).expect("operands are 32 bits");
    Value { kind, traits: common_traits(items), len }
}

fn load(instruction: Instruction) -> Value {
    use common::CommonConst;
    let interned = Value::str(true, true);
    match instruction.op {
        Op::LoadCommonName | Op::LoadChar => interned,
        Op::LoadCommonConst => match common::CONSTS[instruction.oparg as usize].0 {
            CommonConst::EmptyStr => interned,
            CommonConst::EmptyTuple => tuple(&[]),
            CommonConst::EmptyBytes => Value::new(Kind::Bytes),
            CommonConst::EmptyFrozenSet => Value::new(Kind::Other).less(UNTRACKED),
            _ => Value::new(Kind::Other),
        },
        _ => Value::new(Kind::Other),
    }
}
