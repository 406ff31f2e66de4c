//! Follows values through the instructions: which one made what another copies.

use std::collections::HashMap;

use crate::data::Data;
use crate::emit::Trace;
use crate::graph::{Graph, NodeId};
use crate::isa::{Instruction, Op};
use crate::listing::{disassemble, shortened};
use crate::varint;
use crate::verify::Verified;

/// The most characters of an operand.
const WIDTH: usize = 80;

/// A value that an instruction copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// The row that made it.
    pub row: usize,
    /// The position of the value, if it was made and not loaded.
    pub value: Option<usize>,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where it begins, in bytes.
    pub offset: usize,
    /// What it is called.
    pub mnemonic: &'static str,
    /// The operand, shortened.
    pub operand: String,
    /// How many values the stack holds behind it.
    pub depth: usize,
    /// The value that it made, changed or ends with, shortened.
    pub value: String,
    /// What it copies.
    pub copies: Vec<Copied>,
    /// Where it ends, in bytes.
    end: usize,
}

/// How values on the stack are referred to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct References {
    /// By LOAD_FAST and COPY.
    pub instructions: usize,
    /// How many of these need EXTENDED_ARG.
    pub extended: usize,
    /// In the data of instructions that say where their operands come from.
    pub data: usize,
    /// How many of these take more than a byte.
    pub long: usize,
}

/// Which value was made by the instruction that ends at a byte, at a place of the stack.
pub(super) struct Made {
    values: HashMap<(u32, u32), NodeId>,
}

impl Made {
    pub(super) fn new(graph: &Graph<'_, '_>, trace: &Trace) -> Self {
        Self { values: graph.ids().filter_map(|id| Some((trace.of(id)?, id))).collect() }
    }

    fn at(&self, end: usize, place: usize) -> Option<usize> {
        let key = (u32::try_from(end).ok()?, u32::try_from(place).ok()?);
        self.values.get(&key).map(|id| id.index())
    }

    /// By value: the row that made it.
    pub(super) fn rows(&self, rows: &[Row], n_values: usize) -> Vec<Option<usize>> {
        let ends: HashMap<usize, usize> = rows.iter().enumerate().map(|(at, row)| (row.end, at)).collect();
        let mut row_of = vec![None; n_values];
        for ((end, _), id) in &self.values {
            row_of[id.index()] = ends.get(&(*end as usize)).copied();
        }
        row_of
    }
}

const VERIFIED: &str = "the image is verified";

/// The rows of a listing, each with what it copies; and how that is spelled.
pub(super) fn rows(verified: &Verified<'_>, made: &Made) -> (Vec<Row>, References) {
    let mut data = Data::new(verified.image());
    let mut operands = Vec::new();
    let mut stack: Vec<Copied> = Vec::with_capacity(verified.image().max_stack as usize);
    let mut references = References::default();
    let mut rows = Vec::new();
    for (at, row) in disassemble(verified, &[]).rows().enumerate() {
        let Instruction { op, oparg } = row.instruction;
        data.operands(row.instruction, verified.python(), &mut operands).expect(VERIFIED);
        let end = Instruction::decode(&verified.image().instructions, row.offset).expect(VERIFIED).1;
        let base = stack.len() - usize::try_from(row.instruction.pops(&operands)).expect(VERIFIED);
        let mut copies = Vec::new();
        let n = oparg as usize;
        match op {
            Op::LoadFast | Op::Copy => {
                copies.push(stack[if op == Op::LoadFast { n } else { base - n }]);
                references.instructions += 1;
                references.extended += usize::from(Instruction::len(oparg) > 2);
            }
            _ => {
                for slot in operands.iter().filter_map(|operand| operand.slot()) {
                    copies.push(stack[slot as usize]);
                    references.data += 1;
                    let is_long = match op {
                        Op::BuildTupleFrom => varint::len(slot + 1) > 1,
                        Op::MakeCode => varint::len(slot) > 1,
                        Op::BuildTupleNear | Op::MakeFullCode => true,
                        _ => false,
                    };
                    references.long += usize::from(is_long);
                }
            }
        }
        stack.truncate(base);
        for _ in 0..row.instruction.pushes() {
            let value = made.at(end, stack.len());
            let new = Copied { row: at, value };
            stack.push(if matches!(op, Op::LoadFast | Op::Copy) { copies[0] } else { new });
        }
        rows.push(Row {
            offset: row.offset,
            mnemonic: op.info().mnemonic,
            operand: shortened_operand(&row.operand),
            depth: row.depth,
            value: row.value,
            copies,
            end,
        });
    }
    (rows, references)
}

fn shortened_operand(operand: &str) -> String {
    if operand.len() <= WIDTH {
        return operand.to_owned();
    }
    match operand.strip_suffix(" interned") {
        Some(literal) => shortened(literal, WIDTH).unwrap_or_default() + " interned",
        // MAKE_STRINGS has many literals, not one.
        None => format!("{}...", &operand[..WIDTH]),
    }
}
