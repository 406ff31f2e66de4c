use clap::Args;

use super::batch::{Failure, each};
use super::files::{ALL, InputFile, find};
use super::{CompileOptions, Format, Inputs};
use rehydrate::bundle::{self, Bundle};
use rehydrate::lazy::Listing;
use rehydrate::{Input, Python};

/// List the instructions of initializers, with what each pushes
///
/// A .pyc or a dump is compiled first. The columns: offset, instruction, operand; behind the semicolon the depth of the
/// stack and the value on top of it. asm reads the listing back. Of a lazy container (.pylazy): the rewritten bytecode of
/// each code object, and the program of each constant. Of a bundle (.pybundle): the initializer of the table that its modules
/// share, or that of the module that --module names; asm does not read that back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate disasm module.pyc
  rehydrate disasm module.pyinit --format json | jq '.instructions | length'
  rehydrate disasm app.pybundle --module app.main

Exit status:
  0  all are listed
  1  an input is refused
  2  wrong usage, or a file cannot be read")]
pub(super) struct Disasm {
    #[command(flatten)]
    inputs: Inputs,
    #[command(flatten)]
    options: CompileOptions,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Of a bundle: the module to list
    #[arg(long, value_name = "NAME")]
    module: Option<String>,
}

impl Disasm {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Inputs { inputs, python, jobs } = self.inputs;
        let inputs: Vec<_> = find(&inputs, ALL)?.into_iter().map(|input| (input, ())).collect();
        let titled = inputs.len() > 1;
        let (options, format) = (self.options.options(), self.format);
        let module = self.module.as_deref();
        each(&inputs, jobs, "listed", |input, ()| {
            let file = input.read()?;
            match (file.starts_with(&bundle::MAGIC), module) {
                (true, module) => of_bundle(input, &file, module, format, titled),
                (false, Some(_)) => Err(Failure::Refused("is no bundle, of which --module lists a part".to_owned())),
                (false, None) => list(input, &file, python.python, options, format, titled),
            }
        })
    }
}

fn of_bundle(
    input: &InputFile,
    file: &[u8],
    module: Option<&str>,
    format: Format,
    titled: bool,
) -> Result<String, Failure> {
    let bundle = Bundle::open(file)?;
    let table = bundle.table()?;
    let Some(name) = module else {
        return Ok(listed(input, &rehydrate::disassemble(table.verified(), &[]), format, titled));
    };
    let module = bundle.find(name)?;
    let module = module.ok_or_else(|| Failure::Refused(format!("has no module {name}: show lists those it has")))?;
    let verified = bundle.verified(&module, &table)?;
    Ok(listed(input, &rehydrate::disassemble(&verified, &module.header), format, titled))
}

fn list(
    input: &InputFile,
    file: &[u8],
    python: Option<Python>,
    options: rehydrate::Options,
    format: Format,
    titled: bool,
) -> Result<String, Failure> {
    let initializer = match Input::read(file, python)? {
        Input::Source(source) => rehydrate::compile(&source, options)?,
        Input::Initializer(initializer) => initializer,
        Input::Lazy(container) => return lazy(input, &Listing::new(&container)?, format, titled),
    };
    let header = initializer.header_bytes();
    let verified = rehydrate::verify(initializer.image)?;
    Ok(listed(input, &rehydrate::disassemble(&verified, header), format, titled))
}

fn listed(input: &InputFile, listing: &rehydrate::Listing<'_>, format: Format, titled: bool) -> String {
    match format {
        Format::Text if titled => format!("; {}\n{listing}\n", input.name()),
        Format::Text => listing.to_string(),
        Format::Json => {
            let mut json = listing.json();
            if let Some(json) = json.as_object_mut() {
                json.shift_insert(0, "input".to_owned(), input.name().into());
            }
            format!("{json}\n")
        }
    }
}

fn lazy(input: &InputFile, listing: &Listing<'_>, format: Format, titled: bool) -> Result<String, Failure> {
    Ok(match format {
        Format::Text if titled => format!("; {}\n{listing}\n", input.name()),
        Format::Text => listing.to_string(),
        Format::Json => {
            let mut json = listing.json();
            if let Some(json) = json.as_object_mut() {
                json.shift_insert(0, "input".to_owned(), input.name().into());
            }
            format!("{json}\n")
        }
    })
}
