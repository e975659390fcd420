//! What is on disk of one copy beside its files: which directory was filled, and how far behind it was
//! when its source last said so. Reads and writes; decides nothing.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lockstep_model::Millis;
use lockstep_model::path::DirPath;
use lockstep_transport::durable;

/// Of the state directory.
pub const FILLED: &str = "filled";
const LAG: &str = "lag";

pub fn is_filled(state_dir: &Path, path: &DirPath) -> bool {
    let filled = || Some((fs::read(state_dir.join(FILLED)).ok()?, identify(path).ok()?));
    filled().is_some_and(|(record, found)| record == found.as_bytes())
}

/// The directory, its file system and its number there: what a mount point without its disk does not
/// share with the disk.
pub fn identify(path: &DirPath) -> io::Result<String> {
    let found = fs::metadata(path.as_str())?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    let inode = found.ino();
    let system = rustix::fs::statvfs(path.as_str())?.f_fsid;
    Ok(format!("{path}\n{system} {inode}\n"))
}

/// As it was kept; none of a copy that was not behind.
pub fn lag(state_dir: &Path) -> Millis {
    let kept = fs::read_to_string(state_dir.join(LAG)).ok();
    Millis(kept.and_then(|text| text.trim().parse().ok()).unwrap_or(0))
}

/// For an agent that starts again: nothing tells it sooner that the copy is behind.
pub fn keep_lag(state_dir: &Path, lag: Millis) -> io::Result<()> {
    let file = state_dir.join(LAG);
    if lag > Millis(0) {
        return durable::write(&file, format!("{}\n", lag.0).as_bytes());
    }
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
