//! Which opcodes of a Python version are rewritten, and to which.
//!
//! `LOAD_CONST` and its relatives become instructions for one kind of constant each; every user of a name becomes one that
//! takes it from the string table. The new numbers are such as the version leaves unused, and are part of the format.
//! `python3 tools/lazy_opcodes.py data PYTHON...` makes the data from the interpreters.
//!
//! Invariant: each new opcode stands for exactly one opcode and operand, so rewriting can be reversed.

use std::sync::LazyLock;

use crate::caches;
use crate::python::Python;

/// What the oparg of a rewritten instruction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand {
    /// A number among the code object's constants that are built when needed.
    Constant,
    /// A small int itself.
    Int,
    /// A number in the table of common constants.
    Common,
    /// A number among the code object's names, above so many bits of flags.
    Name { shift: u32 },
}

/// A new opcode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct New {
    pub(crate) opcode: u8,
    /// What it replaces.
    pub(crate) replaces: u8,
    pub(crate) operand: Operand,
    pub(crate) name: &'static str,
}

/// What the new opcodes of one that takes a constant are, by the kind of constant.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OfConstant {
    pub(crate) constant: Option<u8>,
    pub(crate) int: Option<u8>,
    pub(crate) common: Option<u8>,
}

/// How an opcode that has an operand of ours is rewritten.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rewrite {
    Constant(OfConstant),
    Name { opcode: u8, shift: u32 },
}

/// What becomes of the opcodes of a version.
#[derive(Debug)]
pub(crate) struct Rewrites {
    pub(crate) extended_arg: u8,
    /// By opcode, new ones included: units of two bytes that follow it.
    pub(crate) caches: [u8; 256],
    /// By opcode.
    pub(crate) forward: [Option<Rewrite>; 256],
    /// By new opcode.
    pub(crate) back: [Option<New>; 256],
}

/// The rewrites of a version.
pub(crate) fn rewrites(python: Python) -> &'static Rewrites {
    &REWRITES[usize::from(python.minor() - FIRST)]
}

const FIRST: u8 = 6;

static REWRITES: LazyLock<Vec<Rewrites>> = LazyLock::new(|| Python::all().map(read).collect());

fn read(python: Python) -> Rewrites {
    let mut rewrites = Rewrites {
        extended_arg: 0,
        caches: caches::entries(python).copied().unwrap_or([0; 256]),
        forward: [None; 256],
        back: [None; 256],
    };
    for [opcode, name, replaces, operand, shift] in rows(include_str!("../../data/lazy_opcodes.tsv"), python) {
        let number = |cell: &str| cell.parse::<u8>().expect("opcodes and shifts are numbers");
        let (opcode, replaces, shift) = (number(opcode), number(replaces), u32::from(number(shift)));
        let operand = match operand {
            "bits" => {
                rewrites.extended_arg = opcode;
                continue;
            }
            "constant" => Operand::Constant,
            "int" => Operand::Int,
            "common" => Operand::Common,
            "name" => Operand::Name { shift },
            other => unreachable!("the data knows no operand {other}"),
        };
        rewrites.caches[usize::from(opcode)] = rewrites.caches[usize::from(replaces)];
        rewrites.back[usize::from(opcode)] = Some(New { opcode, replaces, operand, name });
        let place = &mut rewrites.forward[usize::from(replaces)];
        let mut of_constant = match place {
            Some(Rewrite::Constant(of_constant)) => *of_constant,
            _ => OfConstant::default(),
        };
        match operand {
            Operand::Constant => of_constant.constant = Some(opcode),
            Operand::Int => of_constant.int = Some(opcode),
            Operand::Common => of_constant.common = Some(opcode),
            Operand::Name { .. } => {}
        }
        *place = Some(match operand {
            Operand::Name { shift } => Rewrite::Name { opcode, shift },
            _ => Rewrite::Constant(of_constant),
        });
    }
    rewrites
}

/// The cells behind the version, of the rows that are of a version.
fn rows<const N: usize>(data: &'static str, python: Python) -> impl Iterator<Item = [&'static str; N]> {
    let version = python.to_string();
    data.lines().skip(1).filter_map(move |line| {
        let mut cells = line.split('\t');
        let is_of_version = cells.next() == Some(&version);
        is_of_version.then(|| std::array::from_fn(|_| cells.next().expect("every row has all cells")))
    })
}

/// What the opcodes of a version are called, new ones included; empty where there is none.
pub(crate) fn names(python: Python) -> &'static [&'static str; 256] {
    static NAMES: LazyLock<Vec<[&'static str; 256]>> = LazyLock::new(|| {
        let of = |python| {
            let mut names = [""; 256];
            for [opcode, name] in rows(include_str!("../../data/opcode_names.tsv"), python) {
                names[opcode.parse::<usize>().expect("opcodes are numbers")] = name;
            }
            for new in rewrites(python).back.iter().flatten() {
                names[usize::from(new.opcode)] = new.name;
            }
            names
        };
        Python::all().map(of).collect()
    });
    &NAMES[usize::from(python.minor() - FIRST)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_opcodes_are_no_opcodes_of_the_version() {
        for python in Python::all() {
            let own: Vec<_> = rows::<2>(include_str!("../../data/opcode_names.tsv"), python).collect();
            let new: Vec<New> = rewrites(python).back.iter().flatten().copied().collect();
            assert!(own.len() > 100 && new.len() >= 15, "{python}");
            for New { opcode, replaces, .. } in new {
                assert!(own.iter().all(|[own, _]| *own != opcode.to_string()), "{python}: {opcode}");
                assert!(own.iter().any(|[own, _]| *own == replaces.to_string()), "{python}: {replaces}");
            }
        }
    }

    #[test]
    fn flags_below_a_name_are_known() {
        let shift = |minor, name: &str| {
            let news = rewrites(Python::new(minor).unwrap()).back.iter().flatten();
            news.clone().find(|new| new.name == name).map(|new| new.operand)
        };
        assert_eq!(shift(10, "LAZY_LOAD_GLOBAL"), Some(Operand::Name { shift: 0 }));
        assert_eq!(shift(11, "LAZY_LOAD_GLOBAL"), Some(Operand::Name { shift: 1 }));
        assert_eq!(shift(11, "LAZY_LOAD_ATTR"), Some(Operand::Name { shift: 0 }));
        assert_eq!(shift(12, "LAZY_LOAD_SUPER_ATTR"), Some(Operand::Name { shift: 2 }));
        assert_eq!(shift(15, "LAZY_IMPORT_NAME"), Some(Operand::Name { shift: 2 }));
        assert_eq!(shift(13, "LAZY_KW_NAMES"), None);
    }

    /// Images outlive builds: the numbers of a version never change.
    #[test]
    fn the_numbers_are_fixed() {
        let data = include_str!("../../data/lazy_opcodes.tsv");
        let sum = data
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        assert_eq!(sum, FINGERPRINT);
    }

    const FINGERPRINT: u64 = 0x117f_380a_044c_989b;
}
