//! Spells the objects of a heap: as Python text, and as JSON.
//!
//! Shared objects are named by their ids and spelled once, so that the text is never longer than a fixed multiple of the
//! heap. Nothing recurses.

use serde_json::{Value, json};

use crate::heap::{Heap, Object, ObjectId};
use crate::literal;
use crate::python::FieldKind;

/// The root as Python text, then a line for every shared object and every code object.
///
/// ```text
/// (1, 'a', o7, o7)
/// o7 = ('shared', 'by', 'two')
/// ```
pub fn text(heap: &Heap<'_>, root: ObjectId) -> String {
    let named = Named::new(heap, root);
    let mut out = String::new();
    let mut defined = vec![false; heap.len()];
    let mut to_define = vec![root];
    let mut next = 0;
    while let Some(&id) = to_define.get(next) {
        next += 1;
        if std::mem::replace(&mut defined[id.index()], true) {
            continue;
        }
        if named.is_named(id) {
            out.push_str(&format!("{id} = "));
        }
        define(heap, id, &named, &mut out, &mut to_define);
        out.push('\n');
    }
    out
}

/// Which objects have a line of their own.
struct Named<'h> {
    heap: &'h Heap<'h>,
    n_uses: Vec<u32>,
}

/// Longer text and bytes are not repeated.
const SHORT: usize = 64;

impl<'h> Named<'h> {
    fn new(heap: &'h Heap<'h>, root: ObjectId) -> Self {
        let mut n_uses = vec![0_u32; heap.len()];
        n_uses[root.index()] = 1;
        let mut todo = vec![root];
        while let Some(id) = todo.pop() {
            for child in heap.children(id) {
                n_uses[child.index()] += 1;
                if n_uses[child.index()] == 1 {
                    todo.push(child);
                }
            }
        }
        Self { heap, n_uses }
    }

    fn is_named(&self, id: ObjectId) -> bool {
        let is_long = match self.heap[id] {
            Object::Code(_) => return true,
            Object::Str(text) => text.raw().0.len() > SHORT,
            Object::Bytes(bytes) => bytes.len() > SHORT,
            Object::Long(long) => self.heap.long(long).bits() > 8 * SHORT as u64,
            object => object.is_compound() && !self.heap.is_process_wide(id),
        };
        is_long && self.n_uses[id.index()] > 1
    }
}

enum Part {
    Object(ObjectId),
    Static(&'static str),
    Text(String),
}

/// Spells one object, down to those that have a name; these are added to `to_define`.
fn define(heap: &Heap<'_>, id: ObjectId, named: &Named<'_>, out: &mut String, to_define: &mut Vec<ObjectId>) {
    let mut todo = Vec::new();
    expand(heap, id, &mut todo);
    while let Some(part) = todo.pop() {
        match part {
            Part::Static(text) => out.push_str(text),
            Part::Text(text) => out.push_str(&text),
            Part::Object(id) if named.is_named(id) => {
                out.push_str(&id.to_string());
                to_define.push(id);
            }
            Part::Object(id) => expand(heap, id, &mut todo),
        }
    }
}

/// Puts the parts of an object on the stack, the first on top.
fn expand(heap: &Heap<'_>, id: ObjectId, todo: &mut Vec<Part>) {
    let mut parts = Vec::new();
    let mut list = |open, items: Vec<ObjectId>, close| {
        parts.push(Part::Static(open));
        for (at, item) in items.into_iter().enumerate() {
            if at > 0 {
                parts.push(Part::Static(", "));
            }
            parts.push(Part::Object(item));
        }
        parts.push(Part::Static(close));
    };
    let held: Vec<ObjectId> = heap.children(id).collect();
    match heap[id] {
        Object::Tuple(items) => list("(", held, if items.len() == 1 { ",)" } else { ")" }),
        Object::List(_) => list("[", held, "]"),
        Object::Set(items) if items.is_empty() => list("set(", held, ")"),
        Object::Set(_) => list("{", held, "}"),
        Object::FrozenSet(items) if items.is_empty() => list("frozenset(", held, ")"),
        Object::FrozenSet(_) => list("frozenset({", held, "})"),
        Object::Slice(_) => list("slice(", held, ")"),
        Object::Dict(_) | Object::FrozenDict(_) => {
            let is_frozen = matches!(heap[id], Object::FrozenDict(_));
            parts.push(Part::Static(if is_frozen { "frozendict({" } else { "{" }));
            for (at, pair) in held.chunks_exact(2).enumerate() {
                if at > 0 {
                    parts.push(Part::Static(", "));
                }
                parts.extend([Part::Object(pair[0]), Part::Static(": "), Part::Object(pair[1])]);
            }
            parts.push(Part::Static(if is_frozen { "})" } else { "}" }));
        }
        Object::Code(code) => {
            let code = heap.code(code);
            parts.push(Part::Static("code("));
            for field in &heap.python().layout().fields {
                parts.push(Part::Text(format!("\n    {}=", field.name())));
                parts.push(match field.kind() {
                    FieldKind::Number => Part::Text(code.number(*field).to_string()),
                    _ => Part::Object(code.object(*field)),
                });
                parts.push(Part::Static(","));
            }
            parts.push(Part::Static("\n)"));
        }
        _ => parts.push(Part::Text(literal::scalar(heap, id).expect("it holds no other"))),
    }
    todo.extend(parts.into_iter().rev());
}

/// Every object below the root, flat, by id: `{"root": "o7", "objects": [{"id": "o7", "type": "tuple", "items": …}]}`.
///
/// Scalars have a `value` spelled as by [`literal::scalar`]; containers `items`, dicts `pairs`, code objects `fields`.
pub fn json(heap: &Heap<'_>, root: ObjectId) -> Value {
    let mut objects = Vec::new();
    let mut seen = vec![false; heap.len()];
    seen[root.index()] = true;
    let mut order = vec![root];
    let mut next = 0;
    while let Some(&id) = order.get(next) {
        next += 1;
        for child in heap.children(id) {
            if !std::mem::replace(&mut seen[child.index()], true) {
                order.push(child);
            }
        }
        objects.push(object_json(heap, id));
    }
    json!({ "root": root.to_string(), "objects": objects })
}

fn object_json(heap: &Heap<'_>, id: ObjectId) -> Value {
    let mut out = json!({ "id": id.to_string(), "type": heap[id].type_name() });
    let name = |id: ObjectId| Value::from(id.to_string());
    let (key, value) = match heap[id] {
        Object::Dict(_) | Object::FrozenDict(_) => {
            let held: Vec<ObjectId> = heap.children(id).collect();
            let pairs = held.chunks_exact(2).map(|pair| json!([name(pair[0]), name(pair[1])]));
            ("pairs", pairs.collect::<Vec<_>>().into())
        }
        Object::Code(code) => {
            let code = heap.code(code);
            let field = |field: &crate::python::Field| {
                let value = match field.kind() {
                    FieldKind::Number => code.number(*field).into(),
                    _ => name(code.object(*field)),
                };
                (field.name().to_owned(), value)
            };
            let fields = heap.python().layout().fields.iter().map(field);
            ("fields", Value::Object(fields.collect()))
        }
        _ => match literal::scalar(heap, id) {
            Some(scalar) => ("value", scalar.into()),
            None => ("items", heap.children(id).map(name).collect::<Vec<_>>().into()),
        },
    };
    out[key] = value;
    if let Object::Str(text) = heap[id] {
        out["interned"] = text.is_interned().into();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marshal::read;
    use crate::python::Python;

    fn said(dump: &[u8]) -> String {
        let dump = read(dump, Python::LATEST).unwrap();
        text(&dump.heap, dump.root)
    }

    #[test]
    fn unshared_objects_stand_in_place() {
        assert_eq!(
            said(b")\x04i\x01\0\0\0z\x01ag\0\0\0\0\0\x80B@)\x02i\x02\0\0\0z\x03foo"),
            "(1, 'a', 37.0, (2, 'foo'))\n"
        );
        assert_eq!(said(b")\x02)\x01N[\0\0\0\0"), "((None,), [])\n");
    }

    #[test]
    fn shared_objects_have_a_line_of_their_own() {
        assert_eq!(said(b")\x02\xa9\x01Nr\0\0\0\0"), "(o7, o7)\no7 = (None,)\n");
        assert_eq!(said(b"\xdb\x01\0\0\0r\0\0\0\0"), "o6 = [o6]\n");
    }
}
