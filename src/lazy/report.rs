//! Says what laziness would save: what the code objects that really ran need, against everything.

use std::collections::HashSet;
use std::fmt;

use super::hydrate::{Machine, Touched};
use super::listing::code_names;
use super::{Container, What};
use crate::error::Result;

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
