//! The wire: generated code of `lockstep.v1` (API and agent stream) and `lockstep.store.v1` (on
//! disk), conversions from and to the model, and the one mapping of refusals to gRPC status.
//! Wire types stop here: nothing behind the conversions sees them.

pub mod convert;
pub mod status;

/// Generated code; documented in the .proto files.
pub mod v1 {
    #![allow(clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::disallowed_methods)]
    tonic::include_proto!("lockstep.v1");
    include!(concat!(env!("OUT_DIR"), "/lockstep.v1.serde.rs"));
}

/// What agents keep on disk.
pub mod agent {
    pub mod v1 {
        #![allow(clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::disallowed_methods)]
        tonic::include_proto!("lockstep.agent.v1");
    }
}

/// Generated code of what is on disk and in backups; documented in the .proto file.
pub mod store_v1 {
    #![allow(clippy::all, clippy::pedantic, clippy::unwrap_used, clippy::disallowed_methods)]
    tonic::include_proto!("lockstep.store.v1");
    include!(concat!(env!("OUT_DIR"), "/lockstep.store.v1.serde.rs"));
}

mod secrecy;
mod store;

#[cfg(test)]
mod arbitrary;

/// File descriptors of everything here, for reflection and for the test that holds the
/// authorization table against the methods.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
