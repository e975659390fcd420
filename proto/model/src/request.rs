//! What a caller may ask the controller to change. Every request takes the same road as the
//! planner's own writes: checked against the world, then one transaction.

use crate::cluster::{Act, ClusterOptions, Leaving, MemberAdmin};
use crate::id::{
    ClusterName, Incarnation, KeyHash, MirrorName, NodeName, SyncName, TaskId, TokenId, UserName,
};
use crate::identity::{Role, TokenFor};
use crate::label::LabelKey;
use crate::mirror::{Allow, MirrorOptions, Trigger};
use crate::node::NodeAddress;
use crate::path::DirPath;
use crate::schedule::Schedule;
use crate::setting::Value;
use crate::sync::{Comment, HookName, Place, Remote, Selected, SyncOptions, Target};
use crate::task::Outcome;
use crate::time::{Millis, Timestamp};

#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(clippy::large_enum_variant)] // made once per request; a box would only add an allocation
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
        targets: Vec<Target>,
        selected: Option<Selected>,
        options: SyncOptions,
        paused: bool,
    },
    /// Settings that are named are replaced, the others stay.
    UpdateSync {
        sync: SyncName,
        values: Vec<Value>,
        /// None: as it is.
        selected: Option<SelectedChange>,
    },
    /// The whole list of named targets anew.
    SetTargets {
        sync: SyncName,
        targets: Vec<Target>,
        comments: Vec<Comment>,
    },
    SetPaused {
        sync: SyncName,
        paused: bool,
    },
    /// Every node takes up its part anew.
    Reapply {
        sync: SyncName,
    },
    AddTargets {
        sync: SyncName,
        targets: Vec<Target>,
    },
    RemoveTargets {
        sync: SyncName,
        nodes: Vec<NodeName>,
    },
    DeleteSync {
        sync: SyncName,
    },
    /// A run per target; no targets: all of them.
    RunSync {
        sync: SyncName,
        targets: Vec<NodeName>,
        run: SyncRun,
        traceparent: Option<String>,
    },
    Barrier {
        sync: SyncName,
        at_least: Option<u32>,
        hook: Option<HookName>,
        traceparent: Option<String>,
    },

    CreateMirror(NewMirror),
    /// What is Some is replaced, the rest stays.
    UpdateMirror {
        mirror: MirrorName,
        change: MirrorChange,
    },
    /// Another name for it; `move_files` renames the tree's directory too, on every node.
    RenameMirror {
        mirror: MirrorName,
        to: MirrorName,
        move_files: bool,
    },
    /// None: no schedule any more. Enabled stays as it is.
    RescheduleMirror {
        mirror: MirrorName,
        schedule: Option<Schedule>,
    },
    /// None: every mirror that who asks may switch, all at once.
    SetMirrorEnabled {
        mirror: Option<MirrorName>,
        enabled: bool,
    },
    DeleteMirror {
        mirror: MirrorName,
        delete_files: bool,
    },
    /// A run now; of these replicas alone when there are any.
    SyncMirror {
        mirror: MirrorName,
        only: Vec<NodeName>,
        /// The master pulls from this replica.
        from: Option<NodeName>,
        allow: Allow,
        trigger: Trigger,
    },

    CreatePushToken {
        mirror: MirrorName,
        id: TokenId,
        secret_sha256: [u8; 32],
    },
    DeletePushToken {
        mirror: MirrorName,
        id: TokenId,
    },

    CreateCluster(NewCluster),
    /// Settings that are named are replaced, the others stay.
    EditCluster {
        cluster: ClusterName,
        values: Vec<Value>,
        /// Of single members.
        members: Vec<(NodeName, Vec<Value>)>,
    },
    AddStandby {
        cluster: ClusterName,
        node: NodeName,
        values: Vec<Value>,
    },
    /// A standby, with its slot; its data stays unless `delete`.
    RemoveMember {
        cluster: ClusterName,
        node: NodeName,
        delete: bool,
    },
    /// Of the whole cluster.
    RemoveCluster {
        cluster: ClusterName,
        leaving: Leaving,
    },
    SetClusterPaused {
        cluster: ClusterName,
        paused: bool,
    },
    SetMemberAdmin {
        cluster: ClusterName,
        node: NodeName,
        admin: MemberAdmin,
    },
    /// A new copy of its data.
    Reclone {
        cluster: ClusterName,
        node: NodeName,
    },
    Switchover {
        cluster: ClusterName,
        to: Option<NodeName>,
        at: Option<Timestamp>,
    },
    /// One that has not begun.
    CancelSwitchover {
        cluster: ClusterName,
    },
    /// Without waiting for the primary's word.
    Failover {
        cluster: ClusterName,
        to: Option<NodeName>,
        allow_loss: bool,
    },
    /// No nodes: all members, standbys first.
    ActOnCluster {
        cluster: ClusterName,
        nodes: Vec<NodeName>,
        act: Act,
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

/// A cluster to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewCluster {
    pub name: ClusterName,
    pub primary: NodeName,
    /// The standbys with their settings; the primary too, when it has some.
    pub members: Vec<(NodeName, Vec<Value>)>,
    pub options: ClusterOptions,
    /// The primary runs already, and is taken over.
    pub adopt: bool,
    /// Sealed.
    pub superuser: Vec<u8>,
    pub replication: Vec<u8>,
}

/// A mirror to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewMirror {
    pub name: MirrorName,
    pub upstream: Option<Remote>,
    /// Sealed, of the upstream.
    pub password: Option<Vec<u8>>,
    pub master: NodeName,
    pub dest: DirPath,
    pub replicas: Vec<Place>,
    pub selected: Option<Selected>,
    pub options: MirrorOptions,
    pub schedule: Option<Schedule>,
    pub enabled: bool,
    pub owner: Option<UserName>,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MirrorChange {
    pub values: Vec<Value>,
    /// Some(None): it has no upstream any more.
    pub upstream: Option<Option<Remote>>,
    /// Sealed; Some(None): none any more.
    pub password: Option<Option<Vec<u8>>>,
    pub master: Option<NodeName>,
    /// The tree is moved there.
    pub dest: Option<DirPath>,
    /// The whole list anew.
    pub replicas: Option<Vec<Place>>,
    pub selected: Option<SelectedChange>,
    pub owner: Option<Option<UserName>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SelectedChange {
    To(Selected),
    Nobody,
}

/// What is to be done for single targets of a sync, once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SyncRun {
    /// A complete pass.
    Resync,
    Verify {
        content: bool,
        repair: bool,
        paths: Vec<Vec<u8>>,
    },
    /// Let through what a guard holds.
    Unhold,
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
