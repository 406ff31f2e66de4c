//! Stands for a crate that ships compiled Python modules. What there is to see is its test, `tests/sequence.rs`.
