//! The whole table over HTTP, and the board.

use std::sync::Mutex;
use std::time::Duration;

use lockstep_model::cluster::report::{Stream, Trouble};
use lockstep_model::cluster::{
    ClusterOptions, CrashPlan, Goal, Lineage, Lsn, MemberOptions, MemberState, Origin, Primary,
    Quorum, Term,
};
use lockstep_model::setting::Settings;
use lockstep_model::{Millis, NodeName};
use lockstep_transport::health::{HealthBoard, Verdict, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::pg::reports::Board;

mod pages;

const PATIENCE: Duration = Duration::from_secs(20);

pub fn place(cluster: &str, goal: Goal) -> ClusterPlace {
    ClusterPlace {
        cluster: cluster.parse().unwrap(),
        term: Term(3),
        goal,
        system_id: None,
        holder: None,
        lineage: Lineage::default(),
        copy: 0,
        options: ClusterOptions::default(),
        member: MemberOptions::default(),
        peers: Vec::new(),
        promotable: Vec::new(),
        sync: false,
        paused: false,
        serve: true,
    }
}

fn primary() -> Goal {
    Goal::Primary(Primary {
        origin: Origin::Existing,
        at_least: Lsn(0),
        timeline: 0,
        quorum: Quorum::OFF,
        crash: CrashPlan::Restart,
        prepare: false,
    })
}

fn report(state: MemberState) -> MemberReport {
    MemberReport {
        state,
        term: Term(3),
        holds: (state == MemberState::Primary).then_some(Term(3)),
        released: None,
        system_id: Some(lockstep_model::cluster::SystemId(7)),
        version: "15.18 (Debian 15.18-1)".to_owned(),
        lineage: Lineage(vec![lockstep_model::cluster::wal::Fork { timeline: 1, begins: Lsn(0) }]),
        lsn: Some(Lsn(10_000)),
        replayed: Some(Lsn(9_000)),
        upstream: (state == MemberState::Standby).then(|| Stream {
            from: "db1".parse().unwrap(),
            age: Millis(5),
            end: Lsn(20_000),
        }),
        quorum: None,
        promotable: Vec::new(),
        standbys: Vec::new(),
        rewindable: false,
        prepared: false,
        copy: 0,
        progress: None,
        salvaged_bytes: 0,
        certificate: String::new(),
        pending_restart: Vec::new(),
        trouble: Trouble::None,
        problem: String::new(),
        warnings: Vec::new(),
        findings: Vec::new(),
    }
}

/// A lease that tests move, and how long nobody looked.
struct Lease(Mutex<Boottime>, Mutex<Option<Millis>>);

impl Leases for Lease {
    fn writes_until(&self, _cluster: &ClusterName) -> Boottime {
        *self.0.lock().unwrap()
    }

    fn looked_at(&self, _cluster: &ClusterName) -> Option<Boottime> {
        self.1.lock().unwrap().map(|unseen| boottime::now().before(unseen))
    }
}

/// A listener with its sources in the test's hands.
struct Node {
    places: watch::Sender<Arc<[TaskSpec]>>,
    members: Board,
    lease: Arc<Lease>,
    board: HealthBoard,
    at: std::net::SocketAddr,
    shutdown: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Node {
    async fn start() -> Self {
        let (places, in_force) = watch::channel(Arc::from([]));
        let lease = Arc::new(Lease(Mutex::default(), Mutex::new(Some(Millis(0)))));
        let members = Board::default();
        let sources = Sources { in_force, reports: members.subscribe(), leases: lease.clone() };
        let board = HealthBoard::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let name: NodeName = "db2".parse().unwrap();
        let more = routes(sources.clone(), name, Arc::new(|| "further 1\n".to_owned()));
        tokio::spawn(serve(listener, board.clone(), more, shutdown.clone()));
        tokio::spawn(keep(board.clone(), sources));
        Self { places, members, lease, board, at, shutdown }
    }

    fn have(&self, members: Vec<(ClusterPlace, Option<MemberReport>)>) {
        let specs = members.iter().map(|(place, _)| place.clone());
        self.places.send_replace(specs.map(|p| TaskSpec::ClusterPlace(Box::new(p))).collect());
        for (place, report) in members {
            match report {
                Some(report) => self.members.publish(&place.cluster, report),
                None => self.members.withdraw(&place.cluster),
            }
        }
    }

    fn lease(&self, until: Boottime) {
        *self.lease.0.lock().unwrap() = until;
    }

    fn unseen(&self, time: Option<Millis>) {
        *self.lease.1.lock().unwrap() = time;
    }

    /// Status and body.
    async fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let asked = async {
            let mut stream = TcpStream::connect(self.at).await.unwrap();
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: db2\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        let text = timeout(PATIENCE, asked).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, body.to_owned())
    }

    async fn code(&self, path: &str) -> u16 {
        self.ask("GET", path).await.0
    }
}

/// Those of a row pass, all others do not.
const PATHS: [&str; 20] = [
    "",
    "primary",
    "master",
    "read-write",
    "leader",
    "standby-leader",
    "standby_leader",
    "replica",
    "read-only",
    "sync",
    "synchronous",
    "quorum",
    "read-only-sync",
    "read-only-quorum",
    "async",
    "asynchronous",
    "health",
    "liveness",
    "readiness",
    "patroni",
];

#[tokio::test]
async fn every_path_answers_by_what_the_member_is() {
    const WRITES: &[&str] = &["", "primary", "master", "read-write", "leader"];
    const EITHER: &[&str] = &["read-only", "readiness"];
    const WITH_SYNC: &[&str] = &["read-only-sync", "read-only-quorum"];
    const SYNC: &[&str] = &["sync", "synchronous", "quorum"];
    const ASYNC: &[&str] = &["async", "asynchronous"];
    const ALWAYS: &[&str] = &["liveness", "patroni"];
    let standby = || place("main", Goal::Standby { upstream: None });
    let of_quorum = || ClusterPlace { sync: true, ..standby() };
    let with = |name: &str, value: &str| {
        let member = MemberOptions::from_values([(name, value)]).unwrap();
        ClusterPlace { member, ..standby() }
    };
    let broken = |trouble| MemberReport { trouble, ..report(MemberState::Primary) };
    let said = |state| Some(report(state));
    type Row<'a> = (&'a str, ClusterPlace, Option<MemberReport>, bool, Vec<&'a [&'a str]>);
    let rows: Vec<Row<'_>> = vec![
        (
            "a primary under its lease",
            place("main", primary()),
            said(MemberState::Primary),
            true,
            vec![WRITES, EITHER, WITH_SYNC, &["health"]],
        ),
        (
            "a primary whose lease ended",
            place("main", primary()),
            said(MemberState::Primary),
            false,
            vec![&["health"]],
        ),
        (
            "a primary whose disk is full",
            place("main", primary()),
            Some(broken(Trouble::DiskFull)),
            true,
            vec![&["leader", "readiness", "health"]],
        ),
        (
            "a primary without free connections",
            place("main", primary()),
            Some(broken(Trouble::Busy)),
            true,
            vec![WRITES, EITHER, WITH_SYNC, &["health"]],
        ),
        (
            "a primary that hangs",
            place("main", primary()),
            Some(broken(Trouble::Hung)),
            true,
            vec![&["leader", "readiness"]],
        ),
        (
            "one that writes and may not",
            standby(),
            said(MemberState::Rogue),
            false,
            vec![&["health"]],
        ),
        (
            "a standby",
            standby(),
            said(MemberState::Standby),
            false,
            vec![&["replica", "health"], EITHER, ASYNC],
        ),
        (
            "a standby that commits wait for",
            of_quorum(),
            said(MemberState::Standby),
            false,
            vec![&["replica", "health"], EITHER, SYNC, WITH_SYNC],
        ),
        (
            "one of the quorum that is sealed",
            of_quorum(),
            said(MemberState::Sealed),
            false,
            vec![&["replica", "read-only", "health"]],
        ),
        (
            "a standby that balancers leave out",
            with("no-load-balance", "yes"),
            said(MemberState::Standby),
            false,
            vec![&["readiness", "health"]],
        ),
        (
            "a standby whose node is drained",
            ClusterPlace { serve: false, ..of_quorum() },
            said(MemberState::Standby),
            false,
            vec![&["health"]],
        ),
        (
            "a primary whose node is drained",
            ClusterPlace { serve: false, ..place("main", primary()) },
            said(MemberState::Primary),
            true,
            vec![WRITES, EITHER, WITH_SYNC, &["health"]],
        ),
        ("one that starts", standby(), said(MemberState::Starting), false, vec![]),
        ("one that is fenced", standby(), said(MemberState::Fenced), true, vec![]),
        ("one that said nothing", standby(), None, true, vec![]),
    ];
    let node = Node::start().await;
    for (what, place, report, may_write, passing) in rows {
        node.lease(if may_write { Boottime::NEVER } else { Boottime(0) });
        node.have(vec![(place, report)]);
        let passing: Vec<&str> = passing.concat();
        for path in PATHS {
            let pass = passing.contains(&path) || ALWAYS.contains(&path);
            let code = if pass { 200 } else { 503 };
            assert_eq!(node.code(&format!("/{path}")).await, code, "{what}: /{path}");
            let below = format!("/cluster/main/{path}");
            assert_eq!(node.code(&below).await, code, "{what}: {below}");
        }
    }
    assert_eq!(node.code("/cluster/main").await, 503);
}

#[tokio::test]
async fn liveness_is_that_of_who_looks_after_the_member() {
    let node = Node::start().await;
    let options = [("lease", "20s"), ("check-timeout", "5s")];
    let options = ClusterOptions::from_values(options).unwrap();
    let standby = place("main", Goal::Standby { upstream: None });
    let standby = ClusterPlace { options: options.clone(), ..standby };
    let leading = ClusterPlace { options, ..place("main", primary()) };
    let paused = ClusterPlace { paused: true, ..standby.clone() };
    let seconds = |time| Some(Millis::from_secs(time));
    for (place, state, unseen, code) in [
        (&leading, MemberState::Primary, seconds(15), 200),
        (&leading, MemberState::Primary, seconds(21), 503),
        (&standby, MemberState::Standby, seconds(35), 200),
        (&standby, MemberState::Standby, seconds(41), 503),
        (&standby, MemberState::Standby, None, 503),
        (&paused, MemberState::Standby, seconds(100), 200),
    ] {
        node.unseen(unseen);
        node.have(vec![(place.clone(), Some(report(state)))]);
        assert_eq!(node.code("/liveness").await, code, "{state} {unseen:?}");
    }
}

#[tokio::test]
async fn parameters_narrow_what_passes() {
    let node = Node::start().await;
    let member = MemberOptions::from_values([("tag", "zone=a"), ("never-promote", "yes")]).unwrap();
    let place = ClusterPlace { member, ..place("main", Goal::Standby { upstream: None }) };
    node.have(vec![(place.clone(), Some(report(MemberState::Standby)))]);
    // 11000 bytes behind in what it applied, 10000 in what it wrote.
    for (path, code) in [
        ("/replica?lag=11000", 200),
        ("/replica?lag=10999", 503),
        ("/async?lag=10kB", 503),
        ("/async?lag=1MB", 200),
        ("/read-only?lag=0", 503),
        ("/replica?lag=much", 503),
        ("/replica?replication_state=streaming", 200),
        ("/replica?replication_state=in+archive+recovery", 503),
        ("/readiness?lag=10500", 503),
        ("/readiness?lag=10500&mode=write", 200),
        ("/readiness?mode=soon", 503),
        ("/replica?tag_zone=a", 200),
        ("/replica?tag_zone=b", 503),
        ("/read-only?tag_zone=b", 503),
        ("/replica?tag_missing=a", 503),
        ("/replica?tag_nofailover=True", 200),
        ("/health?tag_missing=a", 200),
        ("/replica?something=else", 200),
    ] {
        assert_eq!(node.code(path).await, code, "{path}");
    }
    let cut_off = MemberReport { upstream: None, ..report(MemberState::Standby) };
    node.have(vec![(place, Some(cut_off))]);
    for (path, code) in [
        ("/replica", 200),
        ("/replica?lag=1TB", 503),
        ("/replica?replication_state=streaming", 503),
        ("/readiness", 503),
    ] {
        assert_eq!(node.code(path).await, code, "cut off: {path}");
    }
}

#[tokio::test]
async fn the_primary_is_none_from_the_moment_its_lease_ends() {
    let node = Node::start().await;
    node.have(vec![(place("main", primary()), Some(report(MemberState::Primary)))]);
    let end = boottime::now().after(Millis(300));
    node.lease(end);
    loop {
        let before = boottime::now();
        let code = node.code("/primary").await;
        let after = boottime::now();
        assert!(code == 200 || after >= end, "too early");
        assert!(code == 503 || before < end, "said after the end");
        if code == 503 {
            break;
        }
    }
    // Nothing was reported meanwhile, and the board knows it too.
    let gone = async {
        while node.board.get("cluster/main/primary").map(|a| a.verdict) != Some(Verdict::NotServing)
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test]
async fn methods_bodies_and_places_of_paths() {
    let node = Node::start().await;
    let standby = |cluster| {
        (place(cluster, Goal::Standby { upstream: None }), Some(report(MemberState::Standby)))
    };
    assert_eq!(node.code("/primary").await, 404, "no member, no answer");
    node.have(vec![standby("main")]);
    let (code, body) = node.ask("GET", "/replica").await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(code, 200);
    for (pointer, value) in [
        ("/state", serde_json::json!("running")),
        ("/role", "replica".into()),
        ("/server_version", 150_018.into()),
        ("/timeline", 1.into()),
        ("/xlog/received_location", 10_000.into()),
        ("/xlog/replayed_location", 9_000.into()),
        ("/replication_state", "streaming".into()),
        ("/database_system_identifier", "7".into()),
        ("/lockstep/node", "db2".into()),
        ("/lockstep/cluster", "main".into()),
        ("/lockstep/lag_bytes", 11_000.into()),
    ] {
        assert_eq!(body.pointer(pointer), Some(&value), "{pointer} of {body}");
    }
    for method in ["HEAD", "OPTIONS"] {
        assert_eq!(node.ask(method, "/replica").await, (200, String::new()), "{method}");
        assert_eq!(node.ask(method, "/primary").await, (503, String::new()), "{method}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(node.ask(method, "/replica").await.0, 405, "{method}");
    }
    // The agent's own stay where they are.
    assert_eq!(node.ask("GET", "/live").await, (200, "running\n".to_owned()));
    assert_eq!(node.code("/ready").await, 503);
    for path in ["/cluster/main/unknown", "/cluster/other/replica", "/cluster/A%20b", "/replica/x"]
    {
        assert_eq!(node.code(path).await, 404, "{path}");
    }
    node.have(vec![standby("main"), standby("second")]);
    assert_eq!(node.code("/replica").await, 404, "which one?");
    for path in ["/cluster/main/replica", "/cluster/second/replica"] {
        assert_eq!(node.code(path).await, 200, "{path}");
    }
}

#[tokio::test]
async fn the_board_has_three_names_a_member() {
    let node = Node::start().await;
    let until = async |name: &str, verdict: Option<Verdict>| {
        let reached = async {
            while node.board.get(name).map(|answer| answer.verdict) != verdict {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{name}: {verdict:?}"));
    };
    let standby = place("main", Goal::Standby { upstream: None });
    node.have(vec![(standby.clone(), Some(report(MemberState::Standby)))]);
    until("cluster/main/replica", Some(Verdict::Serving)).await;
    until("cluster/main/sync", Some(Verdict::NotServing)).await;
    until("cluster/main/primary", Some(Verdict::NotServing)).await;
    let of_quorum = ClusterPlace { sync: true, ..standby };
    node.have(vec![(of_quorum, Some(report(MemberState::Standby)))]);
    until("cluster/main/sync", Some(Verdict::Serving)).await;
    node.have(Vec::new());
    for name in ["primary", "replica", "sync"] {
        until(&format!("cluster/main/{name}"), None).await;
    }
}
