//! Walks two heaps side by side and says what differs.
//!
//! Invariants:
//! - A pair of containers is taken apart once, however many paths lead to it.
//! - Of a pair of different values at least one difference is said, at it or below it, here or where the pair was met before.
//! - Sharing is judged among equal values alone: each stands for one of the other heap, the first that it is met with.

use std::collections::HashSet;

use foldhash::fast::RandomState;
use indexmap::IndexMap;

use super::align::{Edit, Item, align};
use super::spell;
use super::values::{Value, Values, number};
use super::{Difference, Found, What, Which};
use crate::heap::{Code, Heap, Object, ObjectId};
use crate::python::{Field, FieldKind};

/// What differs in the objects.
pub(super) struct Walked {
    pub(super) values: Found,
    pub(super) written: Found,
    /// Whether both have the same objects, shared alike, in the same order.
    pub(super) in_step: bool,
}

/// Compares what is below each root, and keeps the first `limit` differences of each kind.
pub(super) fn walk(a: (&Heap<'_>, ObjectId), b: (&Heap<'_>, ObjectId), limit: usize) -> Walked {
    let [a_values, b_values] = number(a, b);
    let mut walk = Walk {
        a: a.0,
        b: b.0,
        a_values,
        b_values,
        steps: Vec::new(),
        tasks: vec![Task { parent: None, label: Label::Top, todo: Todo::Pair(a.1, b.1), is_below_split: false }],
        seen: HashSet::default(),
        said: HashSet::default(),
        filenames: HashSet::default(),
        forward: vec![None; a.0.len()],
        backward: vec![None; b.0.len()],
        budget: BUDGET * (a.0.len() + b.0.len()) + MIN_BUDGET,
        limit,
        values: Found::default(),
        written: Found::default(),
        in_step: true,
    };
    while let Some(task) = walk.tasks.pop() {
        walk.work_on(task);
    }
    Walked { values: walk.values, written: walk.written, in_step: walk.in_step }
}

/// Items that may be looked at, for each object. Each container meets one other, or few: what needs more was made to, and
/// is compared no further.
const BUDGET: usize = 64;
const MIN_BUDGET: usize = 1 << 20;

/// What is to be compared, or to be said when its turn comes.
#[derive(Clone, Copy)]
struct Task {
    parent: Option<u32>,
    label: Label,
    todo: Todo,
    /// Whether what holds it is shared in one heap alone, so that the same of it is no news.
    is_below_split: bool,
}

#[derive(Clone, Copy)]
enum Todo {
    Pair(ObjectId, ObjectId),
    Numbers(i32, i32),
    Number(Which, i32),
    Only(Which, ObjectId),
    OnlyPair(Which, ObjectId, ObjectId),
    /// To this position in B.
    Moved(ObjectId, usize),
}

/// Where something stands in what holds it.
#[derive(Clone, Copy)]
enum Label {
    Top,
    Field(Field),
    /// Its position in A and in B; one of them is where the other has it not.
    Item(usize, usize),
    /// A set's: positions say nothing.
    Member,
    Key(usize),
    /// The value of this key of A.
    ValueOf(ObjectId),
}

/// A pair that was taken apart.
struct Step {
    parent: Option<u32>,
    label: Label,
    a: ObjectId,
}

struct Walk<'h> {
    a: &'h Heap<'h>,
    b: &'h Heap<'h>,
    a_values: Values,
    b_values: Values,
    steps: Vec<Step>,
    /// The next one is last.
    tasks: Vec<Task>,
    seen: HashSet<(ObjectId, ObjectId), RandomState>,
    /// Objects whose sharing was found to differ.
    said: HashSet<(Which, ObjectId), RandomState>,
    filenames: HashSet<(Value, Value), RandomState>,
    /// The first equal object that each was met with.
    forward: Vec<Option<ObjectId>>,
    backward: Vec<Option<ObjectId>>,
    budget: usize,
    limit: usize,
    values: Found,
    written: Found,
    in_step: bool,
}

impl<'h> Walk<'h> {
    fn work_on(&mut self, task: Task) {
        let what = match task.todo {
            Todo::Pair(x, y) => return self.pair(task, x, y),
            Todo::Numbers(a, b) => What::Value { a: a.to_string(), b: b.to_string() },
            Todo::Number(only_in, number) => What::Only { only_in, value: number.to_string() },
            Todo::Only(only_in, id) => What::Only { only_in, value: spell::value(self.heap(only_in), id) },
            Todo::OnlyPair(only_in, key, value) => {
                let heap = self.heap(only_in);
                What::Only { only_in, value: format!("{}: {}", spell::value(heap, key), spell::value(heap, value)) }
            }
            Todo::Moved(id, to) => What::Moved { value: spell::value(self.a, id), to },
        };
        self.say(task, what);
    }

    fn heap(&self, which: Which) -> &'h Heap<'h> {
        match which {
            Which::A => self.a,
            Which::B => self.b,
        }
    }

    fn pair(&mut self, mut task: Task, x: ObjectId, y: ObjectId) {
        let (a, b) = (&self.a[x], &self.b[y]);
        let (x_value, y_value) = (self.a_values.of(x), self.b_values.of(y));
        let are_cyclic = matches!((x_value, y_value), (Value::Cyclic(_), Value::Cyclic(_)));
        let may_be_equal = x_value == y_value || are_cyclic && a.type_name() == b.type_name();
        if may_be_equal {
            if !self.has_same_mark(task, x, y) {
                return;
            }
            task.is_below_split |= self.is_split(task, x, y);
        }
        if !a.is_compound() || !b.is_compound() || a.type_name() != b.type_name() {
            if x_value != y_value && self.is_news(task.label, x_value, y_value) {
                self.say(task, self.changed(task.label, x, y));
            }
        } else if self.seen.insert((x, y)) {
            let cost = self.a.children(x).count() + self.b.children(y).count();
            match self.budget.checked_sub(cost) {
                Some(left) => {
                    self.budget = left;
                    self.take_apart(task, x, y);
                }
                None if x_value == y_value => {}
                None => self.say(task, self.changed(task.label, x, y)),
            }
        }
    }

    /// A module's filename stands in each of its code objects: it is said once.
    fn is_news(&mut self, label: Label, a: Value, b: Value) -> bool {
        !matches!(label, Label::Field(Field::FileName)) || self.filenames.insert((a, b))
    }

    fn changed(&self, label: Label, x: ObjectId, y: ObjectId) -> What {
        if let (Label::Field(field), Object::Bytes(a), Object::Bytes(b)) = (label, self.a[x], self.b[y]) {
            let lengths = (a.len(), b.len());
            return match field {
                Field::Code => {
                    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
                    // An instruction takes two bytes, in every version since 3.6.
                    What::Bytecode { offset: same & !1, lengths }
                }
                _ => What::Table { field, lengths },
            };
        }
        let (a, b) = spell::values((self.a, x), (self.b, y));
        What::Value { a, b }
    }

    /// Says if one str is interned and its equal is not. What CPython keeps once for the whole process has no mark.
    fn has_same_mark(&mut self, task: Task, x: ObjectId, y: ObjectId) -> bool {
        let (Object::Str(a), Object::Str(b)) = (self.a[x], self.b[y]) else { return true };
        if a.is_cached() || a.is_interned() == b.is_interned() {
            return true;
        }
        if self.seen.insert((x, y)) {
            let interned_in = if a.is_interned() { Which::A } else { Which::B };
            self.say(task, What::Interned { interned_in, value: spell::value(self.a, x) });
        }
        false
    }

    /// Whether one of two equal objects stands for a third one too; says so, once for each.
    fn is_split(&mut self, task: Task, x: ObjectId, y: ObjectId) -> bool {
        if self.a.is_process_wide(x) && self.b.is_process_wide(y) {
            return false;
        }
        let (forward, backward) = (&mut self.forward[x.index()], &mut self.backward[y.index()]);
        let (one_in, id) = match (*forward, *backward) {
            (None, None) => {
                (*forward, *backward) = (Some(y), Some(x));
                return false;
            }
            (Some(other), _) if other == y => return false,
            (Some(_), _) => (Which::A, x),
            (None, Some(_)) => (Which::B, y),
        };
        self.in_step = false;
        if !task.is_below_split && self.said.insert((one_in, id)) {
            let is_mutable = matches!(self.a[x], Object::List(_) | Object::Set(_) | Object::Dict(_));
            let value = spell::value(self.a, x);
            self.say(task, What::Sharing { one_in, type_name: self.a[x].type_name(), is_mutable, value });
        }
        true
    }

    /// Both hold others, and are of one type.
    fn take_apart(&mut self, task: Task, x: ObjectId, y: ObjectId) {
        let step = u32::try_from(self.steps.len()).expect("the budget is no larger");
        self.steps.push(Step { parent: task.parent, label: task.label, a: x });
        let mut parts = Vec::new();
        match (self.a[x], self.b[y]) {
            (Object::Code(a), Object::Code(b)) => self.fields(self.a.code(a), self.b.code(b), &mut parts),
            (Object::Set(_) | Object::FrozenSet(_), _) => self.members(task, x, y, &mut parts),
            (Object::Dict(_) | Object::FrozenDict(_), _) => self.entries(x, y, &mut parts),
            (Object::Slice(_), _) => {
                let pairs = self.a.children(x).zip(self.b.children(y)).enumerate();
                parts.extend(pairs.map(|(at, (x, y))| (Label::Item(at, at), Todo::Pair(x, y))));
            }
            _ => self.items(x, y, &mut parts),
        }
        let is_below_split = task.is_below_split;
        let tasks = parts.into_iter().rev();
        self.tasks.extend(tasks.map(|(label, todo)| Task { parent: Some(step), label, todo, is_below_split }));
    }

    /// The fields in the order of marshal: those of A, then those that B alone has.
    fn fields(&self, a: &Code, b: &Code, parts: &mut Vec<(Label, Todo)>) {
        let (a_fields, b_fields) = (&self.a.python().layout().fields, &self.b.python().layout().fields);
        for &field in a_fields {
            let is_number = field.kind() == FieldKind::Number;
            let todo = match b_fields.contains(&field) {
                true if !is_number => Todo::Pair(a.object(field), b.object(field)),
                true if a.number(field) == b.number(field) => continue,
                true => Todo::Numbers(a.number(field), b.number(field)),
                false => only_field(Which::A, a, field),
            };
            parts.push((Label::Field(field), todo));
        }
        let only_b = b_fields.iter().filter(|field| !a_fields.contains(field));
        parts.extend(only_b.map(|field| (Label::Field(*field), only_field(Which::B, b, *field))));
    }

    fn items(&self, x: ObjectId, y: ObjectId, parts: &mut Vec<(Label, Todo)>) {
        let (a, b): (Vec<ObjectId>, Vec<ObjectId>) = (self.a.children(x).collect(), self.b.children(y).collect());
        for edit in align(&self.keys(Which::A, &a), &self.keys(Which::B, &b)) {
            let part = match edit {
                Edit::Kept(i, j) | Edit::Replaced(i, j) => (Label::Item(i, j), Todo::Pair(a[i], b[j])),
                Edit::Moved(i, j) => {
                    parts.push((Label::Item(i, i), Todo::Moved(a[i], j)));
                    (Label::Item(i, j), Todo::Pair(a[i], b[j]))
                }
                Edit::Removed(i) => (Label::Item(i, i), Todo::Only(Which::A, a[i])),
                Edit::Added(j) => (Label::Item(j, j), Todo::Only(Which::B, b[j])),
            };
            parts.push(part);
        }
    }

    /// What the items of a sequence, or the keys of a dict, are matched by.
    fn keys(&self, which: Which, ids: &[ObjectId]) -> Vec<Item> {
        let (heap, values) = match which {
            Which::A => (self.a, &self.a_values),
            Which::B => (self.b, &self.b_values),
        };
        let has_qualnames = |heap: &Heap<'_>| heap.python().layout().fields.contains(&Field::QualName);
        let both_have = has_qualnames(self.a) && has_qualnames(self.b);
        let field = if both_have { Field::QualName } else { Field::Name };
        let name = |id: ObjectId| {
            let Object::Code(code) = heap[id] else { return None };
            Some(values.of(heap.code(code).object(field)))
        };
        ids.iter().map(|id| Item { value: values.of(*id), name: name(*id), type_name: heap[*id].type_name() }).collect()
    }

    /// Entries of a dict, matched by their keys.
    fn entries(&self, x: ObjectId, y: ObjectId, parts: &mut Vec<(Label, Todo)>) {
        let (a, b): (Vec<ObjectId>, Vec<ObjectId>) = (self.a.children(x).collect(), self.b.children(y).collect());
        let keys = |items: &[ObjectId]| items.iter().copied().step_by(2).collect::<Vec<_>>();
        let (a_keys, b_keys) = (keys(&a), keys(&b));
        let only = |which, items: &[ObjectId], at: usize| {
            (Label::Key(at), Todo::OnlyPair(which, items[2 * at], items[2 * at + 1]))
        };
        for edit in align(&self.keys(Which::A, &a_keys), &self.keys(Which::B, &b_keys)) {
            let (i, j) = match edit {
                Edit::Removed(i) => {
                    parts.push(only(Which::A, &a, i));
                    continue;
                }
                Edit::Added(j) => {
                    parts.push(only(Which::B, &b, j));
                    continue;
                }
                // Another key, unless both hold themselves: then a walk has to tell.
                Edit::Replaced(i, j) if !self.are_cyclic(a_keys[i], b_keys[j]) => {
                    parts.extend([only(Which::A, &a, i), only(Which::B, &b, j)]);
                    continue;
                }
                Edit::Moved(i, j) => {
                    parts.push((Label::Key(i), Todo::Moved(a_keys[i], j)));
                    (i, j)
                }
                Edit::Kept(i, j) | Edit::Replaced(i, j) => (i, j),
            };
            parts.push((Label::Key(i), Todo::Pair(a_keys[i], b_keys[j])));
            parts.push((Label::ValueOf(a_keys[i]), Todo::Pair(a[2 * i + 1], b[2 * j + 1])));
        }
    }

    fn are_cyclic(&self, x: ObjectId, y: ObjectId) -> bool {
        matches!((self.a_values.of(x), self.b_values.of(y)), (Value::Cyclic(_), Value::Cyclic(_)))
    }

    /// Items of a set, matched by their values; those that hold themselves, by their order.
    fn members(&mut self, task: Task, x: ObjectId, y: ObjectId, parts: &mut Vec<(Label, Todo)>) {
        let (a, b) = (Members::new(self.a, &self.a_values, x), Members::new(self.b, &self.b_values, y));
        if a.in_order != b.in_order && a.has_items_of(&b) {
            self.in_step = false;
            self.say(task, What::SetOrder);
        }
        for (value, item) in &a.first {
            let todo = b.first.get(value).map_or(Todo::Only(Which::A, *item), |other| Todo::Pair(*item, *other));
            parts.push((Label::Member, todo));
        }
        let added = b.first.iter().filter(|(value, _)| !a.first.contains_key(*value));
        parts.extend(added.map(|(_, item)| (Label::Member, Todo::Only(Which::B, *item))));
        parts.extend(a.cyclic.iter().zip(&b.cyclic).map(|(x, y)| (Label::Member, Todo::Pair(*x, *y))));
        let n_pairs = a.cyclic.len().min(b.cyclic.len());
        parts.extend(a.cyclic[n_pairs..].iter().map(|item| (Label::Member, Todo::Only(Which::A, *item))));
        parts.extend(b.cyclic[n_pairs..].iter().map(|item| (Label::Member, Todo::Only(Which::B, *item))));
    }

    fn say(&mut self, task: Task, what: What) {
        let found = if what.is_value() { &self.values } else { &self.written };
        let difference =
            (found.listed.len() < self.limit).then(|| Difference { path: self.path(task), what: what.clone() });
        let found = if what.is_value() { &mut self.values } else { &mut self.written };
        found.add(&what, difference);
    }

    /// The names from the root on. A code object among constants stands there by its own name alone.
    fn path(&self, task: Task) -> Vec<String> {
        let of = match task.todo {
            Todo::Pair(x, _) | Todo::Moved(x, _) | Todo::Only(Which::A, x) => Some((self.a, x)),
            Todo::Only(Which::B, y) => Some((self.b, y)),
            Todo::Numbers(..) | Todo::Number(..) | Todo::OnlyPair(..) => None,
        };
        let mut names = Vec::new();
        let (mut parent, mut label, mut of) = (task.parent, task.label, of);
        loop {
            let step = parent.map(|parent| &self.steps[parent as usize]);
            let is_const = step.is_some_and(|step| matches!(step.label, Label::Field(Field::Consts)));
            let code = of.and_then(|(heap, id)| spell::name(heap, id));
            let (name, skips) = match (code, label, step) {
                (Some(code), Label::Item(..), Some(step)) if is_const => {
                    let is_alone = self.is_only_name(step.a, &code);
                    (if is_alone { code } else { format!("{code} ({})", self.label(label)) }, true)
                }
                (Some(code), Label::Top, _) => (code, false),
                _ => (self.label(label), false),
            };
            names.push(name);
            // Where co_consts is left out, go on with what holds it.
            let Some(step) = step else { break };
            (parent, label, of) = (step.parent, step.label, Some((self.a, step.a)));
            if skips && let Some(holder) = parent {
                let holder = &self.steps[holder as usize];
                (parent, label, of) = (holder.parent, holder.label, Some((self.a, holder.a)));
            }
        }
        names.reverse();
        names
    }

    /// Whether no two constants are code objects of this name.
    fn is_only_name(&self, consts: ObjectId, name: &str) -> bool {
        let names = self.a.children(consts).filter_map(|id| spell::name(self.a, id));
        names.filter(|other| other == name).nth(1).is_none()
    }

    fn label(&self, label: Label) -> String {
        match label {
            Label::Top => "top".to_owned(),
            Label::Field(field) => field.name().to_owned(),
            Label::Item(i, j) if i == j => format!("item {i}"),
            Label::Item(i, j) => format!("item {i} (in B item {j})"),
            Label::Member => "items".to_owned(),
            Label::Key(at) => format!("key {at}"),
            Label::ValueOf(key) => format!("value of {}", spell::value(self.a, key)),
        }
    }
}

/// The items of a set.
struct Members {
    /// Of equal items the first, in the order of the file.
    first: IndexMap<Value, ObjectId, RandomState>,
    /// Of all items, equal ones included.
    in_order: Vec<Value>,
    /// Those whose values are not known.
    cyclic: Vec<ObjectId>,
}

impl Members {
    fn new(heap: &Heap<'_>, values: &Values, set: ObjectId) -> Self {
        let mut members = Self { first: IndexMap::default(), in_order: Vec::new(), cyclic: Vec::new() };
        for item in heap.children(set) {
            match values.of(item) {
                Value::Cyclic(_) => members.cyclic.push(item),
                value @ Value::Known(_) => {
                    members.first.entry(value).or_insert(item);
                    members.in_order.push(value);
                }
            }
        }
        members
    }

    fn has_items_of(&self, other: &Self) -> bool {
        self.first.len() == other.first.len() && self.first.keys().all(|value| other.first.contains_key(value))
    }
}

fn only_field(which: Which, code: &Code, field: Field) -> Todo {
    match field.kind() {
        FieldKind::Number => Todo::Number(which, code.number(field)),
        _ => Todo::Only(which, code.object(field)),
    }
}
