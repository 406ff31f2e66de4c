//! Numbers the values of two heaps: objects have one number exactly if they are equal.
//!
//! Equal means equal in type and bits. Whether a str is interned, which equal objects are one, and the order of a set's
//! items say nothing here.
//!
//! An object that holds itself, or holds one that does, has a number of its own: whether it equals another only a walk
//! over both can tell.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::RandomState;
use num_bigint::BigInt;

use crate::heap::{Children, Encoding, Heap, Object, ObjectId};
use crate::python::{Field, FieldKind};

/// The number of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Value {
    /// Equal objects have it, in either heap.
    Known(u32),
    /// No other object has it.
    Cyclic(u32),
}

/// The values of a heap's objects, as far as they were reached.
pub(super) struct Values(Vec<Option<Value>>);

impl Values {
    pub(super) fn of(&self, id: ObjectId) -> Value {
        self.0[id.index()].expect("every object below the root is numbered")
    }
}

/// Numbers what is below each root.
pub(super) fn number(a: (&Heap<'_>, ObjectId), b: (&Heap<'_>, ObjectId)) -> [Values; 2] {
    let mut numbers = Numbers { shapes: HashMap::default(), n_cyclic: 0 };
    [a, b].map(|(heap, root)| numbers.below(heap, root))
}

/// What an object is, with what it holds by number.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Shape<'h> {
    /// One of those that stand at the same id in every heap.
    Constant(ObjectId),
    Int(i64),
    Long(&'h BigInt),
    Float(u64),
    Complex(u64, u64),
    Bytes(&'h [u8]),
    /// In UTF-8.
    Str(Cow<'h, [u8]>),
    Container(&'static str, Box<[u32]>),
    Code(Box<[(Field, u32)]>),
}

struct Numbers<'h> {
    /// Seeded by chance, against inputs made to collide. Nothing depends on its order.
    shapes: HashMap<Shape<'h>, u32, RandomState>,
    n_cyclic: u32,
}

struct Frame<'h> {
    id: ObjectId,
    children: Children<'h>,
    is_cyclic: bool,
}

impl<'h> Numbers<'h> {
    /// Each object after what it holds. One that is met while it is open holds itself.
    fn below(&mut self, heap: &'h Heap<'_>, root: ObjectId) -> Values {
        let mut values: Vec<Option<Value>> = vec![None; heap.len()];
        let mut is_open = vec![false; heap.len()];
        let mut open: Vec<Frame<'h>> = Vec::new();
        let mut next = Some(root);
        loop {
            if let Some(id) = next {
                match values[id.index()] {
                    None if !std::mem::replace(&mut is_open[id.index()], true) => {
                        open.push(Frame { id, children: heap.children(id), is_cyclic: false });
                    }
                    Some(Value::Known(_)) => {}
                    None | Some(Value::Cyclic(_)) => {
                        open.last_mut().expect("the root is met once by itself").is_cyclic = true;
                    }
                }
            }
            let Some(frame) = open.last_mut() else { return Values(values) };
            next = frame.children.next();
            if next.is_none() {
                let (id, is_cyclic) = (frame.id, frame.is_cyclic);
                open.pop();
                values[id.index()] = Some(if is_cyclic { self.cyclic() } else { self.known(heap, id, &values) });
                if let Some(parent) = open.last_mut() {
                    parent.is_cyclic |= is_cyclic;
                }
            }
        }
    }

    fn cyclic(&mut self) -> Value {
        self.n_cyclic += 1;
        Value::Cyclic(self.n_cyclic)
    }

    fn known(&mut self, heap: &'h Heap<'_>, id: ObjectId, values: &[Option<Value>]) -> Value {
        let number = |child: ObjectId| match values[child.index()] {
            Some(Value::Known(number)) => number,
            _ => unreachable!("what holds a cycle is cyclic"),
        };
        let next = u32::try_from(self.shapes.len()).expect("no more than objects");
        Value::Known(*self.shapes.entry(shape(heap, id, number)).or_insert(next))
    }
}

fn shape<'h>(heap: &'h Heap<'_>, id: ObjectId, number: impl Fn(ObjectId) -> u32) -> Shape<'h> {
    match heap[id] {
        Object::None | Object::False | Object::True | Object::Ellipsis | Object::StopIteration => Shape::Constant(id),
        Object::Int(value) => Shape::Int(value),
        Object::Long(long) => Shape::Long(heap.long(long)),
        Object::Float(bits) => Shape::Float(bits),
        Object::Complex { real, imag } => Shape::Complex(real, imag),
        Object::Bytes(bytes) => Shape::Bytes(bytes),
        Object::Str(text) => Shape::Str(match text.raw() {
            (bytes, Encoding::Ascii | Encoding::Utf8) => Cow::Borrowed(bytes),
            (_, Encoding::Latin1) => Cow::Owned(text.to_utf8(&mut Vec::new()).to_vec()),
        }),
        Object::Set(_) | Object::FrozenSet(_) => {
            let mut items: Vec<u32> = heap.children(id).map(number).collect();
            items.sort_unstable();
            items.dedup();
            Shape::Container(heap[id].type_name(), items.into())
        }
        Object::Tuple(_) | Object::List(_) | Object::Dict(_) | Object::FrozenDict(_) | Object::Slice(_) => {
            Shape::Container(heap[id].type_name(), heap.children(id).map(number).collect())
        }
        Object::Code(code) => {
            let code = heap.code(code);
            let value = |field: Field| match field.kind() {
                FieldKind::Number => code.number(field).cast_unsigned(),
                _ => number(code.object(field)),
            };
            Shape::Code(heap.python().layout().fields.iter().map(|field| (*field, value(*field))).collect())
        }
    }
}
