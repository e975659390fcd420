//! What agents, postgres and the controller do in the model, with what may be left out of it.

use super::world::{
    Former, Goal, MEMBERS, Member, PROMOTED, Quorum, Run, Set, World, position, timeline,
};
use super::{Bug, Protocol};

impl Protocol {
    pub fn is_excluded(&self, world: &World) -> bool {
        let Some((old, term)) = world.from else { return false };
        let sealed = world.sealed();
        let covers = |quorum: &Quorum| {
            let there = sealed.iter().filter(|i| quorum.of.has(**i)).count();
            there + usize::from(self.has(Bug::OneSealLess)) >= quorum.seals_needed()
        };
        world.members[old].released >= term || world.quorums.iter().all(covers)
    }

    /// Whether the choice is proven to have every acknowledged commit.
    pub fn is_lossless(&self, world: &World, best: usize) -> bool {
        let (old, term) = world.from.unwrap_or((best, 0));
        let log = &world.members[best].log;
        let end = &world.members[old];
        if end.released >= term && (self.has(Bug::IgnoresEnd) || log.starts_with(&end.log)) {
            return true;
        }
        let candidates = world.candidates();
        let is_covered = |quorum: &Quorum| {
            let of = candidates.iter().filter(|i| quorum.of.has(**i)).count();
            of + usize::from(self.has(Bug::OneSealLess)) >= quorum.seals_needed()
        };
        let last = Former { who: old, term, quorums: world.quorums.clone() };
        // Whoever has a timeline has all that was acknowledged before it.
        let counts = |former: &&Former| PROMOTED + former.term >= timeline(log);
        // A holder's own log has all that it acknowledged.
        let is_told = |former: &Former| candidates.contains(&former.who);
        world
            .formers
            .iter()
            .chain([&last])
            .filter(counts)
            .all(|former| is_told(former) || former.quorums.iter().all(is_covered))
    }

    pub fn may_be_chosen(&self, world: &World, who: usize) -> bool {
        let candidates = world.candidates();
        let best = candidates.iter().map(|i| position(&world.members[*i].log)).max();
        let is_best = best == Some(position(&world.members[who].log));
        candidates.contains(&who)
            && (is_best || self.has(Bug::ChoosesAnybody))
            && self.is_excluded(world)
            && self.is_lossless(world, who)
    }

    /// It receives what this primary writes, or would.
    pub fn receives(&self, world: &World, of: usize, from: usize) -> bool {
        let member = &world.members[of];
        let leaks = self.has(Bug::SealLeaks) && member.run == Run::Sealed;
        let follows = member.run == Run::Standby && member.goal == Goal::Standby(from);
        (follows || leaks)
            && of != from
            && world.members[from].run == Run::Primary
            && world.members[from].log.starts_with(&member.log)
    }

    pub fn can_acknowledge(&self, world: &World, who: usize) -> bool {
        let member = &world.members[who];
        let there = member.in_force.of.members().filter(|i| self.receives(world, *i, who)).count();
        member.run == Run::Primary && there >= member.in_force.k
    }

    /// Clients hear of what enough of the set have, at the first moment that they could.
    pub fn acknowledge(&self, world: &mut World) {
        for primary in 0..MEMBERS {
            let member = &world.members[primary];
            if member.run != Run::Primary {
                continue;
            }
            for commit in member.log.clone().into_iter().filter(|entry| *entry < PROMOTED) {
                let has = |i: &usize| {
                    self.receives(world, *i, primary) && world.members[*i].log.contains(&commit)
                };
                let quorum = world.members[primary].in_force;
                if quorum.of.members().filter(has).count() >= quorum.k {
                    world.acknowledged |= 1 << commit;
                }
            }
        }
    }

    pub fn has_caught_up(&self, world: &World, who: usize) -> bool {
        let member = &world.members[who];
        let before = member.settled.map_or(Set(0), |settled| settled.of);
        let has = |i: &usize| {
            self.receives(world, *i, who) && world.members[*i].log.len() >= member.forced_at
        };
        let mut added = member.in_force.of.members().filter(|i| !before.has(*i));
        self.has(Bug::SettlesAtOnce)
            || (added.all(|i| has(&i))
                && member.in_force.of.members().filter(has).count() >= member.in_force.k)
    }

    /// One step of an agent towards its goal.
    pub fn go(&self, member: &mut Member) -> bool {
        let term = member.promised;
        match (member.goal, member.run) {
            (Goal::Primary(quorum), Run::Sealed | Run::Standby) => {
                member.log.push(PROMOTED + term);
                member.holds = Some(term);
                member.run = Run::Primary;
                (member.in_force, member.forced_at) = (quorum, member.log.len());
                member.settled = None;
            }
            (Goal::Primary(quorum), Run::Primary)
                if member.in_force != quorum || member.holds != Some(term) =>
            {
                if member.in_force != quorum {
                    (member.in_force, member.forced_at) = (quorum, member.log.len());
                }
                member.holds = Some(term);
            }
            // A crashed one starts again in its own term.
            (Goal::Primary(quorum), Run::Down) if member.holds == Some(term) => {
                member.run = Run::Primary;
                (member.in_force, member.forced_at) = (quorum, member.log.len());
            }
            (Goal::Primary(_), Run::Down) if member.released < term => member.run = Run::Sealed,
            (Goal::Standby(_) | Goal::Sealed, Run::Primary) => member.run = Run::Down,
            (Goal::Standby(_), Run::Sealed) => member.run = Run::Standby,
            (Goal::Standby(_), Run::Down) if member.holds.is_none() => member.run = Run::Standby,
            (Goal::Sealed, Run::Standby) => member.run = Run::Sealed,
            (Goal::Sealed, Run::Down) if member.holds.is_none() => member.run = Run::Sealed,
            _ => return false,
        }
        true
    }

    pub fn receive(&self, world: &mut World, of: usize) -> bool {
        let from = match world.members[of].goal {
            Goal::Standby(from) => from,
            _ if self.has(Bug::SealLeaks) => world.from.map_or(of, |(old, _)| old),
            _ => return false,
        };
        if self.receives(world, of, from) {
            let next = world.members[from].log.get(world.members[of].log.len()).copied();
            let Some(next) = next else { return false };
            world.members[of].log.push(next);
            return true;
        }
        // Rewound to where it left the history of the one that it is told to follow.
        let (own, other) = (&world.members[of], &world.members[from]);
        let may = own.run == Run::Standby
            && other.run == Run::Primary
            && other.holds.is_some_and(|term| term >= own.promised)
            && !other.log.starts_with(&own.log);
        if may {
            let common = own.log.iter().zip(&other.log).take_while(|(a, b)| a == b).count();
            world.members[of].log.truncate(common);
        }
        may
    }

    pub fn salvage(&self, world: &mut World, to: usize) -> bool {
        let Some((old, term)) = world.from else { return false };
        let (own, dead) = (&world.members[to], &world.members[old]);
        let may = own.run == Run::Sealed
            && own.promised == world.term
            && dead.run == Run::Down
            && dead.released >= term
            && dead.log.starts_with(&own.log)
            && dead.log.len() > own.log.len();
        if may {
            let next = dead.log[own.log.len()];
            world.members[to].log.push(next);
        }
        may
    }

    pub fn choose(&self, world: &mut World, who: usize) -> bool {
        if world.holder.is_some() || !self.may_be_chosen(world, who) {
            return false;
        }
        // Those that are there, or anybody where nobody is.
        let sealed = world.sealed();
        let there = sealed.iter().filter(|i| **i != who).fold(0, |set, i| set | 1 << i);
        let anybody = (0..MEMBERS).find(|i| *i != who).map_or(0, |i| 1 << i);
        let quorum = Quorum { k: 1, of: Set(if there == 0 { anybody } else { there }) };
        let quorums = std::mem::replace(&mut world.quorums, vec![quorum]);
        if let Some((who, term)) = world.from {
            world.formers.push(Former { who, term, quorums });
        }
        if self.has(Bug::ForgetsSetsOfHolders) {
            world.formers.clear();
        }
        (world.holder, world.from, world.is_steady) = (Some(who), None, false);
        true
    }
}
