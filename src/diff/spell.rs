//! Spells values in a few characters, all ASCII.

use crate::heap::{Heap, Object, ObjectId};
use crate::literal;
use crate::python::Field;

/// Most characters of a value.
const MAX: usize = 64;

/// Characters before the first that differs.
const CONTEXT: usize = 16;

/// A value, cut short.
pub(super) fn value(heap: &Heap<'_>, id: ObjectId) -> String {
    excerpt(&full(heap, id), 0)
}

/// Two values, cut so that what differs is in sight.
pub(super) fn values(a: (&Heap<'_>, ObjectId), b: (&Heap<'_>, ObjectId)) -> (String, String) {
    let (a, b) = (full(a.0, a.1), full(b.0, b.1));
    let n_common = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    let is_long = a.len().max(b.len()) > MAX && n_common > MAX / 2;
    let start = if is_long { n_common - CONTEXT } else { 0 };
    (excerpt(&a, start), excerpt(&b, start))
}

fn excerpt(text: &str, start: usize) -> String {
    let end = text.len().min(start + MAX);
    let dots = |is_cut| if is_cut { "..." } else { "" };
    format!("{}{}{}", dots(start > 0), &text[start..end], dots(end < text.len()))
}

/// A code object's name, without quotes.
pub(super) fn name(heap: &Heap<'_>, id: ObjectId) -> Option<String> {
    let Object::Code(code) = heap[id] else { return None };
    let name = literal::scalar(heap, heap.code(code).object(Field::Name))?;
    Some(excerpt(&name[1..name.len() - 1], 0))
}

enum Part {
    Object(ObjectId),
    Text(&'static str),
}

/// A scalar as it is; of a container, no less than what is to be seen.
fn full(heap: &Heap<'_>, id: ObjectId) -> String {
    let mut out = String::new();
    let mut todo = vec![Part::Object(id)];
    while let Some(part) = todo.pop() {
        match part {
            // All that is still open would end behind what is to be seen.
            _ if out.len() > MAX => break,
            Part::Text(text) => out.push_str(text),
            Part::Object(id) => match (literal::scalar(heap, id), name(heap, id)) {
                (Some(scalar), _) => out.push_str(&scalar),
                (_, Some(name)) => out.push_str(&format!("<code {name}>")),
                _ => todo.extend(parts(heap, id).into_iter().rev()),
            },
        }
    }
    out
}

fn parts(heap: &Heap<'_>, id: ObjectId) -> Vec<Part> {
    let (open, close) = match heap[id] {
        Object::Tuple(items) if items.len() == 1 => ("(", ",)"),
        Object::List(_) => ("[", "]"),
        Object::Set(items) if items.is_empty() => ("set(", ")"),
        Object::Set(_) | Object::Dict(_) => ("{", "}"),
        Object::FrozenSet(_) => ("frozenset({", "})"),
        Object::FrozenDict(_) => ("frozendict({", "})"),
        Object::Slice(_) => ("slice(", ")"),
        _ => ("(", ")"),
    };
    let is_dict = matches!(heap[id], Object::Dict(_) | Object::FrozenDict(_));
    let mut parts = vec![Part::Text(open)];
    for (at, child) in heap.children(id).take(MAX).enumerate() {
        let between = if is_dict && at % 2 == 1 { ": " } else { ", " };
        parts.extend((at > 0).then_some(Part::Text(between)));
        parts.push(Part::Object(child));
    }
    parts.push(Part::Text(close));
    parts
}
