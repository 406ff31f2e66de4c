//! Decides which values wait on the stack, and in which order they are made.
//!
//! A value that is needed more than once is *hoisted*: made before everything else, in a slot at the bottom of the
//! stack, from which every use copies it. All others are made where they are used.
//!
//! Invariants:
//! - The slots are in topological order: what a slot's value needs from other slots stands below it. Deferred containers
//!   stand first.
//! - Every value that needs a slot has exactly one.

use std::collections::BTreeSet;

use ordered_float::OrderedFloat;

use crate::common::{self, CommonConst};
use crate::graph::{Graph, NodeId};
use crate::heap::Object;
use crate::isa::{Instruction, Op};
use crate::key::Sharing;

/// What waits where.
#[derive(Debug)]
pub struct Schedule {
    /// The hoisted values, from the bottom of the stack.
    pub slots: Vec<NodeId>,
    /// By node; `NONE` for what is made in place.
    slot_of: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl Schedule {
    /// The slot of a value, if it is hoisted.
    pub fn slot(&self, id: NodeId) -> Option<u32> {
        let slot = self.slot_of[id.index()];
        (slot != NONE).then_some(slot)
    }
}

/// The one instruction that loads a value without making it, if there is one.
///
/// Every frozenset of an identity graph is its own object, so it does not take the empty one of the table there.
pub(crate) fn immediate(graph: &Graph<'_, '_>, id: NodeId) -> Option<Instruction> {
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

/// Slots that LOAD_FAST reaches without EXTENDED_ARG, less some that a ready value would have to wait for.
const NEAR_BOTTOM: usize = 230;

/// How much of its heat a value passes to what it needs, so that a hot value pulls its parts along.
const PULL: f64 = 0.25;

/// Chooses the hoisted values and orders them.
///
/// The order is Kahn's: of the values whose parts have their slots, the most used comes next, so that LOAD_FAST reaches
/// it with one byte; behind the first 230, the least used, so that COPY reaches the hot ones from above.
pub fn schedule(graph: &Graph<'_, '_>) -> Schedule {
    let mut schedule = Schedule { slots: Vec::new(), slot_of: vec![NONE; graph.len()] };
    for (id, _) in &graph.deferred {
        schedule.push(*id);
    }
    if graph.sharing == Sharing::None {
        // Immutable values are made anew at each use, so an id decides: what is needed has the smaller one.
        for id in graph.ids().filter(|id| graph.uses(*id) > 1 && graph.object(*id).has_identity()) {
            if schedule.slot(id).is_none() {
                schedule.push(id);
            }
        }
        return schedule;
    }
    let hoisted = |id: NodeId| graph.uses(id) > 1 || (graph.uses(id) == 1 && graph.table_uses(id) > 0);
    let waiting: Vec<bool> =
        graph.ids().map(|id| hoisted(id) && immediate(graph, id).is_none() && schedule.slot(id).is_none()).collect();
    let dependencies = Dependencies::new(graph, &waiting);
    kahn(&dependencies, &mut schedule);
    schedule
}

impl Schedule {
    fn push(&mut self, id: NodeId) {
        self.slot_of[id.index()] = u32::try_from(self.slots.len()).expect("no more than nodes");
        self.slots.push(id);
    }
}

/// Which hoisted value needs which: its own parts, and those of what is made in place for it.
struct Dependencies {
    hoisted: Vec<NodeId>,
    heat: Vec<f64>,
    /// How many needs of each are not met yet.
    n_needs: Vec<u32>,
    /// Where each one's run in `users` begins; one more at the end.
    starts: Vec<u32>,
    users: Vec<u32>,
}

impl Dependencies {
    fn new(graph: &Graph<'_, '_>, waiting: &[bool]) -> Self {
        let hoisted: Vec<NodeId> = graph.ids().filter(|id| waiting[id.index()]).collect();
        let mut heat: Vec<f64> = hoisted.iter().map(|id| f64::from(graph.uses(*id))).collect();
        // By node: the hoisted value that it is, or for which it is made; users have larger ids than what they use.
        let mut owner = vec![NONE; graph.len()];
        for (at, id) in (0..).zip(&hoisted) {
            owner[id.index()] = at;
        }
        let mut needs: Vec<(u32, u32)> = Vec::new();
        for user in graph.ids().rev() {
            let of = owner[user.index()];
            if of == NONE {
                continue;
            }
            for used in graph.operands(user).iter().chain(graph.tables(user)) {
                if waiting[used.index()] {
                    let used = owner[used.index()];
                    heat[used as usize] = heat[used as usize].max(PULL * heat[of as usize]);
                    needs.push((used, of));
                } else if graph.uses(*used) == 1 {
                    owner[used.index()] = of;
                }
            }
        }
        let mut n_needs = vec![0; hoisted.len()];
        let mut starts = vec![0; hoisted.len() + 1];
        for (used, of) in &needs {
            n_needs[*of as usize] += 1;
            starts[*used as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut users = vec![0; needs.len()];
        for (used, of) in needs {
            users[next[used as usize] as usize] = of;
            next[used as usize] += 1;
        }
        Self { hoisted, heat, n_needs, starts, users }
    }

    fn users(&self, at: u32) -> std::ops::Range<usize> {
        self.starts[at as usize] as usize..self.starts[at as usize + 1] as usize
    }
}

fn kahn(dependencies: &Dependencies, schedule: &mut Schedule) {
    let mut n_needs = dependencies.n_needs.clone();
    let place = |at: u32| (OrderedFloat(-dependencies.heat[at as usize]), at);
    let indexes = 0..u32::try_from(n_needs.len()).expect("no more than nodes");
    let mut ready: BTreeSet<(OrderedFloat<f64>, u32)> =
        indexes.filter(|at| n_needs[*at as usize] == 0).map(place).collect();
    while let Some((_, at)) = if schedule.slots.len() < NEAR_BOTTOM { ready.pop_first() } else { ready.pop_last() } {
        schedule.push(dependencies.hoisted[at as usize]);
        for user in &dependencies.users[dependencies.users(at)] {
            let needs = &mut n_needs[*user as usize];
            *needs -= 1;
            if *needs == 0 {
                ready.insert(place(*user));
            }
        }
    }
}
