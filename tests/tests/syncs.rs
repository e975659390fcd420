//! A directory kept in step, as its users see it: a file per subject. Here is only what several of
//! them start from.

mod balancer;
mod changes;
mod classic;
mod commands;
mod limits;
mod markers;
mod metrics;
mod orders;
mod relays;
mod remotes;
mod targets;
mod trouble;
mod trust;
mod typed;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use lockstep_proto::v1;
use lockstep_tests::tree::hard_names;
use lockstep_tests::{Fleet, until};

const SOON: Duration = Duration::from_secs(90);
/// For many targets on a busy machine.
const LATER: Duration = Duration::from_secs(300);

fn wait_idle(fleet: &Fleet) {
    until(LATER, "every target is idle", || -> Result<()> {
        let state = |t: &v1::SyncTargetStatus| t.delivery.as_ref().map(v1::Delivery::state);
        let sync = fleet.show_www()?;
        let busy = sync.targets.iter().find(|t| state(t) != Some(v1::DeliveryState::Idle));
        ensure!(busy.is_none(), "{busy:?}");
        Ok(())
    });
}

/// A tree with every kind of entry that a web root may have, and some it should not.
fn fill(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir.join("assets/css/deep/deeper"))?;
    fs::create_dir_all(dir.join("empty"))?;
    fs::write(dir.join("assets/css/site.css"), "body {}\n")?;
    fs::write(dir.join("assets/css/deep/deeper/file"), vec![1; 300_000])?;
    fs::write(dir.join("empty file"), "")?;
    symlink("assets/css", dir.join("css"))?;
    symlink("/nowhere/at all", dir.join("broken"))?;
    fs::write(dir.join("run.sh"), "#!/bin/sh\n")?;
    fs::set_permissions(dir.join("run.sh"), fs::Permissions::from_mode(0o4750))?;
    fs::set_permissions(dir.join("empty"), fs::Permissions::from_mode(0o2771))?;
    fs::create_dir(dir.join("hard"))?;
    for name in hard_names() {
        fs::write(dir.join("hard").join(&name), name.as_encoded_bytes())?;
        fs::create_dir_all(dir.join("hard dirs").join(&name))?;
        fs::write(dir.join("hard dirs").join(&name).join(&name), "inner")?;
    }
    let old = std::time::UNIX_EPOCH + Duration::from_secs(86_400 * 365);
    fs::File::open(dir.join("assets/css/site.css"))?.set_modified(old)?;
    Ok(())
}

fn fill_new(fleet: &Fleet) -> Result<()> {
    fs::create_dir_all(fleet.www("master1")?)?;
    fill(&fleet.www("master1")?)
}
