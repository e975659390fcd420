//! NodeService: the machines of the fleet.

use lockstep_model::label::Selector;
use lockstep_model::node::Node;
use lockstep_model::record::Versioned;
use lockstep_model::request::{NodeAction, Request as Wish};
use lockstep_model::{NodeName, Reject, Timestamp};
use lockstep_plan::World;
use lockstep_proto::convert::node::{label_keys, labels, wire_labels};
use lockstep_proto::convert::to_wire_time;
use lockstep_proto::v1;
use lockstep_proto::v1::node_service_server::NodeService;
use lockstep_transport::clock;
use tokio::time::Instant;
use tonic::Request;

use super::{Answer, Api, answer, open, result};

#[tonic::async_trait]
impl NodeService for Api {
    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Answer<v1::ListNodesResponse> {
        answer(self.list_nodes(request))
    }

    async fn get_node(&self, request: Request<v1::GetNodeRequest>) -> Answer<v1::GetNodeResponse> {
        answer(self.get_node(request))
    }

    async fn label_node(
        &self,
        request: Request<v1::LabelNodeRequest>,
    ) -> Answer<v1::LabelNodeResponse> {
        answer(self.label_node(request).await)
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Answer<v1::DrainNodeResponse> {
        let request = request.map(|v1::DrainNodeRequest { mutation, node }| (mutation, node));
        let changed = self.act(request, "NodeService/DrainNode", NodeAction::Drain).await;
        answer(changed.map(|(result, node)| v1::DrainNodeResponse { result, node }))
    }

    async fn resume_node(
        &self,
        request: Request<v1::ResumeNodeRequest>,
    ) -> Answer<v1::ResumeNodeResponse> {
        let request = request.map(|v1::ResumeNodeRequest { mutation, node }| (mutation, node));
        let changed = self.act(request, "NodeService/ResumeNode", NodeAction::Resume).await;
        answer(changed.map(|(result, node)| v1::ResumeNodeResponse { result, node }))
    }

    async fn disable_node(
        &self,
        request: Request<v1::DisableNodeRequest>,
    ) -> Answer<v1::DisableNodeResponse> {
        let request = request.map(|v1::DisableNodeRequest { mutation, node }| (mutation, node));
        let changed = self.act(request, "NodeService/DisableNode", NodeAction::Disable).await;
        answer(changed.map(|(result, node)| v1::DisableNodeResponse { result, node }))
    }

    async fn enable_node(
        &self,
        request: Request<v1::EnableNodeRequest>,
    ) -> Answer<v1::EnableNodeResponse> {
        let request = request.map(|v1::EnableNodeRequest { mutation, node }| (mutation, node));
        let changed = self.act(request, "NodeService/EnableNode", NodeAction::Enable).await;
        answer(changed.map(|(result, node)| v1::EnableNodeResponse { result, node }))
    }

    async fn expel_node(
        &self,
        request: Request<v1::ExpelNodeRequest>,
    ) -> Answer<v1::ExpelNodeResponse> {
        let request = request.map(|v1::ExpelNodeRequest { mutation, node }| (mutation, node));
        let changed = self.act(request, "NodeService/ExpelNode", NodeAction::Expel).await;
        answer(changed.map(|(result, node)| v1::ExpelNodeResponse { result, node }))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Answer<v1::RemoveNodeResponse> {
        answer(self.remove_node(request).await)
    }

    async fn ping_node(
        &self,
        request: Request<v1::PingNodeRequest>,
    ) -> Answer<v1::PingNodeResponse> {
        answer(self.ping_node(request).await)
    }
}

impl Api {
    fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<v1::ListNodesResponse, Reject> {
        let (_, v1::ListNodesRequest { selector }) = open(request)?;
        let selector: Option<Selector> =
            (!selector.is_empty()).then(|| selector.parse()).transpose()?;
        let now = clock::now();
        Ok(self.driver().read(|world| {
            let chosen = |node: &&Versioned<Node>| {
                selector.as_ref().is_none_or(|selector| selector.matches(&node.value.labels))
            };
            let nodes = world.nodes().values().filter(chosen);
            v1::ListNodesResponse {
                nodes: nodes.map(|node| show(world, node, now)).collect(),
                revision: world.revision().0,
            }
        }))
    }

    fn get_node(
        &self,
        request: Request<v1::GetNodeRequest>,
    ) -> Result<v1::GetNodeResponse, Reject> {
        let (_, v1::GetNodeRequest { node }) = open(request)?;
        let name: NodeName = node.parse()?;
        let node = self.node(&name).ok_or_else(|| {
            let message = format!("node {name} does not exist: see lockstepctl node list");
            Reject::not_found(format!("node/{name}"), message)
        })?;
        Ok(v1::GetNodeResponse { node: Some(node) })
    }

    async fn label_node(
        &self,
        request: Request<v1::LabelNodeRequest>,
    ) -> Result<v1::LabelNodeResponse, Reject> {
        let (caller, v1::LabelNodeRequest { mutation, node, set, remove }) = open(request)?;
        let node: NodeName = node.parse()?;
        let set = labels(set)?.into_iter().collect();
        let remove = label_keys(&remove)?;
        let wish = Wish::LabelNode { node: node.clone(), set, remove };
        let done = self.change(caller.actor, "NodeService/LabelNode", mutation, wish).await?;
        Ok(v1::LabelNodeResponse { result: Some(result(&done)), node: self.node(&node) })
    }

    async fn act(
        &self,
        request: Request<(Option<v1::Mutation>, String)>,
        cause: &'static str,
        action: NodeAction,
    ) -> Result<(Option<v1::Result>, Option<v1::Node>), Reject> {
        let (caller, (mutation, node)) = open(request)?;
        let node: NodeName = node.parse()?;
        let wish = Wish::ChangeNode { node: node.clone(), action };
        let done = self.change(caller.actor, cause, mutation, wish).await?;
        Ok((Some(result(&done)), self.node(&node)))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<v1::RemoveNodeResponse, Reject> {
        let (caller, v1::RemoveNodeRequest { mutation, node }) = open(request)?;
        let wish = Wish::RemoveNode { node: node.parse()? };
        let done = self.change(caller.actor, "NodeService/RemoveNode", mutation, wish).await?;
        Ok(v1::RemoveNodeResponse { result: Some(result(&done)) })
    }

    async fn ping_node(
        &self,
        request: Request<v1::PingNodeRequest>,
    ) -> Result<v1::PingNodeResponse, Reject> {
        let (_, v1::PingNodeRequest { node }) = open(request)?;
        let node: NodeName = node.parse()?;
        if !self.driver().read(|world| world.nodes().contains_key(&node)) {
            let message = format!("node {node} does not exist: see lockstepctl node list");
            return Err(Reject::not_found(format!("node/{node}"), message));
        }
        let start = Instant::now();
        self.driver().sessions().ping(&node).await?;
        let round_trip_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(v1::PingNodeResponse { round_trip_us })
    }

    fn node(&self, name: &NodeName) -> Option<v1::Node> {
        let now = clock::now();
        self.driver().read(|world| world.nodes().get(name).map(|node| show(world, node, now)))
    }
}

/// The record, and what is known of its agent.
fn show(world: &World, node: &Versioned<Node>, now: Timestamp) -> v1::Node {
    let Versioned { revision, value: node } = node;
    let Node { name, labels, admin, key_hash, addresses, created_at } = node;
    let status = world.node_health(name, now);
    let seen = world.seen(name);
    v1::Node {
        name: name.to_string(),
        labels: wire_labels(labels),
        admin: v1::NodeAdmin::from(*admin).into(),
        health: v1::NodeHealth::from(status.health).into(),
        health_since: status.since.map(to_wire_time),
        health_reason: status.why,
        last_contact_at: seen.map(|seen| to_wire_time(seen.last_contact_at)),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        key_sha256: key_hash.to_string(),
        created_at: Some(to_wire_time(*created_at)),
        report: seen.and_then(|seen| seen.report.clone()).map(Into::into),
        revision: revision.0,
    }
}
