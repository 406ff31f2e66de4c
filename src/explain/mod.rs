//! Says of every value what was decided on it, why, and what that saved.
//!
//! [`explain`] compiles as [`crate::compile()`] does and keeps what the stages know: which values became one, where each
//! is needed, how many objects it becomes, its [`Decision`], its [`Costs`], where it waits, and which instruction copies
//! it. An [`Explanation`] is that, as text ([`Display`]), JSON, a drawing for Graphviz, or a page for a browser.
//!
//! A *use* is an item or a field of one built value. A *place* is a use as the source has it: a tuple that several code
//! objects need uses its item once, which stands in as many places.
//!
//! Invariants:
//! - Every value has one [`Explained`], in the order of the graph, so that ids are positions.
//! - What a value saved is counted against making it at each use out of the same parts; the totals were measured, by
//!   compiling again without sharing.

mod docstring;
mod dot;
mod equal;
mod html;
mod json;
mod names;
mod places;
mod text;
mod trace;

use std::cmp::Reverse;
use std::fmt::{self, Display, Formatter};

use crate::caches;
use crate::compile::{Options, budget};
use crate::emit::{Trace, emit, emit_traced};
use crate::error::{ErrorKind, Result};
use crate::file::Source;
use crate::graph::{Graph, NodeId, lower};
use crate::heap::{Object, Str};
use crate::isa::{Instruction, Op};
use crate::key::Sharing;
use crate::literal;
use crate::python::Field;
use crate::schedule::{Schedule, schedule};
use crate::share::{Costs, Decision, Shared, is_batched, share};
use crate::verify::verify;

use places::{Places, User};

pub use places::Place;
pub use trace::{Copied, References, Row};

/// The most places that are named in one output, beyond one for each use.
const MAX_PLACES: usize = 4_000;

/// The most that are searched for a text, of each value.
const MAX_SEARCHED: usize = 32;

/// Where a value waits to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// In a slot at the bottom of the stack, until the end.
    Slot(u32),
    /// At a place of the stack, counted from the bottom, until the value that it is made for takes it.
    Place(u32),
    /// In the data, as a table of code objects.
    Data,
}

impl Display for Waits {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot(slot) => write!(f, "slot {slot}"),
            Self::Place(place) => write!(f, "place {place} of the stack"),
            Self::Data => write!(f, "the data"),
        }
    }
}

/// What there is to say of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Its id in this explanation: `n12` is the one at position 12.
    pub id: String,
    /// Its Python type.
    pub kind: &'static str,
    /// Whether a str is interned; `None` of what is no str.
    pub interned: Option<bool>,
    /// Its literal, shortened.
    pub value: String,
    /// Its whole literal, where that is not the short one and it holds no other values.
    literal: Option<String>,
    /// How many uses it has: an item of a value that is shared itself has one.
    pub n_uses: usize,
    /// How many objects it becomes in CPython's process.
    pub n_objects: u64,
    /// Whether CPython has one such object for the whole process, however often it is made.
    pub is_process_wide: bool,
    /// What was decided.
    pub decision: Decision,
    /// Why, in one sentence.
    pub why: String,
    /// What the alternatives cost; `None` of what stands in the data alone.
    pub costs: Option<Costs>,
    /// Where it waits, if it is copied.
    pub waits: Option<Waits>,
    /// Bytes saved against making it at each use; `None` of what must be one object.
    pub saved: Option<i64>,
    /// Equal values that it did not merge with, and why.
    pub apart: Vec<String>,
    /// The row of the listing that made it.
    pub row: Option<usize>,
}

impl Explained {
    /// Whether it has several uses, or could have been shared and was not.
    pub fn is_subject(&self) -> bool {
        self.n_uses > 1 || !self.apart.is_empty()
    }

    /// What was decided, in a word.
    pub fn decided(&self) -> &'static str {
        match self.decision {
            Decision::Load(_) => "load",
            Decision::Once => "once",
            Decision::Keep => "keep",
            Decision::Hoist => "hoist",
            Decision::Rebuild => "rebuild",
            Decision::Table => "table",
        }
    }
}

/// A size that was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes of instructions and data.
    pub bytes: usize,
    /// Instructions.
    pub instructions: usize,
}

/// What something saved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Saved {
    /// How many values.
    pub values: usize,
    /// In how many places they are loaded, copied or referred to.
    pub places: usize,
    /// Bytes.
    pub bytes: i64,
}

/// The sums.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Objects of the dump.
    pub n_objects: usize,
    /// Values: objects that merged are one.
    pub n_values: usize,
    /// Values with several uses.
    pub n_shared: usize,
    /// By decision: its word, and how many values.
    pub decisions: Vec<(&'static str, usize)>,
    /// What was emitted.
    pub size: Size,
    /// What it would be with only what the dump shares.
    pub identity: Size,
    /// What it would be without sharing; `None` where that is more than the budget.
    pub unshared: Option<Size>,
    /// LOAD_COMMON_NAME, against making the names as cheaply as without it.
    pub names: Saved,
    /// LOAD_COMMON_CONST, LOAD_INT and LOAD_CHAR, in the same way.
    pub constants: Saved,
    /// Tables of code objects that stand in the data once.
    pub tables: Saved,
    /// References to values on the stack.
    pub references: References,
    /// Most values on the stack.
    pub max_stack: u32,
    /// The first row of the listing behind which there are so many.
    pub max_row: usize,
}

/// What there is to say of a whole initializer. Its text is for people.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// Every value, what is needed first before what needs it.
    pub values: Vec<Explained>,
    /// By value: what it is made of.
    needs: Vec<Vec<u32>>,
    /// The position of the top-level value.
    root: usize,
    /// The instructions.
    pub rows: Vec<Row>,
    /// The sums.
    pub totals: Totals,
    name: String,
    places: Places,
    filter: Option<Filter>,
    top: Option<usize>,
}

/// The values that were asked for.
#[derive(Debug, Clone)]
struct Filter {
    text: String,
    /// Those with the text in their literal.
    by_literal: Vec<usize>,
    /// Others, with the text in one of their places.
    by_place: Vec<usize>,
}

/// Compiles a dump, and explains what was decided.
///
/// # Errors
/// As [`crate::compile()`].
pub fn explain(source: &Source<'_>, options: Options) -> Result<Explanation> {
    let Source { dump, marshal, .. } = source;
    let budget_of = |sharing| budget(marshal.len(), sharing);
    let graph = lower(dump, options.sharing)?;
    let shared = share(&graph, options.profile, options.optimize);
    let schedule = schedule(&graph, &shared, options.profile);
    let (image, trace) = emit_traced(&graph, &shared, &schedule, options.dialect(), budget_of(options.sharing))?;
    let size_of = |sharing| -> Result<Size> {
        let graph = lower(dump, sharing)?;
        let shared = share(&graph, options.profile, options.optimize);
        let schedule = crate::schedule::schedule(&graph, &shared, options.profile);
        let image = emit(&graph, &shared, &schedule, options.dialect(), budget_of(sharing))?;
        Ok(Size { bytes: image.payload_len(), instructions: n_instructions(&image.instructions)? })
    };
    let size = Size { bytes: image.payload_len(), instructions: n_instructions(&image.instructions)? };
    let identity = size_of(Sharing::Identity)?;
    let unshared = match size_of(Sharing::None) {
        Ok(size) => Some(size),
        Err(error) if matches!(error.kind(), ErrorKind::BudgetExceeded { .. }) => None,
        Err(error) => return Err(error),
    };

    let verified = verify(image)?;
    let made = trace::Made::new(&graph, &trace);
    let (rows, references) = trace::rows(&verified, &made);
    let users = places::users(&graph);
    let names = names::qualified_names(&graph, &users);
    let values =
        explain_values(&Stages { graph: &graph, shared, schedule, trace, options }, &users, &names, &made, &rows);
    let places = Places::new(&graph, users, names);

    let max_stack = verified.image().max_stack;
    let max_row = rows.iter().position(|row| row.depth == max_stack as usize).unwrap_or_default();
    let mut decisions: Vec<(&'static str, usize)> =
        ["load", "once", "keep", "hoist", "rebuild", "table"].map(|word| (word, 0)).into();
    for value in &values {
        let count = decisions.iter_mut().find(|(word, _)| *word == value.decided()).expect("every word is listed");
        count.1 += 1;
    }
    let totals = Totals {
        n_objects: dump.heap.ids().filter(|id| graph.node_of(*id).is_some()).count(),
        n_values: values.len(),
        n_shared: values.iter().filter(|value| value.n_uses > 1).count(),
        decisions,
        size,
        identity,
        unshared,
        names: loads(&values, |op| op == Op::LoadCommonName),
        constants: loads(&values, |op| op != Op::LoadCommonName),
        tables: tables(&values),
        references,
        max_stack,
        max_row,
    };
    let needs = graph
        .ids()
        .map(|id| graph.operands(id).iter().chain(graph.tables(id)).map(|need| need.index() as u32).collect());
    let mut needs: Vec<Vec<u32>> = needs.collect();
    for (id, fills) in &graph.deferred {
        needs[id.index()].extend(fills.iter().map(|fill| fill.index() as u32));
    }
    let name = values[graph.root.index()].value.clone();
    Ok(Explanation { values, needs, root: graph.root.index(), rows, totals, name, places, filter: None, top: None })
}

fn n_instructions(instructions: &[u8]) -> Result<usize> {
    let (mut at, mut n) = (0, 0);
    while at < instructions.len() {
        at = Instruction::decode(instructions, at)?.1;
        n += 1;
    }
    Ok(n)
}

/// What the stages gave.
struct Stages<'g> {
    graph: &'g Graph<'g, 'g>,
    shared: Shared,
    schedule: Schedule,
    trace: Trace,
    options: Options,
}

fn explain_values(
    stages: &Stages<'_>,
    users: &[Vec<User>],
    names: &[Option<String>],
    made: &trace::Made,
    rows: &[Row],
) -> Vec<Explained> {
    let Stages { graph, shared, schedule, trace, options } = stages;
    let labels = names::labels(graph, names);
    let twins = equal::twins(graph);
    let row_of = made.rows(rows, graph.len());
    let n_objects = n_objects(graph, shared);
    let explained = |(id, value): (NodeId, String)| {
        let decision = shared.decision(id);
        let object = graph.object(id);
        let users = &users[id.index()];
        let is_table = graph.uses(id) == 0 && decision == Decision::Table;
        let costs = (!is_table).then(|| Costs::new(graph, id, options.profile));
        let waits = match (decision, schedule.slot(id)) {
            (_, Some(slot)) => Some(Waits::Slot(slot)),
            (Decision::Keep, None) => trace.of(id).map(|(_, place)| Waits::Place(place)),
            (Decision::Table, None) => Some(Waits::Data),
            _ => None,
        };
        let is_code =
            |user: &User| matches!(user, User::Value(_, at) if places::field(graph.heap.python(), *at) == Field::Code);
        let is_bytecode = is_table && users.iter().any(is_code);
        let case = Case { graph, id, users, decision, costs, options: *options, waits, is_bytecode };
        Explained {
            id: id.to_string(),
            kind: if is_table { "code table" } else { object.type_name() },
            interned: if let Object::Str(text) = object { Some(text.is_interned()) } else { None },
            literal: names::literal_of(graph, id).filter(|literal| *literal != value),
            value,
            n_uses: users.len(),
            n_objects: n_objects[id.index()],
            is_process_wide: graph.heap.is_process_wide(graph.object_id(id)),
            decision,
            why: case.why(),
            costs,
            waits,
            saved: case.saved(),
            apart: twins[id.index()].iter().map(|twin| equal::why_apart(graph, id, *twin)).collect(),
            row: row_of[id.index()],
        }
    };
    graph.ids().zip(labels).map(explained).collect()
}

/// By node: how many objects it becomes. One, if anything is shared or CPython has it once; else one whenever it is made.
fn n_objects(graph: &Graph<'_, '_>, shared: &Shared) -> Vec<u64> {
    if graph.sharing != Sharing::None {
        return vec![1; graph.len()];
    }
    let mut n_objects = n_made(graph, shared);
    for table in graph.ids().flat_map(|id| graph.tables(id)) {
        n_objects[table.index()] += 1;
    }
    let process_wide = graph.ids().filter(|id| graph.heap.is_process_wide(graph.object_id(*id)));
    process_wide.for_each(|id| n_objects[id.index()] = 1);
    n_objects
}

/// By node: how often instructions make it, of what is loaded or stands in a slot once.
fn n_made(graph: &Graph<'_, '_>, shared: &Shared) -> Vec<u64> {
    let mut n_made = vec![0_u64; graph.len()];
    for id in graph.deferred.iter().flat_map(|(_, fills)| fills).chain([&graph.root]) {
        n_made[id.index()] += 1;
    }
    for id in graph.ids().rev() {
        if matches!(shared.decision(id), Decision::Load(_) | Decision::Hoist) {
            n_made[id.index()] = 1;
        }
        for operand in graph.operands(id) {
            n_made[operand.index()] = n_made[operand.index()].saturating_add(n_made[id.index()]);
        }
    }
    n_made
}

/// A value, and what bears on its decision.
struct Case<'g> {
    graph: &'g Graph<'g, 'g>,
    id: NodeId,
    users: &'g [User],
    decision: Decision,
    costs: Option<Costs>,
    options: Options,
    waits: Option<Waits>,
    is_bytecode: bool,
}

impl Case<'_> {
    /// Why it was decided so: one sentence, with the costs of the alternatives.
    fn why(&self) -> String {
        let n_tables = self.graph.table_uses(self.id);
        let Some(costs) = self.costs else {
            return match n_tables {
                0 | 1 => "one code object needs it, and has it in its data".to_owned(),
                // A number would be no shorter.
                _ if matches!(self.graph.object(self.id), Object::Bytes(bytes) if bytes.len() <= 1) => {
                    format!("it is so short that each of {n_tables} code objects has it in its data")
                }
                _ if self.options.sharing == Sharing::None => {
                    format!("--sharing none repeats it in the data of each of {n_tables} code objects")
                }
                _ => format!("it stands in the data once, and {n_tables} code objects refer to it by its number"),
            };
        };
        let Costs { make, copy, uses } = costs;
        let (hoist, keep, rebuild) = (costs.hoist(), costs.keep(), costs.rebuild());
        let object = self.graph.object(self.id);
        match self.decision {
            Decision::Load(Instruction { op, oparg }) => {
                let bytes = Instruction::len(oparg);
                let all = bytes as u64 * uses;
                let name = op.info().mnemonic;
                match self.has_no_other_way() {
                    true => format!(
                        "{name} alone can bring it: {bytes} bytes a use, {all} in all; from a slot {}",
                        bytes as u64 + copy * uses
                    ),
                    false => format!(
                        "{name} brings it at once: {bytes} bytes a use, {all} in all; made in a slot and copied \
                         {hoist}, made at each use {rebuild}"
                    ),
                }
            }
            Decision::Once => match self.users {
                [User::Value(user, _)] => format!("it has one use, in {user}, and is made there: {make} bytes"),
                _ => format!("it has one use, and is made there: {make} bytes"),
            },
            Decision::Keep => format!(
                "it is made at its first use and waits there, as all other uses come before it is taken: {keep} bytes; \
                 in a slot {hoist}, made at each use {rebuild}"
            ),
            Decision::Rebuild if self.options.sharing == Sharing::None => {
                format!("--sharing none makes it at each use: {rebuild} bytes; in a slot {hoist}")
            }
            Decision::Rebuild if rebuild >= hoist => format!(
                "CPython has one such object for the whole process anyway, and making it twice, with copies while it \
                 waits, is shortest: {} bytes; in a slot {hoist}, made at each use {rebuild}",
                costs.remake(2)
            ),
            Decision::Rebuild => format!(
                "CPython has one such object for the whole process anyway, and making it at each use is shortest: \
                 {rebuild} bytes; in a slot {hoist}, made at its first use and copied {keep}"
            ),
            Decision::Hoist if equal::is_deferred(self.graph, self.id) => {
                "it holds itself, so it is made empty in one of the first slots, and filled at the end".to_owned()
            }
            Decision::Hoist if n_tables > 0 => format!(
                "code objects need it as a table and values need it as bytes, so it is made once, in a slot: {hoist} bytes"
            ),
            Decision::Hoist if object.has_identity() => format!(
                "it has {uses} uses and must stay one object, so it is made once, in a slot, and copied: {hoist} bytes"
            ),
            Decision::Hoist if self.options.profile.is_for_loaders() && is_batched(object) => {
                "the profile makes every name in a batch, so that a loader finds all of them at once; it waits in a slot, \
                 and is copied"
                    .to_owned()
            }
            Decision::Hoist if self.is_for_slots() && !object.is_compound() => {
                let (how, bytes) = if self.is_load() { ("loaded", 2 + copy * uses) } else { ("made", hoist) };
                format!(
                    "a loader makes tuples and code objects of what waits in slots, so it is {how} once, in a slot, and copied, or \
                     moved: {bytes} bytes"
                )
            }
            Decision::Hoist if self.is_load() => format!(
                "it has {uses} uses: an instruction that loads it takes 2 bytes, a reference to a slot {copy}, so it is \
                 loaded once and copied: {} bytes instead of {}",
                2 + copy * uses,
                2 * uses
            ),
            Decision::Hoist => format!(
                "it has {uses} uses, none of which lasts while all others are made, so it is made once, in a slot, and \
                 copied: {hoist} bytes; made at each use {rebuild}"
            ),
            Decision::Table => "code objects have it in their data".to_owned(),
        }
    }

    /// Whether one of its users is made of what stands in slots.
    fn is_for_slots(&self) -> bool {
        let python = self.graph.heap.python();
        let is_from_slots =
            |user: &User| matches!(user, User::Value(id, _) if crate::share::is_from_slots(self.graph, *id));
        self.options.profile.uses_slots(python) && self.users.iter().any(is_from_slots)
    }

    fn is_load(&self) -> bool {
        crate::share::immediate(self.graph, self.id, self.options.profile).is_some()
    }

    /// Whether no instruction makes it out of data.
    fn has_no_other_way(&self) -> bool {
        matches!(
            self.graph.object(self.id),
            Object::None | Object::True | Object::False | Object::Ellipsis | Object::StopIteration
        )
    }

    /// Bytes saved against making it at each use.
    fn saved(&self) -> Option<i64> {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let Some(costs) = self.costs else {
            let n_more = signed(u64::from(self.graph.table_uses(self.id).saturating_sub(1)));
            return Some(if self.options.sharing == Sharing::None { 0 } else { n_more * self.table_len() });
        };
        if self.graph.object(self.id).has_identity() && costs.uses > 1 {
            return None;
        }
        let n_uses = signed(costs.uses);
        let each = if self.has_no_other_way() { 2 * n_uses } else { signed(costs.rebuild()) };
        Some(match self.decision {
            Decision::Load(Instruction { oparg, .. }) => each - Instruction::len(oparg) as i64 * n_uses,
            Decision::Hoist if self.is_load() => each - 2 - signed(costs.copy) * n_uses,
            Decision::Hoist => each - signed(costs.hoist()),
            Decision::Keep => each - signed(costs.keep()),
            // What is longer at each use is made twice.
            Decision::Rebuild if costs.rebuild() >= costs.hoist() && self.options.sharing != Sharing::None => {
                each - signed(costs.remake(2))
            }
            Decision::Once | Decision::Rebuild | Decision::Table => 0,
        })
    }

    /// Bytes of a table as they stand in the data.
    fn table_len(&self) -> i64 {
        let Object::Bytes(bytes) = *self.graph.object(self.id) else { return 0 };
        if bytes.len() <= 1 || self.waits != Some(Waits::Data) {
            return 0;
        }
        let python = self.graph.heap.python();
        let mut stripped = Vec::new();
        if self.is_bytecode && self.options.dialect().strips_caches && caches::strip(python, bytes, &mut stripped) {
            return stripped.len() as i64;
        }
        bytes.len() as i64
    }
}

fn loads(values: &[Explained], of: impl Fn(Op) -> bool) -> Saved {
    let mut sum = Saved::default();
    for value in values {
        if let (Decision::Load(instruction), Some(costs)) = (value.decision, value.costs)
            && of(instruction.op)
        {
            sum.values += 1;
            sum.places += value.n_uses;
            let own = Instruction::len(instruction.oparg) as i64 * i64::from(costs.uses as u32);
            let otherwise = if costs.uses == 1 { costs.make } else { costs.hoist().min(costs.rebuild()) };
            sum.bytes += if value.saved == Some(0) { 0 } else { otherwise as i64 - own };
        }
    }
    sum
}

fn tables(values: &[Explained]) -> Saved {
    let mut sum = Saved::default();
    for value in values.iter().filter(|value| value.waits == Some(Waits::Data) && value.saved > Some(0)) {
        sum.values += 1;
        sum.places += value.n_uses;
        sum.bytes += value.saved.unwrap_or_default();
    }
    sum
}

impl Explanation {
    /// Shows only values with a text: first those that have it in their literal, as it is or escaped, then those that are
    /// needed in a place that has it. What holds other values has only the text that none of them has.
    #[must_use]
    pub fn with_value(self, text: &str) -> Self {
        let escaped = literal::text(Str::utf8(text.as_bytes(), false).expect("a str is UTF-8"));
        let escaped = &escaped[1..escaped.len() - 1];
        let mut filter = Filter { text: text.to_owned(), by_literal: Vec::new(), by_place: Vec::new() };
        let mut is_below = vec![false; self.values.len()];
        for (at, value) in self.values.iter().enumerate() {
            let has = |literal: &str| literal.contains(text) || literal.contains(escaped);
            let has_text = has(&value.value) || value.literal.as_deref().is_some_and(has);
            let is_held = self.needs[at].iter().any(|held| is_below[*held as usize]);
            is_below[at] = has_text || is_held;
            if has_text && (!is_held || value.kind == "code") {
                filter.by_literal.push(at);
            } else if self.places.of(at, &mut { MAX_SEARCHED }).iter().any(|place| place.to_string().contains(text)) {
                filter.by_place.push(at);
            }
        }
        for found in [&mut filter.by_literal, &mut filter.by_place] {
            found.sort_by_key(|at| self.rank(*at));
        }
        Self { filter: Some(filter), ..self }
    }

    /// Where a value is needed: everywhere that what holds it is needed, if that is shared. Beyond one place for each use,
    /// so many are named as are left, and taken from `n_left`.
    pub fn places(&self, at: usize, n_left: &mut usize) -> Vec<Place> {
        self.places.of(at, n_left)
    }

    /// Shows no more than so many values; by default each format shows as many as it can show well.
    #[must_use]
    pub fn with_top(self, n: usize) -> Self {
        Self { top: Some(n), ..self }
    }

    /// What it calls itself: the name of a file.
    #[must_use]
    pub fn with_name(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// The values that are shown, without a limit: those that saved most first.
    pub fn subjects(&self) -> Vec<usize> {
        if let Some(Filter { by_literal, by_place, .. }) = &self.filter {
            return [&**by_literal, by_place].concat();
        }
        let mut shown: Vec<usize> = (0..self.values.len()).filter(|at| self.values[*at].is_subject()).collect();
        shown.sort_by_key(|at| self.rank(*at));
        shown
    }

    fn rank(&self, at: usize) -> impl Ord + use<> {
        let value = &self.values[at];
        (Reverse(value.saved.unwrap_or_default()), Reverse(value.n_uses), at)
    }
}
