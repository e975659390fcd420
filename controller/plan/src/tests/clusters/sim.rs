//! Hosts, the controller and the links between them, in steps that may be taken in any order. What
//! must never be is held against the hosts after each: nothing here knows the rules.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::cluster::{ClusterState, Goal, Quorum, Stage, Term};
use lockstep_model::observation::{Observation, Told};
use lockstep_model::request::Request;
use lockstep_model::task::{Outcome, OutcomeKind, TaskSpec};
use lockstep_model::{Millis, NodeName, Revision, Timestamp};

use super::host::{Host, Promise, Run, row};
use crate::check::check_plan;
use crate::leases::Uptime;
use crate::tests::cluster_requests::fixture::{create, name, new};
use crate::tests::dsl::{INCARNATION, Lab, agent};
use crate::{PLAN_ROUNDS_MAX, Plan, plan};

pub const C: &str = "controller";

pub struct Sim {
    pub lab: Lab,
    pub hosts: BTreeMap<NodeName, Host>,
    /// Pairs that do not reach each other.
    pub cut: BTreeSet<(String, String)>,
    /// The clock of leases; every machine's is the same here, drift is arithmetic's.
    pub up: u64,
    written: u64,
    /// Acknowledged to a client while a quorum was in force.
    pub acked: BTreeSet<u64>,
    /// Waiting for standbys: entry, its position.
    waiting: BTreeMap<NodeName, Vec<(u64, usize)>>,
    pub holders: BTreeMap<Term, NodeName>,
    pub last_term: Term,
    /// Somebody accepted that commits are lost.
    pub loss_allowed: bool,
    pub checked: usize,
    /// Something that rules may read was said.
    told: bool,
    wake_at: Option<Timestamp>,
    planned: Revision,
}

impl Sim {
    pub fn new(nodes: &[&str], settings: &[&str]) -> Self {
        let mut lab = Lab::with_nodes(nodes);
        lab.world.leases_mut().start(Uptime(1000));
        lab.ask(create(new("main", nodes, settings)));
        let hosts = nodes.iter().map(|node| (node.parse().unwrap(), Host::new())).collect();
        Self {
            lab,
            hosts,
            cut: BTreeSet::new(),
            up: 1000,
            written: 0,
            acked: BTreeSet::new(),
            waiting: BTreeMap::new(),
            holders: BTreeMap::new(),
            last_term: Term(0),
            loss_allowed: false,
            checked: 0,
            told: true,
            wake_at: None,
            planned: Revision::ZERO,
        }
    }

    pub fn state(&self) -> ClusterState {
        self.lab.world.cluster_state(&name("main")).unwrap().clone()
    }

    pub fn host(&mut self, of: &str) -> &mut Host {
        self.hosts.get_mut(&of.parse::<NodeName>().unwrap()).unwrap()
    }

    fn names(&self) -> Vec<NodeName> {
        self.hosts.keys().cloned().collect()
    }

    pub fn linked(&self, a: &str, b: &str) -> bool {
        let pair = if a < b { (a.to_owned(), b.to_owned()) } else { (b.to_owned(), a.to_owned()) };
        let on = |name: &str| name == C || self.hosts[&name.parse::<NodeName>().unwrap()].power;
        !self.cut.contains(&pair) && on(a) && on(b)
    }

    pub fn link(&mut self, a: &str, b: &str, up: bool) {
        let pair = if a < b { (a.to_owned(), b.to_owned()) } else { (b.to_owned(), a.to_owned()) };
        if up {
            self.cut.remove(&pair)
        } else {
            self.cut.insert(pair)
        };
    }

    /// The controller's turn, when there is a reason: something was said or asked, or it is time.
    pub fn plan(&mut self) {
        let seen = self.lab.world.revision();
        let due = self.wake_at.is_some_and(|at| self.lab.now >= at);
        if self.told || due || seen != self.planned {
            self.settle();
        }
    }

    /// Plans until nothing is left.
    pub fn settle(&mut self) -> Plan {
        self.lab.world.leases_mut().tick(Uptime(self.up));
        for _ in 0..PLAN_ROUNDS_MAX {
            let plan = plan(&self.lab.world, self.lab.now);
            let broken = check_plan(&self.lab.world, &plan);
            assert!(broken.is_empty(), "{broken:#?}\n{plan:#?}");
            self.check_rests(&plan);
            self.lab.world.rest(plan.rests.clone());
            let Some(txn) = plan.txn(&self.lab.world, self.lab.now) else {
                (self.told, self.wake_at) = (false, plan.wake_at);
                self.planned = self.lab.world.revision();
                self.check_log();
                self.check_explained();
                return plan;
            };
            self.lab.commit(txn);
        }
        panic!("no rest: {}", self.show());
    }

    /// Looking at clusters that rest finds nothing to do.
    fn check_rests(&self, found: &Plan) {
        if !found.writes.is_empty() {
            return;
        }
        let mut fresh = self.lab.world.clone();
        fresh.touch_cluster(&name("main"));
        let all = plan(&fresh, self.lab.now);
        assert!(all.writes.is_empty(), "overlooked: {:#?}", all.writes);
    }

    /// In a quiet world, a cluster that is not as it should be says why.
    fn check_explained(&self) {
        let behind = self.lab.world.tasks().any(|task| task.value.is_live());
        if behind || !self.is_steady() || !self.state().is_settled() {
            assert!(!self.reasons().is_empty(), "nothing says why: {}", self.show());
        }
    }

    fn observe(&mut self, of: &NodeName, observation: Observation) {
        self.lab.world.leases_mut().tick(Uptime(self.up));
        self.told |= self.lab.observe(of.as_str(), observation);
    }

    pub fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(50) {
            self.up += 50.min(ms);
            self.lab.now = self.lab.now + Millis(50.min(ms));
            for host in self.hosts.values_mut() {
                let expired = host.lease.is_some_and(|(_, until)| self.up >= until);
                let without = host.run == Run::Primary && host.lease.is_none();
                if expired || without {
                    host.kill(false);
                }
            }
        }
    }

    /// The agent dials, and tells all it knows.
    pub fn connect(&mut self, of: &NodeName) {
        if !self.linked(C, of.as_str()) {
            return;
        }
        self.hosts.get_mut(of).unwrap().connected = true;
        let revision = self.lab.world.revision();
        let told = Told { incarnation: INCARNATION, revision, ..Told::default() };
        self.observe(of, Observation::Connected(told));
        self.report(of);
    }

    /// The controller learns that the stream ended.
    pub fn disconnect(&mut self, of: &NodeName) {
        self.hosts.get_mut(of).unwrap().connected = false;
        let why = "link lost".to_owned();
        self.observe(of, Observation::Disconnected { why });
    }

    pub fn restart_controller(&mut self) {
        self.lab.restart();
        self.lab.world.leases_mut().start(Uptime(self.up));
        self.hosts.values_mut().for_each(|host| host.connected = false);
        self.told = true;
    }

    /// The store is an old copy, and somebody accepts that.
    pub fn restore(&mut self) {
        self.lab.world.leases_mut().start(Uptime(self.up));
        self.hosts.values_mut().for_each(|host| host.connected = false);
        (self.checked, self.last_term) = (self.lab.log.len(), Term(0));
        self.holders.clear();
        self.lab.ask(Request::AdoptStore { incarnation: lockstep_model::Incarnation(8) });
        self.told = true;
    }

    fn talks(&self, of: &NodeName) -> bool {
        self.hosts[of].connected && self.linked(C, of.as_str())
    }

    pub fn report(&mut self, of: &NodeName) {
        if !self.talks(of) || self.hosts[of].place.is_none() {
            return;
        }
        let mut report = Box::new(self.hosts[of].report(self.up));
        let standbys = self.hosts.keys().filter(|node| self.receives(node, of));
        report.standbys = standbys.map(row).collect();
        let report = Some(report);
        self.observe(of, Observation::Cluster { cluster: name("main"), report });
    }

    /// The agent takes up what it is told, or refuses it.
    pub fn take(&mut self, of: &NodeName) {
        if !self.talks(of) {
            return;
        }
        let Some(task) = self.lab.world.live_tasks_of(of).next().map(|task| task.value.clone())
        else {
            return;
        };
        let up = self.up;
        let host = self.hosts.get_mut(of).unwrap();
        let kind = match &task.spec {
            TaskSpec::ClusterPlace(place) => match host.accept(place, up) {
                None => return,
                Some(true) => OutcomeKind::Ok,
                Some(false) => OutcomeKind::Failed,
            },
            TaskSpec::ClusterRelease(_) => {
                host.place = None;
                OutcomeKind::Ok
            }
            _ => OutcomeKind::Failed,
        };
        let outcome = Outcome::new(kind, "");
        let end = Request::EndTask { node: of.clone(), id: task.id, outcome };
        drop(self.lab.ask_as(&agent(of.as_str()), end));
    }

    /// The holder asks for its lease; the answer may be lost.
    pub fn renew(&mut self, of: &NodeName, answered: bool) {
        let Some(term) = self.hosts[of].wants_lease() else { return };
        if !self.talks(of) {
            return;
        }
        let up = Uptime(self.up);
        let Ok(length) = self.lab.world.renew_lease(of, &name("main"), term, up) else { return };
        let until = length.map_or(u64::MAX, |length| self.up + length.0 - length.0.div_ceil(1000));
        let host = self.hosts.get_mut(of).unwrap();
        if answered {
            host.lease = Some((term, until));
            host.held = Some(term);
        }
    }

    /// A primary that gets no grants asks its peers.
    pub fn ask_promises(&mut self, of: &NodeName) {
        let host = &self.hosts[of];
        let (Some(place), Some((term, until))) = (host.place.clone(), host.lease) else { return };
        let length = place.options.lease.length.0;
        let is_due = (1..=length / 2).contains(&until.saturating_sub(self.up));
        if !is_due || host.run != Run::Primary || place.term != term {
            return;
        }
        let Goal::Primary(primary) = &place.goal else { return };
        let (asked, needed): (Vec<NodeName>, usize) = match primary.quorum.k {
            0 => {
                let others = place.promotable.iter().filter(|n| *n != of).cloned();
                (others.clone().collect(), others.count())
            }
            k => (primary.quorum.of.iter().cloned().collect(), k as usize),
        };
        let mut got = 0;
        for peer in asked {
            if !self.linked(of.as_str(), peer.as_str()) {
                continue;
            }
            let peer = self.hosts.get_mut(&peer).unwrap();
            if peer.term <= term {
                peer.promise = Some(Promise { term, until: self.up + length });
                got += 1;
            }
        }
        if got >= needed {
            let until = until.max(self.up + length - length.div_ceil(1000));
            self.hosts.get_mut(of).unwrap().lease = Some((term, until));
        }
    }

    /// One step of the agent towards its goal.
    pub fn act(&mut self, of: &NodeName) {
        let up = self.up;
        self.written += 1;
        let mark = self.written;
        let host = self.hosts.get_mut(of).unwrap();
        if !host.power {
            return;
        }
        if host.hung && matches!(host.wants_lease(), Some(term) if Some(term) == host.held) {
            return;
        }
        let was = host.run;
        host.act(up, mark);
        if was != Run::Primary && host.run == Run::Primary {
            self.check_has_all(of);
            self.waiting.remove(of);
        }
        self.confirm_quorum(of);
        let Some(place) = self.hosts[of].place.clone() else { return };
        match &place.goal {
            Goal::HandOver => self.hand_over(of),
            Goal::Standby { upstream: Some(upstream) } => self.follow(of, upstream, 1000),
            Goal::Sealed { salvage: Some(old) } => self.salvage(of, old),
            _ => {}
        }
    }

    /// A clean stop waits until all that receive have everything.
    fn hand_over(&mut self, of: &NodeName) {
        if self.hosts[of].run == Run::Primary {
            let standbys: Vec<NodeName> =
                self.names().into_iter().filter(|to| self.receives(to, of)).collect();
            self.written += 1;
            let last = self.written;
            self.hosts.get_mut(of).unwrap().log.as_mut().unwrap().push(last);
            standbys.iter().for_each(|to| self.follow(to, of, usize::MAX / 2));
            self.ack(of);
        }
        self.hosts.get_mut(of).unwrap().kill(true);
    }

    /// It receives from there now.
    pub fn receives(&self, node: &NodeName, from: &NodeName) -> bool {
        let host = &self.hosts[node];
        let told = host.place.as_ref().map(|place| &place.goal);
        let to = matches!(told, Some(Goal::Standby { upstream: Some(up) }) if up == from);
        let running = self.hosts[from].run == Run::Primary && host.run == Run::Standby;
        let one_way = match (&host.log, &self.hosts[from].log) {
            (Some(mine), Some(theirs)) => theirs.starts_with(mine),
            _ => false,
        };
        to && running && !host.sealed && one_way && self.linked(node.as_str(), from.as_str())
    }

    /// A standby receives a few entries.
    pub fn stream(&mut self, of: &NodeName, most: usize) {
        let place = self.hosts[of].place.as_ref();
        if let Some(Goal::Standby { upstream: Some(from) }) = place.map(|p| p.goal.clone()) {
            self.follow(of, &from, most);
        }
    }

    /// postgres answers nothing, and writes nothing.
    pub fn hang(&mut self, of: &NodeName) {
        let host = self.hosts.get_mut(of).unwrap();
        host.hung = host.run == Run::Primary;
    }

    pub fn follow(&mut self, of: &NodeName, from: &NodeName, most: usize) {
        if self.hosts[from].run != Run::Primary || !self.linked(of.as_str(), from.as_str()) {
            return;
        }
        let upstream = self.hosts[from].clone();
        let receives = self.receives(of, from);
        let host = self.hosts.get_mut(of).unwrap();
        let other_copy = host.place.as_ref().is_some_and(|place| place.copy != host.copy);
        if host.log.is_none() || other_copy || (host.is_diverged() && host.run == Run::Down) {
            host.copy_from(&upstream);
            host.run = Run::Standby;
        } else if receives {
            host.append_from(&upstream, most);
        } else {
            return;
        }
        host.heard_upstream = Some((from.clone(), self.up));
    }

    fn salvage(&mut self, of: &NodeName, old: &NodeName) {
        let from = self.hosts[old].clone();
        let there = from.power && from.run == Run::Down && self.linked(of.as_str(), old.as_str());
        if there && self.hosts[of].sealed {
            self.hosts.get_mut(of).unwrap().append_from(&from, 1000);
        }
    }

    fn confirm_quorum(&mut self, of: &NodeName) {
        let host = &self.hosts[of];
        if host.run != Run::Primary {
            return;
        }
        let quorum = host.in_force.clone();
        let has =
            |node: &&NodeName| self.receives(node, of) && self.hosts[*node].len() >= host.forced_at;
        let all = quorum.of.iter().all(|node| has(&node));
        if quorum.is_off() || all {
            self.hosts.get_mut(of).unwrap().quorum_said = Some(quorum);
        }
    }

    pub fn write(&mut self, of: &NodeName) {
        let host = self.hosts.get_mut(of).unwrap();
        if host.run != Run::Primary || host.hung {
            return;
        }
        self.written += 1;
        let log = host.log.as_mut().unwrap();
        log.push(self.written);
        let at = log.len();
        self.waiting.entry(of.clone()).or_default().push((self.written, at));
    }

    /// Clients hear of what enough standbys have.
    pub fn ack(&mut self, of: &NodeName) {
        let host = &self.hosts[of];
        if host.run != Run::Primary {
            return;
        }
        let quorum = host.in_force.clone();
        let mut have: Vec<usize> = quorum
            .of
            .iter()
            .filter(|node| self.receives(node, of))
            .map(|node| self.hosts[node].len())
            .collect();
        have.sort_unstable_by(|a, b| b.cmp(a));
        let upto = match quorum.k {
            0 => usize::MAX,
            k => have.get(k as usize - 1).copied().unwrap_or(0),
        };
        let waiting = self.waiting.entry(of.clone()).or_default();
        let (done, wait): (Vec<_>, Vec<_>) = waiting.drain(..).partition(|(_, at)| *at <= upto);
        *waiting = wait;
        if !quorum.is_off() {
            self.acked.extend(done.iter().map(|(entry, _)| *entry));
        }
    }

    /// What agents do all the time.
    pub fn round(&mut self) {
        for of in self.names() {
            if self.linked(C, of.as_str()) && !self.hosts[&of].connected {
                self.connect(&of);
            }
            self.take(&of);
            self.renew(&of, true);
            self.ask_promises(&of);
            self.act(&of);
            self.ack(&of);
            self.report(&of);
            self.check_writers();
        }
        self.plan();
    }

    /// All is well for so long.
    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(50) {
            self.pass(50);
            self.round();
        }
    }

    pub fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        const ROUNDS_MAX: usize = 2000;
        for _ in 0..ROUNDS_MAX {
            if done(self) {
                return;
            }
            self.run(50);
        }
        panic!("{what} did not come: {}", self.show());
    }

    pub fn is_steady(&self) -> bool {
        self.state().stage == Stage::Steady
    }

    /// All others follow it.
    pub fn settled_on(&self, holder: &str) -> bool {
        let follows = |host: &Host| {
            let from = host.heard_upstream.as_ref().map(|(from, _)| from.as_str());
            host.run == Run::Standby && from == Some(holder)
        };
        let mut hosts = self.hosts.iter();
        hosts.all(|(node, host)| match node.as_str() == holder {
            true => host.run == Run::Primary,
            false => follows(host),
        })
    }

    pub fn holder(&self) -> String {
        self.state().holder.map_or(String::new(), |holder| holder.to_string())
    }

    pub fn quorum(&self) -> String {
        self.state().quorums.iter().map(Quorum::to_string).collect::<Vec<_>>().join(" + ")
    }
}
