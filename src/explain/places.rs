//! Who needs values, and in which places of the source.
//!
//! Invariant: places are named when they are asked for, up to a limit: all places of all values are as many as there are
//! paths, which is no multiple of the input.

use std::fmt::{self, Display, Formatter};

use super::docstring::docstring;
use crate::graph::{Graph, NodeId};
use crate::heap::{Code, Object};
use crate::python::{Field, Python};

/// The most steps from a place to the code object that it is in.
pub(super) const MAX_STEPS: usize = 24;

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

pub(super) fn code_of<'h>(graph: &Graph<'h, '_>, id: NodeId) -> Option<&'h Code> {
    match graph.object(id) {
        Object::Code(code) => Some(graph.heap.code(*code)),
        _ => None,
    }
}

/// A place in which a value is needed, as a person finds it in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The qualified name of the code object it is in, if it is in one.
    pub code: Option<String>,
    /// The field of the code object, with the items on the way: `co_consts[1][0]`; or what else needs it.
    pub field: String,
    /// Whether it is the docstring of a function, a class or a module.
    pub is_docstring: bool,
    /// The value nearest to it on the way that has several uses itself.
    pub through: Option<String>,
    /// How many more places that value has which are not named.
    pub n_more: usize,
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(code) = &self.code {
            write!(f, "{code} ")?;
        }
        write!(f, "{}", self.field)?;
        if self.is_docstring {
            write!(f, " (docstring)")?;
        }
        if let Some(id) = &self.through {
            write!(f, " in {id}")?;
        }
        if self.n_more > 0 {
            write!(f, ", which has {} more places", self.n_more)?;
        }
        Ok(())
    }
}

/// How the place of a value in what holds it is spelled.
#[derive(Debug, Clone, Copy)]
enum Holder {
    /// A code object, and the number of the constant that is its docstring.
    Code(Option<u32>),
    Dict,
    Slice,
    Other,
}

/// What it takes to name places.
#[derive(Debug, Clone)]
pub(super) struct Places {
    python: Python,
    users: Vec<Vec<User>>,
    holders: Vec<Holder>,
    /// The names of code objects.
    names: Vec<Option<String>>,
}

/// A way from a value up to a code object, as far as it was followed.
struct Way {
    user: User,
    /// The items so far, the innermost last.
    steps: String,
    n_steps: usize,
    through: Option<NodeId>,
    n_more: usize,
}

impl Places {
    pub(super) fn new(graph: &Graph<'_, '_>, users: Vec<Vec<User>>, names: Vec<Option<String>>) -> Self {
        let holder = |id| match graph.object(id) {
            Object::Code(code) => Holder::Code(docstring(graph.heap, graph.heap.code(*code))),
            Object::Dict(_) | Object::FrozenDict(_) => Holder::Dict,
            Object::Slice(_) => Holder::Slice,
            _ => Holder::Other,
        };
        Self { python: graph.heap.python(), holders: graph.ids().map(holder).collect(), users, names }
    }

    /// The places in which a value is needed: each use is followed up to the code objects it is in, through values that
    /// have several uses themselves. Beyond one place for each use, so many are named as are left, and taken from `n_left`.
    pub(super) fn of(&self, at: usize, n_left: &mut usize) -> Vec<Place> {
        let start = |user: &User| Way { user: *user, steps: String::new(), n_steps: 0, through: None, n_more: 0 };
        let mut todo: Vec<Way> = self.users[at].iter().rev().map(start).collect();
        let mut places = Vec::with_capacity(todo.len());
        while let Some(way) = todo.pop() {
            let User::Value(holder, at) = way.user else {
                places.push(self.end(way));
                continue;
            };
            let above = &self.users[holder.index()];
            let steps = match self.holders[holder.index()] {
                Holder::Code(_) => {
                    places.push(self.end(way));
                    continue;
                }
                _ if way.n_steps == MAX_STEPS || above.is_empty() => {
                    places.push(self.end(way));
                    continue;
                }
                Holder::Dict if at % 2 == 0 => format!("[key {}]{}", at / 2, way.steps),
                Holder::Dict => format!("[value {}]{}", at / 2, way.steps),
                Holder::Slice => format!(".{}{}", ["start", "stop", "step"][at as usize % 3], way.steps),
                Holder::Other => format!("[{at}]{}", way.steps),
            };
            let n_followed = above.len().min(*n_left + 1);
            *n_left -= n_followed - 1;
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
    fn end(&self, way: Way) -> Place {
        let Way { steps, n_more, .. } = way;
        let through = way.through.map(|id| id.to_string());
        let other = |field| Place { code: None, field, is_docstring: false, through: through.clone(), n_more };
        let (holder, at) = match way.user {
            User::End => return other(format!("the result{steps}")),
            User::Fill(id, at) => return other(format!("{id}, which holds itself, item {at}{steps}")),
            User::Value(holder, at) => (holder, at),
        };
        let Holder::Code(docstring) = self.holders[holder.index()] else {
            return other(format!("{holder}, deep inside, [{at}]{steps}"));
        };
        let field = field(self.python, at);
        let is_docstring = field == Field::Consts && docstring.is_some_and(|number| steps == format!("[{number}]"));
        let field = format!("{}{steps}", field.name());
        Place { code: self.names[holder.index()].clone(), field, is_docstring, through, n_more }
    }
}

/// Which field of a code object an operand or a table is.
pub(super) fn field(python: Python, at: u32) -> Field {
    let layout = python.layout();
    *layout.operands.iter().chain(&layout.tables).nth(at as usize).expect("it has so many operands and tables")
}
