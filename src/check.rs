//! Takes a file through every stage and judges the result by means that share no code with them.

use crate::compare::{Sameness, difference};
use crate::compile::{Options, compile};
use crate::error::{Error, ErrorKind, Result};
use crate::file::{Initializer, Input, Source};
use crate::key::Sharing;
use crate::python::Python;
use crate::{marshal, source, verify, vm};

/// Checks a file: reads it, compiles it, encodes, decodes, verifies and runs the initializer, compares what that made
/// with what was read, writes the dump back and compares the bytes. Of an initializer, everything from decoding on.
///
/// # Errors
/// The first step that fails, as [`ErrorKind::CheckFailed`]; what a step itself refuses is its reason.
pub fn check(file: &[u8], python: Option<Python>, options: Options) -> Result<()> {
    match Input::read(file, python).map_err(|error| failed("read", error))? {
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

fn check_initializer(initializer: Initializer<'_>, source: Option<(&Source<'_>, Sharing)>) -> Result<()> {
    let verified = verify::verify(initializer.image).map_err(|error| failed("verify", error))?;
    let (heap, root) = vm::run(&verified);
    if let Some((source, sharing)) = source {
        let sameness = match sharing {
            Sharing::Structural => Sameness::Structural,
            Sharing::Identity => Sameness::Identity,
            Sharing::None => Sameness::Value,
        };
        let dump = &source.dump;
        if let Some(why) = difference((&dump.heap, dump.root), (&heap, root), sameness) {
            return Err(failed("compare", why));
        }
    }
    let image = verified.image();
    if let Some(section) = &image.source {
        let marshal =
            source::decode(section, &heap, root, image.payload_len()).map_err(|error| failed("decompile", error))?;
        match source {
            Some((source, _)) => same_bytes("decompile", &marshal, source.marshal)?,
            None => {
                marshal::read(&marshal, verified.python()).map_err(|error| failed("decompile", error))?;
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
