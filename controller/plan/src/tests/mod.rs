//! Whole stories and laws; tables of one module's cases stand beside it.

mod cluster_requests;
mod clusters;
mod depth;
pub(crate) mod dsl;
mod laws;
mod leases;
mod mirror_laws;
mod mirrors;
mod policy;
mod recovery;
mod refusals;
mod stories;
