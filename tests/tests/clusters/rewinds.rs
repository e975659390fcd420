//! pg_rewind that comes too early, or does not work.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lockstep_tests::clusters::report;
use lockstep_tests::{sql, until};
use rustix::process::Signal;

use super::returns::{identity, loose, rows_are_the_same, stray, with_a_stray};
use super::{SOON, wait_other_primary};

/// Until then pg_rewind says that nothing is to be done, and leaves the data as it is.
#[test]
#[ignore = "slow: a lease ends"]
fn a_rewind_waits_for_the_checkpoint_of_the_new_primary() -> Result<()> {
    let standbys = ["db2", "db3"];
    let (_net, fleet, client) = loose(&[])?;
    for node in standbys {
        fleet.signal_child(node, "checkpointer", Signal::STOP)?;
    }
    stray(&fleet, &client)?;
    let before = identity(&fleet, "db1")?;
    fleet.node("db1")?.host.rejoin()?;
    until(SOON, "it says what it waits for", || -> Result<()> {
        let cluster = fleet.cluster("main")?;
        let seen = report(&cluster, "db1")?;
        let says = "has not written a checkpoint since its promotion";
        ensure!(seen.problem.contains(says), "{} {}", seen.state, seen.problem);
        Ok(())
    });
    let read = sql::value(&client, &fleet.pg_reach(&["db1"])?, "select 1");
    ensure!(read.is_err(), "what only it has can be read");
    for node in standbys {
        fleet.signal_child(node, "checkpointer", Signal::CONT)?;
    }
    wait_other_primary(&fleet, "db1", &[]);
    ensure!(identity(&fleet, "db1")? == before, "it was copied anew");
    rows_are_the_same(&fleet, &client)
}

/// PostgreSQL's programs as they are, but for a pg_rewind that fails. Gives their directory.
fn programs_without_rewind(dir: &Path) -> Result<String> {
    // It is postgres' user who runs them, and the version is told by the path.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let installed = Path::new("/usr/lib/postgresql");
    let versions = fs::read_dir(installed)?.map(|entry| Ok(entry?.file_name()));
    let versions: Result<Vec<_>> = versions.collect();
    let newest = versions?.into_iter().max().context("no PostgreSQL")?;
    let bin = dir.join(&newest).join("bin");
    fs::create_dir_all(&bin)?;
    for entry in fs::read_dir(installed.join(&newest).join("bin"))? {
        let entry = entry?;
        if entry.file_name() != "pg_rewind" {
            symlink(entry.path(), bin.join(entry.file_name()))?;
        }
    }
    let rewind = bin.join("pg_rewind");
    fs::write(&rewind, "#!/bin/sh\necho 'pg_rewind: error: it is broken' >&2\nexit 1\n")?;
    fs::set_permissions(&rewind, fs::Permissions::from_mode(0o755))?;
    Ok(bin.display().to_string())
}

#[test]
#[ignore = "slow: a lease ends"]
fn a_rewind_that_fails_becomes_a_copy() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let bin = programs_without_rewind(dir.path())?;
    let (_net, fleet, client) = with_a_stray(&["--postgres-bin", &bin])?;
    let before = identity(&fleet, "db1")?;
    fleet.node("db1")?.host.rejoin()?;
    wait_other_primary(&fleet, "db1", &[]);
    ensure!(identity(&fleet, "db1")? != before, "it is the old directory");
    rows_are_the_same(&fleet, &client)
}
