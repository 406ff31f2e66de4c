//! Which instructions the compiler may use, and what they cost.

/// Which instructions are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Only those that faster-cpython/ideas issue 566 names, or that stock CPython has. Bytecode keeps its caches.
    Core,
    /// Also our own, where they pay. Bytecode loses its caches.
    #[default]
    Compact,
}

impl Profile {
    /// Whether instructions of our own may be used.
    pub fn has_own_instructions(self) -> bool {
        self == Self::Compact
    }

    /// Whether bytecode is stored without its inline caches, if nothing else is said.
    pub fn strips_caches(self) -> bool {
        self == Self::Compact
    }

    /// Whether a value may wait where it is first used. With names made in batches that is no shorter than a slot.
    pub(crate) fn keeps_values(self) -> bool {
        !self.has_own_instructions()
    }

    /// Bytes that it takes, most of the time, to refer to a value on the stack.
    pub(crate) fn copy_cost(self) -> u64 {
        if self.has_own_instructions() { 1 } else { 2 }
    }

    /// Slots that are referred to without an additional byte: by a varint, in which 0 is taken, or by an oparg. A few are
    /// left for values that become ready late.
    pub(crate) fn n_near_slots(self) -> usize {
        if self.has_own_instructions() { 126 } else { 230 }
    }

    /// Uses from which a value is hoisted that one instruction could load: its slot is referred to by one byte less.
    pub(crate) fn hoists_loads_from(self) -> u32 {
        if self.has_own_instructions() { 4 } else { u32::MAX }
    }
}
