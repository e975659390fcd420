//! Whether a copy is what it ought to be, before it replaces anything: whose it is, complete, and as
//! its manifest says. Only reads.

use std::path::Path;

use lockstep_model::cluster::SystemId;
use tokio_util::sync::CancellationToken;

use crate::pg::instance::{Instance, read_control, read_major};
use crate::pg::tool;

/// Up to here every byte is read once more and compared with the manifest; above it sizes alone are.
const CHECKED_BYTES_MAX: u64 = 2 << 30;

pub async fn prove(
    instance: &Instance,
    copy: &Path,
    expected: (SystemId, u32),
    bytes: u64,
    stop: &CancellationToken,
) -> Result<(), String> {
    let (system_id, major) = expected;
    if read_major(copy) != Some(major) {
        return Err(format!("the copy is of another version than {major}"));
    }
    let shown = copy.display().to_string();
    let text = tool::succeed(instance, "pg_controldata", &["-D", &shown], None, stop).await?;
    let control = read_control(&text, major)?;
    if control.system_id != system_id {
        return Err(format!("the copy is of database {}, not {system_id}", control.system_id));
    }
    for file in ["backup_label", "backup_manifest"] {
        if !copy.join(file).is_file() {
            return Err(format!("the copy is not complete: it has no {file}"));
        }
    }
    if !instance.layout().program("pg_verifybackup").is_file() {
        return Ok(());
    }
    // What pg_waldump would check is in the log's own checksums, and read by recovery at once.
    let mut args = vec!["--no-parse-wal", "--quiet"];
    if bytes > CHECKED_BYTES_MAX {
        args.push("--skip-checksums");
    }
    args.push(&shown);
    tool::succeed(instance, "pg_verifybackup", &args, None, stop).await.map(drop)
}
