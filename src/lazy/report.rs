//! Says what laziness would save: what the code objects that really ran need, against everything.

use std::collections::HashSet;
use std::fmt;

use super::hydrate::{Machine, Touched};
use super::layout::{ConstRef, Record, Scratch, TupleRef};
use super::listing::code_names;
use super::opcodes::Operand;
use super::rewrite::growth;
use super::{Container, What};
use crate::error::Result;
use crate::heap::Object;
use crate::python::Field;

/// What some of the code objects of a container need.
#[derive(Debug, Clone)]
pub struct Report {
    executed: Need,
    all: Need,
    /// Bytes that opening reads.
    opened: usize,
    /// Names that no code object has, in order.
    unknown: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
struct Need {
    touched: Touched,
    objects: usize,
}

impl Need {
    fn of(machine: &Machine<'_>) -> Self {
        Self { touched: machine.touched(), objects: machine.heap().len() }
    }

    fn bytes(&self) -> usize {
        self.touched.bytes.iter().sum()
    }
}

impl Report {
    /// Hydrates all code objects that have one of these qualified names, those that they hold left as they are; and, to
    /// compare, all that there are. If several have one name, all of them count.
    ///
    /// # Errors
    /// As [`super::hydrate()`].
    pub fn new<'n>(container: &Container<'_>, executed: impl IntoIterator<Item = &'n str>) -> Result<Self> {
        let mut whole = Machine::new(container);
        whole.hydrate_all()?;
        let names = code_names(&whole)?;
        let wanted: HashSet<&str> = executed.into_iter().collect();
        let mut part = Machine::new(container);
        for (number, name) in (0..).zip(&names) {
            if wanted.contains(name.as_str()) {
                part.hydrate(number)?;
            }
        }
        let known: HashSet<&str> = names.iter().map(String::as_str).collect();
        let mut unknown: Vec<String> = wanted.difference(&known).map(|name| (*name).to_owned()).collect();
        unknown.sort();
        let opened = container.opened_len();
        Ok(Self { executed: Need::of(&part), all: Need::of(&whole), opened, unknown })
    }

    /// Names that no code object has: of another module, or misspelled.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// As one JSON document.
    pub fn json(&self) -> serde_json::Value {
        let need = |need: &Need| {
            let [codes, constants, strings, blobs] = need.touched.entries;
            serde_json::json!({
                "code_objects": codes, "constants": constants, "strings": strings, "blobs": blobs,
                "bytes": need.bytes(), "objects": need.objects,
            })
        };
        serde_json::json!({
            "opening_bytes": self.opened,
            "executed": need(&self.executed),
            "all": need(&self.all),
            "unknown": self.unknown,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16} {:>9} {:>9} {:>7}", "", "needed", "all", "share")?;
        let mut row = |name: &str, needed: usize, all: usize| {
            let share = if all == 0 { 0.0 } else { 100.0 * needed as f64 / all as f64 };
            writeln!(f, "{name:<16} {needed:>9} {all:>9} {share:>5.1} %")
        };
        for what in What::ALL {
            let [needed, all] = [&self.executed, &self.all].map(|need| need.touched.entries[what as usize]);
            row(&format!("{}s", what.name()), needed, all)?;
        }
        row("bytes read", self.executed.bytes(), self.all.bytes())?;
        row("objects made", self.executed.objects, self.all.objects)?;
        writeln!(f, "opening alone reads {} bytes: the headers and the offsets", self.opened)
    }
}

/// What the draft's layout would take with opargs that are numbers in the tables of the whole file, and EXTENDED_ARG where
/// they need it; instead of opargs that count within the code object, from a base that its record has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Alternative {
    /// Bytes that bytecode would grow by. Jumps over what is inserted get longer too, which is not counted.
    pub longer_bytecode: usize,
    /// Bytes of the redirects, of which there would be none.
    pub redirects: usize,
    /// Bytes of the lists that records would need instead: without them the order of names and constants is lost, and
    /// bytecode could not be turned back.
    pub lists: usize,
}

impl Alternative {
    /// Counts, for a container in the draft's layout.
    ///
    /// # Errors
    /// As [`super::hydrate()`].
    pub fn of(container: &Container<'_>) -> Result<Self> {
        let mut machine = Machine::new(container);
        machine.hydrate_all()?;
        let heap = machine.heap();
        // Entries that are no redirects would be numbered without gaps.
        let rank = |what: What| -> Vec<u32> {
            let own = container.table(what).entries().map(|entry| u32::from(entry & 1 == 0));
            own.scan(0, |n_before, own| Some(std::mem::replace(n_before, *n_before + own))).collect()
        };
        let (constants, texts) = (rank(What::Constant), rank(What::Text));
        let mut alternative = Self::default();
        for what in [What::Constant, What::Text] {
            alternative.redirects += 4 * container.table(what).entries().filter(|entry| entry & 1 != 0).count();
        }
        let (mut record, mut scratch) = (Record::new(), Scratch::default());
        for number in 0..container.table(What::Code).len {
            container.code(number, &mut record, &mut scratch)?;
            let Some(Object::Code(id)) = machine.object(number).map(|object| heap[object]) else { continue };
            let Object::Bytes(bytecode) = heap[heap.code(id).object(Field::Code)] else { continue };
            let list = match record.tuples[Field::Consts as usize] {
                TupleRef::List { start, len } => &scratch.consts[start..start + len],
                _ => &[],
            };
            let n_lazy = list.iter().filter(|held| matches!(held, ConstRef::Constant(_))).count();
            let names = match record.tuples[Field::Names as usize] {
                TupleRef::Range { base, len } => base..base + len,
                _ => 0..0,
            };
            for tuple in record.tuples {
                if let TupleRef::Range { len, .. } = tuple {
                    alternative.lists += 4 * len as usize;
                }
            }
            alternative.lists += 4 * n_lazy;
            alternative.longer_bytecode += growth(container.python(), bytecode, |operand, at| match operand {
                Operand::Name { .. } => {
                    let number = names.start + at;
                    let target = names.contains(&number).then(|| container.resolve(What::Text, number).ok())??;
                    Some(texts[target as usize])
                }
                _ => match list.get(at as usize)? {
                    ConstRef::Constant(target) => Some(constants[*target as usize]),
                    _ => None,
                },
            });
        }
        Ok(alternative)
    }
}
