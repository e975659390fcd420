//! What a source and the worker of one target share: the changes that wait, and how far it is. A
//! board with two sides; it decides nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lockstep_model::sync::{Delivery as Report, DeliveryState};
use lockstep_model::{Millis, NodeName, Timestamp};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::cursor::Cursor;
use crate::data::below::Standing;
use crate::deliver::Pending;
use crate::journal::{Change, Entry};
use crate::rsync::progress::{Progress, Volume};
use crate::sync::target::Place;
use crate::sync::verifying::Record;

/// What the source and its worker share.
pub struct Shared {
    pending: Mutex<Pending>,
    status: Mutex<Status>,
    pub wake: Notify,
    /// The target is further by the source's journal than it was told, or has forgotten it.
    pub placed: Notify,
    /// True once changes are watched, or cannot be: a pass before would be done again.
    pub gate: watch::Sender<bool>,
}

pub struct Status {
    pub state: DeliveryState,
    pub acked: u64,
    /// Everything up to `acked` is there; no pass is owed.
    pub complete: bool,
    /// Oldest change that is being delivered or waits for a pass.
    pub held_since: Option<Timestamp>,
    pub last_success_at: Option<Timestamp>,
    pub last_error: String,
    pub sent_bytes: u64,
    /// Paths that failed or are held.
    pub late_paths: usize,
    /// Everything up to this sequence was tried: it is there, waits apart, or a pass is owed.
    pub tried_upto: u64,
    /// Something was brought of which the target was not told by a mark.
    pub unmarked: bool,
    /// Of comparisons with the source.
    pub record: Record,
    /// A run broke off since the copy was last known to have nothing beside what the source has: a
    /// receiver that was killed leaves an unfinished file.
    pub doubtful: bool,
    /// Bytes that the next run will bring, as a dry run has just counted them.
    pub to_bring: Option<u64>,
    /// Files that the last complete pass brought, and entries that it removed.
    pub pass_found: u64,
    /// Of the complete pass under way, and when it began.
    pub progress: Option<(Instant, Progress)>,
    /// Of the source's own journal, behind a relay: how far it is, and what has to be there first
    /// for how much more.
    place: u64,
    next_place: Option<Place>,
    /// As the target last heard.
    told_place: u64,
    /// How far those are that the target feeds, as it told last.
    below: Standing,
}

impl Shared {
    pub fn new(cursor: &Cursor) -> Self {
        let status = Status {
            state: if cursor.filled { DeliveryState::Idle } else { DeliveryState::Initial },
            acked: cursor.acked,
            complete: cursor.is_complete(),
            held_since: None,
            last_success_at: None,
            last_error: String::new(),
            sent_bytes: 0,
            late_paths: 0,
            tried_upto: cursor.acked,
            unmarked: false,
            record: Record::default(),
            doubtful: false,
            to_bring: None,
            pass_found: 0,
            progress: None,
            place: 0,
            next_place: None,
            told_place: 0,
            below: Standing::new(),
        };
        Self {
            pending: Mutex::new(Pending::after(cursor.acked)),
            status: Mutex::new(status),
            wake: Notify::new(),
            placed: Notify::new(),
            gate: watch::Sender::new(false),
        }
    }

    pub fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn absorb(&self, entries: &[Entry], now: Timestamp) {
        let mut pending = self.pending();
        entries.iter().for_each(|entry| pending.absorb(entry, now));
        drop(pending);
        self.wake.notify_one();
    }

    /// Has a change delivered that only this target is told of; its sequence among this target's.
    pub fn tell(&self, change: Change, now: Timestamp) -> u64 {
        let mut pending = self.pending();
        let seq = pending.upto() + 1;
        pending.absorb(&Entry { seq, at: now, change }, now);
        drop(pending);
        self.wake.notify_one();
        seq
    }

    /// What became of everything up to `seq`: true when all of it is there, false when something
    /// of it waits for a later try, None while it is not known.
    pub fn outcome(&self, seq: u64) -> Option<bool> {
        let status = self.status();
        match status.complete && status.acked >= seq {
            true => Some(true),
            false => (status.tried_upto >= seq).then_some(false),
        }
    }

    /// Everything that this target was told of is there.
    pub fn has_all(&self) -> bool {
        let upto = self.pending().upto();
        self.complete_upto().is_some_and(|acked| acked >= upto)
    }

    /// Notes what was tried; between two deliveries.
    pub fn note_tried(&self, late_paths: usize) {
        let tried = {
            let pending = self.pending();
            (!pending.has_paths() && !pending.is_full()).then(|| pending.upto())
        };
        let mut status = self.status();
        status.late_paths = late_paths;
        status.tried_upto = tried.unwrap_or(status.tried_upto);
    }

    /// Has what a comparison found delivered.
    pub fn mend(&self, change: &Change, now: Timestamp) {
        if matches!(change, Change::Batch(changed) if changed.is_empty()) {
            return;
        }
        self.pending().mend(change, now);
        self.wake.notify_one();
    }

    pub fn record(&self) -> Record {
        self.status().record.clone()
    }

    pub fn set_record(&self, record: Record) {
        self.status().record = record;
    }

    /// Gives up the single changes: the journal does not grow for a target that stays away.
    pub fn need_pass(&self) {
        self.pending().need_full();
        self.wake.notify_one();
    }

    /// A run starts; only a pass tells how far it is, and to a target that is filled only one whose
    /// bytes were counted.
    pub fn begin_run(&self, is_pass: bool, is_filled: bool) {
        let mut status = self.status();
        let volume = match status.to_bring.take() {
            Some(bytes) => Some(Volume::Counted(bytes)),
            None => (!is_filled).then_some(Volume::Everything),
        };
        let progress = volume.filter(|_| is_pass).map(Progress::new);
        status.progress = progress.map(|progress| (Instant::now(), progress));
    }

    /// A line that rsync said.
    pub fn progress(&self, line: &str, source_bytes: Option<u64>) {
        if let Some((begun, progress)) = &mut self.status().progress {
            progress.take(line, begun.elapsed(), source_bytes);
        }
    }

    pub fn acked(&self) -> u64 {
        self.status().acked
    }

    pub fn note(&self, cursor: &Cursor) {
        let mut status = self.status();
        status.acked = cursor.acked;
        status.complete = cursor.is_complete();
    }

    /// The sequence up to which everything is on the target; None while it owes a pass.
    pub fn complete_upto(&self) -> Option<u64> {
        let status = self.status();
        status.complete.then_some(status.acked)
    }

    /// How far the target is by the source's own journal, of which its feeder has so much; None: the
    /// feeder is the source. 0 when that is not known.
    pub fn place(&self, feeder: Option<Place>) -> u64 {
        let mut status = self.status();
        let Some(feeder) = feeder else { return if status.complete { status.acked } else { 0 } };
        let before = status.place;
        if feeder.has < before {
            // The source's journal began anew.
            (status.place, status.next_place) = (0, None);
        }
        // One step after the other: what the feeder has now may not be reached before it has more.
        for _ in 0..2 {
            let next = *status.next_place.get_or_insert(feeder);
            if !status.complete || status.acked < next.own {
                break;
            }
            status.place = next.has;
            status.next_place = None;
        }
        if status.place != before {
            self.placed.notify_one();
        }
        status.place
    }

    /// How far the target has everything, and those that it feeds; None for one that owes a pass, or
    /// of which nobody knows. `feeder` as for `place`.
    pub fn standing(&self, feeder: Option<Place>) -> (Option<u64>, Standing) {
        let place = self.place(feeder);
        let status = self.status();
        // The source knows it also of a journal without entries.
        let own = (status.complete && (place > 0 || feeder.is_none())).then_some(place);
        // Nobody has more than its feeder, whatever was told before that began anew.
        let most = if feeder.is_none() { status.acked } else { place };
        let behind =
            status.below.iter().map(|(node, upto)| (node.clone(), upto.map(|u| u.min(most))));
        (own, behind.collect())
    }

    pub fn set_below(&self, below: Standing) {
        self.status().below = below;
    }

    pub fn told_place(&self) -> u64 {
        self.status().told_place
    }

    pub fn set_told_place(&self, place: u64) {
        self.status().told_place = place;
    }

    /// The target may not know any more how far it is.
    pub fn forget_told(&self) {
        self.set_told_place(0);
        self.placed.notify_one();
    }

    /// All is there, and the target was not told yet that something came.
    pub fn owes_mark(&self) -> bool {
        let waits = self.pending().oldest_at().is_some();
        let status = self.status();
        status.unmarked && status.complete && !waits
    }

    /// How far the target is behind, as it is told; None while nothing may be delivered: that is
    /// no reason to take a copy out.
    pub fn told_lag(&self, now: Timestamp) -> Option<Millis> {
        let waiting = self.pending().oldest_at();
        let status = self.status();
        let stands = matches!(status.state, DeliveryState::Held | DeliveryState::Paused);
        (!stands).then(|| lag(waiting, &status, now))
    }

    /// `feeder` as for `place`.
    pub fn report(&self, target: &NodeName, feeder: Option<Place>, now: Timestamp) -> Report {
        let place = feeder.map(|_| self.place(feeder));
        let (waiting, paths) = {
            let pending = self.pending();
            (pending.oldest_at(), (!pending.is_full()).then(|| pending.count()))
        };
        let status = self.status();
        let lag = lag(waiting, &status, now);
        let progress = status.progress.as_ref();
        let estimate = progress.and_then(|(begun, progress)| progress.estimate(begun.elapsed()));
        Report {
            target: target.clone(),
            state: match status.state {
                DeliveryState::Idle if waiting.is_some() => DeliveryState::Dirty,
                state => state,
            },
            acked: place.unwrap_or(status.acked),
            lag,
            last_success_at: status.last_success_at,
            last_error: status.last_error.clone(),
            sent_bytes: status.sent_bytes,
            waiting_paths: paths
                .filter(|_| status.complete)
                .map(|paths| (paths + status.late_paths) as u64),
            eta: estimate.and_then(|estimate| estimate.left),
            done_percent: estimate.map(|estimate| estimate.percent),
            verified_at: status.record.verified_at,
            drift: status.record.drift(),
        }
    }
}

fn lag(waiting: Option<Timestamp>, status: &Status, now: Timestamp) -> Millis {
    let oldest = [waiting, status.held_since].into_iter().flatten().min();
    oldest.map_or(Millis(0), |oldest| now.since(oldest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_or_a_pause_takes_no_copy_out() {
        let shared = Shared::new(&Cursor { acked: 1, full: false, filled: true });
        let now = Timestamp(9000);
        assert_eq!(shared.told_lag(now), Some(Millis(0)));
        shared.status().held_since = Some(Timestamp(2000));
        assert_eq!(shared.told_lag(now), Some(Millis(7000)));
        for state in [DeliveryState::Held, DeliveryState::Paused] {
            shared.status().state = state;
            assert_eq!(shared.told_lag(now), None);
        }
    }

    #[test]
    fn nobody_behind_a_target_has_more_than_it() {
        let shared = Shared::new(&Cursor { acked: 5, full: false, filled: true });
        let name = |name: &str| name.parse::<NodeName>().unwrap();
        let told = |upto| Standing::from([(name("w2"), Some(upto)), (name("w3"), None)]);
        shared.set_below(told(4));
        assert_eq!(shared.standing(None), (Some(5), told(4)));
        // Told by the source's journal before this one.
        shared.set_below(told(500));
        assert_eq!(shared.standing(None), (Some(5), told(5)));
        // A relay's own journal is another: what it has of the source's counts.
        let mut relay = Place::default();
        assert_eq!(shared.standing(Some(relay)).0, None);
        relay.note(70, 5);
        assert_eq!(shared.standing(Some(relay)), (Some(70), told(70)));
        relay.note(80, 6);
        assert_eq!(shared.standing(Some(relay)).0, Some(70));
        relay.note(3, 6);
        assert_eq!(shared.standing(Some(relay)).0, None);
        shared.note(&Cursor { acked: 6, full: false, filled: true });
        assert_eq!(shared.standing(Some(relay)).0, Some(3));
        shared.note(&Cursor { acked: 6, full: true, filled: true });
        assert_eq!(shared.standing(None).0, None);
    }
}
