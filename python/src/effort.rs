//! How far CPython may walk into what a stream builds.
//!
//! What it hashes, compares and interns it walks into wherever it stands: of `()`, put twice into a tuple, and that twice into another
//! one, and so on sixty times, it would visit 2**60 tuples. So before it is given such work, that is counted in the same way, and only
//! so far. A hash that some versions keep is counted like one that none does. What takes memory each time is counted, too: a set that is
//! made of a tuple which is made once, the tuples that the constructor makes of the variables of a code object, and the copies of
//! bytecode that many code objects share.
//!
//! Invariant: what stands in one place only, below a few sets at most, is within the bounds: it takes a byte of the stream at least,
//! and [`FOR_BYTE`] steps are [`FOR_ITEM`] and many visits.
//!
//! How often keys of one hash are compared is not counted: a program that has such keys waits as long for any dict or set of them.
//!
//! Sources: CPython 3.11 to 3.15 `tuple_hash` and `tuplerichcompare` in `Objects/tupleobject.c`, `set_issubset` in `setobject.c`,
//! `slicehash` in `sliceobject.c`, `frozendict_hash` in `dictobject.c`, `code_hash`, `intern_strings` and `intern_constants` in `codeobject.c`.

use pyo3::ffi::{self, PyObject};
use rehydrate::heap::Code;
use rehydrate::python::Field;
use rehydrate::{Heap, Image, Object};

use crate::layout::CodeObject;

/// Steps for every stream: CPython takes less than a tenth of a second for them.
const FIRST: u64 = 1 << 22;

/// Steps for each byte of a stream.
const FOR_BYTE: u64 = 64;

/// Steps for each item that is written once more: it takes some 64 bytes in a set.
const FOR_ITEM: u64 = 16;

/// So many bytes of a text are compared in the time of a step.
const FOR_STEP: u64 = 64;

/// Why a stream is refused for which it is not enough.
pub(crate) const TOO_OFTEN: &str = "a key, a set item, a constant or a name stands in so many places that CPython, which visits each, would not come to an end";

/// Why a stream is refused for which [`Effort::allows_items`] says no.
pub(crate) const TOO_MANY: &str =
    "frozensets of tuples that stand here once hold more items than a stream of this size may make";

/// Why a stream is refused whose code objects hold more bytecode than there are steps, a byte each.
pub(crate) const TOO_MUCH: &str =
    "code objects that share bytecode hold more copies of it than a stream of this size may make";

/// The steps that are left.
pub(crate) struct Effort(u64);

impl Effort {
    pub(crate) fn of(image: &Image<'_>) -> Self {
        Self(FIRST + FOR_BYTE * image.payload_len() as u64)
    }

    /// Whether so many steps were left, which are taken.
    pub(crate) fn take(&mut self, n: u64) -> bool {
        let left = self.0.checked_sub(n);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }

    /// Whether so many items may be written once more.
    pub(crate) fn allows_items(&mut self, n: usize) -> bool {
        self.take(FOR_ITEM * n as u64)
    }

    /// Whether objects may be hashed, and compared with others.
    ///
    /// # Safety
    /// The GIL is held, and they have hashes.
    #[cold]
    pub(crate) unsafe fn allows_hashes(&mut self, objects: impl Iterator<Item = *mut PyObject>) -> bool {
        let mut left = Vec::new();
        for object in objects {
            left.push(object);
            while let Some(object) = left.pop() {
                // SAFETY: what has a hash holds what has one.
                if !unsafe { self.visit(object, &mut left) } {
                    return false;
                }
            }
        }
        true
    }

    /// Whether the interpreter's constructor of code objects may look for what to intern in these constants.
    ///
    /// # Safety
    /// The GIL is held, and it is a tuple.
    #[cold]
    pub(crate) unsafe fn allows_constants(&mut self, consts: *mut PyObject) -> bool {
        let (mut left, mut next) = (Vec::new(), Some(consts));
        while let Some(object) = next {
            // SAFETY: an object; what is in a set has a hash.
            let is_allowed = unsafe {
                if ffi::PyTuple_Check(object) != 0 {
                    let items = (0..ffi::PyTuple_GET_SIZE(object)).map(|at| ffi::PyTuple_GET_ITEM(object, at));
                    // Most hold none of these.
                    let holds = |item: &_| ffi::PyTuple_Check(*item) != 0 || ffi::PyFrozenSet_CheckExact(*item) != 0;
                    left.extend(items.filter(holds));
                    self.take(ffi::PyTuple_GET_SIZE(object) as u64)
                } else if ffi::PyFrozenSet_CheckExact(object) != 0 {
                    // It is made again if one of its items was not interned.
                    self.allows_hashes([object].into_iter()) && push_items(object, &mut left)
                } else {
                    true
                }
            };
            if !is_allowed {
                return false;
            }
            next = left.pop();
        }
        true
    }

    /// Pushes what an object holds, and takes the steps of that.
    unsafe fn visit(&mut self, object: *mut PyObject, left: &mut Vec<*mut PyObject>) -> bool {
        // SAFETY: the objects are what is asked before; their items live as long as they do.
        unsafe {
            // Where int, str, bytes and tuple have how many there are of what they are made of.
            let size = || (*object.cast::<ffi::PyVarObject>()).ob_size.unsigned_abs() as u64;
            if ffi::PyTuple_Check(object) != 0 {
                let n = size();
                self.take(n) && {
                    left.extend((0..n as isize).map(|at| ffi::PyTuple_GET_ITEM(object, at)));
                    true
                }
            } else if ffi::PyUnicode_Check(object) != 0 || ffi::PyBytes_Check(object) != 0 {
                self.take(size() / FOR_STEP)
            } else if ffi::PyLong_Check(object) != 0 {
                // From 3.12 on, three bits of it are something else.
                self.take(if cfg!(Py_3_12) { size() >> 3 } else { size() })
            } else if ffi::PyFrozenSet_CheckExact(object) != 0 {
                self.take(ffi::PySet_Size(object) as u64) && push_items(object, left)
            } else if ffi::PySlice_Check(object) != 0 {
                let slice = object.cast::<ffi::PySliceObject>();
                left.extend([(*slice).start, (*slice).stop, (*slice).step]);
                self.take(3)
            } else if ffi::PyCode_Check(object) != 0 {
                let code = object.cast::<CodeObject>();
                left.extend([(*code).consts, (*code).names, (*code).localsplusnames]);
                self.take(3 + size())
            } else {
                self.visit_frozen_dict(object, left)
            }
        }
    }

    #[cfg(Py_3_15)]
    unsafe fn visit_frozen_dict(&mut self, object: *mut PyObject, left: &mut Vec<*mut PyObject>) -> bool {
        unsafe extern "C" {
            static mut PyFrozenDict_Type: ffi::PyTypeObject;
        }
        // SAFETY: the caller's object; what a dict holds lives as long as it does.
        unsafe {
            if ffi::Py_IS_TYPE(object, &raw mut PyFrozenDict_Type) == 0 {
                return true;
            }
            let (mut at, mut key, mut value) = (0, std::ptr::null_mut(), std::ptr::null_mut());
            while ffi::PyDict_Next(object, &raw mut at, &raw mut key, &raw mut value) != 0 {
                left.extend([key, value]);
                if !self.take(2) {
                    return false;
                }
            }
        }
        true
    }

    #[cfg(not(Py_3_15))]
    unsafe fn visit_frozen_dict(&mut self, _: *mut PyObject, _: &mut Vec<*mut PyObject>) -> bool {
        true
    }

    /// Why `marshal` must not make all of a heap, if there is a reason.
    pub(crate) fn allow_all(&mut self, heap: &Heap<'_>) -> Result<(), &'static str> {
        // By object: steps to hash it, and to intern what is in it. What has a hash holds what stands before it.
        let (mut hashes, mut interned) = (vec![0u64; heap.len()], vec![0u64; heap.len()]);
        let sum = |id, of: &[u64], step| {
            let items = heap.children(id).step_by(step);
            items.fold(0u64, |sum, item| sum.saturating_add(of[item.index()]).saturating_add(1))
        };
        for id in heap.ids() {
            let at = id.index();
            hashes[at] = match heap[id] {
                Object::Tuple(_) | Object::FrozenSet(_) | Object::FrozenDict(_) | Object::Slice(_) => {
                    sum(id, &hashes, 1)
                }
                Object::Code(code) => sum(id, &hashes, 1).saturating_add(bytecode_len(heap, heap.code(code)) / 2),
                Object::Str(text) => text.raw().0.len() as u64 / FOR_STEP,
                Object::Bytes(bytes) => bytes.len() as u64 / FOR_STEP,
                Object::Long(long) => heap.long(long).bits() / 30,
                _ => 0,
            };
            interned[at] = match heap[id] {
                Object::Tuple(_) => sum(id, &interned, 1),
                Object::FrozenSet(_) => sum(id, &interned, 1).saturating_add(hashes[at]),
                _ => 0,
            };
        }
        heap.ids().try_for_each(|id| {
            let (is_allowed, why) = match heap[id] {
                Object::Set(_) => (self.take(sum(id, &hashes, 1)), TOO_OFTEN),
                Object::FrozenSet(_) if !self.allows_items(heap.children(id).count()) => (false, TOO_MANY),
                Object::FrozenSet(_) => (self.take(sum(id, &hashes, 1)), TOO_OFTEN),
                Object::Dict(_) => (self.take(sum(id, &hashes, 2)), TOO_OFTEN),
                Object::Code(code) if !self.take(bytecode_len(heap, heap.code(code))) => (false, TOO_MUCH),
                Object::Code(code) => {
                    let field = |field| heap.code(code).object(field);
                    let n_names =
                        [Field::Names, Field::LocalsPlusNames].map(|names| heap.children(field(names)).count());
                    let n_steps =
                        interned[field(Field::Consts).index()].saturating_add(n_names.iter().sum::<usize>() as u64);
                    (self.take(n_steps), TOO_OFTEN)
                }
                _ => (true, ""),
            };
            if is_allowed { Ok(()) } else { Err(why) }
        })
    }
}

fn bytecode_len(heap: &Heap<'_>, code: &Code) -> u64 {
    match heap[code.object(Field::Code)] {
        Object::Bytes(bytes) => bytes.len() as u64,
        _ => unreachable!("the verifier says that it is bytes"),
    }
}

/// Pushes the items of a frozenset, if there is memory.
unsafe fn push_items(set: *mut PyObject, left: &mut Vec<*mut PyObject>) -> bool {
    // SAFETY: the caller's frozenset; its items live as long as it does.
    unsafe {
        let items = ffi::PyObject_GetIter(set);
        if items.is_null() {
            ffi::PyErr_Clear();
            return false;
        }
        loop {
            let item = ffi::PyIter_Next(items);
            if item.is_null() {
                break;
            }
            left.push(item);
            ffi::Py_DECREF(item);
        }
        ffi::Py_DECREF(items);
    }
    true
}
