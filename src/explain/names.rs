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
    /// A value on the way that is shared itself, and in how many places: this is one of them.
    pub through: Option<(String, u32)>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(code) = &self.code {
            write!(f, "{code} ")?;
        }
        write!(f, "{}", self.field)?;
        if self.is_docstring {
            write!(f, " (docstring)")?;
        }
        if let Some((id, n_places)) = &self.through {
            write!(f, " (in {id}, one of its {n_places} places)")?;
        }
        Ok(())
    }
}

/// Follows a use up to the code object it is in; where the way parts, the first one counts.
pub(super) fn place(
    graph: &Graph<'_, '_>,
    users: &[Vec<User>],
    qualified: &[Option<String>],
    mut user: User,
) -> Place {
    let python = graph.heap.python();
    let layout = python.layout();
    let mut steps = String::new();
    let mut through = None;
    let mut n_steps = 0;
    let stop = |field: String, through| Place { code: None, field, is_docstring: false, through };
    loop {
        let (holder, at) = match user {
            User::End if n_steps == 0 => return stop("the result".to_owned(), through),
            User::End => return stop(format!("the result{steps}"), through),
            User::Fill(id, at) => return stop(format!("{id}, which holds itself, item {at}{steps}"), through),
            User::Value(holder, at) => (holder, at),
        };
        if let Some(code) = code_of(graph, holder) {
            let field = layout.operands.iter().chain(&layout.tables).nth(at as usize).expect("it has so many operands");
            let name = qualified[holder.index()].clone();
            let is_first = *field == Field::Consts && steps == "[0]" && through.is_none();
            let is_function = python.has_docstring(code.number(Field::Flags));
            let is_named = !field_text(graph, code, Field::Name).starts_with('<');
            return Place {
                code: name,
                field: format!("{}{steps}", field.name()),
                is_docstring: is_first && is_function && is_named,
                through,
            };
        }
        steps = match graph.object(holder) {
            Object::Dict(_) | Object::FrozenDict(_) if at % 2 == 0 => format!("[key {}]{steps}", at / 2),
            Object::Dict(_) | Object::FrozenDict(_) => format!("[value {}]{steps}", at / 2),
            Object::Slice(_) => format!(".{}{steps}", ["start", "stop", "step"][at as usize % 3]),
            _ => format!("[{at}]{steps}"),
        };
        let n_places = users[holder.index()].len();
        if n_places > 1 && through.is_none() {
            through = Some((holder.to_string(), u32::try_from(n_places).unwrap_or(u32::MAX)));
        }
        n_steps += 1;
        match users[holder.index()].first() {
            Some(next) if n_steps < MAX_STEPS => user = *next,
            _ => return stop(format!("{holder}, deep inside, {steps}"), through),
        }
    }
}
