//! Targets that come and go: nobody else notices.

use std::fs;

use anyhow::Result;
use lockstep_proto::v1;
use lockstep_tests::{Fleet, Net};

use super::fill_new;

#[test]
fn targets_come_and_go_and_nobody_else_notices() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fill_new(&fleet)?;
    fleet.sync_www("master1", &["web1", "web2"])?;
    fleet.wait_in_step("master1", &["web1", "web2"]);
    fleet.ctl(&["sync", "wait", "www"])?.ok()?;
    let watcher = fleet.lsyncd("master1")?;
    let before = fleet.delivery("web1")?;

    fleet.add_node("web3")?;
    let place = fleet.place("web3")?;
    fleet.ctl(&["sync", "add-target", "www", &place, "--wait"])?.ok()?;
    fleet.wait_in_step("master1", &["web3"]);
    let after = fleet.delivery("web1")?;
    // What was reported before may lack the last batch; a pass would be 300 kB.
    let more = after.sent_bytes - before.sent_bytes;
    assert!(more < 10_000, "{more} bytes were sent to another target");
    assert_eq!(fleet.lsyncd("master1")?, watcher, "lsyncd was left alone");

    fleet.ctl(&["sync", "remove-target", "www", "web2", "--wait"])?.ok()?;
    fleet.wait_arrives("master1", &["web1", "web3"], "after")?;
    assert!(fs::exists(fleet.www("web2")?.join("index.html"))?, "its files stay");
    assert!(!fs::exists(fleet.www("web2")?.join("after"))?, "and nothing is sent any more");
    assert_eq!(fleet.lsyncd("master1")?, watcher);
    assert_eq!(fleet.node("web2")?.status("/sync/www"), 404);

    let asked = fleet.ctl(&["sync", "delete", "www"])?.refused()?;
    assert!(asked.contains("--yes"), "{asked}");
    fleet.ctl(&["sync", "delete", "www", "--yes", "--wait"])?.ok()?;
    assert!(fleet.lsyncd("master1").is_err(), "no watcher without a sync");
    assert!(fs::exists(fleet.www("web1")?.join("after"))?);
    assert!(fs::exists(fleet.www("master1")?.join("after"))?);
    let tasks: v1::ListTasksResponse = fleet.ask(&["task", "list", "--live"])?;
    assert!(tasks.tasks.is_empty(), "{tasks:?}");
    assert_eq!(fleet.ctl(&["explain"])?.ok()?.trim(), "nothing waits");
    Ok(())
}
