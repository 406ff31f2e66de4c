//! What values are called.

use std::collections::HashMap;

use super::equal::is_deferred;
use super::places::{MAX_STEPS, User, code_of};
use crate::graph::{Graph, NodeId};
use crate::heap::{Code, Object, ObjectId};
use crate::listing::shortened;
use crate::literal;
use crate::python::Field;

/// The most characters of a short literal.
const WIDTH: usize = 60;

/// The most characters of a qualified name: those of deeply nested functions lose their beginning.
const MAX_NAME: usize = 160;

/// By node: the qualified name of a code object, else nothing.
///
/// Before 3.11 it is not in the dump, so it is put together from the names of the code objects around it, as the compiler
/// of 3.11 does.
pub(super) fn qualified_names(graph: &Graph<'_, '_>, users: &[Vec<User>]) -> Vec<Option<String>> {
    let has_field = graph.heap.python().layout().fields.contains(&Field::QualName);
    let mut names: Vec<Option<String>> = vec![None; graph.len()];
    // A name that many code objects have may be long, so it is spelled once.
    let mut spelled: HashMap<ObjectId, String> = HashMap::new();
    for id in graph.ids().rev() {
        let Some(code) = code_of(graph, id) else { continue };
        let field = if has_field { Field::QualName } else { Field::Name };
        let name = &*spelled.entry(code.object(field)).or_insert_with_key(|name| match graph.heap[*name] {
            Object::Str(text) => tail(literal::text(text).trim_matches(['\'', '"'])),
            _ => String::new(),
        });
        let outer = if has_field { None } else { around(graph, users, id) };
        names[id.index()] = Some(match outer {
            Some((outer, outer_code)) if outer != graph.root => {
                // A function has a namespace of its own that is not a dict: CO_OPTIMIZED.
                let within = if outer_code.number(Field::Flags) & 1 == 1 { ".<locals>." } else { "." };
                tail(&format!("{}{within}{name}", names[outer.index()].as_deref().unwrap_or_default()))
            }
            _ => name.clone(),
        });
    }
    names
}

/// The end of a qualified name, which is ASCII.
fn tail(name: &str) -> String {
    match name.len().checked_sub(MAX_NAME) {
        Some(excess @ 1..) => format!("...{}", &name[excess..]),
        _ => name.to_owned(),
    }
}

/// The code object among whose constants a value is first needed.
fn around<'h>(graph: &Graph<'h, '_>, users: &[Vec<User>], id: NodeId) -> Option<(NodeId, &'h Code)> {
    let mut at = id;
    for _ in 0..MAX_STEPS {
        let Some(User::Value(user, _)) = users[at.index()].first() else { return None };
        if let Some(code) = code_of(graph, *user) {
            return Some((*user, code));
        }
        at = *user;
    }
    None
}

/// By node: a literal of at most [`WIDTH`] characters or so, out of those of what it holds.
pub(super) fn labels(graph: &Graph<'_, '_>, qualified: &[Option<String>]) -> Vec<String> {
    let mut labels: Vec<String> = Vec::with_capacity(graph.len());
    for id in graph.ids() {
        let label = match graph.object(id) {
            Object::Code(_) => format!("<code {}>", qualified[id.index()].as_deref().unwrap_or_default()),
            Object::Bytes(bytes) if graph.uses(id) == 0 => {
                let begin = literal::bytes(&bytes[..bytes.len().min(12)]);
                format!("{} bytes {begin}{}", bytes.len(), if bytes.len() > 12 { "..." } else { "" })
            }
            object if object.is_compound() => container(graph, id, &labels),
            _ => {
                let literal = literal::scalar(graph.heap, graph.object_id(id)).expect("it holds no other");
                shortened(&literal, WIDTH).unwrap_or_default()
            }
        };
        labels.push(label);
    }
    labels
}

fn container(graph: &Graph<'_, '_>, id: NodeId, labels: &[String]) -> String {
    let held = graph.operands(id);
    let (open, step, close) = match graph.object(id) {
        Object::Tuple(_) => ("(", 1, if held.len() == 1 { ",)" } else { ")" }),
        Object::List(_) => ("[", 1, "]"),
        Object::Set(items) if items.is_empty() => ("set(", 1, ")"),
        Object::Set(_) => ("{", 1, "}"),
        Object::FrozenSet(items) if items.is_empty() => ("frozenset(", 1, ")"),
        Object::FrozenSet(_) => ("frozenset({", 1, "})"),
        Object::Slice(_) => ("slice(", 1, ")"),
        Object::FrozenDict(_) => ("frozendict({", 2, "})"),
        _ => ("{", 2, "}"),
    };
    let mut out = open.to_owned();
    if is_deferred(graph, id) {
        return out + "..." + close;
    }
    for (at, entry) in held.chunks(step).enumerate() {
        let entry: Vec<&str> = entry.iter().map(|id| &*labels[id.index()]).collect();
        let entry = entry.join(": ");
        out += if at > 0 { ", " } else { "" };
        if out.len() + entry.len() + close.len() > WIDTH {
            out += "...";
            break;
        }
        out += &entry;
    }
    out + close
}

/// The whole literal of a value that holds no others, and is not a table.
pub(super) fn literal_of(graph: &Graph<'_, '_>, id: NodeId) -> Option<String> {
    if graph.uses(id) == 0 { None } else { literal::scalar(graph.heap, graph.object_id(id)) }
}
