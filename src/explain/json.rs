//! Spells an explanation for programs.

use serde_json::{Value, json};

use super::{Explanation, MAX_PLACES, Place, Saved, Size, Totals, Waits};

impl Explanation {
    /// The explanation as a JSON document: `totals`; `values`, those that the text shows; `stack`, the height behind each
    /// instruction.
    pub fn json(&self) -> Value {
        let subjects = self.subjects();
        let shown = &subjects[..subjects.len().min(self.top.unwrap_or(usize::MAX))];
        let mut n_left = MAX_PLACES;
        let max = self.rows.get(self.totals.max_row);
        json!({
            "input": self.name,
            "totals": self.totals.json(),
            "max_stack": { "values": self.totals.max_stack, "offset": max.map(|row| row.offset) },
            "n_matching": subjects.len(),
            "values": shown.iter().map(|at| self.value_json(*at, &mut n_left)).collect::<Vec<_>>(),
            "stack": self.rows.iter().map(|row| json!([row.offset, row.depth])).collect::<Vec<_>>(),
        })
    }

    fn value_json(&self, at: usize, n_left: &mut usize) -> Value {
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
        json!({
            "id": value.id,
            "type": value.kind,
            "interned": value.interned,
            "value": value.value,
            "objects": value.n_objects,
            "uses": value.n_uses,
            "places": self.places(at, n_left).iter().map(Place::json).collect::<Vec<_>>(),
            "decision": value.decided(),
            "why": value.why,
            "costs": costs,
            "waits": value.waits.map(Waits::json),
            "made_at": value.row.and_then(|row| self.rows.get(row)).map(|row| row.offset),
            "saved": value.saved,
            "apart": value.apart,
        })
    }
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
