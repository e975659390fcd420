//! A mirror and its runs as they are shown: what is wanted, how far each node is, what they say.
//! Reads only.

use std::collections::HashMap;

use lockstep_model::mirror::{HopKind, Mirror, MirrorReport, MirrorState, Run, RunId};
use lockstep_model::node::NodeHealth;
use lockstep_model::path::DirPath;
use lockstep_model::record::Versioned;
use lockstep_model::schedule::Progress;
use lockstep_model::task::{OutcomeKind, Slot, TaskSpec};
use lockstep_model::{NodeName, TaskId, Timestamp};
use lockstep_plan::World;
use lockstep_plan::members::copies;
use lockstep_plan::mirrors::reasons;
use lockstep_plan::schedule::Timetable;
use lockstep_plan::schedule::follow::{Course, State};
use lockstep_proto::convert::mirror::mirror_settings;
use lockstep_proto::convert::to_wire_time;
use lockstep_proto::v1;

use crate::identity::vault::{Purpose, Vault};

/// What is looked at.
pub(super) struct Shown<'a> {
    pub world: &'a World,
    pub vault: &'a Vault,
    pub now: Timestamp,
}

pub(super) fn show(shown: &Shown<'_>, mirror: &Versioned<Mirror>) -> v1::Mirror {
    let Shown { world, vault, now } = *shown;
    let Versioned { revision, value: mirror } = mirror;
    let state = world.mirror_states().get(&mirror.name).map(|state| state.value.clone());
    let state = state.unwrap_or_else(|| MirrorState::new(mirror.name.clone(), now));
    let schedule = Followed::of(mirror, &state.progress, now);
    let why = Why::of(world, mirror, &schedule, now);
    let tree = mirror.tree();
    let has_it = state.generation_on.as_ref() == Some(&mirror.master);
    let generation = if has_it { state.generation } else { 0 };
    let part = Part { node: &mirror.master, tree: &tree, selected: false };
    let on_master = v1::MirrorNode {
        generation,
        current: generation > 0,
        complete_at: state.complete_at.filter(|_| has_it).map(to_wire_time),
        ..part.show(shown, mirror, &why, generation > 0 && !failed_last(world, mirror))
    };
    let replica = |copy: lockstep_plan::members::Copy<'_>| {
        let node = &copy.node.name;
        let row = world.replica(&mirror.name, node).map(|row| &row.value);
        let generation = row.map_or(0, |row| row.generation);
        let current = generation > 0 && generation >= state.generation;
        let part = Part { node, tree: &copy.tree, selected: copy.selected };
        v1::MirrorNode {
            generation,
            current,
            complete_at: row.and_then(|row| row.complete_at).map(to_wire_time),
            ..part.show(shown, mirror, &why, current || state.generation == 0)
        }
    };
    let (there, left_out) = copies(world, mirror);
    let mut on_replicas: Vec<v1::MirrorNode> = there.into_iter().map(replica).collect();
    on_replicas.extend(left_out.into_iter().map(|out| v1::MirrorNode {
        node: out.node.to_string(),
        reason: out.why,
        ..Default::default()
    }));
    let reason = no_password(world, vault, mirror)
        .or_else(|| why.own.clone())
        .or_else(|| Some(&on_master.reason).filter(|reason| !reason.is_empty()).cloned())
        .or_else(|| on_replicas.iter().map(|on| &on.reason).find(|why| !why.is_empty()).cloned());
    let Mirror {
        name,
        upstream,
        has_password,
        master,
        dest,
        dir: _,
        replicas,
        selected,
        options,
        schedule: rule,
        enabled,
        owner,
        push_tokens: _,
        created_at,
        deleting: _,
        was: _,
    } = mirror;
    v1::Mirror {
        name: name.to_string(),
        upstream: upstream.as_ref().map(ToString::to_string).unwrap_or_default(),
        has_password: *has_password,
        master: master.to_string(),
        dest: dest.to_string(),
        tree: tree.to_string(),
        replicas: replicas.iter().cloned().map(Into::into).collect(),
        selected: selected.clone().map(Into::into),
        settings: mirror_settings(options),
        schedule: rule.clone().map(Into::into),
        next_run_at: schedule.next.map(to_wire_time),
        enabled: *enabled,
        owner: owner.as_ref().map(ToString::to_string).unwrap_or_default(),
        created_at: Some(to_wire_time(*created_at)),
        revision: revision.0,
        generation: state.generation,
        generation_at: (state.generation > 0).then(|| to_wire_time(state.generation_at)),
        complete_at: state.complete_at.map(to_wire_time),
        wanted_run: state.wanted.as_ref().map_or(0, |wanted| wanted.number),
        on_master: Some(on_master),
        on_replicas,
        reason: reason.unwrap_or_default(),
        schedule_fields: rule
            .iter()
            .flat_map(|schedule| schedule.rule.expanded())
            .map(|(name, value)| (name.to_string(), value))
            .collect(),
    }
}

/// Its password is kept and cannot be read.
fn no_password(world: &World, vault: &Vault, mirror: &Mirror) -> Option<String> {
    let upstream = mirror.upstream.as_ref().filter(|_| mirror.has_password)?;
    let sealed = world.secrets().get(&mirror.name).map(|secret| secret.value.sealed.as_slice());
    if sealed.is_some_and(|sealed| vault.unseal(sealed, Purpose::Upstream(upstream)).is_some()) {
        return None;
    }
    let name = &mirror.name;
    let next =
        format!("or give the password anew: lockstepctl mirror update {name} --password-file");
    Some(match vault.is_open() {
        true => format!("its password is sealed with another key than the controller has: {next}"),
        false => format!(
            "its password cannot be read: put {} back and start the controller anew",
            vault.path().display()
        ),
    })
}

/// When the schedule starts a run next, and whether that is all there is to say of it.
struct Followed {
    next: Option<Timestamp>,
    waits: bool,
}

impl Followed {
    fn of(mirror: &Mirror, progress: &Progress, now: Timestamp) -> Self {
        let none = Self { next: None, waits: false };
        let Some(schedule) = mirror.schedule.as_ref().filter(|_| mirror.enabled) else {
            return none;
        };
        let course = Course::of(schedule);
        if !course.follows(progress) {
            let first = Timetable::new(schedule).ok().and_then(|table| table.next_after(now));
            return Self { next: first.map(|at| course.delayed(mirror.name.as_str(), at)), ..none };
        }
        match course.state(mirror.name.as_str(), progress, now) {
            State::Waits(next) => Self { next: Some(next), waits: true },
            State::Starts(_) | State::Owed { .. } => Self { next: Some(now), waits: false },
            State::ClockBack { by: _, until } => Self { next: until, waits: false },
            State::Exhausted => none,
        }
    }
}

/// What the planner says of a mirror, by whom it is about.
struct Why {
    own: Option<String>,
    of: HashMap<String, String>,
}

impl Why {
    fn of(world: &World, mirror: &Mirror, schedule: &Followed, now: Timestamp) -> Self {
        let subject = format!("mirror/{}", mirror.name);
        let mut why = Self { own: None, of: HashMap::new() };
        for reason in reasons(world, &mirror.name, now) {
            // That it waits for its time, or to be asked, is how it should be.
            let is_fine =
                reason.rule == "no_schedule" || reason.rule == "schedule" && schedule.waits;
            if reason.subject == subject {
                why.own = why.own.or(Some(reason.text).filter(|_| !is_fine));
            } else if let Some(node) = reason.subject.strip_prefix(&format!("{subject}/")) {
                why.of.entry(node.to_owned()).or_insert(reason.text);
            }
        }
        why
    }
}

/// One node's part.
struct Part<'a> {
    node: &'a NodeName,
    tree: &'a DirPath,
    selected: bool,
}

impl Part<'_> {
    /// Without how far it is.
    fn show(&self, shown: &Shown<'_>, mirror: &Mirror, why: &Why, fine: bool) -> v1::MirrorNode {
        let Shown { world, vault: _, now } = *shown;
        let Self { node, tree, selected } = *self;
        let report = world.seen(node).and_then(|seen| seen.mirror(&mirror.name));
        let last = world.runs_of(&mirror.name).rev().find_map(|(_, rows)| rows.get(node));
        let last = last.map(|row| &row.value);
        let planned = || why.of.get(node.as_str()).cloned();
        let said = || report.map(|r| r.problem.clone()).filter(|problem| !problem.is_empty());
        let failed = || last.filter(|_| !fine).and_then(trouble);
        let health = || {
            let status = world.node_health(node, now);
            let well = matches!(status.health, NodeHealth::Healthy | NodeHealth::Warning);
            (!well && !fine).then(|| format!("{node} is {}: {}", status.health, status.why))
        };
        let reason = said().or_else(planned).or_else(failed).or_else(health);
        v1::MirrorNode {
            node: node.to_string(),
            tree: tree.to_string(),
            selected,
            applied: is_applied(world, mirror, node),
            last_run: last.map(|row| run(world, row)),
            report: report.map(|report| self::report(mirror, report)),
            reason: reason.unwrap_or_default(),
            ..Default::default()
        }
    }
}

/// The master has a tree, and yet something is wrong.
fn failed_last(world: &World, mirror: &Mirror) -> bool {
    let last = world.runs_of(&mirror.name).rev().find_map(|(_, rows)| rows.get(&mirror.master));
    last.is_some_and(|row| trouble(&row.value).is_some())
}

fn report(mirror: &Mirror, report: &MirrorReport) -> v1::MirrorReport {
    v1::MirrorReport { mirror: mirror.name.to_string(), ..report.clone().into() }
}

fn trouble(run: &Run) -> Option<String> {
    let end = run.end.as_ref().filter(|end| end.kind != OutcomeKind::Ok)?;
    let colon = if end.message.is_empty() { "" } else { ": " };
    Some(format!("run {} {}{colon}{}", run.id, end.kind, end.message))
}

/// The planner gives a task for every difference, so the newest one's success says it all.
fn is_applied(world: &World, mirror: &Mirror, node: &NodeName) -> bool {
    world
        .newest(node, &Slot::Mirror(mirror.name.clone()))
        .is_some_and(|task| task.succeeded() && matches!(task.spec, TaskSpec::MirrorPlace(_)))
}

/// The head of a run comes first.
pub(super) fn place(part: &Run) -> bool {
    part.hop != HopKind::Upstream
}

/// A part with its newest try, and how far that is.
pub(super) fn run(world: &World, part: &Run) -> v1::Run {
    let task = newest_try(world, &part.id, &part.node);
    let report = world.seen(&part.node).and_then(|seen| seen.mirror(&part.id.mirror));
    let progress = report.and_then(|report| report.pull);
    let progress = progress.filter(|pull| part.end.is_none() && pull.number == part.id.number);
    v1::Run {
        task: task.map(|id| id.to_string()).unwrap_or_default(),
        progress: progress.map(Into::into),
        ..part.into()
    }
}

/// None: another run's came after it.
pub(super) fn newest_try(world: &World, id: &RunId, node: &NodeName) -> Option<TaskId> {
    let task = world.newest(node, &Slot::Pull(id.mirror.clone()))?;
    match &task.spec {
        TaskSpec::MirrorPull(pull) if pull.number == id.number => Some(task.id),
        _ => None,
    }
}
