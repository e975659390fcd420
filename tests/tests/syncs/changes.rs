//! Every kind of change to every kind of entry arrives as it is on the source.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use lockstep_tests::copies::IN_STEP_WITHIN;
use lockstep_tests::tree::hard_names;
use lockstep_tests::{Fleet, Net, try_until};

use super::fill;

/// A hundred of these are a path as long as rsync takes.
const DEEP: &str = "a directory that is far below/";

/// Writes a file whose time is this far into one certain second.
fn edit(www: &Path, content: &str, millis: u64) -> std::io::Result<()> {
    let path = www.join("edited");
    fs::write(&path, content)?;
    let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_millis(millis);
    fs::File::options().write(true).open(&path)?.set_modified(at)
}

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
        ("unusual shapes", |www| {
            fs::write(www.join("n".repeat(255)), "the longest name")?;
            fs::create_dir_all(www.join(DEEP.repeat(100)))?;
            fs::write(www.join(DEEP.repeat(100)).join("deep"), "down here")?;
            fs::hard_link(www.join("run.sh"), www.join("linked.sh"))?;
            let sparse = fs::File::create(www.join("sparse"))?;
            sparse.set_len(4 << 20)?;
            sparse.write_at(b"end", 4 << 20)?;
            fs::write(www.join("nothing in it"), "")
        }),
        ("a file of a known time", |www| edit(www, "before", 100)),
        ("as long, within the same second", |www| edit(www, "after_", 900)),
        ("a directory that becomes a link out of the tree", |www| {
            fs::create_dir(www.with_file_name("outside"))?;
            fs::write(www.with_file_name("outside").join("precious"), "precious")?;
            fs::remove_dir_all(www.join("hard"))?;
            symlink(www.with_file_name("outside"), www.join("hard"))
        }),
        ("that link turns into a directory", |www| {
            fs::remove_file(www.join("hard"))?;
            fs::create_dir(www.join("hard"))?;
            fs::write(www.join("hard/inner"), "inner")
        }),
        ("a moved-in tree", |www| fs::rename(www.with_file_name("t"), www.join("t2"))),
    ];
    for (what, change) in changes {
        change(&www).with_context(|| what.to_string())?;
        for target in ["web1", "web2"] {
            let result = try_until(IN_STEP_WITHIN, what, || fleet.check_in_step("master1", target));
            ensure!(result.is_ok(), "{target}: {result:?}");
        }
    }
    assert_eq!(fs::read_to_string(www.with_file_name("outside/precious"))?, "precious");
    assert!(!fs::exists(www.join("hacked"))? && !fs::exists(fleet.www("web1")?.join("hacked"))?);
    Ok(())
}
