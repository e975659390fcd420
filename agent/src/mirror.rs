//! Mirrors on this node: pulls from an upstream or from the master, and the trees they fill.

mod engine;
mod hooks;
mod local;
mod log;
mod mark;
mod module;
mod moving;
mod passwords;
pub mod publish;
pub mod pull;
mod run;
mod scan;
mod step;
mod trace;
pub mod trees;

pub use engine::{MirrorEngine, Settings};
pub use local::{MirrorReports, Reports};
pub use log::Logs;
pub use passwords::Passwords;
