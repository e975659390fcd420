//! What a person orders on top: a complete pass, and its cancel.

use std::fs;

use anyhow::Result;
use lockstep_proto::v1;
use lockstep_tests::{Fleet, Net};

use super::fill_new;

#[test]
fn a_resync_and_its_cancel_are_tasks_to_follow() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1"])?;
    fill_new(&fleet)?;
    fleet.sync_www("master1", &["web1"])?;
    fleet.wait_in_step("master1", &["web1"]);
    // What somebody does to a copy behind our back is undone by a pass.
    fs::write(fleet.www("web1")?.join("intruder"), "intruder")?;
    fs::remove_file(fleet.www("web1")?.join("run.sh"))?;
    let asked: v1::RunSyncResponse = fleet.ask(&["sync", "resync", "www"])?;
    let [task] = asked.tasks.as_slice() else { anyhow::bail!("{asked:?}") };
    fleet.ctl(&["task", "logs", &task.id, "--follow"])?.ok()?;
    fleet.check_in_step("master1", "web1")?;
    let shown: v1::Task = fleet.ask(&["task", "show", &task.id])?;
    assert_eq!(shown.outcome.map(|o| o.kind()), Some(v1::OutcomeKind::Ok));

    let web1 = fleet.node("web1")?.host.clone();
    web1.rate(Some(1_000_000))?;
    fs::write(fleet.www("master1")?.join("large"), vec![9; 32 << 20])?;
    let asked: v1::RunSyncResponse = fleet.ask(&["sync", "resync", "www"])?;
    let [task] = asked.tasks.as_slice() else { anyhow::bail!("{asked:?}") };
    let cancelled: v1::Task = fleet.ask(&["task", "cancel", &task.id, "--wait"])?;
    assert_eq!(cancelled.outcome.map(|o| o.kind()), Some(v1::OutcomeKind::Cancelled));
    let again = fleet.ctl(&["task", "cancel", &task.id])?;
    assert!(again.stderr.contains("ended already"), "{again}");
    web1.rate(None)?;
    fleet.wait_in_step("master1", &["web1"]);
    Ok(())
}
