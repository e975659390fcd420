//! What holds for every pull, whichever hop it is: how a try ends, what it takes to begin one, and
//! the records that are written with it.

use lockstep_model::mirror::run::RunEnd;
use lockstep_model::mirror::{HopKind, Mirror, Run, RunId, Trigger};
use lockstep_model::node::Node;
use lockstep_model::record::{Key, Record, Write};
use lockstep_model::task::{Ended, MirrorPull, OutcomeKind, Peer, Slot, Task, TaskSpec};
use lockstep_model::{Millis, MirrorName, NodeName, Timestamp};

use super::places::Placed;
use super::{Parts, part, works};
use crate::World;
use crate::draft::{Draft, NewTask};
use crate::syncs::addresses;
use crate::tasks;

/// What a try may take beyond its own limit, which the agent holds: hooks, and the wait for others of
/// its node.
pub const PULL_SLACK: Millis = Millis::from_secs(24 * 3600);

/// The newest try of a node.
pub(super) fn newest<'a>(
    world: &'a World,
    mirror: &Mirror,
    node: &NodeName,
) -> Option<(&'a Task, &'a MirrorPull)> {
    let task = world.newest(node, &Slot::Pull(mirror.name.clone()))?;
    match &task.spec {
        TaskSpec::MirrorPull(pull) => Some((task, pull)),
        _ => None,
    }
}

/// What becomes of a part that is under way.
pub(super) enum Verdict<'a> {
    Waits,
    /// Another try is due.
    Again,
    Over(&'a Ended),
}

/// `may_go_on`: whether anybody still wants it.
pub(super) fn judge<'a>(
    draft: &mut Draft<'a>,
    mirror: &Mirror,
    node: Option<&Node>,
    task: &'a Task,
    may_go_on: bool,
) -> Verdict<'a> {
    let Some(ended) = &task.ended else {
        if tasks::is_of_lost_past(draft.world, task) && !task.cancel_requested {
            return Verdict::Again;
        }
        match node {
            None => tasks::lose(draft, &task.node, &task.slot()),
            Some(node) if works(node) => {}
            Some(_) => cancel(draft, task),
        }
        tasks::wait_for_node(draft, "pull", task);
        return Verdict::Waits;
    };
    let is_permanent = ended.outcome.pulled.is_some_and(|pulled| pulled.permanent);
    match ended.outcome.kind {
        OutcomeKind::Failed if is_permanent || task.attempt >= mirror.options.limits.attempts => {
            Verdict::Over(ended)
        }
        OutcomeKind::Failed | OutcomeKind::Interrupted | OutcomeKind::Unknown
            if may_go_on && !task.cancel_requested && node.is_some_and(works) =>
        {
            match tasks::is_due(draft, task, ended) {
                true => Verdict::Again,
                false => Verdict::Waits,
            }
        }
        // Given anew in the same transaction; a cut between the two cannot be.
        OutcomeKind::Superseded => Verdict::Again,
        OutcomeKind::Ok
        | OutcomeKind::Failed
        | OutcomeKind::Cancelled
        | OutcomeKind::Interrupted
        | OutcomeKind::Unknown
        | OutcomeKind::Lost
        | OutcomeKind::Unsupported => Verdict::Over(ended),
    }
}

pub(super) fn cancel(draft: &mut Draft<'_>, task: &Task) {
    if !task.cancel_requested {
        let task = Task { cancel_requested: true, ..task.clone() };
        draft.write("run_moot", [Write::Put(Record::Task(task))]);
    }
}

/// Why a pull may not begin now.
pub(super) struct Blocked {
    pub rule: &'static str,
    pub text: String,
    pub until: Option<Timestamp>,
}

impl Blocked {
    pub fn new(rule: &'static str, text: String) -> Self {
        Self { rule, text, until: None }
    }

    pub fn wait(self, draft: &mut Draft<'_>, parts: &Parts<'_>, node: &NodeName) {
        let subject = part(&parts.mirror.name, node);
        draft.wait(subject, self.rule, self.text, self.until);
    }
}

/// Whether a node can do its part now.
pub(super) fn check_node(
    draft: &Draft<'_>,
    placed: &Placed<'_>,
    node: &Node,
) -> Result<(), Blocked> {
    let name = &node.name;
    if !works(node) {
        let text = format!("{name} is disabled: lockstepctl node enable {name}");
        return Err(Blocked::new("node_disabled", text));
    }
    if !draft.world.seen(name).is_some_and(|seen| seen.is_connected()) {
        let text =
            format!("{name} is not connected: it pulls when it returns, once, to the newest");
        return Err(Blocked::new("node_away", text));
    }
    if !placed.has(name) {
        let text = format!("{name} has not taken up its part yet");
        return Err(Blocked::new("no_place", text));
    }
    Ok(())
}

/// One node as another reaches it.
pub(super) fn peer(from: &Node, to: &Node) -> Result<Peer, Blocked> {
    let addresses = addresses(from, to);
    if addresses.is_empty() {
        let text = format!(
            "{0} has not announced an address for data; {1} pulls from it once {0} connects",
            to.name, from.name
        );
        return Err(Blocked::new("no_address", text));
    }
    Ok(Peer { node: to.name.clone(), key_hash: to.key_hash, addresses })
}

/// A try with its predecessors forgotten.
pub(super) fn give(
    draft: &mut Draft<'_>,
    group: &mut Vec<Write>,
    pull: MirrorPull,
    of: &NodeName,
    attempt: u32,
) {
    let world = draft.world;
    let slot = Slot::Pull(pull.mirror.clone());
    for id in world.ids(of, &slot) {
        let Some(task) = world.task_at(of, *id) else { continue };
        let Some(old) = tasks::superseded(task, draft.now) else {
            group.push(Write::Delete(Key::Task(of.clone(), *id)));
            continue;
        };
        // A node that was a replica and is the master now has a run that is nobody's.
        if let (TaskSpec::MirrorPull(last), Some(ended)) = (&old.spec, &old.ended)
            && last.number != pull.number
        {
            let name = &pull.mirror;
            group.extend(row_ended(world, name, last.number, of, end(ended), None));
        }
        group.push(Write::Put(Record::Task(old)));
    }
    let limit = pull.options.limits.timeout;
    group.push(draft.born(NewTask {
        node: of.clone(),
        spec: TaskSpec::MirrorPull(pull),
        attempt,
        run_limit: Millis(limit.0.saturating_add(PULL_SLACK.0)),
        traceparent: None,
    }));
}

/// What a part began with.
pub(super) struct Begun<'a> {
    pub number: u64,
    pub node: &'a NodeName,
    pub hop: HopKind,
    pub trigger: Trigger,
    /// When somebody or something asked for it.
    pub asked_at: Timestamp,
    pub generation: u64,
}

pub(super) fn row_begun(draft: &Draft<'_>, mirror: &Mirror, begun: Begun<'_>) -> Write {
    let Begun { number, node, hop, trigger, asked_at, generation } = begun;
    Write::Put(Record::Run(Run {
        id: RunId { mirror: mirror.name.clone(), number },
        node: node.clone(),
        hop,
        trigger,
        created_at: asked_at,
        started_at: draft.now,
        attempts: 1,
        generation,
        end: None,
    }))
}

/// The row of a further try. None: the row is gone, and the run goes on without it.
pub(super) fn row_again(
    world: &World,
    mirror: &Mirror,
    number: u64,
    node: &NodeName,
    attempts: u32,
    generation: u64,
) -> Option<Write> {
    let id = RunId { mirror: mirror.name.clone(), number };
    let row = &world.run_on(&id, node)?.value;
    Some(Write::Put(Record::Run(Run { attempts, generation, end: None, ..row.clone() })))
}

/// The row of a part that is over.
pub(super) fn row_ended(
    world: &World,
    mirror: &MirrorName,
    number: u64,
    node: &NodeName,
    end: RunEnd,
    generation: Option<u64>,
) -> Option<Write> {
    let id = RunId { mirror: mirror.clone(), number };
    let row = &world.run_on(&id, node)?.value;
    if row.end.is_some() {
        return None;
    }
    let generation = generation.unwrap_or(row.generation);
    Some(Write::Put(Record::Run(Run { generation, end: Some(end), ..row.clone() })))
}

pub(super) fn end(ended: &Ended) -> RunEnd {
    let outcome = &ended.outcome;
    RunEnd {
        at: ended.at,
        kind: outcome.kind,
        message: outcome.message.clone(),
        pulled: outcome.pulled,
    }
}

/// Of a part whose task is gone.
pub(super) fn end_lost(at: Timestamp) -> RunEnd {
    let message = "nobody knows how it ended: its node was removed or is another now".to_owned();
    RunEnd { at, kind: OutcomeKind::Lost, message, pulled: None }
}
