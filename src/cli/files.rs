//! Finds, reads and writes files.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use super::batch::Failure;

/// A file to read, and where it stands below the folder that was given.
#[derive(Debug, Clone)]
pub(super) struct InputFile {
    pub(super) path: PathBuf,
    /// The path below `--out-dir`: a file's name; a folder's own name and what is below it.
    below: PathBuf,
    /// The same without the folder's own name.
    pub(super) inside: PathBuf,
}

impl InputFile {
    /// The file that was named; whether it is there shows when it is read.
    pub(super) fn named(path: PathBuf) -> Self {
        let below = PathBuf::from(if path.as_os_str() == "-" { "stdin".as_ref() } else { file_name(&path) });
        Self { path, inside: below.clone(), below }
    }

    pub(super) fn is_stdin(&self) -> bool {
        self.path.as_os_str() == "-"
    }

    pub(super) fn name(&self) -> String {
        if self.is_stdin() { "<stdin>".to_owned() } else { self.path.display().to_string() }
    }

    /// The permissions that what is made of it may have: those of a file, to be written by its owner, as importlib gives a
    /// .pyc those of its source. What comes through a pipe has none.
    fn mode(&self) -> u32 {
        #[cfg(unix)]
        if !self.is_stdin()
            && let Ok(metadata) = fs::metadata(&self.path)
            && metadata.is_file()
        {
            use std::os::unix::fs::PermissionsExt;
            return metadata.permissions().mode() & NEW | 0o200;
        }
        NEW
    }

    pub(super) fn read(&self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = if self.is_stdin() {
            io::stdin().lock().read_to_end(&mut bytes).map(drop)
        } else {
            fs::read(&self.path).map(|file| bytes = file)
        };
        read.map_err(|error| Failure::Io(self.name(), error))?;
        Ok(bytes)
    }
}

/// The extensions of the files that a folder is walked for.
pub(super) const SOURCES: &[&str] = &["pyc", "marshal"];
pub(super) const EXPLAINED: &[&str] = &["pyc", "marshal", "pylazy"];
pub(super) const INITIALIZERS: &[&str] = &["pyinit", "pylazy"];
pub(super) const ALL: &[&str] = &["pyc", "marshal", "pyinit", "pylazy"];

/// The files that `inputs` name, those of folders in the order of their names.
///
/// # Errors
/// A folder that has no such files, standard input named twice.
pub(super) fn find(inputs: &[PathBuf], extensions: &[&str]) -> Result<Vec<InputFile>, Failure> {
    let mut found = Vec::new();
    for input in inputs {
        if input.as_os_str() == "-" {
            if found.iter().any(InputFile::is_stdin) {
                return Err(Failure::Usage("- is named twice, and standard input can be read once".to_owned()));
            }
            found.push(InputFile::named(input.clone()));
        } else if input.is_dir() {
            let before = found.len();
            found.extend(walk(input, extensions)?);
            if found.len() == before {
                let wanted =
                    extensions.iter().map(|extension| format!(".{extension}")).collect::<Vec<_>>().join(" or ");
                return Err(Failure::Usage(format!("no {wanted} file is in {}", input.display())));
            }
        } else {
            found.push(InputFile::named(input.clone()));
        }
    }
    Ok(found)
}

fn walk(folder: &Path, extensions: &[&str]) -> Result<Vec<InputFile>, Failure> {
    let named = |error| Failure::Io(folder.display().to_string(), error);
    // `.` and `..` have a name only once they are resolved.
    let own_name = match folder.file_name() {
        Some(name) => PathBuf::from(name),
        None => PathBuf::from(folder.canonicalize().map_err(named)?.file_name().unwrap_or_default()),
    };
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                // A folder that cannot be read is a bad input among good ones: reading it says why.
                found.push(InputFile::named(error.path().unwrap_or(folder).to_owned()));
                continue;
            }
        };
        let extension = entry.path().extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if entry.file_type().is_file() && extensions.contains(&extension) {
            let inside = entry.path().strip_prefix(folder).unwrap_or(entry.path()).to_owned();
            found.push(InputFile { path: entry.path().to_owned(), below: own_name.join(&inside), inside });
        }
    }
    Ok(found)
}

/// Where a command writes.
#[derive(Debug, Clone, clap::Args)]
#[group(multiple = false)]
pub(super) struct OutputArgs {
    /// Write here; - is standard output. For a single input
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Write below this folder, in which a folder keeps its own name and structure
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
}

/// A place to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    File(PathBuf),
}

impl OutputArgs {
    /// The place of each input, beside it if no other was named; `extension` gives its extension.
    ///
    /// # Errors
    /// Two inputs with one output; several inputs for `-o`.
    pub(super) fn plan(
        &self,
        inputs: &[InputFile],
        extension: impl Fn(&InputFile) -> Result<&'static str, Failure>,
    ) -> Result<Vec<Output>, Failure> {
        if let Some(output) = &self.output {
            if inputs.len() > 1 {
                return Err(Failure::Usage(format!("-o takes one input, and here are {}", inputs.len())));
            }
            return Ok(vec![Output::named(output.clone())]);
        }
        let mut outputs = Vec::with_capacity(inputs.len());
        let mut taken = HashMap::new();
        for input in inputs {
            let beside = match &self.out_dir {
                Some(folder) => folder.join(&input.below),
                None if input.is_stdin() => {
                    outputs.push(Output::piped()?);
                    continue;
                }
                None => input.path.clone(),
            };
            let output = with_extension(&beside, extension(input)?);
            if let Some(other) = taken.insert(resolved(&output), input) {
                let (other, this, output) = (other.name(), input.name(), output.display());
                return Err(Failure::Usage(format!("{other} and {this} would both be written to {output}")));
            }
            outputs.push(Output::File(output));
        }
        Ok(outputs)
    }
}

fn file_name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or(path.as_os_str())
}

/// The one name of a file that may not be there yet, however it was spelled.
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path)
        .or_else(|_| fs::canonicalize(folder_of(path)).map(|folder| folder.join(file_name(path))))
        .unwrap_or_else(|_| path.to_owned())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Replaces an extension of ours, or adds one.
fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let is_ours = path.extension().is_some_and(|own| ALL.iter().any(|known| own == *known));
    if is_ours {
        return path.with_extension(extension);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

impl Output {
    /// What `-o` names.
    pub(super) fn named(path: PathBuf) -> Self {
        if path.as_os_str() == "-" { Self::Stdout } else { Self::File(path) }
    }

    /// Standard output for bytes, where nothing was named.
    ///
    /// # Errors
    /// It is a terminal.
    pub(super) fn piped() -> Result<Self, Failure> {
        if io::stdout().is_terminal() {
            return Err(Failure::Usage("standard output is a terminal: say where to write with -o FILE".to_owned()));
        }
        Ok(Self::Stdout)
    }

    /// The line that says what became of an input; nothing where the output itself was printed.
    pub(super) fn said_of(&self, input: &InputFile, how: impl Display) -> String {
        match self {
            Self::Stdout => String::new(),
            Self::File(path) if *path == input.path => format!("{}: replaced ({how})\n", input.name()),
            Self::File(path) => format!("{} -> {} ({how})\n", input.name(), path.display()),
        }
    }

    /// Writes all of `bytes`, or leaves what was there: to a temporary name, which is then renamed.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.write_with(NEW, bytes)
    }

    /// The same, of what was made of an input: a new file can be read by nobody who cannot read that file.
    pub(super) fn write_of(&self, input: &InputFile, bytes: &[u8]) -> Result<(), Failure> {
        self.write_with(input.mode(), bytes)
    }

    fn write_with(&self, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::stdout)
            }
            Self::File(path) => {
                replace(path, mode, bytes).map_err(|error| Failure::Io(path.display().to_string(), error))
            }
        }
    }
}

/// The permissions that a new file asks for; the user's mask takes away what it wants.
const NEW: u32 = 0o666;

/// Replaces a file's content; its permissions and its owner stay. A new one has those of `mode`.
fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    // A link stays a link: what it leads to is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let metadata = fs::metadata(path);
    if let Ok(metadata) = &metadata
        && !metadata.is_file()
    {
        // A pipe or a device cannot be replaced.
        return fs::write(path, bytes);
    }
    let folder = folder_of(path);
    fs::create_dir_all(folder)?;
    let mut file = create_beside(folder, mode)?;
    file.write_all(bytes)?;
    if let Ok(metadata) = metadata {
        #[cfg(unix)]
        {
            // Who may not give a file away keeps it.
            use std::os::unix::fs::{MetadataExt, fchown};
            _ = fchown(file.as_file(), Some(metadata.uid()), Some(metadata.gid()));
        }
        file.as_file().set_permissions(metadata.permissions())?;
    }
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg_attr(not(unix), expect(unused_variables, reason = "there are no modes"))]
fn create_beside(folder: &Path, mode: u32) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".rehydrate-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(mode));
    }
    builder.tempfile_in(folder)
}
