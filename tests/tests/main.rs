//! Whole systems on real hosts, as one binary: a module per subject. It holds no test itself.

mod arguments;
mod docs;
mod faults;
mod guards;
mod hosts;
mod house;
mod identity;
mod join;
mod mirrors;
mod restore;
mod schedules;
mod store;
mod strangers;
mod syncs;
mod trace;
