//! The names that initializers share: a table of interned str by the hash that the stream carries.
//!
//! Most names are short, and their text stands in the table itself, so that to find one touches one line of memory and not
//! the object. The texts of long ones stand one behind the other, in the order in which they came, which is the order in which
//! they are met again. What is in the table is never freed: from 3.12 on it is immortal, as CPython itself makes names of code objects.
//!
//! Invariants:
//! - The hash of an entry is [`name_hash`] of its text, and the text is ASCII.
//! - The table holds a reference to each str.
//! - An entry stands in the first pair, of the one of its hash and those behind it, that had room when it came.
//! - That is one of [`MAX_PAIRS`]. The hash has no seed, and names of one hash are easily made up: where all of these are full,
//!   a name is not taken, so that no name is looked for for long.
//! - At most [`MAX_NAMES`] names and [`MAX_BYTES`] of text are in it.

use pyo3::ffi::PyObject;
use rehydrate::common::name_hash;

use crate::huge::{HUGE, map, map_huge, populate, unmap};
use crate::prefetch::prefetch;

/// Most names that the table takes. What comes later is interned as `marshal` does it, and freed when it is unused.
pub(crate) const MAX_NAMES: usize = 1 << 20;

/// Most bytes of text, of all names together.
pub(crate) const MAX_BYTES: usize = 32 << 20;

/// Most pairs that a name is looked for in. Of names that nobody made up, one in 20,000 finds so many full when the table is about
/// to grow.
const MAX_PAIRS: usize = 32;

/// How large the first table is: enough for what starts small.
const FIRST: usize = 128 << 10;

/// Most bytes of a text that stands in the table.
const SHORT: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Entry {
    /// Null if there is none.
    object: *mut PyObject,
    /// 0 if there is none.
    key: u64,
    /// A short text, as [`packed`] gives it; or where a long one begins in [`Names::long`].
    text: u128,
}

/// A place for a new name.
pub(crate) struct Place(usize);

/// The hash of a text, and its length and one.
#[inline(always)]
fn key(hash: u32, len: u32) -> u64 {
    u64::from(hash) | (u64::from(len) + 1) << 32
}

/// The table.
pub(crate) struct Names {
    /// Of [`FIRST`] bytes, then huge pages: the system gives one at once, and the processor finds every entry in it.
    entries: &'static mut [Entry],
    /// The texts that do not stand there.
    long: Vec<u8>,
    len: usize,
    n_bytes: usize,
}

/// Where the pair of entries begins, a line of memory, that a hash is looked for in first.
#[inline(always)]
fn first_of_pair(hash: u32, mask: usize) -> usize {
    hash as usize & mask & !1
}

/// The first bytes of a text of up to 16 bytes, the others zero; 0 for a longer one. `more` begins with the text.
#[inline(always)]
fn packed(len: usize, more: &[u8]) -> u128 {
    match more.first_chunk::<SHORT>() {
        // Most of the time there is something behind: no branch depends on the length of the name.
        Some(chunk) => u128::from_le_bytes(*chunk) & MASKS[len.min(SHORT + 1)],
        None => packed_alone(more.get(..len).unwrap_or_default()),
    }
}

/// By length of a text, the last for all that are long: the bits that are kept.
static MASKS: [u128; SHORT + 2] = {
    let mut masks = [0; SHORT + 2];
    let mut len = 1;
    while len <= SHORT {
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
        Self { entries: &mut [], long: Vec::new(), len: 0, n_bytes: 0 }
    }

    /// How many names there are, and the bytes of their texts.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.len, self.n_bytes)
    }

    /// The place for a text that has this hash and is not in the table, which may grow; if there is one.
    #[cold]
    pub(crate) fn place_for(&mut self, hash: u32, text: &[u8]) -> Option<Place> {
        if self.len >= MAX_NAMES || self.n_bytes + text.len() > MAX_BYTES {
            return None;
        }
        loop {
            // Two thirds: more would be found later.
            let has_room = 3 * self.len < 2 * self.entries.len();
            if has_room && let Some(free) = self.free_for(hash) {
                return Some(Place(free));
            }
            // Where two thirds are empty, names that nobody made up find room: the table does not grow for others.
            if 3 * self.len < self.entries.len() || !self.grow() {
                return None;
            }
        }
    }

    /// The str of the first `len` bytes of `more`, if it is known, and has this hash.
    #[inline(always)]
    pub(crate) fn get(&self, hash: u32, len: u32, more: &[u8]) -> Option<*mut PyObject> {
        let (key, len) = (key(hash, len), len as usize);
        let text = packed(len, more);
        let mask = self.entries.len().wrapping_sub(1);
        let mut at = first_of_pair(hash, mask);
        for _ in 0..MAX_PAIRS {
            // Which of the two it is cannot be predicted, so nothing branches on it.
            let entry = self.entries.get(at + usize::from(self.entries.get(at)?.key != key))?;
            if self.is(entry, key, text, len, more) {
                return Some(entry.object);
            }
            if entry.object.is_null() {
                return None;
            }
            if entry.key == key
                && let Some(object) = self.second(at, key, text, len, more)
            {
                return Some(object);
            }
            at = (at + 2) & mask;
        }
        None
    }

    /// Whether an entry is of this name.
    #[inline(always)]
    fn is(&self, entry: &Entry, key: u64, text: u128, len: usize, more: &[u8]) -> bool {
        entry.key == key
            && match len {
                ..=SHORT => entry.text == text,
                _ => more.get(..len).is_some_and(|text| self.is_long(*entry, text)),
            }
    }

    /// As [`Self::get`], of the second of a pair, where the first has the key and another text.
    #[cold]
    fn second(&self, at: usize, key: u64, text: u128, len: usize, more: &[u8]) -> Option<*mut PyObject> {
        self.entries.get(at + 1).filter(|entry| self.is(entry, key, text, len, more)).map(|entry| entry.object)
    }

    /// Whether a long text is that of an entry of its length.
    #[inline(always)]
    fn is_long(&self, entry: Entry, text: &[u8]) -> bool {
        self.long.get(entry.text as usize..).is_some_and(|long| long.starts_with(text))
    }

    /// Has the entry in the cache soon that a hash will be looked for in.
    #[inline(always)]
    pub(crate) fn expect(&self, hash: u32) {
        let at = first_of_pair(hash, self.entries.len().wrapping_sub(1));
        prefetch(self.entries.as_ptr().wrapping_add(at));
        // One name in seven stands behind.
        prefetch(self.entries.as_ptr().wrapping_add(at + 2));
    }

    /// Takes a reference to a str, to the place that [`Self::place_for`] just found for its text and hash; if there is memory.
    /// The hash is [`name_hash`] of its text.
    #[cold]
    pub(crate) fn insert(&mut self, Place(free): Place, hash: u32, text: &[u8], object: *mut PyObject) -> bool {
        debug_assert_eq!(hash, name_hash(text));
        debug_assert!(self.entries[free].object.is_null());
        let packed = if text.len() <= SHORT {
            packed_alone(text)
        } else {
            if self.long.try_reserve(text.len()).is_err() {
                return false;
            }
            self.long.extend_from_slice(text);
            (self.long.len() - text.len()) as u128
        };
        self.entries[free] = Entry { object, key: key(hash, text.len() as u32), text: packed };
        self.len += 1;
        self.n_bytes += text.len();
        true
    }

    /// Twice as many entries, if there is memory.
    fn grow(&mut self) -> bool {
        let n_bytes = match size_of_val(self.entries) {
            0 => FIRST,
            n_bytes => (2 * n_bytes).max(HUGE),
        };
        let places = if n_bytes < HUGE { map(n_bytes) } else { map_huge(n_bytes / HUGE) }.cast::<Entry>();
        if places.is_null() {
            return false;
        }
        populate(places.cast(), n_bytes);
        // SAFETY: nobody else knows of it, and zeros are entries.
        let entries = unsafe { std::slice::from_raw_parts_mut(places, n_bytes / size_of::<Entry>()) };
        let before = std::mem::replace(&mut self.entries, entries);
        // In turn, from a free place on, which no name passed when it came. So each finds at most those there that stood before it,
        // and room at the latest where it stood: as far from its first pair as before. None is lost.
        let free = before.iter().position(|entry| entry.object.is_null()).unwrap_or(0);
        let (wrapped, first) = before.split_at(free);
        for entry in first.iter().chain(wrapped).filter(|entry| !entry.object.is_null()) {
            match self.free_for(entry.key as u32) {
                Some(free) => self.entries[free] = *entry,
                None => debug_assert!(false, "it had room in a smaller table"),
            }
        }
        // SAFETY: the table alone knew of it, and the empty one is not unmapped.
        unsafe { unmap(before.as_mut_ptr().cast(), size_of_val(before)) };
        true
    }

    /// Where a new name of this hash goes.
    fn free_for(&self, hash: u32) -> Option<usize> {
        let mask = self.entries.len() - 1;
        let first = first_of_pair(hash, mask);
        // The first of a pair is taken before the second.
        (0..2 * MAX_PAIRS).map(|n| (first + n) & mask).find(|at| self.entries[*at].object.is_null())
    }
}
