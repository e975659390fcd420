//! Nodes with an engine each, a free port, and data directories of their own; a granter of leases that
//! a test sets. All processes are gone when it is dropped.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use lockstep_agent::data::{Dial, Stream};
use lockstep_agent::host::Host;
use lockstep_agent::pg::boottime::Boottime;
use lockstep_agent::pg::guard::GuardClient;
use lockstep_agent::pg::instance::{Instance, Secrets};
use lockstep_agent::pg::lease::AskPromise;
use lockstep_agent::pg::{ClusterEngine, Settings as EngineSettings, Ways};
use lockstep_model::cluster::{
    Answer, ClusterOptions, ClusterPlace, CrashPlan, Goal, Grant, Lineage, Lsn, MemberOptions,
    MemberPeer, MemberReport, MemberState, Origin, Primary, Quorum, SystemId, Term,
};
use lockstep_model::id::KeyHash;
use lockstep_model::setting::Settings;
use lockstep_model::task::{Outcome, OutcomeKind, Peer, TaskSpec};
use lockstep_model::{ClusterName, HostPort, Millis, NodeName};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use crate::ends::{end_guard, instance};

/// Far longer than anything takes.
pub const LIMIT: Duration = Duration::from_secs(60);
pub const LEASE: Millis = Millis(4000);

/// What the controller would have decided.
#[derive(Clone, Default)]
pub struct Decided {
    pub term: u64,
    pub holder: Option<NodeName>,
}

pub struct Bed {
    pub dir: tempfile::TempDir,
    pub decided: Arc<Mutex<Decided>>,
    /// Engines by node: whom promises are asked of.
    engines: Arc<Mutex<BTreeMap<NodeName, ClusterEngine>>>,
    pub ports: BTreeMap<NodeName, u16>,
    settings: Vec<(String, String)>,
}

pub struct Node {
    pub name: NodeName,
    pub engine: ClusterEngine,
    pub dir: PathBuf,
    pub options: ClusterOptions,
    granting: tokio::task::JoinHandle<()>,
}

struct NoDial;

impl Dial for NoDial {
    fn dial<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
        Box::pin(async move { Err(format!("{} is not there", peer.node)) })
    }
}

/// Promises without a network.
struct Promises {
    me: NodeName,
    engines: Arc<Mutex<BTreeMap<NodeName, ClusterEngine>>>,
}

impl AskPromise for Promises {
    fn ask<'a>(
        &'a self,
        peer: &'a Peer,
        cluster: &'a ClusterName,
        term: Term,
        length: Millis,
    ) -> BoxFuture<'a, Result<Millis, String>> {
        let engine = self.engines.lock().unwrap().get(&peer.node).cloned();
        Box::pin(async move {
            let engine = engine.ok_or_else(|| format!("{} is not there", peer.node))?;
            engine.promise(&self.me, cluster, term, length).await
        })
    }
}

pub fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

pub fn secrets() -> Secrets {
    Secrets {
        superuser: "top-secret".to_owned().into(),
        replication: "copy-secret".to_owned().into(),
    }
}

impl Bed {
    pub fn new(names: &[&str], settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::Builder::new().prefix("pgm").tempdir_in("/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = || {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            socket.local_addr().unwrap().port()
        };
        let mut all: Vec<(String, String)> = vec![
            ("parameter".into(), "shared_buffers=16MB".into()),
            ("parameter".into(), "max_connections=20".into()),
            ("lease".into(), LEASE.exact()),
        ];
        // Another version than the newest that is installed: `tests/postgres-versions`.
        let bin = std::env::var("LOCKSTEP_TEST_PG_BIN").ok();
        all.extend(bin.map(|bin| ("postgres-bin".into(), bin)));
        all.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        Self {
            dir,
            decided: Arc::default(),
            engines: Arc::default(),
            ports: names.iter().map(|name| (node(name), port())).collect(),
            settings: all,
        }
    }

    /// From now on only this one is granted its lease; None: nobody, and nobody answers.
    pub fn decide(&self, term: u64, holder: Option<&Node>) {
        let holder = holder.map(|node| node.name.clone());
        *self.decided.lock().unwrap() = Decided { term, holder };
    }

    pub fn options(&self, name: &NodeName, dir: &Path) -> ClusterOptions {
        let port = self.ports[name].to_string();
        let data = dir.join("data").display().to_string();
        let sockets = dir.join("s").display().to_string();
        let own = [("port", port.as_str()), ("data-dir", &data), ("socket-dir", &sockets)];
        let all = self.settings.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        ClusterOptions::from_values(own.into_iter().chain(all)).unwrap()
    }

    /// An agent's run; a second one of the same name finds what the first left.
    pub async fn node(&self, name: &str) -> Node {
        let name = node(name);
        let dir = self.dir.path().join(name.as_str());
        let sockets = dir.join("s");
        fs::create_dir_all(&sockets).unwrap();
        // Postgres' user goes in and out here.
        for open in [&dir, &sockets] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let host = Host::open(&dir.join("run")).await.unwrap();
        let settings = EngineSettings {
            data_dir: dir.join("agent"),
            agent: PathBuf::from(env!("CARGO_BIN_EXE_lockstep-agent")),
            hook_dir: dir.join("hooks"),
            watchdog: None,
            name: name.clone(),
            addresses: watch::channel(Vec::new()).1,
        };
        let promises = Promises { me: name.clone(), engines: self.engines.clone() };
        let ways = Ways { dial: Arc::new(NoDial), promises: Arc::new(promises) };
        let engine = ClusterEngine::open(settings, ways, host);
        self.engines.lock().unwrap().insert(name.clone(), engine.clone());
        engine.passwords().put(&"main".parse().unwrap(), secrets());
        let granting = tokio::spawn(grant(engine.clone(), name.clone(), self.decided.clone()));
        let options = self.options(&name, &dir);
        Node { name, engine, dir, options, granting }
    }

    pub fn peers(&self, but: &Node) -> Vec<MemberPeer> {
        let others = self.ports.iter().filter(|(name, _)| **name != but.name);
        let peer = |(name, port): (&NodeName, &u16)| MemberPeer {
            peer: Peer { node: name.clone(), key_hash: KeyHash([0; 32]), addresses: Vec::new() },
            postgres: HostPort::new("localhost", *port).unwrap(),
            certificate: self.certificate(name),
            clone_from: false,
        };
        others.map(peer).collect()
    }

    fn certificate(&self, name: &NodeName) -> String {
        let engines = self.engines.lock().unwrap();
        let report = engines.get(name).and_then(|engine| {
            engine.reports().borrow().get(&"main".parse::<ClusterName>().unwrap()).cloned()
        });
        report.map(|report| report.certificate.clone()).unwrap_or_default()
    }

    pub fn place(&self, of: &Node, term: u64, goal: Goal) -> ClusterPlace {
        ClusterPlace {
            cluster: "main".parse().unwrap(),
            term: Term(term),
            goal,
            system_id: None,
            holder: None,
            lineage: Lineage::default(),
            copy: 1,
            options: of.options.clone(),
            member: MemberOptions::default(),
            peers: self.peers(of),
            promotable: Vec::new(),
            sync: false,
            paused: false,
            serve: true,
        }
    }
}

async fn grant(engine: ClusterEngine, name: NodeName, decided: Arc<Mutex<Decided>>) {
    let mut renewals = engine.renewals().unwrap();
    while let Some(renewal) = renewals.recv().await {
        let now = decided.lock().unwrap().clone();
        let answer = match now.holder {
            None => continue,
            Some(holder) if holder == name && now.term == renewal.term.0 => {
                Answer::For(LEASE.max(renewal.away.unwrap_or_default()))
            }
            Some(holder) => Answer::Refused(format!("term {} is {holder}'s", now.term)),
        };
        engine.granted(Grant::answering(renewal, answer));
    }
}

pub fn primary(origin: Origin, crash: CrashPlan) -> Primary {
    Primary { origin, at_least: Lsn(0), timeline: 0, quorum: Quorum::OFF, crash, prepare: false }
}

impl Node {
    pub async fn take(&self, place: &ClusterPlace) {
        let outcome = self.try_take(place).await;
        assert_eq!(outcome.kind, OutcomeKind::Ok, "{}", outcome.message);
    }

    pub async fn try_take(&self, place: &ClusterPlace) -> Outcome {
        self.engine.place(place.clone(), CancellationToken::new()).await
    }

    pub fn report(&self) -> Option<Arc<MemberReport>> {
        self.engine.reports().borrow().values().next().cloned()
    }

    /// The first report that is as wanted.
    pub async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&MemberReport) -> bool,
    ) -> Arc<MemberReport> {
        let mut reports = self.engine.reports();
        let found = timeout(LIMIT, async {
            loop {
                let now = reports.borrow_and_update().values().next().cloned();
                if let Some(report) = now.filter(|report| wanted(report)) {
                    return report;
                }
                reports.changed().await.unwrap();
            }
        });
        found.await.unwrap_or_else(|_| {
            panic!("{} waited in vain for {what}: {:#?}\n{}", self.name, self.report(), self.log())
        })
    }

    pub async fn until_primary(&self, term: u64) -> Arc<MemberReport> {
        self.until(&format!("primary of term {term}"), |report| {
            report.state == MemberState::Primary && report.holds == Some(Term(term))
        })
        .await
    }

    /// Another run of the agent, told only what its ledger has.
    pub async fn resume(&self, place: &ClusterPlace) {
        self.engine.start([TaskSpec::ClusterPlace(Box::new(place.clone()))]).await;
    }

    /// The deadline of its guard; None: there is no guard.
    pub async fn guard(&self) -> Option<Option<Boottime>> {
        GuardClient::attach(&self.dir.join("agent/cluster/main")).await.map(|(_, until)| until)
    }

    pub async fn instance(&self) -> Instance {
        instance(self.name.clone(), &self.options, &self.dir).await
    }

    pub fn postmaster(&self) -> Option<i32> {
        let text = fs::read_to_string(self.dir.join("data/postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// As a crash: the postmaster alone dies, its children go on for a while.
    pub fn kill_postmaster(&self) {
        let pid = rustix::process::Pid::from_raw(self.postmaster().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    /// No process holds the data directory.
    pub fn sql_is_down(&self) -> bool {
        let alive = |pid: i32| fs::metadata(format!("/proc/{pid}")).is_ok();
        self.postmaster().is_none_or(|pid| !alive(pid))
    }

    pub async fn sql(&self, sql: &str) -> Result<Vec<String>, String> {
        self.sql_as("lockstep", sql).await
    }

    pub async fn sql_as(&self, user: &str, sql: &str) -> Result<Vec<String>, String> {
        let mut config = tokio_postgres::Config::new();
        let instance = &self.options.instance;
        config.host_path(instance.socket_dir.as_str()).port(instance.port);
        config.user(user).password("top-secret").dbname("postgres");
        let asked = async {
            let connected = config.connect(NoTls).await.map_err(|e| format!("{e:?}"));
            let (client, connection) = connected?;
            let running = tokio::spawn(connection);
            let rows = client.simple_query(sql).await.map_err(|e| format!("{e:?}"));
            running.abort();
            let rows = rows?.into_iter().filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            Ok(rows.collect())
        };
        timeout(LIMIT, asked).await.unwrap()
    }

    pub async fn write(&self, row: u32) {
        self.sql("CREATE TABLE IF NOT EXISTS rows (id int)").await.unwrap();
        self.sql(&format!("INSERT INTO rows VALUES ({row})")).await.unwrap();
    }

    pub async fn rows(&self) -> Vec<String> {
        self.sql("SELECT id FROM rows ORDER BY id").await.unwrap()
    }

    pub fn log(&self) -> String {
        let private = self.dir.join("data.lockstep");
        let mut text = String::new();
        for entry in fs::read_dir(private).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains("log") {
                text += &fs::read_to_string(entry.path()).unwrap_or_default();
            }
        }
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The agent ends; its instance and its guard live on.
    pub async fn end_agent(self) -> Self {
        self.engine.shut_down().await;
        self.granting.abort();
        self
    }

    /// Nothing of it is left.
    pub async fn clean_up(self) {
        let node = self.end_agent().await;
        end_guard(&node.dir).await;
        node.instance().await.fence(LIMIT).await;
    }
}

pub async fn eventually(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < LIMIT, "waited in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

pub fn with_id(place: ClusterPlace, report: &MemberReport) -> ClusterPlace {
    let system_id: Option<SystemId> = report.system_id;
    assert!(system_id.is_some());
    ClusterPlace { system_id, lineage: report.lineage.clone(), ..place }
}

pub async fn eventually_ok(what: &str, mut reached: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !reached().await {
        assert!(began.elapsed() < LIMIT, "waited in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
