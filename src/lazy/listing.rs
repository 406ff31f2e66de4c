//! Lists a lazy container.

use super::Container;

/// A listing.
pub struct Listing<'c> {
    container: &'c Container<'c>,
}
impl<'c> Listing<'c> {
    /// x
    pub fn new(container: &'c Container<'c>) -> Self { Self { container } }
}
