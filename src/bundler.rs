//! Makes a bundle: decides which values the modules share, and compiles each module against the table of them.
//!
//! All modules are copied into one heap and lowered as one graph, in which equal values are one node. So what two or more
//! modules need is what they reach there, by the very keys by which values merge within a module.
//!
//! Invariants:
//! - A value of the table is immutable, and needed by two modules or more, or by as many as is asked for. What only other values of the table need is no
//!   entry of its own.
//! - What the table holds, no module makes.
//! - The same modules give the same bytes, in whichever order they are named.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use crate::bundle::{HEAD_LEN, LEVEL_SHIFT, MAGIC, MODULE_LEN, ModuleKind, UNCHECKED, VERSION};
use crate::common::{self, CommonConst};
use crate::compile::filename;
use crate::emit::{Dialect, End, emit};
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, NodeId, Order, lower_common, lower_heap, order};
use crate::heap::{Heap, Items, Object, ObjectId, fixed};
use crate::image::Image;
use crate::isa::{Instruction, MAX_OPARG, Op};
use crate::key::Sharing;
use crate::profile::{Optimize, Profile};
use crate::pyc::Header;
use crate::python::Field;
use crate::schedule::{Classes, schedule, schedule_as};
use crate::share::{immediate, is_batched, share};

/// A module to bundle.
#[derive(Debug)]
pub struct Part<'a> {
    /// The name by which it is imported.
    pub name: String,
    /// Whether it is a package.
    pub is_package: bool,
    /// The number of the folder below which its source lies.
    pub folder: usize,
    /// The path of its source from there, with slashes.
    pub path: String,
    /// The header of its .pyc.
    pub header: Header<'a>,
    /// Its objects.
    pub heap: Heap<'a>,
    /// Its code object.
    pub root: ObjectId,
}

/// An extension module, of which a bundle says where it lies.
#[derive(Debug, Clone)]
pub struct Extension {
    /// The name by which it is imported.
    pub name: String,
    /// The number of the folder below which it lies.
    pub folder: usize,
    /// Its path from there, with slashes.
    pub path: String,
}

/// What holds for all modules of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BundleOptions {
    /// Whether they are taken without a look at their sources.
    pub unchecked: bool,
    /// Their level of optimization, 0 to 2.
    pub level: u8,
    /// How many modules have to need a value of the table, 2 or more; `None` is 2, or in large bundles one in
    /// [`MODULES_PER_USER`]: what is needed seldom is often built in vain.
    pub shared_by: Option<usize>,
}

/// So many modules of a bundle stand for one that has to need a value of the table. With the 1,717 modules of a standard
/// library, a table of what two need (36,000 values) took a third of the time of loading 296 of them; of what eight need
/// (5,000), less than could be measured, and as few as 296 lose nothing by two.
pub const MODULES_PER_USER: usize = 200;

/// What was made, for those who ask.
#[derive(Debug, Clone)]
pub struct Bundled {
    /// The bytes of the bundle.
    pub file: Vec<u8>,
    /// How many names the table has.
    pub n_names: usize,
    /// How many constants the table has.
    pub n_consts: usize,
    /// Bytes of the table's initializer.
    pub table_len: usize,
}

const DIALECT: Dialect = Dialect { profile: Profile::Load, strips_caches: false, end: End::Return };

/// Makes a bundle of modules and extension modules, which lie below `folders`.
///
/// # Errors
/// Two modules of one name, of different Pythons, or none that has code; what is no code object, or has no header of 16
/// bytes; as [`lower_heap`] and [`emit`], with the module's name.
pub fn bundle(
    mut parts: Vec<Part<'_>>,
    extensions: &[Extension],
    folders: &[String],
    options: BundleOptions,
) -> Result<Bundled> {
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    check(&parts, extensions, folders, options)?;
    let orders = parts
        .par_iter()
        .map(|part| order(&part.heap, part.root).map_err(|error| of(part, error)))
        .collect::<Result<Vec<Order>>>()?;
    let (heap, root, places) = combine(&parts, &orders);
    let graph = lower_heap(&heap, root, Sharing::Structural)?;
    let table = Table::new(&graph, options.shared_by.unwrap_or(parts.len() / MODULES_PER_USER));
    let magic = parts[0].header.magic();
    let mut encoded = Vec::new();
    Image { magic, ..table.image(&graph)? }.encode(&mut encoded)?;
    let images = (&parts, &orders, &places).into_par_iter().map(|(part, order, places)| {
        let common = |object: ObjectId| table.common(graph.node_of(*places.get(object.index())?)?);
        compile(part, order, &common).map_err(|error| of(part, error))
    });
    let images = images.collect::<Result<Vec<Vec<u8>>>>()?;
    let entries = entries(&parts, &images, extensions);
    let file = encode(&entries, folders, options, magic, &table, &encoded)?;
    Ok(Bundled { file, n_names: table.names.len(), n_consts: table.consts.len(), table_len: encoded.len() })
}

#[cold]
fn of(part: &Part<'_>, error: Error) -> Error {
    of_module(&part.name, error)
}

#[cold]
fn of_module(name: &str, error: Error) -> Error {
    let path = if error.path().is_empty() { String::new() } else { format!(" > {}", error.path()) };
    error.inside(format!("module {name}{path}"))
}

fn check(parts: &[Part<'_>], extensions: &[Extension], folders: &[String], options: BundleOptions) -> Result<()> {
    let refuse = |part: &Part<'_>, why| Err(of(part, ErrorKind::BadContainer(why).into()));
    let Some(first) = parts.first() else {
        return Err(ErrorKind::BadContainer("a bundle of no modules").into());
    };
    let mut numbers = parts.iter().map(|part| part.folder).chain(extensions.iter().map(|extension| extension.folder));
    assert!(options.level <= 2 && numbers.all(|number| number < folders.len()), "the caller numbers them");
    // All of them become one heap.
    if parts.iter().map(|part| part.heap.len() + part.heap.n_items()).sum::<usize>() > MAX_OPARG as usize {
        return Err(ErrorKind::TooLarge.into());
    }
    let in_parts = parts.iter().map(|part| (&*part.name, &*part.path));
    let in_extensions = extensions.iter().map(|extension| (&*extension.name, &*extension.path));
    let mut names = HashSet::new();
    for (name, path) in in_parts.chain(in_extensions) {
        let why = match (name.contains('\0') || path.contains('\0'), names.insert(name)) {
            (true, _) => "its name or path holds a zero byte",
            (false, false) => "two modules have this name",
            (false, true) => continue,
        };
        return Err(of_module(name, ErrorKind::BadContainer(why).into()));
    }
    if folders.iter().any(|folder| folder.contains('\0')) {
        return Err(ErrorKind::BadContainer("the path of a folder holds a zero byte").into());
    }
    for part in parts {
        if part.header.magic() != first.header.magic() {
            return refuse(part, "the modules of a bundle are of one Python, and this one is of another");
        }
        if part.header.bytes().len() != 16 {
            return refuse(part, "the header of its .pyc is not of 16 bytes, as of every Python from 3.7 on");
        }
        if !matches!(part.heap[part.root], Object::Code(_)) {
            return refuse(part, "it is no code object");
        }
    }
    Ok(())
}

/// What is said of a module in the index.
struct Entry<'p> {
    name: &'p str,
    kind: ModuleKind,
    folder: usize,
    path: &'p str,
    header: &'p [u8],
    image: &'p [u8],
}

/// The entries of all modules, in the order of their names.
fn entries<'p>(parts: &'p [Part<'_>], images: &'p [Vec<u8>], extensions: &'p [Extension]) -> Vec<Entry<'p>> {
    let parts = parts.iter().zip(images).map(|(part, image)| Entry {
        name: &part.name,
        kind: if part.is_package { ModuleKind::Package } else { ModuleKind::Source },
        folder: part.folder,
        path: &part.path,
        header: part.header.bytes(),
        image,
    });
    let extensions = extensions.iter().map(|extension| Entry {
        name: &extension.name,
        kind: ModuleKind::Extension,
        folder: extension.folder,
        path: &extension.path,
        header: &[0; 16],
        image: &[],
    });
    let mut entries: Vec<_> = parts.chain(extensions).collect();
    entries.sort_by_key(|entry| entry.name);
    entries
}

/// One heap with all modules, which a tuple holds; and by module and object, where that object is there. Modules with
/// cycles, which no source has, share nothing.
fn combine<'a>(parts: &[Part<'a>], orders: &[Order]) -> (Heap<'a>, ObjectId, Vec<Vec<ObjectId>>) {
    let mut heap = Heap::new(parts[0].heap.python());
    let (mut roots, mut all) = (Vec::new(), Vec::new());
    for (part, (deferred, order)) in parts.iter().zip(orders) {
        if !deferred.is_empty() {
            all.push(Vec::new());
            continue;
        }
        let mut places = vec![fixed::NONE; part.heap.len()];
        for &object in order {
            places[object.index()] = match fixed::of(&part.heap[object]) {
                Some(fixed) => fixed,
                None => {
                    let copy = heap.copy_of(&part.heap, object, |held| places[held.index()]);
                    heap.add(copy)
                }
            };
        }
        roots.push(places[part.root.index()]);
        all.push(places);
    }
    let items = heap.add_items(&roots);
    let root = heap.add(Object::Tuple(items));
    (heap, root, all)
}

/// The values that modules share.
struct Table {
    /// By node of the graph of all modules.
    commons: HashMap<NodeId, Instruction>,
    names: Vec<NodeId>,
    consts: Vec<NodeId>,
    /// The str that are made as names, entries or not.
    is_name: Vec<bool>,
}

impl Table {
    fn new(graph: &Graph<'_, '_>, shared_by: usize) -> Self {
        let (is_shared, n_uses) = needs(graph, shared_by);
        let classes = Classes::new(graph);
        let mut table = Self { commons: HashMap::new(), names: Vec::new(), consts: Vec::new(), is_name: Vec::new() };
        for id in graph.ids() {
            let is_batched = is_batched(graph.object(id));
            let is_name = is_batched && matches!(classes.op(id), Op::MakeNames | Op::MakeIdentifiers);
            table.is_name.push(is_name);
            if let Some(built_in) = built_in(graph, id) {
                table.commons.insert(id, built_in);
            } else if n_uses[id.index()] > 0 && is_shared[id.index()] && is_worth_it(graph.object(id)) {
                if is_name { &mut table.names } else { &mut table.consts }.push(id);
            }
        }
        // What is needed most has the shortest numbers.
        for (ids, op, first) in [
            (&mut table.names, Op::LoadCommonName, common::NAMES.len()),
            (&mut table.consts, Op::LoadCommonConst, common::CONSTS.len()),
        ] {
            ids.sort_by_key(|id| (Reverse(n_uses[id.index()]), *id));
            let numbered = ids.iter().zip(first..);
            table.commons.extend(numbered.map(|(id, number)| (*id, Instruction { op, oparg: small(number) })));
        }
        table
    }

    /// What loads a value of the graph, if it is common.
    fn common(&self, id: NodeId) -> Option<Instruction> {
        self.commons.get(&id).copied()
    }

    /// The initializer that makes a tuple of the values.
    fn image(&self, graph: &Graph<'_, '_>) -> Result<Image<'static>> {
        let entries = || self.names.iter().chain(&self.consts);
        let mut is_needed = vec![false; graph.len()];
        entries().for_each(|id| is_needed[id.index()] = true);
        for id in graph.ids().rev().filter(|id| !matches!(graph.object(*id), Object::Code(_))) {
            if is_needed[id.index()] {
                graph.operands(id).iter().for_each(|held| is_needed[held.index()] = true);
            }
        }
        let mut heap = Heap::new(graph.heap.python());
        let mut places = vec![fixed::NONE; graph.len()];
        let place_of = |places: &[ObjectId], object| places[graph.node_of(object).map_or(0, NodeId::index)];
        for id in graph.ids().filter(|id| is_needed[id.index()]) {
            places[id.index()] = match fixed::of(graph.object(id)) {
                Some(fixed) => fixed,
                None => {
                    let copy = heap.copy_of(graph.heap, graph.object_id(id), |held| place_of(&places, held));
                    heap.add(copy)
                }
            };
        }
        let entries: Vec<ObjectId> = entries().map(|id| places[id.index()]).collect();
        let items = if entries.is_empty() { Items::EMPTY } else { heap.add_items(&entries) };
        let root = heap.add(Object::Tuple(items));
        let own = lower_heap(&heap, root, Sharing::Structural)?;
        let mut is_name = vec![false; own.len()];
        for id in graph.ids().filter(|id| self.is_name[id.index()] && is_needed[id.index()]) {
            if let Some(id) = own.node_of(places[id.index()]) {
                is_name[id.index()] = true;
            }
        }
        let shared = share(&own, DIALECT.profile, Optimize::Speed);
        let schedule = schedule_as(&own, &shared, DIALECT.profile, |id| is_name[id.index()]);
        emit(&own, &shared, &schedule, DIALECT, usize::MAX)
    }
}

/// Which nodes so many modules need, and how often each is needed by what is none of these.
fn needs(graph: &Graph<'_, '_>, shared_by: usize) -> (Vec<bool>, Vec<u32>) {
    let mut n_modules = vec![0; graph.len()];
    let mut last = vec![None; graph.len()];
    let mut open = Vec::new();
    for root in graph.operands(graph.root) {
        open.push(*root);
        while let Some(id) = open.pop() {
            if last[id.index()].replace(*root) != Some(*root) {
                n_modules[id.index()] += 1;
                open.extend(graph.operands(id).iter().chain(tables(graph, id)));
            }
        }
    }
    // What is held is needed by as many at least, so the values of the table hold no others.
    let is_shared: Vec<bool> = n_modules.into_iter().map(|n| n >= shared_by.max(2)).collect();
    let mut n_uses = vec![0; graph.len()];
    for id in graph.ids().filter(|id| *id != graph.root && !is_shared[id.index()]) {
        for held in graph.operands(id).iter().chain(tables(graph, id)) {
            n_uses[held.index()] += 1;
        }
    }
    (is_shared, n_uses)
}

/// The tables of a code object, but for its bytecode: that is made of a bytes object more slowly than of data.
fn tables<'g>(graph: &'g Graph<'_, '_>, id: NodeId) -> impl Iterator<Item = &'g NodeId> {
    let fields = &graph.heap.python().layout().tables;
    graph.tables(id).iter().zip(fields).filter(|(_, field)| **field != Field::Code).map(|(table, _)| table)
}

/// What loads a value that every initializer knows. The empty frozenset is none for the whole process, and the empty bytes
/// are most often a table, which needs no value.
fn built_in(graph: &Graph<'_, '_>, id: NodeId) -> Option<Instruction> {
    let except = [CommonConst::EmptyFrozenSet, CommonConst::EmptyBytes].map(CommonConst::operand);
    immediate(graph, id, DIALECT.profile).filter(|Instruction { op, oparg }| match op {
        Op::LoadCommonName => true,
        Op::LoadCommonConst => !except.contains(oparg),
        _ => false,
    })
}

/// Whether a value that is needed by two modules is one of the table.
fn is_worth_it(object: &Object<'_>) -> bool {
    match object {
        Object::Bytes(bytes) => bytes.len() > 1,
        Object::FrozenSet(items) => !items.is_empty(),
        other => !other.has_identity(),
    }
}

/// The container of a module's initializer.
fn compile(part: &Part<'_>, order: &Order, common: &dyn Fn(ObjectId) -> Option<Instruction>) -> Result<Vec<u8>> {
    let graph = lower_common(&part.heap, part.root, order, common)?;
    let shared = share(&graph, DIALECT.profile, Optimize::Speed);
    let schedule = schedule(&graph, &shared, DIALECT.profile);
    let image = emit(&graph, &shared, &schedule, DIALECT, usize::MAX)?;
    let mut encoded = Vec::new();
    Image {
        magic: part.header.magic(),
        module: Cow::Borrowed(&part.name),
        filename: Cow::Owned(filename(&part.heap, part.root)),
        ..image
    }
    .encode(&mut encoded)?;
    Ok(encoded)
}

/// The bytes of the bundle: see `bundle.rs`.
fn encode(
    entries: &[Entry<'_>],
    folders: &[String],
    options: BundleOptions,
    magic: u16,
    table: &Table,
    encoded: &[u8],
) -> Result<Vec<u8>> {
    let mut texts = Vec::new();
    let mut text = |text: &str| {
        texts.extend_from_slice(text.as_bytes());
        [texts.len() - text.len(), text.len()]
    };
    let folders: Vec<_> = folders.iter().map(|folder| text(folder)).collect();
    let named: Vec<_> = entries.iter().map(|entry| (text(entry.name), text(entry.path))).collect();
    let n_slots = (2 * entries.len()).next_power_of_two();
    let mut slots = vec![0; n_slots];
    for (number, entry) in entries.iter().enumerate() {
        let mut at = common::name_hash(entry.name.as_bytes()) as usize & (n_slots - 1);
        while slots[at] != 0 {
            at = (at + 1) & (n_slots - 1);
        }
        slots[at] = number + 1;
    }
    let mut file = Vec::new();
    let flags = if options.unchecked { UNCHECKED } else { 0 } | u32::from(options.level) << LEVEL_SHIFT;
    let counts = [n_slots, folders.len(), entries.len(), table.names.len(), table.consts.len()];
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&[VERSION, common::VERSION]);
    file.extend_from_slice(&magic.to_le_bytes());
    put(&mut file, &[flags as usize, 0])?;
    put(&mut file, &counts)?;
    put(&mut file, &[texts.len(), encoded.len()])?;
    debug_assert_eq!(file.len(), HEAD_LEN);
    put(&mut file, &slots)?;
    put(&mut file, folders.as_flattened())?;
    let mut at = file.len() + MODULE_LEN * entries.len() + texts.len() + encoded.len();
    for (entry, (name, path)) in entries.iter().zip(&named) {
        let hash = common::name_hash(entry.name.as_bytes()) as usize;
        put(&mut file, name)?;
        put(&mut file, &[hash, entry.kind as usize, entry.folder])?;
        put(&mut file, path)?;
        put(&mut file, &[at, entry.image.len(), 0])?;
        file.extend_from_slice(entry.header);
        at += entry.image.len();
    }
    file.extend_from_slice(&texts);
    file.extend_from_slice(encoded);
    entries.iter().for_each(|entry| file.extend_from_slice(entry.image));
    let len = u32::try_from(file.len()).map_err(|_| ErrorKind::TooLarge)?;
    file[12..16].copy_from_slice(&len.to_le_bytes());
    Ok(file)
}

fn put(file: &mut Vec<u8>, numbers: &[usize]) -> Result<()> {
    for number in numbers {
        let number = u32::try_from(*number).map_err(|_| ErrorKind::TooLarge)?;
        file.extend_from_slice(&number.to_le_bytes());
    }
    Ok(())
}

fn small(number: usize) -> u32 {
    u32::try_from(number).expect("inputs are below 2 GiB")
}
