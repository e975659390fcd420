//! The control plane: what the controller takes with many idle agents and how fast they are back, an
//! agent's own size, and round trips of pings, tasks and commits.

mod commits;
mod idle;
mod trips;

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use lockstep_model::HostPort;
use lockstep_tests::fleet::CONTROLLER_PORT;
use lockstep_tests::{Fleet, Net};
use lockstep_transport::dial;
use lockstep_transport::identity::{IdentityHandle, disk};
use lockstep_transport::tls::Caller;
use lockstep_transport::verify::Expect;
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::Part;
use crate::figures::Figures;
use crate::process::allow_open_files;

/// For any one thing that is measured; far above what it takes.
const WITHIN: Duration = Duration::from_secs(300);
/// Of the bench and of the controller, apart from the agents' streams.
const OTHER_FILES_MAX: usize = 256;

/// How much is measured.
struct Size {
    agents: usize,
    /// Of the time in which nothing happens.
    windows: usize,
    window: Duration,
    cuts: usize,
    restarts: usize,
    pings: usize,
    processes: usize,
    tasks: usize,
    commits: usize,
}

const FULL: Size = Size {
    agents: 500,
    windows: 6,
    window: Duration::from_secs(5),
    cuts: 5,
    restarts: 5,
    pings: 1000,
    processes: 100,
    tasks: 50,
    commits: 1000,
};

const QUICK: Size = Size {
    agents: 100,
    windows: 5,
    window: Duration::from_secs(1),
    cuts: 2,
    restarts: 2,
    pings: 200,
    processes: 30,
    tasks: 10,
    commits: 200,
};

pub const PARTS: &[Part] = &[
    Part { name: "commits", run: |figures, quick| commits::measure(figures, size(quick)) },
    Part { name: "nodes", run: measure_nodes },
    Part { name: "crowd", run: measure_crowd },
];

fn size(quick: bool) -> &'static Size {
    if quick { &QUICK } else { &FULL }
}

fn measure_nodes(figures: &mut Figures, quick: bool) -> Result<()> {
    let few = Net::new()?;
    let nodes = ["master1", "web1", "web2"];
    let fleet = Fleet::start(&few, &nodes)?;
    fleet.wait_healthy(&nodes);
    idle::measure_agents(figures, &fleet, &nodes, size(quick))?;
    trips::measure(figures, &fleet, size(quick))
}

/// With a controller of its own, so that what it takes is for the crowd alone.
fn measure_crowd(figures: &mut Figures, quick: bool) -> Result<()> {
    let size = size(quick);
    // Before the controller starts: it inherits the limit.
    allow_open_files((2 * size.agents + OTHER_FILES_MAX) as u64)?;
    let many = Net::new()?;
    idle::measure_crowd(figures, &many, Fleet::start(&many, &[])?, size)
}

/// The controller's address, and a channel to it as the first admin.
pub async fn admin(fleet: &Fleet) -> Result<(HostPort, Channel)> {
    let host = &fleet.controller.host;
    let identity = IdentityHandle::new(disk::load(&host.path("ctl/contexts/test"))?);
    let at: HostPort = host.at(CONTROLLER_PORT).to_string().parse()?;
    let caller = Caller::Member { identity, expect: Expect::Controller };
    let channel = dial::connect(std::slice::from_ref(&at), &caller).await?;
    Ok((at, channel))
}

async fn bounded<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(WITHIN, work).await.with_context(|| format!("{what}: not done in {WITHIN:?}"))?
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
