//! Where a copy is made and where it goes: data, log and tablespaces. Looks, and changes nothing.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use lockstep_transport::durable::sync_dir;

use super::swap::Move;
use crate::pg::instance::{Layout, files};

/// Beside the data directory, among Lockstep's own files.
const COPY: &str = "copy";
const ASIDE: &str = "replaced";
/// Within a tablespace's place, so that one that is a file system of its own will do.
const IN_TABLESPACE: [&str; 2] = ["lockstep-copy", "lockstep-replaced"];
/// PostgreSQL's own directory of each major version in a tablespace.
const VERSION_PREFIX: &str = "PG_";

/// A tablespace on the member that is copied from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tablespace {
    pub oid: u32,
    pub location: PathBuf,
}

/// One of a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapped {
    pub oid: u32,
    /// On the other member.
    pub from: PathBuf,
    /// Where it is copied to.
    pub copy: PathBuf,
    /// Where it belongs in the end.
    pub place: PathBuf,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    /// The data directory of the copy.
    pub copy: PathBuf,
    /// Where its log goes, when that is elsewhere.
    pub wal: Option<PathBuf>,
    pub tablespaces: Vec<Mapped>,
}

impl Paths {
    /// `any`: what is in the way is replaced. Err names it and the way out.
    pub fn plan(layout: &Layout, tablespaces: &[Tablespace], any: bool) -> Result<Self, String> {
        check_mount(&layout.data, &layout.private)?;
        let former = former_tablespaces(&layout.data)
            .map_err(|e| format!("{}: {e}", layout.data.display()))?;
        let mut mapped = Vec::new();
        for Tablespace { oid, location } in tablespaces {
            let own = former.iter().find(|(other, _)| other == oid).map(|(_, place)| place.clone());
            let place = match own {
                Some(place) => place,
                None if is_free(location, any)? => location.clone(),
                None => beside(&layout.data, ".tablespaces").join(oid.to_string()),
            };
            let copy = place.join(IN_TABLESPACE[0]);
            mapped.push(Mapped { oid: *oid, from: location.clone(), copy, place });
        }
        let wal = match &layout.wal {
            Some(place) => {
                check_wal(place, &layout.data, any)?;
                Some(beside(place, ".copy"))
            }
            None => None,
        };
        Ok(Self { copy: layout.private.join(COPY), wal, tablespaces: mapped })
    }

    /// Of pg_basebackup. No password is in it.
    pub fn arguments(&self, conninfo: &str, slot: Option<&str>) -> Vec<String> {
        let mut args = vec![
            "--no-password".to_owned(),
            "--checkpoint=fast".to_owned(),
            "--wal-method=stream".to_owned(),
            // Has the source count what is to come.
            "--progress".to_owned(),
            format!("--dbname={conninfo}"),
            format!("--pgdata={}", self.copy.display()),
        ];
        args.extend(self.wal.iter().map(|wal| format!("--waldir={}", wal.display())));
        args.extend(slot.map(|slot| format!("--slot={slot}")));
        let quoted = |path: &Path| path.display().to_string().replace('=', "\\=");
        args.extend(self.tablespaces.iter().map(|space| {
            format!("--tablespace-mapping={}={}", quoted(&space.from), quoted(&space.copy))
        }));
        args
    }

    /// Makes it a standby, whose links lead where things are after the moves; all of it on disk.
    pub fn finish(&self, layout: &Layout) -> Result<(), String> {
        let link = |at: PathBuf, to: &Path| {
            let made = fs::remove_file(&at).and_then(|()| std::os::unix::fs::symlink(to, &at));
            made.map_err(|e| format!("cannot link {}: {e}", at.display()))
        };
        let links = self.copy.join("pg_tblspc");
        for space in &self.tablespaces {
            link(links.join(space.oid.to_string()), &space.place)?;
        }
        if let Some(wal) = &layout.wal {
            link(self.copy.join("pg_wal"), wal)?;
        }
        files::write(&self.copy.join("standby.signal"), "", 0o600, &layout.owner)?;
        let synced = sync_dir(&links).and_then(|()| sync_dir(&self.copy));
        synced.map_err(|e| format!("{}: {e}", self.copy.display()))
    }

    /// Free in all the file systems that are written to, together.
    pub fn room_bytes(&self) -> io::Result<u64> {
        let mut counted = Vec::new();
        let mut room = 0u64;
        for dir in self.made() {
            let device = fs::metadata(dir)?.dev();
            if !counted.contains(&device) {
                let found = rustix::fs::statvfs(dir)?;
                room = room.saturating_add(found.f_bavail.saturating_mul(found.f_frsize));
                counted.push(device);
            }
        }
        Ok(room)
    }

    /// What is made before the copy and removed when it fails.
    pub fn made(&self) -> impl Iterator<Item = &PathBuf> {
        let tablespaces = self.tablespaces.iter().map(|space| &space.copy);
        tablespaces.chain(&self.wal).chain([&self.copy])
    }

    /// Tablespaces first: the data comes into its place when all that it needs is there.
    pub fn moves(&self, layout: &Layout) -> io::Result<Vec<Move>> {
        let mut moves = Vec::new();
        for space in &self.tablespaces {
            for version in versions(&space.copy)? {
                moves.push(Move {
                    new: space.copy.join(&version),
                    place: space.place.join(&version),
                    aside: space.place.join(IN_TABLESPACE[1]).join(&version),
                });
            }
        }
        if let (Some(new), Some(place)) = (&self.wal, &layout.wal) {
            let aside = beside(place, ".replaced");
            moves.push(Move { new: new.clone(), place: place.clone(), aside });
        }
        let aside = layout.private.join(ASIDE);
        moves.push(Move { new: self.copy.clone(), place: layout.data.clone(), aside });
        Ok(moves)
    }
}

/// What an interrupted copy may have left, but for tablespaces: an empty or useless directory in them
/// is found by the next copy.
pub fn leftovers(layout: &Layout) -> Vec<PathBuf> {
    let wal = layout.wal.as_ref().map(|place| beside(place, ".copy"));
    [layout.private.join(COPY)].into_iter().chain(wal).collect()
}

/// By the links in the data that is there.
pub fn former_tablespaces(data: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(data.join("pg_tblspc")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let oid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (Some(oid), Ok(place)) = (oid, fs::read_link(entry.path())) {
            found.push((oid, place));
        }
    }
    Ok(found)
}

fn versions(space: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let names = fs::read_dir(space)?.map(|entry| entry.map(|entry| entry.file_name()));
    let names: Vec<_> = names.collect::<io::Result<_>>()?;
    let own =
        |name: &std::ffi::OsString| name.to_str().is_some_and(|n| n.starts_with(VERSION_PREFIX));
    Ok(names.into_iter().filter(own).collect())
}

/// A tablespace may go there: nobody has one there yet.
fn is_free(location: &Path, any: bool) -> Result<bool, String> {
    let fail = |error: io::Error| format!("tablespace {}: {error}", location.display());
    match versions(location) {
        Ok(versions) => Ok(versions.is_empty()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Ok(location.parent().is_some_and(Path::is_dir))
        }
        Err(_) if any => Ok(false),
        Err(error) => Err(fail(error)),
    }
}

/// A file system of its own cannot be renamed.
fn check_mount(data: &Path, private: &Path) -> Result<(), String> {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    match (device(data), device(private)) {
        (Some(data_on), Some(beside_on)) if data_on != beside_on => Err(format!(
            "{0} is a file system of its own and cannot be replaced: set data-dir to a directory in it, {0}/data",
            data.display()
        )),
        _ => Ok(()),
    }
}

fn check_wal(place: &Path, data: &Path, any: bool) -> Result<(), String> {
    let parent = place.parent().and_then(|parent| fs::metadata(parent).ok());
    let here = fs::metadata(place).ok();
    if let (Some(parent), Some(here)) = (parent, here)
        && parent.dev() != here.dev()
    {
        return Err(format!(
            "wal-dir: {0} is a file system of its own and cannot be replaced: set it to a directory in it, {0}/wal",
            place.display()
        ));
    }
    let own = fs::read_link(data.join("pg_wal")).is_ok_and(|target| target == place);
    let empty = || match fs::read_dir(place) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    match own || any || empty() {
        true => Ok(()),
        false => Err(format!(
            "wal-dir: {} holds something that is not this instance's: empty it, or set another",
            place.display()
        )),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tablespace_goes_where_it_was_or_where_nobody_has_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("data/pg_tblspc")).unwrap();
        fs::create_dir_all(at("theirs/PG_15_202209061")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::create_dir(at("mine")).unwrap();
        std::os::unix::fs::symlink(at("mine"), at("data/pg_tblspc/7")).unwrap();
        let space = |oid, name: &str| Tablespace { oid, location: at(name) };
        let layout = Layout { private: at("data.lockstep"), wal: None, ..layout(&at("data")) };
        let spaces = [space(7, "theirs"), space(8, "empty"), space(9, "theirs"), space(10, "new")];
        let paths = Paths::plan(&layout, &spaces, false).unwrap();
        let places: Vec<_> = paths.tablespaces.iter().map(|space| space.place.clone()).collect();
        assert_eq!(places, [at("mine"), at("empty"), at("data.tablespaces/9"), at("new")]);
        assert!(paths.tablespaces.iter().all(|space| space.copy.starts_with(&space.place)));
    }

    #[test]
    fn a_log_directory_with_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("wal")).unwrap();
        let layout = Layout { wal: Some(at("wal")), ..layout(&at("data")) };
        assert!(Paths::plan(&layout, &[], false).is_ok());
        fs::write(at("wal/x"), "").unwrap();
        assert!(Paths::plan(&layout, &[], false).unwrap_err().contains("wal-dir"));
        let paths = Paths::plan(&layout, &[], true).unwrap();
        let moves = paths.moves(&layout).unwrap();
        assert_eq!((&moves[0].place, &moves[1].place), (&at("wal"), &at("data")));
    }

    fn layout(data: &Path) -> Layout {
        let owner =
            crate::pg::instance::Owner { name: String::new(), uid: 0, gid: 0, groups: vec![] };
        Layout {
            bin: PathBuf::new(),
            data: data.to_owned(),
            wal: None,
            config: data.to_owned(),
            private: beside(data, ".lockstep"),
            port: 5432,
            socket_dir: PathBuf::new(),
            owner,
            manager: lockstep_model::cluster::options::Manager::Agent,
            cgroup: String::new(),
        }
    }
}
