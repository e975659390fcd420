//! PostgreSQL clusters as their users see them: a file per subject. Here is only what several of them
//! start from.

mod clocks;
mod commands;
mod control;
mod copies;
mod crashes;
mod disks;
mod fences;
mod forks;
mod guards;
mod interrupted;
mod losses;
mod managers;
mod pauses;
mod refusals;
mod returns;
mod rewinds;
mod routing;
mod switchover;
mod troubles;
mod variants;
mod versions;

use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_model::Millis;
use lockstep_proto::v1;
use lockstep_tests::{Fleet, Host, Net, Writer};
use lockstep_transport::clock;

const SOON: Duration = Duration::from_secs(30);
const NODES: [&str; 3] = ["db1", "db2", "db3"];
/// What writes may stand still over a change of primaries on a busy machine: far above what the bench
/// measures, and below every lease and timeout that could hide behind it.
const OUTAGE_MAX: Duration = Duration::from_secs(4);

/// Three members of a cluster `main`, db1 being primary, with an empty table; and a host of a client.
fn world(more: &[&str]) -> Result<(Net, Fleet, Host)> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &NODES)?;
    let client = net.host("client")?;
    fleet.create_cluster("main", &NODES, more)?.ok()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.make_table(&client, &NODES)?;
    Ok((net, fleet, client))
}

/// As [`world`], with every commit on one of the two standbys before it is acknowledged.
fn world_in_sync() -> Result<(Net, Fleet, Host)> {
    let made = world(&[])?;
    made.1.wait_sync("main", 1, &["db2", "db3"]);
    Ok(made)
}

fn write(fleet: &Fleet, client: &Host) -> Result<Writer> {
    Ok(Writer::start(client, &fleet.pg_target(&NODES)?))
}

/// Waits until writes are acknowledged again after an event, and tells how long they stood still.
#[track_caller]
fn outage(
    fleet: &Fleet,
    writer: &Writer,
    event: &str,
    act: impl FnOnce() -> Result<()>,
) -> Result<Duration> {
    let (before, began) = (writer.acknowledged(), clock::now());
    act()?;
    writer.wait_more(50);
    let gap = writer.longest_gap(before);
    eprintln!("{event}: {gap:?}");
    fleet.show_timeline(event, began, Millis(Millis::of(gap).0 + 3000))?;
    Ok(gap)
}

/// Ends the writer, and holds what it was promised against what is there.
fn check(fleet: &Fleet, client: &Host, writer: Writer) -> Result<()> {
    let written = writer.stop()?;
    let (failed, gap) = (written.failed.len(), written.longest_gap);
    eprintln!("{} written, {failed} failed, longest gap {gap:?}", written.acknowledged.len());
    fleet.check_written(client, &NODES, &written)
}

/// For so long the primary db1 is the same process, and rows are written on it. How fast they are is not
/// judged: that depends on who else needs the machine.
fn nothing_changes(fleet: &Fleet, writer: &Writer, within: Duration) -> Result<()> {
    let (before, written) = (fleet.postmaster("db1")?, writer.acknowledged());
    let changed = lockstep_tests::try_until(within, "it is another one", || {
        fleet.postmaster("db1").is_ok_and(|now| now != before)
    });
    ensure!(changed.is_err(), "postgres was restarted");
    ensure!(fleet.pg_health("db1", "/leader")?.status == 200, "it lost its lease");
    ensure!(writer.acknowledged() > written, "nothing was written");
    writer.wait_more(20);
    Ok(())
}

/// Who is primary now, and who are the others.
fn roles(cluster: &v1::Cluster) -> (String, Vec<String>) {
    let holder = cluster.state.clone().unwrap_or_default().holder;
    let others = cluster.members.iter().map(|member| member.node.clone());
    let others = others.filter(|node| *node != holder).collect();
    (holder, others)
}

/// The newest report of the history, which must have ended well.
fn last_change(fleet: &Fleet, cause: &str) -> Result<v1::Failover> {
    let Some(last) = fleet.failovers("main")?.pop() else { anyhow::bail!("nothing happened") };
    ensure!(last.cause == cause && last.end == "done", "{last:?}");
    Ok(last)
}

/// Waits for a steady primary that is not `old`, with all members but `away` following.
#[track_caller]
fn wait_other_primary(fleet: &Fleet, old: &str, away: &[&str]) -> v1::Cluster {
    let found = lockstep_tests::until(SOON, &format!("another primary than {old}"), || {
        let cluster = fleet.cluster("main").ok()?;
        let state = cluster.state.clone()?;
        let moved = state.stage == "steady" && !state.holder.is_empty() && state.holder != old;
        moved.then_some(cluster)
    });
    let (holder, others) = roles(&found);
    let others: Vec<&str> =
        others.iter().map(String::as_str).filter(|node| !away.contains(node)).collect();
    fleet.wait_roles("main", &holder, &others)
}

/// Whoever is primary now, all others follow: a machine so busy that no standby is known to follow has a
/// crashed primary start again where it was.
#[track_caller]
fn wait_well(fleet: &Fleet) {
    lockstep_tests::until(
        lockstep_tests::clusters::CHANGED_WITHIN,
        "all is well again",
        || -> Result<()> {
            let cluster = fleet.cluster("main")?;
            let (primary, others) = roles(&cluster);
            let state = cluster.state.clone().unwrap_or_default();
            ensure!(state.stage == "steady", "{}", state.stage);
            ensure!(lockstep_tests::clusters::report(&cluster, &primary)?.state == "primary");
            for node in others {
                ensure!(
                    lockstep_tests::clusters::report(&cluster, &node)?.upstream.is_some(),
                    "{node}"
                );
            }
            Ok(())
        },
    );
}
