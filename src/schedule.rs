//! Orders the values that are hoisted, each in a slot at the bottom of the stack.
//!
//! Invariants:
//! - The slots are in topological order: what a slot's value needs from other slots stands below it. Deferred containers
//!   stand first.
//! - Every hoisted value has exactly one slot, and nothing else has one.

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

/// What a value needs is as hot as this part of its own heat, at least: a hot value pulls its parts along.
const PULL: u32 = 4;

/// Orders the hoisted values.
///
/// The order is Kahn's: of the values whose parts have their slots, the most used comes next, so that LOAD_FAST reaches
/// it with one byte; behind the near ones, the least used, so that COPY reaches the hot ones from above.
pub fn schedule(graph: &Graph<'_, '_>, shared: &Shared, profile: Profile) -> Schedule {
    let mut schedule = Schedule { slots: Vec::new(), slot_of: vec![NONE; graph.len()] };
    for (id, _) in &graph.deferred {
        schedule.push(*id);
    }
    let waiting: Vec<bool> = graph
        .ids()
        .map(|id| matches!(shared.decision(id), Decision::Hoist) & (schedule.slot_of[id.index()] == NONE))
        .collect();
    let hoisted = chosen(graph.ids(), &waiting);
    if graph.sharing == Sharing::None || schedule.slots.len() + hoisted.len() <= profile.n_near_slots() {
        // Every slot is near, or what is rebuilt has several places at which its parts are needed: any topological order
        // will do, and ids are in one.
        hoisted.into_iter().for_each(|id| schedule.push(id));
    } else {
        let dependencies = Dependencies::new(graph, shared, &waiting, hoisted);
        kahn(&dependencies, profile.n_near_slots(), &mut schedule);
    }
    if graph.sharing == Sharing::None {
        return schedule;
    }
    if profile.has_own_instructions() {
        let n_deferred = graph.deferred.len();
        schedule.batch(graph, n_deferred..profile.n_near_slots());
        schedule.batch(graph, profile.n_near_slots().max(n_deferred)..usize::MAX);
    }
    schedule
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

/// Whether MAKE_STRINGS makes it, together with others.
pub(crate) fn is_batched(object: &Object<'_>) -> bool {
    matches!(object, Object::Str(text) if text.is_interned() && text.is_ascii() && !text.is_cached())
}

impl Schedule {
    /// Moves what MAKE_STRINGS makes to the front of a range of slots, as far as there are so many.
    fn batch(&mut self, graph: &Graph<'_, '_>, slots: std::ops::Range<usize>) {
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

/// Which hoisted value needs which: its own parts, and those of what is made in place for it.
struct Dependencies {
    hoisted: Vec<NodeId>,
    heat: Vec<u32>,
    /// How many needs of each are not met yet.
    n_needs: Vec<u32>,
    /// Where each one's run in `users` begins; one more at the end.
    starts: Vec<u32>,
    users: Vec<u32>,
}

impl Dependencies {
    fn new(graph: &Graph<'_, '_>, shared: &Shared, waiting: &[bool], hoisted: Vec<NodeId>) -> Self {
        let mut heat: Vec<u32> = hoisted.iter().map(|id| PULL * graph.uses(*id)).collect();
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
                    heat[used as usize] = heat[used as usize].max(heat[of as usize] / PULL);
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
    let heat = |at: u32| dependencies.heat[at as usize];
    let mut ready = Ready::new(dependencies.hoisted.len());
    // The last one put in comes out first: of equally hot values, the one that was met first.
    for at in (0..dependencies.hoisted.len() as u32).rev().filter(|at| dependencies.n_needs[*at as usize] == 0) {
        ready.push(at, heat(at));
    }
    while let Some(at) = if schedule.slots.len() < n_near { ready.pop_hottest() } else { ready.pop_coldest() } {
        schedule.push(dependencies.hoisted[at as usize]);
        for user in dependencies.freed(at, &mut n_needs) {
            ready.push(user, heat(user));
        }
    }
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
