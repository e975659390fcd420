//! A controller and agents on hosts, set up by the commands that a user types. It asserts nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::bins::Bins;
use crate::host::Host;
use crate::net::Net;
use crate::proc::{Output, Proc, cmd};

const CONTROLLER_PORT: u16 = 7400;

pub struct Fleet {
    pub controller: Member,
    nodes: BTreeMap<String, Member>,
    net: Net,
    bins: Bins,
}

/// A host with the Lockstep daemon on it.
pub struct Member {
    pub host: Host,
    pub daemon: Proc,
}

impl Member {
    fn data_dir(host: &Host) -> PathBuf {
        host.path("data")
    }
}

impl Fleet {
    /// A controller and one joined agent per name. Nobody waits yet for the nodes to be healthy.
    pub fn start(net: &Net, nodes: &[&str]) -> Result<Self> {
        let bins = Bins::find()?;
        let host = net.host("controller")?;
        let listen = host.at(CONTROLLER_PORT).to_string();
        let mut init = cmd(bins.controller());
        init.arg("init").arg("--data-dir").arg(Member::data_dir(&host));
        host.run(init.args(["--listen", &listen, "--name", "test"]))?.ok()?;
        let daemon = run_controller(&bins, &host)?;
        let controller = Member { host, daemon };
        let mut fleet = Self { controller, nodes: BTreeMap::new(), net: net.clone(), bins };
        for name in nodes {
            fleet.add_node(name)?;
        }
        Ok(fleet)
    }

    /// A new host whose agent joins with a fresh token and runs.
    pub fn add_node(&mut self, name: &str) -> Result<&mut Member> {
        let token = self.ctl(&["token", "create", "--node", name])?.ok()?;
        let host = self.net.host(name)?;
        fs::create_dir_all(Member::data_dir(&host))?;
        let controller = self.controller.host.at(CONTROLLER_PORT).to_string();
        let mut join = cmd(self.bins.agent());
        join.arg("join").arg("--data-dir").arg(Member::data_dir(&host));
        host.run(join.args(["--controller", &controller, "--token", token.trim()]))?.ok()?;
        let daemon = run_agent(&self.bins, &host)?;
        Ok(self.nodes.entry(name.to_owned()).or_insert(Member { host, daemon }))
    }

    pub fn node(&mut self, name: &str) -> Result<&mut Member> {
        self.nodes.get_mut(name).with_context(|| format!("no node {name} in this fleet"))
    }

    /// `lockstepctl` as the first admin, on the controller's host.
    pub fn ctl(&self, args: &[&str]) -> Result<Output> {
        self.controller.host.run(cmd(self.bins.ctl()).args(args))
    }

    /// Starts the controller again after it was killed.
    pub fn restart_controller(&mut self) -> Result<()> {
        self.controller.daemon = run_controller(&self.bins, &self.controller.host)?;
        Ok(())
    }

    /// Starts a node's agent again after it was killed.
    pub fn restart_agent(&mut self, name: &str) -> Result<()> {
        let bins = self.bins.clone();
        let node = self.node(name)?;
        node.daemon = run_agent(&bins, &node.host)?;
        Ok(())
    }
}

fn run_controller(bins: &Bins, host: &Host) -> Result<Proc> {
    host.spawn(cmd(bins.controller()).arg("run").arg("--data-dir").arg(Member::data_dir(host)))
}

fn run_agent(bins: &Bins, host: &Host) -> Result<Proc> {
    host.spawn(cmd(bins.agent()).arg("run").arg("--data-dir").arg(Member::data_dir(host)))
}
