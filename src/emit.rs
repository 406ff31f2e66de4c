//! Generates the instructions and the binary data.
//!
//! Invariants:
//! - The slots are filled from the bottom in the order of the [`Schedule`], then the deferred containers, and the root
//!   is made last, on top.
//! - A value that is on the stack is referred to by LOAD_FAST or COPY, whichever is shorter.
//! - Instructions that copy their operands themselves are used in profiles in which no value is kept: what is on the stack
//!   for them when their value is begun is what is there when it is made.
//! - For loaders, what is made in place for a tuple, a frozenset or a code object that is made of slots stands in a slot, too, out
//!   of which it is moved.

use std::borrow::Cow;

use crate::caches;
use crate::common;
use crate::data::{FullCode, N_TUPLES};
use crate::error::{ErrorKind, Result};
use crate::graph::{Graph, NodeId};
use crate::heap::{CodeId, Object, Str};
use crate::image::Image;
use crate::isa::{INLINE, Instruction, Intrinsic, MOVED, Op, Operand, Section, Table};
use crate::key::Sharing;
use crate::profile::Profile;
use crate::python::Field;
use crate::schedule::Schedule;
use crate::share::{Decision, Shared, fewest_bytes, immediate, is_from_slots};
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
    let (image, _) = emit_with(graph, shared, schedule, dialect, budget, None)?;
    Ok(image)
}

fn emit_with(
    graph: &Graph<'_, '_>,
    shared: &Shared,
    schedule: &Schedule,
    dialect: Dialect,
    budget: usize,
    trace: Option<Trace>,
) -> Result<(Image<'static>, Option<Trace>)> {
    let uses_slots = dialect.profile.uses_slots(graph.heap.python());
    let emitter = |uses_slots| Emitter {
        uses_slots,
        trace: trace.clone(),
        ..Emitter::new(graph, shared, schedule, dialect, budget)
    };
    match if uses_slots { emitter(true).emit()? } else { None } {
        Some(emitted) => Ok(emitted),
        // A slot is too far away for references of two bytes.
        None => Ok(emitter(false).emit()?.expect("other references reach all slots")),
    }
}

/// Where the values were made, for those who ask how. Of what is made several times, the last time counts.
#[derive(Debug, Clone)]
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
    let trace = Trace { made_at: vec![NONE; graph.len()], made_in: vec![NONE; graph.len()] };
    let (image, trace) = emit_with(graph, shared, schedule, dialect, budget, Some(trace))?;
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
    way: Way,
}

/// How a value gets its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the stack, but for those that it copies itself, if it does.
    Stack { n_copied: Option<u32> },
    /// From slots: each is copied or moved.
    Near,
    /// From slots, as MAKE_FULL_CODE.
    Full,
    /// It is an operand of MAKE_FULL_CODE, which gets those of it from slots, too.
    Inline,
}

impl Way {
    fn is_near(self) -> bool {
        !matches!(self, Self::Stack { .. })
    }
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
    /// Whether values get their operands from slots, if they can.
    uses_slots: bool,
    /// Where the operands stand that were made, or are there, of the values that get them from slots.
    references: Vec<Operand>,
    /// A slot was too far away for that.
    is_too_far: bool,
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
            uses_slots: false,
            references: Vec::new(),
            is_too_far: false,
            table_numbers: Vec::new(),
            quickens: Vec::new(),
            table_users: if dialect.profile.is_for_loaders() { table_users(graph) } else { Vec::new() },
            n_tables: [0; Section::ALL.len()],
            trace: None,
            dialect,
            budget,
        }
    }

    /// `None` if a slot is too far away.
    fn emit(mut self) -> Result<Option<(Image<'static>, Option<Trace>)>> {
        self.slots()?;
        self.deferred()?;
        self.value(self.graph.root, self.uses_slots)?;
        self.end(self.dialect.end)?;
        if self.is_too_far {
            return Ok(None);
        }
        let image = Image {
            magic: self.graph.heap.python().magic(),
            max_stack: self.max_height,
            module: Cow::Borrowed(""),
            filename: Cow::Borrowed(""),
            instructions: Cow::Owned(self.instructions),
            sections: self.sections.map(Cow::Owned),
            source: None,
        };
        Ok(Some((image, self.trace)))
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
                    // What is made in place for it would stand below it.
                    None => self.value(id, self.uses_slots && self.are_placed(id))?,
                }
            }
            at += 1;
        }
        Ok(())
    }

    /// Whether all operands of a value are on the stack.
    fn are_placed(&self, id: NodeId) -> bool {
        self.graph.operands(id).iter().all(|operand| self.place_of[operand.index()] != NONE)
    }

    /// MAKE_STRINGS, MAKE_NAMES, MAKE_IDENTIFIERS, MAKE_TEXTS, LOAD_MANY_NAMES, LOAD_MANY_CONSTS.
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
            let len = self.take(op.texts(), text.raw().0);
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
                    self.value(*value, false)?;
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

    /// Brings one value onto the stack, with everything that is made in place for it; in slots, if it is to get them from there.
    fn value(&mut self, id: NodeId, from_slots: bool) -> Result<()> {
        if self.at_once(id) {
            return self.check_budget();
        }
        let outermost = if from_slots { Way::Near } else { Way::Stack { n_copied: None } };
        let mut frame = self.open(id, outermost);
        loop {
            match self.operands(&mut frame)? {
                Some(operand) => {
                    let operand = self.open(operand, frame.way);
                    self.frames.push(std::mem::replace(&mut frame, operand));
                }
                None => {
                    let is_made = frame.way != Way::Inline;
                    if is_made {
                        self.finish(frame.id, frame.way);
                        self.made(frame.id);
                        self.check_budget()?;
                    }
                    match self.frames.pop() {
                        Some(outer) => frame = outer,
                        None => return Ok(()),
                    }
                    if is_made && frame.way.is_near() {
                        self.refer_to_top();
                    }
                }
            }
        }
    }

    /// Brings the next operands onto the stack, up to one that is to be opened.
    fn operands(&mut self, frame: &mut Frame<'g>) -> Result<Option<NodeId>> {
        while let Some((&operand, rest)) = frame.operands.split_first() {
            frame.operands = rest;
            let place = self.place_of[operand.index()];
            match frame.way {
                Way::Stack { n_copied } if n_copied.is_some() && place != NONE => {}
                Way::Near | Way::Full | Way::Inline if place != NONE => {
                    let is_moved = self.is_moved(operand);
                    self.references.push(if is_moved { Operand::Moved(place) } else { Operand::Copied(place) });
                }
                way => {
                    if !self.at_once(operand) {
                        return Ok(Some(operand));
                    }
                    if way.is_near() {
                        self.refer_to_top();
                    }
                }
            }
            self.check_budget()?;
        }
        Ok(None)
    }

    /// Notes that an operand was made, which stands on top.
    fn refer_to_top(&mut self) {
        self.references.push(Operand::Moved(self.height - 1));
    }

    /// Whether a value that waits in a slot is needed once, and counted. Bytes may be a table, too.
    fn is_moved(&self, id: NodeId) -> bool {
        let is_counted = match self.graph.object(id) {
            Object::Str(text) => !text.is_interned() && !text.is_cached(),
            Object::Int(_) => immediate(self.graph, id, self.dialect.profile).is_none(),
            Object::Long(_) | Object::Float(_) | Object::Complex { .. } => true,
            _ => false,
        };
        is_counted && self.graph.uses(id) == 1 && self.graph.common(id).is_none()
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

    fn open(&mut self, id: NodeId, outer: Way) -> Frame<'g> {
        let operands = self.graph.operands(id);
        let way = match self.graph.object(id) {
            Object::Code(_) if outer.is_near() && self.full_numbers(id).is_some() => Way::Full,
            Object::Tuple(_) if outer == Way::Full && is_from_slots(self.graph, id) => Way::Inline,
            _ if outer.is_near() && is_from_slots(self.graph, id) => Way::Near,
            _ => Way::Stack { n_copied: self.n_copied(id, operands) },
        };
        let is_all_copied = matches!(way, Way::Stack { n_copied: Some(n) } if n as usize == operands.len());
        Frame { id, operands: if is_all_copied { &[] } else { operands }, way }
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

    /// Makes a value, of the operands that are on the stack and of those that it copies or moves itself.
    fn finish(&mut self, id: NodeId, way: Way) {
        let operands = self.graph.operands(id);
        let n_operands = u32::try_from(operands.len()).expect("inputs are below 2 GiB");
        let n_copied = match way {
            Way::Stack { n_copied } => n_copied,
            Way::Near | Way::Full | Way::Inline => Some(n_operands),
        };
        match self.graph.object(id) {
            Object::Tuple(_) if way.is_near() => self.near_tuple(n_operands),
            Object::Tuple(_) if n_copied.is_some() => {
                // The number of nothing is 0.
                let number = |operand: &NodeId| self.place_of[operand.index()].wrapping_add(1);
                let section = &mut self.sections[Section::References as usize];
                operands.iter().rev().for_each(|operand| varint::write(section, number(operand)));
                self.op(Op::BuildTupleFrom, n_operands);
            }
            Object::Tuple(_) => self.op(Op::BuildTuple, n_operands),
            Object::List(_) => self.op(Op::BuildList, n_operands),
            Object::Set(_) => self.op(Op::BuildSet, n_operands),
            Object::Dict(_) => self.op(Op::BuildMap, n_operands / 2),
            Object::Slice(_) => self.op(Op::BuildSlice, n_operands),
            Object::FrozenSet(_) => {
                match way.is_near() {
                    true => self.near_tuple(n_operands),
                    false => self.op(Op::BuildTuple, n_operands),
                }
                self.intrinsic(Intrinsic::MakeFrozenSet);
            }
            Object::FrozenDict(_) => {
                self.op(Op::BuildMap, n_operands / 2);
                self.intrinsic(Intrinsic::MakeFrozenDict);
            }
            Object::Code(_) if way == Way::Full => self.full_code(id),
            Object::Code(code) => self.code(id, *code, way),
            other => unreachable!("{} has no operands", other.type_name()),
        }
        self.pop(n_operands - n_copied.unwrap_or(0));
        self.pushed();
    }

    /// BUILD_TUPLE_NEAR, of the operands that were brought last.
    fn near_tuple(&mut self, n: u32) {
        let first = self.references.len() - n as usize;
        let references = self.references.split_off(first);
        self.near(&references);
        self.op(Op::BuildTupleNear, n);
    }

    /// References of two bytes.
    fn near(&mut self, references: &[Operand]) {
        for reference in references {
            let slot = self.near_slot(*reference, MOVED.into());
            let moved = if matches!(reference, Operand::Moved(_)) { MOVED } else { 0 };
            self.take(Section::References, &(slot | moved).to_le_bytes());
        }
    }

    /// A slot below a limit.
    fn near_slot(&mut self, operand: Operand, limit: u32) -> u16 {
        let slot = operand.slot().filter(|slot| *slot < limit).and_then(|slot| u16::try_from(slot).ok());
        self.is_too_far |= slot.is_none();
        slot.unwrap_or_default()
    }

    /// MAKE_FULL_CODE.
    fn full_code(&mut self, id: NodeId) {
        let operands = self.graph.operands(id);
        // By operand: how many items it has, if it is a tuple of the code object's own.
        let n_items: Vec<Option<usize>> = (operands.iter().enumerate())
            .map(|(at, operand)| {
                (at < N_TUPLES && self.is_inline(*operand)).then(|| self.graph.operands(*operand).len())
            })
            .collect();
        let n_references: usize = n_items.iter().map(|n| n.unwrap_or(1)).sum();
        let references = self.references.split_off(self.references.len() - n_references);
        let (mut rest, mut items) = (&references[..], Vec::new());
        for (at, n) in n_items.into_iter().enumerate() {
            let (operand, after) = rest.split_at(n.unwrap_or(1));
            rest = after;
            let head = match n {
                Some(n) => {
                    items.extend_from_slice(operand);
                    let n = u16::try_from(n).ok().filter(|n| n & INLINE == 0);
                    self.is_too_far |= n.is_none();
                    n.unwrap_or_default() | INLINE
                }
                None => self.near_slot(operand[0], if at < N_TUPLES { INLINE.into() } else { 1 << u16::BITS }),
            };
            self.take(Section::References, &head.to_le_bytes());
        }
        self.near(&items);
        let (small, large) = self.full_numbers(id).expect("it was asked when the code object was begun");
        let mut full = FullCode { small, large, tables: [0; _] };
        let fields = &self.graph.heap.python().layout().tables;
        for ((to, field), &table) in full.tables.iter_mut().zip(fields).zip(self.graph.tables(id)) {
            let (table, is_numbered) = self.table(table, *field, true);
            *to = table.full_number(is_numbered);
        }
        full.write(&mut self.sections[Section::Counts as usize]);
        self.op(Op::MakeFullCode, 0);
    }

    /// Whether MAKE_FULL_CODE makes an operand itself.
    fn is_inline(&self, id: NodeId) -> bool {
        let is_made = self.place_of[id.index()] == NONE && !matches!(self.shared.decision(id), Decision::Load(_));
        is_made && matches!(self.graph.object(id), Object::Tuple(_)) && is_from_slots(self.graph, id)
    }

    /// MAKE_CODE, its numbers, and its tables: see [`Table`].
    fn code(&mut self, id: NodeId, code: CodeId, way: Way) {
        let layout = self.graph.heap.python().layout();
        let code = self.graph.heap.code(code);
        for field in &layout.numbers {
            varint::write(&mut self.sections[Section::Counts as usize], code.number(*field).cast_unsigned());
        }
        for (field, &table) in layout.tables.iter().zip(self.graph.tables(id)) {
            let has_caches = *field == Field::Code && caches::has_caches(self.graph.heap.python());
            let (table, _) = self.table(table, *field, false);
            varint::write(&mut self.sections[Section::Counts as usize], table.number(has_caches));
        }
        let operands = self.graph.operands(id);
        let references = match way {
            Way::Stack { n_copied: None } => Vec::new(),
            Way::Stack { .. } => {
                let place = |operand: &NodeId| Some(self.place_of[operand.index()]).filter(|place| *place != NONE);
                operands.iter().map(place).collect()
            }
            // It copies only.
            _ => self
                .references
                .split_off(self.references.len() - operands.len())
                .into_iter()
                .map(Operand::slot)
                .collect(),
        };
        let mut mask = 0;
        for (at, place) in references.into_iter().enumerate() {
            if let Some(place) = place {
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

    /// The numbers of MAKE_FULL_CODE for a code object, if it can be made by that: the bytecode is one that can be quickened, and
    /// there is room for its numbers and lengths.
    fn full_numbers(&mut self, id: NodeId) -> Option<([u16; 4], [u32; 2])> {
        let graph = self.graph;
        let Object::Code(code) = *graph.object(id) else { return None };
        if self.tables(id).any(|(_, table)| table.len() > FullCode::MAX_TABLE) || !self.is_quickened(id) {
            return None;
        }
        let numbers = graph.heap.python().layout().numbers.iter().map(|field| graph.heap.code(code).number(*field));
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
