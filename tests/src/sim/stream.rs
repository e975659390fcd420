//! The stream between an agent and the controller: in order, late, and broken at any moment, which its
//! two ends notice by themselves.

use std::collections::{BTreeMap, VecDeque};

use lockstep_agent::pg::boottime::Boottime;
use lockstep_model::cluster::{Answer, Grant, MemberReport, Renewal};
use lockstep_model::observation::{Observation, Told};
use lockstep_model::task::{Outcome, OutcomeKind, Task, TaskSpec};
use lockstep_model::{Revision, TaskId};

use super::Sim;
use super::controller::{Input, cluster};
use super::event::Event;
use super::mutation::Mutation;
use super::net::CONTROLLER;
use super::queue::At;

/// From the agent.
pub enum Up {
    Hello(Told),
    Report(Box<MemberReport>),
    Renewal(Renewal),
    Ended(TaskId, Outcome),
    Alive,
}

/// To the agent.
pub enum Down {
    /// None: of this store nothing is to be kept.
    Welcome(Option<Told>),
    Offer(Box<Task>, Revision),
    Grant(Grant),
}

/// Without an answer for so long, an end gives the stream up.
const SILENCE_MS: u64 = 4000;
const BEAT_MS: u64 = 500;

#[derive(Default)]
pub struct Streams {
    made: u64,
    open: BTreeMap<u64, Open>,
}

struct Open {
    node: usize,
    up: VecDeque<(At, Up)>,
    down: VecDeque<(At, Down)>,
    /// Nothing got through since then.
    stuck: Option<At>,
}

impl Sim {
    pub fn send_up(&mut self, node: usize, message: Up) {
        let Some(session) = self.hosts[node].agent.as_ref().and_then(|agent| agent.session) else {
            return;
        };
        let at = self.now() + self.some_ms(0, 2) + self.net.slow_ms;
        let Some(open) = self.streams.open.get_mut(&session) else { return };
        let at = open.up.back().map_or(at, |(last, _)| at.max(*last));
        open.up.push_back((at, message));
        self.queue.at(at, Event::Stream { node, session });
    }

    pub fn send_down(&mut self, node: usize, session: u64, message: Down) {
        let at = self.now() + self.some_ms(0, 2) + self.net.slow_ms;
        let Some(open) = self.streams.open.get_mut(&session) else { return };
        let at = open.down.back().map_or(at, |(last, _)| at.max(*last));
        open.down.push_back((at, message));
        self.queue.at(at, Event::Stream { node, session });
    }

    /// What is due arrives, if the way is open.
    pub fn pump(&mut self, node: usize, session: u64) {
        let now = self.now();
        let up_works = self.net.carries(node, CONTROLLER) && self.controller.up;
        let down_works = self.net.carries(CONTROLLER, node);
        loop {
            let Some(open) = self.streams.open.get_mut(&session) else { return };
            let due = |at: &At| *at <= now;
            let ups = open.up.front().is_some_and(|(at, _)| due(at));
            let downs = open.down.front().is_some_and(|(at, _)| due(at));
            // Without acknowledgements neither way goes on for long.
            if (ups || downs) && !(up_works && down_works) {
                let since = *open.stuck.get_or_insert(now);
                if now >= since + SILENCE_MS {
                    return self.break_stream(session);
                }
                let passes = (ups && up_works) || (downs && down_works);
                if !passes || now > since {
                    return self.queue.after(200, Event::Stream { node, session });
                }
            } else {
                open.stuck = None;
            }
            if ups && up_works {
                if let Some((_, message)) = open.up.pop_front() {
                    self.hear_agent(node, session, message);
                }
            } else if downs && down_works {
                if let Some((_, message)) = open.down.pop_front() {
                    self.hear_controller(node, session, message);
                }
            } else {
                return;
            }
        }
    }

    /// Both ends notice; the one that is cut off notices too.
    pub fn break_stream(&mut self, session: u64) {
        let Some(open) = self.streams.open.remove(&session) else { return };
        let node = open.node;
        if let Some(agent) = &mut self.hosts[node].agent
            && agent.session == Some(session)
        {
            agent.session = None;
        }
        if self.controller.sessions.get(&node) == Some(&session) {
            self.controller.sessions.remove(&node);
            self.controller.offered.remove(&node);
            let observation = Box::new(Observation::Disconnected { why: "link lost".to_owned() });
            self.tell_controller(Input::Said { node, session, observation });
        }
    }

    /// The node's end is gone without a word: the other one finds out.
    pub fn lose_stream(&mut self, node: usize) {
        let agent = self.hosts[node].agent.take();
        if let Some(session) = agent.and_then(|agent| agent.session) {
            self.queue.after(SILENCE_MS, Event::Silent { session });
        }
    }

    pub fn break_streams_of(&mut self, node: Option<usize>) {
        let is_it = |open: &Open| node.is_none_or(|node| node == open.node);
        let all: Vec<u64> =
            self.streams.open.iter().filter(|(_, open)| is_it(open)).map(|(id, _)| *id).collect();
        all.into_iter().for_each(|session| self.break_stream(session));
    }

    /// The agent lives: it dials, or says so.
    pub fn beat(&mut self, node: usize) {
        let Some(agent) = &self.hosts[node].agent else { return };
        let run = agent.run;
        match agent.session {
            Some(session) if !self.streams.open.contains_key(&session) => {
                self.hosts[node].agent.as_mut().into_iter().for_each(|agent| agent.session = None);
            }
            Some(_) => self.send_up(node, Up::Alive),
            None if self.controller.up && self.net.connects(node, CONTROLLER) => self.dial(node),
            None => {}
        }
        let ms = self.some_ms(BEAT_MS - 100, BEAT_MS + 100);
        self.queue.after(ms, Event::Beat { node, run });
    }

    fn dial(&mut self, node: usize) {
        self.streams.made += 1;
        let session = self.streams.made;
        let open = Open { node, up: VecDeque::new(), down: VecDeque::new(), stuck: None };
        self.streams.open.insert(session, open);
        let host = &mut self.hosts[node];
        let told = if self.mutation == Some(Mutation::ToldForgotten) {
            Told::default()
        } else {
            host.disk.told
        };
        let Some(agent) = &mut host.agent else { return };
        agent.session = Some(session);
        let said = agent.said.take().map(|(report, _)| report);
        let ended = host.disk.task.clone().and_then(|(id, outcome)| Some((id, outcome?)));
        self.send_up(node, Up::Hello(told));
        if let Some(report) = said {
            self.send_up(node, Up::Report(Box::new(report)));
        }
        if let Some((id, outcome)) = ended {
            self.send_up(node, Up::Ended(id, outcome));
        }
    }

    fn hear_agent(&mut self, node: usize, session: u64, message: Up) {
        let said = |observation| Input::Said { node, session, observation: Box::new(observation) };
        match message {
            Up::Hello(told) => {
                if let Some(old) = self.controller.sessions.insert(node, session)
                    && old != session
                {
                    self.streams.open.remove(&old);
                }
                self.controller.offered.remove(&node);
                self.tell_controller(said(Observation::Connected(told)));
            }
            Up::Report(report) => {
                let observation = Observation::Cluster { cluster: cluster(), report: Some(report) };
                self.tell_controller(said(observation));
            }
            Up::Ended(id, outcome) => self.tell_controller(Input::Ended { node, id, outcome }),
            Up::Alive => self.tell_controller(Input::Heard { node }),
            Up::Renewal(renewal) => self.renew(node, session, renewal),
        }
    }

    /// The first word, once it is known what the agent knows.
    pub fn welcome(&mut self, node: usize, session: u64) {
        let world = &self.controller.world;
        let incarnation = world.fleet().map(|fleet| fleet.value.incarnation).unwrap_or_default();
        // Of a store that is behind nothing is remembered.
        let told = world.store_behind().is_none().then(|| Told {
            incarnation,
            life: world.past().current(),
            revision: world.revision(),
        });
        self.send_down(node, session, Down::Welcome(told));
        self.offer(node);
    }

    /// Answered by the session, whatever the loop waits for.
    fn renew(&mut self, node: usize, session: u64, renewal: Renewal) {
        if self.controller.sessions.get(&node) != Some(&session) {
            return;
        }
        let up = self.controller.uptime(self.now());
        let world = &mut self.controller.world;
        let asked = world.renew_lease(&self.names[&node], &cluster(), renewal.term, up);
        let answer = match asked {
            Ok(Some(length)) => Answer::For(length),
            Ok(None) => Answer::WithoutEnd,
            Err(why) => Answer::Refused(why.to_string()),
        };
        let grant = Grant::answering(renewal, answer);
        self.send_down(node, session, Down::Grant(grant));
    }

    fn hear_controller(&mut self, node: usize, session: u64, message: Down) {
        let now = self.now();
        let frozen = self.hosts[node].frozen;
        let host = &mut self.hosts[node];
        let clock = host.clock(now);
        let Some(agent) = &mut host.agent else { return };
        if agent.session != Some(session) {
            return;
        }
        if let Some(thaw) = frozen {
            // It is read when the process goes on.
            if let Some(open) = self.streams.open.get_mut(&session) {
                open.down.push_front((thaw + 1, message));
            }
            self.queue.at(thaw + 1, Event::Stream { node, session });
            return;
        }
        match message {
            Down::Welcome(told) => {
                agent.keeps_told = told.is_some();
                if let Some(told) = told {
                    remember(&mut host.disk.told, told);
                }
            }
            Down::Grant(mut grant) => {
                if self.mutation == Some(Mutation::LeaseFromAnswer) {
                    grant.sent_ms = clock.0;
                }
                agent.tenure.note(&grant, clock);
                self.arm(node);
                self.wake_agent(node);
            }
            Down::Offer(task, revision) => {
                if agent.keeps_told {
                    let known = host.disk.told;
                    remember(&mut host.disk.told, Told { revision, ..known });
                }
                self.offered(node, *task);
            }
        }
    }

    fn offered(&mut self, node: usize, task: Task) {
        let host = &mut self.hosts[node];
        let Some(agent) = &mut host.agent else { return };
        if let Some((id, Some(outcome))) = &host.disk.task
            && *id == task.id
        {
            let (id, outcome) = (*id, outcome.clone());
            return self.send_up(node, Up::Ended(id, outcome));
        }
        if host.disk.task.as_ref().is_some_and(|(id, _)| *id > task.id) {
            let outcome = Outcome::new(OutcomeKind::Superseded, "a newer one was there");
            return self.send_up(node, Up::Ended(task.id, outcome));
        }
        match task.spec {
            TaskSpec::ClusterPlace(place) => {
                agent.waiting = Some((task.id, *place));
                self.take_up(node);
            }
            TaskSpec::ClusterAct(_) => {
                self.send_up(node, Up::Ended(task.id, Outcome::ok()));
            }
            _ => {
                let outcome = Outcome::new(OutcomeKind::Unsupported, "not simulated");
                self.send_up(node, Up::Ended(task.id, outcome));
            }
        }
    }
}

/// Another life of the store begins its own count.
fn remember(known: &mut Told, told: Told) {
    if (known.incarnation, known.life) != (told.incarnation, told.life) {
        *known = told;
    } else {
        known.revision = known.revision.max(told.revision);
    }
}

/// For answers that name a moment of a machine.
pub fn moment(sent_ms: u64) -> Boottime {
    Boottime(sent_ms)
}
