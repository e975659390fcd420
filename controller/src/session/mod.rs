//! The agents' streams: who is connected, and what the rest of the process may want of a stream.
//! What an agent has to do is in the store; a session only mirrors it.

mod admission;
mod passwords;
mod stream;
mod tail;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockstep_model::mirror::RunId;
use lockstep_model::{Code, KeyHash, Millis, NodeName, Reject, TaskId};
use lockstep_proto::v1;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::timeout;

pub use admission::{SessionConfig, open};
pub use stream::Session;
pub use tail::{Tail, TailPart};

/// Most pings and tails that wait for one stream.
const ORDERS_MAX: usize = 64;
/// How long an answer to a ping is waited for.
pub const PING_MAX: Millis = Millis::from_secs(5);

/// Why lockstep-plan refuses to write: agents were told more than this store knows.
const STORE_BEHIND: &str = "store_behind";

/// One stream of one node; never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SessionId(u64);

/// The controller's last word on a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Goodbye {
    /// Stable: see `Goodbye` in agent.proto.
    pub reason: &'static str,
    pub message: String,
}

impl Goodbye {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl From<Goodbye> for v1::Goodbye {
    fn from(Goodbye { reason, message }: Goodbye) -> Self {
        Self { reason: reason.to_owned(), message }
    }
}

/// What somebody reads of a node.
enum TailOf {
    Task { id: TaskId, follow: bool },
    Run(RunId),
}

/// What a service asks of a stream.
enum Order {
    Ping(oneshot::Sender<()>),
    Tail { of: TailOf, parts: mpsc::Sender<TailPart> },
}

/// The outside of a session.
#[derive(Clone)]
pub struct SessionHandle {
    pub id: SessionId,
    /// The agent's own number, new at each of its starts.
    pub instance: u64,
    pub key: KeyHash,
    orders: mpsc::Sender<Order>,
    tasks_changed: Arc<Notify>,
    goodbye: Arc<watch::Sender<Option<Goodbye>>>,
}

/// The inside of a session's handle.
struct Inbox {
    orders: mpsc::Receiver<Order>,
    tasks_changed: Arc<Notify>,
    goodbye: watch::Receiver<Option<Goodbye>>,
}

impl SessionHandle {
    fn new(instance: u64, key: KeyHash) -> (Self, Inbox) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = SessionId(NEXT.fetch_add(1, Ordering::Relaxed));
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let (goodbye, farewell) = watch::channel(None);
        let tasks_changed = Arc::new(Notify::new());
        let inbox = Inbox { orders, tasks_changed: tasks_changed.clone(), goodbye: farewell };
        let goodbye = Arc::new(goodbye);
        (Self { id, instance, key, orders: sender, tasks_changed, goodbye }, inbox)
    }

    /// Of a stream that nobody reads.
    #[cfg(test)]
    pub(crate) fn unread() -> Self {
        Self::new(1, KeyHash([0; 32])).0
    }

    /// Ends the session with a last word; the first one counts.
    pub fn say_goodbye(&self, goodbye: Goodbye) {
        self.goodbye.send_if_modified(|slot| {
            let first = slot.is_none();
            slot.get_or_insert(goodbye);
            first
        });
    }

    /// A round trip to the agent.
    async fn ping(&self, wait: Duration) -> Result<(), PingError> {
        let (reply, answer) = oneshot::channel();
        self.orders.try_send(Order::Ping(reply)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => PingError::Busy,
            mpsc::error::TrySendError::Closed(_) => PingError::Gone,
        })?;
        match timeout(wait, answer).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(PingError::Gone),
            Err(_) => Err(PingError::Silent),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PingError {
    Gone,
    Busy,
    Silent,
}

/// The sessions by node, at most one each; clones are the same table. Written by the driver.
#[derive(Clone, Default)]
pub struct Sessions {
    table: Arc<Mutex<HashMap<NodeName, SessionHandle>>>,
}

impl Sessions {
    pub fn get(&self, node: &NodeName) -> Option<SessionHandle> {
        self.lock().get(node).cloned()
    }

    pub fn count(&self) -> usize {
        self.lock().len()
    }

    pub(crate) fn insert(&self, node: NodeName, handle: SessionHandle) {
        self.lock().insert(node, handle);
    }

    /// False when the node has another session by now.
    pub(crate) fn remove(&self, node: &NodeName, id: SessionId) -> bool {
        let mut table = self.lock();
        let current = table.get(node).is_some_and(|handle| handle.id == id);
        if current {
            table.remove(node);
        }
        current
    }

    pub(crate) fn is_current(&self, node: &NodeName, id: SessionId) -> bool {
        self.lock().get(node).is_some_and(|handle| handle.id == id)
    }

    /// The node's tasks changed: its session looks at them again.
    pub(crate) fn wake(&self, node: &NodeName) {
        if let Some(handle) = self.lock().get(node) {
            handle.tasks_changed.notify_one();
        }
    }

    /// Ends all sessions.
    pub fn say_goodbye(&self, goodbye: &Goodbye) {
        for handle in self.lock().values() {
            handle.say_goodbye(goodbye.clone());
        }
    }

    /// A round trip from here to the node's agent.
    pub async fn ping(&self, node: &NodeName) -> Result<(), Reject> {
        let handle = self.find(node)?;
        handle.ping(PING_MAX.into()).await.map_err(|error| match error {
            PingError::Gone => not_connected(node),
            PingError::Busy => busy(node),
            PingError::Silent => {
                let message = format!("the agent of node {node} did not answer within {PING_MAX}");
                Reject::new(Code::DeadlineExceeded, "no_answer", format!("node/{node}"), message)
            }
        })
    }

    /// The output of a task from the node's agent.
    pub fn tail(&self, node: &NodeName, id: TaskId, follow: bool) -> Result<Tail, Reject> {
        self.read(node, TailOf::Task { id, follow })
    }

    /// The log that the node keeps of its part in a run.
    pub fn log(&self, node: &NodeName, run: RunId) -> Result<Tail, Reject> {
        self.read(node, TailOf::Run(run))
    }

    fn read(&self, node: &NodeName, of: TailOf) -> Result<Tail, Reject> {
        let handle = self.find(node)?;
        let (parts, tail) = Tail::new(node.clone());
        handle.orders.try_send(Order::Tail { of, parts }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => busy(node),
            mpsc::error::TrySendError::Closed(_) => not_connected(node),
        })?;
        Ok(tail)
    }

    fn find(&self, node: &NodeName) -> Result<SessionHandle, Reject> {
        self.get(node).ok_or_else(|| not_connected(node))
    }

    /// The table is whole between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, HashMap<NodeName, SessionHandle>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_connected(node: &NodeName) -> Reject {
    let message = format!("node {node} is not connected: see lockstepctl node show {node}");
    Reject::new(Code::Unavailable, "node_not_connected", format!("node/{node}"), message)
}

fn busy(node: &NodeName) -> Reject {
    let message = format!("too much is asked of the agent of node {node}: try again in a moment");
    Reject::new(Code::ResourceExhausted, "busy", format!("node/{node}"), message)
}
