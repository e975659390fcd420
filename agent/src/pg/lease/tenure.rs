//! A member's lease as its agent counts it: what is to be asked of whom, what came of it, and from when
//! on the instance has to be ended. Pure: `keeper` does the asking, and whoever runs an instance ends it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lockstep_model::cluster::options::{Isolation, LeaseOptions};
use lockstep_model::cluster::{Answer, Grant, Quorum, Term};
use lockstep_model::task::Peer;
use lockstep_model::{Millis, NodeName};

use super::Lease;
use crate::pg::boottime::Boottime;

/// Of the time of suspicion, between two renewals.
const RENEWALS_PER_SUSPICION: u64 = 4;

/// The lease that is to be kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Duty {
    pub term: Term,
    /// It was granted once, by the books.
    pub is_held: bool,
    /// By the books, this term or another.
    pub holds_nothing: bool,
    pub options: LeaseOptions,
    /// Every one that may be in force.
    pub quorums: Vec<Quorum>,
    /// Whose promises are needed where no quorum is.
    pub promotable: Vec<NodeName>,
    pub peers: Vec<Peer>,
    /// Of the instance; its guard lives beside it.
    pub cgroup: PathBuf,
}

/// What is held now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    pub lease: Option<Lease>,
    /// The guard confirmed the deadline that belongs to it.
    pub is_guarded: bool,
    /// When an instance has to be ended.
    pub fence_at: Boottime,
    /// Why it is not better; empty: nothing is wrong.
    pub problem: String,
}

impl Held {
    /// May write in this term, and may begin to.
    pub fn is_good(&self, term: Term, now: Boottime) -> bool {
        let granted = self.lease.is_some_and(|lease| lease.is_granted && lease.term == term);
        granted && self.is_guarded && now < self.fence_at
    }
}

/// What is to be asked now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Round {
    /// The term whose lease the controller is asked for.
    pub term: Term,
    /// Whose promise is asked for, because the controller is silent.
    pub peers: Vec<Peer>,
    /// How long they are to promise at least.
    pub length: Millis,
    /// Time until the next round.
    pub interval: Millis,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tenure {
    /// This node.
    me: NodeName,
    duty: Option<Duty>,
    lease: Option<Lease>,
    /// What the guard of an earlier run had: None without one.
    found: Option<Option<Boottime>>,
    /// When those who promised this term were asked.
    promised: BTreeMap<NodeName, Boottime>,
    fence_at: Boottime,
    problem: String,
}

impl Tenure {
    /// `found`: the deadline of a guard that an earlier run left, if there is one.
    pub fn new(me: NodeName, found: Option<Option<Boottime>>) -> Self {
        Self {
            me,
            duty: None,
            lease: None,
            found,
            promised: BTreeMap::new(),
            fence_at: Boottime::NEVER,
            problem: String::new(),
        }
    }

    pub fn duty(&self) -> Option<&Duty> {
        self.duty.as_ref()
    }

    /// Whether somebody granted or promised it to this run, or to the one whose guard was found.
    pub fn is_granted(&self) -> bool {
        self.lease.is_some_and(|lease| lease.is_granted)
    }

    /// From then on the instance has to be ended. Without a duty it stays as it was with one.
    pub fn fence_at(&self) -> Boottime {
        self.fence_at
    }

    pub fn held(&self, is_guarded: bool) -> Held {
        let problem = self.problem.clone();
        Held { lease: self.lease, is_guarded, fence_at: self.fence_at, problem }
    }

    pub fn set_problem(&mut self, problem: String) {
        self.problem = problem;
    }

    /// None: what there is runs out.
    pub fn take(&mut self, duty: Option<Duty>) {
        if let Some(duty) = &duty {
            let found = self.found.take();
            let lease = self.lease.get_or_insert_with(|| Lease::new(duty.term, duty.is_held));
            if let Some(deadline) = found {
                // It stood so long before the end; one without a deadline was told to let it live.
                let until = deadline.map_or(Boottime::NEVER, |at| at.after(duty.options.fence));
                lease.resume(until);
            }
            if lease.term < duty.term {
                lease.go_on(duty.term);
                self.promised.clear();
            }
        }
        self.duty = duty;
        self.count();
    }

    /// What to ask for, with all that is known of walsenders' replies; None: nothing is to be kept.
    pub fn round(
        &mut self,
        replies: &BTreeMap<NodeName, Boottime>,
        now: Boottime,
    ) -> Option<Round> {
        self.carry_on(replies, now);
        let duty = self.duty.as_ref()?;
        let peers = if self.is_silent(now) { duty.peers.clone() } else { Vec::new() };
        let interval = Millis((duty.options.suspect.0 / RENEWALS_PER_SUSPICION).max(1));
        Some(Round { term: duty.term, peers, length: duty.options.length, interval })
    }

    /// The controller has not granted anything for so long that peers are asked.
    pub fn is_silent(&self, now: Boottime) -> bool {
        let (Some(duty), Some(lease)) = (&self.duty, &self.lease) else { return false };
        lease.is_held
            && lease.until != Boottime::NEVER
            && now.since(lease.heard) > duty.options.suspect
    }

    /// A peer answered what it was asked at `sent`.
    pub fn promised(
        &mut self,
        node: NodeName,
        term: Term,
        sent: Boottime,
        answer: Result<Millis, String>,
    ) {
        let Some(duty) = self.duty.as_ref().filter(|duty| duty.term == term) else { return };
        match answer {
            Ok(length) if length >= duty.options.length => {
                let known = self.promised.entry(node).or_insert(sent);
                *known = (*known).max(sent);
            }
            Ok(length) => self.problem = format!("{node} promised only {length}"),
            Err(why) => self.problem = format!("{node} does not carry the lease on: {why}"),
        }
    }

    /// Peers' promises and walsenders' replies are worth a lease while the controller is silent.
    pub fn carry_on(&mut self, replies: &BTreeMap<NodeName, Boottime>, now: Boottime) {
        if !self.is_silent(now) {
            return;
        }
        let (Some(duty), Some(lease)) = (&self.duty, &mut self.lease) else { return };
        if let Some(sent) = carried(duty, &self.me, &self.promised, replies, now) {
            lease.promise(sent, duty.options.length);
        }
        self.count();
    }

    /// The controller answered.
    pub fn note(&mut self, grant: &Grant, now: Boottime) {
        let Some(lease) = &mut self.lease else { return };
        if let Answer::Refused(why) = &grant.answer
            && grant.term == lease.term
        {
            self.problem =
                format!("the controller refuses the lease of term {}: {why}", lease.term);
        }
        if lease.grant(grant, now) {
            self.problem.clear();
        }
        self.count();
    }

    /// Nothing is left that could write.
    pub fn clear(&mut self) {
        *self = Self::new(self.me.clone(), None);
    }

    fn count(&mut self) {
        self.fence_at = match (&self.lease, &self.duty) {
            (None, _) => Boottime::NEVER,
            (Some(_), None) => self.fence_at,
            (Some(_), Some(duty)) if duty.options.on_isolation == Isolation::Stay => {
                Boottime::NEVER
            }
            (Some(lease), Some(duty)) => lease.fence_at(duty.options.fence),
        };
    }
}

/// Since when every configuration that may be in force is known to agree; None: one does not.
fn carried(
    duty: &Duty,
    me: &NodeName,
    promised: &BTreeMap<NodeName, Boottime>,
    replies: &BTreeMap<NodeName, Boottime>,
    now: Boottime,
) -> Option<Boottime> {
    let of = |quorum: &Quorum| match quorum.is_off() {
        // One that is missing could be the one that is promoted just now.
        true => duty
            .promotable
            .iter()
            .filter(|node| *node != me)
            .try_fold(now, |least, node| promised.get(node).map(|sent| least.min(*sent))),
        // So many acknowledge commits still: nobody else can be promoted without them.
        false => {
            let heard = |node| promised.get(node).max(replies.get(node)).copied();
            let mut heard: Vec<Boottime> = quorum.of.iter().filter_map(heard).collect();
            heard.sort_unstable_by(|a, b| b.cmp(a));
            heard.get(quorum.k as usize - 1).copied()
        }
    };
    duty.quorums.iter().map(of).try_fold(now, |least, sent| sent.map(|sent| least.min(sent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn duty(quorums: &[(u32, &[&str])], promotable: &[&str]) -> Duty {
        Duty {
            term: Term(3),
            is_held: true,
            holds_nothing: false,
            options: lockstep_model::cluster::ClusterOptions::default().lease,
            quorums: quorums
                .iter()
                .map(|(k, of)| Quorum { k: *k, of: of.iter().map(|name| node(name)).collect() })
                .collect(),
            promotable: promotable.iter().map(|name| node(name)).collect(),
            peers: Vec::new(),
            cgroup: PathBuf::new(),
        }
    }

    #[test]
    fn peers_carry_a_lease_on_as_every_configuration_asks() {
        let at = |all: &[(&str, u64)]| -> BTreeMap<NodeName, Boottime> {
            all.iter().map(|(name, ms)| (node(name), Boottime(*ms))).collect()
        };
        let now = Boottime(100);
        let check = |duty: Duty, promised: &[(&str, u64)], replies: &[(&str, u64)]| {
            carried(&duty, &node("db1"), &at(promised), &at(replies), now).map(|at| at.0)
        };
        let off: (u32, &[&str]) = (0, &[]);
        assert_eq!(check(duty(&[off], &["db1"]), &[], &[]), Some(100), "nobody else is there");
        assert_eq!(check(duty(&[off], &["db1", "db2"]), &[], &[("db2", 90)]), None);
        assert_eq!(check(duty(&[off], &["db1", "db2"]), &[("db2", 80)], &[]), Some(80));
        assert_eq!(check(duty(&[off], &["db2", "db3"]), &[("db2", 80)], &[]), None, "all of them");
        let any: (u32, &[&str]) = (1, &["db2", "db3"]);
        assert_eq!(check(duty(&[any], &["db2", "db3"]), &[("db3", 70)], &[]), Some(70));
        assert_eq!(check(duty(&[any], &[]), &[("db3", 70)], &[("db2", 95)]), Some(95));
        let two: (u32, &[&str]) = (2, &["db2", "db3"]);
        assert_eq!(check(duty(&[two], &[]), &[("db3", 70)], &[("db2", 95)]), Some(70));
        assert_eq!(check(duty(&[any, off], &["db2"]), &[("db3", 70)], &[]), None, "both count");
    }
}
