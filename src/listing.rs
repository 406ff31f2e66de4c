//! Lists an initializer: as text that people read and [`crate::asm`] assembles back, or as JSON.
//!
//! ```text
//! 10  BUILD_TUPLE        2                         ; 4  (2, 'foo')
//! ```
//!
//! A row is an instruction: the byte it begins at, EXTENDED_ARGs included; its mnemonic; its operand; and behind `;`, for
//! people alone, how many values the stack holds then, and the value that it made, changed or ends with. Lines that begin
//! with a dot state the rest of the file; those behind MAKE_CODE and MAKE_FULL_CODE are its numbers and tables. Behind each str
//! of MAKE_NAMES stands how often it is used.
//!
//! Invariants:
//! - The text is ASCII, depends on nothing but the file, and holds all of it.
//! - A value is summarized in `WIDTH` characters, out of the summaries of what it holds: sharing is never expanded, and
//!   the time is linear in the size of the file.

use std::cell::RefCell;
use std::fmt::{self, Display, Formatter};
use std::rc::Rc;

use num_bigint::BigInt;
use serde_json::{Map, Value, json};

use crate::common;
use crate::data::{CodeCounts, Data};
use crate::heap::Str;
use crate::isa::{Instruction, Intrinsic, OPS, Op, Oparg, Operand, Section, Table};
use crate::literal;
use crate::python::Field;
use crate::verify::Verified;

/// Lists an initializer. `header` is the header of its .pyc, empty if it has none.
pub fn disassemble<'v>(verified: &'v Verified<'_>, header: &'v [u8]) -> Listing<'v> {
    Listing { verified, header }
}

/// A listing. Its rows are made as they are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Listing<'v> {
    verified: &'v Verified<'v>,
    header: &'v [u8],
}

/// An instruction of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'v> {
    /// Where it begins, in bytes of the instructions.
    pub offset: usize,
    /// The instruction.
    pub instruction: Instruction,
    /// The operand as it is spelled: a literal, a number or a name; empty if there is none.
    pub operand: String,
    /// What MAKE_CODE or MAKE_FULL_CODE takes from binary data.
    pub code: Option<CodeData<'v>>,
    /// How many values the stack holds behind it.
    pub depth: usize,
    /// A summary of the value that it made, changed or ends with.
    pub value: String,
}

/// What MAKE_CODE or MAKE_FULL_CODE takes from binary data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeData<'v> {
    /// The numbers, in the order of [`crate::python::Layout::numbers`].
    pub numbers: Vec<(Field, i32)>,
    /// The tables, in the order of [`crate::python::Layout::tables`].
    pub tables: Vec<(Field, TableData<'v>)>,
}

/// A table of a code object: a [`Table`] with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableData<'v> {
    /// It stands here.
    Inline {
        /// Its number, if it has one.
        number: Option<u32>,
        /// Whether the initializer states that it has one. If not, it has one if it is longer than a byte.
        is_stated: bool,
        /// How they stand there.
        form: Form,
        /// Its bytes.
        bytes: &'v [u8],
    },
    /// The table of this number, again.
    Earlier(u32),
    /// The bytes object in this stack slot.
    Slot(u32),
}

/// How the bytes of a table stand in the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As they are in marshal.
    Whole,
    /// Bytecode without its inline caches.
    Stripped,
    /// Bytecode as CPython holds it in a new code object.
    Quickened,
}

/// The most characters of a summary; `frozenset(` and `<code ` around one come on top.
const WIDTH: usize = 50;

/// Bytes in a line of hexadecimal.
const HEX_WIDTH: usize = 32;

impl<'v> Listing<'v> {
    /// The instructions, in order.
    pub fn rows(&self) -> Rows<'v> {
        let image = self.verified.image();
        let table = self.verified.table();
        Rows {
            verified: self.verified,
            commons: table.map_or_else(Vec::new, |table| disassemble(table.verified(), &[]).rows().returned()),
            data: Data::new(image),
            at: 0,
            n_tables: [0; Section::ALL.len()],
            operands: Vec::new(),
            made: Vec::new(),
            stack: Vec::with_capacity(image.max_stack as usize),
        }
    }

    /// The listing as a JSON document.
    pub fn json(&self) -> Value {
        let image = self.verified.image();
        let sections = Section::ALL.map(|section| (section.name().to_owned(), image.section(section).len().into()));
        json!({
            "python": self.verified.python().to_string(),
            "magic": image.magic,
            "header": Some(self.header).filter(|header| !header.is_empty()).map(hex),
            "module": image.module,
            "filename": image.filename,
            "max_stack": image.max_stack,
            "instruction_bytes": image.instructions.len(),
            "sections": Map::from_iter(sections),
            "source_bytes": image.source.as_ref().map_or(0, |source| source.len()),
            "instructions": self.rows().map(Row::json).collect::<Vec<_>>(),
        })
    }

    fn title(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let image = self.verified.image();
        write!(f, "; Initializer of Python {} objects: ", self.verified.python())?;
        let (instructions, payload) = (image.instructions.len(), image.payload_len());
        write!(f, "{instructions} bytes of instructions, {} of data, ", payload - instructions)?;
        write!(f, "{} of source; at most ", image.source.as_ref().map_or(0, |source| source.len()))?;
        writeln!(f, "{} {} on the stack", image.max_stack, if image.max_stack == 1 { "value" } else { "values" })
    }

    fn directives(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (image, python) = (self.verified.image(), self.verified.python());
        writeln!(f, ".python {python}")?;
        if image.magic != python.magic() {
            writeln!(f, ".magic {}", image.magic)?;
        }
        hex_lines(f, ".header", self.header)?;
        for (directive, text) in [(".module", &image.module), (".filename", &image.filename)] {
            writeln!(f, "{directive} {}", literal::text(Str::utf8(text.as_bytes(), false).expect("a str is UTF-8")))?;
        }
        writeln!(f)
    }
}

impl Display for Listing<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.title(f)?;
        self.directives(f)?;
        let image = self.verified.image();
        let digits = |number: usize| number.to_string().len();
        let offset = digits(image.instructions.len()).max(4);
        let depth = digits(image.max_stack as usize);
        let mnemonic = OPS.iter().map(|op| op.info().mnemonic.len()).max().unwrap_or_default();
        for row in self.rows() {
            let name = row.instruction.op.info().mnemonic;
            write!(f, "{:>offset$}  {name:<mnemonic$}  {:<24}", row.offset, row.operand)?;
            writeln!(f, "  ; {:>depth$}  {}", row.depth, row.value)?;
            if let Some(code) = &row.code {
                code.lines(f, offset + 2 + mnemonic + 2)?;
            }
        }
        if let Some(source) = &image.source {
            writeln!(f)?;
            hex_lines(f, ".source", source)?;
        }
        Ok(())
    }
}

impl CodeData<'_> {
    fn lines(&self, f: &mut Formatter<'_>, indent: usize) -> fmt::Result {
        let indent = " ".repeat(indent);
        write!(f, "{indent}.numbers")?;
        for (field, number) in &self.numbers {
            write!(f, " {}={number}", field.name())?;
        }
        writeln!(f)?;
        for (field, table) in &self.tables {
            let line = format!("{indent}.{}", field.name());
            match table {
                TableData::Inline { number, is_stated, form, bytes } => {
                    let numbered = if *is_stated && number.is_some() { " numbered" } else { "" };
                    let word = format!("{}{numbered}", form.word());
                    if bytes.is_empty() {
                        writeln!(f, "{line}{word} empty")?;
                        continue;
                    }
                    let note = number.map_or_else(String::new, |number| format!("  ; table {number}"));
                    let (first, rest) = bytes.split_at(bytes.len().min(HEX_WIDTH));
                    writeln!(f, "{line}{word} {}{note}", hex(first))?;
                    hex_lines(f, &line, rest)?;
                }
                TableData::Earlier(number) => writeln!(f, "{line} table {number}")?,
                TableData::Slot(slot) => writeln!(f, "{line} slot {slot}")?,
            }
        }
        Ok(())
    }

    fn json(&self) -> (Value, Value) {
        let numbers = self.numbers.iter().map(|(field, number)| (field.name().to_owned(), (*number).into()));
        let tables = self.tables.iter().map(|(field, table)| {
            let table = match table {
                TableData::Inline { number, form, bytes, .. } => {
                    let (stripped, quickened) = (*form == Form::Stripped, *form == Form::Quickened);
                    json!({ "table": number, "stripped": stripped, "quickened": quickened, "hex": hex(bytes) })
                }
                TableData::Earlier(number) => json!({ "table": number }),
                TableData::Slot(slot) => json!({ "slot": slot }),
            };
            (field.name().to_owned(), table)
        });
        (Value::Object(numbers.collect()), Value::Object(tables.collect()))
    }
}

impl Row<'_> {
    fn json(self) -> Value {
        let Instruction { op, oparg } = self.instruction;
        let mut row = json!({
            "offset": self.offset,
            "opcode": op as u8,
            "mnemonic": op.info().mnemonic,
            "oparg": oparg,
            "operand": self.operand,
            "depth": self.depth,
            "value": self.value,
        });
        if let Some(code) = &self.code {
            let (numbers, tables) = code.json();
            row["numbers"] = numbers;
            row["tables"] = tables;
        }
        row
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(out, "{byte:02x}").expect("a String takes what is written");
    }
    out
}

/// Lines of one directive, whose bytes go on from one to the next.
fn hex_lines(f: &mut Formatter<'_>, directive: &str, bytes: &[u8]) -> fmt::Result {
    bytes.chunks(HEX_WIDTH).try_for_each(|chunk| writeln!(f, "{directive} {}", hex(chunk)))
}

const VERIFIED: &str = "the image is verified";

/// The rows of a listing. See [`Listing::rows`].
#[derive(Debug)]
pub struct Rows<'v> {
    verified: &'v Verified<'v>,
    data: Data<'v>,
    /// Where the next instruction begins.
    at: usize,
    /// By section: numbered tables so far.
    n_tables: [u32; Section::ALL.len()],
    /// Where the operands of the instruction come from.
    operands: Vec<Operand>,
    /// The str of MAKE_STRINGS, or what LOAD_MANY_NAMES loads.
    made: Vec<String>,
    /// What the table of the bundle holds, names first.
    commons: Vec<String>,
    stack: Vec<Summary>,
}

impl Form {
    /// What stands before the bytes in a listing.
    fn word(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Stripped => " stripped",
            Self::Quickened => " quickened",
        }
    }
}

/// What is shown of a value. Slots that hold one object hold one summary, so that a container grows in all of them.
type Summary = Rc<RefCell<String>>;

impl<'v> Iterator for Rows<'v> {
    type Item = Row<'v>;

    fn next(&mut self) -> Option<Row<'v>> {
        let (instructions, offset) = (&self.verified.image().instructions, self.at);
        if offset == instructions.len() {
            return None;
        }
        let (instruction, next) = Instruction::decode(instructions, offset).expect(VERIFIED);
        self.at = next;
        self.data.operands(instruction, self.verified.python(), &mut self.operands).expect(VERIFIED);
        let mut operand = self.operand(instruction);
        let code = matches!(instruction.op, Op::MakeCode | Op::MakeFullCode).then(|| self.code(instruction.op));
        let value = self.step(instruction, &operand);
        if instruction.op.info().text.is_some_and(|class| class.interned) {
            operand.push_str(" interned");
        }
        Some(Row { offset, instruction, operand, code, depth: self.stack.len(), value })
    }
}

impl<'v> Rows<'v> {
    /// Summaries of what the tuple holds that is made and returned in the end.
    fn returned(mut self) -> Vec<String> {
        let instructions = &self.verified.image().instructions;
        loop {
            let (instruction, next) = Instruction::decode(instructions, self.at).expect(VERIFIED);
            if matches!(instructions.get(next..), Some([end, _]) if *end == Op::ReturnValue as u8) {
                self.data.operands(instruction, self.verified.python(), &mut self.operands).expect(VERIFIED);
                let base = self.stack.len() - instruction.pops(&self.operands) as usize;
                let gathered = self.gather(base);
                let items = if self.operands.is_empty() { &self.stack[base..] } else { &gathered };
                return items.iter().map(|item| item.borrow().clone()).collect();
            }
            self.next();
        }
    }

    /// How the operand is spelled.
    fn operand(&mut self, Instruction { op, oparg }: Instruction) -> String {
        match op.info().oparg {
            Oparg::Unused if op == Op::MakeFloat => literal::float(self.data.float().expect(VERIFIED)),
            Oparg::Unused => String::new(),
            Oparg::High => unreachable!("decoding folds it"),
            Oparg::Int | Oparg::Slot | Oparg::Depth | Oparg::Count | Oparg::Pairs => oparg.to_string(),
            Oparg::Char => literal::text(Str::latin1(&[oparg as u8], false)),
            Oparg::Strings => {
                self.made.clear();
                if op.has_hashes() {
                    self.data.hashes(oparg).expect(VERIFIED);
                }
                for _ in 0..oparg {
                    self.made.push(text(self.data.text(op).expect(VERIFIED)));
                }
                self.made.join(" ")
            }
            Oparg::Mask if self.operands.iter().all(|operand| *operand == Operand::Taken) => String::new(),
            Oparg::References | Oparg::NearReferences | Oparg::Mask | Oparg::Slots => spelled(&self.operands),
            Oparg::CommonConst | Oparg::CommonName => self.common(op, oparg),
            Oparg::Commons => {
                let mut numbers = Vec::new();
                self.data.commons(oparg, &mut numbers).expect(VERIFIED);
                self.made = numbers.iter().map(|number| self.common(op.of_one(), *number)).collect();
                self.made.join(" ")
            }
            Oparg::Intrinsic => Intrinsic::ALL[oparg as usize].name().to_owned(),
            Oparg::Length(section) => {
                let bytes = self.data.take(section, oparg).expect(VERIFIED);
                match section {
                    Section::Bytes => literal::bytes(bytes),
                    Section::Numbers => literal::int(&BigInt::from_signed_bytes_le(bytes)),
                    _ => text(bytes),
                }
            }
        }
    }

    /// How a common value is spelled: one of the table of a bundle by its summary.
    fn common(&self, op: Op, number: u32) -> String {
        let number = number as usize;
        if op == Op::LoadCommonName {
            return match number.checked_sub(common::NAMES.len()) {
                Some(of_table) => self.commons[of_table].clone(),
                None => text(common::NAMES[number].as_bytes()),
            };
        }
        match (number.checked_sub(common::CONSTS.len()), self.verified.table()) {
            (Some(of_table), Some(table)) => self.commons[table.commons().n_names() + of_table].clone(),
            _ => common::CONSTS[number].1.to_owned(),
        }
    }

    fn code(&mut self, op: Op) -> CodeData<'v> {
        let layout = self.verified.python().layout();
        let CodeCounts { numbers, tables } = self.data.code(op, layout).expect(VERIFIED);
        let numbers = layout.numbers.iter().copied().zip(numbers).collect();
        let table = |(field, (table, is_numbered)): (&Field, (Table, bool))| {
            let section = Section::of_table(*field);
            let table = match table {
                Table::Inline(len) | Table::Stripped(len) | Table::Quickened(len) => {
                    let bytes = self.data.take(section, len).expect(VERIFIED);
                    let next = &mut self.n_tables[section as usize];
                    let number = is_numbered.then_some(*next);
                    *next += u32::from(is_numbered);
                    let form = match table {
                        Table::Stripped(_) => Form::Stripped,
                        Table::Quickened(_) => Form::Quickened,
                        _ => Form::Whole,
                    };
                    TableData::Inline { number, is_stated: op == Op::MakeFullCode, form, bytes }
                }
                Table::Earlier(number) => TableData::Earlier(number),
                Table::Slot(slot) => TableData::Slot(slot),
            };
            (*field, table)
        };
        let tables = layout.tables.iter().zip(tables).map(table).collect();
        CodeData { numbers, tables }
    }

    /// Does to the stack of summaries what the instruction does to the stack. Gives the summary to show.
    fn step(&mut self, instruction: Instruction, operand: &str) -> String {
        let Instruction { op, oparg } = instruction;
        let n = oparg as usize;
        let base = self.stack.len() - instruction.pops(&self.operands) as usize;
        let gathered = self.gather(base);
        let items = if self.operands.is_empty() { &self.stack[base..] } else { &gathered };
        let value = match op {
            Op::ExtendedArg => unreachable!("decoding folds it"),
            Op::LoadInt
            | Op::LoadChar
            | Op::LoadCommonConst
            | Op::LoadCommonName
            | Op::MakeString
            | Op::MakeStringUtf8
            | Op::MakeStringInterned
            | Op::MakeStringInternedUtf8
            | Op::MakeBytes
            | Op::MakeFloat
            | Op::MakeLong => shortened(operand, WIDTH).unwrap_or_default(),
            Op::LoadFast => return self.push(Rc::clone(&self.stack[n])),
            Op::Copy => return self.push(Rc::clone(&self.stack[base - n])),
            Op::MakeStrings
            | Op::MakeNames
            | Op::MakeIdentifiers
            | Op::MakeTexts
            | Op::LoadManyNames
            | Op::LoadManyConsts => {
                let made = self.made.iter().map(|made| shortened(made, WIDTH).unwrap_or_default());
                self.stack.extend(made.map(|made| Rc::new(RefCell::new(made))));
                return self.stack.last().map(|last| last.borrow().clone()).unwrap_or_default();
            }
            Op::BuildTuple | Op::BuildTupleFrom | Op::BuildTupleNear => tuple(items),
            Op::BuildList => container("[", items, 1, "]"),
            Op::BuildSet if n == 0 => "set()".to_owned(),
            Op::BuildSet => container("{", items, 1, "}"),
            Op::BuildMap => container("{", items, 2, "}"),
            Op::BuildSlice => container("slice(", items, 1, ")"),
            Op::ListAppend | Op::MapAdd => {
                let container = &self.stack[base - n];
                grow(container, items);
                let value = container.borrow().clone();
                self.stack.truncate(base);
                return value;
            }
            Op::CallIntrinsic1 | Op::CallIntrinsic2 => match Intrinsic::ALL[n] {
                Intrinsic::MakeComplex => container("complex(", items, 1, ")"),
                Intrinsic::MakeFrozenSet => format!("frozenset({})", items[0].borrow()),
                Intrinsic::MakeFrozenDict => format!("frozendict({})", items[0].borrow()),
            },
            Op::MakeCode | Op::MakeFullCode => self.code_value(items),
            Op::ReturnValue | Op::StartCode => {
                let value = items[0].borrow().clone();
                self.stack.truncate(base);
                return value;
            }
        };
        self.stack.truncate(base);
        self.push(Rc::new(RefCell::new(value)))
    }

    /// The operands of an instruction that says itself where they come from.
    fn gather(&self, base: usize) -> Vec<Summary> {
        let mut taken = self.stack[base..].iter();
        let at = |slot: u32| Rc::clone(&self.stack[slot as usize]);
        let mut gathered = Vec::new();
        let mut each = self.operands.iter();
        while let Some(operand) = each.next() {
            gathered.push(match *operand {
                Operand::Copied(slot) | Operand::Moved(slot) => at(slot),
                Operand::Taken => Rc::clone(taken.next().expect(VERIFIED)),
                Operand::Tuple(n) => {
                    let items: Vec<_> = each.by_ref().take(n as usize).filter_map(|item| item.slot()).map(at).collect();
                    Rc::new(RefCell::new(tuple(&items)))
                }
            });
        }
        gathered
    }

    fn push(&mut self, summary: Summary) -> String {
        let value = summary.borrow().clone();
        self.stack.push(summary);
        value
    }

    /// `<code f>`, by the qualified name where there is one.
    fn code_value(&self, items: &[Summary]) -> String {
        let operands = &self.verified.python().layout().operands;
        let at = |field| operands.iter().position(|operand| *operand == field);
        let at = at(Field::QualName).or_else(|| at(Field::Name)).expect("every version has a name");
        let name = items[at].borrow();
        format!("<code {}>", &name[1..name.len() - 1])
    }
}

/// How the operands of an instruction are spelled that says itself where they come from: `pop`, `7` for a slot, `7!` for one
/// that is moved, and a tuple in brackets.
fn spelled(operands: &[Operand]) -> String {
    let mut words = Vec::new();
    let mut each = operands.iter();
    let word = |operand: &Operand| match operand {
        Operand::Taken => "pop".to_owned(),
        Operand::Copied(slot) => slot.to_string(),
        Operand::Moved(slot) => format!("{slot}!"),
        Operand::Tuple(n) => format!("({n})"),
    };
    while let Some(operand) = each.next() {
        words.push(match operand {
            Operand::Tuple(n) => {
                let items: Vec<_> = each.by_ref().take(*n as usize).map(word).collect();
                format!("({})", items.join(" "))
            }
            other => word(other),
        });
    }
    words.join(" ")
}

/// A summary of a tuple.
fn tuple(items: &[Summary]) -> String {
    container("(", items, 1, if items.len() == 1 { ",)" } else { ")" })
}

fn text(bytes: &[u8]) -> String {
    literal::text(Str::utf8(bytes, false).expect(VERIFIED))
}

/// A summary of a container: of as many of its items as there is room for. Each entry takes `step` items: two in a dict.
fn container(open: &str, items: &[Summary], step: usize, close: &str) -> String {
    let mut out = open.to_owned();
    for (entry, left) in items.chunks_exact(step).zip((0..items.len() / step).rev()) {
        if !push(&mut out, entry, close.len() + if left > 0 { ", ...".len() } else { 0 }) {
            break;
        }
    }
    out + close
}

/// Adds an entry to a summary that has not come to its end, if `room` characters are still free behind it; else `...`.
fn push(out: &mut String, entry: &[Summary], room: usize) -> bool {
    let mut added = if out.ends_with(['(', '[', '{']) { String::new() } else { ", ".to_owned() };
    let separator = added.len();
    if let [key, _] = entry {
        added.push_str(&key.borrow());
        added.push_str(": ");
    }
    let room = WIDTH.checked_sub(out.len() + added.len() + room);
    let value = room.and_then(|room| shortened(&entry[entry.len() - 1].borrow(), room));
    match &value {
        Some(value) => added.push_str(value),
        None => added.replace_range(separator.., "..."),
    }
    out.push_str(&added);
    value.is_some()
}

/// Adds an entry to the summary of a list or dict, which the entry may hold too.
fn grow(container: &Summary, entry: &[Summary]) {
    let mut out = container.borrow().clone();
    let Some(close) = out.pop() else { unreachable!("the summary ends in a bracket") };
    if !out.ends_with("...") {
        push(&mut out, entry, ", ...".len() + 1);
    }
    out.push(close);
    container.replace(out);
}

/// A summary in at most `room` characters, if it has any of so few.
pub(crate) fn shortened(value: &str, room: usize) -> Option<String> {
    if value.len() <= room {
        return Some(value.to_owned());
    }
    let quote = value.strip_prefix('b').unwrap_or(value).chars().next().filter(|c| matches!(c, '\'' | '"'));
    let least = |rest| room.checked_sub(rest).filter(|len| *len >= 4);
    let (begin, end) = match (quote, value.find(['(', '[', '{'])) {
        (Some(quote), _) => (cut(value, least(4)?), format!("...{quote}")),
        (None, _) if value.starts_with("<code ") => ("<code ", "...>".to_owned()),
        (None, Some(open)) => (&value[..=open], format!("...{}", &value[value.len() - 1..])),
        (None, None) => (&value[..least(3)?], "...".to_owned()),
    };
    Some(begin.to_owned() + &end).filter(|short| short.len() <= room)
}

/// The beginning of a literal, without an escape that is cut in two.
fn cut(literal: &str, len: usize) -> &str {
    let begin = &literal[..len];
    match begin.rfind('\\') {
        // The longest escape is \UNNNNNNNN.
        Some(slash) if slash + 10 > len => begin[..slash].trim_end_matches('\\'),
        _ => begin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asm::assemble;
    use crate::compile::{Options, compile};
    use crate::file::{Initializer, Input};
    use crate::profile::Profile;
    use crate::python::Python;
    use crate::verify::verify;

    fn compiled(file: &[u8]) -> (Verified<'_>, &[u8]) {
        let Ok(Input::Source(source)) = Input::read(file, Python::new(13)) else { panic!("a source") };
        let initializer = compile(&source, Options { profile: Profile::Core, ..Options::default() }).unwrap();
        let header = initializer.header_bytes();
        (verify(initializer.image).unwrap(), header)
    }

    fn listed(file: &[u8]) -> String {
        let (verified, header) = compiled(file);
        disassemble(&verified, header).to_string()
    }

    /// The values of instructions, written one behind the other.
    fn values(instructions: &str) -> Vec<String> {
        let file = assemble(&format!(".python 3.15\n{}\nRETURN_VALUE", instructions.replace(", ", "\n"))).unwrap();
        let verified = verify(Initializer::read(&file).unwrap().image).unwrap();
        disassemble(&verified, &[]).rows().map(|row| row.value).collect()
    }

    fn value(instructions: &str) -> String {
        values(instructions).pop().unwrap()
    }

    #[test]
    fn the_tuple_of_issue_566_lists_in_eight_rows() {
        let file = include_bytes!("../examples/tuple_of_issue566.cpython-313.marshal");
        assert_eq!(
            listed(file),
            "\
; Initializer of Python 3.13 objects: 16 bytes of instructions, 12 of data, 10 of source; at most 5 values on the stack
.python 3.13
.module ''
.filename ''

   0  LOAD_INT           1                         ; 1  1
   2  MAKE_STRING        'a' interned              ; 2  'a'
   4  MAKE_FLOAT         37.0                      ; 3  37.0
   6  LOAD_INT           2                         ; 4  2
   8  MAKE_STRING        'foo' interned            ; 5  'foo'
  10  BUILD_TUPLE        2                         ; 4  (2, 'foo')
  12  BUILD_TUPLE        4                         ; 1  (1, 'a', 37.0, (2, 'foo'))
  14  RETURN_VALUE                                 ; 0  (1, 'a', 37.0, (2, 'foo'))

.source 00074fa9e9dae7da0000
"
        );
    }

    #[test]
    fn a_code_object_lists_its_numbers_and_tables_below_it() {
        let said = listed(include_bytes!("../examples/greeting.cpython-313.pyc"));
        let rows: Vec<_> = said.lines().skip_while(|line| !line.contains("MAKE_CODE")).take(6).collect();
        assert_eq!(
            rows,
            [
                "  34  MAKE_CODE                                    ;  5  <code greet>",
                "                         .numbers co_argcount=1 co_posonlyargcount=0 co_kwonlyargcount=0 co_stacksize=3 \
                 co_flags=3 co_firstlineno=4",
                "                         .co_code 9500530155000e00530233032400  ; table 0",
                "                         .co_localspluskinds 20",
                "                         .co_linetable 8000e00d14905490469821d00b1cd0041c  ; table 0",
                "                         .co_exceptiontable empty",
            ]
        );
    }

    #[test]
    fn operands_of_our_own_instructions_are_slots_or_popped() {
        assert_eq!(value("LOAD_INT 7, LOAD_CHAR 'a', BUILD_TUPLE_FROM 0 pop 0"), "(7, 'a', 7)");
        assert_eq!(value("MAKE_STRINGS 'ab' 'cd', BUILD_TUPLE_FROM 1 0"), "('cd', 'ab')");
    }

    #[test]
    fn shared_structure_is_never_expanded() {
        let said = listed(include_bytes!("../examples/doubled.cpython-313.marshal"));
        assert!(said.len() < 20_000, "{} bytes", said.len());
        assert!(said.lines().all(|line| line.len() < 130), "{said}");
    }

    #[test]
    fn a_listing_is_ascii() {
        let file = include_bytes!("../examples/surrogates.cpython-313.marshal");
        assert!(listed(file).is_ascii());
    }

    #[test]
    fn a_container_shows_the_items_that_there_is_room_for() {
        assert_eq!(value("LOAD_INT 1, BUILD_TUPLE 1"), "(1,)");
        assert_eq!(value("LOAD_INT 1, BUILD_LIST 1"), "[1]");
        assert_eq!(value("BUILD_SET 0"), "set()");
        assert_eq!(value("LOAD_INT 1, BUILD_SET 1"), "{1}");
        assert_eq!(value("BUILD_MAP 0"), "{}");
        assert_eq!(value("LOAD_INT 1, BUILD_TUPLE 1, CALL_INTRINSIC_1 make_frozenset"), "frozenset((1,))");
        assert_eq!(value("MAKE_FLOAT 1.0, MAKE_FLOAT -0.0, CALL_INTRINSIC_2 make_complex"), "complex(1.0, -0.0)");
        assert_eq!(value("LOAD_INT 1, COPY 1, COPY 1, BUILD_SLICE 3"), "slice(1, 1, 1)");
        assert_eq!(
            value(&format!("{}BUILD_TUPLE 99", "LOAD_INT 7, ".repeat(99))),
            "(7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, ...)"
        );
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let long = "x".repeat(60);
        assert_eq!(value(&format!("MAKE_STRING '{long}'")), format!("'{}...'", &long[..45]));
        assert_eq!(value(&format!("MAKE_STRING '{}\\x00{long}'", &long[..43])), format!("'{}...'", &long[..43]));
        assert_eq!(value(&format!("MAKE_BYTES b'{long}'")), format!("b'{}...'", &long[..44]));
        assert_eq!(value(&format!("MAKE_LONG {}", "9".repeat(60))), format!("{}...", "9".repeat(47)));
        let name = format!("LOAD_INT 1, MAKE_STRING '{long}'");
        assert_eq!(value(&format!("{name}, BUILD_TUPLE 2")), format!("(1, '{}...')", &long[..40]));
        assert_eq!(value(&format!("{name}, BUILD_MAP 1")), format!("{{1: '{}...'}}", &long[..40]));
        assert_eq!(value(&format!("{name}, LOAD_INT 2, BUILD_TUPLE 3")), format!("(1, '{}...', 2)", &long[..35]));
        let deep = format!("{}BUILD_TUPLE 99, ", "LOAD_INT 7, ".repeat(99));
        assert_eq!(value(&format!("{deep}LOAD_INT 1, BUILD_TUPLE 2")), "((...), 1)");
    }

    #[test]
    fn a_list_grows_in_every_slot_that_holds_it() {
        assert_eq!(
            values("BUILD_LIST 0, COPY 1, LOAD_INT 5, LIST_APPEND 2, COPY 2, LIST_APPEND 1"),
            ["[]", "[]", "5", "[5]", "[5]", "[5, [5]]", "[5, [5]]"]
        );
        assert_eq!(value("BUILD_MAP 0, LOAD_INT 1, LOAD_INT 2, MAP_ADD 1"), "{1: 2}");
        assert_eq!(
            value(&format!("BUILD_LIST 0{}", ", LOAD_INT 5, LIST_APPEND 1".repeat(99))),
            "[5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, ...]"
        );
    }

    #[test]
    fn json_says_what_the_text_says() {
        let file = include_bytes!("../examples/greeting.cpython-313.pyc");
        let (verified, header) = compiled(file);
        let listing = disassemble(&verified, header);
        let json = listing.json();
        assert_eq!(
            (&json["python"], &json["magic"], &json["module"]),
            (&"3.13".into(), &3571.into(), &"greeting".into())
        );
        let rows = json["instructions"].as_array().unwrap();
        assert_eq!(rows.len(), listing.rows().count());
        for (json, row) in rows.iter().zip(listing.rows()) {
            assert_eq!(json["offset"], row.offset);
            assert_eq!((json["operand"].as_str(), json["value"].as_str()), (Some(&*row.operand), Some(&*row.value)));
        }
        let code = rows.iter().find(|row| row["mnemonic"] == "MAKE_CODE").unwrap();
        assert_eq!(code["numbers"]["co_flags"], 3);
        assert_eq!(code["tables"]["co_exceptiontable"]["hex"], "");
    }
}
