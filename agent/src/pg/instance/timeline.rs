//! Which timeline a standby's log is on when no walreceiver says it: by the segments and histories that
//! are in pg_wal. It reads names.

use std::path::Path;

use lockstep_model::cluster::Lsn;

use crate::pg::wal::read_lineage;

/// The newest timeline whose log reaches up to `lsn`, at least `least`. `segment` is in bytes.
pub fn newest(pg_wal: &Path, lsn: Lsn, least: u32, segment: u64) -> u32 {
    let number = lsn.0.saturating_sub(1) / segment.max(1);
    let per_id = 0x1_0000_0000 / segment.max(1);
    let name = format!("{:08X}{:08X}", number / per_id.max(1), number % per_id.max(1));
    let names = std::fs::read_dir(pg_wal).into_iter().flatten().flatten();
    let timelines = names.filter_map(|entry| {
        let file = entry.file_name();
        let (timeline, rest) = file.to_str()?.split_at_checked(8)?;
        let timeline = u32::from_str_radix(timeline, 16).ok()?;
        (rest == name && timeline > least).then_some(timeline)
    });
    // A segment that was made ahead has another timeline's past, or begins after the end.
    let reaches = |timeline: &u32| {
        read_lineage(pg_wal, *timeline).is_ok_and(|lineage| {
            lineage.0.last().is_some_and(|fork| fork.begins <= lsn)
                && lineage.0.iter().any(|fork| fork.timeline == least)
        })
    };
    timelines.filter(reaches).max().unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_timeline_with_log_up_to_there_counts() {
        const SEGMENT: u64 = 16 << 20;
        let dir = tempfile::tempdir().unwrap();
        let touch = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        touch("000000010000000000000003", "");
        let at = |lsn: u64| newest(dir.path(), Lsn(lsn), 1, SEGMENT);
        assert_eq!(at(0x300_0100), 1);
        touch("000000020000000000000003", "");
        assert_eq!(at(0x300_0100), 1, "without its history it proves nothing");
        touch("00000002.history", "1\t0/3000080\tx\n");
        assert_eq!(at(0x300_0100), 2);
        assert_eq!(at(0x300_0000), 1, "before the fork");
        assert_eq!(at(0x400_0001), 1, "no segment");
    }
}
