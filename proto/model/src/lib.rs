//! The vocabulary of Lockstep: ids, records, tasks, observations, refusals. Pure data and the rules
//! that one value can check by itself; no I/O, no serialization, no clock.

pub mod address;
pub mod cluster;
pub mod id;
pub mod identity;
pub mod label;
pub mod mirror;
pub mod node;
pub mod observation;
pub mod past;
pub mod path;
pub mod rate;
pub mod reason;
pub mod record;
pub mod reject;
pub mod removal;
pub mod request;
pub mod schedule;
pub mod setting;
pub mod sync;
pub mod task;
pub mod time;
mod words;

pub use address::HostPort;
pub use id::{
    ClusterName, FleetName, Incarnation, KeyHash, LifeId, MirrorName, NodeName, Revision, SyncName,
    TaskId, TokenId, UserName,
};
pub use reject::{Code, Invalid, Reject};
pub use time::{Millis, Timestamp};
