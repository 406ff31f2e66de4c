//! Assembles a listing back into the file that it lists.
//!
//! ```text
//! .python 3.13
//! MAKE_STRING 'a' interned
//! MAKE_LONG   -300
//! BUILD_TUPLE 2
//! RETURN_VALUE
//! ```
//!
//! A line is a directive or an instruction; the byte offset may stand before it. What follows `;` outside a literal is for
//! people. Where an instruction says itself where its operands come from, `pop` is the top of the stack, `7` a slot, `7!` a slot
//! whose value is moved, and `(7 8!)` a tuple of MAKE_FULL_CODE's own. The numbers and tables of a code object stand below its
//! MAKE_CODE or MAKE_FULL_CODE. Before the bytes of a table, `stripped` says that caches are left out, `quickened` that they are
//! as CPython fills them, and `numbered` that MAKE_FULL_CODE numbers it. Hexadecimal of more than one line repeats its directive.
//!
//! Invariants:
//! - The binary data and the stack's greatest height follow from the instructions.
//! - What is assembled is verified.

use std::borrow::Cow;
use std::str::Chars;

use num_bigint::{BigInt, Sign};

use crate::caches;
use crate::common;
use crate::data::{FullCode, N_SLOTS, N_TUPLES};
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::isa::{
    INLINE, Instruction, Intrinsic, MAX_OPARG, MOVED, OPS, Op, Oparg, Operand, Section, Table, TextClass,
};
use crate::pyc::Header;
use crate::python::{Field, Python};
use crate::varint;
use crate::verify::verify;

/// Assembles the text of a listing into the bytes of a .pyinit.
///
/// # Errors
/// [`ErrorKind::BadListing`] with the line that does not parse, or whose instruction [`verify()`] refuses.
pub fn assemble(text: &str) -> Result<Vec<u8>> {
    let mut assembler = Assembler { line: 1, ..Assembler::default() };
    for (line, text) in (1..).zip(text.lines()) {
        assembler.line = line;
        let parsed = assembler.statement(text);
        parsed.map_err(|why| bad(assembler.line, why))?;
    }
    let closed = assembler.close_code().and_then(|()| assembler.python());
    closed.map_err(|why| bad(assembler.line, why))?;
    assembler.finish()
}

/// What a line says, or why it says nothing.
type Parsed<T = ()> = std::result::Result<T, String>;

#[cold]
fn bad(line: usize, why: impl Into<String>) -> Error {
    ErrorKind::BadListing { line, why: why.into() }.into()
}

/// The part of a word that an error shows.
#[cold]
fn said(word: &str) -> String {
    word.chars().take(40).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[derive(Default)]
struct Assembler {
    /// The line that an error is in, from 1 on.
    line: usize,
    python: Option<Python>,
    magic: Option<u16>,
    module: Option<String>,
    filename: Option<String>,
    header: Vec<u8>,
    /// The line of the header.
    header_line: usize,
    source: Vec<u8>,
    instructions: Vec<u8>,
    /// Where each instruction begins, and its line.
    starts: Vec<(usize, usize)>,
    sections: [Vec<u8>; Section::ALL.len()],
    depth: u64,
    max_depth: u64,
    /// The code object whose numbers and tables are being read.
    code: Option<CodeLines>,
}

struct CodeLines {
    line: usize,
    python: Python,
    numbers: Vec<(Field, i32)>,
    tables: Vec<(Field, Place)>,
    is_full: bool,
}

enum Place {
    /// MAKE_FULL_CODE says whether it is numbered.
    Inline {
        bytes: Vec<u8>,
        table: fn(u32) -> Table,
        is_numbered: bool,
    },
    Elsewhere(Table),
}

impl Assembler {
    fn statement(&mut self, line: &str) -> Parsed {
        let words = words(line)?;
        let has_offset = words.first().is_some_and(|word| is_decimal(word));
        match &words[usize::from(has_offset)..] {
            [] if has_offset => Err("an offset without an instruction".to_owned()),
            [] => Ok(()),
            [word, rest @ ..] => match word.strip_prefix('.') {
                Some(directive) => self.directive(directive, rest),
                None => self.instruction(word, rest),
            },
        }
    }

    /// The Python whose code objects these are.
    fn python(&self) -> Parsed<Python> {
        match (self.python, self.magic) {
            (None, None) => Err("no .python or .magic stands above the instructions".to_owned()),
            (Some(python), None) => Ok(python),
            (stated, Some(magic)) => match Python::from_magic(magic) {
                Ok(python) if stated.is_none_or(|stated| stated == python) => Ok(python),
                Ok(python) => Err(format!("magic number {magic} is of Python {python}, not of the one stated")),
                Err(error) => Err(error.kind().to_string()),
            },
        }
    }

    fn directive(&mut self, directive: &str, rest: &[&str]) -> Parsed {
        if matches!(directive, "python" | "magic") && !self.starts.is_empty() {
            return Err(format!(".{directive} must stand above the instructions"));
        }
        let is_first = match (directive, rest) {
            ("python", [operand]) => {
                let python = operand.parse().map_err(|error: Error| error.to_string())?;
                let is_first = self.python.replace(python).is_none();
                self.python()?;
                is_first
            }
            ("magic", [operand]) => {
                let magic = number(operand)?.try_into().map_err(|_| out_of_range(operand))?;
                let is_first = self.magic.replace(magic).is_none();
                self.python()?;
                is_first
            }
            ("module", [operand]) => self.module.replace(name(operand)?).is_none(),
            ("filename", [operand]) => self.filename.replace(name(operand)?).is_none(),
            ("header", [operand]) => {
                self.header_line = self.line;
                return hex(operand, &mut self.header);
            }
            ("source", [operand]) => return hex(operand, &mut self.source),
            ("python" | "magic" | "module" | "filename" | "header" | "source", _) => {
                return Err(format!(".{directive} takes one operand"));
            }
            _ => return self.code_directive(directive, rest),
        };
        if is_first { Ok(()) } else { Err(format!(".{directive} stands twice")) }
    }

    fn code_directive(&mut self, directive: &str, rest: &[&str]) -> Parsed {
        let Some(code) = &mut self.code else {
            return Err(format!("unknown directive .{}, or no MAKE_CODE stands above it", said(directive)));
        };
        if directive == "numbers" {
            return rest.iter().try_for_each(|word| code.number(word));
        }
        let field = code.python.layout().tables.iter().find(|field| field.name() == directive);
        let Some(field) = field else {
            return Err(format!("unknown directive .{} in a code object of Python {}", said(directive), code.python));
        };
        code.table(*field, rest)
    }

    fn instruction(&mut self, mnemonic: &str, rest: &[&str]) -> Parsed {
        self.close_code()?;
        let python = self.python()?;
        let op = OPS.iter().find(|op| op.info().mnemonic == mnemonic);
        let op = *op.ok_or_else(|| format!("unknown mnemonic {}", said(mnemonic)))?;
        let mut operands = Vec::new();
        let instruction = self.operand(op, rest, python, &mut operands)?;
        let needed = instruction.pops(&operands);
        let Some(left) = self.depth.checked_sub(needed) else {
            return Err(format!("{mnemonic} needs {needed} values and the stack holds {}", self.depth));
        };
        self.depth = left + instruction.pushes();
        self.max_depth = self.max_depth.max(self.depth);
        if matches!(op, Op::MakeCode | Op::MakeFullCode) {
            let (numbers, tables, is_full) = (Vec::new(), Vec::new(), op == Op::MakeFullCode);
            self.code = Some(CodeLines { line: self.line, python, numbers, tables, is_full });
        }
        self.starts.push((self.instructions.len(), self.line));
        instruction.encode(&mut self.instructions);
        Ok(())
    }

    /// The instruction with this operand. Its data goes to its section; `operands` say where its operands come from, if
    /// it says so itself.
    fn operand(&mut self, op: Op, rest: &[&str], python: Python, operands: &mut Vec<Operand>) -> Parsed<Instruction> {
        let mnemonic = op.info().mnemonic;
        let one = || match rest {
            [operand] => Ok(*operand),
            [] => Err(format!("{mnemonic} needs an operand")),
            _ => Err(format!("{mnemonic} takes one operand")),
        };
        let unknown = |what: &str, operand: &str| format!("{} is no {what}", said(operand));
        let oparg = match op.info().oparg {
            Oparg::Unused if op == Op::MakeFloat => {
                self.sections[Section::Numbers as usize].extend(float(one()?)?.to_le_bytes());
                0
            }
            Oparg::Unused if rest.is_empty() => 0,
            Oparg::Unused => return Err(format!("{mnemonic} takes no operand")),
            Oparg::High => return Err(format!("{mnemonic} is part of the operand behind it")),
            Oparg::Int | Oparg::Slot | Oparg::Depth | Oparg::Count | Oparg::Pairs => number(one()?)?,
            Oparg::Char => match text(one()?)?.as_slice() {
                [byte @ ..0x80] => u32::from(*byte),
                [high @ 0xc2..=0xc3, low] => u32::from(high & 3) << 6 | u32::from(low & 0x3f),
                _ => return Err(format!("{mnemonic} takes one character up to U+00FF")),
            },
            Oparg::Strings => {
                for word in rest {
                    let text = text(word)?;
                    varint::write(&mut self.sections[Section::Counts as usize], small(text.len())?);
                    if op.has_hashes() {
                        self.sections[Section::Hashes as usize].extend(common::name_hash(&text).to_le_bytes());
                    }
                    self.sections[op.texts() as usize].extend_from_slice(&text);
                }
                small(rest.len())?
            }
            Oparg::Mask => {
                *operands = rest.iter().map(|word| taken_or_copied(word)).collect::<Parsed<_>>()?;
                let n = python.layout().operands.len();
                if !rest.is_empty() && rest.len() != n {
                    return Err(format!("{mnemonic} takes a slot or pop for each operand"));
                }
                operands.resize(n, Operand::Taken);
                let references = &mut self.sections[Section::References as usize];
                operands.iter().enumerate().fold(0, |mask, (at, operand)| match operand.slot() {
                    Some(slot) => {
                        varint::write(references, slot);
                        mask | 1 << at
                    }
                    None => mask,
                })
            }
            Oparg::References => {
                *operands = rest.iter().map(|word| taken_or_copied(word)).collect::<Parsed<_>>()?;
                for operand in operands.iter().rev() {
                    let number = operand.slot().map_or(0, |slot| slot + 1);
                    varint::write(&mut self.sections[Section::References as usize], number);
                }
                small(rest.len())?
            }
            Oparg::NearReferences => {
                self.near(mnemonic, rest, operands)?;
                small(rest.len())?
            }
            Oparg::Slots => {
                self.slots(mnemonic, rest, operands)?;
                0
            }
            Oparg::CommonConst => {
                let operand = one()?;
                let constant = common::CONSTS.iter().find(|(_, spelled)| *spelled == operand);
                constant.ok_or_else(|| unknown("common constant", operand))?.0.operand()
            }
            Oparg::CommonName => {
                let operand = one()?;
                common::name_operand(&text(operand)?).ok_or_else(|| unknown("common name", operand))?
            }
            Oparg::Commons => {
                return Err(format!(
                    "{mnemonic} takes values from the table of a bundle, and no file has one that is assembled"
                ));
            }
            Oparg::Intrinsic => {
                let operand = one()?;
                let intrinsic = Intrinsic::ALL.into_iter().find(|intrinsic| intrinsic.name() == operand);
                intrinsic.ok_or_else(|| unknown("intrinsic", operand))?.operand()
            }
            Oparg::Length(Section::Bytes) => return self.take(op, &bytes(one()?)?),
            Oparg::Length(Section::Numbers) => return self.take(op, &int(one()?)?.to_signed_bytes_le()),
            Oparg::Length(_) => {
                let (literal, interned) = match rest {
                    [literal] => (literal, false),
                    [literal, "interned"] => (literal, true),
                    _ => return Err(format!("{mnemonic} takes a literal, and interned or nothing")),
                };
                let text = text(literal)?;
                let class = TextClass { wide: !text.is_ascii(), interned };
                let op = OPS.iter().find(|op| op.info().text == Some(class)).expect("each class has its opcode");
                return self.take(*op, &text);
            }
        };
        Ok(Instruction { op, oparg })
    }

    /// References of two bytes.
    fn near(&mut self, mnemonic: &str, words: &[&str], operands: &mut Vec<Operand>) -> Parsed {
        for word in words {
            let (digits, is_moved) = word.strip_suffix('!').map_or((*word, false), |digits| (digits, true));
            let slot = table_number(digits)?;
            let near = u16::try_from(slot).ok().filter(|slot| slot & MOVED == 0);
            let near = near.ok_or_else(|| format!("{mnemonic} reaches slots below {MOVED}"))?;
            operands.push(if is_moved { Operand::Moved(slot) } else { Operand::Copied(slot) });
            let reference = if is_moved { near | MOVED } else { near };
            self.sections[Section::References as usize].extend(reference.to_le_bytes());
        }
        Ok(())
    }

    /// The operands of MAKE_FULL_CODE: slots, and tuples in brackets.
    fn slots(&mut self, mnemonic: &str, words: &[&str], operands: &mut Vec<Operand>) -> Parsed {
        let mut heads = Vec::new();
        let mut tuples = Vec::new();
        let mut rest = words;
        while let [word, after @ ..] = rest {
            let Some(first) = word.strip_prefix('(') else {
                let slot = table_number(word)?;
                let limit = if heads.len() < N_TUPLES { INLINE.into() } else { 1 << u16::BITS };
                let head = u16::try_from(slot).ok().filter(|_| slot < limit);
                heads.push((head.ok_or_else(|| format!("{mnemonic} reaches slots below {limit}"))?, Some(slot)));
                rest = after;
                continue;
            };
            let end = rest.iter().position(|word| word.ends_with(')'));
            let Some(end) = end.filter(|_| heads.len() < N_TUPLES) else {
                return Err(format!("{mnemonic} takes up to {N_TUPLES} tuples first, each in brackets"));
            };
            let mut items = rest[..=end].to_vec();
            items[0] = first;
            items[end] = items[end].strip_suffix(')').unwrap_or_default();
            items.retain(|word| !word.is_empty());
            let n = u16::try_from(items.len()).ok().filter(|n| n & INLINE == 0).ok_or("too many items")?;
            heads.push((n | INLINE, None));
            tuples.push(items);
            rest = &rest[end + 1..];
        }
        if heads.len() != N_SLOTS {
            return Err(format!("{mnemonic} takes {N_SLOTS} operands, each a slot or a tuple in brackets"));
        }
        for (head, _) in &heads {
            self.sections[Section::References as usize].extend(head.to_le_bytes());
        }
        let mut tuples = tuples.into_iter();
        for (head, slot) in heads {
            match slot {
                Some(slot) => operands.push(Operand::Copied(slot)),
                None => {
                    operands.push(Operand::Tuple(u32::from(head & !INLINE)));
                    self.near(mnemonic, &tuples.next().unwrap_or_default(), operands)?;
                }
            }
        }
        Ok(())
    }

    /// The instruction that takes these bytes.
    fn take(&mut self, op: Op, bytes: &[u8]) -> Parsed<Instruction> {
        let Oparg::Length(section) = op.info().oparg else { unreachable!("its oparg is the length of its data") };
        let oparg = u32::try_from(bytes.len()).ok().filter(|len| *len <= MAX_OPARG);
        self.sections[section as usize].extend_from_slice(bytes);
        Ok(Instruction { op, oparg: oparg.ok_or("the literal is too long")? })
    }

    /// Writes the numbers and tables of the last MAKE_CODE, in the order of its version.
    fn close_code(&mut self) -> Parsed {
        let Some(code) = self.code.take() else { return Ok(()) };
        self.line = code.line;
        let layout = code.python.layout();
        let missing = |field: &Field| format!("MAKE_CODE lacks {}", field.name());
        let mut numbers = Vec::new();
        for field in &layout.numbers {
            let number = code.numbers.iter().find(|(stated, _)| stated == field);
            numbers.push(number.ok_or_else(|| missing(field))?.1);
        }
        if !code.is_full {
            let counts = &mut self.sections[Section::Counts as usize];
            numbers.iter().for_each(|number| varint::write(counts, number.cast_unsigned()));
        }
        let mut tables = Vec::new();
        for field in &layout.tables {
            let place = code.tables.iter().find(|(stated, _)| stated == field);
            let (_, place) = place.ok_or_else(|| missing(field))?;
            let (table, is_numbered) = match place {
                Place::Elsewhere(table) => (*table, false),
                Place::Inline { bytes, table, is_numbered } => {
                    self.sections[Section::of_table(*field) as usize].extend_from_slice(bytes);
                    (table(small(bytes.len())?), *is_numbered)
                }
            };
            let has_caches = *field == Field::Code && caches::has_caches(code.python);
            match table {
                Table::Stripped(_) | Table::Quickened(_) if !has_caches => {
                    return Err(format!("{} of Python {} has no caches", field.name(), code.python));
                }
                Table::Inline(_) if has_caches && code.is_full => {
                    return Err(format!("{} of MAKE_FULL_CODE is stripped or quickened", field.name()));
                }
                Table::Quickened(_) if !code.is_full => {
                    return Err(format!("{} of MAKE_CODE is not quickened", field.name()));
                }
                _ if is_numbered && !code.is_full => {
                    return Err(format!("{} of MAKE_CODE has a number if it is longer than a byte", field.name()));
                }
                _ => {}
            }
            if code.is_full && matches!(place, Place::Inline { bytes, .. } if bytes.len() > FullCode::MAX_TABLE) {
                return Err(format!("{} is too long for MAKE_FULL_CODE", field.name()));
            }
            match code.is_full {
                true => tables.push(table.full_number(is_numbered)),
                false => varint::write(&mut self.sections[Section::Counts as usize], table.number(has_caches)),
            }
        }
        if code.is_full {
            self.full_code(numbers, tables)?;
        }
        Ok(())
    }

    /// What MAKE_FULL_CODE takes from the counts.
    fn full_code(&mut self, numbers: Vec<i32>, tables: Vec<u32>) -> Parsed {
        let (Ok(numbers), Ok(tables)) = (numbers.try_into(), tables.try_into()) else {
            return Err("this Python has no MAKE_FULL_CODE".to_owned());
        };
        let too_large = || "MAKE_FULL_CODE has room for numbers of 16 bits, from 0 on".to_owned();
        let (small, large) = FullCode::of_numbers(numbers).ok_or_else(too_large)?;
        FullCode { small, large, tables }.write(&mut self.sections[Section::Counts as usize]);
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>> {
        let magic = self.magic.or(self.python.map(Python::magic)).expect("the caller asked for the version");
        if !self.header.is_empty() {
            let refused = |why| bad(self.header_line, why);
            let no_header = |_| refused(format!("these {} bytes are no header of a .pyc", self.header.len()));
            let header = Header::exact(&self.header).map_err(no_header)?;
            if header.magic() != magic {
                return Err(refused(format!("the header's magic number is {}, not {magic}", header.magic())));
            }
        }
        if self.instructions.len() > MAX_OPARG as usize {
            return Err(ErrorKind::TooLarge.into());
        }
        let image = Image {
            magic,
            max_stack: u32::try_from(self.max_depth).map_err(|_| ErrorKind::TooLarge)?,
            module: Cow::Owned(self.module.unwrap_or_default()),
            filename: Cow::Owned(self.filename.unwrap_or_default()),
            instructions: Cow::Owned(self.instructions),
            sections: self.sections.map(Cow::Owned),
            source: Some(self.source).filter(|source| !source.is_empty()).map(Cow::Owned),
        };
        let verified = verify(image).map_err(|error| in_line(error, &self.starts))?;
        let mut file = self.header;
        verified.image().encode(&mut file)?;
        Ok(file)
    }
}

/// What the verifier said, with the line of the instruction.
#[cold]
fn in_line(error: Error, starts: &[(usize, usize)]) -> Error {
    let Some(position) = error.position().filter(|_| error.path() == "the instructions") else { return error };
    let upto = starts.partition_point(|(start, _)| *start <= position);
    let line = starts[..upto].last().map_or(1, |(_, line)| *line);
    bad(line, error.kind().to_string())
}

impl CodeLines {
    /// `co_flags=3`
    fn number(&mut self, word: &str) -> Parsed {
        let (name, number) = word.split_once('=').ok_or_else(|| format!("{} is no NAME=NUMBER", said(word)))?;
        let field = self.python.layout().numbers.iter().find(|field| field.name() == name);
        let unknown = || format!("code objects of Python {} have no number {}", self.python, said(name));
        let field = *field.ok_or_else(unknown)?;
        let number = number.parse().map_err(|_| format!("{} is no signed 32-bit number", said(number)))?;
        if self.numbers.iter().any(|(stated, _)| *stated == field) {
            return Err(format!("{name} stands twice"));
        }
        self.numbers.push((field, number));
        Ok(())
    }

    /// `table 12`, `slot 5`; or `stripped`, `quickened` or neither, `numbered` or not, and `empty` or hexadecimal, which
    /// can go on.
    fn table(&mut self, field: Field, rest: &[&str]) -> Parsed {
        let (table, words): (fn(u32) -> Table, _) = match rest {
            ["stripped", words @ ..] => (Table::Stripped, words),
            ["quickened", words @ ..] => (Table::Quickened, words),
            words => (Table::Inline, words),
        };
        let (is_numbered, words) = match words {
            ["numbered", words @ ..] => (true, words),
            words => (false, words),
        };
        let place = match (words, rest) {
            (_, ["table", at]) => Place::Elsewhere(Table::Earlier(table_number(at)?)),
            (_, ["slot", at]) => Place::Elsewhere(Table::Slot(table_number(at)?)),
            ([digits], _) if *digits != "table" && *digits != "slot" => {
                let stated = self.tables.iter_mut().find(|(stated, _)| *stated == field);
                if let (Some((_, Place::Inline { bytes, .. })), [digits]) = (stated, rest)
                    && !bytes.is_empty()
                    && *digits != "empty"
                {
                    return hex(digits, bytes);
                }
                let mut bytes = Vec::new();
                if *digits != "empty" {
                    hex(digits, &mut bytes)?;
                }
                Place::Inline { bytes, table, is_numbered }
            }
            _ => return Err(format!(".{} takes hexadecimal, empty, table N or slot N", field.name())),
        };
        if self.tables.iter().any(|(stated, _)| *stated == field) {
            return Err(format!(".{} stands twice", field.name()));
        }
        self.tables.push((field, place));
        Ok(())
    }
}

/// The words of a line, literals whole, up to `;`.
fn words(line: &str) -> Parsed<Vec<&str>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with(';') {
        let len = match literal_len(rest)? {
            Some(len) => len,
            None => rest.find(|c: char| c.is_whitespace() || c == ';').unwrap_or(rest.len()),
        };
        words.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    Ok(words)
}

/// The bytes of the literal that stands at the beginning, if one does.
fn literal_len(rest: &str) -> Parsed<Option<usize>> {
    let body = rest.strip_prefix('b').unwrap_or(rest);
    let Some(quote @ ('\'' | '"')) = body.chars().next() else { return Ok(None) };
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        if c == quote && !escaped {
            return Ok(Some(rest.len() - body.len() + at + 1));
        }
        escaped = c == '\\' && !escaped;
    }
    Err(format!("the literal {} does not close", said(rest)))
}

fn is_decimal(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

#[cold]
fn out_of_range(word: &str) -> String {
    format!("{} is out of range", said(word))
}

fn number(word: &str) -> Parsed<u32> {
    if !is_decimal(word) {
        return Err(format!("{} is no number", said(word)));
    }
    word.parse().map_err(|_| out_of_range(word))
}

/// `pop`, or a slot.
fn taken_or_copied(word: &str) -> Parsed<Operand> {
    if word == "pop" { Ok(Operand::Taken) } else { table_number(word).map(Operand::Copied) }
}

/// A length that an oparg has room for.
fn small(len: usize) -> Parsed<u32> {
    u32::try_from(len).ok().filter(|len| *len <= MAX_OPARG).ok_or_else(|| "too long".to_owned())
}

/// A number that [`Table`] has room for.
fn table_number(word: &str) -> Parsed<u32> {
    number(word).and_then(|number| if number < 1 << 30 { Ok(number) } else { Err(out_of_range(word)) })
}

/// Appends the bytes that hexadecimal digits say.
fn hex(word: &str, out: &mut Vec<u8>) -> Parsed {
    let digits = word.chars().map(|c| c.to_digit(16)).collect::<Option<Vec<_>>>();
    let digits = digits.ok_or_else(|| format!("{} is not hexadecimal", said(word)))?;
    let (bytes, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(format!("{} digits of hexadecimal: a byte takes two", digits.len()));
    }
    out.extend(bytes.iter().map(|[high, low]| (high << 4 | low) as u8));
    Ok(())
}

/// The text of a directive: a str without surrogates.
fn name(word: &str) -> Parsed<String> {
    String::from_utf8(text(word)?).map_err(|_| "a name cannot hold surrogates".to_owned())
}

/// A str literal, in UTF-8 with surrogates.
fn text(word: &str) -> Parsed<Vec<u8>> {
    let Some(body) = unquoted(word) else { return Err(format!("{} is no str literal", said(word))) };
    let mut utf8 = Vec::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(point) = code_point(&mut chars, true)? {
        match char::from_u32(point) {
            Some(c) => utf8.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            None => {
                utf8.extend([0xe0 | point >> 12, 0x80 | point >> 6 & 0x3f, 0x80 | point & 0x3f].map(|byte| byte as u8))
            }
        }
    }
    Ok(utf8)
}

fn bytes(word: &str) -> Parsed<Vec<u8>> {
    let body = word.strip_prefix('b').and_then(unquoted);
    let Some(body) = body else { return Err(format!("{} is no bytes literal", said(word))) };
    let mut bytes = Vec::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(point) = code_point(&mut chars, false)? {
        bytes.push(u8::try_from(point).expect("bytes have no wide escapes"));
    }
    Ok(bytes)
}

fn unquoted(word: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| word.strip_prefix(quote)?.strip_suffix(quote))
}

/// The next character of a literal, surrogates included.
fn code_point(chars: &mut Chars<'_>, is_text: bool) -> Parsed<Option<u32>> {
    let n_digits = match chars.next() {
        None => return Ok(None),
        Some('\\') => match chars.next() {
            Some(c @ ('\\' | '\'' | '"')) => return Ok(Some(u32::from(c))),
            Some('n') => return Ok(Some(0x0a)),
            Some('r') => return Ok(Some(0x0d)),
            Some('t') => return Ok(Some(0x09)),
            Some('x') => 2,
            Some('u') if is_text => 4,
            Some('U') if is_text => 8,
            c => {
                return Err(format!(
                    "unknown escape \\{}",
                    c.map_or_else(String::new, |c| c.escape_debug().to_string())
                ));
            }
        },
        Some(c) if is_text || c.is_ascii() => return Ok(Some(u32::from(c))),
        Some(c) => return Err(format!("a bytes literal holds {c:?}")),
    };
    let digits = chars.as_str().get(..n_digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let digits = digits.ok_or_else(|| format!("the escape needs {n_digits} digits of hexadecimal"))?;
    *chars = chars.as_str()[n_digits..].chars();
    match u32::from_str_radix(digits, 16) {
        Ok(point @ ..=0x10_ffff) => Ok(Some(point)),
        _ => Err(format!("{digits} is no character")),
    }
}

/// The bits of a float.
fn float(word: &str) -> Parsed<u64> {
    let bad = || format!("{} is no float", said(word));
    if let Some(digits) = word.strip_prefix("nan:") {
        let bits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let bits = bits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        return bits.filter(|bits| f64::from_bits(*bits).is_nan()).ok_or_else(|| format!("{} is no NaN", said(word)));
    }
    let is_infinite = matches!(word, "inf" | "-inf");
    // Rust reads more words than these.
    if !is_infinite && word.contains(|c: char| !matches!(c, '0'..='9' | '.' | 'e' | '+' | '-')) {
        return Err(bad());
    }
    match word.parse::<f64>() {
        Ok(value) if value.is_infinite() != is_infinite => Err(out_of_range(word)),
        Ok(value) => Ok(value.to_bits()),
        Err(_) => Err(bad()),
    }
}

/// Most decimal digits that are read: more than a listing has. The time grows with the square.
const MAX_DIGITS: usize = 5000;

fn int(word: &str) -> Parsed<BigInt> {
    let (sign, magnitude) = match word.strip_prefix('-') {
        Some(magnitude) => (Sign::Minus, magnitude),
        None => (Sign::Plus, word),
    };
    let (digits, radix) = match magnitude.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (magnitude, 10),
    };
    if radix == 10 && digits.len() > MAX_DIGITS {
        return Err(format!("an int of more than {MAX_DIGITS} digits must stand in hexadecimal"));
    }
    // Among digits, num-bigint reads underscores and a sign too.
    let parsed =
        if digits.chars().all(|c| c.is_digit(radix)) { BigInt::parse_bytes(digits.as_bytes(), radix) } else { None };
    let magnitude = parsed.ok_or_else(|| format!("{} is no int", said(word)))?;
    Ok(if sign == Sign::Minus { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use std::ops::Add;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::compile::{Options, compile};
    use crate::file::{Initializer, Input};
    use crate::key::Sharing;
    use crate::listing::disassemble;
    use crate::profile::Profile;

    fn examples() -> Vec<PathBuf> {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
        let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.to_str().unwrap().contains(".cpython-3")).collect();
        files.sort();
        files
    }

    /// `greeting.cpython-313.pyc` is of Python 3.13.
    fn python_of(path: &Path) -> Option<Python> {
        let (_, minor) = path.file_stem().unwrap().to_str().unwrap().split_once(".cpython-3").unwrap();
        Python::new(minor.parse().unwrap())
    }

    /// The listing of a file, compiled if need be.
    fn listed(file: &[u8]) -> String {
        let initializer = match Input::read(file, Python::new(13)).unwrap() {
            Input::Source(source) => compile(&source, Options::default()).unwrap(),
            Input::Initializer(initializer) => initializer,
            Input::Lazy(_) => unreachable!("the examples have none"),
        };
        let header = initializer.header_bytes();
        disassemble(&verify(initializer.image).unwrap(), header).to_string()
    }

    #[test]
    fn every_listing_assembles_to_the_identical_file() {
        let ways = [
            (Sharing::Structural, Profile::Compact),
            (Sharing::Identity, Profile::Compact),
            (Sharing::None, Profile::Compact),
            (Sharing::Structural, Profile::Core),
            (Sharing::Structural, Profile::Load),
        ];
        for (sharing, profile) in ways {
            let mut refused = Vec::new();
            for path in examples() {
                let file = std::fs::read(&path).unwrap();
                let Ok(Input::Source(source)) = Input::read(&file, python_of(&path)) else {
                    panic!("{}", path.display())
                };
                let Ok(initializer) = compile(&source, Options { sharing, profile, ..Options::default() }) else {
                    refused.push(path.file_name().unwrap().to_str().unwrap().replace(".cpython-313.marshal", ""));
                    continue;
                };
                let file = initializer.encode().unwrap();
                let text = listed(&file);
                assert!(assemble(&text).as_deref() == Ok(&*file), "{}, {sharing:?}", path.display());
            }
            let expected = match sharing {
                Sharing::None => &["doubled", "set_in_tuple_crash", "tuple_in_itself"][..],
                Sharing::Structural | Sharing::Identity => &["set_in_tuple_crash", "tuple_in_itself"],
            };
            assert_eq!(refused, expected, "{sharing:?}");
        }
    }

    #[test]
    fn a_listing_by_hand_needs_neither_offsets_nor_comments() {
        let file = assemble(
            r#"
            .magic 3570  ; a pre-release of 3.13
            MAKE_STRING "it's; \u20ac"interned; 'not closed
            0007 MAKE_STRING 'é\ud83d\U0001f600\\'
            MAKE_BYTES b'\x00;"\xff'
            MAKE_LONG -0x10000
            MAKE_LONG -0
            MAKE_FLOAT 1e16
            MAKE_FLOAT -inf
            MAKE_FLOAT nan:fff8000000000001
            LOAD_COMMON_CONST ''
            LOAD_COMMON_NAME 'join'
            BUILD_TUPLE 300
            RETURN_VALUE"#
                .replace("BUILD_TUPLE 300", &"LOAD_FAST 0\n".repeat(290).add("BUILD_TUPLE 300"))
                .as_str(),
        )
        .unwrap();
        let image = Initializer::read(&file).unwrap().image;
        assert_eq!((image.magic, image.max_stack), (3570, 300));
        let verified = verify(image).unwrap();
        let rows: Vec<_> = disassemble(&verified, &[]).rows().collect();
        assert_eq!(
            rows[..10].iter().map(|row| &*row.operand).collect::<Vec<_>>(),
            [
                r#""it's; \u20ac" interned"#,
                r"'\xe9\ud83d\U0001f600\\'",
                r#"b'\x00;"\xff'"#,
                "-65536",
                "0",
                "1e+16",
                "-inf",
                "nan:fff8000000000001",
                "''",
                "'join'"
            ]
        );
        assert_eq!((rows[300].offset, &*rows[300].operand, rows[301].offset), (600, "300", 604));
    }

    #[test]
    fn bytes_of_a_code_object_go_on_where_their_directive_stands_again() {
        let text = listed(include_bytes!("../examples/greeting.cpython-313.pyc"));
        let one = text.find(".co_code stripped ").unwrap() + ".co_code stripped ".len();
        let split = [&text[..one + 4], "\n.co_code ", &text[one + 4..]].concat();
        assert_eq!(assemble(&split), assemble(&text));
        let cut = [&text[..one + 4], "\n", &text[one + 4..]].concat();
        assert!(assemble(&cut).is_err());
    }

    #[test]
    fn a_code_object_lacks_none_of_its_fields() {
        let text = listed(include_bytes!("../examples/greeting.cpython-313.pyc"));
        let line = text.lines().position(|line| line.contains("MAKE_CODE")).unwrap() + 1;
        let with = |from: &str, to: &str| said(&text.replacen(from, to, 1));
        assert_eq!(with("co_flags=3 ", ""), format!("line {line}: MAKE_CODE lacks co_flags"));
        assert_eq!(with(".co_exceptiontable empty", ""), format!("line {line}: MAKE_CODE lacks co_exceptiontable"));
        let line = line + 1;
        assert_eq!(with("co_flags=3", "co_flags=x"), format!("line {line}: x is no signed 32-bit number"));
        assert_eq!(with("co_flags=3", "co_flags"), format!("line {line}: co_flags is no NAME=NUMBER"));
        assert_eq!(with("co_flags=3", "co_stacksize=3"), format!("line {line}: co_stacksize stands twice"));
        assert_eq!(
            with("co_flags=3", "co_nlocals=3"),
            format!("line {line}: code objects of Python 3.13 have no number co_nlocals")
        );
        let line = line + 4;
        for (table, why) in [
            ("table 1073741824", "1073741824 is out of range"),
            ("table", ".co_exceptiontable takes hexadecimal, empty, table N or slot N"),
            ("slot x", "x is no number"),
        ] {
            assert_eq!(
                with(".co_exceptiontable empty", &format!(".co_exceptiontable {table}")),
                format!("line {line}: {why}")
            );
        }
    }

    /// The reason of the first error.
    fn said(text: &str) -> String {
        assemble(text).map_or_else(|error| error.to_string(), |_| "nothing".to_owned())
    }

    /// The same of one instruction, on line 2.
    fn said_of(line: &str) -> String {
        said(&format!(".python 3.13\n{line}\nLOAD_INT 1\nRETURN_VALUE\n"))
    }

    #[test]
    fn an_error_names_the_line_and_the_reason() {
        for (line, why) in [
            ("FLY 3", "unknown mnemonic FLY"),
            ("EXTENDED_ARG 1", "EXTENDED_ARG is part of the operand behind it"),
            ("LOAD_INT", "LOAD_INT needs an operand"),
            ("LOAD_INT 1 2", "LOAD_INT takes one operand"),
            ("LOAD_INT one", "one is no number"),
            ("LOAD_INT 256", "LOAD_INT 256: the operand is out of range"),
            ("LOAD_INT 99999999999", "99999999999 is out of range"),
            ("LOAD_FAST 0", "LOAD_FAST needs 1 values and the stack holds 0"),
            ("COPY 0", "COPY 0: a distance begins at 1"),
            ("BUILD_TUPLE_NEAR 0", "BUILD_TUPLE_NEAR needs 1 values and the stack holds 0"),
            ("BUILD_TUPLE_NEAR pop", "pop is no number"),
            ("BUILD_TUPLE_NEAR 32768!", "BUILD_TUPLE_NEAR reaches slots below 32768"),
            ("BUILD_TUPLE_FROM 0!", "0! is no number"),
            ("MAKE_FULL_CODE", "MAKE_FULL_CODE takes 6 operands, each a slot or a tuple in brackets"),
            ("MAKE_FULL_CODE 0 0 0 0 0 0 0", "MAKE_FULL_CODE takes 6 operands, each a slot or a tuple in brackets"),
            ("MAKE_FULL_CODE (0 1", "MAKE_FULL_CODE takes up to 3 tuples first, each in brackets"),
            ("MAKE_FULL_CODE 0 0 0 (0) 0 0", "MAKE_FULL_CODE takes up to 3 tuples first, each in brackets"),
            ("BUILD_TUPLE 2", "BUILD_TUPLE needs 2 values and the stack holds 0"),
            ("LOAD_COMMON_CONST Nothing", "Nothing is no common constant"),
            ("LOAD_COMMON_NAME join", "join is no str literal"),
            ("LOAD_COMMON_NAME 'rehydrate'", "'rehydrate' is no common name"),
            ("CALL_INTRINSIC_1 fly", "fly is no intrinsic"),
            ("CALL_INTRINSIC_1 make_frozenset", "CALL_INTRINSIC_1 needs 1 values and the stack holds 0"),
            ("RETURN_VALUE 1", "RETURN_VALUE takes no operand"),
            ("MAKE_STRING 'abc", "the literal 'abc does not close"),
            (r"MAKE_STRING 'abc\'", r"the literal 'abc\' does not close"),
            ("MAKE_STRING 'a' twice", "MAKE_STRING takes a literal, and interned or nothing"),
            (r"MAKE_STRING '\q'", r"unknown escape \q"),
            (r"MAKE_STRING '\x4'", "the escape needs 2 digits of hexadecimal"),
            (r"MAKE_STRING '\U00110000'", "00110000 is no character"),
            ("MAKE_BYTES 'a'", "'a' is no bytes literal"),
            ("MAKE_BYTES b'é'", "a bytes literal holds 'é'"),
            (r"MAKE_BYTES b'\u0041'", r"unknown escape \u"),
            ("MAKE_FLOAT 1e999", "1e999 is out of range"),
            ("MAKE_FLOAT infinity", "infinity is no float"),
            ("MAKE_FLOAT nan:1", "nan:1 is no NaN"),
            ("MAKE_LONG 1_0", "1_0 is no int"),
            ("MAKE_LONG --1", "--1 is no int"),
            ("MAKE_LONG", "MAKE_LONG needs an operand"),
            ("12", "an offset without an instruction"),
            (".python 3.13", ".python stands twice"),
            (".python", ".python takes one operand"),
            (".magic 3495", "magic number 3495 is of Python 3.11, not of the one stated"),
            (".source 123", "3 digits of hexadecimal: a byte takes two"),
            (".source 1g", "1g is not hexadecimal"),
            (".header 00", "these 1 bytes are no header of a .pyc"),
            (".header a70d0d0a000000000000000000000000", "the header's magic number is 3495, not 3571"),
            ("MAKE_NAMES", "MAKE_NAMES 0: the operand is out of range"),
            (".co_code 00", "unknown directive .co_code, or no MAKE_CODE stands above it"),
            (r".module '\ud800'", "a name cannot hold surrogates"),
        ] {
            assert_eq!(said_of(line), format!("line 2: {why}"), "{line}");
        }
        let digits = "1".repeat(5001);
        assert_eq!(
            said_of(&format!("MAKE_LONG {digits}")),
            "line 2: an int of more than 5000 digits must stand in hexadecimal"
        );
        assert_eq!(said(""), "line 1: no .python or .magic stands above the instructions");
        assert_eq!(said("LOAD_INT 1"), "line 1: no .python or .magic stands above the instructions");
        assert_eq!(said(".python 3.13\nLOAD_INT 1\n"), "line 2: the instructions end without RETURN_VALUE");
        assert_eq!(said(".python 3.13\nLOAD_INT 1\nRETURN_VALUE\nLOAD_INT 1\n"), "line 4: instructions follow the end");
        assert_eq!(said(".python 3.13\nLOAD_INT 1\n.magic 3571"), "line 3: .magic must stand above the instructions");
    }

    #[test]
    fn what_a_loader_relies_on_is_verified() {
        let greeting = include_bytes!("../examples/greeting.cpython-313.pyc");
        let Input::Source(source) = Input::read(greeting, None).unwrap() else { unreachable!("it is a .pyc") };
        let initializer = compile(&source, Options { profile: Profile::Load, ..Options::default() }).unwrap();
        assert_eq!(
            said(".python 3.10\nMAKE_FULL_CODE () () () 0 0 0\nRETURN_VALUE"),
            "line 2: MAKE_CODE lacks co_argcount"
        );
        let listing = disassemble(&verify(initializer.image.clone()).unwrap(), initializer.header_bytes()).to_string();
        assert_eq!(assemble(&listing).unwrap(), initializer.encode().unwrap());
        let changed = |from: &str, to: &str| {
            assert!(listing.contains(from), "{listing}");
            let error = assemble(&listing.replacen(from, to, 1)).unwrap_err().to_string();
            error.split_once(": ").unwrap().1.to_owned()
        };
        assert_eq!(
            changed("co_stacksize=3", "co_stacksize=65536"),
            "MAKE_FULL_CODE has room for numbers of 16 bits, from 0 on"
        );
        assert_eq!(changed("(2 0 3)", "(2 0 32768)"), "MAKE_FULL_CODE reaches slots below 32768");
        assert_eq!(
            changed("MAKE_FULL_CODE     11 ", "MAKE_FULL_CODE 32768 "),
            "MAKE_FULL_CODE reaches slots below 32768"
        );
        assert_eq!(changed("(1) 0 0 4", "(1) 65536 0 4"), "MAKE_FULL_CODE reaches slots below 65536");
        assert_eq!(changed("(1) 0 0 4", "(1) 65535 0 4"), "MAKE_FULL_CODE needs 65536 values and the stack holds 13");
        assert_eq!(changed("(1) 0 0 4", "(1) 0 0 99"), "MAKE_FULL_CODE needs 100 values and the stack holds 13");
        assert_eq!(changed("(1) 0 0 4", "(99) 0 0 4"), "MAKE_FULL_CODE needs 100 values and the stack holds 13");
        assert_eq!(
            changed("(1) 0 0 4", "(12) 0 0 4"),
            "co_localsplusnames is a tuple with other items, not a tuple of str"
        );
        assert_eq!(changed("co_linetable ", "co_linetable stripped "), "co_linetable of Python 3.13 has no caches");
        let mut image = initializer.image.clone();
        image.sections[Section::Hashes as usize].to_mut()[0] ^= 1;
        assert!(verify(image).unwrap_err().to_string().contains("the hash is another name's"));
    }

    #[test]
    fn a_slot_whose_value_was_moved_is_empty() {
        let listing = |lines: &[&str]| format!(".python 3.13\n{}\nRETURN_VALUE\n", lines.join("\n"));
        let start = ["MAKE_STRING 'a'", "MAKE_STRING 'b'", "BUILD_TUPLE_NEAR 0 1! 0"];
        assert_eq!(said(&listing(&start)), "nothing");
        for (line, why) in [
            ("BUILD_TUPLE_NEAR 0 1", "BUILD_TUPLE_NEAR 2: it reaches a slot whose value was moved"),
            ("BUILD_TUPLE_NEAR 0 1!", "BUILD_TUPLE_NEAR 2: it reaches a slot whose value was moved"),
            ("BUILD_TUPLE_NEAR 0! 0", "BUILD_TUPLE_NEAR 2: it reaches a slot whose value was moved"),
            ("BUILD_TUPLE_NEAR 0! 0!", "BUILD_TUPLE_NEAR 2: it reaches a slot whose value was moved"),
            ("BUILD_TUPLE_NEAR 0! 2 9", "BUILD_TUPLE_NEAR needs 10 values and the stack holds 3"),
            ("BUILD_TUPLE_FROM 1 pop", "BUILD_TUPLE_FROM 2: it reaches a slot whose value was moved"),
            ("BUILD_TUPLE_FROM pop pop pop", "BUILD_TUPLE_FROM 3: it reaches a slot whose value was moved"),
            ("BUILD_TUPLE 2", "BUILD_TUPLE 2: it reaches a slot whose value was moved"),
            ("LOAD_FAST 1", "LOAD_FAST 1: it reaches a slot whose value was moved"),
            ("COPY 2", "COPY 2: it reaches a slot whose value was moved"),
            ("LIST_APPEND 1", "LIST_APPEND 1: the value it reaches has another type"),
        ] {
            assert_eq!(said(&listing(&[&start[..], &[line]].concat())), format!("line 5: {why}"));
        }
        let moved = ["MAKE_STRING 'a'", "BUILD_TUPLE_NEAR 0!", "BUILD_LIST 1"];
        assert_eq!(said(&listing(&moved[..2])), "nothing");
        let top = ["BUILD_LIST 0", "MAKE_STRING 'a'", "BUILD_TUPLE_NEAR 1!", "LIST_APPEND 2"];
        assert_eq!(said(&listing(&top)), "line 6: RETURN_VALUE 0: it reaches a slot whose value was moved");
    }

    #[test]
    fn every_changed_listing_assembles_or_is_refused() {
        let text = listed(include_bytes!("../examples/code_bare.cpython-313.marshal"));
        let lines: Vec<_> = text.lines().collect();
        for at in 0..lines.len() {
            let _ = assemble(&[&lines[..at], &lines[at + 1..]].concat().join("\n"));
            let _ = assemble(&[&lines[..=at], &lines[at..]].concat().join("\n"));
        }
        for at in 0..text.len() {
            let _ = assemble(&text[..at]);
            for c in ["", "9", "f", "'", "\"", "\\", ";", ".", "-", " ", "\n", "b'", "é", "\u{2028}"] {
                let _ = assemble(&[&text[..at], c, &text[at + 1..]].concat());
            }
        }
    }
}
