//! Forgets records that nobody needs any more: old tasks, expired tokens, requests done long ago.

use lockstep_model::record::{Key, Write};
use lockstep_model::task::Slot;
use lockstep_model::{Millis, Timestamp};

use crate::draft::Draft;

/// An ended task that is not its slot's newest is kept this long, so that people can read it,
pub const TASK_KEPT: Millis = Millis::from_secs(24 * 3600);
/// and at most so many per node and slot, the newest included.
pub const TASKS_KEPT_MAX: usize = 20;
/// After its expiry, so that a late join is told that it came late.
pub const TOKEN_KEPT: Millis = Millis::from_secs(3600);
/// How long a request id is remembered,
pub const REQUEST_KEPT: Millis = Millis::from_secs(24 * 3600);
/// and how many at most; the oldest go first.
pub const REQUESTS_MAX: usize = 10_000;

pub(crate) fn prune(draft: &mut Draft<'_>) {
    prune_tasks(draft);
    prune_tokens(draft);
    prune_requests(draft);
}

fn prune_tasks(draft: &mut Draft<'_>) {
    for (node, slot, ids) in draft.world.slots() {
        // An assignment's newest task says what is in force; a run's says only how it went.
        let says_state = matches!(slot, Slot::Sync(_));
        for (age, id) in ids.iter().rev().enumerate() {
            let Some(task) = draft.world.task_at(node, *id) else { continue };
            let Some(ended) = &task.ended else { continue };
            if age == 0 && says_state {
                continue;
            }
            if age >= TASKS_KEPT_MAX || is_past(draft, ended.at + TASK_KEPT) {
                delete(draft, "prune_tasks", Key::Task(node.clone(), *id));
            }
        }
    }
}

fn prune_tokens(draft: &mut Draft<'_>) {
    for token in draft.world.tokens().values().map(|token| &token.value) {
        if is_past(draft, token.expires_at + TOKEN_KEPT) {
            delete(draft, "prune_tokens", Key::Token(token.id.clone()));
        }
    }
}

fn prune_requests(draft: &mut Draft<'_>) {
    let requests = draft.world.requests();
    let mut spare = Vec::new();
    if requests.len() > REQUESTS_MAX {
        spare.extend(requests.values().map(|done| (done.value.at, &done.value.id)));
        spare.sort_unstable();
        spare.truncate(requests.len() - REQUESTS_MAX);
    }
    let newest_spare = spare.last().copied();
    for done in requests.values().map(|done| &done.value) {
        if newest_spare >= Some((done.at, &done.id)) || is_past(draft, done.at + REQUEST_KEPT) {
            delete(draft, "prune_requests", Key::Request(done.id.clone()));
        }
    }
}

/// Whether the time has come; else sees to it that the planner looks again. To the minute, so that
/// what expires together goes together.
fn is_past(draft: &mut Draft<'_>, at: Timestamp) -> bool {
    const GRAIN: u64 = 60_000;
    let at = Timestamp(at.0.div_ceil(GRAIN).saturating_mul(GRAIN));
    if draft.now >= at {
        return true;
    }
    draft.wake(at);
    false
}

/// Unless a rule before this one writes the record already.
fn delete(draft: &mut Draft<'_>, rule: &'static str, key: Key) {
    if !draft.writes(&key) {
        draft.write(rule, [Write::Delete(key)]);
    }
}
