//! Compiles CPython marshal dumps into bytecode that constructs their objects.
//!
//! A `.pyc` file is a header and a *marshal* dump: a private little language whose only program is "build these objects".
//! This crate compiles a dump into a *module initializer*, as proposed in [faster-cpython/ideas issue 566]: a sequence of
//! instructions that builds the objects on a stack, with binary data beside it. Shared objects stay on the stack and are
//! copied.
//!
//! Each stage is a function from one type to the next, and one equation governs them all, `run(compile(heap)) ≅ heap`:
//!
//! ```text
//! bytes ─Input::read→ Source{Heap} ─lower→ Graph ─share→ Shared ─schedule→ Schedule ─emit→ Image ─encode→ bytes
//! bytes ─Initializer::read→ Image ─verify→ Verified ─run→ Heap
//! ```
//!
//! The second way to write a dump is the lazy container ([`lazy`]): [`dehydrate()`] makes it, [`lazy::hydrate()`] gives the heap
//! again, all of it or as much as is needed.
//!
//! # Examples
//!
//! Compile the dump of `(1, 'a', 37.0, (2, 'foo'))`, list the initializer, and run it:
//!
//! ```
//! use rehydrate::{Input, Options, Python};
//!
//! let dump = b")\x04i\x01\0\0\0z\x01ag\0\0\0\0\0\x80B@)\x02i\x02\0\0\0z\x03foo";
//! let Input::Source(source) = Input::read(dump, Some("3.13".parse::<Python>()?))? else { unreachable!() };
//!
//! let initializer = rehydrate::compile(&source, Options::default())?;
//! let file = initializer.encode()?; // what `rehydrate compile` writes
//! assert_eq!(rehydrate::decompile(initializer.clone())?, dump);
//!
//! let verified = rehydrate::verify(initializer.image)?;
//! let (heap, root) = rehydrate::run(&verified);
//! assert_eq!(rehydrate::repr::text(&heap, root), "(1, 'a', 37.0, (2, 'foo'))\n");
//!
//! let listing = rehydrate::disassemble(&verified, &[]).to_string();
//! assert!(listing.contains("MAKE_STRING"));
//! assert_eq!(rehydrate::assemble(&listing)?, file);
//! # Ok::<(), rehydrate::Error>(())
//! ```
//!
//! [faster-cpython/ideas issue 566]: https://github.com/faster-cpython/ideas/issues/566

// The command line uses this crate as any other would.
extern crate self as rehydrate;

pub mod asm;
pub mod bundle;
pub mod bundler;
pub mod caches;
pub mod canonical;
pub mod check;
pub mod cli;
pub mod common;
pub mod compare;
pub mod compile;
mod data;
pub mod dehydrate;
pub mod diff;
pub mod emit;
pub mod error;
pub mod explain;
pub mod file;
pub mod graph;
pub mod heap;
pub mod image;
pub mod isa;
pub mod key;
pub mod lazy;
pub mod listing;
pub mod literal;
pub mod marshal;
pub mod profile;
pub mod pyc;
pub mod python;
pub mod reference;
pub mod repr;
pub mod schedule;
pub mod share;
pub mod snapshot;
pub mod source;
pub mod stats;
pub mod tree;
mod varint;
pub mod verify;
pub mod vm;

pub use asm::assemble;
pub use check::{check, check_lazy};
pub use compare::{Sameness, difference};
pub use compile::{Options, compile, decompile, write_canonical};
pub use dehydrate::{LazyOptions, dehydrate, turn_back};
pub use emit::End;
pub use error::{Error, ErrorKind, Result};
pub use explain::{Explanation, explain};
pub use file::{Initializer, Input, Source};
pub use heap::{Heap, Object, ObjectId};
pub use image::Image;
pub use key::Sharing;
pub use listing::{Listing, disassemble};
pub use profile::{Optimize, Profile};
pub use pyc::Header;
pub use python::Python;
pub use tree::tree;
pub use verify::{Verified, verify};
pub use vm::run;

/// The README's examples are tests too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
