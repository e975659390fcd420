//! An agent at work: it takes places up, keeps its lease and its guard, looks, decides by the real
//! ladder, and tells what it is like. What its steps do is in `steps`.

use lockstep_agent::pg::books::{Admission, Books};
use lockstep_agent::pg::boottime::Boottime;
use lockstep_agent::pg::lease::{Duty, Round, Tenure};
use lockstep_agent::pg::member::decision::{self, Known, leased_term, quorums};
use lockstep_agent::pg::member::ladder::{Step, Wait};
use lockstep_model::cluster::{ClusterPlace, Goal, MemberState, Renewal, Term};
use lockstep_model::task::{Outcome, OutcomeKind};
use lockstep_model::{Millis, TaskId};

use super::Sim;
use super::controller::cluster;
use super::event::{Change, Event, Then};
use super::history::Fact;
use super::host::{Agent, Guard, Memory, UnderWay};
use super::look::Seen;
use super::mutation::Mutation;
use super::postgres::Run;
use super::stream::{Up, moment};

impl Sim {
    pub fn start_agent(&mut self, node: usize, boot: u64) {
        let now = self.now();
        let forgets = self.is(Mutation::BooksInMemory);
        let host = &mut self.hosts[node];
        if !host.power || host.boot != boot || host.agent.is_some() {
            return;
        }
        host.runs += 1;
        let run = host.runs;
        if forgets {
            let system_id = host.disk.books.system_id;
            let copy = host.disk.books.copy;
            host.disk.books = Books { system_id, copy, ..Books::default() };
        }
        let (id, clock) = (host.boot_id(), host.clock(now));
        host.disk.books.recount(&id, clock);
        let found = host.guard.as_ref().map(|guard| guard.deadline);
        let tenure = Tenure::new(host.name.clone(), found);
        let promised = host.disk.books.promised.0;
        host.agent = Some(Agent {
            run,
            held: tenure.held(false),
            tenure,
            waiting: None,
            wanted: None,
            session: None,
            keeps_told: false,
            replies: Default::default(),
            memory: Memory::default(),
            step: None,
            steps: 0,
            writing: 0,
            turns: 0,
            rounds: 0,
            said: None,
        });
        self.note(Fact::Promised { node, term: promised });
        self.queue.after(1, Event::Beat { node, run });
        self.wake_agent(node);
    }

    pub fn stop_agent(&mut self, node: usize) {
        if let Some(session) = self.hosts[node].agent.take().and_then(|agent| agent.session) {
            self.break_stream(session);
        }
    }

    /// The next look is now.
    pub fn wake_agent(&mut self, node: usize) {
        self.turn_after(node, 0);
    }

    fn turn_after(&mut self, node: usize, ms: u64) {
        let Some(agent) = &mut self.hosts[node].agent else { return };
        agent.turns += 1;
        let (run, number) = (agent.run, agent.turns);
        self.queue.after(ms, Event::Turn { node, run, number });
    }

    /// Changes books on disk; what is to follow does so once they are there.
    pub fn keep(&mut self, node: usize, change: Change, then: Then) {
        let host = &mut self.hosts[node];
        let (boot, run) = (host.boot, host.runs);
        if let Some(agent) = &mut host.agent {
            agent.writing += 1;
        }
        let ms = self.some_ms(1, 6);
        self.queue.after(ms, Event::Kept { node, boot, run, change, then });
    }

    pub fn kept(&mut self, node: usize, (boot, run): (u64, u64), change: Change, then: Then) {
        let (now, forgets_nothing) = (self.now(), !self.is(Mutation::PromiseForgotten));
        let in_memory = self.is(Mutation::PromiseInMemory);
        let host = &mut self.hosts[node];
        if !host.power || host.boot != boot {
            return;
        }
        if let Some(agent) = host.agent.as_mut().filter(|agent| agent.run == run) {
            agent.writing = agent.writing.saturating_sub(1);
        }
        let before = host.disk.books.promised;
        // One change at a time: a promise may have become durable since this one was asked for.
        if let Then::Placed { .. } = then
            && forgets_nothing
            && let Some((_, place)) = host.agent.as_ref().and_then(|agent| agent.waiting.as_ref())
            && let Admission::At(_) = host.disk.books.admit(place, host.clock(now))
        {
            return self.take_up(node);
        }
        change(&mut host.disk.books);
        let after = host.disk.books.promised;
        if after != before {
            self.note(Fact::Promised { node, term: after.0 });
        }
        match then {
            Then::Nothing => {}
            Then::Phase { run, step, phase } => self.take(Event::Phase { node, run, step, phase }),
            Then::Placed { run, task } if self.hosts[node].runs(run) => self.placed(node, task),
            Then::Placed { .. } => {}
            Then::Promise { to, term, length, sent_ms } => {
                let name = &self.names[&to];
                let promise = self.hosts[node].disk.books.promise.as_ref();
                let given = promise.is_some_and(|given| given.to == *name && given.term == term);
                let refused = || "a later term came in between".to_owned();
                let answer = (given || in_memory).then_some(length).ok_or_else(refused);
                self.answer(node, to, term, sent_ms, answer);
            }
        }
    }

    /// Takes the newest place up, or waits for the end of a promise.
    pub fn take_up(&mut self, node: usize) {
        let now = self.now();
        let (lax, promises) =
            (self.is(Mutation::SmallerTerm), !self.is(Mutation::PromiseForgotten));
        let host = &mut self.hosts[node];
        let clock = host.clock(now);
        let Some(agent) = &mut host.agent else { return };
        let Some((id, place)) = agent.waiting.clone() else { return };
        let run = agent.run;
        let admission = match host.disk.books.admit(&place, clock) {
            Admission::Refused(_) if lax => Admission::Now,
            Admission::At(_) if !promises => Admission::Now,
            admission => admission,
        };
        match admission {
            Admission::Refused(why) => {
                agent.waiting = None;
                let outcome = Outcome::new(OutcomeKind::Failed, why);
                host.disk.task = Some((id, Some(outcome.clone())));
                self.send_up(node, Up::Ended(id, outcome));
            }
            Admission::At(end) => {
                agent.wanted = Some(place.term);
                let at = host.when(end, now);
                self.queue.at(at, Event::Admitted { node, run });
            }
            Admission::Now => {
                let kept = place.clone();
                let change = move |books: &mut Books| books.take_up(&kept);
                self.keep(node, Box::new(change), Then::Placed { run, task: id });
            }
        }
    }

    fn placed(&mut self, node: usize, task: TaskId) {
        let host = &mut self.hosts[node];
        let Some(agent) = &mut host.agent else { return };
        let Some((id, place)) = agent.waiting.take_if(|(id, _)| *id == task) else { return };
        // Not before it is on disk: until then it could still promise the opposite.
        agent.wanted = None;
        let before = host.disk.place.replace(place);
        host.disk.task = Some((id, Some(Outcome::ok())));
        let key = |place: &ClusterPlace| (place.term, place.goal.clone(), place.copy);
        let now = host.disk.place.as_ref().map(key);
        if before.as_ref().map(key) != now {
            agent.step = None;
            let (name, shown) = (host.name.clone(), host.disk.place.as_ref());
            if let Some(place) = shown {
                let text = format!("{name}: told to be {} in term {}", goal(place), place.term);
                self.say(text);
            }
        }
        self.send_up(node, Up::Ended(id, Outcome::ok()));
        self.wake_agent(node);
    }

    /// The primary of `term` asks for a promise.
    pub fn asked(&mut self, node: usize, from: usize, term: Term, length: Millis, sent_ms: u64) {
        if !self.net.carries(from, node) || self.hosts[node].frozen.is_some() {
            return;
        }
        let now = self.now();
        let in_memory = self.is(Mutation::PromiseInMemory);
        let to = self.names[&from].clone();
        let host = &mut self.hosts[node];
        let (id, clock) = (host.boot_id(), host.clock(now));
        let Some(agent) = &host.agent else { return };
        let known = host.disk.place.as_ref();
        if !known.is_some_and(|place| place.peers.iter().any(|peer| peer.peer.node == to)) {
            return;
        }
        let (wanted, boot) = (agent.wanted, host.boot);
        let mut trial = host.disk.books.clone();
        if let Err(why) = trial.promise(&to, term, length, &id, clock, wanted) {
            return self.answer(node, from, term, sent_ms, Err(why));
        }
        let then = Then::Promise { to: from, term, length, sent_ms };
        if in_memory {
            return self.kept(node, (boot, 0), Box::new(|_| ()), then);
        }
        let change = move |books: &mut Books| {
            // Refused if another change came in between; who asked is told by what is there then.
            let _ = books.promise(&to, term, length, &id, clock, wanted);
        };
        self.keep(node, Box::new(change), then);
    }

    fn answer(
        &mut self,
        node: usize,
        to: usize,
        term: Term,
        sent_ms: u64,
        answer: Result<Millis, String>,
    ) {
        if self.net.carries(node, to) {
            let ms = self.some_ms(1, 10) + self.net.slow_ms;
            self.queue.after(ms, Event::Answered { node: to, from: node, term, sent_ms, answer });
        }
    }

    pub fn answered(
        &mut self,
        node: usize,
        from: usize,
        term: Term,
        sent_ms: u64,
        answer: Result<Millis, String>,
    ) {
        let now = self.now();
        let from = self.names[&from].clone();
        let host = &mut self.hosts[node];
        let clock = host.clock(now);
        let Some(agent) = &mut host.agent else { return };
        agent.tenure.promised(from, term, moment(sent_ms), answer);
        let replies = agent.replies.clone();
        agent.tenure.carry_on(&replies, clock);
        self.arm(node);
    }

    /// The lease is asked for anew.
    pub fn round(&mut self, node: usize, number: u64) {
        let now = self.now();
        let enough = self.is(Mutation::OnePromise);
        let host = &mut self.hosts[node];
        let clock = host.clock(now);
        let Some(agent) = &mut host.agent else { return };
        if agent.rounds != number {
            return;
        }
        let (run, replies) = (agent.run, agent.replies.clone());
        let Some(Round { term, peers, length, interval }) = agent.tenure.round(&replies, clock)
        else {
            return;
        };
        if enough
            && let Some(duty) = agent.tenure.duty().cloned()
            && let Some(one) = duty.promotable.iter().find(|other| **other != host.name)
        {
            let promotable = vec![one.clone()];
            agent.tenure.take(Some(Duty { promotable, ..duty }));
        }
        self.send_up(
            node,
            Up::Renewal(Renewal { cluster: cluster(), term, sent_ms: clock.0, away: None }),
        );
        for peer in peers {
            let Some(to) = self.number_of(&peer.node) else { continue };
            if self.net.carries(node, to) {
                let ms = self.some_ms(1, 10) + self.net.slow_ms;
                let sent_ms = clock.0;
                self.queue.after(ms, Event::Asked { node: to, from: node, term, length, sent_ms });
            }
        }
        self.arm(node);
        self.queue.after(interval.0, Event::Round { node, run, number });
    }

    /// Has the guard know what is held, and shows it then.
    pub fn arm(&mut self, node: usize) {
        let now = self.now();
        let guarded = !self.is(Mutation::NoGuard) && !self.is(Mutation::NoFence);
        let host = &mut self.hosts[node];
        let boot = host.boot;
        let Some(agent) = &mut host.agent else { return };
        let (run, fence_at) = (agent.run, agent.tenure.fence_at());
        let before = agent.held.fence_at;
        agent.held = agent.tenure.held(true);
        if !agent.tenure.is_granted() {
            return;
        }
        let deadline = (fence_at != Boottime::NEVER).then_some(fence_at);
        let is_new = host.guard.as_ref().is_none_or(|guard| guard.deadline != deadline);
        if guarded && is_new {
            host.guard = Some(Guard { deadline });
        }
        if is_new || before != fence_at {
            let at = host.when(fence_at, now);
            self.queue.at(at, Event::Guard { node, boot });
            self.queue.at(at, Event::Over { node, run });
        }
    }

    /// Nothing of the instance is left: nothing is guarded.
    pub fn clear_lease(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        if let Some(guard) = &mut host.guard {
            guard.deadline = None;
        }
        if let Some(agent) = &mut host.agent {
            agent.tenure.clear();
            agent.held = agent.tenure.held(true);
        }
    }

    pub fn guard(&mut self, node: usize, boot: u64) {
        let now = self.now();
        let host = &self.hosts[node];
        let due = host.guard.as_ref().and_then(|guard| guard.deadline);
        if host.boot == boot && due.is_some_and(|due| host.clock(now) >= due) {
            if host.postgres.is_up() {
                self.say(format!("{}: the guard ends postgres", self.hosts[node].name));
            }
            self.kill(node);
        }
    }

    pub fn over(&mut self, node: usize) {
        let now = self.now();
        if self.is(Mutation::NoFence) {
            return;
        }
        let host = &mut self.hosts[node];
        let clock = host.clock(now);
        let Some(agent) = &mut host.agent else { return };
        if clock >= agent.held.fence_at && host.disk.books.holding.is_some() {
            let ends = |step: &mut UnderWay| matches!(step.step, Step::Fence | Step::Release);
            if !agent.step.as_mut().is_some_and(ends) {
                agent.step = None;
            }
            self.wake_agent(node);
        }
    }

    /// Has the lease kept that the place asks for.
    fn keep_lease(&mut self, node: usize, place: &ClusterPlace) {
        let host = &mut self.hosts[node];
        let books = &host.disk.books;
        let Some(agent) = &mut host.agent else { return };
        let duty = leased_term(place, books).map(|term| Duty {
            term,
            is_held: books.holding == Some(term),
            holds_nothing: books.holding.is_none(),
            options: place.options.lease.clone(),
            quorums: quorums(place, books),
            promotable: place.promotable.clone(),
            peers: place.peers.iter().map(|peer| peer.peer.clone()).collect(),
            cgroup: Default::default(),
        });
        if duty.as_ref() == agent.tenure.duty() {
            return;
        }
        let term = |duty: Option<&Duty>| duty.map(|duty| duty.term);
        let is_new = term(duty.as_ref()) != term(agent.tenure.duty());
        agent.tenure.take(duty);
        if is_new {
            agent.rounds += 1;
            let (run, number) = (agent.run, agent.rounds);
            self.queue.after(0, Event::Round { node, run, number });
        }
        self.arm(node);
    }

    /// Looks, decides, tells, and begins the step.
    pub fn turn(&mut self, node: usize, number: u64) {
        let Some(agent) = &self.hosts[node].agent else { return };
        if agent.turns != number || agent.step.is_some() {
            return;
        }
        // What a step wrote that was ended meanwhile is known before anything is decided.
        if agent.writing > 0 && !self.is(Mutation::BooksUnsettled) {
            return self.turn_after(node, 1);
        }
        let Some(place) = self.hosts[node].disk.place.clone() else { return };
        self.keep_lease(node, &place);
        let seen = self.look(node, &place);
        let step = self.decide(node, &place, &seen);
        self.report(node, &place, &seen, step);
        match step {
            Step::TakeLease => self.turn_after(node, 20),
            Step::Stay | Step::Wait(_) => {
                self.keep_up(node, &place, &seen);
                let ms = match (seen.state, step) {
                    (_, Step::Wait(Wait::Progress)) => 20,
                    (MemberState::Primary, _) if self.settles(node) => 20,
                    (MemberState::Standby | MemberState::Sealed, _) => 100,
                    _ if matches!(place.goal, Goal::Primary(_) | Goal::HandOver) => 300,
                    _ => 1000,
                };
                self.turn_after(node, ms);
            }
            step => self.begin(node, step),
        }
    }

    fn decide(&mut self, node: usize, place: &ClusterPlace, seen: &Seen) -> Step {
        let now = self.now();
        let host = &self.hosts[node];
        let Some(agent) = &host.agent else { return Step::Stay };
        let memory = &agent.memory;
        let end = seen.end.as_ref().map(|(lineage, end)| (lineage, *end));
        let known = Known {
            state: seen.state,
            runs: self.is_left(node),
            configured: self.is_configured(node, place, seen),
            end,
            salvaged: memory.salvaged,
            restart_failed: None,
            attested: memory.offered,
            in_recovery: host.disk.data.as_ref().is_some_and(|data| data.in_recovery),
        };
        let mut held = agent.held.clone();
        if self.is(Mutation::NoFence) {
            held.fence_at = Boottime::NEVER;
        }
        let step = decision::decide(place, &known, &host.disk.books, &held, host.clock(now));
        match step {
            Step::Mend if self.is(Mutation::DivergenceIgnored) => Step::StartStandby,
            step => step,
        }
    }

    /// Whether the agent finds a process of the instance.
    pub fn is_left(&self, node: usize) -> bool {
        let postgres = &self.hosts[node].postgres;
        // Backends live on for a while after their postmaster.
        postgres.is_up() && !(postgres.dying && self.is(Mutation::ReleasedAlive))
    }

    fn settles(&self, node: usize) -> bool {
        let host = &self.hosts[node];
        let settling = host.agent.as_ref().is_some_and(|a| a.memory.settlement.is_under_way());
        settling || (host.postgres.run == Run::Primary && !host.postgres.checkpointed)
    }

    fn begin(&mut self, node: usize, step: Step) {
        let Some(agent) = &mut self.hosts[node].agent else { return };
        agent.steps += 1;
        let (run, number) = (agent.run, agent.steps);
        agent.step = Some(UnderWay { number, step });
        let text = format!("{}: {step:?}", self.hosts[node].name);
        self.say(text);
        self.queue.after(0, Event::Phase { node, run, step: number, phase: 0 });
    }

    /// Ends the step under way; the next look is after so long.
    pub fn end_step(&mut self, node: usize, ms: u64) {
        if let Some(agent) = &mut self.hosts[node].agent {
            agent.step = None;
        }
        self.turn_after(node, ms);
    }
}

fn goal(place: &ClusterPlace) -> String {
    match &place.goal {
        Goal::Primary(primary) => format!("primary ({})", primary.quorum),
        Goal::Standby { upstream: Some(upstream) } => format!("standby of {upstream}"),
        Goal::Sealed { salvage: Some(from) } => format!("sealed, with the log of {from}"),
        goal => goal.as_str().to_owned(),
    }
}
