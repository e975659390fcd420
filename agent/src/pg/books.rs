//! What a member must not forget over a crash of its agent or its machine, and the rules that follow:
//! which goals and promises it may take up. Pure; `books/file.rs` keeps it.

mod file;
mod kept;

use std::collections::BTreeSet;

use lockstep_model::cluster::report::Released;
use lockstep_model::cluster::{ClusterPlace, Goal, Quorum, SystemId, Term};
use lockstep_model::{Millis, NodeName};

use super::boottime::Boottime;

pub use file::{BooksError, BooksFile};
pub use kept::Kept;

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Books {
    /// Of the data that this member had; it takes no other.
    pub system_id: Option<SystemId>,
    /// The highest term that it promised.
    pub promised: Term,
    /// The term whose primary it is, or was until nothing of it was left.
    pub holding: Option<Term>,
    /// Its data was written by a primary, and has followed nobody since.
    pub led: bool,
    /// The newest term that it was primary in and gave up.
    pub released: Option<Released>,
    /// It receives nothing, since this term.
    pub sealed_for: Option<Term>,
    /// It is not to run, whoever starts it.
    pub fenced: bool,
    /// The number of the complete copy that its data is.
    pub copy: u64,
    /// In force on it as a primary, or about to be.
    pub quorum: Quorum,
    /// As the newest place said, when it was primary.
    pub promotable: BTreeSet<NodeName>,
    pub promise: Option<Promise>,
}

/// Given to a primary that does not hear the controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promise {
    /// This member is sealed, promoted or led by another one for no later term.
    pub term: Term,
    pub to: NodeName,
    pub length: Millis,
    /// Which boot of this machine `until` counts in.
    pub boot: String,
    pub until: Boottime,
}

/// Whether a place may be taken up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    Now,
    /// A promise ends then; no new one is given meanwhile.
    At(Boottime),
    /// Never; one line that says why.
    Refused(String),
}

impl Books {
    pub fn admit(&self, place: &ClusterPlace, now: Boottime) -> Admission {
        if place.term < self.promised {
            let why = format!(
                "this node promised term {}, and this is of term {}; is the controller's store an old copy?",
                self.promised, place.term
            );
            return Admission::Refused(why);
        }
        if let (Some(own), Some(told)) = (self.system_id, place.system_id)
            && own != told
        {
            let why = format!(
                "this member's data has system identifier {own}, the cluster {told}; look which cluster this node's data is of, and put it aside if it is to go"
            );
            return Admission::Refused(why);
        }
        match self.promise_in_force(now) {
            Some(promise) if place.term > promise.term && breaks_promise(&place.goal) => {
                Admission::At(promise.until)
            }
            _ => Admission::Now,
        }
    }

    /// What is to be kept before anybody hears that the place is taken up. It was admitted.
    pub fn take_up(&mut self, place: &ClusterPlace) {
        self.promised = self.promised.max(place.term);
        self.system_id = self.system_id.or(place.system_id);
        self.sealed_for = match place.goal {
            Goal::Sealed { .. } => Some(place.term),
            _ => None,
        };
        if let Goal::Primary(_) = place.goal {
            self.promotable = place.promotable.iter().cloned().collect();
        }
    }

    /// Promises the primary of `term` to take part in no later one. `wanted`: the newest term of a
    /// place that waits for a promise's end. The error is one line.
    pub fn promise(
        &mut self,
        to: &NodeName,
        term: Term,
        length: Millis,
        boot: &str,
        now: Boottime,
        wanted: Option<Term>,
    ) -> Result<(), String> {
        let newest = wanted.unwrap_or_default().max(self.promised);
        if term < newest {
            return Err(format!(
                "this node has heard of term {newest}, which is later than {term}"
            ));
        }
        if self.holding.is_some_and(|held| held >= term) {
            return Err(format!("this node itself is primary in term {term}"));
        }
        if let Some(other) = self.promise_in_force(now).filter(|other| other.to != *to) {
            return Err(format!("this node promised term {} to {}", other.term, other.to));
        }
        let until = now.after(length);
        let before = self.promise_in_force(now).map_or(until, |before| before.until);
        self.promised = term;
        self.promise = Some(Promise {
            term,
            to: to.clone(),
            length,
            boot: boot.to_owned(),
            until: until.max(before),
        });
        Ok(())
    }

    /// How much of a promise is left is not known after a reboot: it counts anew.
    pub fn recount(&mut self, boot: &str, now: Boottime) {
        if let Some(promise) = &mut self.promise
            && promise.boot != boot
        {
            promise.boot = boot.to_owned();
            promise.until = now.after(promise.length);
        }
    }

    pub fn promise_in_force(&self, now: Boottime) -> Option<&Promise> {
        self.promise.as_ref().filter(|promise| now < promise.until)
    }

    /// It becomes, or stays, the primary of a term.
    pub fn hold(&mut self, term: Term) {
        self.holding = Some(term);
        self.led = true;
        self.sealed_for = None;
    }

    /// No process is left, and none can start writable.
    pub fn release(&mut self, released: Released) {
        self.holding = None;
        self.quorum = Quorum::OFF;
        self.released = Some(released);
    }

    /// The primary's part in this term is over.
    pub fn gave_up(&self, term: Term) -> bool {
        self.released.as_ref().is_some_and(|released| released.term >= term)
    }
}

/// What takes this member away from the primary that it promised to.
fn breaks_promise(goal: &Goal) -> bool {
    match goal {
        Goal::Primary(_) | Goal::Sealed { .. } | Goal::Standby { .. } => true,
        Goal::HandOver | Goal::Fenced | Goal::Stopped | Goal::Maintenance => false,
    }
}

#[cfg(test)]
mod tests;
