//! The replicas' parts: a replica that is behind pulls, always to the newest, and none waits for
//! another but between two stages.

use lockstep_model::mirror::{Allow, HopKind, ReplicaState, Trigger};
use lockstep_model::record::{Record, Write};
use lockstep_model::task::{Ended, MirrorPull, OutcomeKind, PullFrom, Stage, Task};
use lockstep_model::{Millis, Timestamp};

use super::limits::{Hosts, Room};
use super::master::Master;
use super::places::Placed;
use super::pulls::{self, Begun, Blocked, Verdict};
use super::{Parts, Queued, part, stages, works};
use crate::draft::Draft;
use crate::members::Copy;

/// A replica whose tries have all failed begins anew after so long, unless something changes before.
pub const REST: Millis = Millis::from_secs(3600);

pub(super) struct Replica<'a> {
    pub copy: Copy<'a>,
    before: Option<&'a ReplicaState>,
    pub state: ReplicaState,
    /// Written together with the state, when that differs.
    group: Vec<Write>,
    /// The newest try of the run under way.
    pub task: Option<(&'a Task, &'a MirrorPull)>,
    /// It is to be repeated now.
    again: bool,
}

/// Takes the ends of tries into account.
pub(super) fn record<'a>(
    draft: &mut Draft<'a>,
    parts: &Parts<'a>,
    _placed: &Placed<'_>,
) -> Vec<Replica<'a>> {
    let (world, mirror) = (draft.world, parts.mirror);
    let mut replicas = Vec::with_capacity(parts.copies.len());
    for copy in &parts.copies {
        let node = &copy.node.name;
        let before = world.replica(&mirror.name, node).map(|state| &state.value);
        let new = || ReplicaState::new(mirror.name.clone(), node.clone());
        let mut replica = Replica {
            copy: copy.clone(),
            before,
            state: before.cloned().unwrap_or_else(new),
            group: Vec::new(),
            task: None,
            again: false,
        };
        replica.finish(draft, parts);
        replicas.push(replica);
    }
    replicas
}

/// Starts what may start.
pub(super) fn start(
    draft: &mut Draft<'_>,
    parts: &Parts<'_>,
    placed: &Placed<'_>,
    room: &mut Room,
    master: &mut Master,
    replicas: &mut [Replica<'_>],
) {
    let opened = stages::check_open(draft, parts, master.state.generation, replicas);
    let at_once = parts.mirror.options.limits.replicas_at_once;
    let at_once = at_once.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let mut busy = replicas.iter().filter(|replica| replica.is_busy()).count();
    for replica in replicas {
        let Some(wants) = replica.wants(draft, parts, master, &opened) else { continue };
        let checked = replica.check(draft, parts, placed, master).and_then(|from| {
            let text = match (busy < at_once, room.has(&Hosts::new())) {
                (true, true) => return Ok(from),
                (false, _) => format!("replicas-at-once is {at_once}, and others go first"),
                (true, false) => "as many pulls as may be go on: it waits for them".to_owned(),
            };
            if busy < at_once {
                let since = master.state.generation_at;
                master.queued.get_or_insert(Queued { since, hosts: Hosts::new() });
            }
            Err(Blocked::new("limit", text))
        });
        match checked {
            Ok(from) => {
                busy += 1;
                room.take(&Hosts::new());
                replica.give(draft, parts, master, from, wants);
            }
            Err(blocked) => blocked.wait(draft, parts, &replica.copy.node.name),
        }
    }
}

/// What is to begin.
struct Wants {
    number: u64,
    stage: Stage,
    allow: Allow,
    attempt: u32,
    /// Of a part that begins with this.
    trigger: Option<(Trigger, Timestamp)>,
}

impl<'a> Replica<'a> {
    pub fn is_busy(&self) -> bool {
        self.task.is_some_and(|(task, _)| task.is_live())
    }

    /// Its newest try brought the first stage, and the second is to follow.
    pub fn is_between(&self) -> bool {
        self.state.current.is_some()
            && self.task.is_some_and(|(task, pull)| pull.stage == Stage::First && task.succeeded())
    }

    fn finish(&mut self, draft: &mut Draft<'a>, parts: &Parts<'a>) {
        let (world, mirror, node) = (draft.world, parts.mirror, self.copy.node);
        let Some(number) = self.state.current else { return };
        let newest = pulls::newest(world, mirror, &node.name);
        self.task = newest.filter(|(_, pull)| pull.number == number);
        let Some((task, pull)) = self.task else {
            return self.close(draft, parts, pulls::end_lost(draft.now));
        };
        match pulls::judge(draft, mirror, Some(node), task, self.state.wanted.is_none()) {
            Verdict::Waits => {}
            Verdict::Again => self.again = true,
            Verdict::Over(ended) => self.take(draft, parts, pull, ended),
        }
    }

    fn take(&mut self, draft: &mut Draft<'_>, parts: &Parts<'_>, pull: &MirrorPull, ended: &Ended) {
        if ended.outcome.kind == OutcomeKind::Ok {
            let state = &mut self.state;
            if pull.generation > state.staged
                || (pull.stage == Stage::First && pull.generation == state.staged)
            {
                state.staged = pull.generation;
                state.staged_at = Some(ended.at);
            }
            if pull.stage == Stage::First {
                return;
            }
            state.generation = state.generation.max(pull.generation);
            state.complete_at = Some(ended.at);
        }
        self.close(draft, parts, pulls::end(ended));
    }

    /// Ends the part under way.
    fn close(
        &mut self,
        draft: &Draft<'_>,
        parts: &Parts<'_>,
        end: lockstep_model::mirror::run::RunEnd,
    ) {
        let Some(number) = self.state.current.take() else { return };
        let node = &self.copy.node.name;
        let row = pulls::row_ended(draft.world, &parts.mirror.name, number, node, end, None);
        self.group.extend(row);
        self.task = None;
        self.again = false;
    }

    /// What it should begin now, if it could.
    fn wants(
        &mut self,
        draft: &mut Draft<'_>,
        parts: &Parts<'_>,
        master: &Master,
        opened: &Result<(), Blocked>,
    ) -> Option<Wants> {
        let newest = master.state.generation;
        if let (Some((task, pull)), Some(number)) = (self.task, self.state.current) {
            let is_cascade = pull.stage != Stage::Whole || self.is_cascade(draft, parts, number);
            if self.is_between() {
                if pull.generation == newest {
                    let wants = Wants {
                        number,
                        stage: Stage::Second,
                        allow: pull.allow,
                        attempt: 1,
                        trigger: None,
                    };
                    match opened {
                        Ok(()) => return Some(wants),
                        Err(blocked) => {
                            let subject = part(&parts.mirror.name, &self.copy.node.name);
                            draft.wait(subject, blocked.rule, blocked.text.clone(), blocked.until);
                            return None;
                        }
                    }
                }
            } else if !self.again {
                return None;
            } else if !is_cascade || pull.generation == newest {
                let attempt = task.attempt.saturating_add(1);
                return Some(Wants {
                    number,
                    stage: pull.stage,
                    allow: pull.allow,
                    attempt,
                    trigger: None,
                });
            }
            // The master is further by now: its newest run stands for this one.
            let mut end =
                task.ended.as_ref().map_or_else(|| pulls::end_lost(draft.now), pulls::end);
            if end.kind == OutcomeKind::Ok {
                end.kind = OutcomeKind::Superseded;
                end.message = "the master had something newer before the second stage".to_owned();
            }
            self.close(draft, parts, end);
        }
        let mirror = parts.mirror;
        let rows = || {
            draft.world.run_on(&super::run_id(mirror, master.state.generation_run), &mirror.master)
        };
        if let Some(wanted) = &self.state.wanted {
            let trigger = Some((wanted.trigger.clone(), wanted.at));
            let (number, allow) = (wanted.number, wanted.allow);
            return Some(Wants { number, stage: Stage::Whole, allow, attempt: 1, trigger });
        }
        if self.state.generation >= newest {
            return None;
        }
        let asked = rows().is_some_and(|row| !matches!(row.value.trigger, Trigger::Schedule(_)));
        let subject = || part(&mirror.name, &self.copy.node.name);
        if !mirror.enabled && !asked {
            let text = format!(
                "disabled: replicas are not fed; lockstepctl mirror enable {}",
                mirror.name
            );
            draft.wait(subject(), "disabled", text, None);
            return None;
        }
        if let Some((until, text)) = self.rests(draft, parts, newest) {
            draft.wait(subject(), "gave_up", text, Some(until));
            return None;
        }
        let stage = if mirror.options.stages.two { Stage::First } else { Stage::Whole };
        Some(Wants {
            number: master.state.generation_run,
            stage,
            allow: master.state.allow,
            attempt: 1,
            trigger: Some((Trigger::Cascade, master.state.generation_at)),
        })
    }

    fn is_cascade(&self, draft: &Draft<'_>, parts: &Parts<'_>, number: u64) -> bool {
        let id = super::run_id(parts.mirror, number);
        let row = draft.world.run_on(&id, &self.copy.node.name);
        row.is_none_or(|row| row.value.trigger == Trigger::Cascade)
    }

    /// Until when it lets it be, after all tries for this generation have failed.
    pub fn rests(
        &self,
        draft: &Draft<'_>,
        parts: &Parts<'_>,
        generation: u64,
    ) -> Option<(Timestamp, String)> {
        let (world, node) = (draft.world, &self.copy.node.name);
        let (task, pull) = pulls::newest(world, parts.mirror, node)?;
        let ended = task.ended.as_ref()?;
        let until = ended.at + REST;
        if ended.outcome.kind == OutcomeKind::Ok
            || pull.generation < generation
            || draft.now >= until
        {
            return None;
        }
        let ended_by = world.task(task.id)?.revision;
        if parts.revision > ended_by || world.nodes().get(node)?.revision > ended_by {
            return None;
        }
        let text = format!(
            "{node}: try {} ended {} at {}: {}; it begins anew at {until}, or when something changes: \
             lockstepctl mirror sync {} --only {node}",
            task.attempt, ended.outcome.kind, ended.at, ended.outcome.message, parts.mirror.name
        );
        Some((until, text))
    }

    /// Whether it can begin now, and where it pulls from.
    fn check(
        &self,
        draft: &Draft<'_>,
        parts: &Parts<'_>,
        placed: &Placed<'_>,
        master: &Master,
    ) -> Result<PullFrom, Blocked> {
        let mirror = parts.mirror;
        pulls::check_node(draft, placed, self.copy.node)?;
        let Some(source) = parts.master else {
            let text = format!("the master {} is not there", mirror.master);
            return Err(Blocked::new("no_master", text));
        };
        if master.state.generation_on.as_ref() != Some(&mirror.master) {
            let text = format!(
                "the master {} has no complete tree yet: it needs a run of its own first",
                mirror.master
            );
            return Err(Blocked::new("no_tree", text));
        }
        if !works(source) {
            let text =
                format!("the master {0} is disabled: lockstepctl node enable {0}", source.name);
            return Err(Blocked::new("node_disabled", text));
        }
        if let Some(remote) = &mirror.options.replicas_from {
            return Ok(PullFrom::Remote(remote.clone()));
        }
        let text = |what: &str| format!("the master {} {what}", source.name);
        if !draft.world.seen(&source.name).is_some_and(|seen| seen.is_connected()) {
            return Err(Blocked::new("node_away", text("is not connected")));
        }
        if !placed.has(&source.name) {
            return Err(Blocked::new("no_place", text("does not let it read the tree yet")));
        }
        pulls::peer(self.copy.node, source).map(PullFrom::Agent)
    }

    fn give(
        &mut self,
        draft: &mut Draft<'_>,
        parts: &Parts<'_>,
        master: &Master,
        from: PullFrom,
        wants: Wants,
    ) {
        let (mirror, node) = (parts.mirror, &self.copy.node.name);
        let Wants { number, stage, allow, attempt, trigger } = wants;
        let generation = master.state.generation;
        let pull = MirrorPull {
            mirror: mirror.name.clone(),
            number,
            generation,
            tree: self.copy.tree.clone(),
            hop: HopKind::Replica,
            from,
            stage,
            options: mirror.options.clone(),
            allow,
            has_password: false,
        };
        match trigger {
            Some((trigger, asked_at)) => {
                let hop = HopKind::Replica;
                let begun = Begun { number, node, hop, trigger, asked_at, generation };
                self.group.push(pulls::row_begun(draft, mirror, begun));
                if self.state.wanted.as_ref().is_some_and(|wanted| wanted.number == number) {
                    self.state.wanted = None;
                }
            }
            None => self.group.extend(pulls::row_again(
                draft.world,
                mirror,
                number,
                node,
                attempt,
                generation,
            )),
        }
        self.state.current = Some(number);
        pulls::give(draft, &mut self.group, pull, node, attempt);
    }

    pub fn write(mut self, draft: &mut Draft<'_>) {
        let is_new = self.before.is_none()
            && self.state == ReplicaState::new(self.state.mirror.clone(), self.state.node.clone());
        if self.before != Some(&self.state) && !is_new {
            self.group.push(Write::Put(Record::Replica(self.state)));
        }
        if !self.group.is_empty() {
            draft.write("mirror_replica", self.group);
        }
    }
}
