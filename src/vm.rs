//! Executes an initializer, into the heap that the marshal reader makes too.
//!
//! Nothing is checked here: [`Verified`] says that it need not be.
//!
//! Invariants:
//! - What LOAD_INT and the tables of common values give, and short bytes, are one object each.
//! - A container that grows is written to the heap when the initializer has ended.

use indexmap::IndexMap;
use num_bigint::BigInt;

use crate::common::{self, CommonConst};
use crate::data::{CodeCounts, Data};
use crate::heap::{Code, Heap, Items, Object, ObjectId, Str, fixed};
use crate::isa::{Instruction, Intrinsic, Op, Operand, Section, Table};
use crate::verify::Verified;

/// Executes an initializer: the objects, and the one that it returns or would start. The values of its bundle's table are
/// among the objects, if it has one.
pub fn run<'v>(verified: &'v Verified<'_>) -> (Heap<'v>, ObjectId) {
    let heap = Heap::with_capacity(verified.python(), verified.n_objects(), verified.n_items());
    let Some(table) = verified.table() else { return run_in(heap, verified, Commons::default()) };
    let (heap, root) = run_in(heap, table.verified(), Commons::default());
    let Object::Tuple(values) = heap[root] else { unreachable!("{VERIFIED}") };
    let (names, consts) = heap.items(values).split_at(table.commons().n_names());
    let commons = Commons { names: names.to_vec(), consts: consts.to_vec() };
    run_in(heap, verified, commons)
}

/// The values of the table of a bundle.
#[derive(Default)]
struct Commons {
    names: Vec<ObjectId>,
    consts: Vec<ObjectId>,
}

fn run_in<'v>(heap: Heap<'v>, verified: &'v Verified<'_>, commons: Commons) -> (Heap<'v>, ObjectId) {
    let image = verified.image();
    let mut machine = Machine {
        heap,
        commons,
        numbers: Vec::new(),
        data: Data::new(image),
        stack: Vec::with_capacity(image.max_stack as usize),
        restored: verified.restored(),
        operands: Vec::new(),
        tables: Default::default(),
        growing: IndexMap::default(),
        ints: [None; 256],
        chars: [None; 256],
        names: [None; common::NAMES.len()],
        consts: [None; common::CONSTS.len()],
        bytes: [None; 256],
    };
    let mut at = 0;
    let root = loop {
        let (instruction, next) = Instruction::decode(&image.instructions, at).expect(VERIFIED);
        at = next;
        if let Some(root) = machine.step(instruction) {
            break root;
        }
    };
    machine.settle();
    (machine.heap, root)
}

const VERIFIED: &str = "the image is verified";

/// Every one-byte text.
static CHARS: [u8; 256] = {
    let mut chars = [0; 256];
    let mut at = 0;
    while at < chars.len() {
        chars[at] = at as u8;
        at += 1;
    }
    chars
};

struct Machine<'v, R> {
    heap: Heap<'v>,
    data: Data<'v>,
    stack: Vec<ObjectId>,
    /// Bytecode whose caches were left out, whole.
    restored: R,
    /// Where the operands of the instruction come from.
    operands: Vec<Operand>,
    commons: Commons,
    /// Which common values the instruction loads.
    numbers: Vec<u32>,
    /// By section of tables: those that are numbered, by number.
    tables: [Vec<ObjectId>; Section::ALL.len()],
    /// What the containers hold that were appended or added to.
    growing: IndexMap<ObjectId, Vec<ObjectId>, foldhash::fast::FixedState>,
    ints: [Option<ObjectId>; 256],
    /// One-character str.
    chars: [Option<ObjectId>; 256],
    names: [Option<ObjectId>; common::NAMES.len()],
    consts: [Option<ObjectId>; common::CONSTS.len()],
    /// One-byte bytes.
    bytes: [Option<ObjectId>; 256],
}

impl<'v, R: Iterator<Item = &'v [u8]>> Machine<'v, R> {
    /// Executes an instruction. The root, if it was the last.
    fn step(&mut self, Instruction { op, oparg }: Instruction) -> Option<ObjectId> {
        let n = oparg as usize;
        let value = match op {
            Op::ExtendedArg => unreachable!("decoding folds it"),
            Op::LoadInt => *self.ints[n].get_or_insert_with(|| self.heap.add(Object::Int(i64::from(oparg)))),
            Op::LoadChar => *self.chars[n].get_or_insert_with(|| {
                let text = &CHARS[n];
                self.heap.add(Object::Str(Str::latin1(std::slice::from_ref(text), true)))
            }),
            Op::LoadCommonConst => self.common_const(n),
            Op::LoadCommonName => self.common_name(n),
            Op::LoadManyNames | Op::LoadManyConsts => {
                let mut numbers = std::mem::take(&mut self.numbers);
                self.data.commons(oparg, &mut numbers).expect(VERIFIED);
                for number in &numbers {
                    let value = match op {
                        Op::LoadManyNames => self.common_name(*number as usize),
                        _ => self.common_const(*number as usize),
                    };
                    self.stack.push(value);
                }
                self.numbers = numbers;
                return None;
            }
            Op::LoadFast => self.stack[n],
            Op::Copy => self.stack[self.stack.len() - n],
            Op::MakeString | Op::MakeStringUtf8 => self.text(Section::Strings, oparg),
            Op::MakeStringInterned | Op::MakeStringInternedUtf8 => self.text(Section::Names, oparg),
            Op::MakeBytes => {
                let bytes = self.data.take(Section::Bytes, oparg).expect(VERIFIED);
                self.bytes(bytes)
            }
            Op::MakeFloat => {
                let bits = self.data.float().expect(VERIFIED);
                self.heap.add(Object::Float(bits))
            }
            Op::MakeLong => {
                let bytes = self.data.take(Section::Numbers, oparg).expect(VERIFIED);
                self.heap.add_int(BigInt::from_signed_bytes_le(bytes))
            }
            Op::MakeStrings | Op::MakeNames | Op::MakeIdentifiers | Op::MakeTexts => {
                if op.has_hashes() {
                    self.data.hashes(oparg).expect(VERIFIED);
                }
                for _ in 0..oparg {
                    let text = self.data.text(op).expect(VERIFIED);
                    let text = self.heap.add(Object::Str(Str::utf8(text, op != Op::MakeTexts).expect(VERIFIED)));
                    self.stack.push(text);
                }
                return None;
            }
            Op::BuildTuple | Op::BuildTupleFrom | Op::BuildTupleNear if oparg == 0 => fixed::EMPTY_TUPLE,
            Op::BuildTuple => self.build(Object::Tuple, n),
            Op::BuildTupleFrom | Op::BuildTupleNear => {
                self.gather(Instruction { op, oparg });
                self.build(Object::Tuple, n)
            }
            Op::BuildList => self.build(Object::List, n),
            Op::BuildSet => self.build(Object::Set, n),
            Op::BuildMap => self.build(Object::Dict, 2 * n),
            Op::BuildSlice => self.build(Object::Slice, n),
            Op::ListAppend => return self.grow(oparg, 1),
            Op::MapAdd => return self.grow(oparg, 2),
            Op::CallIntrinsic1 | Op::CallIntrinsic2 => self.intrinsic(Intrinsic::ALL[n]),
            Op::MakeCode | Op::MakeFullCode => {
                self.gather(Instruction { op, oparg });
                self.code(op)
            }
            Op::ReturnValue | Op::StartCode => return self.stack.pop(),
        };
        self.stack.push(value);
        None
    }

    fn common_name(&mut self, at: usize) -> ObjectId {
        if let Some(of_table) = at.checked_sub(common::NAMES.len()) {
            return self.commons.names[of_table];
        }
        *self.names[at].get_or_insert_with(|| {
            self.heap.add(Object::Str(Str::utf8(common::NAMES[at].as_bytes(), true).expect(VERIFIED)))
        })
    }

    fn common_const(&mut self, at: usize) -> ObjectId {
        if let Some(of_table) = at.checked_sub(common::CONSTS.len()) {
            return self.commons.consts[of_table];
        }
        match common::CONSTS[at].0 {
            CommonConst::None => fixed::NONE,
            CommonConst::True => fixed::TRUE,
            CommonConst::False => fixed::FALSE,
            CommonConst::Ellipsis => fixed::ELLIPSIS,
            CommonConst::StopIteration => fixed::STOP_ITERATION,
            CommonConst::EmptyTuple => fixed::EMPTY_TUPLE,
            CommonConst::EmptyBytes => self.bytes(&[]),
            CommonConst::EmptyStr => self.common(at, Object::Str(Str::latin1(b"", true))),
            CommonConst::EmptyFrozenSet => self.common(at, Object::FrozenSet(Items::EMPTY)),
            CommonConst::MinusOne => self.common(at, Object::Int(-1)),
        }
    }

    fn common(&mut self, at: usize, object: Object<'v>) -> ObjectId {
        *self.consts[at].get_or_insert_with(|| self.heap.add(object))
    }

    fn text(&mut self, section: Section, len: u32) -> ObjectId {
        let bytes = self.data.take(section, len).expect(VERIFIED);
        self.heap.add(Object::Str(Str::utf8(bytes, section == Section::Names).expect(VERIFIED)))
    }

    fn bytes(&mut self, bytes: &'v [u8]) -> ObjectId {
        let cached = match bytes {
            [] => &mut self.consts[CommonConst::EmptyBytes as usize],
            [byte] => &mut self.bytes[usize::from(*byte)],
            _ => return self.heap.add(Object::Bytes(bytes)),
        };
        *cached.get_or_insert_with(|| self.heap.add(Object::Bytes(bytes)))
    }

    /// Puts the operands that an instruction copies between those that it takes from the stack. Who moves a value leaves what it
    /// was in its slot, which nobody reads any more.
    fn gather(&mut self, instruction: Instruction) {
        let mut operands = std::mem::take(&mut self.operands);
        self.data.operands(instruction, self.heap.python(), &mut operands).expect(VERIFIED);
        let n_taken = operands.iter().filter(|operand| **operand == Operand::Taken).count();
        let base = self.stack.len() - n_taken;
        let top = self.stack.len();
        if n_taken < operands.len() {
            let mut taken = base;
            let mut each = operands.iter();
            while let Some(operand) = each.next() {
                let value = match *operand {
                    Operand::Tuple(n) => {
                        let items = each.by_ref().take(n as usize).filter_map(|item| item.slot());
                        let items: Vec<_> = items.map(|slot| self.stack[slot as usize]).collect();
                        self.tuple(&items)
                    }
                    Operand::Copied(slot) | Operand::Moved(slot) => self.stack[slot as usize],
                    Operand::Taken => {
                        taken += 1;
                        self.stack[taken - 1]
                    }
                };
                self.stack.push(value);
            }
            self.stack.drain(base..top);
        }
        self.operands = operands;
    }

    fn tuple(&mut self, items: &[ObjectId]) -> ObjectId {
        if items.is_empty() {
            return fixed::EMPTY_TUPLE;
        }
        let items = self.heap.add_items(items);
        self.heap.add(Object::Tuple(items))
    }

    /// Makes a container of the topmost values.
    fn build(&mut self, object: fn(Items) -> Object<'v>, n: usize) -> ObjectId {
        let base = self.stack.len() - n;
        let items = self.heap.add_items(&self.stack[base..]);
        self.stack.truncate(base);
        self.heap.add(object(items))
    }

    fn grow(&mut self, depth: u32, n: usize) -> Option<ObjectId> {
        let base = self.stack.len() - n;
        let container = self.stack[base - depth as usize];
        let held = || self.heap.children(container).collect();
        self.growing.entry(container).or_insert_with(held).extend(self.stack.drain(base..));
        None
    }

    /// Writes the grown containers to the heap.
    fn settle(&mut self) {
        for (id, held) in std::mem::take(&mut self.growing) {
            let items = self.heap.add_items(&held);
            self.heap.set(id, self.heap[id].with_items(items));
        }
    }

    fn intrinsic(&mut self, intrinsic: Intrinsic) -> ObjectId {
        let mut pop = || self.stack.pop().expect(VERIFIED);
        let object = match intrinsic {
            Intrinsic::MakeComplex => {
                let (imag, real) = (pop(), pop());
                let (Object::Float(real), Object::Float(imag)) = (self.heap[real], self.heap[imag]) else {
                    unreachable!("{VERIFIED}")
                };
                Object::Complex { real, imag }
            }
            Intrinsic::MakeFrozenSet => match self.heap[pop()] {
                Object::Tuple(items) => Object::FrozenSet(items),
                _ => unreachable!("{VERIFIED}"),
            },
            Intrinsic::MakeFrozenDict => match self.heap[pop()] {
                Object::Dict(items) => Object::FrozenDict(items),
                _ => unreachable!("{VERIFIED}"),
            },
        };
        self.heap.add(object)
    }

    fn code(&mut self, op: Op) -> ObjectId {
        let layout = self.heap.python().layout();
        let mut code = Code::EMPTY;
        let CodeCounts { numbers, tables } = self.data.code(op, layout).expect(VERIFIED);
        for (field, number) in layout.numbers.iter().zip(numbers) {
            code.set_number(*field, number);
        }
        for (&field, (table, is_numbered)) in layout.tables.iter().zip(tables) {
            let section = Section::of_table(field);
            let bytes = match table {
                Table::Inline(len) => Ok(self.data.take(section, len).expect(VERIFIED)),
                Table::Stripped(len) | Table::Quickened(len) => {
                    self.data.take(section, len).expect(VERIFIED);
                    Ok(self.restored.next().expect(VERIFIED))
                }
                Table::Earlier(number) => Err(self.tables[section as usize][number as usize]),
                // The operands lie on top already.
                Table::Slot(slot) => Err(self.stack[slot as usize]),
            };
            let table = bytes.map_or_else(
                |table| table,
                |bytes| {
                    let table = self.bytes(bytes);
                    if is_numbered {
                        self.tables[section as usize].push(table);
                    }
                    table
                },
            );
            code.set_object(field, table);
        }
        let base = self.stack.len() - layout.operands.len();
        for (field, operand) in layout.operands.iter().zip(&self.stack[base..]) {
            code.set_object(*field, *operand);
        }
        self.stack.truncate(base);
        let code = self.heap.add_code(code);
        self.heap.add(Object::Code(code))
    }
}
