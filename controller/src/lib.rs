//! The controller: one loop that writes, sessions that mirror it to agents, services that let people
//! ask. What is decided, lockstep-plan decides.

pub mod authn;
pub mod config;
pub mod driver;
pub mod health;
pub mod identity;
pub mod init;
pub mod offline;
pub mod push;
pub mod server;
pub mod service;
pub mod session;
pub mod store;

/// Of this controller, as agents and people are told it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Abilities by name, told to agents.
pub const FEATURES: [&str; 1] = ["sync"];
