//! The cluster that faults happen to: three members, a controller, clients; how all faults are mended, and
//! what is to be true of it then.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::clusters::{CHANGED_WITHIN, check_roles};
use lockstep_tests::witness::{Acknowledged, Count, Seat, Witness};
use lockstep_tests::{Flags, Fleet, Host, Net, clock, cmd, sql, try_until, writer};
use rustix::process::Signal;

use crate::faults::Fault;

pub const NODES: [&str; 3] = ["db1", "db2", "db3"];
const ALL: [&str; 5] = ["controller", "client", NODES[0], NODES[1], NODES[2]];
/// Where daemons and instances keep what they have: disks of their own.
const DISKS: [(&str, u64); 2] = [("data", 96 << 20), ("pg", 1 << 30)];
const PACE: Duration = Duration::from_millis(25);
const COUNTER: &str = "counter";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Sync,
    Async,
}

impl Mode {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Async => "async",
        }
    }
}

pub struct Field {
    // Before the hosts, which it would find gone.
    witness: Witness,
    pub net: Net,
    pub fleet: Fleet,
    pub mode: Mode,
    pub client: Host,
    /// What happens while the next fault lasts.
    pub meanwhile: Option<&'static Fault>,
    /// What the fault of this round turned out to be.
    pub detail: String,
    /// The last one that was known.
    primary: RefCell<String>,
    /// Rows that were lost in earlier rounds.
    gone: BTreeSet<u64>,
}

impl Field {
    pub fn new(mode: Mode) -> Result<Self> {
        let net = Net::new()?;
        let flags = Flags { disks: DISKS.into(), clocks: true, ..Flags::default() };
        let fleet = Fleet::start_with(&net, &NODES, flags)?;
        let client = net.host("client")?;
        // Within the disks, also after many rounds.
        let mut more = vec!["--parameter", "max_wal_size=128MB"];
        if mode == Mode::Async {
            more.extend(["--sync", "off"]);
        }
        fleet.create_cluster("main", &NODES, &more)?.ok()?;
        try_until(CHANGED_WITHIN, "the cluster is made", || steady(&fleet, mode))?;
        fleet.make_table(&client, &NODES)?;
        let make = format!("create table {COUNTER} as select 0::bigint as value");
        sql::ask(&client, &fleet.pg_target(&NODES)?, &make)?;
        let mut seats = Vec::new();
        for node in NODES {
            let target = fleet.pg_reach(&[node])?;
            let own = fleet.node(node)?.host.clone();
            for (from, is_outside) in [(client.clone(), true), (own, false)] {
                let (node, target) = (node.to_owned(), target.clone());
                seats.push(Seat { from, node, target, is_outside, pace: PACE });
            }
        }
        let witness = Witness::start(writer::TABLE, Some(COUNTER), seats);
        let (meanwhile, detail, gone) = (None, String::new(), BTreeSet::new());
        let primary = RefCell::new(NODES[0].to_owned());
        let field = Self { witness, net, fleet, mode, client, meanwhile, detail, primary, gone };
        field.wait_rows(20)?;
        Ok(field)
    }

    pub fn host(&self, name: &str) -> Result<Host> {
        Ok(match name {
            "controller" => self.fleet.controller.host.clone(),
            "client" => self.client.clone(),
            node => self.fleet.node(node)?.host.clone(),
        })
    }

    /// Nobody of one group hears anybody of another one.
    pub fn part(&self, groups: &[&[&str]]) -> Result<()> {
        for (at, group) in groups.iter().enumerate() {
            for other in &groups[at + 1..] {
                for (a, b) in group.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                    self.net.cut(&self.host(a)?, &self.host(b)?)?;
                }
            }
        }
        Ok(())
    }

    /// Ends whatever faults began, as those do who keep machines: lines and power are back, disks have
    /// room, clocks are right, and what stands still or has ended goes on.
    pub fn mend(&mut self) -> Result<()> {
        for (at, a) in ALL.iter().enumerate() {
            for b in &ALL[at + 1..] {
                self.net.heal(&self.host(a)?, &self.host(b)?)?;
            }
        }
        for name in ["controller", NODES[0], NODES[1], NODES[2]] {
            let host = self.host(name)?;
            DISKS.iter().try_for_each(|(below, _)| host.disk_at(below).free())?;
            clock::set(&host, 0)?;
            if !host.is_on() {
                host.power_on()?;
            }
            host.rejoin()?;
        }
        // Whoever is not there any more needs no signal.
        let _ = self.fleet.controller.daemon.cont();
        if !self.fleet.controller.daemon.is_running() {
            self.fleet.restart_controller()?;
        }
        for node in NODES {
            let _ = self.fleet.signal_instance(node, Signal::CONT);
            let daemon = &mut self.fleet.node_mut(node)?.daemon;
            let _ = daemon.cont();
            if !daemon.is_running() {
                self.fleet.restart_agent(node)?;
            }
        }
        Ok(())
    }

    /// Who is primary by the controller's word, or by its last one while it says nothing.
    pub fn primary(&self) -> Result<String> {
        let known = self.holder();
        if let Ok(Some(holder)) = &known {
            self.primary.replace(holder.clone());
        }
        Ok(self.primary.borrow().clone())
    }

    /// Whoever holds the lease now, and nobody while one is looked for.
    pub fn holder(&self) -> Result<Option<String>> {
        let state = self.fleet.cluster("main")?.state.context("no state")?;
        Ok(Some(state.holder).filter(|holder| !holder.is_empty()))
    }

    pub fn others(&self) -> Result<Vec<&'static str>> {
        let primary = self.primary()?;
        Ok(NODES.into_iter().filter(|node| *node != primary).collect())
    }

    pub fn power_on(&mut self, node: &str) -> Result<()> {
        let host = self.host(node)?;
        host.power_on()?;
        self.fleet.run_agent(host)
    }

    pub fn acknowledged(&self) -> usize {
        self.witness.acknowledged()
    }

    /// Until so many further rows are acknowledged by anybody.
    pub fn wait_rows(&self, more: usize) -> Result<()> {
        let before = self.acknowledged();
        let enough = || self.acknowledged() >= before + more;
        Ok(try_until(CHANGED_WITHIN, "rows are acknowledged", enough)?)
    }

    /// Lets a fault last. Rows may be acknowledged meanwhile or not.
    pub fn hold(&self, lasts: Duration) {
        let _ = try_until(lasts, "the fault has lasted", || false);
    }

    /// Until it is as it should be again; nobody helps.
    pub fn wait_well(&self, within: Duration) -> Result<()> {
        try_until(within, "all is well again", || steady(&self.fleet, self.mode))?;
        self.wait_rows(10)
    }

    pub fn rows(&self) -> Vec<Acknowledged> {
        self.witness.rows()
    }

    pub fn counts(&self) -> Vec<Count> {
        self.witness.counts()
    }

    /// How many acknowledged rows are not there any more since the last time; all members have to tell
    /// the same.
    pub fn lost(&mut self) -> Result<usize> {
        let rows = self.rows();
        let present = self.fleet.rows(&self.client, &self.fleet.pg_target(&NODES)?)?;
        let ids = rows.iter().map(|row| &row.id);
        let lost = writer::lost(ids, self.witness.sent(), &present)?;
        for node in NODES {
            let target = self.fleet.pg_reach(&[node])?;
            let has_all = || -> Result<()> {
                let there: BTreeSet<u64> =
                    self.fleet.rows(&self.client, &target)?.into_iter().collect();
                let missing = present.iter().filter(|id| !there.contains(id)).count();
                ensure!(missing == 0, "{missing} of {} are missing", present.len());
                Ok(())
            };
            try_until(CHANGED_WITHIN, &format!("{node} has what the primary has"), has_all)?;
        }
        let new = lost.difference(&self.gone).count();
        self.gone = lost;
        Ok(new)
    }

    /// What is needed to understand a failure.
    pub fn record(&self, dir: &Path) -> Result<()> {
        for host in self.fleet.hosts() {
            let to = dir.join(host.name());
            std::fs::create_dir_all(&to)?;
            let mut copy = cmd("cp");
            copy.arg("-r").args([host.path("log"), host.path("pg/data.lockstep/postgres.log")]);
            // A controller has no postgres.
            copy.arg(&to).output()?;
        }
        let explained = self.fleet.ctl(&["cluster", "explain", "main"])?;
        let shown = self.fleet.ctl(&["cluster", "show", "main", "-o", "json"])?;
        Ok(std::fs::write(dir.join("cluster"), format!("{explained}\n{shown}"))?)
    }
}

/// A primary that writes, two that follow, and commits that wait for one of them where they are to.
fn steady(fleet: &Fleet, mode: Mode) -> Result<()> {
    let cluster = fleet.cluster("main")?;
    let state = cluster.state.clone().unwrap_or_default();
    let others: Vec<&str> = NODES.into_iter().filter(|node| *node != state.holder).collect();
    check_roles(&cluster, &state.holder, &others)?;
    let [quorum] = state.quorums.as_slice() else { anyhow::bail!("{:?}", state.quorums) };
    let complete = mode == Mode::Async || (quorum.k == 1 && quorum.of.len() == 2);
    ensure!(complete, "{quorum:?}");
    Ok(())
}
