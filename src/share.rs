//! Decides which values are made once, where they wait, and which are made anew.
//!
//! Without sharing, every value would be made at each of its uses: the *construction tree*. A value with several uses is
//! *hoisted* (made before the tree, in a slot at the bottom of the stack), *kept* (made at its first use, which is an
//! operand of a value that all the others help to make, and copied from there while it waits to be consumed), or *rebuilt*
//! (where CPython has one object for the whole process anyway, and making it again, where it does not wait, is shorter). For
//! loaders, what tuples and code objects are made of is hoisted even if it has one use: they take it from its slot.
//!
//! Invariants:
//! - Every node has exactly one [`Decision`].
//! - A kept value lies on the stack, unconsumed, at each of its other uses.
//! - Only what has no identity of its own is rebuilt.

use crate::common::{self, CommonConst};
use crate::graph::{Graph, NodeId};
use crate::heap::Object;
use crate::isa::{Instruction, Op, Section};
use crate::key::Sharing;
use crate::profile::{Optimize, Profile};

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// One instruction loads it, at each use.
    Load(Instruction),
    /// It is needed once, and made there; for loaders, if it holds others.
    Once,
    /// It is made at its first use, and copied from there.
    Keep,
    /// It is made before everything that needs it, in a slot.
    Hoist,
    /// It is made at each use, unless it is on the stack there.
    Rebuild,
    /// It stands in the data, as a table of code objects.
    Table,
}

/// The decisions on a graph.
#[derive(Debug)]
pub struct Shared {
    decisions: Vec<Decision>,
}

impl Shared {
    /// What was decided on a value.
    pub fn decision(&self, id: NodeId) -> Decision {
        self.decisions[id.index()]
    }
}

/// What it takes, in bytes and in time, to have a value on the stack each time it is needed: the one cost model of all
/// decisions.
///
/// References are counted as short ones; EXTENDED_ARG is the schedule's concern. Time is counted in copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Costs {
    /// To make it once.
    pub make: u64,
    /// To copy it.
    pub copy: u64,
    /// How often it is needed.
    pub uses: u64,
}

/// How many copies take as long as to make a value of no parts: in our machine a copy took 1.6 ns, an interned str of six
/// letters 9.8 ns, a float 2.1 ns, an int 14.5 ns.
const MAKE_TIME: u64 = 6;

impl Costs {
    /// The costs of a value.
    pub fn new(graph: &Graph<'_, '_>, id: NodeId, profile: Profile) -> Self {
        let copy = profile.copy_cost(graph.heap.python());
        let long = |len: usize| Instruction::len(u32::try_from(len).unwrap_or(u32::MAX)) as u64 + len as u64;
        let make = match *graph.object(id) {
            Object::Int(value) => long(fewest_bytes(value).0),
            Object::Long(value) => long(graph.heap.long(value).bits() as usize / 8 + 1),
            Object::Float(_) => 2 + 8,
            Object::Complex { .. } => 6 + 16,
            Object::Bytes(bytes) => long(bytes.len()),
            Object::Str(text) => long(text.raw().0.len()),
            _ => 2 + graph.operands(id).len() as u64 * copy,
        };
        Self { make, copy, uses: u64::from(graph.uses(id)) }
    }

    /// Made before, copied at each use.
    pub fn hoist(self) -> u64 {
        self.make + self.copy * self.uses
    }

    /// Made at its first use, copied at the others.
    pub fn keep(self) -> u64 {
        self.make + self.copy * self.uses.saturating_sub(1)
    }

    /// Made at each use.
    pub fn rebuild(self) -> u64 {
        self.make * self.uses
    }

    /// The time of [`Self::hoist`].
    pub fn hoist_time(self) -> u64 {
        MAKE_TIME + self.uses
    }

    /// The time, if it is made at so many uses and copied at the others.
    pub(crate) fn remake_time(self, n_makes: u64) -> u64 {
        MAKE_TIME * n_makes + self.uses.saturating_sub(n_makes)
    }

    /// Made at so many uses, copied at the others.
    pub(crate) fn remake(self, n_makes: u64) -> u64 {
        self.make * n_makes + self.copy * self.uses.saturating_sub(n_makes)
    }
}

/// The little-endian bytes of an int, and how many of them hold it: the top bit is its sign.
pub(crate) fn fewest_bytes(value: i64) -> (usize, [u8; 8]) {
    let bytes = value.to_le_bytes();
    let sign = if value < 0 { 0xff } else { 0 };
    let mut len = bytes.len();
    while len > 1 && bytes[len - 1] == sign && (bytes[len - 2] ^ sign) < 0x80 {
        len -= 1;
    }
    (len, bytes)
}

/// The one instruction that loads a value without making it, if there is one.
///
/// Every frozenset of an identity graph is its own object, so it does not take the empty one of the table there.
pub(crate) fn immediate(graph: &Graph<'_, '_>, id: NodeId, profile: Profile) -> Option<Instruction> {
    if let Some(common) = graph.common(id) {
        return Some(common);
    }
    let constant = |constant: CommonConst| Instruction { op: Op::LoadCommonConst, oparg: constant.operand() };
    Some(match *graph.object(id) {
        Object::None => constant(CommonConst::None),
        Object::True => constant(CommonConst::True),
        Object::False => constant(CommonConst::False),
        Object::Ellipsis => constant(CommonConst::Ellipsis),
        Object::StopIteration => constant(CommonConst::StopIteration),
        Object::Int(-1) => constant(CommonConst::MinusOne),
        Object::Int(value) => Instruction { op: Op::LoadInt, oparg: u32::from(u8::try_from(value).ok()?) },
        Object::Str(text) if text.raw().0.is_empty() => constant(CommonConst::EmptyStr),
        Object::Str(text) if text.is_cached() && profile.has_own_instructions() => {
            Instruction { op: Op::LoadChar, oparg: text.code_points().next()? }
        }
        Object::Str(text) if text.is_interned() && text.is_ascii() => {
            Instruction { op: Op::LoadCommonName, oparg: common::name_operand(text.raw().0)? }
        }
        Object::Tuple(items) if items.is_empty() => constant(CommonConst::EmptyTuple),
        Object::Bytes([]) => constant(CommonConst::EmptyBytes),
        Object::FrozenSet(items) if items.is_empty() && graph.sharing != Sharing::Identity => {
            constant(CommonConst::EmptyFrozenSet)
        }
        _ => return None,
    })
}

/// Whether it can be made together with others.
pub(crate) fn is_batched(object: &Object<'_>) -> bool {
    matches!(object, Object::Str(text) if text.is_interned() && text.is_ascii() && !text.is_cached())
}

/// Items from which on a tuple is data, most probably, and would take the near slots from others.
const MANY: usize = 256;

/// Whether a loader makes a value of what stands in slots, if it can.
pub(crate) fn is_from_slots(graph: &Graph<'_, '_>, id: NodeId) -> bool {
    let operands = graph.operands(id);
    match graph.object(id) {
        Object::Code(_) => true,
        Object::Tuple(_) | Object::FrozenSet(_) => {
            operands.len() < MANY || operands.iter().any(|operand| matches!(graph.object(*operand), Object::Code(_)))
        }
        _ => false,
    }
}

/// Whether it is a str that can be made together with others that are not interned.
pub(crate) fn is_text(object: &Object<'_>) -> bool {
    matches!(object, Object::Str(text) if !text.is_interned() && text.is_ascii() && !text.is_cached())
}

/// Decides on every value of a graph, in time near-linear in its edges.
///
/// Users come before what they use, so that each value finds its users placed in the construction tree.
pub fn share(graph: &Graph<'_, '_>, profile: Profile, optimize: Optimize) -> Shared {
    let mut decisions = vec![Decision::Table; graph.len()];
    let mut sharing = Sharer {
        graph,
        profile,
        optimize,
        tree: if profile.keeps_values() { Tree::new(graph) } else { Tree { branches: Vec::new() } },
        users: if profile.keeps_values() { Users::new(graph) } else { Users::default() },
        notes: vec![Note::default(); graph.len()],
        uses_slots: profile.uses_slots(graph.heap.python()),
    };
    for id in graph.deferred.iter().flat_map(|(_, fills)| fills).chain([&graph.root]) {
        sharing.notes[id.index()].is_outside = true;
    }
    for (id, _) in &graph.deferred {
        decisions[id.index()] = Decision::Hoist;
    }
    for id in graph.ids().rev() {
        let decision = &mut decisions[id.index()];
        if *decision != Decision::Hoist {
            *decision = sharing.decide(id);
        }
        sharing.use_operands(id);
    }
    Shared { decisions }
}

struct Sharer<'g> {
    graph: &'g Graph<'g, 'g>,
    tree: Tree,
    users: Users,
    profile: Profile,
    optimize: Optimize,
    /// By node.
    notes: Vec<Note>,
    /// Whether values are made of what stands in slots, if they can.
    uses_slots: bool,
}

/// What users say of a value.
#[derive(Clone, Copy, Default)]
struct Note {
    /// Something outside the tree needs it: the end, or a deferred container.
    is_outside: bool,
    /// It is part of something that is rebuilt, so that one use is several.
    again: bool,
    /// It is part of something that a loader makes of what stands in slots.
    is_from_slots: bool,
    /// The section in which it stands as a table.
    section: Option<Section>,
    /// It is a table of two kinds. Tables are numbered section by section, so it takes a slot.
    is_in_two_sections: bool,
}

impl Sharer<'_> {
    fn decide(&mut self, id: NodeId) -> Decision {
        let graph = self.graph;
        let note = self.notes[id.index()];
        if graph.common(id).is_some() && graph.uses(id) + graph.table_uses(id) > 0 {
            return Decision::Hoist;
        }
        if (graph.uses(id) == 0) & !note.is_in_two_sections {
            return Decision::Table;
        }
        if let Some(instruction) = immediate(graph, id, self.profile) {
            let hoists_from = if note.is_from_slots { 1 } else { self.profile.hoists_loads_from() };
            let is_hoisted = graph.uses(id) >= hoists_from && graph.sharing != Sharing::None;
            return if is_hoisted { Decision::Hoist } else { Decision::Load(instruction) };
        }
        let is_table = graph.table_uses(id) > 0 && !is_short(graph.object(id));
        if graph.sharing == Sharing::None {
            let again = graph.uses(id) > 1 || note.again;
            return match (again, graph.object(id).has_identity()) {
                (false, _) => Decision::Once,
                (true, true) => Decision::Hoist,
                (true, false) => {
                    graph.operands(id).iter().for_each(|operand| self.notes[operand.index()].again = true);
                    Decision::Rebuild
                }
            };
        }
        let waits = is_batched(graph.object(id)) || note.is_from_slots && !graph.object(id).is_compound();
        if self.profile.is_for_loaders() && waits {
            return Decision::Hoist;
        }
        if graph.uses(id) == 1 && !is_table {
            return Decision::Once;
        }
        let is_in_the_tree = self.profile.keeps_values() && !is_table && !note.is_outside;
        let users = if is_in_the_tree { self.users.of(id) } else { &[] };
        let n_makes = self.tree.n_makes(users);
        if n_makes == 1 {
            let (keeper, place) = users[0];
            self.tree.place(id, keeper, place);
            return Decision::Keep;
        }
        let can_rebuild =
            !is_table && !graph.object(id).is_compound() && graph.heap.is_process_wide(graph.object_id(id));
        if can_rebuild {
            let costs = Costs::new(graph, id, self.profile);
            let n_makes = if is_in_the_tree { n_makes } else { costs.uses };
            let is_better = match self.optimize {
                Optimize::Size => costs.remake(n_makes) < costs.hoist(),
                Optimize::Speed => costs.remake_time(n_makes) < costs.hoist_time(),
            };
            if is_better {
                return Decision::Rebuild;
            }
        }
        Decision::Hoist
    }

    /// Tells each operand of a value who needs it, and each table where.
    fn use_operands(&mut self, id: NodeId) {
        if !self.graph.object(id).is_compound() {
            return;
        }
        let tables = self.graph.tables(id);
        if !tables.is_empty() {
            let fields = &self.graph.heap.python().layout().tables;
            for (table, field) in tables.iter().zip(fields) {
                let section = Section::of_table(*field);
                let note = &mut self.notes[table.index()];
                let first = *note.section.get_or_insert(section);
                let is_shared = self.graph.sharing != Sharing::None && !is_short(self.graph.object(*table));
                note.is_in_two_sections |= first != section && is_shared;
            }
        }
        if self.uses_slots && is_from_slots(self.graph, id) {
            self.graph.operands(id).iter().for_each(|operand| self.notes[operand.index()].is_from_slots = true);
        }
        if !self.profile.keeps_values() {
            return;
        }
        for (place, &operand) in (0..).zip(self.graph.operands(id)) {
            if self.graph.uses(operand) > 1 {
                self.users.push(operand, (id, place));
            } else if self.graph.object(operand).is_compound() {
                // A leaf is nobody's user, so its place does not matter.
                self.tree.place(operand, id, place);
            }
        }
    }
}

/// Whether it is process-wide bytes, which are not shared as tables.
fn is_short(object: &Object<'_>) -> bool {
    matches!(object, Object::Bytes(bytes) if bytes.len() <= 1)
}

/// By value with several uses: who uses it as an operand, and as which.
#[derive(Default)]
struct Users {
    /// Where the run of each value ends so far.
    ends: Vec<u32>,
    users: Vec<(NodeId, u32)>,
    starts: Vec<u32>,
}

impl Users {
    fn new(graph: &Graph<'_, '_>) -> Self {
        let mut n_users = 0;
        let start = |id| {
            let start = n_users;
            n_users += if graph.uses(id) > 1 { graph.uses(id) } else { 0 };
            start
        };
        let starts: Vec<u32> = graph.ids().map(start).collect();
        Self { ends: starts.clone(), users: vec![(NodeId(0), 0); n_users as usize], starts }
    }

    fn push(&mut self, id: NodeId, user: (NodeId, u32)) {
        self.users[self.ends[id.index()] as usize] = user;
        self.ends[id.index()] += 1;
    }

    fn of(&self, id: NodeId) -> &[(NodeId, u32)] {
        &self.users[self.starts[id.index()] as usize..self.ends[id.index()] as usize]
    }
}

/// The construction tree as it grows, from users to used. Ancestors are found in logarithmic time by jumps whose lengths
/// depend on the depth alone.
///
/// Source: E. W. Myers, "An applicative random-access stack", Information Processing Letters 17 (1983).
struct Tree {
    /// By node; what is not placed stands alone, as if it were a child of the ground.
    branches: Vec<Branch>,
}

#[derive(Debug, Clone, Copy)]
struct Branch {
    /// The value it is made for; itself where there is none.
    parent: NodeId,
    jump: NodeId,
    depth: u32,
    /// Which operand of the parent it is.
    place: u32,
}

impl Tree {
    fn new(graph: &Graph<'_, '_>) -> Self {
        let alone = |id| Branch { parent: id, jump: id, depth: 0, place: 0 };
        Self { branches: graph.ids().map(alone).collect() }
    }

    fn at(&self, id: NodeId) -> Branch {
        self.branches[id.index()]
    }

    fn place(&mut self, id: NodeId, parent: NodeId, place: u32) {
        let above = self.at(parent);
        let jumped = self.at(above.jump);
        let is_even = above.depth - jumped.depth == jumped.depth - self.at(jumped.jump).depth;
        let jump = if is_even && above.depth > 0 { jumped.jump } else { parent };
        self.branches[id.index()] = Branch { parent, jump, depth: above.depth + 1, place };
    }

    /// The ancestor at a depth that is not greater.
    fn ancestor(&self, mut id: NodeId, depth: u32) -> NodeId {
        while self.at(id).depth > depth {
            let jump = self.at(id).jump;
            id = if self.at(jump).depth >= depth { jump } else { self.at(id).parent };
        }
        id
    }

    /// Whether an operand still waits to be consumed where another one is needed.
    fn waits(&self, (keeper, place): (NodeId, u32), (user, at): (NodeId, u32)) -> bool {
        if user == keeper {
            return at >= place;
        }
        let depth = self.at(keeper).depth;
        if self.at(user).depth <= depth {
            return false;
        }
        let operand = self.at(self.ancestor(user, depth + 1));
        operand.parent == keeper && operand.place > place
    }

    /// At how many uses a value is made that is copied wherever it waits; 3 are many. A third time never pays: what takes
    /// three bytes or more is as short in a slot.
    ///
    /// Users come in the order of decision, so that nothing waits for one that stands before it.
    fn n_makes(&self, users: &[(NodeId, u32)]) -> u64 {
        let Some((first, rest)) = users.split_first() else { return 0 };
        let mut others = rest.iter().filter(|user| !self.waits(*first, **user));
        let Some(second) = others.next() else { return 1 };
        if others.all(|user| self.waits(*second, *user)) { 2 } else { 3 }
    }
}
