//! Old primaries that went another way, taken back.

use std::fs;

use lockstep_agent::pg::copy::Replace;
use lockstep_agent::pg::rewind::{Order, RewindError, Rewound, is_unfinished, rewind};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::member::{Member, open_to_members};
use crate::server::{Server, scratch, wait, without_checksums};

struct Split {
    _dir: TempDir,
    /// Of the member that was primary, and is dead.
    old: Member,
    _candidate: Member,
    new: Server,
    checkpointer: Pid,
}

/// A promotion while the old primary went on alone; `settings` are the old one's.
async fn split(settings: &str, initdb: &[&str]) -> Split {
    let dir = scratch();
    let mut old_server = Server::init(dir.path(), initdb);
    old_server.set(settings);
    old_server.start();
    open_to_members(&old_server);
    old_server.sql("create table t(i int)");
    let candidate = Member::new(&old_server).await;
    candidate.clone(Replace::Nothing).await.unwrap();
    let new = candidate.follow(&old_server);
    old_server.sql("insert into t values (1)");
    wait("it streams", || new.try_sql("select i from t").as_deref() == Some("1"));
    new.sql("alter system set primary_conninfo = ''");
    new.sql("select pg_reload_conf()");
    wait("it is sealed", || new.sql("select count(*) from pg_stat_wal_receiver") == "0");
    old_server.sql("insert into t values (2); select pg_switch_wal(); insert into t values (3)");
    // Its checkpoint after the promotion takes its time.
    let checkpointer = "select pid from pg_stat_activity where backend_type = 'checkpointer'";
    let checkpointer = Pid::from_raw(new.sql(checkpointer).parse().unwrap()).unwrap();
    kill_process(checkpointer, Signal::STOP).unwrap();
    new.sql("select pg_promote()");
    new.sql("alter system reset all");
    new.sql("insert into t values (10)");
    old_server.kill();
    let old = Member::with(&new, dir_of(&dir), |_| {}).await;
    Split { _dir: dir, old, _candidate: candidate, new, checkpointer }
}

/// The member works in the directory where the server is.
fn dir_of(dir: &TempDir) -> TempDir {
    let link = scratch();
    let place = link.path().to_owned();
    fs::rename(dir.path().join("data"), place.join("data")).unwrap();
    link
}

impl Split {
    async fn rewind(&self) -> Result<Rewound, RewindError> {
        let Member { instance, place, own, stop, .. } = &self.old;
        rewind(instance, Order { place, source: &place.peers[0], own }, stop).await
    }

    fn checkpoint(&self) {
        kill_process(self.checkpointer, Signal::CONT).unwrap();
        self.new.sql("checkpoint");
    }

    fn follows(&self) {
        let standby = self.old.follow(&self.new);
        self.new.sql("insert into t values (11)");
        let rows = "select string_agg(i::text, ' ' order by i) from t";
        wait("it streams", || standby.try_sql(rows).as_deref() == Some("1 10 11"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_that_went_on_alone_comes_back() {
    let archive = "archive_mode = on\narchive_command = '/bin/false'\nwal_log_hints = on";
    let split = split(archive, &[]).await;
    // The promoted one has written no checkpoint yet, and pg_rewind would see nothing to do.
    match split.rewind().await {
        Err(RewindError::Failed(why)) => assert!(why.contains("checkpoint"), "{why}"),
        other => panic!("{other:?}"),
    }
    split.checkpoint();
    assert_eq!(split.rewind().await, Ok(Rewound::Done));
    assert!(!is_unfinished(&split.old.own));
    assert!(split.old.data().join("standby.signal").exists());
    let kept = fs::read_dir(split.old.instance.private_dir().join("unarchived")).unwrap();
    assert!(kept.count() >= 1, "what is in no archive was kept");
    split.follows();
    // Once more, it is a part of the other's history.
    assert_eq!(split.rewind().await, Ok(Rewound::NotNeeded));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rewind_is_tried_once_more() {
    let split = split("wal_log_hints = on", &[]).await;
    split.checkpoint();
    fs::write(split.old.own.join("rewind"), "2").unwrap();
    assert!(is_unfinished(&split.old.own));
    assert!(matches!(split.rewind().await, Err(RewindError::Impossible(_))));
    fs::remove_file(split.old.own.join("rewind")).unwrap();
    // Killed in the middle: it was recovered, and begun.
    split.old.instance.recover_alone(std::time::Duration::from_secs(60)).await.unwrap();
    fs::write(split.old.own.join("rewind"), "1").unwrap();
    assert_eq!(split.rewind().await, Ok(Rewound::Done));
    split.follows();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rewound_is_said_so_and_left() {
    let split = split("", without_checksums()).await;
    split.checkpoint();
    let before = split.old_server_control();
    match split.rewind().await {
        Err(RewindError::Impossible(why)) => assert!(why.contains("checksums"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(split.old_server_control(), before);
    assert!(!is_unfinished(&split.old.own));
    // The way out, which also ends what a rewind left.
    fs::write(split.old.own.join("rewind"), "2").unwrap();
    split.old.clone(Replace::Own).await.unwrap();
    assert!(!is_unfinished(&split.old.own));
    split.follows();
}

impl Split {
    fn old_server_control(&self) -> String {
        Server::of(&self.old.data()).control("pg_control last modified")
    }
}
