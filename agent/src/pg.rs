//! PostgreSQL on this node: instances brought to the goals that the controller gives them. What is to
//! be whose goal is decided elsewhere.

pub mod books;
pub mod boottime;
pub mod copy;
pub mod divergence;
mod engine;
mod fence;
pub mod guard;
pub mod health;
pub mod instance;
pub mod lease;
mod leave;
pub mod member;
pub mod promise;
pub mod reports;
pub mod retention;
pub mod rewind;
pub mod salvage;
pub mod secrets;
mod tool;
pub mod upstream;
pub mod wal;

pub use engine::{ClusterEngine, Settings, Ways};
pub use reports::Reports;
