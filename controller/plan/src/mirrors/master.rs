//! The master's part: runs from the upstream, when they are due or asked for, one at a time, and what
//! their ends mean for the generation.

use lockstep_model::Timestamp;
use lockstep_model::mirror::run::RunEnd;
use lockstep_model::mirror::{Allow, HopKind, MirrorState, Run, Trigger, Wanted};
use lockstep_model::node::Node;
use lockstep_model::record::{Record, Write};
use lockstep_model::schedule::Missed;
use lockstep_model::task::{Ended, MirrorPull, OutcomeKind, PullFrom, Stage, Task};

use super::limits::{Room, hosts};
use super::places::Placed;
use super::pulls::{self, Begun, Blocked, Verdict};
use super::replicas::Replica;
use super::{Parts, Queued, stages, subject};
use crate::draft::Draft;
use crate::schedule::follow::{Course, Place, stopped};

/// What the master's part comes to in this plan.
pub(super) struct Master {
    pub state: MirrorState,
    /// Written together with the state, when that differs.
    pub group: Vec<Write>,
    pub queued: Option<Queued>,
}

pub(super) fn advance(
    draft: &mut Draft<'_>,
    parts: &Parts<'_>,
    placed: &Placed<'_>,
    room: &mut Room,
    before: &MirrorState,
    replicas: &[Replica<'_>],
) -> Master {
    let mut master = Master { state: before.clone(), group: Vec::new(), queued: None };
    let again = master.finish(draft, parts);
    if let Some((task, pull)) = again {
        master.again(draft, parts, placed, room, task, pull);
        master.follow_schedule(draft, parts, Place::Running);
        return master;
    }
    if master.state.current.is_some() {
        master.follow_schedule(draft, parts, Place::Running);
        return master;
    }
    master.forget_moot(draft, parts);
    let ready = check(draft, parts, placed, replicas, &master.state);
    let blocked = match ready {
        Ok(from) if room.has(&hosts(HopKind::Upstream, &from, &parts.mirror.options)) => {
            master.follow_schedule(draft, parts, Place::Free);
            if let Some(wanted) = master.state.wanted.take() {
                master.start(draft, parts, room, from, &wanted);
            }
            return master;
        }
        Ok(from) => {
            let hosts = hosts(HopKind::Upstream, &from, &parts.mirror.options);
            master.follow_schedule(draft, parts, Place::Taken);
            master.queued = master.waits_since().map(|since| Queued { since, hosts });
            let text = "as many pulls as may be go on: it starts when one of them ends".to_owned();
            Blocked::new("limit", text)
        }
        Err(blocked) => {
            master.follow_schedule(draft, parts, Place::Taken);
            blocked
        }
    };
    if master.waits_since().is_some() {
        blocked.wait(draft, parts, &parts.mirror.master);
    } else if let Some(until) = blocked.until {
        draft.wake(until);
    }
    master
}

impl Master {
    /// Ends a run that was to be from a node that is no replica any more.
    fn forget_moot(&mut self, draft: &Draft<'_>, parts: &Parts<'_>) {
        let mirror = parts.mirror;
        let Some(wanted) = self.state.wanted.take() else { return };
        if parts.has_source(wanted.from.as_ref()) {
            self.state.wanted = Some(wanted);
            return;
        }
        let message = "the node that it was to pull from is no replica any more".to_owned();
        let end = RunEnd { at: draft.now, kind: OutcomeKind::Failed, message, pulled: None };
        let Wanted { number, trigger, allow: _, at, from: _ } = wanted;
        self.group.push(Write::Put(Record::Run(Run {
            id: super::run_id(mirror, number),
            node: mirror.master.clone(),
            hop: HopKind::Upstream,
            trigger,
            created_at: at,
            started_at: draft.now,
            attempts: 0,
            generation: self.state.generation,
            end: Some(end),
        })));
    }

    /// Since when somebody waits for a run.
    fn waits_since(&self) -> Option<Timestamp> {
        let asked = self.state.wanted.as_ref().map(|wanted| wanted.at);
        asked.into_iter().chain(self.state.progress.owed.first().copied()).min()
    }

    /// Takes the end of a try into account; the try that is to be repeated.
    fn finish<'a>(
        &mut self,
        draft: &mut Draft<'a>,
        parts: &Parts<'_>,
    ) -> Option<(&'a Task, &'a MirrorPull)> {
        let (world, mirror) = (draft.world, parts.mirror);
        let number = self.state.current?;
        let newest = pulls::newest(world, mirror, &mirror.master);
        let Some((task, pull)) = newest.filter(|(_, pull)| pull.number == number) else {
            self.state.current = None;
            // Its row is where the master was when it began.
            let id = super::run_id(mirror, number);
            let rows = world.run(&id).map(|row| &row.value);
            for row in rows.filter(|row| row.hop == HopKind::Upstream) {
                let end = pulls::end_lost(draft.now);
                let row = pulls::row_ended(world, &mirror.name, number, &row.node, end, None);
                self.group.extend(row);
            }
            return None;
        };
        let row = world.run_on(&super::run_id(mirror, number), &mirror.master);
        let scheduled = row.is_some_and(|row| matches!(row.value.trigger, Trigger::Schedule(_)));
        let from = match &pull.from {
            PullFrom::Agent(peer) => Some(&peer.node),
            _ => None,
        };
        // Who asks while it waits for another try gets that try as a run of their own.
        let is_wanted = (mirror.enabled || !scheduled) && self.state.wanted.is_none();
        let may_go_on = is_wanted && parts.has_source(from);
        match pulls::judge(draft, mirror, parts.master, task, may_go_on) {
            Verdict::Waits => None,
            Verdict::Again => Some((task, pull)),
            Verdict::Over(ended) => {
                self.record(draft, parts, pull, ended);
                None
            }
        }
    }

    fn record(
        &mut self,
        draft: &mut Draft<'_>,
        parts: &Parts<'_>,
        pull: &MirrorPull,
        ended: &Ended,
    ) {
        let mirror = parts.mirror;
        let state = &mut self.state;
        state.current = None;
        if ended.outcome.kind == OutcomeKind::Ok {
            state.complete_at = Some(ended.at);
            let is_first = state.generation_on.as_ref() != Some(&mirror.master);
            if is_first || ended.outcome.pulled.is_none_or(|pulled| pulled.changed) {
                state.generation = state.generation.saturating_add(1);
                state.generation_at = ended.at;
                state.generation_run = pull.number;
                state.generation_on = Some(mirror.master.clone());
                state.allow = pull.allow;
            }
        }
        let (end, brought) = (
            pulls::end(ended),
            (ended.outcome.kind == OutcomeKind::Ok).then_some(state.generation),
        );
        let row =
            pulls::row_ended(draft.world, &mirror.name, pull.number, &mirror.master, end, brought);
        self.group.extend(row);
    }

    /// What the clock wants becomes a run that is wanted, when it may start now.
    fn follow_schedule(&mut self, draft: &mut Draft<'_>, parts: &Parts<'_>, place: Place) {
        let mirror = parts.mirror;
        let state = &mut self.state;
        let followed =
            mirror.schedule.as_ref().filter(|_| mirror.enabled && mirror.upstream.is_some());
        let Some(schedule) = followed else {
            if let Some(progress) = stopped(&state.progress, draft.now) {
                state.progress = progress;
            }
            let (rule, text) = match (&mirror.schedule, mirror.enabled) {
                (_, false) => (
                    "disabled",
                    format!(
                        "disabled: it runs when it is asked to; lockstepctl mirror enable {}",
                        mirror.name
                    ),
                ),
                (None, true) => {
                    ("no_schedule", "it has no schedule: it runs when it is asked to".to_owned())
                }
                (Some(_), true) => return,
            };
            return draft.wait(subject(&mirror.name), rule, text, None);
        };
        let look =
            Course::of(schedule).look(mirror.name.as_str(), &state.progress, place, draft.now);
        let look = match look {
            Ok(look) => look,
            Err(problem) => {
                let text = format!("its schedule cannot be followed: {problem}");
                return draft.wait(subject(&mirror.name), "schedule", text, None);
            }
        };
        if let Some(progress) = &look.progress {
            state.progress.clone_from(progress);
        }
        draft.wait(subject(&mirror.name), "schedule", look.state.to_string(), look.wake_at);
        let Some(instant) = look.start() else { return };
        if schedule.policy.missed != Missed::All {
            // The run that starts now is for all that came before it.
            state.progress.owed.clear();
        }
        if state.wanted.is_none() {
            state.number = state.number.saturating_add(1);
            state.wanted = Some(Wanted {
                number: state.number,
                trigger: Trigger::Schedule(instant),
                allow: Allow::default(),
                at: draft.now,
                from: None,
            });
        }
    }

    fn start(
        &mut self,
        draft: &mut Draft<'_>,
        parts: &Parts<'_>,
        room: &mut Room,
        from: PullFrom,
        wanted: &Wanted,
    ) {
        let mirror = parts.mirror;
        room.take(&hosts(HopKind::Upstream, &from, &parts.mirror.options));
        self.state.current = Some(wanted.number);
        let pull = self.pull(parts, wanted.number, from, wanted.allow);
        self.group.push(pulls::row_begun(
            draft,
            mirror,
            Begun {
                number: wanted.number,
                node: &mirror.master,
                hop: HopKind::Upstream,
                trigger: wanted.trigger.clone(),
                asked_at: wanted.at,
                generation: pull.generation,
            },
        ));
        pulls::give(draft, &mut self.group, pull, &mirror.master, 1);
    }

    /// The same run once more.
    fn again(
        &mut self,
        draft: &mut Draft<'_>,
        parts: &Parts<'_>,
        placed: &Placed<'_>,
        room: &mut Room,
        task: &Task,
        last: &MirrorPull,
    ) {
        let mirror = parts.mirror;
        let from = match (&last.from, last.hop) {
            (PullFrom::Agent(peer), HopKind::Upstream) => Some(&peer.node),
            _ => None,
        };
        let checked = master_node(parts).and_then(|node| {
            pulls::check_node(draft, placed, node)?;
            source(draft, parts, placed, node, from)
        });
        let from = match checked {
            Ok(from) if room.has(&hosts(HopKind::Upstream, &from, &mirror.options)) => from,
            Ok(from) => {
                let hosts = hosts(HopKind::Upstream, &from, &mirror.options);
                self.queued = Some(Queued { since: task.created_at, hosts });
                let text = "as many pulls as may be go on: the next try waits for them".to_owned();
                return Blocked::new("limit", text).wait(draft, parts, &mirror.master);
            }
            Err(blocked) => return blocked.wait(draft, parts, &mirror.master),
        };
        room.take(&hosts(HopKind::Upstream, &from, &parts.mirror.options));
        let attempt = task.attempt.saturating_add(1);
        let pull = self.pull(parts, last.number, from, last.allow);
        let row = pulls::row_again(
            draft.world,
            mirror,
            last.number,
            &mirror.master,
            attempt,
            pull.generation,
        );
        self.group.extend(row);
        pulls::give(draft, &mut self.group, pull, &mirror.master, attempt);
    }

    fn pull(&self, parts: &Parts<'_>, number: u64, from: PullFrom, allow: Allow) -> MirrorPull {
        let mirror = parts.mirror;
        MirrorPull {
            mirror: mirror.name.clone(),
            number,
            generation: self.state.generation.saturating_add(1),
            tree: mirror.tree(),
            hop: HopKind::Upstream,
            has_password: mirror.has_password && matches!(from, PullFrom::Remote(_)),
            from,
            // Both in a row: nobody waits in between.
            stage: Stage::Whole,
            options: mirror.options.clone(),
            allow,
        }
    }
}

fn master_node<'a>(parts: &Parts<'a>) -> Result<&'a Node, Blocked> {
    parts.master.ok_or_else(|| {
        let text = format!("the master {} is not there", parts.mirror.master);
        Blocked::new("no_master", text)
    })
}

/// Whether a run could start now, and where it would pull from.
fn check(
    draft: &mut Draft<'_>,
    parts: &Parts<'_>,
    placed: &Placed<'_>,
    replicas: &[Replica<'_>],
    state: &MirrorState,
) -> Result<PullFrom, Blocked> {
    let node = master_node(parts)?;
    pulls::check_node(draft, placed, node)?;
    let from = source(
        draft,
        parts,
        placed,
        node,
        state.wanted.as_ref().and_then(|wanted| wanted.from.as_ref()),
    )?;
    stages::check_between(draft, parts, state, replicas)?;
    Ok(from)
}

fn source(
    draft: &Draft<'_>,
    parts: &Parts<'_>,
    placed: &Placed<'_>,
    node: &Node,
    from: Option<&lockstep_model::NodeName>,
) -> Result<PullFrom, Blocked> {
    let Some(from) = from else {
        return Ok(match &parts.mirror.upstream {
            Some(upstream) => PullFrom::Remote(upstream.clone()),
            None => PullFrom::Here,
        });
    };
    let Some(copy) = parts.copies.iter().find(|copy| copy.node.name == *from) else {
        let text = format!("{from} is no replica any more: ask for another run");
        return Err(Blocked::new("no_replica", text));
    };
    pulls::check_node(draft, placed, copy.node)?;
    pulls::peer(node, copy.node).map(PullFrom::Agent)
}
