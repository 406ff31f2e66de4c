//! Spells constants as Python does, in ASCII.
//!
//! What Python's `repr` cannot give back is spelled so that it can be read again: a NaN as `nan:` and its bits, and an int
//! of more digits than Python's own limit for text in hexadecimal.

use std::fmt::Write;

use num_bigint::BigInt;

use crate::heap::{Heap, Object, ObjectId, Str};

/// A str, quoted and escaped as by Python's `ascii`.
pub fn text(text: Str<'_>) -> String {
    let has_single = text.code_points().any(|point| point == u32::from(b'\''));
    let has_double = text.code_points().any(|point| point == u32::from(b'"'));
    let quote = if has_single && !has_double { '"' } else { '\'' };
    let mut out = String::from(quote);
    for point in text.code_points() {
        escape(&mut out, point, quote);
    }
    out.push(quote);
    out
}

/// bytes, quoted and escaped as by Python's `repr`.
pub fn bytes(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') { '"' } else { '\'' };
    let mut out = format!("b{quote}");
    for byte in bytes {
        escape(&mut out, u32::from(*byte), quote);
    }
    out.push(quote);
    out
}

fn escape(out: &mut String, point: u32, quote: char) {
    let written = match (char::from_u32(point), point) {
        (Some(c), _) if c == quote || c == '\\' => write!(out, "\\{c}"),
        (Some('\n'), _) => write!(out, "\\n"),
        (Some('\r'), _) => write!(out, "\\r"),
        (Some('\t'), _) => write!(out, "\\t"),
        (Some(c @ ' '..='~'), _) => write!(out, "{c}"),
        (_, ..0x100) => write!(out, "\\x{point:02x}"),
        (_, ..0x1_0000) => write!(out, "\\u{point:04x}"),
        _ => write!(out, "\\U{point:08x}"),
    };
    written.expect("a String takes what is written");
}

/// A float as by Python's `repr`; a NaN with its bits.
pub fn float(bits: u64) -> String {
    let value = f64::from_bits(bits);
    if value.is_nan() {
        return format!("nan:{bits:016x}");
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    // The shortest digits that give the same bits; Python writes an exponent below 1e-4 and from 1e16 on.
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("the format has an exponent");
    match exponent.parse::<i32>().expect("the exponent is an int") {
        -4..16 => format!("{value:?}"),
        exponent => format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
    }
}

/// A complex number, its parts as by [`float`].
pub fn complex(real: u64, imag: u64) -> String {
    format!("complex({}, {})", float(real), float(imag))
}

/// Most digits that Python itself turns into text, by default.
///
/// Source: CPython `Include/internal/pycore_long.h`, `_PY_LONG_DEFAULT_MAX_STR_DIGITS`.
const MAX_DIGITS: u64 = 4300;

/// An int, in decimal up to about 4300 digits, beyond in hexadecimal: decimal takes time that grows with the square.
pub fn int(value: &BigInt) -> String {
    if value.bits() <= MAX_DIGITS * 10 / 3 { value.to_string() } else { format!("{value:#x}") }
}

/// An object that holds no others, as by the functions above; `None` for one that does.
pub fn scalar(heap: &Heap<'_>, id: ObjectId) -> Option<String> {
    Some(match heap[id] {
        Object::None => "None".to_owned(),
        Object::False => "False".to_owned(),
        Object::True => "True".to_owned(),
        Object::Ellipsis => "Ellipsis".to_owned(),
        Object::StopIteration => "StopIteration".to_owned(),
        Object::Int(value) => value.to_string(),
        Object::Long(long) => int(heap.long(long)),
        Object::Float(bits) => float(bits),
        Object::Complex { real, imag } => complex(real, imag),
        Object::Bytes(value) => bytes(value),
        Object::Str(value) => text(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_spelled_as_python_does() {
        let said = |value: f64| float(value.to_bits());
        let values = [37.0, -0.0, 0.1, 1e15, 1e16, 1.5e300, 1e-4, 1e-5, 5e-324, f64::INFINITY, f64::NEG_INFINITY];
        assert_eq!(
            values.map(said),
            [
                "37.0",
                "-0.0",
                "0.1",
                "1000000000000000.0",
                "1e+16",
                "1.5e+300",
                "0.0001",
                "1e-05",
                "5e-324",
                "inf",
                "-inf"
            ]
        );
        assert_eq!(float(0x7ff8_0000_0000_0001), "nan:7ff8000000000001");
    }

    #[test]
    fn text_is_escaped_to_ascii() {
        let said = |value: &[u8]| text(Str::utf8(value, false).unwrap());
        assert_eq!(said("it's\n\u{e9}\u{20ac}\u{1f600}\\".as_bytes()), r#""it's\n\xe9\u20ac\U0001f600\\""#);
        assert_eq!(said(b"'\""), r#"'\'"'"#);
        assert_eq!(said(b"\xed\xa0\x80"), r"'\ud800'");
        assert_eq!(bytes(b"\0a\xff"), r"b'\x00a\xff'");
    }

    #[test]
    fn long_ints_are_spelled_in_hexadecimal() {
        assert_eq!(int(&(BigInt::from(1) << 70_u32)), "1180591620717411303424");
        assert!(int(&(BigInt::from(-1) << 20000_u32)).starts_with("-0x1000"));
    }
}
