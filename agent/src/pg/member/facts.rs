//! What decides a member's next step beside what is found, taken together: its books, its lease, its
//! place and what it is configured for. It decides nothing itself.

use lockstep_model::cluster::{ClusterPlace, MemberState};

use super::decision::{self, Known, is_in_force, role};
use super::ladder::Step;
use super::seen::Seen;
use super::steps::Restart;
use super::{Work, recovery, since};
use crate::pg::books::Books;
use crate::pg::boottime;
use crate::pg::instance::{Conf, Context, Instance, Role};
use crate::pg::lease::Held;
use crate::pg::salvage;

impl Work {
    pub fn decide(&mut self, place: &ClusterPlace, seen: &Seen, held: &Held) -> Step {
        let books = self.books.read();
        let configured = self.is_configured(place, seen, &books);
        let holds_this = books.holding == Some(place.term);
        if holds_this && seen.state == MemberState::Starting && self.restart_failed(place) {
            self.memory.restart_failed = Some(place.term);
            return Step::Fence;
        }
        let memory = &self.memory;
        let known = Known {
            state: seen.state,
            runs: memory.runs,
            configured,
            end: seen.end.as_ref().map(|end| (&end.lineage, end.end)),
            salvaged: memory.salvaged.map(|(term, _)| term),
            restart_failed: memory.restart_failed,
            attested: memory.offered.is_some() || memory.endless,
            in_recovery: seen.control().is_some_and(|control| control.state.is_recovery()),
        };
        decision::decide(place, &known, &books, held, boottime::now())
    }

    fn is_configured(&self, place: &ClusterPlace, seen: &Seen, books: &Books) -> bool {
        let quorum = seen.status.as_ref().map(|status| status.quorum.as_ref());
        let Some(instance) = self.instance.borrow().clone() else { return false };
        let Ok(conf) = self.conf(place, &instance, self.role(place)) else { return false };
        is_in_force(place, books, quorum) && self.memory.conf.as_ref() == Some(&conf)
    }

    pub fn conf(
        &self,
        place: &ClusterPlace,
        instance: &Instance,
        role: Role<'_>,
    ) -> Result<Conf, String> {
        let restore = salvage::restore_command(&self.site.agent, instance)?;
        let own = self.site.addresses.borrow().first().map(|at| at.at.host().to_owned());
        let host = place.member.host.clone().or(own).unwrap_or_default();
        let context = Context {
            me: &self.site.me,
            host: &host,
            layout: instance.layout(),
            restore_command: &restore,
        };
        Ok(Conf::of(place, role, &context))
    }

    /// What an instance is configured for now.
    pub fn role<'a>(&self, place: &'a ClusterPlace) -> Role<'a> {
        match role(place) {
            Role::Primary(quorum) if self.memory.closed.is_some() => Role::Closed(quorum),
            role => role,
        }
    }

    /// A restart in place takes too long without getting anywhere.
    fn restart_failed(&mut self, place: &ClusterPlace) -> bool {
        let segment = self.instance.borrow().as_ref().and_then(|at| recovery::segment(&at.pids()));
        let Some(restart) = &mut self.memory.restart else { return false };
        if segment.is_some() && restart.segment != segment {
            *restart = Restart { moved: boottime::now(), segment };
        }
        since(restart.moved) > place.options.failover.restart_limit
    }
}
