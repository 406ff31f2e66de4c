//! Measures initializers: their sizes against marshal, what they hold, and how they build it.
//!
//! [`measure`] takes one dump, [`Summary`] what was measured of many. The main figure is the *payload*, instructions and
//! binary data, as a share of the marshal dump that says the same; the container's header and the source section are
//! counted apart.
//!
//! Invariants:
//! - Instructions and sections add up to the payload; payload, source section and headers to the file.
//! - Every file is compressed by itself, as a .pyc in a wheel is.
//! - A percentile is a value that some file has: that of the nearest rank.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io::Write;

use ordered_float::OrderedFloat;
use serde_json::{Map, Value, json};

use crate::compile::{Options, compile, decompile};
use crate::data::Data;
use crate::error::Result;
use crate::file::{Initializer, Source};
use crate::graph::lower_heap;
use crate::heap::{Heap, ObjectId};
use crate::isa::{Instruction, Op, Oparg, Section};
use crate::key::Sharing;
use crate::profile::Profile;
use crate::share::immediate;
use crate::verify::{Verified, verify};
use crate::vm;

/// How bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As they are.
    Raw,
    /// Compressed by zlib at level 6.
    Zlib,
    /// Compressed by zstd at level 19.
    Zstd,
}

impl Coding {
    /// All.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Zlib, Self::Zstd];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Zlib => "zlib -6",
            Self::Zstd => "zstd -19",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Zlib => "zlib_6",
            Self::Zstd => "zstd_19",
        }
    }

    /// The size of the parts, one after another.
    pub fn size(self, parts: &[&[u8]]) -> usize {
        match self {
            Self::Raw => parts.iter().map(|part| part.len()).sum(),
            Self::Zlib => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
                for part in parts {
                    encoder.write_all(part).expect("a Vec takes everything");
                }
                encoder.finish().expect("a Vec takes everything").len()
            }
            Self::Zstd => zstd::bulk::compress(&parts.concat(), 19).expect("memory is all it takes").len(),
        }
    }
}

/// The sizes of one thing; `None` where it was not counted so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes([Option<usize>; Coding::ALL.len()]);

impl Sizes {
    fn new(parts: &[&[u8]], codings: &[Coding]) -> Self {
        Self(Coding::ALL.map(|coding| codings.contains(&coding).then(|| coding.size(parts))))
    }

    /// One of them.
    pub fn get(self, coding: Coding) -> Option<usize> {
        self.0[coding as usize]
    }

    fn json(self) -> Value {
        let known =
            Coding::ALL.into_iter().filter_map(|coding| Some((coding.key().to_owned(), self.get(coding)?.into())));
        Value::Object(known.collect())
    }
}

/// How often an opcode stands, and what that takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Emitted {
    /// Instructions.
    pub count: usize,
    /// Their bytes, EXTENDED_ARGs included.
    pub bytes: usize,
}

/// Objects of one type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Objects {
    /// How many there are.
    pub count: usize,
    /// In how many places they stand.
    pub uses: usize,
    /// How many are shared: stand in several places, and are not loaded by one instruction without a stack slot.
    pub shared: usize,
}

/// What is measured of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileStats {
    /// Instructions and binary data.
    pub payload: Sizes,
    /// The marshal dump with what follows its object; `None` for an initializer without its source.
    pub marshal: Option<Sizes>,
    /// Bytes of the instructions.
    pub instruction_bytes: usize,
    /// Bytes of each [`Section`].
    pub section_bytes: [usize; Section::ALL.len()],
    /// Bytes of the source section.
    pub source_bytes: usize,
    /// Bytes of the container's header, the module's name and filename included.
    pub container_bytes: usize,
    /// Bytes of the .pyc header.
    pub header_bytes: usize,
    /// The instructions, by opcode.
    pub instructions: BTreeMap<Op, Emitted>,
    /// EXTENDED_ARGs.
    pub n_extended_args: usize,
    /// Opargs, and numbers in the references, that find a value on the stack.
    pub n_references: usize,
    /// How many of them need EXTENDED_ARG.
    pub n_extended_references: usize,
    /// The objects that the initializer builds, by type; tables of code objects apart from other bytes.
    pub objects: BTreeMap<&'static str, Objects>,
    /// How many shared objects stand in so many places.
    pub shared_by_uses: BTreeMap<u32, usize>,
    /// Most values on the stack.
    pub max_stack: u32,
}

/// Compiles a dump and measures its initializer. Raw sizes are always counted, others where `codings` says so.
///
/// # Errors
/// As [`compile`].
pub fn measure(source: &Source<'_>, options: Options, codings: &[Coding]) -> Result<FileStats> {
    of_image(compile(source, options)?, Some(source.marshal), codings)
}

/// Measures an initializer, against the dump that it turns back into if it has its source section.
///
/// # Errors
/// As [`decompile`].
pub fn measure_initializer(initializer: Initializer<'_>, codings: &[Coding]) -> Result<FileStats> {
    if initializer.image.source.is_none() {
        return of_image(initializer, None, codings);
    }
    let file = decompile(initializer.clone())?;
    let marshal = &file[initializer.header_bytes().len()..];
    of_image(initializer, Some(marshal), codings)
}

fn of_image(initializer: Initializer<'_>, marshal: Option<&[u8]>, codings: &[Coding]) -> Result<FileStats> {
    let codings: Vec<Coding> = codings.iter().copied().chain([Coding::Raw]).collect();
    let file_bytes = initializer.encode()?.len();
    let header_bytes = initializer.header_bytes().len();
    let verified = verify(initializer.image)?;
    let image = verified.image();
    let source_bytes = image.source.as_ref().map_or(0, |source| source.len());
    let mut parts = vec![&*image.instructions];
    parts.extend(image.sections.iter().map(|section| &**section));
    let mut stats = FileStats {
        payload: Sizes::new(&parts, &codings),
        marshal: marshal.map(|marshal| Sizes::new(&[marshal], &codings)),
        instruction_bytes: image.instructions.len(),
        section_bytes: Section::ALL.map(|section| image.section(section).len()),
        source_bytes,
        container_bytes: file_bytes - header_bytes - image.payload_len() - source_bytes,
        header_bytes,
        max_stack: image.max_stack,
        ..FileStats::default()
    };
    stats.count_instructions(&verified)?;
    let (heap, root) = vm::run(&verified);
    stats.count_objects(&heap, root)?;
    Ok(stats)
}

/// Whether an oparg finds a value on the stack.
fn is_reference(oparg: Oparg) -> bool {
    match oparg {
        Oparg::Slot | Oparg::Depth => true,
        Oparg::Unused
        | Oparg::High
        | Oparg::Int
        | Oparg::Char
        | Oparg::Strings
        | Oparg::References
        | Oparg::NearReferences
        | Oparg::Mask
        | Oparg::Slots
        | Oparg::CommonConst
        | Oparg::CommonName
        | Oparg::Commons
        | Oparg::Length(_)
        | Oparg::Count
        | Oparg::Pairs
        | Oparg::Intrinsic => false,
    }
}

/// The row of [`FileStats::objects`] for bytes that stand nowhere but in MAKE_CODE's data.
const CODE_TABLE: &str = "code table";

impl FileStats {
    fn count_instructions(&mut self, verified: &Verified<'_>) -> Result<()> {
        let instructions = &verified.image().instructions;
        let mut data = Data::new(verified.image());
        let mut operands = Vec::new();
        let mut at = 0;
        while at < instructions.len() {
            let (instruction, next) = Instruction::decode(instructions, at)?;
            let op = instruction.op;
            data.operands(instruction, verified.python(), &mut operands)?;
            self.n_references += operands.iter().filter_map(|operand| operand.slot()).count();
            let n_extended = (next - at) / 2 - 1;
            let emitted = self.instructions.entry(op).or_default();
            emitted.count += 1;
            emitted.bytes += next - at;
            self.n_extended_args += n_extended;
            if is_reference(op.info().oparg) {
                self.n_references += 1;
                self.n_extended_references += usize::from(n_extended > 0);
            }
            at = next;
        }
        Ok(())
    }

    /// Counts what was built, not what was compiled: an initializer may come without its dump.
    fn count_objects(&mut self, heap: &Heap<'_>, root: ObjectId) -> Result<()> {
        let graph = lower_heap(heap, root, Sharing::Identity)?;
        for id in graph.ids() {
            let (uses, table_uses) = (graph.uses(id), graph.table_uses(id));
            let name = if uses > 0 { graph.object(id).type_name() } else { CODE_TABLE };
            let n_places = uses + table_uses;
            let objects = self.objects.entry(name).or_default();
            objects.count += 1;
            objects.uses += n_places as usize;
            if n_places > 1 && immediate(&graph, id, Profile::Core).is_none() {
                objects.shared += 1;
                *self.shared_by_uses.entry(n_places).or_default() += 1;
            }
        }
        Ok(())
    }

    /// How many objects are shared.
    pub fn n_shared(&self) -> usize {
        self.objects.values().map(|objects| objects.shared).sum()
    }

    /// The payload as a share of the dump, if both were counted so.
    pub fn ratio(&self, coding: Coding) -> Option<f64> {
        Some(ratio(self.payload.get(coding)?, self.marshal?.get(coding)?))
    }

    fn json(&self, name: &str) -> Value {
        json!({
            "input": name,
            "payload": self.payload.json(),
            "marshal": self.marshal.map(Sizes::json),
            "n_instructions": self.instructions.values().map(|emitted| emitted.count).sum::<usize>(),
            "n_references": self.n_references,
            "n_extended_references": self.n_extended_references,
            "n_objects": self.objects.values().map(|objects| objects.count).sum::<usize>(),
            "n_shared": self.n_shared(),
            "max_stack": self.max_stack,
        })
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// Values of many files, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution<T>(Vec<T>);

impl<T: Ord + Copy> FromIterator<T> for Distribution<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut values: Vec<T> = values.into_iter().collect();
        values.sort_unstable();
        Self(values)
    }
}

impl<T: Ord + Copy> Distribution<T> {
    /// The least value that at least `percent` of all values do not exceed; `None` if there are no values.
    pub fn percentile(&self, percent: usize) -> Option<T> {
        let rank = (percent * self.0.len()).div_ceil(100).max(1);
        self.0.get(rank - 1).copied()
    }

    /// The largest.
    pub fn max(&self) -> Option<T> {
        self.0.last().copied()
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What was measured of many files. Its text is for people, [`Summary::json`] for programs.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// How many of the largest gains and losses the text names.
    top: usize,
    files: Vec<(String, FileStats)>,
}

impl Summary {
    /// Of no file yet. The text will name the `top` largest gains and losses.
    pub fn new(top: usize) -> Self {
        Self { top, files: Vec::new() }
    }

    /// Adds a file. The order of files decides that of equal ones in the text, and of all in the JSON.
    pub fn add(&mut self, name: String, file: FileStats) {
        self.files.push((name, file));
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The sum of something over all files.
    pub fn total(&self, of: impl Fn(&FileStats) -> usize) -> usize {
        self.files.iter().map(|(_, file)| of(file)).sum()
    }

    /// The distribution of something over all files that have it.
    pub fn distribution<T: Ord + Copy>(&self, of: impl Fn(&FileStats) -> Option<T>) -> Distribution<T> {
        self.files.iter().filter_map(|(_, file)| of(file)).collect()
    }

    /// Payloads against dumps, over the files that have both; `None` if none has.
    pub fn comparison(&self, coding: Coding) -> Option<Comparison> {
        let ratios = self.distribution(|file| file.ratio(coding).map(OrderedFloat));
        let bytes = |of: fn(&FileStats) -> Option<Sizes>| {
            self.total(|file| file.marshal.and(of(file)).and_then(|sizes| sizes.get(coding)).unwrap_or_default())
        };
        let (payload, marshal) = (bytes(|file| Some(file.payload)), bytes(|file| file.marshal));
        (!ratios.is_empty()).then_some(Comparison { payload, marshal, ratios })
    }

    fn instructions(&self) -> BTreeMap<Op, Emitted> {
        let mut all: BTreeMap<Op, Emitted> = BTreeMap::new();
        for (op, emitted) in self.files.iter().flat_map(|(_, file)| &file.instructions) {
            let sum = all.entry(*op).or_default();
            sum.count += emitted.count;
            sum.bytes += emitted.bytes;
        }
        all
    }

    fn objects(&self) -> BTreeMap<&'static str, Objects> {
        let mut all: BTreeMap<&'static str, Objects> = BTreeMap::new();
        for (name, objects) in self.files.iter().flat_map(|(_, file)| &file.objects) {
            let sum = all.entry(name).or_default();
            sum.count += objects.count;
            sum.uses += objects.uses;
            sum.shared += objects.shared;
        }
        all
    }

    fn shared_by_uses(&self) -> BTreeMap<u32, usize> {
        let mut all = BTreeMap::new();
        for (uses, count) in self.files.iter().flat_map(|(_, file)| &file.shared_by_uses) {
            *all.entry(*uses).or_default() += count;
        }
        all
    }

    /// The parts of the payload, and their bytes.
    fn parts(&self) -> Vec<(&'static str, usize)> {
        let mut parts = vec![("instructions", self.total(|file| file.instruction_bytes))];
        parts.extend(
            Section::ALL.map(|section| (section.name(), self.total(|file| file.section_bytes[section as usize]))),
        );
        parts
    }

    fn payload_bytes(&self) -> usize {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    /// The rest of the files, and its bytes.
    fn wrapping(&self) -> [(&'static str, usize); 3] {
        [
            ("source section", self.total(|file| file.source_bytes)),
            ("container header", self.total(|file| file.container_bytes)),
            (".pyc header", self.total(|file| file.header_bytes)),
        ]
    }

    fn file_bytes(&self) -> usize {
        self.payload_bytes() + self.wrapping().map(|(_, bytes)| bytes).iter().sum::<usize>()
    }

    /// The whole as a JSON document.
    pub fn json(&self) -> Value {
        let [source, container, header] = self.wrapping().map(|(_, bytes)| bytes);
        let compared = Coding::ALL
            .into_iter()
            .filter_map(|coding| Some((coding.key().to_owned(), self.comparison(coding)?.json())));
        let instructions = self.instructions().into_iter().map(|(op, emitted)| {
            json!({ "opcode": op as u8, "name": label(op), "count": emitted.count, "bytes": emitted.bytes })
        });
        let objects = self.objects().into_iter().map(|(name, objects)| {
            let row = json!({ "count": objects.count, "uses": objects.uses, "shared": objects.shared });
            (name.to_owned(), row)
        });
        let by_uses = self.shared_by_uses().into_iter().map(|(uses, count)| (uses.to_string(), count.into()));
        let shared = self.distribution(|file| Some(file.n_shared()));
        let stack = self.distribution(|file| Some(file.max_stack));
        json!({
            "n_files": self.len(),
            "against_marshal": Map::from_iter(compared),
            "payload_bytes": self.payload_bytes(),
            "parts": Map::from_iter(self.parts().into_iter().map(|(name, bytes)| (name.to_owned(), bytes.into()))),
            "source_bytes": source,
            "container_bytes": container,
            "header_bytes": header,
            "file_bytes": self.file_bytes(),
            "instructions": instructions.collect::<Vec<_>>(),
            "n_extended_args": self.total(|file| file.n_extended_args),
            "n_references": self.total(|file| file.n_references),
            "n_extended_references": self.total(|file| file.n_extended_references),
            "objects": Map::from_iter(objects),
            "n_shared": self.total(FileStats::n_shared),
            "shared_by_uses": Map::from_iter(by_uses),
            "shared_per_file": shared.json(),
            "max_stack_per_file": stack.json(),
            "files": self.files.iter().map(|(name, file)| file.json(name)).collect::<Vec<_>>(),
        })
    }
}

impl<T: Ord + Copy + Into<Value>> Distribution<T> {
    fn json(&self) -> Value {
        let [median, p90, p99] = [50, 90, 99].map(|percent| self.percentile(percent).map(Into::into));
        json!({ "median": median, "p90": p90, "p99": p99, "max": self.max().map(Into::into) })
    }
}

/// Payloads against dumps.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Bytes of the payloads.
    pub payload: usize,
    /// Bytes of the dumps.
    pub marshal: usize,
    /// One by the other, over files.
    pub ratios: Distribution<OrderedFloat<f64>>,
}

impl Comparison {
    /// Payloads as a share of the dumps, in all.
    pub fn ratio(&self) -> f64 {
        ratio(self.payload, self.marshal)
    }

    /// Files whose payload is larger than the dump.
    pub fn n_larger(&self) -> usize {
        self.ratios.0.iter().filter(|ratio| ratio.0 > 1.0).count()
    }

    fn json(&self) -> Value {
        let [median, p90, p99] = [50, 90, 99].map(|percent| self.ratios.percentile(percent).map(f64::from));
        json!({
            "n_files": self.ratios.len(),
            "payload": self.payload,
            "marshal": self.marshal,
            "ratio": self.ratio(),
            "median": median,
            "p90": p90,
            "p99": p99,
            "max": self.ratios.max().map(f64::from),
            "n_larger": self.n_larger(),
        })
    }
}

/// The mnemonic; behind MAKE_STRING, which of its four opcodes.
fn label(op: Op) -> String {
    let info = op.info();
    match info.text {
        None => info.mnemonic.to_owned(),
        Some(class) => {
            let text = if class.wide { "UTF-8" } else { "ASCII" };
            format!("{} {text}{}", info.mnemonic, if class.interned { " interned" } else { "" })
        }
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.main_figure(f)?;
        if self.is_empty() {
            return Ok(());
        }
        self.size_table(f)?;
        self.part_table(f)?;
        self.instruction_table(f)?;
        self.reference_table(f)?;
        self.object_table(f)?;
        self.sharing_table(f)?;
        self.stack_table(f)?;
        self.file_tables(f)
    }
}

/// Of how many uses the text counts the shared objects: from, to, and how that is spelled.
const USES: [(u32, u32, &str); 7] = [
    (2, 2, "2 places"),
    (3, 3, "3 places"),
    (4, 4, "4 places"),
    (5, 5, "5 places"),
    (6, 10, "6 to 10 places"),
    (11, 20, "11 to 20 places"),
    (21, u32::MAX, "more places"),
];

impl Summary {
    /// `payload 40,831,231 of 47,142,936 bytes: 86.6 % (1,721 files)`
    fn main_figure(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let files = |n| if n == 1 { String::new() } else { format!(" ({} files)", grouped(n)) };
        let Some(all) = self.comparison(Coding::Raw) else {
            return writeln!(f, "payload {} bytes{}", grouped(self.payload_bytes()), files(self.len()));
        };
        let (share, n_compared) = (100.0 * all.ratio(), all.ratios.len());
        write!(f, "payload {} of {} bytes: {share:.1} %", grouped(all.payload), grouped(all.marshal))?;
        writeln!(f, "{}", files(n_compared))?;
        if n_compared < self.len() {
            let without = grouped(self.len() - n_compared);
            writeln!(f, "without a dump to compare with, and counted in the other tables only: {without}")?;
        }
        Ok(())
    }

    fn size_table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut table = vec![row(["against marshal", "payload", "marshal", "", "median", "p90", "max", "above 100 %"])];
        for coding in Coding::ALL {
            let Some(all) = self.comparison(coding) else { continue };
            let of =
                |percentile: Option<OrderedFloat<f64>>| percentile.map(|ratio| percent(ratio.0)).unwrap_or_default();
            table.push(vec![
                coding.name().to_owned(),
                grouped(all.payload),
                grouped(all.marshal),
                percent(all.ratio()),
                of(all.ratios.percentile(50)),
                of(all.ratios.percentile(90)),
                of(all.ratios.max()),
                grouped(all.n_larger()),
            ]);
        }
        if self.len() == 1 {
            table.iter_mut().for_each(|row| row.truncate(4));
        }
        write_table(f, &table)
    }

    fn part_table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let payload = self.payload_bytes();
        let mut table = vec![row(["file", "bytes", "of payload"])];
        let all = [("payload", payload)].into_iter().chain(self.wrapping()).chain([("whole file", self.file_bytes())]);
        for (name, bytes) in self.parts().into_iter().chain(all).filter(|(_, bytes)| *bytes > 0) {
            table.push(vec![name.to_owned(), grouped(bytes), percent(ratio(bytes, payload))]);
        }
        write_table(f, &table)
    }

    fn instruction_table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let all = self.instructions();
        let (n, bytes) = all.values().fold((0, 0), |sum, emitted| (sum.0 + emitted.count, sum.1 + emitted.bytes));
        let mut table = vec![row(["instructions", "count", "", "bytes", ""])];
        let mut rows: Vec<(Op, Emitted)> = all.into_iter().collect();
        rows.sort_by_key(|(op, emitted)| (std::cmp::Reverse(emitted.count), *op));
        let rows = rows.into_iter().map(|(op, emitted)| (label(op), emitted));
        for (name, emitted) in rows.chain([("all".to_owned(), Emitted { count: n, bytes })]) {
            let shares = (percent(ratio(emitted.count, n)), percent(ratio(emitted.bytes, bytes)));
            table.push(vec![name, grouped(emitted.count), shares.0, grouped(emitted.bytes), shares.1]);
        }
        write_table(f, &table)
    }

    fn reference_table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let references = self.total(|file| file.n_references);
        let extended = self.total(|file| file.n_extended_references);
        let mut table =
            vec![row(["references to values on the stack", "count", ""]), vec!["all".to_owned(), grouped(references)]];
        if references > 0 {
            table.push(vec!["with EXTENDED_ARG".to_owned(), grouped(extended), percent(ratio(extended, references))]);
        }
        table.push(vec![
            "EXTENDED_ARGs, of all instructions".to_owned(),
            grouped(self.total(|file| file.n_extended_args)),
        ]);
        write_table(f, &table)
    }

    fn object_table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut table = vec![row(["objects", "count", "places", "shared"])];
        let mut rows: Vec<(&str, Objects)> = self.objects().into_iter().collect();
        rows.sort_by_key(|(name, objects)| (std::cmp::Reverse(objects.count), *name));
        let all = rows.iter().fold(Objects::default(), |sum, (_, objects)| Objects {
            count: sum.count + objects.count,
            uses: sum.uses + objects.uses,
            shared: sum.shared + objects.shared,
        });
        for (name, objects) in rows.into_iter().chain([("all", all)]) {
            table.push(vec![name.to_owned(), grouped(objects.count), grouped(objects.uses), grouped(objects.shared)]);
        }
        write_table(f, &table)
    }

    fn sharing_table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let by_uses = self.shared_by_uses();
        let all: usize = by_uses.values().sum();
        let mut table = vec![row(["shared objects", "count", ""])];
        for (from, to, name) in USES {
            let count: usize = by_uses.range(from..=to).map(|(_, count)| count).sum();
            if count > 0 {
                table.push(vec![name.to_owned(), grouped(count), percent(ratio(count, all))]);
            }
        }
        table.push(vec!["all".to_owned(), grouped(all)]);
        write_table(f, &table)
    }

    fn stack_table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let shared = self.distribution(|file| Some(file.n_shared()));
        let stack = self.distribution(|file| Some(file.max_stack as usize));
        let cells = |name: &str, values: &Distribution<usize>| {
            let [median, p90, p99] = [50, 90, 99].map(|percent| values.percentile(percent));
            let cells = [median, p90, p99, values.max()].map(|value| value.map(grouped).unwrap_or_default());
            [name.to_owned()].into_iter().chain(cells).collect::<Vec<_>>()
        };
        if self.len() == 1 {
            return writeln!(f, "\nstack height {}", stack.max().map(grouped).unwrap_or_default());
        }
        let head = row(["a file", "median", "p90", "p99", "max"]);
        write_table(f, &[head, cells("stack height", &stack), cells("shared objects", &shared)])
    }

    /// The files with the smallest and the largest ratios; all in one table where they would overlap.
    fn file_tables(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut files: Vec<(OrderedFloat<f64>, &str, &FileStats)> = self
            .files
            .iter()
            .filter_map(|(name, file)| Some((OrderedFloat(file.ratio(Coding::Raw)?), name.as_str(), file)))
            .collect();
        files.sort_by_key(|(ratio, ..)| *ratio);
        if files.len() < 2 || self.top == 0 {
            return Ok(());
        }
        if files.len() <= 2 * self.top {
            return write_table(f, &file_rows("by gain", files.iter()));
        }
        let (gains, losses) = (&files[..self.top], &files[files.len() - self.top..]);
        let is_loss = losses.iter().all(|(ratio, ..)| ratio.0 > 1.0);
        write_table(f, &file_rows("largest gains", gains.iter()))?;
        write_table(f, &file_rows(if is_loss { "largest losses" } else { "smallest gains" }, losses.iter().rev()))
    }
}

fn file_rows<'f>(
    title: &str,
    files: impl Iterator<Item = &'f (OrderedFloat<f64>, &'f str, &'f FileStats)>,
) -> Vec<Vec<String>> {
    let size = |sizes: Option<Sizes>| sizes.and_then(|sizes| sizes.get(Coding::Raw)).map(grouped).unwrap_or_default();
    let rows = files.map(|(ratio, name, file)| {
        vec![(*name).to_owned(), size(Some(file.payload)), size(file.marshal), percent(ratio.0)]
    });
    [row([title, "payload", "marshal", ""])].into_iter().chain(rows).collect()
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).into()
}

/// Writes a blank line, the head, and the rows below it: the first column to the left, numbers to the right.
fn write_table(f: &mut Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..n_columns).map(|column| width(column).unwrap_or_default()).collect();
    writeln!(f)?;
    for (at, row) in rows.iter().enumerate() {
        let mut line = String::from(if at == 0 { "" } else { "  " });
        let first = widths[0] + if at == 0 { 2 } else { 0 };
        for (column, cell) in row.iter().enumerate() {
            line += &match column {
                0 => format!("{cell:<first$}"),
                _ => format!("  {cell:>width$}", width = widths[column]),
            };
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// `1,234,567`
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn percent(ratio: f64) -> String {
    format!("{:.2} %", 100.0 * ratio)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Input;
    use crate::python::Python;

    /// The dump of `(1, 'a', 37.0, (2, 'foo'))`.
    const TUPLE: &[u8] = b")\x04i\x01\0\0\0z\x01ag\0\0\0\0\0\x80B@)\x02i\x02\0\0\0z\x03foo";

    /// The dump of `x = (7000, 7000.5); (x, x, x)`.
    const SHARED: &[u8] = b")\x03\xa9\x02iX\x1b\0\0g\0\0\0\0\x80X\xbb@r\0\0\0\0r\0\0\0\0";

    fn measured(dump: &[u8], codings: &[Coding]) -> FileStats {
        let Input::Source(source) = Input::read(dump, Some(Python::LATEST)).unwrap() else { unreachable!() };
        measure(&source, Options::default(), codings).unwrap()
    }

    #[test]
    fn parts_add_up_to_the_payload_and_to_the_file() {
        for dump in [TUPLE, SHARED] {
            let Input::Source(source) = Input::read(dump, Some(Python::LATEST)).unwrap() else { unreachable!() };
            let file = compile(&source, Options::default()).unwrap().encode().unwrap();
            let stats = measured(dump, &[]);
            let payload = stats.instruction_bytes + stats.section_bytes.iter().sum::<usize>();
            assert_eq!(stats.payload.get(Coding::Raw), Some(payload));
            assert_eq!(payload + stats.source_bytes + stats.container_bytes + stats.header_bytes, file.len());
            let in_opcodes: usize = stats.instructions.values().map(|emitted| emitted.bytes).sum();
            assert_eq!(in_opcodes, stats.instruction_bytes);
            assert_eq!(stats.marshal.unwrap().get(Coding::Raw), Some(dump.len()));
        }
    }

    #[test]
    fn shared_objects_are_counted_with_their_places() {
        let stats = measured(SHARED, &[]);
        assert_eq!(stats.objects["tuple"], Objects { count: 2, uses: 4, shared: 1 });
        assert_eq!(stats.objects["int"], Objects { count: 1, uses: 1, shared: 0 });
        assert_eq!(stats.shared_by_uses, BTreeMap::from([(3, 1)]));
        assert_eq!(stats.n_shared(), 1);
    }

    #[test]
    fn references_are_what_finds_a_value_on_the_stack() {
        let stats = measured(SHARED, &[]);
        assert_eq!((stats.n_references, stats.n_extended_references), (3, 0));
    }

    #[test]
    fn an_initializer_measures_as_the_dump_it_was_compiled_from() {
        let Input::Source(source) = Input::read(SHARED, Some(Python::LATEST)).unwrap() else { unreachable!() };
        let initializer = compile(&source, Options::default()).unwrap();
        assert_eq!(measure_initializer(initializer, &Coding::ALL).unwrap(), measured(SHARED, &Coding::ALL));
    }

    #[test]
    fn an_initializer_without_its_source_has_nothing_to_compare_with() {
        let Input::Source(source) = Input::read(SHARED, Some(Python::LATEST)).unwrap() else { unreachable!() };
        let options = Options { source_flags: false, ..Options::default() };
        let stats = measure_initializer(compile(&source, options).unwrap(), &[]).unwrap();
        assert_eq!((stats.marshal, stats.ratio(Coding::Raw)), (None, None));
        let mut summary = Summary::new(5);
        summary.add("a".to_owned(), stats);
        assert!(summary.comparison(Coding::Raw).is_none());
        summary.add("b".to_owned(), measured(SHARED, &[]));
        assert_eq!(summary.comparison(Coding::Raw).unwrap().marshal, SHARED.len());
        let text = summary.to_string();
        assert!(text.contains("without a dump to compare with, and counted in the other tables only: 1\n"), "{text}");
    }

    #[test]
    fn compressed_sizes_are_counted_where_asked_for() {
        let zeros = [0; 10_000];
        assert_eq!(Coding::Raw.size(&[&zeros, &zeros]), 20_000);
        for coding in [Coding::Zlib, Coding::Zstd] {
            assert!(coding.size(&[&zeros, &zeros]) < 100);
            assert_eq!(coding.size(&[&zeros[..1], &zeros[1..]]), coding.size(&[&zeros]), "parts make no difference");
            assert_eq!(measured(TUPLE, &[]).ratio(coding), None);
            assert!(measured(TUPLE, &[coding]).ratio(coding).is_some());
        }
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Distribution<u32> = [5, 1, 4, 2, 3].into_iter().collect();
        assert_eq!([0, 20, 21, 50, 90, 100].map(|percent| values.percentile(percent).unwrap()), [1, 1, 2, 3, 5, 5]);
        assert_eq!(values.max(), Some(5));
        assert_eq!(Distribution::<u32>(Vec::new()).percentile(50), None);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 123_456, 1_234_567].map(grouped), ["0", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn the_text_begins_with_the_main_figure() {
        let mut summary = Summary::new(1);
        summary.add("tuple".to_owned(), measured(TUPLE, &[]));
        let stats = measured(TUPLE, &[]);
        let payload = stats.payload.get(Coding::Raw).unwrap();
        let share = 100.0 * ratio(payload, TUPLE.len());
        let first = format!("payload {payload} of {} bytes: {share:.1} %\n", TUPLE.len());
        assert!(summary.to_string().starts_with(&first), "{summary}");
    }

    #[test]
    fn nothing_measured_has_a_text_too() {
        let summary = Summary::default();
        assert_eq!(summary.to_string(), "payload 0 bytes (0 files)\n");
        assert_eq!(summary.json()["n_files"], 0);
    }
}
