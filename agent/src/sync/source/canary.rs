//! Finds the place of "now" in the journal: a file of an own name is made in the source and taken
//! away at once. lsyncd tells names in the order in which it hears of them, so once this one is
//! told, so is everything before it. It touches nothing else in the source.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use lockstep_model::{Millis, Timestamp};
use tokio::sync::oneshot;

use super::sieve::own_name;
use crate::journal::{Change, Entry};
use crate::rsync::exclude::RESERVED;

/// What a canary's name begins with, behind `RESERVED`.
const KIND: &str = "now-";
/// Askers that wait at once.
const WAITING_MAX: usize = 64;
/// How long lsyncd may take beyond its delay, where the source cannot be written.
const MARGIN: Millis = Millis(2000);

/// A place in the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Now {
    /// What was changed before the question is in entries up to this one.
    pub seq: u64,
    /// Why that is likely and not certain, for people.
    pub doubt: Option<String>,
}

pub type Answer = oneshot::Sender<Result<Now, String>>;

#[derive(Default)]
pub struct Canaries {
    waiting: Vec<Waiting>,
    made: u64,
}

struct Waiting {
    answer: Answer,
    sign: Sign,
}

enum Sign {
    Name(String),
    /// The source cannot be written.
    Time {
        at: Timestamp,
        why: String,
    },
}

impl Canaries {
    /// Asks. The answer comes from `heed` or `look`; `delay` is lsyncd's.
    pub async fn ask(&mut self, source: &Path, delay: Millis, now: Timestamp, answer: Answer) {
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
        if self.waiting.len() >= WAITING_MAX {
            let _ = answer.send(Err("too many wait for the same already".to_owned()));
            return;
        }
        self.made += 1;
        let name = format!("{RESERVED}{KIND}{:x}-{:x}", now.0, self.made);
        let path = source.join(&name);
        let made = tokio::task::spawn_blocking(move || make_and_remove(&path)).await;
        let sign = match made.map_err(io::Error::other).and_then(|made| made) {
            Ok(()) => Sign::Name(name),
            Err(error) => {
                let why = format!(
                    "the source cannot be written ({error}), so what lsyncd heard within the last \
                     {MARGIN} may be missing"
                );
                Sign::Time { at: now + delay + MARGIN, why }
            }
        };
        self.waiting.push(Waiting { answer, sign });
    }

    /// Takes in entries right after they were read. A "full" that is read after the question makes
    /// every target be compared later than that.
    /// What is not `given` to targets yet waits for a marker and is nobody's now.
    pub fn heed(&mut self, entries: &[Entry], given: u64) {
        for entry in entries {
            if self.waiting.is_empty() {
                return;
            }
            let told: BTreeSet<&[u8]> = match &entry.change {
                Change::Full => BTreeSet::new(),
                Change::Batch(changed) => {
                    changed.iter().filter_map(|changed| own_name(&changed.path)).collect()
                }
            };
            let is_there = |waiting: &mut Waiting| match &waiting.sign {
                _ if entry.change == Change::Full => true,
                Sign::Name(name) => told.contains(name.as_bytes()),
                Sign::Time { .. } => false,
            };
            for waiting in self.waiting.extract_if(.., is_there) {
                let _ = waiting.answer.send(Ok(Now { seq: entry.seq.min(given), doubt: None }));
            }
        }
    }

    /// Answers those whose time is over; everything up to `given` was given to targets.
    pub fn look(&mut self, given: u64, now: Timestamp) {
        let is_over =
            |waiting: &mut Waiting| matches!(waiting.sign, Sign::Time { at, .. } if at <= now);
        for Waiting { answer, sign } in self.waiting.extract_if(.., is_over) {
            let Sign::Time { why, .. } = sign else { continue };
            let _ = answer.send(Ok(Now { seq: given, doubt: Some(why) }));
        }
    }
}

/// Both are told as one name. Nothing that is there is touched.
fn make_and_remove(path: &Path) -> io::Result<()> {
    drop(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?);
    fs::remove_file(path)
}

/// Removes what an agent left that was killed between the two.
pub fn sweep(source: &Path) {
    let Ok(entries) = fs::read_dir(source) else { return };
    let prefix = format!("{RESERVED}{KIND}");
    for entry in entries.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && entry.file_name().as_bytes().starts_with(prefix.as_bytes()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
