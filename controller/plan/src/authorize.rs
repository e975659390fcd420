//! Who may call what: one table and one function. Authentication comes first: a certificate speaks
//! for a record only while the record holds its key.

use lockstep_model::identity::{Principal, Role, Subject};
use lockstep_model::node::NodeAdmin;
use lockstep_model::record::Actor;
use lockstep_model::{Code, KeyHash, NodeName, Reject, UserName};

use crate::World;

/// Who a method is for. A role includes those below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allow {
    /// Without a certificate too.
    Anyone,
    /// Any node or user whose certificate is good.
    Known,
    Node,
    Viewer,
    /// Those who may own something: of what it is about, `admit` asks whose it is.
    Owner,
    Operator,
    Admin,
}

use Allow::{Admin, Anyone, Known, Node, Operator, Owner, Viewer};

/// Full method, without the leading slash. A method that is not here is refused.
pub const POLICY: &[(&str, Allow)] = &[
    ("lockstep.v1.EnrollmentService/Enroll", Anyone),
    ("lockstep.v1.EnrollmentService/Renew", Known),
    ("lockstep.v1.EnrollmentService/GetTrustBundle", Anyone),
    ("lockstep.v1.AgentService/Connect", Node),
    ("lockstep.v1.NodeService/ListNodes", Viewer),
    ("lockstep.v1.NodeService/GetNode", Viewer),
    ("lockstep.v1.NodeService/LabelNode", Operator),
    ("lockstep.v1.NodeService/DrainNode", Operator),
    ("lockstep.v1.NodeService/ResumeNode", Operator),
    ("lockstep.v1.NodeService/DisableNode", Admin),
    ("lockstep.v1.NodeService/EnableNode", Admin),
    ("lockstep.v1.NodeService/ExpelNode", Admin),
    ("lockstep.v1.NodeService/RemoveNode", Admin),
    ("lockstep.v1.NodeService/PingNode", Operator),
    ("lockstep.v1.TokenService/CreateToken", Admin),
    ("lockstep.v1.TokenService/ListTokens", Admin),
    ("lockstep.v1.TokenService/DeleteToken", Admin),
    ("lockstep.v1.UserService/AddUser", Admin),
    ("lockstep.v1.UserService/ListUsers", Admin),
    ("lockstep.v1.UserService/SetUserRole", Admin),
    ("lockstep.v1.UserService/DisableUser", Admin),
    ("lockstep.v1.UserService/EnableUser", Admin),
    ("lockstep.v1.SyncService/CreateSync", Operator),
    ("lockstep.v1.SyncService/AddTargets", Operator),
    ("lockstep.v1.SyncService/RemoveTargets", Operator),
    ("lockstep.v1.SyncService/DeleteSync", Operator),
    ("lockstep.v1.SyncService/UpdateSync", Operator),
    ("lockstep.v1.SyncService/SetTargets", Operator),
    ("lockstep.v1.SyncService/SetSyncPaused", Operator),
    ("lockstep.v1.SyncService/ReapplySync", Operator),
    ("lockstep.v1.SyncService/RunSync", Operator),
    ("lockstep.v1.SyncService/Barrier", Operator),
    ("lockstep.v1.SyncService/ListSettings", Known),
    ("lockstep.v1.SyncService/ListSyncs", Viewer),
    ("lockstep.v1.SyncService/GetSync", Viewer),
    ("lockstep.v1.MirrorService/CreateMirror", Operator),
    ("lockstep.v1.MirrorService/UpdateMirror", Owner),
    ("lockstep.v1.MirrorService/RenameMirror", Operator),
    ("lockstep.v1.MirrorService/RescheduleMirror", Owner),
    ("lockstep.v1.MirrorService/SetMirrorEnabled", Owner),
    ("lockstep.v1.MirrorService/DeleteMirror", Owner),
    ("lockstep.v1.MirrorService/SyncMirror", Owner),
    ("lockstep.v1.MirrorService/ReadyMirror", Owner),
    ("lockstep.v1.MirrorService/CreatePushToken", Owner),
    ("lockstep.v1.MirrorService/ListPushTokens", Owner),
    ("lockstep.v1.MirrorService/DeletePushToken", Owner),
    ("lockstep.v1.MirrorService/ListMirrors", Viewer),
    ("lockstep.v1.MirrorService/GetMirror", Viewer),
    ("lockstep.v1.MirrorService/ListRuns", Viewer),
    ("lockstep.v1.MirrorService/WatchRun", Viewer),
    ("lockstep.v1.MirrorService/TailRun", Viewer),
    ("lockstep.v1.MirrorService/ListMirrorSettings", Known),
    ("lockstep.v1.ClusterService/CreateCluster", Operator),
    ("lockstep.v1.ClusterService/EditCluster", Operator),
    ("lockstep.v1.ClusterService/AddStandby", Operator),
    ("lockstep.v1.ClusterService/RemoveMember", Operator),
    ("lockstep.v1.ClusterService/RemoveCluster", Operator),
    ("lockstep.v1.ClusterService/SetClusterPaused", Operator),
    ("lockstep.v1.ClusterService/SetMemberAdmin", Operator),
    ("lockstep.v1.ClusterService/Reclone", Operator),
    ("lockstep.v1.ClusterService/Switchover", Operator),
    ("lockstep.v1.ClusterService/CancelSwitchover", Operator),
    ("lockstep.v1.ClusterService/Failover", Operator),
    ("lockstep.v1.ClusterService/ActOnCluster", Operator),
    ("lockstep.v1.ClusterService/ListClusters", Viewer),
    ("lockstep.v1.ClusterService/GetCluster", Viewer),
    ("lockstep.v1.ClusterService/ListFailovers", Viewer),
    ("lockstep.v1.ClusterService/WatchCluster", Viewer),
    ("lockstep.v1.ClusterService/ListClusterSettings", Known),
    ("lockstep.v1.ScheduleService/PreviewSchedule", Known),
    ("lockstep.v1.TaskService/ListTasks", Viewer),
    ("lockstep.v1.TaskService/GetTask", Viewer),
    ("lockstep.v1.TaskService/TailTask", Viewer),
    ("lockstep.v1.TaskService/CancelTask", Operator),
    ("lockstep.v1.LogService/ListEntries", Viewer),
    ("lockstep.v1.LogService/WatchLog", Viewer),
    ("lockstep.v1.LogService/Explain", Viewer),
    ("lockstep.v1.StoreService/ExportStore", Admin),
    ("lockstep.v1.StoreService/AdoptStore", Admin),
    ("lockstep.v1.StatusService/GetStatus", Viewer),
    ("grpc.health.v1.Health/Check", Anyone),
    ("grpc.health.v1.Health/Watch", Anyone),
    ("grpc.health.v1.Health/List", Anyone),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Admin),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Admin),
];

/// Lets a call pass, in the name of whom it returns. `method` may have its leading slash.
pub fn authorize(
    world: &World,
    method: &str,
    principal: Option<&Principal>,
) -> Result<Actor, Reject> {
    let method = method.strip_prefix('/').unwrap_or(method);
    let allow = POLICY.iter().find(|(name, _)| *name == method).map(|(_, allow)| *allow);
    if allow == Some(Anyone) {
        let known = principal.filter(|principal| authenticate(world, principal).is_ok());
        return Ok(known.map_or(Actor::Anonymous, |p| Actor::Subject(p.subject.clone())));
    }
    let Some(principal) = principal else {
        let message = "a client certificate is needed: join with a token first";
        return Err(Reject::new(Code::Unauthenticated, "no_certificate", method, message));
    };
    let role = authenticate(world, principal)?;
    let Some(allow) = allow else {
        let message = format!("method {method} does not exist here");
        return Err(Reject::new(Code::PermissionDenied, "unknown_method", method, message));
    };
    let passes = match allow {
        Anyone | Known => true,
        Node => role.is_none(),
        Viewer => role.is_some(),
        Owner => matches!(role, Some(Role::Owner | Role::Operator | Role::Admin)),
        Operator => matches!(role, Some(Role::Operator | Role::Admin)),
        Admin => role == Some(Role::Admin),
    };
    if !passes {
        let wanted = match allow {
            Node => "for agents only".to_owned(),
            _ => format!("for the role {} only", format!("{allow:?}").to_ascii_lowercase()),
        };
        let whose = role.map_or(String::new(), |role| format!(", whose role is {role}"));
        let message = format!("{method} is {wanted}, not for {}{whose}", principal.subject);
        return Err(Reject::new(Code::PermissionDenied, "not_allowed", method, message));
    }
    Ok(Actor::Subject(principal.subject.clone()))
}

/// Whether the certificate speaks for its subject now; the role of a user, None for a node. Open
/// streams are held against this after every change of a node or user.
pub fn authenticate(world: &World, principal: &Principal) -> Result<Option<Role>, Reject> {
    match &principal.subject {
        Subject::Node(name) => node(world, name, principal.key_hash).map(|()| None),
        Subject::User(name) => user(world, name, principal.key_hash).map(Some),
        Subject::Controller(_) => {
            let message = "a controller's certificate is not for calling a controller";
            let code = Code::PermissionDenied;
            Err(Reject::new(code, "not_a_client", &principal.subject, message))
        }
    }
}

fn node(world: &World, name: &NodeName, key: KeyHash) -> Result<(), Reject> {
    let subject = Subject::Node(name.clone());
    let Some(node) = world.nodes().get(name) else {
        let message = format!("node {name} is not known: join again with a new token");
        return Err(Reject::new(Code::Unauthenticated, "unknown_node", subject, message));
    };
    if node.value.key_hash != key {
        let message = format!(
            "node {name} has another key: this certificate was replaced, or another machine has \
             the name"
        );
        return Err(Reject::new(Code::Unauthenticated, "key_replaced", subject, message));
    }
    if node.value.admin == NodeAdmin::Expelled {
        let message = format!(
            "node {name} was expelled: remove it (lockstepctl node remove {name}) and join again"
        );
        return Err(Reject::new(Code::PermissionDenied, "node_expelled", subject, message));
    }
    Ok(())
}

fn user(world: &World, name: &UserName, key: KeyHash) -> Result<Role, Reject> {
    let subject = Subject::User(name.clone());
    let Some(user) = world.users().get(name) else {
        let message =
            format!("user {name} is not known: an admin adds it with lockstepctl user add");
        return Err(Reject::new(Code::Unauthenticated, "unknown_user", subject, message));
    };
    if user.value.key_hash != Some(key) {
        let message = format!("user {name} has another key: ask an admin for a new token");
        return Err(Reject::new(Code::Unauthenticated, "key_replaced", subject, message));
    }
    if user.value.disabled {
        let message = format!("user {name} is disabled: an admin can enable it");
        return Err(Reject::new(Code::PermissionDenied, "user_disabled", subject, message));
    }
    Ok(user.value.role)
}
