//! The dependency graph: which object must exist before which other one.
//!
//! [`lower`] merges the objects of a heap by their [keys](crate::key) and cuts its cycles at lists and dicts, which are created
//! empty and filled afterwards.
//!
//! Invariants:
//! - [`NodeId`]s are in topological order: what a node needs has a smaller id.
//! - Edges of a node are its operands in the order pushed; those of a code object end with its tables.
//! - Deferred nodes have no edges. What fills them stands apart, in the order of the file.
//! - Common values, which one instruction loads from the table of a bundle, have none either.

use std::collections::HashMap;
use std::fmt;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::DiGraph;

use crate::error::{ErrorKind, Result};
use crate::heap::{Children, Heap, Items, Object, ObjectId, fixed};
use crate::isa::Instruction;
use crate::key::{Keys, Sharing};
use crate::marshal::{Dump, kind, shorten, unhashable};

/// The name of a node of a [`Graph`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// Its position in the graph.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl From<NodeId> for u32 {
    fn from(id: NodeId) -> Self {
        id.0
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
    /// Where those begin that are tables.
    tables: u32,
    /// How often it is needed as an operand, or as an item that fills a deferred node.
    uses: u32,
    /// How often MAKE_CODE needs it as a table.
    table_uses: u32,
    /// What it is expected to be written as. See [`kind`].
    kind: u8,
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
    /// By node: what loads it, if it is a common value. Empty outside of bundles.
    commons: Vec<Option<Instruction>>,
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

    /// What loads a node, if a bundle says that it is a common value.
    pub(crate) fn common(&self, id: NodeId) -> Option<Instruction> {
        self.commons.get(id.index()).copied().flatten()
    }

    /// What a node is expected to be written as.
    pub(crate) fn kind(&self, id: NodeId) -> u8 {
        self.nodes[id.index()].kind
    }

    /// What a node takes from the stack, in the order pushed.
    pub fn operands(&self, id: NodeId) -> &[NodeId] {
        let node = &self.nodes[id.index()];
        &self.edges[node.edges as usize..node.tables as usize]
    }

    /// What a code object takes from binary data, in the order of marshal.
    pub fn tables(&self, id: NodeId) -> &[NodeId] {
        &self.edges[self.nodes[id.index()].tables as usize..self.end(id)]
    }

    fn end(&self, id: NodeId) -> usize {
        self.nodes.get(id.index() + 1).map_or(self.edges.len(), |next| next.edges as usize)
    }
}

/// Lowers a dump.
///
/// # Errors
/// As [`lower_heap`].
pub fn lower<'h, 'a>(dump: &'h Dump<'a>, sharing: Sharing) -> Result<Graph<'h, 'a>> {
    match &dump.order {
        Some(order) => merge(&dump.heap, dump.root, Vec::new(), order, sharing, None),
        None => lower_heap(&dump.heap, dump.root, sharing),
    }
}

/// Lowers what is below `root`.
///
/// # Errors
/// [`ErrorKind::ImmutableCycle`] for a cycle without a list or dict, with its path; [`ErrorKind::Unhashable`] for a key
/// without a hash.
pub fn lower_heap<'h, 'a>(heap: &'h Heap<'a>, root: ObjectId, sharing: Sharing) -> Result<Graph<'h, 'a>> {
    let (deferred, order) = order(heap, root)?;
    merge(heap, root, deferred, &order, sharing, None)
}

/// As [`lower_heap`], structurally, for a module of a bundle: `common` says what loads an object that is a common value.
/// What only common values hold is no part of the graph. `order` is [`order`] of the heap.
///
/// # Errors
/// As [`lower_heap`].
pub(crate) fn lower_common<'h, 'a>(
    heap: &'h Heap<'a>,
    root: ObjectId,
    (deferred, order): &Order,
    common: &dyn Fn(ObjectId) -> Option<Instruction>,
) -> Result<Graph<'h, 'a>> {
    let mut is_needed = vec![false; heap.len()];
    is_needed[root.index()] = true;
    for id in deferred {
        heap.children(*id).for_each(|held| is_needed[held.index()] = true);
    }
    for &id in order.iter().rev() {
        if is_needed[id.index()] && common(id).is_none() {
            heap.children(id).for_each(|held| is_needed[held.index()] = true);
        }
    }
    let order: Vec<ObjectId> = order.iter().copied().filter(|id| is_needed[id.index()]).collect();
    merge(heap, root, deferred.clone(), &order, Sharing::Structural, Some(common))
}

/// Numbers objects in `order`, in which each comes after what it holds; `deferred` are sorted.
fn merge<'h, 'a>(
    heap: &'h Heap<'a>,
    root: ObjectId,
    deferred: Vec<ObjectId>,
    order: &[ObjectId],
    sharing: Sharing,
    common: Option<&dyn Fn(ObjectId) -> Option<Instruction>>,
) -> Result<Graph<'h, 'a>> {
    let mut graph = Graph {
        heap,
        sharing,
        root: NodeId(0),
        deferred: Vec::new(),
        nodes: Vec::with_capacity(order.len()),
        edges: Vec::with_capacity(5 * order.len() / 2),
        node_of: vec![NONE; heap.len()],
        commons: Vec::new(),
    };
    let mut of_commons = HashMap::new();
    let mut keys = Keys::new(heap, sharing, order.len());
    let mut hashable = Vec::new();
    for &object in order {
        if !deferred.is_empty() && deferred.binary_search(&object).is_ok() {
            graph.add_empty(object);
            continue;
        }
        if let Some(common) = common
            && let Some(instruction) = common(object)
        {
            graph.add_common(object, instruction, &mut of_commons);
            continue;
        }
        if heap[object].has_keys() {
            check_keys(heap, object, &mut hashable)?;
        }
        graph.add(object, &mut keys);
    }
    graph.count_uses();
    for object in deferred {
        check_keys(heap, object, &mut hashable)?;
        let fills: Vec<NodeId> = heap.children(object).map(|id| NodeId(graph.node_of[id.index()])).collect();
        for fill in &fills {
            graph.nodes[fill.index()].uses += 1;
        }
        graph.deferred.push((NodeId(graph.node_of[object.index()]), fills));
    }
    graph.root = NodeId(graph.node_of[root.index()]);
    graph.nodes[graph.root.index()].uses += 1;
    Ok(graph)
}

impl<'a> Graph<'_, 'a> {
    /// The heap in which every node is one object; and its root.
    pub(crate) fn to_heap(&self) -> (Heap<'a>, ObjectId) {
        let mut out = Heap::new(self.heap.python());
        let mut places: Vec<ObjectId> = Vec::with_capacity(self.len());
        let place = |places: &[ObjectId], child: ObjectId| places[self.node_of[child.index()] as usize];
        let mut deferred: Vec<NodeId> = self.deferred.iter().map(|(id, _)| *id).collect();
        deferred.sort_unstable();
        for id in self.ids() {
            places.push(if let Some(fixed) = fixed::of(self.object(id)) {
                fixed
            } else if deferred.binary_search(&id).is_ok() {
                out.add(self.object(id).with_items(Items::EMPTY))
            } else {
                let copy = out.copy_of(self.heap, self.object_id(id), |child| place(&places, child));
                out.add(copy)
            });
        }
        for (id, _) in &self.deferred {
            let filled = out.copy_of(self.heap, self.object_id(*id), |child| place(&places, child));
            out.set(places[id.index()], filled);
        }
        (out, places[self.root.index()])
    }

    /// Numbers a deferred object.
    fn add_empty(&mut self, object: ObjectId) {
        let (number, edges, kind) = (self.next(), small(self.edges.len()), kind(&self.heap[object]));
        self.node_of[object.index()] = number;
        self.nodes.push(Node { object, edges, tables: edges, uses: 0, table_uses: 0, kind });
    }

    /// Numbers a common value.
    fn add_common(&mut self, object: ObjectId, common: Instruction, numbers: &mut HashMap<Instruction, u32>) {
        let next = self.next();
        let number = *numbers.entry(common).or_insert(next);
        if number == next {
            self.add_empty(object);
            self.commons.resize(self.nodes.len(), None);
            self.commons[next as usize] = Some(common);
        }
        self.node_of[object.index()] = number;
    }

    /// Numbers an object, as a node of its own if nothing before it equals it.
    fn add(&mut self, id: ObjectId, keys: &mut Keys<'_, '_>) {
        let start = self.edges.len();
        let node_of = |id: &ObjectId| NodeId(self.node_of[id.index()]);
        match self.heap[id] {
            // Most are. The processor guesses wrong often enough which type comes next, so all is done in the arms.
            text @ Object::Str(_) => self.number(id, text, start, start, keys),
            Object::Code(code) => {
                let (held, layout) = (self.heap.code(code), self.heap.python().layout());
                self.edges.extend(layout.operands.iter().map(|field| node_of(&held.object(*field))));
                let tables = self.edges.len();
                self.edges.extend(layout.tables.iter().map(|field| node_of(&held.object(*field))));
                for table in &self.edges[tables..] {
                    self.nodes[table.index()].table_uses += 1;
                }
                self.number(id, Object::Code(code), start, tables, keys);
            }
            object if object.is_compound() => {
                self.edges.extend(self.heap.held(id).iter().map(node_of));
                self.number(id, object, start, self.edges.len(), keys);
            }
            leaf => self.number(id, leaf, start, start, keys),
        }
    }

    /// Numbers an object whose edges begin at `start`, and those of its tables at `tables`.
    #[inline(always)]
    fn number(&mut self, id: ObjectId, object: Object<'_>, start: usize, tables: usize, keys: &mut Keys<'_, '_>) {
        let next = self.next();
        let held_by = |number: u32| {
            let [from, to] = [number, number + 1].map(|at| self.nodes.get(at as usize).map(|node| node.edges as usize));
            &self.edges[from.unwrap_or(start)..to.unwrap_or(start)]
        };
        let number = keys.number(id, object, &self.edges[start..], held_by, next);
        self.node_of[id.index()] = number;
        if number != next {
            self.edges.truncate(start);
            return;
        }
        let (edges, tables, kind) = (small(start), small(tables), kind(&object));
        self.nodes.push(Node { object: id, edges, tables, uses: 0, table_uses: 0, kind });
    }

    /// Counts each node's uses as an operand, all edges in one go.
    fn count_uses(&mut self) {
        for used in &self.edges {
            self.nodes[used.index()].uses += 1;
        }
        for node in &mut self.nodes {
            node.uses -= node.table_uses;
        }
    }

    fn next(&self) -> u32 {
        small(self.nodes.len())
    }
}

fn small(len: usize) -> u32 {
    u32::try_from(len).expect("inputs are below 2 GiB")
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

/// Which objects are deferred, sorted; and an order in which each object comes after what it holds.
pub(crate) type Order = (Vec<ObjectId>, Vec<ObjectId>);

/// Orders what is below `root`; cuts cycles, if there are any.
pub(crate) fn order(heap: &Heap<'_>, root: ObjectId) -> Result<Order> {
    if let Ok(order) = post_order(heap, root, &[]) {
        return Ok((Vec::new(), order));
    }
    let deferred = cut(heap, root);
    match post_order(heap, root, &deferred) {
        Ok(order) => Ok((deferred, order)),
        Err(cycle) => Err(ErrorKind::ImmutableCycle(path(heap, &cycle)).into()),
    }
}

/// The lists and dicts that take part in a cycle, sorted.
fn cut(heap: &Heap<'_>, root: ObjectId) -> Vec<ObjectId> {
    let mut reached = vec![false; heap.len()];
    let mut todo = vec![root];
    let mut edges = Vec::new();
    while let Some(id) = todo.pop() {
        if !std::mem::replace(&mut reached[id.index()], true) {
            edges.extend(heap.children(id).map(|child| (id.number(), child.number())));
            todo.extend(heap.children(id));
        }
    }
    // Kosaraju's algorithm walks with a stack of its own; Tarjan's, in petgraph, recurses.
    let objects = DiGraph::<(), ()>::from_edges(&edges);
    let holds_itself = |id: ObjectId| heap.children(id).any(|child| child == id);
    let mut deferred: Vec<ObjectId> = kosaraju_scc(&objects)
        .into_iter()
        .map(|component| component.into_iter().map(|node| ObjectId::from_number(node.index() as u32)).collect())
        .filter(|component: &Vec<ObjectId>| component.len() > 1 || holds_itself(component[0]))
        .flatten()
        .filter(|id| matches!(heap[*id], Object::List(_) | Object::Dict(_)))
        .collect();
    deferred.sort_unstable();
    deferred
}

/// The objects below `root`, each after what it holds. Objects in `deferred`, which is sorted, are not looked into: what
/// they hold comes last.
///
/// # Errors
/// The objects from the root to one that an open one holds, the last one twice.
fn post_order(heap: &Heap<'_>, root: ObjectId, deferred: &[ObjectId]) -> Result<Vec<ObjectId>, Vec<ObjectId>> {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut state = vec![State::New; heap.len()];
    let mut order = Vec::with_capacity(heap.len());
    let mut open: Vec<(ObjectId, Children<'_>)> = Vec::new();
    let starts = std::iter::once(root).chain(deferred.iter().flat_map(|id| heap.children(*id)));
    for start in starts {
        let mut next = Some(start);
        loop {
            if let Some(id) = next {
                match state[id.index()] {
                    State::Done => {}
                    State::Open => return Err(open.into_iter().map(|(id, _)| id).chain([id]).collect()),
                    State::New if heap[id].is_compound() && deferred.binary_search(&id).is_err() => {
                        state[id.index()] = State::Open;
                        open.push((id, heap.children(id)));
                    }
                    State::New => {
                        state[id.index()] = State::Done;
                        order.push(id);
                    }
                }
            }
            let Some((id, children)) = open.last_mut() else { break };
            next = children.next();
            if next.is_none() {
                state[id.index()] = State::Done;
                order.push(*id);
                open.pop();
            }
        }
    }
    Ok(order)
}

/// Spells a path of objects, each of which holds the next: `tuple > item 0 > tuple`.
fn path(heap: &Heap<'_>, objects: &[ObjectId]) -> String {
    let last = objects.len() - 1;
    let mut steps: Vec<String> = Vec::new();
    for (at, pair) in objects.windows(2).enumerate() {
        let what = heap[pair[0]].type_name();
        let place = heap.children(pair[0]).position(|child| child == pair[1]).expect("each holds the next");
        let step = heap.name_of_child(pair[0], place);
        let back = if at + 1 == last { format!(" > the {} again", heap[pair[1]].type_name()) } else { String::new() };
        steps.push(format!("{what} > {step}{back}"));
    }
    shorten(&steps)
}

#[cfg(test)]
mod tests {
    use petgraph::algo::toposort;

    use super::*;
    use crate::marshal::read;
    use crate::python::Python;

    fn needs<'g>(graph: &'g Graph<'_, '_>, id: NodeId) -> impl Iterator<Item = &'g NodeId> {
        graph.operands(id).iter().chain(graph.tables(id))
    }

    fn lowered(dump: &[u8], sharing: Sharing, check: impl FnOnce(&Graph<'_, '_>)) {
        let dump = read(dump, Python::LATEST).unwrap();
        let graph = lower(&dump, sharing).unwrap();
        let edges: Vec<_> = graph.ids().flat_map(|id| needs(&graph, id).map(move |child| (id.0, child.0))).collect();
        assert!(toposort(&DiGraph::<(), ()>::from_edges(&edges), None).is_ok());
        assert!(edges.iter().all(|(user, used)| used < user), "what is needed stands first");
        check(&graph);
    }

    fn nodes(dump: &[u8], sharing: Sharing) -> usize {
        let mut n = 0;
        lowered(dump, sharing, |graph| n = graph.len());
        n
    }

    #[test]
    fn equal_immutable_objects_merge_and_lists_do_not() {
        // ((7000,), (7000,), [], [])
        let dump = b")\x04)\x01iX\x1b\0\0)\x01iX\x1b\0\0[\0\0\0\0[\0\0\0\0";
        assert_eq!(nodes(dump, Sharing::Structural), 5);
        assert_eq!(nodes(dump, Sharing::Identity), 7);
        assert_eq!(nodes(dump, Sharing::None), 7);
    }

    #[test]
    fn negative_zero_is_not_zero() {
        assert_eq!(nodes(b")\x02g\0\0\0\0\0\0\0\0g\0\0\0\0\0\0\0\x80", Sharing::Structural), 3);
    }

    #[test]
    fn one_and_one_point_zero_and_true_are_three() {
        assert_eq!(nodes(b")\x03i\x01\0\0\0g\0\0\0\0\0\0\xf0?T", Sharing::Structural), 4);
    }

    #[test]
    fn a_nan_merges_with_no_other() {
        let nan = [b"g".as_slice(), &f64::NAN.to_bits().to_le_bytes()].concat();
        let dump = [b")\x02".as_slice(), &nan, &nan].concat();
        assert_eq!(nodes(&dump, Sharing::Structural), 3);
    }

    #[test]
    fn the_interned_mark_keeps_str_apart_except_one_character() {
        assert_eq!(nodes(b")\x02z\x02abZ\x02ab", Sharing::Structural), 3);
        assert_eq!(nodes(b")\x02z\x01aZ\x01a", Sharing::Structural), 2);
    }

    #[test]
    fn a_list_in_itself_is_deferred() {
        lowered(b"\xdb\x01\0\0\0r\0\0\0\0", Sharing::Structural, |graph| {
            assert_eq!(graph.deferred, [(graph.root, vec![graph.root])]);
        });
    }

    #[test]
    fn a_list_outside_the_cycle_is_not_deferred() {
        // [L, []] with L = [L]
        lowered(b"[\x02\0\0\0\xdb\x01\0\0\0r\0\0\0\0[\0\0\0\0", Sharing::Structural, |graph| {
            assert_eq!(graph.deferred.len(), 1);
            assert_eq!(graph.len(), 3);
        });
    }

    #[test]
    fn a_cycle_of_tuples_is_refused_with_its_path() {
        let said = |bytes: &[u8]| {
            let dump = read(bytes, Python::LATEST).unwrap();
            lower(&dump, Sharing::Structural).unwrap_err().to_string()
        };
        assert_eq!(
            said(b"\xa9\x01r\0\0\0\0"),
            "a cycle passes through no list or dict, so nothing can be built first: tuple > item 0 > the tuple again"
        );
        // The dump that crashes every CPython.
        assert!(
            said(b"\xa8\x02\0\0\0N<\x01\0\0\0r\0\0\0\0").ends_with("tuple > item 1 > set > item 0 > the tuple again")
        );
    }

    #[test]
    fn a_doubled_tuple_is_as_many_nodes_as_doublings() {
        // w = (w, w), 60 times, each by reference to the one inside.
        let mut dump = b"\xa9\x02".repeat(60);
        dump.extend_from_slice(b"NN");
        for index in (1..60u32).rev() {
            dump.push(b'r');
            dump.extend_from_slice(&index.to_le_bytes());
        }
        assert_eq!(nodes(&dump, Sharing::Structural), 61);
    }
}
