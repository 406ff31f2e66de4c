//! Finds values that are equal, and yet were not merged; and says why.

use indexmap::IndexMap;

use crate::graph::{Graph, NodeId};
use crate::heap::Object;
use crate::key::Sharing;

/// What makes two values equal to a reader who does not ask which of them he has: type and content, the interned mark and
/// identity left out.
#[derive(PartialEq, Eq, Hash)]
struct Content {
    kind: &'static str,
    bytes: Vec<u8>,
    /// The classes of what it holds.
    held: Vec<u32>,
}

/// By node: the other nodes that are equal to it, in the order of their ids; mostly none.
pub(super) fn twins(graph: &Graph<'_, '_>) -> Vec<Vec<NodeId>> {
    let mut classes: IndexMap<Content, Vec<NodeId>, foldhash::fast::RandomState> = IndexMap::default();
    let mut class_of: Vec<u32> = Vec::with_capacity(graph.len());
    for id in graph.ids() {
        let mut content = content(graph, id, &class_of);
        if is_deferred(graph, id) {
            // What holds itself is taken as equal to itself alone.
            content.bytes = id.index().to_le_bytes().to_vec();
            content.kind = "deferred";
        }
        let entry = classes.entry(content);
        class_of.push(u32::try_from(entry.index()).expect("no more than nodes"));
        entry.or_default().push(id);
    }
    let mut twins = vec![Vec::new(); graph.len()];
    for class in classes.values().filter(|class| class.len() > 1) {
        for id in class {
            twins[id.index()] = class.iter().copied().filter(|other| other != id).take(MAX_TWINS).collect();
        }
    }
    twins
}

/// Whether it is a list or dict of a cycle: what it holds stands apart.
pub(super) fn is_deferred(graph: &Graph<'_, '_>, id: NodeId) -> bool {
    let holds = matches!(graph.object(id), Object::List(items) | Object::Dict(items) if !items.is_empty());
    holds && graph.operands(id).is_empty()
}

/// The most equals that are named of one value: all of many would be as many as their square.
const MAX_TWINS: usize = 8;

fn content(graph: &Graph<'_, '_>, id: NodeId, class_of: &[u32]) -> Content {
    let heap = graph.heap;
    let object = graph.object(id);
    let bytes = match *object {
        Object::True => vec![1],
        Object::Int(value) => value.to_le_bytes().to_vec(),
        Object::Long(long) => heap.long(long).to_signed_bytes_le(),
        Object::Float(bits) => bits.to_le_bytes().to_vec(),
        Object::Complex { real, imag } => [real.to_le_bytes(), imag.to_le_bytes()].concat(),
        Object::Bytes(bytes) => bytes.to_vec(),
        Object::Str(text) => text.to_utf8(&mut Vec::new()).to_vec(),
        Object::Code(code) => {
            let (code, numbers) = (heap.code(code), &heap.python().layout().numbers);
            numbers.iter().flat_map(|field| code.number(*field).to_le_bytes()).collect()
        }
        _ => Vec::new(),
    };
    let held = graph.operands(id).iter().chain(graph.tables(id)).map(|held| class_of[held.index()]).collect();
    Content { kind: object.type_name(), bytes, held }
}

/// Why two equal values are two, in one sentence without its subject.
pub(super) fn why_apart(graph: &Graph<'_, '_>, id: NodeId, other: NodeId) -> String {
    let (object, twin) = (graph.object(id), graph.object(other));
    match (object, twin) {
        (Object::List(_) | Object::Set(_) | Object::Dict(_), _) => {
            let kind = object.type_name();
            format!("equal to {other}, but a {kind}, which may change: never merged")
        }
        (Object::Code(_), _) => format!("equal to {other}, but a code object: never merged"),
        (Object::Str(text), Object::Str(twin)) if text.is_interned() != twin.is_interned() => {
            let (is, is_not) = if text.is_interned() { (id, other) } else { (other, id) };
            format!("the same text as {other}, but {is} is interned and {is_not} is not: two values")
        }
        (Object::Float(_) | Object::Complex { .. }, _) if graph.sharing == Sharing::Structural => {
            format!("the same bits as {other}, but a NaN, which does not equal itself: never merged")
        }
        _ if graph.sharing != Sharing::Structural => {
            format!("equal to {other}, but the dump does not share them, and --sharing structural was not asked for")
        }
        _ => {
            let (held, its) = (graph.operands(id), graph.operands(other));
            let (mine, its) =
                held.iter().zip(its).find(|(mine, its)| mine != its).expect("equals of equal parts merge");
            format!(
                "equal to {other}, but holds {mine}, where that holds {its}: these did not merge, so neither do they"
            )
        }
    }
}
