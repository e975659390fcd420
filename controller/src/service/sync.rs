//! SyncService: directories kept in step.

mod show;

use lockstep_model::request::{Request as Wish, SelectedChange, SyncRun};
use lockstep_model::setting::{Settings, VALUES_MAX, Value};
use lockstep_model::sync::{COMMENTS_MAX, Place, SyncOptions, TARGETS_MAX};
use lockstep_model::{Invalid, NodeName, Reject, SyncName};
use lockstep_proto::convert::task::verify_paths;
use lockstep_proto::convert::{each, optional, parse_each, required};
use lockstep_proto::v1;
use lockstep_proto::v1::sync_service_server::SyncService;
use lockstep_transport::clock;
use lockstep_transport::telemetry::current_traceparent;
use tonic::Request;

use super::{Answer, Api, answer, open, result};
use show::show;

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
        answer(Ok(self.driver().read_reasons(|world, reasons| {
            let shown = |sync| show(world, world.uses(), reasons, sync, now);
            v1::ListSyncsResponse {
                syncs: world.syncs().values().map(shown).collect(),
                revision: world.revision().0,
            }
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

    async fn update_sync(
        &self,
        request: Request<v1::UpdateSyncRequest>,
    ) -> Answer<v1::UpdateSyncResponse> {
        answer(self.update_sync(request).await)
    }

    async fn set_targets(
        &self,
        request: Request<v1::SetTargetsRequest>,
    ) -> Answer<v1::SetTargetsResponse> {
        answer(self.set_targets(request).await)
    }

    async fn set_sync_paused(
        &self,
        request: Request<v1::SetSyncPausedRequest>,
    ) -> Answer<v1::SetSyncPausedResponse> {
        answer(self.set_paused(request).await)
    }

    async fn reapply_sync(
        &self,
        request: Request<v1::ReapplySyncRequest>,
    ) -> Answer<v1::ReapplySyncResponse> {
        answer(self.reapply(request).await)
    }

    async fn run_sync(&self, request: Request<v1::RunSyncRequest>) -> Answer<v1::RunSyncResponse> {
        answer(self.run_sync(request).await)
    }

    async fn barrier(&self, request: Request<v1::BarrierRequest>) -> Answer<v1::BarrierResponse> {
        answer(self.barrier(request).await)
    }

    async fn list_settings(
        &self,
        _: Request<v1::ListSettingsRequest>,
    ) -> Answer<v1::ListSettingsResponse> {
        let defaults = SyncOptions::default().all_values();
        let settings =
            SyncOptions::TABLE.iter().zip(defaults).map(|(row, (_, values))| v1::SettingInfo {
                name: row.name.to_owned(),
                value: row.value.to_owned(),
                help: row.help.to_owned(),
                repeated: row.repeated,
                default_values: values,
            });
        answer(Ok(v1::ListSettingsResponse { settings: settings.collect() }))
    }
}

impl Api {
    async fn create_sync(
        &self,
        request: Request<v1::CreateSyncRequest>,
    ) -> Result<v1::CreateSyncResponse, Reject> {
        let (caller, request) = open(request)?;
        let v1::CreateSyncRequest { mutation, name, source, targets, options, selected, paused } =
            request;
        let name: SyncName = name.parse()?;
        let source = source.ok_or_else(|| Invalid::new("source", "is missing"))?;
        let wish = Wish::CreateSync {
            name: name.clone(),
            source: Place::try_from(source).map_err(|e| e.within("source"))?,
            targets: each("targets", TARGETS_MAX, targets)?,
            selected: selected.map(TryInto::try_into).transpose()?,
            options: options.unwrap_or_default().try_into()?,
            paused,
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

    async fn update_sync(
        &self,
        request: Request<v1::UpdateSyncRequest>,
    ) -> Result<v1::UpdateSyncResponse, Reject> {
        let (caller, v1::UpdateSyncRequest { mutation, sync, settings, selected }) = open(request)?;
        let name: SyncName = sync.parse()?;
        if settings.len() > VALUES_MAX {
            let problem = format!("has {} entries, at most {VALUES_MAX} fit", settings.len());
            return Err(Invalid::new("settings", problem).into());
        }
        let selected = match selected {
            None => None,
            Some(to) if to.selector.is_empty() => Some(SelectedChange::Nobody),
            Some(to) => Some(SelectedChange::To(to.try_into()?)),
        };
        let values = settings.into_iter().map(Value::from).collect();
        let wish = Wish::UpdateSync { sync: name.clone(), values, selected };
        let done = self.change(caller.actor, "SyncService/UpdateSync", mutation, wish).await?;
        Ok(v1::UpdateSyncResponse { result: Some(result(&done)), sync: self.sync(&name) })
    }

    async fn set_targets(
        &self,
        request: Request<v1::SetTargetsRequest>,
    ) -> Result<v1::SetTargetsResponse, Reject> {
        let (caller, v1::SetTargetsRequest { mutation, sync, targets, comments }) = open(request)?;
        let name: SyncName = sync.parse()?;
        let targets = each("targets", TARGETS_MAX, targets)?;
        let comments = each("comments", COMMENTS_MAX, comments)?;
        let wish = Wish::SetTargets { sync: name.clone(), targets, comments };
        let done = self.change(caller.actor, "SyncService/SetTargets", mutation, wish).await?;
        Ok(v1::SetTargetsResponse { result: Some(result(&done)), sync: self.sync(&name) })
    }

    async fn set_paused(
        &self,
        request: Request<v1::SetSyncPausedRequest>,
    ) -> Result<v1::SetSyncPausedResponse, Reject> {
        let (caller, v1::SetSyncPausedRequest { mutation, sync, paused }) = open(request)?;
        let name: SyncName = sync.parse()?;
        let wish = Wish::SetPaused { sync: name.clone(), paused };
        let done = self.change(caller.actor, "SyncService/SetSyncPaused", mutation, wish).await?;
        Ok(v1::SetSyncPausedResponse { result: Some(result(&done)), sync: self.sync(&name) })
    }

    async fn reapply(
        &self,
        request: Request<v1::ReapplySyncRequest>,
    ) -> Result<v1::ReapplySyncResponse, Reject> {
        let (caller, v1::ReapplySyncRequest { mutation, sync }) = open(request)?;
        let name: SyncName = sync.parse()?;
        let wish = Wish::Reapply { sync: name.clone() };
        let done = self.change(caller.actor, "SyncService/ReapplySync", mutation, wish).await?;
        Ok(v1::ReapplySyncResponse { result: Some(result(&done)), sync: self.sync(&name) })
    }

    async fn run_sync(
        &self,
        request: Request<v1::RunSyncRequest>,
    ) -> Result<v1::RunSyncResponse, Reject> {
        let (caller, v1::RunSyncRequest { mutation, sync, targets, run }) = open(request)?;
        let run = match required("run", run)? {
            v1::run_sync_request::Run::Resync(v1::ResyncRun {}) => SyncRun::Resync,
            v1::run_sync_request::Run::Verify(v1::VerifyRun { content, repair, paths }) => {
                SyncRun::Verify { content, repair, paths: verify_paths(paths)? }
            }
            v1::run_sync_request::Run::Unhold(v1::UnholdRun {}) => SyncRun::Unhold,
        };
        let wish = Wish::RunSync {
            sync: sync.parse()?,
            targets: parse_each("targets", TARGETS_MAX, &targets)?,
            run,
            traceparent: current_traceparent(),
        };
        let done = self.change(caller.actor, "SyncService/RunSync", mutation, wish).await?;
        Ok(v1::RunSyncResponse { result: Some(result(&done)), tasks: self.tasks(&done.tasks) })
    }

    async fn barrier(
        &self,
        request: Request<v1::BarrierRequest>,
    ) -> Result<v1::BarrierResponse, Reject> {
        let (caller, v1::BarrierRequest { mutation, sync, at_least, hook }) = open(request)?;
        let wish = Wish::Barrier {
            sync: sync.parse()?,
            at_least: Some(at_least).filter(|n| *n > 0),
            hook: optional("hook", &hook)?,
            traceparent: current_traceparent(),
        };
        let done = self.change(caller.actor, "SyncService/Barrier", mutation, wish).await?;
        let task = self.tasks(&done.tasks).pop();
        Ok(v1::BarrierResponse { result: Some(result(&done)), task })
    }

    fn sync(&self, name: &SyncName) -> Option<v1::Sync> {
        let now = clock::now();
        self.driver().read_reasons(|world, reasons| {
            world.syncs().get(name).map(|sync| show(world, world.uses(), reasons, sync, now))
        })
    }
}
