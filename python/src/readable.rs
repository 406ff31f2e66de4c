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
        let (chunks, rest) = quickened.as_chunks::<2>().0.as_chunks::<LANES>();
        let mut last = [[0; 2]; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let seen = chunks.iter().chain([&last]).fold(Seen::NOTHING, Seen::and);
        self.ends(quickened) && !seen.is_strange()
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

/// So many units are looked at in one go.
const LANES: usize = 16;

/// Copies bytecode, of whole units, to a place of its length, and says whether one of them looks like an opcode of a running
/// interpreter: in one pass, as the processor foresees the end of neither of two.
#[inline(always)]
pub(crate) fn copy_looking(code: &[u8], to: &mut [MaybeUninit<u8>]) -> bool {
    let (code, to) = (code.as_chunks::<2>().0, to.as_chunks_mut::<2>().0);
    let mut seen = Seen::NOTHING;
    for (chunk, to) in code.as_chunks().0.iter().zip(to.as_chunks_mut::<LANES>().0) {
        *to = chunk.map(|unit| unit.map(MaybeUninit::new));
        seen = seen.and(chunk);
    }
    match (code.last_chunk(), to.last_chunk_mut::<LANES>()) {
        // Of the last ones, some are copied twice, so that none is copied alone.
        (Some(chunk), Some(to)) => {
            *to = chunk.map(|unit| unit.map(MaybeUninit::new));
            seen = seen.and(chunk);
        }
        _ => {
            let mut chunk = [[0; 2]; LANES];
            for ((unit, to), lane) in code.iter().zip(to).zip(&mut chunk) {
                *to = unit.map(MaybeUninit::new);
                *lane = *unit;
            }
            seen = seen.and(&chunk);
        }
    }
    seen.is_strange()
}

/// What was seen in some units, by lane.
#[derive(Clone, Copy)]
struct Seen {
    /// The highest opcode; a counter that looks like one is none.
    highest: [i16; LANES],
    /// Not 0 if an opcode enters an executor.
    enters: [i16; LANES],
}

impl Seen {
    const NOTHING: Self = Self { highest: [0; LANES], enters: [0; LANES] };

    /// After a look at so many more: without a branch, so that the compiler takes several at once.
    #[inline(always)]
    fn and(mut self, units: &[[u8; 2]; LANES]) -> Self {
        for (lane, unit) in units.iter().enumerate() {
            let unit = i16::from_le_bytes(*unit);
            let opcode = unit & 0xff;
            let is_counter = VERSION.counter.is_some_and(|counter| unit == counter.cast_signed());
            let enters = VERSION.enter_executor.is_some_and(|enter| opcode == i16::from(enter));
            self.highest[lane] = self.highest[lane].max(if is_counter { 0 } else { opcode });
            self.enters[lane] |= if enters { !0 } else { 0 };
        }
        self
    }

    /// Whether there was what looks like an opcode of a running interpreter.
    #[inline(always)]
    fn is_strange(self) -> bool {
        let highest = self.highest.into_iter().fold(0, i16::max);
        let enters = self.enters.into_iter().fold(0, |enters, lane| enters | lane);
        highest >= VERSION.first_instrumented.cast_signed() || enters != 0
    }
}
