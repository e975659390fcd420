//! `lockstepctl node …`.

use lockstep_model::label::{LabelKey, parse_label};
use lockstep_proto::v1;

use super::tell;
use crate::args::{Change, NodeChange, NodeCommand};
use crate::client::Client;
use crate::error::Failure;
use crate::{render, wait};

pub async fn run(client: &Client, command: NodeCommand) -> Result<(), Failure> {
    let mut nodes = client.nodes();
    match command {
        NodeCommand::List { selector } => {
            let request = v1::ListNodesRequest { selector: selector.unwrap_or_default() };
            let answer = nodes.list_nodes(request).await?.into_inner();
            render::show(client.format, &answer, || table(&answer.nodes))
        }
        NodeCommand::Show { node } => {
            let request = v1::GetNodeRequest { node: node.to_string() };
            let node = nodes.get_node(request).await?.into_inner().node.unwrap_or_default();
            render::show(client.format, &node, || details(&node))
        }
        NodeCommand::Label { node, labels, change } => {
            let mut request = v1::LabelNodeRequest {
                mutation: change.mutation()?,
                node: node.to_string(),
                ..Default::default()
            };
            for text in &labels {
                match text.strip_suffix('-') {
                    Some(key) if !text.contains('=') => {
                        request.remove.push(key.parse::<LabelKey>()?.to_string());
                    }
                    _ => {
                        let (key, value) = parse_label(text)?;
                        request.set.insert(key.to_string(), value);
                    }
                }
            }
            let answer = nodes.label_node(request).await?.into_inner();
            shown(client, &change, answer.result, answer.node)
        }
        NodeCommand::Drain(NodeChange { node, change }) => {
            let request =
                v1::DrainNodeRequest { mutation: change.mutation()?, node: node.to_string() };
            let answer = nodes.drain_node(request).await?.into_inner();
            shown(client, &change, answer.result, answer.node)
        }
        NodeCommand::Resume(NodeChange { node, change }) => {
            let request =
                v1::ResumeNodeRequest { mutation: change.mutation()?, node: node.to_string() };
            let answer = nodes.resume_node(request).await?.into_inner();
            shown(client, &change, answer.result, answer.node)
        }
        NodeCommand::Disable(NodeChange { node, change }) => {
            let request =
                v1::DisableNodeRequest { mutation: change.mutation()?, node: node.to_string() };
            let answer = nodes.disable_node(request).await?.into_inner();
            shown(client, &change, answer.result, answer.node)
        }
        NodeCommand::Enable(NodeChange { node, change }) => {
            let request =
                v1::EnableNodeRequest { mutation: change.mutation()?, node: node.to_string() };
            let answer = nodes.enable_node(request).await?.into_inner();
            shown(client, &change, answer.result, answer.node)
        }
        NodeCommand::Expel { of: NodeChange { node, change }, yes } => {
            let what =
                format!("Node {node} will be cut off for ever; to come back it must join anew.");
            wait::confirm(yes || change.dry_run, &what)?;
            let request =
                v1::ExpelNodeRequest { mutation: change.mutation()?, node: node.to_string() };
            let answer = nodes.expel_node(request).await?.into_inner();
            shown(client, &change, answer.result, answer.node)
        }
        NodeCommand::Remove { of: NodeChange { node, change }, yes } => {
            wait::confirm(yes || change.dry_run, &format!("Node {node} will be forgotten."))?;
            let request =
                v1::RemoveNodeRequest { mutation: change.mutation()?, node: node.to_string() };
            let answer = nodes.remove_node(request).await?.into_inner();
            tell(answer.result.as_ref(), change.dry_run);
            Ok(())
        }
        NodeCommand::Ping { node, count } => {
            for _ in 0..count {
                let request = v1::PingNodeRequest { node: node.to_string() };
                let answer = nodes.ping_node(request).await?.into_inner();
                render::show_next(client.format, &answer, || {
                    format!("{node} answered in {:.2} ms", answer.round_trip_us as f64 / 1000.0)
                })?;
            }
            Ok(())
        }
    }
}

fn shown(
    client: &Client,
    change: &Change,
    result: Option<v1::Result>,
    node: Option<v1::Node>,
) -> Result<(), Failure> {
    tell(result.as_ref(), change.dry_run);
    let node = node.unwrap_or_default();
    render::show(client.format, &node, || table(std::slice::from_ref(&node)))
}

fn health(node: &v1::Node) -> String {
    render::word(node.health().as_str_name(), "NODE_HEALTH_")
}

fn admin(node: &v1::Node) -> String {
    render::word(node.admin().as_str_name(), "NODE_ADMIN_")
}

fn table(nodes: &[v1::Node]) -> String {
    render::table(
        &["name", "health", "since", "admin", "version", "labels", "address"],
        nodes.iter().map(|node| {
            let version = node.report.as_ref().map_or("", |r| r.version.as_str());
            [
                node.name.clone(),
                health(node),
                render::ago(node.health_since.as_ref()),
                admin(node),
                render::or_dash(version),
                render::labels(&node.labels),
                render::or_dash(node.addresses.first().map_or("", String::as_str)),
            ]
        }),
    )
}

fn details(node: &v1::Node) -> String {
    let report = node.report.clone().unwrap_or_default();
    let tools: Vec<String> = report
        .tools
        .iter()
        .map(|t| {
            let version = if t.version.is_empty() { "not found" } else { &t.version };
            format!("{} {version}", t.name)
        })
        .collect();
    render::fields([
        ("name", node.name.clone()),
        ("health", format!("{} since {}", health(node), render::time(node.health_since.as_ref()))),
        ("why", node.health_reason.clone()),
        ("admin", admin(node)),
        ("labels", render::labels(&node.labels)),
        ("addresses", node.addresses.join(", ")),
        ("agent", report.version),
        ("tools", tools.join(", ")),
        ("warnings", report.warnings.join("; ")),
        ("last contact", render::ago(node.last_contact_at.as_ref())),
        ("joined", render::time(node.created_at.as_ref())),
        ("key", node.key_sha256.clone()),
        ("revision", node.revision.to_string()),
    ])
}
