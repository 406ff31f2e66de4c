//! The values that every initializer can load without making them.
//!
//! Both tables are part of the format: an image carries [`VERSION`], and an entry never changes its place. The names
//! are those that save the most bytes over the standard library and five large packages, tests left out, counted per
//! module as bytes of the name's marshal form less the two of LOAD_COMMON_NAME. Names of one character are left out: they
//! save one byte.

/// The version of both tables. A change of either is a new version.
pub const VERSION: u8 = 1;

/// What LOAD_COMMON_CONST can push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommonConst {
    /// `None`.
    None,
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Ellipsis`.
    Ellipsis,
    /// `''`.
    EmptyStr,
    /// `()`.
    EmptyTuple,
    /// `b''`.
    EmptyBytes,
    /// `frozenset()`.
    EmptyFrozenSet,
    /// `-1`.
    MinusOne,
    /// The class `StopIteration`.
    StopIteration,
}

/// LOAD_COMMON_CONST's operands, in order, with how a listing spells them.
pub const CONSTS: [(CommonConst, &str); 10] = [
    (CommonConst::None, "None"),
    (CommonConst::True, "True"),
    (CommonConst::False, "False"),
    (CommonConst::Ellipsis, "Ellipsis"),
    (CommonConst::EmptyStr, "''"),
    (CommonConst::EmptyTuple, "()"),
    (CommonConst::EmptyBytes, "b''"),
    (CommonConst::EmptyFrozenSet, "frozenset()"),
    (CommonConst::MinusOne, "-1"),
    (CommonConst::StopIteration, "StopIteration"),
];

/// LOAD_COMMON_NAME's operands, in order: interned str.
#[rustfmt::skip]
pub const NAMES: [&str; 256] = [
    "__static_attributes__", "__firstlineno__", "<module>", "__qualname__", "__module__", "__name__", "__doc__",
    "isinstance", "__init__", "__class__", "self", "ValueError", "__classcell__", "NotImplementedError",
    "<genexpr>", "append", "name", "__all__", "TypeError", "property", "args", "len", "classmethod",
    "AttributeError", "__annotations__", "annotations", "kwargs", "getattr", "<lambda>", "super", "value", "str",
    "hasattr", "list", "enumerate", "range", "join", "startswith", "tuple", "Exception", "__future__", "return",
    "items", "result", "__repr__", "default", "type", "get", "int", "TYPE_CHECKING", "update", "replace", "format",
    "ImportError", "collections", "cls", "extend", "connection", "Whitespace", "Comment", "__new__", "filenames",
    "Operator", ".0", "set", "options", "Integer", "KeyError", "bool", "Keyword", "split", "values", "String",
    "index", "staticmethod", "key", "functools", "Number", "typing", "Function", "__getitem__", "__str__", "dict",
    "sorted", "Optional", "decode", "settings", "__slots__", "aliases", "pop", "other", "__main__", "encode",
    "compile", "func", "itertools", "NotImplemented", "match", "start", "expr", "text", "object", "base",
    "setdefault", "errors", "remove", "tokens", "path", "Name", "lower", "include", "Symbol", "arg", "Variable",
    "root", "print", "RuntimeError", "close", "__iter__", "add", "mimetypes", "cached_property", "function",
    "encoding", "sys", "warnings", "__dict__", "obj", "Tuple", "endswith", "copy", "re", "__eq__", "reversed",
    "string", "parent", "write", "__call__", "register", "context", "symbols", "insert", "Callable", "Constant",
    "all", "suffix", "Text", "prefix", "defaultdict", "data", "filename", "intersection", "reverse", "IndexError",
    "Iterable", "__contains__", "frozenset", "issubclass", "map", "keys", "Union", "zip", "strict", "Float",
    "count", "url", "Type", "message", "max", "OSError", "operator", "float", "any", "params", "expand", "words",
    "callable", "collections.abc", "Any", "__hash__", "group", "types", "import_module", "exp", "util", "Generic",
    "expression", "Literal", "Error", "line", "min", "clear", "open", "field", "strip", "Namespace", "description",
    "evaluate", "flags", "sqrt", "codecs", "search", "length", "setattr", "input", "version", "os", "target", "exc",
    "repr", "delete", "time", "inspect", "end", "filter", "Sequence", "StopIteration", "label", "error", "None",
    "read", "msg", "state", "difference", "datetime", "warn", "is_integer", "__getattr__", "is_number", "domain",
    "next", "Rational", "TypeVar", "size", "DeprecationWarning", "subs", "bytes", "item", "Attribute", "request",
    "exists", "cursor", "instance", "file", "execute", "shape", "log", "union", "abs", "__enter__", "verbosity",
    "module", "sort", "code", "right", "stdout",
];

impl CommonConst {
    /// The operand of LOAD_COMMON_CONST.
    pub fn operand(self) -> u32 {
        self as u32
    }
}

/// The operand of LOAD_COMMON_NAME for a name, if it has one.
pub(crate) fn name_operand(name: &[u8]) -> Option<u32> {
    let mut at = PLACES.first[place(name)];
    while let Some(common) = NAMES.get(usize::from(at)) {
        if common.as_bytes() == name {
            return Some(u32::from(at));
        }
        at = PLACES.next[usize::from(at)];
    }
    None
}

/// The hash that MAKE_NAMES and MAKE_IDENTIFIERS carry of a name, so that a loader finds it in a table of its own without
/// hashing. It is no secret: a loader compares the text.
pub fn name_hash(name: &[u8]) -> u32 {
    let mix = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 32
    };
    let (words, rest) = name.as_chunks::<8>();
    let hash = words.iter().fold(name.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let rest = match (rest.len(), name.last_chunk::<8>()) {
        (0, _) => 0,
        // The last eight bytes, without those that were mixed in.
        (n, Some(last)) => u64::from_le_bytes(*last) >> (64 - 8 * n),
        (_, None) => short_word(rest),
    };
    mix(hash, rest) as u32
}

/// One to seven bytes, the first the lowest: no loop, as where it ends cannot be foreseen.
fn short_word(bytes: &[u8]) -> u64 {
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        // They overlap, and agree where they do.
        (Some(first), Some(last)) => {
            let last = u64::from(u32::from_le_bytes(*last)) << (8 * (bytes.len() - 4));
            u64::from(u32::from_le_bytes(*first)) | last
        }
        _ => {
            let byte = |at: usize| u64::from(bytes[at]) << (8 * at);
            byte(0) | byte(bytes.len() / 2) | byte(bytes.len() - 1)
        }
    }
}

/// A cheap place of a name, from its length and three of its bytes; most others have other places.
const fn place(name: &[u8]) -> usize {
    if name.is_empty() {
        return 0;
    }
    let (first, middle, last) = (name[0], name[name.len() / 2], name[name.len() - 1]);
    let mixed = name.len() * 31 + first as usize * 7 + middle as usize * 61 + last as usize * 401;
    mixed % N_PLACES
}

const N_PLACES: usize = 4096;

/// Where each name is found.
struct Places {
    /// By place: the operand of a name that has it, or [`NO_NAME`].
    first: [u16; N_PLACES],
    /// By operand: the operand of another name that has the same place, or [`NO_NAME`].
    next: [u16; NAMES.len()],
}

const NO_NAME: u16 = u16::MAX;

static PLACES: Places = {
    let mut places = Places { first: [NO_NAME; N_PLACES], next: [NO_NAME; NAMES.len()] };
    let mut at = 0;
    while at < NAMES.len() {
        let place = place(NAMES[at].as_bytes());
        places.next[at] = places.first[place];
        places.first[place] = at as u16;
        at += 1;
    }
    places
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_stand_at_their_operands() {
        for (at, (constant, _)) in CONSTS.iter().enumerate() {
            assert_eq!(constant.operand() as usize, at);
        }
    }

    /// Images outlive builds.
    #[test]
    fn the_hash_of_a_name_is_fixed() {
        let hashes = ["", "a", "self", "__init__", "collections.abc"].map(|name| name_hash(name.as_bytes()));
        assert_eq!(hashes, HASHES);
    }

    /// Of each length: words of eight bytes, the last one filled up with zeros, which is there even if it is empty.
    #[test]
    fn the_hash_is_that_of_words_filled_up_with_zeros() {
        let text: Vec<u8> = (1..=40).map(|byte| byte * 6).collect();
        for len in 0..text.len() {
            let mut padded = text[..len].to_vec();
            padded.resize(len / 8 * 8 + 8, 0);
            let hash = padded.as_chunks().0.iter().fold(len as u64, |hash, word| {
                let mixed = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                mixed ^ mixed >> 32
            });
            assert_eq!(name_hash(&text[..len]), hash as u32, "{len} bytes");
        }
    }

    const HASHES: [u32; 5] = [0, 0xef23_226f, 0xf4a6_d38c, 0x8324_63ed, 0x7ef8_1467];

    #[test]
    fn names_are_found_at_their_operands() {
        for (at, name) in NAMES.iter().enumerate() {
            assert_eq!(name_operand(name.as_bytes()), Some(at as u32), "{name} stands twice");
        }
        assert_eq!(name_operand(b"rehydrate"), None);
    }

    /// Images outlive builds: a change here needs a new [`VERSION`].
    #[test]
    fn version_1_of_the_names_is_fixed() {
        let sum = NAMES
            .join("\n")
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        assert_eq!((VERSION, sum), (1, FINGERPRINT));
    }

    const FINGERPRINT: u64 = 0xbf86_590f_91c1_81e5;
}
