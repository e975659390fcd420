//! Mirrors of a fleet: each node keeps its trees in a directory `ftp` of its own. Made, run and read
//! by the commands that a user types.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lockstep_proto::v1;

use crate::fleet::Fleet;
use crate::proc::Output;
use crate::tree::Tree;
use crate::wait::until;

/// For runs to end: far above what they take, far below a test's limit.
pub const RUN_WITHIN: Duration = Duration::from_secs(120);

impl Fleet {
    /// Where a node's trees are.
    pub fn ftp(&self, node: &str) -> Result<PathBuf> {
        Ok(self.node(node)?.host.path("ftp"))
    }

    /// A mirror's tree on a node.
    pub fn mirrored(&self, node: &str, mirror: &str) -> Result<PathBuf> {
        Ok(self.ftp(node)?.join(mirror))
    }

    /// Creates a mirror whose first node is the master; `more` is what else is typed.
    pub fn create_mirror(&self, name: &str, nodes: &[&str], more: &[&str]) -> Result<Output> {
        let (master, replicas) = nodes.split_first().context("a master")?;
        let dest = self.ftp(master)?.display().to_string();
        let mut args: Vec<String> =
            ["mirror", "create", name, "--master", master, "--dest", &dest].map(Into::into).into();
        for replica in replicas {
            std::fs::create_dir_all(self.ftp(replica)?)?;
            let place = format!("{replica}:{}", self.ftp(replica)?.display());
            args.extend(["--replica".to_owned(), place]);
        }
        std::fs::create_dir_all(self.ftp(master)?)?;
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        self.ctl(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub fn mirror(&self, name: &str) -> Result<v1::Mirror> {
        self.ask(&["mirror", "show", name])
    }

    /// A run now, waited for with its cascade.
    pub fn pull(&self, name: &str, more: &[&str]) -> Result<Output> {
        self.ctl(&[&["mirror", "sync", name, "--wait"], more].concat())
    }

    /// The parts of a mirror's runs, newest first.
    pub fn parts(&self, name: &str) -> Result<Vec<v1::Run>> {
        let answer: v1::ListRunsResponse =
            self.ask(&["mirror", "runs", name, "--limit", "1000"])?;
        Ok(answer.runs)
    }

    /// The parts of the master.
    pub fn heads(&self, name: &str) -> Result<Vec<v1::Run>> {
        let mut parts = self.parts(name)?;
        parts.retain(|part| part.hop() == v1::HopKind::Upstream);
        Ok(parts)
    }

    /// What a node's part in the newest of a mirror's runs is.
    pub fn part(&self, name: &str, node: &str) -> Result<v1::Run> {
        let newest = self.parts(name)?.into_iter().find(|part| part.node == node);
        newest.with_context(|| format!("{node} had no part in a run of {name}"))
    }

    /// Waits until a node has a generation of a mirror, or a newer one.
    #[track_caller]
    pub fn wait_generation(&self, name: &str, nodes: &[&str], generation: u64) {
        until(RUN_WITHIN, &format!("{nodes:?} have generation {generation}"), || -> Result<()> {
            let mirror = self.mirror(name)?;
            for node in nodes {
                let there = on(&mirror, node)?;
                ensure!(there.generation >= generation, "{node}: {there:?}, {}", mirror.reason);
            }
            Ok(())
        });
    }

    /// A node's tree is that of a directory, to the second: rsync leaves a directory's time as it is
    /// within one.
    pub fn check_mirrored(&self, name: &str, node: &str, original: &std::path::Path) -> Result<()> {
        // Behind the symlink, when a snapshot is published.
        let copy = self.mirrored(node, name)?.canonicalize()?;
        let original = Tree::read(original)?.whole_seconds();
        let differences = Tree::read(&copy)?.whole_seconds().differences(&original);
        ensure!(differences.is_empty(), "{node}: {differences}");
        Ok(())
    }
}

/// How far a node is with a mirror.
pub fn on<'a>(mirror: &'a v1::Mirror, node: &str) -> Result<&'a v1::MirrorNode> {
    let mut all = mirror.on_master.iter().chain(&mirror.on_replicas);
    all.find(|there| there.node == node).with_context(|| format!("{node} is not of {mirror:?}"))
}
