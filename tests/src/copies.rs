//! A directory `www` on each host of a fleet, and the sync that keeps the copies in step.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lockstep_proto::v1;

use crate::fleet::Fleet;
use crate::tree::Tree;
use crate::wait::until;

/// For changes to arrive: far above what they take, far below a test's limit.
pub const IN_STEP_WITHIN: Duration = Duration::from_secs(120);

impl Fleet {
    /// The directory of a node. It is outside of the fleet's own state.
    pub fn www(&self, node: &str) -> Result<PathBuf> {
        Ok(self.node(node)?.host.path("www"))
    }

    /// `web1:/…/www`
    pub fn place(&self, node: &str) -> Result<String> {
        Ok(format!("{node}:{}", self.www(node)?.display()))
    }

    /// Creates the sync `www` with a first file in its source, and waits for the first fill.
    pub fn sync_www(&self, source: &str, targets: &[&str]) -> Result<v1::Sync> {
        fs::create_dir_all(self.www(source)?)?;
        fs::write(self.www(source)?.join("index.html"), "<h1>first</h1>\n")?;
        let mut args = self.create_www(source, targets)?;
        args.push("--wait".to_owned());
        self.ask(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The command that creates the sync `www`.
    pub fn create_www(&self, source: &str, targets: &[&str]) -> Result<Vec<String>> {
        let mut args: Vec<String> = ["sync", "create", "www", "--source"].map(Into::into).into();
        args.push(self.place(source)?);
        for target in targets {
            args.extend(["--target".to_owned(), self.place(target)?]);
        }
        Ok(args)
    }

    pub fn show_www(&self) -> Result<v1::Sync> {
        self.ask(&["sync", "show", "www"])
    }

    /// What the source of `www` says of a target.
    pub fn delivery(&self, node: &str) -> Result<v1::Delivery> {
        let sync = self.show_www()?;
        let of = |t: &&v1::SyncTargetStatus| t.target.as_ref().is_some_and(|p| p.node == node);
        let target = sync.targets.iter().find(of).with_context(|| format!("no target {node}"))?;
        target.delivery.clone().with_context(|| format!("no word on {node}"))
    }

    /// The one lsyncd of a node.
    pub fn lsyncd(&self, node: &str) -> Result<u32> {
        let found = self.node(node)?.host.processes("lsyncd")?;
        let [pid] = found.as_slice() else { bail!("not one lsyncd but {found:?}") };
        Ok(*pid)
    }

    /// An error that tells the differences, while there are some.
    pub fn check_in_step(&self, source: &str, target: &str) -> Result<()> {
        let (original, copy) = (Tree::read(&self.www(source)?)?, Tree::read(&self.www(target)?)?);
        let differences = copy.differences(&original);
        ensure!(differences.is_empty(), "{target}: {differences}");
        Ok(())
    }

    #[track_caller]
    pub fn wait_in_step(&self, source: &str, targets: &[&str]) {
        for target in targets {
            let what = format!("{target} is in step with {source}");
            until(IN_STEP_WITHIN, &what, || self.check_in_step(source, target));
        }
    }

    /// Writes a file in the source and waits until the target has it.
    #[track_caller]
    pub fn wait_arrives(&self, source: &str, targets: &[&str], name: &str) -> Result<()> {
        fs::write(self.www(source)?.join(name), name)?;
        for target in targets {
            let path = self.www(target)?.join(name);
            let what = format!("{name} arrives on {target}");
            until(IN_STEP_WITHIN, &what, || fs::read_to_string(&path).is_ok_and(|t| t == name));
        }
        Ok(())
    }
}
