//! The names that initializers share: a table of interned str by the hash that the stream carries.
//!
//! Most names are short, and their text stands in the table itself, so that to find one touches one line of memory and not
//! the object. What is in the table is never freed: from 3.12 on it is immortal, as CPython itself makes names of code objects.
//!
//! Invariants:
//! - The hash of an entry is [`name_hash`] of its text, and the text is ASCII.
//! - The table holds a reference to each str.
//! - At most [`MAX_NAMES`] names and [`MAX_BYTES`] of text are in it.

use pyo3::ffi::PyObject;
use rehydrate::common::name_hash;

use crate::layout::AsciiStr;

/// Most names that the table takes. What comes later is interned as `marshal` does it, and freed when it is unused.
pub(crate) const MAX_NAMES: usize = 1 << 20;

/// Most bytes of text, of all names together.
pub(crate) const MAX_BYTES: usize = 32 << 20;

/// Most bytes of a text that stands in the table.
const SHORT: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Entry {
    /// Null if there is none.
    object: *mut PyObject,
    hash: u32,
    len: u32,
    /// A short text, as [`packed`] gives it.
    text: u128,
}

const EMPTY: Entry = Entry { object: std::ptr::null_mut(), hash: 0, len: 0, text: 0 };

/// The table.
pub(crate) struct Names {
    entries: Vec<Entry>,
    len: usize,
    n_bytes: usize,
}

/// A text of up to 16 bytes, the others zero; 0 for a longer one. `more` begins with the text, and may go on.
#[inline(always)]
fn packed(text: &[u8], more: &[u8]) -> u128 {
    match more.first_chunk::<SHORT>() {
        // Most of the time there is something behind: no branch depends on the length of the name.
        Some(chunk) if text.len() <= SHORT => u128::from_le_bytes(*chunk) & MASKS[text.len()],
        _ => packed_alone(text),
    }
}

/// By length of a text: the bits that are its own.
static MASKS: [u128; SHORT + 1] = {
    let mut masks = [0; SHORT + 1];
    let mut len = 1;
    while len < masks.len() {
        masks[len] = u128::MAX >> (8 * (SHORT - len));
        len += 1;
    }
    masks
};

fn packed_alone(text: &[u8]) -> u128 {
    let mut chunk = [0; SHORT];
    match chunk.get_mut(..text.len()) {
        Some(begin) => begin.copy_from_slice(text),
        None => return 0,
    }
    u128::from_le_bytes(chunk)
}

impl Names {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), len: 0, n_bytes: 0 }
    }

    /// How many names there are, and the bytes of their texts.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.len, self.n_bytes)
    }

    /// Whether there is no room for a text.
    pub(crate) fn is_full_for(&self, text: &[u8]) -> bool {
        self.len >= MAX_NAMES || self.n_bytes + text.len() > MAX_BYTES
    }

    /// The str of this text, if it is known, and has this hash. `more` begins with the text, and may go on.
    #[inline(always)]
    pub(crate) fn get(&self, hash: u32, text: &[u8], more: &[u8]) -> Option<*mut PyObject> {
        let mask = self.entries.len().wrapping_sub(1);
        let packed = packed(text, more);
        let mut at = hash as usize & mask;
        while let Some(entry) = self.entries.get(at).filter(|entry| !entry.object.is_null()) {
            let is_like = entry.hash == hash && entry.len as usize == text.len() && entry.text == packed;
            if is_like && (text.len() <= SHORT || text_of(entry.object, text.len()) == text) {
                return Some(entry.object);
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// Has the entry at hand that a hash will be looked for in.
    #[inline(always)]
    pub(crate) fn expect(&self, hash: u32) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: to prefetch is harmless, whatever the address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let at = hash as usize & self.entries.len().wrapping_sub(1);
            _mm_prefetch::<_MM_HINT_T0>(self.entries.as_ptr().wrapping_add(at).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = hash;
    }

    /// Takes a reference to a str that is not in the table. The hash is [`name_hash`] of its text.
    #[cold]
    pub(crate) fn insert(&mut self, hash: u32, text: &[u8], object: *mut PyObject) {
        debug_assert_eq!(hash, name_hash(text));
        if 2 * self.len >= self.entries.len() {
            let entries = std::mem::take(&mut self.entries);
            self.entries.resize((2 * entries.len()).max(1 << 12), EMPTY);
            entries.into_iter().filter(|entry| !entry.object.is_null()).for_each(|entry| self.put(entry));
        }
        self.put(Entry { object, hash, len: text.len() as u32, text: packed_alone(text) });
        self.len += 1;
        self.n_bytes += text.len();
    }

    fn put(&mut self, entry: Entry) {
        let mask = self.entries.len() - 1;
        let mut at = entry.hash as usize & mask;
        while !self.entries[at].object.is_null() {
            at = (at + 1) & mask;
        }
        self.entries[at] = entry;
    }
}

/// The text of a str that is in the table.
fn text_of<'a>(object: *mut PyObject, len: usize) -> &'a [u8] {
    // SAFETY: what is in the table are str of ASCII of this length, which are never freed; their text follows their head.
    unsafe { std::slice::from_raw_parts(object.cast::<AsciiStr>().add(1).cast(), len) }
}
