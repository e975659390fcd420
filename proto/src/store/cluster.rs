//! Records of clusters and specs of their tasks.

mod failover;
mod part;
mod resource;
mod state;
mod task;
