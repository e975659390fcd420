//! The control plane: what the controller takes with many idle agents, how fast they are back, an
//! agent's own size, and round trips of pings, tasks and commits.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_controller::store::Store;
use lockstep_controller::store::SledStore;
use lockstep_model::identity::{Role, User};
use lockstep_model::record::{Actor, Record, Txn, Write};
use lockstep_model::{HostPort, Revision, Timestamp};
use lockstep_proto::v1;
use lockstep_proto::v1::log_service_client::LogServiceClient;
use lockstep_proto::v1::node_service_client::NodeServiceClient;
use lockstep_tests::fleet::CONTROLLER_PORT;
use lockstep_tests::wait::timed;
use lockstep_tests::{Fleet, Net, try_until, until};
use lockstep_transport::dial;
use lockstep_transport::identity::{IdentityHandle, disk};
use lockstep_transport::tls::Caller;
use lockstep_transport::verify::Expect;
use tokio::time::Instant;
use tonic::transport::Channel;

use crate::crowd::Crowd;
use crate::figures::Figures;
use crate::process::{cpu_percent, rss_mib};

const SOON: Duration = Duration::from_secs(60);

/// How much is measured.
struct Size {
    agents: usize,
    reconnects: usize,
    idle: Duration,
    pings: usize,
    processes: usize,
    tasks: usize,
    commits: usize,
}

const FULL: Size = Size {
    agents: 500,
    reconnects: 5,
    idle: Duration::from_secs(30),
    pings: 1000,
    processes: 100,
    tasks: 50,
    commits: 1000,
};

const QUICK: Size = Size {
    agents: 500,
    reconnects: 2,
    idle: Duration::from_secs(10),
    pings: 200,
    processes: 30,
    tasks: 10,
    commits: 200,
};

pub fn run(figures: &mut Figures, quick: bool) -> Result<()> {
    let size = if quick { QUICK } else { FULL };
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    fleet.wait_healthy(&["master1", "web1"]);
    one_agent(figures, &fleet, &size)?;
    round_trips(figures, &fleet, &size)?;
    commits(figures, &size)?;
    crowd(figures, &net, &fleet, &size)
}

/// Nothing happens for so long.
fn rest(over: Duration) {
    try_until(over, "nothing", || false).ok();
}

fn one_agent(figures: &mut Figures, fleet: &Fleet, size: &Size) -> Result<()> {
    let controller = fleet.controller.daemon.pid();
    figures.once("controller, two agents: memory", "MiB", None, rss_mib(controller)?);
    let agent = fleet.node("web1")?.daemon.pid();
    let cpu = cpu_percent(agent, size.idle / 2, rest)?;
    figures.once("idle agent: CPU", "%", None, cpu);
    figures.once("idle agent: memory", "MiB", Some(15.0), rss_mib(agent)?);
    Ok(())
}

/// As the first admin.
async fn admin(fleet: &Fleet) -> Result<(HostPort, Channel)> {
    let host = &fleet.controller.host;
    let identity = IdentityHandle::new(disk::load(&host.path("ctl/contexts/test"))?);
    let at: HostPort = host.at(CONTROLLER_PORT).to_string().parse()?;
    let caller = Caller::Member { identity, expect: Expect::Controller };
    let channel = dial::connect(std::slice::from_ref(&at), &caller).await?;
    Ok((at, channel))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn round_trips(figures: &mut Figures, fleet: &Fleet, size: &Size) -> Result<()> {
    let pings = fleet.controller.host.block_on(async {
        let mut nodes = NodeServiceClient::new(admin(fleet).await?.1);
        let mut took = Vec::new();
        for _ in 0..size.pings {
            let began = Instant::now();
            nodes.ping_node(v1::PingNodeRequest { node: "web1".to_owned() }).await?;
            took.push(ms(began.elapsed()));
        }
        anyhow::Ok(took)
    })??;
    figures.percentile("ping, client to agent and back: p50", "ms", Some(5.0), 50, pings.clone());
    figures.percentile("ping, client to agent and back: p99", "ms", None, 99, pings);

    let mut processes = Vec::new();
    for _ in 0..size.processes {
        let (done, took) = timed(|| fleet.ctl(&["node", "ping", "web1"]));
        done?.ok()?;
        processes.push(ms(took));
    }
    figures.percentile(
        "lockstepctl node ping, whole process: p50",
        "ms",
        Some(30.0),
        50,
        processes,
    );

    fleet.sync_www("master1", &["web1"])?;
    let tasks = fleet.controller.host.block_on(task_round_trips(fleet, size.tasks))??;
    figures.percentile("task: asked, done on the node, stored: p50", "ms", None, 50, tasks.clone());
    figures.percentile("task: asked, done on the node, stored: p99", "ms", None, 99, tasks);
    Ok(())
}

/// From a request that changes a node's assignment to the stored outcome of the task that follows.
async fn task_round_trips(fleet: &Fleet, count: usize) -> Result<Vec<f64>> {
    let (_, channel) = admin(fleet).await?;
    let mut nodes = NodeServiceClient::new(channel.clone());
    let scope = "task/web1/".to_owned();
    let watch = v1::WatchLogRequest { after: None, scope };
    let mut log = LogServiceClient::new(channel).watch_log(watch).await?.into_inner();
    let mut took = Vec::new();
    for n in 0..count {
        let began = Instant::now();
        let node = "web1".to_owned();
        if n % 2 == 0 {
            nodes.drain_node(v1::DrainNodeRequest { node, ..Default::default() }).await?;
        } else {
            nodes.resume_node(v1::ResumeNodeRequest { node, ..Default::default() }).await?;
        }
        loop {
            let entry = log.message().await?.and_then(|m| m.entry).context("the log ended")?;
            if entry.writes.iter().any(|write| !write.deleted && write.summary.ends_with(": ok")) {
                break;
            }
        }
        took.push(ms(began.elapsed()));
    }
    Ok(took)
}

/// On this machine's disk, through the store's own door.
fn commits(figures: &mut Figures, size: &Size) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store: Arc<dyn Store> = Arc::new(SledStore::create(dir.path())?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let took = runtime.block_on(async {
        let mut took = Vec::new();
        for n in 0..size.commits as u64 {
            let user = User {
                name: format!("user-{}", n % 50).parse()?,
                role: Role::Viewer,
                disabled: false,
                key_hash: None,
                created_at: Timestamp(n),
            };
            let txn = Txn {
                base: Revision(n),
                raise_to: Revision::ZERO,
                at: Timestamp(n),
                actor: Actor::Offline,
                cause: "bench".to_owned(),
                writes: vec![Write::Put(Record::User(user))],
            };
            let began = Instant::now();
            store.commit(txn).await?;
            took.push(ms(began.elapsed()));
        }
        anyhow::Ok(took)
    })?;
    figures.percentile("sled commit, flushed: p50", "ms", None, 50, took.clone());
    figures.percentile("sled commit, flushed: p99", "ms", None, 99, took);
    Ok(())
}

fn crowd(figures: &mut Figures, net: &Net, fleet: &Fleet, size: &Size) -> Result<()> {
    let host = net.host("crowd")?;
    let pid = fleet.controller.daemon.pid();
    let count = size.agents;
    // The bench's own agents are measured by nobody, so they live on threads of their own.
    host.enter(|| -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let began = Instant::now();
        let crowd = runtime.block_on(async {
            let (at, channel) = admin(fleet).await?;
            Crowd::join(&at, &channel, count).await
        })?;
        figures.once(format!("{count} agents join"), "s", None, began.elapsed().as_secs_f64());
        let mut connects = Vec::new();
        for _ in 0..size.reconnects {
            let began = Instant::now();
            let mut connected = runtime.block_on(crowd.connect())?;
            connects.push(began.elapsed().as_secs_f64());
            runtime.block_on(async { connected.check() })?;
            // Streams cut at once, as by a lost controller; the next round begins when that is known.
            drop(connected);
            until(SOON, "the controller knows that they are gone", || connected_now(fleet, 2));
        }
        figures.percentile(format!("{count} agents reconnect at once"), "s", None, 50, connects);

        let mut connected = runtime.block_on(crowd.connect())?;
        until(SOON, "the controller knows all of them", || connected_now(fleet, count + 2));
        rest(size.idle / 5);
        let cpu = cpu_percent(pid, size.idle, rest)?;
        runtime.block_on(async { connected.check() })?;
        figures.once(format!("controller, {count} idle agents: CPU"), "%", None, cpu);
        figures.once(
            format!("controller, {count} idle agents: memory"),
            "MiB",
            None,
            rss_mib(pid)?,
        );
        Ok(())
    })?
}

fn connected_now(fleet: &Fleet, wanted: usize) -> Result<()> {
    let status: v1::GetStatusResponse = fleet.ask(&["status"])?;
    ensure!(status.nodes_connected as usize == wanted, "{} are connected", status.nodes_connected);
    Ok(())
}
