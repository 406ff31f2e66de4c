//! The dependency graph: which object must exist before which other one.
//!
//! [`lower`] merges the objects of a heap by their [`Key`]s and cuts its cycles at lists and dicts, which are created
//! empty and filled afterwards.
//!
//! Invariants:
//! - [`NodeId`]s are in topological order: what a node needs has a smaller id.
//! - Edges of a node are its operands in the order pushed; those of a code object end with its tables.
//! - Deferred nodes have no edges. What fills them stands apart, in the order of the file.

use std::fmt;

use petgraph::Direction;
use petgraph::visit::{
    GraphBase, GraphProp, IntoNeighbors, IntoNeighborsDirected, IntoNodeIdentifiers, NodeCount, NodeIndexable,
    VisitMap, Visitable,
};

use crate::error::{Error, ErrorKind, Result};
use crate::heap::{Heap, Object, ObjectId};
use crate::key::{Key, KeyMap, Sharing};
use crate::marshal::unhashable;
use crate::python::{Field, FieldKind};

/// The name of a node of a [`Graph`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// Its position in the graph.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Objects that merged into one, and what they need.
#[derive(Debug, Clone, Copy)]
struct Node {
    /// The first of the objects.
    object: ObjectId,
    /// Where its edges begin; they end where the next node's begin.
    edges: u32,
    /// How often it is needed as an operand, or as an item that fills a deferred node.
    uses: u32,
    /// How often MAKE_CODE needs it as a table.
    table_uses: u32,
}

/// What must exist before what.
#[derive(Debug)]
pub struct Graph<'h, 'a> {
    /// The objects.
    pub heap: &'h Heap<'a>,
    /// How they were merged.
    pub sharing: Sharing,
    /// The top-level object.
    pub root: NodeId,
    /// Lists and dicts that are created empty, with what fills them.
    pub deferred: Vec<(NodeId, Vec<NodeId>)>,
    nodes: Vec<Node>,
    edges: Vec<NodeId>,
    /// By object; `NONE` where it is not needed.
    node_of: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl<'h, 'a> Graph<'h, 'a> {
    /// How many nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: there is always a root.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Every node, what is needed first before what needs it.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..u32::try_from(self.nodes.len()).expect("no more than objects")).map(NodeId)
    }

    /// The object a node stands for.
    pub fn object(&self, id: NodeId) -> &'h Object<'a> {
        &self.heap[self.nodes[id.index()].object]
    }

    /// The first of the objects a node stands for.
    pub fn object_id(&self, id: NodeId) -> ObjectId {
        self.nodes[id.index()].object
    }

    /// The node of an object, if it is needed.
    pub fn node_of(&self, id: ObjectId) -> Option<NodeId> {
        let node = self.node_of[id.index()];
        (node != NONE).then_some(NodeId(node))
    }

    /// How often a node is needed as an operand.
    pub fn uses(&self, id: NodeId) -> u32 {
        self.nodes[id.index()].uses
    }

    /// How often MAKE_CODE needs a node as a table.
    pub fn table_uses(&self, id: NodeId) -> u32 {
        self.nodes[id.index()].table_uses
    }

    /// What a node takes from the stack, in the order pushed.
    pub fn operands(&self, id: NodeId) -> &[NodeId] {
        self.split(id).0
    }

    /// What a code object takes from binary data, in the order of marshal.
    pub fn tables(&self, id: NodeId) -> &[NodeId] {
        self.split(id).1
    }

    fn split(&self, id: NodeId) -> (&[NodeId], &[NodeId]) {
        let edges = self.edges(id);
        let tables = match self.object(id) {
            Object::Code(_) => self.heap.python().layout().tables.len(),
            _ => 0,
        };
        edges.split_at(edges.len() - tables)
    }

    fn edges(&self, id: NodeId) -> &[NodeId] {
        let start = self.nodes[id.index()].edges as usize;
        let end = self.nodes.get(id.index() + 1).map_or(self.edges.len(), |next| next.edges as usize);
        &self.edges[start..end]
    }
}

/// Lowers what is below `root`.
///
/// # Errors
/// [`ErrorKind::ImmutableCycle`] for a cycle without a list or dict, with its path; [`ErrorKind::Unhashable`] for a key
/// without a hash.
pub fn lower<'h, 'a>(heap: &'h Heap<'a>, root: ObjectId, sharing: Sharing) -> Result<Graph<'h, 'a>> {
    let (order, deferred) = match post_order(heap, root, &[]) {
        (order, None) => (order, Vec::new()),
        (_, Some(_)) => cut(heap, root)?,
    };
    let mut graph = Graph {
        heap,
        sharing,
        root: NodeId(0),
        deferred: Vec::new(),
        nodes: Vec::with_capacity(order.len()),
        edges: Vec::with_capacity(2 * order.len()),
        node_of: vec![NONE; heap.len()],
    };
    let mut keys = KeyMap::with_capacity_and_hasher(order.len(), foldhash::fast::RandomState::default());
    let mut hashable = Vec::new();
    for object in order {
        let is_deferred = deferred.binary_search(&object).is_ok();
        if !is_deferred {
            check_keys(heap, object, &mut hashable)?;
        }
        let next = u32::try_from(graph.nodes.len()).expect("no more than objects");
        let number = |id: ObjectId| graph.node_of[id.index()];
        let node = match Key::new(heap, object, sharing, number) {
            Some(key) => *keys.entry(key).or_insert(next),
            None => next,
        };
        graph.node_of[object.index()] = node;
        if node == next {
            graph.push(object, is_deferred);
        }
    }
    for object in deferred {
        check_keys(heap, object, &mut hashable)?;
        let fills: Vec<NodeId> = own_children(heap, object).map(|id| NodeId(graph.node_of[id.index()])).collect();
        for fill in &fills {
            graph.nodes[fill.index()].uses += 1;
        }
        graph.deferred.push((NodeId(graph.node_of[object.index()]), fills));
    }
    graph.root = NodeId(graph.node_of[root.index()]);
    graph.nodes[graph.root.index()].uses += 1;
    Ok(graph)
}

impl Graph<'_, '_> {
    fn push(&mut self, object: ObjectId, is_deferred: bool) {
        let start = self.edges.len();
        let node_of = |id: ObjectId| NodeId(self.node_of[id.index()]);
        let mut n_operands = 0;
        match self.heap[object] {
            _ if is_deferred => {}
            Object::Code(code) => {
                let (code, layout) = (self.heap.code(code), self.heap.python().layout());
                self.edges.extend(layout.operands.iter().map(|field| node_of(code.object(*field))));
                n_operands = layout.operands.len();
                self.edges.extend(layout.tables.iter().map(|field| node_of(code.object(*field))));
            }
            _ => {
                self.edges.extend(own_children(self.heap, object).map(node_of));
                n_operands = self.edges.len() - start;
            }
        }
        for (at, edge) in self.edges[start..].iter().enumerate() {
            let node = &mut self.nodes[edge.index()];
            if at < n_operands { node.uses += 1 } else { node.table_uses += 1 }
        }
        let edges = u32::try_from(start).expect("inputs are below 2 GiB");
        self.nodes.push(Node { object, edges, uses: 0, table_uses: 0 });
    }
}

/// What an object holds, without a key that CPython drops.
fn own_children<'h>(heap: &'h Heap<'_>, id: ObjectId) -> impl Iterator<Item = ObjectId> + use<'h> {
    let pairs = match heap[id] {
        Object::Dict(items) | Object::FrozenDict(items) => items.len() / 2 * 2,
        _ => usize::MAX,
    };
    heap.children(id).take(pairs)
}

/// Refuses a set or dict whose keys have no hash: the reader lets them pass where CPython crashes.
fn check_keys(heap: &Heap<'_>, id: ObjectId, known: &mut Vec<bool>) -> Result<()> {
    let (items, step, role) = match heap[id] {
        Object::Set(items) | Object::FrozenSet(items) => (items, 1, "a set item"),
        Object::Dict(items) | Object::FrozenDict(items) => (items, 2, "a dict key"),
        _ => return Ok(()),
    };
    for key in heap.items(items).iter().step_by(step).filter(|key| heap[**key].is_compound()) {
        known.resize(heap.len(), false);
        if let Some(what) = unhashable(heap, *key, known) {
            return Err(ErrorKind::Unhashable { what, role }.into());
        }
    }
    Ok(())
}

/// The objects below `root`, each after what it holds, as far as that can be; and an edge that closes a cycle, if any
/// does. Objects in `cut`, which is sorted, are not looked into: what they hold comes last.
fn post_order(
    heap: &Heap<'_>,
    root: ObjectId,
    cut: &[ObjectId],
) -> (Vec<ObjectId>, Option<(ObjectId, ObjectId)>) {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut state = vec![State::New; heap.len()];
    let mut order = Vec::with_capacity(heap.len());
    let mut closing = None;
    // An object is opened when it is first met, and done when it is met again on the stack.
    let mut todo = vec![(root, root)];
    let starts = cut.iter().flat_map(|id| own_children(heap, *id).map(|child| (child, child)));
    let mut starts = starts.collect::<Vec<_>>().into_iter();
    loop {
        let Some((parent, id)) = todo.pop() else {
            match starts.next() {
                Some(start) => todo.push(start),
                None => return (order, closing),
            }
            continue;
        };
        match state[id.index()] {
            State::Done => {}
            State::Open if parent == id => {
                state[id.index()] = State::Done;
                order.push(id);
            }
            State::Open => closing = Some((parent, id)),
            State::New => {
                let is_leaf = !heap[id].is_compound() || cut.binary_search(&id).is_ok();
                if is_leaf {
                    state[id.index()] = State::Done;
                    order.push(id);
                    continue;
                }
                state[id.index()] = State::Open;
                todo.push((id, id));
                let first = todo.len();
                todo.extend(own_children(heap, id).map(|child| (id, child)));
                todo[first..].reverse();
            }
        }
    }
}
