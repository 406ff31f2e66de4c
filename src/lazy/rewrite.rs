//! Rewrites bytecode so that it takes constants when they are needed, and back.
//!
//! ```text
//! RESUME 0; LOAD_CONST 1; RETURN_VALUE        co_consts = (None, (1, 'Hi'))
//! RESUME 0; LAZY_LOAD_CONSTANT 0; RETURN_VALUE
//! ```
//!
//! Every instruction keeps its place and its length: opargs count within the code object. So jumps, line table and exception
//! table stay as they are.
//!
//! Invariant: what [`forward`] accepts, [`reverse`] gives back, byte for byte; [`forward`] tries.

use super::opcodes::{Operand, Rewrite, Rewrites, rewrites};
use crate::caches;
use crate::common::CommonConst;
use crate::heap::{Object, Str};
use crate::python::Python;

/// How bytecode loads a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// By an instruction that holds it.
    Int(u8),
    /// By its number in the table of common constants.
    Common(u8),
    /// By building it when it is first needed.
    Lazy,
}

/// How a constant is loaded: as a small int, from the table of common constants, or lazily.
///
/// `frozenset()` is lazy although the table has it: CPython may hold several, and which one must not be lost.
pub(crate) fn class(object: &Object<'_>) -> Class {
    let common = match object {
        Object::None => CommonConst::None,
        Object::True => CommonConst::True,
        Object::False => CommonConst::False,
        Object::Ellipsis => CommonConst::Ellipsis,
        Object::StopIteration => CommonConst::StopIteration,
        Object::Int(-1) => CommonConst::MinusOne,
        Object::Int(value) => return u8::try_from(*value).map_or(Class::Lazy, Class::Int),
        Object::Str(text) if is_empty(*text) => CommonConst::EmptyStr,
        Object::Tuple(items) if items.is_empty() => CommonConst::EmptyTuple,
        Object::Bytes([]) => CommonConst::EmptyBytes,
        _ => return Class::Lazy,
    };
    Class::Common(common.operand() as u8)
}

fn is_empty(text: Str<'_>) -> bool {
    text.raw().0.is_empty()
}

/// By class and number: where among the constants it stands. Of equal ones the first counts.
#[derive(Debug)]
pub(crate) struct Places {
    ints: [u32; 256],
    commons: [u32; 256],
    lazy: Vec<u32>,
    /// Entries of `ints` and `commons` that are set.
    set: Vec<Class>,
    n_names: u32,
}

const NOWHERE: u32 = u32::MAX;

impl Places {
    pub(crate) fn new() -> Self {
        Self { ints: [NOWHERE; 256], commons: [NOWHERE; 256], lazy: Vec::new(), set: Vec::new(), n_names: 0 }
    }

    /// Forgets all constants.
    pub(crate) fn clear(&mut self) {
        for class in self.set.drain(..) {
            match class {
                Class::Int(value) => self.ints[usize::from(value)] = NOWHERE,
                Class::Common(number) => self.commons[usize::from(number)] = NOWHERE,
                Class::Lazy => unreachable!("only the others are noted"),
            }
        }
        self.lazy.clear();
    }

    pub(crate) fn set_n_names(&mut self, n_names: usize) {
        self.n_names = u32::try_from(n_names).unwrap_or(u32::MAX);
    }

    /// Notes the class of the constant at `at`.
    pub(crate) fn add(&mut self, at: u32, class: Class) {
        let place = match class {
            Class::Int(value) => &mut self.ints[usize::from(value)],
            Class::Common(number) => &mut self.commons[usize::from(number)],
            Class::Lazy => return self.lazy.push(at),
        };
        if *place == NOWHERE {
            *place = at;
            self.set.push(class);
        }
    }

    /// Where the constant with this number of its class stands.
    fn place(&self, operand: Operand, number: u32) -> Option<u32> {
        let number = usize::try_from(number).ok()?;
        let place = match operand {
            Operand::Constant => *self.lazy.get(number)?,
            Operand::Int => *self.ints.get(number)?,
            Operand::Common => *self.commons.get(number)?,
            Operand::Name { .. } => return None,
        };
        (place != NOWHERE).then_some(place)
    }

    /// The class of the constant at `at`, and its number in it; `None` if it could not be found again by them.
    fn find(&self, at: u32, classes: &[Class]) -> Option<(Operand, u32)> {
        let (operand, number) = match *classes.get(at as usize)? {
            Class::Int(value) => (Operand::Int, u32::from(value)),
            Class::Common(number) => (Operand::Common, u32::from(number)),
            Class::Lazy => (Operand::Constant, u32::try_from(self.lazy.binary_search(&at).ok()?).ok()?),
        };
        (self.place(operand, number) == Some(at)).then_some((operand, number))
    }
}

/// Appends rewritten bytecode; `has_caches` says whether inline caches stand in it. `false`, and nothing appended, if it
/// could not be turned back exactly: it is odd, or uses the new opcodes for something else.
pub(crate) fn forward(
    python: Python,
    bytecode: &[u8],
    has_caches: bool,
    (classes, places): (&[Class], &Places),
    out: &mut Vec<u8>,
) -> bool {
    let rewrites = rewrites(python);
    let start = out.len();
    out.extend_from_slice(bytecode);
    let mut is_new = false;
    let walked = walk(rewrites, &mut out[start..], has_caches, |opcode, oparg| {
        is_new |= rewrites.back[usize::from(opcode)].is_some();
        Ok(match rewrites.forward[usize::from(opcode)] {
            None => None,
            Some(Rewrite::Name { opcode, shift }) => (oparg >> shift < places.n_names).then_some((opcode, oparg)),
            Some(Rewrite::Constant(of_constant)) => places.find(oparg, classes).and_then(|(operand, number)| {
                let opcode = match operand {
                    Operand::Constant => of_constant.constant,
                    Operand::Int => of_constant.int,
                    Operand::Common => of_constant.common,
                    Operand::Name { .. } => None,
                };
                opcode.map(|opcode| (opcode, number))
            }),
        })
    });
    // Reversed with caches, bytecode that has none would be another.
    let mut back = out[start..].to_vec();
    let reversed = walk(rewrites, &mut back, has_caches, |opcode, oparg| original(rewrites, places, opcode, oparg));
    let is_exact = walked.is_ok() && !is_new && reversed.is_ok() && back == bytecode;
    if !is_exact {
        out.truncate(start);
    }
    is_exact
}

/// The bytecode that [`forward`] was given, and with its inline caches if it stands without them. Without `places`, it was
/// not rewritten.
///
/// # Errors
/// Where an instruction names a constant or a name that is not there, and which.
pub(crate) fn reverse(
    python: Python,
    stored: &[u8],
    has_caches: bool,
    places: Option<&Places>,
) -> Result<Vec<u8>, Misfit> {
    let rewrites = rewrites(python);
    let mut whole = Vec::new();
    if has_caches {
        whole.extend_from_slice(stored);
        if let Some(places) = places {
            walk(rewrites, &mut whole, true, |opcode, oparg| original(rewrites, places, opcode, oparg))?;
        }
        return Ok(whole);
    }
    let Some(places) = places else {
        // A new opcode stands here for whatever it was, and had no caches.
        caches::restore(python, stored, &mut whole);
        return Ok(whole);
    };
    let (units, odd) = stored.as_chunks::<2>();
    let n_entries = |opcode: u8| usize::from(rewrites.caches[usize::from(opcode)]);
    // Caches are zero: what is not written stays so.
    whole.resize(stored.len() + 2 * units.iter().map(|[opcode, _]| n_entries(*opcode)).sum::<usize>(), 0);
    let (mut to, mut first, mut high) = (0, 0, 0);
    for (at, [opcode, low]) in units.iter().enumerate() {
        let place = &mut whole[to..to + 2];
        (place[0], place[1]) = (*opcode, *low);
        let oparg = high << 8 | u32::from(*low);
        to += 2 + 2 * n_entries(*opcode);
        if *opcode == rewrites.extended_arg {
            high = oparg;
            continue;
        }
        let misfit = |name| Misfit { at: 2 * at, name };
        if let Some((opcode, oparg)) = original(rewrites, places, *opcode, oparg).map_err(misfit)? {
            let end = to - 2 * n_entries(opcode);
            put(&mut whole[first..end], opcode, oparg).map_err(misfit)?;
        }
        (first, high) = (to, 0);
    }
    let end = whole.len() - odd.len();
    whole[end..].copy_from_slice(odd);
    Ok(whole)
}

/// What a new opcode stands for, and its oparg; `None` for any other opcode.
#[inline]
fn original(rewrites: &Rewrites, places: &Places, opcode: u8, oparg: u32) -> Result<Option<(u8, u32)>, &'static str> {
    let Some(new) = &rewrites.back[usize::from(opcode)] else { return Ok(None) };
    if let Operand::Name { shift } = new.operand {
        return if oparg >> shift < places.n_names { Ok(Some((new.replaces, oparg))) } else { Err(new.name) };
    }
    places.place(new.operand, oparg).map(|place| Some((new.replaces, place))).ok_or(new.name)
}

/// Changes an instruction with its EXTENDED_ARGs, in place.
#[inline]
fn put(instruction: &mut [u8], opcode: u8, oparg: u32) -> Result<(), &'static str> {
    let (units, _) = instruction.as_chunks_mut::<2>();
    let mut left = oparg;
    for unit in units.iter_mut().rev() {
        unit[1] = left as u8;
        left >>= 8;
    }
    if let Some(last) = units.last_mut() {
        last[0] = opcode;
    }
    if left == 0 { Ok(()) } else { Err("EXTENDED_ARG") }
}

/// An instruction that does not fit the code object: where it stands, what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) at: usize,
    pub(crate) name: &'static str,
}

/// Gives every instruction to `change`, which may answer with another opcode and oparg; their length stays.
fn walk(
    rewrites: &Rewrites,
    bytecode: &mut [u8],
    has_caches: bool,
    mut change: impl FnMut(u8, u32) -> Result<Option<(u8, u32)>, &'static str>,
) -> Result<(), Misfit> {
    let (units, _) = bytecode.as_chunks_mut::<2>();
    let (mut at, mut first, mut high) = (0, 0, 0);
    while let Some(&[opcode, low]) = units.get(at) {
        let oparg = high << 8 | u32::from(low);
        if opcode == rewrites.extended_arg {
            high = oparg;
            at += 1;
            continue;
        }
        let misfit = |name| Misfit { at: 2 * at, name };
        if let Some((opcode, oparg)) = change(opcode, oparg).map_err(misfit)? {
            put(units[first..=at].as_flattened_mut(), opcode, oparg).map_err(misfit)?;
        }
        at += 1 + if has_caches { usize::from(rewrites.caches[usize::from(opcode)]) } else { 0 };
        (first, high) = (at, 0);
    }
    Ok(())
}

/// How many bytes longer bytecode would be if opargs were numbers in the tables of the whole file, by `oparg_of`, and took
/// EXTENDED_ARG where they need it. Jumps over what is inserted would get longer too, which is not counted.
///
/// For comparison: this is the alternative that lost.
pub(crate) fn growth(python: Python, bytecode: &[u8], mut oparg_of: impl FnMut(Operand, u32) -> Option<u32>) -> usize {
    let rewrites = rewrites(python);
    let mut growth = 0;
    let len = |oparg: u32| 2 * (oparg.max(1).ilog2() / 8) as usize;
    let mut copy = bytecode.to_vec();
    _ = walk(rewrites, &mut copy, true, |opcode, oparg| {
        let wanted = match rewrites.forward[usize::from(opcode)] {
            Some(Rewrite::Name { shift, .. }) => {
                let flags = oparg & ((1 << shift) - 1);
                oparg_of(Operand::Name { shift }, oparg >> shift).map(|number| number << shift | flags)
            }
            Some(Rewrite::Constant(_)) => oparg_of(Operand::Constant, oparg),
            None => None,
        };
        growth += wanted.map_or(0, |wanted| len(wanted).saturating_sub(len(oparg)));
        Ok(None)
    });
    growth
}

#[cfg(test)]
mod tests {
    use super::*;

    const PYTHON: &str = "3.13";
    const LOAD_CONST: u8 = 83;
    const LOAD_ATTR: u8 = 82;
    const EXTENDED_ARG: u8 = 71;

    /// Rewritten bytecode of a code object with these constants and two names.
    fn rewritten(bytecode: &[u8], classes: &[Class]) -> Option<Vec<u8>> {
        let mut places = Places::new();
        places.set_n_names(2);
        (0..).zip(classes).for_each(|(at, class)| places.add(at, *class));
        let mut out = Vec::new();
        forward(PYTHON.parse().unwrap(), bytecode, true, (classes, &places), &mut out).then_some(out)
    }

    fn named(bytecode: &[u8]) -> String {
        let names = crate::lazy::opcodes::names(PYTHON.parse().unwrap());
        let spell = |unit: &[u8; 2]| format!("{} {}", names[usize::from(unit[0])], unit[1]);
        bytecode.as_chunks::<2>().0.iter().map(spell).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn each_kind_of_constant_has_an_instruction() {
        let classes = [Class::Common(0), Class::Int(200), Class::Lazy, Class::Int(7), Class::Lazy];
        let bytecode: Vec<u8> = (0..5).flat_map(|at| [LOAD_CONST, at]).collect();
        assert_eq!(
            named(&rewritten(&bytecode, &classes).unwrap()),
            "LAZY_LOAD_COMMON 0; MAKE_INT 200; LAZY_LOAD_CONSTANT 0; MAKE_INT 7; LAZY_LOAD_CONSTANT 1"
        );
    }

    #[test]
    fn a_constant_that_stands_twice_is_left_where_it_is_not_the_first() {
        let classes = [Class::Int(1), Class::Int(1)];
        let bytecode = [LOAD_CONST, 0, LOAD_CONST, 1];
        assert_eq!(named(&rewritten(&bytecode, &classes).unwrap()), "MAKE_INT 1; LOAD_CONST 1");
    }

    #[test]
    fn flags_below_a_name_stay() {
        let bytecode = [&[LOAD_ATTR, 3][..], &[0; 18], &[LOAD_CONST, 0]].concat();
        let found = named(&rewritten(&bytecode, &[Class::Lazy]).unwrap());
        assert!(found.starts_with("LAZY_LOAD_ATTR 3; CACHE 0; ") && found.ends_with("LAZY_LOAD_CONSTANT 0"), "{found}");
    }

    #[test]
    fn a_name_or_a_constant_that_is_not_there_is_left() {
        let bytecode = [&[LOAD_CONST, 1][..], &[LOAD_ATTR, 4], &[0; 18]].concat();
        assert_eq!(rewritten(&bytecode, &[Class::Lazy]), Some(bytecode));
    }

    #[test]
    fn extended_args_keep_their_number() {
        let mut classes = vec![Class::Lazy; 256];
        classes.extend([Class::Int(5), Class::Lazy]);
        let bytecode = [EXTENDED_ARG, 1, LOAD_CONST, 0, EXTENDED_ARG, 1, LOAD_CONST, 1, EXTENDED_ARG, 0, LOAD_CONST, 9];
        assert_eq!(
            named(&rewritten(&bytecode, &classes).unwrap()),
            "EXTENDED_ARG 0; MAKE_INT 5; EXTENDED_ARG 1; LAZY_LOAD_CONSTANT 0; EXTENDED_ARG 0; LAZY_LOAD_CONSTANT 9"
        );
    }

    #[test]
    fn bytecode_that_uses_the_new_opcodes_is_kept() {
        assert_eq!(rewritten(&[LOAD_CONST, 0, 235, 0], &[Class::Lazy]), None);
    }

    #[test]
    fn what_stands_where_a_cache_should_be_is_no_instruction() {
        let bytecode = [&[LOAD_ATTR, 0][..], &[LOAD_CONST, 0].repeat(9), &[LOAD_CONST, 0]].concat();
        let rewritten = rewritten(&bytecode, &[Class::Lazy]).unwrap();
        assert_eq!(rewritten[2..20], bytecode[2..20]);
        assert_ne!(rewritten[20..], bytecode[20..]);
    }

    #[test]
    fn bytecode_that_is_not_rewritten_gets_the_caches_of_its_own_opcodes() {
        let python = PYTHON.parse().unwrap();
        // LOAD_ATTR has nine entries; 224, LAZY_LOAD_ATTR elsewhere, is no opcode.
        let whole = reverse(python, &[LOAD_ATTR, 0, 224, 0], false, None).unwrap();
        assert_eq!(whole, [&[LOAD_ATTR, 0][..], &[0; 18], &[224, 0]].concat());
        let whole = reverse(python, &[LOAD_ATTR, 0, 224, 0], false, Some(&Places { n_names: 1, ..Places::new() }));
        assert_eq!(whole.unwrap(), [&[LOAD_ATTR, 0][..], &[0; 18]].concat().repeat(2));
    }

    #[test]
    fn a_place_that_does_not_fit_its_instruction_is_refused() {
        let mut places = Places::new();
        (0..300).for_each(|at| places.add(at, if at < 299 { Class::Int(1) } else { Class::Lazy }));
        let found = reverse(PYTHON.parse().unwrap(), &[235, 0], true, Some(&places));
        assert_eq!(found.unwrap_err(), Misfit { at: 0, name: "EXTENDED_ARG" });
        let found = reverse(PYTHON.parse().unwrap(), &[LOAD_CONST, 0, 235, 1], true, Some(&places));
        assert_eq!(found.unwrap_err(), Misfit { at: 2, name: "LAZY_LOAD_CONSTANT" });
    }
}
