//! engine=classic, as an operator meets it: an lsyncd per target that comes, goes and dies alone.

use std::fs;

use anyhow::{Context, Result};
use lockstep_tests::{Fleet, Net, until};

use super::{SOON, fill_new};

/// The process of a target's own lsyncd.
fn lsyncd_of(fleet: &Fleet, target: &str) -> Result<u32> {
    let of = format!("/classic/{target}/");
    let found = fleet.node("master1")?.host.processes("lsyncd")?.into_iter().find(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&of)
    });
    found.with_context(|| format!("no lsyncd of {target}"))
}

#[test]
fn an_lsyncd_per_target_comes_goes_and_dies_alone() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fill_new(&fleet)?;
    let mut create = fleet.create_www("master1", &["web1", "web2"])?;
    create.extend(["--engine", "classic", "--wait"].map(Into::into));
    let create: Vec<&str> = create.iter().map(String::as_str).collect();
    let refused = fleet.ctl(&[&create[..], &["--fanout", "2"]].concat())?.refused()?;
    assert!(refused.contains("engine: classic and fanout exclude each other"), "{refused}");
    fleet.ctl(&create)?.ok()?;
    fleet.wait_in_step("master1", &["web1", "web2"]);
    until(SOON, "web1 serves", || fleet.node("web1").is_ok_and(|n| n.status("/sync/www") == 200));
    fleet.wait_arrives("master1", &["web1", "web2"], "changed")?;
    let (first, second) = (lsyncd_of(&fleet, "web1")?, lsyncd_of(&fleet, "web2")?);
    let refused = fleet.ctl(&["sync", "wait", "www"])?.refused()?;
    assert!(refused.contains("engine=classic"), "{refused}");

    fleet.add_node("web3")?;
    let place = fleet.place("web3")?;
    fleet.ctl(&["sync", "add-target", "www", &place, "--wait"])?.ok()?;
    fleet.wait_in_step("master1", &["web3"]);
    assert_eq!((lsyncd_of(&fleet, "web1")?, lsyncd_of(&fleet, "web2")?), (first, second));

    // One is cut off and one lsyncd is killed; the third goes on.
    let web2 = fleet.node("web2")?.host.clone();
    web2.isolate()?;
    let pid = rustix::process::Pid::from_raw(first.try_into()?).context("a process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    fleet.wait_arrives("master1", &["web1", "web3"], "meanwhile")?;
    fs::remove_file(fleet.www("master1")?.join("changed"))?;
    web2.rejoin()?;
    fleet.wait_in_step("master1", &["web1", "web2", "web3"]);
    assert_ne!(lsyncd_of(&fleet, "web1")?, first);
    assert_eq!(lsyncd_of(&fleet, "web2")?, second);

    // An emptied source removes nothing.
    let www = fleet.www("master1")?;
    let away = www.with_extension("away");
    fs::create_dir(&away)?;
    for entry in fs::read_dir(&www)? {
        let entry = entry?;
        fs::rename(entry.path(), away.join(entry.file_name()))?;
    }
    until(SOON, "deliveries are held", || {
        fleet.delivery("web1").is_ok_and(|d| d.last_error.contains("is empty"))
    });
    assert!(fs::exists(fleet.www("web1")?.join("meanwhile"))?);
    for entry in fs::read_dir(&away)? {
        let entry = entry?;
        fs::rename(entry.path(), www.join(entry.file_name()))?;
    }
    fleet.wait_in_step("master1", &["web1", "web2", "web3"]);

    fleet.ctl(&["sync", "update", "www", "--engine", "journal", "--wait"])?.ok()?;
    fleet.ctl(&["sync", "wait", "www"])?.ok()?;
    assert!(fleet.lsyncd("master1").is_ok(), "one for all");
    Ok(())
}
