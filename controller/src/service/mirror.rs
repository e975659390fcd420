//! MirrorService: projects that are mirrored, and their runs.

mod push;
mod show;
mod watch;

use std::cmp::Reverse;

use lockstep_model::identity::Subject;
use lockstep_model::mirror::{MirrorOptions, REPLICAS_MAX, Run, RunId, Trigger};
use lockstep_model::record::Actor;
use lockstep_model::request::{MirrorChange, NewMirror, Request as Wish, SelectedChange};
use lockstep_model::schedule::{Schedule, ScheduleText};
use lockstep_model::setting::{Settings, VALUES_MAX, Value};
use lockstep_model::sync::{Place, Remote};
use lockstep_model::{Invalid, MirrorName, NodeName, Reject};
use lockstep_plan::schedule::understand;
use lockstep_proto::convert::mirror::mirror_options;
use lockstep_proto::convert::{each, optional, parse, parse_each};
use lockstep_proto::v1;
use lockstep_proto::v1::mirror_service_server::MirrorService;
use lockstep_transport::clock;
use tonic::Request;
use zeroize::Zeroizing;

use super::{Answer, Answers, Api, answer, open, result};
use crate::driver::Done;
use crate::identity::vault::Purpose;
use show::{Shown, show};

/// Runs that are listed when no number is given,
const RUNS_DEFAULT: usize = 50;
/// and the most.
const RUNS_MAX: usize = 1000;

#[tonic::async_trait]
impl MirrorService for Api {
    async fn create_mirror(
        &self,
        request: Request<v1::CreateMirrorRequest>,
    ) -> Answer<v1::CreateMirrorResponse> {
        answer(self.create_mirror(request).await)
    }

    async fn list_mirrors(
        &self,
        _: Request<v1::ListMirrorsRequest>,
    ) -> Answer<v1::ListMirrorsResponse> {
        let now = clock::now();
        answer(Ok(self.driver().read(|world| {
            let shown = Shown { world, vault: &self.0.sessions.vault, now };
            v1::ListMirrorsResponse {
                mirrors: world.mirrors().values().map(|mirror| show(&shown, mirror)).collect(),
                revision: world.revision().0,
            }
        })))
    }

    async fn get_mirror(
        &self,
        request: Request<v1::GetMirrorRequest>,
    ) -> Answer<v1::GetMirrorResponse> {
        answer(self.get_mirror(request))
    }

    async fn update_mirror(
        &self,
        request: Request<v1::UpdateMirrorRequest>,
    ) -> Answer<v1::UpdateMirrorResponse> {
        answer(self.update_mirror(request).await)
    }

    async fn rename_mirror(
        &self,
        request: Request<v1::RenameMirrorRequest>,
    ) -> Answer<v1::RenameMirrorResponse> {
        answer(self.rename_mirror(request).await)
    }

    async fn reschedule_mirror(
        &self,
        request: Request<v1::RescheduleMirrorRequest>,
    ) -> Answer<v1::RescheduleMirrorResponse> {
        answer(self.reschedule_mirror(request).await)
    }

    async fn set_mirror_enabled(
        &self,
        request: Request<v1::SetMirrorEnabledRequest>,
    ) -> Answer<v1::SetMirrorEnabledResponse> {
        answer(self.set_mirror_enabled(request).await)
    }

    async fn delete_mirror(
        &self,
        request: Request<v1::DeleteMirrorRequest>,
    ) -> Answer<v1::DeleteMirrorResponse> {
        answer(self.delete_mirror(request).await)
    }

    async fn sync_mirror(
        &self,
        request: Request<v1::SyncMirrorRequest>,
    ) -> Answer<v1::SyncMirrorResponse> {
        answer(self.sync_mirror(request).await)
    }

    async fn ready_mirror(
        &self,
        request: Request<v1::ReadyMirrorRequest>,
    ) -> Answer<v1::ReadyMirrorResponse> {
        answer(self.ready_mirror(request).await)
    }

    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Answer<v1::ListRunsResponse> {
        answer(self.list_runs(request))
    }

    type WatchRunStream = Answers<v1::WatchRunResponse>;

    async fn watch_run(
        &self,
        request: Request<v1::WatchRunRequest>,
    ) -> Answer<Self::WatchRunStream> {
        answer(self.watch_run(request))
    }

    type TailRunStream = Answers<v1::TailRunResponse>;

    async fn tail_run(&self, request: Request<v1::TailRunRequest>) -> Answer<Self::TailRunStream> {
        answer(self.tail_run(request))
    }

    async fn create_push_token(
        &self,
        request: Request<v1::CreatePushTokenRequest>,
    ) -> Answer<v1::CreatePushTokenResponse> {
        answer(self.create_push_token(request).await)
    }

    async fn list_push_tokens(
        &self,
        request: Request<v1::ListPushTokensRequest>,
    ) -> Answer<v1::ListPushTokensResponse> {
        answer(self.list_push_tokens(request))
    }

    async fn delete_push_token(
        &self,
        request: Request<v1::DeletePushTokenRequest>,
    ) -> Answer<v1::DeletePushTokenResponse> {
        answer(self.delete_push_token(request).await)
    }

    async fn list_mirror_settings(
        &self,
        _: Request<v1::ListMirrorSettingsRequest>,
    ) -> Answer<v1::ListMirrorSettingsResponse> {
        let defaults = MirrorOptions::default().all_values();
        let settings =
            MirrorOptions::TABLE.iter().zip(defaults).map(|(row, (_, values))| v1::SettingInfo {
                name: row.name.to_owned(),
                value: row.value.to_owned(),
                help: row.help.to_owned(),
                repeated: row.repeated,
                default_values: values,
            });
        answer(Ok(v1::ListMirrorSettingsResponse { settings: settings.collect() }))
    }
}

impl Api {
    async fn create_mirror(
        &self,
        request: Request<v1::CreateMirrorRequest>,
    ) -> Result<v1::CreateMirrorResponse, Reject> {
        let (caller, request) = open(request)?;
        let v1::CreateMirrorRequest {
            mutation,
            name,
            upstream,
            password,
            master,
            dest,
            replicas,
            selected,
            settings,
            schedule,
            disabled,
            owner,
        } = request;
        let password = Zeroizing::new(password);
        let name: MirrorName = name.parse()?;
        let upstream = read_upstream(&upstream)?;
        let password = match password.is_empty() {
            true => None,
            false => Some(self.seal(&password, upstream.as_ref())?),
        };
        let wish = Wish::CreateMirror(NewMirror {
            name: name.clone(),
            upstream,
            password,
            master: parse("master", &master)?,
            dest: parse("dest", &dest)?,
            replicas: each("replicas", REPLICAS_MAX, replicas)?,
            selected: selected.map(TryInto::try_into).transpose()?,
            options: mirror_options(settings)?,
            schedule: schedule.map(understood).transpose()?,
            enabled: !disabled,
            owner: optional("owner", &owner)?,
        });
        let done = self.change(caller.actor, "MirrorService/CreateMirror", mutation, wish).await?;
        Ok(v1::CreateMirrorResponse { result: Some(result(&done)), mirror: self.mirror(&name) })
    }

    fn get_mirror(
        &self,
        request: Request<v1::GetMirrorRequest>,
    ) -> Result<v1::GetMirrorResponse, Reject> {
        let (_, v1::GetMirrorRequest { name }) = open(request)?;
        let name: MirrorName = name.parse()?;
        let mirror = self.mirror(&name).ok_or_else(|| no_mirror(&name))?;
        Ok(v1::GetMirrorResponse { mirror: Some(mirror) })
    }

    async fn update_mirror(
        &self,
        request: Request<v1::UpdateMirrorRequest>,
    ) -> Result<v1::UpdateMirrorResponse, Reject> {
        let (caller, request) = open(request)?;
        let v1::UpdateMirrorRequest {
            mutation,
            name,
            settings,
            upstream,
            password,
            master,
            dest,
            replicas,
            selected,
            owner,
        } = request;
        let password = password.map(Zeroizing::new);
        let name: MirrorName = name.parse()?;
        if settings.len() > VALUES_MAX {
            let problem = format!("has {} entries, at most {VALUES_MAX} fit", settings.len());
            return Err(Invalid::new("settings", problem).into());
        }
        let upstream = upstream.map(|url| read_upstream(&url)).transpose()?;
        let password = match password {
            None => None,
            Some(none) if none.is_empty() => Some(None),
            Some(password) => {
                let kept =
                    || self.driver().read(|w| w.mirrors().get(&name)?.value.upstream.clone());
                let upstream = upstream.clone().unwrap_or_else(kept);
                Some(Some(self.seal(&password, upstream.as_ref())?))
            }
        };
        let replicas = replicas
            .map(|v1::PlaceList { places }| each::<_, Place>("replicas", REPLICAS_MAX, places));
        let selected = match selected {
            None => None,
            Some(to) if to.selector.is_empty() => Some(SelectedChange::Nobody),
            Some(to) => Some(SelectedChange::To(to.try_into()?)),
        };
        let change = MirrorChange {
            values: settings.into_iter().map(Value::from).collect(),
            upstream,
            password,
            master: master.map(|text| parse("master", &text)).transpose()?,
            dest: dest.map(|text| parse("dest", &text)).transpose()?,
            replicas: replicas.transpose()?,
            selected,
            owner: owner.map(|text| optional("owner", &text)).transpose()?,
        };
        let wish = Wish::UpdateMirror { mirror: name.clone(), change };
        let done = self.change(caller.actor, "MirrorService/UpdateMirror", mutation, wish).await?;
        Ok(v1::UpdateMirrorResponse { result: Some(result(&done)), mirror: self.mirror(&name) })
    }

    async fn rename_mirror(
        &self,
        request: Request<v1::RenameMirrorRequest>,
    ) -> Result<v1::RenameMirrorResponse, Reject> {
        let (caller, v1::RenameMirrorRequest { mutation, name, to, move_files }) = open(request)?;
        let to: MirrorName = parse("to", &to)?;
        let wish = Wish::RenameMirror { mirror: name.parse()?, to: to.clone(), move_files };
        let done = self.change(caller.actor, "MirrorService/RenameMirror", mutation, wish).await?;
        Ok(v1::RenameMirrorResponse { result: Some(result(&done)), mirror: self.mirror(&to) })
    }

    async fn reschedule_mirror(
        &self,
        request: Request<v1::RescheduleMirrorRequest>,
    ) -> Result<v1::RescheduleMirrorResponse, Reject> {
        let (caller, v1::RescheduleMirrorRequest { mutation, name, schedule }) = open(request)?;
        let name: MirrorName = name.parse()?;
        let schedule = schedule.map(understood).transpose()?;
        let wish = Wish::RescheduleMirror { mirror: name.clone(), schedule };
        let cause = "MirrorService/RescheduleMirror";
        let done = self.change(caller.actor, cause, mutation, wish).await?;
        Ok(v1::RescheduleMirrorResponse { result: Some(result(&done)), mirror: self.mirror(&name) })
    }

    async fn set_mirror_enabled(
        &self,
        request: Request<v1::SetMirrorEnabledRequest>,
    ) -> Result<v1::SetMirrorEnabledResponse, Reject> {
        let (caller, v1::SetMirrorEnabledRequest { mutation, name, enabled, all }) = open(request)?;
        if all && !name.is_empty() {
            return Err(Invalid::new("name", "must be empty with all").into());
        }
        let name: Option<MirrorName> = (!all).then(|| name.parse()).transpose()?;
        let wish = Wish::SetMirrorEnabled { mirror: name.clone(), enabled };
        let cause = "MirrorService/SetMirrorEnabled";
        let done = self.change(caller.actor, cause, mutation, wish).await?;
        let mirror = name.and_then(|name| self.mirror(&name));
        Ok(v1::SetMirrorEnabledResponse { result: Some(result(&done)), mirror })
    }

    async fn delete_mirror(
        &self,
        request: Request<v1::DeleteMirrorRequest>,
    ) -> Result<v1::DeleteMirrorResponse, Reject> {
        let (caller, v1::DeleteMirrorRequest { mutation, name, delete_files }) = open(request)?;
        let wish = Wish::DeleteMirror { mirror: name.parse()?, delete_files };
        let done = self.change(caller.actor, "MirrorService/DeleteMirror", mutation, wish).await?;
        Ok(v1::DeleteMirrorResponse { result: Some(result(&done)) })
    }

    async fn sync_mirror(
        &self,
        request: Request<v1::SyncMirrorRequest>,
    ) -> Result<v1::SyncMirrorResponse, Reject> {
        let (caller, request) = open(request)?;
        let v1::SyncMirrorRequest { mutation, name, only, from, allow } = request;
        let wish = Wish::SyncMirror {
            mirror: name.parse()?,
            only: parse_each::<NodeName>("only", REPLICAS_MAX, &only)?,
            from: optional("from", &from)?,
            allow: allow.unwrap_or_default().into(),
            trigger: Trigger::Asked(caller.actor.to_string()),
        };
        let done = self.change(caller.actor, "MirrorService/SyncMirror", mutation, wish).await?;
        Ok(v1::SyncMirrorResponse { result: Some(result(&done)), run: first_run(&done) })
    }

    async fn ready_mirror(
        &self,
        request: Request<v1::ReadyMirrorRequest>,
    ) -> Result<v1::ReadyMirrorResponse, Reject> {
        let (caller, v1::ReadyMirrorRequest { mutation, name }) = open(request)?;
        let mirror: MirrorName = name.parse()?;
        let Actor::Subject(Subject::User(user)) = &caller.actor else {
            let problem = "only a user says that a tree is complete";
            return Err(Invalid::new("caller", problem).into());
        };
        let trigger = Trigger::Ready(user.clone());
        let allow = Default::default();
        let wish = Wish::SyncMirror { mirror, only: Vec::new(), from: None, allow, trigger };
        let done = self.change(caller.actor, "MirrorService/ReadyMirror", mutation, wish).await?;
        Ok(v1::ReadyMirrorResponse { result: Some(result(&done)), run: first_run(&done) })
    }

    fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<v1::ListRunsResponse, Reject> {
        let (_, v1::ListRunsRequest { mirror, node, limit }) = open(request)?;
        let mirror: Option<MirrorName> = optional("mirror", &mirror)?;
        let node: Option<NodeName> = optional("node", &node)?;
        let limit = match limit as usize {
            0 => RUNS_DEFAULT,
            limit => limit.min(RUNS_MAX),
        };
        self.driver().read(|world| {
            let names: Vec<&MirrorName> = match &mirror {
                Some(name) if !world.mirrors().contains_key(name) => return Err(no_mirror(name)),
                Some(name) => vec![name],
                None => world.mirrors().keys().collect(),
            };
            let mut runs: Vec<Vec<&Run>> = Vec::new();
            for name in names {
                let parts = world.runs_of(name).rev().filter_map(|(_, rows)| {
                    let meant = |row: &&Run| node.as_ref().is_none_or(|node| row.node == *node);
                    let mut parts: Vec<&Run> =
                        rows.values().map(|row| &row.value).filter(meant).collect();
                    parts.sort_by_key(|part| show::place(part));
                    (!parts.is_empty()).then_some(parts)
                });
                runs.extend(parts.take(limit));
            }
            runs.sort_by_key(|parts| {
                Reverse(parts.first().map(|head| (head.started_at, &head.id)))
            });
            let parts = runs.into_iter().take(limit).flatten();
            Ok(v1::ListRunsResponse { runs: parts.map(|part| show::run(world, part)).collect() })
        })
    }

    fn mirror(&self, name: &MirrorName) -> Option<v1::Mirror> {
        let now = clock::now();
        self.driver().read(|world| {
            let shown = Shown { world, vault: &self.0.sessions.vault, now };
            world.mirrors().get(name).map(|mirror| show(&shown, mirror))
        })
    }

    /// Without an upstream what comes out is nothing, and refused with the rest of the request.
    fn seal(&self, password: &str, upstream: Option<&Remote>) -> Result<Vec<u8>, Reject> {
        let vault = &self.0.sessions.vault;
        upstream.map_or(Ok(Vec::new()), |up| vault.seal(password, Purpose::Upstream(up)))
    }
}

/// Empty: none.
fn read_upstream(url: &str) -> Result<Option<Remote>, Invalid> {
    if url.is_empty() { Ok(None) } else { Remote::upstream(url).map(Some) }
}

fn understood(text: v1::ScheduleText) -> Result<Schedule, Invalid> {
    understand(&ScheduleText::try_from(text)?, clock::now())
}

/// Empty when the request was carried out before, and nobody knows any more as which run.
fn first_run(done: &Done) -> String {
    done.runs.first().map(ToString::to_string).unwrap_or_default()
}

fn no_mirror(name: &MirrorName) -> Reject {
    let message = format!("mirror {name} does not exist: see lockstepctl mirror list");
    Reject::not_found(format!("mirror/{name}"), message)
}

fn no_run(id: &RunId) -> Reject {
    let message = format!(
        "run {id} does not exist, or is forgotten: lockstepctl mirror runs {} lists the newest {}",
        id.mirror,
        Run::KEPT
    );
    Reject::not_found(format!("run/{id}"), message)
}
