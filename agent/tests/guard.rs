//! The guard as a process, with a real tree of processes in a real cgroup. The agent's part is a client.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // nothing but tests
#![allow(clippy::disallowed_methods)] // children of these tests, and bounds on waits

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lockstep_agent::pg::boottime::{self, Boottime};
use lockstep_agent::pg::guard::{GuardClient, Post, WatchdogSettings};
use lockstep_model::Millis;
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(20);

/// A cgroup with a tree of processes in it: one, its child, and a session of its own. Ended when
/// dropped.
struct Instance {
    cgroup: PathBuf,
    children: Vec<Child>,
}

fn cgroup_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("a cgroup2 mount");
    PathBuf::from(line.split(' ').nth(4).unwrap())
}

impl Instance {
    fn place(name: &str) -> PathBuf {
        cgroup_root().join(format!("lockstep-guard-test/{name}-{}", std::process::id()))
    }

    fn start(name: &str) -> Self {
        let instance = Self::begin(name);
        wait_until("the tree", || instance.processes() >= 3);
        instance
    }

    fn begin(name: &str) -> Self {
        let cgroup = Self::place(name);
        fs::create_dir_all(&cgroup).unwrap();
        let mut instance = Self { cgroup, children: Vec::new() };
        instance.add(Command::new("sh").args(["-c", "sleep 1000 & setsid sleep 1000 & wait"]));
        instance
    }

    fn add(&mut self, command: &mut Command) {
        // It goes there before its children come.
        let joined =
            format!("echo $$ > {}/cgroup.procs; exec \"$0\" \"$@\"", self.cgroup.display());
        let mut wrapped = Command::new("sh");
        wrapped.args(["-c", &joined]).arg(command.get_program()).args(command.get_args());
        self.children.push(wrapped.stdin(Stdio::null()).spawn().unwrap());
    }

    fn processes(&self) -> usize {
        fs::read_to_string(self.cgroup.join("cgroup.procs")).unwrap().lines().count()
    }
}

/// Guards outlive everybody else, also a test that failed.
fn end_guards(cgroup: &Path) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut args = line.split(|byte| *byte == 0);
        let is_its = args.any(|arg| arg == cgroup.as_os_str().as_encoded_bytes());
        let pid = entry.file_name().to_string_lossy().parse().ok();
        if let Some(pid) = pid.filter(|_| is_its).and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            end_guards(&self.cgroup);
        }
        fs::write(self.cgroup.join("cgroup.kill"), "1").unwrap();
        for child in &mut self.children {
            let _ = child.wait();
        }
        let began = Instant::now();
        while fs::remove_dir(&self.cgroup).is_err() && began.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
    }
}

fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn agent() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lockstep-agent"))
}

fn soon(ms: u64) -> Boottime {
    boottime::now().after(Millis(ms))
}

fn post<'a>(dir: &'a Path, cgroup: &'a Path) -> Post<'a> {
    Post { agent: agent(), dir, cgroup, watchdog: None }
}

async fn guard(dir: &Path, instance: &Instance) -> GuardClient {
    let post = post(dir, &instance.cgroup);
    GuardClient::attach_or_start(&post, Boottime::NEVER).await.unwrap().0
}

/// A directory whose path is longer than a socket's may be.
fn deep(dir: &tempfile::TempDir) -> PathBuf {
    let deep = dir.path().join("d".repeat(120));
    fs::create_dir(&deep).unwrap();
    deep
}

#[tokio::test]
async fn the_tree_is_gone_at_the_deadline_without_any_agent() {
    let dir = tempfile::tempdir().unwrap();
    let dir = deep(&dir);
    let instance = Instance::start("alone");
    let mut client = guard(&dir, &instance).await;
    let deadline = soon(300);
    client.until(deadline).await.unwrap();
    // As if the agent was killed: nobody says anything any more.
    drop(client);
    assert!(instance.processes() >= 3);
    until("an empty cgroup", || instance.processes() == 0).await;
    let late = boottime::now().since(deadline);
    assert!(boottime::now() >= deadline, "not before its time");
    assert!(late < Millis(1000), "{late:?} late");
    let (client, armed) = GuardClient::attach(&dir).await.expect("it goes on");
    assert_eq!(armed, Some(deadline), "another agent is told that it has passed");
    client.quit().await;
}

/// As a systemd unit's: its directory goes with its processes, and comes with the next start.
#[tokio::test]
async fn what_is_started_after_the_deadline_is_ended_too() {
    let dir = tempfile::tempdir().unwrap();
    let cgroup = Instance::place("late");
    let begun = GuardClient::attach_or_start(&post(dir.path(), &cgroup), soon(50)).await;
    let (mut client, deadline) = begun.unwrap();
    until("the deadline", || deadline.is_none_or(|at| boottime::now() >= at)).await;
    for _ in 0..2 {
        let mut instance = Instance::begin("late");
        until("its end", || instance.children[0].try_wait().unwrap().is_some()).await;
        until("an empty cgroup", || instance.processes() == 0).await;
    }
    client.hold().await.unwrap();
    let instance = Instance::start("late");
    let began = boottime::now();
    until("some rounds of the guard", || boottime::now().since(began) > Millis(300)).await;
    assert!(instance.processes() >= 3, "nothing is to be ended any more");
    client.quit().await;
}

#[tokio::test]
async fn a_deadline_that_is_pushed_on_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let instance = Instance::start("pushed");
    let mut client = guard(dir.path(), &instance).await;
    let began = boottime::now();
    while boottime::now().since(began) < Millis(1500) {
        client.until(soon(500)).await.unwrap();
        sleep(Duration::from_millis(100)).await;
    }
    assert!(instance.processes() >= 3);
    client.hold().await.unwrap();
    // Another agent finds the guard that is there, and what it was told.
    let (mut next, armed) = GuardClient::attach(dir.path()).await.unwrap();
    assert_eq!(armed, None);
    let far = soon(60_000);
    next.until(far).await.unwrap();
    let (again, armed) =
        GuardClient::attach_or_start(&post(dir.path(), &instance.cgroup), Boottime::NEVER)
            .await
            .unwrap();
    assert_eq!(armed, Some(far));
    assert!(next.hold().await.is_err(), "the older agent is not heard any more");
    again.quit().await;
    assert!(GuardClient::attach(dir.path()).await.is_none(), "it has quit");
    assert!(instance.processes() >= 3);
}

#[tokio::test]
async fn what_was_stopped_in_its_tracks_is_ended_too() {
    let dir = tempfile::tempdir().unwrap();
    let instance = Instance::start("stopped");
    let pids = fs::read_to_string(instance.cgroup.join("cgroup.procs")).unwrap();
    for pid in pids.lines() {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    }
    let mut client = guard(dir.path(), &instance).await;
    client.until(soon(100)).await.unwrap();
    until("an empty cgroup", || instance.processes() == 0).await;
    client.quit().await;
}

#[tokio::test]
async fn there_is_one_guard_and_it_outlives_who_started_it() {
    let dir = tempfile::tempdir().unwrap();
    let instance = Instance::start("one");
    let first = guard(dir.path(), &instance).await;
    let second = Command::new(agent())
        .args(["guard".as_ref(), "--dir".as_ref(), dir.path().as_os_str()])
        .args(["--cgroup".as_ref(), instance.cgroup.as_os_str()])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!second.success(), "a second one is refused");
    let (still, _) = GuardClient::attach(dir.path()).await.expect("the first one works");
    drop(first);
    still.quit().await;
}

/// A pipe stands in for the device, as this machine may have none: it shows what a driver would be told.
/// That a reset follows when nothing more is written is the kernel's part.
#[tokio::test]
async fn the_kernels_watchdog_is_fed_as_long_as_a_reset_would_come_in_time() {
    const TIMEOUT: Millis = Millis(400);
    let (dir, instance) = (tempfile::tempdir().unwrap(), Instance::start("watched"));
    let device = dir.path().join("watchdog");
    assert!(Command::new("mkfifo").arg(&device).status().unwrap().success());
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    let mut options = fs::OpenOptions::new();
    let mut pipe = options.read(true).write(true).custom_flags(flags).open(&device).unwrap();
    let mut told = move || {
        let mut bytes = [0; 4096];
        pipe.read(&mut bytes).map_or(Vec::new(), |len| bytes[..len].to_vec())
    };
    let settings = WatchdogSettings { device, timeout: TIMEOUT, is_required: true };
    let watchdog = Some((&settings, Millis(0)));
    let post = Post { watchdog, ..post(dir.path(), &instance.cgroup) };
    let (mut client, _) = GuardClient::attach_or_start(&post, soon(60_000)).await.unwrap();
    let mut fed = 0;
    until("it is fed", || {
        fed += told().len();
        fed >= 3
    })
    .await;
    assert!(client.until(soon(60_000)).await.unwrap(), "it says so");

    // With nothing to be ended it is let go by the magic letter, and taken again afterwards.
    told();
    client.hold().await.unwrap();
    assert_eq!(told().last(), Some(&b'V'));
    assert!(!client.until(soon(TIMEOUT.0 / 2)).await.unwrap(), "a reset would come too late");
    client.hold().await.unwrap();
    assert_eq!(told(), b"");

    // The last feeding is a timeout before the end; that nothing is left then is told in time.
    let deadline = soon(1500);
    assert!(client.until(deadline).await.unwrap());
    drop(client);
    let (mut fed_at, mut last) = (boottime::now(), 0);
    until("its letting go", || {
        let bytes = told();
        if bytes.contains(&0) {
            fed_at = boottime::now();
        }
        last = bytes.last().copied().unwrap_or(last);
        last == b'V'
    })
    .await;
    assert_eq!(instance.processes(), 0);
    let slack = Millis(200);
    assert!(boottime::now() >= deadline);
    assert!(fed_at.after(TIMEOUT) <= deadline.after(slack), "{fed_at:?} {deadline:?}");
    GuardClient::attach(dir.path()).await.unwrap().0.quit().await;
}
