//! Compares two heaps, object by object: the judge of every stage, which shares no code with any.
//!
//! Numbers are compared by their bits, text with its interned mark, containers in their order. What CPython holds once
//! for the whole process is compared by value alone.

use indexmap::IndexSet;

use crate::heap::{Heap, Object, ObjectId};

/// What is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sameness {
    /// Every object stands for exactly one of the other heap.
    Identity,
    /// As before, but equal immutable objects may have become one.
    Structural,
    /// As before, and one immutable object may have become several.
    Value,
}

/// The first place where `b`, below `b_root`, is not the same as `a`; `None` if it is.
///
/// The place is given as a path and a reason: `top > co_consts > item 3: int became str`.
pub fn difference(
    (a, a_root): (&Heap<'_>, ObjectId),
    (b, b_root): (&Heap<'_>, ObjectId),
    sameness: Sameness,
) -> Option<String> {
    let mut comparison = Comparison { a, b, sameness, forward: vec![None; a.len()], backward: vec![None; b.len()] };
    let mut steps = vec![Step { parent: 0, place: 0, a: a_root, b: b_root }];
    // The pairs that are compared already: a long text may stand at many places.
    let mut seen = IndexSet::<_, foldhash::fast::RandomState>::default();
    let mut next = 0;
    while let Some(&Step { a: x, b: y, .. }) = steps.get(next) {
        if seen.insert((x, y)) {
            if let Err(why) = comparison.pair(x, y) {
                return Some(format!("{}: {why}", path(a, &steps, next)));
            }
            let pairs = (0..).zip(a.children(x).zip(b.children(y)));
            steps.extend(pairs.map(|(place, (a, b))| Step { parent: next, place, a, b }));
        }
        next += 1;
    }
    None
}

/// Two objects to be compared, and where they stand.
struct Step {
    parent: usize,
    place: usize,
    a: ObjectId,
    b: ObjectId,
}

struct Comparison<'h> {
    a: &'h Heap<'h>,
    b: &'h Heap<'h>,
    sameness: Sameness,
    forward: Vec<Option<ObjectId>>,
    backward: Vec<Option<ObjectId>>,
}

impl Comparison<'_> {
    fn pair(&mut self, x: ObjectId, y: ObjectId) -> Result<(), String> {
        self.values(x, y)?;
        if self.a.is_process_wide(x) && self.b.is_process_wide(y) {
            return Ok(());
        }
        let what = self.a[x].type_name();
        let has_identity = self.a[x].has_identity();
        if *self.forward[x.index()].get_or_insert(y) != y && (has_identity || self.sameness != Sameness::Value) {
            return Err(format!("one shared {what} became two"));
        }
        if *self.backward[y.index()].get_or_insert(x) != x && (has_identity || self.sameness == Sameness::Identity) {
            return Err(format!("two {what} became one"));
        }
        Ok(())
    }

    /// Types, values, and how many objects are held.
    fn values(&self, x: ObjectId, y: ObjectId) -> Result<(), String> {
        let (a, b) = (&self.a[x], &self.b[y]);
        let same = match (a, b) {
            (Object::None, Object::None)
            | (Object::False, Object::False)
            | (Object::True, Object::True)
            | (Object::Ellipsis, Object::Ellipsis)
            | (Object::StopIteration, Object::StopIteration) => true,
            (Object::Int(a), Object::Int(b)) => a == b,
            (Object::Long(a), Object::Long(b)) => self.a.long(*a) == self.b.long(*b),
            (Object::Float(a), Object::Float(b)) => a == b,
            (Object::Complex { real, imag }, Object::Complex { real: other, imag: another }) => {
                (real, imag) == (other, another)
            }
            (Object::Bytes(a), Object::Bytes(b)) => a == b,
            (Object::Str(a), Object::Str(b)) => {
                if a.same_text(*b) && !a.is_cached() && a.is_interned() != b.is_interned() {
                    return Err(format!("a str is {}interned", if b.is_interned() { "" } else { "not " }));
                }
                a.same_text(*b)
            }
            (Object::Tuple(a), Object::Tuple(b))
            | (Object::List(a), Object::List(b))
            | (Object::Set(a), Object::Set(b))
            | (Object::FrozenSet(a), Object::FrozenSet(b))
            | (Object::Slice(a), Object::Slice(b)) => a.len() == b.len(),
            (Object::Dict(a), Object::Dict(b)) | (Object::FrozenDict(a), Object::FrozenDict(b)) => {
                a.len() / 2 == b.len() / 2
            }
            (Object::Code(a), Object::Code(b)) => {
                let (a, b) = (self.a.code(*a), self.b.code(*b));
                let numbers = self.a.python().layout().numbers.iter();
                if let Some(field) = numbers.clone().find(|field| a.number(**field) != b.number(**field)) {
                    return Err(format!("{} {} became {}", field.name(), a.number(*field), b.number(*field)));
                }
                true
            }
            _ => return Err(format!("{} became {}", a.type_name(), b.type_name())),
        };
        if same { Ok(()) } else { Err(format!("a {} became another", a.type_name())) }
    }
}

fn path(heap: &Heap<'_>, steps: &[Step], mut at: usize) -> String {
    let mut names = Vec::new();
    while at != 0 {
        let Step { parent, place, .. } = steps[at];
        names.push(heap.name_of_child(steps[parent].a, place));
        at = parent;
    }
    names.push("top".to_owned());
    names.reverse();
    names.join(" > ")
}
