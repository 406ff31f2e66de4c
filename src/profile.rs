//! Which instructions the compiler may use, and what they cost.

use crate::python::Python;

/// Which instructions are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Only those that faster-cpython/ideas issue 566 names, or that stock CPython has. Bytecode keeps its caches.
    Core,
    /// Also our own, where they pay. Bytecode loses its caches.
    #[default]
    Compact,
    /// Those that are executed fastest inside CPython, with what a loader would else have to find out. Bytecode keeps its
    /// caches, so that it is copied as it stands.
    Load,
}

/// What decisions are to be good at, where the profile leaves a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Optimize {
    /// Few bytes.
    Size,
    /// Little time.
    #[default]
    Speed,
}

impl Profile {
    /// Whether instructions of our own may be used.
    pub fn has_own_instructions(self) -> bool {
        self != Self::Core
    }

    /// Whether str are made in batches, names with their hashes, what code objects are made of stands in slots, and bytecode as
    /// CPython holds it.
    pub fn is_for_loaders(self) -> bool {
        self == Self::Load
    }

    /// Whether values are made of what stands in slots, if they can: with the instructions that code objects of 3.11 on have.
    pub(crate) fn uses_slots(self, python: Python) -> bool {
        self.is_for_loaders() && python.first_traceable(&[]).is_some()
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
    pub(crate) fn copy_cost(self, python: Python) -> u64 {
        if self.has_own_instructions() && !self.uses_slots(python) { 1 } else { 2 }
    }

    /// Slots that are referred to without an additional byte: by a varint, in which 0 is taken, or by an oparg. A few are
    /// left for values that become ready late.
    pub(crate) fn n_near_slots(self) -> usize {
        if self.has_own_instructions() { 126 } else { 250 }
    }

    /// Uses from which a value is hoisted that one instruction could load: its slot is referred to by one byte less. For
    /// compact, of 4, 12, 40 and never, 12 compresses best by zlib, and is as short as 4 without.
    pub(crate) fn hoists_loads_from(self) -> u32 {
        match self {
            Self::Core => u32::MAX,
            Self::Compact => 12,
            Self::Load => 2,
        }
    }
}
