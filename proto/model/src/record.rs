//! Records, the transactions that write them, and the log that is both watch feed and audit trail.

use std::fmt;

use crate::cluster::{Cluster, ClusterSecret, ClusterState, Failover};
use crate::id::{
    ClusterName, FleetName, Incarnation, MirrorName, NodeName, Revision, SyncName, TaskId, TokenId,
    UserName, quote,
};
use crate::identity::{Subject, Token, User};
use crate::mirror::{Mirror, MirrorState, ReplicaState, Run, RunId};
use crate::node::Node;
use crate::past::Past;
use crate::reject::Invalid;
use crate::sync::{Sync, SyncState};
use crate::task::Task;
use crate::time::Timestamp;

/// Most writes of one transaction (etcd's default limit is 128 operations, the log entry included).
pub const TXN_WRITES_MAX: usize = 96;

/// What the store keeps about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fleet {
    pub name: FleetName,
    pub incarnation: Incarnation,
    pub created_at: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    Fleet(Fleet),
    Past(Past),
    Node(Node),
    Token(Token),
    User(User),
    Sync(Sync),
    SyncState(SyncState),
    Mirror(Mirror),
    MirrorState(MirrorState),
    Replica(ReplicaState),
    Run(Run),
    Secret(Secret),
    Cluster(Box<Cluster>),
    ClusterState(Box<ClusterState>),
    Failover(Box<Failover>),
    ClusterSecret(ClusterSecret),
    Task(Task),
    Request(RequestDone),
}

impl Record {
    pub fn key(&self) -> Key {
        match self {
            Self::Fleet(_) => Key::Fleet,
            Self::Past(_) => Key::Past,
            Self::Node(node) => Key::Node(node.name.clone()),
            Self::Token(token) => Key::Token(token.id.clone()),
            Self::User(user) => Key::User(user.name.clone()),
            Self::Sync(sync) => Key::Sync(sync.name.clone()),
            Self::SyncState(state) => Key::SyncState(state.sync.clone(), state.target.clone()),
            Self::Mirror(mirror) => Key::Mirror(mirror.name.clone()),
            Self::MirrorState(state) => Key::MirrorState(state.mirror.clone()),
            Self::Replica(state) => Key::Replica(state.mirror.clone(), state.node.clone()),
            Self::Run(run) => Key::Run(run.id.clone(), run.node.clone()),
            Self::Secret(secret) => Key::Secret(secret.mirror.clone()),
            Self::Cluster(cluster) => Key::Cluster(cluster.name.clone()),
            Self::ClusterState(state) => Key::ClusterState(state.cluster.clone()),
            Self::Failover(report) => Key::Failover(report.cluster.clone(), report.number),
            Self::ClusterSecret(secret) => Key::ClusterSecret(secret.cluster.clone()),
            Self::Task(task) => Key::Task(task.node.clone(), task.id),
            Self::Request(done) => Key::Request(done.id.clone()),
        }
    }
}

/// Where a record lives; its text is the store's key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Key {
    Fleet,
    Past,
    Node(NodeName),
    Token(TokenId),
    User(UserName),
    Sync(SyncName),
    SyncState(SyncName, NodeName),
    Mirror(MirrorName),
    MirrorState(MirrorName),
    Replica(MirrorName, NodeName),
    Run(RunId, NodeName),
    Secret(MirrorName),
    Cluster(ClusterName),
    ClusterState(ClusterName),
    Failover(ClusterName, u64),
    ClusterSecret(ClusterName),
    Task(NodeName, TaskId),
    Request(RequestId),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fleet => write!(f, "meta/fleet"),
            Self::Past => write!(f, "meta/past"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Token(id) => write!(f, "token/{id}"),
            Self::User(name) => write!(f, "user/{name}"),
            Self::Sync(name) => write!(f, "sync/{name}"),
            Self::SyncState(sync, node) => write!(f, "sync-state/{sync}/{node}"),
            Self::Mirror(name) => write!(f, "mirror/{name}"),
            Self::MirrorState(name) => write!(f, "mirror-state/{name}"),
            Self::Replica(mirror, node) => write!(f, "replica/{mirror}/{node}"),
            Self::Run(RunId { mirror, number }, node) => {
                write!(f, "run/{mirror}/{number:016x}/{node}")
            }
            Self::Secret(mirror) => write!(f, "secret/{mirror}"),
            Self::Cluster(name) => write!(f, "cluster/{name}"),
            Self::ClusterState(name) => write!(f, "cluster-state/{name}"),
            Self::Failover(name, number) => write!(f, "failover/{name}/{number:016x}"),
            Self::ClusterSecret(name) => write!(f, "cluster-secret/{name}"),
            Self::Task(node, id) => write!(f, "task/{node}/{:016x}.{:08x}", id.revision.0, id.n),
            Self::Request(id) => write!(f, "request/{id}"),
        }
    }
}

impl std::str::FromStr for Key {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = || Invalid::new("key", format!("{} is not the key of a record", quote(text)));
        let (kind, rest) = text.split_once('/').ok_or_else(wrong)?;
        let key = match kind {
            "meta" if rest == "fleet" => Self::Fleet,
            "meta" if rest == "past" => Self::Past,
            "node" => Self::Node(rest.parse()?),
            "token" => Self::Token(rest.parse()?),
            "user" => Self::User(rest.parse()?),
            "sync" => Self::Sync(rest.parse()?),
            "sync-state" => {
                let (sync, node) = rest.split_once('/').ok_or_else(wrong)?;
                Self::SyncState(sync.parse()?, node.parse()?)
            }
            "mirror" => Self::Mirror(rest.parse()?),
            "mirror-state" => Self::MirrorState(rest.parse()?),
            "replica" => {
                let (mirror, node) = rest.split_once('/').ok_or_else(wrong)?;
                Self::Replica(mirror.parse()?, node.parse()?)
            }
            "run" => {
                let mut parts = rest.splitn(3, '/');
                let (Some(mirror), Some(number), Some(node)) =
                    (parts.next(), parts.next(), parts.next())
                else {
                    return Err(wrong());
                };
                let number = u64::from_str_radix(number, 16).map_err(|_| wrong())?;
                Self::Run(RunId { mirror: mirror.parse()?, number }, node.parse()?)
            }
            "secret" => Self::Secret(rest.parse()?),
            "cluster" => Self::Cluster(rest.parse()?),
            "cluster-state" => Self::ClusterState(rest.parse()?),
            "cluster-secret" => Self::ClusterSecret(rest.parse()?),
            "failover" => {
                let (cluster, number) = rest.split_once('/').ok_or_else(wrong)?;
                let number = u64::from_str_radix(number, 16).map_err(|_| wrong())?;
                Self::Failover(cluster.parse()?, number)
            }
            "task" => {
                let (node, id) = rest.split_once('/').ok_or_else(wrong)?;
                let (revision, n) = id.split_once('.').ok_or_else(wrong)?;
                let revision = u64::from_str_radix(revision, 16).map_err(|_| wrong())?;
                let n = u32::from_str_radix(n, 16).map_err(|_| wrong())?;
                Self::Task(node.parse()?, TaskId { revision: Revision(revision), n })
            }
            "request" => Self::Request(rest.parse()?),
            _ => return Err(wrong()),
        };
        // One text per key: no leading sign, no upper case, no missing zero.
        if key.to_string() == text { Ok(key) } else { Err(wrong()) }
    }
}

/// The password of a mirror's upstream, readable only with the controller's key file.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    pub mirror: MirrorName,
    /// Nonce, ciphertext and tag.
    pub sealed: Vec<u8>,
}

impl Secret {
    /// Longest password, in bytes.
    pub const PASSWORD_MAX: usize = 1024;
    pub const SEALED_MAX: usize = Self::PASSWORD_MAX + 64;
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret of {}", self.mirror)
    }
}

/// Made by the client, once per intent: the same id sent again is the same request.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(String);

impl RequestId {
    pub const LENGTH_MAX: usize = 64;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for RequestId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=Self::LENGTH_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if !fits {
            let problem = format!(
                "must be 1 to {} letters, digits, '-' or '_', not {}",
                Self::LENGTH_MAX,
                quote(text)
            );
            return Err(Invalid::new("request_id", problem));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A request that was carried out: the same id by the same actor gets the same answer for a day.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestDone {
    pub id: RequestId,
    pub actor: Actor,
    /// The method, so that one id used for two things is refused.
    pub cause: String,
    pub at: Timestamp,
}

/// Who caused a transaction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Actor {
    /// A rule of the planner.
    Planner,
    /// Someone with a certificate.
    Subject(Subject),
    /// `lockstep-controller` run by hand on the store's own machine.
    Offline,
    /// Nobody that is known: holds a join token, or asks for health.
    Anonymous,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Planner => f.write_str("planner"),
            Self::Subject(subject) => subject.fmt(f),
            Self::Offline => f.write_str("offline"),
            Self::Anonymous => f.write_str("anonymous"),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(clippy::large_enum_variant)] // most writes are puts; a box would only add an allocation
pub enum Write {
    Put(Record),
    Delete(Key),
}

impl Write {
    pub fn key(&self) -> Key {
        match self {
            Self::Put(record) => record.key(),
            Self::Delete(key) => key.clone(),
        }
    }
}

/// The only effect of the controller: writes on top of `base`, all or none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Txn {
    /// The store's revision that this was decided on; compared when it commits.
    pub base: Revision,
    /// `Revision::ZERO`, except when an old copy of a store is adopted: the change's revision is
    /// larger than this, and so than everything that agents were told.
    pub raise_to: Revision,
    pub at: Timestamp,
    pub actor: Actor,
    /// The RPC (`SyncService/CreateSync`) or the planner's rules, comma-joined.
    pub cause: String,
    pub writes: Vec<Write>,
}

/// A committed transaction: an entry of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    pub revision: Revision,
    pub at: Timestamp,
    pub actor: Actor,
    pub cause: String,
    pub writes: Vec<Write>,
}

impl Change {
    pub fn of(txn: Txn) -> Self {
        let Txn { base, raise_to, at, actor, cause, writes } = txn;
        Self { revision: base.max(raise_to).next(), at, actor, cause, writes }
    }
}

/// A record and the revision that last wrote it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Versioned<T> {
    pub revision: Revision,
    pub value: T,
}
