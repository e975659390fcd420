//! Clusters of a fleet: each member keeps its data in a directory `pg` of its own. Made and changed by
//! the commands that a user types, asked by SQL as a client asks it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;
use rustix::process::{Pid, Signal, kill_process};

use crate::fleet::Fleet;
use crate::host::Host;
use crate::http::Reply;
use crate::proc::{Output, cmd};
use crate::sql;
use crate::wait::{try_until, until};
use crate::writer::{self, Written};

/// For members to follow and for changes of primaries to end: far above what they take, far below a
/// test's limit.
pub const CHANGED_WITHIN: Duration = Duration::from_secs(60);
/// Of the superuser `lockstep`, whom tests are.
pub const PASSWORD: &str = "open-sesame-4711";

impl Fleet {
    /// A member's data directory.
    pub fn pg_data(&self, node: &str) -> Result<PathBuf> {
        Ok(self.node(node)?.host.path("pg/data"))
    }

    /// Hosts share the machine's files, and so the directory of sockets: each has a port of its own.
    pub fn pg_port(&self, node: &str) -> Result<u16> {
        let std::net::IpAddr::V4(ip) = self.node(node)?.host.ip() else { return Ok(5432) };
        Ok(5400 + u16::from(ip.octets()[3]))
    }

    /// What is typed to give a member its place on these hosts, for `create` and `edit`.
    pub fn member_args(&self, node: &str) -> Result<Vec<String>> {
        let (data, port) = (self.pg_data(node)?, self.pg_port(node)?);
        prepare(data.parent().context("a directory")?)?;
        let value = |text: String| ["--member".to_owned(), format!("{node}:{text}")];
        let all = [value(format!("data-dir={}", data.display())), value(format!("port={port}"))];
        Ok(all.concat())
    }

    /// What is typed to give all of them their places on these hosts, for `create`.
    pub fn instance_args(&self, nodes: &[&str]) -> Result<Vec<String>> {
        let sockets = self.net().dir().join("s");
        prepare(&sockets)?;
        let mut args = vec!["--socket-dir".to_owned(), sockets.display().to_string()];
        for node in nodes {
            args.extend(self.member_args(node)?);
        }
        Ok(args)
    }

    /// Creates a cluster whose first node is the primary, and waits until all follow; `more` is what
    /// else is typed.
    pub fn create_cluster(&self, name: &str, nodes: &[&str], more: &[&str]) -> Result<Output> {
        let (primary, standbys) = nodes.split_first().context("a primary")?;
        let mut args: Vec<String> =
            ["cluster", "create", name, "--primary", primary].map(Into::into).into();
        for standby in standbys {
            args.extend(["--standby".to_owned(), (*standby).to_owned()]);
        }
        args.extend(self.instance_args(nodes)?);
        let common = [
            "--set-superuser-password-file",
            "-",
            "--hba",
            "host all all 10.77.0.0/24 scram-sha-256",
            "--parameter",
            "shared_buffers=16MB",
            "--parameter",
            "max_connections=40",
            "--min-free",
            "1M",
        ];
        args.extend(common.iter().chain(more).map(|arg| (*arg).to_owned()));
        // Another version than the newest that is installed: `tests/postgres-versions`.
        if let Ok(bin) = std::env::var("LOCKSTEP_TEST_PG_BIN") {
            args.extend(["--postgres-bin".to_owned(), bin]);
        }
        let mut command = self.ctl_command();
        self.controller.host.run_with(command.args(args), PASSWORD)
    }

    pub fn cluster(&self, name: &str) -> Result<v1::Cluster> {
        self.ask(&["cluster", "show", name])
    }

    /// Newest last.
    pub fn failovers(&self, name: &str) -> Result<Vec<v1::Failover>> {
        let answer: v1::ListFailoversResponse = self.ask(&["cluster", "history", name])?;
        let mut all = answer.failovers;
        all.reverse();
        Ok(all)
    }

    /// Waits until the cluster is steady with this primary and all others that are named follow it.
    #[track_caller]
    pub fn wait_roles(&self, name: &str, primary: &str, standbys: &[&str]) -> v1::Cluster {
        let what = format!("{primary} is primary and {standbys:?} follow");
        until(CHANGED_WITHIN, &what, || -> Result<v1::Cluster> {
            let cluster = self.cluster(name)?;
            check_roles(&cluster, primary, standbys)?;
            Ok(cluster)
        })
    }

    /// Waits until commits are acknowledged by so many standbys of these.
    #[track_caller]
    pub fn wait_sync(&self, name: &str, k: u32, of: &[&str]) {
        until(CHANGED_WITHIN, &format!("any {k} of {of:?} acknowledge"), || -> Result<()> {
            let state = self.cluster(name)?.state.unwrap_or_default();
            let [quorum] = state.quorums.as_slice() else {
                anyhow::bail!("{:?}", state.quorums);
            };
            ensure!(quorum.k == k && quorum.of == of, "{:?}", state.quorums);
            Ok(())
        });
    }

    /// As [`Fleet::wait_sync`], whoever they are.
    #[track_caller]
    pub fn wait_sync_any(&self, name: &str, k: u32) {
        until(CHANGED_WITHIN, &format!("{k} acknowledge"), || -> Result<()> {
            let state = self.cluster(name)?.state.unwrap_or_default();
            let [quorum] = state.quorums.as_slice() else {
                anyhow::bail!("{:?}", state.quorums);
            };
            ensure!(quorum.k == k && state.stage == "steady", "{state:?}");
            Ok(())
        });
    }

    /// A connection string of these members, for whoever writes.
    pub fn pg_target(&self, nodes: &[&str]) -> Result<String> {
        Ok(format!("{} target_session_attrs=read-write", self.pg_reach(nodes)?))
    }

    /// A connection string of these members, whatever they are.
    pub fn pg_reach(&self, nodes: &[&str]) -> Result<String> {
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        for node in nodes {
            hosts.push(self.node(node)?.host.ip().to_string());
            ports.push(self.pg_port(node)?.to_string());
        }
        let (hosts, ports) = (hosts.join(","), ports.join(","));
        Ok(format!(
            "host={hosts} port={ports} user=lockstep password={PASSWORD} dbname=postgres connect_timeout=1"
        ))
    }

    /// The process that all others of a member's instance come from.
    pub fn postmaster(&self, node: &str) -> Result<u32> {
        let file = self.pg_data(node)?.join("postmaster.pid");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        text.lines().next().context("an empty postmaster.pid")?.trim().parse().context("no pid")
    }

    /// kill -9 of a member's postgres, its agent living on.
    pub fn kill_postgres(&self, node: &str) -> Result<()> {
        self.signal_postgres(node, Signal::KILL)
    }

    pub fn signal_postgres(&self, node: &str, signal: Signal) -> Result<()> {
        send(self.postmaster(node)?, signal)
    }

    /// To every process of a member's instance, the first one first.
    pub fn signal_instance(&self, node: &str, signal: Signal) -> Result<()> {
        let first = self.postmaster(node)?;
        let mut all = vec![first];
        all.extend(children(first));
        for pid in all {
            send(pid, signal)?;
        }
        Ok(())
    }

    /// To the process of a member's instance whose title has this word: walreceiver, startup.
    pub fn signal_child(&self, node: &str, title: &str, signal: Signal) -> Result<()> {
        send(self.child(node, title)?.0, signal)
    }

    /// The title of that process: what it is at.
    pub fn child_title(&self, node: &str, title: &str) -> Result<String> {
        Ok(self.child(node, title)?.1)
    }

    fn child(&self, node: &str, title: &str) -> Result<(u32, String)> {
        let shown = |pid: u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (pid, String::from_utf8_lossy(&line).into_owned())
        };
        let mut all = children(self.postmaster(node)?).into_iter().map(shown);
        let found = all.find(|(_, line)| line.contains(title));
        found.with_context(|| format!("{node} has no process {title}"))
    }

    /// The machine of a member is lost, and another one takes its name: the commands that a person types,
    /// until it is a standby again. Its host is off.
    pub fn replace_member(&mut self, cluster: &str, node: &str) -> Result<()> {
        let host = self.node(node)?.host.clone();
        self.ctl(&["node", "expel", node, "--yes"])?.ok()?;
        self.ctl(&["cluster", "remove", cluster, node, "--yes"])?.ok()?;
        try_until(CHANGED_WITHIN, "it is no member", || {
            self.cluster(cluster).is_ok_and(|cluster| member(&cluster, node).is_err())
        })?;
        self.ctl(&["node", "remove", node, "--yes"])?.ok()?;
        for dir in ["pg", "data"] {
            for entry in std::fs::read_dir(host.path(dir))? {
                let path = entry?.path();
                let gone = cmd("rm").arg("-rf").arg(&path).output()?;
                ensure!(gone.status.success(), "{}", path.display());
            }
        }
        host.power_on()?;
        let token = self.token(node)?;
        self.join(&host, &token)?.ok()?;
        self.run_agent(host)?;
        self.member_args(node)?;
        let (port, dir) = (self.pg_port(node)?.to_string(), self.pg_data(node)?);
        let dir = dir.display().to_string();
        let add = ["cluster", "add-standby", cluster, node, "--port", &port, "--data-dir", &dir];
        self.ctl(&add)?.ok().map(drop)
    }

    /// What a member says to load balancers: `/primary`, `/replica`.
    pub fn pg_health(&self, node: &str, path: &str) -> Result<Reply> {
        self.node(node)?.health(path)
    }

    /// The table that writers fill.
    pub fn make_table(&self, from: &Host, nodes: &[&str]) -> Result<()> {
        self.make_table_named(from, nodes, writer::TABLE)
    }

    pub fn make_table_named(&self, from: &Host, nodes: &[&str], table: &str) -> Result<()> {
        let make = format!("create table if not exists {table} (id bigint)");
        sql::ask(from, &self.pg_target(nodes)?, &make)?;
        Ok(())
    }

    /// Nothing that was acknowledged is missing where is written now, and nothing is there twice.
    pub fn check_written(&self, from: &Host, nodes: &[&str], written: &Written) -> Result<()> {
        let present = self.rows(from, &self.pg_target(nodes)?)?;
        let lost = written.lost(&present)?;
        ensure!(
            lost.is_empty(),
            "{} of {} acknowledged rows are lost, such as {:?}; {:?}",
            lost.len(),
            written.acknowledged.len(),
            lost.first(),
            written.failed
        );
        ensure!(!written.acknowledged.is_empty(), "nothing was written at all");
        Ok(())
    }

    /// Ids in the writers' table, by any connection.
    pub fn rows(&self, from: &Host, target: &str) -> Result<Vec<u64>> {
        let rows = sql::ask(from, target, "select id from written order by id")?;
        rows.iter().map(|row| Ok(row[0].parse()?)).collect()
    }
}

/// Whether the cluster is steady with this primary, and these receive from it or from each other.
pub fn check_roles(cluster: &v1::Cluster, primary: &str, standbys: &[&str]) -> Result<()> {
    let state = cluster.state.clone().unwrap_or_default();
    let seen = || format!("{}: {}", shown(cluster), cluster.reason);
    ensure!(state.stage == "steady" && state.holder == primary, "{}", seen());
    ensure!(report(cluster, primary)?.state == "primary", "{}", seen());
    for node in standbys {
        let report = report(cluster, node)?;
        let from = report.upstream.as_ref().map_or("", |upstream| &upstream.from);
        let follows = from == primary || standbys.contains(&from);
        ensure!(report.state == "standby" && follows, "{node} from {from:?}; {}", seen());
    }
    Ok(())
}

/// What a member's agent last said.
pub fn report<'a>(cluster: &'a v1::Cluster, node: &str) -> Result<&'a v1::MemberReport> {
    let report = member(cluster, node)?.report.as_ref();
    report.with_context(|| format!("nothing was heard of {node}"))
}

pub fn member<'a>(cluster: &'a v1::Cluster, node: &str) -> Result<&'a v1::ClusterMember> {
    let member = cluster.members.iter().find(|member| member.node == node);
    member.with_context(|| format!("{node} is no member of {}", cluster.name))
}

/// Stage, holder and members in a line, for waits in vain.
fn shown(cluster: &v1::Cluster) -> String {
    let state = cluster.state.clone().unwrap_or_default();
    let mut text = format!("{} {} term {}", state.stage, state.holder, state.term);
    for member in &cluster.members {
        let report = member.report.clone().unwrap_or_default();
        let why = [member.reason.as_str(), &report.problem].join(" ");
        text.push_str(&format!("; {} {} {}", member.node, report.state, why.trim()));
    }
    text
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok(kill_process(pid.context("no such pid")?, signal)?)
}

fn children(of: u32) -> Vec<u32> {
    let file = format!("/proc/{of}/task/{of}/children");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// A directory of the user `postgres`.
fn prepare(dir: &std::path::Path) -> Result<()> {
    let made = cmd("install").args(["-d", "-o", "postgres", "-g", "postgres"]).arg(dir).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}
