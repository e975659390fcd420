//! Every kind of change to every kind of entry arrives as it is on the source.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lockstep_tests::copies::IN_STEP_WITHIN;
use lockstep_tests::tree::hard_names;
use lockstep_tests::{Fleet, Net, try_until};

use super::fill;

#[test]
fn every_change_follows() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    let www = fleet.www("master1")?;
    fs::create_dir_all(&www)?;
    fill(&www)?;
    // What a target holds already survives the first fill, and goes with the next pass.
    fs::create_dir_all(fleet.www("web2")?.join("assets"))?;
    let stale = fleet.www("web2")?.join("assets/stale");
    fs::write(&stale, "stale")?;
    let sync = fleet.sync_www("master1", &["web1", "web2"])?;
    assert!(sync.targets.iter().all(|t| t.report.as_ref().is_some_and(|r| r.filled)));
    fleet.check_in_step("master1", "web1")?;
    assert!(fs::exists(&stale)?);
    fleet.ctl(&["sync", "resync", "www", "--target", "web2", "--wait"])?.ok()?;
    fleet.check_in_step("master1", "web2")?;

    type Change = (&'static str, fn(&Path) -> std::io::Result<()>);
    let changes: &[Change] = &[
        ("a new file", |www| fs::write(www.join("new"), "new")),
        ("a changed file", |www| fs::write(www.join("index.html"), "<h1>second</h1>")),
        ("a changed mode", |www| {
            fs::set_permissions(www.join("index.html"), fs::Permissions::from_mode(0o600))
        }),
        ("a removed file", |www| fs::remove_file(www.join("empty file"))),
        ("a removed tree", |www| fs::remove_dir_all(www.join("hard dirs"))),
        ("a renamed file", |www| fs::rename(www.join("new"), www.join("newer"))),
        ("a renamed directory", |www| fs::rename(www.join("assets"), www.join("static"))),
        ("a new link", |www| symlink("index.html", www.join("home"))),
        ("a file that becomes a directory", |www| {
            fs::remove_file(www.join("newer"))?;
            fs::create_dir(www.join("newer"))?;
            fs::write(www.join("newer/inside"), "inside")
        }),
        ("a directory that becomes a file", |www| {
            fs::remove_dir_all(www.join("newer"))?;
            fs::write(www.join("newer"), "flat")
        }),
        ("a file in a file's place", |www| {
            fs::write(www.join("tmp"), "atomic")?;
            fs::rename(www.join("tmp"), www.join("index.html"))
        }),
        ("a new tree in one go", |www| {
            (0..20).try_for_each(|n| {
                fs::create_dir_all(www.join(format!("t/{n}/a/b")))?;
                fs::write(www.join(format!("t/{n}/a/b/c")), n.to_string())
            })
        }),
        ("hard names changed", |www| {
            hard_names().iter().try_for_each(|name| fs::write(www.join("hard").join(name), "again"))
        }),
        ("hard names removed", |www| {
            hard_names().iter().try_for_each(|name| fs::remove_file(www.join("hard").join(name)))
        }),
        ("a moved-out tree", |www| fs::rename(www.join("t"), www.with_file_name("t"))),
        ("a moved-in tree", |www| fs::rename(www.with_file_name("t"), www.join("t2"))),
    ];
    for (what, change) in changes {
        change(&www).with_context(|| what.to_string())?;
        for target in ["web1", "web2"] {
            let result = try_until(IN_STEP_WITHIN, what, || fleet.check_in_step("master1", target));
            ensure!(result.is_ok(), "{target}: {result:?}");
        }
    }
    assert!(!fs::exists(www.join("hacked"))? && !fs::exists(fleet.www("web1")?.join("hacked"))?);
    Ok(())
}
