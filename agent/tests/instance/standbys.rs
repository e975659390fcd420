//! Two instances: replication over TLS, quorums, slots, promotion.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

use lockstep_agent::host::tail;
use lockstep_agent::pg::instance::{
    Control, Data, Role, SlotWish, StartAs, connection, quote_value,
};
use lockstep_model::Millis;
use lockstep_model::cluster::report::SyncState;
use lockstep_model::cluster::{Lsn, Quorum};

use crate::bed::{Bed, LIMIT, until};

/// A copy of the primary that follows it.
async fn standby(primary: &Bed, name: &str) -> Bed {
    let mut bed = Bed::new(name, &[]).await;
    bed.place.peers = vec![primary.as_peer()];
    // Less than the primary has: it gets what the log needs all the same.
    bed.place.options.parameters.retain(|parameter| parameter.name != "max_connections");
    bed.place.options.parameters.push("max_connections=15".parse().unwrap());
    let upstream = &bed.place.peers[0];
    // Writes the files that pg_basebackup needs; there is no data yet.
    let conf = bed.conf(Role::Standby(Some(upstream)));
    bed.instance.write_secrets(&conf).unwrap();
    let pairs = connection(&bed.place, bed.instance.layout(), upstream);
    let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{k}={}", quote_value(v))).collect();
    let data = bed.instance.layout().data.display().to_string();
    let args = ["-D", &data, "-c", "fast", "-d", &pairs.join(" ")];
    DirBuilder::new().mode(0o700).create(&data).unwrap();
    let owner = &bed.instance.layout().owner;
    std::os::unix::fs::chown(&data, Some(owner.uid), Some(owner.gid)).unwrap();
    let program = bed.instance.as_owner("pg_basebackup", &args);
    let mut child = bed.instance.programs().host.spawn(&program).unwrap();
    let errors = tail(child.stderr.take().unwrap(), 4000).await;
    assert!(child.wait().await.unwrap().success(), "{errors}");
    bed.configure(Role::Standby(Some(upstream))).await.unwrap();
    bed.start(StartAs::Standby).await;
    bed
}

fn control(data: Data) -> Control {
    match data {
        Data::There(control) => *control,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_standby_follows_acknowledges_and_is_promoted() {
    let primary = Bed::primary("db1", &[]).await;
    let wish = |node: &str, at_least| SlotWish { node: node.parse().unwrap(), at_least };
    primary.instance.ensure_slots(&[wish("db-2", None), wish("db3", None)]).await.unwrap();
    let standby = standby(&primary, "db-2").await;
    until("it streams", || async {
        let status = standby.status().await;
        status.receiver.is_some_and(|r| r.streaming)
            && primary.status().await.standbys.first().is_some_and(|row| row.streaming)
    })
    .await;
    let status = standby.status().await;
    let receiver = status.receiver.unwrap();
    assert_eq!(receiver.port, primary.instance.layout().port);
    assert_eq!((receiver.received_timeline, status.timeline), (1, 1));
    assert!(receiver.age < Millis(5000));
    let of = "SELECT ssl FROM pg_stat_ssl s JOIN pg_stat_replication r USING (pid)";
    assert_eq!(primary.ask(of).await, "t");
    assert_eq!(standby.ask("SHOW max_connections").await, "20");
    let slots = primary.status().await.slots;
    let names: Vec<_> = slots.iter().map(|slot| (slot.name.as_str(), slot.active)).collect();
    assert_eq!(names, [("lockstep_db3", false), ("lockstep_db_2d2", true)]);

    // An answer counts once it is new.
    until("it answers", || async { primary.status().await.standbys[0].reply_age < Millis(5000) })
        .await;

    // Slots of standbys are moved on, and those of nobody go.
    let at = standby.status().await.replayed;
    standby.instance.ensure_slots(&[wish("db3", None)]).await.unwrap();
    primary.session().await.unwrap().simple_query("CREATE TABLE t (a int)").await.unwrap();
    until("it is replayed", || async { standby.status().await.replayed > at }).await;
    let to = standby.status().await.replayed;
    standby.instance.ensure_slots(&[wish("db3", to)]).await.unwrap();
    assert_eq!(standby.status().await.slots[0].restart, to);
    standby.instance.ensure_slots(&[]).await.unwrap();
    assert_eq!(standby.status().await.slots, []);

    quorums(&primary, &standby).await;

    // Sealed, it receives nothing more.
    standby.configure(Role::Sealed).await.unwrap();
    until("nothing is received", || async { standby.status().await.receiver.is_none() }).await;
    let sealed = standby.status().await;
    assert_eq!(sealed.timeline, 1);
    primary.instance.set_quorum(&Quorum::OFF, LIMIT).await.unwrap();
    primary.session().await.unwrap().simple_query("INSERT INTO t VALUES (9)").await.unwrap();
    assert_eq!(standby.status().await.lsn, sealed.lsn);
    primary.fence().await;

    number_taken_by_others(&standby).await;
    // A promotion that did not come about made the number: the next one is for somebody else.
    let begun = standby.instance.layout().pg_wal().join("00000004.history");
    std::fs::write(&begun, "# begun\n").unwrap();
    let refused = standby.instance.promote(3, LIMIT).await.unwrap_err();
    assert!(refused.contains("timeline 4 was begun"), "{refused}");
    std::fs::remove_file(&begun).unwrap();
    // Others made two timelines of which nothing came here.
    assert_eq!(standby.instance.promote(3, LIMIT).await.unwrap(), 4);
    let status = standby.status().await;
    assert_eq!((status.in_recovery, status.timeline), (false, 4));
    assert!(standby.instance.look().await.standby_signal);
    let lineage = standby.instance.lineage(4).unwrap();
    assert_eq!(lineage.0.len(), 2, "{lineage:?}");
    assert!(lineage.0[1].begins >= sealed.lsn && lineage.0[1].begins > Lsn(0));
    assert!(standby.instance.promote(4, LIMIT).await.is_err(), "it is no standby any more");
    // What it went through is known to a later start as well.
    standby.instance.checkpoint(LIMIT).await.unwrap();
    assert_eq!(standby.status().await.checkpoint_timeline, 4);
    standby.stop().await;
    assert_eq!(control(standby.instance.look().await.data).timeline, 4);
}

/// A promotion that was prepared and did not come about keeps nobody from starting.
async fn number_taken_by_others(standby: &Bed) {
    let pg_wal = standby.instance.layout().pg_wal();
    let taken = [2, 3].map(|timeline| pg_wal.join(format!("{timeline:08X}.history")));
    for file in &taken {
        let text =
            "# Taken by another member of this cluster, of whose history nothing came here.\n";
        std::fs::write(file, text).unwrap();
        let owner = &standby.instance.layout().owner;
        std::os::unix::fs::chown(file, Some(owner.uid), Some(owner.gid)).unwrap();
    }
    standby.stop().await;
    standby.start(StartAs::Standby).await;
    until("it recovers", || async { standby.status().await.in_recovery }).await;
    assert!(taken.iter().all(|file| !file.exists()));
}

async fn quorums(primary: &Bed, standby: &Bed) {
    let one = Quorum { k: 1, of: [standby.instance.me().clone()].into() };
    primary.instance.set_quorum(&one, LIMIT).await.unwrap();
    let status = primary.status().await;
    assert_eq!(status.quorum.as_ref(), Some(&one));
    assert_eq!(status.standbys[0].sync_state, SyncState::Quorum);
    // A configuration with the same changes nothing.
    assert!(!primary.configure(Role::Primary(&one)).await.unwrap().changed);
    let client = primary.session().await.unwrap();
    client.simple_query("INSERT INTO t VALUES (1)").await.unwrap();

    // Without its standby a commit waits, and the probe does not.
    let nobody = Quorum { k: 1, of: Default::default() };
    primary.instance.set_quorum(&nobody, LIMIT).await.unwrap();
    assert_eq!(primary.status().await.quorum.as_ref(), Some(&nobody));
    let commit = client.simple_query("INSERT INTO t VALUES (2)");
    assert!(tokio::time::timeout(Duration::from_millis(300), commit).await.is_err());
    primary.instance.probe(LIMIT).await.unwrap();
    primary.instance.set_quorum(&one, LIMIT).await.unwrap();
}
