//! The end of the log, compared with what pg_waldump reads and with what recovery comes to.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use lockstep_agent::pg::wal::{Segment, WalEnd, WalError, find_end, segment_at};
use lockstep_model::cluster::Lsn;

use crate::server::{Server, command, run, scratch, wait};

const ROWS: &str = "insert into t select i, repeat('x', 200) from generate_series(1, 500) i;";

fn made(options: &[&str]) -> (tempfile::TempDir, Server) {
    let dir = scratch();
    let mut server = Server::init(dir.path(), options);
    server.start();
    server.sql("create table t(i int, x text)");
    (dir, server)
}

fn end(server: &Server, flushed: Option<Lsn>) -> WalEnd {
    find_end(&server.pg_wal(), &server.begin(), flushed, &AtomicBool::new(false)).unwrap()
}

/// Where the last record of pg_waldump begins.
fn dumped(server: &Server) -> Lsn {
    let begin = server.begin();
    let out = command("pg_waldump")
        .args(["-p", server.pg_wal().to_str().unwrap(), "-t", &begin.timeline.to_string()])
        .args(["-s", &begin.redo.to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let (_, lsn) = text.lines().last().unwrap().split_once("lsn: ").unwrap();
    lsn.split(',').next().unwrap().parse().unwrap()
}

/// Where recovery ends: it says where its last record began.
fn redone(server: &mut Server) -> Lsn {
    server.start();
    let log = server.log();
    let (_, at) = log.split_once("redo done at ").unwrap();
    at.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

fn size(server: &Server) -> u64 {
    server.begin().segment_size.bytes()
}

#[test]
fn a_clean_stop_ends_with_its_checkpoint() {
    let (_dir, mut server) = made(&[]);
    server.sql(ROWS);
    server.stop();
    let found = end(&server, None);
    assert!(found.is_shutdown);
    assert_eq!(found.last, server.control("Latest checkpoint location").parse().unwrap());
    assert_eq!(found.last, dumped(&server));
    assert_eq!(found.lineage.timeline(), 1);
    server.start();
    server.sql(ROWS);
    // What recovery would continue with is where a new start writes.
    let first = run(command("pg_waldump").args([
        "-p",
        server.pg_wal().to_str().unwrap(),
        "-s",
        &found.end.to_string(),
        "-n",
        "1",
    ]));
    assert!(first.contains(&format!("prev {}", dump_form(found.last))), "{first}");
}

fn dump_form(lsn: Lsn) -> String {
    format!("{:X}/{:08X}", lsn.0 >> 32, lsn.0 & 0xFFFF_FFFF)
}

#[test]
fn a_kill_under_load_over_several_segments() {
    let (_dir, mut server) = made(&["--wal-segsize=1"]);
    let load = server.load(ROWS);
    let from = server.lsn();
    wait("several segments are full", || server.lsn().since(from) > 8 << 20);
    let flushed = server.lsn();
    server.kill();
    drop(load);
    let found = end(&server, None);
    assert!(found.end >= flushed && !found.is_shutdown);
    assert_eq!(found, end(&server, Some(flushed)), "reading from a known position on is the same");
    assert_eq!(found.last, dumped(&server));
    assert_eq!(found.last, redone(&mut server));
}

#[test]
fn a_torn_last_page_ends_before_it() {
    let (_dir, mut server) = made(&[]);
    server.sql(ROWS);
    let before = server.lsn();
    server.sql(ROWS);
    server.kill();
    let whole = end(&server, None);
    let begin = server.begin();
    let (segment, _) =
        segment_at(&server.pg_wal(), &whole.lineage, &begin, begin.segment_size.number(before))
            .unwrap()
            .unwrap();
    // Half a page was written over by what a broken disk makes of it.
    let torn_at = before.0.next_multiple_of(8192) + 4096;
    let file = OpenOptions::new()
        .write(true)
        .open(server.pg_wal().join(segment.name(begin.segment_size)))
        .unwrap();
    file.write_all_at(&[0xA5; 4096], torn_at % size(&server)).unwrap();
    let found = end(&server, None);
    assert!(found.end.0 <= torn_at && found.end >= before && found.end < whole.end);
    assert_eq!(found.last, dumped(&server));
    assert_eq!(found.last, redone(&mut server));
}

#[test]
fn a_segment_that_was_left_early_and_one_that_is_not_there() {
    let (_dir, mut server) = made(&["--wal-segsize=1"]);
    for _ in 0..3 {
        server.sql(ROWS);
        server.sql("select pg_switch_wal()");
    }
    let switched = server.lsn();
    server.kill();
    let found = end(&server, None);
    assert_eq!(found.end.0 % size(&server), 0, "behind a switch comes a segment's beginning");
    assert!(found.end >= switched);
    assert_eq!(found.last, dumped(&server));
    // Missing in the middle: nothing behind it counts.
    let begin = server.begin();
    let number = begin.segment_size.number(found.end) - 1;
    let gone = Segment { timeline: 1, number }.name(begin.segment_size);
    fs::rename(server.pg_wal().join(&gone), server.data.join("kept")).unwrap();
    let shorter = end(&server, None);
    assert_eq!(shorter.end, begin.segment_size.begin(number));
    fs::rename(server.data.join("kept"), server.pg_wal().join(&gone)).unwrap();
    assert_eq!(found.last, redone(&mut server));
}

#[test]
fn what_a_recovery_gave_up_is_passed_over() {
    let (_dir, mut server) = made(&[]);
    server.sql("checkpoint");
    let from = server.lsn();
    // A record over many pages, of which only the beginning is left.
    server.sql("select pg_logical_emit_message(false, 'x', repeat('y', 100000))");
    server.kill();
    let begin = server.begin();
    let path = server.pg_wal().join(
        Segment { timeline: 1, number: begin.segment_size.number(from) }.name(begin.segment_size),
    );
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let cut = (from.0.next_multiple_of(8192) + 8192) % size(&server);
    file.write_all_at(&vec![0; 200_000], cut).unwrap();
    let given_up = end(&server, None);
    assert_eq!(given_up.last, redone(&mut server));
    server.sql(ROWS);
    server.kill();
    let last = dumped(&server);
    // Recovery itself begins behind it from now on; from before it everything is found too.
    let mut from_before = server.begin();
    from_before.redo = begin.redo;
    let stop = AtomicBool::new(false);
    let found = find_end(&server.pg_wal(), &from_before, None, &stop).unwrap();
    assert_eq!(found.last, last);
    assert_eq!(found, end(&server, None));
}

/// A standby of a server, on the same machine.
fn standby_of(primary: &Server, dir: &Path) -> Server {
    let data = dir.join("data");
    run(command("pg_basebackup")
        .args(["-h", primary.data.parent().unwrap().to_str().unwrap(), "-U", "postgres"])
        .args(["-p", &primary.port.to_string(), "-c", "fast", "-R", "-D"])
        .arg(&data));
    Server::of(&data)
}

#[test]
fn histories_are_followed_and_the_way_not_taken_is_told() {
    let (_dir, mut primary) = made(&["--wal-segsize=1"]);
    let dir = scratch();
    let mut standby = standby_of(&primary, dir.path());
    standby.start();
    primary.sql(ROWS);
    let common = primary.lsn();
    wait("the standby has it", || {
        standby.sql("select pg_last_wal_replay_lsn()").parse::<Lsn>().unwrap() >= common
    });
    standby.sql("select pg_wal_replay_pause()");
    standby.sql("select pg_promote()");
    for _ in 0..4 {
        standby.sql(ROWS);
        primary.sql(ROWS);
    }
    standby.kill();
    let promoted = end(&standby, None);
    let fork = promoted.lineage.0[1];
    assert_eq!((promoted.lineage.0.len(), fork.timeline), (2, 2));
    assert!(promoted.end > fork.begins && fork.begins >= common);

    primary.kill();
    let left = end(&primary, None);
    assert!(left.end > fork.begins);
    assert!(!left.lineage.is_part_of(left.end, &promoted.lineage), "it went on after the fork");
    assert!(left.lineage.is_part_of(fork.begins, &promoted.lineage));

    // It was given the other's log on top: what it wrote itself still counts.
    for entry in fs::read_dir(standby.pg_wal()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_str().unwrap().starts_with("00000002") {
            fs::copy(entry.path(), primary.pg_wal().join(entry.file_name())).unwrap();
        }
    }
    assert_eq!(end(&primary, None), left);
}

#[test]
fn another_databases_log_is_none() {
    let (_dir, mut server) = made(&[]);
    server.stop();
    let mut begin = server.begin();
    begin.system_id.0 += 1;
    let error = find_end(&server.pg_wal(), &begin, None, &AtomicBool::new(false)).unwrap_err();
    // The first page that tells whose it is stands at a segment's beginning.
    assert!(matches!(error, WalError::Unusable { .. }), "{error}");
    let stopped = find_end(&server.pg_wal(), &server.begin(), None, &AtomicBool::new(true));
    assert!(matches!(stopped, Err(WalError::Stopped)));
}
