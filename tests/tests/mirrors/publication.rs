//! What readers see while a mirror changes: two stages with a barrier, and snapshots.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use lockstep_tests::mirrors::on;
use lockstep_tests::{Fleet, until, upstream};

use super::{SOON, texts, world};

/// A Debian archive in small: a package and the index that names it.
fn release(up: &lockstep_tests::Upstream, version: u32) -> Result<()> {
    up.write(&format!("pool/tool_{version}.deb"), format!("package {version}"))?;
    // Within a second rsync goes by the size alone.
    let padding = "\n".repeat(usize::try_from(version)?);
    up.write("dists/stable/InRelease", format!("{version}{padding}"))?;
    Ok(())
}

fn version(tree: &Path) -> Option<u32> {
    let text = fs::read_to_string(tree.join("dists/stable/InRelease")).ok()?;
    text.trim().parse().ok()
}

fn package(tree: &Path, version: u32) -> PathBuf {
    tree.join(format!("pool/tool_{version}.deb"))
}

#[test]
fn no_replica_publishes_before_all_have_the_content() -> Result<()> {
    let (_net, mut fleet, up) = world(&["master1", "ftp1", "ftp2", "ftp3"])?;
    let url = up.url();
    release(&up, 1)?;
    let more = ["--upstream", &url, "--two-stage", "--stage-wait", "1h", "--delete", "after"];
    fleet.create_mirror("debian", &["master1", "ftp1", "ftp2", "ftp3"], &more)?.ok()?;
    fleet.pull("debian", &[])?.ok()?;
    for node in ["master1", "ftp1", "ftp2", "ftp3"] {
        fleet.check_mirrored("debian", node, &up.tree())?;
    }

    // One of three is too slow to have the content: nobody publishes.
    let (tree1, tree2, tree3) = (
        fleet.mirrored("ftp1", "debian")?,
        fleet.mirrored("ftp2", "debian")?,
        fleet.mirrored("ftp3", "debian")?,
    );
    let slow = fleet.node("ftp3")?.host.clone();
    slow.rate(Some(256_000))?;
    upstream::fill(&up.tree().join("pool/big"), 1, 200_000)?;
    release(&up, 2)?;
    up.remove("pool/tool_1.deb")?;
    fleet.ctl(&["mirror", "sync", "debian"])?.ok()?;
    until(SOON, "two have the content", || {
        package(&tree1, 2).exists() && package(&tree2, 2).exists()
    });
    let mut seen_waiting = false;
    until(SOON, "the slow one has the content", || -> Result<()> {
        let has_all = package(&tree3, 2).exists() && tree3.join("pool/big/file-00000").exists();
        let published = [&tree1, &tree2].map(|tree| version(tree) == Some(2));
        if !(has_all || package(&tree3, 2).exists() && tree3.join("pool/big/file-00000").exists()) {
            // Looked at before and after: it did not have it while these were looked at.
            ensure!(!published.contains(&true), "published too early: {published:?}");
            ensure!(package(&tree1, 1).exists(), "removed too early");
            seen_waiting = true;
        }
        ensure!(has_all, "not yet");
        Ok(())
    });
    ensure!(seen_waiting, "the line was too fast to see anything");
    slow.rate(None)?;
    fleet.wait_generation("debian", &["ftp1", "ftp2", "ftp3"], 2);
    for node in ["master1", "ftp1", "ftp2", "ftp3"] {
        fleet.check_mirrored("debian", node, &up.tree())?;
    }

    // A dead one is not waited for longer than is set.
    fleet.ctl(&["mirror", "update", "debian", "--stage-wait", "2s"])?.ok()?;
    fleet.node_mut("ftp3")?.daemon.kill()?;
    release(&up, 3)?;
    fleet.pull("debian", &[])?;
    fleet.wait_generation("debian", &["ftp1", "ftp2"], 3);
    ensure!(version(&tree1) == Some(3) && version(&tree3) == Some(2));
    fleet.restart_agent("ftp3")?;
    fleet.wait_generation("debian", &["ftp3"], 3);
    fleet.check_mirrored("debian", "ftp3", &up.tree())?;
    Ok(())
}

#[test]
fn a_quorum_is_enough_for_the_second_stage() -> Result<()> {
    let (_net, fleet, up) = world(&["master1", "ftp1", "ftp2", "ftp3"])?;
    let url = up.url();
    release(&up, 1)?;
    let more = ["--upstream", &url, "--two-stage", "--stage-wait", "1h", "--quorum", "2"];
    fleet.create_mirror("debian", &["master1", "ftp1", "ftp2", "ftp3"], &more)?.ok()?;
    fleet.node("ftp3")?.host.isolate()?;
    fleet.ctl(&["mirror", "sync", "debian"])?.ok()?;
    fleet.wait_generation("debian", &["ftp1", "ftp2"], 1);
    ensure!(on(&fleet.mirror("debian")?, "ftp3")?.generation == 0);
    fleet.node("ftp3")?.host.rejoin()?;
    fleet.wait_generation("debian", &["ftp3"], 1);
    Ok(())
}

/// Reads a tree again and again as a visitor does, and keeps what does not belong together.
struct Reader {
    ends: Arc<AtomicBool>,
    work: thread::JoinHandle<(u64, Vec<String>)>,
}

impl Reader {
    fn start(tree: PathBuf) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let seen = ends.clone();
        let work = thread::spawn(move || {
            let (mut looks, mut mixed) = (0, Vec::new());
            while !seen.load(Ordering::Relaxed) {
                // One visit resolves the symlink once.
                let Ok(dir) = fs::canonicalize(&tree) else { continue };
                let files = texts(&dir);
                let mut contents: Vec<&str> = files.iter().map(|(_, text)| text.as_str()).collect();
                contents.dedup();
                // A tree may go while it is read; then it is not there any more.
                if dir.exists() && (contents.len() != 1 || files.len() != FILES) {
                    mixed.push(format!("{}: {files:?}", dir.display()));
                }
                looks += 1;
            }
            (looks, mixed)
        });
        Self { ends, work }
    }

    fn end(self) -> Result<u64> {
        self.ends.store(true, Ordering::Relaxed);
        let (looks, mixed) = self.work.join().ok().context("the reader panicked")?;
        ensure!(
            mixed.is_empty(),
            "{} of {looks} looks saw a mixed tree: {}",
            mixed.len(),
            mixed[0]
        );
        Ok(looks)
    }
}

const FILES: usize = 20;

fn write_all(up: &lockstep_tests::Upstream, text: &str) -> Result<()> {
    (0..FILES).try_for_each(|n| up.write(&format!("file-{n}"), text))
}

fn snapshots(fleet: &Fleet, node: &str, mirror: &str) -> Result<usize> {
    let tree = fleet.mirrored(node, mirror)?;
    ensure!(tree.symlink_metadata()?.is_symlink(), "{} is no symlink", tree.display());
    let target = fs::canonicalize(&tree)?;
    let around = target.parent().context("a directory of snapshots")?;
    Ok(fs::read_dir(around)?.flatten().filter(|entry| entry.path().is_dir()).count())
}

#[test]
fn readers_of_snapshots_never_see_a_mixed_tree() -> Result<()> {
    let (_net, fleet, up) = world(&["master1", "ftp1"])?;
    let url = up.url();
    up.remove("index.html")?;
    write_all(&up, "1")?;
    let more = ["--upstream", &url, "--publish", "snapshot", "--snapshots", "2"];
    fleet.create_mirror("fedora", &["master1", "ftp1"], &more)?.ok()?;
    fleet.pull("fedora", &[])?.ok()?;
    let readers: Vec<Reader> = ["master1", "ftp1"]
        .iter()
        .map(|node| Ok(Reader::start(fleet.mirrored(node, "fedora")?)))
        .collect::<Result<_>>()?;
    for n in 2..=5 {
        // Within a second rsync goes by the size alone.
        write_all(&up, &n.to_string().repeat(n))?;
        fleet.pull("fedora", &[])?.ok()?;
    }
    for reader in readers {
        let looks = reader.end()?;
        ensure!(looks > 20, "only {looks} looks");
    }
    for node in ["master1", "ftp1"] {
        fleet.check_mirrored("fedora", node, &up.tree())?;
        let kept = snapshots(&fleet, node, "fedora")?;
        ensure!((2..=3).contains(&kept), "{kept} snapshots on {node}");
    }
    // What is the same in both is there once.
    up.write("file-0", "changed")?;
    fleet.pull("fedora", &[])?.ok()?;
    use std::os::unix::fs::MetadataExt;
    let tree = fs::canonicalize(fleet.mirrored("ftp1", "fedora")?)?;
    ensure!(fs::metadata(tree.join("file-1"))?.nlink() > 1, "copied instead of linked");
    ensure!(fs::metadata(tree.join("file-0"))?.nlink() == 1);
    Ok(())
}
