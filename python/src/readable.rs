//! Whether CPython can read, compare and free a code object with some quickened bytecode: to read `co_code` of an opcode that
//! only a running interpreter has, or of caches beyond the end, crashes it.

use rehydrate::Python as Version;
use rehydrate::caches;

use crate::layout::VERSION;

/// Most units of an instruction, in any version.
const MOST_UNITS: usize = 11;

/// What is known of the opcodes of this version.
pub(crate) struct Readable {
    /// By opcode: how many units of two bytes an instruction reaches at most, with its caches.
    reach: [u8; 256],
}

impl Readable {
    pub(crate) fn new(python: Version) -> Self {
        let mut reach = caches::units(python).unwrap_or([0; 256]);
        for (opcode, n) in reach.iter_mut().enumerate().filter(|(_, n)| **n == 0) {
            // CACHE and, from 3.12 on, RESERVED have none; what a running interpreter specializes has those of what it was.
            *n = if opcode == 0 || opcode == 17 && cfg!(Py_3_12) { 1 } else { MOST_UNITS as u8 };
        }
        // What looks like this counter, which often stands near the end in 3.14, is an instruction without caches.
        if let Some([opcode, _]) = VERSION.counter.map(u16::to_le_bytes) {
            reach[usize::from(opcode)] = 1;
        }
        Self { reach }
    }

    /// Whether CPython can certainly read it, by a look at each unit that does not ask which ones are caches: none looks like an
    /// opcode of a running interpreter, and none so near the end that its caches could go beyond.
    pub(crate) fn accepts(&self, quickened: &[u8]) -> bool {
        self.ends(quickened) && !looks_strange(quickened)
    }

    /// Whether it is whole units, and none stands so near the end that its caches could go beyond.
    #[inline(always)]
    pub(crate) fn ends(&self, quickened: &[u8]) -> bool {
        let (code, []) = quickened.as_chunks::<2>() else { return false };
        match code.last_chunk::<{ MOST_UNITS - 1 }>() {
            // Nothing branches on what stands there.
            Some(tail) => {
                let goes_beyond = |at: usize| usize::from(self.reach[usize::from(tail[at][0])]) > tail.len() - at;
                !(0..tail.len()).fold(false, |beyond, at| beyond | goes_beyond(at))
            }
            None => code.iter().rev().zip(1u8..).all(|([opcode, _], left)| self.reach[usize::from(*opcode)] <= left),
        }
    }
}

/// Whether a unit of some bytecode looks like an opcode of a running interpreter: without a branch, so that the compiler takes
/// several at once.
pub(crate) fn looks_strange(bytecode: &[u8]) -> bool {
    // Of opcodes; a counter that looks like one is none.
    let mut highest = 0;
    let mut enters_any = false;
    for unit in bytecode.as_chunks().0 {
        let unit = i16::from_le_bytes(*unit);
        let opcode = unit & 0xff;
        let is_counter = VERSION.counter.is_some_and(|counter| unit == counter.cast_signed());
        highest = highest.max(if is_counter { 0 } else { opcode });
        enters_any |= VERSION.enter_executor.is_some_and(|enter| opcode == i16::from(enter));
    }
    highest >= VERSION.first_instrumented.cast_signed() || enters_any
}
