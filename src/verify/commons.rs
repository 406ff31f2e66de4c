//! The table of a bundle: the values that LOAD_COMMON_NAME and LOAD_COMMON_CONST find behind those that every initializer
//! knows.
//!
//! It is the tuple that an initializer of its own makes and returns, names first. What is known of its values is kept, so that
//! an image that takes them is verified as if it had made them itself.
//!
//! Invariants of [`Commons`]:
//! - The names are interned str; every constant has a hash.

use super::value::{BYTES, HASHABLE, INTERNED, STR, Value, load};
use super::{Executor, Nothing, Verified, Verifier};
use crate::common;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::isa::{Instruction, Op, Operand, Section};
use crate::varint;

/// What is known of the values of a table.
#[derive(Debug, Clone)]
pub struct Commons {
    n_names: usize,
    /// Those that every initializer knows, and behind them those of the table.
    consts: Vec<Value>,
    /// The bytes among the constants; [`Value::len`] says which.
    bytes: Vec<Box<[u8]>>,
}

impl Commons {
    /// How many names the table has.
    pub fn n_names(&self) -> usize {
        self.n_names
    }

    /// How many constants the table has.
    pub fn n_consts(&self) -> usize {
        self.consts.len() - common::CONSTS.len()
    }
}

/// A table that was verified, to execute and list images with.
#[derive(Debug, Clone)]
pub struct CommonTable<'a> {
    verified: Verified<'a>,
    commons: Commons,
}

impl<'a> CommonTable<'a> {
    /// What is known of its values.
    pub fn commons(&self) -> &Commons {
        &self.commons
    }

    /// The initializer that makes it.
    pub fn verified(&self) -> &Verified<'a> {
        &self.verified
    }
}

/// Verifies the initializer of a table, whose first `n_names` values are names.
///
/// # Errors
/// As [`super::verify`], and if it is no table.
pub fn verify_table(image: Image<'_>, n_names: usize) -> Result<CommonTable<'_>> {
    let ((), commons) = execute_table(&image, n_names, Nothing)?;
    // Once more, which is simpler than to take the first apart.
    Ok(CommonTable { verified: super::verify(image)?, commons })
}

/// Verifies the initializer of a table, and executes it in the same pass. The object is a tuple of the values.
///
/// # Errors
/// As [`super::execute`], and if it is no table.
pub fn execute_table<'v, E: Executor<'v>>(
    image: &'v Image<'_>,
    n_names: usize,
    executor: E,
) -> Result<(E::Object, Commons), E::Error> {
    let mut verifier = Verifier::new(image, None, executor)?;
    verifier.items = Some(Vec::new());
    let (object, starts) = verifier.run(image.max_stack)?;
    match verifier.as_commons(n_names, starts) {
        Ok(commons) => Ok((object, commons)),
        Err(error) => {
            E::release(object);
            Err(error.into())
        }
    }
}

impl<'v, E: Executor<'v>> Verifier<'v, E> {
    /// How many values an instruction can load that loads common ones.
    pub(super) fn n_common(&self, op: Op) -> usize {
        let (built_in, table) = match op {
            Op::LoadCommonName | Op::LoadManyNames => (common::NAMES.len(), self.commons.map(Commons::n_names)),
            _ => (common::CONSTS.len(), self.commons.map(Commons::n_consts)),
        };
        built_in + table.unwrap_or_default()
    }

    /// What an instruction loads.
    #[inline(always)]
    pub(super) fn loaded(&mut self, instruction: Instruction) -> Value {
        let Instruction { op, oparg } = instruction;
        match (op, self.commons) {
            (Op::LoadCommonName, _) => Value::str(true, true),
            (Op::LoadCommonConst, Some(commons)) => self.common_const(commons, oparg as usize),
            _ => load(instruction),
        }
    }

    /// LOAD_MANY_NAMES, LOAD_MANY_CONSTS.
    pub(super) fn load_many(&mut self, instruction: Instruction) -> Result<(), E::Error> {
        let Instruction { op, oparg } = instruction;
        self.check_operand(instruction)?;
        let (n_common, is_names) = (self.n_common(op), op == Op::LoadManyNames);
        let (references, mut at) = (*self.data.rest(Section::References), 0);
        let (first, mut are_immortal) = (self.stack.len(), is_names && E::NAMES_ARE_IMMORTAL);
        // Each takes a byte at least.
        self.stack.reserve((oparg as usize).min(references.len()));
        for _ in 0..oparg {
            let Some((number, after)) = varint::next(references, at) else {
                return Err(self.data.bad_varint(Section::References).into());
            };
            at = after;
            if is_names && let Some(name) = self.executor.known_common_name(number) {
                self.push(name, Value::str(true, true).immortal(E::NAMES_ARE_IMMORTAL));
                continue;
            }
            let instruction = Instruction { op: op.of_one(), oparg: number };
            if number as usize >= n_common {
                return Err(self.wrong(instruction, "the table of the bundle has no such entry").into());
            }
            let value = self.loaded(instruction);
            self.push_loaded(instruction, value)?;
            are_immortal = false;
        }
        self.note_names(first, are_immortal);
        *self.data.rest(Section::References) = &references[at..];
        Ok(())
    }

    #[inline]
    fn common_const(&mut self, commons: &'v Commons, number: usize) -> Value {
        let value = commons.consts[number];
        // Those of one byte at most are those of `load`.
        if !value.has(BYTES) || number < common::CONSTS.len() {
            return value;
        }
        self.bytes.push(&commons.bytes[value.len as usize]);
        Value { len: (self.bytes.len() - 1) as u32, ..value }
    }

    /// Notes what a tuple will hold that is made and returned.
    #[cold]
    pub(super) fn note_items(&mut self, instruction: Instruction, next: usize) {
        if self.instructions.get(next) != Some(&(Op::ReturnValue as u8)) {
            return;
        }
        let n = instruction.oparg as usize;
        let mut references =
            vec![Operand::Taken; if instruction.op == Op::BuildTuple { n.min(self.stack.len()) } else { 0 }];
        if matches!(instruction.op, Op::BuildTupleFrom | Op::BuildTupleNear) {
            let is_whole = self.data.clone().operands(instruction, self.python(), &mut references).is_ok();
            references.truncate(if is_whole { n } else { 0 });
        }
        // What is wrong with the references is told when the tuple is made.
        let n_taken = references.iter().filter(|reference| **reference == Operand::Taken).count();
        let mut taken = self.stack[self.stack.len().saturating_sub(n_taken)..].iter();
        let slots = references.iter().map_while(|reference| match reference.slot() {
            Some(slot) => self.stack.get(slot as usize),
            None => taken.next(),
        });
        self.items = Some(slots.map(|slot| slot.value).collect());
    }

    /// What is known of the values of the tuple that was returned.
    fn as_commons(&self, n_names: usize, starts: bool) -> Result<Commons> {
        let bad = |why| Error::at(ErrorKind::BadContainer(why), self.at).inside("the instructions of the table");
        let values = self.items.as_deref().unwrap_or_default();
        if starts || values.len() != self.n_returned {
            return Err(bad("the table of a bundle is no tuple that is made and returned"));
        }
        let Some((names, consts)) = values.split_at_checked(n_names) else {
            return Err(bad("the table of a bundle has fewer names than the bundle states"));
        };
        if !names.iter().all(|name| name.has(STR | INTERNED)) {
            return Err(bad("a name of the table of a bundle is no interned str"));
        }
        if !consts.iter().all(|value| value.has(HASHABLE)) {
            return Err(bad("a constant of the table of a bundle has no hash"));
        }
        let mut bytes = Vec::new();
        let consts = consts.iter().map(|value| {
            if !value.has(BYTES) {
                return *value;
            }
            bytes.push(Box::from(self.bytes[value.len as usize]));
            Value { len: (bytes.len() - 1) as u32, ..*value }
        });
        let built_in =
            (0..common::CONSTS.len() as u32).map(|oparg| load(Instruction { op: Op::LoadCommonConst, oparg }));
        let consts = built_in.chain(consts).collect();
        Ok(Commons { n_names, consts, bytes })
    }
}
