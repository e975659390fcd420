//! Whom a person means by a target, asking the controller for its nodes only where addresses are
//! written.

use lockstep_model::path::DirPath;
use lockstep_model::sync::Target;
use lockstep_model::{HostPort, NodeName};
use lockstep_proto::v1;

use crate::args::sync::Transport;
use crate::client::Client;
use crate::error::Failure;
use crate::target::{Known, Wanted};

/// Where targets without a path get their copy: as the selected ones, else as at the source.
pub fn default_path(sync: &v1::Sync) -> Result<DirPath, Failure> {
    let selected = sync.selected.as_ref().map(|selected| &selected.path);
    let source = sync.source.as_ref().map(|source| &source.path);
    Ok(selected.or(source).cloned().unwrap_or_default().parse()?)
}

pub async fn resolve(
    client: &Client,
    wanted: &[Wanted],
    path: &DirPath,
    transport: Transport,
) -> Result<Vec<Target>, Failure> {
    let known = known_for(client, wanted).await?;
    let target = |wanted: &Wanted| wanted.target(path, transport, &known).map_err(Failure::from);
    wanted.iter().map(target).collect()
}

/// The names of targets that a sync has.
pub async fn names(
    client: &Client,
    wanted: &[Wanted],
    sync: &v1::Sync,
) -> Result<Vec<String>, Failure> {
    let known = known_for(client, wanted).await?;
    let there: Vec<NodeName> = sync.targets.iter().filter_map(|t| node(t).parse().ok()).collect();
    let name = |wanted: &Wanted| match wanted.name(&there, &known) {
        Ok(name) => Ok(name.to_string()),
        Err(problem) => Err(problem.into()),
    };
    wanted.iter().map(name).collect()
}

pub async fn known_for(client: &Client, wanted: &[Wanted]) -> Result<Known, Failure> {
    if !wanted.iter().any(Wanted::may_be_address) {
        return Ok(Known::new());
    }
    all_nodes(client).await
}

pub async fn all_nodes(client: &Client) -> Result<Known, Failure> {
    let answer = client.nodes().list_nodes(v1::ListNodesRequest::default()).await?.into_inner();
    let known = answer.nodes.iter().filter_map(|node| {
        let host = |address: &String| {
            let plain = address.split_once('=').map_or(address.as_str(), |(_, plain)| plain);
            Some(plain.parse::<HostPort>().ok()?.host().to_owned())
        };
        Some((node.name.parse().ok()?, node.addresses.iter().filter_map(host).collect()))
    });
    Ok(known.collect())
}

pub fn node(target: &v1::SyncTargetStatus) -> &str {
    target.target.as_ref().map_or("", |target| &target.node)
}

pub fn has_agent(target: &v1::SyncTargetStatus) -> bool {
    target.target.as_ref().is_some_and(|target| target.at.starts_with('/'))
}
