//! What a caller may ask the controller to change. Every request takes the same road as the
//! planner's own writes: checked against the world, then one transaction.

use crate::id::{Incarnation, KeyHash, NodeName, SyncName, TaskId, TokenId, UserName};
use crate::identity::{Role, TokenFor};
use crate::label::LabelKey;
use crate::node::NodeAddress;
use crate::sync::{Place, SyncOptions};
use crate::task::Outcome;
use crate::time::Millis;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    CreateToken {
        id: TokenId,
        secret_sha256: [u8; 32],
        grants: TokenFor,
        ttl: Millis,
    },
    DeleteToken {
        id: TokenId,
    },
    /// A token becomes a node's or a user's key. Checked again here: single use by compare-and-set.
    Enroll {
        token: TokenId,
        secret_sha256: [u8; 32],
        key_hash: KeyHash,
    },

    AddUser {
        name: UserName,
        role: Role,
    },
    SetUserRole {
        name: UserName,
        role: Role,
    },
    SetUserDisabled {
        name: UserName,
        disabled: bool,
    },

    LabelNode {
        node: NodeName,
        set: Vec<(LabelKey, String)>,
        remove: Vec<LabelKey>,
    },
    /// An action and not a state, so that `resume` never undoes a `disable`.
    ChangeNode {
        node: NodeName,
        action: NodeAction,
    },
    /// Forgets an expelled or disabled node, so that the name may join again.
    RemoveNode {
        node: NodeName,
    },

    CreateSync {
        name: SyncName,
        source: Place,
        targets: Vec<Place>,
        options: SyncOptions,
    },
    AddTargets {
        sync: SyncName,
        targets: Vec<Place>,
    },
    RemoveTargets {
        sync: SyncName,
        nodes: Vec<NodeName>,
    },
    DeleteSync {
        sync: SyncName,
    },
    /// No targets: all of them.
    Resync {
        sync: SyncName,
        targets: Vec<NodeName>,
        traceparent: Option<String>,
    },

    CancelTask {
        id: TaskId,
    },

    /// From an agent when it connects.
    Announce {
        node: NodeName,
        addresses: Vec<NodeAddress>,
    },
    /// From an agent; repeated until acknowledged.
    EndTask {
        node: NodeName,
        id: TaskId,
        outcome: Outcome,
    },
    /// An operator accepts a store that agents know to be an old copy. `incarnation` is drawn by the
    /// caller.
    AdoptStore {
        incarnation: Incarnation,
    },
}

/// What people do to a node's `NodeAdmin`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NodeAction {
    Drain,
    /// Back from `Drain`.
    Resume,
    Disable,
    /// Back from `Disable`.
    Enable,
    Expel,
}

impl NodeAction {
    pub const ALL: [Self; 5] =
        [Self::Drain, Self::Resume, Self::Disable, Self::Enable, Self::Expel];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Resume => "resume",
            Self::Disable => "disable",
            Self::Enable => "enable",
            Self::Expel => "expel",
        }
    }
}
