//! The file that each host leaves in the tree after a complete run: when that was, and of what.

use std::fs;
use std::io;
use std::path::Path;

use lockstep_model::Timestamp;
use lockstep_model::mirror::Pulled;
use lockstep_model::sync::filter::FilePath;
use lockstep_model::task::{MirrorPull, PullFrom};

use super::pull::argv::anchored;

/// What protects this host's file from what the other side has by that name.
pub fn pattern(dir: &FilePath, node: &str) -> String {
    anchored(&format!("{dir}/{node}"))
}

pub fn leave(
    tree: &Path,
    dir: &FilePath,
    node: &str,
    spec: &MirrorPull,
    started_at: Timestamp,
    now: Timestamp,
    pulled: &Pulled,
) -> io::Result<()> {
    let dir = tree.join(dir.as_str());
    fs::create_dir_all(&dir)?;
    // In place of a symlink that the upstream may have put there.
    let fresh = dir.join(format!(".{node}~"));
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::write(&fresh, text(node, spec, started_at, now, pulled))?;
    fs::rename(fresh, dir.join(node))
}

fn text(
    node: &str,
    spec: &MirrorPull,
    started_at: Timestamp,
    now: Timestamp,
    pulled: &Pulled,
) -> String {
    let upstream = match &spec.from {
        PullFrom::Agent(peer) => peer.node.to_string(),
        PullFrom::Remote(remote) => remote.at.host().to_owned(),
        PullFrom::Here => "none".to_owned(),
    };
    let seconds = now.since(started_at).0 / 1000;
    format!(
        "{now}\nDate: {now}\nDate-Started: {started_at}\nCreator: lockstep {}\n\
         Running on host: {node}\nArchive: {}\nRun: {}\nGeneration: {}\nUpstream-mirror: {upstream}\n\
         Total bytes received in rsync: {}\nTotal time spent in rsync: {seconds}\n",
        env!("CARGO_PKG_VERSION"),
        spec.mirror,
        spec.number,
        spec.generation,
        pulled.received_bytes,
    )
}
