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
use rehydrate::verify::AHEAD;

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

/// By length of a text: the bits of it in 16 bytes that begin with it.
static MASKS: [u128; SHORT + 1] = {
    let mut masks = [0; SHORT + 1];
    let mut len = 1;
    while len <= SHORT {
        masks[len] = u128::MAX >> (8 * (SHORT - len));
        len += 1;
    }
    masks
};

/// The bytes of a text of up to 16 bytes, the others zero; 0 for a longer one.
fn packed(text: &[u8]) -> u128 {
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

    /// What looks for names, in the registers of who looks for many.
    #[inline(always)]
    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { entries: self.entries, long: &self.long, mask: self.entries.len().wrapping_sub(1) }
    }

    /// Takes a reference to a str, to the place that [`Self::place_for`] just found for its text and hash; if there is memory.
    /// The hash is [`name_hash`] of its text.
    #[cold]
    pub(crate) fn insert(&mut self, Place(free): Place, hash: u32, text: &[u8], object: *mut PyObject) -> bool {
        debug_assert_eq!(hash, name_hash(text));
        debug_assert!(self.entries[free].object.is_null());
        let packed = if text.len() <= SHORT {
            packed(text)
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

/// Looks for names in a table.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'n> {
    entries: &'n [Entry],
    long: &'n [u8],
    mask: usize,
}

impl Reader<'_> {
    /// Appends the str of the first texts, each with its hash and its length, up to the first that is not known, or
    /// that is very long; and says how many bytes they have together.
    #[inline(never)]
    pub(crate) fn find_all(
        self,
        hashes: &[[u8; 4]],
        lens: &[u8],
        texts: &[u8],
        found: &mut Vec<*mut PyObject>,
    ) -> usize {
        if self.entries.is_empty() {
            return 0;
        }
        found.reserve(hashes.len());
        let (mut n, mut rest) = (0, texts);
        let mut later = hashes.get(AHEAD..).unwrap_or_default().iter();
        for ((hash, len), place) in hashes.iter().zip(lens).zip(found.spare_capacity_mut()) {
            if let Some(later) = later.next() {
                self.expect(u32::from_le_bytes(*later));
            }
            let (hash, len) = (u32::from_le_bytes(*hash), usize::from(*len));
            // It is more than a length that begins with such a byte.
            if len >= 0x80 {
                break;
            }
            let key = key(hash, len as u32);
            // SAFETY: there are entries.
            let entry = unsafe { self.first(hash, key) };
            let Some((text, after)) = rest.split_at_checked(len) else { break };
            let is_it = entry.key == key
                && match MASKS.get(len) {
                    // Most of the time there is something behind: no branch depends on the length of the name.
                    Some(mask) => {
                        rest.first_chunk().is_some_and(|chunk| u128::from_le_bytes(*chunk) & mask == entry.text)
                    }
                    None => self.is_long(entry, text),
                };
            let object = match is_it {
                true => entry.object,
                // The second of a pair is taken last: none of this hash went further. In a fresh process most names are new.
                false if entry.object.is_null() => break,
                false => match self.get(hash, text) {
                    Some(object) => object,
                    None => break,
                },
            };
            place.write(object);
            (n, rest) = (n + 1, after);
        }
        // SAFETY: so many places were written.
        unsafe { found.set_len(found.len() + n) };
        texts.len() - rest.len()
    }

    /// The entry that is most probably of a key: of the first pair, as it cannot be foreseen which it is, so nothing branches on it.
    ///
    /// # Safety
    /// There are entries.
    #[inline(always)]
    unsafe fn first(&self, hash: u32, key: u64) -> &Entry {
        let at = first_of_pair(hash, self.mask);
        // SAFETY: the mask is one less than how many there are, a power of two, so that a pair begins and ends below.
        unsafe {
            let is_second = self.entries.get_unchecked(at).key != key;
            self.entries.get_unchecked(at + usize::from(is_second))
        }
    }

    /// The str of a text, if it is known, and has this hash.
    #[inline(never)]
    pub(crate) fn get(self, hash: u32, text: &[u8]) -> Option<*mut PyObject> {
        let (key, packed, first) =
            (key(hash, u32::try_from(text.len()).ok()?), packed(text), first_of_pair(hash, self.mask));
        for n in 0..2 * MAX_PAIRS {
            let entry = self.entries.get((first + n) & self.mask)?;
            if entry.key == key && if text.len() <= SHORT { entry.text == packed } else { self.is_long(entry, text) } {
                return Some(entry.object);
            }
            if entry.object.is_null() {
                return None;
            }
        }
        None
    }

    /// Whether a long text is that of an entry of its length.
    #[inline(always)]
    fn is_long(&self, entry: &Entry, text: &[u8]) -> bool {
        self.long.get(entry.text as usize..).is_some_and(|long| long.starts_with(text))
    }

    /// Has the entry in the cache soon that a hash will be looked for in.
    #[inline(always)]
    pub(crate) fn expect(self, hash: u32) {
        let at = first_of_pair(hash, self.mask);
        prefetch(self.entries.as_ptr().wrapping_add(at));
        // One name in seven stands behind.
        prefetch(self.entries.as_ptr().wrapping_add(at + 2));
    }
}
