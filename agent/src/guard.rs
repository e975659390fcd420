//! How much may be removed on one target before a person is asked. Pure: counts, the limit and the
//! time come in, a verdict comes out; what it knows survives a restart as one small text.

mod text;

use std::collections::VecDeque;

use lockstep_model::sync::options::DeleteLimit;
use lockstep_model::{Millis, Timestamp};

/// Most steps that a window is told in.
const STEPS_MAX: usize = 64;
/// Before the first removing pass a single limit is enough to hold, for more entries than these: a
/// target that was given by mistake loses nothing that matters.
const FOREIGN_MIN: u64 = 10;

/// What removes: each counts what it left undone by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    Batch,
    Pass,
}

/// Removals held back until a person lets them go, or until less is to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// Entries that would be removed.
    pub entries: u64,
    /// Entries removed within the window before; time alone makes them no fewer.
    pub within: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Allowance {
    entries: u64,
    at: Timestamp,
}

/// What was removed on one target lately, and what is held.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Removals {
    window: VecDeque<(Timestamp, u64)>,
    /// Entries that a run under way, or one that failed, was allowed to remove: by batches, passes.
    begun: [u64; 2],
    hold: Option<Hold>,
    /// May be removed on top of the limit, once.
    released: Option<Allowance>,
    /// Entries on the target when they were last counted; 0 while nobody knows.
    total: u64,
    /// A removing pass has come through: what is there is the sync's own.
    trimmed: bool,
}

impl Removals {
    pub fn hold(&self) -> Option<Hold> {
        self.hold
    }

    /// A complete pass tells how many entries there are.
    pub fn note_total(&mut self, entries: u64) {
        self.total = entries;
    }

    /// May so many entries be removed now? If not, they are held from now on.
    pub fn ask(
        &mut self,
        by: By,
        entries: u64,
        limit: Option<&DeleteLimit>,
        now: Timestamp,
    ) -> Result<(), Hold> {
        let Some(limit) = limit.filter(|l| l.count.is_some() || l.percent.is_some()) else {
            self.hold = None;
            return Ok(());
        };
        self.settle_failed(by, entries, limit.window, now);
        let within = match self.hold {
            Some(hold) => hold.within,
            None => self.within(limit.window, now),
        };
        let hold = Hold { entries, within };
        if entries > 0 && self.is_over(by, entries + within, limit, now) {
            self.hold = Some(hold);
            return Err(hold);
        }
        self.hold = None;
        Ok(())
    }

    /// Whether so many would be let go, with nothing changed by the question.
    pub fn would_allow(&self, entries: u64, limit: Option<&DeleteLimit>, now: Timestamp) -> bool {
        self.hold.is_none() && self.clone().ask(By::Batch, entries, limit, now).is_ok()
    }

    /// Whether something is held that a changed limit would let go.
    pub fn is_outgrown(&self, limit: Option<&DeleteLimit>, now: Timestamp) -> bool {
        let over = |hold: Hold| match limit.filter(|l| l.count.is_some() || l.percent.is_some()) {
            // The stricter reading, so that what is counted again is not held again at once.
            Some(limit) => self.is_over(By::Pass, hold.entries + hold.within, limit, now),
            None => false,
        };
        self.hold.is_some_and(|hold| !over(hold))
    }

    fn is_over(&self, by: By, sum: u64, limit: &DeleteLimit, now: Timestamp) -> bool {
        let released = self.released.filter(|r| now.since(r.at) < limit.window);
        let sum = sum.saturating_sub(released.map_or(0, |r| r.entries));
        if sum == 0 {
            return false;
        }
        let over_count = limit.count.map(|most| sum > u64::from(most));
        let over_share = limit.percent.map(|most| {
            // Of what nobody has counted any removal may be too large a share.
            self.total == 0 || sum.saturating_mul(100) > self.total.saturating_mul(most.into())
        });
        let mut set = [over_count, over_share].into_iter().flatten();
        if by == By::Pass && !self.trimmed && self.total > 0 && sum > FOREIGN_MIN {
            set.any(|over| over)
        } else {
            set.all(|over| over)
        }
    }

    /// A run that failed may have removed what is not to be removed any more.
    fn settle_failed(&mut self, by: By, entries: u64, window: Millis, now: Timestamp) {
        let begun = std::mem::take(&mut self.begun[by as usize]);
        self.push(begun.saturating_sub(entries), window, now);
    }

    /// A run that may remove up to so many starts; on disk before it does.
    pub fn begin(&mut self, by: By, entries: u64) {
        self.begun[by as usize] = entries;
    }

    /// It came through and removed so many.
    pub fn finish(&mut self, by: By, entries: u64, limit: Option<&DeleteLimit>, now: Timestamp) {
        self.begun[by as usize] = 0;
        self.total = self.total.saturating_sub(entries);
        if entries == 0 {
            return;
        }
        let released = self.released.take().map_or(0, |r| r.entries);
        let window = limit.map_or(Millis(0), |limit| limit.window);
        self.push(entries.saturating_sub(released), window, now);
    }

    /// A pass that removes what the source does not have has come through.
    pub fn note_trimmed(&mut self) {
        self.trimmed = true;
    }

    /// Nothing waits to be removed any more.
    pub fn drop_hold(&mut self) {
        self.hold = None;
    }

    /// What is held may go, once, and the window begins anew; None when nothing is held.
    pub fn release(&mut self, now: Timestamp) -> Option<u64> {
        let hold = self.hold.take()?;
        self.window.clear();
        self.begun = [0; 2];
        self.released = Some(Allowance { entries: hold.entries, at: now });
        Some(hold.entries)
    }

    /// So many may go on top of the limit, once: they may where it comes from.
    pub fn allow(&mut self, entries: u64, now: Timestamp) {
        let before = self.released.map_or(0, |released| released.entries);
        self.released = Some(Allowance { entries: before.saturating_add(entries), at: now });
    }

    /// The target was lost: what is there now may be somebody else's.
    pub fn forget_target(&mut self) {
        *self = Self { window: std::mem::take(&mut self.window), ..Self::default() };
    }

    /// Entries removed within the window.
    fn within(&self, window: Millis, now: Timestamp) -> u64 {
        let recent = self.window.iter().filter(|(at, _)| now.since(*at) < window);
        recent.fold(0, |sum, (_, entries)| sum.saturating_add(*entries))
    }

    fn push(&mut self, entries: u64, window: Millis, now: Timestamp) {
        self.window.retain(|(at, _)| now.since(*at) < window);
        if entries == 0 || window.0 == 0 {
            return;
        }
        let step = (window.0 / STEPS_MAX as u64 * 2).max(1);
        let is_full = self.window.len() >= STEPS_MAX;
        match self.window.back_mut() {
            // Taken for later than they were: they count a little longer, never shorter.
            Some((at, sum)) if at.0 / step == now.0 / step || is_full => {
                *at = now.max(*at);
                *sum = sum.saturating_add(entries);
            }
            _ => self.window.push_back((now, entries)),
        }
    }

    /// One line for people: what is held, why, and how to let it go. `of` is the sync and `on` the
    /// target, as they stand in a command.
    pub fn explain(&self, limit: &DeleteLimit, of: &str, on: &str) -> Option<String> {
        let Hold { entries, within } = self.hold?;
        let count = limit.count.map(|count| format!("{count} entries"));
        let share = limit.percent.map(|percent| match self.total {
            0 => format!("{percent} % of its entries"),
            total => format!("{percent} % of its {total} entries"),
        });
        let limits: Vec<String> = [count, share].into_iter().flatten().collect();
        let seconds = limit.window.0 / 1000;
        Some(format!(
            "{entries} entries would be removed, after {within} within {seconds} s: the limit is {}; \
             look why, then undo it on the source or let it go with: lockstepctl sync release {of} \
             --target {on}",
            limits.join(" and ")
        ))
    }
}

#[cfg(test)]
mod tests;
