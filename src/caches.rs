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

/// By minor version; `None` where it has none at all. `python3 tools/inline_caches.py PYTHON...` makes the data again.
static ENTRIES: LazyLock<Vec<Option<Entries>>> = LazyLock::new(|| {
    let mut all = vec![None; usize::from(Python::LATEST.minor()) + 1];
    for row in include_str!("../data/inline_caches.tsv").lines().skip(1) {
        let mut cells = row.split('\t');
        let mut cell = || cells.next().expect("a row has four cells");
        let python: Python = cell().parse().expect("the data names a known version");
        let opcode: usize = cell().parse().expect("an opcode is a number");
        let _name = cell();
        all[usize::from(python.minor())].get_or_insert([0; 256])[opcode] =
            cell().parse().expect("entries are a number");
    }
    all
});

fn entries(python: Python) -> Option<&'static Entries> {
    ENTRIES[usize::from(python.minor())].as_ref()
}

/// Whether bytecode of this version has inline caches.
pub(crate) fn has_caches(python: Python) -> bool {
    entries(python).is_some()
}

/// Appends bytecode without its caches. `false`, and nothing appended, if these are not all there and zero.
pub(crate) fn strip(python: Python, bytecode: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(entries) = entries(python) else { return false };
    let start = out.len();
    let (mut rest, mut run) = (bytecode, bytecode);
    // Runs without caches are copied whole.
    while let [opcode, _, after @ ..] = rest {
        let n = 2 * usize::from(entries[usize::from(*opcode)]);
        if n > 0 {
            if after.len() < n || after[..n].iter().any(|byte| *byte != 0) {
                out.truncate(start);
                return false;
            }
            out.extend_from_slice(&run[..run.len() - after.len()]);
            run = &after[n..];
        }
        rest = &after[n..];
    }
    out.extend_from_slice(run);
    true
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
    fn caches_came_with_3_11() {
        assert!(Python::all().all(|python| has_caches(python) == (python.minor() >= 11)));
    }
}
