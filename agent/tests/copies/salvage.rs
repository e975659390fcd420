//! The last log of a dead primary, brought to its standby before that is promoted.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lockstep_agent::data::header::Request;
use lockstep_agent::data::{Dial, Stream};
use lockstep_agent::pg::copy::Replace;
use lockstep_agent::pg::divergence::{Relation, compare};
use lockstep_agent::pg::salvage::{
    Offer, Salvaged, Stock, Wish, clear, fetch, restore_command, serve,
};
use lockstep_agent::pg::wal::{find_end, read_lineage};
use lockstep_model::cluster::{Lineage, Lsn, Term};
use lockstep_model::identity::{Principal, Subject};
use lockstep_model::task::Peer;
use lockstep_model::{KeyHash, Millis};
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::member::{Member, open_to_members};
use crate::server::{Server, scratch, wait};

const SIZE: u64 = 1 << 20;

/// The other agent's data port, over a pipe; it breaks after so many bytes.
struct Port {
    stock: Stock,
    caller: Principal,
    breaks_after: Mutex<Option<u64>>,
}

impl Dial for Port {
    fn dial<'a>(&'a self, _peer: &'a Peer) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
        let (near, mut far) = tokio::io::duplex(64 << 10);
        let (stock, caller) = (self.stock.clone(), self.caller.clone());
        tokio::spawn(async move {
            let request = Request::read(&mut far).await.unwrap();
            let Request::Wal(request) = request else { panic!("{request:?}") };
            serve(far, &caller, &request, &stock).await;
        });
        let breaks_after = self.breaks_after.lock().unwrap().take();
        async move {
            let Some(most) = breaks_after else { return Ok(Box::new(near) as Box<dyn Stream>) };
            let (mut cut, ours) = tokio::io::duplex(64 << 10);
            tokio::spawn(async move {
                let (read, mut write) = tokio::io::split(near);
                let (mut from, mut to) = tokio::io::split(&mut cut);
                let asks = tokio::io::copy(&mut from, &mut write);
                let mut read = read.take(most);
                let answers = tokio::io::copy(&mut read, &mut to);
                tokio::select! { _ = answers => {}, _ = asks => {} }
                let _ = cut.shutdown().await;
            });
            Ok(Box::new(ours) as Box<dyn Stream>)
        }
        .boxed()
    }
}

struct Pair {
    _dir: TempDir,
    primary: Server,
    member: Member,
    standby: Server,
    port: Port,
}

fn candidate() -> Peer {
    Peer { node: "db2".parse().unwrap(), key_hash: KeyHash([2; 32]), addresses: vec![] }
}

/// A primary with an asynchronous standby that has long ceased to hear of it.
async fn pair() -> Pair {
    let dir = scratch();
    let mut primary = Server::init(dir.path(), &["--wal-segsize=1"]);
    primary.start();
    open_to_members(&primary);
    primary.sql("create table t(i int, x text)");
    let member = Member::new(&primary).await;
    member.clone(Replace::Nothing).await.unwrap();
    let agent = &member.instance.programs().agent;
    let restore = restore_command(agent, &member.instance).unwrap().replace('\'', "''");
    std::fs::write(
        member.data().join("postgresql.auto.conf"),
        format!("restore_command = '{restore}'\nwal_retrieve_retry_interval = '100ms'\n"),
    )
    .unwrap();
    let standby = member.follow(&primary);
    primary.sql("insert into t values (0, 'both')");
    wait("it streams", || standby.try_sql("select i from t").as_deref() == Some("0"));
    standby.sql("alter system set primary_conninfo = ''");
    standby.sql("select pg_reload_conf()");
    wait("it is sealed", || standby.sql("select count(*) from pg_stat_wal_receiver") == "0");
    for i in 1..=5 {
        primary.sql(&format!(
            "insert into t select {i}, repeat('x', 500) from generate_series(1, 2000)"
        ));
    }
    primary.kill();
    let caller =
        Principal { subject: Subject::Node(candidate().node), key_hash: candidate().key_hash };
    let port = Port { stock: Stock::default(), caller, breaks_after: Mutex::default() };
    Pair { _dir: dir, primary, member, standby, port }
}

impl Pair {
    fn offer(&self) -> Offer {
        let begin = self.primary.begin();
        let stop = AtomicBool::new(false);
        let end = find_end(&self.primary.pg_wal(), &begin, None, &stop).unwrap();
        Offer {
            cluster: "main".parse().unwrap(),
            released: Term(1),
            pg_wal: self.primary.pg_wal(),
            begin,
            end,
            peers: vec![candidate()],
        }
    }

    async fn fetch(&self, set: impl FnOnce(&mut Wish<'_>)) -> Result<Salvaged, String> {
        let (cluster, from) = ("main".parse().unwrap(), self.member.place.peers[0].peer.clone());
        let replayed: Lsn = self.standby.sql("select pg_last_wal_replay_lsn()").parse().unwrap();
        let lineage = read_lineage(&self.standby.pg_wal(), 1).unwrap();
        let mut wish = Wish {
            cluster: &cluster,
            term: Term(2),
            lineage: &lineage,
            from: replayed,
            bytes_max: 64 << 20,
            limit: Millis(30_000),
        };
        set(&mut wish);
        let Member { instance, progress, stop, .. } = &self.member;
        fetch(instance, &self.port, &from, wish, progress, stop).await
    }

    fn has(&self, end: Lsn) -> bool {
        let replayed = self.standby.sql("select pg_last_wal_replay_lsn()");
        replayed.parse::<Lsn>().unwrap() >= end
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_the_old_primary_follows_without_a_rewind() {
    let pair = pair().await;
    let offer = pair.offer();
    let end = offer.end.clone();
    let _offered = pair.port.stock.offer(offer);
    let saved = pair.fetch(|_| {}).await.unwrap();
    assert_eq!(saved.end, end.end);
    assert!(saved.bytes > 3 * SIZE, "{saved:?}");
    assert_eq!(pair.member.progress.borrow().done_bytes, saved.bytes);
    wait("all of it is replayed", || pair.has(end.end));
    assert_eq!(pair.standby.sql("select count(*) from t"), "10001");
    let again = pair.fetch(|_| {}).await.unwrap();
    assert_eq!((again.bytes, again.end), (0, end.end), "what is there is not brought again");

    pair.standby.sql("select pg_promote()");
    clear(&pair.member.instance).unwrap();
    let history = read_lineage(&pair.standby.pg_wal(), 2).unwrap();
    assert_eq!(compare(&end.lineage, end.end, &history), Relation::CanFollow);
    assert_eq!(history.0[1].begins, end.end);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_breaks_off_is_tried_again_from_where_it_was() {
    let pair = pair().await;
    let offer = pair.offer();
    let end = offer.end.end;
    let _offered = pair.port.stock.offer(offer);
    *pair.port.breaks_after.lock().unwrap() = Some(5 * SIZE / 2);
    let why = pair.fetch(|_| {}).await.unwrap_err();
    assert!(why.starts_with("log of db1"), "{why}");
    let saved = pair.fetch(|_| {}).await.unwrap();
    assert!(saved.bytes > 0 && saved.end == end);
    wait("all of it is replayed", || pair.has(end));
    assert_eq!(pair.standby.sql("select count(*) from t"), "10001");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_given_only_to_whom_it_is_due_and_while_it_stands() {
    let mut pair = pair().await;
    let why = pair.fetch(|_| {}).await.unwrap_err();
    assert!(why.contains("no dead instance"), "{why}");
    let offer = pair.offer();
    let offered = pair.port.stock.offer(offer.clone());
    let why = pair.fetch(|wish| wish.term = Term(1)).await.unwrap_err();
    assert!(why.contains("not later"), "{why}");
    let why = pair.fetch(|wish| wish.bytes_max = SIZE).await.unwrap_err();
    assert!(why.contains("more than"), "{why}");
    let stranger =
        Lineage(vec![lockstep_model::cluster::wal::Fork { timeline: 7, begins: Lsn(0) }]);
    let why = pair.fetch(|wish| wish.lineage = Box::leak(Box::new(stranger))).await.unwrap_err();
    assert!(why.contains("history"), "{why}");
    let caller = pair.port.caller.clone();
    pair.port.caller.key_hash = KeyHash([9; 32]);
    let why = pair.fetch(|_| {}).await.unwrap_err();
    assert!(why.contains("no member"), "{why}");
    pair.port.caller = caller;

    // Nobody takes what is sent: then it is withdrawn.
    let (mut near, far) = tokio::io::duplex(1024);
    let request = lockstep_agent::data::header::WalRequest {
        cluster: offer.cluster.clone(),
        term: Term(2),
        timeline: 1,
        from: Lsn(offer.begin.redo.0),
        bytes_max: u64::MAX,
    };
    let (stock, caller) = (pair.port.stock.clone(), pair.port.caller.clone());
    let serving = tokio::spawn(async move { serve(far, &caller, &request, &stock).await });
    near.read_u8().await.unwrap();
    drop(offered);
    tokio::time::timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
    let mut rest = Vec::new();
    let _: io::Result<usize> = near.read_to_end(&mut rest).await;
    assert!((rest.len() as u64) < SIZE);
    let why = pair.fetch(|_| {}).await.unwrap_err();
    assert!(why.contains("no dead instance"), "{why}");
}
