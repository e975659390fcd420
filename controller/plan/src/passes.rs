//! Passes of syncs that happen by themselves: gives each target its runs when the sync's schedules
//! say so. When that is, and what becomes of runs that come too late, is decided in
//! `schedule::follow`; what becomes of a run that was given, in `runs`.

use std::collections::BTreeMap;

use lockstep_model::record::{Key, Record, Write};
use lockstep_model::schedule::{Progress, Schedule};
use lockstep_model::sync::{Pass, Sync, SyncState, TARGETS_MAX};
use lockstep_model::task::{SyncVerify, TaskSpec};
use lockstep_model::{Invalid, Millis, NodeName, SyncName, Timestamp};

use crate::World;
use crate::draft::{Draft, NewTask};
use crate::members::{Member, Uses, feeder, members};
use crate::runs::{self, RUN_LIMIT};
use crate::schedule::follow::{Course, Place, State, passed_over};
use crate::syncs::Desired;

pub(crate) fn follow(draft: &mut Draft<'_>, desired: &Desired) {
    let world = draft.world;
    let mut uses = None;
    for sync in world.syncs().values().map(|sync| &sync.value).filter(|sync| is_followed(sync)) {
        let uses = uses.get_or_insert_with(|| Uses::of(world));
        let schedules = schedules(sync);
        let courses: Vec<(Pass, Course)> =
            schedules.iter().map(|(pass, schedule)| (*pass, Course::of(schedule))).collect();
        let members = members(world, uses, sync).0;
        for member in from_the_source_down(world, sync, &members) {
            follow_target(draft, desired, sync, &courses, member);
        }
        for state in world.sync_states_of(&sync.name) {
            if members.binary_search_by(|member| member.node.cmp(&state.target)).is_err() {
                stop(draft, &sync.name, &state.target);
            }
        }
        // Their next starts are when to wake, too.
        for upcoming in upcoming(world, sync, draft.now) {
            let Upcoming { pass, rule, next, text } = upcoming;
            let text = format!("{pass} by '{rule}': {text}");
            draft.wait(format!("sync/{}", sync.name), "schedule", text, next);
        }
    }
    for (name, targets) in world.sync_states() {
        let sync = world.syncs().get(name).map(|sync| &sync.value);
        if !sync.is_some_and(is_followed) {
            targets.keys().for_each(|target| stop(draft, name, target));
        }
    }
}

/// Relays before the targets that they feed.
fn from_the_source_down<'a, 'w>(
    world: &World,
    sync: &Sync,
    members: &'a [Member<'w>],
) -> Vec<&'a Member<'w>> {
    let mut members: Vec<_> = members.iter().collect();
    if sync.options.fanout.is_some() {
        members.sort_by_cached_key(|member| {
            let above = |node: &&NodeName| {
                let feeder = feeder(world, sync, node);
                (*feeder != sync.source.node).then_some(feeder)
            };
            // What goes round is no deeper than all of them.
            std::iter::successors(Some(member.node), above).take(TARGETS_MAX).count()
        });
    }
    members
}

fn is_followed(sync: &Sync) -> bool {
    !sync.paused && !sync.options.schedules.is_empty()
}

/// What comes back begins anew.
fn stop(draft: &mut Draft<'_>, sync: &SyncName, target: &NodeName) {
    let key = Key::SyncState(sync.clone(), target.clone());
    draft.write("schedule_stopped", [Write::Delete(key)]);
}

fn schedules(sync: &Sync) -> Vec<(Pass, Schedule)> {
    let schedule = |pass| Some((pass, sync.options.schedules.schedule(pass)?));
    Pass::ALL.into_iter().filter_map(schedule).collect()
}

fn follow_target(
    draft: &mut Draft<'_>,
    desired: &Desired,
    sync: &Sync,
    courses: &[(Pass, Course<'_>)],
    member: &Member<'_>,
) {
    let target = member.node;
    // Without an agent nobody can look at the copy.
    let possible = |pass: Pass| pass == Pass::Resync || member.path().is_some();
    let courses = || courses.iter().filter(|(pass, _)| possible(*pass));
    let before = draft.world.sync_state(&sync.name, target).map(|state| &state.passes);
    let rests = |(pass, course): &(Pass, Course<'_>)| {
        let progress = before.and_then(|before| before.get(pass));
        progress.is_some_and(|p| course.rests(&splay_name(sync, *pass, target), p, draft.now))
    };
    let count = before.map_or(0, BTreeMap::len);
    // Most of the time there is nothing more to know.
    if draft.is_cut() || courses().all(rests) && courses().count() == count {
        return;
    }
    let feeder = feeder(draft.world, sync, target);
    if !runs::is_wanted(draft.world, desired, sync, target, feeder) {
        if before.is_some() {
            stop(draft, &sync.name, target);
        }
        return;
    }
    let mut after = BTreeMap::new();
    let mut writes = Vec::new();
    for (pass, course) in courses() {
        let spec = spec(*pass, sync, target);
        let place = match is_compared_above(draft, *pass, sync, feeder) {
            true => Place::Taken,
            false => place(draft, feeder, &spec),
        };
        let progress = before.and_then(|before| before.get(pass)).cloned().unwrap_or_default();
        let name = splay_name(sync, *pass, target);
        let look = match course.look(&name, &progress, place, draft.now) {
            Ok(look) => look,
            Err(problem) => return explain_zone(draft, sync, problem),
        };
        if let Some(at) = look.wake_at {
            draft.wake(at);
        }
        if look.start().is_some() {
            writes.push(draft.born(NewTask {
                node: feeder.clone(),
                spec,
                attempt: 1,
                run_limit: RUN_LIMIT,
                traceparent: None,
            }));
        }
        after.insert(*pass, look.progress.unwrap_or(progress));
    }
    if before != Some(&after) {
        let (sync, target) = (sync.name.clone(), target.clone());
        match after.is_empty() {
            true => writes.push(Write::Delete(Key::SyncState(sync, target))),
            false => {
                let state = SyncState { sync, target, passes: after };
                writes.push(Write::Put(Record::SyncState(state)));
            }
        }
    }
    draft.write("schedule", writes);
}

fn spec(pass: Pass, sync: &Sync, target: &NodeName) -> TaskSpec {
    let (sync, target) = (sync.name.clone(), target.clone());
    let verify = |content| (content, true, Vec::new());
    let (content, repair, paths) = match pass {
        Pass::Resync => return TaskSpec::SyncResync { sync, target },
        Pass::Scrub => verify(true),
        Pass::Verify => verify(false),
    };
    TaskSpec::SyncVerify(SyncVerify { sync, target, content, repair, paths })
}

/// Whether the copy that a target is fed from is being compared itself: until it is mended it would be
/// the measure of what is wrong with it.
fn is_compared_above(draft: &Draft<'_>, pass: Pass, sync: &Sync, feeder: &NodeName) -> bool {
    if pass == Pass::Resync || *feeder == sync.source.node {
        return false;
    }
    let above = crate::members::feeder(draft.world, sync, feeder);
    place(draft, above, &spec(pass, sync, feeder)) != Place::Free
}

/// A slot has one run at a time; people may have asked for the one that is there.
fn place(draft: &Draft<'_>, feeder: &NodeName, spec: &TaskSpec) -> Place {
    let slot = spec.slot();
    if draft.gave(feeder, &slot) {
        return Place::Taken;
    }
    match draft.world.newest(feeder, &slot).filter(|task| runs::goes_on(task)) {
        None => Place::Free,
        Some(task) if task.spec == *spec => Place::Running,
        Some(_) => Place::Taken,
    }
}

/// Empty when nothing is spread.
fn splay_name(sync: &Sync, pass: Pass, target: &NodeName) -> String {
    if sync.options.schedules.policy.splay == Millis(0) {
        return String::new();
    }
    format!("{}/{pass}/{target}", sync.name)
}

fn explain_zone(draft: &mut Draft<'_>, sync: &Sync, problem: Invalid) {
    let text = format!("its schedules are not followed: {problem}");
    draft.wait(format!("sync/{}", sync.name), "schedule_zone", text, None);
}

/// What a schedule of a sync brings next, to any of its targets.
pub struct Upcoming<'a> {
    pub pass: Pass,
    /// As it was written.
    pub rule: &'a str,
    pub next: Option<Timestamp>,
    /// For people.
    pub text: String,
}

/// From what is recorded, for each schedule of the sync.
pub fn upcoming<'a>(world: &World, sync: &'a Sync, now: Timestamp) -> Vec<Upcoming<'a>> {
    let of = |pass: Pass| {
        let rule = sync.options.schedules.rule(pass)?.as_str();
        let schedule = sync.options.schedules.schedule(pass)?;
        let course = Course::of(&schedule);
        let (mut next, mut owed, mut other, mut without) = (None, 0, None, None);
        for state in world.sync_states_of(&sync.name) {
            let Some(progress) = state.passes.get(&pass) else { continue };
            let name = splay_name(sync, pass, &state.target);
            match course.state(&name, progress, now) {
                State::Waits(at) => next = next.into_iter().chain([at]).min(),
                State::Owed { .. } => owed += 1,
                state @ State::ClockBack { until, .. } => {
                    next = next.into_iter().chain(until).min();
                    other = Some(state);
                }
                state => other = other.or(Some(state)),
            }
            without = without.max(newest_without(progress));
        }
        let mut parts = match (next, other) {
            _ if sync.paused => vec!["not while the sync is paused".to_owned()],
            (_, Some(other @ State::ClockBack { .. })) => vec![other.to_string()],
            (Some(next), _) => vec![State::Waits(next).to_string()],
            (None, Some(other)) => vec![other.to_string()],
            (None, None) if owed == 0 => vec!["for no target".to_owned()],
            (None, None) => Vec::new(),
        };
        if owed > 0 {
            parts.push(format!("waits at {owed} of its targets for the run before"));
        }
        parts.extend(without.map(|(_, text)| text));
        Some(Upcoming { pass, rule, next, text: parts.join("; ") })
    };
    Pass::ALL.into_iter().filter_map(of).collect()
}

fn newest_without(progress: &Progress) -> Option<(Timestamp, String)> {
    Some((progress.considered, passed_over(progress)?))
}

#[cfg(test)]
mod tests;
