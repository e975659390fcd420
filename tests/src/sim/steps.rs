//! What the steps of the ladder do to an instance, in phases: between two of them anything may happen,
//! and what was begun may be left as it is.

use lockstep_agent::pg::books::Books;
use lockstep_agent::pg::member::decision::upstream;
use lockstep_agent::pg::member::ladder::Step;
use lockstep_model::cluster::report::Released;
use lockstep_model::cluster::wal::Fork;
use lockstep_model::cluster::{ClusterPlace, Goal, Lsn, Term};

use super::Sim;
use super::event::{Event, Then};
use super::host::{Conf, Memory};
use super::look::{SYSTEM, conf_of};
use super::mutation::Mutation;
use super::net::End;
use super::postgres::{Data, Run};

/// After a step that did not work.
const RETRY_MS: u64 = 250;

/// How a phase ended.
enum Next {
    /// The next one begins so much later.
    After(u64),
    /// The next one begins once books are on disk.
    Kept(Box<dyn FnOnce(&mut Books)>),
    Done,
    Failed,
}

use Next::{After, Done, Failed, Kept};

impl Sim {
    pub fn phase(&mut self, node: usize, number: u64, phase: u8) {
        let host = &self.hosts[node];
        let Some(agent) = &host.agent else { return };
        let Some(under_way) = agent.step.filter(|step| step.number == number) else { return };
        let Some(place) = host.disk.place.clone() else { return };
        let run = agent.run;
        match self.step(node, &place, under_way.step, phase) {
            After(ms) => {
                self.queue.after(ms, Event::Phase { node, run, step: number, phase: phase + 1 });
            }
            Kept(change) => {
                let then = Then::Phase { run, step: number, phase: phase + 1 };
                self.keep(node, change, then);
            }
            Done => self.end_step(node, 0),
            Failed => self.end_step(node, RETRY_MS),
        }
    }

    fn step(&mut self, node: usize, place: &ClusterPlace, step: Step, phase: u8) -> Next {
        match step {
            Step::Make => self.make(node, place, phase),
            Step::Copy => self.copy(node, place, phase),
            Step::Mend => self.mend(node, place, phase),
            Step::StartStandby | Step::StartSealed => self.start_standby(node, place, phase),
            Step::StartPrimary => self.start_primary(node, place, phase),
            Step::Promote => self.promote(node, place, phase),
            Step::Configure => self.configure(node, place, phase),
            Step::Seal => self.seal(node, place, phase),
            Step::ReadEnd => {
                self.memory(node, |memory| memory.has_end = true);
                Done
            }
            Step::Salvage => self.salvage(node, place, phase),
            Step::Stop => self.stop(node, phase),
            Step::Fence => self.fence(node, phase),
            Step::Release => self.release(node, phase),
            Step::Attest => self.attest(node, phase),
            Step::Mark => mark(true, phase),
            Step::Unmark => mark(false, phase),
            Step::Adopt | Step::TakeLease | Step::Stay | Step::Wait(_) => Done,
        }
    }

    fn memory(&mut self, node: usize, change: impl FnOnce(&mut Memory)) {
        if let Some(agent) = &mut self.hosts[node].agent {
            change(&mut agent.memory);
        }
    }

    /// What was true of a run that ends.
    fn forget(&mut self, node: usize) {
        self.memory(node, |memory| {
            let (offered, salvaged) = (memory.offered, memory.salvaged);
            *memory = Memory { offered, salvaged, ..Memory::default() };
        });
    }

    fn make(&mut self, node: usize, place: &ClusterPlace, phase: u8) -> Next {
        match phase {
            0 => After(self.some_ms(200, 600)),
            1 => {
                self.entries += 1;
                let lineage = vec![Fork { timeline: 1, begins: Lsn(0) }];
                let data = Data {
                    log: vec![self.entries],
                    flushed: 1,
                    lineage,
                    clean: true,
                    in_recovery: false,
                };
                self.hosts[node].disk.data = Some(data);
                let copy = place.copy;
                Kept(Box::new(move |books| {
                    (books.system_id, books.copy) = (Some(SYSTEM), copy);
                }))
            }
            _ => Done,
        }
    }

    /// What is there is about to be overwritten, which takes between so many milliseconds; first it is
    /// stopped.
    fn set_aside(&mut self, node: usize, least_ms: u64, most_ms: u64) -> Next {
        if self.hosts[node].postgres.is_up() {
            self.kill(node);
            return Failed;
        }
        self.memory(node, |memory| memory.offered = false);
        self.clear_lease(node);
        After(self.some_ms(least_ms, most_ms))
    }

    fn copy(&mut self, node: usize, place: &ClusterPlace, phase: u8) -> Next {
        match phase {
            0 => self.set_aside(node, 300, 2500),
            1 => {
                let first = upstream(place).and_then(|peer| self.number_of(&peer.peer.node));
                let others = (0..self.hosts.len()).filter(|other| *other != node);
                let serves = |of: &End| {
                    let postgres = &self.hosts[*of].postgres;
                    let runs = matches!(postgres.run, Run::Primary | Run::Recovery);
                    runs && postgres.hung.is_none() && self.net.connects(node, *of)
                };
                let Some(from) = first.into_iter().chain(others).find(serves) else {
                    return Failed;
                };
                let Some(data) = self.hosts[from].disk.data.clone() else { return Failed };
                let flushed = data.log.len();
                self.hosts[node].disk.rewinding = false;
                self.hosts[node].disk.data = Some(Data { flushed, clean: true, ..data });
                self.forget(node);
                let copy = place.copy;
                Kept(Box::new(move |books| {
                    (books.copy, books.led) = (copy, false);
                    books.system_id = books.system_id.or(Some(SYSTEM));
                }))
            }
            _ => Done,
        }
    }

    fn mend(&mut self, node: usize, place: &ClusterPlace, phase: u8) -> Next {
        let from = upstream(place).and_then(|peer| self.number_of(&peer.peer.node));
        let Some(from) = from else { return Failed };
        match phase {
            0 => self.set_aside(node, 20, 200),
            1 => {
                let source = &self.hosts[from].postgres;
                let ready = source.writes() && source.checkpointed && self.net.connects(node, from);
                if !ready {
                    return Failed;
                }
                self.hosts[node].disk.rewinding = true;
                After(self.some_ms(100, 800))
            }
            2 => {
                if !self.hosts[from].postgres.writes() || !self.net.connects(node, from) {
                    return Failed;
                }
                let Some(source) = self.hosts[from].disk.data.clone() else { return Failed };
                let flushed = source.log.len();
                self.hosts[node].disk.data = Some(Data { flushed, clean: true, ..source });
                self.hosts[node].disk.rewinding = false;
                self.forget(node);
                Kept(Box::new(|books| books.led = false))
            }
            _ => Done,
        }
    }

    fn start_standby(&mut self, node: usize, place: &ClusterPlace, phase: u8) -> Next {
        let sealed = !matches!(place.goal, Goal::Standby { .. });
        match phase {
            0 => {
                self.memory(node, |memory| memory.offered = false);
                if self.hosts[node].disk.books.holding.is_none() {
                    self.clear_lease(node);
                }
                self.forget(node);
                After(self.some_ms(5, 40))
            }
            1 => {
                if !self.start(node, false) {
                    return Failed;
                }
                let conf = if sealed { Conf::Sealed } else { conf_of(place) };
                self.follow_conf(node, &conf);
                self.memory(node, |memory| {
                    memory.conf = Some(conf);
                    memory.sealed = sealed.then_some(place.term);
                });
                match self.hosts[node].disk.books.led && !sealed {
                    true => Kept(Box::new(|books| books.led = false)),
                    false => Done,
                }
            }
            _ => Done,
        }
    }

    fn follow_conf(&mut self, node: usize, conf: &Conf) {
        let upstream = match conf {
            Conf::Follows(Some(name)) => self.number_of(name),
            _ => None,
        };
        self.hosts[node].postgres.upstream = upstream;
        if self.hosts[node].postgres.receiver.as_ref().is_some_and(|row| Some(row.from) != upstream)
        {
            self.hang_up(node);
        }
    }

    fn start_primary(&mut self, node: usize, place: &ClusterPlace, phase: u8) -> Next {
        let term = place.term;
        match phase {
            0 => {
                self.memory(node, |memory| memory.offered = false);
                Kept(Box::new(move |books| books.hold(term)))
            }
            1 => {
                if !self.start(node, true) {
                    return Failed;
                }
                if let Goal::Primary(primary) = &place.goal {
                    self.hosts[node].postgres.quorum = primary.quorum.clone();
                }
                let conf = conf_of(place);
                self.memory(node, |memory| {
                    (memory.conf, memory.has_end) = (Some(conf), false);
                });
                Done
            }
            _ => Done,
        }
    }

    fn promote(&mut self, node: usize, place: &ClusterPlace, phase: u8) -> Next {
        let Goal::Primary(primary) = &place.goal else { return Done };
        let term = place.term;
        let reused = self.is(Mutation::TimelineReused);
        match phase {
            0 => {
                let data = self.hosts[node].disk.data.as_ref();
                let claim = self.hosts[node].agent.as_ref().and_then(|a| a.memory.claim);
                let end = data.map_or(Lsn(0), |data| data.end()).max(claim.unwrap_or_default());
                let wrong = self.is(Mutation::WrongPosition);
                if !wrong && end < primary.at_least {
                    return Failed;
                }
                // A promotion that was asked for goes on by itself.
                if self.hosts[node].postgres.promoting {
                    return After(20);
                }
                if !self.is(Mutation::NoQuorumAtPromotion) {
                    self.hosts[node].postgres.quorum = primary.quorum.clone();
                }
                let conf = conf_of(place);
                self.follow_conf(node, &conf);
                self.memory(node, |memory| memory.conf = Some(conf));
                Kept(Box::new(move |books| books.hold(term)))
            }
            1 => {
                self.memory(node, |memory| memory.sealed = None);
                let postgres = &mut self.hosts[node].postgres;
                if postgres.run == Run::Recovery && !postgres.promoting {
                    postgres.promoting = true;
                    postgres.timeline = if reused { 0 } else { primary.timeline };
                    let generation = postgres.generation;
                    let ms = self.some_ms(5, 60);
                    self.queue.after(ms, Event::Promoted { node, generation });
                }
                After(10)
            }
            _ => match self.hosts[node].postgres.run {
                Run::Recovery if phase < 50 => After(10),
                Run::Recovery => Failed,
                _ => Done,
            },
        }
    }

    fn configure(&mut self, node: usize, place: &ClusterPlace, phase: u8) -> Next {
        let term = place.term;
        match (phase, &place.goal) {
            (0, _) => After(self.some_ms(2, 30)),
            (1, Goal::Primary(_)) => Kept(Box::new(move |books| books.hold(term))),
            (2, Goal::Primary(primary)) => {
                if self.hosts[node].postgres.run != Run::Primary {
                    return Failed;
                }
                self.hosts[node].postgres.quorum = primary.quorum.clone();
                self.acknowledge(node);
                let conf = conf_of(place);
                self.memory(node, |memory| {
                    (memory.conf, memory.sealed) = (Some(conf), None);
                    memory.settlement = Default::default();
                });
                Done
            }
            (1, _) => {
                let conf = conf_of(place);
                self.follow_conf(node, &conf);
                self.memory(node, |memory| {
                    (memory.conf, memory.sealed, memory.claim) = (Some(conf), None, None);
                });
                Done
            }
            _ => Done,
        }
    }

    fn seal(&mut self, node: usize, place: &ClusterPlace, phase: u8) -> Next {
        let term = place.term;
        let attached = self.is(Mutation::SealedAttached);
        match phase {
            0 => {
                self.memory(node, |memory| memory.conf = None);
                After(self.some_ms(2, 10))
            }
            1 => {
                if !attached {
                    self.hosts[node].postgres.upstream = None;
                }
                After(self.some_ms(2, 20))
            }
            2 => {
                if attached {
                    // It says so, and its walreceiver is only not looked at.
                    self.hosts[node].postgres.receiver.take_if(|_| false);
                } else {
                    self.hang_up(node);
                }
                self.memory(node, |memory| {
                    (memory.sealed, memory.conf) = (Some(term), Some(Conf::Sealed));
                });
                Done
            }
            _ => Done,
        }
    }

    fn salvage(&mut self, node: usize, place: &ClusterPlace, phase: u8) -> Next {
        let Goal::Sealed { salvage: Some(name) } = &place.goal else { return Done };
        let Some(from) = self.number_of(name) else { return Failed };
        let term: Term = place.term;
        if phase == 0 {
            return After(self.some_ms(50, 400));
        }
        let offered = self.hosts[from].agent.as_ref().is_some_and(|agent| agent.memory.offered);
        if !offered || self.hosts[from].postgres.is_up() || !self.net.connects(node, from) {
            return Failed;
        }
        let Some(theirs) = self.hosts[from].disk.data.clone() else { return Failed };
        if self.is(Mutation::SalvageSkipped) {
            self.memory(node, |memory| memory.claim = Some(theirs.end()));
        } else if let Some(mine) = &mut self.hosts[node].disk.data {
            if !theirs.log.starts_with(&mine.log) {
                return Failed;
            }
            mine.log.clone_from(&theirs.log);
            mine.flushed = mine.log.len();
            mine.follow(&theirs.lineage);
        }
        self.memory(node, |memory| memory.salvaged = Some(term));
        Done
    }

    /// A fast stop; with a primary everything is sent first.
    fn stop(&mut self, node: usize, phase: u8) -> Next {
        if phase == 0 {
            if self.is(Mutation::HandOverByForce) && self.hosts[node].postgres.run == Run::Primary {
                self.kill(node);
                return After(40);
            }
            self.begin_stop(node);
        }
        if self.is(Mutation::HandOverByForce)
            && let Some(data) = &mut self.hosts[node].disk.data
        {
            data.clean = true;
        }
        match self.hosts[node].postgres.run {
            Run::Down => Done,
            _ if phase > 200 => Failed,
            _ => After(20),
        }
    }

    fn fence(&mut self, node: usize, phase: u8) -> Next {
        if phase == 0 {
            self.forget(node);
            self.kill(node);
        }
        match self.is_left(node) {
            false => Done,
            true if phase > 200 => Failed,
            true => After(10),
        }
    }

    fn release(&mut self, node: usize, phase: u8) -> Next {
        let host = &self.hosts[node];
        let Some(term) = host.disk.books.holding else {
            self.clear_lease(node);
            return Done;
        };
        if phase > 0 {
            self.clear_lease(node);
            return Done;
        }
        if self.is_left(node) {
            return Failed;
        }
        let data = host.disk.data.as_ref();
        let clean = data.is_some_and(|data| data.clean);
        let known = host.disk.books.quorum.is_off() || clean;
        let end = data.filter(|_| known).map(|data| data.end());
        let released = Released { term, end, clean };
        Kept(Box::new(move |books| books.release(released)))
    }

    fn attest(&mut self, node: usize, phase: u8) -> Next {
        match phase {
            0 => After(self.some_ms(5, 60)),
            1 => {
                let Some(end) = self.hosts[node].disk.data.as_ref().map(|data| data.end()) else {
                    return Done;
                };
                self.memory(node, |memory| memory.has_end = true);
                Kept(Box::new(move |books| {
                    if let Some(released) = &mut books.released {
                        released.end = Some(end);
                    }
                }))
            }
            _ => {
                self.memory(node, |memory| memory.offered = true);
                Done
            }
        }
    }
}

fn mark(fenced: bool, phase: u8) -> Next {
    match phase {
        0 => Kept(Box::new(move |books| books.fenced = fenced)),
        _ => Done,
    }
}
