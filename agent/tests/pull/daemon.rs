//! A real rsync daemon on loopback with one module, and pulls from it, step by step as the agent's.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lockstep_agent::mirror::pull::argv::{Pull, Source, Step, argv, environment};
use lockstep_agent::mirror::pull::course::{Course, Guards, Next, Place};
use lockstep_agent::mirror::pull::ending::{End, Ended, ended};
use lockstep_agent::mirror::pull::output::Output;
use lockstep_model::Millis;
use lockstep_model::mirror::options::Family;
use lockstep_model::mirror::rsync::{Delete, Hop};
use lockstep_model::mirror::{Allow, Pulled};
use lockstep_model::rate::Size;
use lockstep_model::removal::RemovalLimit;
use lockstep_model::sync::Remote;
use lockstep_model::sync::filter::{Filter, Pattern};

const PATIENCE: Duration = Duration::from_secs(60);

/// Serves `<dir>/up` as module `m`; ended when dropped.
pub struct Daemon {
    child: Child,
    port: u16,
}

impl Daemon {
    #[allow(clippy::disallowed_methods)] // the test asks rsync itself
    pub fn start(dir: &Path, more: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = rustix::process::geteuid().is_root();
        let ids = if root { "uid = 0\ngid = 0\n" } else { "" };
        let config = format!(
            "address = 127.0.0.1\nport = {port}\nuse chroot = no\nlog file = /dev/null\nreverse lookup = no\n\
             pid file = {0}/pid\n[m]\npath = {0}/up\nread only = yes\n{ids}{more}",
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
        wait_until("the daemon listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        daemon
    }

    pub fn url(&self, user: &str) -> String {
        format!("rsync://{user}127.0.0.1:{}/m", self.port)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(clippy::disallowed_methods)] // a bound on a child of this test
pub fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < PATIENCE, "{what} in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A mirror of one upstream in a directory of the test.
pub struct Mirror {
    pub dir: PathBuf,
    pub remote: Remote,
    pub hop: Hop,
    pub filters: Vec<Filter>,
    pub own: Vec<Pattern>,
    pub late: Vec<Pattern>,
    pub password: Option<PathBuf>,
    pub guards: Guards,
    pub io_timeout: Millis,
}

/// How a pull ended: what it did, its steps and its last words.
pub struct Told {
    pub pulled: Pulled,
    pub steps: Vec<Step>,
    pub next: Result<Next, Ended>,
}

impl Mirror {
    pub fn new(dir: &Path, url: &str, delete: Delete) -> Self {
        let limit = Some(RemovalLimit { count: Some(100), percent: Some(50) });
        Self {
            dir: dir.to_owned(),
            remote: url.parse().unwrap(),
            hop: Hop { defaults: "-avH".parse().unwrap(), options: "".parse().unwrap(), delete },
            filters: Vec::new(),
            own: Vec::new(),
            late: Vec::new(),
            password: None,
            guards: Guards { limit, min_free: Size(0), allow: Allow::default() },
            io_timeout: Millis::from_secs(60),
        }
    }

    pub fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// One step, with its files linked from `links`.
    #[allow(clippy::disallowed_methods)] // the test asks rsync itself
    pub fn step(&self, step: Step, into: &Path, links: &[&Path]) -> (Ended, Output) {
        fs::create_dir_all(into).unwrap();
        let source = Source::Remote {
            remote: &self.remote,
            secrets: Path::new("/nonexistent"),
            password: self.password.as_deref(),
        };
        let pull = Pull {
            source,
            hop: &self.hop,
            filters: &self.filters,
            own: &self.own,
            late: &self.late,
            rate: None,
            io_timeout: self.io_timeout,
            connect_timeout: Millis::from_secs(10),
            family: Family::Ipv4,
            into,
            links,
            work: None,
            keeps: true,
        };
        let output = Command::new("rsync")
            .args(argv(&pull, step))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("LC_ALL", "C")
            .envs(environment(&source, None))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let mut told = Output::new(None);
        for line in output.stdout.split(|b| matches!(b, b'\n' | b'\r')) {
            told.take(&String::from_utf8_lossy(line), Duration::ZERO);
        }
        let stderr = String::from_utf8(output.stderr).unwrap();
        (ended(&pull, step, output.status, &stderr, true), told)
    }

    /// All steps of a pull into the tree.
    pub fn pull(&self, place: Place) -> Told {
        let staged = !self.late.is_empty();
        let delete = if staged { Delete::None } else { self.hop.delete };
        let mut course = Course::new(delete, place, self.guards);
        let mut next = course.first(u64::MAX);
        let mut steps = Vec::new();
        while let Next::Run(step) = next {
            steps.push(step);
            let (ended, output) = self.step(step, &self.tree(), &[]);
            if ended.end != End::Complete {
                course.add(step, &output);
                return Told { pulled: course.pulled(), steps, next: Err(ended) };
            }
            next = course.next(step, &ended, &output, u64::MAX);
        }
        Told { pulled: course.pulled(), steps, next: Ok(next) }
    }
}

pub fn write(root: &Path, files: &[&str]) {
    for file in files {
        let path = root.join(file);
        if file.ends_with('/') {
            fs::create_dir_all(path).unwrap();
            continue;
        }
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, *file).unwrap();
    }
}

/// Names below `root`, sorted.
pub fn names(root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            names.push(name);
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    names.sort();
    names
}

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
