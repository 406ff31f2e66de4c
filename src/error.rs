//! What went wrong, where, and inside what.
//!
//! An [`Error`] is one pointer wide, so that the hot paths return small results, and is only ever built in `#[cold]`
//! code. Its text reads
//!
//! ```text
//! tuple length -1 is negative (at byte 0x2f, in code object > co_consts > item 3)
//! ```

use std::fmt;

/// The result of everything that takes input.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an input was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    // The .pyc header.
    /// The input is too short to have a header.
    #[error("a .pyc needs a header of {needed} bytes, and only {left} are here")]
    HeaderTooShort {
        /// Bytes the header takes.
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// The first bytes are neither a .pyc magic number nor a container of ours.
    #[error("not a .pyc or .pyinit file; for a bare marshal dump say which Python wrote it (--python X.Y)")]
    NotPyc,
    /// A magic number of a Python, or of a pre-release, that is not supported.
    #[error("magic number {magic} is {name}, {why}")]
    UnsupportedMagic {
        /// The number in the first two bytes.
        magic: u16,
        /// Whose it is.
        name: &'static str,
        /// Why it is refused.
        why: &'static str,
    },
    /// Flags that importlib refuses too.
    #[error("header flags {0:#x} are unknown")]
    UnknownHeaderFlags(u32),
    /// A version for `--python` that is not 3.6 to 3.15.
    #[error("no Python version: {0:?}; supported are 3.6 to 3.15")]
    UnknownPython(String),

    // Marshal.
    /// The input ends inside something.
    #[error("{what} ends early: {needed} bytes needed, {left} left")]
    UnexpectedEnd {
        /// What was being read.
        what: &'static str,
        /// Bytes it needs.
        needed: usize,
        /// Bytes left.
        left: usize,
    },
    /// A type code that this Python does not know.
    #[error("unknown type code {}", ByteChar(*.0))]
    UnknownTypeCode(u8),
    /// A length below zero.
    #[error("{what} length {length} is negative")]
    NegativeLength {
        /// What has the length.
        what: &'static str,
        /// The length.
        length: i32,
    },
    /// A count of items that the bytes left cannot hold.
    #[error("{what} length {length} is more than the {left} bytes left can hold")]
    LengthTooLarge {
        /// What has the length.
        what: &'static str,
        /// The length, in items.
        length: u64,
        /// Bytes left for them.
        left: usize,
    },
    /// An `r` whose index was never given out, or is of an object that is not complete.
    #[error("invalid reference {index}: {why}")]
    InvalidReference {
        /// The index.
        index: i64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// NULL where an object must be.
    #[error("NULL object in {0}")]
    NullObject(&'static str),
    /// Nested deeper than CPython reads.
    #[error("nested deeper than the 2000 levels that marshal allows")]
    TooDeep,
    /// A set item or dict key that has no hash.
    #[error("unhashable {what} as {role}")]
    Unhashable {
        /// The type.
        what: &'static str,
        /// Where it stands: a set item or a dict key.
        role: &'static str,
    },
    /// Text that is not UTF-8 (with surrogates).
    #[error("text is not UTF-8 from its byte {0} on")]
    BadUtf8(usize),
    /// An integer's digits are out of shape.
    #[error("integer {0}")]
    BadInteger(&'static str),
    /// A text float that does not parse.
    #[error("float text {0:?} is not a number")]
    BadFloat(String),
    /// A field of a code object that has another type.
    #[error("{field} is {found}, not {expected}")]
    WrongFieldType {
        /// The field.
        field: &'static str,
        /// What CPython wants there.
        expected: &'static str,
        /// What was found.
        found: &'static str,
    },
    /// A number or size in a code object that its constructor refuses.
    #[error("code object refused: {0}")]
    BadCode(&'static str),
    /// More than 32-bit positions can address.
    #[error("inputs of 2 GiB and more are not supported")]
    TooLarge,
    /// The dump holds a type that this version cannot write.
    #[error("{what} cannot be marshalled by Python {python}")]
    Unmarshallable {
        /// The type.
        what: &'static str,
        /// The version, as 3.X.
        python: String,
    },

    /// An object of a type that marshal can refer to only once it is complete, referred to from inside.
    #[error("a {0} holds itself, and marshal could not read it back")]
    HoldsItself(&'static str),

    // Compiling.
    /// Immutable objects that hold themselves: no order of construction exists.
    #[error("a cycle passes through no list or dict, so nothing can be built first: {0}")]
    ImmutableCycle(String),
    /// `--sharing none` or normalizing would take far more than the input.
    #[error("{what} exceeds its budget of {budget} bytes")]
    BudgetExceeded {
        /// What grew.
        what: &'static str,
        /// The stated bound.
        budget: u64,
    },
    /// `--start-code` needs a code object at the top.
    #[error("START_CODE needs a code object, and the top-level object is {0}")]
    NotCode(&'static str),

    // The container, the verifier, the assembler.
    /// The bytes are not a container of this format or version.
    #[error("{0}")]
    BadContainer(&'static str),
    /// A number that is not written in its shortest form, or does not fit.
    #[error("bad variable-length number in {0}")]
    BadVarint(&'static str),
    /// No instruction has this opcode.
    #[error("unknown opcode {0:#04x}")]
    UnknownOpcode(u8),
    /// An operand that the instruction does not take.
    #[error("{mnemonic} {operand}: {why}")]
    BadOperand {
        /// The instruction.
        mnemonic: &'static str,
        /// Its operand.
        operand: u32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More operands than the stack holds.
    #[error("{mnemonic} needs {needed} values and the stack holds {depth}")]
    StackUnderflow {
        /// The instruction.
        mnemonic: &'static str,
        /// Values it pops or reaches.
        needed: u64,
        /// Values there are.
        depth: usize,
    },
    /// The instructions do not end in RETURN_VALUE or START_CODE, or go on behind it.
    #[error("{0}")]
    BadEnd(&'static str),
    /// The header states another stack depth than the instructions reach.
    #[error("the header states a stack of {stated}, the instructions reach {reached}")]
    WrongStack {
        /// What the header says.
        stated: u32,
        /// What the instructions need.
        reached: u32,
    },
    /// Data that no instruction reads.
    #[error("{left} bytes of section {section} are never read")]
    UnreadData {
        /// The section.
        section: &'static str,
        /// Bytes left over.
        left: usize,
    },
    /// The source section does not fit the objects.
    #[error("source section: {0}")]
    BadSource(&'static str),
    /// The stream was written without a source section.
    #[error("the source's flags were left out (--no-source-flags); --canonical writes a canonical dump instead")]
    NoSource,
    /// A line of a listing that does not parse.
    #[error("line {line}: {why}")]
    BadListing {
        /// 1-based.
        line: usize,
        /// What is wrong.
        why: String,
    },
    // The lazy container.
    /// An entry that a table does not have.
    #[error("there is no {what} {number}: there are {count}")]
    NoSuchEntry {
        /// The kind of entry.
        what: &'static str,
        /// Its number.
        number: u32,
        /// How many there are.
        count: u32,
    },
    /// A constant that is needed to build itself.
    #[error("constant {0} is needed to build itself")]
    CyclicNeed(u32),
    /// Something that a lazy container has no place for.
    #[error("a lazy container cannot hold {0}")]
    NotLazy(&'static str),

    /// A promise that `rehydrate verify` checks did not hold.
    #[error("{step}: {why}")]
    CheckFailed {
        /// The step of the pipeline.
        step: &'static str,
        /// What was found.
        why: String,
    },
}

/// An error with its place. See the [module's text](self) for how it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    at: Option<usize>,
    inside: String,
}

impl Error {
    /// An error without a place.
    #[cold]
    pub fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner { kind, at: None, inside: String::new() }))
    }

    /// An error at a byte of the input.
    #[cold]
    pub fn at(kind: ErrorKind, at: usize) -> Self {
        Self(Box::new(Inner { kind, at: Some(at), inside: String::new() }))
    }

    /// Says inside what it happened, outermost first.
    #[cold]
    #[must_use]
    pub fn inside(mut self, path: impl Into<String>) -> Self {
        self.0.inside = path.into();
        self
    }

    /// Moves the place by the bytes that stand before the part that was read.
    #[cold]
    #[must_use]
    pub fn shifted(mut self, by: usize) -> Self {
        self.0.at = self.0.at.map(|at| at + by);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The byte of the input at which it went wrong, where there is one.
    pub fn position(&self) -> Option<usize> {
        self.0.at
    }

    /// The path of the object in which it went wrong; empty at the top.
    pub fn path(&self) -> &str {
        &self.0.inside
    }
}

impl From<ErrorKind> for Error {
    #[cold]
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, at, inside } = &*self.0;
        write!(f, "{kind}")?;
        match (at, inside.is_empty()) {
            (None, true) => Ok(()),
            (None, false) => write!(f, " (in {inside})"),
            (Some(at), true) => write!(f, " (at byte {at:#x})"),
            (Some(at), false) => write!(f, " (at byte {at:#x}, in {inside})"),
        }
    }
}

/// A byte as a character where it is one.
struct ByteChar(u8);

impl fmt::Display for ByteChar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            byte @ 0x20..0x7f => write!(f, "'{}' ({byte:#04x})", char::from(byte)),
            byte => write!(f, "{byte:#04x}"),
        }
    }
}
