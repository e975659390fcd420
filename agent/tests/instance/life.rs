//! An instance from initdb to its end, and what an agent finds that comes later.

use std::time::Duration;

use lockstep_agent::pg::instance::{
    ControlState, Data, PostmasterStage, Processes, Role, SqlTrouble, StartAs, StopMode,
};
use lockstep_model::cluster::{Quorum, SystemId};

use crate::bed::{Bed, LIMIT, until};

#[tokio::test]
async fn an_instance_is_made_started_asked_and_stopped() {
    let bed = Bed::primary("db1", &[]).await;
    let found = bed.instance.look().await;
    assert!(matches!(found.processes, Processes::Running { stage: PostmasterStage::Ready, .. }));
    assert!(found.standby_signal, "a start by hand must not open it writable");
    assert!(found.space.data_free.is_some() && !found.space.read_only && !found.storage_hangs);
    let Data::There(control) = &found.data else { panic!("{found:?}") };
    assert!(control.checksums && control.rewindable() && control.wal_segment == 16 << 20);

    let status = bed.status().await;
    assert_eq!((status.in_recovery, status.timeline), (false, 1));
    assert_eq!(status.system_id, control.system_id);
    assert_eq!(status.quorum, Some(Quorum::OFF));
    assert!(status.version.starts_with("1") && status.pending_restart.is_empty(), "{status:?}");
    assert_eq!(bed.instance.lineage(1).unwrap().timeline(), 1);
    for (name, value) in [
        ("restart_after_crash", "off"),
        ("wal_log_hints", "on"),
        ("cluster_name", "db1"),
        ("ssl", "on"),
        ("server_encoding", "UTF8"),
    ] {
        assert_eq!(bed.ask(&format!("SHOW {name}")).await, value, "{name}");
    }

    bed.instance.probe(LIMIT).await.unwrap();
    assert!(bed.status().await.lsn > status.lsn, "the probe wrote");
    bed.instance.checkpoint(LIMIT).await.unwrap();
    assert!(bed.status().await.checkpoint_redo > status.checkpoint_redo);

    let owner = bed.instance.layout().owner.clone();
    let pid = bed.postmaster().await;
    let proc = std::fs::metadata(format!("/proc/{pid}")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&proc), owner.uid);
    let groups = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let groups = groups.lines().find(|l| l.starts_with("Groups:")).unwrap().to_owned();
    assert_eq!(groups.split_whitespace().count(), owner.groups.len() + 1, "{groups}");

    bed.stop().await;
    let found = bed.instance.look().await;
    assert_eq!(found.processes, Processes::None);
    assert_eq!(found.data.control().unwrap().state, ControlState::ShutDown);
    assert_eq!(bed.instance.status(LIMIT).await.unwrap_err(), SqlTrouble::Down);
    assert_eq!(bed.instance.probe(LIMIT).await.unwrap_err(), SqlTrouble::Down);

    // As a standby it is readable, and writes nothing.
    bed.configure(Role::Sealed).await.unwrap();
    bed.start(StartAs::Standby).await;
    let status = bed.status().await;
    assert!(status.in_recovery && status.receiver.is_none(), "{status:?}");
    assert_eq!(Some(status.lsn), status.replayed);
    bed.instance.probe(LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_later_agent_finds_it_and_hears_of_its_death() {
    let bed = Bed::primary("db1", &[]).await;
    let later = bed.opened_again().await;
    assert_eq!(later.processes().await, bed.instance.processes().await);
    assert!(later.status(LIMIT).await.is_ok());
    let pid = bed.postmaster().await;
    let gone = tokio::spawn({
        let later = later.clone();
        async move { later.gone().await }
    });
    tokio::task::yield_now().await;
    assert!(!gone.is_finished());
    kill(pid);
    tokio::time::timeout(LIMIT, gone).await.unwrap().unwrap();
    bed.fence().await;
    // Nothing runs: at once.
    tokio::time::timeout(LIMIT, later.gone()).await.unwrap();
    assert_eq!(later.look().await.data.control().unwrap().state, ControlState::InProduction);
    // Crash recovery under a lease.
    bed.start(StartAs::Primary).await;
    assert!(!bed.status().await.in_recovery);
    assert!(bed.instance.look().await.standby_signal);
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_backend_that_outlives_its_postmaster_is_fenced() {
    let bed = Bed::primary("db1", &[]).await;
    let busy = bed.session().await.unwrap();
    let loops = "DO $$BEGIN LOOP END LOOP; END$$";
    let backend: i32 = busy.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let busy = tokio::spawn(async move { busy.simple_query(loops).await.map(drop) });
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO%' AND state = 'active'";
    until("it is busy", || async { bed.ask(running).await == "1" }).await;
    kill(bed.postmaster().await);
    until("the postmaster is gone", || async {
        !matches!(bed.instance.processes().await, Processes::Running { .. })
    })
    .await;
    // The others see it and end; that one looks at nothing.
    until("only the busy one is left", || async {
        bed.instance.processes().await == Processes::Orphans(vec![backend])
    })
    .await;
    let refused = bed.instance.start(StartAs::Primary, None).await.unwrap_err();
    assert!(refused.contains("fence it first"), "{refused}");
    assert!(bed.instance.stop(StopMode::Fast, Duration::from_millis(100)).await.is_err());
    bed.fence().await;
    assert_eq!(bed.instance.processes().await, Processes::None);
    assert!(busy.await.unwrap().is_err());
    bed.start(StartAs::Primary).await;
}

#[tokio::test]
async fn a_number_that_another_process_has_by_now_is_not_the_postmaster() {
    let bed = Bed::primary("db1", &[]).await;
    let data = bed.instance.layout().data.clone();
    let file = data.join("postmaster.pid");
    let text = std::fs::read_to_string(&file).unwrap();
    bed.fence().await;
    // Of the same user, so that postgres itself would take it for its own.
    let owner = &bed.instance.layout().owner;
    let mut other = std::os::unix::process::CommandExt::uid(
        &mut std::process::Command::new("/bin/sleep"),
        owner.uid,
    )
    .arg("600")
    .spawn()
    .unwrap();
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(&file, format!("{}\n{rest}", other.id())).unwrap();
    assert_eq!(bed.instance.processes().await, Processes::None);
    tokio::time::timeout(LIMIT, bed.instance.gone()).await.unwrap();
    bed.start(StartAs::Primary).await;
    bed.fence().await;
    assert_eq!(other.try_wait().unwrap(), None, "a stranger is not killed");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn foreign_data_is_neither_started_nor_overwritten() {
    let bed = Bed::new("db1", &[]).await;
    let data = bed.instance.layout().data.clone();
    assert_eq!(bed.instance.look().await.data, Data::Missing);
    assert!(bed.instance.start(StartAs::Standby, None).await.is_err());
    std::fs::create_dir(&data).unwrap();
    assert_eq!(bed.instance.look().await.data, Data::Missing, "an empty directory");
    std::fs::write(data.join("holiday.jpg"), "x").unwrap();
    assert!(matches!(bed.instance.look().await.data, Data::Foreign(_)));
    let why = bed.instance.start(StartAs::Primary, None).await.unwrap_err();
    assert!(why.contains("something else than a database"), "{why}");
    assert!(bed.instance.initdb(&[], true).await.is_err());
    assert!(data.join("holiday.jpg").exists());

    let bed = Bed::primary("db1", &[]).await;
    bed.stop().await;
    let why = bed.instance.start(StartAs::Primary, Some(SystemId(7))).await.unwrap_err();
    assert!(why.contains("another cluster's"), "{why}");
    assert!(bed.instance.initdb(&[], true).await.unwrap_err().contains("is not empty"));
    // Data of an initdb that was ended in the middle is nobody's.
    std::fs::write(bed.instance.private_dir().join("initdb-unfinished"), "").unwrap();
    assert_eq!(bed.instance.look().await.data, Data::Missing);
    bed.instance.initdb(&[], false).await.unwrap();
    assert!(!bed.instance.look().await.data.control().unwrap().checksums);
}

#[tokio::test]
async fn recovery_without_sessions_ends_stopped() {
    let bed = Bed::primary("db1", &[]).await;
    bed.session().await.unwrap().simple_query("CREATE TABLE t AS SELECT 1 AS a").await.unwrap();
    bed.fence().await;
    bed.instance.recover_alone(LIMIT).await.unwrap();
    let found = bed.instance.look().await;
    assert_eq!(found.data.control().unwrap().state, ControlState::ShutDown);
    assert_eq!(found.processes, Processes::None);
    assert!(found.standby_signal);
    bed.start(StartAs::Primary).await;
    assert_eq!(bed.ask("SELECT a FROM t").await, "1");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_blames_no_setting() {
    let mut bed = Bed::primary("db1", &[]).await;
    bed.stop().await;
    let port = bed.instance.layout().port;
    let _v6 = std::net::TcpListener::bind(("::1", port));
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    bed.place.options.parameters.push("work_mem=7MB".parse().unwrap());
    bed.configure(Role::Primary(&Quorum::OFF)).await.unwrap();
    let started = bed.instance.start(StartAs::Primary, None).await;
    let why = match started {
        Ok(()) => bed.instance.ready(LIMIT).await.unwrap_err(),
        Err(why) => why,
    };
    assert!(why.contains("could not bind") && !why.contains("former settings"), "{why}");
    drop((taken, _v6));
    bed.start(StartAs::Primary).await;
    assert_eq!(bed.ask("SHOW work_mem").await, "7MB");
}
