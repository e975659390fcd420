//! The hooks of a mirror: of one event in order, each after its delay. That one begins is on disk
//! before it begins; one of which nobody knows how it ended is told, and not repeated unless its
//! definition allows that.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lockstep_model::mirror::hook::{MirrorHookEvent, MirrorHookFailure, MirrorHookPlace};
use lockstep_model::mirror::{HopKind, MirrorHook};
use lockstep_transport::durable;
use tokio_util::sync::CancellationToken;

use super::local::Local;
use super::log::Log;
use crate::hook::{self, Call, Ran};
use crate::host::Host;

/// Longest word of a hook's that is told with a problem, in bytes.
const SAID_MAX: usize = 200;

/// What all hooks of a run have in common.
pub struct Hooks<'a> {
    pub host: &'a Host,
    /// Where the programs are.
    pub programs: &'a Path,
    pub local: &'a Local,
    pub log: &'a Log,
    pub all: &'a [MirrorHook],
    pub hop: HopKind,
    pub number: u64,
    /// Of this run; the event is added.
    pub environment: &'a [(&'a str, String)],
    pub stop: &'a CancellationToken,
}

/// Why hooks did not come to their end.
pub enum Trouble {
    Stopped,
    /// One with failure=abort failed.
    Abort(String),
}

impl Hooks<'_> {
    fn of(&self, event: MirrorHookEvent) -> impl Iterator<Item = &MirrorHook> {
        let at = match self.hop {
            HopKind::Upstream => MirrorHookPlace::Master,
            HopKind::Replica => MirrorHookPlace::Replica,
        };
        self.all.iter().filter(move |hook| hook.on == event && hook.at == at)
    }

    /// Runs those of an event. `again`: also those that ran already in this run, since each try has
    /// the event anew. `more` is told besides.
    pub async fn happened(
        &self,
        event: MirrorHookEvent,
        again: bool,
        more: &[(&str, String)],
    ) -> Result<(), Trouble> {
        for hook in self.of(event) {
            let record = Record(self.local.hook_dir().join(format!("{}.{event}", hook.name)));
            match record.read() {
                Some((number, State::Ended)) if number == self.number && !again => continue,
                Some((number, State::Begun)) => {
                    let why = format!(
                        "{}nobody knows whether it ran, the agent ended meanwhile",
                        name(hook)
                    );
                    self.log.line(&why);
                    self.local.warn(why);
                    record.note(self.number, State::Ended)?;
                    if number == self.number && !hook.repeatable {
                        continue;
                    }
                }
                _ => {}
            }
            if hook.delay.0 > 0 {
                self.log.line(&format!("hook {} waits {}", hook.name, hook.delay));
                tokio::select! {
                    () = self.stop.cancelled() => return Err(Trouble::Stopped),
                    () = tokio::time::sleep(hook.delay.into()) => {}
                }
            }
            record.note(self.number, State::Begun)?;
            let ran = self.run(hook, event, more).await;
            // One that was stopped is over: its process is gone.
            record.note(self.number, State::Ended)?;
            self.judge(hook, ran.ok_or(Trouble::Stopped)?)?;
        }
        Ok(())
    }

    async fn run(
        &self,
        hook: &MirrorHook,
        event: MirrorHookEvent,
        more: &[(&str, String)],
    ) -> Option<Ran> {
        let event = event.to_string();
        let told = self.environment.iter().chain(more);
        let mut environment: Vec<(&str, &OsStr)> =
            told.map(|(name, value)| (*name, OsStr::new(value.as_str()))).collect();
        environment.push(("LOCKSTEP_EVENT", OsStr::new(&event)));
        let limit = hook.timeout.into();
        let call = Call { name: &hook.name, environment: &environment, limit };
        self.log.line(&format!("hook {} on {event}", hook.name));
        hook::run(self.host, self.programs, &call, self.stop).await
    }

    fn judge(&self, hook: &MirrorHook, ran: Ran) -> Result<(), Trouble> {
        for line in ran.output.lines() {
            self.log.line(&format!("hook {}: {line}", hook.name));
        }
        let Some(problem) = ran.problem else {
            self.local.unwarn(&name(hook));
            return Ok(());
        };
        let said = ran.output.trim_end().lines().next_back().unwrap_or_default();
        let said = &said[said.ceil_char_boundary(said.len().saturating_sub(SAID_MAX))..];
        let why = match said {
            "" => problem,
            said => format!("{problem}: {said}"),
        };
        self.log.line(&why);
        match hook.failure {
            MirrorHookFailure::Ignore => Ok(()),
            MirrorHookFailure::Alert => {
                self.local.unwarn(&name(hook));
                self.local.warn(format!("{}{why}", name(hook)));
                Ok(())
            }
            MirrorHookFailure::Abort => Err(Trouble::Abort(why)),
        }
    }
}

/// How its warnings begin.
fn name(hook: &MirrorHook) -> String {
    format!("hook {} on={}: ", hook.name, hook.on)
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Abort(format!("cannot record that a hook begins: {error}"))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Begun,
    Ended,
}

/// What is known on disk of one hook: in which run it was last, and whether that is over.
struct Record(PathBuf);

impl Record {
    fn read(&self) -> Option<(u64, State)> {
        let text = fs::read_to_string(&self.0).ok()?;
        let (number, state) = text.trim_end().split_once(' ')?;
        let state = match state {
            "begun" => State::Begun,
            _ => State::Ended,
        };
        Some((number.parse().ok()?, state))
    }

    fn note(&self, number: u64, state: State) -> io::Result<()> {
        if let Some(dir) = self.0.parent() {
            fs::create_dir_all(dir)?;
        }
        let word = match state {
            State::Begun => "begun",
            State::Ended => "ended",
        };
        durable::write(&self.0, format!("{number} {word}\n").as_bytes())
    }
}

/// Lines on hooks that had begun when the agent ended.
pub fn unknown(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let begun = entries
        .map(|entry| entry.path())
        .filter(|path| matches!(Record(path.clone()).read(), Some((_, State::Begun))));
    begun
        .filter_map(|path| {
            let (hook, event) = path.file_name()?.to_str()?.rsplit_once('.')?;
            Some(format!(
                "hook {hook} on={event}: nobody knows whether it ran, the agent ended meanwhile"
            ))
        })
        .collect()
}
