//! The directory that a candidate's recovery is served from: files come into it whole or not at all,
//! all of one dead instance and for one term, and it is empty for a member that follows somebody.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use clap::Args;
use lockstep_model::NodeName;
use lockstep_model::cluster::Term;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use crate::pg::instance::{Instance, Owner, files};
use crate::pg::wal::WalFileName;

/// Among Lockstep's own files of the instance.
const DIR: &str = "salvage";
/// Whose log it is, and for which term.
const LABEL: &str = "of";

/// The command line of `lockstep-agent restore-wal`, which postgres calls.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct Restore {
    /// Where saved log is
    pub directory: PathBuf,
    /// `%f`
    pub name: String,
    /// `%p`
    pub to: PathBuf,
}

/// Ok(false): there is no such file, which is no error.
pub fn restore(order: &Restore) -> io::Result<bool> {
    let name: WalFileName = match order.name.parse() {
        Ok(name) => name,
        Err(why) => return Err(io::Error::new(ErrorKind::InvalidInput, why)),
    };
    let mut from = match File::open(order.directory.join(name.as_str())) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let mut to = File::create(&order.to)?;
    io::copy(&mut from, &mut to)?;
    to.sync_all()?;
    Ok(true)
}

/// For postgresql.conf: it finds what `fetch` brought, and nothing else. A standby without a primary
/// calls it many times a second, so nothing is started where nothing was saved. Err: a path that no
/// shell could be given.
pub fn restore_command(agent: &Path, instance: &Instance) -> Result<String, String> {
    let word = |path: &Path| {
        let text = path.to_str().filter(|text| !text.contains(['\n', '\0']));
        let text = text.ok_or_else(|| format!("{} is no text", path.display()))?;
        Ok::<_, String>(format!("'{}'", text.replace('%', "%%").replace('\'', "'\\''")))
    };
    let (agent, dir) = (word(agent)?, word(&instance.private_dir().join(DIR))?);
    Ok(format!("test -d {dir} && {agent} restore-wal {dir} %f %p"))
}

/// Nothing that was saved is served any more: before the member follows anybody.
pub fn clear(instance: &Instance) -> Result<(), String> {
    let dir = instance.private_dir().join(DIR);
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// The directory, open.
pub struct Shelf {
    dir: OwnedFd,
    owner: Owner,
}

impl Shelf {
    /// What is there of another instance or for another term goes first.
    pub fn open(instance: &Instance, of: &NodeName, term: Term) -> Result<Self, String> {
        let at = instance.private_dir().join(DIR);
        let owner = instance.layout().owner.clone();
        let label = format!("{of} {term}\n");
        if files::read(&at.join(LABEL), &owner).ok().flatten().is_none_or(|text| text != label) {
            clear(instance)?;
        }
        let fail = |error: io::Error| format!("{}: {error}", at.display());
        files::make_dir(&at, &owner).map_err(fail)?;
        files::write(&at.join(LABEL), &label, 0o600, &owner)?;
        // Held open, it is the same whatever the owner makes of its name.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&at, flags, Mode::empty()).map_err(|e| fail(e.into()))?;
        Ok(Self { dir, owner })
    }

    pub fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// To be filled, and then put; one that was left half filled is begun anew.
    pub fn begin(&self, name: &str) -> io::Result<File> {
        let half = half(name);
        match rustix::fs::unlinkat(&self.dir, &half, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        Ok(File::from(rustix::fs::openat(&self.dir, &half, flags, mode)?))
    }

    /// `bytes`: how large it is to be; what is behind what was written is empty.
    pub fn put(&self, name: &str, file: &File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)?;
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(self.owner.uid), Gid::from_raw(self.owner.gid));
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        Ok(rustix::fs::renameat(&self.dir, half(name), &self.dir, name)?)
    }
}

fn half(name: &str) -> String {
    format!("{name}~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        let order = |name: &str| Restore {
            directory: dir.path().to_owned(),
            name: name.to_owned(),
            to: dir.path().join("to"),
        };
        let segment = "000000010000000000000003";
        assert!(!restore(&order(segment)).unwrap());
        assert!(!dir.path().join("to").exists());
        fs::write(dir.path().join(segment), "log").unwrap();
        assert!(restore(&order(segment)).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("to")).unwrap(), "log");
        assert!(!restore(&order("00000002.history")).unwrap());
        for wrong in ["../to", "of", "", "000000010000000000000003~"] {
            assert!(restore(&order(wrong)).is_err(), "{wrong}");
        }
    }
}
