//! One pull of a mirror, as far as it is pure: what rsync is told in each step, what its output and
//! its end mean, and what may be removed. Nothing here starts a process or reads a disk.
//!
//! Where removals come after the content, one run brings everything, removes nothing, and tells how
//! much is left to remove, at no further cost. Only then, and only if that is within the limit, a
//! second run removes it. Where they come before or meanwhile, a dry run counts them first.

pub mod argv;
pub mod course;
pub mod ending;
pub mod output;
