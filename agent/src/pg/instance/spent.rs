//! Numbers of timelines that others took. postgres gives a promoted instance the first number of which
//! pg_wal has no history; here a file without any stands for each that is taken and unknown. It touches
//! no other file.

use std::path::{Path, PathBuf};

use super::files;
use super::owner::Owner;
use crate::pg::wal::history_name;

/// Comments are no part of a history, so postgres takes no such timeline for a way on.
const TEXT: &str =
    "# Taken by another member of this cluster, of whose history nothing came here.\n";
/// More are not left out at once.
const NUMBERS_MAX: u32 = 1000;

/// A promotion from timeline `own` gets the first number above `newest` then. Durable. Files stay after
/// it: who follows asks for all of them. Refused where that number was given already, to a promotion
/// that did not come about: postgres would take the next one, which is for somebody else.
pub fn take(pg_wal: &Path, own: u32, newest: u32, owner: &Owner) -> Result<(), String> {
    if newest.saturating_sub(own) > NUMBERS_MAX {
        return Err(format!(
            "it is on timeline {own}, and the cluster has been on {newest}: too far apart to go on, copy it anew"
        ));
    }
    let missing = (own.saturating_add(1)..=newest).map(|timeline| path(pg_wal, timeline));
    missing
        .filter(|path| !path.exists())
        .try_for_each(|path| files::write(&path, TEXT, 0o600, owner).map(drop))?;
    let next = newest.max(own).saturating_add(1);
    match path(pg_wal, next).exists() {
        true => Err(format!(
            "timeline {next} was begun by a promotion that did not come about: another number is needed"
        )),
        false => Ok(()),
    }
}

/// Before a start in recovery, which refuses to begin when the newest timeline above `own` is such a
/// one: left by a promotion that did not come about.
pub fn give_back(pg_wal: &Path, own: u32, owner: &Owner) -> Result<(), String> {
    let above = (own.saturating_add(1)..).map(|timeline| path(pg_wal, timeline));
    let there: Vec<PathBuf> = above.take_while(|path| path.exists()).collect();
    for path in there.iter().rev() {
        if files::read(path, owner)?.as_deref() != Some(TEXT) {
            break;
        }
        let removed = files::remove_durably(path);
        removed.map_err(|error| format!("cannot remove {}: {error}", path.display()))?;
    }
    Ok(())
}

fn path(pg_wal: &Path, timeline: u32) -> PathBuf {
    pg_wal.join(history_name(timeline))
}
