//! Finds the modules that paths name: a package, a folder of modules, a source; and where their compiled code is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// A source, and what it is imported as.
#[derive(Debug, Clone)]
pub struct FoundModule {
    /// The name by which it is imported.
    pub name: String,
    /// Whether it is a package.
    pub is_package: bool,
    /// The number of the folder below which it lies.
    pub folder: usize,
    /// Its path from there, with slashes.
    pub path: String,
    /// The source.
    pub source: PathBuf,
}

/// The modules that paths name, in the order of their names.
#[derive(Debug, Clone, Default)]
pub struct FoundModules {
    /// The folders, absolute, as they would stand on `sys.path`.
    pub folders: Vec<PathBuf>,
    /// The modules.
    pub modules: Vec<FoundModule>,
    /// What could not be looked into, and why.
    pub unreadable: Vec<String>,
}

impl FoundModules {
    /// Finds what `paths` name. A folder with an `__init__.py` is a package, and all below it; another one holds modules and
    /// packages; a source is a module. The name of a package or a source begins with the packages in which it lies.
    /// A source is left out if importlib takes something else of its folder by that name.
    ///
    /// # Errors
    /// A path that is not there, that is neither, or is not UTF-8; a module that is found twice; none at all.
    pub fn find(paths: &[PathBuf]) -> io::Result<Self> {
        let mut found = Self::default();
        let mut by_name = BTreeMap::new();
        let mut extensions = Extensions::default();
        for path in paths {
            let path = normalized(path)?;
            let metadata = fs::metadata(&path).map_err(|error| named(&path, error))?;
            let is_source = metadata.is_file() && path.extension().is_some_and(|extension| extension == "py");
            let is_package = metadata.is_dir() && path.join("__init__.py").is_file();
            if !metadata.is_dir() && !is_source {
                return Err(refused(&path, "is neither a folder nor a .py"));
            }
            let start = if is_package || is_source { path.parent().unwrap_or(&path) } else { &path };
            let mut root = start;
            while root.join("__init__.py").is_file()
                && let Some(parent) = root.parent()
            {
                root = parent;
            }
            let mut sources = Vec::new();
            if is_source {
                sources.push(path.clone())
            } else {
                walk(&path, &mut sources, &mut found.unreadable);
            }
            let folder = found.folder(root);
            for source in sources {
                if extensions.hide(&source) {
                    continue;
                }
                let Some(module) = module(root, folder, &source)? else { continue };
                if let Some(FoundModule { source: other, .. }) = by_name.get(&module.name) {
                    if *other != source {
                        let why = format!("is module {}, and so is {}", module.name, other.display());
                        return Err(refused(&source, &why));
                    }
                    continue;
                }
                by_name.insert(module.name.clone(), module);
            }
        }
        found.modules = by_name.into_values().collect();
        if found.modules.is_empty() {
            let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            let nothing = format!("no source of a module is in {}", paths.join(", "));
            let why = found.unreadable.into_iter().chain([nothing]).collect::<Vec<_>>().join("; ");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(found)
    }

    fn folder(&mut self, root: &Path) -> usize {
        self.folders.iter().position(|folder| folder == root).unwrap_or_else(|| {
            self.folders.push(root.to_owned());
            self.folders.len() - 1
        })
    }

    /// The folders as a bundle in this place holds them: relative to its own folder if they lie in or below it, so that both
    /// can be moved together.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn folders_for(&self, bundle: &Path) -> io::Result<Vec<String>> {
        let bundle = normalized(bundle)?;
        let beside = bundle.parent().unwrap_or(&bundle);
        let spell = |folder: &PathBuf| {
            let folder = folder.strip_prefix(beside).unwrap_or(folder);
            folder.to_str().map(str::to_owned).ok_or_else(|| refused(folder, "is not UTF-8"))
        };
        self.folders.iter().map(spell).collect()
    }
}

/// A path as `os.path.abspath` gives it: absolute, and without `..`, whatever links there are.
///
/// # Errors
/// The path is empty, or the current folder is not to be had.
pub fn normalized(path: &Path) -> io::Result<PathBuf> {
    let mut normalized = PathBuf::new();
    for part in std::path::absolute(path)?.components() {
        match part {
            Component::ParentDir => _ = normalized.pop(),
            part => normalized.push(part),
        }
    }
    Ok(normalized)
}

/// The extension modules of the folders that were asked for, without the suffixes of their names.
#[derive(Default)]
struct Extensions(BTreeMap<PathBuf, BTreeSet<String>>);

impl Extensions {
    /// Whether importlib takes something else for a source: the package of that name, or the extension module.
    ///
    /// It looks for the package first, then for the extension, which mypyc and Cython put beside the source they compile.
    /// What is of another Python or system counts too: then the source is imported from its .pyc.
    fn hide(&mut self, source: &Path) -> bool {
        let (Some(folder), Some(name)) = (source.parent(), source.file_stem()) else { return false };
        let package = source.with_extension("");
        self.has(folder, &name.to_string_lossy())
            || ["__init__.py", "__init__.pyc"].iter().any(|file| package.join(file).is_file())
            || self.has(&package, "__init__")
    }

    fn has(&mut self, folder: &Path, name: &str) -> bool {
        if !self.0.contains_key(folder) {
            self.0.insert(folder.to_owned(), extensions(folder));
        }
        self.0[folder].contains(name)
    }
}

/// The names of the extension modules in a folder, which end at the first dot: `NAME.so`, `NAME.cpython-313-darwin.so`.
fn extensions(folder: &Path) -> BTreeSet<String> {
    // A folder that is not there has none.
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = files.filter_map(|file| file.file_name().into_string().ok());
    let extensions = files.filter(|file| file.ends_with(".so") || file.ends_with(".pyd"));
    extensions.filter_map(|file| Some(file.split_once('.')?.0.to_owned())).collect()
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} {why}", path.display()))
}

/// The sources below a folder whose paths are of names, in order, and what cannot be read there.
fn walk(folder: &Path, sources: &mut Vec<PathBuf>, unreadable: &mut Vec<String>) {
    let entries = walkdir::WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    let is_wanted = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_str().unwrap_or_default();
        entry.depth() == 0 || !entry.file_type().is_dir() || (is_identifier(name) && name != "__pycache__")
    };
    for entry in entries.filter_entry(is_wanted) {
        match entry {
            Ok(entry) => {
                if entry.file_type().is_file() && entry.path().extension().is_some_and(|extension| extension == "py") {
                    sources.push(entry.path().to_owned());
                }
            }
            Err(error) => {
                // A link that leads nowhere, or in a circle, is no module.
                let path = error.path().unwrap_or(folder).to_owned();
                let leads_nowhere = path.is_symlink() && !path.exists();
                if let Some(error) = error.into_io_error()
                    && !leads_nowhere
                {
                    unreadable.push(named(&path, error).to_string());
                }
            }
        }
    }
}

/// What a source is imported as, if its path is of names.
fn module(root: &Path, folder: usize, source: &Path) -> io::Result<Option<FoundModule>> {
    let inside = source.strip_prefix(root).unwrap_or(source);
    let parts: Option<Vec<&str>> = inside.iter().map(|part| part.to_str()).collect();
    let parts = parts.ok_or_else(|| refused(source, "is not UTF-8"))?;
    let path = parts.join("/");
    let mut names = parts;
    let Some(last) = names.pop().and_then(|last| last.strip_suffix(".py")) else { return Ok(None) };
    let is_package = last == "__init__" && !names.is_empty();
    if !is_package {
        names.push(last);
    }
    if !names.iter().all(|name| is_identifier(name)) {
        return Ok(None);
    }
    Ok(Some(FoundModule { name: names.join("."), is_package, folder, path, source: source.to_owned() }))
}

fn is_identifier(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_numeric())
        && !name.is_empty()
        && name.chars().all(|c| c.is_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_and_has_no_dots() {
        let here = std::env::current_dir().unwrap();
        let cases = [
            ("/a/b", Path::new("/a/b").to_owned()),
            ("/a/./b/../c//", Path::new("/a/c").to_owned()),
            ("/a/../../b", Path::new("/b").to_owned()),
            ("/..", Path::new("/").to_owned()),
            ("..", here.parent().unwrap().to_owned()),
            ("a/../b.py", here.join("b.py")),
            (".", here),
        ];
        for (path, wanted) in cases {
            assert_eq!(normalized(Path::new(path)).unwrap(), wanted, "{path}");
        }
        assert!(normalized(Path::new("")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_looked_into_is_named_and_links_that_lead_nowhere_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("module.py"), "").unwrap();
        for (name, target) in [("nowhere.py", "none.py"), ("circle", "circle"), ("around", ".")] {
            std::os::unix::fs::symlink(target, at(name)).unwrap();
        }
        let found = FoundModules::find(&[folder.path().to_owned()]).unwrap();
        let names: Vec<_> = found.modules.iter().map(|module| &*module.name).collect();
        assert_eq!((names, found.unreadable), (vec!["module"], Vec::new()));
        let (mut sources, mut unreadable) = (Vec::new(), Vec::new());
        walk(&at("gone"), &mut sources, &mut unreadable);
        assert!(sources.is_empty() && unreadable.len() == 1, "{unreadable:?}");
        assert!(unreadable[0].starts_with(at("gone").to_str().unwrap()), "{unreadable:?}");
    }

    #[test]
    fn what_hides_a_source_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let sources = ["plain", "so", "tagged", "pyd", "longer", "both", "part", "pkg/__init__", "pkg/inner"];
        fs::create_dir_all(at("both")).unwrap();
        fs::create_dir_all(at("part")).unwrap();
        fs::create_dir_all(at("pkg")).unwrap();
        let files = ["so.so", "tagged.cpython-313-darwin.so", "pyd.cp313-win_amd64.pyd", "long.so", "plain.so.txt"];
        for name in files.into_iter().chain(["both/__init__.py", "pkg/__init__.abi3.so"]) {
            fs::write(at(name), "").unwrap();
        }
        for source in sources {
            fs::write(at(&format!("{source}.py")), "").unwrap();
        }
        let found = FoundModules::find(&[folder.path().to_owned()]).unwrap();
        let names: Vec<_> = found.modules.iter().map(|module| &*module.name).collect();
        assert_eq!(names, ["both", "longer", "part", "pkg.inner", "plain"]);
        assert!(found.modules[0].is_package);
    }
}
