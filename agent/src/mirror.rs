//! Mirrors on this node: pulls from an upstream or from the master, and the trees they fill.

pub mod pull;
