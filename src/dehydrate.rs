//! From a marshal dump to a lazy container, and back.
//!
//! The graph says what is one object. Code objects are numbered from the module's own on, each before those that it holds.
//! What a code object's constants need, and what several objects share, becomes a constant with a program of its own; what
//! one constant alone needs is built in its program.
//!
//! Invariants:
//! - An object of the graph is made in exactly one place: a record, a program, or an entry of a table.
//! - Numbers are given out before anything is written, so a program can name what is written later.

use indexmap::IndexMap;

use crate::caches;
use crate::error::{ErrorKind, Result};
use crate::file::Source;
use crate::graph::{Graph, NodeId, lower};
use crate::heap::{Object, Str};
use crate::key::Sharing;
use crate::lazy::layout::{
    ConstRef, REWRITTEN, Record, SHARED, STRIPPED, Scratch, TableRef, TextRef, TupleRef, write_code, write_long,
};
use crate::lazy::ops::{Op, encode};
use crate::lazy::rewrite::{Class, Places, class, forward};
use crate::lazy::{self, Container, HEADER_LEN, Layout, MAGIC, width};
use crate::marshal;
use crate::python::{Field, FieldKind, Python};
use crate::source;
use crate::varint;

/// How to dehydrate. The default is what `rehydrate compile --format lazy` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LazyOptions {
    /// How the container is laid out.
    pub layout: Layout,
    /// Which objects become one; not [`Sharing::None`]: a constant is built once.
    pub sharing: Sharing,
    /// Whether bytecode is stored without its inline caches; `None` leaves it to the layout: the compact one does.
    pub strip_caches: Option<bool>,
    /// Whether to keep what turns the container back into the identical dump.
    pub source_flags: bool,
}

impl Default for LazyOptions {
    fn default() -> Self {
        Self { layout: Layout::default(), sharing: Sharing::default(), strip_caches: None, source_flags: true }
    }
}

/// Writes the lazy container of a .pyc: the bytes of the file.
///
/// # Errors
/// As [`lower`]; [`ErrorKind::NotLazy`] for what the container has no place for: anything but a code object with a header at
/// the top, an object that holds itself, a code object as a key, more than 65,535 code objects in the draft's layout;
/// [`ErrorKind::BudgetExceeded`] if code objects share so much bytecode and so many constants that their records would be out
/// of proportion to the dump.
pub fn dehydrate(source: &Source<'_>, options: LazyOptions) -> Result<Vec<u8>> {
    let Some(header) = source.header else { return not_lazy("a bare dump: it has no header that says its version") };
    if options.sharing == Sharing::None {
        return not_lazy("an object anew for each use (--sharing none): it builds each once");
    }
    let graph = lower(&source.dump, options.sharing)?;
    if !matches!(graph.object(graph.root), Object::Code(_)) {
        return not_lazy("a dump whose top-level object is no code object");
    }
    if !graph.deferred.is_empty() {
        return not_lazy("an object that holds itself");
    }
    let mut writer = Writer::new(&graph, options);
    writer.check_keys()?;
    writer.check_budget(source.marshal.len())?;
    writer.number();
    let parts = writer.parts(header.python());
    if options.layout == Layout::Draft && parts.codes.len() > usize::from(u16::MAX) {
        return not_lazy("more than 65,535 code objects in the draft's layout");
    }
    let mut file = header.bytes().to_vec();
    parts.encode(&mut file)?;
    let start = header.bytes().len();
    if options.source_flags {
        let offset = file.len();
        let section = source::encode(&source.dump, source.marshal, &graph, offset - start)?;
        file.extend_from_slice(&section);
        put(&mut file, start + 8, offset)?;
    }
    let len = file.len();
    put(&mut file, start + 12, len)?;
    Ok(file)
}

/// Turns a lazy container back into a .pyc: the identical one, if what that takes was kept; else one of equal objects.
///
/// # Errors
/// As [`lazy::hydrate`]; [`ErrorKind::BadSource`]; and as [`marshal::write()`].
pub fn turn_back(container: &Container<'_>) -> Result<Vec<u8>> {
    let (heap, root) = lazy::hydrate(container)?;
    let marshal = match container.source() {
        Some(section) => source::decode(section, &heap, root, container.payload_len())?,
        None => marshal::write(&heap, root)?,
    };
    Ok([container.header().bytes(), &marshal].concat())
}

#[cold]
fn not_lazy<T>(what: &'static str) -> Result<T> {
    Err(ErrorKind::NotLazy(what).into())
}

fn put(file: &mut [u8], at: usize, number: usize) -> Result<()> {
    file[at..at + 4].copy_from_slice(&small(number)?.to_le_bytes());
    Ok(())
}

/// What the records of code objects may be made of, in bytes and items, for a dump of so many bytes: bytecode that several code
/// objects share is rewritten for each, by its constants.
fn budget(dump_len: usize) -> usize {
    16 * dump_len + (64 << 10)
}

/// A size that a signed 32-bit number holds.
fn small(len: usize) -> Result<u32> {
    i32::try_from(len).map(i32::cast_unsigned).map_err(|_| ErrorKind::TooLarge.into())
}

const NONE: u32 = u32::MAX;

/// An entry of a table.
#[derive(Debug, Clone)]
enum Entry<T> {
    Own(T),
    /// The same as an earlier one.
    Redirect(u32),
}

/// A blob.
#[derive(Debug, Clone)]
enum Blob<'a> {
    Bytes(&'a [u8]),
    /// Rewritten bytecode.
    Made(Vec<u8>),
    Float(u64),
    Long(Vec<u8>),
}

/// Gives out numbers, and makes records and programs of them.
struct Writer<'g, 'h, 'a> {
    graph: &'g Graph<'h, 'a>,
    options: LazyOptions,
    /// The nodes of code objects, in the order of their numbers.
    codes: Vec<NodeId>,
    /// By node: the number of a code object, str, constant or blob.
    code_numbers: Vec<u32>,
    text_numbers: Vec<u32>,
    constant_numbers: Vec<u32>,
    blob_numbers: Vec<u32>,
    /// By node: as how many code objects' bytecode it is used.
    bytecode_uses: Vec<u32>,
    texts: Vec<Entry<NodeId>>,
    constants: Vec<Entry<NodeId>>,
    n_interned: u32,
    /// By code object: where the runs of its tuples of names begin, and of its constants. Draft.
    ranges: Vec<[u32; Field::COUNT]>,
    blobs: Vec<Blob<'a>>,
}

/// What is written.
struct Parts<'a> {
    layout: Layout,
    codes: Vec<Vec<u8>>,
    /// Most values on the stack, and wordcode.
    constants: Vec<Entry<(u32, Vec<u8>)>>,
    texts: Vec<Entry<Vec<u8>>>,
    n_interned: u32,
    blobs: Vec<Blob<'a>>,
}

impl<'g, 'h, 'a> Writer<'g, 'h, 'a> {
    fn new(graph: &'g Graph<'h, 'a>, options: LazyOptions) -> Self {
        let none = || vec![NONE; graph.len()];
        // In the graph, what is needed comes first: so the module's own code object is the last.
        let is_code = |id: &NodeId| matches!(graph.object(*id), Object::Code(_));
        let codes: Vec<NodeId> = graph.ids().rev().filter(is_code).collect();
        let mut writer = Self {
            graph,
            options,
            code_numbers: none(),
            text_numbers: none(),
            constant_numbers: none(),
            blob_numbers: none(),
            bytecode_uses: vec![0; graph.len()],
            texts: Vec::new(),
            constants: Vec::new(),
            n_interned: 0,
            ranges: vec![[0; Field::COUNT]; codes.len()],
            blobs: Vec::new(),
            codes,
        };
        for (number, id) in (0..).zip(&writer.codes) {
            writer.code_numbers[id.index()] = number;
            writer.bytecode_uses[bytecode(graph, *id).index()] += 1;
        }
        writer
    }

    /// Refuses what the machine refuses: it does not know the hash of a code object that nobody needed yet.
    fn check_keys(&self) -> Result<()> {
        let mut hashable = vec![true; self.graph.len()];
        for id in self.graph.ids() {
            let held = self.graph.operands(id);
            let all = |step: usize| held.iter().step_by(step).all(|key| hashable[key.index()]);
            let (is_good, is_hashable) = match self.graph.object(id) {
                Object::Tuple(_) | Object::Slice(_) => (true, all(1)),
                Object::FrozenSet(_) => (all(1), true),
                Object::FrozenDict(_) => (all(2), all(1)),
                Object::Set(_) => (all(1), false),
                Object::Dict(_) => (all(2), false),
                Object::List(_) | Object::Code(_) => (true, false),
                _ => continue,
            };
            if !is_good {
                return not_lazy("a code object in a set, or in a key");
            }
            hashable[id.index()] = is_hashable;
        }
        Ok(())
    }

    /// Refuses what would take too long, and too much.
    fn check_budget(&self, dump_len: usize) -> Result<()> {
        let (graph, budget) = (self.graph, budget(dump_len));
        let record_len = |id: &NodeId| {
            let n_items = graph.operands(*id).iter().map(|held| graph.operands(*held).len()).sum::<usize>();
            n_items + self.bytes(bytecode(graph, *id)).len()
        };
        let left = self.codes.iter().try_fold(budget, |left, id| left.checked_sub(record_len(id)));
        match left {
            Some(_) => Ok(()),
            None => Err(ErrorKind::BudgetExceeded { what: "dehydrating", budget: budget as u64 }.into()),
        }
    }

    /// What a table of a code object holds.
    fn bytes(&self, table: NodeId) -> &'a [u8] {
        match *self.graph.object(table) {
            Object::Bytes(bytes) => bytes,
            _ => unreachable!("tables are bytes"),
        }
    }

    fn str(&self, id: NodeId) -> Option<Str<'a>> {
        match self.graph.object(id) {
            Object::Str(text) => Some(*text),
            _ => None,
        }
    }

    /// Whether the str counts as interned: what CPython keeps one object of, it interns or might as well.
    fn is_interned(&self, id: NodeId) -> bool {
        self.str(id).is_some_and(|text| text.is_interned() || text.is_cached())
    }

    fn text_ref(&self, id: NodeId) -> TextRef {
        TextRef { number: self.text_numbers[id.index()], is_interned: self.is_interned(id) }
    }

    fn class(&self, id: NodeId) -> Class {
        class(self.graph.object(id))
    }

    /// Whether a tuple of a code object stands in its record, and not among the constants.
    fn is_listed(&self, field: Field, tuple: NodeId) -> bool {
        let items = self.graph.operands(tuple);
        let fits = self.options.layout == Layout::Compact
            || field.kind() != FieldKind::Names
            || items.iter().all(|name| self.is_interned(*name));
        items.is_empty() || self.graph.uses(tuple) == 1 && fits
    }

    /// Whether a constant of a code object that is lazy needs a program: in the compact layout, a str or a code object
    /// stands in the record by its number, and so does an int that nothing else holds.
    fn needs_program(&self, id: NodeId) -> bool {
        let is_listed = match self.graph.object(id) {
            Object::Str(_) | Object::Code(_) => true,
            Object::Int(_) | Object::Long(_) => self.graph.uses(id) == 1,
            _ => false,
        };
        self.options.layout == Layout::Draft || !is_listed
    }

    /// Whether several values need the object, so that it must be a constant of its own. Some are one object anyway.
    fn is_shared(&self, id: NodeId) -> bool {
        let is_one = matches!(self.graph.object(id), Object::Str(_) | Object::Bytes(_) | Object::Code(_));
        self.graph.uses(id) > 1 && !is_one && self.class(id) == Class::Lazy
    }

    // --- Numbers ---

    /// Numbers str and constants.
    fn number(&mut self) {
        for number in 0..self.codes.len() {
            for (field, tuple) in fields(self.graph, self.codes[number]) {
                if field.kind() == FieldKind::Str {
                    if self.text_numbers[tuple.index()] == NONE {
                        self.add_text(tuple);
                    }
                    continue;
                }
                if !self.is_listed(field, tuple) {
                    // It stands in no run, so one entry is enough.
                    if self.constant_numbers[tuple.index()] == NONE {
                        self.add_constant(tuple);
                    }
                    continue;
                }
                let is_names = field.kind() == FieldKind::Names;
                let base = if is_names { self.texts.len() } else { self.constants.len() };
                self.ranges[number][field as usize] = base as u32;
                for &item in self.graph.operands(tuple) {
                    if is_names {
                        self.add_text(item);
                    } else if self.class(item) == Class::Lazy && self.needs_program(item) {
                        self.add_constant(item);
                    }
                }
            }
        }
        // What has no number yet stands in no run, so a redirect to it would be of no use.
        for id in self.graph.ids() {
            if self.constant_numbers[id.index()] == NONE && self.is_shared(id) {
                self.add_constant(id);
            }
            if self.text_numbers[id.index()] == NONE && self.str(id).is_some() && self.class(id) == Class::Lazy {
                self.add_text(id);
            }
        }
        if self.options.layout == Layout::Compact {
            self.sort();
        }
    }

    /// Gives a str the next number. If it has one, the draft's layout has a redirect to that there.
    fn add_text(&mut self, id: NodeId) {
        let is_draft = self.options.layout == Layout::Draft;
        add(id, &mut self.text_numbers, &mut self.texts, is_draft);
    }

    fn add_constant(&mut self, id: NodeId) {
        let is_draft = self.options.layout == Layout::Draft;
        add(id, &mut self.constant_numbers, &mut self.constants, is_draft);
    }

    /// Compact layout: the numbers that are used most are the smallest, so that they take the fewest bytes.
    fn sort(&mut self) {
        let graph = self.graph;
        let is_interned: Vec<bool> = graph.ids().map(|id| self.is_interned(id)).collect();
        let own = |entry: &Entry<NodeId>| match entry {
            Entry::Own(id) => *id,
            Entry::Redirect(_) => unreachable!("the compact layout has none"),
        };
        self.texts.sort_by_key(|entry| {
            let id = own(entry);
            (!is_interned[id.index()], u32::MAX - graph.uses(id))
        });
        self.constants.sort_by_key(|entry| u32::MAX - graph.uses(own(entry)));
        self.n_interned = self.texts.iter().filter(|entry| is_interned[own(entry).index()]).count() as u32;
        for (number, entry) in (0..).zip(&self.texts) {
            self.text_numbers[own(entry).index()] = number;
        }
        for (number, entry) in (0..).zip(&self.constants) {
            self.constant_numbers[own(entry).index()] = number;
        }
    }

    /// The number of a blob for a node, which has one.
    fn blob(&mut self, id: NodeId, make: impl FnOnce() -> Blob<'a>) -> u32 {
        if self.blob_numbers[id.index()] == NONE {
            self.blob_numbers[id.index()] = self.new_blob(make());
        }
        self.blob_numbers[id.index()]
    }

    fn new_blob(&mut self, blob: Blob<'a>) -> u32 {
        self.blobs.push(blob);
        self.blobs.len() as u32 - 1
    }

    // --- What is written ---

    fn parts(mut self, python: Python) -> Parts<'a> {
        let mut codes = Vec::with_capacity(self.codes.len());
        let mut bytecodes = Bytecodes::default();
        let (mut scratch, mut places) = (Scratch::default(), Places::new());
        for number in 0..self.codes.len() {
            codes.push(self.record(number, python, &mut scratch, &mut places, &mut bytecodes));
        }
        let entries = std::mem::take(&mut self.constants);
        let mut constants = Vec::with_capacity(entries.len());
        for entry in entries {
            constants.push(match entry {
                Entry::Own(id) => Entry::Own(self.program(id)),
                Entry::Redirect(number) => Entry::Redirect(number),
            });
        }
        let graph = self.graph;
        let text = |id: NodeId| match graph.object(id) {
            Object::Str(text) => text.to_utf8(&mut Vec::new()).to_vec(),
            _ => unreachable!("only str are among the texts"),
        };
        let texts = self.texts.into_iter().map(|entry| match entry {
            Entry::Own(id) => Entry::Own(text(id)),
            Entry::Redirect(number) => Entry::Redirect(number),
        });
        let texts = texts.collect();
        Parts { layout: self.options.layout, codes, constants, texts, n_interned: self.n_interned, blobs: self.blobs }
    }

    /// The record of a code object, in bytes.
    fn record(
        &mut self,
        number: usize,
        python: Python,
        scratch: &mut Scratch,
        places: &mut Places,
        bytecodes: &mut Bytecodes,
    ) -> Vec<u8> {
        let (id, graph) = (self.codes[number], self.graph);
        let Object::Code(code) = graph.object(id) else { unreachable!("it is a code object") };
        let code = graph.heap.code(*code);
        scratch.names.clear();
        scratch.consts.clear();
        let mut record = Record::new();
        for &field in &python.layout().numbers {
            record.numbers[field as usize] = code.number(field);
        }
        let mut classes = Vec::new();
        for (field, held) in fields(graph, id) {
            let (at, items) = (field as usize, graph.operands(held));
            if field.kind() == FieldKind::Str {
                record.texts[at] = self.text_ref(held);
                continue;
            }
            if field == Field::Consts {
                classes = items.iter().map(|item| self.class(*item)).collect();
            }
            if field == Field::Names {
                places.set_n_names(items.len());
            }
            let len = items.len();
            record.tuples[at] = if !self.is_listed(field, held) {
                TupleRef::Constant(self.constant_numbers[held.index()])
            } else if field == Field::Consts {
                let start = scratch.consts.len();
                for &item in items {
                    scratch.consts.push(self.const_ref(item));
                }
                TupleRef::List { start, len }
            } else if self.options.layout == Layout::Draft {
                TupleRef::Range { base: self.ranges[number][at], len: len as u32 }
            } else {
                let start = scratch.names.len();
                scratch.names.extend(items.iter().map(|name| self.text_ref(*name)));
                TupleRef::List { start, len }
            };
        }
        places.clear();
        (0..).zip(&classes).for_each(|(at, class)| places.add(at, *class));
        let mut made = Vec::new();
        for (field, table) in tables(graph, id) {
            if field == Field::Code
                && self.make_bytecode(table, python, (&classes, places), bytecodes, &mut record, &mut made)
            {
                continue;
            }
            let bytes = self.bytes(table);
            let is_alone = graph.uses(table) + graph.table_uses(table) == 1;
            record.tables[field as usize] = if is_alone && self.options.layout == Layout::Compact {
                TableRef::Inline(bytes)
            } else {
                TableRef::Blob(self.blob(table, || Blob::Bytes(bytes)))
            };
        }
        if record.flags & (REWRITTEN | STRIPPED) != 0 {
            record.tables[Field::Code as usize] = match self.options.layout {
                Layout::Compact => TableRef::Inline(&made),
                Layout::Draft => TableRef::Blob(bytecodes.number(&made, |blob| self.new_blob(blob))),
            };
        }
        let mut out = Vec::new();
        write_code(
            self.options.layout,
            python,
            &record,
            scratch,
            self.ranges[number][Field::Consts as usize],
            &mut out,
        );
        out
    }

    fn const_ref(&mut self, id: NodeId) -> ConstRef {
        match (self.class(id), self.graph.object(id)) {
            (Class::Int(value), _) => ConstRef::Int(value),
            (Class::Common(number), _) => ConstRef::Common(number),
            (Class::Lazy, _) if self.needs_program(id) => ConstRef::Constant(self.constant_numbers[id.index()]),
            (Class::Lazy, Object::Str(_)) => ConstRef::Text(self.text_ref(id)),
            (Class::Lazy, Object::Int(value)) => ConstRef::Long(self.blob(id, || long(&(*value).into()))),
            (Class::Lazy, Object::Long(value)) => {
                let value = self.graph.heap.long(*value);
                ConstRef::Long(self.blob(id, || long(value)))
            }
            (Class::Lazy, _) => ConstRef::Code(self.code_numbers[id.index()]),
        }
    }

    /// Makes the bytecode that is stored instead of the original, and says so in the record. `false` if the original is
    /// stored: nothing could be changed, or something other than code objects holds the same object.
    fn make_bytecode(
        &self,
        id: NodeId,
        python: Python,
        constants: (&[Class], &Places),
        bytecodes: &mut Bytecodes,
        record: &mut Record<'_>,
        made: &mut Vec<u8>,
    ) -> bool {
        let original = self.bytes(id);
        let n_uses = self.bytecode_uses[id.index()];
        if self.graph.uses(id) + self.graph.table_uses(id) != n_uses {
            return false;
        }
        let strips = self.options.strip_caches.unwrap_or(self.options.layout == Layout::Compact);
        let mut stripped = Vec::new();
        let bytecode = if strips && caches::strip(python, original, &mut stripped) {
            record.flags |= STRIPPED;
            &stripped
        } else {
            original
        };
        if forward(python, bytecode, record.flags & STRIPPED == 0, constants, made) {
            record.flags |= REWRITTEN;
        } else {
            made.extend_from_slice(bytecode);
        }
        if record.flags == 0 {
            return false;
        }
        if n_uses > 1 {
            record.flags |= SHARED;
            let next = bytecodes.shared.len() as u32;
            record.shared = *bytecodes.shared.entry(id).or_insert(next);
        }
        true
    }

    /// The program of a constant: most values on its stack, and the wordcode.
    fn program(&mut self, root: NodeId) -> (u32, Vec<u8>) {
        enum Work {
            Make(NodeId),
            /// All that it holds is on the stack.
            Build(NodeId),
        }
        let graph = self.graph;
        let (mut wordcode, mut depth, mut max_depth) = (Vec::new(), 0, 0);
        let mut todo = vec![Work::Make(root)];
        while let Some(work) = todo.pop() {
            match work {
                Work::Make(id) if id != root && self.constant_numbers[id.index()] != NONE && !self.is_direct(id) => {
                    encode(Op::LazyLoadConstant, self.constant_numbers[id.index()], &mut wordcode);
                    depth += 1;
                }
                Work::Make(id) => {
                    if let Some(own) = self.leaf(id, &mut wordcode) {
                        max_depth = max_depth.max(depth + own);
                        depth += 1;
                    } else {
                        todo.push(Work::Build(id));
                        todo.extend(graph.operands(id).iter().rev().map(|held| Work::Make(*held)));
                    }
                }
                Work::Build(id) => {
                    let n = graph.operands(id).len() as u32;
                    let (op, oparg) = match graph.object(id) {
                        Object::Tuple(_) => (Op::BuildTuple, n),
                        Object::List(_) => (Op::BuildList, n),
                        Object::Set(_) => (Op::BuildSet, n),
                        Object::FrozenSet(_) => (Op::MakeFrozenSet, n),
                        Object::Dict(_) => (Op::BuildMap, n / 2),
                        Object::FrozenDict(_) => (Op::MakeFrozenDict, n / 2),
                        _ => (Op::BuildSlice, n),
                    };
                    encode(op, oparg, &mut wordcode);
                    depth = depth + 1 - n;
                }
            }
            max_depth = max_depth.max(depth);
        }
        encode(Op::ReturnConstant, self.constant_numbers[root.index()], &mut wordcode);
        (max_depth, wordcode)
    }

    /// Whether a program makes the object by an instruction, though it may be a constant of its own too.
    fn is_direct(&self, id: NodeId) -> bool {
        let is_one = matches!(self.graph.object(id), Object::Str(_) | Object::Bytes(_) | Object::Code(_));
        is_one || self.class(id) != Class::Lazy
    }

    /// Appends what makes an object that holds no others; how many values that takes on the stack.
    fn leaf(&mut self, id: NodeId, wordcode: &mut Vec<u8>) -> Option<u32> {
        let graph = self.graph;
        let (op, oparg) = match (self.class(id), *graph.object(id)) {
            (Class::Int(value), _) => (Op::MakeInt, u32::from(value)),
            (Class::Common(number), _) => (Op::LoadCommon, u32::from(number)),
            (Class::Lazy, Object::Str(_)) => {
                let TextRef { number, is_interned } = self.text_ref(id);
                (if is_interned { Op::MakeInternedString } else { Op::MakeString }, number)
            }
            (Class::Lazy, Object::Bytes(bytes)) => (Op::MakeBytes, self.blob(id, || Blob::Bytes(bytes))),
            (Class::Lazy, Object::Code(_)) => (Op::MakeCodeObject, self.code_numbers[id.index()]),
            (Class::Lazy, Object::Int(value)) => (Op::MakeLong, self.blob(id, || long(&value.into()))),
            (Class::Lazy, Object::Long(value)) => (Op::MakeLong, self.blob(id, || long(graph.heap.long(value)))),
            (Class::Lazy, Object::Float(bits)) => (Op::MakeFloat, self.blob(id, || Blob::Float(bits))),
            (Class::Lazy, Object::Complex { real, imag }) => {
                for part in [real, imag] {
                    encode(Op::MakeFloat, self.new_blob(Blob::Float(part)), wordcode);
                }
                encode(Op::MakeComplex, 0, wordcode);
                return Some(2);
            }
            _ => return None,
        };
        encode(op, oparg, wordcode);
        Some(1)
    }
}

fn long(value: &num_bigint::BigInt) -> Blob<'static> {
    let mut bytes = Vec::new();
    write_long(value, &mut bytes);
    Blob::Long(bytes)
}

/// Gives a node the next number; if it has one, a redirect where these are wanted.
fn add(id: NodeId, numbers: &mut [u32], entries: &mut Vec<Entry<NodeId>>, redirects: bool) {
    let number = &mut numbers[id.index()];
    if *number == NONE {
        *number = entries.len() as u32;
        entries.push(Entry::Own(id));
    } else if redirects {
        entries.push(Entry::Redirect(*number));
    }
}

/// The fields of a code object that are made of names or constants, in the order of marshal.
fn fields<'g>(graph: &'g Graph<'_, '_>, id: NodeId) -> impl Iterator<Item = (Field, NodeId)> + use<'g> {
    let (operands, layout) = (graph.operands(id), graph.heap.python().layout());
    let wanted = layout.fields.iter().filter(|field| !matches!(field.kind(), FieldKind::Number | FieldKind::Bytes));
    wanted.map(move |field| {
        let place = layout.operands.iter().position(|operand| operand == field).expect("it is an operand");
        (*field, operands[place])
    })
}

/// The bytecode of a code object: of all versions the first table.
fn bytecode(graph: &Graph<'_, '_>, id: NodeId) -> NodeId {
    graph.tables(id)[0]
}

/// The tables of a code object.
fn tables<'g>(graph: &'g Graph<'_, '_>, id: NodeId) -> impl Iterator<Item = (Field, NodeId)> + use<'g> {
    graph.heap.python().layout().tables.iter().copied().zip(graph.tables(id).iter().copied())
}

/// Rewritten bytecode, as far as code objects have the same.
#[derive(Debug, Default)]
struct Bytecodes {
    /// By the original that several share: its number.
    shared: IndexMap<NodeId, u32>,
    /// Draft: the blob of short ones.
    blobs: IndexMap<Vec<u8>, u32>,
}

/// Longer bytecode is stored again for each code object: what a file expands to is bounded by its size.
const MAX_COMMON: usize = 64;

impl Bytecodes {
    fn number<'a>(&mut self, made: &[u8], mut add: impl FnMut(Blob<'a>) -> u32) -> u32 {
        if let Some(number) = self.blobs.get(made) {
            return *number;
        }
        let number = add(Blob::Made(made.to_vec()));
        if made.len() <= MAX_COMMON {
            self.blobs.insert(made.to_vec(), number);
        }
        number
    }
}

// --- Bytes ---

impl Parts<'_> {
    /// Appends the container, whose sizes are filled in later.
    fn encode(&self, file: &mut Vec<u8>) -> Result<()> {
        file.extend_from_slice(&MAGIC);
        let version: u16 = match self.layout {
            Layout::Draft => 0,
            Layout::Compact => 1,
        };
        file.extend_from_slice(&version.to_le_bytes());
        let n_codes = if self.layout == Layout::Draft { self.codes.len() as u16 } else { 0 };
        file.extend_from_slice(&n_codes.to_le_bytes());
        file.resize(file.len() + HEADER_LEN - MAGIC.len() - 4, 0);
        match self.layout {
            Layout::Draft => self.encode_draft(file),
            Layout::Compact => self.encode_compact(file),
        }
    }

    fn encode_draft(&self, file: &mut Vec<u8>) -> Result<()> {
        // Offsets are filled in as soon as what they point to is written.
        let room = |file: &mut Vec<u8>, len: usize, with_len: bool| {
            if with_len {
                file.extend_from_slice(&(len as u32).to_le_bytes());
            }
            let at = file.len();
            file.resize(at + 4 * len, 0);
            at
        };
        let codes = room(file, self.codes.len(), false);
        let constants = room(file, self.constants.len(), true);
        let texts = room(file, self.texts.len(), true);
        let blobs = room(file, self.blobs.len(), true);
        let align = |file: &mut Vec<u8>, to: usize| file.resize(file.len().next_multiple_of(to), 0);
        for (number, code) in self.codes.iter().enumerate() {
            align(file, 4);
            let offset = file.len();
            put(file, codes + 4 * number, offset)?;
            file.extend_from_slice(code);
        }
        for (number, constant) in self.constants.iter().enumerate() {
            let at = constants + 4 * number;
            match constant {
                Entry::Redirect(number) => put(file, at, (*number as usize) << 1 | 1)?,
                Entry::Own((max_stack, wordcode)) => {
                    align(file, 4);
                    let offset = file.len();
                    put(file, at, offset)?;
                    file.extend_from_slice(&max_stack.to_le_bytes());
                    file.extend_from_slice(&(wordcode.len() as u32 / 2).to_le_bytes());
                    file.extend_from_slice(wordcode);
                }
            }
        }
        for (number, text) in self.texts.iter().enumerate() {
            let at = texts + 4 * number;
            match text {
                Entry::Redirect(number) => put(file, at, (*number as usize) << 1 | 1)?,
                Entry::Own(text) => {
                    align(file, 2);
                    let offset = file.len();
                    put(file, at, offset)?;
                    varint::write(file, text.len() as u32);
                    file.extend_from_slice(text);
                }
            }
        }
        for (number, blob) in self.blobs.iter().enumerate() {
            align(file, if matches!(blob, Blob::Float(_)) { 8 } else { 2 });
            let offset = file.len();
            put(file, blobs + 4 * number, offset)?;
            if let Blob::Bytes(_) | Blob::Made(_) = blob {
                varint::write(file, blob.bytes().len() as u32);
            }
            file.extend_from_slice(&blob.bytes());
        }
        Ok(())
    }

    fn encode_compact(&self, file: &mut Vec<u8>) -> Result<()> {
        let mut constants = Vec::with_capacity(self.constants.len());
        for constant in &self.constants {
            let Entry::Own((max_stack, wordcode)) = constant else {
                unreachable!("the compact layout has no redirects")
            };
            let mut out = Vec::with_capacity(wordcode.len() + 1);
            varint::write(&mut out, *max_stack);
            out.extend_from_slice(wordcode);
            constants.push(out);
        }
        let texts: Vec<Vec<u8>> = self
            .texts
            .iter()
            .map(|text| match text {
                Entry::Own(text) => text.clone(),
                Entry::Redirect(_) => unreachable!("the compact layout has no redirects"),
            })
            .collect();
        let blobs: Vec<Vec<u8>> = self.blobs.iter().map(|blob| blob.bytes().to_vec()).collect();
        let tables = [&self.codes, &constants, &texts, &blobs];
        for table in tables {
            varint::write(file, table.len() as u32);
        }
        varint::write(file, self.n_interned);
        let mut areas = [0; 4];
        for (area, table) in areas.iter_mut().zip(tables) {
            *area = table.iter().map(Vec::len).sum();
            varint::write(file, small(*area)?);
        }
        for (area, table) in areas.into_iter().zip(tables) {
            let (mut end, width) = (0, width(area));
            for entry in table {
                end += entry.len();
                file.extend_from_slice(&end.to_le_bytes()[..width]);
            }
        }
        for table in tables {
            table.iter().for_each(|entry| file.extend_from_slice(entry));
        }
        Ok(())
    }
}

impl Blob<'_> {
    fn bytes(&self) -> std::borrow::Cow<'_, [u8]> {
        match self {
            Self::Bytes(bytes) => std::borrow::Cow::Borrowed(bytes),
            Self::Made(bytes) | Self::Long(bytes) => std::borrow::Cow::Borrowed(bytes),
            Self::Float(bits) => std::borrow::Cow::Owned(bits.to_le_bytes().to_vec()),
        }
    }
}
