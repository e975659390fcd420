//! A host: a network namespace with its own addresses, a directory of its own, and its processes.
//! It shares the machine's files, users and pids, so tests use absolute paths below its directory.

use std::collections::BTreeSet;
use std::fs;
use std::io::{PipeWriter, Write, pipe};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::address::HostNo;
use crate::disk::Disk;
use crate::net::{World, logs};
use crate::proc::{Output, Proc};
use crate::switch::NIC;

/// How long a command given to [`Host::run`] may take.
const RUN_WITHIN: Duration = Duration::from_secs(120);
/// What fits into a pipe, so that nobody waits for the command to read it.
const INPUT_BYTES_MAX: usize = 64 * 1024;

/// A handle to a host; all clones are the same host. It stays valid over power cycles.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    world: Arc<World>,
    no: HostNo,
    name: String,
    dir: PathBuf,
    started: AtomicU32,
}

impl Host {
    pub(crate) fn new(world: Arc<World>, no: HostNo, name: String, dir: PathBuf) -> Self {
        Self(Arc::new(Inner { world, no, name, dir, started: AtomicU32::new(0) }))
    }

    pub(crate) fn no_in(&self, world: &Arc<World>) -> Result<HostNo> {
        ensure!(Arc::ptr_eq(&self.0.world, world), "{} is a host of another world", self.name());
        Ok(self.0.no)
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its directory; it lasts over power cycles and is removed with the world.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// A path below its directory.
    pub fn path(&self, below: &str) -> PathBuf {
        self.0.dir.join(below.trim_start_matches('/'))
    }

    pub fn ip(&self) -> IpAddr {
        self.0.no.ipv4()
    }

    pub fn ip6(&self) -> IpAddr {
        self.0.no.ipv6()
    }

    /// A port on its IPv4 address.
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.ip(), port).into()
    }

    /// A port on its IPv6 address.
    pub fn at6(&self, port: u16) -> SocketAddr {
        (self.ip6(), port).into()
    }

    /// Starts a process on the host, in its directory, with its directory as `HOME`. Its output
    /// goes to files below `log/`; there is no input.
    pub fn spawn(&self, command: &mut Command) -> Result<Proc> {
        self.spawn_with(command, Stdio::null())
    }

    /// As [`Host::spawn`], with a pipe to its standard input.
    pub fn spawn_fed(&self, command: &mut Command) -> Result<(Proc, PipeWriter)> {
        let (reader, writer) = pipe()?;
        Ok((self.spawn_with(command, reader.into())?, writer))
    }

    fn spawn_with(&self, command: &mut Command, input: Stdio) -> Result<Proc> {
        let ns = self.0.world.lock().ns(self.0.no)?;
        let count = self.0.started.fetch_add(1, Ordering::Relaxed);
        let program = Path::new(command.get_program()).file_name().unwrap_or_default();
        let name = format!("{count:03}-{}", program.display());
        command.stdin(input).current_dir(&self.0.dir).env("HOME", &self.0.dir);
        ns.enter(|| Proc::start(command, &logs(&self.0.dir), &name))?
    }

    /// Runs a command to its end; an error if that takes longer than two minutes.
    pub fn run(&self, command: &mut Command) -> Result<Output> {
        self.spawn(command)?.output(RUN_WITHIN)
    }

    /// As [`Host::run`], with something on its standard input: for secrets.
    pub fn run_with(&self, command: &mut Command, input: &str) -> Result<Output> {
        ensure!(input.len() <= INPUT_BYTES_MAX, "input is {} bytes: use a file", input.len());
        let (reader, mut writer) = pipe()?;
        writer.write_all(input.as_bytes())?;
        drop(writer);
        self.spawn_with(command, reader.into())?.output(RUN_WITHIN)
    }

    /// Runs `work` on a thread of its own on the host's network: for sockets of the test itself.
    /// Threads that it starts are there too.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let ns = self.0.world.lock().ns(self.0.no)?;
        ns.enter(work)
    }

    /// Runs a future to its end on the host's network, on a runtime of its own.
    pub fn block_on<T: Send>(&self, work: impl Future<Output = T> + Send) -> Result<T> {
        self.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(work))
        })?
    }

    /// A small disk of its own at a path below the host's directory; for disks that get full.
    pub fn disk(&self, below: &str, bytes: u64) -> Result<Disk> {
        Disk::mount(self.path(below), bytes)
    }

    /// As [`Host::disk`], one that can fail.
    pub fn frail_disk(&self, below: &str, bytes: u64) -> Result<Disk> {
        Disk::format(self.path(below), bytes)
    }

    /// The disk that is mounted at a path below the host's directory.
    pub fn disk_at(&self, below: &str) -> Disk {
        Disk::at(self.path(below))
    }

    /// Its processes.
    pub fn pids(&self) -> Result<BTreeSet<u32>> {
        self.0.world.lock().ns(self.0.no)?.pids()
    }

    /// Those of its processes that run a program of this name.
    pub fn processes(&self, program: &str) -> Result<Vec<u32>> {
        let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Ok(self.pids()?.into_iter().filter(|pid| name(pid).trim_end() == program).collect())
    }

    /// How many bytes it has received and sent on the network since it was powered on.
    pub fn traffic_bytes(&self) -> Result<u64> {
        let text = self.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        let line =
            text.lines().find_map(|line| line.trim_start().strip_prefix(NIC)?.strip_prefix(':'));
        let counts: Vec<&str> = line.context("no network interface")?.split_whitespace().collect();
        let count =
            |at: usize| counts.get(at).context("too few counts")?.parse().context("no number");
        let (received, sent): (u64, u64) = (count(0)?, count(8)?);
        Ok(received + sent)
    }

    /// Kills every process of the host; the host itself stays on, and answers for them (connections
    /// are reset).
    pub fn kill_all(&self) -> Result<()> {
        let ns = self.0.world.lock().ns(self.0.no)?;
        ns.kill_all()
    }

    /// A power cut: silence at once, then no process is left, nor anything the kernel knew. The
    /// directory stays.
    pub fn power_off(&self) -> Result<()> {
        self.0.world.lock().power_off(self.0.no)
    }

    pub fn is_on(&self) -> bool {
        self.0.world.lock().ns(self.0.no).is_ok()
    }

    /// On again: same name, addresses, directory, lines and rate; no process.
    pub fn power_on(&self) -> Result<()> {
        self.0.world.power_on(self.0.no)
    }

    /// Pulls the cable: the host sees its link go down.
    pub fn isolate(&self) -> Result<()> {
        self.0.world.lock().connect(self.0.no, false)
    }

    /// Puts the cable back.
    pub fn rejoin(&self) -> Result<()> {
        self.0.world.lock().connect(self.0.no, true)
    }

    /// Limits its line, in and out separately, to so many bits per second; `None` lifts the limit.
    pub fn rate(&self, bits_per_s: Option<u64>) -> Result<()> {
        self.0.world.lock().limit(self.0.no, bits_per_s)
    }
}
