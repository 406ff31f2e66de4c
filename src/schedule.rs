//! Orders the values that are hoisted, each in a slot at the bottom of the stack.
//!
//! Invariants:
//! - The slots are in topological order: what a slot's value needs from other slots stands below it. Deferred containers
//!   stand first.
//! - Every hoisted value has exactly one slot, and nothing else has one.
//! - The values of a batch need nothing, and stand in consecutive slots.

use std::cmp::Reverse;

use crate::graph::{Graph, NodeId};
use crate::heap::Object;
use crate::isa::{Instruction, Op};
use crate::key::Sharing;
use crate::profile::Profile;
use crate::python::FieldKind;
use crate::share::{Decision, Shared, is_batched, is_text};

/// What waits where.
#[derive(Debug)]
pub struct Schedule {
    /// The hoisted values, from the bottom of the stack.
    pub slots: Vec<NodeId>,
    /// By node; `NONE` for what is made in place.
    slot_of: Vec<u32>,
    /// Runs of slots that one instruction makes, in order.
    pub(crate) batches: Vec<Batch>,
}

/// A run of slots that one instruction makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch {
    pub(crate) op: Op,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

const NONE: u32 = u32::MAX;

impl Schedule {
    /// The slot of a value, if it is hoisted.
    pub fn slot(&self, id: NodeId) -> Option<u32> {
        let slot = self.slot_of[id.index()];
        (slot != NONE).then_some(slot)
    }
}

/// What a value needs is as hot as this part of its own heat, at least: a hot value pulls its parts along.
const PULL: u32 = 4;

/// How many operands pend above the slots, at least, where a use counts as high: COPY hardly reaches a slot from there.
/// This and the next one are what gave the fewest EXTENDED_ARGs over the standard libraries of 3.13 and 3.15.
const HIGH: u32 = 100;

/// How many more uses a high one counts for among the near slots, which LOAD_FAST reaches from anywhere.
const HIGH_WEIGHT: u32 = 3;

/// Orders the hoisted values.
///
/// The order is Kahn's: of the values whose parts have their slots, the most used comes next, so that LOAD_FAST reaches
/// it with one byte; behind the near ones, the least used, so that COPY reaches the hot ones from above. Uses from high
/// above the slots count for more among the near ones, and for nothing behind them.
pub fn schedule(graph: &Graph<'_, '_>, shared: &Shared, profile: Profile) -> Schedule {
    schedule_as(graph, shared, profile, |_| false)
}

/// As [`schedule`], where more is a name than the code objects of the graph tell.
pub(crate) fn schedule_as(
    graph: &Graph<'_, '_>,
    shared: &Shared,
    profile: Profile,
    is_name: impl Fn(NodeId) -> bool,
) -> Schedule {
    let mut schedule = Schedule { slots: Vec::new(), slot_of: vec![NONE; graph.len()], batches: Vec::new() };
    for (id, _) in &graph.deferred {
        schedule.push(*id);
    }
    let waiting: Vec<bool> = graph
        .ids()
        .map(|id| matches!(shared.decision(id), Decision::Hoist) & (schedule.slot_of[id.index()] == NONE))
        .collect();
    let mut hoisted = chosen(graph.ids(), &waiting);
    if graph.sharing == Sharing::None {
        // What is rebuilt has several places at which its parts are needed: ids are in topological order.
        hoisted.into_iter().for_each(|id| schedule.push(id));
        return schedule;
    }
    let n_deferred = graph.deferred.len();
    if profile.is_for_loaders() {
        // Names need nothing, so they can stand below all else.
        let mut classes = Classes::new(graph);
        graph.ids().filter(|id| is_name(*id)).for_each(|id| classes.is_name[id.index()] = true);
        let batch = |id: NodeId| match graph.common(id) {
            Some(Instruction { op: Op::LoadCommonName, .. }) => Some(Op::LoadManyNames),
            Some(_) => Some(Op::LoadManyConsts),
            None if is_text(graph.object(id)) => Some(Op::MakeTexts),
            None => is_batched(graph.object(id)).then(|| classes.op(id)),
        };
        // To the first three a loader counts no references, as long as nothing else stands between them.
        hoisted.sort_by_cached_key(|id| match batch(*id) {
            Some(Op::LoadManyNames) => (0, Reverse(graph.uses(*id)), *id),
            Some(Op::MakeNames) => (1, Reverse(graph.uses(*id)), *id),
            Some(Op::MakeIdentifiers) => (2, Reverse(graph.uses(*id)), *id),
            Some(Op::LoadManyConsts) => (3, Reverse(graph.uses(*id)), *id),
            Some(Op::MakeTexts) => (5, Reverse(0), *id),
            Some(_) => (4, Reverse(graph.uses(*id)), *id),
            None => (6, Reverse(0), *id),
        });
        hoisted.into_iter().for_each(|id| schedule.push(id));
        schedule.note_batches(n_deferred, batch);
        return schedule;
    }
    if schedule.slots.len() + hoisted.len() <= profile.n_near_slots() {
        // Every slot is near: any topological order will do, and ids are in one.
        hoisted.into_iter().for_each(|id| schedule.push(id));
    } else {
        let dependencies = Dependencies::new(graph, shared, &waiting, hoisted, profile);
        kahn(&dependencies, profile.n_near_slots(), &mut schedule);
    }
    if profile.has_own_instructions() {
        schedule.gather(graph, n_deferred..profile.n_near_slots());
        schedule.gather(graph, profile.n_near_slots().max(n_deferred)..usize::MAX);
        schedule.note_batches(n_deferred, |id| is_batched(graph.object(id)).then_some(Op::MakeStrings));
    }
    schedule
}

/// What the names of a graph are to the code objects that need them.
pub(crate) struct Classes {
    /// By node: whether a code object uses it as a name.
    is_name: Vec<bool>,
    /// By node: whether it is the name, qualified name or filename of a code object, or looks like a name where a constant
    /// holds it.
    is_identifier: Vec<bool>,
}

impl Classes {
    pub(crate) fn new(graph: &Graph<'_, '_>) -> Self {
        let mut classes = Self { is_name: vec![false; graph.len()], is_identifier: vec![false; graph.len()] };
        for id in graph.ids() {
            classes.is_identifier[id.index()] =
                matches!(graph.object(id), Object::Str(text) if text.is_identifier_like());
        }
        // A tuple of names may be that of many code objects.
        let mut is_of_names = vec![false; graph.len()];
        for id in graph.ids().filter(|id| matches!(graph.object(*id), Object::Code(_))) {
            for (field, &operand) in graph.heap.python().layout().operands.iter().zip(graph.operands(id)) {
                match field.kind() {
                    FieldKind::Names => is_of_names[operand.index()] = true,
                    FieldKind::Tuple => {}
                    _ => classes.is_identifier[operand.index()] = true,
                }
            }
        }
        for id in graph.ids().filter(|id| is_of_names[id.index()]) {
            graph.operands(id).iter().for_each(|name| classes.is_name[name.index()] = true);
        }
        classes
    }

    /// The instruction that makes a name together with others of its class.
    pub(crate) fn op(&self, id: NodeId) -> Op {
        match (self.is_name[id.index()], self.is_identifier[id.index()]) {
            (true, _) => Op::MakeNames,
            (false, true) => Op::MakeIdentifiers,
            (false, false) => Op::MakeStrings,
        }
    }
}

/// The nodes that are waiting. Which ones do is anyone's guess, so nothing branches on it.
fn chosen(ids: impl Iterator<Item = NodeId>, waiting: &[bool]) -> Vec<NodeId> {
    let (mut chosen, mut n) = (vec![NodeId(0); waiting.len()], 0);
    for id in ids {
        chosen[n] = id;
        n += usize::from(waiting[id.index()]);
    }
    chosen.truncate(n);
    chosen
}

impl Schedule {
    /// Notes the runs of slots that one instruction makes, from `start` on; `op` says which one makes a value.
    fn note_batches(&mut self, start: usize, op: impl Fn(NodeId) -> Option<Op>) {
        let mut at = start;
        for run in self.slots[start..].chunk_by(|a, b| op(*a) == op(*b)) {
            match op(run[0]) {
                Some(op) if run.len() > 1 || op.has_hashes() => {
                    self.batches.push(Batch { op, start: at, len: run.len() });
                }
                _ => {}
            }
            at += run.len();
        }
    }

    /// Moves what MAKE_STRINGS makes to the front of a range of slots, as far as there are so many.
    fn gather(&mut self, graph: &Graph<'_, '_>, slots: std::ops::Range<usize>) {
        let n_slots = self.slots.len();
        let Some(range) = self.slots.get_mut(slots.start.min(n_slots)..slots.end.min(n_slots)) else { return };
        let mut others = Vec::with_capacity(range.len());
        let mut n_batched = 0;
        for at in 0..range.len() {
            if is_batched(graph.object(range[at])) {
                range[n_batched] = range[at];
                n_batched += 1;
            } else {
                others.push(range[at]);
            }
        }
        range[n_batched..].copy_from_slice(&others);
        for (at, id) in (slots.start..).zip(range) {
            self.slot_of[id.index()] = u32::try_from(at).expect("no more than nodes");
        }
    }

    fn push(&mut self, id: NodeId) {
        self.slot_of[id.index()] = u32::try_from(self.slots.len()).expect("no more than nodes");
        self.slots.push(id);
    }
}

/// How much it matters that a value is referred to by one byte.
#[derive(Clone, Copy)]
struct Heats {
    /// In a near slot.
    near: u32,
    /// Behind the near ones.
    far: u32,
}

/// Which hoisted value needs which: its own parts, and those of what is made in place for it.
struct Dependencies {
    hoisted: Vec<NodeId>,
    heats: Vec<Heats>,
    /// How many needs of each are not met yet.
    n_needs: Vec<u32>,
    /// Where each one's run in `users` begins; one more at the end.
    starts: Vec<u32>,
    users: Vec<u32>,
}

impl Dependencies {
    fn new(graph: &Graph<'_, '_>, shared: &Shared, waiting: &[bool], hoisted: Vec<NodeId>, profile: Profile) -> Self {
        // With instructions that copy their operands themselves, few pend.
        let high = match profile.has_own_instructions() {
            true => vec![0; graph.len()],
            false => n_high_uses(graph, shared, waiting),
        };
        let heats = |id: &NodeId| {
            let (uses, n_high) = (graph.uses(*id), high[id.index()]);
            Heats { near: PULL * (uses + HIGH_WEIGHT * n_high), far: PULL * (uses - n_high) }
        };
        let mut heats: Vec<Heats> = hoisted.iter().map(heats).collect();
        // By node: the hoisted value that it is, or for which it is made; users have larger ids than what they use.
        let mut owner = vec![NONE; graph.len()];
        for (at, id) in (0..).zip(&hoisted) {
            owner[id.index()] = at;
        }
        let mut needs: Vec<(u32, u32)> = Vec::with_capacity(graph.len());
        for user in graph.ids().rev() {
            let of = owner[user.index()];
            if of == NONE {
                continue;
            }
            for used in graph.operands(user).iter().chain(graph.tables(user)) {
                if waiting[used.index()] {
                    let used = owner[used.index()];
                    let pull = heats[of as usize];
                    let heats = &mut heats[used as usize];
                    heats.near = heats.near.max(pull.near / PULL);
                    heats.far = heats.far.max(pull.far / PULL);
                    needs.push((used, of));
                } else if matches!(shared.decision(*used), Decision::Once | Decision::Keep) {
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
        Self { hoisted, heats, n_needs, starts, users }
    }

    /// The values that waited for nothing but this one.
    fn freed<'d>(&'d self, at: u32, n_needs: &'d mut [u32]) -> impl Iterator<Item = u32> + 'd {
        let users = self.starts[at as usize] as usize..self.starts[at as usize + 1] as usize;
        self.users[users].iter().copied().filter(|user| {
            n_needs[*user as usize] -= 1;
            n_needs[*user as usize] == 0
        })
    }
}

fn kahn(dependencies: &Dependencies, n_near: usize, schedule: &mut Schedule) {
    let mut n_needs = dependencies.n_needs.clone();
    let heats = |at: u32| dependencies.heats[at as usize];
    let n_hoisted = dependencies.hoisted.len();
    let mut hot = Ready::new(n_hoisted);
    // The last one put in comes out first: of equally hot values, the one that was met first.
    for at in (0..n_hoisted as u32).rev().filter(|at| dependencies.n_needs[*at as usize] == 0) {
        hot.push(at, heats(at).near);
    }
    while schedule.slots.len() < n_near
        && let Some(at) = hot.pop_hottest()
    {
        schedule.push(dependencies.hoisted[at as usize]);
        dependencies.freed(at, &mut n_needs).for_each(|user| hot.push(user, heats(user).near));
    }
    let mut cold = Ready::new(n_hoisted);
    while let Some(at) = hot.pop_coldest() {
        cold.push(at, heats(at).far);
    }
    while let Some(at) = cold.pop_coldest() {
        schedule.push(dependencies.hoisted[at as usize]);
        dependencies.freed(at, &mut n_needs).for_each(|user| cold.push(user, heats(user).far));
    }
}

/// By node that is waiting: how often it is needed while many operands pend above the slots. Each operand of a value pends
/// above those before it, and above what pends where the value itself is made.
fn n_high_uses(graph: &Graph<'_, '_>, shared: &Shared, waiting: &[bool]) -> Vec<u32> {
    // Users have larger ids than what they use.
    let (mut height, mut n_high) = (vec![0_u32; graph.len()], vec![0; graph.len()]);
    for user in graph.ids().rev() {
        for (place, used) in (0..).zip(graph.operands(user)) {
            let above = height[user.index()] + place;
            if waiting[used.index()] {
                n_high[used.index()] += u32::from(above >= HIGH);
            } else if matches!(shared.decision(*used), Decision::Once | Decision::Keep) {
                height[used.index()] = above;
            }
        }
    }
    n_high
}

/// Values that can be made next, in buckets of equal heat.
struct Ready {
    /// By heat: the first value of the bucket.
    first: [u32; N_HEATS],
    /// By value: the next one in its bucket.
    next: Vec<u32>,
    /// No value is hotter.
    hottest: usize,
    /// No value is colder.
    coldest: usize,
}

/// Heats that are told apart.
const N_HEATS: usize = 1024;

impl Ready {
    fn new(n_values: usize) -> Self {
        Self { first: [NONE; N_HEATS], next: vec![NONE; n_values], hottest: 0, coldest: N_HEATS - 1 }
    }

    fn push(&mut self, at: u32, heat: u32) {
        let heat = (heat as usize).min(N_HEATS - 1);
        self.next[at as usize] = self.first[heat];
        self.first[heat] = at;
        self.hottest = self.hottest.max(heat);
        self.coldest = self.coldest.min(heat);
    }

    fn pop_hottest(&mut self) -> Option<u32> {
        self.hottest = self.first[..=self.hottest].iter().rposition(|first| *first != NONE)?;
        Some(self.pop(self.hottest))
    }

    fn pop_coldest(&mut self) -> Option<u32> {
        self.coldest += self.first[self.coldest..].iter().position(|first| *first != NONE)?;
        Some(self.pop(self.coldest))
    }

    fn pop(&mut self, heat: usize) -> u32 {
        let at = self.first[heat];
        self.first[heat] = self.next[at as usize];
        at
    }
}
