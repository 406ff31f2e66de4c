//! What values are called, and who needs them.

use super::equal::is_deferred;
use crate::graph::{Graph, NodeId};
use crate::heap::{Code, Object};
use crate::listing::shortened;
use crate::literal;
use crate::python::Field;

/// The most characters of a short literal.
const WIDTH: usize = 60;

/// The most characters of a qualified name: those of deeply nested functions lose their beginning.
const MAX_NAME: usize = 160;

/// The most steps from a place to the code object that it is in.
const MAX_STEPS: usize = 24;

/// Who needs a value directly, and as what: a place among its operands and tables.
#[derive(Debug, Clone, Copy)]
pub(super) enum User {
    /// A value, and the number of its operand; tables follow the operands.
    Value(NodeId, u32),
    /// A list or dict of a cycle, and which of the values that fill it.
    Fill(NodeId, u32),
    /// The end of the initializer.
    End,
}

/// By node: its users, in the order of their ids.
pub(super) fn users(graph: &Graph<'_, '_>) -> Vec<Vec<User>> {
    let mut users: Vec<Vec<User>> = vec![Vec::new(); graph.len()];
    for id in graph.ids() {
        for (place, used) in (0..).zip(graph.operands(id).iter().chain(graph.tables(id))) {
            users[used.index()].push(User::Value(id, place));
        }
    }
    for (id, fills) in &graph.deferred {
        for (place, used) in (0..).zip(fills) {
            users[used.index()].push(User::Fill(*id, place));
        }
    }
    users[graph.root.index()].push(User::End);
    users
}

fn code_of<'h>(graph: &Graph<'h, '_>, id: NodeId) -> Option<&'h Code> {
    match graph.object(id) {
        Object::Code(code) => Some(graph.heap.code(*code)),
        _ => None,
    }
}

/// The text of a field of a code object, without its quotes.
fn field_text(graph: &Graph<'_, '_>, code: &Code, field: Field) -> String {
    match graph.heap[code.object(field)] {
        Object::Str(text) => literal::text(text).trim_matches(['\'', '"']).to_owned(),
        _ => String::new(),
    }
}

/// By node: the qualified name of a code object, else nothing.
///
/// Before 3.11 it is not in the dump, so it is put together from the names of the code objects around it, as the compiler
/// of 3.11 does.
pub(super) fn qualified_names(graph: &Graph<'_, '_>, users: &[Vec<User>]) -> Vec<Option<String>> {
    let has_field = graph.heap.python().layout().fields.contains(&Field::QualName);
    let mut names: Vec<Option<String>> = vec![None; graph.len()];
    for id in graph.ids().rev() {
        let Some(code) = code_of(graph, id) else { continue };
        let name = if has_field {
            field_text(graph, code, Field::QualName)
        } else {
            let name = field_text(graph, code, Field::Name);
            match around(graph, users, id) {
                Some((outer, outer_code)) if outer != graph.root => {
                    // A function has a namespace of its own that is not a dict: CO_OPTIMIZED.
                    let within = if outer_code.number(Field::Flags) & 1 == 1 { ".<locals>." } else { "." };
                    format!("{}{within}{name}", names[outer.index()].as_deref().unwrap_or_default())
                }
                _ => name,
            }
        };
        let excess = name.len().saturating_sub(MAX_NAME);
        names[id.index()] = Some(if excess > 0 { format!("...{}", &name[excess..]) } else { name });
    }
    names
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

/// A place in which a value is needed, as a person finds it in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The qualified name of the code object it is in, if it is in one.
    pub code: Option<String>,
    /// The field of the code object, with the items on the way: `co_consts[1][0]`; or what else needs it.
    pub field: String,
    /// Whether it is a function's docstring.
    pub is_docstring: bool,
    /// A value on the way that is shared itself.
    pub through: Option<String>,
    /// How many more places that value has which are not named.
    pub n_more: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(code) = &self.code {
            write!(f, "{code} ")?;
        }
        write!(f, "{}", self.field)?;
        let mut notes: Vec<String> = Vec::new();
        notes.extend(self.is_docstring.then(|| "docstring".to_owned()));
        notes.extend(self.through.iter().map(|id| format!("in {id}")));
        notes.extend((self.n_more > 0).then(|| format!("which has {} more places", self.n_more)));
        if notes.is_empty() { Ok(()) } else { write!(f, " ({})", notes.join(", ")) }
    }
}

/// The most places of a value that are named beyond one for each of its users: all could be as many as there are paths.
const MAX_MORE: usize = 32;

/// A way from a value up to a code object, as far as it was followed.
struct Way {
    user: User,
    /// The items so far, the innermost last.
    steps: String,
    n_steps: usize,
    through: Option<NodeId>,
    n_more: usize,
}

/// Every place in which a value is needed: each use is followed up to the code objects it is in, through values that are
/// shared themselves too.
pub(super) fn places(
    graph: &Graph<'_, '_>,
    users: &[Vec<User>],
    qualified: &[Option<String>],
    id: NodeId,
) -> Vec<Place> {
    let start = |user: &User| Way { user: *user, steps: String::new(), n_steps: 0, through: None, n_more: 0 };
    let mut todo: Vec<Way> = users[id.index()].iter().rev().map(start).collect();
    let mut places = Vec::with_capacity(todo.len());
    let mut n_left = MAX_MORE;
    while let Some(way) = todo.pop() {
        let User::Value(holder, at) = way.user else {
            places.push(end(graph, qualified, way));
            continue;
        };
        let above = &users[holder.index()];
        if code_of(graph, holder).is_some() || way.n_steps == MAX_STEPS || above.is_empty() {
            places.push(end(graph, qualified, way));
            continue;
        }
        let steps = match graph.object(holder) {
            Object::Dict(_) | Object::FrozenDict(_) if at % 2 == 0 => format!("[key {}]{}", at / 2, way.steps),
            Object::Dict(_) | Object::FrozenDict(_) => format!("[value {}]{}", at / 2, way.steps),
            Object::Slice(_) => format!(".{}{}", ["start", "stop", "step"][at as usize % 3], way.steps),
            _ => format!("[{at}]{}", way.steps),
        };
        let n_followed = above.len().min(n_left + 1);
        n_left -= n_followed - 1;
        let through = if above.len() > 1 { way.through.or(Some(holder)) } else { way.through };
        let n_more = way.n_more + above.len() - n_followed;
        todo.extend(above[..n_followed].iter().rev().enumerate().map(|(left, user)| Way {
            user: *user,
            steps: steps.clone(),
            n_steps: way.n_steps + 1,
            through,
            // Said of the last one.
            n_more: if left == 0 { n_more } else { 0 },
        }));
    }
    places
}

/// The place in which a way ends.
fn end(graph: &Graph<'_, '_>, qualified: &[Option<String>], way: Way) -> Place {
    let Way { steps, n_more, .. } = way;
    let through = way.through.map(|id| id.to_string());
    let other = |field| Place { code: None, field, is_docstring: false, through: through.clone(), n_more };
    let (holder, at) = match way.user {
        User::End => return other(format!("the result{steps}")),
        User::Fill(id, at) => return other(format!("{id}, which holds itself, item {at}{steps}")),
        User::Value(holder, at) => (holder, at),
    };
    let Some(code) = code_of(graph, holder) else {
        return other(format!("{holder}, deep inside, [{at}]{steps}"));
    };
    let python = graph.heap.python();
    let layout = python.layout();
    let field = layout.operands.iter().chain(&layout.tables).nth(at as usize).expect("it has so many operands");
    let is_first = *field == Field::Consts && steps == "[0]";
    let is_function = python.has_docstring(code.number(Field::Flags));
    let is_named = !field_text(graph, code, Field::Name).starts_with('<');
    Place {
        code: qualified[holder.index()].clone(),
        field: format!("{}{steps}", field.name()),
        is_docstring: is_first && is_function && is_named,
        through,
        n_more,
    }
}
