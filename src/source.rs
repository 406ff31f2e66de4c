//! The source section: what the objects alone do not know of the dump that they were compiled from.
//!
//! With it, turning an initializer back gives the identical dump, in every sharing mode.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | kind: 0 transcript, 1 transcript without classes, 2 the dump itself |
//! | varint | *n*, how many type bytes the dump has |
//! | ⌈*n*/8⌉ | a bit for each, the lowest first: 1 where the type byte is not the one foreseen |
//! | | the type bytes that were not foreseen |
//! | varint | how many indexes of references were not foreseen |
//! | | for each: a varint, how many references stand before it since the last one; a varint, its index |
//! | varint | how many text floats there are |
//! | | for each: a byte, its length; the text |
//! | | what follows the object in the dump |
//!
//! What is foreseen: the type byte that was last seen for the same kind of object, in the same state (already flagged or
//! not); at first the plain code, or `r`. The index of the latest flagged object of the same *class*: the objects that the
//! compiler merged into one. Without classes (`--sharing none`) no object counts as flagged, and no index is foreseen.
//!
//! The dump itself stands there only if objects cannot make it again: a dict in it drops a key, or it is so much larger
//! than the initializer that a reader would rightly distrust the transcript.

use crate::error::{ErrorKind, Result};
use crate::graph::{Graph, NodeId};
use crate::heap::{Heap, Object, ObjectId};
use crate::key::{Keys, Sharing};
use crate::marshal::{CACHED, Dump, FLAG_REF, Script, TypeCode, kind, takes_index, write_script};
use crate::varint;

const TRANSCRIPT: u8 = 0;
const WITHOUT_CLASSES: u8 = 1;
const VERBATIM: u8 = 2;

/// The most bytes that a dump may have, for an initializer of so many: enough for any real one, and a bound for others.
fn budget(initializer_len: usize) -> usize {
    256 * initializer_len + (1 << 20)
}

/// Encodes the source section of a dump whose initializer takes `payload_len` bytes. `input` is what was read.
pub(crate) fn encode(dump: &Dump<'_>, input: &[u8], graph: &Graph<'_, '_>, payload_len: usize) -> Result<Vec<u8>> {
    let drops_a_key = |object: &Object<'_>| match object {
        Object::Dict(items) | Object::FrozenDict(items) => items.len() % 2 == 1,
        _ => false,
    };
    // A dict that drops something is met in no certain order.
    let may_drop = dump.order.is_none() && dump.heap.ids().any(|id| drops_a_key(&dump.heap[id]));
    if input.len() > budget(payload_len) || may_drop {
        return Ok([&[VERBATIM], input].concat());
    }
    let has_classes = graph.sharing != Sharing::None;
    let recorded = record(dump, graph, Forecast::new(graph.ids().map(|id| graph.kind(id)), has_classes));
    let mut out = vec![if has_classes { TRANSCRIPT } else { WITHOUT_CLASSES }];
    varint::write(&mut out, small(dump.transcript.types.len()));
    out.extend_from_slice(&recorded.bits);
    out.extend_from_slice(&recorded.types);
    varint::write(&mut out, recorded.n_indexes);
    out.extend_from_slice(&recorded.indexes);
    varint::write(&mut out, small(dump.transcript.texts.len()));
    for text in &dump.transcript.texts {
        out.push(u8::try_from(text.len()).expect("texts were read with a length of one byte"));
        out.extend_from_slice(text);
    }
    out.extend_from_slice(dump.trailing);
    Ok(out)
}

fn small(len: usize) -> u32 {
    u32::try_from(len).expect("inputs are below 2 GiB")
}

/// Writes the dump again whose initializer made `root`.
///
/// # Errors
/// [`ErrorKind::BadSource`] where the section does not fit the objects, [`ErrorKind::BudgetExceeded`] where the dump is
/// out of proportion to its initializer.
pub(crate) fn decode(section: &[u8], heap: &Heap<'_>, root: ObjectId, payload_len: usize) -> Result<Vec<u8>> {
    let cut_short = || ErrorKind::BadSource("it ends early");
    let (&section_kind, mut rest) = section.split_first().ok_or_else(cut_short)?;
    let has_classes = match section_kind {
        TRANSCRIPT => true,
        WITHOUT_CLASSES => false,
        VERBATIM => return Ok(rest.to_vec()),
        _ => return Err(ErrorKind::BadSource("its kind is unknown").into()),
    };
    let n_types = number(&mut rest)? as usize;
    let bits = take(&mut rest, n_types.div_ceil(8))?;
    if !n_types.is_multiple_of(8) && bits[bits.len() - 1] >> (n_types % 8) != 0 {
        return Err(ErrorKind::BadSource("bits stand behind the last type byte").into());
    }
    let types = take(&mut rest, bits.iter().map(|byte| byte.count_ones() as usize).sum())?;
    let n_indexes = number(&mut rest)?;
    let indexes = rest;
    for _ in 0..n_indexes {
        number(&mut rest)?;
        number(&mut rest)?;
    }
    let indexes = &indexes[..indexes.len() - rest.len()];
    let n_texts = number(&mut rest)?;
    let texts = rest;
    for _ in 0..n_texts {
        let [len] = *take(&mut rest, 1)? else { unreachable!("one byte was taken") };
        take(&mut rest, usize::from(len))?;
    }
    let texts = &texts[..texts.len() - rest.len()];
    let mut player = Player {
        forecast: Forecast::new(heap.ids().map(|id| kind(&heap[id])), has_classes),
        classes: classes(heap),
        n_types,
        at: 0,
        bits,
        types,
        indexes,
        until_index: None,
        texts,
    };
    let mut out = Vec::new();
    write_script(heap, root, &mut player, budget(payload_len + section.len()), &mut out)?;
    if player.at != n_types || !player.indexes.is_empty() || player.until_index.is_some() || !player.texts.is_empty() {
        return Err(ErrorKind::BadSource("it goes on behind the last object").into());
    }
    out.extend_from_slice(rest);
    Ok(out)
}

/// By object: the first of those that the compiler merges, as far as the machine may have made several. It may where
/// CPython has one for the whole process.
fn classes(heap: &Heap<'_>) -> Vec<u32> {
    let mut keys = Keys::new(heap, Sharing::Identity, 0);
    heap.ids().map(|id| keys.number(id, heap[id], &[] as &[u32], |_| &[], id.number())).collect()
}

fn number(rest: &mut &[u8]) -> Result<u32> {
    let mut at = 0;
    let number = varint::read(rest, &mut at).ok_or(ErrorKind::BadVarint("the source section"))?;
    *rest = &rest[at..];
    Ok(number)
}

fn take<'s>(rest: &mut &'s [u8], len: usize) -> Result<&'s [u8]> {
    let (taken, left) = rest.split_at_checked(len).ok_or(ErrorKind::BadSource("it ends early"))?;
    *rest = left;
    Ok(taken)
}

/// What type bytes and indexes to expect. Writer and reader keep one each, in step.
///
/// Which byte comes next is anyone's guess, so little here branches on it.
struct Forecast {
    /// By state (flagged before or not) and kind.
    last: [[u8; 128]; 2],
    /// The last one is that of NULL.
    classes: Vec<Class>,
    has_classes: bool,
    next_index: u32,
}

/// What is known of equal objects.
#[derive(Clone, Copy)]
struct Class {
    /// The index that they last took.
    index: u32,
    kind: u8,
}

const NONE: u32 = u32::MAX;

/// By type byte: whether the next index goes to its object.
const TAKES_INDEX: [bool; 256] = {
    let mut takes = [false; 256];
    let mut byte = 0;
    while byte < takes.len() {
        takes[byte] = byte as u8 & FLAG_REF != 0 && takes_index(byte as u8 & !FLAG_REF);
        byte += 1;
    }
    takes
};

impl Forecast {
    /// `kinds` are those of the classes.
    fn new(kinds: impl Iterator<Item = u8>, has_classes: bool) -> Self {
        let mut last = [[TypeCode::Ref as u8; 128]; 2];
        for (code, foreseen) in (0..).zip(&mut last[0]) {
            *foreseen = code;
        }
        last[0][usize::from(CACHED)] = TypeCode::ShortAscii as u8;
        let mut classes: Vec<Class> = Vec::with_capacity(kinds.size_hint().0 + 1);
        classes.extend(kinds.map(|kind| Class { index: NONE, kind }));
        classes.push(Class { index: NONE, kind: TypeCode::Null as u8 });
        Self { last, classes, has_classes, next_index: 0 }
    }

    fn null(&self) -> usize {
        self.classes.len() - 1
    }

    /// The type byte that is expected of a class.
    fn type_byte(&self, class: usize) -> u8 {
        let Class { index, kind } = self.classes[class];
        self.last[usize::from(index != NONE)][usize::from(kind & 0x7f)]
    }

    /// Notes the real type byte. Whether another one was expected; and the index that was, if it is a reference.
    #[inline]
    fn see(&mut self, byte: u8, class: usize) -> (bool, u32) {
        let class = &mut self.classes[class];
        let foreseen = &mut self.last[usize::from(class.index != NONE)][usize::from(class.kind & 0x7f)];
        let seen = (*foreseen != byte, class.index);
        *foreseen = byte;
        let takes = TAKES_INDEX[usize::from(byte)];
        class.index = if takes & self.has_classes { self.next_index } else { class.index };
        self.next_index += u32::from(takes);
        seen
    }

    fn index(&self, class: usize) -> u32 {
        self.classes[class].index
    }
}

/// What of a dump was not foreseen.
struct Recorded {
    bits: Vec<u8>,
    types: Vec<u8>,
    n_indexes: u32,
    indexes: Vec<u8>,
}

/// Compares a dump with the forecast.
#[inline(never)]
fn record(dump: &Dump<'_>, graph: &Graph<'_, '_>, mut forecast: Forecast) -> Recorded {
    let transcript = &dump.transcript;
    let mut bits = Vec::with_capacity(transcript.types.len().div_ceil(8));
    // Of each list only the front counts: what comes next is written behind it in any case, and counted if it belongs there.
    let (mut types, mut n_types) = (vec![0; transcript.types.len()], 0);
    let (mut foreseen_indexes, mut n_refs) = (vec![NONE; transcript.refs.len() + 1], 0);
    for (eight, ids) in transcript.types.chunks(8).zip(transcript.ids.chunks(8)) {
        let mut byte_of_bits = 0;
        for (at, (&byte, &id)) in eight.iter().zip(ids).enumerate() {
            let code = byte & !FLAG_REF;
            let class = if code == TypeCode::Null as u8 { None } else { graph.node_of(id) };
            let class = class.map_or(forecast.null(), NodeId::index);
            let (differs, index) = forecast.see(byte, class);
            byte_of_bits |= u8::from(differs) << at;
            types[n_types] = byte;
            n_types += usize::from(differs);
            foreseen_indexes[n_refs] = index;
            n_refs += usize::from(code == TypeCode::Ref as u8);
        }
        bits.push(byte_of_bits);
    }
    types.truncate(n_types);
    let (mut indexes, mut n_indexes, mut last) = (Vec::new(), 0, 0);
    for (at, (&index, foreseen)) in transcript.refs.iter().zip(foreseen_indexes).enumerate() {
        if index != foreseen {
            varint::write(&mut indexes, small(at - last));
            varint::write(&mut indexes, index);
            n_indexes += 1;
            last = at + 1;
        }
    }
    Recorded { bits, types, n_indexes, indexes }
}

/// Makes the dump again from the forecast and what was not foreseen.
struct Player<'s> {
    forecast: Forecast,
    /// By object.
    classes: Vec<u32>,
    n_types: usize,
    /// Type bytes so far.
    at: usize,
    bits: &'s [u8],
    types: &'s [u8],
    indexes: &'s [u8],
    /// References up to the next one that was not foreseen, once that is known.
    until_index: Option<u32>,
    texts: &'s [u8],
}

impl Player<'_> {
    fn class(&self, id: ObjectId) -> usize {
        self.classes[id.index()] as usize
    }
}

impl<'s> Script<'s> for Player<'s> {
    fn type_byte(&mut self, _: &Heap<'_>, id: Option<ObjectId>) -> Result<u8> {
        if self.at == self.n_types {
            return Err(ErrorKind::BadSource("it ends early").into());
        }
        let class = id.map_or(self.forecast.null(), |id| self.class(id));
        let mut byte = self.forecast.type_byte(class);
        if self.bits[self.at / 8] >> (self.at % 8) & 1 != 0 {
            let (&other, rest) = self.types.split_first().expect("one for each bit");
            self.types = rest;
            byte = other;
        }
        self.at += 1;
        self.forecast.see(byte, class);
        Ok(byte)
    }

    fn reference(&mut self, id: ObjectId) -> Result<u32> {
        if self.until_index.is_none() && !self.indexes.is_empty() {
            self.until_index = Some(number(&mut self.indexes)?);
        }
        match &mut self.until_index {
            Some(0) => {
                self.until_index = None;
                number(&mut self.indexes)
            }
            until => {
                if let Some(until) = until {
                    *until -= 1;
                }
                match self.forecast.index(self.class(id)) {
                    NONE => Err(ErrorKind::BadSource("a reference has no index").into()),
                    index => Ok(index),
                }
            }
        }
    }

    fn text(&mut self) -> Result<&'s [u8]> {
        if self.texts.is_empty() {
            return Err(ErrorKind::BadSource("a text float has no text").into());
        }
        let [len] = *take(&mut self.texts, 1)? else { unreachable!("one byte was taken") };
        take(&mut self.texts, usize::from(len))
    }
}
