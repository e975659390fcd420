//! Mirrors end to end on their nodes: real rsync daemons as upstreams, and unix sockets in place of
//! mTLS between the agents. No controller is there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod cascade;
mod fleet;
mod further;
mod hooks;
mod readers;
mod rename;
mod restart;
mod trees;
mod troubles;
