//! Patroni with etcd, at the tightest settings that it accepts and with whatever else serves it best:
//! quorum commit, failsafe mode, fast checkpoints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lockstep_tests::{Host, Net, Proc, cmd, http};
use serde_json::{Value, json};

use super::packages::{self, PG_BIN};
use super::results::Mode;
use super::system::{NODES, Node, System, as_postgres, home_of_postgres};

const CLUSTER: &str = "main";
const PASSWORD: &str = "open-sesame-4711";
const ETCD_PORT: u16 = 2379;
const REST_PORT: u16 = 8008;
const PG_PORT: u16 = 5432;

pub struct Patroni {
    control: Host,
    nodes: Vec<Node>,
    sync: bool,
    etcd: Proc,
    daemons: Vec<Proc>,
}

impl Patroni {
    pub fn start(net: &Net, mode: Mode) -> Result<Self> {
        let control = net.host("control")?;
        let etcd = start_etcd(&control)?;
        let sync = mode == Mode::Sync;
        let mut system = Self { control, nodes: Vec::new(), sync, etcd, daemons: Vec::new() };
        for name in NODES {
            let host = net.host(name)?;
            let data = home_of_postgres(&host)?.join("data");
            let node = Node { host, port: PG_PORT, data };
            fs::write(config(&node.host), system.configure(&node)?.to_string())?;
            system.daemons.push(start_patroni(&node.host)?);
            system.nodes.push(node);
        }
        Ok(system)
    }

    /// Its configuration, of which JSON is a part.
    fn configure(&self, node: &Node) -> Result<Value> {
        let ip = node.host.ip();
        let login = |name: &str| json!({ "username": name, "password": PASSWORD });
        let home = node.data.parent().context("a directory")?;
        Ok(json!({
            "scope": CLUSTER,
            "name": node.host.name(),
            "restapi": {
                "listen": format!("{ip}:{REST_PORT}"),
                "connect_address": format!("{ip}:{REST_PORT}"),
            },
            "etcd3": { "hosts": self.control.at(ETCD_PORT).to_string() },
            "bootstrap": {
                "dcs": self.cluster_settings(),
                "initdb": [{ "encoding": "UTF8" }, "data-checksums"],
            },
            "postgresql": {
                "listen": format!("{ip}:{PG_PORT}"),
                "connect_address": format!("{ip}:{PG_PORT}"),
                "data_dir": node.data,
                "bin_dir": PG_BIN,
                "pgpass": home.join("pgpass"),
                "authentication": {
                    "superuser": login("postgres"),
                    "replication": login("replicator"),
                },
                "pg_hba": [
                    "local all all trust",
                    "host all all 10.77.0.0/24 scram-sha-256",
                    "host replication replicator 10.77.0.0/24 scram-sha-256",
                ],
                "parameters": { "unix_socket_directories": home },
                "basebackup": [{ "checkpoint": "fast" }],
            },
        }))
    }

    fn cluster_settings(&self) -> Value {
        json!({
            "ttl": 20,
            "loop_wait": 1,
            "retry_timeout": 3,
            "primary_start_timeout": 0,
            "maximum_lag_on_failover": 1_048_576,
            "failsafe_mode": true,
            "synchronous_mode": if self.sync { json!("quorum") } else { json!(false) },
            "postgresql": {
                "use_pg_rewind": true,
                "use_slots": true,
                "parameters": {
                    "shared_buffers": "16MB",
                    "max_connections": 40,
                    "password_encryption": "scram-sha-256",
                    "wal_sender_timeout": "3s",
                    "wal_receiver_timeout": "3s",
                    "wal_receiver_status_interval": "1s",
                    "wal_retrieve_retry_interval": "500ms",
                },
            },
        })
    }

    fn patronictl(&self, args: &[&str]) -> Result<()> {
        let host = &self.nodes.first().context("no node")?.host;
        let mut command = cmd(packages::patroni("patronictl")?);
        command.env("LC_ALL", "C.UTF-8").arg("-c").arg(config(host));
        self.control.run(command.args(args))?.ok().map(drop)
    }
}

impl System for Patroni {
    fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    fn control(&self) -> &Host {
        &self.control
    }

    fn login(&self) -> String {
        format!("user=postgres password={PASSWORD} dbname=postgres")
    }

    fn check_well(&self, client: &Host) -> Result<()> {
        let first = self.nodes.first().context("no node")?;
        let reply = http::get(client, first.host.at(REST_PORT), "/cluster")?;
        let cluster: Value = serde_json::from_str(&reply.body)?;
        let members = cluster["members"].as_array().context("no members")?;
        let count = |role: &str, state: &str| {
            members.iter().filter(|m| m["role"] == role && m["state"] == state).count()
        };
        let standbys = if self.sync { "quorum_standby" } else { "replica" };
        ensure!(count("leader", "running") == 1 && count(standbys, "streaming") == 2, "{cluster}");
        Ok(())
    }

    fn switch_over(&mut self) -> Result<()> {
        self.patronictl(&["switchover", CLUSTER, "--force"])
    }

    fn reclone(&mut self, node: usize) -> Result<()> {
        let name = NODES.get(node).context("no such node")?;
        self.patronictl(&["reinit", CLUSTER, name, "--force"])
    }

    fn boot(&mut self, node: usize) -> Result<()> {
        let host = &self.nodes.get(node).context("no such node")?.host;
        *self.daemons.get_mut(node).context("no such node")? = start_patroni(host)?;
        Ok(())
    }

    fn boot_control(&mut self) -> Result<()> {
        self.etcd = start_etcd(&self.control)?;
        Ok(())
    }
}

fn config(host: &Host) -> PathBuf {
    host.path("patroni.json")
}

fn start_patroni(host: &Host) -> Result<Proc> {
    let mut daemon: Command = as_postgres(&packages::patroni("patroni")?);
    host.spawn(daemon.arg(config(host)))
}

/// One member: no election of etcd's own is in any figure.
fn start_etcd(host: &Host) -> Result<Proc> {
    let at = format!("http://{}", host.at(ETCD_PORT));
    let mut etcd = cmd(Path::new("etcd"));
    etcd.arg("--data-dir").arg(host.path("etcd"));
    host.spawn(etcd.args(["--listen-client-urls", &at, "--advertise-client-urls", &at]))
}
