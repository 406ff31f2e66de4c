//! The sequences of our modules are those that were reviewed.
//!
//! When one changes, with the module or with rehydrate, `cargo insta review` shows how, and accepts it.

use rehydrate::{Options, Profile, snapshot};

/// The module that this crate ships.
const GREETING: &[u8] = include_bytes!("../../greeting.cpython-313.pyc");

#[test]
fn the_sequence_of_greeting_is_the_one_reviewed() -> rehydrate::Result<()> {
    insta::assert_snapshot!("greeting", snapshot::text(GREETING, None, Options::default())?);
    Ok(())
}

#[test]
fn stock_instructions_give_the_sequence_reviewed() -> rehydrate::Result<()> {
    let options = Options { profile: Profile::Core, ..Options::default() };
    insta::assert_snapshot!("greeting_core", snapshot::text(GREETING, None, options)?);
    Ok(())
}
