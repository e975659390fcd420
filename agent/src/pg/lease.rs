//! A primary's lease: how long it may write without hearing of anybody. Pure. It counts from the
//! moment at which it asked, so no delay of an answer makes it longer than its giver knows.

mod keeper;
mod tenure;

use lockstep_model::Millis;
use lockstep_model::cluster::Term;
use lockstep_model::cluster::lease::{Answer, DRIFT_PER_MILLE, Grant};

use super::boottime::Boottime;

pub use keeper::{Ahead, AskPromise, Departure, Keeper, Setup};
pub use tenure::{Duty, Held, Round, Tenure};

/// What a length is worth to its holder: rounded down, less what clocks may run apart.
pub fn less_drift(length: Millis) -> Millis {
    Millis(length.0.saturating_sub(length.0.saturating_mul(DRIFT_PER_MILLE).div_ceil(1000)))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    pub term: Term,
    /// No process may write from then on; the beginning of time before the first grant.
    pub until: Boottime,
    /// When what the controller granted last was asked for.
    pub heard: Boottime,
    /// The controller granted this very term once, so that peers may carry it on.
    pub is_held: bool,
    /// Granted or promised in this term by this run of the agent.
    pub is_granted: bool,
}

impl Lease {
    /// `is_held`: the books say so.
    pub fn new(term: Term, is_held: bool) -> Self {
        Self { term, until: Boottime(0), heard: Boottime(0), is_held, is_granted: false }
    }

    /// What an earlier run of the agent had, as its guard knows it.
    pub fn resume(&mut self, until: Boottime) {
        if self.is_held {
            self.until = self.until.max(until);
            self.is_granted = true;
        }
    }

    /// The same holder in a later term: what it has is not taken away.
    pub fn go_on(&mut self, term: Term) {
        if term > self.term {
            *self = Self { term, is_held: false, is_granted: false, ..*self };
        }
    }

    /// False: it is no grant of this lease. `now`: nothing that claims to be from later counts.
    pub fn grant(&mut self, grant: &Grant, now: Boottime) -> bool {
        let sent = Boottime(grant.sent_ms);
        if grant.term != self.term || sent > now || sent < self.heard {
            return false;
        }
        let until = match grant.answer {
            Answer::For(length) => sent.after(less_drift(length)),
            Answer::WithoutEnd => Boottime::NEVER,
            Answer::Refused(_) => return false,
        };
        // One without end is over when the controller gives one with an end again.
        let was_endless = self.until == Boottime::NEVER;
        self.until = if was_endless { until } else { self.until.max(until) };
        self.heard = sent;
        (self.is_held, self.is_granted) = (true, true);
        true
    }

    /// Enough peers promised, asked at `sent`, at least for `length`.
    pub fn promise(&mut self, sent: Boottime, length: Millis) {
        if self.is_held {
            self.until = self.until.max(sent.after(less_drift(length)));
            self.is_granted = true;
        }
    }

    /// When the instance has to be ended so that nothing of it is left at the lease's end.
    pub fn fence_at(&self, fence: Millis) -> Boottime {
        if self.until == Boottime::NEVER { Boottime::NEVER } else { self.until.before(fence) }
    }

    /// It may write, and may begin to.
    pub fn is_good(&self, fence: Millis, now: Boottime) -> bool {
        self.is_granted && now < self.fence_at(fence)
    }
}

#[cfg(test)]
mod tests;
