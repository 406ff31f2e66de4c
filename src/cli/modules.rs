//! Finds the modules that paths name: a package, a folder of modules, a source, an extension module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use rehydrate::bundle::ModuleKind;
use rehydrate::bundler::Extension;

/// A source or an extension module, and what it is imported as.
#[derive(Debug, Clone)]
pub struct FoundModule {
    /// The name by which it is imported.
    pub name: String,
    /// What it is.
    pub kind: ModuleKind,
    /// The number of the folder below which it lies.
    pub folder: usize,
    /// Its path from there, with slashes.
    pub path: String,
    /// The file.
    pub file: PathBuf,
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
    /// packages; a source or an extension module is a module. Its name begins with the packages in which it lies.
    /// A file is left out if importlib takes something else of its folder by that name, or may take an extension module of
    /// another one.
    ///
    /// # Errors
    /// A path that is not there, that is none of these, or is not UTF-8; a module that is found twice; no source at all.
    pub fn find(paths: &[PathBuf]) -> io::Result<Self> {
        let mut found = Self::default();
        let mut by_name: BTreeMap<String, FoundModule> = BTreeMap::new();
        let mut unclear = BTreeSet::new();
        let mut counts = ExtensionCounts::default();
        for path in paths {
            let path = normalized(path)?;
            let metadata = fs::metadata(&path).map_err(|error| named(&path, error))?;
            let is_module = metadata.is_file() && is_module(&path);
            let is_package = metadata.is_dir() && path.join("__init__.py").is_file();
            if !metadata.is_dir() && !is_module {
                return Err(refused(&path, "is neither a folder nor a .py, nor an extension module"));
            }
            let start = if is_package || is_module { path.parent().unwrap_or(&path) } else { &path };
            let mut root = start;
            while root.join("__init__.py").is_file()
                && let Some(parent) = root.parent()
            {
                root = parent;
            }
            let mut files = Vec::new();
            if is_module {
                files.push(path.clone())
            } else {
                walk(&path, &mut files, &mut found.unreadable);
            }
            let folder = found.folder(root);
            for file in files {
                if counts.hide(&file) {
                    continue;
                }
                let Some(module) = module(root, folder, &file)? else { continue };
                match by_name.get(&module.name) {
                    Some(other) if other.file == file => {}
                    // Which of the two it is depends on `sys.path`, and on the interpreter.
                    Some(other) if [other.kind, module.kind].contains(&ModuleKind::Extension) => {
                        unclear.insert(module.name);
                    }
                    Some(other) => {
                        let why = format!("is module {}, and so is {}", module.name, other.file.display());
                        return Err(refused(&file, &why));
                    }
                    None => _ = by_name.insert(module.name.clone(), module),
                }
            }
        }
        by_name.retain(|name, _| !unclear.contains(name));
        found.modules = by_name.into_values().collect();
        if found.modules.iter().all(|module| module.kind == ModuleKind::Extension) {
            let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            let nothing = format!("no source of a module is in {}", paths.join(", "));
            let why = found.unreadable.into_iter().chain([nothing]).collect::<Vec<_>>().join("; ");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        Ok(found)
    }

    /// The modules that have a source, and the extension modules.
    pub fn apart(&self) -> (Vec<&FoundModule>, Vec<Extension>) {
        let (extensions, sources): (Vec<_>, Vec<_>) =
            self.modules.iter().partition(|module| module.kind == ModuleKind::Extension);
        let extensions = extensions.into_iter().map(|module| Extension {
            name: module.name.clone(),
            folder: module.folder,
            path: module.path.clone(),
        });
        (sources, extensions.collect())
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

/// How many extension modules there are of each name in the folders that were asked for.
#[derive(Default)]
struct ExtensionCounts(BTreeMap<PathBuf, BTreeMap<String, usize>>);

impl ExtensionCounts {
    /// Whether importlib may take something else for a file: the package of that name, or another extension module.
    ///
    /// It looks for the package first, then for the extension, which mypyc and Cython put beside the source they compile.
    /// What is of another Python or system counts too: then the source is imported from its .pyc, and which of several
    /// extensions it is, only the interpreter knows.
    fn hide(&mut self, file: &Path) -> bool {
        let (Some(folder), Some((name, is_extension))) = (file.parent(), named_module(file)) else { return false };
        let package = folder.join(name);
        self.count(folder, name) > usize::from(is_extension)
            || ["__init__.py", "__init__.pyc"].iter().any(|file| package.join(file).is_file())
            || self.count(&package, "__init__") > 0
    }

    fn count(&mut self, folder: &Path, name: &str) -> usize {
        if !self.0.contains_key(folder) {
            self.0.insert(folder.to_owned(), count_extensions(folder));
        }
        self.0[folder].get(name).copied().unwrap_or_default()
    }
}

/// How many extension modules there are of each name in a folder.
fn count_extensions(folder: &Path) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    // A folder that is not there has none.
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        if let Some((name, true)) = named_module(Path::new(&file.file_name())) {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// The name that the file of a module has, and whether it is an extension module. Of one of these the name ends at the first
/// dot: `NAME.so`, `NAME.cpython-313-darwin.so`.
fn named_module(file: &Path) -> Option<(&str, bool)> {
    let file = file.file_name()?.to_str()?;
    match file.strip_suffix(".py") {
        Some(name) => Some((name, false)),
        None if file.ends_with(".so") || file.ends_with(".pyd") => Some((file.split_once('.')?.0, true)),
        None => None,
    }
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{} {why}", path.display()))
}

/// Whether a file is a source or an extension module. A source that is not UTF-8 is refused later, where it is named.
fn is_module(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "py") || named_module(file).is_some()
}

/// The files of modules below a folder whose paths are of names, in order, and what cannot be read there.
fn walk(folder: &Path, files: &mut Vec<PathBuf>, unreadable: &mut Vec<String>) {
    let entries = walkdir::WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    let is_wanted = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_str().unwrap_or_default();
        entry.depth() == 0 || !entry.file_type().is_dir() || (is_identifier(name) && name != "__pycache__")
    };
    for entry in entries.filter_entry(is_wanted) {
        match entry {
            Ok(entry) => {
                if entry.file_type().is_file() && is_module(entry.path()) {
                    files.push(entry.path().to_owned());
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

/// What a file is imported as, if its path is of names. An extension module that is a package is left to importlib.
fn module(root: &Path, folder: usize, file: &Path) -> io::Result<Option<FoundModule>> {
    let inside = file.strip_prefix(root).unwrap_or(file);
    let parts: Option<Vec<&str>> = inside.iter().map(|part| part.to_str()).collect();
    let mut names = parts.ok_or_else(|| refused(file, "is not UTF-8"))?;
    let path = names.join("/");
    names.pop();
    let is_inside = !names.is_empty();
    let kind = match named_module(file) {
        Some(("__init__", false)) if is_inside => ModuleKind::Package,
        Some(("__init__", true)) | None => return Ok(None),
        Some((name, is_extension)) => {
            names.push(name);
            if is_extension { ModuleKind::Extension } else { ModuleKind::Source }
        }
    };
    if !names.iter().all(|name| is_identifier(name)) {
        return Ok(None);
    }
    Ok(Some(FoundModule { name: names.join("."), kind, folder, path, file: file.to_owned() }))
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
        let several = ["two.so", "two.abi3.so", "both.so", "lib-dashed.so"];
        for name in files.into_iter().chain(several).chain(["both/__init__.py", "pkg/__init__.abi3.so"]) {
            fs::write(at(name), "").unwrap();
        }
        for source in sources {
            fs::write(at(&format!("{source}.py")), "").unwrap();
        }
        let found = FoundModules::find(&[folder.path().to_owned()]).unwrap();
        let (sources, extensions) = found.apart();
        let names: Vec<_> = sources.iter().map(|module| &*module.name).collect();
        assert_eq!(names, ["both", "longer", "part", "pkg.inner", "plain"]);
        assert_eq!(sources[0].kind, ModuleKind::Package);
        // Extension modules of two folders, or one and a source, are left to importlib; two sources are refused.
        let (one, other) = (at("part"), at("both"));
        for file in [one.join("same.so"), other.join("same.abi3.so"), one.join("mixed.py"), other.join("mixed.so")] {
            fs::write(file, "").unwrap();
        }
        fs::remove_file(at("both/__init__.py")).unwrap();
        fs::write(one.join("own.py"), "").unwrap();
        let apart = FoundModules::find(&[one.clone(), other.clone()]).unwrap();
        assert_eq!(apart.modules.iter().map(|module| &*module.name).collect::<Vec<_>>(), ["own"]);
        fs::write(other.join("own.py"), "").unwrap();
        let why = FoundModules::find(&[one, other]).unwrap_err().to_string();
        assert!(why.contains("is module own, and so is"), "{why}");
        let names: Vec<_> = extensions.iter().map(|extension| (&*extension.name, &*extension.path)).collect();
        let wanted = ["long.so", "pyd.cp313-win_amd64.pyd", "so.so", "tagged.cpython-313-darwin.so"];
        assert_eq!(names, ["long", "pyd", "so", "tagged"].into_iter().zip(wanted).collect::<Vec<_>>());
    }
}
