//! Inline caches of bytecode: left out of an initializer and put back, or filled as CPython fills them.
//!
//! From 3.11 on, some instructions are followed by cache entries, two bytes each, which are all zero in marshal: a fifth
//! of a dump. How many follow which opcode is data, taken from the interpreters themselves. When CPython makes a code
//! object, it *quickens* its bytecode: puts a counter into the first entry, and 3.12 joins some pairs of instructions.
//!
//! Invariants:
//! - What `strip` accepts, `restore` gives back.
//! - What [`quicken`] accepts, [`unquicken`] gives back.
//!
//! Source: CPython 3.12 to 3.15 `Python/specialize.c`, `_PyCode_Quicken`; `Objects/codeobject.c`, `deopt_code`.

use std::sync::OnceLock;

use crate::python::Python;

/// What is known of the opcodes of a version.
struct Opcodes {
    /// Entries by opcode.
    entries: Entries,
    /// By opcode: the first entry of a new code object.
    counters: [[u8; 2]; 256],
    /// By opcode: whether marshal sees it.
    is_ordinary: [bool; 256],
    /// Pairs of opcodes, and what the first becomes.
    pairs: Vec<([u8; 2], u8)>,
    /// By opcode: what it was before it was the first of a pair.
    first_of_pair: [Option<u8>; 256],
}

/// Entries by opcode.
type Entries = [u8; 256];

/// Most entries that an instruction has.
const MAX_ENTRIES: usize = 10;

/// An instruction, and as many entries as it may have.
const WINDOW: usize = 2 + 2 * MAX_ENTRIES;

impl Opcodes {
    /// Those of a version; `None` where there are no caches at all. `python3 tools/inline_caches.py PYTHON...` makes the data again.
    fn read(python: Python) -> Option<Self> {
        let mut all = Self {
            entries: [0; 256],
            counters: [[0; 2]; 256],
            is_ordinary: [false; 256],
            pairs: Vec::new(),
            first_of_pair: [None; 256],
        };
        for [opcode, _name, n, counter] in rows(include_str!("../data/inline_caches.tsv"), python) {
            let opcode = usize::from(number(opcode));
            all.entries[opcode] = u8::try_from(number(n)).expect("entries are few");
            assert!(usize::from(all.entries[opcode]) <= MAX_ENTRIES, "{python} has an instruction with {n} entries");
            all.counters[opcode] = number(counter).to_le_bytes();
            all.is_ordinary[opcode] = true;
        }
        for [first, second, becomes, _name] in rows(include_str!("../data/superinstructions.tsv"), python) {
            let [first, second, becomes] =
                [first, second, becomes].map(|opcode| u8::try_from(number(opcode)).expect("an opcode is a byte"));
            all.pairs.push(([first, second], becomes));
            all.first_of_pair[usize::from(becomes)] = Some(first);
        }
        all.is_ordinary.contains(&true).then_some(all)
    }
}

/// The rows of a version, without it.
fn rows(table: &str, python: Python) -> impl Iterator<Item = [&str; 4]> {
    let version = python.to_string();
    table.lines().skip(1).filter_map(move |row| {
        let mut cells = row.strip_prefix(&version)?.strip_prefix('\t')?.split('\t');
        Some(std::array::from_fn(|_| cells.next().expect("a row has five cells")))
    })
}

fn number(cell: &str) -> u16 {
    cell.parse().expect("a cell holds a number")
}

fn opcodes(python: Python) -> Option<&'static Opcodes> {
    static OPCODES: [OnceLock<Option<Opcodes>>; Python::LATEST.minor() as usize + 1] =
        [const { OnceLock::new() }; Python::LATEST.minor() as usize + 1];
    OPCODES[usize::from(python.minor())].get_or_init(|| Opcodes::read(python)).as_ref()
}

/// The entries of a version, by opcode; `None` where it has no inline caches.
pub(crate) fn entries(python: Python) -> Option<&'static Entries> {
    opcodes(python).map(|opcodes| &opcodes.entries)
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

/// Appends bytecode as CPython holds it in a new code object. `false`, and nothing appended, if the caches are not all
/// there and zero, or if [`unquicken`] would give something else back.
pub fn quicken(python: Python, bytecode: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(opcodes) = opcodes(python) else { return false };
    let start = out.len();
    out.extend_from_slice(bytecode);
    let quickened = &mut out[start..];
    let (mut at, mut before) = (0, None);
    let mut is_plain = bytecode.len().is_multiple_of(2);
    while is_plain && at < bytecode.len() {
        let opcode = bytecode[at];
        let len = 2 * usize::from(opcodes.entries[usize::from(opcode)]);
        is_plain = opcodes.first_of_pair[usize::from(opcode)].is_none()
            && bytecode.get(at + 2..at + 2 + len).is_some_and(|caches| caches.iter().all(|byte| *byte == 0));
        if len > 0 && is_plain {
            quickened[at + 2..at + 4].copy_from_slice(&opcodes.counters[usize::from(opcode)]);
        }
        if let Some(before) = before
            && let Some((_, becomes)) = opcodes.pairs.iter().find(|(pair, _)| *pair == [before, opcode])
        {
            quickened[at - 2] = *becomes;
        }
        before = (len == 0).then_some(opcode);
        at += 2 + len;
    }
    if !is_plain {
        out.truncate(start);
    }
    is_plain
}

/// Appends quickened bytecode as it stands in marshal. `false` if it is not what [`quicken`] gives.
pub fn unquicken(python: Python, quickened: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(opcodes) = opcodes(python) else { return false };
    match opcodes.pairs.as_slice() {
        [] => unquicken_alone(opcodes, quickened, out),
        _ => unquicken_pairs(opcodes, quickened, out),
    }
}

/// As [`unquicken`], of a version that joins no instructions.
fn unquicken_alone(opcodes: &Opcodes, quickened: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.resize(start + quickened.len(), 0);
    let bytecode = &mut out[start..];
    // As in `strip`, nothing branches on how many entries come next as long as a window is left.
    let (mut at, mut set) = (0, 0);
    while let Some(window) = quickened.get(at..).and_then(<[u8]>::first_chunk::<WINDOW>) {
        let opcode = usize::from(window[0]);
        let mut window = *window;
        window[2] ^= opcodes.counters[opcode][0];
        window[3] ^= opcodes.counters[opcode][1];
        let n_entries = opcodes.entries[opcode];
        bytecode[at..at + 2].copy_from_slice(&window[..2]);
        set |= bits_set(&window, n_entries);
        at += 2 + 2 * usize::from(n_entries);
    }
    while let Some(&[opcode, oparg]) = quickened.get(at..at + 2) {
        let len = 2 * usize::from(opcodes.entries[usize::from(opcode)]);
        let Some(caches) = quickened.get(at + 2..at + 2 + len) else { return false };
        if let [low, high, rest @ ..] = caches {
            let is_counter = [*low, *high] == opcodes.counters[usize::from(opcode)];
            set |= u128::from(!is_counter || rest.iter().any(|byte| *byte != 0));
        }
        bytecode[at..at + 2].copy_from_slice(&[opcode, oparg]);
        at += 2 + len;
    }
    set == 0 && at == quickened.len()
}

/// As [`unquicken`], of a version that joins instructions.
fn unquicken_pairs(opcodes: &Opcodes, quickened: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.extend_from_slice(quickened);
    let bytecode = &mut out[start..];
    let (mut at, mut joins_next) = (0, None);
    let mut is_quickened = quickened.len().is_multiple_of(2);
    while is_quickened && at < bytecode.len() {
        let joined = quickened[at];
        let opcode = opcodes.first_of_pair[usize::from(joined)].unwrap_or(joined);
        let len = 2 * usize::from(opcodes.entries[usize::from(opcode)]);
        bytecode[at] = opcode;
        // What the instruction before this one said of the two.
        is_quickened = match joins_next {
            Some((first, becomes)) => {
                let pair = opcodes.pairs.iter().find(|(pair, _)| *pair == [first, opcode]);
                pair.map_or(first, |(_, becomes)| *becomes) == becomes
            }
            None => true,
        };
        joins_next = (len == 0).then_some((opcode, joined));
        match bytecode.get_mut(at + 2..at + 2 + len) {
            Some([]) => {}
            Some(caches) => {
                let (counter, rest) = caches.split_at(2);
                is_quickened &= counter == opcodes.counters[usize::from(opcode)] && rest.iter().all(|byte| *byte == 0);
                caches.fill(0);
            }
            None => is_quickened = false,
        }
        at += 2 + len;
    }
    // The last instruction joins nothing.
    is_quickened && joins_next.is_none_or(|(opcode, joined)| opcode == joined)
}

/// Whether CPython can read, compare and free a code object with this quickened bytecode: every opcode is an ordinary one
/// of the version, and every cache lies inside.
pub fn is_sound(python: Python, quickened: &[u8]) -> bool {
    let Some(opcodes) = opcodes(python) else { return false };
    let (units, []) = quickened.as_chunks::<2>() else { return false };
    let mut at = 0;
    while let Some([opcode, _]) = units.get(at) {
        let base = opcodes.first_of_pair[usize::from(*opcode)].unwrap_or(*opcode);
        if !opcodes.is_ordinary[usize::from(base)] {
            return false;
        }
        at += 1 + usize::from(opcodes.entries[usize::from(base)]);
    }
    at == units.len()
}

/// By opcode: how many units of two bytes an instruction takes with its caches; 0 for one that marshal never sees.
pub fn units(python: Python) -> Option<[u8; 256]> {
    let opcodes = opcodes(python)?;
    Some(std::array::from_fn(|opcode| match opcodes.is_ordinary[opcode] {
        true => 1 + opcodes.entries[opcode],
        false => opcodes.first_of_pair[opcode].map_or(0, |first| 1 + opcodes.entries[usize::from(first)]),
    }))
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
    fn quickening_sets_counters_and_joins_pairs() {
        let check = |python: &str, bytecode: &[u8], expected: &[u8]| {
            let (python, mut quickened, mut back) = (python.parse().unwrap(), Vec::new(), Vec::new());
            assert!(quicken(python, bytecode, &mut quickened));
            assert_eq!(quickened, expected);
            assert!(unquicken(python, &quickened, &mut back) && is_sound(python, &quickened));
            assert_eq!(back, bytecode);
        };
        // 3.12: LOAD_FAST, LOAD_FAST, LOAD_CONST; then BINARY_OP with one entry.
        check("3.12", b"\x7c\0\x7c\x01\x64\0\x7a\0\0\0", b"\x58\0\x56\x01\x64\0\x7a\0\x11\0");
        // 3.13: RESUME, CALL with three entries, JUMP_BACKWARD with one.
        check("3.13", b"\x95\0\x35\x01\0\0\0\0\0\0\x4d\0\0\0", b"\x95\0\x35\x01\x11\0\0\0\0\0\x4d\0\x04\x01");
        check("3.11", b"\x97\0\x7a\0\0\0", b"\x97\0\x7a\0\0\0");
    }

    #[test]
    fn what_is_not_quickened_is_told() {
        let python = "3.12".parse().unwrap();
        // Two instructions that would be one; one that has no second; a wrong counter; caches that are cut short.
        for wrong in [&b"\x7c\0\x7c\0"[..], b"\x58\0\x53\0", b"\x58\0", b"\x7a\0\x12\0", b"\x7a\0", b"\x7c"] {
            assert!(!unquicken(python, wrong, &mut Vec::new()), "{wrong:x?}");
        }
        for wrong in [&b"\x7a\0\x01\0"[..], b"\x7a\0", b"\x58\0\x7c\0"] {
            let mut out = Vec::new();
            assert!(!quicken(python, wrong, &mut out) && out.is_empty(), "{wrong:x?}");
        }
        // INSTRUMENTED_LINE, and caches that are cut short.
        assert!(!is_sound(python, b"\xfe\0") && !is_sound(python, b"\x7a\0"));
    }

    #[test]
    fn caches_came_with_3_11() {
        assert!(Python::all().all(|python| has_caches(python) == (python.minor() >= 11)));
    }
}
