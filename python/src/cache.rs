//! Where the initializer of a module is kept, and whether it is current.
//!
//! Both follow `Lib/importlib/_bootstrap_external.py`: `cache_from_source`, `path_stats`, `_classify_pyc`.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// How caches of sources are named in this process, at this moment: `sys` may be changed at any time.
pub(crate) struct Naming<'py> {
    /// `cpython-313`
    tag: Bound<'py, PyString>,
    optimize: u8,
    prefix: Option<Bound<'py, PyString>>,
}

impl<'py> Naming<'py> {
    /// `None` if there are no caches: `sys.implementation.cache_tag` is None.
    pub(crate) fn of(sys: &Bound<'py, PyDict>) -> PyResult<Option<Self>> {
        let py = sys.py();
        let Some(implementation) = sys.get_item(intern!(py, "implementation"))? else { return Ok(None) };
        let Ok(tag) = implementation.getattr(intern!(py, "cache_tag"))?.cast_into::<PyString>() else {
            return Ok(None);
        };
        let Some(flags) = sys.get_item(intern!(py, "flags"))? else { return Ok(None) };
        let optimize = flags.getattr(intern!(py, "optimize"))?.extract()?;
        let prefix = sys.get_item(intern!(py, "pycache_prefix"))?.filter(|prefix| !prefix.is_none());
        let prefix = prefix.map(|prefix| prefix.cast_into::<PyString>()).transpose()?;
        Ok(Some(Self { tag, optimize, prefix }))
    }

    /// The path of the cache of a source, without its last extension: `a/b.py` gives `a/__pycache__/b.cpython-313.`.
    /// `None` for a path that is not absolute, or not UTF-8, and wherever importlib's own would not be absolute.
    pub(crate) fn stem(&self, source: &str) -> Option<String> {
        let (head, tail) = source.rsplit_once('/')?;
        // Of a source in the root importlib makes a relative path.
        if !head.starts_with('/') {
            return None;
        }
        // Of `.py` the part behind the dot is the name.
        let base = match tail.rsplit_once('.') {
            Some(("", rest)) => return self.stem_of(head, &format!("{rest}.")),
            Some((base, _)) => base,
            None => return self.stem_of(head, tail),
        };
        self.stem_of(head, &format!("{base}."))
    }

    fn stem_of(&self, head: &str, name: &str) -> Option<String> {
        let tag = self.tag.to_str().ok()?;
        let mut stem = String::with_capacity(head.len() + name.len() + tag.len() + 32);
        match &self.prefix {
            Some(prefix) => {
                let head = head.trim_matches('/');
                let prefix = prefix.to_str().ok().filter(|prefix| !prefix.is_empty())?;
                stem.push_str(prefix.trim_end_matches('/'));
                if !head.is_empty() {
                    stem.push('/');
                    stem.push_str(head);
                }
                stem.push('/');
            }
            None => {
                stem.push_str(head.trim_end_matches('/'));
                stem.push_str("/__pycache__/");
            }
        }
        stem.push_str(name);
        stem.push_str(tag);
        if self.optimize > 0 {
            stem.push_str(".opt-");
            stem.push_str(&self.optimize.to_string());
        }
        stem.push('.');
        Some(stem)
    }
}

/// `os.stat_result.st_mtime`, rounded as there.
///
/// Source: CPython `Modules/posixmodule.c`, `fill_time`.
#[cfg(unix)]
pub(crate) fn mtime(metadata: &Metadata) -> f64 {
    use std::os::unix::fs::MetadataExt;
    metadata.mtime() as f64 + 1e-9 * metadata.mtime_nsec() as f64
}

#[cfg(not(unix))]
pub(crate) fn mtime(metadata: &Metadata) -> f64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(-1.0, |since| since.as_secs() as f64 + 1e-9 * f64::from(since.subsec_nanos()))
}

/// The header of a cache.
pub(crate) struct Header {
    pub(crate) magic: [u8; 4],
    pub(crate) flags: u32,
    /// Of a timestamp: the source's time and size. Of a hash: the hash.
    pub(crate) rest: [u8; 8],
}

impl Header {
    /// Bytes of it.
    pub(crate) const LEN: usize = 16;

    pub(crate) fn read(cache: &[u8]) -> Option<Self> {
        let header: &[u8; Self::LEN] = cache.first_chunk()?;
        let (magic, rest) = header.split_first_chunk::<4>()?;
        let (flags, rest) = rest.split_first_chunk::<4>()?;
        Some(Self { magic: *magic, flags: u32::from_le_bytes(*flags), rest: rest.try_into().ok()? })
    }

    /// Whether a cache that goes by the time was made of this source.
    pub(crate) fn matches(&self, source: &Metadata) -> bool {
        let seconds = mtime(source) as i64;
        let (seconds, size) = (seconds as u32, source.len() as u32);
        self.rest[..4] == seconds.to_le_bytes() && self.rest[4..] == size.to_le_bytes()
    }
}

/// Reads a file into `buffer`, which is made larger as needed and never smaller; gives the length.
pub(crate) fn read(path: &Path, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut file = File::open(path)?;
    // One more than the file has, so that one read finds its end.
    let wanted = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).saturating_add(1);
    grow(buffer, wanted)?;
    let mut len = 0;
    loop {
        match file.read(&mut buffer[len..]) {
            Ok(0) => return Ok(len),
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if len == buffer.len() {
            grow(buffer, len.saturating_mul(2))?;
        } else if len + 1 >= wanted {
            return Ok(len);
        }
    }
}

/// Makes a buffer of at least `len` bytes, if there is memory.
fn grow(buffer: &mut Vec<u8>, len: usize) -> io::Result<()> {
    let more = len.saturating_sub(buffer.len());
    buffer.try_reserve(more)?;
    buffer.resize(buffer.len() + more, 0);
    Ok(())
}

/// Whether a file begins with these bytes.
pub(crate) fn begins_with(path: &Path, bytes: &[u8]) -> bool {
    let mut first = vec![0; bytes.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok_and(|()| first == bytes)
}
