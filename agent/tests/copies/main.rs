//! Copies of databases with real PostgreSQL: the end of a dead one's log, clones, rewinds, and what
//! is saved of a log before a promotion.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)] // nothing but tests

mod clone;
mod member;
mod rewind;
mod salvage;
mod server;
mod wal;
