//! Checks an image, so that executing it needs no checks.
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

use crate::caches;
use crate::common;
use crate::data::{Batched, Data};
use crate::error::{Error, ErrorKind, Result};
use crate::heap::Str;
use crate::image::Image;
use crate::isa::{Instruction, Intrinsic, MAX_OPARG, Op, Oparg, Section, Table};
use crate::python::{DERIVED, Field, FieldKind, Python, count_kinds};

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
    /// Whether it has a hash; for a fresh dict, whether a frozendict of it would have one.
    hashable: bool,
    /// Length of a tuple; of bytes, where [`Verifier::bytes`] has them.
    len: u32,
}

/// What is known of bytes that are, or can become, a table of a code object.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    len: u32,
    /// If they are kinds of variables: how many are local, cells, and free.
    kinds: [u32; 3],
    /// If they are bytecode: the first instruction that is traced.
    first_traceable: u32,
}

impl Held {
    /// `section` is where the bytes stand.
    fn new(python: Python, section: Section, bytes: &[u8]) -> Result<Self> {
        let can_be = |table| matches!(section, Section::Bytes) || section == table;
        Ok(Self {
            len: u32::try_from(bytes.len()).map_err(|_| ErrorKind::TooLarge)?,
            kinds: if can_be(Section::Kinds) { count_kinds(bytes) } else { [0; 3] },
            first_traceable: match can_be(Section::Bytecode) {
                true => python.first_traceable(bytes).unwrap_or_default(),
                false => 0,
            },
        })
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
        Self { kind, hashable: kind != Kind::List, len: 0 }
    }

    /// Whether it can be a key.
    fn has_hash(self) -> bool {
        self.hashable && self.kind != Kind::FreshDict
    }

    /// A dict that something else holds, or that grows, is none to make a frozendict of.
    fn share(&mut self) {
        if self.kind == Kind::FreshDict {
            *self = Self { hashable: false, ..Self::new(Kind::Dict) };
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

/// Verifies an image.
///
/// # Errors
/// What does not hold of the invariants, with its byte and the part of the image it is in.
pub fn verify(image: Image<'_>) -> Result<Verified<'_>> {
    let python = image.python()?;
    let mut verifier = Verifier {
        python,
        instructions: &image.instructions,
        data: Data::new(&image),
        at: 0,
        // What the header states is believed only as far as the instructions can reach.
        stack: Vec::with_capacity((image.max_stack as usize).min(image.instructions.len() / 2)),
        reached: 0,
        operands: Vec::new(),
        // The first ones are no bytes at all: those of LOAD_COMMON_CONST.
        bytes: vec![Held::default()],
        uses: Vec::new(),
        tables: Default::default(),
        restored: Vec::new(),
        restored_ends: Vec::new(),
        n_objects: 0,
        n_items: 0,
    };
    let starts = verifier.run()?;
    verifier.data.check_end()?;
    let (reached, n_objects, n_items) = (verifier.reached, verifier.n_objects, verifier.n_items);
    let reached = u32::try_from(reached).expect("instructions are below 2 GiB");
    if reached != image.max_stack {
        return Err(ErrorKind::WrongStack { stated: image.max_stack, reached }.into());
    }
    let (restored, restored_ends) = (verifier.restored, verifier.restored_ends);
    Ok(Verified { python, n_objects, n_items, restored, restored_ends, starts, image })
}

struct Verifier<'v> {
    python: Python,
    instructions: &'v [u8],
    data: Data<'v>,
    /// Where the instruction begins.
    at: usize,
    stack: Vec<Value>,
    reached: usize,
    /// Where the operands of the instruction come from.
    operands: Vec<Option<u32>>,
    /// The bytes that were on the stack.
    bytes: Vec<Held>,
    /// By slot, as far as one of them says how often it is used; the others say nothing.
    uses: Vec<Option<Uses>>,
    /// By section of tables: the inline tables, by number.
    tables: [Vec<Held>; Section::ALL.len()],
    /// Bytecode whose caches were left out, whole.
    restored: Vec<u8>,
    /// Where each piece of it ends.
    restored_ends: Vec<usize>,
    n_objects: usize,
    n_items: usize,
}

impl Verifier<'_> {
    /// Whether the end is START_CODE.
    fn run(&mut self) -> Result<bool> {
        loop {
            let (instruction, next) =
                Instruction::decode(self.instructions, self.at).map_err(|error| error.inside("the instructions"))?;
            self.step(instruction)?;
            self.reached = self.reached.max(self.stack.len());
            let starts = instruction.op == Op::StartCode;
            if starts || instruction.op == Op::ReturnValue {
                if next != self.instructions.len() {
                    let why = "instructions follow the end";
                    return Err(Error::at(ErrorKind::BadEnd(why), next).inside("the instructions"));
                }
                self.check_uses()?;
                return Ok(starts);
            }
            self.at = next;
        }
    }

    fn step(&mut self, instruction: Instruction) -> Result<()> {
        let Instruction { op, oparg } = instruction;
        self.check_operand(instruction)?;
        self.data.operands(instruction, self.python, &mut self.operands)?;
        let needed = instruction.pops(&self.operands);
        if needed > self.stack.len() as u64 {
            return Err(self.underflow(instruction, needed));
        }
        let base = self.stack.len() - needed as usize;
        if base < self.uses.len() && needed > 0 {
            return Err(self.wrong(instruction, "it takes a str from the stack that says how often it is copied"));
        }
        let value = match op {
            Op::ExtendedArg => unreachable!("decoding folds it"),
            Op::LoadInt | Op::LoadChar | Op::LoadCommonConst | Op::LoadCommonName => load(instruction),
            Op::LoadFast => self.copy(instruction, oparg as usize)?,
            Op::Copy => {
                let slot = self.reach(instruction, self.stack.len())?;
                self.copy(instruction, slot)?
            }
            Op::MakeString | Op::MakeStringUtf8 | Op::MakeStringInterned | Op::MakeStringInternedUtf8 => {
                self.text(instruction)?
            }
            Op::MakeBytes => {
                let bytes = self.data.take(Section::Bytes, oparg)?;
                self.bytes.push(Held::new(self.python, Section::Bytes, bytes)?);
                let len = u32::try_from(self.bytes.len() - 1).map_err(|_| ErrorKind::TooLarge)?;
                Value { len, ..Value::new(Kind::Bytes) }
            }
            Op::MakeFloat => {
                self.data.float()?;
                Value::new(Kind::Float)
            }
            Op::MakeLong => self.long(instruction)?,
            Op::MakeStrings | Op::MakeNames | Op::MakeIdentifiers => return self.strings(instruction),
            Op::BuildTuple => tuple(&self.stack[base..]),
            Op::BuildTupleFrom => tuple(&self.gather(instruction, base)?),
            Op::BuildList => Value::new(Kind::List),
            Op::BuildSet => {
                self.check_hashable(&self.stack[base..], 1, "a set item")?;
                Value { hashable: false, ..Value::new(Kind::Other) }
            }
            Op::BuildMap => {
                self.check_hashable(&self.stack[base..], 2, "a dict key")?;
                Value {
                    hashable: self.stack[base..].iter().all(|value| value.has_hash()),
                    ..Value::new(Kind::FreshDict)
                }
            }
            Op::BuildSlice => {
                Value { hashable: self.stack[base..].iter().all(|value| value.has_hash()), ..Value::new(Kind::Other) }
            }
            Op::ListAppend | Op::MapAdd => {
                let slot = self.reach(instruction, base)?;
                let wanted = if op == Op::ListAppend { &[Kind::List][..] } else { &[Kind::Dict, Kind::FreshDict] };
                if !wanted.contains(&self.stack[slot].kind) {
                    return Err(self.wrong(instruction, "the value it reaches has another type"));
                }
                if op == Op::MapAdd {
                    self.check_hashable(&self.stack[base..], 2, "a dict key")?;
                    self.stack[slot].share();
                }
                self.n_items += needed as usize;
                self.stack.truncate(base);
                return Ok(());
            }
            Op::CallIntrinsic1 | Op::CallIntrinsic2 => self.intrinsic(instruction, base)?,
            Op::MakeCode | Op::MakeFullCode => {
                let operands = self.gather(instruction, base)?;
                self.code(instruction, &operands)?
            }
            Op::ReturnValue => return Ok(()),
            Op::StartCode => {
                if self.stack[base].kind != Kind::Code {
                    return Err(self.wrong(instruction, "the top is no code object"));
                }
                return Ok(());
            }
        };
        self.n_objects += usize::from(!matches!(op, Op::LoadFast | Op::Copy));
        self.n_items += (needed as usize).max(self.operands.len());
        self.stack.truncate(base);
        self.stack.push(value);
        Ok(())
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

    fn text(&mut self, instruction: Instruction) -> Result<Value> {
        let Some(class) = instruction.op.info().text else { unreachable!("MAKE_STRING has a class of text") };
        let section = if class.interned { Section::Names } else { Section::Strings };
        let start = self.data.position(section);
        let bytes = self.data.take(section, instruction.oparg)?;
        let inside = |error: Error| error.inside(format!("section {}", section.name()));
        match Str::utf8(bytes, class.interned) {
            Err(bad) => Err(inside(Error::at(ErrorKind::BadUtf8(bad), start))),
            Ok(text) if text.is_ascii() == class.wide => {
                Err(self.wrong(instruction, if class.wide { "the text is all ASCII" } else { "the text is not ASCII" }))
            }
            Ok(_) => Ok(Value::new(Kind::Str)),
        }
    }

    fn long(&mut self, instruction: Instruction) -> Result<Value> {
        let bytes = self.data.take(Section::Numbers, instruction.oparg)?;
        let shortest = match bytes {
            [] => false,
            [_] => true,
            [.., below, top] => !matches!((top, below >> 7), (0, 0) | (0xff, 1)),
        };
        if shortest { Ok(Value::new(Kind::Other)) } else { Err(self.wrong(instruction, "fewer bytes hold the int")) }
    }

    /// MAKE_STRINGS, MAKE_NAMES, MAKE_IDENTIFIERS.
    fn strings(&mut self, instruction: Instruction) -> Result<()> {
        for _ in 0..instruction.oparg {
            let Batched { text, uses, hash } = self.data.batched(instruction.op)?;
            if !text.is_ascii() {
                return Err(self.wrong(instruction, "the text is not ASCII"));
            }
            if hash.is_some_and(|hash| hash != common::name_hash(text)) {
                return Err(self.wrong(instruction, "the hash is another name's"));
            }
            if let Some(stated) = uses {
                self.uses.resize(self.stack.len(), None);
                self.uses.push(Some(Uses { at: self.at, stated, seen: 0 }));
            }
            self.stack.push(Value::new(Kind::Str));
        }
        self.n_objects += instruction.oparg as usize;
        Ok(())
    }

    /// The operands of an instruction that takes some from the stack, where they begin at `base`, and copies others.
    fn gather(&mut self, instruction: Instruction, base: usize) -> Result<Vec<Value>> {
        let operands = std::mem::take(&mut self.operands);
        let mut values = Vec::with_capacity(operands.len());
        let mut taken = base;
        for operand in &operands {
            values.push(match operand {
                Some(slot) => self.copy(instruction, *slot as usize)?,
                None => {
                    taken += 1;
                    self.stack[taken - 1]
                }
            });
        }
        self.operands = operands;
        Ok(values)
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
        let (fits, value) = match Intrinsic::ALL[instruction.oparg as usize] {
            Intrinsic::MakeComplex => (values.iter().all(|value| value.kind == Kind::Float), Value::new(Kind::Other)),
            Intrinsic::MakeFrozenSet => {
                let is_tuple = matches!(values[0].kind, Kind::Tuple | Kind::NameTuple);
                if is_tuple {
                    self.check_hashable(values, 1, "a set item")?;
                }
                (is_tuple, Value::new(Kind::Other))
            }
            Intrinsic::MakeFrozenDict => {
                let hashable = values[0].hashable;
                (values[0].kind == Kind::FreshDict, Value { hashable, ..Value::new(Kind::Other) })
            }
        };
        if fits { Ok(value) } else { Err(self.wrong(instruction, "an operand has another type")) }
    }

    fn code(&mut self, instruction: Instruction, operands: &[Value]) -> Result<Value> {
        let (python, layout) = (self.python, self.python.layout());
        let wrong_type = |field: Field, expected, found, at| {
            let kind = ErrorKind::WrongFieldType { field: field.name(), expected, found };
            Error::at(kind, at).inside("the instructions")
        };
        let mut lens = [0; Field::COUNT];
        for (&field, value) in layout.operands.iter().zip(operands) {
            let expected = match field.kind() {
                FieldKind::Str if value.kind == Kind::Str => continue,
                FieldKind::Str => "a str",
                FieldKind::Tuple if matches!(value.kind, Kind::Tuple | Kind::NameTuple) => continue,
                FieldKind::Names if value.kind == Kind::NameTuple => {
                    lens[field as usize] = value.len as usize;
                    continue;
                }
                FieldKind::Names => "a tuple of str",
                FieldKind::Tuple | FieldKind::Number | FieldKind::Bytes => "a tuple",
            };
            return Err(wrong_type(field, expected, value.name(), self.at));
        }
        let mut numbers = [0; Field::COUNT];
        for field in &layout.numbers {
            numbers[*field as usize] = self.data.count()?.cast_signed();
        }
        let mut n_locals = lens[Field::VarNames as usize];
        let mut derived = [0; DERIVED.len()];
        for &field in &layout.tables {
            let held = self.table(field)?;
            lens[field as usize] = held.len as usize;
            match field {
                Field::LocalsPlusKinds => {
                    n_locals = held.kinds[0] as usize;
                    derived[..3].copy_from_slice(&held.kinds);
                }
                Field::Code => derived[3] = held.first_traceable,
                _ => {}
            }
        }
        if instruction.op == Op::MakeFullCode && self.data.derived()? != derived {
            return Err(self.wrong(instruction, "CPython derives other numbers"));
        }
        let number = |field: Field| numbers[field as usize];
        let refused = python.refuses_code(number, |field| lens[field as usize]);
        if let Some(why) = refused.or_else(|| python.refuses_arguments(number, n_locals)) {
            return Err(Error::at(ErrorKind::BadCode(why), self.at).inside("the instructions"));
        }
        let operand = |field| layout.operands.iter().position(|operand| *operand == field);
        let consts = operand(Field::Consts).expect("every version has constants");
        Ok(Value { hashable: operands[consts].hashable, ..Value::new(Kind::Code) })
    }

    /// Numbers a table that stands in its section.
    fn inline(&mut self, section: Section, held: Held) -> Held {
        if held.len > 1 {
            self.tables[section as usize].push(held);
        }
        self.n_objects += 1;
        held
    }

    /// A table.
    fn table(&mut self, field: Field) -> Result<Held> {
        let bad = |verifier: &Self, number, why| verifier.wrong(Instruction { op: Op::MakeCode, oparg: number }, why);
        let section = Section::of_table(field);
        match self.data.table(field, self.python)? {
            Table::Inline(len) => {
                let held = Held::new(self.python, section, self.data.take(section, len)?)?;
                Ok(self.inline(section, held))
            }
            Table::Stripped(len) => {
                let bytes = self.data.take(section, len)?;
                let start = self.restored.len();
                caches::restore(self.python, bytes, &mut self.restored);
                self.restored_ends.push(self.restored.len());
                let held = Held::new(self.python, section, &self.restored[start..])?;
                Ok(self.inline(section, held))
            }
            Table::Earlier(number) => {
                let held = self.tables[section as usize].get(number as usize).copied();
                held.ok_or_else(|| bad(self, number, "no earlier table has this number"))
            }
            Table::Slot(slot) => match self.stack.get(slot as usize) {
                Some(&Value { kind: Kind::Bytes, len, .. }) => Ok(self.bytes[len as usize]),
                _ => Err(bad(self, slot, "no bytes stand in this slot")),
            },
        }
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

fn tuple(items: &[Value]) -> Value {
    let kind = if items.iter().all(|value| value.kind == Kind::Str) { Kind::NameTuple } else { Kind::Tuple };
    let len = u32::try_from(items.len()).expect("operands are 32 bits");
    Value { kind, hashable: items.iter().all(|value| value.has_hash()), len }
}

fn load(instruction: Instruction) -> Value {
    use common::CommonConst;
    match instruction.op {
        Op::LoadCommonName | Op::LoadChar => Value::new(Kind::Str),
        Op::LoadCommonConst => match common::CONSTS[instruction.oparg as usize].0 {
            CommonConst::EmptyStr => Value::new(Kind::Str),
            CommonConst::EmptyTuple => Value::new(Kind::NameTuple),
            CommonConst::EmptyBytes => Value::new(Kind::Bytes),
            _ => Value::new(Kind::Other),
        },
        _ => Value::new(Kind::Other),
    }
}
