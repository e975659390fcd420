//! A controller and agents on hosts, set up by the commands that a user types. It waits until they
//! are ready; what they do then is the test's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use serde::de::DeserializeOwned;

use crate::bins::Bins;
use crate::clock;
use crate::host::Host;
use crate::http::{self, Reply};
use crate::net::Net;
use crate::proc::{Output, Proc, cmd};
use crate::wait::until;

pub const CONTROLLER_PORT: u16 = 7400;
pub const CONTROLLER_HEALTH_PORT: u16 = 7401;
pub const AGENT_HEALTH_PORT: u16 = 7403;
/// How long a daemon may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(90);

pub struct Fleet {
    pub controller: Member,
    nodes: BTreeMap<String, Member>,
    net: Net,
    bins: Bins,
    flags: Flags,
}

/// Further flags of the programs of a fleet, and what its hosts are like.
#[derive(Clone, Default, Debug)]
pub struct Flags {
    /// Of `lockstep-controller run`.
    pub controller: Vec<String>,
    /// Of `lockstep-agent run`.
    pub agent: Vec<String>,
    /// Of every `lockstepctl`.
    pub ctl: Vec<String>,
    /// Every host has these directories on formatted disks of their own, of so many bytes.
    pub disks: Vec<(&'static str, u64)>,
    /// Daemons read clocks that [`clock::set`] moves.
    pub clocks: bool,
}

/// A host with the Lockstep daemon on it.
pub struct Member {
    pub host: Host,
    pub daemon: Proc,
    health: SocketAddr,
}

impl Fleet {
    /// A controller with its first admin logged in, and a joined agent per name.
    pub fn start(net: &Net, nodes: &[&str]) -> Result<Self> {
        Self::start_with(net, nodes, Flags::default())
    }

    pub fn start_with(net: &Net, nodes: &[&str], flags: Flags) -> Result<Self> {
        let bins = Bins::find()?;
        let host = flags.host(net, "controller")?;
        let listen = host.at(CONTROLLER_PORT).to_string();
        let mut init = cmd(bins.controller());
        init.arg("init").arg("--data-dir").arg(host.path("data"));
        let token = host.run(init.args(["--listen", &listen, "--name", "test"]))?.ok()?;
        let controller = Member::controller(&bins, host, &flags)?;
        controller.wait_ready();
        let nodes_wanted = nodes;
        let nodes = BTreeMap::new();
        let mut fleet = Self { controller, nodes, net: net.clone(), bins, flags };

        let mut login = fleet.ctl_command();
        login.args(["login", "--controller", &listen, "--token", "-"]);
        fleet.controller.host.run_with(&mut login, &token)?.ok()?;
        for name in nodes_wanted {
            fleet.add_node(name)?;
        }
        Ok(fleet)
    }

    /// A new host whose agent joins with a token of its own and runs.
    pub fn add_node(&mut self, name: &str) -> Result<&mut Member> {
        let token = self.token(name)?;
        let host = self.flags.host(&self.net, name)?;
        self.join(&host, &token)?.ok()?;
        self.run_agent(host)?;
        self.node_mut(name)
    }

    /// Runs an agent on a host that has joined; it takes the place of one of the same name.
    pub fn run_agent(&mut self, host: Host) -> Result<()> {
        let health = host.at(AGENT_HEALTH_PORT);
        self.run_agent_at(host, health)
    }

    /// As [`Fleet::run_agent`], with its health told elsewhere.
    pub fn run_agent_at(&mut self, host: Host, health: SocketAddr) -> Result<()> {
        self.start_agent(cmd(self.bins.agent()), host, health)
    }

    /// As [`Fleet::run_agent`], by a program that takes the agent and its arguments.
    pub fn run_agent_by(&mut self, mut wrapper: Command, host: Host) -> Result<()> {
        wrapper.arg(self.bins.agent());
        let health = host.at(AGENT_HEALTH_PORT);
        self.start_agent(wrapper, host, health)
    }

    fn start_agent(&mut self, daemon: Command, host: Host, health: SocketAddr) -> Result<()> {
        let name = host.name().to_owned();
        let member = Member::start(daemon, host, health, &self.flags, &self.flags.agent)?;
        member.wait_ready();
        self.nodes.insert(name, member);
        Ok(())
    }

    /// A fresh token for a node.
    pub fn token(&self, node: &str) -> Result<String> {
        Ok(self.ctl(&["token", "create", "--node", node])?.ok()?.trim().to_owned())
    }

    /// `lockstep-agent join` on a host.
    pub fn join(&self, host: &Host, token: &str) -> Result<Output> {
        host.run_with(&mut self.join_command(host), token)
    }

    /// For `join` with further arguments; the token comes from standard input.
    pub fn join_command(&self, host: &Host) -> Command {
        let mut join = cmd(self.bins.agent());
        join.arg("join").arg("--data-dir").arg(host.path("data"));
        join.args(["--controller", &self.controller.host.at(CONTROLLER_PORT).to_string()]);
        join.args(["--token", "-"]);
        join
    }

    pub fn node(&self, name: &str) -> Result<&Member> {
        self.nodes.get(name).with_context(|| format!("no node {name} in this fleet"))
    }

    pub fn node_mut(&mut self, name: &str) -> Result<&mut Member> {
        self.nodes.get_mut(name).with_context(|| format!("no node {name} in this fleet"))
    }

    /// `lockstepctl` as the first admin, on the controller's host.
    pub fn ctl(&self, args: &[&str]) -> Result<Output> {
        self.controller.host.run(self.ctl_command().args(args))
    }

    /// What `lockstepctl … -o json` prints, read as a message of the API.
    pub fn ask<M: DeserializeOwned>(&self, args: &[&str]) -> Result<M> {
        let text = self.ctl(&[args, &["-o", "json"]].concat())?.ok()?;
        serde_json::from_str(&text).with_context(|| format!("{args:?} printed {text}"))
    }

    /// `lockstepctl` for [`Host::run`] or [`Host::spawn`].
    pub fn ctl_command(&self) -> Command {
        let mut command = cmd(self.bins.ctl());
        command.env("LOCKSTEP_CONFIG_DIR", self.controller.host.path("ctl"));
        command.args(&self.flags.ctl);
        command
    }

    /// Waits until a node is in the given health, and returns it.
    pub fn wait_health(&self, node: &str, health: v1::NodeHealth) -> v1::Node {
        until(READY_WITHIN, &format!("{node} is {}", health.as_str_name()), || {
            let node: v1::Node = self.ask(&["node", "show", node]).map_err(|e| e.to_string())?;
            if node.health() == health { Ok(node) } else { Err(format!("{node:?}")) }
        })
    }

    pub fn wait_healthy(&self, nodes: &[&str]) {
        for node in nodes {
            self.wait_health(node, v1::NodeHealth::Healthy);
        }
    }

    /// Kills the controller, if it still runs, and starts it again.
    pub fn restart_controller(&mut self) -> Result<()> {
        self.start_controller()?;
        self.controller.wait_ready();
        Ok(())
    }

    /// As [`Fleet::restart_controller`], without a wait.
    pub fn start_controller(&mut self) -> Result<()> {
        self.controller.daemon.kill()?;
        let host = self.controller.host.clone();
        self.controller = Member::controller(&self.bins, host, &self.flags)?;
        Ok(())
    }

    /// Kills a node's agent, if it still runs, and starts it again.
    pub fn restart_agent(&mut self, name: &str) -> Result<()> {
        let node = self.node_mut(name)?;
        node.daemon.kill()?;
        let host = node.host.clone();
        self.run_agent(host)
    }

    /// Of the controller and of all nodes.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        let nodes = self.nodes.values().map(|node| &node.host);
        std::iter::once(&self.controller.host).chain(nodes)
    }

    pub fn bins(&self) -> &Bins {
        &self.bins
    }

    pub fn net(&self) -> &Net {
        &self.net
    }
}

impl Flags {
    /// A new host with its disks.
    fn host(&self, net: &Net, name: &str) -> Result<Host> {
        let host = net.host(name)?;
        for (below, bytes) in &self.disks {
            host.frail_disk(below, *bytes)?;
        }
        Ok(host)
    }
}

impl Member {
    fn controller(bins: &Bins, host: Host, flags: &Flags) -> Result<Self> {
        let health = host.at(CONTROLLER_HEALTH_PORT);
        Self::start(cmd(bins.controller()), host, health, flags, &flags.controller)
    }

    fn start(
        mut daemon: Command,
        host: Host,
        health: SocketAddr,
        flags: &Flags,
        own: &[String],
    ) -> Result<Self> {
        if flags.clocks {
            clock::give(&mut daemon, &host)?;
        }
        daemon.arg("run").arg("--data-dir").arg(host.path("data"));
        daemon.args(["--health-listen", &health.to_string()]);
        let daemon = host.spawn(daemon.args(own))?;
        Ok(Self { host, daemon, health })
    }

    /// What the daemon's health listener says of a path such as `/sync/webroot`, asked on its host.
    pub fn health(&self, path: &str) -> Result<Reply> {
        http::get(&self.host, self.health, path)
    }

    /// As [`Member::health`]: the status, or a number that is none.
    pub fn status(&self, path: &str) -> u16 {
        self.health(path).map_or(0, |reply| reply.status)
    }

    fn wait_ready(&self) {
        until(READY_WITHIN, &format!("{} is ready", self.host.name()), || -> Result<()> {
            let reply = self.health("/ready")?;
            ensure!(reply.status == 200, "{reply:?}");
            Ok(())
        });
    }
}
