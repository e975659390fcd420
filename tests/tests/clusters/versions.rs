//! Clusters of each PostgreSQL version that is supported, beside the one that is installed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, ensure};
use lockstep_tests::{cmd, until};

use super::{SOON, check, wait_other_primary, wait_well, world, write};

/// Created, crashed, switched over, taken back, copied anew: nothing that was acknowledged is lost.
fn live(version: &str) -> Result<()> {
    let get = Path::new(env!("CARGO_MANIFEST_DIR")).join("postgres-versions");
    let got = cmd(get).arg(version).output()?;
    ensure!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
    let bin = String::from_utf8(got.stdout)?;
    // What compiles queries is in a package of its own, which is not got.
    let options = ["--postgres-bin", bin.trim(), "--parameter", "jit=off"];
    let (net, fleet, client) = world(&options)?;
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    let written = fleet.pg_data("db1")?.join("PG_VERSION");
    ensure!(fs::read_to_string(written)?.trim() == version, "it is another version");
    let writer = write(&fleet, &client)?;

    fleet.kill_postgres("db1")?;
    writer.wait_more(50);
    wait_well(&fleet);
    let crashed = fleet.failovers("main")?;
    ensure!(crashed.iter().all(|one| one.lossless == Some(true)), "{crashed:?}");

    fleet.wait_sync_any("main", 1);
    for to in ["db2", "db1"] {
        fleet.ctl(&["cluster", "switchover", "main", "--to", to])?.ok()?;
        writer.wait_more(50);
        wait_well(&fleet);
        fleet.wait_sync_any("main", 1);
    }
    fleet.wait_roles("main", "db1", &["db2", "db3"]);

    // Cut off from all but its client, it goes on for its lease: what it wrote alone is taken back.
    fleet.wait_sync("main", 1, &["db2", "db3"]);
    let data = fleet.pg_data("db1")?;
    let before = fs::metadata(&data)?.ino();
    let old = &fleet.node("db1")?.host;
    let others = [&fleet.controller.host, &fleet.node("db2")?.host, &fleet.node("db3")?.host];
    others.iter().try_for_each(|other| net.cut(old, other))?;
    wait_other_primary(&fleet, "db1", &["db1"]);
    others.iter().try_for_each(|other| net.heal(old, other))?;
    wait_other_primary(&fleet, "db1", &[]);
    ensure!(fs::metadata(&data)?.ino() == before, "it was copied anew and not taken back");

    fleet.ctl(&["cluster", "reclone", "main", "db1", "--yes"])?.ok()?;
    until(SOON, "it is another copy", || fs::metadata(&data).is_ok_and(|now| now.ino() != before));
    wait_other_primary(&fleet, "db1", &[]);
    check(&fleet, &client, writer)
}

macro_rules! versions {
    ($($name:ident $version:literal)*) => {$(
        #[test]
        #[ignore = "slow: gets that version the first time"]
        fn $name() -> Result<()> {
            live($version)
        }
    )*};
}

versions! {
    version_13 "13"
    version_14 "14"
    version_16 "16"
    version_17 "17"
    version_18 "18"
}
