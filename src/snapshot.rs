//! The sequence of a file as a text to assert on, and the files of [insta] that hold such texts.
//!
//! ```
//! use rehydrate::{Options, Profile, Python, snapshot};
//!
//! let dump = b")\x04i\x01\0\0\0Z\x01ag\0\0\0\0\0\x80B@)\x02i\x02\0\0\0Z\x03foo";
//! let options = Options { profile: Profile::Core, ..Options::default() };
//! insta::assert_snapshot!(snapshot::text(dump, "3.13".parse::<Python>().ok(), options)?, @r"
//! ; Initializer of Python 3.13 objects: 16 bytes of instructions, 12 of data, 0 of source; at most 5 values on the stack
//! .python 3.13
//! .module ''
//! .filename ''
//!
//!    0  LOAD_INT           1                         ; 1  1
//!    2  MAKE_STRING        'a' interned              ; 2  'a'
//!    4  MAKE_FLOAT         37.0                      ; 3  37.0
//!    6  LOAD_INT           2                         ; 4  2
//!    8  MAKE_STRING        'foo' interned            ; 5  'foo'
//!   10  BUILD_TUPLE        2                         ; 4  (2, 'foo')
//!   12  BUILD_TUPLE        4                         ; 1  (1, 'a', 37.0, (2, 'foo'))
//!   14  RETURN_VALUE                                 ; 0  (1, 'a', 37.0, (2, 'foo'))
//! ");
//! # Ok::<(), rehydrate::Error>(())
//! ```
//!
//! Invariants:
//! - A text depends on the objects and the options alone: not on the header of a .pyc, which has the time of its source,
//!   nor on how the dump spells the objects.
//! - `contents(&file(.., .., text))` is `text` but for white space at its end, and insta reads the same.
//!
//! [insta]: https://insta.rs

use std::borrow::Cow;

use crate::compile::{Options, compile};
use crate::error::Result;
use crate::file::Input;
use crate::image::Image;
use crate::lazy;
use crate::listing::disassemble;
use crate::python::Python;
use crate::verify::verify;

/// The listing of a file's initializer, without the header and the source section; a .pyc or a dump is compiled first.
///
/// `options.source_flags` makes no difference.
///
/// # Errors
/// As [`Input::read`], [`compile`] and [`verify`]; of a lazy container, as [`lazy::hydrate()`].
pub fn text(file: &[u8], python: Option<Python>, options: Options) -> Result<String> {
    let image = match Input::read(file, python)? {
        Input::Source(source) => compile(&source, Options { source_flags: false, ..options })?.image,
        Input::Initializer(initializer) => Image { source: None, ..initializer.image },
        Input::Lazy(container) => return Ok(lazy::Listing::new(&container)?.to_string()),
    };
    Ok(disassemble(&verify(image)?, &[]).to_string())
}

/// A snapshot file, as insta writes it: `source` says what the text is of, `expression` how it was made.
///
/// ```text
/// ---
/// source: package/module.pyc
/// expression: rehydrate snapshot
/// ---
/// ; Initializer of ...
/// ```
///
/// Source: insta 1.49 `src/snapshot.rs`, `serialize_snapshot`.
pub fn file(source: &str, expression: &str, text: &str) -> String {
    let (source, expression) = (scalar(source), scalar(expression));
    format!("---\nsource: {source}\nexpression: {expression}\n---\n{}\n", normal(text))
}

/// The text in a snapshot file, without what does not count: white space at its end, and how lines end.
///
/// A file without insta's front matter is all text.
///
/// Source: insta 1.49 `src/snapshot.rs`, `from_file` and `normalize`.
pub fn contents(file: &str) -> Cow<'_, str> {
    let mut lines = file.split_inclusive('\n');
    let is_rule = |line: &str| line.trim_end() == "---";
    if !lines.next().is_some_and(is_rule) {
        return normal(file);
    }
    _ = lines.by_ref().find(|line| is_rule(line));
    let n_left: usize = lines.map(str::len).sum();
    normal(&file[file.len() - n_left..])
}

/// What insta compares of a text.
pub fn normal(text: &str) -> Cow<'_, str> {
    let text = text.trim_end();
    if text.contains("\r\n") { Cow::Owned(text.replace("\r\n", "\n")) } else { Cow::Borrowed(text) }
}

/// A string of YAML: plain where that is certain to be one, else in quotes, of which those of JSON are a part.
fn scalar(text: &str) -> Cow<'_, str> {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.contains(['.', '/', ' '])
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "._/- @+".contains(c));
    if is_plain { Cow::Borrowed(text) } else { Cow::Owned(serde_json::Value::from(text).to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_does_not_depend_on_the_header_or_the_source_section() {
        let greeting = include_bytes!("../examples/greeting.cpython-313.pyc");
        let mut later = greeting.to_vec();
        later[8..12].copy_from_slice(&1_700_000_000_u32.to_le_bytes());
        let text_of = |file: &[u8]| text(file, None, Options::default()).unwrap();
        assert_eq!(text_of(greeting), text_of(&later));

        let Input::Source(source) = Input::read(greeting, None).unwrap() else { panic!("a .pyc") };
        let initializer = compile(&source, Options::default()).unwrap().encode().unwrap();
        assert_eq!(text_of(greeting), text_of(&initializer));
        assert!(!text_of(greeting).contains(".source"));
    }

    #[test]
    fn a_text_comes_back_out_of_its_file() {
        for text in ["", "one", "one\n\n two", "---\none\n---\ntwo"] {
            assert_eq!(contents(&file("a/b.pyc", "x: 'y'", text)), text);
        }
        assert_eq!(contents(&file("a", "b", "one\r\ntwo \n\n")), "one\ntwo");
        assert_eq!(contents("---\r\nsource: a\r\n---\r\none\r\n"), "one");
    }

    #[test]
    fn a_file_without_front_matter_is_all_text() {
        assert_eq!(contents("<<<<<<< ours\none\n"), "<<<<<<< ours\none");
        assert_eq!(contents(""), "");
        assert_eq!(contents("---\nsource: a\n"), "");
    }

    #[test]
    fn what_is_not_certain_to_be_a_string_is_quoted() {
        assert_eq!(scalar("a/b-c.pyc"), "a/b-c.pyc");
        assert_eq!(scalar("rehydrate snapshot --profile core"), "rehydrate snapshot --profile core");
        for text in ["", "true", "no", "1e5", "a: b", "- a", "a #b", "a\nb", "é"] {
            assert_eq!(scalar(text), serde_json::Value::from(text).to_string());
        }
    }
}
