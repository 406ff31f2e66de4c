//! Rebuilds a heap so that its plain marshal dump depends on values alone, not on the process that compiled them.
//!
//! - Equal immutable objects become one, as in [`Sharing::Structural`]; lists, dicts, sets and code objects stay apart.
//! - A str is marked interned where the dump marks it, where the code constructor interns it whatever the dump says
//!   (names, names of variables, constants that look like identifiers; name, qualname and filename from 3.13 on), and
//!   where CPython keeps one object for the whole process (the empty one, and single Latin-1 characters).
//! - The items of sets stand in the order of their own canonical dumps.
//! - Of equal items and keys one is left, as CPython leaves it: the first item, the first key with the last value.
//!
//! Source: CPython `Objects/codeobject.c`, `intern_strings` and `intern_constants`; `Python/marshal.c`, `w_complex_object`.

use indexmap::{IndexMap, IndexSet};
use num_bigint::ToBigInt;

use crate::error::{Error, ErrorKind, Result};
use crate::graph::{self, lower_heap};
use crate::heap::{Code, Heap, Object, ObjectId, fixed};
use crate::key::Sharing;
use crate::marshal;
use crate::python::{Field, FieldKind};

/// The canonical form of what is below `root`.
///
/// # Errors
/// As [`lower_heap`]; [`ErrorKind::BudgetExceeded`] if ordering the items of sets within sets takes far more than the heap.
pub fn canonical<'a>(heap: &Heap<'a>, root: ObjectId) -> Result<(Heap<'a>, ObjectId)> {
    let mut heap = heap.clone();
    mark_interned(&mut heap);
    let mut budget = Budget { total: 64 * (heap.len() as u64 + 16 * 1024), spent: 0 };
    sort_items(&mut heap, root, &mut budget)?;
    let graph = lower_heap(&heap, root, Sharing::Structural)?;
    Ok(graph.to_heap())
}

/// Marks every str that the code constructor interns.
fn mark_interned(heap: &mut Heap<'_>) {
    let mut marked = vec![false; heap.len()];
    let mut constants = Vec::new();
    let mut seen = Seen::default();
    for id in heap.ids() {
        match heap[id] {
            Object::Str(text) => marked[id.index()] |= text.is_cached(),
            Object::Code(code) => {
                mark_names(heap, heap.code(code), &mut seen, &mut marked);
                constants.push(heap.code(code).object(Field::Consts));
            }
            _ => {}
        }
    }
    let mut seen = vec![false; heap.len()];
    while let Some(id) = constants.pop() {
        match heap[id] {
            Object::Str(text) => marked[id.index()] |= text.is_identifier_like(),
            Object::Tuple(_) | Object::FrozenSet(_) if !std::mem::replace(&mut seen[id.index()], true) => {
                constants.extend(heap.children(id));
            }
            _ => {}
        }
    }
    for id in heap.ids().filter(|id| marked[id.index()]) {
        if let Object::Str(text) = heap[id] {
            heap.set(id, Object::Str(text.with_interned(true)));
        }
    }
}

/// What the code objects have that were met.
#[derive(Default)]
struct Seen {
    /// Their tuples of names, and whether one of these is `__qualname__`: many code objects may have the same.
    names: IndexMap<ObjectId, bool>,
    /// Their qualnames, and the texts of these.
    qualnames: IndexSet<ObjectId>,
    qualname_texts: IndexSet<Vec<u8>>,
}

/// Marks the names of a code object.
///
/// A class body's qualname is its first constant too, as one object: so interning one interns both, unless an equal str
/// was interned before. Whether the process had done so must not show, so that constant counts as interned, except where
/// a code object before it has the same qualname.
fn mark_names(heap: &Heap<'_>, code: &Code, seen: &mut Seen, marked: &mut [bool]) {
    let interns_code_names = heap.python().interns_code_names();
    for &field in &heap.python().layout().fields {
        match field.kind() {
            FieldKind::Names => {
                let tuple = code.object(field);
                seen.names.entry(tuple).or_insert_with(|| {
                    heap.children(tuple).for_each(|name| marked[name.index()] = true);
                    heap.children(tuple).any(|name| is_text(heap, name, b"__qualname__"))
                });
            }
            FieldKind::Str if interns_code_names => marked[code.object(field).index()] = true,
            FieldKind::Str | FieldKind::Tuple | FieldKind::Number | FieldKind::Bytes => {}
        }
    }
    if !interns_code_names {
        return;
    }
    let qualname = code.object(Field::QualName);
    let is_new = match heap[qualname] {
        Object::Str(text) if seen.qualnames.insert(qualname) => {
            seen.qualname_texts.insert(text.to_utf8(&mut Vec::new()).to_vec())
        }
        _ => false,
    };
    let is_class_body = || seen.names[&code.object(Field::Names)];
    if is_new
        && let Some(first) = heap.children(code.object(Field::Consts)).next()
        && let (Object::Str(first_text), Object::Str(text)) = (heap[first], heap[qualname])
        && first_text.same_text(text)
        && is_class_body()
    {
        marked[first.index()] = true;
    }
}

fn is_text(heap: &Heap<'_>, id: ObjectId, ascii: &[u8]) -> bool {
    matches!(heap[id], Object::Str(text) if text.raw().0 == ascii)
}

/// What ordering may cost, in objects that are looked at.
struct Budget {
    total: u64,
    spent: u64,
}

impl Budget {
    fn spend(&mut self, cost: usize) -> Result<()> {
        self.spent += cost as u64;
        if self.spent <= self.total {
            return Ok(());
        }
        let what = "ordering the items of sets within sets, in objects,";
        Err(Error::new(ErrorKind::BudgetExceeded { what, budget: self.total }))
    }
}

/// Drops equal items and keys, and orders the items of sets, inner ones first.
fn sort_items(heap: &mut Heap<'_>, root: ObjectId, budget: &mut Budget) -> Result<()> {
    let (deferred, order) = graph::order(heap, root)?;
    for id in order.into_iter().chain(deferred) {
        let (items, step) = match heap[id] {
            Object::Set(items) | Object::FrozenSet(items) => (items, 1),
            Object::Dict(items) | Object::FrozenDict(items) => (items, 2),
            _ => continue,
        };
        // A key that CPython drops is dropped here too: an empty frozendict is one whatever stood in it.
        let drops_a_key = items.len() % step != 0;
        if items.len() < 2 * step && !drops_a_key {
            continue;
        }
        let mut left: IndexMap<Vec<u8>, Vec<ObjectId>> = IndexMap::new();
        for entry in heap.items(items).chunks_exact(step) {
            let first = left.entry(equality(heap, entry[0], budget)?).or_insert_with(|| entry.to_vec());
            first[1..].copy_from_slice(&entry[1..]);
        }
        let mut left: Vec<Vec<ObjectId>> = left.into_values().collect();
        if step == 1 {
            let mut keyed = Vec::with_capacity(left.len());
            for entry in left {
                let (item, root) = extract(heap, entry[0], budget)?;
                let (item, root) = lower_heap(&item, root, Sharing::Structural)?.to_heap();
                keyed.push((marshal::write(&item, root)?, entry));
            }
            keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
            left = keyed.into_iter().map(|(_, entry)| entry).collect();
        }
        let items = heap.add_items(&left.concat());
        heap.set(id, heap[id].with_items(items));
    }
    Ok(())
}

/// Bytes that two keys share exactly if Python calls them equal: `1`, `1.0` and `True` have the same.
fn equality(heap: &Heap<'_>, key: ObjectId, budget: &mut Budget) -> Result<Vec<u8>> {
    let (mut heap, root) = extract(heap, key, budget)?;
    let mut has_nan = false;
    for id in heap.ids() {
        let number = |bits| {
            let value = f64::from_bits(bits);
            if value.fract() == 0.0 { value.to_bigint() } else { None }
        };
        let is_nan = |bits| f64::from_bits(bits).is_nan();
        match heap[id] {
            Object::Str(text) => heap.set(id, Object::Str(text.with_interned(false))),
            Object::Float(bits) | Object::Complex { real: bits, imag: 0 | 0x8000_0000_0000_0000 } => {
                has_nan |= is_nan(bits);
                match number(bits) {
                    Some(int) => heap.set_int(id, int),
                    None => heap.set(id, Object::Float(bits)),
                }
            }
            Object::Complex { real, imag } => has_nan |= is_nan(real) || is_nan(imag),
            // Every True and False of the heap is this one.
            Object::False => heap.set(id, Object::Int(0)),
            Object::True => heap.set(id, Object::Int(1)),
            _ => {}
        }
    }
    if has_nan {
        // A NaN equals itself alone: the object decides.
        return Ok([b"nan".as_slice(), &key.number().to_le_bytes()].concat());
    }
    let (heap, root) = lower_heap(&heap, root, Sharing::Structural)?.to_heap();
    marshal::write(&heap, root)
}

/// What is below `root`, as a heap of its own.
fn extract<'a>(heap: &Heap<'a>, root: ObjectId, budget: &mut Budget) -> Result<(Heap<'a>, ObjectId)> {
    let mut out = Heap::new(heap.python());
    let mut places = IndexMap::<ObjectId, ObjectId, foldhash::fast::FixedState>::default();
    let mut todo = vec![root];
    while let Some(id) = todo.pop() {
        if !places.contains_key(&id) {
            places.insert(id, fixed::of(&heap[id]).unwrap_or_else(|| out.add(Object::None)));
            todo.extend(heap.children(id));
        }
    }
    budget.spend(places.len())?;
    for (&id, &place) in places.iter().filter(|(id, _)| fixed::of(&heap[**id]).is_none()) {
        let object = out.copy_of(heap, id, |child| places[&child]);
        out.set(place, object);
    }
    Ok((out, places[&root]))
}
