//! What makes a request safe to send again: its id, and the revision it was decided on.

use lockstep_model::record::{Actor, Record, RequestDone, RequestId, Versioned, Write};
use lockstep_model::request::{NewCluster, NewMirror, Request};
use lockstep_model::{Code, Reject, Revision, Timestamp};

use super::{Admitted, admit};
use crate::World;

/// What a caller adds to a request.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Conditions {
    /// Carried out at most once, for a day.
    pub request_id: Option<RequestId>,
    /// Refused unless the resource's record still has this revision.
    pub if_revision: Option<Revision>,
}

/// As `admit`, under the caller's conditions. `cause` is the RPC, as in `Txn::cause`.
pub fn admit_once(
    world: &World,
    who: &Actor,
    cause: &str,
    conditions: &Conditions,
    request: &Request,
    now: Timestamp,
) -> Result<Admitted, Reject> {
    if let Some(done) = conditions.request_id.as_ref().and_then(|id| world.requests().get(id)) {
        let done = &done.value;
        if done.actor == *who && done.cause == cause {
            let detail = format!("was carried out at {}", done.at);
            return Ok(Admitted { detail, repeated: true, ..Admitted::default() });
        }
        let message = format!(
            "request id {} was used for {} by {} before: make a new one per request",
            done.id, done.cause, done.actor
        );
        return Err(Reject::new(Code::AlreadyExists, "request_id_reused", "request_id", message));
    }
    if let Some(wanted) = conditions.if_revision {
        check_revision(world, request, wanted)?;
    }
    let mut admitted = admit(world, who, request, now)?;
    // Without writes the request is harmless to repeat, and there is nothing to remember.
    if let Some(id) = conditions.request_id.clone().filter(|_| !admitted.writes.is_empty()) {
        let done = RequestDone { id, actor: who.clone(), cause: cause.to_owned(), at: now };
        admitted.writes.push(Write::Put(Record::Request(done)));
    }
    Ok(admitted)
}

fn check_revision(world: &World, request: &Request, wanted: Revision) -> Result<(), Reject> {
    let (resource, current) = match request {
        Request::CreateToken { id, .. }
        | Request::DeleteToken { id }
        | Request::Enroll { token: id, .. } => (format!("token/{id}"), of(world.tokens().get(id))),
        Request::AddUser { name, .. }
        | Request::SetUserRole { name, .. }
        | Request::SetUserDisabled { name, .. } => {
            (format!("user/{name}"), of(world.users().get(name)))
        }
        Request::LabelNode { node, .. }
        | Request::ChangeNode { node, .. }
        | Request::RemoveNode { node }
        | Request::Announce { node, .. } => (format!("node/{node}"), of(world.nodes().get(node))),
        Request::CreateSync { name: sync, .. }
        | Request::AddTargets { sync, .. }
        | Request::RemoveTargets { sync, .. }
        | Request::DeleteSync { sync }
        | Request::UpdateSync { sync, .. }
        | Request::SetTargets { sync, .. }
        | Request::SetPaused { sync, .. }
        | Request::Reapply { sync }
        | Request::Barrier { sync, .. }
        | Request::RunSync { sync, .. } => (format!("sync/{sync}"), of(world.syncs().get(sync))),
        Request::CreateMirror(NewMirror { name: mirror, .. })
        | Request::UpdateMirror { mirror, .. }
        | Request::RenameMirror { mirror, .. }
        | Request::RescheduleMirror { mirror, .. }
        | Request::SetMirrorEnabled { mirror: Some(mirror), .. }
        | Request::DeleteMirror { mirror, .. }
        | Request::SyncMirror { mirror, .. }
        | Request::CreatePushToken { mirror, .. }
        | Request::DeletePushToken { mirror, .. } => {
            (format!("mirror/{mirror}"), of(world.mirrors().get(mirror)))
        }
        Request::SetMirrorEnabled { mirror: None, .. } => ("mirror".to_owned(), None),
        Request::CreateCluster(NewCluster { name: cluster, .. })
        | Request::EditCluster { cluster, .. }
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
            (format!("cluster/{cluster}"), of(world.clusters().get(cluster)))
        }
        Request::CancelTask { id } | Request::EndTask { id, .. } => {
            (format!("task/{id}"), of(world.task(*id)))
        }
        Request::AdoptStore { .. } => ("store".to_owned(), of(world.fleet())),
    };
    match current {
        Some(current) if current == wanted => Ok(()),
        // That it is missing is for `admit` to say, in its own words.
        None if !creates(request) => Ok(()),
        _ => {
            let is = current.map_or("does not exist".to_owned(), |r| format!("is at revision {r}"));
            let message =
                format!("{resource} {is}, not at {wanted}: read it again and decide anew");
            Err(Reject::new(Code::Aborted, "changed_meanwhile", resource, message))
        }
    }
}

fn of<T>(record: Option<&Versioned<T>>) -> Option<Revision> {
    record.map(|record| record.revision)
}

fn creates(request: &Request) -> bool {
    matches!(
        request,
        Request::CreateToken { .. }
            | Request::AddUser { .. }
            | Request::CreateSync { .. }
            | Request::CreateMirror(_)
    )
}
