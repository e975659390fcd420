//! Who reaches whom: every direction by itself. Packets that are lost come again while their
//! connection lives; what ends a connection is decided by its ends.

use std::collections::BTreeSet;

/// An end of the network: a node by its number, or the controller.
pub type End = usize;
pub const CONTROLLER: End = usize::MAX;

#[derive(Default)]
pub struct Net {
    /// Directions that let nothing through.
    cut: BTreeSet<(End, End)>,
    /// Added to every delay.
    pub slow_ms: u64,
}

impl Net {
    pub fn cut(&mut self, from: End, to: End) {
        self.cut.insert((from, to));
    }

    pub fn mend(&mut self, from: End, to: End) {
        self.cut.remove(&(from, to));
    }

    pub fn mend_all(&mut self) {
        self.cut.clear();
        self.slow_ms = 0;
    }

    pub fn carries(&self, from: End, to: End) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Both ways, as every connection needs.
    pub fn connects(&self, a: End, b: End) -> bool {
        self.carries(a, b) && self.carries(b, a)
    }
}
