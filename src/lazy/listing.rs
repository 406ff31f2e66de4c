//! Lists a lazy container: its code objects with their rewritten bytecode, and the programs of its constants.

use std::fmt;

use serde_json::{Value as Json, json};

use super::hydrate::{Cause, Event, Machine, State};
use super::layout::{REWRITTEN, Record, STRIPPED, Scratch, TableRef};
use super::opcodes::{self, Operand, rewrites};
use super::ops::{Op, Oparg, decode};
use super::rewrite::{Class, class};
use super::{Container, Layout, What};
use crate::common;
use crate::error::{ErrorKind, Result};
use crate::heap::{Encoding, Heap, Object, ObjectId, Str};
use crate::literal;
use crate::python::Field;

/// What a container holds, for people: as text by [`fmt::Display`], or as JSON.
pub struct Listing<'c> {
    container: &'c Container<'c>,
    codes: Vec<CodeRows>,
    constants: Vec<Program>,
}

/// A code object.
struct CodeRows {
    name: String,
    is_rewritten: bool,
    is_stripped: bool,
    consts: Vec<String>,
    instructions: Vec<Row>,
}

/// A constant.
struct Program {
    /// The entry that it leads to.
    redirect: Option<u32>,
    max_stack: u32,
    value: String,
    instructions: Vec<Row>,
}

/// An instruction.
struct Row {
    at: usize,
    name: String,
    oparg: u32,
    /// What the oparg stands for.
    note: String,
}

impl<'c> Listing<'c> {
    /// Hydrates the container, and lists it.
    ///
    /// # Errors
    /// As [`super::hydrate()`]; [`ErrorKind::BudgetExceeded`] for a listing out of proportion to the file.
    pub fn new(container: &'c Container<'c>) -> Result<Self> {
        let mut machine = Machine::new(container);
        machine.hydrate_all()?;
        let names = code_names(&machine)?;
        let mut listing = Self { container, codes: Vec::new(), constants: Vec::new() };
        // Of the draft's layout, several code objects may have the same bytecode and constants.
        let budget = 4 * container.file().len() + (64 << 10);
        let mut listed = 0;
        for (number, name) in (0..).zip(&names) {
            let rows = code_rows(&machine, number, name.clone(), &names)?;
            listed += 2 * rows.instructions.len() + rows.consts.len();
            if listed > budget {
                return Err(ErrorKind::BudgetExceeded { what: "listing", budget: budget as u64 }.into());
            }
            listing.codes.push(rows);
        }
        for number in 0..container.table(What::Constant).len {
            let target = container.resolve(What::Constant, number)?;
            listing.constants.push(program(&mut machine, number, target, &names)?);
        }
        Ok(listing)
    }

    /// As one JSON document.
    pub fn json(&self) -> Json {
        let rows = |rows: &[Row]| -> Vec<Json> {
            let row = |row: &Row| json!({ "offset": row.at, "name": row.name, "oparg": row.oparg, "note": row.note });
            rows.iter().map(row).collect()
        };
        let codes: Vec<Json> = self
            .codes
            .iter()
            .map(|code| {
                json!({
                    "name": code.name,
                    "rewritten": code.is_rewritten,
                    "stripped": code.is_stripped,
                    "consts": code.consts,
                    "instructions": rows(&code.instructions),
                })
            })
            .collect();
        let constants: Vec<Json> = self
            .constants
            .iter()
            .map(|constant| {
                json!({
                    "redirect": constant.redirect,
                    "max_stack": constant.max_stack,
                    "value": constant.value,
                    "instructions": rows(&constant.instructions),
                })
            })
            .collect();
        let [n_codes, n_constants, n_texts, n_blobs] = self.container.counts();
        json!({
            "python": self.container.python().to_string(),
            "layout": layout_name(self.container.layout()),
            "bytes": self.container.file().len(),
            "source_bytes": self.container.source().map_or(0, <[u8]>::len),
            "counts": { "codes": n_codes, "constants": n_constants, "strings": n_texts, "blobs": n_blobs },
            "codes": codes,
            "constants": constants,
        })
    }
}

fn layout_name(layout: Layout) -> &'static str {
    match layout {
        Layout::Draft => "draft",
        Layout::Compact => "compact",
    }
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [n_codes, n_constants, n_texts, n_blobs] = self.container.counts();
        let (python, layout) = (self.container.python(), layout_name(self.container.layout()));
        let source = self.container.source().map_or(0, <[u8]>::len);
        writeln!(
            f,
            "; Lazy container of Python {python}, {layout} layout: {} bytes, {source} of source",
            self.container.payload_len()
        )?;
        writeln!(f, "; code objects {n_codes}, constants {n_constants}, strings {n_texts}, blobs {n_blobs}")?;
        for (number, code) in self.codes.iter().enumerate() {
            let how = match (code.is_rewritten, code.is_stripped) {
                (true, false) => "",
                (true, true) => ", without inline caches",
                (false, true) => ", not rewritten, without inline caches",
                (false, false) => ", not rewritten",
            };
            writeln!(f, "\ncode {number} {}{how}", code.name)?;
            for (at, held) in code.consts.iter().enumerate() {
                writeln!(f, "      co_consts[{at}]  {held}")?;
            }
            write_rows(&code.instructions, f)?;
        }
        for (number, constant) in self.constants.iter().enumerate() {
            match constant.redirect {
                Some(target) => writeln!(f, "\nconstant {number} -> constant {target}")?,
                None => {
                    writeln!(f, "\nconstant {number}  {}  (stack {})", constant.value, constant.max_stack)?;
                    write_rows(&constant.instructions, f)?;
                }
            }
        }
        Ok(())
    }
}

fn write_rows(rows: &[Row], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for Row { at, name, oparg, note } in rows {
        let row = format!("{at:>6}  {name:<28} {oparg:<5}");
        if note.is_empty() {
            writeln!(f, "{}", row.trim_end())?;
        } else {
            writeln!(f, "{row} ; {note}")?;
        }
    }
    Ok(())
}

fn code_rows(machine: &Machine<'_>, number: u32, name: String, names: &[String]) -> Result<CodeRows> {
    let (container, heap) = (machine.container(), machine.heap());
    let mut record = Record::new();
    container.code(number, &mut record, &mut Scratch::default())?;
    let bytecode = match record.tables[Field::Code as usize] {
        TableRef::Inline(bytes) => bytes,
        TableRef::Blob(number) => container.bytes(number)?.0,
    };
    let Some(Object::Code(id)) = machine.object(number).map(|object| heap[object]) else {
        unreachable!("it is hydrated")
    };
    let code = heap.code(id);
    let (consts, own_names) = (heap.held(code.object(Field::Consts)), heap.held(code.object(Field::Names)));
    let (is_rewritten, is_stripped) = (record.flags & REWRITTEN != 0, record.flags & STRIPPED != 0);
    let lazy: Vec<ObjectId> = consts.iter().copied().filter(|id| class(&heap[*id]) == Class::Lazy).collect();
    let spelled = |id: ObjectId| match machine.number_of(id) {
        Some(number) => format!("code {number} {}", names[number as usize]),
        None => spell(heap, id),
    };
    let note = |operand, oparg: u32| match operand {
        Operand::Constant => lazy.get(oparg as usize).map(|id| spelled(*id)),
        Operand::Int => None,
        Operand::Common => common::CONSTS.get(oparg as usize).map(|(_, name)| (*name).to_owned()),
        Operand::Name { shift } => own_names.get((oparg >> shift) as usize).map(|id| spelled(*id)),
    };
    let rewrites = rewrites(container.python());
    let opnames = opcodes::names(container.python());
    let (mut instructions, mut high, mut at) = (Vec::new(), 0_u32, 0);
    let units = bytecode.as_chunks::<2>().0;
    while let Some(&[opcode, low]) = units.get(at) {
        let oparg = high << 8 | u32::from(low);
        let note = match rewrites.back[usize::from(opcode)].filter(|_| is_rewritten) {
            Some(new) => note(new.operand, oparg).unwrap_or_default(),
            None => String::new(),
        };
        let name = match opnames[usize::from(opcode)] {
            "" => format!("<{opcode}>"),
            name => name.to_owned(),
        };
        instructions.push(Row { at: 2 * at, name, oparg, note });
        high = if opcode == rewrites.extended_arg { oparg } else { 0 };
        let is_known = is_rewritten || rewrites.back[usize::from(opcode)].is_none();
        let n_caches = usize::from(rewrites.caches[usize::from(opcode)]);
        at += 1 + if is_stripped || !is_known { 0 } else { n_caches };
    }
    let consts = consts.iter().map(|id| spelled(*id)).collect();
    Ok(CodeRows { name, is_rewritten, is_stripped, consts, instructions })
}

fn program(machine: &mut Machine<'_>, number: u32, target: u32, names: &[String]) -> Result<Program> {
    let container = machine.container();
    let value = machine.built(target)?;
    let (max_stack, wordcode, _) = container.constant(target)?;
    let redirect = (target != number).then_some(target);
    let (mut instructions, mut at) = (Vec::new(), 0);
    while redirect.is_none() && at < wordcode.len() {
        let start = at;
        let (op, oparg) = decode(wordcode, &mut at)?;
        let note = match op.oparg() {
            Oparg::Common => common::CONSTS[oparg as usize].1.to_owned(),
            Oparg::Text => {
                let (bytes, _) = container.text(oparg)?;
                let text = Str::utf8(&bytes[..cut(bytes, MAX_TEXT)], op == Op::MakeInternedString);
                text.map(|text| shortened(literal::text(text))).unwrap_or_default()
            }
            Oparg::Code => names[oparg as usize].clone(),
            Oparg::Constant => {
                let object = machine.built(oparg)?;
                spell(machine.heap(), object)
            }
            Oparg::Blob | Oparg::Bits | Oparg::Int | Oparg::Count | Oparg::Unused | Oparg::Three | Oparg::Own => {
                String::new()
            }
        };
        instructions.push(Row { at: start, name: op.name().to_owned(), oparg, note });
    }
    let spelled = match machine.number_of(value) {
        Some(number) => format!("code {number} {}", names[number as usize]),
        None => spell(machine.heap(), value),
    };
    Ok(Program { redirect, max_stack, value: spelled, instructions })
}

/// The qualified name of each hydrated code object, by number; empty for one that is not.
///
/// Before 3.11, code objects do not know theirs: it is that of the code object that holds it, and `<locals>` if that is of a
/// function.
///
/// Source: CPython `Python/compile.c`, `compiler_set_qualname`.
///
/// # Errors
/// None that hydrating has not found.
pub fn code_names(machine: &Machine<'_>) -> Result<Vec<String>> {
    const CO_NEWLOCALS: i32 = 2;
    let (container, heap) = (machine.container(), machine.heap());
    let has_qualname = container.python().layout().fields.contains(&Field::QualName);
    let n_codes = container.table(What::Code).len;
    let mut prefixes = vec![String::new(); n_codes as usize];
    let mut names = Vec::with_capacity(n_codes as usize);
    let text = |id: ObjectId| match heap[id] {
        Object::Str(text) => String::from_utf8_lossy(front(text, MAX_NAME).to_utf8(&mut Vec::new())).into_owned(),
        _ => String::new(),
    };
    for number in 0..n_codes {
        let hydrated = machine.object(number).filter(|_| machine.state(number) == State::Fully);
        let Some(Object::Code(id)) = hydrated.map(|object| heap[object]) else {
            names.push(String::new());
            continue;
        };
        let code = heap.code(id);
        if has_qualname {
            names.push(text(code.object(Field::QualName)));
            continue;
        }
        let name = prefixes[number as usize].clone() + &text(code.object(Field::Name));
        let is_function = code.number(Field::Flags) & CO_NEWLOCALS != 0;
        let prefix = match (number, is_function) {
            (0, _) => String::new(),
            (_, true) => format!("{name}.<locals>."),
            (_, false) => format!("{name}."),
        };
        if prefix.len() < MAX_NAME {
            for held in heap.held(code.object(Field::Consts)) {
                if let Some(number) = machine.number_of(*held) {
                    prefixes[number as usize].clone_from(&prefix);
                }
            }
        }
        names.push(name);
    }
    Ok(names)
}

/// Longer names are cut, so that all of them together are no longer than the file allows for.
const MAX_NAME: usize = 500;

/// What the machine did, an event a line.
pub fn trace(machine: &Machine<'_>) -> Result<String> {
    let names = code_names(machine)?;
    let mut out = String::new();
    for event in machine.events() {
        out.push_str(&match *event {
            Event::Code { number, state, .. } => {
                let state = match state {
                    State::Dehydrated => "dehydrated",
                    State::Partially => "partially hydrated",
                    State::Fully => "fully hydrated",
                };
                format!("code {number} {}: {state}\n", names[number as usize])
            }
            Event::Constant { number, cause, depth, object } => {
                let value = match machine.number_of(object) {
                    Some(number) => format!("code {number} {}", names[number as usize]),
                    None => spell(machine.heap(), object),
                };
                let cause = match cause {
                    Cause::Constant(other) => format!("constant {other}"),
                    Cause::Code { number, field, place: None } => format!("code {number} {}", field.name()),
                    Cause::Code { number, field, place: Some(at) } => format!("code {number} {}[{at}]", field.name()),
                };
                format!("{}constant {number}: {value}, needed by {cause}\n", "  ".repeat(1 + depth.min(MAX_INDENT)))
            }
        });
    }
    Ok(out)
}

const MAX_INDENT: usize = 20;

/// Longest text of a value.
const MAX_TEXT: usize = 60;
/// Containers in containers that are spelled.
const MAX_DEPTH: usize = 3;

/// A value in one short line.
fn spell(heap: &Heap<'_>, id: ObjectId) -> String {
    shortened(spell_in(heap, id, MAX_DEPTH))
}

fn spell_in(heap: &Heap<'_>, id: ObjectId, depth: usize) -> String {
    // What is cut anyway is not spelled first: it may be as long as the file, and stand everywhere.
    match heap[id] {
        Object::Str(text) if text.raw().0.len() > MAX_TEXT => return literal::text(front(text, MAX_TEXT)) + "...",
        Object::Bytes(bytes) if bytes.len() > MAX_TEXT => return literal::bytes(&bytes[..MAX_TEXT]) + "...",
        Object::Long(long) if heap.long(long).bits() > 8 * MAX_TEXT as u64 => {
            return format!("an int of {} bits", heap.long(long).bits());
        }
        _ => {}
    }
    if let Some(scalar) = literal::scalar(heap, id) {
        return scalar;
    }
    let (open, close) = match heap[id] {
        Object::Tuple(_) => ("(", ")"),
        Object::List(_) => ("[", "]"),
        Object::Set(_) | Object::Dict(_) => ("{", "}"),
        Object::FrozenSet(_) => ("frozenset({", "})"),
        Object::FrozenDict(_) => ("frozendict({", "})"),
        Object::Slice(_) => ("slice(", ")"),
        _ => return "code".to_owned(),
    };
    let held = heap.held(id);
    if depth == 0 && !held.is_empty() {
        return format!("{open}...{close}");
    }
    let mut out = open.to_owned();
    for (at, item) in held.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        if out.len() > MAX_TEXT {
            out.push_str("...");
            break;
        }
        out.push_str(&spell_in(heap, *item, depth - 1));
    }
    if held.len() == 1 && matches!(heap[id], Object::Tuple(_)) {
        out.push(',');
    }
    out + close
}

/// At most so many bytes from the front of a text.
fn front(text: Str<'_>, len: usize) -> Str<'_> {
    let (bytes, encoding) = text.raw();
    if bytes.len() <= len {
        return text;
    }
    match encoding {
        Encoding::Ascii | Encoding::Latin1 => Str::latin1(&bytes[..len], text.is_interned()),
        Encoding::Utf8 => {
            Str::utf8(&bytes[..cut(bytes, len)], text.is_interned()).expect("it is cut between characters")
        }
    }
}

/// Where UTF-8 can be cut to at most so many bytes.
fn cut(bytes: &[u8], len: usize) -> usize {
    if bytes.len() <= len {
        return bytes.len();
    }
    (0..=len).rev().find(|end| bytes[*end] & 0xc0 != 0x80).unwrap_or(0)
}

fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        // Literals are ASCII.
        text.truncate(MAX_TEXT);
        text.push_str("...");
    }
    text
}
