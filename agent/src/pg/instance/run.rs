//! Starts, stops and ends an instance's processes. A start under a lease is the one moment at which
//! `standby.signal` is away; whatever becomes of that start, it is put back.

use std::path::Path;
use std::time::Duration;

use lockstep_model::cluster::SystemId;
use lockstep_model::cluster::options::Manager;
use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use super::found::{PostmasterStage, Processes};
use super::processes::{self, Process, Watch};
use super::{
    Data, FenceEnd, Instance, StartAs, StopMode, data, files, floors, log, manager, parameters,
    spent,
};
use crate::host::launch::spawn_detached;

/// From the call of a program to a postmaster that has the data directory.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(20);
/// How often processes are looked at while something is awaited.
const STEP: Duration = Duration::from_millis(5);
/// As above, while writes stand still.
const FENCE_STEP: Duration = Duration::from_millis(2);
/// What keeps postgres from starting whatever its settings are.
const NOT_SETTINGS: [&str; 7] = [
    "Address already in use",
    "could not create any TCP/IP sockets",
    "lock file",
    "No space left on device",
    "Read-only file system",
    "Input/output error",
    "checkpoint record",
];
const STANDBY_SIGNAL: &str = "standby.signal";
const RECOVERY_SIGNAL: &str = "recovery.signal";

impl Instance {
    /// Starts postgres; returns when the process has its data directory and has looked for
    /// `standby.signal`, which may be long before it takes sessions (`ready`). Refused on data that
    /// is not there, not `expected`, or in use.
    pub async fn start(&self, how: StartAs, expected: Option<SystemId>) -> Result<(), String> {
        self.check_start(expected).await?;
        self.settle_floors(how).await?;
        self.give_timelines_back(how).await?;
        self.settle_signals(how)?;
        let started = self.start_and_see(how).await;
        // Put back even when the start failed: the next one may be by hand.
        let back = self.put_standby_signal();
        started.and(back)
    }

    async fn check_start(&self, expected: Option<SystemId>) -> Result<(), String> {
        self.check_manager().await?;
        let shown = self.layout().data.display();
        let control = match self.data().await {
            Data::There(control) => control,
            Data::Missing => return Err(format!("{shown} holds no database")),
            Data::Foreign(why) => return Err(why),
        };
        if expected.is_some_and(|expected| expected != control.system_id) {
            return Err(format!(
                "{shown} is another cluster's database, with the system identifier {}: move it away",
                control.system_id
            ));
        }
        match self.processes().await {
            Processes::None => Ok(()),
            Processes::Running { pid, .. } => Err(format!("postgres runs already, process {pid}")),
            Processes::Orphans(pids) => Err(format!(
                "processes {pids:?} of an earlier run are left and may still write: fence it first"
            )),
        }
    }

    /// A primary has what is set; a standby not less than the log needs.
    async fn settle_floors(&self, how: StartAs) -> Result<(), String> {
        let layout = self.layout();
        let mut text = String::new();
        if let (StartAs::Standby, Data::There(control)) = (how, self.data().await) {
            let parameters = parameters::in_force(layout)?;
            let mut asked = Vec::new();
            for name in floors::unknown(&control, &parameters) {
                let mut args = vec!["-C".to_owned(), name.to_owned()];
                args.extend(manager::files_args(layout));
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                let told = timeout(TAKEN_TIMEOUT, self.run("postgres", &args, "")).await;
                // What postgres does not take is told by its start.
                let told = told.ok().and_then(Result::ok);
                asked.extend(told.and_then(|told| told.trim().parse().ok()).map(|n| (name, n)));
            }
            text = floors::render(&control, &parameters, &asked);
        }
        let file = layout.config.join(floors::FLOORS_FILE);
        files::write(&file, &text, 0o600, &layout.owner).map(drop)
    }

    async fn give_timelines_back(&self, how: StartAs) -> Result<(), String> {
        let (layout, data) = (self.layout(), self.data().await);
        match (how, data) {
            (StartAs::Standby, Data::There(control)) => {
                let own = control.timeline.max(control.min_recovery_timeline);
                spent::give_back(&layout.pg_wal(), own, &layout.owner)
            }
            _ => Ok(()),
        }
    }

    fn settle_signals(&self, how: StartAs) -> Result<(), String> {
        let data = &self.layout().data;
        let remove = |name: &str| {
            let path = data.join(name);
            let removed = files::remove_durably(&path);
            removed.map(drop).map_err(|error| format!("cannot remove {}: {error}", path.display()))
        };
        remove(RECOVERY_SIGNAL)?;
        match how {
            StartAs::Standby => self.put_standby_signal()?,
            StartAs::Primary => remove(STANDBY_SIGNAL)?,
        }
        // postgres itself minds a lock file of a number that lives; one that another process of its
        // user has by now would keep it from starting.
        let file = processes::read_pid_file(data);
        if file.is_some_and(|file| processes::exists(file.pid)) {
            remove(processes::PID_FILE)?;
        }
        Ok(())
    }

    async fn start_and_see(&self, how: StartAs) -> Result<(), String> {
        let layout = self.layout();
        if let Manager::Systemd(unit) = &layout.manager {
            // However often it has died lately; one that never failed is as good.
            let _ = self.systemctl(&["reset-failed", unit.as_str()]).await;
        }
        let before = data::raw_state(&layout.data);
        let start = manager::start(layout, &self.programs().agent, self.cgroup().as_ref());
        let open = log::bound(layout).and_then(|()| log::open(layout));
        let file = open.map_err(|e| format!("{}: {e}", log::path(layout).display()))?;
        let from = log::end(layout);
        self.note_log(from);
        let pid = spawn_detached(&start.program, file, &manager::environment())
            .map_err(|e| format!("cannot run {}: {e}", start.program.path.display()))?;
        // Not reaped before this: so it is this child, dead or alive.
        let child = Watch::child(pid).ok();
        let has_looked = async {
            loop {
                match self.processes().await {
                    Processes::Running { stage, .. } => {
                        // It changes right after the signal was looked for, and never before.
                        let settled = how == StartAs::Standby
                            || stage != PostmasterStage::Starting
                            || data::raw_state(&layout.data) != before;
                        if settled {
                            return Ok(());
                        }
                    }
                    Processes::None | Processes::Orphans(_) if ended(child.as_ref()).await => {
                        if start.is_postgres || self.processes().await == Processes::None {
                            return Err(());
                        }
                    }
                    Processes::None | Processes::Orphans(_) => {}
                }
                sleep(STEP).await;
            }
        };
        let words = || log::last_words(layout, from);
        match timeout(TAKEN_TIMEOUT, has_looked).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(())) => Err(self.explain_end(&words())),
            // A long crash recovery has changed pg_control by now: this is a disk that hangs.
            Err(_) => Err(format!("postgres does not come up: {}", words())),
        }
    }

    /// Waits until sessions are taken; with the last words of its log when it ends before. Of a
    /// crash recovery, `pg_control` and the log tell how far it is.
    pub async fn ready(&self, limit: Duration) -> Result<(), String> {
        let waited = async {
            loop {
                match self.processes().await {
                    Processes::Running {
                        stage: PostmasterStage::Ready | PostmasterStage::Standby,
                        ..
                    } => return Ok(()),
                    Processes::Running { .. } => {}
                    Processes::None | Processes::Orphans(_) => {
                        return Err(log::last_words(self.layout(), self.log_noted()));
                    }
                }
                sleep(STEP).await;
            }
        };
        match timeout(limit, waited).await {
            Ok(Ok(())) => self.accept_parameters(),
            Ok(Err(words)) => Err(self.explain_end(&words)),
            Err(_) => Err("postgres takes no sessions yet".to_owned()),
        }
    }

    /// Of a start that failed: settings that were never seen to work give way to those that were.
    fn explain_end(&self, words: &str) -> String {
        let others = NOT_SETTINGS.iter().any(|part| words.contains(part));
        match !others && self.refuse_parameters() {
            true => format!("postgres did not start, the former settings are back: {words}"),
            false => format!("postgres did not start: {words}"),
        }
    }

    /// Err when it did not stop within the limit; it goes on stopping then.
    pub async fn stop(&self, mode: StopMode, limit: Duration) -> Result<(), String> {
        self.sessions().close().await;
        let signal = match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
        };
        let process = match self.processes().await {
            Processes::None => return Ok(()),
            Processes::Running { pid, .. } => Process::open(pid, &self.real_data()),
            Processes::Orphans(_) => None,
        };
        if let Some(process) = process {
            let pid = process.pid;
            process.signal(signal).map_err(|e| format!("cannot signal process {pid}: {e}"))?;
        }
        match timeout(limit, self.until_none()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(format!("postgres did not stop within {} ms", limit.as_millis())),
        }
    }

    /// Ends every process of the instance by SIGKILL and waits until none is left.
    pub async fn fence(&self, limit: Duration) -> FenceEnd {
        let (data, cgroup) = (self.real_data(), self.cgroup());
        let killed = async {
            if let Manager::Systemd(unit) = &self.layout().manager {
                // A start that waits in systemd's queue must not come afterwards.
                while self.systemctl(&["stop", "--no-block", unit.as_str()]).await.is_err() {
                    processes::kill(&data, cgroup.as_ref());
                    sleep(STEP).await;
                }
            }
            loop {
                processes::kill(&data, cgroup.as_ref());
                // A kill takes some milliseconds; those born meanwhile are met by the next one.
                for _ in 0..10 {
                    if processes::all(&data, cgroup.as_ref()).is_empty() {
                        return;
                    }
                    sleep(FENCE_STEP).await;
                }
            }
        };
        match timeout(limit, killed).await {
            Ok(()) => FenceEnd::Fenced,
            Err(_) => FenceEnd::Unfenced(processes::all(&data, cgroup.as_ref())),
        }
    }

    /// Until this process of the instance is dead; at once when it is no process of it.
    pub async fn ended(&self, pid: i32) {
        if let Some(process) = Process::open(pid, &self.real_data()) {
            // No more descriptors: found out by the next look.
            let _ = process.gone().await;
        }
    }

    /// Until the postmaster that runs now is dead; at once when there is none.
    pub async fn gone(&self) {
        if let Processes::Running { pid, .. } = self.processes().await
            && let Some(process) = Process::open(pid, &self.real_data())
            && process.gone().await.is_err()
        {
            // No more descriptors: looked at instead.
            while matches!(self.processes().await, Processes::Running { pid: now, .. } if now == pid)
            {
                sleep(STEP).await;
            }
        }
    }

    /// Crash recovery without taking a single session, keeping all of pg_wal; ends stopped.
    pub async fn recover_alone(&self, limit: Duration) -> Result<(), String> {
        self.check_start(None).await?;
        self.settle_signals(StartAs::Primary)?;
        let recovered = async {
            let args = manager::recovery_args(self.layout());
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            timeout(limit, self.run("postgres", &args, "")).await.unwrap_or_else(|_| {
                Err(format!("crash recovery took longer than {} ms", limit.as_millis()))
            })
        };
        let recovered = recovered.await.map(drop);
        let back = self.put_standby_signal();
        recovered.and(back)
    }

    async fn until_none(&self) {
        while self.processes().await != Processes::None {
            sleep(STEP).await;
        }
    }

    /// Durably makes sure that no start by hand opens it writable. Fine without data.
    pub fn put_standby_signal(&self) -> Result<(), String> {
        let layout = self.layout();
        if !layout.data.join("PG_VERSION").exists() {
            return Ok(());
        }
        let path = layout.data.join(STANDBY_SIGNAL);
        files::write(&path, "", 0o600, &layout.owner).map(drop)
    }
}

pub fn has_standby_signal(data: &Path) -> bool {
    data.join(STANDBY_SIGNAL).exists()
}

/// True when the process has ended; false at once while it has not.
async fn ended(child: Option<&Watch>) -> bool {
    match child {
        Some(child) => timeout(Duration::ZERO, child.ended()).await.is_ok(),
        None => true,
    }
}

/// Has a postmaster read its files again.
pub fn signal_reload(pid: i32, data: &Path) -> Result<(), String> {
    let process = Process::open(pid, data).ok_or("postgres does not run")?;
    process.signal(Signal::HUP).map_err(|error| format!("cannot signal process {pid}: {error}"))
}
