//! Inline caches of bytecode: left out of an initializer, and put back.
//!
//! From 3.11 on, some instructions are followed by cache entries, two bytes each, which are all zero in marshal: a fifth
//! of a dump. How many follow which opcode is data, taken from the interpreters themselves.
//!
//! Invariant: what [`strip`] accepts, [`restore`] gives back.

use std::sync::LazyLock;

use crate::python::Python;

/// Entries by opcode.
type Entries = [u8; 256];

/// Most entries that an instruction has.
const MAX_ENTRIES: usize = 10;

/// An instruction, and as many entries as it may have.
const WINDOW: usize = 2 + 2 * MAX_ENTRIES;

/// By minor version; `None` where it has none at all. `python3 tools/inline_caches.py PYTHON...` makes the data again.
static ENTRIES: LazyLock<Vec<Option<Entries>>> = LazyLock::new(|| {
    let mut all = vec![None; usize::from(Python::LATEST.minor()) + 1];
    for row in include_str!("../data/inline_caches.tsv").lines().skip(1) {
        let mut cells = row.split('\t');
        let mut cell = || cells.next().expect("a row has four cells");
        let python: Python = cell().parse().expect("the data names a known version");
        let opcode: usize = cell().parse().expect("an opcode is a number");
        let _name = cell();
        let n: u8 = cell().parse().expect("entries are a number");
        assert!(usize::from(n) <= MAX_ENTRIES, "{python} has an instruction with {n} entries");
        all[usize::from(python.minor())].get_or_insert([0; 256])[opcode] = n;
    }
    all
});

/// The entries of a version, by opcode; `None` where it has no inline caches.
pub(crate) fn entries(python: Python) -> Option<&'static Entries> {
    ENTRIES[usize::from(python.minor())].as_ref()
}

/// Whether bytecode of this version has inline caches.
pub(crate) fn has_caches(python: Python) -> bool {
    entries(python).is_some()
}

/// Appends bytecode without its caches. `false`, and nothing appended, if these are not all there and zero.
pub(crate) fn strip(python: Python, bytecode: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(entries) = entries(python) else { return false };
    let (start, mut n) = (out.len(), out.len());
    out.resize(start + bytecode.len(), 0);
    // How many entries come next is anyone's guess, so nothing branches on it as long as a window is left.
    let (mut rest, mut set) = (bytecode, 0);
    while let Some(window) = rest.first_chunk::<WINDOW>() {
        let n_entries = entries[usize::from(window[0])];
        out[n..n + 2].copy_from_slice(&window[..2]);
        n += 2;
        set |= bits_set(window, n_entries);
        rest = &rest[2 + 2 * usize::from(n_entries)..];
    }
    while let [opcode, _, after @ ..] = rest {
        let len = 2 * usize::from(entries[usize::from(*opcode)]);
        out[n..n + 2].copy_from_slice(&rest[..2]);
        n += 2;
        let Some((caches, after)) = after.split_at_checked(len) else {
            out.truncate(start);
            return false;
        };
        set |= caches.iter().fold(0, |set, byte| set | u128::from(*byte));
        rest = after;
    }
    out[n..n + rest.len()].copy_from_slice(rest);
    out.truncate(if set == 0 { n + rest.len() } else { start });
    set == 0
}

/// The bits of the first `n` entries of a window, in any place.
#[inline]
fn bits_set(window: &[u8; WINDOW], n: u8) -> u128 {
    /// By number of entries: which bits of the first eight are theirs, and which of the others.
    const MASKS: [(u128, u32); MAX_ENTRIES + 1] = {
        let mut masks = [(0, 0); MAX_ENTRIES + 1];
        let mut n = 1;
        while n < masks.len() {
            masks[n] = if n <= 8 { (u128::MAX >> (128 - 16 * n), 0) } else { (u128::MAX, u32::MAX >> (160 - 16 * n)) };
            n += 1;
        }
        masks
    };
    let [_, _, eight @ .., a, b, c, d] = *window;
    let (mask, rest) = MASKS[usize::from(n)];
    u128::from_le_bytes(eight) & mask | u128::from(u32::from_le_bytes([a, b, c, d]) & rest)
}

/// Appends bytecode with its caches.
pub(crate) fn restore(python: Python, stripped: &[u8], out: &mut Vec<u8>) {
    let Some(entries) = entries(python) else {
        out.extend_from_slice(stripped);
        return;
    };
    let (units, odd) = stripped.as_chunks::<2>();
    for unit in units {
        out.extend_from_slice(unit);
        let n = 2 * usize::from(entries[usize::from(unit[0])]);
        out.resize(out.len() + n, 0);
    }
    out.extend_from_slice(odd);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(bytecode: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        strip("3.13".parse().unwrap(), bytecode, &mut out).then_some(out)
    }

    fn restored(stripped: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        restore("3.13".parse().unwrap(), stripped, &mut out);
        out
    }

    #[test]
    fn caches_come_back_where_they_were() {
        // RESUME, BINARY_OP with one entry, CALL with three, RETURN_VALUE.
        let bytecode = b"\x95\0\x2d\x05\0\0\x35\x01\0\0\0\0\0\0\x24\0";
        assert_eq!(stripped(bytecode).unwrap(), b"\x95\0\x2d\x05\x35\x01\x24\0");
        assert_eq!(restored(b"\x95\0\x2d\x05\x35\x01\x24\0"), bytecode);
    }

    #[test]
    fn caches_that_are_not_zero_or_cut_short_are_kept() {
        assert_eq!(stripped(b"\x2d\x05\x01\0"), None);
        assert_eq!(stripped(b"\x35\x01\0\0\0\0"), None);
        assert_eq!(stripped(b"\x24\0\x01").unwrap(), b"\x24\0\x01");
    }

    #[test]
    fn an_entry_that_is_set_is_found_wherever_it_stands() {
        let entries = entries("3.13".parse().unwrap()).unwrap();
        for opcode in 0..=255u8 {
            let n = 2 * usize::from(entries[usize::from(opcode)]);
            for behind in [0, 2, WINDOW] {
                let mut bytecode = vec![opcode, 7];
                bytecode.resize(2 + n, 0);
                // RETURN_VALUE.
                bytecode.extend(b"\x24\0".repeat(behind / 2));
                let expected = [&[opcode, 7], &bytecode[2 + n..]].concat();
                assert_eq!(stripped(&bytecode), Some(expected), "{opcode}");
                for at in 2..2 + n {
                    bytecode[at] = 0x80;
                    assert_eq!(stripped(&bytecode), None, "{opcode}, byte {at}");
                    bytecode[at] = 0;
                }
            }
        }
    }

    #[test]
    fn caches_came_with_3_11() {
        assert!(Python::all().all(|python| has_caches(python) == (python.minor() >= 11)));
    }
}
