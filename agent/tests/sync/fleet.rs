//! A master and web heads in one process: real engines, real lsyncd and rsync, unix sockets in
//! place of mTLS. Needs root, as the agent does.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use lockstep_agent::data::{Dial, Stream, greet};
use lockstep_agent::sync::{Settings, SyncEngine};
use lockstep_model::identity::{Principal, Subject};
use lockstep_model::sync::{
    Delivery, DeliveryState, EngineState, SourceReport, SyncOptions, SyncReport, TargetReport,
};
use lockstep_model::task::{Outcome, OutcomeKind, Peer, Receiver, SyncSource, SyncTarget};
use lockstep_model::{KeyHash, Timestamp};
use lockstep_transport::clock;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Far above what anything here takes, so that only a real fault meets it.
pub const PATIENCE: Duration = Duration::from_secs(90);
pub const SYNC: &str = "webroot";

/// Waits for a condition, and says what it waited for when it does not come.
pub async fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    match within_patience(condition).await {
        Some(found) => found,
        None => panic!("waited in vain for: {what}"),
    }
}

pub async fn within_patience<T>(mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let waited = async {
        loop {
            if let Some(found) = condition() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.ok()
}

/// Who dials, and where the sockets of the others are.
struct SocketDial(String, PathBuf);

impl Dial for SocketDial {
    fn dial<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
        Box::pin(async move {
            let Self(caller, dir) = self;
            // A target that several may feed has a socket for each of them.
            let own = dir.join("peers").join(format!("{caller}-{}", peer.node));
            let path = Some(own).filter(|own| own.exists());
            let path = path.unwrap_or_else(|| dir.join("peers").join(peer.node.as_str()));
            let stream = UnixStream::connect(path).await.map_err(|e| e.to_string())?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

pub struct Fleet {
    pub dir: TempDir,
    pub master: SyncEngine,
    pub heads: BTreeMap<String, SyncEngine>,
    pub targets: Vec<String>,
    /// Targets without an agent.
    pub remotes: Vec<Receiver>,
    pub options: SyncOptions,
    /// Bytes that each head takes in at most per millisecond; 0 is no limit.
    pub rate: Arc<AtomicU64>,
    /// Whom a head's data port takes the caller for.
    pub caller: Arc<Mutex<Principal>>,
}

pub fn courier() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples/courier");
    assert!(path.exists(), "build it: cargo build -p lockstep-agent --example courier");
    path
}

fn engine_settings(dir: &Path, node: &str) -> Settings {
    Settings {
        data_dir: dir.join(node),
        agent: courier(),
        rsync: "/usr/bin/rsync".into(),
        lsyncd: "/usr/bin/lsyncd".into(),
        hook_dir: dir.join("hooks"),
        secrets_dir: dir.join("secrets"),
        node: node.to_owned(),
        allow_roots: vec![],
    }
}

pub async fn engine(dir: &Path, node: &str) -> SyncEngine {
    engine_with(dir, node, |_| ()).await
}

pub async fn engine_with(dir: &Path, node: &str, change: impl FnOnce(&mut Settings)) -> SyncEngine {
    let mut settings = engine_settings(dir, node);
    change(&mut settings);
    engine_by(dir, settings, clock::now).await
}

async fn engine_by(dir: &Path, settings: Settings, clock: fn() -> Timestamp) -> SyncEngine {
    let dial = Arc::new(SocketDial(settings.node.clone(), dir.to_owned()));
    SyncEngine::open(settings, dial, clock).await.unwrap()
}

/// For which time passes a hundred times as fast.
pub async fn hasty_engine(dir: &Path, node: &str) -> SyncEngine {
    static START: OnceLock<Timestamp> = OnceLock::new();
    let hasty = || {
        let (now, start) = (clock::now(), START.get_or_init(clock::now));
        Timestamp(start.0 + 100 * now.since(*start).0)
    };
    engine_by(dir, engine_settings(dir, node), hasty).await
}

pub fn peer(node: &str) -> Peer {
    let addresses = vec!["127.0.0.1:7402".parse().unwrap()];
    Peer { node: node.parse().unwrap(), key_hash: KeyHash([1; 32]), addresses }
}

pub fn master_principal() -> Principal {
    let subject = Subject::Node("master1".parse().unwrap());
    Principal { subject, key_hash: KeyHash([1; 32]) }
}

impl Fleet {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        fs::create_dir(dir.path().join("peers")).unwrap();
        let master = engine(dir.path(), "master1").await;
        Self {
            dir,
            master,
            heads: BTreeMap::new(),
            targets: vec![],
            remotes: vec![],
            options: SyncOptions { delay: lockstep_model::Millis(0), ..SyncOptions::default() },
            rate: Arc::default(),
            caller: Arc::new(Mutex::new(master_principal())),
        }
    }

    /// With something in the source and these heads filled.
    pub async fn filled(heads: &[&str]) -> Self {
        let mut fleet = Self::new().await;
        fleet.fill(heads).await;
        fleet
    }

    /// The same, with options as they are by now.
    pub async fn fill(&mut self, heads: &[&str]) {
        fs::write(self.src("first"), "first").unwrap();
        for head in heads {
            self.add_head(head).await;
        }
        self.apply().await;
        for head in heads {
            self.converged(head).await;
            self.state(head, DeliveryState::Idle).await;
        }
    }

    pub fn src(&self, name: &str) -> PathBuf {
        self.dir.path().join("src").join(name)
    }

    pub fn www(&self, head: &str) -> PathBuf {
        self.dir.path().join(format!("{head}-www"))
    }

    pub async fn add_head(&mut self, head: &str) {
        let engine = engine(self.dir.path(), head).await;
        self.listen(head, &engine);
        self.heads.insert(head.to_owned(), engine);
        self.assign(head).await;
        self.targets.push(head.to_owned());
    }

    pub async fn assign(&self, head: &str) {
        let path = self.www(head).to_str().unwrap().parse().unwrap();
        let spec = SyncTarget {
            source: Some(peer("master1")),
            options: self.options.clone(),
            ..SyncTarget::new(SYNC.parse().unwrap(), path)
        };
        assert_eq!(self.heads[head].apply_target(spec).await, Outcome::ok());
    }

    pub fn listen(&self, head: &str, engine: &SyncEngine) {
        let path = self.dir.path().join("peers").join(head);
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        let (engine, rate, caller) = (engine.clone(), self.rate.clone(), self.caller.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (engine, rate) = (engine.clone(), rate.clone());
                let caller = caller.lock().unwrap().clone();
                tokio::spawn(async move {
                    let (mut near, far) = tokio::io::duplex(64 << 10);
                    tokio::spawn(throttle(stream, far, rate));
                    if let Some(request) = greet(&mut near, &caller).await {
                        engine.serve(near, request, &caller).await;
                    }
                });
            }
        });
    }

    pub fn spec(&self) -> SyncSource {
        let path = self.dir.path().join("src").to_str().unwrap().parse().unwrap();
        SyncSource {
            receivers: self
                .targets
                .iter()
                .map(|head| peer(head).into())
                .chain(self.remotes.iter().cloned())
                .collect(),
            options: self.options.clone(),
            ..SyncSource::new(SYNC.parse().unwrap(), path)
        }
    }

    pub async fn apply(&self) {
        assert_eq!(self.master.apply_source(self.spec()).await, Outcome::ok());
    }

    pub fn report(&self) -> Option<SourceReport> {
        let reports = self.master.reports().subscribe();
        let report = reports.borrow().get(&SYNC.parse().unwrap()).cloned();
        match report {
            Some(SyncReport::Source(report)) => Some(report),
            _ => None,
        }
    }

    pub fn delivery(&self, head: &str) -> Option<Delivery> {
        self.report()?.deliveries.into_iter().find(|d| d.target.as_str() == head)
    }

    /// What a head says of itself.
    pub fn said(&self, head: &str) -> TargetReport {
        let reports = self.heads[head].reports().subscribe();
        match reports.borrow().get(&SYNC.parse().unwrap()) {
            Some(SyncReport::Target(report)) => report.clone(),
            _ => TargetReport::default(),
        }
    }

    pub fn problem(&self, head: &str) -> String {
        self.said(head).problem
    }

    pub async fn state(&self, head: &str, state: DeliveryState) -> Delivery {
        let what = format!("{head} to be {}", state.as_str());
        match within_patience(|| self.delivery(head).filter(|d| d.state == state)).await {
            Some(found) => found,
            None => panic!("waited in vain for {what}\n{:#?}", self.report()),
        }
    }

    pub async fn watching(&self) {
        let what = "lsyncd to watch";
        let watches = || self.report().filter(|r| r.engine == EngineState::Watching);
        eventually(what, watches).await;
    }

    pub async fn watching_or_held(&self) {
        let is = |r: &SourceReport| matches!(r.engine, EngineState::Watching | EngineState::Held);
        eventually("lsyncd to be back", || self.report().filter(is)).await;
    }

    pub async fn converged(&self, head: &str) {
        let (src, www) = (self.src(""), self.www(head));
        let last = std::cell::RefCell::new(String::new());
        let equal = || {
            let found = differences(&src, &www);
            let equal = found.is_empty().then_some(());
            last.replace(found);
            equal
        };
        if within_patience(equal).await.is_none() {
            panic!("{head} never became equal: {}\n{:#?}", last.borrow(), self.report());
        }
    }

    /// Process ids of the master's children whose command line holds `word`.
    pub fn children(&self, word: &str) -> Vec<i32> {
        children(&self.dir.path().join("master1"), word)
    }

    /// What a sender could do that was let in and runs an rsync of its own.
    pub async fn hostile_rsync(&self, args: &[&str]) -> std::process::ExitStatus {
        let shell = format!(
            "'{}' '--data-dir' '{}' 'rsh' '--sync' '{SYNC}'",
            courier().display(),
            self.dir.path().join("master1").display(),
        );
        let ended = tokio::process::Command::new("rsync")
            .args(["--timeout=10", "-e", &shell])
            .args(args)
            .stderr(std::process::Stdio::null())
            .status();
        tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap()
    }

    pub async fn lsyncd(&self) -> i32 {
        eventually("an lsyncd", || self.children("/usr/bin/lsyncd").first().copied()).await
    }

    pub async fn end(self) {
        self.master.shut_down().await;
        for head in self.heads.values() {
            head.shut_down().await;
        }
        for node in ["master1"].into_iter().chain(self.heads.keys().map(String::as_str)) {
            let left = children(&self.dir.path().join(node), "");
            assert!(left.is_empty(), "left behind by {node}: {left:?}");
        }
    }
}

pub fn children(data_dir: &Path, word: &str) -> Vec<i32> {
    let records = fs::read_dir(data_dir.join("run")).into_iter().flatten();
    let pids = records.filter_map(|record| record.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").contains(word)
    })
    .collect()
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// What rsync itself finds different, contents, owners, times to the nanosecond and extras included.
pub fn differences(src: &Path, www: &Path) -> String {
    let out = Command::new("rsync")
        .args(["-rlptgoDnic", "--delete", "--modify-window=-1", "--"])
        .arg(format!("{}/", src.display()))
        .arg(format!("{}/", www.display()))
        .output()
        .unwrap();
    let mut text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&out.stderr));
    text
}

async fn throttle(stream: UnixStream, far: tokio::io::DuplexStream, rate: Arc<AtomicU64>) {
    let (mut stream_r, mut stream_w) = stream.into_split();
    let (mut far_r, mut far_w) = tokio::io::split(far);
    let back = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut far_r, &mut stream_w).await;
        let _ = stream_w.shutdown().await;
    });
    let mut chunk = vec![0; 16 << 10];
    while let Ok(n @ 1..) = stream_r.read(&mut chunk).await {
        if far_w.write_all(&chunk[..n]).await.is_err() {
            break;
        }
        let rate = rate.load(Ordering::Relaxed);
        if let Some(pause_ms) = (n as u64).checked_div(rate) {
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }
    let _ = far_w.shutdown().await;
    let _ = tokio::io::copy(&mut stream_r, &mut tokio::io::sink()).await;
    let _ = back.await;
}

pub fn is_ok(outcome: &Outcome) -> bool {
    outcome.kind == OutcomeKind::Ok
}
