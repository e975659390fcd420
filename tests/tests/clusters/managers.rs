//! Members whose postgres is started by systemd or by Debian's tools, on hosts that systemd runs.

use std::fs;

use anyhow::{Context, Result, ensure};
use lockstep_tests::clusters::{CHANGED_WITHIN, PASSWORD, member, report};
use lockstep_tests::machine::{Machine, UNIT};
use lockstep_tests::{Fleet, Host, Net, Writer, sql, try_until, until};

use super::{SOON, last_change};

const NODES: [&str; 2] = ["db1", "db2"];
/// Debian's own cluster, and the unit that it has.
const CLUSTER: &str = "15/main";
const POSTGRES: &str = "postgresql@15-main.service";
const DATA: &str = "/var/lib/postgresql/15/main";
const BOOT: &str = "/etc/postgresql/15/main/start.conf";
/// Above the lease of these clusters, by which what nobody renews has ended.
const LEASE_OVER: std::time::Duration = std::time::Duration::from_secs(30);

struct World {
    _net: Net,
    fleet: Fleet,
    client: Host,
    machines: Vec<Machine>,
}

impl World {
    /// Two machines with Debian's PostgreSQL as its package leaves it, db2 without data; agents run.
    fn new() -> Result<Self> {
        let net = Net::new()?;
        let fleet = Fleet::start(&net, &[])?;
        let client = net.host("client")?;
        let mut machines = Vec::new();
        for name in NODES {
            let mut machine = Machine::new(&fleet, name)?;
            if name == "db2" {
                fs::write(machine.path(BOOT), "manual\n")?;
                fs::remove_dir_all(machine.path(DATA))?;
            }
            // Else its first standby could be copied only after a restart.
            let conf = machine.path("/etc/postgresql/15/main/postgresql.conf");
            let text = fs::read_to_string(&conf)?;
            fs::write(&conf, format!("{text}listen_addresses = '*'\n"))?;
            machine.boot()?;
            machine.join(&fleet)?;
            machines.push(machine);
        }
        fleet.wait_healthy(&NODES);
        Ok(Self { _net: net, fleet, client, machines })
    }

    fn machine(&self, name: &str) -> &Machine {
        if name == NODES[0] { &self.machines[0] } else { &self.machines[1] }
    }

    fn create(&self, manager: &str) -> Result<()> {
        let args = [
            "cluster",
            "create",
            "main",
            "--primary",
            "db1",
            "--standby",
            "db2",
            "--adopt",
            "--no-wait",
            "--data-dir",
            DATA,
            "--manager",
            manager,
            "--set-superuser-password-file",
            "-",
            "--hba",
            "host all all 10.77.0.0/24 scram-sha-256",
            "--min-free",
            "1M",
            "--sync",
            "1",
            "--on-sync-shortage",
            "degrade",
        ];
        let mut command = self.fleet.ctl_command();
        self.fleet.controller.host.run_with(command.args(args), PASSWORD)?.ok()?;
        Ok(())
    }

    /// Waits until a member says why it is not managed.
    fn wait_refused(&self, node: &str, says: &str) {
        until(SOON, &format!("{node} says {says}"), || -> Result<()> {
            let cluster = self.fleet.cluster("main")?;
            let report = report(&cluster, node)?;
            ensure!(report.problem.contains(says), "{}", report.problem);
            Ok(())
        });
    }

    fn target(&self) -> String {
        let hosts = self.machines.iter().map(|machine| machine.host.ip().to_string());
        let hosts: Vec<_> = hosts.collect();
        format!(
            "host={} port=5432 user=lockstep password={PASSWORD} dbname=postgres connect_timeout=1 \
             target_session_attrs=read-write",
            hosts.join(",")
        )
    }

    fn write(&self) -> Result<Writer> {
        let make = "create table if not exists written (id bigint)";
        sql::ask(&self.client, &self.target(), make)?;
        Ok(Writer::start(&self.client, &self.target()))
    }

    fn check(&self, writer: Writer) -> Result<()> {
        let written = writer.stop()?;
        let present = self.fleet.rows(&self.client, &self.target())?;
        let lost = written.lost(&present)?;
        ensure!(lost.is_empty(), "{} rows are lost", lost.len());
        Ok(())
    }

    /// By its number on the machine itself.
    fn postmaster(&self, node: &str) -> Result<String> {
        let text = fs::read_to_string(self.machine(node).path(DATA).join("postmaster.pid"))?;
        Ok(text.lines().next().context("no postmaster")?.trim().to_owned())
    }

    /// The primary and its standby; which of them, a crash on a slow disk may leave open.
    fn wait_steady(&self) -> (&'static str, &'static str) {
        until(CHANGED_WITHIN, "a primary and its standby", || -> Result<_> {
            let cluster = self.fleet.cluster("main")?;
            let state = cluster.state.clone().unwrap_or_default();
            let [first, second] = NODES;
            let roles = if state.holder == first { (first, second) } else { (second, first) };
            ensure!(state.stage == "steady", "{}", state.stage);
            ensure!(report(&cluster, roles.0)?.state == "primary");
            ensure!(report(&cluster, roles.1)?.upstream.is_some());
            Ok(roles)
        })
    }

    /// Killed, switched over, its agent restarted by systemd: nothing that was acknowledged is lost.
    fn live(&self) -> Result<()> {
        let writer = self.write()?;
        self.fleet.wait_sync("main", 1, &["db2"]);
        kill(self.machine("db1"), &self.postmaster("db1")?)?;
        writer.wait_more(50);
        let (holder, other) = self.wait_steady();

        self.fleet.wait_sync_any("main", 1);
        self.fleet.ctl(&["cluster", "switchover", "main", "--to", other])?.ok()?;
        writer.wait_more(50);
        self.fleet.wait_roles("main", other, &[holder]);
        last_change(&self.fleet, "switchover")?;
        if other != "db1" {
            self.fleet.wait_sync_any("main", 1);
            self.fleet.ctl(&["cluster", "switchover", "main", "--to", "db1"])?.ok()?;
            self.fleet.wait_roles("main", "db1", &["db2"]);
        }

        let (failed, old) = (writer.failed(), self.postmaster("db1")?);
        for node in NODES {
            self.machine(node).ask(&["systemctl", "restart", UNIT])?;
        }
        self.fleet.wait_healthy(&NODES);
        writer.wait_more(200);
        self.fleet.wait_roles("main", "db1", &["db2"]);
        ensure!(writer.failed() == failed, "a restart of the agents is seen by a client");
        ensure!(self.postmaster("db1")? == old, "postgres was restarted with its agent");
        self.check(writer)
    }
}

/// A process by its number on the machine.
fn kill(machine: &Machine, pid: &str) -> Result<()> {
    machine.ask(&["sh", "-c", &format!("kill -9 {pid}")])?;
    Ok(())
}

#[test]
#[ignore = "slow: boots two machines, and makes their Debian the first time"]
fn systemd_starts_what_the_agent_says_and_nothing_else() -> Result<()> {
    let mut world = World::new()?;
    world.create(&format!("systemd:{POSTGRES}"))?;
    world.wait_refused("db1", "start.conf");
    let db1 = world.machine("db1");
    fs::write(db1.path(BOOT), "manual\n")?;
    // Somebody else's process, where ending postgres would end it too.
    let group = db1.ask(&["systemctl", "show", "--property=ControlGroup", "--value", POSTGRES])?;
    db1.ask(&["systemd-run", "--unit=stranger", "sleep", "1000"])?;
    let stranger = db1.ask(&["systemctl", "show", "--property=MainPID", "--value", "stranger"])?;
    let into = format!("echo {stranger} > /sys/fs/cgroup{group}/cgroup.procs");
    db1.ask(&["sh", "-c", &into])?;
    db1.ask(&["systemctl", "daemon-reload"])?;
    world.wait_refused("db1", "holds processes");
    ensure!(
        db1.run(&["test", "-d", &format!("/proc/{stranger}")])?.status.success(),
        "it was ended"
    );
    kill(db1, &stranger)?;
    world.fleet.wait_roles("main", "db1", &["db2"]);
    world.live()?;
    for node in NODES {
        let main = ["systemctl", "show", "--property=MainPID", "--value", POSTGRES];
        let main = world.machine(node).ask(&main)?;
        ensure!(main == world.postmaster(node)?, "{node}: postgres is not the unit's");
    }

    // Without its agent the guard ends it when the lease does, and it does not come back.
    let db1 = world.machine("db1");
    db1.ask(&["systemctl", "stop", UNIT])?;
    let active = ["systemctl", "is-active", POSTGRES];
    until(LEASE_OVER, "postgres is ended", || -> Result<()> {
        let state = db1.run(&active)?.stdout;
        ensure!(state.trim() == "failed" || state.trim() == "inactive", "{state}");
        Ok(())
    });
    until(LEASE_OVER, "db2 is primary", || -> Result<()> {
        let state = world.fleet.cluster("main")?.state.unwrap_or_default();
        ensure!(state.holder == "db2" && state.stage == "steady", "{state:?}");
        Ok(())
    });
    // Not by hand either, as long as nobody knows whether it may write.
    db1.run(&["systemctl", "start", POSTGRES])?;
    until(SOON, "it is ended again", || -> Result<()> {
        let state = db1.run(&active)?.stdout;
        ensure!(state.trim() == "failed" || state.trim() == "inactive", "{state}");
        Ok(())
    });
    db1.ask(&["systemctl", "start", UNIT])?;
    world.fleet.wait_roles("main", "db2", &["db1"]);

    // A reboot starts no postgres: only the agent does.
    world.machines[0].ask(&["systemctl", "disable", UNIT])?;
    world.machines[0].reboot()?;
    let db1 = world.machine("db1");
    let early = try_until(std::time::Duration::from_secs(2), "a postgres of its own", || {
        db1.run(&active).is_ok_and(|state| state.stdout.trim() == "active")
    });
    ensure!(early.is_err(), "it was started at boot");
    db1.ask(&["systemctl", "start", UNIT])?;
    let cluster = world.fleet.wait_roles("main", "db2", &["db1"]);
    ensure!(member(&cluster, "db1")?.report.is_some());
    Ok(())
}

#[test]
#[ignore = "slow: boots two machines"]
fn debians_tools_start_what_the_agent_says() -> Result<()> {
    let world = World::new()?;
    world.create(&format!("pg_ctlcluster:{CLUSTER}"))?;
    world.wait_refused("db1", "start.conf");
    let db1 = world.machine("db1");
    fs::write(db1.path(BOOT), "manual\n")?;
    db1.ask(&["systemctl", "daemon-reload"])?;
    world.fleet.wait_roles("main", "db1", &["db2"]);
    world.live()
}
