//! Lockstep with its default settings, by the commands that a user types.

use anyhow::{Context, Result, ensure};
use lockstep_tests::clusters::PASSWORD;
use lockstep_tests::{Fleet, Host, Net};

use super::results::Mode;
use super::system::{NODES, Node, System};

const CLUSTER: &str = "main";

pub struct Lockstep {
    fleet: Fleet,
    nodes: Vec<Node>,
}

impl Lockstep {
    pub fn start(net: &Net, mode: Mode) -> Result<Self> {
        let fleet = Fleet::start(net, &NODES)?;
        let sync: &[&str] = match mode {
            Mode::Async => &["--sync", "off"],
            Mode::Sync => &[],
        };
        fleet.create_cluster(CLUSTER, &NODES, sync)?.ok()?;
        let node = |name: &&str| {
            let (host, port) = (fleet.node(name)?.host.clone(), fleet.pg_port(name)?);
            anyhow::Ok(Node { host, port, data: fleet.pg_data(name)? })
        };
        let nodes = NODES.iter().map(node).collect::<Result<_>>()?;
        Ok(Self { fleet, nodes })
    }

    fn ctl(&self, args: &[&str]) -> Result<()> {
        self.fleet.ctl(args)?.ok().map(drop)
    }
}

impl System for Lockstep {
    fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    fn control(&self) -> &Host {
        &self.fleet.controller.host
    }

    fn login(&self) -> String {
        format!("user=lockstep password={PASSWORD} dbname=postgres")
    }

    fn check_well(&self, _client: &Host) -> Result<()> {
        let state = self.fleet.cluster(CLUSTER)?.state.context("no state")?;
        ensure!(state.stage == "steady", "{state:?}");
        Ok(())
    }

    fn switch_over(&mut self) -> Result<()> {
        self.ctl(&["cluster", "switchover", CLUSTER])
    }

    fn reclone(&mut self, node: usize) -> Result<()> {
        let name = NODES.get(node).context("no such node")?;
        self.ctl(&["cluster", "reclone", CLUSTER, name, "--yes"])
    }

    fn boot(&mut self, node: usize) -> Result<()> {
        let host = self.nodes.get(node).context("no such node")?.host.clone();
        self.fleet.run_agent(host)
    }

    fn boot_control(&mut self) -> Result<()> {
        self.fleet.start_controller()
    }
}
