//! The agent: does on its node what the controller's tasks say, and goes on doing it when the
//! controller is away. `main.rs` is only the command line.

pub mod backoff;
pub mod classic;
pub mod config;
pub mod cursor;
pub mod data;
pub mod deliver;
pub mod dispatch;
pub mod guard;
pub mod health;
pub mod hook;
pub mod host;
pub mod identity;
pub mod index;
pub mod inotify;
pub mod join;
pub mod journal;
pub mod ledger;
pub mod link;
pub mod links;
pub mod lock;
pub mod lsyncd;
mod metrics;
pub mod mirror;
pub mod moves;
pub mod pg;
pub mod port;
pub mod rsh;
pub mod rsync;
pub mod run;
pub mod runner;
pub mod secrets;
pub mod status;
pub mod sync;
pub mod tools;
pub mod verify;

#[cfg(test)]
mod scripted;
