//! The site's own proof that another node is off: a program in the hook directory. Exit 0, and nothing
//! else, means off.

use std::ffi::OsStr;
use std::path::Path;

use lockstep_model::cluster::ClusterPlace;
use lockstep_model::{Millis, NodeName};
use tokio_util::sync::CancellationToken;

use crate::hook::{self, Call};
use crate::host::Host;
use crate::runner::Output;

#[derive(Clone, Copy)]
pub struct Fence<'a> {
    pub host: &'a Host,
    pub hook_dir: &'a Path,
    pub place: &'a ClusterPlace,
    /// The one that is to be off.
    pub node: &'a NodeName,
    pub limit: Millis,
}

/// Err: it is not known to be off; why.
pub async fn run(
    fence: &Fence<'_>,
    stop: &CancellationToken,
    output: &Output,
) -> Result<(), String> {
    let Fence { place, node, .. } = fence;
    let name = place.options.failover.external_fence.as_ref();
    let name = name.ok_or("no external-fence is set for this cluster")?;
    let peer = place.peers.iter().find(|peer| peer.peer.node == **node);
    let peer = peer.ok_or_else(|| format!("{node} is no other member"))?;
    let host = peer.postgres.host();
    let environment: [(&str, &OsStr); 3] = [
        ("LOCKSTEP_CLUSTER", place.cluster.as_str().as_ref()),
        ("LOCKSTEP_FENCE_NODE", node.as_str().as_ref()),
        ("LOCKSTEP_FENCE_HOST", host.as_ref()),
    ];
    let call = Call { name, environment: &environment, limit: fence.limit.into() };
    let ran = hook::run(fence.host, fence.hook_dir, &call, stop).await;
    let ran = ran.ok_or("the fence was stopped")?;
    ran.output.lines().for_each(|line| output.line(line));
    ran.problem.map_or(Ok(()), Err)
}
