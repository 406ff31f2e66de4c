//! Whether CPython can read, compare and free a code object with some quickened bytecode: to read `co_code` of an opcode that
//! only a running interpreter has, or of caches beyond the end, crashes it.

use std::mem::MaybeUninit;

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
        // All are looked at, so that the compiler takes several at once.
        self.ends(quickened)
            && quickened.as_chunks().0.iter().fold(0, |strange, unit| strange | strangeness(*unit)) == 0
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

/// Copies bytecode to a place of its length, and says whether one of its units looks like an opcode of a running interpreter: in one
/// pass, as the processor foresees the end of neither of two.
#[inline(always)]
pub(crate) fn copy_looking(code: &[u8], to: &mut [MaybeUninit<u8>]) -> bool {
    /// So many units are looked at in one go, in lanes of 16 bits.
    const LANES: usize = 8;
    let (code, to) = (code.as_chunks::<2>().0, to.as_chunks_mut::<2>().0);
    let copy = |units: &[[u8; 2]], to: &mut [[MaybeUninit<u8>; 2]]| {
        units.iter().zip(to).fold(0, |strange, (unit, to)| {
            *to = unit.map(MaybeUninit::new);
            strange | strangeness(*unit)
        })
    };
    let whole = code.len() & !(LANES - 1);
    let strange = copy(&code[..whole], &mut to[..whole]);
    match (code.last_chunk::<LANES>(), to.last_chunk_mut::<LANES>()) {
        // Of the last ones, some are copied twice, so that none is copied alone.
        (Some(code), Some(to)) => strange | copy(code, to) != 0,
        _ => copy(code, to) != 0,
    }
}

/// Not 0 for an opcode of a running interpreter; a counter that looks like one is none. All arithmetic.
#[inline(always)]
fn strangeness(unit: [u8; 2]) -> u16 {
    let unit = u16::from_le_bytes(unit);
    let opcode = unit & 0xff;
    let is_instrumented = (opcode + (0x100 - VERSION.first_instrumented)) & 0x100;
    let is_counter = VERSION.counter.map_or(0, |counter| if unit == counter { 0x100 } else { 0 });
    let enters = VERSION.enter_executor.map_or(0, |enter| if opcode == u16::from(enter) { 0x100 } else { 0 });
    is_instrumented & !is_counter | enters
}
