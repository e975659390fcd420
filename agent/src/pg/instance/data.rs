//! What a data directory holds: nothing, an instance's data, or something that nobody may touch.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::timeout;

use super::control::{self, Control};
use super::layout::{Layout, read_major};
use crate::host::{Host, Program, tail};

/// For pg_controldata, which reads one file.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);
const CONTROL_OUTPUT_MAX: usize = 16 * 1024;
/// While it is there, what is in the data directory is an initdb that did not come to its end.
pub const UNFINISHED_FILE: &str = "initdb-unfinished";

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Data {
    /// There is no directory, or an empty one.
    #[default]
    Missing,
    /// Something else than a database, or one that cannot be read; why, and the way out.
    Foreign(String),
    There(Box<Control>),
}

impl Data {
    pub fn control(&self) -> Option<&Control> {
        match self {
            Self::There(control) => Some(control),
            Self::Missing | Self::Foreign(_) => None,
        }
    }
}

/// What pg_control was when it was last asked about: inode, seconds and nanoseconds of its last change.
type Stamp = (u64, i64, i64);

/// Asks pg_controldata only when the file has changed.
#[derive(Default)]
pub struct Cache(Mutex<Option<(Stamp, Control)>>);

impl Cache {
    pub async fn look(&self, layout: &Layout, host: &Host) -> Data {
        let stamp = match check(layout) {
            Ok(Some(stamp)) => stamp,
            Ok(None) => return Data::Missing,
            Err(why) => return Data::Foreign(why),
        };
        let known = self.0.lock().ok().and_then(|kept| kept.clone());
        if let Some((_, control)) = known.filter(|(of, _)| *of == stamp) {
            return Data::There(Box::new(control));
        }
        let mut asked = ask(layout, host).await;
        if asked.is_err() && check(layout) != Ok(Some(stamp)) {
            // It was being written.
            asked = ask(layout, host).await;
        }
        match asked {
            Ok(control) => {
                if let Ok(mut kept) = self.0.lock() {
                    *kept = Some((stamp, control.clone()));
                }
                Data::There(Box::new(control))
            }
            Err(why) => Data::Foreign(why),
        }
    }
}

/// None: nothing is there.
fn check(layout: &Layout) -> Result<Option<Stamp>, String> {
    let data = &layout.data;
    let fail = |error: io::Error| format!("{}: {error}", data.display());
    let is_empty = match fs::read_dir(data) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
        Ok(mut entries) => entries.all(|e| e.is_ok_and(|e| e.file_name() == "lost+found")),
    };
    if is_empty || layout.private.join(UNFINISHED_FILE).exists() {
        return Ok(None);
    }
    let shown = data.display();
    let Some(major) = read_major(data) else {
        return Err(format!(
            "{shown} holds something else than a database: empty it, or set another data-dir"
        ));
    };
    let found = fs::metadata(data).map_err(fail)?;
    if found.uid() != layout.owner.uid {
        let (uid, name) = (found.uid(), &layout.owner.name);
        return Err(format!("{shown} belongs to user {uid}: chown it to {name}"));
    }
    let stamp = stamp(data).ok_or_else(|| {
        format!("{shown} is a database of PostgreSQL {major} without its global/pg_control")
    })?;
    Ok(Some(stamp))
}

fn stamp(data: &Path) -> Option<Stamp> {
    let found = fs::metadata(data.join("global/pg_control")).ok()?;
    Some((found.ino(), found.mtime(), found.mtime_nsec()))
}

async fn ask(layout: &Layout, host: &Host) -> Result<Control, String> {
    let major = read_major(&layout.data).ok_or("PG_VERSION cannot be read")?;
    let program = Program {
        path: layout.program("pg_controldata"),
        args: vec!["-D".into(), layout.data.clone().into()],
        fed: false,
    };
    let fail = |problem: String| format!("{}: {problem}", program.path.display());
    let mut child = host.spawn(&program).map_err(|error| fail(error.to_string()))?;
    let (out, errors) = (child.stdout.take(), child.stderr.take());
    let (Some(out), Some(errors)) = (out, errors) else { return Err(fail("no pipe".to_owned())) };
    let both = async {
        tokio::join!(tail(out, CONTROL_OUTPUT_MAX), tail(errors, CONTROL_OUTPUT_MAX), child.wait())
    };
    let (out, errors, ended) = timeout(CONTROL_TIMEOUT, both)
        .await
        .map_err(|_| fail("does not answer: look at the disk".to_owned()))?;
    match ended {
        Ok(status) if status.success() => {}
        _ => return Err(fail(errors.trim().replace('\n', "; "))),
    }
    // A file of another version, or torn: its numbers would be nonsense.
    if errors.contains("WARNING") || out.contains("WARNING") {
        return Err(fail(errors.trim().replace('\n', "; ")));
    }
    control::read(&out, major).map_err(fail)
}

/// The state in pg_control as it is now, without asking a program: it stands at the same place in
/// every version. Only to see that it changes.
pub fn raw_state(data: &Path) -> Option<u32> {
    const AT: usize = 16;
    let bytes = fs::read(data.join("global/pg_control")).ok()?;
    Some(u32::from_ne_bytes(bytes.get(AT..AT + 4)?.try_into().ok()?))
}
