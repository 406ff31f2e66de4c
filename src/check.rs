//! Takes a file through every stage and judges the result by means that share no code with them.

use crate::compare::{Sameness, difference};
use crate::compile::{Options, compile};
use crate::dehydrate::{LazyOptions, dehydrate};
use crate::error::{Error, ErrorKind, Result};
use crate::file::{Initializer, Input, Source};
use crate::heap::{Heap, ObjectId};
use crate::key::Sharing;
use crate::lazy::{self, Container};
use crate::python::Python;
use crate::{marshal, source, verify, vm};

/// Checks a file: reads it, compiles it, encodes, decodes, verifies and runs the initializer, compares what that made
/// with what was read, writes the dump back and compares the bytes. Of an initializer, everything from decoding on.
///
/// # Errors
/// The first step that fails, as [`ErrorKind::CheckFailed`]; what a step itself refuses is its reason.
pub fn check(file: &[u8], python: Option<Python>, options: Options) -> Result<()> {
    match Input::read(file, python).map_err(|error| failed("read", error))? {
        Input::Lazy(container) => check_container(&container, None),
        Input::Initializer(initializer) => {
            let again = initializer.encode().map_err(|error| failed("encode", error))?;
            same_bytes("encode", &again, file)?;
            check_initializer(initializer, None)
        }
        Input::Source(source) => {
            same_bytes("write the dump back", &marshal::write_exact(&source.dump), source.marshal)?;
            let compiled = compile(&source, options).map_err(|error| failed("compile", error))?;
            let encoded = compiled.encode().map_err(|error| failed("encode", error))?;
            let decoded = Initializer::read(&encoded).map_err(|error| failed("decode", error))?;
            if decoded.image != compiled.image {
                return Err(failed("decode", "the image is another than the one encoded"));
            }
            check_initializer(decoded, Some((&source, options.sharing)))
        }
    }
}

/// As [`check`], with the lazy container instead of the initializer: reads the file, dehydrates it, opens and hydrates the
/// container, compares what that made with what was read, turns it back and compares the bytes. What is no .pyc is checked
/// as by [`check`].
///
/// # Errors
/// As [`check`].
pub fn check_lazy(file: &[u8], python: Option<Python>, options: LazyOptions) -> Result<()> {
    let Input::Source(source) = Input::read(file, python).map_err(|error| failed("read", error))? else {
        return check(file, python, Options::default());
    };
    let dehydrated = dehydrate(&source, options).map_err(|error| failed("dehydrate", error))?;
    let container = Container::open(&dehydrated).map_err(|error| failed("open", error))?;
    check_container(&container, Some((&source, options.sharing)))
}

fn check_container(container: &Container<'_>, source: Option<(&Source<'_>, Sharing)>) -> Result<()> {
    let (heap, root) = lazy::hydrate(container).map_err(|error| failed("hydrate", error))?;
    check_objects((&heap, root), container.source(), container.payload_len(), source)
}

fn check_initializer(initializer: Initializer<'_>, source: Option<(&Source<'_>, Sharing)>) -> Result<()> {
    let verified = verify::verify(initializer.image).map_err(|error| failed("verify", error))?;
    let (heap, root) = vm::run(&verified);
    let image = verified.image();
    check_objects((&heap, root), image.source.as_deref(), image.payload_len(), source)
}

/// Judges the objects that were built: against the dump, and by turning them back.
fn check_objects(
    (heap, root): (&Heap<'_>, ObjectId),
    section: Option<&[u8]>,
    payload_len: usize,
    source: Option<(&Source<'_>, Sharing)>,
) -> Result<()> {
    if let Some((source, sharing)) = source {
        let sameness = match sharing {
            Sharing::Structural => Sameness::Structural,
            Sharing::Identity => Sameness::Identity,
            Sharing::None => Sameness::Value,
        };
        let dump = &source.dump;
        if let Some(why) = difference((&dump.heap, dump.root), (heap, root), sameness) {
            return Err(failed("compare", why));
        }
    }
    if let Some(section) = section {
        let marshal = source::decode(section, heap, root, payload_len).map_err(|error| failed("decompile", error))?;
        match source {
            Some((source, _)) => same_bytes("decompile", &marshal, source.marshal)?,
            None => {
                marshal::read(&marshal, heap.python()).map_err(|error| failed("decompile", error))?;
            }
        }
    }
    Ok(())
}

fn same_bytes(step: &'static str, found: &[u8], wanted: &[u8]) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    let at = found.iter().zip(wanted).position(|(a, b)| a != b).unwrap_or(found.len().min(wanted.len()));
    Err(failed(step, format!("the bytes differ from byte {at:#x} on")))
}

#[cold]
fn failed(step: &'static str, why: impl ToString) -> Error {
    ErrorKind::CheckFailed { step, why: why.to_string() }.into()
}
