//! What this machine has: versions of the programs we use, and what will go wrong with it. It
//! repairs nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::node::{NodeReport, Tool};
use lockstep_model::task::TaskSpec;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::host::{self, Host, Program};
use crate::link::FEATURES;

/// How often the machine is looked at again.
const LOOK_INTERVAL: Duration = Duration::from_secs(300);
/// For a program to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);
const VERSION_OUTPUT_MAX: usize = 4096;
/// Most warnings told; the controller takes as many.
const WARNINGS_MAX: usize = 16;
const PATH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Debian and its like keep each major version's programs in `<here>/<version>/bin`.
const POSTGRES_HOME: &str = "/usr/lib/postgresql";

/// Where a program is: as set, or the first one on the usual path.
pub fn find(name: &str, set: Option<&Path>) -> Option<PathBuf> {
    match set {
        Some(path) => Some(path.to_owned()).filter(|path| path.is_file()),
        None => PATH.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file()),
    }
}

fn find_postgres() -> Option<PathBuf> {
    let versions = fs::read_dir(POSTGRES_HOME).into_iter().flatten().flatten();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.map(|entry| entry.path()).filter(|path| number(path).is_some());
    let newest = newest.max_by_key(|path| number(path));
    let binary = newest.map(|home| home.join("bin/postgres")).filter(|path| path.is_file());
    binary.or_else(|| find("postgres", None))
}

/// Looks at the machine from time to time.
pub struct Inspector {
    pub host: Host,
    /// As set; None: found on the usual path.
    pub rsync: Option<PathBuf>,
    pub lsyncd: Option<PathBuf>,
    /// What holds on this node.
    pub in_force: watch::Receiver<Arc<[TaskSpec]>>,
    /// Lines of others, such as damaged files.
    pub warnings: watch::Receiver<BTreeSet<String>>,
}

impl Inspector {
    /// The first report, before anything else is known.
    pub fn blank() -> NodeReport {
        NodeReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: FEATURES.map(str::to_owned).to_vec(),
            ..NodeReport::default()
        }
    }

    /// Keeps the report true; ends when nobody reads it.
    pub async fn keep(mut self, report: watch::Sender<NodeReport>) {
        while !report.is_closed() {
            let now = self.look().await;
            report.send_if_modified(|shown| {
                let changed = *shown != now;
                *shown = now;
                changed
            });
            tokio::select! {
                () = sleep(LOOK_INTERVAL) => {}
                Ok(()) = self.in_force.changed() => {}
                Ok(()) = self.warnings.changed() => {}
                () = report.closed() => {}
            }
        }
    }

    async fn look(&mut self) -> NodeReport {
        let found = [
            ("rsync", find("rsync", self.rsync.as_deref())),
            ("lsyncd", find("lsyncd", self.lsyncd.as_deref())),
            ("postgres", find_postgres()),
        ];
        let mut tools = Vec::new();
        for (name, path) in found {
            let version = match &path {
                Some(path) => self.ask_version(path).await,
                None => String::new(),
            };
            let path = path.map(|path| path.display().to_string()).unwrap_or_default();
            tools.push(Tool { name: name.to_owned(), version, path });
        }
        let is_source = |spec: &TaskSpec| matches!(spec, TaskSpec::SyncSource(_));
        let sources = self.in_force.borrow_and_update().iter().filter(|s| is_source(s)).count();
        let mut warnings = warn(&tools, sources);
        warnings.extend(self.warnings.borrow_and_update().iter().cloned());
        NodeReport { tools, warnings: cap(warnings), ..Self::blank() }
    }

    /// Empty when the program does not say.
    async fn ask_version(&self, path: &Path) -> String {
        let program = Program { path: path.to_owned(), args: vec!["--version".into()], fed: false };
        let Ok(mut child) = self.host.spawn(&program) else { return String::new() };
        let Some(stdout) = child.stdout.take() else { return String::new() };
        let asked = async {
            let text = host::tail(stdout, VERSION_OUTPUT_MAX).await;
            child.wait().await.ok().filter(|status| status.success()).map(|_| text)
        };
        let text = timeout(VERSION_TIMEOUT, asked).await.ok().flatten().unwrap_or_default();
        read_version(&text).unwrap_or_default()
    }
}

/// The first word of a text that looks like a version.
fn read_version(text: &str) -> Option<String> {
    let plain = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && word.contains('.')
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b".-+~".contains(&b))
    };
    text.split_ascii_whitespace().find(plain).map(str::to_owned)
}

fn warn(tools: &[Tool], sources: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let missing = |name: &str| tools.iter().any(|t| t.name == name && t.version.is_empty());
    if missing("rsync") {
        warnings.push("rsync is missing: nothing can be delivered; install it".to_owned());
    }
    if sources > 0 && missing("lsyncd") {
        warnings.push("lsyncd is missing on a source: changes are not seen; install it".to_owned());
    }
    warnings
}

fn cap(mut warnings: Vec<String>) -> Vec<String> {
    if warnings.len() > WARNINGS_MAX {
        let more = warnings.len() - (WARNINGS_MAX - 1);
        warnings.truncate(WARNINGS_MAX - 1);
        warnings.push(format!("{more} more warnings; see the agent's log"));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_out_of_what_programs_say() {
        for (text, version) in [
            ("rsync  version 3.5.0  protocol version 33\nCopyright", Some("3.5.0")),
            ("rsync  version v3.2.7", None),
            ("Version: 2.2.3\n", Some("2.2.3")),
            ("postgres (PostgreSQL) 17.2 (Debian 17.2-1.pgdg120+1)", Some("17.2")),
            ("postgres (PostgreSQL) 18beta1", None),
            ("", None),
        ] {
            assert_eq!(read_version(text).as_deref(), version, "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_told_where_it_matters() {
        let tool = |name: &str, version: &str| Tool {
            name: name.into(),
            version: version.into(),
            path: String::new(),
        };
        let good = [tool("rsync", "3.5.0"), tool("lsyncd", "2.2.3")];
        let bad = [tool("rsync", ""), tool("lsyncd", "")];
        for (tools, sources, count) in [(&good, 1, 0), (&bad, 0, 1), (&bad, 1, 2)] {
            let warnings = warn(tools, sources);
            assert_eq!(warnings.len(), count, "{warnings:?}");
        }
        let many = (0..40).map(|n| n.to_string()).collect();
        let capped = cap(many);
        assert_eq!(capped.len(), WARNINGS_MAX);
        assert!(capped[WARNINGS_MAX - 1].starts_with("25 more"), "{capped:?}");
    }

    #[tokio::test]
    async fn this_machines_programs_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let (_specs, in_force) = watch::channel(Arc::from([]));
        let (_lines, warnings) = watch::channel(["ledger: x".to_owned()].into());
        let host = Host::open(dir.path()).await.unwrap();
        let none = Some(dir.path().join("no-lsyncd"));
        let mut inspector = Inspector { host, rsync: None, lsyncd: none, in_force, warnings };
        let report = inspector.look().await;
        let of = |name: &str| report.tools.iter().find(|t| t.name == name).unwrap().clone();
        assert!(of("rsync").version.starts_with('3'), "{report:?}");
        assert!(of("rsync").path.starts_with('/'), "{report:?}");
        assert_eq!((of("lsyncd").version, of("lsyncd").path), Default::default());
        assert_eq!(report.warnings, ["ledger: x"]);
    }
}
