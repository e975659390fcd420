//! What would break a promise is refused, with the way out, and nothing is changed.

use anyhow::{Result, ensure};
use lockstep_tests::clusters::member;
use lockstep_tests::{sql, until};
use rustix::process::Signal;

use super::{SOON, check, last_change, world, write};

const REFUSED: i32 = 3;
/// Some times `--max-lag` of log.
const MUCH: &str = "insert into big select repeat('x', 1000) from generate_series(1, 5000)";

#[test]
#[ignore = "slow: a standby stands still"]
fn what_a_promise_needs_is_not_taken_away() -> Result<()> {
    let (_net, fleet, client) = world(&["--sync", "2", "--max-lag", "1M"])?;
    fleet.wait_sync("main", 2, &["db2", "db3"]);
    let target = fleet.pg_target(&["db1"])?;
    sql::ask(&client, &target, "create table big (filler text)")?;
    let writer = write(&fleet, &client)?;
    let refused = |args: &[&str], says: &str| -> Result<()> {
        let done = fleet.ctl(&[&["cluster"], args].concat())?;
        ensure!(done.status.code() == Some(REFUSED) && done.stderr.contains(says), "{done}");
        Ok(())
    };
    for verb in ["remove", "reclone"] {
        refused(&[verb, "main", "db3", "--yes"], "commits wait for 2 standbys")?;
    }
    refused(&["stop", "main", "db3"], "--sync 1")?;
    let cluster = fleet.cluster("main")?;
    let there = member(&cluster, "db3")?;
    ensure!(cluster.members.len() == 3 && there.admin == "managed", "{there:?}");
    ensure!(there.copy == there.copied, "{there:?}");
    fleet.wait_sync("main", 2, &["db2", "db3"]);

    // The way out that it names. One that is behind is no target then.
    fleet.ctl(&["cluster", "edit", "main", "--sync", "1"])?.ok()?;
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    fleet.signal_child("db3", "walreceiver", Signal::STOP)?;
    sql::ask(&client, &target, MUCH)?;
    let lags = ["switchover", "main", "--to", "db3", "--no-wait"];
    until(SOON, "its lag is known", || refused(&lags, "more than max-lag 1M"));
    ensure!(fleet.failovers("main")?.is_empty(), "{:?}", fleet.failovers("main")?);
    fleet.wait_roles("main", "db1", &["db2"]);
    fleet.signal_child("db3", "walreceiver", Signal::CONT)?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    until(SOON, "it has caught up", || {
        fleet.ctl(&["cluster", "switchover", "main", "--to", "db3"]).and_then(|done| done.ok())
    });
    fleet.wait_roles("main", "db3", &["db1", "db2"]);
    last_change(&fleet, "switchover")?;
    check(&fleet, &client, writer)
}
