//! What is found of an instance: files and processes first, then what postgres says, put into the one
//! word that the ladder takes. It changes nothing.

use std::sync::Arc;
use std::time::Duration;

use lockstep_model::Millis;
use lockstep_model::cluster::report::Trouble;
use lockstep_model::cluster::{ClusterPlace, Lineage, MemberState};
use lockstep_model::rate::Size;

use super::{Work, decision, since};
use crate::pg::books::Books;
use crate::pg::boottime;
use crate::pg::instance::{
    Control, ControlState, Data, Found, Instance, PostmasterStage, Processes, Space, SqlTrouble,
    Status,
};
use crate::pg::rewind;
use crate::pg::wal::WalEnd;

pub struct Seen {
    pub state: MemberState,
    pub found: Found,
    /// What postgres said; None: it does not run, or does not answer.
    pub status: Option<Status>,
    pub trouble: Trouble,
    /// Of data without processes, when it was asked for.
    pub end: Option<Arc<WalEnd>>,
    pub lineage: Lineage,
}

impl Seen {
    pub fn control(&self) -> Option<&Control> {
        match &self.found.data {
            Data::There(control) => Some(control),
            Data::Missing | Data::Foreign(_) => None,
        }
    }
}

/// Why postgres may not come up.
fn of_space(space: &Space) -> Trouble {
    let is_full = |free: Option<Size>| free == Some(Size(0));
    match space.read_only {
        true => Trouble::ReadOnlyFs,
        false if is_full(space.data_free) || is_full(space.wal_free) => Trouble::DiskFull,
        false => Trouble::None,
    }
}

impl Work {
    pub async fn look(&mut self, place: &ClusterPlace, instance: &Instance) -> Seen {
        let books = self.books.read();
        let found = instance.look().await;
        let mut seen = Seen {
            state: MemberState::Missing,
            status: None,
            trouble: Trouble::None,
            end: None,
            lineage: Lineage::default(),
            found,
        };
        self.memory.runs = matches!(seen.found.processes, Processes::Running { .. });
        seen.state = self.judge(place, instance, &books, &mut seen).await;
        // One that runs tells by itself whether it can write.
        if seen.found.processes == Processes::None {
            seen.trouble = of_space(&seen.found.space);
        }
        // Another's is not watched: its end is no business of ours.
        self.memory.runs &= seen.state != MemberState::Foreign;
        let row = seen.status.as_ref().and_then(|status| status.receiver.as_ref());
        self.memory.receiver = row.map(|row| row.pid);
        if seen.lineage.0.is_empty() {
            seen.lineage = self.lineage(instance, &seen);
        }
        self.memory.state = Some(seen.state);
        seen
    }

    async fn judge(
        &mut self,
        place: &ClusterPlace,
        instance: &Instance,
        books: &Books,
        seen: &mut Seen,
    ) -> MemberState {
        let id = match &seen.found.data {
            Data::Foreign(_) => return MemberState::Foreign,
            Data::Missing => None,
            Data::There(control) => Some(control.system_id),
        };
        let wanted = books.system_id.or(place.system_id);
        if id.is_some() && wanted.is_some() && id != wanted {
            return MemberState::Foreign;
        }
        match seen.found.processes.clone() {
            Processes::Orphans(_) => MemberState::Unfenced,
            Processes::Running { pid, stage } => {
                self.note_stopped(instance, pid);
                let state = self.judge_running(place, instance, books, seen, stage).await;
                self.note_stopped(instance, pid);
                if self.is_stopped_for(place.options.checks.timeout) {
                    seen.trouble = Trouble::Hung;
                }
                state
            }
            Processes::None if id.is_none() && books.fenced => MemberState::Fenced,
            Processes::None if id.is_none() => MemberState::Missing,
            Processes::None => self.judge_dead(place, instance, books, seen).await,
        }
    }

    async fn judge_dead(
        &mut self,
        place: &ClusterPlace,
        instance: &Instance,
        books: &Books,
        seen: &mut Seen,
    ) -> MemberState {
        self.memory.hung = 0;
        if rewind::is_unfinished(&self.site.dir) {
            return MemberState::Rewinding;
        }
        if books.fenced {
            return MemberState::Fenced;
        }
        seen.end = self.memory.end.clone();
        let Some(control) = seen.control().cloned() else { return MemberState::Missing };
        let is_clean = control.state.is_clean();
        if decision::needs_end(place, books)
            && let Ok(end) = self.find_end(instance, Some(control)).await
        {
            seen.lineage = end.lineage.clone();
            seen.end = Some(end);
        }
        let end = seen.end.as_ref().map(|end| (&end.lineage, end.end));
        decision::judge_dead(place, books, is_clean, end)
    }

    async fn judge_running(
        &mut self,
        place: &ClusterPlace,
        instance: &Instance,
        books: &Books,
        seen: &mut Seen,
        stage: PostmasterStage,
    ) -> MemberState {
        self.memory.end = None;
        if stage == PostmasterStage::Stopping {
            return MemberState::Stopping;
        }
        if stage == PostmasterStage::Starting {
            seen.trouble = Trouble::Recovering;
            return MemberState::Starting;
        }
        let limit = Duration::from(place.options.checks.timeout);
        match instance.status(limit).await {
            Ok(status) => {
                self.memory.hung = 0;
                seen.trouble = self.memory.probe.trouble(place.options.checks.retries);
                let state = self.judge_status(place, books, &status, instance);
                seen.status = Some(status);
                state
            }
            Err(trouble) => {
                seen.trouble = self.judge_trouble(place, &trouble);
                // A readable standby is as ready as a primary; the control file tells before the first
                // write that it is none any more.
                let recovers = |control: &Control| control.state == ControlState::InArchiveRecovery;
                if stage == PostmasterStage::Ready && !seen.control().is_some_and(recovers) {
                    return decision::judge_writable(place, books);
                }
                match self.memory.state {
                    Some(
                        state @ (MemberState::Standby
                        | MemberState::Sealed
                        | MemberState::Promoting),
                    ) => state,
                    _ => MemberState::Starting,
                }
            }
        }
    }

    fn judge_status(
        &self,
        place: &ClusterPlace,
        books: &Books,
        status: &Status,
        instance: &Instance,
    ) -> MemberState {
        if !status.in_recovery {
            return decision::judge_writable(place, books);
        }
        let (sealed, receives) = (self.memory.sealed, status.receiver.is_some());
        let lineage = instance.lineage(status.timeline).ok();
        decision::judge_recovery(place, sealed, receives, lineage.as_ref(), status.lsn)
    }

    fn note_stopped(&mut self, instance: &Instance, postmaster: i32) {
        let is_stopped = instance.is_stopped(postmaster);
        let since = self.memory.stopped.filter(|_| is_stopped);
        self.memory.stopped = since.or_else(|| is_stopped.then(boottime::now));
    }

    /// No load and no disk does that: it is no matter of several looks.
    fn is_stopped_for(&self, length: Millis) -> bool {
        self.memory.stopped.is_some_and(|began| since(began) >= length)
    }

    /// One look that goes wrong proves nothing.
    fn judge_trouble(&mut self, place: &ClusterPlace, trouble: &SqlTrouble) -> Trouble {
        match trouble {
            SqlTrouble::Hung => {
                self.memory.hung += 1;
                match self.memory.hung >= place.options.checks.retries {
                    true => Trouble::Hung,
                    false => Trouble::None,
                }
            }
            SqlTrouble::Busy => Trouble::Busy,
            SqlTrouble::DiskFull => Trouble::DiskFull,
            SqlTrouble::ReadOnlyFs => Trouble::ReadOnlyFs,
            SqlTrouble::Starting => Trouble::Recovering,
            SqlTrouble::Down | SqlTrouble::Refused { .. } => Trouble::None,
        }
    }

    fn lineage(&mut self, instance: &Instance, seen: &Seen) -> Lineage {
        let timeline = match (&seen.status, seen.control()) {
            (Some(status), _) => status.timeline,
            (None, Some(control)) => control.timeline.max(control.min_recovery_timeline),
            (None, None) => return Lineage::default(),
        };
        if let Some(end) = &seen.end {
            return end.lineage.clone();
        }
        if self.memory.lineage.timeline() != timeline
            && let Ok(lineage) = instance.lineage(timeline)
        {
            self.memory.lineage = lineage;
        }
        self.memory.lineage.clone()
    }
}
