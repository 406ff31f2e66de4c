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

use std::fmt;

use anstyle::Style;
use serde_json::{Value as Json, json};

use crate::compile::decompile;
use crate::dehydrate::turn_back;
use crate::error::{Error, ErrorKind, Result};
use crate::file::{Input, Source};
use crate::heap::{Heap, ObjectId};
use crate::lazy::{self, Container};
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
    /// A lazy container that does not know it either.
    Lazy(Box<Container<'a>>),
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
            Input::Lazy(container) if container.source().is_some() => {
                Opened::Decompiled(turn_back(&container)?, container.python())
            }
            Input::Lazy(container) => Opened::Lazy(container),
        }))
    }

    /// What is compared.
    ///
    /// # Errors
    /// [`ErrorKind::BadSource`] if what an initializer turned back into is no dump; for a lazy container, as
    /// [`lazy::hydrate`].
    pub fn side(&self) -> Result<Side<'_>> {
        Ok(match &self.0 {
            Opened::Source(source) => Side::from(source),
            Opened::Decompiled(file, python) => match Input::read(file, Some(*python))? {
                Input::Source(source) => Side { header: source.header, objects: Objects::Read(Box::new(source)) },
                Input::Initializer(_) | Input::Lazy(_) => {
                    return Err(Error::new(ErrorKind::BadSource("it is another initializer")));
                }
            },
            Opened::Lazy(container) => {
                let (heap, root) = lazy::hydrate(container)?;
                Side { header: Some(container.header()), objects: Objects::Built(heap, root) }
            }
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
    Borrowed(&'s Source<'s>),
    Read(Box<Source<'s>>),
    Built(Heap<'s>, ObjectId),
}

impl<'s> From<&'s Source<'s>> for Side<'s> {
    fn from(source: &'s Source<'s>) -> Self {
        Self { header: source.header, objects: Objects::Borrowed(source) }
    }
}

impl Side<'_> {
    fn heap(&self) -> (&Heap<'_>, ObjectId) {
        match &self.objects {
            Objects::Built(heap, root) => (heap, *root),
            Objects::Borrowed(Source { dump, .. }) => (&dump.heap, dump.root),
            Objects::Read(source) => (&source.dump.heap, source.dump.root),
        }
    }

    fn source(&self) -> Option<&Source<'_>> {
        match &self.objects {
            Objects::Borrowed(source) => Some(source),
            Objects::Read(source) => Some(source),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marshal::read;

    fn compared(a: &[u8], b: &[u8]) -> Diff {
        let source = |marshal| Source { header: None, dump: read(marshal, Python::LATEST).unwrap(), marshal };
        let (a, b) = (source(a), source(b));
        diff(&Side::from(&a), &Side::from(&b), 3)
    }

    #[track_caller]
    fn check(a: &[u8], b: &[u8], said: &str) {
        assert_eq!(compared(a, b).to_string().trim_end(), said);
    }

    /// The head of a list of `n`.
    fn list(n: u32) -> Vec<u8> {
        [b"[".as_slice(), &n.to_le_bytes()].concat()
    }

    #[test]
    fn equal_dumps_are_equal() {
        check(b")\x02Nz\x01a", b")\x02Nz\x01a", "equal");
    }

    #[test]
    fn another_value_has_a_path() {
        check(
            b")\x02N)\x01z\x01a",
            b")\x02N)\x01z\x01b",
            "top > item 1 > item 0: 'a' became 'b'\n1 difference in values",
        );
    }

    #[test]
    fn types_and_bits_are_values() {
        check(b"i\x01\0\0\0", b"T", "top: 1 became True\n1 difference in values");
        check(b"g\0\0\0\0\0\0\0\0", b"g\0\0\0\0\0\0\0\x80", "top: 0.0 became -0.0\n1 difference in values");
        check(b")\x01N", b"[\x01\0\0\0N", "top: (None,) became [None]\n1 difference in values");
    }

    #[test]
    fn a_nan_is_itself_by_its_bits() {
        let nan = [b")\x01g".as_slice(), &f64::NAN.to_bits().to_le_bytes()].concat();
        check(&nan, &nan, "equal");
    }

    #[test]
    fn an_inserted_item_is_one_difference() {
        let said = "top > item 1: 'b' only in B\n1 difference in values";
        check(b")\x02z\x01az\x01c", b")\x03z\x01az\x01bz\x01c", said);
    }

    #[test]
    fn items_in_another_order_are_one_difference() {
        check(b")\x02z\x01az\x01c", b")\x02z\x01cz\x01a", "top > item 0: 'a' is item 1 in B\n1 difference in values");
    }

    #[test]
    fn long_values_show_what_differs() {
        let text = |last: u8| [b"a\xc8\0\0\0".as_slice(), &[b'x'; 199], &[last]].concat();
        let before = "x".repeat(16);
        let said = format!("top: ...{before}a' became ...{before}b'\n1 difference in values");
        check(&text(b'a'), &text(b'b'), &said);
    }

    #[test]
    fn the_order_in_a_set_is_no_value() {
        let said = "top: the items are written in another order\n\
                    equal objects; written differently: 1 set order, first at byte 0x7";
        check(b">\x02\0\0\0z\x01az\x01b", b">\x02\0\0\0z\x01bz\x01a", said);
    }

    #[test]
    fn items_of_sets_are_matched_by_value() {
        let said = "top > items: 'a' only in A\ntop > items: 'c' only in B\n2 differences in values";
        check(b">\x02\0\0\0z\x01az\x01b", b">\x02\0\0\0z\x01bz\x01c", said);
    }

    #[test]
    fn entries_of_dicts_are_matched_by_key_and_their_order_counts() {
        check(b"{z\x01aNz\x01bN0", b"{z\x01aNz\x01bT0", "top > value of 'b': None became True\n1 difference in values");
        check(
            b"{z\x01aN0",
            b"{z\x01bN0",
            "top > key 0: 'a': None only in A\ntop > key 0: 'b': None only in B\n2 differences in values",
        );
        check(b"{z\x01aNz\x01bN0", b"{z\x01bNz\x01aN0", "top > key 0: 'a' is item 1 in B\n1 difference in values");
    }

    #[test]
    fn an_interned_mark_is_no_value() {
        let said =
            "top: 'ab' is interned in B only\nequal objects; written differently: 1 interned mark, first at byte 0x0";
        check(b"z\x02ab", b"Z\x02ab", said);
    }

    #[test]
    fn flags_and_type_codes_are_counted() {
        check(b")\x01N", b"\xa9\x01N", "equal objects; written differently: 1 reference flag, first at byte 0x0");
        check(b")\x01N", b"(\x01\0\0\0N", "equal objects; written differently: 1 type code, first at byte 0x0");
        let said = "equal objects; written differently: 1 reference flag, 1 reference, first at byte 0x2";
        check(b")\x02i\x01\0\0\0i\x01\0\0\0", b")\x02\xe9\x01\0\0\0r\0\0\0\0", said);
        check(b"N", b"Nx", "equal objects; written differently: 1 run of bytes behind the object, first at byte 0x1");
    }

    #[test]
    fn the_sharing_of_a_tuple_is_no_value_and_that_of_a_list_is_one() {
        let said = "top > item 1: the tuple (None,) is one object in A, several in B\n\
                    equal objects; written differently: 1 shared object, first at byte 0x2";
        check(b")\x02\xa9\x01Nr\0\0\0\0", b")\x02)\x01N)\x01N", said);
        let said = "top > item 1: the list [] is one object in B, several in A\n1 difference in values";
        check(b")\x02[\0\0\0\0[\0\0\0\0", b")\x02\xdb\0\0\0\0r\0\0\0\0", said);
    }

    #[test]
    fn what_is_below_a_difference_in_sharing_is_no_news() {
        let said = "top > item 1: the tuple ((None,),) is one object in A, several in B\n\
                    equal objects; written differently: 1 shared object, first at byte 0x2";
        check(b")\x02\xa9\x01)\x01Nr\0\0\0\0", b")\x02)\x01)\x01N)\x01)\x01N", said);
    }

    #[test]
    fn lists_in_themselves_are_compared() {
        check(b"\xdb\x01\0\0\0r\0\0\0\0", b"\xdb\x01\0\0\0r\0\0\0\0", "equal");
        let one = [b"\xdb\x02\0\0\0Nr\0\0\0\0".as_slice()].concat();
        let other = [b"\xdb\x02\0\0\0Tr\0\0\0\0".as_slice()].concat();
        check(&one, &other, "top > item 0: None became True\n1 difference in values");
    }

    #[test]
    fn a_set_in_its_own_item_is_compared() {
        let dump = b"\xa8\x02\0\0\0N<\x01\0\0\0r\0\0\0\0";
        check(dump, dump, "equal");
        let other = b"\xa8\x02\0\0\0T<\x01\0\0\0r\0\0\0\0";
        check(dump, other, "top > item 0: None became True\n1 difference in values");
    }

    #[test]
    fn more_differences_than_asked_for_are_counted() {
        let (a, b) = ([list(5), b"NNNNN".to_vec()].concat(), [list(5), b"TTTTT".to_vec()].concat());
        let said = compared(&a, &b).to_string();
        assert!(said.ends_with("item 2: None became True\n... and 2 more\n5 differences in values\n"), "{said}");
    }

    #[test]
    fn a_pair_is_compared_once_however_many_paths_lead_to_it() {
        // w = (w, w), 60 times: 2**60 paths.
        let doubled = |last: &[u8]| {
            let mut dump = b"\xa9\x02".repeat(60);
            dump.extend_from_slice(last);
            for index in (1..60u32).rev() {
                dump.push(b'r');
                dump.extend_from_slice(&index.to_le_bytes());
            }
            dump
        };
        assert!(compared(&doubled(b"NN"), &doubled(b"NN")).is_equal());
        assert_eq!(compared(&doubled(b"NN"), &doubled(b"NT")).values.n, 1);
    }

    #[test]
    fn cycles_of_coprime_lengths_are_given_up_on() {
        // L = [[...[L]...]]: each pair of lists meets, a million of them.
        let cycle = |n: usize| [b"\xdb\x01\0\0\0".repeat(n), b"r\0\0\0\0".to_vec()].concat();
        assert!(!compared(&cycle(1009), &cycle(1013)).is_equal());
    }
}
