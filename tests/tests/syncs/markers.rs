//! What waits for a word, and what is repaired by one: a marker's release, and hard links of which one
//! name was spoiled.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Result, ensure};
use lockstep_tests::{Fleet, Net};

use super::wait_idle;

fn create(fleet: &Fleet, more: &[&str]) -> Result<()> {
    fs::create_dir_all(fleet.www("master1")?)?;
    fs::write(fleet.www("master1")?.join("index.html"), "<h1>first</h1>\n")?;
    let mut create = fleet.create_www("master1", &["web1", "web2"])?;
    create.extend(more.iter().map(|word| (*word).to_owned()));
    let create: Vec<&str> = create.iter().map(String::as_str).collect();
    fleet.ctl(&create)?.ok().map(drop)
}

#[test]
fn a_wait_is_for_what_the_marker_released() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    create(&fleet, &["--marker", "release/done"])?;
    wait_idle(&fleet);
    let source = fleet.www("master1")?;
    let there = |name: &str| -> Result<[bool; 2]> {
        Ok([fleet.www("web1")?.join(name).exists(), fleet.www("web2")?.join(name).exists()])
    };
    fs::create_dir(source.join("release"))?;
    for n in 1..=3 {
        let name = format!("page-{n}");
        fs::write(source.join(&name), "new")?;
        // Nothing is released, so there is nothing to wait for.
        fleet.ctl(&["sync", "wait", "www", "--timeout", "90s"])?.ok()?;
        ensure!(there(&name)? == [false; 2], "{name} came without the marker");
        fs::write(source.join("release/done"), "x".repeat(n))?;
        fleet.ctl(&["sync", "wait", "www", "--timeout", "90s"])?.ok()?;
        ensure!(there(&name)? == [true; 2], "{name} was released, and the wait was over before");
    }
    fleet.check_in_step("master1", "web1")
}

fn inode(path: &Path) -> Result<u64> {
    Ok(fs::symlink_metadata(path)?.ino())
}

#[test]
fn a_spoiled_name_of_a_hard_link_is_repaired_and_a_pass_links_it_again() -> Result<()> {
    let net = Net::new()?;
    let fleet = Fleet::start(&net, &["master1", "web1", "web2"])?;
    let source = fleet.www("master1")?;
    fs::create_dir_all(source.join("d"))?;
    fs::write(source.join("one"), "content of both")?;
    fs::hard_link(source.join("one"), source.join("d/two"))?;
    create(&fleet, &["--hard-links"])?;
    wait_idle(&fleet);
    let copy = fleet.www("web1")?;
    let linked =
        || -> Result<bool> { Ok(inode(&copy.join("one"))? == inode(&copy.join("d/two"))?) };
    ensure!(linked()?, "they were linked from the start");

    // One of the names is another file now.
    fs::remove_file(copy.join("d/two"))?;
    fs::write(copy.join("d/two"), "spoiled")?;
    fleet.ctl(&["sync", "verify", "www", "--wait"])?.ok()?;
    fleet.ctl(&["sync", "wait", "www", "--timeout", "90s"])?.ok()?;
    ensure!(fs::read_to_string(copy.join("d/two"))? == "content of both");
    ensure!(fs::read_to_string(copy.join("one"))? == "content of both");
    fleet.ctl(&["sync", "resync", "www", "--wait"])?.ok()?;
    ensure!(linked()?, "a complete pass links them again");
    ensure!(inode(&fleet.www("web2")?.join("one"))? == inode(&fleet.www("web2")?.join("d/two"))?);
    // A change through either name reaches both.
    fs::write(source.join("d/two"), "changed through one of them")?;
    fleet.ctl(&["sync", "wait", "www", "--timeout", "90s"])?.ok()?;
    ensure!(fs::read_to_string(copy.join("one"))? == "changed through one of them");
    fleet.check_in_step("master1", "web1")
}
