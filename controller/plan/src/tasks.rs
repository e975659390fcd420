//! Holds what slots should hold against the newest task of each.

use crate::draft::Draft;
use crate::syncs::Desired;

pub(crate) fn reconcile(_draft: &mut Draft<'_>, _desired: &Desired) {}
