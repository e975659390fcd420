//! What the bench needs of a system that keeps a PostgreSQL cluster of three nodes, and the network
//! and clients around it. Each system is set up and driven in a file of its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lockstep_tests::{Host, Net, cmd, sql, try_until};
use rustix::process::{Pid, Signal, kill_process};

use super::packages::PG_BIN;
use super::results::{Mode, Peer};
use super::{autofailover, lockstep, patroni};

pub const NODES: [&str; 3] = ["db1", "db2", "db3"];
/// For a system to be set up, and to be well again after an event, without a person.
pub const WELL_WITHIN: Duration = Duration::from_secs(120);

/// One PostgreSQL instance.
pub struct Node {
    pub host: Host,
    pub port: u16,
    /// Its data directory.
    pub data: PathBuf,
}

pub trait System {
    fn nodes(&self) -> &[Node];
    /// Whose programs hear the nodes and decide, or keep what was decided.
    fn control(&self) -> &Host;
    /// The superuser's part of a connection string.
    fn login(&self) -> String;
    /// Whether the system itself says that all is well.
    fn check_well(&self, client: &Host) -> Result<()>;
    fn switch_over(&mut self) -> Result<()>;
    /// Begins to copy a standby anew.
    fn reclone(&mut self, node: usize) -> Result<()>;
    /// Starts on a host that was off what its boot would start.
    fn boot(&mut self, node: usize) -> Result<()>;
    /// Starts what was killed on the control host.
    fn boot_control(&mut self) -> Result<()>;
}

pub struct World {
    pub system: Box<dyn System>,
    pub client: Host,
    pub mode: Mode,
    net: Net,
}

impl World {
    /// Sets a system up, and waits until it is well.
    pub fn start(peer: Peer, mode: Mode) -> Result<Self> {
        let net = Net::new()?;
        let system: Box<dyn System> = match peer {
            Peer::Lockstep => Box::new(lockstep::Lockstep::start(&net, mode)?),
            Peer::Patroni => Box::new(patroni::Patroni::start(&net, mode)?),
            Peer::AutoFailover => Box::new(autofailover::AutoFailover::start(&net, mode)?),
        };
        let client = net.host("client")?;
        let world = Self { system, client, mode, net };
        world.wait_well()?;
        Ok(world)
    }

    pub fn node(&self, node: usize) -> Result<&Node> {
        self.system.nodes().get(node).context("no such node")
    }

    /// A connection string of one node.
    pub fn target(&self, node: &Node) -> String {
        let (ip, login) = (node.host.ip(), self.system.login());
        format!("host={ip} port={} {login} connect_timeout=1", node.port)
    }

    /// A connection string of whichever of the nodes is the primary.
    pub fn any_target(&self) -> String {
        let nodes = self.system.nodes();
        let hosts: Vec<String> = nodes.iter().map(|node| node.host.ip().to_string()).collect();
        let ports: Vec<String> = nodes.iter().map(|node| node.port.to_string()).collect();
        let (hosts, ports, login) = (hosts.join(","), ports.join(","), self.system.login());
        format!(
            "host={hosts} port={ports} {login} connect_timeout=1 target_session_attrs=read-write"
        )
    }

    /// The one node that is no standby.
    pub fn primary(&self) -> Result<usize> {
        let mut primaries = Vec::new();
        for (at, node) in self.system.nodes().iter().enumerate() {
            let asked = sql::value(&self.client, &self.target(node), "select pg_is_in_recovery()")?;
            if asked == "f" {
                primaries.push(at);
            }
        }
        match primaries.as_slice() {
            [primary] => Ok(*primary),
            _ => bail!("primaries are {primaries:?}"),
        }
    }

    /// A standby, a synchronous one if there is any.
    pub fn standby(&self) -> Result<usize> {
        let ask = "select host(client_addr) from pg_stat_replication where state = 'streaming' \
                   order by sync_state in ('sync', 'quorum') desc, client_addr";
        let ip = sql::value(&self.client, &self.any_target(), ask)?;
        let mut nodes = self.system.nodes().iter();
        nodes.position(|node| node.host.ip().to_string() == ip).context("no standby streams")
    }

    /// All three run, two follow the third, commits are as safe as wanted, and the system says so.
    pub fn check_well(&self) -> Result<()> {
        let primary = self.primary()?;
        let ask = "select client_addr, sync_state in ('sync', 'quorum') from pg_stat_replication \
                   where state = 'streaming' \
                   and pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) < 1048576";
        let rows = sql::ask(&self.client, &self.target(self.node(primary)?), ask)?;
        let streaming: BTreeSet<&String> = rows.iter().filter_map(|row| row.first()).collect();
        ensure!(streaming.len() == 2, "{streaming:?} stream from {primary}");
        let synchronous = rows.iter().any(|row| row.get(1).is_some_and(|sync| sync == "t"));
        ensure!(synchronous == (self.mode == Mode::Sync), "{rows:?}");
        self.system.check_well(&self.client)
    }

    pub fn wait_well(&self) -> Result<()> {
        Ok(try_until(WELL_WITHIN, "all is well", || self.check_well())?)
    }

    /// kill -9 of a node's postmaster.
    pub fn kill_postgres(&self, node: usize) -> Result<()> {
        let file = self.node(node)?.data.join("postmaster.pid");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let pid: i32 = text.lines().next().context("an empty postmaster.pid")?.trim().parse()?;
        Ok(kill_process(Pid::from_raw(pid).context("no such pid")?, Signal::KILL)?)
    }

    /// Silence between a node and everybody else, and nobody is told. The client's line first, so
    /// that an outage begins with it.
    pub fn silence(&self, node: usize) -> Result<()> {
        self.each_line(node, |host, other| self.net.cut(host, other))
    }

    pub fn heal(&self, node: usize) -> Result<()> {
        self.each_line(node, |host, other| self.net.heal(host, other))
    }

    fn each_line(&self, node: usize, line: impl Fn(&Host, &Host) -> Result<()>) -> Result<()> {
        let host = &self.node(node)?.host;
        let nodes = self.system.nodes().iter().map(|node| &node.host);
        let others = [&self.client, self.system.control()].into_iter().chain(nodes);
        others.filter(|other| other.name() != host.name()).try_for_each(|other| line(host, other))
    }

    /// Silence, then no process is left.
    pub fn power_off(&self, node: usize) -> Result<()> {
        self.silence(node)?;
        self.node(node)?.host.power_off()
    }

    /// On again, its lines good, and nothing started.
    pub fn power_on(&self, node: usize) -> Result<()> {
        self.node(node)?.host.power_on()?;
        self.heal(node)
    }
}

/// A command of the user `postgres`, who has Debian's paths and the servers' own.
pub fn as_postgres(program: &Path) -> Command {
    let mut command = cmd("setpriv");
    command.env("PATH", format!("{PG_BIN}:/usr/sbin:/usr/bin:/sbin:/bin"));
    command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups"]).arg(program);
    command
}

/// A directory of that user on a host, with an empty one in it for what a boot forgets.
pub fn home_of_postgres(host: &Host) -> Result<PathBuf> {
    let home = host.path("pg");
    for dir in [&home, &home.join("run")] {
        let mut install = cmd("install");
        install.args(["-d", "-m", "700", "-o", "postgres", "-g", "postgres"]);
        host.run(install.arg(dir))?.ok()?;
    }
    Ok(home)
}
