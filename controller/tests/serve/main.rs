//! A whole controller, driven over real TLS by scripted agents and clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // all of it is test code

mod agent;
mod calls;
mod certificates;
mod clusters;
mod durable;
mod enroll;
mod fleet;
mod mirror_changes;
mod mirrors;
mod policy;
mod pushes;
mod stream;
