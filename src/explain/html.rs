//! A page.

use super::Explanation;

impl Explanation {
    /// A page.
    pub fn html(&self) -> String {
        String::new()
    }
}
