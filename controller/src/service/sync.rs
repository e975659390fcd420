//! SyncService: directories kept in step.

use std::collections::HashMap;

use lockstep_model::reason::Reason;
use lockstep_model::record::Versioned;
use lockstep_model::request::Request as Wish;
use lockstep_model::sync::{Place, Sync, SyncReport, TARGETS_MAX};
use lockstep_model::task::{Slot, TaskSpec};
use lockstep_model::{Invalid, NodeName, Reject, SyncName, Timestamp};
use lockstep_plan::World;
use lockstep_plan::explain::explain;
use lockstep_proto::convert::{each, parse_each, to_wire_time};
use lockstep_proto::v1;
use lockstep_proto::v1::sync_service_server::SyncService;
use lockstep_transport::clock;
use lockstep_transport::telemetry::current_traceparent;
use tonic::Request;

use super::{Answer, Api, answer, open, result, task};

#[tonic::async_trait]
impl SyncService for Api {
    async fn create_sync(
        &self,
        request: Request<v1::CreateSyncRequest>,
    ) -> Answer<v1::CreateSyncResponse> {
        answer(self.create_sync(request).await)
    }

    async fn list_syncs(&self, _: Request<v1::ListSyncsRequest>) -> Answer<v1::ListSyncsResponse> {
        let now = clock::now();
        answer(Ok(self.driver().read_reasons(|world, reasons| v1::ListSyncsResponse {
            syncs: world.syncs().values().map(|sync| show(world, reasons, sync, now)).collect(),
            revision: world.revision().0,
        })))
    }

    async fn get_sync(&self, request: Request<v1::GetSyncRequest>) -> Answer<v1::GetSyncResponse> {
        answer(self.get_sync(request))
    }

    async fn add_targets(
        &self,
        request: Request<v1::AddTargetsRequest>,
    ) -> Answer<v1::AddTargetsResponse> {
        answer(self.add_targets(request).await)
    }

    async fn remove_targets(
        &self,
        request: Request<v1::RemoveTargetsRequest>,
    ) -> Answer<v1::RemoveTargetsResponse> {
        answer(self.remove_targets(request).await)
    }

    async fn delete_sync(
        &self,
        request: Request<v1::DeleteSyncRequest>,
    ) -> Answer<v1::DeleteSyncResponse> {
        answer(self.delete_sync(request).await)
    }

    async fn resync_sync(
        &self,
        request: Request<v1::ResyncSyncRequest>,
    ) -> Answer<v1::ResyncSyncResponse> {
        answer(self.resync(request).await)
    }
}

impl Api {
    async fn create_sync(
        &self,
        request: Request<v1::CreateSyncRequest>,
    ) -> Result<v1::CreateSyncResponse, Reject> {
        let (caller, v1::CreateSyncRequest { mutation, name, source, targets, options }) =
            open(request)?;
        let name: SyncName = name.parse()?;
        let source = source.ok_or_else(|| Invalid::new("source", "is missing"))?;
        let wish = Wish::CreateSync {
            name: name.clone(),
            source: Place::try_from(source).map_err(|e| e.within("source"))?,
            targets: each("targets", TARGETS_MAX, targets)?,
            options: options.unwrap_or_default().try_into()?,
        };
        let done = self.change(caller.actor, "SyncService/CreateSync", mutation, wish).await?;
        Ok(v1::CreateSyncResponse { result: Some(result(&done)), sync: self.sync(&name) })
    }

    fn get_sync(
        &self,
        request: Request<v1::GetSyncRequest>,
    ) -> Result<v1::GetSyncResponse, Reject> {
        let (_, v1::GetSyncRequest { name }) = open(request)?;
        let name: SyncName = name.parse()?;
        let sync = self.sync(&name).ok_or_else(|| {
            let message = format!("sync {name} does not exist: see lockstepctl sync list");
            Reject::not_found(format!("sync/{name}"), message)
        })?;
        Ok(v1::GetSyncResponse { sync: Some(sync) })
    }

    async fn add_targets(
        &self,
        request: Request<v1::AddTargetsRequest>,
    ) -> Result<v1::AddTargetsResponse, Reject> {
        let (caller, v1::AddTargetsRequest { mutation, sync, targets }) = open(request)?;
        let name: SyncName = sync.parse()?;
        let targets = each("targets", TARGETS_MAX, targets)?;
        let wish = Wish::AddTargets { sync: name.clone(), targets };
        let done = self.change(caller.actor, "SyncService/AddTargets", mutation, wish).await?;
        Ok(v1::AddTargetsResponse { result: Some(result(&done)), sync: self.sync(&name) })
    }

    async fn remove_targets(
        &self,
        request: Request<v1::RemoveTargetsRequest>,
    ) -> Result<v1::RemoveTargetsResponse, Reject> {
        let (caller, v1::RemoveTargetsRequest { mutation, sync, nodes }) = open(request)?;
        let name: SyncName = sync.parse()?;
        let nodes: Vec<NodeName> = parse_each("nodes", TARGETS_MAX, &nodes)?;
        let wish = Wish::RemoveTargets { sync: name.clone(), nodes };
        let done = self.change(caller.actor, "SyncService/RemoveTargets", mutation, wish).await?;
        Ok(v1::RemoveTargetsResponse { result: Some(result(&done)), sync: self.sync(&name) })
    }

    async fn delete_sync(
        &self,
        request: Request<v1::DeleteSyncRequest>,
    ) -> Result<v1::DeleteSyncResponse, Reject> {
        let (caller, v1::DeleteSyncRequest { mutation, name }) = open(request)?;
        let wish = Wish::DeleteSync { sync: name.parse()? };
        let done = self.change(caller.actor, "SyncService/DeleteSync", mutation, wish).await?;
        Ok(v1::DeleteSyncResponse { result: Some(result(&done)) })
    }

    async fn resync(
        &self,
        request: Request<v1::ResyncSyncRequest>,
    ) -> Result<v1::ResyncSyncResponse, Reject> {
        let (caller, v1::ResyncSyncRequest { mutation, sync, targets }) = open(request)?;
        let wish = Wish::Resync {
            sync: sync.parse()?,
            targets: parse_each("targets", TARGETS_MAX, &targets)?,
            traceparent: current_traceparent(),
        };
        let done = self.change(caller.actor, "SyncService/ResyncSync", mutation, wish).await?;
        let tasks = self.driver().read(|world| {
            let there = done.tasks.iter().filter_map(|id| world.task(*id));
            there.map(|task| task::show(world, task)).collect()
        });
        Ok(v1::ResyncSyncResponse { result: Some(result(&done)), tasks })
    }

    fn sync(&self, name: &SyncName) -> Option<v1::Sync> {
        let now = clock::now();
        self.driver().read_reasons(|world, reasons| {
            world.syncs().get(name).map(|sync| show(world, reasons, sync, now))
        })
    }
}

/// The record, what its nodes confirmed, and what they say of it.
fn show(world: &World, reasons: &[Reason], sync: &Versioned<Sync>, now: Timestamp) -> v1::Sync {
    let Versioned { revision, value: sync } = sync;
    let Sync { name, source, targets, options, created_at } = sync;
    // What cannot be explained is shown without a reason.
    let reasons = explain(world, reasons, &format!("sync/{name}"), now).unwrap_or_default();
    let mut why: HashMap<&str, &str> = HashMap::new();
    for reason in &reasons {
        why.entry(&reason.subject).or_insert(&reason.text);
    }
    let reported = |node: &NodeName| world.seen(node).and_then(|seen| seen.sync(name));
    let source_reported = reported(&source.node);
    let source_report = source_reported.and_then(|reported| match &reported.report {
        SyncReport::Source(report) => Some(report),
        SyncReport::Target(_) => None,
    });
    let target = |place: &Place| {
        let report = reported(&place.node).and_then(|reported| match &reported.report {
            SyncReport::Target(report) => Some(report.clone().into()),
            SyncReport::Source(_) => None,
        });
        let mut deliveries = source_report.iter().flat_map(|report| &report.deliveries);
        let delivery = deliveries.find(|delivery| delivery.target == place.node);
        let part = format!("sync/{name}/{}", place.node);
        v1::SyncTargetStatus {
            place: Some(place.clone().into()),
            applied: is_applied(world, name, &place.node),
            report,
            delivery: delivery.cloned().map(Into::into),
            reason: why.get(part.as_str()).map(|text| (*text).to_owned()).unwrap_or_default(),
        }
    };
    v1::Sync {
        name: name.to_string(),
        source: Some(source.clone().into()),
        options: Some(options.clone().into()),
        targets: targets.iter().map(target).collect(),
        created_at: Some(to_wire_time(*created_at)),
        revision: revision.0,
        source_applied: is_applied(world, name, &source.node),
        source_report: source_report.cloned().map(Into::into),
        source_reported_at: source_reported.map(|reported| to_wire_time(reported.at)),
    }
}

/// The planner gives a task for every difference, so the newest one's success says it all.
fn is_applied(world: &World, sync: &SyncName, node: &NodeName) -> bool {
    world
        .newest(node, &Slot::Sync(sync.clone()))
        .is_some_and(|task| task.succeeded() && !matches!(task.spec, TaskSpec::SyncRelease { .. }))
}
