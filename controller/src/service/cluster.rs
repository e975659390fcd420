//! ClusterService: PostgreSQL clusters, their members, and who is primary.

mod show;
mod watch;

use lockstep_model::cluster::{ClusterOptions, Failover, MEMBERS_MAX, MemberAdmin, MemberOptions};
use lockstep_model::request::{NewCluster, Request as Wish};
use lockstep_model::setting::Settings;
use lockstep_model::{ClusterName, Reject};
use lockstep_proto::convert::cluster::{asked_act, of_members, values};
use lockstep_proto::convert::{from_wire_time, optional, parse, parse_each};
use lockstep_proto::v1;
use lockstep_proto::v1::cluster_service_server::ClusterService;
use lockstep_transport::telemetry::current_traceparent;
use tonic::Request;
use zeroize::Zeroizing;

use super::{Answer, Answers, Api, answer, open, result};
use crate::identity::draw;
use crate::identity::vault::Purpose;
use show::Shown;

/// Reports that are listed when no number is given.
const FAILOVERS_DEFAULT: usize = 50;

#[tonic::async_trait]
impl ClusterService for Api {
    async fn create_cluster(
        &self,
        request: Request<v1::CreateClusterRequest>,
    ) -> Answer<v1::CreateClusterResponse> {
        answer(self.create_cluster(request).await)
    }

    async fn edit_cluster(
        &self,
        request: Request<v1::EditClusterRequest>,
    ) -> Answer<v1::EditClusterResponse> {
        answer(self.edit_cluster(request).await)
    }

    async fn add_standby(
        &self,
        request: Request<v1::AddStandbyRequest>,
    ) -> Answer<v1::AddStandbyResponse> {
        answer(self.add_standby(request).await)
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Answer<v1::RemoveMemberResponse> {
        answer(self.remove_member(request).await)
    }

    async fn remove_cluster(
        &self,
        request: Request<v1::RemoveClusterRequest>,
    ) -> Answer<v1::RemoveClusterResponse> {
        answer(self.remove_cluster(request).await)
    }

    async fn set_cluster_paused(
        &self,
        request: Request<v1::SetClusterPausedRequest>,
    ) -> Answer<v1::SetClusterPausedResponse> {
        answer(self.set_cluster_paused(request).await)
    }

    async fn set_member_admin(
        &self,
        request: Request<v1::SetMemberAdminRequest>,
    ) -> Answer<v1::SetMemberAdminResponse> {
        answer(self.set_member_admin(request).await)
    }

    async fn reclone(&self, request: Request<v1::RecloneRequest>) -> Answer<v1::RecloneResponse> {
        answer(self.reclone(request).await)
    }

    async fn switchover(
        &self,
        request: Request<v1::SwitchoverRequest>,
    ) -> Answer<v1::SwitchoverResponse> {
        answer(self.switchover(request).await)
    }

    async fn cancel_switchover(
        &self,
        request: Request<v1::CancelSwitchoverRequest>,
    ) -> Answer<v1::CancelSwitchoverResponse> {
        answer(self.cancel_switchover(request).await)
    }

    async fn failover(
        &self,
        request: Request<v1::FailoverRequest>,
    ) -> Answer<v1::FailoverResponse> {
        answer(self.failover(request).await)
    }

    async fn act_on_cluster(
        &self,
        request: Request<v1::ActOnClusterRequest>,
    ) -> Answer<v1::ActOnClusterResponse> {
        answer(self.act_on_cluster(request).await)
    }

    async fn list_clusters(
        &self,
        _: Request<v1::ListClustersRequest>,
    ) -> Answer<v1::ListClustersResponse> {
        answer(Ok(self.look(|shown| v1::ListClustersResponse {
            clusters: shown.world.clusters().values().map(|one| show::show(shown, one)).collect(),
            revision: shown.world.revision().0,
        })))
    }

    async fn get_cluster(
        &self,
        request: Request<v1::GetClusterRequest>,
    ) -> Answer<v1::GetClusterResponse> {
        answer(self.get_cluster(request))
    }

    async fn list_failovers(
        &self,
        request: Request<v1::ListFailoversRequest>,
    ) -> Answer<v1::ListFailoversResponse> {
        answer(self.list_failovers(request))
    }

    type WatchClusterStream = Answers<v1::WatchClusterResponse>;

    async fn watch_cluster(
        &self,
        request: Request<v1::WatchClusterRequest>,
    ) -> Answer<Self::WatchClusterStream> {
        answer(self.watch_cluster(request))
    }

    async fn list_cluster_settings(
        &self,
        _: Request<v1::ListClusterSettingsRequest>,
    ) -> Answer<v1::ListClusterSettingsResponse> {
        answer(Ok(v1::ListClusterSettingsResponse {
            settings: settings::<ClusterOptions>(),
            member_settings: settings::<MemberOptions>(),
        }))
    }
}

fn settings<O: Settings>() -> Vec<v1::SettingInfo> {
    let rows = O::TABLE.iter().zip(O::default().all_values());
    rows.map(|(row, (_, values))| v1::SettingInfo {
        name: row.name.to_owned(),
        value: row.value.to_owned(),
        help: row.help.to_owned(),
        repeated: row.repeated,
        default_values: values,
    })
    .collect()
}

impl Api {
    async fn create_cluster(
        &self,
        request: Request<v1::CreateClusterRequest>,
    ) -> Result<v1::CreateClusterResponse, Reject> {
        let (caller, request) = open(request)?;
        let v1::CreateClusterRequest {
            mutation,
            name,
            primary,
            members,
            settings,
            adopt,
            superuser_password,
            replication_password,
        } = request;
        let name: ClusterName = name.parse()?;
        let superuser = self.sealed(superuser_password, Purpose::Superuser(&name))?;
        let replication = self.sealed(replication_password, Purpose::Replication(&name))?;
        let settings = values(settings)?;
        let options = settings.iter().map(|v| (v.name.as_str(), v.text.as_str()));
        let wish = Wish::CreateCluster(NewCluster {
            name: name.clone(),
            primary: parse("primary", &primary)?,
            members: of_members(members)?,
            options: ClusterOptions::from_values(options)?,
            adopt,
            superuser,
            replication,
        });
        let cause = "ClusterService/CreateCluster";
        let done = self.change(caller.actor, cause, mutation, wish).await?;
        Ok(v1::CreateClusterResponse { result: Some(result(&done)), cluster: self.cluster(&name) })
    }

    /// The one that was given, or a new one, as the store keeps it.
    fn sealed(&self, given: String, purpose: Purpose<'_>) -> Result<Vec<u8>, Reject> {
        let given = Zeroizing::new(given);
        let password = if given.is_empty() { draw::password()? } else { given };
        self.0.sessions.vault.seal(&password, purpose)
    }

    async fn edit_cluster(
        &self,
        request: Request<v1::EditClusterRequest>,
    ) -> Result<v1::EditClusterResponse, Reject> {
        let (caller, request) = open(request)?;
        let v1::EditClusterRequest { mutation, name, settings, members } = request;
        let cluster: ClusterName = name.parse()?;
        let (values, members) = (values(settings)?, of_members(members)?);
        let wish = Wish::EditCluster { cluster: cluster.clone(), values, members };
        let done = self.change(caller.actor, "ClusterService/EditCluster", mutation, wish).await?;
        let cluster = self.cluster(&cluster);
        Ok(v1::EditClusterResponse { result: Some(result(&done)), cluster })
    }

    async fn add_standby(
        &self,
        request: Request<v1::AddStandbyRequest>,
    ) -> Result<v1::AddStandbyResponse, Reject> {
        let (caller, v1::AddStandbyRequest { mutation, name, node, settings }) = open(request)?;
        let cluster: ClusterName = name.parse()?;
        let (node, values) = (parse("node", &node)?, values(settings)?);
        let wish = Wish::AddStandby { cluster: cluster.clone(), node, values };
        let done = self.change(caller.actor, "ClusterService/AddStandby", mutation, wish).await?;
        let cluster = self.cluster(&cluster);
        Ok(v1::AddStandbyResponse { result: Some(result(&done)), cluster })
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<v1::RemoveMemberResponse, Reject> {
        let (caller, v1::RemoveMemberRequest { mutation, name, node, delete }) = open(request)?;
        let cluster: ClusterName = name.parse()?;
        let node = parse("node", &node)?;
        let wish = Wish::RemoveMember { cluster: cluster.clone(), node, delete };
        let cause = "ClusterService/RemoveMember";
        let done = self.change(caller.actor, cause, mutation, wish).await?;
        let cluster = self.cluster(&cluster);
        Ok(v1::RemoveMemberResponse { result: Some(result(&done)), cluster })
    }

    async fn remove_cluster(
        &self,
        request: Request<v1::RemoveClusterRequest>,
    ) -> Result<v1::RemoveClusterResponse, Reject> {
        let (caller, v1::RemoveClusterRequest { mutation, name, leaving }) = open(request)?;
        let (cluster, leaving) = (name.parse()?, parse("leaving", &leaving)?);
        let wish = Wish::RemoveCluster { cluster, leaving };
        let cause = "ClusterService/RemoveCluster";
        let done = self.change(caller.actor, cause, mutation, wish).await?;
        Ok(v1::RemoveClusterResponse { result: Some(result(&done)) })
    }

    async fn set_cluster_paused(
        &self,
        request: Request<v1::SetClusterPausedRequest>,
    ) -> Result<v1::SetClusterPausedResponse, Reject> {
        let (caller, v1::SetClusterPausedRequest { mutation, name, paused }) = open(request)?;
        let cluster: ClusterName = name.parse()?;
        let wish = Wish::SetClusterPaused { cluster: cluster.clone(), paused };
        let cause = "ClusterService/SetClusterPaused";
        let done = self.change(caller.actor, cause, mutation, wish).await?;
        let cluster = self.cluster(&cluster);
        Ok(v1::SetClusterPausedResponse { result: Some(result(&done)), cluster })
    }

    async fn set_member_admin(
        &self,
        request: Request<v1::SetMemberAdminRequest>,
    ) -> Result<v1::SetMemberAdminResponse, Reject> {
        let (caller, v1::SetMemberAdminRequest { mutation, name, node, admin }) = open(request)?;
        let cluster: ClusterName = name.parse()?;
        let (node, admin): (_, MemberAdmin) = (parse("node", &node)?, parse("admin", &admin)?);
        let wish = Wish::SetMemberAdmin { cluster: cluster.clone(), node, admin };
        let cause = "ClusterService/SetMemberAdmin";
        let done = self.change(caller.actor, cause, mutation, wish).await?;
        let cluster = self.cluster(&cluster);
        Ok(v1::SetMemberAdminResponse { result: Some(result(&done)), cluster })
    }

    async fn reclone(
        &self,
        request: Request<v1::RecloneRequest>,
    ) -> Result<v1::RecloneResponse, Reject> {
        let (caller, v1::RecloneRequest { mutation, name, node }) = open(request)?;
        let cluster: ClusterName = name.parse()?;
        let wish = Wish::Reclone { cluster: cluster.clone(), node: parse("node", &node)? };
        let done = self.change(caller.actor, "ClusterService/Reclone", mutation, wish).await?;
        let cluster = self.cluster(&cluster);
        Ok(v1::RecloneResponse { result: Some(result(&done)), cluster })
    }

    async fn switchover(
        &self,
        request: Request<v1::SwitchoverRequest>,
    ) -> Result<v1::SwitchoverResponse, Reject> {
        let (caller, v1::SwitchoverRequest { mutation, name, to, at }) = open(request)?;
        let cluster: ClusterName = name.parse()?;
        let to = optional("to", &to)?;
        let at = at.as_ref().map(from_wire_time);
        let wish = Wish::Switchover { cluster: cluster.clone(), to, at };
        let done = self.change(caller.actor, "ClusterService/Switchover", mutation, wish).await?;
        let cluster = self.cluster(&cluster);
        Ok(v1::SwitchoverResponse { result: Some(result(&done)), cluster })
    }

    async fn cancel_switchover(
        &self,
        request: Request<v1::CancelSwitchoverRequest>,
    ) -> Result<v1::CancelSwitchoverResponse, Reject> {
        let (caller, v1::CancelSwitchoverRequest { mutation, name }) = open(request)?;
        let cluster: ClusterName = name.parse()?;
        let wish = Wish::CancelSwitchover { cluster: cluster.clone() };
        let cause = "ClusterService/CancelSwitchover";
        let done = self.change(caller.actor, cause, mutation, wish).await?;
        let cluster = self.cluster(&cluster);
        Ok(v1::CancelSwitchoverResponse { result: Some(result(&done)), cluster })
    }

    async fn failover(
        &self,
        request: Request<v1::FailoverRequest>,
    ) -> Result<v1::FailoverResponse, Reject> {
        let (caller, v1::FailoverRequest { mutation, name, to, allow_loss }) = open(request)?;
        let cluster: ClusterName = name.parse()?;
        let to = optional("to", &to)?;
        let wish = Wish::Failover { cluster: cluster.clone(), to, allow_loss };
        let done = self.change(caller.actor, "ClusterService/Failover", mutation, wish).await?;
        let cluster = self.cluster(&cluster);
        Ok(v1::FailoverResponse { result: Some(result(&done)), cluster })
    }

    async fn act_on_cluster(
        &self,
        request: Request<v1::ActOnClusterRequest>,
    ) -> Result<v1::ActOnClusterResponse, Reject> {
        let (caller, request) = open(request)?;
        let v1::ActOnClusterRequest { mutation, name, nodes, act, pending } = request;
        let wish = Wish::ActOnCluster {
            cluster: name.parse()?,
            nodes: parse_each("nodes", MEMBERS_MAX, &nodes)?,
            act: asked_act(&act, pending)?,
            traceparent: current_traceparent(),
        };
        let cause = "ClusterService/ActOnCluster";
        let done = self.change(caller.actor, cause, mutation, wish).await?;
        let tasks = self.tasks(&done.tasks);
        Ok(v1::ActOnClusterResponse { result: Some(result(&done)), tasks })
    }

    fn get_cluster(
        &self,
        request: Request<v1::GetClusterRequest>,
    ) -> Result<v1::GetClusterResponse, Reject> {
        let (_, v1::GetClusterRequest { name }) = open(request)?;
        let name: ClusterName = name.parse()?;
        let cluster = self.cluster(&name).ok_or_else(|| no_cluster(&name))?;
        Ok(v1::GetClusterResponse { cluster: Some(cluster) })
    }

    fn list_failovers(
        &self,
        request: Request<v1::ListFailoversRequest>,
    ) -> Result<v1::ListFailoversResponse, Reject> {
        let (_, v1::ListFailoversRequest { name, limit }) = open(request)?;
        let name: ClusterName = name.parse()?;
        let limit = match limit as usize {
            0 => FAILOVERS_DEFAULT,
            limit => limit.min(Failover::KEPT_MAX as usize),
        };
        self.driver().read(|world| {
            let newest_first = world.failovers_of(&name).rev().take(limit);
            let failovers: Vec<v1::Failover> =
                newest_first.map(|report| (&report.value).into()).collect();
            match failovers.is_empty() && !world.clusters().contains_key(&name) {
                true => Err(no_cluster(&name)),
                false => Ok(v1::ListFailoversResponse { failovers }),
            }
        })
    }

    fn cluster(&self, name: &ClusterName) -> Option<v1::Cluster> {
        self.look(|shown| shown.world.clusters().get(name).map(|one| show::show(shown, one)))
    }

    fn look<T>(&self, look: impl FnOnce(&Shown<'_>) -> T) -> T {
        Shown::of(self.driver(), &self.0.sessions.vault, look)
    }
}

fn no_cluster(name: &ClusterName) -> Reject {
    let message = format!("cluster {name} does not exist: see lockstepctl cluster list");
    Reject::not_found(format!("cluster/{name}"), message)
}
