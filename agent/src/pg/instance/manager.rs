//! How postgres is started: by the agent in a cgroup of its own, by its systemd unit, by Debian's
//! pg_ctlcluster. Command lines are made here; they are run elsewhere. Stopping is by signals, the same
//! for all.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use lockstep_model::cluster::options::Manager;

use super::cgroup::Cgroup;
use super::layout::Layout;
use crate::host::Program;
use crate::host::launch::Launch;

/// The postmaster is the last to be killed for want of memory; what it starts is as others are.
const OOM_SCORE: i32 = -900;
/// postgres puts its children back by itself when told so.
const ENVIRONMENT: [(&str, &str); 2] =
    [("PG_OOM_ADJUST_FILE", "/proc/self/oom_score_adj"), ("PG_OOM_ADJUST_VALUE", "0")];
const CONFIG_FILE: &str = "postgresql.conf";

/// A program that starts postgres.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    pub program: Program,
    /// It becomes the postmaster itself; else it may end while that is being started.
    pub is_postgres: bool,
}

pub fn start(layout: &Layout, agent: &Path, cgroup: Option<&Cgroup>) -> Start {
    let cgroup = cgroup.map(|cgroup| cgroup.dir().to_owned());
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    match &layout.manager {
        Manager::Agent => {
            let mut line: Vec<OsString> = vec![layout.program("postgres").into()];
            line.extend(files_args(layout).into_iter().map(OsString::from));
            let session = true;
            let oom_score = Some(OOM_SCORE);
            let launch = Launch { cgroup, session, oom_score, ..as_owner(layout, line) };
            Start { program: launch.program(agent.to_owned()), is_postgres: true }
        }
        // It changes the user itself, and is not to ask systemd: the processes are in our cgroup.
        Manager::PgCtlCluster(name) => {
            let (version, name) = name.as_str().split_once('/').unwrap_or((name.as_str(), "main"));
            let line = ["/usr/bin/pg_ctlcluster", "--skip-systemctl-redirect", version, name];
            let mut line = words(&line);
            line.extend(words(&["start", "--", "-W"]));
            let launch = Launch { cgroup, session: true, line, ..Launch::default() };
            Start { program: launch.program(agent.to_owned()), is_postgres: false }
        }
        Manager::Systemd(unit) => {
            // It waits, so that its end without a postgres is a start that failed.
            let args = words(&["start", unit.as_str()]);
            let program = Program { path: PathBuf::from("systemctl"), args, fed: false };
            Start { program, is_postgres: false }
        }
    }
}

/// Runs a program as the owner of the data.
pub fn as_owner(layout: &Layout, line: Vec<OsString>) -> Launch {
    let owner = &layout.owner;
    match rustix::process::geteuid().is_root() {
        true => Launch {
            uid: Some(owner.uid),
            gid: Some(owner.gid),
            groups: owner.groups.clone(),
            line,
            ..Launch::default()
        },
        // Another agent than root's runs postgres as itself.
        false => Launch { line, ..Launch::default() },
    }
}

/// Where postgres finds its files.
pub fn files_args(layout: &Layout) -> Vec<String> {
    let mut args = vec!["-D".to_owned(), layout.data.display().to_string()];
    if layout.config != layout.data {
        let file = layout.config.join(CONFIG_FILE);
        args.extend(["-c".to_owned(), format!("config_file={}", file.display())]);
    }
    args
}

/// A server without sessions that recovers, and ends when it has nothing to read. What has not been
/// archived is kept: pg_rewind looks for it.
pub fn recovery_args(layout: &Layout) -> Vec<String> {
    let mut args = vec!["--single".to_owned()];
    args.extend(files_args(layout));
    for setting in ["archive_mode=on", "archive_command=/bin/false", "synchronous_standby_names="] {
        args.extend(["-c".to_owned(), setting.to_owned()]);
    }
    args.push("template1".to_owned());
    args
}

/// Debian starts a cluster at boot when this file says `auto`.
pub fn check_debian(config: &Path, text: &str) -> Result<(), String> {
    let word = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    match word.into_iter().find(|word| !word.is_empty()) {
        Some("auto") => Err(format!(
            "{} says auto: postgres is started at boot, before anybody knows who is primary; write \
             manual in its place",
            config.join("start.conf").display()
        )),
        _ => Ok(()),
    }
}

/// For `spawn_detached`.
pub fn environment() -> Vec<(&'static str, &'static OsStr)> {
    ENVIRONMENT.iter().map(|(name, value)| (*name, OsStr::new(*value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debian_cluster_that_starts_at_boot_is_refused() {
        let config = Path::new("/etc/postgresql/15/main");
        assert!(check_debian(config, "# comment\nauto\n").unwrap_err().contains("start.conf"));
        assert_eq!(check_debian(config, "manual # ours\n"), Ok(()));
    }
}
