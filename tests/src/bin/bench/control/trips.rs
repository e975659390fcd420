//! How long it takes from a request of a client until a real agent has answered, or has done it.

use anyhow::{Context, Result};
use lockstep_proto::v1;
use lockstep_proto::v1::log_service_client::LogServiceClient;
use lockstep_proto::v1::node_service_client::NodeServiceClient;
use lockstep_proto::v1::sync_service_client::SyncServiceClient;
use lockstep_tests::Fleet;
use lockstep_tests::wait::timed;
use tokio::time::Instant;
use tonic::Streaming;

use super::{Size, admin, bounded, ms};
use crate::figures::{Figure, Figures};

const SYNC: &str = "www";
/// The node that is pinged, and that becomes a target and ceases to be one.
const NODE: &str = "web2";

pub fn measure(figures: &mut Figures, fleet: &Fleet, size: &Size) -> Result<()> {
    let host = &fleet.controller.host;
    let took = host.block_on(bounded("pings", pings(fleet, size.pings)))??;
    figures.add(Figure::p50("node ping, client to agent and back: p50", "ms", &took).goal(5.0));
    figures.add(Figure::p99("node ping, client to agent and back: p99", "ms", &took));

    let mut took = Vec::new();
    for _ in 0..size.processes {
        let (done, one) = timed(|| fleet.ctl(&["node", "ping", NODE]));
        done?.ok()?;
        took.push(ms(one));
    }
    figures.add(Figure::p50("lockstepctl node ping, the process: p50", "ms", &took).goal(30.0));

    fleet.sync_www("master1", &["web1"])?;
    let took = host.block_on(bounded("tasks", tasks(fleet, size.tasks)))??;
    figures.add(Figure::p50("task, from target added to outcome stored: p50", "ms", &took));
    Ok(())
}

async fn pings(fleet: &Fleet, count: usize) -> Result<Vec<f64>> {
    let mut nodes = NodeServiceClient::new(admin(fleet).await?.1);
    let mut took = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        nodes.ping_node(v1::PingNodeRequest { node: NODE.to_owned() }).await?;
        took.push(ms(began.elapsed()));
    }
    Ok(took)
}

/// From the request that adds a target to the stored outcome of the task which follows on its node.
async fn tasks(fleet: &Fleet, count: usize) -> Result<Vec<f64>> {
    let (_, channel) = admin(fleet).await?;
    let mut syncs = SyncServiceClient::new(channel.clone());
    let watch = v1::WatchLogRequest { after: None, scope: format!("task/{NODE}/") };
    let mut log = LogServiceClient::new(channel).watch_log(watch).await?.into_inner();
    let path = fleet.www(NODE)?.display().to_string();
    let place = v1::Target { node: NODE.to_owned(), at: path, bwlimit: 0 };
    let mut took = Vec::new();
    for _ in 0..count {
        let (sync, targets) = (SYNC.to_owned(), vec![place.clone()]);
        let began = Instant::now();
        syncs.add_targets(v1::AddTargetsRequest { sync, targets, ..Default::default() }).await?;
        task_done(&mut log).await?;
        took.push(ms(began.elapsed()));

        let (sync, nodes) = (SYNC.to_owned(), vec![NODE.to_owned()]);
        syncs
            .remove_targets(v1::RemoveTargetsRequest { sync, nodes, ..Default::default() })
            .await?;
        task_done(&mut log).await?;
    }
    Ok(took)
}

async fn task_done(log: &mut Streaming<v1::WatchLogResponse>) -> Result<()> {
    loop {
        let entry = log.message().await?.and_then(|m| m.entry).context("the log ended")?;
        if entry.writes.iter().any(|write| !write.deleted && write.summary.ends_with(": ok")) {
            return Ok(());
        }
    }
}
