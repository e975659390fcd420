//! The site's own program proves a lost node off: exit 0, and nothing else, is a proof.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use lockstep_tests::{Flags, Fleet, Net, Writer, until};

use super::{NODES, SOON, last_change, wait_other_primary};

/// A program that ends as a file beside it says, and notes whom it was asked about.
fn program(dir: &Path) -> Result<PathBuf> {
    let (path, answer) = (dir.join("power"), dir.join("answer"));
    let text = format!(
        "#!/bin/sh\necho \"$LOCKSTEP_CLUSTER $LOCKSTEP_FENCE_NODE $LOCKSTEP_FENCE_HOST\" >> {asked}\n\
         case $(cat {answer}) in off) exit 0 ;; slow) exec sleep 600 ;; *) exit 1 ;; esac\n",
        asked = dir.join("asked").display(),
        answer = answer.display(),
    );
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(answer)
}

#[test]
#[ignore = "slow: the program fails first"]
fn a_lost_node_is_out_when_the_sites_program_proves_it_off() -> Result<()> {
    let net = Net::new()?;
    let hooks = tempfile::tempdir()?;
    let answer = program(hooks.path())?;
    fs::write(&answer, "unknown")?;
    let agent = vec!["--hook-dir".to_owned(), hooks.path().display().to_string()];
    let fleet = Fleet::start_with(&net, &NODES, Flags { agent, ..Flags::default() })?;
    let client = net.host("client")?;
    // A lease that nobody waits for here.
    let options = [
        "--sync",
        "off",
        "--lease",
        "5m",
        "--external-fence",
        "power",
        "--external-fence-timeout",
        "2s",
    ];
    fleet.create_cluster("main", &NODES, &options)?.ok()?;
    fleet.wait_roles("main", "db1", &["db2", "db3"]);
    fleet.make_table(&client, &NODES)?;
    let writer = Writer::start(&client, &fleet.pg_target(&NODES)?);
    fleet.node("db1")?.host.power_off()?;
    drop(writer);

    let is_held = |why: &str| {
        until(SOON, &format!("it is asked, and says {why}"), || -> Result<()> {
            let explained = fleet.ctl(&["cluster", "explain", "main"])?.ok()?;
            ensure!(explained.contains(why), "{explained}");
            let state = fleet.cluster("main")?.state.unwrap_or_default();
            ensure!(state.stage == "electing" && state.holder.is_empty(), "{state:?}");
            Ok(())
        });
    };
    is_held("power did not prove db1 off");
    let asked = fs::read_to_string(hooks.path().join("asked"))?;
    let host = fleet.node("db1")?.host.ip();
    ensure!(asked.lines().all(|line| line == format!("main db1 {host}")), "{asked}");
    fs::write(&answer, "slow")?;
    is_held("is to prove db1 off");
    // It is ended when its time is over, and that proves nothing.
    is_held("power did not prove db1 off");
    fs::write(&answer, "off")?;
    wait_other_primary(&fleet, "db1", &["db1"]);
    let last = last_change(&fleet, "node-lost")?;
    ensure!(last.exclusion == "fenced", "{last:?}");
    Ok(())
}
