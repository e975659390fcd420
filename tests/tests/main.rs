//! Whole systems on real hosts, as one binary: a module per subject. It holds no test itself.

mod arguments;
mod clusters;
mod docs;
mod faults;
mod guards;
mod hosts;
mod house;
mod identity;
mod join;
mod machines;
mod mirrors;
mod programs;
mod protocol;
mod restore;
mod schedules;
mod sim;
mod store;
mod strangers;
mod syncs;
mod trace;
