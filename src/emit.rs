//! Generates the instructions and the binary data.
//!
//! Invariants:
//! - The slots are filled from the bottom in the order of the [`Schedule`], then the deferred containers, and the root
//!   is made last, on top.
//! - A value that is on the stack is referred to by LOAD_FAST or COPY, whichever is shorter.
//! - Instructions that copy their operands themselves are used in profiles in which no value is kept: what is on the stack
//!   for them when their value is begun is what is there when it is made.

use std::borrow::Cow;

use crate::caches;
use crate::common;
use crate::data::{FullCode, ON_STACK};
use crate::error::{ErrorKind, Result};
use crate::graph::{Graph, NodeId};
use crate::heap::{CodeId, Object, Str};
use crate::image::Image;
use crate::isa::{Instruction, Intrinsic, Op, Section, Table};
use crate::key::Sharing;
use crate::profile::Profile;
use crate::python::Field;
use crate::schedule::Schedule;
use crate::share::{Decision, Shared, fewest_bytes, immediate};
use crate::varint;

/// How an initializer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum End {
    /// RETURN_VALUE: it gives its object back.
    #[default]
    Return,
    /// START_CODE: it executes its code object.
    Start,
}

/// What the instructions are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Which are used.
    pub profile: Profile,
    /// Whether bytecode is stored without its inline caches.
    pub strips_caches: bool,
    /// How they end.
    pub end: End,
}

/// Emits what makes the root of a graph. The image has no names and no source section yet.
///
/// # Errors
/// [`ErrorKind::NotCode`] if START_CODE has no code object to start; [`ErrorKind::BudgetExceeded`] if building values
/// anew at each use takes more than `budget` bytes.
pub fn emit(
    graph: &Graph<'_, '_>,
    shared: &Shared,
    schedule: &Schedule,
    dialect: Dialect,
    budget: usize,
) -> Result<Image<'static>> {
    Ok(Emitter::new(graph, shared, schedule, dialect, budget).emit()?.0)
}

/// Where the values were made, for those who ask how. Of what is made several times, the last time counts.
#[derive(Debug)]
pub(crate) struct Trace {
    /// By node: where the instruction ends that made it.
    made_at: Vec<u32>,
    /// By node: where on the stack it stood then.
    made_in: Vec<u32>,
}

impl Trace {
    /// Where the instruction ends that made a value, in bytes, and the place on the stack in which it left it; `None` if
    /// each use loads it, or if it stands in the data alone.
    pub(crate) fn of(&self, id: NodeId) -> Option<(u32, u32)> {
        let place = self.made_in[id.index()];
        (place != NONE).then(|| (self.made_at[id.index()], place))
    }
}

/// As [`emit`], with where each value was made.
pub(crate) fn emit_traced(
    graph: &Graph<'_, '_>,
    shared: &Shared,
    schedule: &Schedule,
    dialect: Dialect,
    budget: usize,
) -> Result<(Image<'static>, Trace)> {
    let mut emitter = Emitter::new(graph, shared, schedule, dialect, budget);
    emitter.trace = Some(Trace { made_at: vec![NONE; graph.len()], made_in: vec![NONE; graph.len()] });
    let (image, trace) = emitter.emit()?;
    Ok((image, trace.expect("it was there")))
}

/// How many bytes of a section to expect a node, as measured on standard libraries. The rare ones grow.
fn expected(section: Section) -> usize {
    match section {
        Section::Names | Section::Strings | Section::Bytecode | Section::LineTables => 8,
        Section::Counts | Section::References => 2,
        _ => 0,
    }
}

/// A value that is being made.
#[derive(Clone, Copy)]
struct Frame<'g> {
    id: NodeId,
    /// Those that are still to come.
    operands: &'g [NodeId],
    /// How many operands it copies itself; `None` if it takes all of them from the stack.
    n_copied: Option<u32>,
}

struct Emitter<'g> {
    graph: &'g Graph<'g, 'g>,
    shared: &'g Shared,
    schedule: &'g Schedule,
    instructions: Vec<u8>,
    sections: [Vec<u8>; Section::ALL.len()],
    /// By node: where on the stack it stands, if it is to be copied from there.
    place_of: Vec<u32>,
    /// Values that are made again when they are consumed, as they lie on the stack.
    again: Vec<NodeId>,
    height: u32,
    max_height: u32,
    frames: Vec<Frame<'g>>,
    /// By node: the number of the table that holds it, in its section. Empty until the first table.
    table_numbers: Vec<u32>,
    /// By node: how many code objects have it as a table, 2 for more. Empty if all tables are numbered.
    table_users: Vec<u8>,
    n_tables: [u32; Section::ALL.len()],
    /// By node: whether it is bytecode that can be quickened, once that was asked. Empty until then.
    quickens: Vec<Option<bool>>,
    trace: Option<Trace>,
    dialect: Dialect,
    budget: usize,
}

const NONE: u32 = u32::MAX;

impl<'g> Emitter<'g> {
    fn new(
        graph: &'g Graph<'g, 'g>,
        shared: &'g Shared,
        schedule: &'g Schedule,
        dialect: Dialect,
        budget: usize,
    ) -> Self {
        Self {
            graph,
            shared,
            schedule,
            instructions: Vec::with_capacity(4 * graph.len()),
            sections: Section::ALL.map(|section| Vec::with_capacity(expected(section) * graph.len())),
            place_of: vec![NONE; graph.len()],
            again: Vec::new(),
            height: 0,
            max_height: 0,
            frames: Vec::new(),
            table_numbers: Vec::new(),
            quickens: Vec::new(),
            table_users: if dialect.profile.is_for_loaders() { table_users(graph) } else { Vec::new() },
            n_tables: [0; Section::ALL.len()],
            trace: None,
            dialect,
            budget,
        }
    }

    fn emit(mut self) -> Result<(Image<'static>, Option<Trace>)> {
        self.slots()?;
        self.deferred()?;
        self.value(self.graph.root)?;
        self.end(self.dialect.end)?;
        let image = Image {
            magic: self.graph.heap.python().magic(),
            max_stack: self.max_height,
            module: Cow::Borrowed(""),
            filename: Cow::Borrowed(""),
            instructions: Cow::Owned(self.instructions),
            sections: self.sections.map(Cow::Owned),
            source: None,
        };
        Ok((image, self.trace))
    }

    fn slots(&mut self) -> Result<()> {
        let slots = &self.schedule.slots;
        let mut batches = self.schedule.batches.iter().peekable();
        let mut at = 0;
        while let Some(&id) = slots.get(at) {
            if let Some(batch) = batches.next_if(|batch| batch.start == at) {
                self.batch(batch.op, &slots[at..at + batch.len]);
                at += batch.len;
                continue;
            }
            if at < self.graph.deferred.len() {
                let op = if matches!(self.graph.object(id), Object::Dict(_)) { Op::BuildMap } else { Op::BuildList };
                self.op(op, 0);
                self.pushed();
                self.made(id);
            } else {
                match immediate(self.graph, id, self.dialect.profile) {
                    Some(instruction) => {
                        self.op(instruction.op, instruction.oparg);
                        self.pushed();
                        self.made(id);
                    }
                    None => self.value(id)?,
                }
            }
            at += 1;
        }
        Ok(())
    }

    /// MAKE_STRINGS, MAKE_NAMES, MAKE_IDENTIFIERS, LOAD_MANY_NAMES, LOAD_MANY_CONSTS.
    fn batch(&mut self, op: Op, ids: &[NodeId]) {
        self.op(op, u32::try_from(ids.len()).expect("no more than nodes"));
        for &id in ids {
            if let Some(common) = self.graph.common(id) {
                varint::write(&mut self.sections[Section::References as usize], common.oparg);
                self.pushed();
                self.made(id);
                continue;
            }
            let Object::Str(text) = *self.graph.object(id) else { unreachable!("only str are batched") };
            let len = self.take(Section::Names, text.raw().0);
            varint::write(&mut self.sections[Section::Counts as usize], len);
            if op.has_hashes() {
                self.take(Section::Hashes, &common::name_hash(text.raw().0).to_le_bytes());
            }
            self.pushed();
            self.made(id);
        }
    }

    fn deferred(&mut self) -> Result<()> {
        for (slot, (id, fills)) in (0..).zip(&self.graph.deferred) {
            let (op, step) =
                if matches!(self.graph.object(*id), Object::Dict(_)) { (Op::MapAdd, 2) } else { (Op::ListAppend, 1) };
            for values in fills.chunks_exact(step) {
                for value in values {
                    self.value(*value)?;
                }
                self.pop(step as u32);
                self.op(op, self.height - slot);
            }
        }
        Ok(())
    }

    fn end(&mut self, end: End) -> Result<()> {
        let root = self.graph.object(self.graph.root);
        match (end, root) {
            (End::Return, _) => self.op(Op::ReturnValue, 0),
            (End::Start, Object::Code(_)) => self.op(Op::StartCode, 0),
            (End::Start, other) => return Err(ErrorKind::NotCode(other.type_name()).into()),
        }
        Ok(())
    }

    /// Brings one value onto the stack, with everything that is made in place for it.
    fn value(&mut self, id: NodeId) -> Result<()> {
        if self.at_once(id) {
            return self.check_budget();
        }
        let mut frame = self.open(id);
        loop {
            match self.operands(&mut frame)? {
                Some(operand) => {
                    let operand = self.open(operand);
                    self.frames.push(std::mem::replace(&mut frame, operand));
                }
                None => {
                    self.finish(frame.id, frame.n_copied);
                    self.made(frame.id);
                    self.check_budget()?;
                    match self.frames.pop() {
                        Some(outer) => frame = outer,
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    /// Brings the next operands onto the stack, up to one that is to be opened.
    fn operands(&mut self, frame: &mut Frame<'g>) -> Result<Option<NodeId>> {
        while let Some((&operand, rest)) = frame.operands.split_first() {
            frame.operands = rest;
            let is_copied = frame.n_copied.is_some() && self.place_of[operand.index()] != NONE;
            if !is_copied && !self.at_once(operand) {
                return Ok(Some(operand));
            }
            self.check_budget()?;
        }
        Ok(None)
    }

    /// Brings a value onto the stack if that takes no other value; else it is to be opened.
    fn at_once(&mut self, id: NodeId) -> bool {
        let place = self.place_of[id.index()];
        if place != NONE && (self.is_near(place) || self.shared.decision(id) != Decision::Rebuild) {
            self.copy(place);
        } else if let Decision::Load(instruction) = self.shared.decision(id) {
            self.op(instruction.op, instruction.oparg);
            self.pushed();
        } else if self.graph.object(id).is_compound() {
            return false;
        } else {
            self.leaf(id);
            self.made(id);
        }
        true
    }

    fn open(&mut self, id: NodeId) -> Frame<'g> {
        let operands = self.graph.operands(id);
        let n_copied = self.n_copied(id, operands);
        let is_all_copied = n_copied.is_some_and(|n| n as usize == operands.len());
        Frame { id, operands: if is_all_copied { &[] } else { operands }, n_copied }
    }

    /// How many operands of a value are copied by the instruction that makes it, if that is shorter.
    fn n_copied(&self, id: NodeId, operands: &[NodeId]) -> Option<u32> {
        if !self.dialect.profile.has_own_instructions() {
            return None;
        }
        let is_code = match self.graph.object(id) {
            Object::Code(_) => true,
            Object::Tuple(_) => false,
            _ => return None,
        };
        let (mut as_operands, mut as_references, mut n_copied) = (0, 0, 0);
        // Whether an operand has a place is anyone's guess, so nothing branches on it.
        for operand in operands {
            let place = self.place_of[operand.index()];
            let has_place = usize::from(place != NONE);
            as_operands += has_place * (2 + 2 * usize::from(!self.is_near(place)));
            as_references += has_place * varint::len(place.wrapping_add(u32::from(!is_code)));
            n_copied += has_place;
        }
        if !is_code {
            // MAKE_CODE tells by its oparg which ones it copies.
            as_references += operands.len() - n_copied;
        }
        // A loader executes one instruction faster than many.
        let is_better = as_references < as_operands || self.dialect.profile.is_for_loaders() && n_copied > 0;
        is_better.then_some(n_copied as u32)
    }

    #[inline]
    fn check_budget(&self) -> Result<()> {
        if self.budget != usize::MAX && self.size() > self.budget {
            let budget = self.budget as u64;
            return Err(ErrorKind::BudgetExceeded { what: "building every value anew", budget }.into());
        }
        Ok(())
    }

    /// Notes where a value stands that other uses copy.
    fn made(&mut self, id: NodeId) {
        let decision = self.shared.decision(id);
        let is_made_again =
            decision == Decision::Rebuild && self.dialect.profile.keeps_values() && self.graph.sharing != Sharing::None;
        if is_made_again {
            self.again.push(id);
        }
        if matches!(decision, Decision::Hoist | Decision::Keep) || is_made_again {
            self.place_of[id.index()] = self.height - 1;
        }
        if let Some(trace) = &mut self.trace {
            trace.made_at[id.index()] = u32::try_from(self.instructions.len()).unwrap_or(NONE);
            trace.made_in[id.index()] = self.height - 1;
        }
    }

    fn size(&self) -> usize {
        self.instructions.len() + self.sections.iter().map(Vec::len).sum::<usize>()
    }

    #[inline]
    fn op(&mut self, op: Op, oparg: u32) {
        Instruction { op, oparg }.encode(&mut self.instructions);
    }

    #[inline]
    fn pushed(&mut self) {
        self.height += 1;
        self.max_height = self.max_height.max(self.height);
    }

    /// Drops values that were consumed.
    fn pop(&mut self, n: u32) {
        self.height -= n;
        while let Some(id) = self.again.pop_if(|id| self.place_of[id.index()] >= self.height) {
            self.place_of[id.index()] = NONE;
        }
    }

    /// Whether a reference to a place takes no EXTENDED_ARG.
    #[inline]
    fn is_near(&self, place: u32) -> bool {
        (place < 0x100) | (self.height.wrapping_sub(place) < 0x100)
    }

    fn copy(&mut self, slot: u32) {
        let depth = self.height - slot;
        if Instruction::len(slot) <= Instruction::len(depth) {
            self.op(Op::LoadFast, slot);
        } else {
            self.op(Op::Copy, depth);
        }
        self.pushed();
    }

    fn take(&mut self, section: Section, data: &[u8]) -> u32 {
        self.sections[section as usize].extend_from_slice(data);
        u32::try_from(data.len()).expect("inputs are below 2 GiB")
    }

    fn leaf(&mut self, id: NodeId) {
        match *self.graph.object(id) {
            Object::Int(value) => {
                let (len, bytes) = fewest_bytes(value);
                self.long(&bytes[..len]);
            }
            Object::Long(long) => self.long(&self.graph.heap.long(long).to_signed_bytes_le()),
            Object::Float(bits) => self.float(bits),
            Object::Complex { real, imag } => {
                self.float(real);
                self.float(imag);
                self.height -= 2;
                self.intrinsic(Intrinsic::MakeComplex);
                self.pushed();
            }
            Object::Bytes(bytes) => {
                let oparg = self.take(Section::Bytes, bytes);
                self.op(Op::MakeBytes, oparg);
                self.pushed();
            }
            Object::Str(text) => self.text(text),
            other => unreachable!("{} is no leaf, or loads at once", other.type_name()),
        }
    }

    fn long(&mut self, bytes: &[u8]) {
        let oparg = self.take(Section::Numbers, bytes);
        self.op(Op::MakeLong, oparg);
        self.pushed();
    }

    fn float(&mut self, bits: u64) {
        self.take(Section::Numbers, &bits.to_le_bytes());
        self.op(Op::MakeFloat, 0);
        self.pushed();
    }

    fn text(&mut self, text: Str<'_>) {
        let (op, section) = match (text.is_interned(), text.is_ascii()) {
            (false, true) => (Op::MakeString, Section::Strings),
            (false, false) => (Op::MakeStringUtf8, Section::Strings),
            (true, true) => (Op::MakeStringInterned, Section::Names),
            (true, false) => (Op::MakeStringInternedUtf8, Section::Names),
        };
        let oparg = self.take(section, text.to_utf8(&mut Vec::new()));
        self.op(op, oparg);
        self.pushed();
    }

    fn intrinsic(&mut self, intrinsic: Intrinsic) {
        self.op(intrinsic.op(), intrinsic.operand());
    }

    /// Makes a value, of the operands that are on the stack and of those that it copies itself.
    fn finish(&mut self, id: NodeId, n_copied: Option<u32>) {
        let operands = self.graph.operands(id);
        let n_operands = u32::try_from(operands.len()).expect("inputs are below 2 GiB");
        match self.graph.object(id) {
            Object::Tuple(_) if n_copied.is_some() => {
                // The number of nothing is 0.
                let number = |operand: &NodeId| self.place_of[operand.index()].wrapping_add(1);
                let is_near = self.dialect.profile.is_for_loaders()
                    && operands.iter().all(|operand| u16::try_from(number(operand)).is_ok());
                let section = &mut self.sections[Section::References as usize];
                if is_near {
                    operands.iter().rev().for_each(|operand| section.extend((number(operand) as u16).to_le_bytes()));
                } else {
                    operands.iter().rev().for_each(|operand| varint::write(section, number(operand)));
                }
                self.op(if is_near { Op::BuildTupleNear } else { Op::BuildTupleFrom }, n_operands);
            }
            Object::Tuple(_) => self.op(Op::BuildTuple, n_operands),
            Object::List(_) => self.op(Op::BuildList, n_operands),
            Object::Set(_) => self.op(Op::BuildSet, n_operands),
            Object::Dict(_) => self.op(Op::BuildMap, n_operands / 2),
            Object::Slice(_) => self.op(Op::BuildSlice, n_operands),
            Object::FrozenSet(_) => {
                self.op(Op::BuildTuple, n_operands);
                self.intrinsic(Intrinsic::MakeFrozenSet);
            }
            Object::FrozenDict(_) => {
                self.op(Op::BuildMap, n_operands / 2);
                self.intrinsic(Intrinsic::MakeFrozenDict);
            }
            Object::Code(code) => self.code(id, *code, n_copied.is_some()),
            other => unreachable!("{} has no operands", other.type_name()),
        }
        self.pop(n_operands - n_copied.unwrap_or(0));
        self.pushed();
    }

    /// MAKE_CODE or MAKE_FULL_CODE, its numbers, and its tables: see [`Table`].
    fn code(&mut self, id: NodeId, code: CodeId, copies: bool) {
        let layout = self.graph.heap.python().layout();
        let code = self.graph.heap.code(code);
        let numbers = layout.numbers.iter().map(|field| code.number(*field));
        let operands = self.graph.operands(id);
        let slot = |emitter: &Self, operand: &NodeId| {
            Some(emitter.place_of[operand.index()]).filter(|place| copies && *place != NONE)
        };
        if let Some((small, large)) = self.full_numbers(id, numbers.clone()) {
            for operand in operands {
                let slot = slot(self, operand).map_or(ON_STACK, |slot| slot as u16);
                self.take(Section::References, &slot.to_le_bytes());
            }
            let mut full = FullCode { small, large, tables: [0; _] };
            for ((to, field), &table) in full.tables.iter_mut().zip(&layout.tables).zip(self.graph.tables(id)) {
                let (table, is_numbered) = self.table(table, *field, true);
                *to = table.full_number(is_numbered);
            }
            full.write(&mut self.sections[Section::Counts as usize]);
            return self.op(Op::MakeFullCode, 0);
        }
        numbers.for_each(|number| varint::write(&mut self.sections[Section::Counts as usize], number.cast_unsigned()));
        for (field, &table) in layout.tables.iter().zip(self.graph.tables(id)) {
            let has_caches = *field == Field::Code && caches::has_caches(self.graph.heap.python());
            let (table, _) = self.table(table, *field, false);
            varint::write(&mut self.sections[Section::Counts as usize], table.number(has_caches));
        }
        let mut mask = 0;
        for (at, operand) in operands.iter().enumerate() {
            if let Some(place) = slot(self, operand) {
                mask |= 1 << at;
                varint::write(&mut self.sections[Section::References as usize], place);
            }
        }
        self.op(Op::MakeCode, mask);
    }

    /// The bytes of the tables of a code object.
    fn tables(&self, id: NodeId) -> impl Iterator<Item = (Field, &'g [u8])> {
        let graph = self.graph;
        graph.heap.python().layout().tables.iter().zip(graph.tables(id)).map(move |(field, &table)| {
            let Object::Bytes(bytes) = *graph.object(table) else { unreachable!("the reader checks fields") };
            (*field, bytes)
        })
    }

    /// The numbers of MAKE_FULL_CODE for a code object, if it is made by that: the profile wants it, the version has it, the
    /// bytecode is one that can be quickened, and there is room for its numbers, lengths and slots.
    fn full_numbers(&mut self, id: NodeId, numbers: impl Iterator<Item = i32>) -> Option<([u16; 4], [u32; 2])> {
        let python = self.graph.heap.python();
        if !self.dialect.profile.is_for_loaders() || python.first_traceable(&[]).is_none() {
            return None;
        }
        let is_far = |operand: &NodeId| (u32::from(ON_STACK)..NONE).contains(&self.place_of[operand.index()]);
        if self.graph.operands(id).iter().any(is_far)
            || self.tables(id).any(|(_, table)| table.len() > FullCode::MAX_TABLE)
            || !self.is_quickened(id)
        {
            return None;
        }
        FullCode::of_numbers(numbers.collect::<Vec<_>>().try_into().ok()?)
    }

    /// Whether the bytecode of a code object can be quickened. What many of them share may be long, so that is tried once.
    fn is_quickened(&mut self, id: NodeId) -> bool {
        let graph = self.graph;
        // Of all versions the first table.
        let bytecode = graph.tables(id)[0];
        let Object::Bytes(bytes) = *graph.object(bytecode) else { unreachable!("the reader checks fields") };
        if self.quickens.is_empty() {
            self.quickens = vec![None; graph.len()];
        }
        let quicken = || caches::quicken(graph.heap.python(), bytes, &mut Vec::with_capacity(bytes.len()));
        *self.quickens[bytecode.index()].get_or_insert_with(quicken)
    }

    /// Where a table stands, and whether it is numbered; its bytes go to its section, if they are not on the stack or there
    /// already. Empty and one-byte tables are process-wide, so sharing them says nothing.
    fn table(&mut self, id: NodeId, field: Field, is_full: bool) -> (Table, bool) {
        let Object::Bytes(bytes) = *self.graph.object(id) else { unreachable!("the reader checks fields") };
        let section = Section::of_table(field);
        let (has_number, is_shared) = (bytes.len() > 1, self.graph.sharing != Sharing::None);
        // MAKE_CODE numbers every one.
        let is_numbered = has_number && (!is_full || is_shared && self.table_users.get(id.index()) == Some(&2));
        if has_number
            && is_shared
            && let Some(slot) = self.schedule.slot(id)
        {
            return (Table::Slot(slot), false);
        }
        if is_numbered {
            if is_shared {
                if self.table_numbers.is_empty() {
                    self.table_numbers = vec![NONE; self.graph.len()];
                }
                let number = &mut self.table_numbers[id.index()];
                if *number != NONE {
                    return (Table::Earlier(*number), false);
                }
                *number = self.n_tables[section as usize];
            }
            self.n_tables[section as usize] += 1;
        }
        let data = &mut self.sections[section as usize];
        let start = data.len();
        let len = |data: &[u8]| u32::try_from(data.len() - start).expect("inputs are below 2 GiB");
        let python = self.graph.heap.python();
        if self.dialect.strips_caches && field == Field::Code && caches::strip(python, bytes, data) {
            return (Table::Stripped(len(data)), is_numbered);
        }
        if is_full && field == Field::Code && caches::quicken(python, bytes, data) {
            return (Table::Quickened(len(data)), is_numbered);
        }
        data.extend_from_slice(bytes);
        (Table::Inline(len(data)), is_numbered)
    }
}

/// By node: how many code objects have it as a table, 2 for more.
fn table_users(graph: &Graph<'_, '_>) -> Vec<u8> {
    let mut users = vec![0u8; graph.len()];
    for id in graph.ids() {
        graph.tables(id).iter().for_each(|table| users[table.index()] = (users[table.index()] + 1).min(2));
    }
    users
}
