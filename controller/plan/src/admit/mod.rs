//! Requests held against the world: the writes that carry one out, or why not. Pure, and as little
//! trusting as if the caller were hostile; who may ask at all was settled by `authorize`.

mod clusters;
mod mirror_owner;
mod mirror_runs;
mod mirrors;
mod nodes;
mod once;
mod pushes;
mod store;
mod syncs;
mod targets;
mod tasks;
mod tokens;
mod users;

use lockstep_model::identity::Subject;
use lockstep_model::mirror::RunId;
use lockstep_model::record::{Actor, Record, Txn, Write};
use lockstep_model::request::Request;
use lockstep_model::{Code, NodeName, Reject, Revision, TaskId, Timestamp};

use crate::World;
pub use once::{Conditions, admit_once};
pub use tasks::RUN_TARGETS_MAX;
pub use tokens::{TOKEN_TTL_DEFAULT, TOKEN_TTL_MAX, TOKEN_TTL_MIN};

pub const NODES_MAX: usize = 10_000;
pub const USERS_MAX: usize = 1_000;
pub const TOKENS_MAX: usize = 1_000;
pub const SYNCS_MAX: usize = 1_000;
pub const MIRRORS_MAX: usize = 10_000;

/// A request that passed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Admitted {
    /// One transaction; empty when everything is so already.
    pub writes: Vec<Write>,
    /// One line for people: what was done, or what was so already.
    pub detail: String,
    /// Tasks that the request made, or that were on their way already.
    pub tasks: Vec<TaskId>,
    /// Runs of mirrors that the request made or joined.
    pub runs: Vec<RunId>,
    /// For `Txn::raise_to`; ZERO except when a store is adopted.
    pub raise_to: Revision,
    /// This request id was carried out before; nothing is written.
    pub repeated: bool,
}

impl Admitted {
    fn put(record: Record, detail: impl Into<String>) -> Self {
        Self { writes: vec![Write::Put(record)], detail: detail.into(), ..Self::default() }
    }

    fn already(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..Self::default() }
    }

    /// The transaction to commit; None when there is nothing to write.
    pub fn txn(&self, world: &World, now: Timestamp, who: &Actor, cause: &str) -> Option<Txn> {
        (!self.writes.is_empty()).then(|| Txn {
            base: world.revision(),
            raise_to: self.raise_to,
            at: now,
            actor: who.clone(),
            cause: cause.to_owned(),
            writes: self.writes.clone(),
        })
    }
}

/// Checks a request and says what it writes.
pub fn admit(
    world: &World,
    who: &Actor,
    request: &Request,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    if world.store_behind().is_some() && !matches!(request, Request::AdoptStore { .. }) {
        let message = "the store is an old copy: see lockstepctl explain store; restore a newer one, \
                       or accept what is lost with lockstepctl store adopt";
        return Err(Reject::new(Code::FailedPrecondition, "store_behind", "store", message));
    }
    match request {
        Request::CreateToken { id, secret_sha256, grants, ttl } => {
            tokens::create(world, id, *secret_sha256, grants, *ttl, now)
        }
        Request::DeleteToken { id } => tokens::delete(world, id),
        Request::Enroll { token, secret_sha256, key_hash } => {
            tokens::enroll(world, token, secret_sha256, *key_hash, now)
        }
        Request::AddUser { name, role } => users::add(world, name, *role, now),
        Request::SetUserRole { name, role } => users::set_role(world, name, *role),
        Request::SetUserDisabled { name, disabled } => users::set_disabled(world, name, *disabled),
        Request::LabelNode { node, set, remove } => nodes::label(world, node, set, remove),
        Request::ChangeNode { node, action } => nodes::change(world, node, *action),
        Request::RemoveNode { node } => nodes::remove(world, node),
        Request::Announce { node, addresses } => nodes::announce(world, who, node, addresses),
        Request::CreateSync { name, source, targets, selected, options, paused } => {
            let (selected, paused) = (selected.as_ref(), *paused);
            let new = syncs::New { name, source, targets, selected, options, paused };
            syncs::create(world, &new, now)
        }
        Request::UpdateSync { sync, values, selected } => {
            syncs::update(world, sync, values, selected.as_ref())
        }
        Request::SetPaused { sync, paused } => syncs::set_paused(world, sync, *paused),
        Request::Reapply { sync } => syncs::reapply(world, sync),
        Request::AddTargets { sync, targets } => targets::add_targets(world, sync, targets),
        Request::RemoveTargets { sync, nodes } => targets::remove_targets(world, sync, nodes),
        Request::SetTargets { sync, targets, comments } => {
            targets::set_targets(world, sync, targets, comments)
        }
        Request::DeleteSync { sync } => syncs::delete(world, sync),
        Request::RunSync { sync, targets, run, traceparent } => {
            tasks::run(world, sync, targets, run, traceparent.as_ref(), now)
        }
        Request::Barrier { sync, at_least, hook, traceparent } => {
            tasks::barrier(world, sync, *at_least, hook.as_ref(), traceparent.as_ref(), now)
        }
        Request::CreateMirror(new) => mirrors::create(world, new, now),
        Request::UpdateMirror { mirror, change } => {
            mirrors::update(world, who, mirror, change, now)
        }
        Request::RenameMirror { mirror, to, move_files } => {
            mirrors::rename(world, mirror, to, *move_files, now)
        }
        Request::RescheduleMirror { mirror, schedule } => {
            mirrors::reschedule(world, who, mirror, schedule.as_ref())
        }
        Request::SetMirrorEnabled { mirror, enabled } => {
            mirrors::set_enabled(world, who, mirror.as_ref(), *enabled)
        }
        Request::DeleteMirror { mirror, delete_files } => {
            mirrors::delete(world, who, mirror, *delete_files)
        }
        Request::SyncMirror { mirror, only, from, allow, trigger } => {
            let ask = mirror_runs::Ask { only, from: from.as_ref(), allow: *allow, trigger };
            mirror_runs::sync(world, who, mirror, &ask, now)
        }
        Request::CreatePushToken { mirror, id, secret_sha256 } => {
            pushes::create(world, who, mirror, id, *secret_sha256, now)
        }
        Request::DeletePushToken { mirror, id } => pushes::delete(world, who, mirror, id),
        Request::CreateCluster(new) => clusters::create(world, new, now),
        Request::EditCluster { cluster, .. }
        | Request::AddStandby { cluster, .. }
        | Request::RemoveMember { cluster, .. }
        | Request::RemoveCluster { cluster, .. }
        | Request::SetClusterPaused { cluster, .. }
        | Request::SetMemberAdmin { cluster, .. }
        | Request::Reclone { cluster, .. }
        | Request::Switchover { cluster, .. }
        | Request::CancelSwitchover { cluster }
        | Request::Failover { cluster, .. }
        | Request::ActOnCluster { cluster, .. } => {
            clusters::change(world, who, cluster, request, now)
        }
        Request::CancelTask { id } => tasks::cancel(world, *id),
        Request::EndTask { node, id, outcome } => tasks::end(world, who, node, *id, outcome, now),
        Request::AdoptStore { incarnation } => store::adopt(world, *incarnation),
    }
}

/// Refuses what only the node itself may say.
fn check_speaks_for(who: &Actor, node: &NodeName) -> Result<(), Reject> {
    if *who == Actor::Subject(Subject::Node(node.clone())) {
        return Ok(());
    }
    let message = format!("{who} may not speak for node {node}");
    Err(Reject::new(Code::PermissionDenied, "not_yours", format!("node/{node}"), message))
}

fn precondition(reason: &'static str, subject: String, message: String) -> Reject {
    Reject::new(Code::FailedPrecondition, reason, subject, message)
}

/// Refuses one more of what `there` are already.
fn check_room(what: &'static str, there: usize, max: usize) -> Result<(), Reject> {
    if there < max {
        return Ok(());
    }
    let message = format!("there are {there} {what}, at most {max} are allowed: remove some first");
    Err(Reject::new(Code::ResourceExhausted, "too_many", what, message))
}
