//! The little library under the whole-system tests: real hosts (network namespaces), a network that
//! can be hurt, waits with a bound, and the binaries under test. It knows nothing of how Lockstep
//! works inside.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use lockstep_tests::{cmd, Net, cmd, until};
//! let net = Net::new()?;
//! let (a, b) = (net.host("a")?, net.host("b")?);
//! let mut server = b.spawn(cmd("rsync").args(["--daemon", "--no-detach"]))?;
//! net.cut(&a, &b)?; // silence both ways, also for connections that exist
//! net.heal(&a, &b)?; // and they go on
//! server.kill()?;
//! b.power_off()?; // every process of the host is gone, and its kernel state
//! # Ok(()) }
//! ```
//!
//! A world needs root, `ip`, `bridge` and `tc` (iproute2). It leaves nothing in the root namespace
//! at any time, and all of it ends with the last handle to it, also on a panic.
//! `LOCKSTEP_TEST_KEEP=1` keeps the directories; `nsenter -n -t PID` looks at the host of a process.

pub mod address;
pub mod bins;
pub mod chance;
pub mod clock;
pub mod clusters;
pub mod copies;
pub mod disk;
pub mod fleet;
pub mod host;
pub mod http;
pub mod impair;
pub mod machine;
pub mod mirrors;
pub mod net;
pub mod netns;
pub mod proc;
pub mod program;
pub mod relay;
pub mod remains;
pub mod scratch;
pub mod sim;
pub mod sql;
pub mod sshd;
pub mod switch;
pub mod timeline;
pub mod tree;
pub mod upstream;
pub mod wait;
pub mod witness;
pub mod writer;

pub use bins::Bins;
pub use disk::Disk;
pub use fleet::{Flags, Fleet};
pub use host::Host;
pub use impair::Impair;
pub use net::Net;
pub use proc::{Output, Proc, cmd};
pub use upstream::Upstream;
pub use wait::{try_until, until};
pub use writer::{Writer, Written};
