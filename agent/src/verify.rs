//! Drift: compares a target's copy with its source, by sums of metadata that both agents compute
//! for themselves; only what differs is talked about. It finds and never changes anything.
//!
//! A change on its way looks like drift. So whatever differs is looked at once more after the
//! target has caught up, and counts only when it still differs and the source did not change.

mod below;
mod compare;
mod content;
pub mod entry;
pub mod finding;
mod peer;
mod serve;
mod view;
mod walk;
pub mod wire;

pub use below::Filter;
pub use compare::{Compare, CompareError, Of, Progress, compare};
pub use content::RATE_MIN;
pub use entry::Keep;
pub use finding::{FINDINGS_MAX, Finding, Findings};
pub use serve::{Served, serve};
pub use view::Side;

#[cfg(test)]
mod tests;
