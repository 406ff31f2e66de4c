//! The machine that hydrates: makes code objects and constants when they are needed, each once.
//!
//! A code object is dehydrated (an empty one stands for it), partially hydrated (its record is read), and fully hydrated (it
//! has all its constants and names, and its bytecode as it was before it was rewritten). `LAZY_LOAD_CONSTANT` executes the
//! constant's program: an invocation record keeps where that stands and where its own stack begins; `RETURN_CONSTANT` stores
//! the value, drops the record, and the one below goes on.
//!
//! Invariants:
//! - What is executed was verified just before: known instructions, operands in range, the stack's height as stated.
//! - A constant is built once. One that needs itself is an error, found where it is needed again.
//! - A code object holds only such as come after it: a value knows the first code object in it.
//! - Work and memory are bounded by a multiple of the file, however much its parts overlap.

use indexmap::IndexMap;

use super::layout::{
    ConstRef, REWRITTEN, Record, SHARED, STRIPPED, Scratch, TableRef, TextRef, TupleRef, read_long, read_short,
};
use super::ops::{Op, Oparg, decode};
use super::rewrite::{Class, Misfit, Places, class, reverse};
use super::{Container, What};
use crate::common::{self, CommonConst};
use crate::error::{Error, ErrorKind, Result};
use crate::heap::{Code, Heap, Items, Object, ObjectId, Str, fixed};
use crate::python::{Field, FieldKind, count_kinds};

/// How far a code object is hydrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing of it is read.
    Dehydrated,
    /// Its record is read; its constants are not all there.
    Partially,
    /// It is as it was compiled.
    Fully,
}

/// Who needed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The code object of this number, for a field or for one of its constants.
    Code {
        /// Its number.
        number: u32,
        /// What it is needed for.
        field: Field,
        /// Where in that field, if it is one of several constants.
        place: Option<u32>,
    },
    /// The constant of this number.
    Constant(u32),
}

/// What the machine did.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// A code object reached a state.
    Code {
        /// Its number.
        number: u32,
        /// The state.
        state: State,
        /// The object.
        object: ObjectId,
    },
    /// A constant was built.
    Constant {
        /// Its number.
        number: u32,
        /// Who needed it.
        cause: Cause,
        /// How many invocation records lay below its own.
        depth: usize,
        /// The object.
        object: ObjectId,
    },
}

/// How much of a container was read: entries, and bytes of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Touched {
    /// Code objects, constants, str, blobs.
    pub entries: [usize; 4],
    /// Bytes of each kind.
    pub bytes: [usize; 4],
}

impl Touched {
    fn add(&mut self, what: What, len: usize) {
        self.entries[what as usize] += 1;
        self.bytes[what as usize] += len;
    }
}

/// A value on the stack.
#[derive(Debug, Clone, Copy)]
struct Value {
    object: ObjectId,
    /// The first of the code objects that it holds, or [`NO_CODE`].
    first_code: u32,
    hashable: bool,
    /// Whether it is a tuple of str.
    is_names: bool,
}

const NO_CODE: u32 = u32::MAX;

impl Value {
    fn leaf(object: ObjectId) -> Self {
        Self { object, first_code: NO_CODE, hashable: true, is_names: false }
    }
}

#[derive(Debug, Clone, Copy)]
enum Constant {
    New,
    /// An invocation record is building it.
    Building,
    Built(Value),
}

/// What it takes to go on with a constant when one that it needs is built.
struct Invocation<'c> {
    constant: u32,
    wordcode: &'c [u8],
    /// The program counter, in bytes.
    at: usize,
    /// Where the wordcode stands in the file.
    place: usize,
    /// Where its own stack begins, which is where that of the record below ends.
    stack: usize,
    cause: Cause,
}

const NONE: u32 = u32::MAX;

/// What hydrating may read and hold, in bytes, for a file of so many: entries of the draft's layout may overlap.
fn budget(file_len: usize) -> usize {
    16 * file_len + (64 << 10)
}

/// What an empty code object counts for.
const CODE_COST: usize = 100;

/// Hydrates the objects of a container.
///
/// What was wrong once is wrong again: after an error, it can go on with other code objects.
pub struct Machine<'c> {
    container: &'c Container<'c>,
    heap: Heap<'c>,
    codes: Vec<(u32, State)>,
    /// The numbers of the code objects, in the order in which they were made.
    numbers: Vec<u32>,
    constants: Vec<Constant>,
    /// Twice the number of a str, and 1 if it is interned: the object.
    texts: Vec<u32>,
    /// By number: the object, if it is bytes.
    blobs: Vec<u32>,
    /// Tuples of names that stand in the string table, by where they do.
    ranges: IndexMap<(u32, u32), ObjectId, foldhash::fast::RandomState>,
    /// Bytecode that several code objects have.
    shared: IndexMap<u32, ObjectId, foldhash::fast::RandomState>,
    ints: [u32; 256],
    commons: [u32; common::CONSTS.len()],
    stack: Vec<Value>,
    invocations: Vec<Invocation<'c>>,
    scratch: Scratch,
    /// The room of the last record.
    record: Option<Box<Record<'c>>>,
    items: Vec<ObjectId>,
    places: Places,
    events: Option<Vec<Event>>,
    touched: Touched,
    budget: usize,
}

/// Hydrates everything: the objects, and the module's code object.
///
/// # Errors
/// Whatever of the container is wrong: at the file's byte, inside the code object or the constant.
pub fn hydrate<'c>(container: &'c Container<'c>) -> Result<(Heap<'c>, ObjectId)> {
    let mut machine = Machine::new(container);
    // As measured: an entry of any kind is one object, and a code object with its tables and tuples six more.
    let [codes, constants, texts, blobs] = container.counts().map(|count| count as usize);
    let objects = 7 * codes + constants + texts + blobs;
    // What the file claims, as far as it may be true.
    let (objects, items) = (objects.min(container.file.len() / 8 + 64), container.file.len() / 16);
    machine.heap = Heap::with_capacity(container.python(), objects, items);
    machine.hydrate_all()?;
    Ok(machine.finish())
}

impl<'c> Machine<'c> {
    /// A machine that has hydrated nothing.
    pub fn new(container: &'c Container<'c>) -> Self {
        let count = |what| container.table(what).len as usize;
        Self {
            container,
            heap: Heap::new(container.python()),
            codes: vec![(NONE, State::Dehydrated); count(What::Code)],
            numbers: Vec::new(),
            constants: vec![Constant::New; count(What::Constant)],
            texts: vec![NONE; 2 * count(What::Text)],
            blobs: vec![NONE; count(What::Blob)],
            ranges: IndexMap::default(),
            shared: IndexMap::default(),
            ints: [NONE; 256],
            commons: [NONE; common::CONSTS.len()],
            stack: Vec::new(),
            invocations: Vec::new(),
            scratch: Scratch::default(),
            record: None,
            items: Vec::new(),
            places: Places::new(),
            events: None,
            touched: Touched::default(),
            budget: budget(container.file.len()),
        }
    }

    /// Keeps [`Machine::events`] from now on.
    #[must_use]
    pub fn traced(mut self) -> Self {
        self.events = Some(Vec::new());
        self
    }

    /// What it did, if it is traced.
    pub fn events(&self) -> &[Event] {
        self.events.as_deref().unwrap_or_default()
    }

    /// How much it read.
    pub fn touched(&self) -> Touched {
        self.touched
    }

    /// The objects so far. A code object that is dehydrated stands there empty.
    pub fn heap(&self) -> &Heap<'c> {
        &self.heap
    }

    pub(crate) fn container(&self) -> &'c Container<'c> {
        self.container
    }

    /// The code object of a number, if anybody needed it.
    pub(crate) fn object(&self, code: u32) -> Option<ObjectId> {
        let code = self.container.resolve(What::Code, code).ok()?;
        let (object, _) = self.codes[code as usize];
        (object != NONE).then(|| ObjectId::from_number(object))
    }

    /// The number of a code object.
    pub(crate) fn number_of(&self, object: ObjectId) -> Option<u32> {
        let Object::Code(id) = self.heap[object] else { return None };
        self.numbers.get(id.index()).copied()
    }

    /// The value of a constant, built now if it was not before.
    pub(crate) fn built(&mut self, constant: u32) -> Result<ObjectId> {
        let cause = Cause::Constant(constant);
        self.constant(constant, cause).map(|value| value.object)
    }

    /// How far the code object of a number is hydrated.
    pub fn state(&self, code: u32) -> State {
        self.codes.get(code as usize).map_or(State::Dehydrated, |(_, state)| *state)
    }

    /// The objects, and the module's code object.
    pub fn finish(mut self) -> (Heap<'c>, ObjectId) {
        let root = self.code_object(0).expect("a container has a code object");
        (self.heap, root)
    }

    /// Hydrates every code object.
    ///
    /// # Errors
    /// As [`Machine::hydrate`].
    pub fn hydrate_all(&mut self) -> Result<()> {
        (0..self.codes.len() as u32).try_for_each(|code| self.hydrate(code))
    }

    /// Hydrates the code object of a number; those that it holds stay dehydrated.
    ///
    /// # Errors
    /// What is wrong with its record, and with what that needs; [`ErrorKind::CyclicNeed`].
    pub fn hydrate(&mut self, code: u32) -> Result<()> {
        let code = self.container.resolve(What::Code, code)?;
        if self.state(code) == State::Fully {
            return Ok(());
        }
        self.within(code, |machine, record| machine.hydrate_record(code, record))
    }

    /// What executing `LAZY_LOAD_CONSTANT` gives: a constant of a code object, by its place in `co_consts`. That, and what it
    /// needs, is built now if it was not before; the code object is hydrated no further than partially.
    ///
    /// # Errors
    /// As [`Machine::hydrate`]; [`ErrorKind::NoSuchEntry`] if it has no such constant.
    pub fn load_constant(&mut self, code: u32, place: u32) -> Result<ObjectId> {
        let code = self.container.resolve(What::Code, code)?;
        self.within(code, |machine, record| {
            machine.begin(code, record)?;
            let no_such = |count| no_such(What::Constant, place, count);
            match record.tuples[Field::Consts as usize] {
                TupleRef::List { start, len } if (place as usize) < len => {
                    let held = machine.scratch.consts[start + place as usize];
                    machine.held(held, code, place)
                }
                TupleRef::List { len, .. } => Err(no_such(len)),
                _ => {
                    let consts = machine.consts(record, code)?;
                    let held = machine.heap.held(consts);
                    held.get(place as usize).copied().ok_or_else(|| no_such(held.len()))
                }
            }
        })
    }

    /// Does something for a code object, with the room for its record; an error says where it was met.
    fn within<T>(&mut self, code: u32, work: impl FnOnce(&mut Self, &mut Record<'c>) -> Result<T>) -> Result<T> {
        let mut record = self.record.take().unwrap_or_else(|| Box::new(Record::new()));
        let done = work(self, &mut record);
        self.record = Some(record);
        done.map_err(|error| {
            // What was begun is to begin anew.
            self.stack.clear();
            let mut path = format!("code object {code}");
            for invocation in self.invocations.drain(..) {
                path.push_str(&format!(" > constant {}", invocation.constant));
                self.constants[invocation.constant as usize] = Constant::New;
            }
            if error.path().is_empty() { error.inside(path) } else { error }
        })
    }

    /// Reads the record of a code object: it is hydrated partially. The object.
    fn begin(&mut self, number: u32, record: &mut Record<'c>) -> Result<ObjectId> {
        let object = self.code_object(number)?;
        self.scratch.names.clear();
        self.scratch.consts.clear();
        let len = self.container.code(number, record, &mut self.scratch)?;
        self.charge(len)?;
        if self.state(number) == State::Dehydrated {
            self.touched.add(What::Code, len);
            self.reach(number, State::Partially, object);
        }
        Ok(object)
    }

    fn hydrate_record(&mut self, number: u32, record: &mut Record<'c>) -> Result<()> {
        let object = self.begin(number, record)?;
        let layout = self.heap.python().layout();
        let (mut code, mut lens) = (Code::EMPTY, [0; Field::COUNT]);
        for &field in &layout.numbers {
            code.set_number(field, record.numbers[field as usize]);
        }
        for &field in &layout.fields {
            let at = field as usize;
            match field.kind() {
                FieldKind::Str => code.set_object(field, self.text(record.texts[at])?),
                FieldKind::Names => {
                    let value = self.names(record.tuples[at], number, field)?;
                    lens[at] = self.len(value);
                    code.set_object(field, value);
                }
                FieldKind::Tuple => code.set_object(field, self.consts(record, number)?),
                FieldKind::Number | FieldKind::Bytes => {}
            }
        }
        // The bytecode comes last: where constants and names stand must be known.
        let Object::Tuple(names) = self.heap[code.object(Field::Names)] else { unreachable!("it was just made") };
        self.places.set_n_names(names.len());
        let mut n_locals = lens[Field::VarNames as usize];
        for &field in &layout.tables {
            let table = match field {
                Field::Code => self.bytecode(record, number)?,
                _ => self.blob(record.tables[field as usize])?,
            };
            let Object::Bytes(bytes) = self.heap[table] else { unreachable!("it was just made") };
            lens[field as usize] = bytes.len();
            if field == Field::LocalsPlusKinds {
                n_locals = count_kinds(bytes).n_locals as usize;
            }
            code.set_object(field, table);
        }
        let python = self.heap.python();
        let refused = python.refuses_code(|field| code.number(field), |field| lens[field as usize]);
        if let Some(why) = refused.or_else(|| python.refuses_arguments(|field| code.number(field), n_locals)) {
            return Err(ErrorKind::BadCode(why).into());
        }
        let Object::Code(id) = self.heap[object] else { unreachable!("an empty code object stands there") };
        *self.heap.code_mut(id) = code;
        self.reach(number, State::Fully, object);
        Ok(())
    }

    fn reach(&mut self, number: u32, state: State, object: ObjectId) {
        self.codes[number as usize].1 = state;
        if let Some(events) = &mut self.events {
            events.push(Event::Code { number, state, object });
        }
    }

    #[inline]
    fn charge(&mut self, cost: usize) -> Result<()> {
        match self.budget.checked_sub(cost) {
            Some(left) => self.budget = left,
            None => {
                let budget = budget(self.container.file.len()) as u64;
                return Err(ErrorKind::BudgetExceeded { what: "hydrating", budget }.into());
            }
        }
        Ok(())
    }

    /// A code object as it is; an empty one if it is dehydrated.
    fn code_object(&mut self, number: u32) -> Result<ObjectId> {
        let Some((object, _)) = self.codes.get(number as usize) else {
            return Err(no_such(What::Code, number, self.codes.len()));
        };
        if *object != NONE {
            return Ok(ObjectId::from_number(*object));
        }
        // Counted here, so that the draft's redirects lead to one object.
        let number = self.container.resolve(What::Code, number)?;
        if self.codes[number as usize].0 == NONE {
            self.charge(CODE_COST)?;
            let code = self.heap.add_code(Code::EMPTY);
            self.numbers.push(number);
            self.codes[number as usize].0 = self.heap.add(Object::Code(code)).number();
        }
        Ok(ObjectId::from_number(self.codes[number as usize].0))
    }

    fn len(&self, tuple: ObjectId) -> usize {
        self.heap.held(tuple).len()
    }

    // --- What a record holds ---

    #[inline]
    fn text(&mut self, text: TextRef) -> Result<ObjectId> {
        let slot = |text: TextRef| 2 * text.number as usize + usize::from(text.is_interned);
        if let Some(&object) = self.texts.get(slot(text))
            && object != NONE
        {
            return Ok(ObjectId::from_number(object));
        }
        self.new_text(text, slot)
    }

    fn new_text(&mut self, text: TextRef, slot: impl Fn(TextRef) -> usize) -> Result<ObjectId> {
        let own = slot(text);
        let text = TextRef { number: self.container.resolve(What::Text, text.number)?, ..text };
        if self.texts[slot(text)] == NONE {
            let (bytes, at) = self.container.text(text.number)?;
            self.charge(bytes.len())?;
            self.touched.add(What::Text, bytes.len());
            let text_of = |bytes| Str::utf8(bytes, text.is_interned);
            let made = text_of(bytes).map_err(|bad| Error::at(ErrorKind::BadUtf8(bad), at))?;
            self.texts[slot(text)] = self.heap.add(Object::Str(made)).number();
        }
        self.texts[own] = self.texts[slot(text)];
        Ok(ObjectId::from_number(self.texts[own]))
    }

    /// A tuple of names.
    fn names(&mut self, tuple: TupleRef, code: u32, field: Field) -> Result<ObjectId> {
        match tuple {
            TupleRef::Constant(constant) => {
                let value = self.constant(constant, Cause::Code { number: code, field, place: None })?;
                if value.is_names || value.object == fixed::EMPTY_TUPLE {
                    return Ok(value.object);
                }
                let (found, expected) = (self.heap[value.object].type_name(), "a tuple of str");
                Err(ErrorKind::WrongFieldType { field: field.name(), expected, found }.into())
            }
            TupleRef::Range { len: 0, .. } | TupleRef::List { len: 0, .. } => Ok(fixed::EMPTY_TUPLE),
            TupleRef::Range { base, len } => {
                if let Some(&object) = self.ranges.get(&(base, len)) {
                    return Ok(object);
                }
                let n_texts = self.container.table(What::Text).len;
                if base.checked_add(len).is_none_or(|end| end > n_texts) {
                    return Err(no_such(What::Text, base.saturating_add(len), n_texts as usize));
                }
                self.charge(4 * len as usize)?;
                self.items.clear();
                for number in base..base + len {
                    let name = self.text(TextRef { number, is_interned: true })?;
                    self.items.push(name);
                }
                let object = self.tuple_of_items();
                self.ranges.insert((base, len), object);
                Ok(object)
            }
            TupleRef::List { start, len } => {
                self.items.clear();
                for at in start..start + len {
                    let name = self.text(self.scratch.names[at])?;
                    self.items.push(name);
                }
                Ok(self.tuple_of_items())
            }
        }
    }

    fn tuple_of_items(&mut self) -> ObjectId {
        let items = self.heap.add_items(&self.items);
        self.heap.add(Object::Tuple(items))
    }

    /// The tuple of constants; notes where each stands.
    fn consts(&mut self, record: &Record<'_>, code: u32) -> Result<ObjectId> {
        self.places.clear();
        match record.tuples[Field::Consts as usize] {
            TupleRef::Constant(constant) => {
                let cause = Cause::Code { number: code, field: Field::Consts, place: None };
                let value = self.constant(constant, cause)?;
                check_order(value, code)?;
                let Object::Tuple(items) = self.heap[value.object] else {
                    let (found, expected) = (self.heap[value.object].type_name(), "a tuple");
                    let field = Field::Consts.name();
                    return Err(ErrorKind::WrongFieldType { field, expected, found }.into());
                };
                self.charge(items.len())?;
                for (at, item) in (0..).zip(self.heap.items(items)) {
                    self.places.add(at, class(&self.heap[*item]));
                }
                Ok(value.object)
            }
            TupleRef::List { len: 0, .. } => Ok(fixed::EMPTY_TUPLE),
            TupleRef::List { start, len } => {
                let items = self.heap.reserve_items(len as u32);
                for at in 0..len as u32 {
                    let held = self.scratch.consts[start + at as usize];
                    let object = self.held(held, code, at)?;
                    self.heap.set_item(items.start + at, object);
                    self.places.add(
                        at,
                        match held {
                            ConstRef::Int(value) => Class::Int(value),
                            ConstRef::Common(number) => Class::Common(number),
                            ConstRef::Text(_) | ConstRef::Constant(_) | ConstRef::Code(_) | ConstRef::Long(_) => {
                                Class::Lazy
                            }
                        },
                    );
                }
                Ok(self.heap.add(Object::Tuple(items)))
            }
            TupleRef::Range { .. } => unreachable!("constants are no str alone"),
        }
    }

    /// The constant at `at` of a code object.
    fn held(&mut self, held: ConstRef, code: u32, at: u32) -> Result<ObjectId> {
        Ok(match held {
            ConstRef::Int(value) => self.int(value),
            ConstRef::Common(number) => self.common(number),
            ConstRef::Text(text) => self.text(text)?,
            ConstRef::Long(blob) => self.long(blob)?,
            ConstRef::Constant(constant) => {
                let cause = Cause::Code { number: code, field: Field::Consts, place: Some(at) };
                let value = self.constant(constant, cause)?;
                check_order(value, code)?;
                value.object
            }
            ConstRef::Code(number) => {
                let object = self.code_object(number)?;
                let number = self.container.resolve(What::Code, number)?;
                check_order(Value { first_code: number, ..Value::leaf(object) }, code)?;
                object
            }
        })
    }

    fn blob(&mut self, table: TableRef<'c>) -> Result<ObjectId> {
        let number = match table {
            TableRef::Inline(bytes) => return Ok(self.heap.add(Object::Bytes(bytes))),
            TableRef::Blob(number) => number,
        };
        let number = self.container.resolve(What::Blob, number)?;
        if self.blobs[number as usize] == NONE {
            let (bytes, _) = self.container.bytes(number)?;
            self.touched.add(What::Blob, bytes.len());
            self.blobs[number as usize] = self.heap.add(Object::Bytes(bytes)).number();
        }
        Ok(ObjectId::from_number(self.blobs[number as usize]))
    }

    /// The bytecode as it was before it was rewritten.
    fn bytecode(&mut self, record: &Record<'c>, code: u32) -> Result<ObjectId> {
        let table = record.tables[Field::Code as usize];
        if record.flags & (REWRITTEN | STRIPPED | SHARED) == 0 {
            let object = self.blob(table)?;
            let Object::Bytes(bytes) = self.heap[object] else { unreachable!("a blob is bytes") };
            self.charge(bytes.len())?;
            return Ok(object);
        }
        let (bytes, place) = match table {
            TableRef::Inline(bytes) => (bytes, None),
            TableRef::Blob(number) => {
                let (bytes, place) = self.container.bytes(number)?;
                self.touched.add(What::Blob, bytes.len());
                (bytes, Some(place))
            }
        };
        self.charge(bytes.len())?;
        let python = self.heap.python();
        let has_caches = record.flags & STRIPPED == 0;
        let places = (record.flags & REWRITTEN != 0).then_some(&self.places);
        let whole = reverse(python, bytes, has_caches, places).map_err(|Misfit { at, name }| {
            let why = "is not among the constants or names of its code object";
            let kind = ErrorKind::BadOperand { mnemonic: name, operand: at as u32, why };
            place.map_or_else(|| Error::new(kind.clone()), |place| Error::at(kind.clone(), place + at))
        })?;
        let shared = (record.flags & SHARED != 0).then_some(record.shared);
        if let Some(object) = shared.and_then(|number| self.shared.get(&number).copied()) {
            let is_same = matches!(self.heap[object], Object::Bytes(bytes) if bytes == whole);
            let other = || ErrorKind::BadContainer("bytecode that is said to be shared differs").into();
            return if is_same { Ok(object) } else { Err(other()) };
        }
        self.charge(whole.len())?;
        // Whoever hydrated it before, from the same bytes, has got the same.
        let kept = self.container.bytecode[code as usize].get_or_init(|| whole.into());
        let object = self.heap.add(Object::Bytes(kept));
        if let Some(number) = shared {
            self.shared.insert(number, object);
        }
        Ok(object)
    }

    /// An int of a blob: a new object.
    fn long(&mut self, blob: u32) -> Result<ObjectId> {
        let (bytes, _) = self.container.long(blob)?;
        self.charge(bytes.len())?;
        self.touched.add(What::Blob, bytes.len());
        Ok(match read_short(bytes) {
            Some(value) => self.heap.add(Object::Int(value)),
            None => self.heap.add_int(read_long(bytes)),
        })
    }

    fn int(&mut self, value: u8) -> ObjectId {
        let int = &mut self.ints[usize::from(value)];
        if *int == NONE {
            *int = self.heap.add(Object::Int(i64::from(value))).number();
        }
        ObjectId::from_number(*int)
    }

    fn common(&mut self, number: u8) -> ObjectId {
        let object = match common::CONSTS[usize::from(number)].0 {
            CommonConst::None => return fixed::NONE,
            CommonConst::True => return fixed::TRUE,
            CommonConst::False => return fixed::FALSE,
            CommonConst::Ellipsis => return fixed::ELLIPSIS,
            CommonConst::StopIteration => return fixed::STOP_ITERATION,
            CommonConst::EmptyTuple => return fixed::EMPTY_TUPLE,
            CommonConst::EmptyBytes => Object::Bytes(&[]),
            CommonConst::EmptyStr => Object::Str(Str::latin1(b"", true)),
            CommonConst::EmptyFrozenSet => Object::FrozenSet(Items::EMPTY),
            CommonConst::MinusOne => Object::Int(-1),
        };
        let place = &mut self.commons[usize::from(number)];
        if *place == NONE {
            *place = self.heap.add(object).number();
        }
        ObjectId::from_number(*place)
    }

    // --- Constants ---

    /// A constant, built now if it was not before.
    fn constant(&mut self, number: u32, cause: Cause) -> Result<Value> {
        let number = self.container.resolve(What::Constant, number)?;
        if let Constant::Built(value) = self.constants[number as usize] {
            return Ok(value);
        }
        self.invoke(number, cause)?;
        loop {
            if let Some(value) = self.step().map_err(|error| self.placed(error))? {
                return Ok(value);
            }
        }
    }

    /// The place of an error that an instruction met is that of the instruction.
    #[cold]
    fn placed(&self, error: Error) -> Error {
        match (error.position(), self.invocations.last()) {
            (None, Some(invocation)) => Error::at(error.kind().clone(), invocation.place + invocation.at),
            _ => error,
        }
    }

    /// Verifies a constant's program, and begins to execute it.
    fn invoke(&mut self, number: u32, cause: Cause) -> Result<()> {
        let (max_stack, wordcode, place) = self.container.constant(number)?;
        self.charge(wordcode.len())?;
        self.touched.add(What::Constant, wordcode.len());
        let inside = |error: Error| error.shifted(place).inside(format!("constant {number}"));
        verify(self.container, number, max_stack, wordcode).map_err(inside)?;
        self.constants[number as usize] = Constant::Building;
        let stack = self.stack.len();
        self.invocations.push(Invocation { constant: number, wordcode, at: 0, place, stack, cause });
        Ok(())
    }

    /// Executes an instruction. The value, if it was the last of the constant that was asked for.
    fn step(&mut self) -> Result<Option<Value>> {
        let invocation = self.invocations.last_mut().expect("it returns with the value of the first");
        let (op, oparg) = decode(invocation.wordcode, &mut invocation.at).expect(VERIFIED);
        let n = oparg as usize;
        let leaf = Value::leaf;
        let value = match op {
            Op::ExtendedArg => unreachable!("decoding folds it"),
            Op::MakeInt => leaf(self.int(oparg as u8)),
            Op::LoadCommon => leaf(self.common(oparg as u8)),
            Op::LazyLoadConstant => {
                let number = self.container.resolve(What::Constant, oparg)?;
                match self.constants[number as usize] {
                    Constant::Built(value) => value,
                    Constant::New => {
                        let cause = Cause::Constant(invocation.constant);
                        self.invoke(number, cause)?;
                        return Ok(None);
                    }
                    Constant::Building => return Err(ErrorKind::CyclicNeed(number).into()),
                }
            }
            Op::MakeString | Op::MakeInternedString => {
                leaf(self.text(TextRef { number: oparg, is_interned: op == Op::MakeInternedString })?)
            }
            Op::MakeBytes => leaf(self.blob(TableRef::Blob(oparg))?),
            Op::MakeLong => leaf(self.long(oparg)?),
            Op::MakeFloat => {
                let bits = self.container.float(oparg)?;
                self.touched.add(What::Blob, 8);
                leaf(self.heap.add(Object::Float(bits)))
            }
            Op::MakeComplex => {
                let (imag, real) = (self.pop(), self.pop());
                let (Object::Float(real), Object::Float(imag)) = (self.heap[real.object], self.heap[imag.object])
                else {
                    let why = "a part of a complex number is no float";
                    return Err(ErrorKind::BadOperand { mnemonic: op.name(), operand: oparg, why }.into());
                };
                leaf(self.heap.add(Object::Complex { real, imag }))
            }
            Op::BuildTuple if n == 0 => leaf(fixed::EMPTY_TUPLE),
            Op::BuildTuple => {
                let items = &self.stack[self.stack.len() - n..];
                let is_names = items.iter().all(|item| matches!(self.heap[item.object], Object::Str(_)));
                Value { is_names, ..self.build(Object::Tuple, n) }
            }
            Op::BuildList => Value { hashable: false, ..self.build(Object::List, n) },
            Op::BuildSet => {
                self.check_keys(n, 1, "a set item")?;
                Value { hashable: false, ..self.build(Object::Set, n) }
            }
            Op::BuildMap => {
                self.check_keys(2 * n, 2, "a dict key")?;
                Value { hashable: false, ..self.build(Object::Dict, 2 * n) }
            }
            Op::BuildSlice => self.build(Object::Slice, n),
            Op::MakeFrozenSet => {
                self.check_keys(n, 1, "a set item")?;
                self.build(Object::FrozenSet, n)
            }
            Op::MakeFrozenDict => {
                self.check_keys(2 * n, 2, "a dict key")?;
                self.build(Object::FrozenDict, 2 * n)
            }
            Op::MakeCodeObject => {
                let object = self.code_object(oparg)?;
                // Its hash would be that of its constants, which nobody needed yet.
                let first_code = self.container.resolve(What::Code, oparg)?;
                Value { object, first_code, hashable: false, is_names: false }
            }
            Op::ReturnConstant => return Ok(self.give_back()),
        };
        self.stack.push(value);
        Ok(None)
    }

    /// Stores the value of the constant on top, and goes on with the one that needed it; the value if none did.
    fn give_back(&mut self) -> Option<Value> {
        let Invocation { constant, stack, cause, .. } = self.invocations.pop().expect("one is executed");
        let value = self.pop();
        assert_eq!(self.stack.len(), stack, "{VERIFIED}");
        self.constants[constant as usize] = Constant::Built(value);
        let depth = self.invocations.len();
        if let Some(events) = &mut self.events {
            events.push(Event::Constant { number: constant, cause, depth, object: value.object });
        }
        if depth == 0 {
            return Some(value);
        }
        self.stack.push(value);
        None
    }

    fn pop(&mut self) -> Value {
        self.stack.pop().expect(VERIFIED)
    }

    /// Makes a container of the topmost values.
    fn build(&mut self, object: fn(Items) -> Object<'c>, n: usize) -> Value {
        let base = self.stack.len() - n;
        let held = &self.stack[base..];
        let first_code = held.iter().map(|value| value.first_code).min().unwrap_or(NO_CODE);
        let hashable = held.iter().all(|value| value.hashable);
        self.items.clear();
        self.items.extend(held.iter().map(|value| value.object));
        let items = self.heap.add_items(&self.items);
        self.stack.truncate(base);
        Value { object: self.heap.add(object(items)), first_code, hashable, is_names: false }
    }

    fn check_keys(&self, n: usize, step: usize, role: &'static str) -> Result<()> {
        let held = &self.stack[self.stack.len() - n..];
        match held.iter().step_by(step).find(|value| !value.hashable) {
            None => Ok(()),
            Some(value) => Err(ErrorKind::Unhashable { what: self.heap[value.object].type_name(), role }.into()),
        }
    }
}

const VERIFIED: &str = "the constant is verified";

/// A code object holds only such as come after it.
fn check_order(value: Value, code: u32) -> Result<()> {
    if value.first_code > code {
        return Ok(());
    }
    Err(ErrorKind::BadContainer("a code object holds one that does not come after it").into())
}

#[cold]
fn no_such(what: What, number: u32, count: usize) -> Error {
    ErrorKind::NoSuchEntry { what: what.name(), number, count: count as u32 }.into()
}

/// Checks the program of a constant, at the byte of `wordcode`.
fn verify(container: &Container<'_>, number: u32, max_stack: u32, wordcode: &[u8]) -> Result<()> {
    let (mut at, mut depth, mut reached) = (0, 0_u64, 0);
    loop {
        let start = at;
        let (op, oparg) = decode(wordcode, &mut at)?;
        let bad = |why| Err(Error::at(ErrorKind::BadOperand { mnemonic: op.name(), operand: oparg, why }, start));
        let count = |what| container.table(what).len;
        let limit = match op.oparg() {
            Oparg::Bits | Oparg::Count => u32::MAX,
            Oparg::Int => 256,
            Oparg::Common => common::CONSTS.len() as u32,
            Oparg::Constant | Oparg::Own => count(What::Constant),
            Oparg::Text => count(What::Text),
            Oparg::Blob => count(What::Blob),
            Oparg::Code => count(What::Code),
            Oparg::Unused => 1,
            Oparg::Three if oparg == 3 => 4,
            Oparg::Three => 0,
        };
        if oparg >= limit {
            return bad("is out of range");
        }
        let pops = op.pops(oparg);
        if pops > depth {
            let kind = ErrorKind::StackUnderflow { mnemonic: op.name(), needed: pops, depth: depth as usize };
            return Err(Error::at(kind, start));
        }
        depth -= pops;
        if op == Op::ReturnConstant {
            return match () {
                () if oparg != number => bad("is another constant"),
                () if depth != 0 || at != wordcode.len() => {
                    Err(Error::at(ErrorKind::BadEnd("something is left behind RETURN_CONSTANT"), start))
                }
                () if reached != u64::from(max_stack) => {
                    Err(Error::at(ErrorKind::WrongStack { stated: max_stack, reached: reached as u32 }, start))
                }
                () => Ok(()),
            };
        }
        depth += 1;
        reached = reached.max(depth);
    }
}
