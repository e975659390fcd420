//! StatusService: the fleet at a glance, and who the caller is.

use lockstep_model::identity::Subject;
use lockstep_model::record::Actor;
use lockstep_proto::convert::to_wire_time;
use lockstep_proto::v1;
use lockstep_proto::v1::status_service_server::StatusService;
use tonic::Request;

use super::{Answer, Api, answer};
use crate::authn::Caller;
use crate::{FEATURES, VERSION};

#[tonic::async_trait]
impl StatusService for Api {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Answer<v1::GetStatusResponse> {
        let caller = Caller::of(&request);
        let connected = self.driver().sessions().count();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        answer(caller.map(|Caller { actor, principal: _ }| {
            self.driver().read(|world| {
                let fleet = world.fleet().map(|fleet| &fleet.value);
                let role = match &actor {
                    Actor::Subject(Subject::User(name)) => world.users().get(name),
                    _ => None,
                };
                v1::GetStatusResponse {
                    fleet: fleet.map(|fleet| fleet.name.to_string()).unwrap_or_default(),
                    version: VERSION.to_owned(),
                    features: FEATURES.map(str::to_owned).to_vec(),
                    revision: world.revision().0,
                    incarnation: fleet.map(|f| f.incarnation.to_string()).unwrap_or_default(),
                    started_at: Some(to_wire_time(self.0.started_at)),
                    nodes: count(world.nodes().len()),
                    nodes_connected: count(connected),
                    syncs: count(world.syncs().len()),
                    tasks_live: count(world.tasks().filter(|task| task.value.is_live()).count()),
                    caller: actor.to_string(),
                    old_copy: world.store_behind().map(|b| b.to_string()).unwrap_or_default(),
                    caller_role: role.map(|user| user.value.role.to_string()).unwrap_or_default(),
                }
            })
        }))
    }
}
