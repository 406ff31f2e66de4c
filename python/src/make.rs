//! Makes objects as CPython makes them, without asking it: memory of its allocator, and a copy of the head of an object that
//! it made itself.
//!
//! Invariant: [`crate::probe`] has compared an object of each kind with one that the interpreter made.

use std::ptr;

use pyo3::ffi::{self, PyObject};
use rehydrate::python::{CodeNumbers, Derived};

use crate::layout::{AsciiStr, Bytes, CodeObject, Tuple};
use crate::prefetch::prefetch_lines;

/// The interpreter's allocator leaves more to that of the C library. Source: CPython `Objects/obmalloc.c`,
/// `SMALL_REQUEST_THRESHOLD`.
const SMALL: usize = 512;

/// The heads of new objects.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) ascii: AsciiStr,
    pub(crate) bytes: Bytes,
    pub(crate) tuple: Tuple,
    pub(crate) code: CodeObject,
    /// What a frame takes beside variables and stack, in words.
    #[cfg(Py_3_12)]
    pub(crate) frame_size: i32,
}

/// What a code object holds. It takes over a reference to each object.
pub(crate) struct CodeFields<'s> {
    pub(crate) numbers: CodeNumbers,
    pub(crate) derived: Derived,
    pub(crate) n_variables: i32,
    #[cfg(not(Py_3_12))]
    pub(crate) n_plain_cells: i32,
    #[cfg(Py_3_12)]
    pub(crate) version: u32,
    pub(crate) consts: *mut PyObject,
    pub(crate) names: *mut PyObject,
    pub(crate) localsplusnames: *mut PyObject,
    pub(crate) localspluskinds: *mut PyObject,
    pub(crate) filename: *mut PyObject,
    pub(crate) name: *mut PyObject,
    pub(crate) qualname: *mut PyObject,
    pub(crate) linetable: *mut PyObject,
    pub(crate) exceptiontable: *mut PyObject,
    /// As CPython holds it.
    pub(crate) bytecode: &'s [u8],
}

// Each of these gives null, without an exception set, if there is no memory.
impl Heads {
    /// Memory for a head and what follows it, the head copied there.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline(always)]
    unsafe fn make<H: Copy>(head: H, n_bytes: usize) -> *mut H {
        // SAFETY: the memory is large enough, and aligned for any object.
        unsafe {
            let size = size_of::<H>() + n_bytes;
            let made = ffi::PyObject_Malloc(size).cast::<H>();
            if !made.is_null() {
                if size <= SMALL {
                    // A free block begins with the address of the next one, and the allocator waits for it when it gives that
                    // block away. What else it may be is no matter: nothing is read from there.
                    prefetch_lines(made.cast::<*const u8>().read(), size);
                }
                made.write(head);
            }
            made
        }
    }

    /// A str of ASCII, of two characters or more: shorter ones exist once.
    ///
    /// # Safety
    /// The GIL is held, and the text is ASCII.
    #[inline]
    pub(crate) unsafe fn ascii(&self, text: &[u8]) -> *mut PyObject {
        let mut head = self.ascii;
        head.head.size = text.len() as isize;
        // SAFETY: there is room for the text and a zero.
        unsafe {
            let made = Self::make(head, text.len() + 1);
            if !made.is_null() {
                write_text(made.add(1).cast(), text);
            }
            made.cast()
        }
    }

    /// Bytes, two or more: shorter ones exist once.
    ///
    /// # Safety
    /// The GIL is held.
    #[inline]
    pub(crate) unsafe fn bytes(&self, bytes: &[u8]) -> *mut PyObject {
        let mut head = self.bytes;
        head.head.size = bytes.len() as isize;
        // SAFETY: there is room for the bytes and a zero. CPython lets them begin at the end of the head.
        unsafe {
            let made = Self::make(head, bytes.len() + 1);
            if !made.is_null() {
                write_text(made.add(1).cast(), bytes);
            }
            made.cast()
        }
    }

    /// A tuple of `n` items, not none, which the collector does not track, and where its items are to be written.
    ///
    /// # Safety
    /// The GIL is held. Nobody sees the tuple before all items are written. Null comes with a null place.
    #[inline]
    pub(crate) unsafe fn tuple(&self, n: usize) -> (*mut PyObject, *mut *mut PyObject) {
        let mut head = self.tuple;
        head.head.size = n as isize;
        // SAFETY: there is room for the items.
        unsafe {
            let made = Self::make(head, n * size_of::<*mut PyObject>());
            if made.is_null() {
                return (ptr::null_mut(), ptr::null_mut());
            }
            ((&raw mut (*made).head).cast(), made.add(1).cast())
        }
    }

    /// Frees a tuple of [`Self::tuple`] that nobody saw.
    ///
    /// # Safety
    /// The GIL is held.
    #[cold]
    pub(crate) unsafe fn discard_tuple(tuple: *mut PyObject) {
        // SAFETY: where its memory begins.
        unsafe { ffi::PyObject_Free(tuple.byte_sub(std::mem::offset_of!(Tuple, head)).cast()) };
    }

    /// A code object. It takes over the references only if it is made.
    ///
    /// # Safety
    /// The GIL is held, the objects are of the types that the fields have, and the bytecode is sound.
    #[inline(always)]
    pub(crate) unsafe fn code(&self, fields: CodeFields<'_>) -> *mut PyObject {
        let numbers = fields.numbers;
        // SAFETY: there is room for the bytecode.
        unsafe {
            let made = Self::make(self.code, fields.bytecode.len());
            if made.is_null() {
                return ptr::null_mut();
            }
            let code = &mut *made;
            code.head.size = (fields.bytecode.len() / 2) as isize;
            code.consts = fields.consts;
            code.names = fields.names;
            code.exceptiontable = fields.exceptiontable;
            code.flags = numbers.flags;
            code.argcount = numbers.arg_count;
            code.posonlyargcount = numbers.pos_only_arg_count;
            code.kwonlyargcount = numbers.kw_only_arg_count;
            code.stacksize = numbers.stack_size;
            code.firstlineno = numbers.first_line_no;
            code.nlocalsplus = fields.n_variables;
            let Derived { kinds, first_traceable } = fields.derived;
            code.nlocals = kinds.n_locals.cast_signed();
            code.ncellvars = kinds.n_cells.cast_signed();
            code.nfreevars = kinds.n_free.cast_signed();
            code.firsttraceable = first_traceable.cast_signed();
            #[cfg(not(Py_3_12))]
            {
                code.nplaincellvars = fields.n_plain_cells;
            }
            #[cfg(Py_3_12)]
            {
                code.framesize = fields.n_variables + numbers.stack_size + self.frame_size;
                code.version = fields.version;
            }
            code.localsplusnames = fields.localsplusnames;
            code.localspluskinds = fields.localspluskinds;
            code.filename = fields.filename;
            code.name = fields.name;
            code.qualname = fields.qualname;
            code.linetable = fields.linetable;
            ptr::copy_nonoverlapping(fields.bytecode.as_ptr(), made.add(1).cast(), fields.bytecode.len());
            made.cast()
        }
    }
}

/// Writes a text and a zero.
///
/// # Safety
/// There is room for both.
#[inline(always)]
unsafe fn write_text(to: *mut u8, text: &[u8]) {
    // SAFETY: the caller says so.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr(), to, text.len());
        to.add(text.len()).write(0);
    }
}
