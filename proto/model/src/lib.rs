//! The vocabulary of Lockstep: ids, records, tasks, observations, refusals. Pure data and the rules
//! that one value can check by itself; no I/O, no serialization, no clock.

pub mod id;
pub mod identity;
pub mod label;
pub mod reject;
pub mod time;

pub use id::{
    FleetName, Incarnation, KeyHash, NodeName, Revision, SyncName, TaskId, TokenId, UserName,
};
pub use reject::{Code, Invalid, Reject};
pub use time::{Millis, Timestamp};
