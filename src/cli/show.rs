use clap::Args;

use super::batch::{Failure, each};
use super::files::{ALL, InputFile, find};
use super::{Format, Inputs};
use rehydrate::bundle::{self, Bundle, ModuleKind};
use rehydrate::{Input, Python};
use serde_json::json;

/// Show marshal dumps as trees, with offsets, types and references
///
/// The columns: offset in the file; type byte, + where it is flagged; the index that the object takes, or that a reference
/// refers to; then what stands there. A .pyinit or .pylazy is
/// turned back first. Of a bundle (.pybundle): what it says of itself, and its modules, with the bytes of their initializers.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rehydrate show module.pyc
  rehydrate show --python 3.13 dump.marshal
  rehydrate show module.pyc --format json | jq '.rows | length'

Exit status:
  0  all are shown
  1  an input is refused
  2  wrong usage, or a file cannot be read")]
pub(super) struct Show {
    #[command(flatten)]
    inputs: Inputs,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Show {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Inputs { inputs, python, jobs } = self.inputs;
        let inputs: Vec<_> = find(&inputs, ALL)?.into_iter().map(|input| (input, ())).collect();
        let titled = inputs.len() > 1;
        each(&inputs, jobs, "shown", |input, ()| show(input, python.python, self.format, titled))
    }
}

fn show(input: &InputFile, python: Option<Python>, format: Format, titled: bool) -> Result<String, Failure> {
    let file = input.read()?;
    if file.starts_with(&bundle::MAGIC) {
        return of_bundle(input, &file, format);
    }
    let decompiled;
    let source = match Input::read(&file, python)? {
        Input::Source(source) => source,
        Input::Initializer(initializer) => {
            let python = initializer.image.python()?;
            decompiled = rehydrate::decompile(initializer)?;
            match Input::read(&decompiled, Some(python))? {
                Input::Source(source) => source,
                Input::Initializer(_) | Input::Lazy(_) => {
                    return Err(Failure::Refused("is an initializer of an initializer".to_owned()));
                }
            }
        }
        Input::Lazy(container) => {
            decompiled = rehydrate::turn_back(&container)?;
            super::turned_back(&decompiled)?
        }
    };
    let tree = rehydrate::tree(&source);
    Ok(match format {
        Format::Text if titled => format!("; {}\n{tree}\n", input.name()),
        Format::Text => tree.to_string(),
        Format::Json => {
            let mut json = tree.json();
            if let Some(json) = json.as_object_mut() {
                json.shift_insert(0, "input".to_owned(), input.name().into());
            }
            format!("{json}\n")
        }
    })
}

fn of_bundle(input: &InputFile, file: &[u8], format: Format) -> Result<String, Failure> {
    let bundle = Bundle::open(file)?;
    let modules = bundle.modules().collect::<rehydrate::Result<Vec<_>>>()?;
    let python = Python::from_magic(bundle.magic())?;
    Ok(match format {
        Format::Text => {
            let width = modules.iter().map(|module| module.name.len()).max().unwrap_or_default();
            let mut text = format!(
                "; {}: bundle of Python {python}, level of optimization {}, {}: {} modules; they share {} names and {} constants\n",
                input.name(),
                bundle.level(),
                if bundle.is_unchecked() { "unchecked" } else { "checked" },
                modules.len(),
                bundle.n_names(),
                bundle.n_consts(),
            );
            for module in &modules {
                let kind = match module.kind {
                    ModuleKind::Source => "module",
                    ModuleKind::Package => "package",
                    ModuleKind::Extension => "extension",
                };
                let (name, len) = (module.name, module.image.len());
                text += &format!("{name:<width$}  {kind:<9}  {len:>8}  {} in {}\n", module.path, module.folder);
            }
            text
        }
        Format::Json => {
            let modules = modules.iter().map(|module| {
                json!({
                    "name": module.name,
                    "package": module.kind == ModuleKind::Package,
                    "extension": module.kind == ModuleKind::Extension,
                    "bytes": module.image.len(),
                    "folder": module.folder,
                    "path": module.path,
                })
            });
            let json = json!({
                "input": input.name(),
                "python": python.to_string(),
                "level": bundle.level(),
                "unchecked": bundle.is_unchecked(),
                "names": bundle.n_names(),
                "constants": bundle.n_consts(),
                "modules": modules.collect::<Vec<_>>(),
            });
            format!("{json}\n")
        }
    })
}
