//! The agent: does on its node what the controller's tasks say, and goes on doing it when the
//! controller is away. `main.rs` is only the command line.

pub mod cursor;
pub mod deliver;
pub mod dispatch;
pub mod host;
pub mod journal;
pub mod lsyncd;
pub mod rsync;
