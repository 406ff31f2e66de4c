//! Orders the values that are hoisted, each in a slot at the bottom of the stack.
//!
//! Invariants:
//! - The slots are in topological order: what a slot's value needs from other slots stands below it. Deferred containers
//!   stand first.
//! - Every hoisted value has exactly one slot, and nothing else has one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use ordered_float::OrderedFloat;

use crate::graph::{Graph, NodeId};
use crate::heap::Object;
use crate::key::Sharing;
use crate::profile::Profile;
use crate::share::{Decision, Shared};

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

/// How much of its heat a value passes to what it needs, so that a hot value pulls its parts along.
const PULL: f64 = 0.25;

/// Orders the hoisted values.
///
/// The order is Kahn's: of the values whose parts have their slots, the most used comes next, so that LOAD_FAST reaches
/// it with one byte; behind the first 230, the least used, so that COPY reaches the hot ones from above.
pub fn schedule(graph: &Graph<'_, '_>, shared: &Shared, profile: Profile) -> Schedule {
    let mut schedule = Schedule { slots: Vec::new(), slot_of: vec![NONE; graph.len()] };
    for (id, _) in &graph.deferred {
        schedule.push(*id);
    }
    let waiting = |id: NodeId| shared.decision(id) == Decision::Hoist && schedule.slot(id).is_none();
    if graph.sharing == Sharing::None {
        // What is rebuilt has several places at which its parts are needed: ids are in topological order.
        let hoisted: Vec<NodeId> = graph.ids().filter(|id| waiting(*id)).collect();
        hoisted.into_iter().for_each(|id| schedule.push(id));
        return schedule;
    }
    let waiting: Vec<bool> = graph.ids().map(waiting).collect();
    let dependencies = Dependencies::new(graph, shared, &waiting);
    kahn(&dependencies, profile.n_near_slots(), &mut schedule);
    if profile.has_own_instructions() {
        let n_deferred = graph.deferred.len();
        schedule.batch(graph, n_deferred..profile.n_near_slots());
        schedule.batch(graph, profile.n_near_slots().max(n_deferred)..usize::MAX);
    }
    schedule
}

/// Whether MAKE_STRINGS makes it, together with others.
pub(crate) fn is_batched(object: &Object<'_>) -> bool {
    matches!(object, Object::Str(text) if text.is_interned() && text.is_ascii() && !text.is_cached())
}

impl Schedule {
    /// Moves what MAKE_STRINGS makes to the front of a range of slots, as far as there are so many.
    fn batch(&mut self, graph: &Graph<'_, '_>, slots: std::ops::Range<usize>) {
        let n_slots = self.slots.len();
        let Some(range) = self.slots.get_mut(slots.start.min(n_slots)..slots.end.min(n_slots)) else { return };
        range.sort_by_key(|id| !is_batched(graph.object(*id)));
        for (at, id) in (slots.start..).zip(range) {
            self.slot_of[id.index()] = u32::try_from(at).expect("no more than nodes");
        }
    }

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
    fn new(graph: &Graph<'_, '_>, shared: &Shared, waiting: &[bool]) -> Self {
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
        Self { hoisted, heat, n_needs, starts, users }
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
    // Of equally hot values the one that was met first comes first.
    let heat = |at: u32| (OrderedFloat(dependencies.heat[at as usize]), Reverse(at));
    let indexes = 0..u32::try_from(n_needs.len()).expect("no more than nodes");
    let mut hottest: BinaryHeap<_> = indexes.filter(|at| n_needs[*at as usize] == 0).map(heat).collect();
    while schedule.slots.len() < n_near
        && let Some((_, Reverse(at))) = hottest.pop()
    {
        schedule.push(dependencies.hoisted[at as usize]);
        hottest.extend(dependencies.freed(at, &mut n_needs).map(heat));
    }
    let mut coldest: BinaryHeap<_> = hottest.into_iter().map(Reverse).collect();
    while let Some(Reverse((_, Reverse(at)))) = coldest.pop() {
        schedule.push(dependencies.hoisted[at as usize]);
        coldest.extend(dependencies.freed(at, &mut n_needs).map(heat).map(Reverse));
    }
}
