//! Finds the docstring among the constants of a code object.
//!
//! That of a function is its first constant. A module or a class body stores its own under the name `__doc__`, before
//! anything that its source says.

use crate::heap::{Code, Heap, Object, ObjectId};
use crate::python::{Field, Opcodes};

/// The most instructions, of two bytes each, before and with the one that stores a docstring: those that a compiler puts
/// there are about a dozen. So few need no EXTENDED_ARG, and none is looked for.
const N_FIRST: usize = 32;

/// The number of the constant that is its docstring, if it has one.
pub(super) fn docstring(heap: &Heap<'_>, code: &Code) -> Option<u32> {
    let flags = code.number(Field::Flags);
    // A function has a namespace of its own that is not a dict: CO_OPTIMIZED.
    let number = if flags & 1 == 1 { of_function(heap, code, flags)? } else { stored(heap, code)? };
    let constant = items(heap, code.object(Field::Consts)).get(number as usize)?;
    matches!(heap[*constant], Object::Str(_)).then_some(number)
}

fn of_function(heap: &Heap<'_>, code: &Code, flags: i32) -> Option<u32> {
    // Lambdas and comprehensions have none.
    let is_named = match heap[code.object(Field::Name)] {
        Object::Str(name) => !name.raw().0.starts_with(b"<"),
        _ => false,
    };
    (is_named && heap.python().has_docstring(flags)).then_some(0)
}

/// What LOAD_CONST loads before the first STORE_NAME of `__doc__`.
fn stored(heap: &Heap<'_>, code: &Code) -> Option<u32> {
    let is_doc = |id: &ObjectId| matches!(heap[*id], Object::Str(name) if name.raw().0 == b"__doc__");
    let names = items(heap, code.object(Field::Names));
    // What many code objects have may be long: no more is looked at than an operand of a byte can mean.
    let doc = u8::try_from(names.iter().take(256).position(is_doc)?).ok()?;
    let Object::Bytes(bytecode) = heap[code.object(Field::Code)] else { return None };
    let Opcodes { load_const, store_name, .. } = heap.python().opcodes();
    let pairs = bytecode.as_chunks::<2>().0.windows(2).take(N_FIRST);
    let stores = |pair: &&[[u8; 2]]| pair[0][0] == load_const && pair[1] == [store_name, doc];
    { pairs }.find(stores).map(|pair| u32::from(pair[0][1]))
}

fn items<'h>(heap: &'h Heap<'_>, id: ObjectId) -> &'h [ObjectId] {
    match heap[id] {
        Object::Tuple(items) => heap.items(items),
        _ => &[],
    }
}
