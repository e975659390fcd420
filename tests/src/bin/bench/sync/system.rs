//! One of the three that are compared, on hosts of its own: a source, its targets, and hosts that may
//! become targets. Parts drive it the same way whichever it is.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::{Fleet, Host, Net, Proc, cmd};

use super::WITHIN;
use super::reach::{Over, Reach};

const STOP_WITHIN: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Lsyncd(Over),
    Lockstep,
}

/// In the order in which they take turns: Lockstep last, so that its figures find the others'.
pub const KINDS: [Kind; 3] = [Kind::Lsyncd(Over::Ssh), Kind::Lsyncd(Over::Rsyncd), Kind::Lockstep];

pub struct System {
    pub source: Host,
    hosts: Vec<Host>,
    /// So many of the hosts are targets.
    active: usize,
    engine: Engine,
}

enum Engine {
    Lsyncd { reach: Reach, daemon: Option<Proc> },
    Lockstep(Box<Fleet>),
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Lsyncd(Over::Ssh) => "lsyncd+ssh",
            Self::Lsyncd(Over::Rsyncd) => "lsyncd+rsyncd",
            Self::Lockstep => "lockstep",
        }
    }
}

impl System {
    /// Hosts and servers, and an empty directory on the source and each target. Nothing watches
    /// yet.
    pub fn start(kind: Kind, targets: usize, spare: usize) -> Result<Self> {
        let net = Net::new()?;
        let names: Vec<String> = (1..=targets + spare).map(|n| format!("target-{n}")).collect();
        let (source, hosts, engine) = match kind {
            Kind::Lsyncd(over) => {
                let source = net.host("source")?;
                let mut reach = Reach::new(over, &source)?;
                let hosts: Vec<Host> = names.iter().map(|n| net.host(n)).collect::<Result<_>>()?;
                hosts.iter().try_for_each(|host| reach.serve(host))?;
                (source, hosts, Engine::Lsyncd { reach, daemon: None })
            }
            Kind::Lockstep => {
                let nodes = ["source"].into_iter().chain(names.iter().map(String::as_str));
                let nodes: Vec<&str> = nodes.collect();
                let fleet = Fleet::start(&net, &nodes)?;
                fleet.wait_healthy(&nodes);
                let host = |name: &&str| anyhow::Ok(fleet.node(name)?.host.clone());
                let mut hosts: Vec<Host> = nodes.iter().map(host).collect::<Result<_>>()?;
                (hosts.remove(0), hosts, Engine::Lockstep(Box::new(fleet)))
            }
        };
        let system = Self { source, hosts, active: targets, engine };
        fs::create_dir_all(system.original())?;
        system.hosts.iter().try_for_each(|host| fs::create_dir_all(host.path("www")))?;
        Ok(system)
    }

    /// The directory of the source.
    pub fn original(&self) -> PathBuf {
        self.source.path("www")
    }

    /// The directory of each target.
    pub fn copies(&self) -> Vec<PathBuf> {
        self.targets().iter().map(|host| host.path("www")).collect()
    }

    pub fn targets(&self) -> &[Host] {
        self.hosts.get(..self.active).unwrap_or_default()
    }

    /// Starts to keep the targets in step.
    pub fn begin(&mut self) -> Result<()> {
        match &self.engine {
            Engine::Lsyncd { .. } => self.run_lsyncd(),
            Engine::Lockstep(fleet) => {
                let names: Vec<&str> = self.targets().iter().map(Host::name).collect();
                let create = fleet.create_www(self.source.name(), &names)?;
                ctl(fleet, &create.iter().map(String::as_str).collect::<Vec<_>>())
            }
        }
    }

    /// One of the spare hosts becomes a target. lsyncd learns of it by a restart.
    pub fn add_target(&mut self) -> Result<()> {
        ensure!(self.active < self.hosts.len(), "no spare host is left");
        self.active += 1;
        match &self.engine {
            Engine::Lsyncd { .. } => self.run_lsyncd(),
            Engine::Lockstep(fleet) => {
                let host = self.targets().last().context("no target")?;
                ctl(fleet, &["sync", "add-target", "www", &fleet.place(host.name())?])
            }
        }
    }

    /// Ends a lsyncd that runs, as its service would, and starts it with the targets of now.
    fn run_lsyncd(&mut self) -> Result<()> {
        let config = self.source.path("lsyncd.conf.lua");
        let targets = self.hosts.get(..self.active).unwrap_or_default();
        let Engine::Lsyncd { reach, daemon } = &mut self.engine else { return Ok(()) };
        if let Some(daemon) = daemon {
            daemon.term()?;
            daemon.wait_timeout(STOP_WITHIN)?;
        }
        fs::write(&config, reach.lsyncd_config(&self.source, targets))?;
        *daemon = Some(self.source.spawn(cmd("lsyncd").arg(&config))?);
        Ok(())
    }

    /// The processes on the source that watch and send; others there are their children.
    pub fn daemons(&self) -> Result<Daemons> {
        match &self.engine {
            Engine::Lsyncd { daemon, .. } => {
                Ok(Daemons { lsyncd: daemon.as_ref().context("no lsyncd")?.pid(), agent: None })
            }
            Engine::Lockstep(fleet) => {
                let lsyncd = running(&self.source, "lsyncd")?;
                let [lsyncd] = lsyncd[..] else { anyhow::bail!("not one lsyncd: {lsyncd:?}") };
                let agent = fleet.node(self.source.name())?.daemon.pid();
                Ok(Daemons { lsyncd, agent: Some(agent) })
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Daemons {
    pub lsyncd: u32,
    pub agent: Option<u32>,
}

/// `lockstepctl`, however long it takes.
pub fn ctl(fleet: &Fleet, args: &[&str]) -> Result<()> {
    let mut running = fleet.controller.host.spawn(fleet.ctl_command().args(args))?;
    running.output(WITHIN)?.ok().map(drop)
}

/// Processes of a host by the name of their program.
pub fn running(host: &Host, program: &str) -> Result<Vec<u32>> {
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Ok(host.pids()?.into_iter().filter(|pid| name(pid).trim() == program).collect())
}
