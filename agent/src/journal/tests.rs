//! The journal against crashes: cut ends, flipped bits, killed writers.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use proptest::prelude::*;

use super::*;

fn batch(names: &[&str]) -> Change {
    let changed = |name: &&str| Changed { path: name.as_bytes().into(), subtree: false };
    Change::Batch(names.iter().map(changed).collect())
}

fn read_all(reader: &mut Reader) -> Vec<Entry> {
    let mut all = Vec::new();
    loop {
        let entries = reader.read().unwrap();
        if entries.is_empty() {
            return all;
        }
        all.extend(entries);
    }
}

fn only_segment(dir: &Path) -> PathBuf {
    segment_path(dir, segments(dir).unwrap()[0])
}

#[test]
fn entries_are_read_once_in_order_from_any_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut reader = Reader::after(dir.path(), 0);
    assert_eq!(read_all(&mut reader), []);
    for i in 1..=3 {
        let mut appender = Appender::open(dir.path()).unwrap();
        assert_eq!(appender.append(Timestamp(i), batch(&["a"])).unwrap(), i);
        let seqs: Vec<u64> = read_all(&mut reader).iter().map(|e| e.seq).collect();
        assert_eq!(seqs, [i]);
    }
    let mut late = Reader::after(dir.path(), 2);
    assert_eq!(read_all(&mut late).len(), 1);
    assert_eq!(late.seq(), 3);
}

#[test]
fn segments_roll_and_are_pruned_but_the_numbering_stays() {
    let dir = tempfile::tempdir().unwrap();
    let name = "n".repeat(4000);
    let change = Change::Batch(vec![Changed { path: name.as_bytes().into(), subtree: false }; 64]);
    let mut appender = Appender::open(dir.path()).unwrap();
    for i in 0..20 {
        appender.append(Timestamp(i), change.clone()).unwrap();
    }
    drop(appender);
    assert!(segments(dir.path()).unwrap().len() > 3);
    assert_eq!(read_all(&mut Reader::after(dir.path(), 0)).len(), 20);
    assert_eq!(read_all(&mut Reader::after(dir.path(), 11)).len(), 9);
    assert!(prune(dir.path(), 11).unwrap() > 1);
    assert_eq!(read_all(&mut Reader::after(dir.path(), 11)).len(), 9);
    assert_eq!(prune(dir.path(), 20).unwrap(), 1);
    assert_eq!(segments(dir.path()).unwrap().len(), 1);
    assert_eq!(Appender::open(dir.path()).unwrap().head(), 20);
    // A reader that wants what was pruned is told that it missed something.
    assert_eq!(Reader::after(dir.path(), 0).read().unwrap()[0].change, Change::Full);
}

#[test]
fn damage_reads_as_full_once_and_numbers_go_on_above_it() {
    for flipped in [3, 9, 14, 25] {
        let dir = tempfile::tempdir().unwrap();
        let mut appender = Appender::open(dir.path()).unwrap();
        for name in ["one", "two", "three"] {
            appender.append(Timestamp(1), batch(&[name])).unwrap();
        }
        drop(appender);
        let path = only_segment(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        let second = HEADER_LEN + 9 + 3 + 3;
        bytes[second + flipped] ^= 0x10;
        fs::write(&path, bytes).unwrap();

        let mut reader = Reader::after(dir.path(), 0);
        let read = read_all(&mut reader);
        let changes: Vec<_> = read.iter().map(|e| e.change.clone()).collect();
        assert_eq!(changes, [batch(&["one"]), Change::Full], "byte {flipped}");
        assert!(read[1].seq >= 3, "a number that was given out is never given again");
        let mut appender = Appender::open(dir.path()).unwrap();
        let seq = appender.append(Timestamp(2), batch(&["four"])).unwrap();
        assert!(seq > read[1].seq);
        assert_eq!(read_all(&mut reader).iter().map(|e| e.seq).collect::<Vec<_>>(), [seq]);
    }
}

#[test]
fn a_second_writer_waits_for_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = Appender::open(dir.path()).unwrap();
    let path = dir.path().to_owned();
    let second = std::thread::spawn(move || Appender::open(&path).unwrap().head());
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(second.join().unwrap(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_cut_end_loses_only_what_it_cut(
        changes in proptest::collection::vec(entry::tests::any_change(), 1..12),
        cut: prop::sample::Index,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut appender = Appender::open(dir.path()).unwrap();
        let mut ends = vec![0];
        for change in &changes {
            appender.append(Timestamp(1), change.clone()).unwrap();
            ends.push(appender.len);
        }
        drop(appender);
        let path = only_segment(dir.path());
        let cut = cut.index(*ends.last().unwrap() as usize + 1) as u64;
        OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();

        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        let next = Appender::open(dir.path()).unwrap().append(Timestamp(2), Change::Full).unwrap();
        prop_assert_eq!(next as usize, whole + 1);
        let read: Vec<_> =
            read_all(&mut Reader::after(dir.path(), 0)).into_iter().map(|e| e.change).collect();
        prop_assert_eq!(&read[..whole], &changes[..whole]);
        prop_assert_eq!(&read[whole..], &[Change::Full]);
    }

    #[test]
    fn any_bytes_on_disk_never_panic_and_never_stop_an_appender(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), after in 0u64..5,
    ) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(segment_path(dir.path(), 1), bytes).unwrap();
        let mut reader = Reader::after(dir.path(), after);
        read_all(&mut reader);
        let seq = Appender::open(dir.path()).unwrap().append(Timestamp(1), batch(&["a"])).unwrap();
        let read = read_all(&mut reader);
        prop_assert!(seq <= after || read.iter().any(|e| e.seq == seq));
    }
}

const WRITER: &str = "LOCKSTEP_TEST_JOURNAL";

/// Not a test by itself: the child of the next one appends and says each sequence after its fsync.
#[test]
fn writer_child() {
    let Ok(dir) = std::env::var(WRITER) else { return };
    let out = std::io::stdout();
    loop {
        let mut appender = Appender::open(Path::new(&dir)).unwrap();
        for _ in 0..3 {
            let name = format!("file-{}", appender.next_seq);
            let filler = "x".repeat(appender.next_seq as usize * 37 % 3000 + 1);
            let seq = appender.append(Timestamp(7), batch(&[&name, &filler])).unwrap();
            writeln!(out.lock(), "acked {seq}").unwrap();
        }
    }
}

#[test]
#[allow(clippy::disallowed_methods)] // starts the test binary itself
fn a_writer_killed_at_any_moment_loses_nothing_it_acknowledged() {
    const KILLS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let mut acked = 0;
    for round in 0..KILLS {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "journal::tests::writer_child", "--nocapture", "--test-threads=1"])
            .env(WRITER, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The moment: after some acknowledgements and a spin whose length differs each round.
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let sequence = |line: &str| line.rsplit_once("acked ")?.1.parse::<u64>().ok();
        let mut wanted = 1 + round % 5;
        while wanted > 0 {
            let line = lines.next().expect("the writer goes on until it is killed").unwrap();
            if let Some(seq) = sequence(&line) {
                acked = seq;
                wanted -= 1;
            }
        }
        for i in 0..(round * 7919) % 60_000 {
            std::hint::black_box(i);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acked = lines.map_while(Result::ok).filter_map(|l| sequence(&l)).last().unwrap_or(acked);

        let read = read_all(&mut Reader::after(dir.path(), 0));
        let head = read.last().unwrap().seq;
        assert!(head >= acked, "round {round}: {acked} was acknowledged, {head} is the last");
        for (i, entry) in read.iter().enumerate() {
            assert_eq!(entry.seq, i as u64 + 1);
            let Change::Batch(paths) = &entry.change else { panic!("no damage was done") };
            assert_eq!(&*paths[0].path, format!("file-{}", entry.seq).as_bytes());
            assert_eq!(paths[1].path.len(), entry.seq as usize * 37 % 3000 + 1);
        }
    }
}
