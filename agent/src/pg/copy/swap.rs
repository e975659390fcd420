//! New directories put in the place of old ones by renames, of which all happen or none: a list on
//! disk, written before the first one, is followed to its end after a crash. The old ones stay aside.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use lockstep_transport::durable::{self, sync_dir};

/// The list; while it is there, renames are under way.
const PLAN: &str = "swap";
/// What lies aside, until the copy is settled.
const ASIDE: &str = "aside";
/// Most directories that a copy consists of: data, log and tablespaces.
pub const MOVES_MAX: usize = 1000;
/// Most replaced copies that are kept for good.
const KEPT_MAX: u32 = 1000;

/// A directory that takes another's place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Move {
    pub new: PathBuf,
    pub place: PathBuf,
    /// On the same file system as `place`.
    pub aside: PathBuf,
}

/// `own`: the directory of the two lists. The moves are done in this order.
pub fn swap(own: &Path, moves: &[Move]) -> Result<(), String> {
    let paths = moves.iter().flat_map(|m| [&m.new, &m.place, &m.aside]);
    let mut text = String::new();
    for path in paths {
        let path = path.to_str().filter(|path| !path.contains(['\n', '\0']));
        let path = path.ok_or("a directory's name is no text, or has a line's end in it")?;
        text.push_str(path);
        text.push('\n');
    }
    if moves.len() > MOVES_MAX {
        return Err(format!("it has more than {MOVES_MAX} tablespaces"));
    }
    let plan = own.join(PLAN);
    durable::write(&plan, text.as_bytes())
        .map_err(|e| format!("cannot write {}: {e}", plan.display()))?;
    resume(own)
}

/// Does what is left of a list; nothing without one.
pub fn resume(own: &Path) -> Result<(), String> {
    let plan = own.join(PLAN);
    let Some(text) = read(&plan)? else { return Ok(()) };
    let moves = parse(&text).ok_or_else(|| format!("{} is damaged", plan.display()))?;
    for step in &moves {
        replace(step).map_err(|e| format!("cannot put {} in place: {e}", step.place.display()))?;
    }
    let finish = || -> io::Result<()> {
        durable::write(&own.join(ASIDE), text.as_bytes())?;
        fs::remove_file(&plan)?;
        sync_dir(own)
    };
    finish().map_err(|e| format!("{}: {e}", own.display()))
}

/// Done already, it does nothing.
fn replace(Move { new, place, aside }: &Move) -> io::Result<()> {
    if !is_there(new)? {
        return Ok(());
    }
    if is_there(place)? {
        match is_there(aside)? {
            // What lies aside is older and was good; this one never was settled.
            true => remove(place)?,
            false => {
                make_parent(aside)?;
                fs::rename(place, aside)?;
            }
        }
    }
    fs::rename(new, place)?;
    for dir in [place, new, aside].into_iter().filter_map(|path| path.parent()) {
        if dir.is_dir() {
            sync_dir(dir)?;
        }
    }
    Ok(())
}

/// What lies aside is removed, or kept under a name that no later copy uses.
pub fn settle(own: &Path, keep: bool) -> Result<(), String> {
    let list = own.join(ASIDE);
    let Some(text) = read(&list)? else { return Ok(()) };
    let moves = parse(&text).ok_or_else(|| format!("{} is damaged", list.display()))?;
    for Move { aside, .. } in &moves {
        let done = if keep { keep_for_good(aside) } else { remove(aside) };
        done.map_err(|e| format!("{}: {e}", aside.display()))?;
    }
    fs::remove_file(&list).map_err(|e| format!("{}: {e}", list.display()))
}

/// That there is something which was replaced and may be needed yet.
pub fn is_unsettled(own: &Path) -> bool {
    own.join(ASIDE).exists()
}

fn keep_for_good(aside: &Path) -> io::Result<()> {
    if !is_there(aside)? {
        return Ok(());
    }
    for number in 1..=KEPT_MAX {
        let mut kept = aside.as_os_str().to_owned();
        kept.push(format!(".{number}"));
        if !is_there(Path::new(&kept))? {
            return fs::rename(aside, &kept);
        }
    }
    Err(io::Error::other("too many replaced copies are kept: remove some"))
}

fn parse(text: &str) -> Option<Vec<Move>> {
    let lines: Vec<PathBuf> = text.lines().map(PathBuf::from).collect();
    let (moves, []) = lines.as_chunks::<3>() else { return None };
    let absolute = lines.iter().all(|path| path.is_absolute());
    let step = |[new, place, aside]: &[PathBuf; 3]| Move {
        new: new.clone(),
        place: place.clone(),
        aside: aside.clone(),
    };
    absolute.then(|| moves.iter().map(step).collect())
}

fn read(path: &Path) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn make_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// With all in it; a link goes and not what it leads to.
pub fn remove(path: &Path) -> io::Result<()> {
    let gone = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match gone {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        gone => gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Places {
        dir: tempfile::TempDir,
        moves: Vec<Move>,
    }

    fn places() -> Places {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let step = |name: &str| Move {
            new: at(&format!("{name}.new")),
            place: at(name),
            aside: at(&format!("{name}.old")),
        };
        let moves = vec![step("wal"), step("data")];
        fs::create_dir(at("own")).unwrap();
        for step in &moves {
            put(&step.new, "new");
            put(&step.place, "first");
        }
        Places { dir, moves }
    }

    fn put(path: &Path, text: &str) {
        fs::create_dir(path).unwrap();
        fs::write(path.join("text"), text).unwrap();
    }

    fn has(path: &Path) -> String {
        fs::read_to_string(path.join("text")).unwrap_or_default()
    }

    #[test]
    fn what_was_interrupted_anywhere_is_ended() {
        for done in 0..=4 {
            let Places { dir, moves } = places();
            let own = dir.path().join("own");
            // As a crash leaves it after so many renames.
            let paths = moves.iter().flat_map(|m| [&m.new, &m.place, &m.aside]);
            let text: String = paths.map(|path| format!("{}\n", path.display())).collect();
            let renames =
                moves.iter().flat_map(|m| [(&m.place, &m.aside), (&m.new, &m.place)]).take(done);
            renames.for_each(|(from, to)| fs::rename(from, to).unwrap());
            fs::write(own.join(PLAN), text).unwrap();
            resume(&own).unwrap();
            for step in &moves {
                assert_eq!((has(&step.place), has(&step.aside)), ("new".into(), "first".into()));
            }
            assert!(is_unsettled(&own) && !own.join(PLAN).exists());
        }
    }

    #[test]
    fn the_oldest_stays_aside_until_one_is_settled() {
        let Places { dir, moves } = places();
        let own = dir.path().join("own");
        swap(&own, &moves).unwrap();
        moves.iter().for_each(|step| put(&step.new, "newer"));
        swap(&own, &moves).unwrap();
        let data = &moves[1];
        assert_eq!((has(&data.place), has(&data.aside)), ("newer".into(), "first".into()));
        settle(&own, true).unwrap();
        assert_eq!(has(&dir.path().join("data.old.1")), "first");
        assert!(!is_unsettled(&own) && !data.aside.exists());

        moves.iter().for_each(|step| put(&step.new, "newest"));
        swap(&own, &moves).unwrap();
        settle(&own, false).unwrap();
        assert!(!data.aside.exists() && has(&data.place) == "newest");
        assert_eq!(has(&dir.path().join("data.old.1")), "first", "kept for good");
        resume(&own).unwrap();
        settle(&own, false).unwrap();
    }
}
