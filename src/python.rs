//! What differs between Python versions: magic numbers, headers, and the fields of a code object.
//!
//! Each difference is a row of one table here; no other module asks for a version number.
//!
//! Sources: CPython 3.15 `Include/internal/pycore_magic_number.h`; `Python/marshal.c`, `w_complex_object` and
//! `TYPE_CODE` of `r_object`, of each version.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::LazyLock;

use crate::error::{Error, ErrorKind, Result};

/// A minor version of Python 3, from 3.6 to 3.15.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Python {
    minor: u8,
}

/// Flags of a code object that takes any positional, or any keyword arguments.
///
/// Source: CPython `Include/code.h`.
const CO_VARARGS: i32 = 4;
const CO_VARKEYWORDS: i32 = 8;

const FIRST: u8 = 6;
const LAST: u8 = 15;

impl Python {
    /// The newest version that is known.
    pub const LATEST: Self = Self { minor: LAST };

    /// Every version, oldest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (FIRST..=LAST).map(|minor| Self { minor })
    }

    /// Python 3.`minor`, where it is one of the known versions.
    pub const fn new(minor: u8) -> Option<Self> {
        match minor {
            FIRST..=LAST => Some(Self { minor }),
            _ => None,
        }
    }

    /// The second number of the version.
    pub const fn minor(self) -> u8 {
        self.minor
    }

    /// The magic number of the final release.
    pub fn magic(self) -> u16 {
        MAGICS.iter().rfind(|row| row.minor == self.minor).map_or(0, |row| *row.numbers.end())
    }

    /// Bytes of a .pyc header as importlib writes it.
    ///
    /// Source: PEP 552 for the 16 bytes of 3.7.
    pub fn header_len(self) -> usize {
        if self.minor >= 7 { 16 } else { 12 }
    }

    /// Whether `marshal` knows slices (`:`).
    pub fn has_slices(self) -> bool {
        self.minor >= 14
    }

    /// Whether `marshal` knows frozendicts (`}`).
    pub fn has_frozendict(self) -> bool {
        self.minor >= 15
    }

    /// Whether the code constructor interns name, qualname and filename, besides what it always interns.
    pub fn interns_code_names(self) -> bool {
        self.minor >= 13
    }

    /// Whether the first constant of a code object with these flags is a docstring, if it is a str: that of a function
    /// is. Lambdas and comprehensions, whose names begin with `<`, have none.
    ///
    /// Source: CPython `Include/cpython/code.h`, `CO_OPTIMIZED`, `CO_NEWLOCALS`; from 3.14 on, `CO_HAS_DOCSTRING`.
    pub(crate) fn has_docstring(self, flags: i32) -> bool {
        flags & 3 == 3 && (self.minor < 14 || flags & 0x400_0000 != 0)
    }

    /// The fields of a code object.
    pub fn layout(self) -> &'static Layout {
        &LAYOUTS[usize::from(self.minor - FIRST)]
    }

    /// Why the code constructor refuses these numbers and lengths, if it does: `number` gives a field that is a number,
    /// `len` the length of one that is bytes or a tuple. A field that the version does not have is 0.
    ///
    /// Source: CPython `Objects/codeobject.c`, `_PyCode_Validate`, and `PyCode_NewWithPosOnlyArgs` before 3.11.
    pub(crate) fn refuses_code(
        self,
        number: impl Fn(Field) -> i32,
        len: impl Fn(Field) -> usize,
    ) -> Option<&'static str> {
        let counts = [Field::ArgCount, Field::PosOnlyArgCount, Field::KwOnlyArgCount, Field::NLocals];
        if counts.into_iter().any(|field| number(field) < 0) {
            return Some("a count is negative");
        }
        if self.minor < 8 {
            return None;
        }
        if number(Field::ArgCount) < number(Field::PosOnlyArgCount) {
            return Some("more positional-only arguments than positional ones");
        }
        if number(Field::StackSize) < 0 || number(Field::Flags) < 0 {
            return Some("stack size or flags are negative");
        }
        if self.minor < 11 {
            return None;
        }
        if len(Field::LocalsPlusNames) != len(Field::LocalsPlusKinds) {
            return Some("not as many kinds of variables as names");
        }
        if !len(Field::Code).is_multiple_of(2) {
            return Some("bytecode of an odd length");
        }
        None
    }

    /// The opcodes that we look for.
    ///
    /// Source: CPython `Include/opcode.h`, from 3.13 on `Include/opcode_ids.h`.
    pub(crate) fn opcodes(self) -> Opcodes {
        let (load_const, store_name, resume) = match self.minor {
            ..=10 => (100, 90, None),
            11 | 12 => (100, 90, Some(151)),
            13 => (83, 114, Some(149)),
            14 => (82, 116, Some(128)),
            _ => (81, 115, Some(128)),
        };
        Opcodes { load_const, store_name, resume }
    }

    /// The opcode of RESUME, the first instruction that is traced; `None` for versions without it.
    pub fn resume(self) -> Option<u8> {
        self.opcodes().resume
    }

    /// The first instruction that is traced, RESUME, or the length of the bytecode, in units of two bytes; `None` for
    /// versions without it.
    ///
    /// Source: CPython `Objects/codeobject.c`, `init_code`.
    pub fn first_traceable(self, bytecode: &[u8]) -> Option<u32> {
        let resume = self.opcodes().resume?;
        let (units, _) = bytecode.as_chunks::<2>();
        Some(units.iter().position(|[opcode, _]| *opcode == resume).unwrap_or(units.len()) as u32)
    }

    /// Why the code constructor refuses the numbers of arguments, if it does. `n_locals` counts the local variables,
    /// arguments among them.
    ///
    /// Since 3.11 the difference is taken in 32 bits and wraps around.
    ///
    /// Source: as of [`Self::refuses_code`].
    pub(crate) fn refuses_arguments(self, number: impl Fn(Field) -> i32, n_locals: usize) -> Option<&'static str> {
        let (positional, keyword) = (number(Field::ArgCount), number(Field::KwOnlyArgCount));
        let variadic = [CO_VARARGS, CO_VARKEYWORDS].into_iter().filter(|flag| number(Field::Flags) & flag != 0).count();
        let left = n_locals as i64 - i64::from(positional) - i64::from(keyword) - variadic as i64;
        let left = if self.minor >= 11 { i64::from(left as i32) } else { left };
        (left < 0).then_some("more arguments than local variables")
    }

    /// Whether a code object with NULL in it is NULL itself, without an error.
    ///
    /// Source: CPython `Python/marshal.c`, `TYPE_CODE` of `r_object`; 3.11 raises TypeError.
    pub(crate) fn null_makes_code_null(self) -> bool {
        self.minor < 11
    }

    /// The version that wrote a magic number.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedMagic`] for other Pythons, and for pre-releases whose code objects are laid out in a way
    /// that no release shares; [`ErrorKind::NotPyc`] for numbers that are nobody's.
    pub fn from_magic(magic: u16) -> Result<Self> {
        let Some(row) = MAGICS.iter().find(|row| row.numbers.contains(&magic)) else {
            return Err(Error::at(ErrorKind::NotPyc, 0));
        };
        match row.refused {
            None => Ok(Self { minor: row.minor }),
            Some((name, why)) => Err(Error::at(ErrorKind::UnsupportedMagic { magic, name, why }, 0)),
        }
    }
}

impl fmt::Display for Python {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "3.{}", self.minor)
    }
}

impl fmt::Debug for Python {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Python {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.strip_prefix("3.")
            .filter(|minor| !minor.starts_with(['0', '+']))
            .and_then(|minor| Self::new(minor.parse().ok()?))
            .ok_or_else(|| ErrorKind::UnknownPython(text.to_owned()).into())
    }
}

/// Opcodes of a version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opcodes {
    pub(crate) load_const: u8,
    pub(crate) store_name: u8,
    pub(crate) resume: Option<u8>,
}

/// What CPython derives of a code object.
#[derive(Debug, Clone, Copy)]
pub struct Derived {
    /// Of its variables.
    pub kinds: KindCounts,
    /// The first instruction that is traced, in units of two bytes.
    pub first_traceable: u32,
}

/// How many variables are of each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindCounts {
    /// `co_nlocals`.
    pub n_locals: u32,
    /// `co_ncellvars`.
    pub n_cells: u32,
    /// `co_nfreevars`.
    pub n_free: u32,
    /// Whether one is free, and local or a cell, too: CPython counts it as free no more, and lists it in `co_freevars`.
    pub has_ambiguous: bool,
}

/// The numbers of a code object of Python 3.11 or later, in the order of marshal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeNumbers {
    /// `co_argcount`.
    pub arg_count: i32,
    /// `co_posonlyargcount`.
    pub pos_only_arg_count: i32,
    /// `co_kwonlyargcount`.
    pub kw_only_arg_count: i32,
    /// `co_stacksize`.
    pub stack_size: i32,
    /// `co_flags`.
    pub flags: i32,
    /// `co_firstlineno`.
    pub first_line_no: i32,
}

impl CodeNumbers {
    /// The number of a field; 0 of one that these versions do not have as a number.
    #[inline(always)]
    pub(crate) fn get(self, field: Field) -> i32 {
        match field {
            Field::ArgCount => self.arg_count,
            Field::PosOnlyArgCount => self.pos_only_arg_count,
            Field::KwOnlyArgCount => self.kw_only_arg_count,
            Field::StackSize => self.stack_size,
            Field::Flags => self.flags,
            Field::FirstLineNo => self.first_line_no,
            _ => 0,
        }
    }
}

/// How many of the variables of these kinds are local, cells, and free.
///
/// Source: CPython `Objects/codeobject.c`, `get_localsplus_counts`.
#[inline]
pub fn count_kinds(kinds: &[u8]) -> KindCounts {
    // Eight at a time: most code objects have fewer variables, and how many cannot be foreseen.
    let (words, rest) = kinds.as_chunks();
    let rest = rest.iter().fold(0, |word, kind| word << 8 | u64::from(*kind));
    words.iter().map(|word| u64::from_le_bytes(*word)).chain([rest]).fold(KindCounts::default(), KindCounts::and)
}

impl KindCounts {
    /// With those of eight more variables; a zero byte is none.
    #[inline]
    fn and(self, kinds: u64) -> Self {
        /// The lowest bit of each byte.
        const EACH: u64 = u64::MAX / 0xff;
        const CO_FAST_LOCAL: u8 = 0x20;
        const CO_FAST_CELL: u8 = 0x40;
        const CO_FAST_FREE: u8 = 0x80;
        let of = |flag: u8| kinds >> flag.trailing_zeros() & EACH;
        let count = |kinds: u64| (kinds.wrapping_mul(EACH) >> 56) as u32;
        let (local, cell, free) = (of(CO_FAST_LOCAL), of(CO_FAST_CELL), of(CO_FAST_FREE));
        Self {
            n_locals: self.n_locals + count(local),
            n_cells: self.n_cells + count(cell),
            n_free: self.n_free + count(free & !(local | cell)),
            has_ambiguous: self.has_ambiguous | (free & (local | cell) != 0),
        }
    }
}

/// Magic numbers of one Python that share a layout, or that are refused by name.
struct Magics {
    minor: u8,
    numbers: RangeInclusive<u16>,
    refused: Option<(&'static str, &'static str)>,
}

const fn layout(minor: u8, first: u16, last: u16) -> Magics {
    Magics { minor, numbers: first..=last, refused: None }
}

const fn refuse(name: &'static str, why: &'static str, first: u16, last: u16) -> Magics {
    Magics { minor: 0, numbers: first..=last, refused: Some((name, why)) }
}

const OLD: &str = "older than 3.6";
const UNCERTAIN: &str = "whose layout no release shares";

/// Pre-releases stand with their release where the layout is the same: 3.7 from the 16-byte header (3392), 3.8 from
/// positional-only arguments (3410), 3.11 from the location table (3494) on. The numbers in between were never used.
const MAGICS: &[Magics] = &[
    refuse("Python 2", OLD, 62001, 62211),
    refuse("Python 3.0", OLD, 3000, 3131),
    refuse("Python 3.1", OLD, 3141, 3151),
    refuse("Python 3.2", OLD, 3160, 3180),
    refuse("Python 3.3", OLD, 3190, 3230),
    refuse("Python 3.4", OLD, 3250, 3310),
    refuse("Python 3.5", OLD, 3320, 3351),
    layout(6, 3360, 3379),
    refuse("an alpha of Python 3.7", UNCERTAIN, 3390, 3391),
    layout(7, 3392, 3394),
    refuse("an alpha of Python 3.8", UNCERTAIN, 3400, 3401),
    layout(8, 3410, 3413),
    layout(9, 3420, 3425),
    layout(10, 3430, 3439),
    refuse("an alpha of Python 3.11", UNCERTAIN, 3450, 3493),
    layout(11, 3494, 3495),
    layout(12, 3500, 3531),
    layout(13, 3550, 3571),
    layout(14, 3600, 3627),
    layout(15, 3650, 3666),
    refuse("a Python newer than 3.15", "which this version does not know", 3667, 3999),
];

/// What a field of a code object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// A signed 32-bit number.
    Number,
    /// A bytes object: bytecode or a table.
    Bytes,
    /// A tuple of any objects.
    Tuple,
    /// A tuple of str.
    Names,
    /// A str.
    Str,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident $kind:ident $name:literal $minors:expr;)*) => {
        /// A field of a code object, named as CPython's attribute is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Field { $($(#[$doc])* $field,)* }

        impl Field {
            /// How many fields there are, over all versions.
            pub const COUNT: usize = [$(Field::$field),*].len();

            /// What it holds.
            pub fn kind(self) -> FieldKind {
                match self { $(Field::$field => FieldKind::$kind,)* }
            }

            /// Whether it holds a number.
            pub(crate) fn is_number(self) -> bool {
                self.kind() == FieldKind::Number
            }

            /// The attribute's name.
            pub fn name(self) -> &'static str {
                match self { $(Field::$field => $name,)* }
            }
        }

        /// Every field in the order of marshal, with the minor versions that have it.
        const FIELDS: [(Field, RangeInclusive<u8>); Field::COUNT] = [$((Field::$field, $minors),)*];
    };
}

fields! {
    /// Positional arguments.
    ArgCount Number "co_argcount" 6..=15;
    /// Positional-only arguments.
    PosOnlyArgCount Number "co_posonlyargcount" 8..=15;
    /// Keyword-only arguments.
    KwOnlyArgCount Number "co_kwonlyargcount" 6..=15;
    /// Local variables.
    NLocals Number "co_nlocals" 6..=10;
    /// Stack the bytecode needs.
    StackSize Number "co_stacksize" 6..=15;
    /// `CO_*` flags.
    Flags Number "co_flags" 6..=15;
    /// The bytecode.
    Code Bytes "co_code" 6..=15;
    /// The constants.
    Consts Tuple "co_consts" 6..=15;
    /// Names of globals and attributes.
    Names Names "co_names" 6..=15;
    /// Names of local variables.
    VarNames Names "co_varnames" 6..=10;
    /// Names of free variables.
    FreeVars Names "co_freevars" 6..=10;
    /// Names of cell variables.
    CellVars Names "co_cellvars" 6..=10;
    /// Names of local, cell and free variables.
    LocalsPlusNames Names "co_localsplusnames" 11..=15;
    /// What each of them is, one byte each.
    LocalsPlusKinds Bytes "co_localspluskinds" 11..=15;
    /// The file.
    FileName Str "co_filename" 6..=15;
    /// The name.
    Name Str "co_name" 6..=15;
    /// The qualified name.
    QualName Str "co_qualname" 11..=15;
    /// First line in the file.
    FirstLineNo Number "co_firstlineno" 6..=15;
    /// Line table: co_lnotab before 3.10.
    LineTable Bytes "co_linetable" 6..=15;
    /// Exception table.
    ExceptionTable Bytes "co_exceptiontable" 11..=15;
}

/// The fields of a version's code objects, in the orders that matter.
#[derive(Debug)]
pub struct Layout {
    /// All, in the order of marshal.
    pub fields: Vec<Field>,
    /// How many fields in a row hold numbers, from each one on; and 0 for behind the last.
    pub(crate) numbers_from: Vec<u8>,
    /// Those that hold numbers, in the order of marshal.
    pub numbers: Vec<Field>,
    /// Those whose values MAKE_CODE takes from the stack, in the order pushed: names, constants, the tuples of
    /// variable names, name, qualname, filename.
    pub operands: Vec<Field>,
    /// Those that MAKE_CODE takes from binary data: bytecode and tables, in the order of marshal.
    pub tables: Vec<Field>,
}

impl Layout {
    /// Whether there is such a field, and it holds an object.
    #[inline]
    pub(crate) fn is_object(&self, at: usize) -> bool {
        at < self.fields.len() && self.numbers_from[at] == 0
    }
}

static LAYOUTS: LazyLock<Vec<Layout>> = LazyLock::new(|| {
    let layout = |python: Python| {
        let fields: Vec<Field> =
            FIELDS.iter().filter(|(_, minors)| minors.contains(&python.minor)).map(|(field, _)| *field).collect();
        let mut numbers_from = vec![0; fields.len() + 1];
        for at in (0..fields.len()).rev().filter(|at| fields[*at].is_number()) {
            numbers_from[at] = numbers_from[at + 1] + 1;
        }
        let of = |kinds: &[FieldKind]| fields.iter().copied().filter(|field| kinds.contains(&field.kind())).collect();
        let mut operands: Vec<Field> = of(&[FieldKind::Tuple, FieldKind::Names, FieldKind::Str]);
        operands.sort_by_key(|field| match field {
            Field::Names => 0,
            Field::Consts => 1,
            Field::Name => 3,
            Field::QualName => 4,
            Field::FileName => 5,
            _ => 2,
        });
        Layout { numbers: of(&[FieldKind::Number]), tables: of(&[FieldKind::Bytes]), operands, numbers_from, fields }
    };
    Python::all().map(layout).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    /// Of each number of variables up to three words, and each kind at each place.
    #[test]
    fn kinds_are_counted_one_by_one() {
        for len in 1..=24 {
            for (at, kind) in (0..len).flat_map(|at| (0..=u8::MAX).map(move |kind| (at, kind))) {
                // Of any other kinds: hidden ones, arguments, and more.
                let mut kinds: Vec<u8> = (0..len as u8).map(|place| place.wrapping_mul(0x35)).collect();
                kinds[at] = kind;
                let n = |is: fn(u8) -> bool| kinds.iter().filter(|kind| is(**kind)).count() as u32;
                let counts = KindCounts {
                    n_locals: n(|kind| kind & 0x20 != 0),
                    n_cells: n(|kind| kind & 0x40 != 0),
                    n_free: n(|kind| kind & 0xe0 == 0x80),
                    has_ambiguous: kinds.iter().any(|kind| kind & 0x80 != 0 && kind & 0x60 != 0),
                };
                assert_eq!(count_kinds(&kinds), counts, "{kinds:x?}");
            }
        }
        assert_eq!(count_kinds(&[]), KindCounts::default());
        assert_eq!(count_kinds(&[0x20; 1000]).n_locals, 1000);
    }

    #[test]
    fn final_magics_are_those_of_the_releases() {
        let magics: Vec<u16> = Python::all().map(Python::magic).collect();
        assert_eq!(magics, [3379, 3394, 3413, 3425, 3439, 3495, 3531, 3571, 3627, 3666]);
        for python in Python::all() {
            assert_eq!(Python::from_magic(python.magic()), Ok(python));
        }
    }

    #[test]
    fn other_magics_are_refused_by_name() {
        let said = |magic| Python::from_magic(magic).unwrap_err().to_string();
        assert_eq!(said(62211), "magic number 62211 is Python 2, older than 3.6 (at byte 0x0)");
        assert_eq!(
            said(3456),
            "magic number 3456 is an alpha of Python 3.11, whose layout no release shares (at byte 0x0)"
        );
        assert!(said(3700).contains("newer than 3.15"));
        assert!(said(7).starts_with("not a .pyc"));
    }

    #[test]
    fn versions_parse_as_they_print() {
        for python in Python::all() {
            assert_eq!(python.to_string().parse(), Ok(python));
        }
        for wrong in ["3", "3.5", "3.16", "3.08", "2.7", "3.1x", ""] {
            assert!(wrong.parse::<Python>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn make_code_takes_its_operands_in_the_stated_order() {
        let names = |minor| -> Vec<_> {
            Python::new(minor).unwrap().layout().operands.iter().map(|field| field.name()).collect()
        };
        assert_eq!(
            names(9),
            ["co_names", "co_consts", "co_varnames", "co_freevars", "co_cellvars", "co_name", "co_filename"]
        );
        assert_eq!(names(13), ["co_names", "co_consts", "co_localsplusnames", "co_name", "co_qualname", "co_filename"]);
    }
}
