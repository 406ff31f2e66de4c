//! Shows a marshal dump as it stands in the file: a row for each object, with its offset, type byte and index.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde_json::{Value, json};

use crate::error::Result;
use crate::file::Source;
use crate::heap::{Heap, Object, ObjectId};
use crate::literal;
use crate::marshal::{Event, FLAG_REF, Recorded, Script, Step, TypeCode, takes_index, walk, write_payload};

/// A marshal dump, row by row.
#[derive(Debug)]
pub struct Tree {
    header: Option<String>,
    rows: Vec<Row>,
    n_trailing: usize,
}

/// What stands at one place of a dump.
#[derive(Debug)]
struct Row {
    /// From the start of the file.
    offset: usize,
    depth: usize,
    /// What it is to the object that holds it: `item 3`, `co_consts`.
    place: String,
    /// `None` for a number of a code object.
    type_byte: Option<u8>,
    /// The index that it takes, or, for a reference, refers to.
    index: Option<u32>,
    kind: &'static str,
    value: String,
}

/// Most levels of indentation; deeper rows say their depth.
const MAX_INDENT: usize = 24;

/// Most characters of a value.
const MAX_VALUE: usize = 100;

/// Reads the rows of a dump.
pub fn tree(source: &Source<'_>) -> Tree {
    let Source { header, dump, .. } = source;
    let mut at = header.map_or(0, |header| header.bytes().len());
    let mut script = Recorded::new(&dump.transcript);
    let mut next_index = 0;
    let mut payload = Vec::new();
    let mut rows = Vec::with_capacity(dump.transcript.types.len());
    let mut summaries = Summaries::default();
    let walked: Result<()> = walk(&dump.heap, dump.root, |event| {
        let (id, step, depth) = match event {
            Event::Number { field, number, depth } => {
                let (place, value) = (field.name().to_owned(), number.to_string());
                rows.push(Row { offset: at, depth, place, type_byte: None, index: None, kind: "number", value });
                at += 4;
                return Ok(false);
            }
            Event::Object { id, step, depth } => (Some(id), step, depth),
            Event::Null { depth } => (None, Step::End, depth),
        };
        let byte = script.type_byte(&dump.heap, id)?;
        let mut row = Row {
            offset: at,
            depth,
            place: step.to_string(),
            type_byte: Some(byte),
            index: None,
            kind: "NULL",
            value: String::new(),
        };
        at += 1;
        let (Some(id), Some(code)) = (id, TypeCode::new(byte, dump.heap.python())) else {
            rows.push(row);
            return Ok(false);
        };
        row.value = summaries.of(&dump.heap, id);
        row.kind = dump.heap[id].type_name();
        if row.value == row.kind {
            row.value.clear();
        }
        if code == TypeCode::Ref {
            row.value = format!("to {} {}", row.kind, row.value);
            row.kind = "reference";
            row.index = Some(script.reference(id)?);
            at += 4;
            rows.push(row);
            return Ok(false);
        }
        if byte & FLAG_REF != 0 && takes_index(code as u8) {
            row.index = Some(next_index);
            next_index += 1;
        }
        payload.clear();
        write_payload(&dump.heap, id, code, &mut script, &mut payload)?;
        at += payload.len();
        rows.push(row);
        Ok(true)
    });
    walked.expect("a dump that was read fits its own transcript");
    Tree { header: header.map(|header| header.to_string()), rows, n_trailing: dump.trailing.len() }
}

/// Says what values are.
#[derive(Default)]
struct Summaries {
    /// By object: the begin of its literal, and the length of that, where it is long. References may lead there again and again.
    long: BTreeMap<ObjectId, (String, usize)>,
}

impl Summaries {
    fn of(&mut self, heap: &Heap<'_>, id: ObjectId) -> String {
        let n = heap.children(id).count();
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        match heap[id] {
            Object::Code(_) => String::new(),
            Object::Dict(_) | Object::FrozenDict(_) => plural(n / 2, "pair"),
            Object::Bytes(bytes) if bytes.len() > MAX_VALUE / 4 => {
                format!("{} bytes {}...", bytes.len(), literal::bytes(&bytes[..MAX_VALUE / 4]))
            }
            _ => {
                let (begin, len) = match self.long.entry(id) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => match literal::scalar(heap, id) {
                        Some(value) if value.len() <= MAX_VALUE => return value,
                        // Literals are ASCII.
                        Some(value) => entry.insert((value[..MAX_VALUE].to_owned(), value.len())),
                        None => return plural(n, "item"),
                    },
                };
                format!("{begin}... {len} characters")
            }
        }
    }
}

impl Tree {
    /// `{"header": …, "trailing": 0, "rows": [{"offset": 16, "depth": 0, "type": "c", "flagged": true, …}, …]}`.
    pub fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "offset": row.offset,
                "depth": row.depth,
                "place": row.place,
                "type": row.type_byte.map(|byte| char::from(byte & !FLAG_REF).to_string()),
                "flagged": row.type_byte.is_some_and(|byte| byte & FLAG_REF != 0),
                "index": row.index,
                "kind": row.kind,
                "value": row.value,
            })
        };
        json!({
            "header": self.header,
            "trailing": self.n_trailing,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(header) = &self.header {
            writeln!(f, "; {header}")?;
        }
        for row in &self.rows {
            let (kind, flag) = match row.type_byte {
                Some(byte) if byte & FLAG_REF != 0 => (char::from(byte & !FLAG_REF), '+'),
                Some(byte) => (char::from(byte), ' '),
                None => ('=', ' '),
            };
            let index = row.index.map_or_else(String::new, |index| format!("#{index}"));
            write!(f, "{:#08x}  {kind}{flag} {index:<7}", row.offset)?;
            for _ in 0..row.depth.min(MAX_INDENT) {
                write!(f, "  ")?;
            }
            if row.depth > MAX_INDENT {
                write!(f, "({} deep) ", row.depth)?;
            }
            write!(f, "{}: {}", row.place, row.kind)?;
            writeln!(f, "{}{}", if row.value.is_empty() { "" } else { " " }, row.value)?;
        }
        if self.n_trailing > 0 {
            writeln!(f, "; {} bytes follow, which CPython ignores", self.n_trailing)?;
        }
        Ok(())
    }
}
