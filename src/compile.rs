//! From a marshal dump to an initializer, and back.

use std::borrow::Cow;

use crate::canonical::canonical;
use crate::emit::{Dialect, End, emit};
use crate::error::{ErrorKind, Result};
use crate::file::{Initializer, Source, module_name};
use crate::graph::lower;
use crate::heap::{Heap, Object, ObjectId};
use crate::image::Image;
use crate::key::Sharing;
use crate::marshal;
use crate::profile::{Optimize, Profile};
use crate::python::Field;
use crate::schedule::schedule;
use crate::share::share;
use crate::verify::verify;
use crate::{source, vm};

/// How to compile. The default is what `rehydrate compile` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Which objects become one.
    pub sharing: Sharing,
    /// Which instructions are used.
    pub profile: Profile,
    /// What decisions are to be good at.
    pub optimize: Optimize,
    /// How the initializer ends.
    pub end: End,
    /// Whether bytecode is stored without its inline caches; `None` leaves it to the profile.
    pub strip_caches: Option<bool>,
    /// Whether to keep what turns the initializer back into the identical dump.
    pub source_flags: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sharing: Sharing::default(),
            profile: Profile::default(),
            optimize: Optimize::default(),
            end: End::default(),
            strip_caches: None,
            source_flags: true,
        }
    }
}

/// What `--sharing none` may take, for a dump of so many bytes.
pub(crate) fn budget(dump_len: usize, sharing: Sharing) -> usize {
    if sharing == Sharing::None { 64 * dump_len + (1 << 20) } else { usize::MAX }
}

impl Options {
    pub(crate) fn dialect(self) -> Dialect {
        Dialect {
            profile: self.profile,
            strips_caches: self.strip_caches.unwrap_or(self.profile.strips_caches()),
            end: self.end,
        }
    }
}

/// Compiles a dump.
///
/// # Errors
/// As [`lower`] and [`emit`].
pub fn compile<'a>(source: &Source<'a>, options: Options) -> Result<Initializer<'a>> {
    let Source { header, dump, marshal } = source;
    let graph = lower(dump, options.sharing)?;
    let shared = share(&graph, options.profile, options.optimize);
    let schedule = schedule(&graph, &shared, options.profile);
    let image = emit(&graph, &shared, &schedule, options.dialect(), budget(marshal.len(), options.sharing))?;
    let source = match options.source_flags {
        true => Some(Cow::Owned(source::encode(dump, marshal, &graph, image.payload_len())?)),
        false => None,
    };
    let filename = filename(&dump.heap, dump.root);
    let module = module_name(&filename).into_owned();
    let magic = header.map_or(image.magic, |header| header.magic());
    let image = Image { magic, module: Cow::Owned(module), filename: Cow::Owned(filename), source, ..image };
    Ok(Initializer { header: *header, image })
}

/// The top-level code object's filename, or nothing.
pub(crate) fn filename(heap: &Heap<'_>, root: ObjectId) -> String {
    let Object::Code(code) = heap[root] else { return String::new() };
    match heap[heap.code(code).object(Field::FileName)] {
        Object::Str(text) => String::from_utf8_lossy(text.to_utf8(&mut Vec::new())).into_owned(),
        _ => String::new(),
    }
}

/// Turns an initializer back into the file it was compiled from, byte for byte.
///
/// # Errors
/// As [`verify`]; [`ErrorKind::NoSource`] if what it takes was left out; [`ErrorKind::BadSource`] if that does not fit.
pub fn decompile(initializer: Initializer<'_>) -> Result<Vec<u8>> {
    let header = initializer.header_bytes();
    let verified = verify(initializer.image)?;
    let (heap, root) = vm::run(&verified);
    let image = verified.image();
    let section = image.source.as_deref().ok_or(ErrorKind::NoSource)?;
    let marshal = source::decode(section, &heap, root, image.payload_len())?;
    Ok([header, &marshal].concat())
}

/// Writes the canonical dump of the objects below `root`: its bytes depend on their values alone.
///
/// # Errors
/// As [`canonical`] and [`marshal::write()`].
pub fn write_canonical(heap: &Heap<'_>, root: ObjectId) -> Result<Vec<u8>> {
    let (heap, root) = canonical(heap, root)?;
    marshal::write(&heap, root)
}
