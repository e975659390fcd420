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
    // Mirrors' runs have records of their own, and their planner forgets their tasks.
    for (node, slot, ids) in draft.world.sync_slots() {
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

#[cfg(test)]
mod tests {
    use lockstep_model::record::{Actor, Record, RequestDone, Versioned};
    use lockstep_model::request::{NodeAction, Request};
    use lockstep_model::task::OutcomeKind;
    use lockstep_model::{NodeName, Revision};

    use super::*;
    use crate::tests::dsl::{Lab, START, create_sync, remove_targets};
    use crate::{World, plan};

    fn failed_often() -> Lab {
        let mut lab = Lab::with_nodes(&["m", "w"]);
        lab.ask(create_sync("s", "m:/srv", &["w:/srv"]));
        for _ in 0..2 * TASKS_KEPT_MAX {
            lab.end_one("w", OutcomeKind::Failed, "no space left").unwrap();
            lab.pass(300);
        }
        lab
    }

    #[test]
    fn few_old_tasks_are_kept_for_a_day_and_the_newest_for_ever() {
        let w: NodeName = "w".parse().unwrap();
        let mut lab = failed_often();
        assert_eq!(lab.world.tasks_of(&w).count(), TASKS_KEPT_MAX);
        lab.work(&["m", "w"]);
        let due = lab.settle().wake_at.unwrap();
        assert!(due.since(lab.now) < TASK_KEPT, "wakes for the oldest");
        lab.pass(24 * 3600 + 60);
        let kept: Vec<_> = lab.world.tasks_of(&w).map(|task| &task.value).collect();
        assert!(matches!(kept[..], [newest] if newest.succeeded()), "{kept:#?}");
        assert_eq!(lab.settle().wake_at, None, "nothing is left to forget");
    }

    #[test]
    fn what_another_rule_deletes_is_not_deleted_again() {
        let mut lab = failed_often();
        lab.ask(remove_targets("s", &["w"]));
        lab.act("w", NodeAction::Disable);
        lab.now = lab.now + TASK_KEPT + TASK_KEPT;
        lab.try_ask(Request::RemoveNode { node: "w".parse().unwrap() }).unwrap();
        lab.settle();
        assert_eq!(lab.world.tasks_of(&"w".parse().unwrap()).count(), 0);
    }

    #[test]
    fn the_oldest_requests_go_when_there_are_too_many() {
        let requests = (0..REQUESTS_MAX as u64 + 3).map(|n| {
            let done = RequestDone {
                // Ids in another order than times.
                id: format!("r{}", REQUESTS_MAX as u64 * 2 - n).parse().unwrap(),
                actor: Actor::Offline,
                cause: "x".to_owned(),
                at: START + Millis(n),
            };
            Versioned { revision: Revision(1), value: Record::Request(done) }
        });
        let world = World::from_records(Revision(1), requests);
        let plan = plan(&world, START + Millis::from_secs(60));
        let deleted: Vec<String> =
            plan.writes.iter().map(|(rule, write)| format!("{rule} {}", write.key())).collect();
        let expected = [19_998, 19_999, 20_000].map(|n| format!("prune_requests request/r{n}"));
        assert_eq!(deleted, expected);
    }
}
