//! Spells an explanation for people.

use std::fmt::{self, Display, Formatter};

use super::{Explained, Explanation, Filter, MAX_PLACES, Place, Saved, Size, Totals};

/// Values that are shown if nothing else is said.
const TOP: usize = 20;

/// Places that are named of a value.
const N_PLACES: usize = 4;

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let subjects = self.subjects();
        let n_shown = subjects.len().min(self.top.unwrap_or(TOP));
        match &self.filter {
            Some(Filter { text, by_literal, by_place }) => {
                write!(f, "{}: {text:?} is in the literal of {}", self.name, count(by_literal.len(), "value"))?;
                match (by_literal.len(), by_place.len()) {
                    (0, 0) => writeln!(f, ", and in no place where one is needed; upper and lower case differ")?,
                    (_, 0) => writeln!(f)?,
                    (_, n) => writeln!(f, ", and in the places of {n}")?,
                }
            }
            None => {
                writeln!(f, "{}\n", self.name)?;
                write!(f, "{}", self.totals)?;
                if let Some(row) = self.rows.get(self.totals.max_row) {
                    let of = format!("{} {}", row.mnemonic, row.value);
                    line(
                        f,
                        "stack",
                        &format!("at most {}, first at byte {}: {of}", self.totals.max_stack, row.offset),
                    )?;
                }
                let head = "with several uses, or that could have been shared and were not";
                writeln!(f, "\n{} {head}; what saved most first", count(subjects.len(), "value"))?;
            }
        }
        let mut n_left = MAX_PLACES;
        for at in &subjects[..n_shown] {
            writeln!(f)?;
            self.values[*at].lines(f, self, &self.places(*at, &mut n_left))?;
        }
        if n_shown < subjects.len() {
            writeln!(f, "\n{} more: --top {} shows all", subjects.len() - n_shown, subjects.len())?;
        }
        Ok(())
    }
}

impl Explained {
    fn lines(&self, f: &mut Formatter<'_>, of: &Explanation, places: &[Place]) -> fmt::Result {
        let mark = match self.interned {
            Some(true) => "interned str",
            _ => self.kind,
        };
        writeln!(f, "{}  {mark}  {}", self.id, self.value)?;
        line(f, "objects", &self.objects(places))?;
        line(f, "needed by", &of.named(places, N_PLACES))?;
        let place = match (self.waits, self.row.and_then(|row| of.rows.get(row))) {
            (Some(waits), Some(row)) => format!(", waits in {waits}, made at byte {}", row.offset),
            (Some(waits), None) => format!(", waits in {waits}"),
            (None, _) => String::new(),
        };
        line(f, "decided", &format!("{}{place}", self.decided()))?;
        line(f, "why", &self.why)?;
        match self.saved {
            Some(0) if self.n_uses == 1 => {}
            Some(bytes) => line(f, "saved", &format!("{bytes} bytes, against making it at each use"))?,
            None => line(f, "saved", "nothing to compare with: it must be one object")?,
        }
        for apart in &self.apart {
            line(f, "apart", apart)?;
        }
        Ok(())
    }

    /// How many objects it is, of how many places, and so whether it is shared.
    pub(super) fn objects(&self, places: &[Place]) -> String {
        let n_objects = self.n_objects;
        let is_all = places.iter().all(|place| place.n_more == 0);
        let n_places = format!("{}{}", if is_all { "" } else { "more than " }, count(places.len(), "place"));
        let verdict = match places {
            [_] if is_all && n_objects == 1 => String::new(),
            _ if self.is_process_wide => ": shared, as CPython has one for the whole process".to_owned(),
            [Place { through: Some(holder), .. }, ..] if n_objects == 1 && self.n_uses == 1 => {
                format!(": shared, as {holder} is, which holds it")
            }
            _ if n_objects == 1 => ": shared".to_owned(),
            _ if !is_all => String::new(),
            _ if n_objects < places.len() as u64 => ": shared in part".to_owned(),
            _ => ": not shared".to_owned(),
        };
        format!("{n_objects} for {n_places}{verdict}")
    }
}

impl Explanation {
    /// The places, of which `limit` are spelled; all of what was asked for.
    pub(super) fn named(&self, places: &[Place], limit: usize) -> String {
        let limit = if self.filter.is_some() { places.len() } else { limit.min(places.len()) };
        let mut named: Vec<String> = places[..limit].iter().map(ToString::to_string).collect();
        if limit < places.len() {
            named.push(format!("and {} more", places.len() - limit));
        }
        named.join(", ")
    }
}

impl Display for Totals {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let decided: Vec<String> =
            self.decisions.iter().filter(|(_, n)| *n > 0).map(|(word, n)| format!("{n} {word}")).collect();
        let Totals { n_objects, n_values, n_shared, .. } = self;
        line(f, "objects", &format!("{n_objects} in the dump, {n_values} values, {n_shared} with several uses"))?;
        line(f, "decided", &decided.join(", "))?;
        line(f, "size", &self.size.to_string())?;
        let saved = |other: Size| {
            let bytes = other.bytes as i64 - self.size.bytes as i64;
            let instructions = other.instructions as i64 - self.size.instructions as i64;
            format!("sharing saved {bytes} bytes, {instructions} instructions")
        };
        line(
            f,
            "as shared",
            &format!("{} if only what the dump shares were one: {}", self.identity, saved(self.identity)),
        )?;
        match self.unshared {
            Some(size) => line(f, "unshared", &format!("{size} if nothing were shared: {}", saved(size)))?,
            None => line(f, "unshared", "more than 64 times the dump if nothing were shared")?,
        }
        line(f, "names", &self.names.said("LOAD_COMMON_NAME"))?;
        line(f, "constants", &self.constants.said("LOAD_COMMON_CONST, LOAD_INT and LOAD_CHAR"))?;
        let Saved { values, places, bytes } = self.tables;
        line(f, "tables", &format!("{values} of code objects stand once for {places} places: {bytes} bytes saved"))?;
        let references = &self.references;
        let share = |part: usize, all: usize| if all == 0 { 0.0 } else { 100.0 * part as f64 / all as f64 };
        let extended = format!(
            "{} by instructions, {} ({:.1} %) with EXTENDED_ARG; {} in the data, {} ({:.1} %) of more than a byte",
            references.instructions,
            references.extended,
            share(references.extended, references.instructions),
            references.data,
            references.long,
            share(references.long, references.data)
        );
        line(f, "references", &extended)
    }
}

impl Saved {
    fn said(&self, what: &str) -> String {
        format!("{what} bring {} to {} places: {} bytes saved", count(self.values, "value"), self.places, self.bytes)
    }
}

impl Display for Size {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in {} instructions", self.bytes, self.instructions)
    }
}

fn line(f: &mut Formatter<'_>, head: &str, text: &str) -> fmt::Result {
    writeln!(f, "  {head:<10}  {text}")
}

fn count(n: usize, what: &str) -> String {
    match n {
        0 => format!("no {what}"),
        1 => format!("1 {what}"),
        _ => format!("{n} {what}s"),
    }
}
