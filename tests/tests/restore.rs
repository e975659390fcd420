//! A fleet out of its backup: on another host and address, without anybody joining again; and an
//! old copy of a store, which is noticed before it can do harm.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::fleet::CONTROLLER_PORT;
use lockstep_tests::{Flags, Fleet, Host, Net, cmd, until};

const SOON: Duration = Duration::from_secs(90);

/// `lockstep-controller store …` on a host, with its data directory.
fn store(fleet: &Fleet, host: &Host, args: &[&str]) -> Result<lockstep_tests::Output> {
    let (verb, rest) = args.split_first().map_or(("", args), |(verb, rest)| (*verb, rest));
    let mut command = cmd(fleet.bins().controller());
    command.args(["store", verb, "--data-dir"]).arg(host.path("data")).args(rest);
    host.run(&mut command)
}

#[test]
fn a_fleet_is_restored_on_another_host_without_joining_again() -> Result<()> {
    let net = Net::new()?;
    let spare = net.host("spare")?;
    // Agents are told of both addresses while the first one lives, and keep the list.
    let flags = Flags {
        controller: vec![format!("--advertise=10.77.0.2:7400,{}", spare.at(CONTROLLER_PORT))],
        ..Flags::default()
    };
    let mut fleet = Fleet::start_with(&net, &["master1", "web1"], flags)?;
    fleet.sync_www("master1", &["web1"])?;
    fleet.wait_healthy(&["master1", "web1"]);
    let old = fleet.controller.host.clone();
    assert_eq!(old.at(CONTROLLER_PORT).to_string(), "10.77.0.2:7400");
    let backup = spare.path("fleet.ndjson");
    fs::write(&backup, fleet.ctl(&["store", "export"])?.ok()?)?;
    let text = fs::read_to_string(&backup)?;
    assert!(text.lines().count() > 5, "{text}");
    spare.run(cmd("mkdir").arg("-p").arg(spare.path("data")))?.ok()?;
    spare.run(cmd("cp").arg("-a").arg(old.path("data/ca")).arg(spare.path("data/ca")))?.ok()?;

    old.power_off()?;
    fleet.wait_arrives("master1", &["web1"], "without any controller")?;
    let file = backup.to_string_lossy().into_owned();
    store(&fleet, &spare, &["import", &file])?.ok()?;
    store(&fleet, &spare, &["check"])?.ok()?;
    let listen = format!("listen = \"{}\"\n", spare.at(CONTROLLER_PORT));
    fs::write(spare.path("data/controller.toml"), listen)?;
    fleet.controller.host = spare.clone();
    fleet.restart_controller()?;
    // The admin's key is on the old machine's disk.
    spare.run(cmd("cp").arg("-a").arg(old.path("ctl")).arg(spare.path("ctl")))?.ok()?;
    let controllers = spare.path("ctl/contexts/test/controllers");
    fs::write(&controllers, format!("{}\n", spare.at(CONTROLLER_PORT)))?;
    until(SOON, "the agents find the new one", || -> Result<()> {
        let list: v1::ListNodesResponse = fleet.ask(&["node", "list"])?;
        let healthy = list.nodes.iter().filter(|n| n.health() == v1::NodeHealth::Healthy).count();
        ensure!(healthy == 2, "{list:?}");
        Ok(())
    });
    fleet.add_node("web2")?;
    let place = fleet.place("web2")?;
    fleet.ctl(&["sync", "add-target", "www", &place, "--wait"])?.ok()?;
    fleet.wait_in_step("master1", &["web1", "web2"]);
    Ok(())
}

#[test]
fn an_old_copy_of_the_store_is_noticed_and_adopted() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    fleet.sync_www("master1", &["web1"])?;
    let host = fleet.controller.host.clone();
    let copy = |from: &str, to: &str| -> Result<()> {
        host.run(cmd("rm").arg("-rf").arg(host.path(to)))?.ok()?;
        host.run(cmd("cp").arg("-a").arg(host.path(from)).arg(host.path(to)))?.ok()?;
        Ok(())
    };
    fleet.controller.daemon.kill()?;
    copy("data", "old")?;
    fleet.restart_controller()?;
    fleet.wait_healthy(&["master1", "web1", "web2"]);
    // What the copy will lack.
    let place = fleet.place("web2")?;
    fleet.ctl(&["sync", "add-target", "www", &place, "--wait"])?.ok()?;
    fleet.wait_in_step("master1", &["web2"]);
    // The agents are told the newest revision with a heartbeat.
    fleet.ctl(&["node", "label", "web1", "x=y"])?.ok()?;
    let told = fleet.node("web1")?.host.path("data/told");
    let before = fs::read(&told)?;
    until(SOON, "web1 was told", || {
        fs::read(&told).is_ok_and(|now| now != before) || !before.is_empty()
    });

    fleet.controller.daemon.kill()?;
    copy("old", "data")?;
    fleet.restart_controller()?;
    until(SOON, "the old copy is noticed", || -> Result<()> {
        let explained = fleet.ctl(&["explain", "store"])?.ok()?;
        ensure!(explained.contains("store_behind") && explained.contains("adopt"), "{explained}");
        Ok(())
    });
    let refused = fleet.ctl(&["node", "drain", "web1"])?.refused()?;
    assert!(refused.contains("store_behind"), "{refused}");
    // Nothing was planned from it: the lost target is served as before.
    fleet.wait_arrives("master1", &["web1", "web2"], "meanwhile")?;

    fleet.ctl(&["store", "adopt", "--yes"])?.ok()?;
    until(SOON, "work goes on from the old copy", || -> Result<()> {
        let explained = fleet.ctl(&["explain"])?.ok()?;
        ensure!(explained.trim() == "nothing waits", "{explained}");
        Ok(())
    });
    assert_eq!(fleet.show_www()?.targets.len(), 1, "what it lacks is lost");
    until(SOON, "the lost target was released", || {
        fleet.node("web2").is_ok_and(|node| node.status("/sync/www") == 404)
    });
    fleet.wait_arrives("master1", &["web1"], "after")?;
    assert!(!fs::exists(fleet.www("web2")?.join("after"))?);
    Ok(())
}
