//! The link to a controller: dials, says who we are, and keeps one stream; again and again, for as
//! long as the agent lives. It may not stop work: what runs goes on without it.

mod clusters;
mod controllers;
pub mod expulsion;
mod output;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockstep_model::node::{NodeAddress, NodeReport};
use lockstep_model::sync::SyncReport;
use lockstep_model::{HostPort, SyncName};
use lockstep_transport::dial::{self, DialError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::identity::{JOIN_AGAIN, Keeper};
use crate::ledger::Memory;
use crate::mirror::{Logs, MirrorReports, Passwords};
use crate::runner::Runner;

pub use clusters::Clusters;
pub use controllers::Controllers;
use expulsion::Expulsion;
use session::End;

/// What the controller may plan for us: the kinds of tasks, and abilities of the stream.
pub const FEATURES: [&str; 5] =
    ["sync-source", "sync-target", "sync-release", "sync-resync", "tail-output"];
/// The file of learnt controllers in the data directory.
pub const CONTROLLERS: &str = "controllers";
/// An expelled agent asks again this seldom; somebody may have thought better of it.
const EXPELLED_RETRY: Duration = Duration::from_secs(300);
/// Another process has our identity and took the stream: we come back, and not at once.
const REPLACED_RETRY: Duration = Duration::from_secs(60);
/// A stream that lasted this long was a success.
const GOOD_STREAM: Duration = Duration::from_secs(10);
/// Longest wait of an agent that has a part in a cluster: elections wait for it.
const MEMBER_WAIT: Duration = Duration::from_secs(1);

/// The latest report of each sync that this node has a part in.
pub type SyncReports = BTreeMap<SyncName, SyncReport>;

/// How the link is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Status {
    Connecting,
    Connected { controller: HostPort },
    Away { why: String },
    Expelled { why: String },
}

/// What the link tells controllers, as it changes.
#[derive(Clone)]
pub struct Sources {
    pub runner: Runner,
    pub report: watch::Receiver<NodeReport>,
    pub syncs: watch::Receiver<SyncReports>,
    pub mirrors: watch::Receiver<MirrorReports>,
    /// Taken off offers.
    pub passwords: Passwords,
    pub clusters: Clusters,
    /// What runs of mirrors wrote.
    pub logs: Logs,
    /// Of our data port; a change begins a new stream.
    pub addresses: watch::Receiver<Vec<NodeAddress>>,
}

pub struct Link {
    keeper: Keeper,
    sources: Sources,
    controllers: Arc<Mutex<Controllers>>,
    memory: Arc<Mutex<Memory>>,
    expulsion: Mutex<Expulsion>,
    /// Random, new at each start.
    instance: u64,
    status: watch::Sender<Status>,
}

impl Link {
    /// `instance` is random. Learnt controllers are kept in `data_dir`. Blocks on the disk.
    pub fn new(
        keeper: Keeper,
        sources: Sources,
        memory: Memory,
        controllers: Vec<HostPort>,
        data_dir: &Path,
        instance: u64,
    ) -> Self {
        let controllers = Controllers::open(data_dir.join(CONTROLLERS), controllers);
        let expulsion = Expulsion::open(data_dir.join(expulsion::FILE));
        let status = match expulsion.why() {
            Some(why) => Status::Expelled { why: why.to_owned() },
            None => Status::Connecting,
        };
        Self {
            keeper,
            sources,
            controllers: Arc::new(Mutex::new(controllers)),
            memory: Arc::new(Mutex::new(memory)),
            expulsion: Mutex::new(expulsion),
            instance,
            status: watch::Sender::new(status),
        }
    }

    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// The controllers to call at any time, best first.
    pub fn controllers(&self) -> impl Fn() -> Vec<HostPort> + use<> {
        let controllers = self.controllers.clone();
        move || controllers.lock().unwrap_or_else(PoisonError::into_inner).list()
    }

    /// Ends when `shutdown` is cancelled.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(self.instance);
        let mut outage = Outage::default();
        let mut first = true;
        while !shutdown.is_cancelled() {
            // After a mass loss nobody comes at once, not even the first time.
            let mut wait = match (first, self.sources.clusters.reports.borrow().is_empty()) {
                (true, _) => Duration::ZERO,
                (false, true) => backoff.wait(),
                (false, false) => backoff.wait_at_most(MEMBER_WAIT),
            };
            first = false;
            for controller in self.controllers()() {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sleep(wait) => {}
                }
                let began = Instant::now();
                let end = self.once(&controller, &shutdown).await;
                wait = Duration::ZERO;
                self.tell(&controller, &end, &mut outage);
                match end {
                    End::Shutdown => return,
                    End::AddressesChanged => {
                        first = true;
                        break;
                    }
                    End::Expelled(_) => wait = backoff.spread(EXPELLED_RETRY),
                    End::Replaced(_) => wait = backoff.spread(REPLACED_RETRY),
                    End::Dial(_) | End::Refused(_) => continue,
                    End::Lost(_) if began.elapsed() < GOOD_STREAM => continue,
                    End::Lost(_) => backoff.reset(),
                }
                // Back to the best one after the pause.
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sleep(wait) => break,
                }
            }
        }
    }

    /// One stream from the dialing to its end.
    async fn once(&self, controller: &HostPort, shutdown: &CancellationToken) -> End {
        let caller = self.keeper.caller();
        let dialed = tokio::select! {
            () = shutdown.cancelled() => return End::Shutdown,
            dialed = dial::connect(std::slice::from_ref(controller), &caller) => dialed,
        };
        match dialed {
            Ok(channel) => session::converse(self, controller, channel, shutdown).await,
            Err(error) => End::Dial(error),
        }
    }

    fn tell(&self, controller: &HostPort, end: &End, outage: &mut Outage) {
        if matches!(*self.status.borrow(), Status::Connected { .. }) {
            outage.told.clear();
        }
        let why = match end {
            End::Shutdown | End::AddressesChanged => return,
            End::Expelled(why) | End::Replaced(why) | End::Refused(why) | End::Lost(why) => {
                why.clone()
            }
            End::Dial(error) => error.to_string(),
        };
        if outage.is_news(&why) {
            let why = why.as_str();
            match end {
                End::Expelled(_) => {
                    tracing::error!(%controller, why, "this node was expelled; {JOIN_AGAIN}");
                }
                End::Replaced(_) => {
                    tracing::error!(%controller, why, "another agent has this node's identity; stop one of the two");
                }
                End::Refused(_) => tracing::error!(%controller, why, "the controller refuses us"),
                End::Dial(DialError::Refused { .. }) => {
                    tracing::error!(%controller, why, "the controller refuses us; {JOIN_AGAIN}");
                }
                _ => tracing::warn!(%controller, why, "no controller; work goes on without it"),
            }
        }
        let mut expulsion = self.expulsion.lock().unwrap_or_else(PoisonError::into_inner);
        if let End::Expelled(why) = end {
            expulsion.note(why);
        }
        self.status.send_replace(match expulsion.why() {
            Some(why) => Status::Expelled { why: why.to_owned() },
            None => Status::Away { why },
        });
    }

    /// A controller has welcomed us.
    fn tell_connected(&self, controller: &HostPort) {
        tracing::info!(%controller, "connected");
        self.expulsion.lock().unwrap_or_else(PoisonError::into_inner).lift();
        self.status.send_replace(Status::Connected { controller: controller.clone() });
    }
}

/// What was logged since the last stream: an outage of a night is not a night of lines.
#[derive(Default)]
struct Outage {
    told: BTreeSet<String>,
}

impl Outage {
    const REASONS_MAX: usize = 16;

    fn is_news(&mut self, why: &str) -> bool {
        self.told.len() < Self::REASONS_MAX && self.told.insert(why.to_owned())
    }
}

#[cfg(test)]
mod tests;
