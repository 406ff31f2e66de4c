//! The container of a bundle: the initializers of many modules, an index by name, and the table of values that they share.
//!
//! Numbers are little-endian, of 4 bytes where nothing else is said.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `PYB.` |
//! | 1 | version of the bundle: 2 |
//! | 1 | version of the tables of common names and constants: [`crate::common::VERSION`] |
//! | 2 | Python's magic number |
//! | 4 | flags: 1, sources are not looked at; 2 and 4, the level of optimization |
//! | 4 | length of the file |
//! | 4 × 6 | numbers of slots, folders and modules; of names and constants of the table; bytes of the texts |
//! | 4 | length of the table's initializer |
//! | 4 × slots | the index: 0, or a module and 1. A name is looked for from [`common::name_hash`] of it on, modulo the number of slots (a power of two, more than there are modules), up to a 0 |
//! | 8 × folders | offset and length of a path in the texts |
//! | 56 × modules | see [`Module`], in the order of their names: offset and length of the name in the texts; its hash; kind (0, a source; 1, that of a package; 2, an extension module); folder; offset and length of the path in the texts; offset and length of the initializer from the file's start; 4 bytes of 0; 16 bytes, the header of the .pyc. An extension module has neither header nor initializer: a length of 0, and what nobody reads |
//! | | the texts, UTF-8 without zero bytes |
//! | | the table's initializer, then those of the modules, each a container of [`crate::image`] |
//!
//! Opening looks at the first 44 bytes alone. What else is read is checked when it is read, so that a module costs no more
//! however many others there are.

use crate::common;
use crate::error::{Error, ErrorKind, Result};
use crate::image::Image;
use crate::isa::MAX_OPARG;
use crate::pyc::Header;
use crate::verify::{CommonTable, Verified, verify_table, verify_with};

/// The first bytes of a bundle.
pub const MAGIC: [u8; 4] = *b"PYB.";

/// The version of the bundle that is written and read.
pub const VERSION: u8 = 2;

pub(crate) const HEAD_LEN: usize = 44;
pub(crate) const FOLDER_LEN: usize = 8;
pub(crate) const MODULE_LEN: usize = 56;

/// Flag of a bundle: sources are not looked at.
pub(crate) const UNCHECKED: u32 = 1;
/// Where the level of optimization stands in the flags, and all that are known.
pub(crate) const LEVEL_SHIFT: u32 = 1;
const FLAGS: u32 = 0b111;

/// What a module of a bundle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleKind {
    /// A source, whose code the bundle holds.
    Source = 0,
    /// The same, the `__init__.py` of a package.
    Package = 1,
    /// An extension module: the bundle knows where it lies, and no more.
    Extension = 2,
}

impl ModuleKind {
    /// The kind that a number of an entry stands for.
    fn of(number: u32) -> Option<Self> {
        [Self::Source, Self::Package, Self::Extension].into_iter().find(|kind| *kind as u32 == number)
    }
}

/// A bundle that was opened.
#[derive(Debug, Clone, Copy)]
pub struct Bundle<'a> {
    file: &'a [u8],
    magic: u16,
    flags: u32,
    n_slots: usize,
    n_folders: usize,
    n_modules: usize,
    n_names: usize,
    n_consts: usize,
    /// Where the texts begin and end; behind them stands the table.
    texts: (usize, usize),
    table_len: usize,
}

/// A module of a bundle.
#[derive(Debug, Clone, Copy)]
pub struct Module<'a> {
    /// The name by which it is imported.
    pub name: &'a str,
    /// What it is.
    pub kind: ModuleKind,
    /// The folder below which its file lies, as it would stand on `sys.path`: absolute, or relative to the folder of the
    /// bundle.
    pub folder: &'a str,
    /// The path of its file from there, with slashes: of the source, or of the extension module.
    pub path: &'a str,
    /// The header of its .pyc; of an extension module nothing that says anything.
    pub header: [u8; 16],
    /// Its initializer, as [`Image::decode`] takes it; nothing of an extension module.
    pub image: &'a [u8],
    /// Where that stands in the file.
    pub at: usize,
}

#[cold]
fn bad(why: &'static str, at: usize) -> Error {
    Error::at(ErrorKind::BadContainer(why), at)
}

impl<'a> Bundle<'a> {
    /// Opens a bundle that fills `file`.
    ///
    /// # Errors
    /// Another magic or version, numbers that do not fit the file.
    pub fn open(file: &'a [u8]) -> Result<Self> {
        let Some(head) = file.first_chunk::<HEAD_LEN>() else {
            return Err(bad("the bundle ends inside its header", file.len()));
        };
        if head[..4] != MAGIC {
            return Err(bad("the bundle does not begin with PYB.", 0));
        }
        if head[4] != VERSION {
            return Err(bad("the bundle has an unknown version", 4));
        }
        if head[5] != common::VERSION {
            return Err(bad("the tables of common names and constants have an unknown version", 5));
        }
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes were taken"));
        let number = |at: usize| word(at) as usize;
        let flags = word(8);
        if flags & !FLAGS != 0 || flags >> LEVEL_SHIFT > 2 {
            return Err(bad("the bundle has unknown flags", 8));
        }
        if number(12) != file.len() {
            return Err(bad("the bundle has another length than it states", 12));
        }
        let [n_slots, n_folders, n_modules] = [16, 20, 24].map(number);
        let [n_names, n_consts, texts_len, table_len] = [28, 32, 36, 40].map(number);
        if !n_slots.is_power_of_two() || n_slots <= n_modules {
            return Err(bad("the index of the bundle has a wrong number of slots", 16));
        }
        let index = [(n_slots, 4), (n_folders, FOLDER_LEN), (n_modules, MODULE_LEN)];
        let before_texts = index.iter().try_fold(HEAD_LEN, |at, (n, len)| at.checked_add(n.checked_mul(*len)?));
        let texts = before_texts.and_then(|start| Some((start, start.checked_add(texts_len)?)));
        let is_inside = |texts: &(usize, usize)| texts.1.checked_add(table_len).is_some_and(|end| end <= file.len());
        let texts = texts.filter(is_inside).ok_or_else(|| bad("the bundle ends inside its index", file.len()))?;
        if n_names + n_consts > MAX_OPARG as usize {
            return Err(bad("the table of the bundle is too large", 28));
        }
        let magic = u16::from_le_bytes([head[6], head[7]]);
        Ok(Self { file, magic, flags, n_slots, n_folders, n_modules, n_names, n_consts, texts, table_len })
    }

    /// Python's magic number.
    pub fn magic(&self) -> u16 {
        self.magic
    }

    /// Whether its modules are taken without a look at their sources.
    pub fn is_unchecked(&self) -> bool {
        self.flags & UNCHECKED != 0
    }

    /// The level of optimization of its modules.
    pub fn level(&self) -> u8 {
        (self.flags >> LEVEL_SHIFT) as u8
    }

    /// How many modules.
    pub fn n_modules(&self) -> usize {
        self.n_modules
    }

    /// How many names the table has.
    pub fn n_names(&self) -> usize {
        self.n_names
    }

    /// How many constants the table has.
    pub fn n_consts(&self) -> usize {
        self.n_consts
    }

    /// The module of this name, if there is one.
    ///
    /// # Errors
    /// If the index or the module's entry is damaged.
    pub fn find(&self, name: &str) -> Result<Option<Module<'a>>> {
        let hash = common::name_hash(name.as_bytes());
        let mask = self.n_slots - 1;
        let start = hash as usize & mask;
        for step in 0..self.n_slots {
            let at = HEAD_LEN + 4 * ((start + step) & mask);
            let Some(number) = (self.word(at) as usize).checked_sub(1) else { return Ok(None) };
            if number >= self.n_modules {
                return Err(bad("the index of the bundle names a module that is not there", at));
            }
            if self.word(self.entry(number) + 8) == hash {
                let module = self.module(number)?;
                if module.name == name {
                    return Ok(Some(module));
                }
            }
        }
        Ok(None)
    }

    /// The modules, in the order of their names.
    pub fn modules(&self) -> impl Iterator<Item = Result<Module<'a>>> + use<'a> {
        let bundle = *self;
        (0..self.n_modules).map(move |number| bundle.module(number))
    }

    fn module(&self, number: usize) -> Result<Module<'a>> {
        let at = self.entry(number);
        let [name, name_len, _, kind, folder, path, path_len, image, image_len, zero] =
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(|field| self.word(at + 4 * field));
        let Some(kind) = ModuleKind::of(kind) else {
            return Err(bad("a module of the bundle is of an unknown kind", at + 12));
        };
        if zero != 0 {
            return Err(bad("a word that is 0 in every module of a bundle is another", at + 36));
        }
        if folder as usize >= self.n_folders {
            return Err(bad("a module of the bundle lies in a folder that is not there", at + 16));
        }
        let of_folder = HEAD_LEN + 4 * self.n_slots + FOLDER_LEN * folder as usize;
        let (start, len) = (image as usize, image_len as usize);
        let is_inside = start >= self.texts.1 + self.table_len;
        let Some(image) = self.file.get(start..).filter(|_| is_inside).and_then(|rest| rest.get(..len)) else {
            return Err(bad("the initializer of a module lies outside of the bundle", at + 28));
        };
        if (kind == ModuleKind::Extension) != image.is_empty() {
            return Err(bad("a module of the bundle has no initializer, or an extension module has one", at + 32));
        }
        Ok(Module {
            name: self.text(name, name_len, at)?,
            kind,
            folder: self.text(self.word(of_folder), self.word(of_folder + 4), of_folder)?,
            path: self.text(path, path_len, at + 20)?,
            header: self.file[at + 40..at + MODULE_LEN].try_into().expect("16 bytes were taken"),
            image,
            at: start,
        })
    }

    /// Where the entry of a module stands.
    fn entry(&self, number: usize) -> usize {
        HEAD_LEN + 4 * self.n_slots + FOLDER_LEN * self.n_folders + MODULE_LEN * number
    }

    /// A number of the index, which lies inside: `open` says so.
    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.file[at..at + 4].try_into().expect("four bytes were taken"))
    }

    /// A text; what says where it stands stands `at`.
    fn text(&self, start: u32, len: u32, at: usize) -> Result<&'a str> {
        let texts = &self.file[self.texts.0..self.texts.1];
        let text = texts.get(start as usize..).and_then(|rest| rest.get(..len as usize));
        let text = text.ok_or_else(|| bad("a text lies outside of the texts of the bundle", at))?;
        let at = self.texts.0 + start as usize;
        if text.contains(&0) {
            return Err(bad("a text of the bundle holds a zero byte, as no name and no path does", at));
        }
        std::str::from_utf8(text).map_err(|_| bad("a text of the bundle is not UTF-8", at))
    }

    /// The initializer that makes the table.
    ///
    /// # Errors
    /// As [`Image::decode`], and if it is of another Python than the bundle.
    pub fn table_image(&self) -> Result<Image<'a>> {
        self.image(&self.file[self.texts.1..self.texts.1 + self.table_len], self.texts.1)
    }

    /// The table, verified.
    ///
    /// # Errors
    /// As [`Self::table_image`] and [`verify_table`].
    pub fn table(&self) -> Result<CommonTable<'a>> {
        let table = verify_table(self.table_image()?, self.n_names)?;
        self.check_table(table.commons().n_consts())?;
        Ok(table)
    }

    /// Refuses a table that has another number of constants than the bundle states.
    ///
    /// # Errors
    /// [`ErrorKind::BadContainer`].
    pub fn check_table(&self, n_consts: usize) -> Result<()> {
        if n_consts == self.n_consts { Ok(()) } else { Err(bad("the table has another number of constants", 32)) }
    }

    fn image(&self, bytes: &'a [u8], at: usize) -> Result<Image<'a>> {
        let image = Image::decode(bytes).map_err(|error| error.shifted(at))?;
        if image.magic != self.magic {
            return Err(bad("the bundle and an initializer in it have different magic numbers", at));
        }
        Ok(image)
    }

    /// The initializer of a module.
    ///
    /// # Errors
    /// As [`Image::decode`], and if it is of another Python than the bundle, or there is none, of an extension module.
    pub fn module_image(&self, module: &Module<'a>) -> Result<Image<'a>> {
        if module.kind == ModuleKind::Extension {
            return Err(ErrorKind::BadContainer("an extension module has no initializer in the bundle").into());
        }
        self.image(module.image, module.at)
    }

    /// The initializer of a module, verified against the table.
    ///
    /// # Errors
    /// As [`Self::module_image`] and [`verify_with`].
    pub fn verified(&self, module: &Module<'a>, table: &'a CommonTable<'a>) -> Result<Verified<'a>> {
        let inside = |error: Error| {
            let path = if error.path().is_empty() { String::new() } else { format!(" > {}", error.path()) };
            error.inside(format!("module {}{path}", module.name))
        };
        let image = self.module_image(module).map_err(inside)?;
        Header::exact(&module.header).map_err(|error| inside(Error::new(error.kind().clone())))?;
        verify_with(image, Some(table)).map_err(inside)
    }
}
