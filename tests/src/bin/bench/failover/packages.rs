//! The peers' programs: Debian's where there are any, else in a virtual environment of Python below
//! the build's target directory. Lockstep needs
//! nothing but PostgreSQL.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use lockstep_tests::cmd;

use super::results::Peer;
use super::system::as_postgres;

/// Debian's own: another one may be where the user `postgres` cannot go.
const PYTHON: &str = "/usr/bin/python3";
/// In the source tree that this bench was built from.
const INSTALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packages");
/// The servers of all systems.
pub const PG_BIN: &str = "/usr/lib/postgresql/15/bin";
const MONITOR_EXTENSION: &str = "/usr/lib/postgresql/15/lib/pgautofailover.so";
const PATRONI: &str = "patroni-4.1.5";
const PATRONI_REQUIREMENTS: [&str; 2] = ["patroni[etcd3]==4.1.5", "psycopg2-binary==2.9.13"];

/// Installs what a peer needs and has not.
pub fn install(peer: Peer) -> Result<()> {
    match peer {
        Peer::Lockstep => debian(&["pg_ctlcluster=postgresql"]),
        Peer::Patroni => {
            debian(&["pg_ctlcluster=postgresql", "etcd=etcd-server", &format!("{PYTHON}=python3")])?;
            install_patroni()
        }
        Peer::AutoFailover => {
            let mut wanted = vec!["pg_ctlcluster=postgresql", "pg_autoctl=pg-auto-failover-cli"];
            if !Path::new(MONITOR_EXTENSION).exists() {
                wanted.push("pgautofailover.so=postgresql-15-auto-failover");
            }
            debian(&wanted)
        }
    }
    .with_context(|| {
        format!(
            "{} is not here and cannot be installed: it takes the network, once; or choose others by --peer",
            peer.name()
        )
    })
}

/// A program of Patroni's: `patroni`, `patronictl`.
pub fn patroni(program: &str) -> Result<PathBuf> {
    Ok(patroni_dir()?.join("bin").join(program))
}

fn install_patroni() -> Result<()> {
    let dir = patroni_dir()?;
    let complete = dir.join("complete");
    if complete.exists() {
        return Ok(());
    }
    eprintln!("installing {PATRONI} into {}", dir.display());
    if succeed(cmd(PYTHON).args(["-c", "import ensurepip"])).is_err() {
        debian(&["python3-venv"])?;
    }
    succeed(cmd(PYTHON).args(["-m", "venv", "--clear"]).arg(&dir))?;
    let mut pip = cmd(dir.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]);
    succeed(pip.args(PATRONI_REQUIREMENTS))?;
    // By `env`, so that it is started with no more than that user may.
    let tried = succeed(as_postgres(Path::new("env")).arg(patroni("patroni")?).arg("--version"));
    tried.context("the user postgres must be able to go into the target directory")?;
    Ok(std::fs::write(complete, "")?)
}

/// Beside the directory of the profile that this bench was built into.
fn patroni_dir() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.parent().and_then(Path::parent).context("no target directory")?;
    Ok(target.join(PATRONI))
}

fn debian(wanted: &[&str]) -> Result<()> {
    succeed(cmd(INSTALL).args(wanted))
}

fn succeed(command: &mut Command) -> Result<()> {
    let done = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(done.success(), "{command:?}: {done}");
    Ok(())
}
