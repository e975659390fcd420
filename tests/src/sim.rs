//! One story of a cluster, made from a number: the real planner, ladder, books and leases over simulated
//! machines, clocks, network, disks and postgres. The same number tells the same story.

mod agent;
pub mod checks;
mod controller;
mod event;
mod faults;
pub mod history;
mod host;
mod look;
pub mod mutation;
mod net;
mod postgres;
mod queue;
mod replication;
mod scenario;
mod steps;
mod story;
mod stream;

use std::collections::BTreeMap;

use lockstep_model::NodeName;

use crate::chance::Chance;
use controller::Controller;
use event::Event;
use history::{Fact, History};
use host::Host;
use mutation::Mutation;
use net::Net;
use queue::{At, Queue};
use scenario::Scenario;

/// A violated promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The checker's name.
    pub check: &'static str,
    pub text: String,
}

/// What came of a story.
pub struct Told {
    pub violation: Option<Violation>,
    pub history: History,
    pub scenario: String,
    pub events: u64,
}

impl Told {
    /// As a timeline for people.
    pub fn story(&self) -> String {
        story::tell(self)
    }
}

/// From this number on the store is put back to an older copy in each story.
pub const OLD_COPIES: u64 = 1_000_000;

/// Tells one story to its end and holds it against all checks. `mutation`: a mistake that is made in it.
pub fn tell(seed: u64, mutation: Option<Mutation>) -> Told {
    let mut chance = Chance::new(seed);
    let scenario = match seed >= OLD_COPIES {
        true => Scenario::old_copy(&mut chance),
        false => Scenario::draw(&mut chance),
    };
    let shown = scenario.to_string();
    let mut sim = Sim::new(chance, scenario, mutation);
    sim.run();
    let violation = checks::check(&sim.history);
    Told { violation, history: sim.history, scenario: shown, events: sim.events }
}

/// So long everything has to be well at the end.
const STAYS_MS: At = 4000;

pub(crate) struct Sim {
    queue: Queue<Event>,
    chance: Chance,
    scenario: Scenario,
    mutation: Option<Mutation>,
    net: Net,
    names: BTreeMap<usize, NodeName>,
    hosts: Vec<Host>,
    controller: Controller,
    history: History,
    streams: stream::Streams,
    /// Entries of logs so far: no two are the same.
    entries: u64,
    /// Connections of walreceivers so far.
    connections: u64,
    clients: bool,
    events: u64,
}

impl Sim {
    fn new(mut chance: Chance, scenario: Scenario, mutation: Option<Mutation>) -> Self {
        let names: BTreeMap<usize, NodeName> = scenario.names();
        let hosts = names
            .values()
            .map(|name| Host::new(name.clone(), chance.below(900) as i64 - 450))
            .collect();
        let controller = Controller::new(&scenario, &names);
        Self {
            queue: Queue::default(),
            chance,
            scenario,
            mutation,
            net: Net::default(),
            names,
            hosts,
            controller,
            history: History::default(),
            streams: stream::Streams::default(),
            entries: 0,
            connections: 0,
            clients: true,
            events: 0,
        }
    }

    fn now(&self) -> At {
        self.queue.now()
    }

    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    fn note(&mut self, fact: Fact) {
        self.history.note(self.queue.now(), fact);
    }

    fn say(&mut self, text: impl Into<String>) {
        self.note(Fact::Note(text.into()));
    }

    /// From `least` to `most` milliseconds.
    fn some_ms(&mut self, least: u64, most: u64) -> u64 {
        least + self.chance.below((most - least + 1) as usize) as u64
    }

    fn number_of(&self, name: &NodeName) -> Option<usize> {
        self.names.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
    }

    fn run(&mut self) {
        self.queue.at(0, Event::ControllerStarts);
        for node in 0..self.hosts.len() {
            let boot = self.hosts[node].boot;
            self.queue.at(1, Event::AgentStarts { node, boot });
        }
        self.queue.at(2000, Event::Clients);
        self.schedule_faults();
        self.go_on(self.scenario.faults_end());
        self.heal();
        // Well is what stays so: something may be about to begin.
        let end = self.now() + scenario::SETTLE_MS;
        let mut well_since = None;
        while self.now() < end && well_since.is_none_or(|since| self.now() < since + STAYS_MS) {
            self.go_on(self.now() + 1000);
            let since = well_since.unwrap_or(self.now());
            well_since = self.is_settled().then_some(since);
        }
        self.finish();
    }

    fn go_on(&mut self, end: At) {
        while let Some(event) = self.queue.next(end) {
            self.events += 1;
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::ControllerStarts => self.start_controller(),
            Event::Committed { life } => self.committed(life),
            Event::Wake { life } => self.wake(life),
            Event::Stream { node, session } => self.pump(node, session),
            Event::Silent { session } => self.break_stream(session),
            Event::AgentStarts { node, boot } => self.start_agent(node, boot),
            Event::Kept { node, boot, run, change, then } => {
                self.kept(node, (boot, run), change, then);
            }
            Event::Asked { node, from, term, length, sent_ms } => {
                self.asked(node, from, term, length, sent_ms);
            }
            Event::Guard { node, boot } => self.guard(node, boot),
            Event::Gone { node, generation } => self.gone(node, generation),
            Event::Started { node, generation } => self.started(node, generation),
            Event::Promoted { node, generation } => self.promoted(node, generation),
            Event::Checkpointed { node, generation } => self.checkpointed(node, generation),
            Event::Feed { node, generation } => self.feed(node, generation),
            Event::Wal { node, from, number, start, entries, end } => {
                self.wal(node, from, number, start, &entries, end);
            }
            Event::Flushed { node, generation, number, upto } => {
                self.flushed(node, generation, number, upto);
            }
            Event::Reply { node, from, number, flushed } => {
                self.reply(node, from, number, flushed);
            }
            Event::Receive { node, generation } => self.receive(node, generation),
            Event::Stopping { node, generation, since } => self.stopping(node, generation, since),
            Event::Clients => self.write(),
            Event::Fault(number) => self.begin_fault(number),
            Event::Mend(number) => self.end_fault(number),
            Event::Request(request) => self.request(*request),
            Event::PowerOn { node, boot } => self.power_on(node, boot),
            Event::Thaw { node } => self.hosts[node].frozen = None,
            // The rest is the agent's, which may be stopped.
            event => self.take_agents(event),
        }
    }

    fn take_agents(&mut self, event: Event) {
        let (node, run) = match &event {
            Event::Beat { node, run }
            | Event::Turn { node, run, .. }
            | Event::Phase { node, run, .. }
            | Event::Round { node, run, .. }
            | Event::Over { node, run }
            | Event::Admitted { node, run } => (*node, Some(*run)),
            Event::Answered { node, .. } => (*node, None),
            _ => return,
        };
        let host = &self.hosts[node];
        if host.agent.is_none() || run.is_some_and(|run| !host.runs(run)) {
            return;
        }
        if let Some(thaw) = host.frozen {
            self.queue.at(thaw + 1, event);
            return;
        }
        match event {
            Event::Beat { node, .. } => self.beat(node),
            Event::Turn { node, number, .. } => self.turn(node, number),
            Event::Phase { node, step, phase, .. } => self.phase(node, step, phase),
            Event::Round { node, number, .. } => self.round(node, number),
            Event::Over { node, .. } => self.over(node),
            Event::Admitted { node, .. } => self.take_up(node),
            Event::Answered { node, from, term, sent_ms, answer } => {
                self.answered(node, from, term, sent_ms, answer);
            }
            _ => {}
        }
    }
}
