//! A controller and agents on hosts, set up by the commands that a user types. It waits until they
//! are ready; what they do then is the test's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bins::Bins;
use crate::host::Host;
use crate::http::{self, Reply};
use crate::net::Net;
use crate::proc::{Output, Proc, cmd};
use crate::wait::until;

const CONTROLLER_PORT: u16 = 7400;
const CONTROLLER_HEALTH_PORT: u16 = 7401;
const AGENT_HEALTH_PORT: u16 = 7403;
/// How long a daemon may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

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
    health: SocketAddr,
}

impl Fleet {
    /// A controller with its first admin logged in, and a joined agent per name.
    pub fn start(net: &Net, nodes: &[&str]) -> Result<Self> {
        let bins = Bins::find()?;
        let host = net.host("controller")?;
        let listen = host.at(CONTROLLER_PORT).to_string();
        let mut init = cmd(bins.controller());
        init.arg("init").arg("--data-dir").arg(host.path("data"));
        let token = host.run(init.args(["--listen", &listen, "--name", "test"]))?.ok()?;
        let controller = Member::start_controller(&bins, host)?;
        let mut fleet = Self { controller, nodes: BTreeMap::new(), net: net.clone(), bins };

        let mut login = fleet.ctl_command();
        login.args(["login", "--controller", &listen, "--token", "-"]);
        fleet.controller.host.run_with(&mut login, &token)?.ok()?;
        for name in nodes {
            fleet.add_node(name)?;
        }
        Ok(fleet)
    }

    /// A new host whose agent joins with a token of its own and runs.
    pub fn add_node(&mut self, name: &str) -> Result<&mut Member> {
        let token = self.ctl(&["token", "create", "--node", name])?.ok()?;
        let host = self.net.host(name)?;
        let controller = self.controller.host.at(CONTROLLER_PORT).to_string();
        let mut join = cmd(self.bins.agent());
        join.arg("join").arg("--data-dir").arg(host.path("data"));
        join.args(["--controller", &controller, "--token", "-"]);
        host.run_with(&mut join, &token)?.ok()?;
        let member = Member::start_agent(&self.bins, host)?;
        Ok(self.nodes.entry(name.to_owned()).or_insert(member))
    }

    pub fn node(&mut self, name: &str) -> Result<&mut Member> {
        self.nodes.get_mut(name).with_context(|| format!("no node {name} in this fleet"))
    }

    /// `lockstepctl` as the first admin, on the controller's host.
    pub fn ctl(&self, args: &[&str]) -> Result<Output> {
        self.controller.host.run(self.ctl_command().args(args))
    }

    /// Kills the controller, if it still runs, and starts it again.
    pub fn restart_controller(&mut self) -> Result<()> {
        self.controller.daemon.kill()?;
        self.controller = Member::start_controller(&self.bins, self.controller.host.clone())?;
        Ok(())
    }

    /// Kills a node's agent, if it still runs, and starts it again.
    pub fn restart_agent(&mut self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        node.daemon.kill()?;
        let host = node.host.clone();
        let member = Member::start_agent(&self.bins, host)?;
        self.nodes.insert(name.to_owned(), member);
        Ok(())
    }

    fn ctl_command(&self) -> Command {
        let mut command = cmd(self.bins.ctl());
        command.env("LOCKSTEP_CONFIG_DIR", self.controller.host.path("ctl"));
        command
    }
}

impl Member {
    fn start_controller(bins: &Bins, host: Host) -> Result<Self> {
        let health = host.at(CONTROLLER_HEALTH_PORT);
        Self::start(cmd(bins.controller()), host, health)
    }

    fn start_agent(bins: &Bins, host: Host) -> Result<Self> {
        let health = host.at(AGENT_HEALTH_PORT);
        Self::start(cmd(bins.agent()), host, health)
    }

    fn start(mut daemon: Command, host: Host, health: SocketAddr) -> Result<Self> {
        daemon.arg("run").arg("--data-dir").arg(host.path("data"));
        let daemon = host.spawn(daemon.arg("--health-listen").arg(health.to_string()))?;
        let member = Self { host, daemon, health };
        until(READY_WITHIN, &format!("{} is ready", member.host.name()), || member.is_ready());
        Ok(member)
    }

    /// What the daemon's health listener says of a path such as `/sync/webroot`, asked on its host.
    pub fn health(&self, path: &str) -> Result<Reply> {
        http::get(&self.host, self.health, path)
    }

    fn is_ready(&self) -> Result<()> {
        let reply = self.health("/ready")?;
        ensure!(reply.status == 200, "{reply:?}");
        Ok(())
    }
}
