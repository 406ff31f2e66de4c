//! Checks an image, so that executing it needs no checks: ahead ([`verify()`]), or in the same pass ([`execute`]).
//!
//! One pass over the instructions with a stack of types; no instruction jumps, so there are no paths to walk.
//!
//! Invariants of [`Verified`]:
//! - Every operand is in its range, and every value it reaches is on the stack, and was not moved.
//! - Every byte of data is there, is read by exactly one instruction, and is in the form that the emitter writes.
//! - MAKE_CODE's operands have the types, its tables the lengths, and its numbers the ranges that CPython demands.
//! - What is put into a set, or is a key, has a hash.
//! - Hashes are those of the names.
//! - The stack's greatest height is the one stated, and the last instruction is the only one that ends.
//! - What is taken from the table of a bundle is in that table, which was verified before.

mod code;
mod commons;
mod step;
mod text;
mod value;

pub use commons::{CommonTable, Commons, execute_table, verify_table};
pub use step::{AHEAD, Checked, CodeStep, Executor, Fill, Items, NameRun, Step, TableOrigin, TableStep, Values};

use std::collections::BTreeMap;

use code::Bytecode;
use step::NEAR_LEN;
use text::{is_ascii, is_name_like};
use value::{
    BYTES, CODE, DICT, FLOAT, FREEZABLE, HASHABLE, LIST, LIVE, SETTLED, STALE, Slot, TUPLE, Traits, UNTRACKED, Value,
    tuple,
};

use crate::common;
use crate::data::Data;
use crate::error::{Error, ErrorKind, Result};
use crate::heap::Str;
use crate::image::Image;
use crate::isa::{Instruction, Intrinsic, MAX_OPARG, MOVED, Op, Oparg, Section};
use crate::python::{KindCounts, Layout, Python};
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
    table: Option<&'a CommonTable<'a>>,
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

    /// The table of its bundle, if it has one.
    pub(crate) fn table(&self) -> Option<&'a CommonTable<'a>> {
        self.table
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

/// Verifies an image.
///
/// # Errors
/// What does not hold of the invariants, with its byte and the part of the image it is in.
pub fn verify(image: Image<'_>) -> Result<Verified<'_>> {
    verify_with(image, None)
}

/// Verifies an image of a bundle, against the bundle's table.
///
/// # Errors
/// As [`verify`].
pub fn verify_with<'a>(image: Image<'a>, table: Option<&'a CommonTable<'a>>) -> Result<Verified<'a>> {
    let mut verifier = Verifier::new(&image, table.map(CommonTable::commons), Nothing)?;
    let (_, starts) = verifier.run(image.max_stack)?;
    let (n_objects, n_items) = (verifier.n_objects, verifier.n_items);
    let (restored, restored_ends) =
        (std::mem::take(&mut verifier.restored), std::mem::take(&mut verifier.restored_ends));
    let python = verifier.python;
    drop(verifier);
    Ok(Verified { python, n_objects, n_items, restored, restored_ends, starts, table, image })
}

/// Verifies an image, and has an executor make the value of each instruction as soon as it is verified: the result, and
/// whether the image ends in START_CODE. Of quickened bytecode it is not verified that its caches are those of a new code
/// object: what else they may be changes how fast it runs, and nothing else.
///
/// # Errors
/// As [`verify`], and those of the executor.
pub fn execute<'v, E: Executor<'v>>(
    image: &'v Image<'_>,
    executor: E,
) -> std::result::Result<(E::Object, bool), E::Error> {
    execute_with(image, None, executor)
}

/// As [`execute`], of an image of a bundle; `commons` says what the bundle's table holds.
///
/// # Errors
/// As [`execute`].
pub fn execute_with<'v, E: Executor<'v>>(
    image: &'v Image<'_>,
    commons: Option<&'v Commons>,
    executor: E,
) -> std::result::Result<(E::Object, bool), E::Error> {
    Verifier::new(image, commons, executor)?.run(image.max_stack)
}

/// Executes nothing.
struct Nothing;

impl<'v> Executor<'v> for Nothing {
    type Object = ();
    type Error = Error;

    const ONLY_VERIFIES: bool = true;

    fn load(&mut self, _: Checked<Instruction>) -> Result<((), bool)> {
        Ok(((), false))
    }

    fn new_name(&mut self, _: Checked<&'v [u8]>, _: u32) -> Result<((), bool)> {
        Ok(((), false))
    }

    fn tuple<const NEAR: bool>(&mut self, items: &mut Items<'_, 'v, Self, NEAR>) -> Result<Option<()>> {
        Ok(items.write_to(&mut Box::new_uninit_slice(items.n())).then_some(()))
    }

    fn code(&mut self, _: &Checked<CodeStep<'_, ()>>) -> Result<()> {
        Ok(())
    }

    fn value(&mut self, _: Checked<Step<'v, '_, ()>>) -> Result<()> {
        Ok(())
    }

    fn fill(&mut self, _: Checked<Fill<'_, ()>>) -> Result<()> {
        Ok(())
    }

    fn retain((): ()) {}

    fn release((): ()) {}
}

type Outcome<'v, E, T = ()> = std::result::Result<T, <E as Executor<'v>>::Error>;

struct Verifier<'v, E: Executor<'v>> {
    python: Python,
    layout: &'static Layout,
    /// By operand of MAKE_CODE: the traits that it must have, and those that it has if all is interned that CPython interns. Empty
    /// until one is met.
    operand_traits: Vec<(u16, u16)>,
    instructions: &'v [u8],
    data: Data<'v>,
    executor: E,
    /// What the table of the bundle holds, if there is one.
    commons: Option<&'v Commons>,
    /// If this is a table: what the tuple holds that is returned, once it is made.
    items: Option<Vec<Value>>,
    /// How long the tuple is that was returned.
    n_returned: usize,
    /// Where the instruction begins.
    at: usize,
    stack: Vec<Slot<E::Object>>,
    /// Names that the executor just knew.
    known_names: Vec<E::Object>,
    /// How high the stack was before it was last taken from.
    reached: usize,
    /// So many values, from the bottom of the stack on, are interned str that are immortal.
    n_names: usize,
    /// Whether all that stands in the section of strings is ASCII, once it was asked.
    strings_are_ascii: Option<bool>,
    /// The bytes that were on the stack.
    bytes: Vec<&'v [u8]>,
    /// The pieces of bytecode that stand in the data, by number.
    bytecodes: Vec<Bytecode<'v>>,
    /// By section of tables: the others that stand there, by number.
    tables: [Vec<&'v [u8]>; Section::ALL.len()],
    /// Of the tables of kinds that were named again: how many variables are of each.
    kind_counts: Vec<Option<KindCounts>>,
    /// As much of those that stood on the stack, by where they lie in the image.
    slot_kind_counts: BTreeMap<(*const u8, usize), KindCounts>,
    /// Bytecode whose caches were left out, whole.
    restored: Vec<u8>,
    /// Where each piece of it ends.
    restored_ends: Vec<usize>,
    n_objects: usize,
    n_items: usize,
}

impl<'v, E: Executor<'v>> Drop for Verifier<'v, E> {
    fn drop(&mut self) {
        // Nobody counts references to the others.
        self.stack.iter().skip(self.n_names).for_each(|slot| slot.release::<E>());
    }
}

impl<'v, E: Executor<'v>> Verifier<'v, E> {
    fn new(image: &'v Image<'_>, commons: Option<&'v Commons>, executor: E) -> Result<Self> {
        let python = image.python()?;
        if E::PYTHON.is_some_and(|its| its != python) {
            return Err(ErrorKind::BadContainer("its Python is another than the executor's").into());
        }
        // What the header states is believed only as far as the instructions, and the str they make many of, can reach.
        let most = image.instructions.len() / 2 + image.section(Section::Counts).len();
        Ok(Self {
            python,
            layout: python.layout(),
            operand_traits: Vec::new(),
            instructions: &image.instructions,
            data: Data::new(image),
            executor,
            commons,
            items: None,
            n_returned: usize::MAX,
            at: 0,
            stack: Vec::with_capacity((image.max_stack as usize).min(most)),
            known_names: Vec::new(),
            reached: 0,
            n_names: 0,
            strings_are_ascii: None,
            // The first ones are no bytes at all: those of LOAD_COMMON_CONST.
            bytes: vec![&[]],
            bytecodes: Vec::new(),
            tables: Default::default(),
            kind_counts: Vec::new(),
            slot_kind_counts: BTreeMap::new(),
            restored: Vec::new(),
            restored_ends: Vec::new(),
            n_objects: 0,
            n_items: 0,
        })
    }

    /// The version of the image.
    #[inline(always)]
    fn python(&self) -> Python {
        E::PYTHON.unwrap_or(self.python)
    }

    /// The result, and whether the end is START_CODE.
    fn run(&mut self, max_stack: u32) -> Outcome<'v, E, (E::Object, bool)> {
        let starts = loop {
            let (instruction, next) =
                Instruction::decode(self.instructions, self.at).map_err(|error| error.inside("the instructions"))?;
            match instruction.op {
                Op::BuildTupleNear => self.tuple_near(instruction, next)?,
                Op::BuildTupleFrom => self.tuple_from(instruction, next)?,
                Op::MakeFullCode => self.full_code(instruction)?,
                Op::LoadInt | Op::LoadChar | Op::LoadCommonConst | Op::LoadCommonName => self.load(instruction)?,
                Op::MakeString => self.text(instruction)?,
                Op::MakeStrings | Op::MakeNames | Op::MakeIdentifiers => self.strings(instruction)?,
                Op::MakeTexts => self.texts(instruction)?,
                Op::LoadManyNames | Op::LoadManyConsts => self.load_many(instruction)?,
                Op::ReturnValue | Op::StartCode => {
                    self.check_result(instruction, next)?;
                    break instruction.op == Op::StartCode;
                }
                _ => self.any(instruction, next)?,
            }
            self.at = next;
        };
        self.data.check_end()?;
        self.reached = self.reached.max(self.stack.len());
        let reached = u32::try_from(self.reached).expect("instructions are below 2 GiB");
        if reached != max_stack {
            return Err(Error::from(ErrorKind::WrongStack { stated: max_stack, reached }).into());
        }
        let Slot { object: result, value } = self.stack.pop().expect("the result is there");
        self.n_returned = if value.has(TUPLE) { value.len as usize } else { usize::MAX };
        Ok((result, starts))
    }

    /// RETURN_VALUE and START_CODE.
    fn check_result(&self, instruction: Instruction, next: usize) -> Result<()> {
        self.check_operand(instruction)?;
        match self.stack.last() {
            None => Err(self.underflow(instruction, 1)),
            Some(top) if !top.value.has(LIVE) => Err(self.wrong(instruction, EMPTY_SLOT)),
            Some(top) if instruction.op == Op::StartCode && !top.value.has(CODE) => {
                Err(self.wrong(instruction, "the top is no code object"))
            }
            Some(_) if next != self.instructions.len() => {
                let why = "instructions follow the end";
                Err(Error::at(ErrorKind::BadEnd(why), next).inside("the instructions"))
            }
            Some(_) => Ok(()),
        }
    }

    #[inline]
    fn make(&mut self, step: Step<'v, '_, E::Object>) -> Outcome<'v, E, E::Object> {
        self.executor.value(Checked::new(step))
    }

    #[inline(always)]
    fn push(&mut self, object: E::Object, value: Value) {
        self.count(1, 0);
        self.stack.push(Slot { object, value });
    }

    /// Notes what a later execution needs room for.
    #[inline(always)]
    fn count(&mut self, n_objects: usize, n_items: usize) {
        if E::ONLY_VERIFIES {
            self.n_objects += n_objects;
            self.n_items += n_items;
        }
    }

    /// Forgets the values from `base` on: others have taken their references over. Before this, the stack only grew.
    #[inline(always)]
    fn taken(&mut self, base: usize) {
        self.reached = self.reached.max(self.stack.len());
        self.n_names = self.n_names.min(base);
        self.stack.truncate(base);
    }

    /// Notes that names were pushed from the slot `first` on.
    fn note_names(&mut self, first: usize, are_immortal: bool) {
        if are_immortal && self.n_names == first {
            self.n_names = self.stack.len();
        }
    }

    /// Any instruction that loaders do not meet often.
    #[inline(never)]
    fn any(&mut self, instruction: Instruction, next: usize) -> Outcome<'v, E> {
        if self.items.is_some() {
            self.note_items(instruction, next);
        }
        let Instruction { op, oparg } = instruction;
        self.check_operand(instruction)?;
        if op == Op::MakeCode {
            return self.code(instruction);
        }
        let needed = instruction.pops(&[]);
        let Some(base) = usize::try_from(needed).ok().and_then(|needed| self.stack.len().checked_sub(needed)) else {
            return Err(self.underflow(instruction, needed).into());
        };
        let operands = &self.stack[base..];
        let values = Values(operands);
        let traits = Traits::of(operands);
        if traits.all & LIVE == 0 {
            return Err(self.wrong(instruction, EMPTY_SLOT).into());
        }
        let (step, value) = match op {
            Op::ExtendedArg => unreachable!("decoding folds it"),
            Op::BuildTupleFrom
            | Op::BuildTupleNear
            | Op::MakeCode
            | Op::MakeFullCode
            | Op::LoadInt
            | Op::LoadChar
            | Op::LoadCommonConst
            | Op::LoadCommonName
            | Op::MakeString
            | Op::MakeStrings
            | Op::MakeNames
            | Op::LoadManyNames
            | Op::LoadManyConsts
            | Op::MakeIdentifiers
            | Op::MakeTexts
            | Op::ReturnValue
            | Op::StartCode => unreachable!("it has a function of its own"),
            Op::LoadFast => return Ok(self.copy(instruction, oparg as usize)?),
            Op::Copy => {
                let slot = self.reach(instruction, self.stack.len())?;
                return Ok(self.copy(instruction, slot)?);
            }
            Op::ListAppend | Op::MapAdd => return self.fill(instruction, base),
            Op::MakeStringUtf8 | Op::MakeStringInterned | Op::MakeStringInternedUtf8 => return self.text(instruction),
            Op::MakeBytes => {
                let bytes = self.data.take(Section::Bytes, oparg)?;
                self.bytes.push(bytes);
                let len = u32::try_from(self.bytes.len() - 1).map_err(|_| Error::from(ErrorKind::TooLarge))?;
                (Step::Bytes(bytes), Value { len, ..Value::leaf(BYTES) })
            }
            Op::MakeFloat => (Step::Float(self.data.float()?), Value::leaf(FLOAT)),
            Op::MakeLong => {
                let bytes = self.data.take(Section::Numbers, oparg)?;
                if !is_shortest(bytes) {
                    return Err(self.wrong(instruction, "fewer bytes hold the int").into());
                }
                (Step::Long(bytes), Value::leaf(0))
            }
            Op::BuildTuple => {
                let value = tuple(traits, operands.len());
                (Step::Tuple { items: values, holds_collectable: !value.has(UNTRACKED) }, value)
            }
            Op::BuildList => (Step::List(values), traits.holder(LIST | SETTLED | STALE, 0)),
            Op::BuildSet => {
                self.check_hashable(operands, 1, "a set item")?;
                (Step::Set(values), traits.holder(SETTLED | STALE, SETTLED))
            }
            Op::BuildMap => {
                self.check_hashable(operands, 2, "a dict key")?;
                let freezable = if traits.all & HASHABLE != 0 { FREEZABLE } else { 0 };
                (Step::Map(values), traits.holder(DICT | SETTLED | freezable, SETTLED))
            }
            Op::BuildSlice => (Step::Slice(values), traits.holder(HASHABLE | SETTLED | STALE, HASHABLE | SETTLED)),
            Op::CallIntrinsic1 | Op::CallIntrinsic2 => {
                let value = self.intrinsic(instruction, operands)?;
                (Step::Intrinsic(Intrinsic::ALL[oparg as usize], values), value)
            }
        };
        let n_items = operands.len();
        let object = self.executor.value(Checked::new(step))?;
        self.count(0, n_items);
        self.taken(base);
        self.push(object, value);
        Ok(())
    }

    /// LIST_APPEND and MAP_ADD.
    fn fill(&mut self, instruction: Instruction, base: usize) -> Outcome<'v, E> {
        let is_list = instruction.op == Op::ListAppend;
        let slot = self.reach(instruction, base)?;
        if !self.stack[slot].value.has(if is_list { LIST } else { DICT }) {
            return Err(self.wrong(instruction, "the value it reaches has another type").into());
        }
        if !is_list {
            self.check_hashable(&self.stack[base..], 2, "a dict key")?;
            self.stack[slot].value.share();
        }
        let (container, values) = (self.stack[slot].object, Values(&self.stack[base..]));
        let fill = if is_list { Fill::Append(container, values) } else { Fill::Add(container, values) };
        self.executor.fill(Checked::new(fill))?;
        self.count(0, self.stack.len() - base);
        self.taken(base);
        Ok(())
    }

    /// LOAD_INT, LOAD_CHAR, LOAD_COMMON_CONST, LOAD_COMMON_NAME.
    #[inline(always)]
    fn load(&mut self, instruction: Instruction) -> Outcome<'v, E> {
        let n_known = if instruction.op == Op::LoadCommonConst { common::CONSTS.len() } else { 256 };
        if instruction.oparg as usize >= n_known {
            self.check_operand(instruction)?;
        }
        let value = self.loaded(instruction);
        self.push_loaded(instruction, value)
    }

    /// Has a common value loaded, of which this is known.
    #[inline(always)]
    fn push_loaded(&mut self, instruction: Instruction, value: Value) -> Outcome<'v, E> {
        let (object, is_immortal) = self.executor.load(Checked::new(instruction))?;
        self.push(object, value.immortal(is_immortal));
        Ok(())
    }

    /// BUILD_TUPLE_NEAR.
    #[inline(always)]
    fn tuple_near(&mut self, instruction: Instruction, next: usize) -> Outcome<'v, E> {
        if self.items.is_some() {
            self.note_items(instruction, next);
        }
        let (object, value) = self.near_tuple(instruction, instruction.oparg as usize, true)?;
        self.push(object, value);
        Ok(())
    }

    /// A tuple whose references stand there next. `are_names` says that all of its items are probably names.
    #[inline(always)]
    fn near_tuple(
        &mut self,
        instruction: Instruction,
        n: usize,
        are_names: bool,
    ) -> Outcome<'v, E, (E::Object, Value)> {
        let references = *self.data.rest(Section::References);
        if n > references.len() / NEAR_LEN {
            return Err(self.data.cut_short(Section::References, NEAR_LEN as u32).into());
        }
        let mut items: Items<'_, 'v, E, true> = Items {
            n,
            references,
            at: 0,
            base: 0,
            n_names: self.n_names,
            stack: &mut self.stack,
            traits: Traits::OF_NONE,
            are_names,
        };
        let made = self.executor.tuple(&mut items);
        let Items { at, traits, are_names, n_names, .. } = items;
        let Some(object) = made? else { return Err(self.wrong_near(instruction, at).into()) };
        self.count(0, n);
        // There is no dict among them.
        if are_names {
            *self.data.rest(Section::References) = &references[at..];
            return Ok((object, tuple(Traits::OF_NONE.and(Value::str(true, true)), n)));
        }
        self.n_names = n_names;
        if traits.all & STALE == 0 {
            self.share_near(n);
        }
        *self.data.rest(Section::References) = &references[at..];
        Ok((object, tuple(traits, n)))
    }

    /// A dict that is copied is fresh no more.
    #[cold]
    fn share_near(&mut self, n: usize) {
        for reference in &self.data.rest(Section::References).as_chunks::<NEAR_LEN>().0[..n] {
            let reference = u16::from_le_bytes(*reference);
            if reference & MOVED == 0 {
                self.stack[usize::from(reference)].value.share();
            }
        }
    }

    /// What is wrong with the reference behind the first `end` bytes of references. What these copied is released, and what they
    /// moved is put back. Each of them found a value: what was moved is not among those that come after it. Of what is put back it
    /// is not known any more whether it is immortal: to release such is harmless.
    #[cold]
    fn wrong_near(&mut self, instruction: Instruction, end: usize) -> Error {
        let references = self.data.rest(Section::References).as_chunks::<NEAR_LEN>().0;
        let (had, rest) = references.split_at(end / NEAR_LEN);
        for reference in had.iter().rev() {
            let reference = u16::from_le_bytes(*reference);
            let slot = &mut self.stack[usize::from(reference & !MOVED)];
            if reference & MOVED == 0 {
                slot.release::<E>();
            } else {
                slot.value = Value::UNKNOWN;
            }
        }
        let slot = rest.first().map_or(0, |reference| u16::from_le_bytes(*reference) & !MOVED);
        match self.stack.get(usize::from(slot)) {
            Some(_) => self.wrong(instruction, EMPTY_SLOT),
            None => self.underflow(instruction, u64::from(slot) + 1),
        }
    }

    /// BUILD_TUPLE_FROM.
    fn tuple_from(&mut self, instruction: Instruction, next: usize) -> Outcome<'v, E> {
        if self.items.is_some() {
            self.note_items(instruction, next);
        }
        let (n, references) = (instruction.oparg as usize, *self.data.rest(Section::References));
        // Each takes a byte at least.
        if n > references.len() {
            return Err(self.data.bad_varint(Section::References).into());
        }
        let mut items: Items<'_, 'v, E, false> = Items {
            n,
            references,
            at: 0,
            base: self.stack.len(),
            n_names: self.n_names,
            stack: &mut self.stack,
            traits: Traits::OF_NONE,
            are_names: false,
        };
        let made = self.executor.tuple(&mut items);
        let Items { at, base, traits, .. } = items;
        let Some(object) = made? else { return Err(self.wrong_reference(instruction, at).into()) };
        if traits.all & STALE == 0 {
            self.share_copied(n);
        }
        *self.data.rest(Section::References) = &references[at..];
        self.count(0, n);
        self.taken(base);
        self.push(object, tuple(traits, n));
        Ok(())
    }

    /// A dict that is copied is fresh no more.
    #[cold]
    fn share_copied(&mut self, n: usize) {
        let (references, mut at) = (*self.data.rest(Section::References), 0);
        for _ in 0..n {
            let (reference, after) = varint::next(references, at).expect("it was read before");
            if let Some(slot) = reference.checked_sub(1) {
                self.stack[slot as usize].value.share();
            }
            at = after;
        }
    }

    /// What is wrong with the reference that the first `end` bytes of references do not hold any more. What these copied is
    /// released.
    #[cold]
    fn wrong_reference(&mut self, instruction: Instruction, end: usize) -> Error {
        let (references, mut at, mut n_taken) = (*self.data.rest(Section::References), 0, 0);
        while at < end {
            let (reference, after) = varint::next(references, at).expect("it was read before");
            match reference.checked_sub(1) {
                Some(slot) => self.stack[slot as usize].release::<E>(),
                None => n_taken += 1,
            }
            at = after;
        }
        let Some((reference, _)) = varint::next(references, at) else {
            return self.data.bad_varint(Section::References);
        };
        let needed = if reference == 0 { n_taken + 1 } else { u64::from(reference) };
        match needed <= self.stack.len() as u64 {
            true => self.wrong(instruction, EMPTY_SLOT),
            false => self.underflow(instruction, needed),
        }
    }

    /// The operand's own range.
    fn check_operand(&self, instruction: Instruction) -> Result<()> {
        let Instruction { op, oparg } = instruction;
        let within = |n: usize| (oparg as usize) < n;
        let fits = match op.info().oparg {
            Oparg::Unused | Oparg::Slots => oparg == 0,
            Oparg::High => unreachable!("decoding folds it"),
            Oparg::Int | Oparg::Char => within(256),
            Oparg::Mask => within(1 << self.layout.operands.len()),
            Oparg::Strings => (1..=MAX_OPARG).contains(&oparg),
            Oparg::CommonConst | Oparg::CommonName => within(self.n_common(op)),
            Oparg::Commons => self.commons.is_some() && (1..=MAX_OPARG).contains(&oparg),
            Oparg::Intrinsic => Intrinsic::ALL.get(oparg as usize).is_some_and(|intrinsic| intrinsic.op() == op),
            Oparg::Count if op == Op::BuildSlice => oparg == 3,
            Oparg::Slot
            | Oparg::Depth
            | Oparg::Length(_)
            | Oparg::Count
            | Oparg::Pairs
            | Oparg::References
            | Oparg::NearReferences => oparg <= MAX_OPARG,
        };
        if !fits {
            let of_bundle = matches!(op.info().oparg, Oparg::CommonConst | Oparg::CommonName | Oparg::Commons);
            let why = if of_bundle && self.commons.is_none() { NO_TABLE } else { "the operand is out of range" };
            return Err(self.wrong(instruction, why));
        }
        let known = match op {
            Op::BuildSlice => self.python().has_slices(),
            Op::CallIntrinsic1 if oparg == Intrinsic::MakeFrozenDict.operand() => self.python().has_frozendict(),
            Op::MakeFullCode => self.python().first_traceable(&[]).is_some(),
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

    /// LOAD_FAST and COPY.
    fn copy(&mut self, instruction: Instruction, slot: usize) -> Result<()> {
        let n_slots = slot as u64 + 1;
        let Some(found) = self.stack.get_mut(slot) else { return Err(self.underflow(instruction, n_slots)) };
        if !found.value.has(LIVE) {
            return Err(self.wrong(instruction, EMPTY_SLOT));
        }
        found.value.share();
        let copied = *found;
        copied.retain::<E>();
        self.stack.push(copied);
        Ok(())
    }

    /// MAKE_STRING, of each of its four kinds.
    #[inline(always)]
    fn text(&mut self, instruction: Instruction) -> Outcome<'v, E> {
        let Some(class) = instruction.op.info().text else { unreachable!("MAKE_STRING has a class of text") };
        if instruction.oparg > MAX_OPARG {
            self.check_operand(instruction)?;
        }
        let section = if class.interned { Section::Names } else { Section::Strings };
        let data = *self.data.rest(section);
        let text = self.data.take(section, instruction.oparg)?;
        if is_ascii(text, data) == class.wide || class.wide && Str::utf8(text, class.interned).is_err() {
            return Err(self.wrong_text(instruction, section, text).into());
        }
        let object = self.make(Step::Str { text, wide: class.wide, interned: class.interned })?;
        self.push(object, Value::str(class.interned, class.interned || !is_name_like(text)));
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

    /// MAKE_STRINGS, MAKE_NAMES, MAKE_IDENTIFIERS. It is called a time or two for each module, and has all registers for its names.
    #[inline(never)]
    fn strings(&mut self, instruction: Instruction) -> Outcome<'v, E> {
        let Instruction { op, oparg } = instruction;
        if oparg == 0 || oparg > MAX_OPARG {
            self.check_operand(instruction)?;
        }
        let value = Value::str(true, true);
        if !op.has_hashes() {
            for _ in 0..oparg {
                let text = self.data.text(op)?;
                if !text.is_ascii() {
                    return Err(self.wrong(instruction, "the text is not ASCII").into());
                }
                let object = self.make(Step::Str { text, wide: false, interned: true })?;
                self.push(object, value);
            }
            return Ok(());
        }
        let hashes = self.data.hashes(oparg)?;
        let (counts, names) = (*self.data.rest(Section::Counts), *self.data.rest(Section::Names));
        let mut run = NameRun { hashes, counts, names };
        let (first, mut are_immortal) = (self.stack.len(), E::NAMES_ARE_IMMORTAL);
        self.stack.reserve(hashes.len());
        hashes.iter().take(AHEAD).for_each(|hash| self.executor.expect(u32::from_le_bytes(*hash)));
        // Where one name is new, many are: the executor is asked for those it knows less and less often.
        let mut n_asked = 1;
        while !run.hashes.is_empty() {
            // A name that is known is ASCII.
            self.executor.known_names(&mut run, &mut self.known_names);
            n_asked = if self.known_names.is_empty() { (2 * n_asked).min(MOST_ASKED) } else { 1 };
            let value_of_known = value.immortal(E::NAMES_ARE_IMMORTAL);
            self.stack.extend(self.known_names.drain(..).map(|object| Slot { object, value: value_of_known }));
            for _ in 0..n_asked {
                let Some((hash, hashes)) = run.hashes.split_first() else { break };
                if let Some(later) = run.hashes.get(AHEAD) {
                    self.executor.expect(u32::from_le_bytes(*later));
                }
                let Some((len, counts)) = varint::split(run.counts) else {
                    return Err(self.data.bad_varint(Section::Counts).into());
                };
                let Some((text, names)) = run.names.split_at_checked(len as usize) else {
                    return Err(self.data.cut_short(Section::Names, len).into());
                };
                let hash = u32::from_le_bytes(*hash);
                let (object, is_immortal) = match self.executor.known_name(text, hash) {
                    Some(object) => (object, E::NAMES_ARE_IMMORTAL),
                    None => {
                        self.check_name(instruction, text, run.names, hash)?;
                        self.executor.new_name(Checked::new(text), hash)?
                    }
                };
                run = NameRun { hashes, counts, names };
                are_immortal &= is_immortal;
                self.stack.push(Slot { object, value: value.immortal(is_immortal) });
            }
        }
        self.count(hashes.len(), 0);
        self.note_names(first, are_immortal);
        *self.data.rest(Section::Counts) = run.counts;
        *self.data.rest(Section::Names) = run.names;
        Ok(())
    }

    /// MAKE_TEXTS.
    #[inline(never)]
    fn texts(&mut self, instruction: Instruction) -> Outcome<'v, E> {
        let Instruction { op, oparg } = instruction;
        self.check_operand(instruction)?;
        self.stack.reserve((oparg as usize).min(self.data.rest(Section::Counts).len()));
        // Of most images, all are: they are looked at once.
        let strings = *self.data.rest(op.texts());
        let are_ascii = *self.strings_are_ascii.get_or_insert_with(|| strings.is_ascii());
        for _ in 0..oparg {
            let text = self.data.text(op)?;
            if !(are_ascii || text.is_ascii()) {
                return Err(self.wrong(instruction, "the text is not ASCII").into());
            }
            let object = self.make(Step::Str { text, wide: false, interned: false })?;
            self.push(object, Value::str(false, !is_name_like(text)));
        }
        Ok(())
    }

    /// Refuses a name that is not ASCII, or has another hash; `data` are it and what follows it.
    #[cold]
    fn check_name(&self, instruction: Instruction, text: &[u8], data: &[u8], hash: u32) -> Result<()> {
        match is_ascii(text, data) {
            false => Err(self.wrong(instruction, "the text is not ASCII")),
            true if common::name_hash(text) != hash => Err(self.wrong(instruction, "the hash is another name's")),
            true => Ok(()),
        }
    }

    /// Refuses items and keys that have no hash, or that nest deeper than the executor can hash.
    fn check_hashable(&self, slots: &[Slot<E::Object>], step: usize, role: &'static str) -> Result<()> {
        let values = slots.iter().step_by(step).map(|slot| slot.value);
        if let Some(value) = values.clone().find(|value| !value.has(HASHABLE)) {
            let what = if value.has(TUPLE) { "tuple" } else { value.name() };
            return Err(Error::at(ErrorKind::Unhashable { what, role }, self.at).inside("the instructions"));
        }
        match values.clone().find(|value| value.depth > E::MAX_DEPTH) {
            None => Ok(()),
            Some(_) => Err(Error::at(ErrorKind::TooDeep, self.at).inside("the instructions")),
        }
    }

    fn intrinsic(&self, instruction: Instruction, operands: &[Slot<E::Object>]) -> Result<Value> {
        let (traits, first) = (Traits::of(operands), operands[0].value);
        let (fits, value) = match Intrinsic::ALL[instruction.oparg as usize] {
            Intrinsic::MakeComplex => (traits.all & FLOAT != 0, Value::leaf(0)),
            Intrinsic::MakeFrozenSet => {
                if first.has(TUPLE) {
                    self.check_hashable(operands, 1, "a set item")?;
                }
                (first.has(TUPLE), traits.holder(HASHABLE | SETTLED | STALE, SETTLED))
            }
            Intrinsic::MakeFrozenDict => {
                let hashable = if first.has(FREEZABLE) { HASHABLE } else { 0 };
                let is_fresh = first.has(DICT) && !first.has(STALE);
                (is_fresh, traits.holder(hashable | SETTLED | STALE, SETTLED))
            }
        };
        if fits { Ok(value) } else { Err(self.wrong(instruction, "an operand has another type")) }
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

/// Most names that an executor is asked for one by one.
const MOST_ASKED: usize = 16;

const EMPTY_SLOT: &str = "it reaches a slot whose value was moved";

const NO_TABLE: &str = "it takes a value from the table of a bundle, and stands outside of one";

/// Whether an int in two's complement takes no fewer bytes.
fn is_shortest(bytes: &[u8]) -> bool {
    match bytes {
        [] => false,
        [_] => true,
        [.., below, top] => !matches!((top, below >> 7), (0, 0) | (0xff, 1)),
    }
}
