//! Clones of a running database.

use std::fs;
use std::path::{Path, PathBuf};

use lockstep_agent::pg::copy::{CopyError, Replace, is_unsettled, repair, settle};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::member::{Member, open_to_members, peer};
use crate::server::{Server, postgres, scratch, wait};

fn primary() -> (TempDir, Server) {
    let dir = scratch();
    let mut server = Server::init(dir.path(), &[]);
    server.start();
    open_to_members(&server);
    server.sql("create table t as select i from generate_series(1, 1000) i");
    (dir, server)
}

fn rows(server: &Server, table: &str) -> String {
    server.try_sql(&format!("select count(*) from {table}")).unwrap_or_default()
}

/// What is in a member's directory.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("log.") && !name.starts_with(".s."))
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_member_becomes_a_standby() {
    let (_dir, primary) = primary();
    primary.sql("select pg_create_physical_replication_slot('lockstep_db2')");
    let member = Member::new(&primary).await;
    member.clone(Replace::Nothing).await.unwrap();
    assert!(member.data().join("standby.signal").exists());
    let slot = "select restart_lsn is not null from pg_replication_slots";
    assert_eq!(primary.sql(slot), "t", "its slot kept the log for it");
    let standby = member.follow(&primary);
    primary.sql("create table later as select 1");
    wait("it streams", || rows(&standby, "later") == "1");
    assert_eq!(rows(&standby, "t"), "1000");
    assert_eq!(standby.sql("select pg_is_in_recovery()"), "t");
    drop(standby);
    settle(&member.own, false).await.unwrap();
    assert_eq!(names(member.dir.path()), ["data", "data.lockstep", "own", "run"]);
    assert_eq!(names(&member.own), [] as [&str; 0]);
    assert!(!names(member.instance.private_dir()).contains(&"copy".to_owned()));

    // The password is in no command line and no other file.
    let passfile = member.instance.passfile();
    assert!(fs::read_to_string(passfile).unwrap().contains("se"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_copy_lies_aside_until_the_new_one_is_settled() {
    let (_dir, primary) = primary();
    let member = Member::new(&primary).await;
    member.clone(Replace::Nothing).await.unwrap();
    fs::write(member.data().join("first"), "").unwrap();
    let refused = member.clone(Replace::Nothing).await.unwrap_err();
    assert!(matches!(&refused, CopyError::Refused(why) if why.contains("already")), "{refused}");
    member.clone(Replace::Own).await.unwrap();
    let aside = member.instance.private_dir().join("replaced");
    assert!(aside.join("first").exists() && !member.data().join("first").exists());
    assert!(is_unsettled(&member.own));
    member.clone(Replace::Own).await.unwrap();
    assert!(aside.join("first").exists(), "the one that was good is kept");
    settle(&member.own, true).await.unwrap();
    assert!(member.instance.private_dir().join("replaced.1/first").exists());
    member.clone(Replace::Own).await.unwrap();
    settle(&member.own, false).await.unwrap();
    assert!(!aside.exists() && member.instance.private_dir().join("replaced.1/first").exists());
    assert!(!is_unsettled(&member.own));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_copied_from_while_it_streams_and_else_the_primary() {
    let (_dir, mut primary) = primary();
    let other = Member::new(&primary).await;
    other.clone(Replace::Nothing).await.unwrap();
    let mut standby = other.follow(&primary);
    wait("it streams", || rows(&standby, "t") == "1000");
    let mut member = Member::new(&primary).await;
    let mut source = peer(&standby);
    source.peer.node = "db3".parse().unwrap();
    source.clone_from = true;
    member.place.peers.push(source);
    let backups = |server: &Server| {
        let log = fs::read_dir(server.data.parent().unwrap()).unwrap().map(|e| e.unwrap().path());
        let log = log.filter(|path| path.ends_with(format!("log.{}", server.port)));
        let text: String = log.map(|path| fs::read_to_string(path).unwrap()).collect();
        text.matches("received replication command: BASE_BACKUP").count()
    };
    for server in [&primary, &standby] {
        server.set("log_replication_commands = on");
        server.sql("select pg_reload_conf()");
    }
    member.clone(Replace::Nothing).await.unwrap();
    assert_eq!((backups(&primary), backups(&standby)), (0, 1));
    let copy = member.follow(&primary);
    primary.sql("create table later as select 1");
    wait("the copy streams", || rows(&copy, "later") == "1");
    drop(copy);

    standby.set("primary_conninfo = ''");
    standby.sql("select pg_reload_conf()");
    let receives = "select count(*) from pg_stat_wal_receiver";
    wait("it receives nothing", || standby.sql(receives) == "0");
    member.clone(Replace::Own).await.unwrap();
    assert_eq!((backups(&primary), backups(&standby)), (1, 1));
    primary.stop();
    let error = member.clone(Replace::Own).await.unwrap_err();
    assert!(matches!(&error, CopyError::Failed(_)), "{error}");
    standby.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn tablespaces_and_a_log_directory_of_its_own_come_along() {
    let (dir, primary) = primary();
    let (uid, gid) = postgres();
    let space = |name: &str| {
        let at = dir.path().join(name);
        fs::create_dir(&at).unwrap();
        std::os::unix::fs::chown(&at, Some(uid), Some(gid)).unwrap();
        primary.sql(&format!("create tablespace {name} location '{}'", at.display()));
        primary.sql(&format!("create table in_{name} tablespace {name} as select 1"));
    };
    space("one");
    space("two");
    let wal: PathBuf = dir.path().join("member-wal");
    let to = wal.clone();
    let member = Member::with(&primary, scratch(), move |layout| layout.wal = Some(to)).await;
    for replace in [Replace::Nothing, Replace::Own] {
        member.clone(replace).await.unwrap();
        assert_eq!(fs::read_link(member.data().join("pg_wal")).unwrap(), wal);
        let standby = member.follow(&primary);
        for table in ["in_one", "in_two"] {
            assert_eq!(rows(&standby, table), "1", "{table}");
        }
        let located = "select string_agg(pg_tablespace_location(oid), ' ') from pg_tablespace";
        assert!(
            standby.sql(located).contains("/data.tablespaces/"),
            "the primary's own are its own"
        );
    }
    assert_eq!(rows(&primary, "in_one"), "1");
    settle(&member.own, false).await.unwrap();
    let spaces = member.dir.path().join("data.tablespaces");
    for oid in names(&spaces) {
        let left = names(&spaces.join(oid));
        assert!(
            left.iter().all(|name| name.starts_with("PG_") || name == "lockstep-replaced"),
            "{left:?}"
        );
    }
    assert_eq!(names(dir.path()), ["data", "member-wal", "one", "two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_somebody_elses_is_not_touched() {
    let (_dir, primary) = primary();
    let member = Member::new(&primary).await;
    let refused = async |replace| match member.clone(replace).await {
        Err(CopyError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    fs::create_dir(member.data()).unwrap();
    fs::write(member.data().join("letters"), "").unwrap();
    assert!(refused(Replace::Own).await.contains("reclone"));
    assert!(member.data().join("letters").exists());
    fs::remove_dir_all(member.data()).unwrap();

    let mut other = Server::init(member.dir.path(), &[]);
    assert!(refused(Replace::Own).await.contains("holds database"));
    other.start();
    assert!(refused(Replace::Any).await.contains("postgres runs"));
    other.stop();
    member.clone(Replace::Any).await.unwrap();
    drop(member.follow(&primary));

    let mut stranger = Member::new(&primary).await;
    stranger.place.system_id.as_mut().unwrap().0 += 1;
    let why = stranger.clone(Replace::Any).await.unwrap_err().to_string();
    assert!(why.contains("has database"), "{why}");
    assert!(!stranger.data().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_copy_leaves_nothing_and_changes_nothing() {
    let (_dir, primary) = primary();
    let member = Member::new(&primary).await;
    member.clone(Replace::Nothing).await.unwrap();
    settle(&member.own, false).await.unwrap();
    fs::write(member.data().join("first"), "").unwrap();
    let before = (names(member.dir.path()), names(member.instance.private_dir()));
    primary
        .sql("create table big as select i, repeat('x', 1000) from generate_series(1, 100000) i");
    let hold = || {
        let sql = "select pid from pg_stat_progress_basebackup where backup_streamed > 0";
        let mut pid = String::new();
        wait("a copy is under way", || {
            pid = primary.try_sql(sql).unwrap_or_default();
            !pid.is_empty()
        });
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        member.stop.cancel();
        pid
    };
    let runtime = tokio::runtime::Handle::current();
    let (copied, pid) = std::thread::scope(|scope| {
        let held = scope.spawn(hold);
        let copied = tokio::task::block_in_place(|| runtime.block_on(member.clone(Replace::Own)));
        (copied, held.join().unwrap())
    });
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(copied, Err(CopyError::Stopped));
    assert!(member.data().join("first").exists());
    assert_eq!((names(member.dir.path()), names(member.instance.private_dir())), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_killed_is_cleared_away() {
    let (_dir, primary) = primary();
    let member = Member::new(&primary).await;
    let half = member.instance.private_dir().join("copy");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("PG_VERSION"), "15").unwrap();
    repair(&member.instance, &member.own).await.unwrap();
    assert!(!half.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_too_small_is_not_filled() {
    let (_dir, primary) = primary();
    let disk = scratch();
    let mount = |args: &[&str]| {
        let done = std::process::Command::new(args[0]).args(&args[1..]).arg(disk.path()).status();
        assert!(done.unwrap().success());
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=40m,mode=0755", "none"]);
    let below = disk.path().join("db");
    fs::create_dir(&below).unwrap();
    let member = Member::with(&primary, scratch(), |layout| {
        layout.data = below.join("data");
        layout.config = layout.data.clone();
        layout.private = below.join("data.lockstep");
    })
    .await;
    let refused = member.clone(Replace::Nothing).await;
    let left = names(&below);
    mount(&["umount"]);
    assert!(
        matches!(&refused, Err(CopyError::Refused(why)) if why.contains("make room")),
        "{refused:?}"
    );
    assert_eq!(left, ["data.lockstep"]);
}
