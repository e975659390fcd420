//! The hooks of one sync on this node: an event makes them due, and each runs by itself, one run at
//! a time and at most one more due. That a run begins is on disk before it begins; one of which
//! nobody knows how it ended is told, and not repeated unless its definition allows that.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockstep_model::SyncName;
use lockstep_model::sync::hook::{HookEvent, HookFailure};
use lockstep_model::sync::{Hook, HookName};
use lockstep_transport::durable;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::hook::{self, Call, Ran};
use crate::host::Host;

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(300);
/// Longest output told with a problem, in bytes: its end.
const SAID_MAX: usize = 200;

/// What all hooks of a sync have in common.
#[derive(Clone)]
pub struct Site {
    pub host: Host,
    /// Where the programs are.
    pub programs: PathBuf,
    /// Where it is recorded what is due and what runs.
    pub records: PathBuf,
    pub sync: SyncName,
    pub node: String,
    pub path: PathBuf,
    /// Those that run are waited for at the agent's end.
    pub tasks: TaskTracker,
    /// Called when `problems` has changed.
    pub tell: Arc<dyn Fn() + Send + Sync>,
}

impl Site {
    /// One run that somebody waits for. None when stopped; then no process is left of it.
    pub async fn run_at_barrier(&self, name: &HookName, stop: &CancellationToken) -> Option<Ran> {
        self.run(name, "barrier", Hook::TIMEOUT_DEFAULT.into(), stop).await
    }

    async fn run(
        &self,
        name: &HookName,
        event: &str,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Option<Ran> {
        let Self { host, programs, sync, node, path, .. } = self;
        let environment = [
            ("LOCKSTEP_SYNC", sync.as_str().as_ref()),
            ("LOCKSTEP_EVENT", event.as_ref()),
            ("LOCKSTEP_NODE", node.as_ref()),
            ("LOCKSTEP_PATH", path.as_os_str()),
        ];
        let call = Call { name, environment: &environment, limit };
        hook::run(host, programs, &call, stop).await
    }
}

/// Dropping it stops them all.
pub struct Hooks {
    site: Site,
    members: Mutex<Vec<Member>>,
}

struct Member {
    hook: Hook,
    due: Arc<Notify>,
    problem: Arc<Mutex<String>>,
    stop: CancellationToken,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Hooks {
    pub fn new(site: Site) -> Self {
        Self { site, members: Mutex::default() }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exactly these from now on. Those that stay as they are feel nothing of it.
    pub fn set(&self, hooks: impl IntoIterator<Item = Hook>) {
        let mut members = self.members();
        let mut former = std::mem::take(&mut *members);
        for hook in hooks {
            let known = former.iter().position(|member| member.hook == hook);
            members.push(match known {
                Some(at) => former.swap_remove(at),
                None => self.start(hook),
            });
        }
    }

    fn start(&self, hook: Hook) -> Member {
        let (due, problem, stop) =
            (Arc::new(Notify::new()), Arc::default(), CancellationToken::new());
        let one = One {
            record: Record::of(&self.site.records, &hook),
            site: self.site.clone(),
            hook: hook.clone(),
            due: due.clone(),
            problem: Arc::clone(&problem),
            stop: stop.clone(),
        };
        self.site.tasks.spawn(one.serve());
        Member { hook, due, problem, stop }
    }

    /// Makes the hooks of an event due; that they are is on disk when it returns.
    pub async fn happened(&self, event: HookEvent) {
        let due: Vec<_> = {
            let members = self.members();
            let of = members.iter().filter(|member| member.hook.on == event);
            of.map(|m| (Record::of(&self.site.records, &m.hook), m.due.clone())).collect()
        };
        for (record, due) in due {
            let written = tokio::task::spawn_blocking(move || record.note_due()).await;
            if let Err(error) = written.map_err(io::Error::other).and_then(|written| written) {
                tracing::error!(sync = %self.site.sync, %error, "cannot record that a hook is due");
            }
            due.notify_one();
        }
    }

    /// One line each; none when all is well.
    pub fn problems(&self) -> Vec<String> {
        let members = self.members();
        let problem = |member: &Member| lock(&member.problem).clone();
        members.iter().map(problem).filter(|problem| !problem.is_empty()).collect()
    }
}

fn lock(problem: &Mutex<String>) -> MutexGuard<'_, String> {
    problem.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known on disk of one hook.
struct Record {
    due: PathBuf,
    running: PathBuf,
}

impl Record {
    fn of(records: &Path, hook: &Hook) -> Self {
        // A name has no dot.
        let file = |what: &str| records.join(format!("{}.{}.{what}", hook.name, hook.on));
        Self { due: file("due"), running: file("running") }
    }

    fn note_due(&self) -> io::Result<()> {
        if let Some(dir) = self.due.parent() {
            fs::create_dir_all(dir)?;
        }
        durable::write(&self.due, b"")
    }

    /// False when nothing is due.
    fn begin(&self) -> io::Result<bool> {
        match fs::rename(&self.due, &self.running) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        }
        self.due.parent().map_or(Ok(()), durable::sync_dir)?;
        Ok(true)
    }

    /// Whether there was a run that nobody knows the end of.
    fn end(&self) -> bool {
        fs::remove_file(&self.running).is_ok()
    }
}

struct One {
    site: Site,
    hook: Hook,
    record: Record,
    due: Arc<Notify>,
    problem: Arc<Mutex<String>>,
    stop: CancellationToken,
}

impl One {
    async fn serve(self) {
        if self.record.end() {
            let name = &self.hook.name;
            let why =
                format!("hook {name}: nobody knows whether it ran, the agent ended meanwhile");
            self.fail(why, self.hook.repeatable);
        }
        let mut failures = 0_u32;
        loop {
            // Also the first time: something may be due since before.
            match self.record.begin() {
                Ok(true) => match self.run().await {
                    None => return,
                    Some(true) => failures = 0,
                    Some(false) => failures += 1,
                },
                Ok(false) => {}
                Err(error) => {
                    self.tell(format!(
                        "hook {}: cannot record that it begins: {error}",
                        self.hook.name
                    ));
                    failures += 1;
                }
            }
            let pause =
                RETRY_FIRST.saturating_mul(1 << failures.min(16).saturating_sub(1)).min(RETRY_MAX);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.due.notified() => {}
                () = tokio::time::sleep(pause), if failures > 0 => {}
            }
        }
    }

    /// Whether it need not be tried again; None when stopped.
    async fn run(&self) -> Option<bool> {
        let sync = &self.site.sync;
        let Hook { name, on, timeout, .. } = &self.hook;
        let ran = self.site.run(name, on.as_str(), (*timeout).into(), &self.stop).await?;
        self.record.end();
        let Some(problem) = ran.problem else {
            tracing::info!(%sync, hook = %name, output = ran.output, "a hook ran");
            self.tell(String::new());
            return Some(true);
        };
        tracing::warn!(%sync, hook = %name, problem, output = ran.output, "a hook failed");
        let said = last_line(&ran.output);
        let why = if said.is_empty() { problem } else { format!("{problem}: {said}") };
        let again = self.hook.failure == HookFailure::Retry;
        self.fail(why, again);
        Some(!again)
    }

    fn fail(&self, why: String, again: bool) {
        if self.hook.failure != HookFailure::Ignore {
            self.tell(why);
        }
        if again && let Err(error) = self.record.note_due() {
            tracing::error!(hook = %self.hook.name, %error, "cannot record that a hook is due");
        }
    }

    fn tell(&self, problem: String) {
        let changed = {
            let mut now = lock(&self.problem);
            let changed = *now != problem;
            *now = problem;
            changed
        };
        if changed {
            (self.site.tell)();
        }
    }
}

fn last_line(output: &str) -> &str {
    let line = output.trim_end().lines().next_back().unwrap_or_default();
    &line[line.ceil_char_boundary(line.len().saturating_sub(SAID_MAX))..]
}

#[cfg(test)]
mod tests;
