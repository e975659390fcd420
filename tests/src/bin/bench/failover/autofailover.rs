//! pg_auto_failover with its monitor, at settings as tight as leave the old primary time to stop
//! before the next one starts.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_tests::{Host, Net, Proc, sql, try_until};

use super::results::Mode;
use super::system::{NODES, Node, System, WELL_WITHIN, as_postgres, home_of_postgres};

const PG_PORT: u16 = 5432;
const MONITOR_SETTINGS: &str = "
pgautofailover.health_check_period = '1s'
pgautofailover.health_check_timeout = '1s'
pgautofailover.health_check_max_retries = 1
pgautofailover.health_check_retry_delay = '500ms'
pgautofailover.node_considered_unhealthy_timeout = '3s'
pgautofailover.primary_demote_timeout = '4s'
pgautofailover.startup_grace_period = '1s'
";
const KEEPER_SETTINGS: [(&str, &str); 5] = [
    ("timeout.network_partition_timeout", "3"),
    ("timeout.prepare_promotion_catchup", "3"),
    ("timeout.prepare_promotion_walreceiver", "1"),
    ("timeout.postgresql_restart_failure_timeout", "1"),
    ("timeout.postgresql_restart_failure_max_retries", "1"),
];
const PG_SETTINGS: &str = "
wal_sender_timeout = '3s'
wal_receiver_timeout = '3s'
wal_receiver_status_interval = '1s'
wal_retrieve_retry_interval = '500ms'
";
/// To create a node and to drop one, which waits for its system.
const COMMAND_WITHIN: Duration = WELL_WITHIN;

pub struct AutoFailover {
    control: Host,
    nodes: Vec<Node>,
    mode: Mode,
    monitor: Proc,
    keepers: Vec<Proc>,
}

impl AutoFailover {
    pub fn start(net: &Net, mode: Mode) -> Result<Self> {
        let control = net.host("control")?;
        let monitor = create_monitor(&control)?;
        let mut system = Self { control, nodes: Vec::new(), mode, monitor, keepers: Vec::new() };
        for name in NODES {
            let host = net.host(name)?;
            let data = home_of_postgres(&host)?.join("data");
            let node = Node { host, port: PG_PORT, data };
            system.keepers.push(system.create_node(&node)?);
            system.nodes.push(node);
        }
        if mode == Mode::Async {
            // First: it bounds what may leave the quorum. By SQL: the command refuses 0.
            system.set("set_formation_number_sync_standbys('default', 0)")?;
            NODES.iter().try_for_each(|name| system.leave_quorum(name))?;
        }
        Ok(system)
    }

    /// Creates an instance, and runs what keeps it.
    fn create_node(&self, node: &Node) -> Result<Proc> {
        let (host, data) = (&node.host, &node.data);
        let ip = host.ip().to_string();
        let mut create = autoctl(host, data, &["create", "postgres"]);
        create.args(["--monitor", &self.monitor_uri(), "--hostname", &ip, "--name", host.name()]);
        create.args(["--pgport", &PG_PORT.to_string()]);
        create.args(["--auth", "trust", "--no-ssl", "--pg-hba-lan"]);
        run(host, &mut create)?;
        for (name, value) in KEEPER_SETTINGS {
            run(host, autoctl(host, data, &["config", "set"]).args([name, value]))?;
        }
        append(&data.join("postgresql.conf"), PG_SETTINGS)?;
        host.spawn(&mut autoctl(host, data, &["run"]))
    }

    fn monitor_uri(&self) -> String {
        format!("postgres://autoctl_node@{}/pg_auto_failover", self.control.at(PG_PORT))
    }

    /// Commits wait for this node no more; a new one is always in the quorum.
    fn leave_quorum(&self, name: &str) -> Result<()> {
        self.set(&format!("set_node_replication_quorum('default', '{name}', false)"))
    }

    /// Once nodes have taken up what was set before.
    fn set(&self, what: &str) -> Result<()> {
        let (ask, what) = (format!("select pgautofailover.{what}"), format!("{what} is taken"));
        let from = &self.control;
        try_until(WELL_WITHIN, &what, || sql::ask(from, &monitor_target(from), &ask))?;
        Ok(())
    }
}

impl System for AutoFailover {
    fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    fn control(&self) -> &Host {
        &self.control
    }

    fn login(&self) -> String {
        "user=postgres dbname=postgres".to_owned()
    }

    fn check_well(&self, client: &Host) -> Result<()> {
        let ask = "select reportedstate, goalstate from pgautofailover.node";
        let rows = sql::ask(client, &monitor_target(&self.control), ask)?;
        let count =
            |state: &str| rows.iter().filter(|row| row.iter().all(|seen| seen == state)).count();
        ensure!(count("primary") == 1 && count("secondary") == 2, "{rows:?}");
        Ok(())
    }

    fn switch_over(&mut self) -> Result<()> {
        let data = monitor_data(&self.control);
        run(&self.control, &mut autoctl(&self.control, &data, &["perform", "switchover"]))
    }

    /// There is no command for it: the node is dropped and created again.
    fn reclone(&mut self, node: usize) -> Result<()> {
        let own = self.nodes.get(node).context("no such node")?;
        run(&own.host, autoctl(&own.host, &own.data, &["drop", "node"]).arg("--destroy"))?;
        let (keeper, name) = (self.create_node(own)?, own.host.name().to_owned());
        *self.keepers.get_mut(node).context("no such node")? = keeper;
        if self.mode == Mode::Async { self.leave_quorum(&name) } else { Ok(()) }
    }

    fn boot(&mut self, node: usize) -> Result<()> {
        let Node { host, data, .. } = self.nodes.get(node).context("no such node")?;
        let keeper = boot(host, data)?;
        *self.keepers.get_mut(node).context("no such node")? = keeper;
        Ok(())
    }

    fn boot_control(&mut self) -> Result<()> {
        self.monitor = boot(&self.control, &monitor_data(&self.control))?;
        Ok(())
    }
}

fn create_monitor(host: &Host) -> Result<Proc> {
    let data = home_of_postgres(host)?.join("monitor");
    let ip = host.ip().to_string();
    let mut create = autoctl(host, &data, &["create", "monitor"]);
    create.args(["--hostname", &ip, "--pgport", &PG_PORT.to_string()]);
    run(host, create.args(["--auth", "trust", "--no-ssl"]))?;
    append(&data.join("postgresql.conf"), MONITOR_SETTINGS)?;
    let monitor = host.spawn(&mut autoctl(host, &data, &["run"]))?;
    let target = monitor_target(host);
    try_until(WELL_WITHIN, "the monitor answers", || sql::ask(host, &target, "select 1"))?;
    Ok(monitor)
}

fn monitor_target(host: &Host) -> String {
    let ip = host.ip();
    format!("host={ip} port={PG_PORT} user=autoctl_node dbname=pg_auto_failover connect_timeout=1")
}

fn monitor_data(host: &Host) -> PathBuf {
    host.path("pg/monitor")
}

/// Without what a boot leaves nothing of.
fn boot(host: &Host, data: &Path) -> Result<Proc> {
    let volatile = runtime_dir(host);
    if volatile.exists() {
        fs::remove_dir_all(&volatile)?;
    }
    home_of_postgres(host)?;
    host.spawn(&mut autoctl(host, data, &["run"]))
}

fn runtime_dir(host: &Host) -> PathBuf {
    host.path("pg/run")
}

/// Everything of the host's keeper is below the host's directory.
fn autoctl(host: &Host, data: &Path, verbs: &[&str]) -> Command {
    let mut command = as_postgres(Path::new("pg_autoctl"));
    let home = host.path("pg");
    command.env("XDG_CONFIG_HOME", home.join("config"));
    command.env("XDG_DATA_HOME", home.join("share"));
    command.env("XDG_RUNTIME_DIR", runtime_dir(host));
    command.env("PG_REGRESS_SOCK_DIR", runtime_dir(host));
    command.env("PGHOST", runtime_dir(host));
    command.args(verbs).arg("--pgdata").arg(data);
    command
}

fn run(host: &Host, command: &mut Command) -> Result<()> {
    host.spawn(command)?.output(COMMAND_WITHIN)?.ok().map(drop)
}

fn append(file: &Path, text: &str) -> Result<()> {
    let mut open = File::options().append(true).open(file).context("open postgresql.conf")?;
    Ok(open.write_all(text.as_bytes())?)
}
