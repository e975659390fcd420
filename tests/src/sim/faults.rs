//! Faults and requests of a scenario, begun and ended; and in the end everything made well. What they
//! are about is looked up when they begin.

use lockstep_model::Incarnation;
use lockstep_model::cluster::MemberAdmin;
use lockstep_model::request::{NodeAction, Request};
use lockstep_model::setting::Value;

use super::Sim;
use super::controller::cluster;
use super::event::Event;
use super::history::{End, Fact, Harm};
use super::net::CONTROLLER;
use super::postgres::Run;
use super::scenario::{Kind, Whom};

/// From the power to the agent.
const BOOT_MS: u64 = 1500;
const FLAP_MS: u64 = 3000;

impl Sim {
    pub fn schedule_faults(&mut self) {
        let times: Vec<u64> = self.scenario.faults.iter().map(|fault| fault.at).collect();
        for (number, at) in times.into_iter().enumerate() {
            self.queue.at(at, Event::Fault(number));
        }
    }

    fn node(&self, whom: Whom) -> usize {
        let primary = || self.hosts.iter().position(|host| host.postgres.run == Run::Primary);
        match whom {
            Whom::Member(node) => node,
            Whom::Primary => primary().unwrap_or(0),
        }
    }

    pub fn begin_fault(&mut self, number: usize) {
        let fault = self.scenario.faults[number];
        let (what, harms) = (format!("{:?}", fault.kind), harm(fault.kind));
        let whom = self.about(fault.kind).map(|node| format!(" [{}]", self.names[&node]));
        let what = format!("{what}{} for {} ms", whom.unwrap_or_default(), fault.for_ms);
        self.note(Fact::Fault { what, harms });
        self.queue.after(fault.for_ms, Event::Mend(number));
        let node = self.about(fault.kind).unwrap_or(0);
        // What it is about stays the same until its end.
        let fixed = fix(fault.kind, node);
        self.scenario.faults[number].kind = fixed;
        self.inflict(fixed, number);
    }

    fn about(&self, kind: Kind) -> Option<usize> {
        match kind {
            Kind::Crash(whom)
            | Kind::Hang(whom)
            | Kind::KillAgent(whom)
            | Kind::FreezeAgent(whom)
            | Kind::KillBoth(whom)
            | Kind::PowerOff(whom)
            | Kind::Cut(whom)
            | Kind::CutFromController(whom)
            | Kind::CutOneWay(whom, _)
            | Kind::Flap(whom)
            | Kind::Fence(whom)
            | Kind::StopMember(whom)
            | Kind::Maintain(whom)
            | Kind::Disable(whom) => Some(self.node(whom)),
            Kind::Split(_) | Kind::SplitWithController => Some(self.node(Whom::Primary)),
            _ => None,
        }
    }

    fn inflict(&mut self, kind: Kind, number: usize) {
        match kind {
            Kind::Crash(Whom::Member(node)) => self.end_crashed(node),
            Kind::Hang(Whom::Member(node)) => {
                let now = self.now();
                let postgres = &mut self.hosts[node].postgres;
                postgres.hung = postgres.is_up().then_some(now);
            }
            Kind::KillAgent(Whom::Member(node)) => self.stop_agent(node),
            Kind::FreezeAgent(Whom::Member(node)) => {
                let thaw = self.now() + self.scenario.faults[number].for_ms;
                self.hosts[node].frozen = Some(thaw);
                self.queue.at(thaw, Event::Thaw { node });
            }
            Kind::KillBoth(Whom::Member(node)) => {
                self.stop_agent(node);
                self.end_crashed(node);
            }
            Kind::PowerOff(Whom::Member(node)) => self.power_off(node),
            Kind::Cut(Whom::Member(node)) | Kind::Flap(Whom::Member(node)) => {
                self.cut_off(node, true);
                if matches!(kind, Kind::Flap(_)) {
                    self.queue.after(FLAP_MS, Event::Mend(number));
                }
            }
            Kind::CutFromController(Whom::Member(node)) => self.cut(node, CONTROLLER, true),
            Kind::CutOneWay(Whom::Member(node), up) => match up {
                true => self.net.cut(node, CONTROLLER),
                false => self.net.cut(CONTROLLER, node),
            },
            Kind::CutPair(a, b) => self.cut(a, b, true),
            Kind::Split(with) => {
                let primary = self.node(Whom::Primary);
                for one in [primary, with] {
                    self.cut(one, CONTROLLER, true);
                    for other in (0..self.hosts.len()).filter(|n| *n != primary && *n != with) {
                        self.cut(one, other, true);
                    }
                }
            }
            Kind::SplitWithController => {
                let primary = self.node(Whom::Primary);
                for other in (0..self.hosts.len()).filter(|n| *n != primary) {
                    self.cut(other, primary, true);
                    self.cut(other, CONTROLLER, true);
                }
            }
            Kind::BreakStreams => self.break_streams_of(None),
            Kind::SlowNet(ms) => self.net.slow_ms = ms,
            Kind::Blackout => (0..self.hosts.len()).for_each(|node| self.power_off(node)),
            Kind::StopController => {
                self.break_streams_of(None);
                self.stop_controller();
            }
            Kind::SlowStore => self.controller.slow_ms = 700,
            Kind::OldCopy(_) => self.controller.copy = Some(self.controller.snapshot()),
            Kind::WallClock(ms) => {
                self.controller.wall_ms += ms;
                let life = self.controller.life;
                self.wake(life);
            }
            kind => self.ask(kind),
        }
    }

    fn power_off(&mut self, node: usize) {
        self.lose_stream(node);
        self.hosts[node].power = false;
        self.end_postgres(node);
        self.hosts[node].lose_power();
    }

    /// It ends by itself, and takes nothing with it.
    fn end_crashed(&mut self, node: usize) {
        let generation = self.hosts[node].postgres.generation;
        self.gone(node, generation);
    }

    fn cut(&mut self, a: usize, b: usize, is_cut: bool) {
        for (from, to) in [(a, b), (b, a)] {
            match is_cut {
                true => self.net.cut(from, to),
                false => self.net.mend(from, to),
            }
        }
    }

    fn cut_off(&mut self, node: usize, is_cut: bool) {
        self.cut(node, CONTROLLER, is_cut);
        for other in (0..self.hosts.len()).filter(|other| *other != node) {
            self.cut(node, other, is_cut);
        }
    }

    fn ask(&mut self, kind: Kind) {
        let name = |sim: &Self, node: usize| sim.names[&node].clone();
        let admin = |node, admin| Request::SetMemberAdmin { cluster: cluster(), node, admin };
        let request = match kind {
            Kind::Switchover(to) => {
                let to = to.map(|to| name(self, to));
                Request::Switchover { cluster: cluster(), to, at: None }
            }
            Kind::Failover(to) => {
                let to = to.map(|to| name(self, to));
                Request::Failover { cluster: cluster(), to, allow_loss: false }
            }
            Kind::AllowLoss(to) => {
                let to = Some(name(self, to));
                Request::Failover { cluster: cluster(), to, allow_loss: true }
            }
            Kind::Fence(Whom::Member(node)) => admin(name(self, node), MemberAdmin::Fenced),
            Kind::StopMember(Whom::Member(node)) => admin(name(self, node), MemberAdmin::Stopped),
            Kind::Maintain(Whom::Member(node)) => admin(name(self, node), MemberAdmin::Maintenance),
            Kind::Disable(Whom::Member(node)) => {
                Request::ChangeNode { node: name(self, node), action: NodeAction::Disable }
            }
            Kind::Pause => Request::SetClusterPaused { cluster: cluster(), paused: true },
            Kind::Reclone(node) => Request::Reclone { cluster: cluster(), node: name(self, node) },
            Kind::Edit(text) => {
                let Some((name, text)) = text.split_once('=') else { return };
                let value = Value { name: name.to_owned(), text: text.to_owned() };
                Request::EditCluster { cluster: cluster(), values: vec![value], members: vec![] }
            }
            _ => return,
        };
        self.request(request);
    }

    pub fn end_fault(&mut self, number: usize) {
        let fault = self.scenario.faults[number];
        let node = self.about(fault.kind).unwrap_or(0);
        let over = fault.at + fault.for_ms;
        match fault.kind {
            Kind::Flap(_) if self.now() < over => {
                let is_cut = self.net.connects(node, CONTROLLER);
                self.cut_off(node, is_cut);
                self.queue.after(FLAP_MS, Event::Mend(number));
                return;
            }
            Kind::Hang(_) => self.hosts[node].postgres.hung = None,
            Kind::KillAgent(_) | Kind::KillBoth(_) => {
                let boot = self.hosts[node].boot;
                self.start_agent(node, boot);
            }
            Kind::PowerOff(_) => {
                let boot = self.hosts[node].boot;
                self.queue.after(BOOT_MS, Event::PowerOn { node, boot });
            }
            Kind::Blackout => {
                for node in 0..self.hosts.len() {
                    let (boot, ms) = (self.hosts[node].boot, self.some_ms(0, 4000));
                    self.queue.after(BOOT_MS + ms, Event::PowerOn { node, boot });
                }
            }
            Kind::Cut(_) | Kind::Flap(_) => self.cut_off(node, false),
            Kind::CutFromController(_) | Kind::CutOneWay(..) => {
                self.cut(node, CONTROLLER, false);
            }
            Kind::CutPair(a, b) => self.cut(a, b, false),
            Kind::Split(_) | Kind::SplitWithController => self.net.mend_all(),
            Kind::SlowNet(_) => self.net.slow_ms = 0,
            Kind::StopController => self.queue.after(0, Event::ControllerStarts),
            Kind::SlowStore => self.controller.slow_ms = 0,
            Kind::OldCopy(written) => {
                self.break_streams_of(None);
                if self.controller.up {
                    self.stop_controller();
                }
                self.restore_store();
                self.queue.after(500, Event::ControllerStarts);
                // Past every revision that agents were told, with none of them there.
                for n in 0..written {
                    let node = self.names[&0].clone();
                    let key = "n".parse().into_iter();
                    let set = key.map(|key| (key, n.to_string())).collect();
                    let remove = Vec::new();
                    let label = Request::LabelNode { node, set, remove };
                    self.queue.after(501 + n, Event::Request(Box::new(label)));
                }
                let incarnation = Incarnation(7 + self.now());
                self.queue
                    .after(6000, Event::Request(Box::new(Request::AdoptStore { incarnation })));
            }
            Kind::Fence(_) | Kind::StopMember(_) | Kind::Maintain(_) | Kind::Disable(_) => {
                self.manage(node);
            }
            Kind::Pause => {
                self.request(Request::SetClusterPaused { cluster: cluster(), paused: false });
            }
            _ => return,
        }
        self.say(format!("over: {:?}", fault.kind));
    }

    fn manage(&mut self, node: usize) {
        let name = self.names[&node].clone();
        self.request(Request::ChangeNode { node: name.clone(), action: NodeAction::Enable });
        let admin = MemberAdmin::Managed;
        self.request(Request::SetMemberAdmin { cluster: cluster(), node: name, admin });
    }

    pub fn power_on(&mut self, node: usize, boot: u64) {
        let now = self.now();
        let host = &mut self.hosts[node];
        if host.power || host.boot != boot {
            return;
        }
        host.boot(now);
        let boot = host.boot;
        self.start_agent(node, boot);
    }

    /// Everything works again, and nobody wants anything.
    pub fn heal(&mut self) {
        self.note(Fact::Healed);
        self.net.mend_all();
        self.controller.slow_ms = 0;
        if !self.controller.up {
            self.queue.after(0, Event::ControllerStarts);
        }
        for node in 0..self.hosts.len() {
            let boot = self.hosts[node].boot;
            self.hosts[node].postgres.hung = None;
            self.queue.after(100, Event::PowerOn { node, boot });
            self.queue.after(200, Event::AgentStarts { node, boot });
        }
        self.go_on(self.now() + 1000);
        if self.controller.copy.is_some() {
            // Nothing else is taken by a store that is an old copy.
            let incarnation = Incarnation(7 + self.now());
            self.queue.after(7000, Event::Request(Box::new(Request::AdoptStore { incarnation })));
            self.go_on(self.now() + 8000);
        }
        for node in 0..self.hosts.len() {
            self.manage(node);
        }
        self.request(Request::SetClusterPaused { cluster: cluster(), paused: false });
    }

    fn members(&self) -> Vec<(bool, String)> {
        let state = self.controller.world.cluster_state(&cluster());
        let holder = state.and_then(|state| self.number_of(state.holder.as_ref()?));
        let follows = |node: usize| {
            let postgres = &self.hosts[node].postgres;
            let from = postgres.receiver.as_ref().map(|row| row.from);
            postgres.run == Run::Recovery && from == holder
        };
        let is_well = |node: usize| match Some(node) == holder {
            true => self.hosts[node].postgres.run == Run::Primary,
            false => follows(node),
        };
        let show = |node: usize| {
            let host = &self.hosts[node];
            let place = host.disk.place.as_ref().map(|p| (p.term, p.goal.as_str()));
            let said = host.agent.as_ref().and_then(|a| a.said.as_ref()).map(|(r, _)| r.state);
            let end = host.disk.data.as_ref().map(|data| (data.end().0, data.lineage()));
            let step = host.agent.as_ref().and_then(|agent| agent.step.map(|step| step.step));
            format!(
                "{}: {:?}, goal {place:?}, says {said:?}, data {end:?}, step {step:?}, books {:?}, held {:?}",
                host.name,
                host.postgres.run,
                host.disk.books,
                host.agent.as_ref().map(|agent| &agent.held),
            )
        };
        (0..self.hosts.len()).map(|node| (is_well(node), show(node))).collect()
    }

    pub fn is_settled(&self) -> bool {
        let Some(state) = self.controller.world.cluster_state(&cluster()) else { return false };
        let steady = state.stage.as_str() == "steady" && state.is_settled();
        steady && self.live_tasks() == 0 && self.members().iter().all(|(well, _)| *well)
    }

    pub fn finish(&mut self) {
        let state = self.controller.world.cluster_state(&cluster());
        let stage = state.map_or("none".to_owned(), |state| state.stage.as_str().to_owned());
        let writer = self.hosts.iter().find(|host| host.postgres.run == Run::Primary);
        let log = writer.and_then(|host| host.disk.data.as_ref()).map(|data| data.log.clone());
        let end = End {
            stage,
            members: self.members(),
            live_tasks: self.live_tasks(),
            log,
            reasons: self.reasons(),
        };
        self.note(Fact::Ended(Box::new(end)));
    }
}

fn harm(kind: Kind) -> Harm {
    match kind {
        Kind::StopController | Kind::SlowStore | Kind::BreakStreams | Kind::WallClock(_) => {
            Harm::Control
        }
        Kind::Crash(_) | Kind::Switchover(_) => Harm::Process,
        Kind::Hang(_)
        | Kind::KillAgent(_)
        | Kind::FreezeAgent(_)
        | Kind::KillBoth(_)
        | Kind::PowerOff(_)
        | Kind::Cut(_)
        | Kind::CutFromController(_)
        | Kind::CutOneWay(..)
        | Kind::CutPair(..)
        | Kind::Split(_)
        | Kind::SplitWithController
        | Kind::Flap(_)
        | Kind::SlowNet(_)
        | Kind::Blackout
        | Kind::OldCopy(_) => Harm::Node,
        _ => Harm::Request,
    }
}

fn fix(kind: Kind, node: usize) -> Kind {
    let whom = Whom::Member(node);
    match kind {
        Kind::Crash(_) => Kind::Crash(whom),
        Kind::Hang(_) => Kind::Hang(whom),
        Kind::KillAgent(_) => Kind::KillAgent(whom),
        Kind::FreezeAgent(_) => Kind::FreezeAgent(whom),
        Kind::KillBoth(_) => Kind::KillBoth(whom),
        Kind::PowerOff(_) => Kind::PowerOff(whom),
        Kind::Cut(_) => Kind::Cut(whom),
        Kind::CutFromController(_) => Kind::CutFromController(whom),
        Kind::CutOneWay(_, up) => Kind::CutOneWay(whom, up),
        Kind::Flap(_) => Kind::Flap(whom),
        Kind::Fence(_) => Kind::Fence(whom),
        Kind::StopMember(_) => Kind::StopMember(whom),
        Kind::Maintain(_) => Kind::Maintain(whom),
        Kind::Disable(_) => Kind::Disable(whom),
        kind => kind,
    }
}
