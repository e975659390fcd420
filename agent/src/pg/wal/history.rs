//! Histories of timelines: the `.history` files of pg_wal. Only reads.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use lockstep_model::cluster::wal::{Fork, TIMELINES_MAX};
use lockstep_model::cluster::{Lineage, Lsn};

use super::segment::history_name;

/// Largest file, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// The history of a timeline, as a file of `pg_wal` tells it; the first one needs none.
pub fn read_lineage(pg_wal: &Path, timeline: u32) -> io::Result<Lineage> {
    if timeline <= 1 {
        return Ok(Lineage(vec![Fork { timeline, begins: Lsn(0) }]));
    }
    let path = pg_wal.join(history_name(timeline));
    let mut text = String::new();
    let read = fs::File::open(&path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
    let parsed = read.map_err(|e| (e.kind(), e.to_string())).and_then(|_| {
        parse_lineage(timeline, &text).map_err(|why| (io::ErrorKind::InvalidData, why))
    });
    parsed.map_err(|(kind, why)| io::Error::new(kind, format!("{}: {why}", path.display())))
}

/// `text` is a history file's: a line for each timeline before, with where it was left.
pub fn parse_lineage(timeline: u32, text: &str) -> Result<Lineage, String> {
    let mut forks: Vec<Fork> = Vec::new();
    let (mut newest, mut begins) = (0, Lsn(0));
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let mut words = line.split_ascii_whitespace();
        let parent = words.next().and_then(|word| word.parse::<u32>().ok());
        let left = words.next().and_then(|word| word.parse::<Lsn>().ok());
        let (Some(parent), Some(left)) = (parent, left) else {
            return Err("a line that is no timeline and position".to_owned());
        };
        if parent <= newest || forks.len() >= TIMELINES_MAX {
            return Err("its timelines are not in order, or too many".to_owned());
        }
        forks.push(Fork { timeline: parent, begins });
        // Left before it began: whoever was promoted had heard of it, and had nothing of it.
        while forks.last().is_some_and(|fork| fork.begins > left) {
            forks.pop();
        }
        (newest, begins) = (parent, left);
    }
    if newest >= timeline {
        return Err("its timelines are not in order".to_owned());
    }
    forks.push(Fork { timeline, begins });
    Ok(Lineage(forks))
}

/// Timelines above `above` that a file of `pg_wal` tells of, newest first.
pub fn newer_timelines(pg_wal: &Path, above: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(pg_wal)? {
        let name = entry?.file_name();
        let hex = name.to_str().and_then(|name| name.strip_suffix(".history"));
        let timeline = hex.filter(|hex| hex.len() == 8);
        if let Some(timeline) = timeline.and_then(|hex| u32::from_str_radix(hex, 16).ok())
            && timeline > above
        {
            found.push(timeline);
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.truncate(TIMELINES_MAX);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forks(text: &str, timeline: u32) -> Result<Vec<(u32, u64)>, String> {
        let lineage = parse_lineage(timeline, text)?;
        Ok(lineage.0.iter().map(|fork| (fork.timeline, fork.begins.0)).collect())
    }

    #[test]
    fn a_history_file_gives_the_forks() {
        let text = "1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t0/5000000\tx\n";
        assert_eq!(forks(text, 3).unwrap(), [(1, 0), (2, 0x300_0148), (3, 0x500_0000)]);
        assert!(forks("x\t0/1\n", 2).is_err());
        assert!(forks("4\t0/1\n", 2).is_err(), "a parent is older");
        assert!(forks("2\t0/1\n1\t0/2\n", 3).is_err());
    }

    #[test]
    fn a_timeline_that_only_was_heard_of_is_no_part_of_a_history() {
        // Promoted at 0/300 of the second one, with the third one's history in pg_wal.
        let text = "1\t0/200\tx\n2\t0/400\tx\n3\t0/300\tx\n";
        assert_eq!(forks(text, 4).unwrap(), [(1, 0), (2, 0x200), (4, 0x300)]);
    }
}
