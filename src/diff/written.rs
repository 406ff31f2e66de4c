//! How two dumps of equal objects differ, byte by byte: in flags, references and type codes.

use super::Encoding;
use crate::error::{ErrorKind, Result};
use crate::file::Source;
use crate::heap::{Heap, Object, ObjectId};
use crate::marshal::{Event, FLAG_REF, Recorded, Script, TypeCode, walk};

/// What differs between the dumps, if anything does. It is counted where `in_step` says that both have the same objects,
/// shared alike, in the same order: then each type byte of one stands for one of the other.
pub(super) fn encoding(a: &Source<'_>, b: &Source<'_>, in_step: bool) -> Option<Encoding> {
    if a.marshal == b.marshal {
        return None;
    }
    let same = a.marshal.iter().zip(b.marshal).take_while(|(x, y)| x == y).count();
    let mut encoding = Encoding {
        first: same + a.header.map_or(0, |header| header.bytes().len()),
        flags: 0,
        references: 0,
        type_codes: 0,
        trailing: a.dump.trailing != b.dump.trailing,
    };
    if in_step {
        // Where the dumps get out of step after all, what was counted is still true.
        _ = count(a, b, &mut encoding);
    }
    Some(encoding)
}

fn count(a: &Source<'_>, b: &Source<'_>, encoding: &mut Encoding) -> Result<()> {
    let heap = &a.dump.heap;
    let mut script = Recorded::new(&a.dump.transcript);
    let mut others = b.dump.transcript.types.iter();
    walk(heap, a.dump.root, |event| {
        let id = match event {
            Event::Number { .. } => return Ok(false),
            Event::Object { id, .. } => Some(id),
            Event::Null { .. } => None,
        };
        let byte = script.type_byte(heap, id)?;
        let Some(&other) = others.next() else {
            return Err(ErrorKind::BadSource("the dumps are not in step").into());
        };
        encoding.flags += usize::from((byte ^ other) & FLAG_REF != 0);
        let (code, other) = (byte & !FLAG_REF, other & !FLAG_REF);
        let is_reference = |code| code == TypeCode::Ref as u8;
        if is_reference(code) != is_reference(other) {
            encoding.references += 1;
        } else if code != other && !id.is_some_and(|id| is_mark(heap, id, code, other)) {
            encoding.type_codes += 1;
        }
        Ok(!is_reference(code))
    })
}

/// Whether the codes differ in nothing but the interned mark, which is counted with the objects; that of a str that
/// CPython keeps once for the whole process is no property of the object.
fn is_mark(heap: &Heap<'_>, id: ObjectId, code: u8, other: u8) -> bool {
    let plain = |code: u8| match code {
        b't' => b'u',
        b'A' | b'Z' => code.to_ascii_lowercase(),
        _ => code,
    };
    plain(code) == plain(other) && matches!(heap[id], Object::Str(text) if !text.is_cached())
}
