//! The controller: the store, and the loop that is the only writer of it.

pub mod store;
