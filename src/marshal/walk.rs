//! Walks a heap in the order of marshal, without recursion.
//!
//! The one traversal behind every writer, the tree of `show` and the source section.

use std::fmt;

use crate::error::Result;
use crate::heap::{Heap, Object, ObjectId};
use crate::python::{Field, FieldKind};

/// Where an object stands in the one that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Top,
    Item(usize),
    Key(usize),
    Value(usize),
    Field(Field),
    /// The NULL behind the last key and value.
    End,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Top => write!(f, "top"),
            Self::Item(n) => write!(f, "item {n}"),
            Self::Key(n) => write!(f, "key {n}"),
            Self::Value(n) => write!(f, "value {n}"),
            Self::Field(field) => write!(f, "{}", field.name()),
            Self::End => write!(f, "end"),
        }
    }
}

/// What comes next in the order of marshal.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    /// An object. What it holds follows if the visitor says so.
    Object { id: ObjectId, step: Step, depth: usize },
    /// A number of a code object.
    Number { field: Field, number: i32, depth: usize },
    /// The end of a dict.
    Null { depth: usize },
}

struct Frame {
    id: ObjectId,
    next: usize,
}

/// Calls `visit` for everything below `root` in the order of marshal. Its answer to an object says whether to walk what
/// the object holds; for other events it says nothing.
///
/// # Errors
/// The first error of `visit`.
pub(crate) fn walk(heap: &Heap<'_>, root: ObjectId, mut visit: impl FnMut(Event) -> Result<bool>) -> Result<()> {
    let layout = &heap.python().layout().fields;
    let mut frames: Vec<Frame> = Vec::new();
    let mut enter = |frames: &mut Vec<Frame>, id, step| -> Result<()> {
        if visit(Event::Object { id, step, depth: frames.len() })? {
            frames.push(Frame { id, next: 0 });
        }
        loop {
            // Numbers and ends need no object, so they are visited here, and frames that are done are left.
            let depth = frames.len();
            let Some(frame) = frames.last_mut() else { return Ok(()) };
            match heap[frame.id] {
                Object::Code(code) => {
                    while let Some(&field) = layout.get(frame.next) {
                        if field.kind() != FieldKind::Number {
                            return Ok(());
                        }
                        visit(Event::Number { field, number: heap.code(code).number(field), depth })?;
                        frame.next += 1;
                    }
                }
                Object::Dict(items) | Object::FrozenDict(items) => {
                    if frame.next < items.len() {
                        return Ok(());
                    }
                    visit(Event::Null { depth })?;
                }
                Object::Tuple(items)
                | Object::List(items)
                | Object::Set(items)
                | Object::FrozenSet(items)
                | Object::Slice(items)
                    if frame.next < items.len() =>
                {
                    return Ok(());
                }
                _ => {}
            }
            frames.pop();
        }
    };
    enter(&mut frames, root, Step::Top)?;
    while let Some(frame) = frames.last_mut() {
        let at = frame.next;
        frame.next += 1;
        let (id, step) = match heap[frame.id] {
            Object::Code(code) => (heap.code(code).object(layout[at]), Step::Field(layout[at])),
            Object::Dict(items) | Object::FrozenDict(items) => {
                (heap.items(items)[at], if at % 2 == 0 { Step::Key(at / 2) } else { Step::Value(at / 2) })
            }
            Object::Tuple(items)
            | Object::List(items)
            | Object::Set(items)
            | Object::FrozenSet(items)
            | Object::Slice(items) => (heap.items(items)[at], Step::Item(at)),
            _ => unreachable!("only containers are entered"),
        };
        enter(&mut frames, id, step)?;
    }
    Ok(())
}
