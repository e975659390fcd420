//! One PostgreSQL instance on this node: its files and its processes. It does what it is told and says
//! what it finds; what ought to be is decided elsewhere.

mod ask;
mod cgroup;
mod conf;
mod configure;
mod control;
mod data;
pub(super) mod files;
mod floors;
mod found;
mod layout;
mod log;
mod make;
mod manager;
mod owner;
mod parameters;
mod processes;
mod replies;
mod run;
mod secrets;
mod slots;
mod spent;
mod sql;
mod status;
mod survey;
mod timeline;
mod tls;
mod trust;
mod unit;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use lockstep_model::NodeName;
use lockstep_model::cluster::Lineage;
use lockstep_model::cluster::options::Manager;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::wal::read_lineage;
use crate::host::{Host, Program, tail};

pub use cgroup::Cgroup;
pub use conf::{Conf, Context, Role, connection, quote_value};
pub use configure::Configured;
pub use control::{Control, ControlState, read as read_control};
pub use data::Data;
pub use found::{Found, PostmasterStage, Processes, Space};
pub use layout::{Layout, read_major};
pub use owner::Owner;
pub use secrets::Secrets;
pub use slots::{SlotWish, name as slot_name};
pub use sql::SqlTrouble;
pub use status::{ReceiverRow, SlotRow, Status};
pub use survey::Wanted;

/// A disk that takes longer for some small files hangs.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// Kept of what a program says, in bytes.
const OUTPUT_MAX: usize = 16 * 1024;

/// What the agent runs for an instance.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The agent's own binary, which changes users and joins cgroups.
    pub agent: PathBuf,
    /// Starts programs that end by themselves.
    pub host: Host,
}

/// How to start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartAs {
    /// In recovery, with `standby.signal`.
    Standby,
    /// Writable after crash recovery: only under a lease. `standby.signal` is away for the instant that
    /// postgres looks for it, and back afterwards.
    Primary,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopMode {
    /// Sessions are ended, everything is sent to standbys, a checkpoint is written.
    Fast,
    /// As a crash; the next start recovers.
    Immediate,
}

/// What fencing came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FenceEnd {
    /// No process of the instance exists.
    Fenced,
    /// Processes are left that a kill does not end: storage hangs. Their ids.
    Unfenced(Vec<i32>),
}

/// Clones are the same instance.
#[derive(Clone)]
pub struct Instance(Arc<Inner>);

struct Inner {
    me: NodeName,
    layout: Layout,
    programs: Programs,
    secrets: Arc<Secrets>,
    sessions: sql::Sessions,
    cache: data::Cache,
    last: Mutex<Found>,
    replies: Mutex<replies::Replies>,
    /// Not set: there is none, or a systemd unit's is not known yet.
    cgroup: OnceLock<Cgroup>,
    real_data: OnceLock<PathBuf>,
    /// Where the log ended when it was started last, in bytes.
    log_noted: AtomicU64,
}

impl Instance {
    /// Looks at nothing yet. Makes the directory for Lockstep's own files beside the data directory.
    /// Another instance is opened when the layout or the passwords change.
    pub fn open(
        layout: Layout,
        me: NodeName,
        programs: Programs,
        secrets: Arc<Secrets>,
    ) -> Result<Self, String> {
        files::make_dir(&layout.private, &layout.owner)
            .map_err(|error| format!("cannot make {}: {error}", layout.private.display()))?;
        let cgroup = match layout.manager {
            Manager::Agent | Manager::PgCtlCluster(_) => Cgroup::open(&layout.cgroup),
            Manager::Systemd(_) => None,
        };
        let cgroup = cgroup.map_or_else(OnceLock::new, OnceLock::from);
        let dir = layout.socket_dir.clone();
        Ok(Self(Arc::new(Inner {
            me,
            sessions: sql::Sessions::new(dir, layout.port, Arc::clone(&secrets)),
            layout,
            programs,
            secrets,
            cache: data::Cache::default(),
            last: Mutex::default(),
            replies: Mutex::default(),
            cgroup,
            real_data: OnceLock::new(),
            log_noted: AtomicU64::new(0),
        })))
    }

    /// The node's name, which is its application_name too.
    pub fn me(&self) -> &NodeName {
        &self.0.me
    }

    pub fn layout(&self) -> &Layout {
        &self.0.layout
    }

    pub fn programs(&self) -> &Programs {
        &self.0.programs
    }

    pub fn secrets(&self) -> &Secrets {
        &self.0.secrets
    }

    fn sessions(&self) -> &sql::Sessions {
        &self.0.sessions
    }

    /// Files and processes, no SQL: answers in any state that postgres is in. While the disk
    /// does not answer, files are as they were found last.
    pub async fn look(&self) -> Found {
        let processes = self.processes().await;
        let looked = async {
            let data = self.data().await;
            let this = self.clone();
            let rest = tokio::task::spawn_blocking(move || {
                let layout = this.layout();
                // That it cannot be copied aside is seen by its size.
                let _ = log::bound(layout);
                (run::has_standby_signal(&layout.data), found::space(layout))
            });
            rest.await.ok().map(|rest| (data, rest))
        };
        let looked = timeout(LOOK_TIMEOUT, looked).await.ok().flatten();
        let Ok(mut last) = self.0.last.lock() else { return Found::default() };
        last.processes = processes;
        last.storage_hangs = looked.is_none();
        if let Some((data, (standby_signal, space))) = looked {
            last.data = data;
            last.standby_signal = standby_signal;
            last.space = space;
        }
        last.clone()
    }

    /// What the data directory holds.
    pub async fn data(&self) -> Data {
        self.0.cache.look(self.layout(), &self.programs().host).await
    }

    /// What runs. Reads /proc and postmaster.pid.
    pub async fn processes(&self) -> Processes {
        let this = self.clone();
        let look = move || processes::look(&this.real_data(), this.cgroup().as_ref());
        let looked = timeout(LOOK_TIMEOUT, tokio::task::spawn_blocking(look)).await;
        looked.ok().and_then(Result::ok).unwrap_or_else(|| self.processes_without_disk())
    }

    /// The disk does not say who the postmaster is: the one that it was, if that lives.
    fn processes_without_disk(&self) -> Processes {
        let last = self.0.last.lock().map(|last| last.processes.clone()).unwrap_or_default();
        let all = self.pids();
        match last {
            Processes::Running { pid, .. } if all.contains(&pid) => last,
            _ if all.is_empty() => Processes::None,
            _ => Processes::Orphans(all),
        }
    }

    /// Its postmaster was stopped by a signal, and is no slow one.
    pub fn is_stopped(&self, postmaster: i32) -> bool {
        processes::is_stopped(postmaster)
    }

    /// The directory of its cgroup, for who ends it at a deadline; None: there is none.
    pub fn cgroup_dir(&self) -> Option<PathBuf> {
        self.cgroup().map(|cgroup| cgroup.dir().to_owned())
    }

    /// Every process of it, now.
    pub fn pids(&self) -> Vec<i32> {
        processes::all(&self.real_data(), self.cgroup().as_ref())
    }

    /// Takes its cgroup away, once nothing runs in it and it is another's no more.
    pub fn forget(&self) {
        let is_own = !matches!(self.layout().manager, Manager::Systemd(_));
        if let Some(cgroup) = self.cgroup().filter(|_| is_own) {
            cgroup.remove();
        }
    }

    fn cgroup(&self) -> Option<Cgroup> {
        self.0.cgroup.get().cloned()
    }

    /// As /proc shows it, and as it was found first: a disk that hangs is not asked again.
    fn real_data(&self) -> PathBuf {
        match self.0.real_data.get() {
            Some(real) => real.clone(),
            None => match std::fs::canonicalize(&self.layout().data) {
                Ok(real) => self.0.real_data.get_or_init(|| real).clone(),
                Err(_) => self.layout().data.clone(),
            },
        }
    }

    fn note_log(&self, end: u64) {
        self.0.log_noted.store(end, Ordering::Relaxed);
    }

    fn log_noted(&self) -> u64 {
        self.0.log_noted.load(Ordering::Relaxed)
    }

    /// The history of a timeline, from the files in pg_wal.
    pub fn lineage(&self, timeline: u32) -> Result<Lineage, String> {
        read_lineage(&self.layout().pg_wal(), timeline).map_err(|error| error.to_string())
    }

    /// Its postgres' certificate, PEM; made with its key when there is none yet.
    pub fn certificate(&self) -> Result<String, String> {
        tls::ensure(self.layout(), self.me())
    }

    /// Passfile in libpq's form, 0600, the owner's: for pg_basebackup and pg_rewind.
    pub fn passfile(&self) -> PathBuf {
        self.layout().private.join(conf::PASS_FILE)
    }

    /// Lockstep's own directory beside the data directory; the owner's, 0700.
    pub fn private_dir(&self) -> &Path {
        &self.layout().private
    }

    /// A program of PostgreSQL's, in the version of the data, as the owner of the data.
    pub fn as_owner(&self, program: &str, args: &[&str]) -> Program {
        let mut line: Vec<OsString> = vec![self.layout().program(program).into()];
        line.extend(args.iter().map(OsString::from));
        manager::as_owner(self.layout(), line).program(self.programs().agent.clone())
    }

    /// Runs such a program with `input` to its end; Err: what it said. Dropped, it is killed.
    async fn run(&self, program: &str, args: &[&str], input: &str) -> Result<String, String> {
        let mut started = self.as_owner(program, args);
        started.fed = !input.is_empty();
        let ended = self.run_fed(&started, input).await;
        ended.map_err(|problem| match problem.starts_with(program) {
            true => problem,
            false => format!("{program}: {problem}"),
        })
    }

    async fn run_as_is(&self, program: &Program) -> Result<String, String> {
        let ended = self.run_fed(program, "").await;
        ended.map_err(|problem| format!("{}: {problem}", program.path.display()))
    }

    async fn run_fed(&self, program: &Program, input: &str) -> Result<String, String> {
        let spawned = self.programs().host.spawn(program);
        let mut child = spawned.map_err(|error| error.to_string())?;
        let (stdin, out, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(out), Some(errors)) = (out, errors) else {
            return Err("no pipe".to_owned());
        };
        let fed = async {
            if let Some(mut stdin) = stdin {
                // One that ended early says why.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        let (out, errors, (), ended) =
            tokio::join!(tail(out, OUTPUT_MAX), tail(errors, OUTPUT_MAX), fed, child.wait());
        match ended {
            Ok(status) if status.success() => Ok(out),
            Ok(status) => {
                let lines: Vec<&str> = errors.lines().map(str::trim).collect();
                let said = lines.join("; ");
                Err(if said.is_empty() { status.to_string() } else { said })
            }
            Err(error) => Err(error.to_string()),
        }
    }
}
