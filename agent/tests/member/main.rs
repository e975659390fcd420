//! Members of a cluster with the PostgreSQL that is installed, driven by goals: every node is an engine,
//! the controller is what a test says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)] // nothing but tests

mod bed;
mod crashes;
mod ends;
mod leases;
mod looks;
mod moves;
