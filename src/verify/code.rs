//! Code objects: what MAKE_CODE and MAKE_FULL_CODE take, from the stack, from slots and from the data.

use super::step::{Checked, CodeStep, Executor, TableOrigin, TableStep};
use super::value::{
    BYTES, CODE, HASHABLE, INTERNED, NAMES, SETTLED, STALE, STR, Slot, TUPLE, Traits, UNTRACKED, Value,
};
use super::{Outcome, Verifier};
use crate::caches::{self, has_caches};
use crate::data::{FullCode, MAX_TABLES, N_SLOTS};
use crate::error::{Error, ErrorKind, Result};
use crate::isa::{INLINE, Instruction, Op, Section, Table};
use crate::python::{CodeNumbers, Derived, Field, FieldKind, KindCounts, Python, count_kinds};

/// Where an operand of a code object comes from.
#[derive(Debug, Clone, Copy)]
struct OperandOrigin {
    /// From the top of what is left of the stack.
    is_taken: bool,
    /// Otherwise it is copied from this slot.
    slot: u32,
}

/// The operands of a code object.
struct Operands<O, const N: usize> {
    objects: [O; N],
    /// By bit: to which of the others there are new references.
    retained: u32,
}

impl<O: Copy, const N: usize> Operands<O, N> {
    /// Does something with those to which there are new references.
    fn each_retained(&self, mut apply: impl FnMut(O)) {
        for (bit, object) in self.objects.into_iter().enumerate() {
            if self.retained >> bit & 1 != 0 {
                apply(object);
            }
        }
    }
}

/// Where bytecode is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bytecode<'v> {
    /// In the image, as it stands in marshal.
    Plain(&'v [u8]),
    /// In the image, as CPython holds it.
    Quickened(&'v [u8]),
    /// In [`Verifier::restored`], as it stands in marshal.
    Restored(usize, usize),
}

impl<'v, E: Executor<'v>> Verifier<'v, E> {
    /// MAKE_FULL_CODE: as MAKE_CODE, of the one layout of the versions that have it.
    #[inline(always)]
    pub(super) fn full_code(&mut self, instruction: Instruction) -> Outcome<'v, E> {
        if instruction.oparg != 0 || self.python().first_traceable(&[]).is_none() {
            self.check_operand(instruction)?;
        }
        let (slots, full) = (self.data.slots()?, self.data.full_code()?);
        let Some(&any) = self.stack.first() else { return Err(self.underflow(instruction, 1).into()) };
        let mut operands = Operands { objects: [any.object; _], retained: 0 };
        let made = self.full_code_of(instruction, slots, full, &mut operands);
        self.push_code(made, &operands)
    }

    /// A tuple that is an operand of MAKE_FULL_CODE: one of its own, or one in a slot.
    #[inline(always)]
    fn tuple_operand<const AT: usize>(
        &mut self,
        instruction: Instruction,
        slot: u16,
        operands: &mut Operands<E::Object, N_OPERANDS>,
    ) -> Outcome<'v, E, Value> {
        if slot & INLINE == 0 {
            return Ok(self.copied_operand::<AT>(instruction, slot, operands)?);
        }
        let (object, value) = self.near_tuple(instruction, usize::from(slot & !INLINE), AT != AT_CONSTS)?;
        self.count(1, 0);
        operands.objects[AT] = object;
        operands.retained |= 1 << AT;
        Ok(value)
    }

    /// An operand of MAKE_FULL_CODE in a slot.
    #[inline(always)]
    fn copied_operand<const AT: usize>(
        &mut self,
        instruction: Instruction,
        slot: u16,
        operands: &mut Operands<E::Object, N_OPERANDS>,
    ) -> Result<Value> {
        let Some(found) = self.stack.get(usize::from(slot)) else {
            return Err(self.underflow(instruction, u64::from(slot) + 1));
        };
        operands.objects[AT] = found.object;
        if found.value.is_counted() {
            E::retain(found.object);
            operands.retained |= 1 << AT;
        }
        Ok(found.value)
    }

    #[inline(always)]
    fn full_code_of(
        &mut self,
        instruction: Instruction,
        slots: [u16; N_OPERANDS],
        full: FullCode,
        operands: &mut Operands<E::Object, N_OPERANDS>,
    ) -> Outcome<'v, E, (E::Object, Value)> {
        let (op, python) = (instruction.op, self.python());
        let names = self.tuple_operand::<0>(instruction, slots[0], operands)?;
        let consts = self.tuple_operand::<AT_CONSTS>(instruction, slots[AT_CONSTS], operands)?;
        let variables = self.tuple_operand::<2>(instruction, slots[2], operands)?;
        let name = self.copied_operand::<3>(instruction, slots[3], operands)?;
        let qualname = self.copied_operand::<4>(instruction, slots[4], operands)?;
        let filename = self.copied_operand::<5>(instruction, slots[5], operands)?;
        let (tuples, texts) = (names.traits & variables.traits, name.traits & qualname.traits & filename.traits);
        if tuples & NAMES == 0 || consts.traits & TUPLE == 0 || texts & STR == 0 {
            return Err(self.wrong_operands(&[names, consts, variables, name, qualname, filename]).into());
        }
        if consts.depth > E::MAX_DEPTH {
            return Err(Error::at(ErrorKind::TooDeep, self.at).inside("the instructions").into());
        }
        let texts = if python.interns_code_names() { texts } else { INTERNED };
        let is_interned = tuples & texts & INTERNED != 0 && consts.traits & SETTLED != 0;
        let [code, kinds, line_table, exception_table] = full.tables;
        let (bytecode, origin) = self.bytecode(op, Table::of_full(code, true))?;
        let kinds = self.table(op, Section::Kinds, Table::of_full(kinds, false))?;
        let line_table = self.table(op, Section::LineTables, Table::of_full(line_table, false))?;
        let exception_table = self.table(op, Section::ExceptionTables, Table::of_full(exception_table, false))?;
        let counts = self.count_kinds(&kinds);
        let (bytes, is_quickened) = match bytecode {
            Bytecode::Plain(bytes) => (bytes, false),
            Bytecode::Quickened(bytes) => (bytes, true),
            Bytecode::Restored(start, end) => (&self.restored[start..end], false),
        };
        let numbers = full.numbers();
        let number = |field: Field| numbers.get(field);
        let len = |field: Field| match field {
            Field::Code => bytes.len(),
            Field::LocalsPlusNames => variables.len as usize,
            _ => kinds.bytes.len(),
        };
        let refused = python.refuses_code(number, len);
        if let Some(why) = refused.or_else(|| python.refuses_arguments(number, counts.n_locals as usize)) {
            return Err(Error::at(ErrorKind::BadCode(why), self.at).inside("the instructions").into());
        }
        let bytecode = TableStep { bytes, origin, is_quickened };
        let tables = [bytecode, kinds, line_table, exception_table];
        let step = Checked::new(CodeStep {
            numbers,
            operands: &operands.objects,
            tables: &tables,
            derived: Derived { kinds: counts, first_traceable: self.first_traceable(bytes) },
            is_interned,
        });
        Ok((self.executor.code(&step)?, code_value(consts)))
    }

    /// The first instruction that is traced, for who executes: bytecode that many code objects share is copied into each by
    /// them, who may refuse to, but is not looked through for each here.
    #[inline(always)]
    fn first_traceable(&self, bytecode: &[u8]) -> u32 {
        if E::ONLY_VERIFIES { 0 } else { self.python().first_traceable(bytecode).unwrap_or_default() }
    }

    /// How many variables of each kind there are. Most tables of kinds stand there again and again.
    #[inline(always)]
    fn count_kinds(&mut self, kinds: &TableStep<'v, E::Object>) -> KindCounts {
        match kinds.origin {
            TableOrigin::Earlier(number) => match self.kind_counts.get(number) {
                Some(Some(counts)) => *counts,
                _ => self.count_kinds_of(number, kinds.bytes),
            },
            TableOrigin::Object(_) => self.count_kinds_in(kinds.bytes),
            TableOrigin::Once | TableOrigin::Numbered => count_kinds(kinds.bytes),
        }
    }

    #[cold]
    fn count_kinds_of(&mut self, number: usize, kinds: &[u8]) -> KindCounts {
        if self.kind_counts.len() <= number {
            self.kind_counts.resize(number + 1, None);
        }
        *self.kind_counts[number].insert(count_kinds(kinds))
    }

    /// Of bytes on the stack, which are the image's: where they lie says which they are.
    #[cold]
    fn count_kinds_in(&mut self, kinds: &'v [u8]) -> KindCounts {
        *self.slot_kind_counts.entry((kinds.as_ptr(), kinds.len())).or_insert_with(|| count_kinds(kinds))
    }

    /// MAKE_CODE.
    pub(super) fn code(&mut self, instruction: Instruction) -> Outcome<'v, E> {
        match self.layout.operands.len() {
            N_OPERANDS => self.code_with::<N_OPERANDS>(instruction),
            _ => self.code_with::<N_OLD_OPERANDS>(instruction),
        }
    }

    fn code_with<const N: usize>(&mut self, instruction: Instruction) -> Outcome<'v, E> {
        let mut origins = [OperandOrigin { is_taken: true, slot: 0 }; N];
        for (bit, origin) in origins.iter_mut().enumerate() {
            if instruction.oparg >> bit & 1 != 0 {
                *origin = OperandOrigin { is_taken: false, slot: self.data.reference()? };
            }
        }
        let (operands, values, base) = self.operands(instruction, origins)?;
        let made = self.code_of(instruction, &operands.objects, &values);
        if made.is_ok() {
            self.taken(base);
        }
        self.push_code(made, &operands)
    }

    /// Finds the operands of MAKE_CODE, what is known of them, and where those begin that are taken from the stack.
    fn operands<const N: usize>(
        &mut self,
        instruction: Instruction,
        origins: [OperandOrigin; N],
    ) -> Result<(Operands<E::Object, N>, [Value; N], usize)> {
        let n_taken = origins.iter().map(|origin| usize::from(origin.is_taken)).sum::<usize>();
        let Some(base) = self.stack.len().checked_sub(n_taken) else {
            return Err(self.underflow(instruction, n_taken as u64));
        };
        let Some(&any) = self.stack.first() else { return Err(self.underflow(instruction, 1)) };
        let (mut operands, mut values) = (Operands { objects: [any.object; N], retained: 0 }, [any.value; N]);
        let mut taken = base;
        for (bit, OperandOrigin { is_taken, slot }) in origins.into_iter().enumerate() {
            let at = if is_taken { taken } else { slot as usize };
            taken += usize::from(is_taken);
            let Some(found) = self.stack.get(at) else { return Err(self.underflow(instruction, at as u64 + 1)) };
            (operands.objects[bit], values[bit]) = (found.object, found.value);
            operands.retained |= u32::from(!is_taken & found.value.is_counted()) << bit;
        }
        operands.each_retained(E::retain);
        Ok((operands, values, base))
    }

    /// Pushes a code object that was made of operands, or gives up the references that were made to them.
    #[inline(always)]
    fn push_code<const N: usize>(
        &mut self,
        made: Outcome<'v, E, (E::Object, Value)>,
        operands: &Operands<E::Object, N>,
    ) -> Outcome<'v, E> {
        match made {
            Ok((object, value)) => {
                self.count(0, N);
                self.push(object, value);
                Ok(())
            }
            Err(error) => Err(Self::give_up(error, operands)),
        }
    }

    /// Gives up the references that were made to operands.
    #[cold]
    fn give_up<const N: usize>(error: E::Error, operands: &Operands<E::Object, N>) -> E::Error {
        operands.each_retained(E::release);
        error
    }

    /// The code object of MAKE_CODE.
    fn code_of(
        &mut self,
        instruction: Instruction,
        objects: &[E::Object],
        values: &[Value],
    ) -> Outcome<'v, E, (E::Object, Value)> {
        let (python, layout) = (self.python(), self.layout);
        if self.operand_traits.is_empty() {
            self.operand_traits = operand_traits(python);
        }
        let mut lens = [0; Field::COUNT];
        let (mut consts, mut not_interned) = (Value::leaf(0), 0);
        for ((&field, &value), &(needed, interned)) in layout.operands.iter().zip(values).zip(&self.operand_traits) {
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
        if consts.depth > E::MAX_DEPTH {
            return Err(Error::at(ErrorKind::TooDeep, self.at).inside("the instructions").into());
        }
        let mut numbers = [0; Field::COUNT];
        for field in &layout.numbers {
            numbers[*field as usize] = self.data.count()?.cast_signed();
        }
        let nothing = TableStep { bytes: &[], origin: TableOrigin::Once, is_quickened: false };
        let (mut tables, mut bytecode) = ([nothing; MAX_TABLES], Bytecode::Plain(&[]));
        let mut counts = KindCounts::default();
        for (&field, table) in layout.tables.iter().zip(&mut tables) {
            let number = self.data.count()?;
            if field == Field::Code {
                let stands = Table::of(number, has_caches(python));
                (bytecode, table.origin) = self.bytecode(instruction.op, stands)?;
                continue;
            }
            let found = self.table(instruction.op, Section::of_table(field), Table::of(number, false))?;
            lens[field as usize] = found.bytes.len();
            if field == Field::LocalsPlusKinds {
                counts = self.count_kinds(&found);
            }
            *table = found;
        }
        // Of all versions the first table.
        tables[0].bytes = match bytecode {
            Bytecode::Plain(bytes) | Bytecode::Quickened(bytes) => bytes,
            Bytecode::Restored(start, end) => &self.restored[start..end],
        };
        lens[Field::Code as usize] = tables[0].bytes.len();
        let number = |field: Field| numbers[field as usize];
        let refused = python.refuses_code(number, |field| lens[field as usize]);
        let n_all_locals = lens[Field::VarNames as usize] + counts.n_locals as usize;
        if let Some(why) = refused.or_else(|| python.refuses_arguments(number, n_all_locals)) {
            return Err(Error::at(ErrorKind::BadCode(why), self.at).inside("the instructions").into());
        }
        let step = Checked::new(CodeStep {
            numbers: CodeNumbers {
                arg_count: number(Field::ArgCount),
                pos_only_arg_count: number(Field::PosOnlyArgCount),
                kw_only_arg_count: number(Field::KwOnlyArgCount),
                stack_size: number(Field::StackSize),
                flags: number(Field::Flags),
                first_line_no: number(Field::FirstLineNo),
            },
            operands: objects,
            tables: &tables[..layout.tables.len()],
            derived: Derived { kinds: counts, first_traceable: self.first_traceable(tables[0].bytes) },
            is_interned: not_interned == 0,
        });
        Ok((self.executor.code(&step)?, code_value(consts)))
    }

    /// Which of the operands of MAKE_FULL_CODE has another type.
    #[cold]
    fn wrong_operands(&self, values: &[Value]) -> Error {
        let mut operands = self.layout.operands.iter().zip(values).zip(operand_traits(self.python()));
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
    fn bytecode(
        &mut self,
        op: Op,
        (stands, is_numbered): (Table, bool),
    ) -> Result<(Bytecode<'v>, TableOrigin<E::Object>)> {
        let bytecode = match stands {
            Table::Inline(len) => Bytecode::Plain(self.data.take(Section::Bytecode, len)?),
            Table::Quickened(len) if !E::ONLY_VERIFIES => Bytecode::Quickened(self.data.take(Section::Bytecode, len)?),
            Table::Quickened(len) => {
                let bytes = self.data.take(Section::Bytecode, len)?;
                let start = self.restored.len();
                if !caches::unquicken(self.python(), bytes, &mut self.restored) {
                    let instruction = Instruction { op, oparg: len };
                    return Err(self.wrong(instruction, "its bytecode is not as CPython quickens it"));
                }
                self.restored_from(start)
            }
            Table::Stripped(len) => {
                let bytes = self.data.take(Section::Bytecode, len)?;
                let start = self.restored.len();
                caches::restore(self.python(), bytes, &mut self.restored);
                self.restored_from(start)
            }
            Table::Earlier(number) => {
                let earlier = self.bytecodes.get(number as usize).copied();
                let bytecode = earlier.ok_or_else(|| self.no_earlier(op, number))?;
                return Ok((bytecode, TableOrigin::Earlier(number as usize)));
            }
            Table::Slot(slot) => {
                let (bytes, object) = self.bytes_in(op, slot)?;
                return Ok((Bytecode::Plain(bytes), TableOrigin::Object(object)));
            }
        };
        if is_numbered {
            self.bytecodes.push(bytecode);
        }
        self.count(1, 0);
        Ok((bytecode, TableOrigin::inline(is_numbered)))
    }

    /// Another table, and where it comes from.
    #[inline(always)]
    fn table(
        &mut self,
        op: Op,
        section: Section,
        (stands, is_numbered): (Table, bool),
    ) -> Result<TableStep<'v, E::Object>> {
        let (bytes, origin) = match stands {
            Table::Inline(len) => {
                let bytes = self.data.take(section, len)?;
                if is_numbered {
                    self.tables[section as usize].push(bytes);
                }
                self.count(1, 0);
                (bytes, TableOrigin::inline(is_numbered))
            }
            Table::Earlier(number) => {
                let bytes = self.tables[section as usize].get(number as usize).copied();
                let bytes = bytes.ok_or_else(|| self.no_earlier(op, number))?;
                (bytes, TableOrigin::Earlier(number as usize))
            }
            Table::Slot(slot) => {
                let (bytes, object) = self.bytes_in(op, slot)?;
                (bytes, TableOrigin::Object(object))
            }
            Table::Stripped(_) | Table::Quickened(_) => unreachable!("only bytecode has caches"),
        };
        Ok(TableStep { bytes, origin, is_quickened: false })
    }

    /// The bytes in a slot.
    fn bytes_in(&self, op: Op, slot: u32) -> Result<(&'v [u8], E::Object)> {
        match self.stack.get(slot as usize) {
            Some(Slot { value, object }) if value.has(BYTES) => Ok((self.bytes[value.len as usize], *object)),
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
}

/// What MAKE_FULL_CODE takes: names, constants, names of variables, name, qualname, filename.
const N_OPERANDS: usize = N_SLOTS;

/// Which of these are the constants.
const AT_CONSTS: usize = 1;

/// What MAKE_CODE takes before 3.11.
const N_OLD_OPERANDS: usize = 7;

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
