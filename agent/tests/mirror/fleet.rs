//! Nodes in one process with real engines, and an upstream: a real rsync daemon on loopback. Needs
//! root, as the agent does.
#![allow(dead_code)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lockstep_agent::data::{Dial, Stream, greet};
use lockstep_agent::mirror::{self, MirrorEngine};
use lockstep_agent::runner::Output;
use lockstep_agent::sync::{self, SyncEngine};
use lockstep_model::identity::{Principal, Subject};
use lockstep_model::mirror::{Allow, HopKind, MirrorOptions, MirrorReport, Pulled};
use lockstep_model::setting::Settings;
use lockstep_model::task::{MirrorPlace, MirrorPull, Outcome, OutcomeKind, Peer, PullFrom, Stage};
use lockstep_model::{KeyHash, MirrorName};
use lockstep_transport::clock;
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

/// Far above what anything here takes, so that only a real fault meets it.
pub const PATIENCE: Duration = Duration::from_secs(90);

pub fn mirror() -> MirrorName {
    "fedora".parse().unwrap()
}

pub async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let waited = async {
        loop {
            if let Some(found) = condition() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, waited).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain for: {what}"),
    }
}

/// Where the sockets of the others are, by who calls.
struct SocketDial(String, PathBuf);

impl Dial for SocketDial {
    fn dial<'a>(&'a self, peer: &'a Peer) -> BoxFuture<'a, Result<Box<dyn Stream>, String>> {
        Box::pin(async move {
            let path = self.1.join("peers").join(format!("{}-{}", self.0, peer.node));
            let stream = UnixStream::connect(path).await.map_err(|e| e.to_string())?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

pub struct Node {
    pub name: String,
    pub dir: PathBuf,
    pub syncs: SyncEngine,
    pub mirrors: MirrorEngine,
}

pub fn courier() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples/courier");
    assert!(path.exists(), "build it: cargo build -p lockstep-agent --example courier");
    path
}

pub fn peer(node: &str) -> Peer {
    let addresses = vec!["127.0.0.1:7402".parse().unwrap()];
    Peer { node: node.parse().unwrap(), key_hash: KeyHash([1; 32]), addresses }
}

pub fn principal(node: &str, key: u8) -> Principal {
    let subject = Subject::Node(node.parse().unwrap());
    Principal { subject, key_hash: KeyHash([key; 32]) }
}

impl Node {
    pub async fn start(dir: &Path, name: &str) -> Self {
        Self::start_with(dir, name, |_| ()).await
    }

    pub async fn start_with(
        dir: &Path,
        name: &str,
        change: impl FnOnce(&mut mirror::Settings),
    ) -> Self {
        Self::start_limited(dir, name, None, change).await
    }

    /// As `start_with`; it sends so many bytes a second.
    pub async fn start_limited(
        dir: &Path,
        name: &str,
        bandwidth_limit: Option<u64>,
        change: impl FnOnce(&mut mirror::Settings),
    ) -> Self {
        fs::create_dir_all(dir.join("peers")).unwrap();
        let settings = sync::Settings {
            data_dir: dir.join(name),
            agent: courier(),
            rsync: "/usr/bin/rsync".into(),
            lsyncd: "/usr/bin/lsyncd".into(),
            hook_dir: dir.join("hooks"),
            secrets_dir: dir.join("secrets"),
            node: name.to_owned(),
            allow_roots: vec![],
        };
        let mut of_mirrors = mirror::Settings {
            data_dir: dir.join(name),
            agent: courier(),
            rsync: "/usr/bin/rsync".into(),
            hook_dir: dir.join("hooks"),
            secrets_dir: dir.join("secrets"),
            rsyncd_dir: None,
            name: name.parse().unwrap(),
            allow_roots: vec![],
            pulls: 4,
        };
        change(&mut of_mirrors);
        let dial = Arc::new(SocketDial(name.to_owned(), dir.to_owned()));
        let syncs = SyncEngine::open(settings, dial, clock::now).await.unwrap();
        syncs.lanes().limit(bandwidth_limit);
        let mirrors = MirrorEngine::open(of_mirrors, &syncs, clock::now);
        Self { name: name.to_owned(), dir: dir.to_owned(), syncs, mirrors }
    }

    /// Lets another node call this one, which takes it for `caller`.
    pub fn listen_to(&self, node: &str, caller: Principal) {
        let path = self.dir.join("peers").join(format!("{node}-{}", self.name));
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(path).unwrap();
        let engine = self.syncs.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (engine, caller) = (engine.clone(), caller.clone());
                tokio::spawn(async move {
                    let mut stream = stream;
                    if let Some(request) = greet(&mut stream, &caller).await {
                        engine.serve(stream, request, &caller).await;
                    }
                });
            }
        });
    }

    pub fn dest(&self) -> PathBuf {
        self.dir.join(format!("{}-data", self.name))
    }

    pub fn tree(&self) -> PathBuf {
        self.dest().join("fedora")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join(&self.name).join("mirror/fedora")
    }

    pub fn place(&self, hop: HopKind, readers: &[&str]) -> MirrorPlace {
        MirrorPlace {
            mirror: mirror(),
            tree: self.tree().to_str().unwrap().parse().unwrap(),
            moved_from: None,
            hop,
            readers: readers.iter().map(|node| peer(node)).collect(),
            serve: true,
            options: options(&[]),
        }
    }

    pub async fn assign(&self, place: MirrorPlace) {
        let outcome = self.mirrors.place(place).await;
        assert_eq!(outcome.kind, OutcomeKind::Ok, "{outcome:?}");
    }

    /// A pull by this node's own place.
    pub fn spec(&self, number: u64, from: PullFrom, values: &[(&str, &str)]) -> MirrorPull {
        let hop = match from {
            PullFrom::Agent(_) => HopKind::Replica,
            PullFrom::Remote(_) | PullFrom::Here => HopKind::Upstream,
        };
        MirrorPull {
            mirror: mirror(),
            number,
            generation: number,
            tree: self.tree().to_str().unwrap().parse().unwrap(),
            hop,
            from,
            stage: Stage::Whole,
            options: options(values),
            allow: Allow::default(),
            has_password: false,
        }
    }

    pub async fn run(&self, spec: MirrorPull) -> Outcome {
        self.run_until(spec, CancellationToken::new()).await
    }

    pub async fn run_until(&self, spec: MirrorPull, stop: CancellationToken) -> Outcome {
        let run = self.mirrors.pull(spec, stop, Output::default());
        tokio::time::timeout(PATIENCE, run).await.expect("the run ends")
    }

    /// A run that is complete.
    pub async fn pull(&self, spec: MirrorPull) -> Pulled {
        let outcome = self.run(spec).await;
        assert_eq!(outcome.kind, OutcomeKind::Ok, "{outcome:?}\n{}", self.log());
        outcome.pulled.unwrap()
    }

    /// A run that fails; why, and what it did.
    pub async fn fail(&self, spec: MirrorPull) -> (String, Pulled) {
        let outcome = self.run(spec).await;
        assert_eq!(outcome.kind, OutcomeKind::Failed, "{outcome:?}\n{}", self.log());
        (outcome.message, outcome.pulled.unwrap())
    }

    pub fn report(&self) -> MirrorReport {
        self.mirrors.reports().subscribe().borrow().get(&mirror()).unwrap().clone()
    }

    /// The newest run's.
    pub fn log(&self) -> String {
        let logs = fs::read_dir(self.state().join("log")).into_iter().flatten().flatten();
        let newest = logs.max_by_key(|log| {
            log.file_name().to_str().and_then(|name| name.parse::<u64>().ok()).unwrap_or(0)
        });
        newest.map(|log| fs::read_to_string(log.path()).unwrap()).unwrap_or_default()
    }

    /// Process ids of children of this node.
    pub fn children(&self) -> Vec<i32> {
        let records = fs::read_dir(self.dir.join(&self.name).join("run")).into_iter().flatten();
        records.filter_map(|record| record.ok()?.file_name().to_str()?.parse().ok()).collect()
    }

    pub async fn end(self) {
        self.mirrors.shut_down().await;
        self.syncs.shut_down().await;
        assert_eq!(self.children(), Vec::<i32>::new(), "left behind by {}", self.name);
    }
}

pub fn options(values: &[(&str, &str)]) -> MirrorOptions {
    let usual = [("min-free", "0"), ("connect-timeout", "10s"), ("io-timeout", "30s")];
    let usual = usual.iter().filter(|(name, _)| values.iter().all(|(given, _)| given != name));
    MirrorOptions::from_values(usual.chain(values).copied()).unwrap()
}

/// An rsync daemon that serves `<dir>/up` as module `m`; ended when dropped.
pub struct Daemon {
    child: Child,
    pub port: u16,
}

impl Daemon {
    pub fn start(dir: &Path, more: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        fs::create_dir_all(dir.join("up")).unwrap();
        let config = format!(
            "address = 127.0.0.1\nport = {port}\nuse chroot = no\nlog file = /dev/null\n\
             uid = 0\ngid = 0\n[m]\npath = {0}/up\nread only = yes\n{more}",
            dir.display()
        );
        fs::write(dir.join("rsyncd.conf"), config).unwrap();
        let child = Command::new("rsync")
            .args(["--daemon", "--no-detach"])
            .arg(format!("--config={}", dir.join("rsyncd.conf").display()))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Self { child, port };
        for _ in 0..2000 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return daemon;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the daemon does not listen");
    }

    pub fn source(&self) -> PullFrom {
        self.source_for("")
    }

    pub fn source_for(&self, user: &str) -> PullFrom {
        PullFrom::Remote(format!("rsync://{user}127.0.0.1:{}/m", self.port).parse().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An upstream with something in it, and a master beside it.
pub struct Scene {
    pub dir: TempDir,
    pub daemon: Daemon,
    pub master: Node,
}

impl Scene {
    pub async fn new() -> Self {
        Self::with("").await
    }

    pub async fn with(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let daemon = Daemon::start(dir.path(), more);
        let master = Node::start(dir.path(), "master1").await;
        let scene = Self { dir, daemon, master };
        scene.write(&[("a", "1"), ("d/b", "22"), ("d/e/c", "333"), ("dists/Release", "r")]);
        std::os::unix::fs::symlink("a", scene.up("l")).unwrap();
        scene.master.assign(scene.master.place(HopKind::Upstream, &[])).await;
        scene
    }

    pub fn up(&self, name: &str) -> PathBuf {
        self.dir.path().join("up").join(name)
    }

    pub fn write(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = self.up(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    pub fn spec(&self, number: u64, values: &[(&str, &str)]) -> MirrorPull {
        self.master.spec(number, self.daemon.source(), values)
    }

    pub fn assert_same(&self, tree: &Path) {
        assert_eq!(differences(&self.up(""), tree), "");
    }

    pub fn hook(&self, name: &str, script: &str) {
        let dir = self.dir.path().join("hooks");
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// What rsync itself finds different, contents, owners, times and extras included.
pub fn differences(one: &Path, other: &Path) -> String {
    let out = Command::new("rsync")
        .args(["-rlptgoDnic", "--delete", "--"])
        .arg(format!("{}/", one.display()))
        .arg(format!("{}/", other.display()))
        .output()
        .unwrap();
    let mut text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&out.stderr));
    text
}
