//! Spells an explanation for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Explanation, MAX_PLACES, Place, Saved, Size, Totals, Waits};

impl Explanation {
    /// The explanation as a JSON document, on one line: `totals`; `values`, those that the text shows; `stack`, the height
    /// behind each instruction.
    ///
    /// Its lists are spelled item by item: the document as one [`Value`] would take ten times the memory of its text.
    pub fn json(&self) -> String {
        let subjects = self.subjects();
        let shown = &subjects[..subjects.len().min(self.top.unwrap_or(usize::MAX))];
        let max = self.rows.get(self.totals.max_row);
        let head = json!({
            "input": self.name,
            "totals": self.totals.json(),
            "max_stack": { "values": self.totals.max_stack, "offset": max.map(|row| row.offset) },
            "n_matching": subjects.len(),
        });
        let mut out = String::new();
        open(&mut out, &head);
        let mut n_left = MAX_PLACES;
        list(&mut out, "values", shown, |out, at| self.value_json(*at, &mut n_left, out));
        list(&mut out, "stack", &self.rows, |out, row| push(out, &json!([row.offset, row.depth])));
        out + "}"
    }

    fn value_json(&self, at: usize, n_left: &mut usize, out: &mut String) {
        let value = &self.values[at];
        let costs = value.costs.map(|costs| {
            json!({
                "make": costs.make,
                "copy": costs.copy,
                "uses": costs.uses,
                "hoist": costs.hoist(),
                "keep": costs.keep(),
                "rebuild": costs.rebuild(),
            })
        });
        let head = json!({
            "id": value.id,
            "type": value.kind,
            "interned": value.interned,
            "value": value.value,
            "objects": value.n_objects,
            "uses": value.n_uses,
            "decision": value.decided(),
            "why": value.why,
            "costs": costs,
            "waits": value.waits.map(Waits::json),
            "made_at": value.row.and_then(|row| self.rows.get(row)).map(|row| row.offset),
            "saved": value.saved,
            "apart": value.apart,
        });
        open(out, &head);
        list(out, "places", &self.places(at, n_left), |out, place| push(out, &place.json()));
        *out += "}";
    }
}

fn push(out: &mut String, value: &Value) {
    write!(out, "{value}").expect("a String takes what is written");
}

/// Adds an object, and leaves it open for lists.
fn open(out: &mut String, object: &Value) {
    push(out, object);
    out.pop();
}

/// Adds a list to an open object.
fn list<T>(out: &mut String, key: &str, items: &[T], mut spell: impl FnMut(&mut String, &T)) {
    *out += ",\"";
    *out += key;
    *out += "\":[";
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        spell(out, item);
    }
    out.push(']');
}

impl Place {
    fn json(&self) -> Value {
        json!({
            "code": self.code,
            "field": self.field,
            "docstring": self.is_docstring,
            "through": self.through,
            "n_more": self.n_more,
        })
    }
}

impl Waits {
    fn json(self) -> Value {
        match self {
            Self::Slot(slot) => json!({ "slot": slot }),
            Self::Place(place) => json!({ "place": place }),
            Self::Data => json!("data"),
        }
    }
}

impl Size {
    fn json(self) -> Value {
        json!({ "bytes": self.bytes, "instructions": self.instructions })
    }
}

impl Saved {
    fn json(self) -> Value {
        json!({ "values": self.values, "places": self.places, "bytes": self.bytes })
    }
}

impl Totals {
    fn json(&self) -> Value {
        let decisions = self.decisions.iter().map(|(word, n)| ((*word).to_owned(), Value::from(*n)));
        json!({
            "n_objects": self.n_objects,
            "n_values": self.n_values,
            "n_shared": self.n_shared,
            "decisions": Value::Object(decisions.collect()),
            "size": self.size.json(),
            "size_as_shared_in_dump": self.identity.json(),
            "size_unshared": self.unshared.map(Size::json),
            "common_names": self.names.json(),
            "common_constants": self.constants.json(),
            "tables": self.tables.json(),
            "references": {
                "instructions": self.references.instructions,
                "with_extended_arg": self.references.extended,
                "in_data": self.references.data,
                "in_data_of_several_bytes": self.references.long,
            },
        })
    }
}
