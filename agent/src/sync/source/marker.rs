//! Whether the marker file was written since its last word was passed on, also while nobody
//! watched: what it looked like then is on disk. It never reads the marker.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lockstep_transport::durable;

pub struct Marker {
    path: PathBuf,
    record: PathBuf,
}

impl Marker {
    pub fn new(source: &Path, name: &str, record: PathBuf) -> Self {
        Self { path: source.join(name), record }
    }

    /// It is there and not as it was; also when nothing is known of before.
    pub fn is_written(&self) -> bool {
        let Some(now) = self.look() else { return false };
        !fs::read_to_string(&self.record).is_ok_and(|then| then == now)
    }

    /// What it told is passed on.
    pub fn note(&self) {
        let now = self.look().unwrap_or_default();
        if let Err(error) = durable::write(&self.record, now.as_bytes()) {
            tracing::warn!(marker = %self.path.display(), %error, "cannot record the marker's state");
        }
    }

    fn look(&self) -> Option<String> {
        let found = fs::symlink_metadata(&self.path).ok()?;
        let (inode, size) = (found.ino(), found.size());
        let (changed, nanos) = (found.ctime(), found.ctime_nsec());
        Some(format!("{inode} {size} {changed}.{nanos:09}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        let marker = Marker::new(dir.path(), "marker", dir.path().join("record"));
        assert!(!marker.is_written());
        fs::write(dir.path().join("marker"), "1").unwrap();
        assert!(marker.is_written());
        marker.note();
        assert!(!marker.is_written());
        fs::write(dir.path().join("marker"), "22").unwrap();
        assert!(marker.is_written());
        fs::remove_file(dir.path().join("marker")).unwrap();
        assert!(!marker.is_written());
    }
}
