//! Says what differs between two inputs, object by object.
//!
//! Values are numbered over both heaps (`values.rs`), so that equal ones are known before anything is walked. Sequences are
//! aligned by these numbers (`align.rs`), sets are matched by them, and a walk over both heaps side by side says what is
//! left (`walk.rs`). Last the dumps themselves are compared, where the objects do not account for their bytes
//! (`written.rs`).
//!
//! Invariants:
//! - If headers, objects or dumps differ, something is said; what is said differs.
//! - What reads as another value in Python stands apart from what is only written in another way.
//! - Nothing recurses, and time grows with the size of the inputs, not with the number of paths in them.

mod align;
mod spell;
mod values;
mod walk;
mod written;

use std::borrow::Cow;
use std::fmt;

use anstyle::Style;
use serde_json::{Value as Json, json};

use crate::compile::decompile;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{Input, Source};
use crate::heap::{Heap, ObjectId};
use crate::marshal::shorten;
use crate::pyc::{self, Header};
use crate::python::{Field, Python};
use crate::verify::{Verified, verify};
use crate::vm;

/// A file that was opened to be compared: a .pyc, a dump, or an initializer, which is turned back if it can be.
#[derive(Debug)]
pub struct Operand<'a>(Opened<'a>);

#[derive(Debug)]
enum Opened<'a> {
    Source(Source<'a>),
    Decompiled(Vec<u8>, Python),
    /// An initializer that does not know how its dump was written.
    Initializer(Option<Header<'a>>, Verified<'a>),
}

impl<'a> Operand<'a> {
    /// Opens a file; a bare marshal dump as one of `python`.
    ///
    /// # Errors
    /// As [`Input::read`]; of an initializer, as [`verify`] and [`decompile`].
    pub fn open(file: &'a [u8], python: Option<Python>) -> Result<Self> {
        Ok(Self(match Input::read(file, python)? {
            Input::Source(source) => Opened::Source(source),
            Input::Initializer(initializer) if initializer.image.source.is_some() => {
                let python = initializer.image.python()?;
                Opened::Decompiled(decompile(initializer)?, python)
            }
            Input::Initializer(initializer) => Opened::Initializer(initializer.header, verify(initializer.image)?),
        }))
    }

    /// What is compared.
    ///
    /// # Errors
    /// [`ErrorKind::BadSource`] if what an initializer turned back into is no dump.
    pub fn side(&self) -> Result<Side<'_>> {
        Ok(match &self.0 {
            Opened::Source(source) => Side::from(source),
            Opened::Decompiled(file, python) => match Input::read(file, Some(*python))? {
                Input::Source(Source { header, dump, marshal }) => {
                    Side { header, objects: Objects::Written(Cow::Owned(Source { header, dump, marshal })) }
                }
                Input::Initializer(_) => return Err(Error::new(ErrorKind::BadSource("it is another initializer"))),
            },
            Opened::Initializer(header, verified) => {
                let (heap, root) = vm::run(verified);
                Side { header: *header, objects: Objects::Built(heap, root) }
            }
        })
    }
}

/// One of two inputs.
#[derive(Debug)]
pub struct Side<'s> {
    header: Option<Header<'s>>,
    objects: Objects<'s>,
}

#[derive(Debug)]
enum Objects<'s> {
    Written(Cow<'s, Source<'s>>),
    Built(Heap<'s>, ObjectId),
}

impl<'s> From<&'s Source<'s>> for Side<'s> {
    fn from(source: &'s Source<'s>) -> Self {
        Self { header: source.header, objects: Objects::Written(Cow::Borrowed(source)) }
    }
}

impl Side<'_> {
    fn heap(&self) -> (&Heap<'_>, ObjectId) {
        match &self.objects {
            Objects::Written(source) => (&source.dump.heap, source.dump.root),
            Objects::Built(heap, root) => (heap, *root),
        }
    }

    fn source(&self) -> Option<&Source<'_>> {
        match &self.objects {
            Objects::Written(source) => Some(source),
            Objects::Built(..) => None,
        }
    }
}

/// One of the two inputs, by its place on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Which {
    /// The first.
    A,
    /// The second.
    B,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// What differs between two inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// Fields of the headers.
    pub header: Vec<HeaderDifference>,
    /// Values: what Python code can see.
    pub values: Found,
    /// Equal objects that are interned, shared or ordered in another way.
    pub written: Found,
    /// The dumps, if their bytes differ though the values are equal, and both are known.
    pub encoding: Option<Encoding>,
    /// The input that does not say how its dump was written: an initializer without its source section.
    pub unknown: Option<Which>,
    limit: usize,
}

/// A field of the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderDifference {
    /// Its name.
    pub field: &'static str,
    /// Its value in A.
    pub a: String,
    /// Its value in B.
    pub b: String,
}

/// Differences of one kind, all counted and the first ones listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The first, in the order of A.
    pub listed: Vec<Difference>,
    /// How many there are.
    pub n: usize,
    /// How many of them are interned marks.
    pub n_interned: usize,
    /// How many of them are objects that are shared in one input alone.
    pub n_shared: usize,
    /// How many of them are sets in another order.
    pub n_orders: usize,
}

impl Found {
    fn add(&mut self, what: &What, difference: Option<Difference>) {
        self.n += 1;
        match what {
            What::Interned { .. } => self.n_interned += 1,
            What::Sharing { .. } => self.n_shared += 1,
            What::SetOrder => self.n_orders += 1,
            _ => {}
        }
        self.listed.extend(difference);
    }
}

/// A difference between two objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The names from the root on: `<module>`, `greet`, `co_consts`, `item 0`.
    pub path: Vec<String>,
    /// What differs there.
    pub what: What,
}

/// What differs at a place. Values are Python literals in ASCII, cut short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The value is another.
    Value {
        /// In A.
        a: String,
        /// In B.
        b: String,
    },
    /// It is there in one input alone.
    Only {
        /// The input that has it.
        only_in: Which,
        /// What it is.
        value: String,
    },
    /// An item of A stands behind others, or before others, in B.
    Moved {
        /// What it is.
        value: String,
        /// Its position in B.
        to: usize,
    },
    /// The bytecode.
    Bytecode {
        /// Where the first instruction stands that differs, in bytes.
        offset: usize,
        /// Bytes in A and in B.
        lengths: (usize, usize),
    },
    /// A table of a code object.
    Table {
        /// Which.
        field: Field,
        /// Bytes in A and in B.
        lengths: (usize, usize),
    },
    /// A str is interned in one input alone.
    Interned {
        /// The input in which it is.
        interned_in: Which,
        /// The str.
        value: String,
    },
    /// What is one object in one input is several equal ones in the other.
    Sharing {
        /// The input in which it is one.
        one_in: Which,
        /// Its Python type.
        type_name: &'static str,
        /// Whether it is a list, dict or set, so that Python code can see the difference.
        is_mutable: bool,
        /// What it is.
        value: String,
    },
    /// The items of a set are written in another order, or one is written twice.
    SetOrder,
}

impl What {
    /// Whether Python code can see the difference.
    pub fn is_value(&self) -> bool {
        match self {
            Self::Value { .. }
            | Self::Only { .. }
            | Self::Moved { .. }
            | Self::Bytecode { .. }
            | Self::Table { .. } => true,
            Self::Sharing { is_mutable, .. } => *is_mutable,
            Self::Interned { .. } | Self::SetOrder => false,
        }
    }

    fn json(&self) -> Json {
        match self {
            Self::Value { a, b } => json!({ "kind": "value", "a": a, "b": b }),
            Self::Only { only_in, value } => json!({ "kind": "only", "in": only_in.to_string(), "value": value }),
            Self::Moved { value, to } => json!({ "kind": "moved", "value": value, "to": to }),
            Self::Bytecode { offset, lengths: (a, b) } => {
                json!({ "kind": "bytecode", "offset": offset, "a_length": a, "b_length": b })
            }
            Self::Table { lengths: (a, b), .. } => json!({ "kind": "table", "a_length": a, "b_length": b }),
            Self::Interned { interned_in, value } => {
                json!({ "kind": "interned", "in": interned_in.to_string(), "value": value })
            }
            Self::Sharing { one_in, type_name, value, .. } => {
                json!({ "kind": "sharing", "one_in": one_in.to_string(), "type": type_name, "value": value })
            }
            Self::SetOrder => json!({ "kind": "set order" }),
        }
    }
}

/// How the bytes of two dumps of equal objects differ. Counts are 0 where the dumps do not go in step, as their objects
/// are shared or ordered in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoding {
    /// Reference flags that are set in one input alone.
    pub flags: usize,
    /// Places where one input has a reference, and the other an equal object.
    pub references: usize,
    /// Other type codes, interned marks aside.
    pub type_codes: usize,
    /// Whether the bytes differ that stand behind the object, which CPython ignores.
    pub trailing: bool,
    /// The first byte that differs, in the file A, or in the one that the initializer A turns back into.
    pub first: usize,
}

/// Compares two inputs, and lists the first `limit` differences of each kind.
pub fn diff(a: &Side<'_>, b: &Side<'_>, limit: usize) -> Diff {
    let walk::Walked { values, written, in_step } = walk::walk(a.heap(), b.heap(), limit);
    let encoding = match (a.source(), b.source()) {
        (Some(a), Some(b)) if values.n == 0 => written::encoding(a, b, in_step),
        _ => None,
    };
    let unknown = match (a.source(), b.source()) {
        (None, _) => Some(Which::A),
        (_, None) => Some(Which::B),
        _ => None,
    };
    Diff { header: header_differences(a, b), values, written, encoding, unknown, limit }
}

fn header_differences(a: &Side<'_>, b: &Side<'_>) -> Vec<HeaderDifference> {
    let mut differences = Vec::new();
    let mut compare = |field, a: String, b: String| {
        if a != b {
            differences.push(HeaderDifference { field, a, b });
        }
    };
    compare("Python", a.heap().0.python().to_string(), b.heap().0.python().to_string());
    let length = |header: Option<Header<'_>>| {
        header.map_or_else(|| "none".to_owned(), |header| format!("{} bytes", header.bytes().len()))
    };
    compare("length", length(a.header), length(b.header));
    let (Some(a), Some(b)) = (a.header, b.header) else { return differences };
    compare("magic number", a.magic().to_string(), b.magic().to_string());
    match (a.source(), b.source()) {
        (pyc::Source::Timestamp { seconds, size }, pyc::Source::Timestamp { seconds: other, size: another }) => {
            compare("source time", seconds.to_string(), other.to_string());
            let spelled = |size: Option<u32>| size.map_or_else(|| "none".to_owned(), |size| size.to_string());
            compare("source size", spelled(size), spelled(another));
        }
        (pyc::Source::Hash { hash, checked }, pyc::Source::Hash { hash: other, checked: another }) => {
            compare("source hash", format!("{hash:016x}"), format!("{other:016x}"));
            compare("hash is checked", checked.to_string(), another.to_string());
        }
        (a, b) => compare("source", source(a), source(b)),
    }
    if differences.is_empty() {
        // Bytes that mean nothing, as in the longer one of Erg's headers.
        let hex = |header: Header<'_>| header.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        if a.bytes() != b.bytes() {
            differences.push(HeaderDifference { field: "bytes", a: hex(a), b: hex(b) });
        }
    }
    differences
}

fn source(source: pyc::Source) -> String {
    match source {
        pyc::Source::Timestamp { seconds, .. } => format!("time {seconds}"),
        pyc::Source::Hash { hash, .. } => format!("hash {hash:016x}"),
    }
}

impl Diff {
    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.header.is_empty() && self.has_equal_objects() && self.written.n == 0 && self.encoding.is_none()
    }

    /// Whether no value differs: headers may, and how the objects are written.
    pub fn has_equal_objects(&self) -> bool {
        self.values.n == 0
    }

    /// The differences to be shown, and how many others there are.
    fn shown(&self) -> (impl Iterator<Item = &Difference>, usize) {
        let listed = || self.values.listed.iter().chain(&self.written.listed);
        let n_shown = listed().count().min(self.limit);
        (listed().take(self.limit), self.values.n + self.written.n - n_shown)
    }

    /// `{"equal": false, "equal_objects": false, "header": […], "differences": [{"path": […], "kind": "value", …}], …}`.
    pub fn json(&self) -> Json {
        let header = |field: &HeaderDifference| json!({ "field": field.field, "a": field.a, "b": field.b });
        let (shown, n_more) = self.shown();
        let difference = |difference: &Difference| {
            let mut json = difference.what.json();
            if let Some(json) = json.as_object_mut() {
                json.shift_insert(0, "path".to_owned(), difference.path.clone().into());
            }
            json
        };
        let encoding = self.encoding.map(|encoding| {
            json!({
                "flags": encoding.flags,
                "references": encoding.references,
                "type_codes": encoding.type_codes,
                "trailing": encoding.trailing,
                "first": encoding.first,
            })
        });
        json!({
            "equal": self.is_equal(),
            "equal_objects": self.has_equal_objects(),
            "header": self.header.iter().map(header).collect::<Vec<_>>(),
            "differences": shown.map(difference).collect::<Vec<_>>(),
            "left_out": n_more,
            "counts": {
                "header": self.header.len(),
                "values": self.values.n,
                "interned": self.written.n_interned,
                "sharing": self.written.n_shared,
                "set_orders": self.written.n_orders,
            },
            "encoding": encoding,
            "how_written_is_unknown_of": self.unknown.map(|which| which.to_string()),
        })
    }

    /// The text in these styles.
    pub fn painted(&self, palette: Palette) -> impl fmt::Display {
        Painted { diff: self, palette }
    }
}

/// Styles of a [`Diff`]'s text. The default is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct Palette {
    /// Of the path.
    pub path: Style,
    /// Of what is in A.
    pub a: Style,
    /// Of what is in B.
    pub b: Style,
}

impl Palette {
    fn of(&self, which: Which) -> Style {
        match which {
            Which::A => self.a,
            Which::B => self.b,
        }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Painted { diff: self, palette: Palette::default() }.fmt(f)
    }
}

struct Painted<'d> {
    diff: &'d Diff,
    palette: Palette,
}

impl fmt::Display for Painted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { diff, palette: Palette { path, a, b } } = self;
        for HeaderDifference { field, a: in_a, b: in_b } in &diff.header {
            writeln!(f, "{path}header:{path:#} {field} {a}{in_a}{a:#} became {b}{in_b}{b:#}")?;
        }
        let (shown, n_more) = diff.shown();
        for difference in shown {
            write!(f, "{path}{}:{path:#} ", shorten(&difference.path))?;
            self.what(f, &difference.what)?;
        }
        if n_more > 0 {
            writeln!(f, "... and {n_more} more")?;
        }
        writeln!(f, "{}", diff.summary())
    }
}

impl Painted<'_> {
    fn what(&self, f: &mut fmt::Formatter<'_>, what: &What) -> fmt::Result {
        let Palette { a, b, .. } = self.palette;
        match what {
            What::Value { a: in_a, b: in_b } => writeln!(f, "{a}{in_a}{a:#} became {b}{in_b}{b:#}"),
            What::Only { only_in, value } => {
                let style = self.palette.of(*only_in);
                writeln!(f, "{style}{value}{style:#} only in {only_in}")
            }
            What::Moved { value, to } => writeln!(f, "{value} is item {to} in B"),
            What::Bytecode { offset, lengths } => {
                writeln!(f, "bytecode differs from the instruction at offset {offset} on ({})", became(*lengths))
            }
            What::Table { field, lengths } => writeln!(f, "{} differs ({})", table(*field), became(*lengths)),
            What::Interned { interned_in, value } => writeln!(f, "{value} is interned in {interned_in} only"),
            What::Sharing { one_in, type_name, value, .. } => {
                let other = if *one_in == Which::A { Which::B } else { Which::A };
                writeln!(f, "the {type_name} {value} is one object in {one_in}, several in {other}")
            }
            What::SetOrder => writeln!(f, "the items are written in another order"),
        }
    }
}

fn became((a, b): (usize, usize)) -> String {
    if a == b { format!("{a} bytes") } else { format!("{a} bytes became {b}") }
}

fn table(field: Field) -> &'static str {
    match field {
        Field::LineTable => "line table",
        Field::ExceptionTable => "exception table",
        Field::LocalsPlusKinds => "table of the kinds of variables",
        _ => "table",
    }
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

impl Diff {
    /// `2 differences in values, 1 in the header`, or `equal objects; written differently: 3 reference flags, …`.
    fn summary(&self) -> String {
        if self.is_equal() {
            return ["equal".to_owned()].into_iter().chain(self.caveat()).collect::<Vec<_>>().join("; ");
        }
        let n_header = self.header.len();
        let mut parts = Vec::new();
        match (self.has_equal_objects(), n_header) {
            (true, 0) => parts.push("equal objects".to_owned()),
            (true, _) => parts.push(format!("equal objects; {} in the header", plural(n_header, "difference"))),
            (false, 0) => parts.push(format!("{} in values", plural(self.values.n, "difference"))),
            (false, _) => {
                parts.push(format!("{} in values, {n_header} in the header", plural(self.values.n, "difference")));
            }
        }
        parts.extend(self.how_written());
        parts.extend(self.caveat());
        parts.join("; ")
    }

    fn how_written(&self) -> Option<String> {
        let mut counts = vec![
            (self.written.n_interned, "interned mark"),
            (self.written.n_shared, "shared object"),
            (self.written.n_orders, "set order"),
        ];
        if let Some(Encoding { flags, references, type_codes, trailing, .. }) = self.encoding {
            counts.extend([(flags, "reference flag"), (references, "reference"), (type_codes, "type code")]);
            counts.push((usize::from(trailing), "run of bytes behind the object"));
        }
        let mut parts: Vec<String> =
            counts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| plural(n, what)).collect();
        parts.extend(self.encoding.map(|encoding| format!("first at byte {:#x}", encoding.first)));
        (!parts.is_empty()).then(|| format!("written differently: {}", parts.join(", ")))
    }

    fn caveat(&self) -> Option<String> {
        let which = self.unknown.filter(|_| self.has_equal_objects())?;
        Some(format!("{which} does not say how its dump was written, so flags are not compared"))
    }
}
