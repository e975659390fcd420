//! `lockstep-agent guard`: a process of its own that knows one deadline and ends one instance when it
//! passes. The agent pushes it on with each renewal of its lease; the guard outlives the agent, and what
//! appears after the deadline is ended too. It writes nothing, and allocates nothing once it runs.

mod client;
mod protocol;
mod watchdog;

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use clap::Args;
use lockstep_model::Millis;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{chdir, setpriority_process, setsid};

use super::boottime::{self, Boottime};
use protocol::{ANSWER_BYTES, Answer, REQUEST_BYTES, Request};

pub use client::{GuardClient, GuardError, Post};
use watchdog::Watchdog;
pub use watchdog::WatchdogSettings;

/// The socket's name in the directory of its cluster.
const SOCKET: &str = "guard";
/// Held by the one guard that there may be: a second one could end what the first lets live.
const LOCK: &str = "guard.lock";
/// Between two looks for something to end, once the deadline has passed.
const AGAIN_MS: u64 = 50;

/// What `lockstep-agent guard` is called with.
#[derive(Args, Clone, Debug)]
pub struct GuardArgs {
    /// The cluster's directory, where the socket is made
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// The instance's cgroup; a systemd unit's comes and goes with its processes
    #[arg(long, value_name = "DIR")]
    pub cgroup: PathBuf,
    /// A cgroup for the guard itself, apart from the agent's
    #[arg(long, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// The first deadline, in milliseconds since the machine booted
    #[arg(long, value_name = "MS")]
    pub until: Option<u64>,
    /// The kernel's watchdog, to be fed until the instance has to be gone
    #[arg(long, value_name = "DEVICE", requires_all = ["watchdog_timeout", "watchdog_grace"])]
    pub watchdog: Option<PathBuf>,
    /// The timeout that the device has, in milliseconds
    #[arg(long, value_name = "MS")]
    pub watchdog_timeout: Option<u64>,
    /// How long after a deadline the machine may be reset, in milliseconds
    #[arg(long, value_name = "MS")]
    pub watchdog_grace: Option<u64>,
}

/// Runs until it is told to quit.
pub fn run(args: &GuardArgs) -> io::Result<()> {
    let named = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    // A terminal's or a parent's end is not the guard's.
    let _ = setsid();
    if let Some(home) = &args.home {
        let joined = OpenOptions::new().write(true).open(home.join("cgroup.procs"));
        joined.and_then(|mut file| file.write_all(b"0")).map_err(|e| named(home, e))?;
    }
    // A unit's may not be there yet; whether the kernel can do it is seen by any other.
    let proof = args.home.as_ref().unwrap_or(&args.cgroup).join("cgroup.kill");
    OpenOptions::new().write(true).open(&proof).map_err(|e| named(&proof, e))?;
    let kill = args.cgroup.join("cgroup.kill");
    let kill = CString::new(kill.as_os_str().as_bytes()).map_err(|e| named(&kill, e.into()))?;
    let events = args.cgroup.join("cgroup.events");
    let events =
        CString::new(events.as_os_str().as_bytes()).map_err(|e| named(&events, e.into()))?;
    let of = args.watchdog.as_ref().zip(args.watchdog_timeout).zip(args.watchdog_grace);
    let watchdog = of.map(|((device, timeout), grace)| {
        Watchdog::new(device, Millis(timeout), Millis(grace)).map_err(|e| named(device, e))
    });
    chdir(&args.dir).map_err(|e| named(&args.dir, e.into()))?;
    let lock = File::create(LOCK).map_err(|e| named(&args.dir, e))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|e| named(&args.dir, e.into()))?;
    // The path in the file system may be longer than a socket's may be; this one is short.
    match fs::remove_file(SOCKET) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(named(&args.dir, e)),
        _ => {}
    }
    let listener = UnixListener::bind(SOCKET).map_err(|e| named(&args.dir, e))?;
    listener.set_nonblocking(true)?;
    let mut guard = Guard {
        kill,
        events,
        watchdog: watchdog.transpose()?,
        listener,
        agent: None,
        deadline: args.until.map(Boottime),
        heard: Heard::default(),
    };
    prefer_this_process();
    while guard.turn()? {}
    guard.disarm();
    let _ = fs::remove_file(SOCKET);
    drop(lock);
    Ok(())
}

/// The last to be paged out, to wait for a processor, or to be ended for want of memory. All of it is
/// as good as the machine allows.
fn prefer_this_process() {
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    const HIGHEST: i32 = -20;
    let _ = setpriority_process(None, HIGHEST);
    let _ = mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE);
}

struct Guard {
    /// `cgroup.kill` of the instance. By name: a unit that is started anew has another directory there.
    kill: CString,
    /// `cgroup.events` of it: says whether a process is left.
    events: CString,
    watchdog: Option<Watchdog>,
    listener: UnixListener,
    /// The newest one that called.
    agent: Option<OwnedFd>,
    /// None: nothing is to be ended.
    deadline: Option<Boottime>,
    heard: Heard,
}

/// A request that has not come completely yet.
#[derive(Default)]
struct Heard {
    bytes: [u8; REQUEST_BYTES],
    len: usize,
}

impl Guard {
    /// Waits for the deadline, a word, or a new agent. False: it was told to quit.
    fn turn(&mut self) -> io::Result<bool> {
        let now = boottime::now();
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.end_instance();
        }
        let next = self.watch(now);
        let timeout = self.deadline.map(|deadline| match now >= deadline {
            true => timespec(AGAIN_MS),
            false => timespec(next.unwrap_or(deadline).min(deadline).since(boottime::now()).0),
        });
        let (called, said) = {
            let caller = PollFd::new(&self.listener, PollFlags::IN);
            let ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
            let waited = match &self.agent {
                Some(agent) => {
                    let mut fds = [caller, PollFd::new(agent, PollFlags::IN)];
                    poll(&mut fds, timeout.as_ref()).map(|_| (ready(&fds[0]), ready(&fds[1])))
                }
                None => {
                    let mut fds = [caller];
                    poll(&mut fds, timeout.as_ref()).map(|_| (ready(&fds[0]), false))
                }
            };
            match waited {
                Err(rustix::io::Errno::INTR) => return Ok(true),
                waited => waited?,
            }
        };
        let has_passed = |now| self.deadline.is_some_and(|deadline| now >= deadline);
        if !has_passed(now) && has_passed(boottime::now()) {
            // Whatever was said meanwhile was said too late: a machine that slept must not go on.
            return Ok(true);
        }
        if called {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            if let Ok(agent) = accept_with(&self.listener, flags) {
                self.agent = Some(agent);
                self.heard.len = 0;
            }
            return Ok(true);
        }
        Ok(!said || self.hear())
    }

    /// False: it was told to quit.
    fn hear(&mut self) -> bool {
        let Some(agent) = &self.agent else { return true };
        match rustix::io::read(agent, &mut self.heard.bytes[self.heard.len..]) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
            Err(_) | Ok(0) => {
                self.agent = None;
                return true;
            }
            Ok(read) => self.heard.len += read,
        }
        if self.heard.len < REQUEST_BYTES {
            return true;
        }
        self.heard.len = 0;
        let Some(request) = Request::decode(&self.heard.bytes) else {
            self.agent = None;
            return true;
        };
        match request {
            Request::Until(deadline) => self.deadline = Some(deadline),
            Request::Hold => self.deadline = None,
            Request::Show | Request::Quit => {}
        }
        // What is answered is so already.
        self.watch(boottime::now());
        let is_watched = self.watchdog.as_ref().is_some_and(Watchdog::is_armed);
        let answer: [u8; ANSWER_BYTES] = Answer { deadline: self.deadline, is_watched }.encode();
        let Some(agent) = &self.agent else { return true };
        if rustix::io::write(agent, &answer).is_err() {
            self.agent = None;
        }
        request != Request::Quit
    }

    /// Feeds the watchdog as long as that may be; gives when to do so again.
    fn watch(&mut self, now: Boottime) -> Option<Boottime> {
        let is_over = match self.deadline {
            None => true,
            // Whatever is left writes on: then the machine is reset.
            Some(deadline) if now >= deadline => self.is_empty(),
            Some(_) => false,
        };
        if is_over {
            self.disarm();
        }
        let deadline = self.deadline.filter(|deadline| now < *deadline)?;
        self.watchdog.as_mut()?.feed(deadline, now)
    }

    fn disarm(&mut self) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.disarm();
        }
    }

    /// No process of the instance is left. A directory that is gone has none.
    fn is_empty(&self) -> bool {
        let opened =
            rustix::fs::open(&*self.events, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut text = [0u8; 64];
        match opened {
            Ok(events) => {
                let len = rustix::io::read(&events, &mut text).unwrap_or_default();
                text[..len].windows(11).any(|part| part == b"populated 0")
            }
            Err(error) => error == rustix::io::Errno::NOENT,
        }
    }

    /// The deadline stays: a start that was on its way comes too late, and whoever asks is told that it has
    /// passed.
    fn end_instance(&self) {
        // Without the directory there is no process.
        if let Ok(kill) =
            rustix::fs::open(&*self.kill, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        {
            let _ = rustix::io::write(&kill, b"1");
        }
    }
}

fn timespec(ms: u64) -> Timespec {
    // Up to the millisecond after the deadline, not the one before.
    let ms = i64::try_from(ms.saturating_add(1)).unwrap_or(i64::MAX);
    Timespec { tv_sec: ms / 1000, tv_nsec: (ms % 1000) * 1_000_000 }
}
