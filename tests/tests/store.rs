//! The controller's data directory: one controller, one version, full and read-only disks.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_controller::store::SCHEMA;
use lockstep_proto::v1;
use lockstep_tests::{Fleet, Net, Output, cmd, until};

const SOON: Duration = Duration::from_secs(90);

fn controller_run(fleet: &Fleet, args: &[&str]) -> Result<Output> {
    fleet.controller.host.run(cmd(fleet.bins().controller()).arg("run").args(args))
}

#[test]
fn a_data_directory_has_one_controller_of_its_own_version() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["web1"])?;
    let host = fleet.controller.host.clone();
    let dir = host.path("data").to_string_lossy().into_owned();
    let second =
        ["--data-dir", &dir, "--listen", "127.0.0.1:7500", "--health-listen", "127.0.0.1:7501"];
    let refused = controller_run(&fleet, &second)?.refused()?;
    assert!(refused.contains(&dir), "{refused}");
    let mut init = cmd(fleet.bins().controller());
    let refused = host
        .run(init.args(["init", "--name", "x", "--listen", "127.0.0.1:1", "--data-dir", &dir]))?
        .refused()?;
    assert!(refused.contains("not empty"), "{refused}");
    for verb in ["export", "check"] {
        let mut offline = cmd(fleet.bins().controller());
        let refused = host.run(offline.args(["store", verb, "--data-dir", &dir]))?.refused()?;
        assert!(refused.contains(&dir), "{verb}: {refused}");
    }
    fleet.wait_healthy(&["web1"]);
    let agent = fleet.node("web1")?.host.clone();
    let mut again = cmd(fleet.bins().agent());
    let refused =
        agent.run(again.arg("run").arg("--data-dir").arg(agent.path("data")))?.refused()?;
    assert!(refused.contains("data"), "{refused}");
    let _: v1::PingNodeResponse = fleet.ask(&["node", "ping", "web1"])?;

    // Nothing there, not ours, of another time.
    let empty = host.path("empty").to_string_lossy().into_owned();
    fs::create_dir(&empty)?;
    assert!(controller_run(&fleet, &["--data-dir", &empty])?.refused()?.contains("init"));
    fs::write(host.path("empty/photo.jpg"), "x")?;
    assert!(controller_run(&fleet, &["--data-dir", &empty])?.refused()?.contains("init"));

    let export = fleet.ctl(&["store", "export"])?.ok()?;
    fleet.controller.daemon.kill()?;
    let (first, rest) = export.split_once('\n').context("an export has lines")?;
    let newer = first.replace(&format!("\"schema\":{SCHEMA}"), "\"schema\":99");
    ensure!(newer != first, "no schema in {first}");
    let import = |name: &str, text: &str| -> Result<Output> {
        let (file, into) = (host.path(&format!("{name}.ndjson")), host.path(name));
        fs::write(&file, text)?;
        let mut import = cmd(fleet.bins().controller());
        host.run(import.args(["store", "import"]).arg("--data-dir").arg(into).arg(file))
    };
    let refused = import("newer", &format!("{newer}\n{rest}"))?.refused()?;
    assert!(refused.contains("99"), "{refused}");
    let refused = import("cut", &export[..export.len() / 2])?.refused()?;
    assert!(!refused.is_empty(), "half a backup is none");
    let refused = import("data", &export)?.refused()?;
    assert!(refused.contains("data"), "{refused}");
    import("fine", &export)?.ok()?;
    Ok(())
}

/// Commits that may fit into what the store has of the disk already.
const FITS_MAX: usize = 3000;

#[test]
fn a_full_or_read_only_disk_under_the_store_loses_nothing() -> Result<()> {
    let net = Net::new()?;
    let mut fleet = Fleet::start(&net, &["master1", "web1"])?;
    fleet.sync_www("master1", &["web1"])?;
    let host = fleet.controller.host.clone();
    fleet.controller.daemon.kill()?;
    host.run(cmd("mv").arg(host.path("data")).arg(host.path("kept")))?.ok()?;
    let disk = host.disk("data", 16 << 20)?;
    host.run(cmd("cp").arg("-a").arg(host.path("kept/.")).arg(host.path("data")))?.ok()?;
    fleet.restart_controller()?;
    fleet.wait_healthy(&["master1", "web1"]);
    fleet.ctl(&["node", "label", "web1", "before=full"])?.ok()?;

    disk.fill()?;
    // The store has some room of its own in its file, so a few more fit.
    let mut acknowledged = 0;
    let failed = (0..FITS_MAX).find_map(|n| {
        let label = format!("n={n}");
        match fleet.ctl(&["node", "label", "web1", &label, "--timeout", "20s"]) {
            Ok(done) if done.status.success() => {
                acknowledged = n;
                None
            }
            other => Some(other),
        }
    });
    let failed = failed.context("a full disk was never noticed")??;
    assert!(!failed.stderr.is_empty(), "{failed}");
    // Service goes on without it.
    fleet.wait_arrives("master1", &["web1"], "while the disk was full")?;
    until(SOON, "the controller says why", || -> Result<()> {
        let log = fleet.controller.daemon.log();
        ensure!(log.contains("No space left") || log.contains("full"), "{log}");
        Ok(())
    });
    disk.free()?;
    fleet.restart_controller()?;
    let node: v1::Node = fleet.ask(&["node", "show", "web1"])?;
    assert_eq!(node.labels.get("before").map(String::as_str), Some("full"));
    // What was refused may or may not be there; what was acknowledged is.
    let last: usize = node.labels.get("n").context("no label is left")?.parse()?;
    ensure!(last >= acknowledged, "{acknowledged} was acknowledged, {last} is there");
    fleet.wait_healthy(&["master1", "web1"]);

    fleet.controller.daemon.kill()?;
    disk.read_only(true)?;
    let dir = disk.path().to_string_lossy().into_owned();
    let refused = controller_run(&fleet, &["--data-dir", &dir])?.refused()?;
    assert!(refused.contains(&dir), "{refused}");
    disk.read_only(false)?;
    fleet.restart_controller()?;
    fleet.wait_healthy(&["master1", "web1"]);
    Ok(())
}
