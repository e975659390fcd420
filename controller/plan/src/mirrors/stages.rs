//! The barrier of mirrors with two stages: indices go to nobody before the content that they name is
//! with all, or with enough, or some have waited for the others long enough.

use lockstep_model::Timestamp;
use lockstep_model::mirror::MirrorState;
use lockstep_model::task::Stage;

use super::pulls::Blocked;
use super::replicas::Replica;
use super::{Parts, works};
use crate::draft::Draft;
use crate::seen::Away;

/// Whether the second stage may start on any replica.
pub(super) fn check_open(
    draft: &mut Draft<'_>,
    parts: &Parts<'_>,
    generation: u64,
    replicas: &[Replica<'_>],
) -> Result<(), Blocked> {
    let stages = &parts.mirror.options.stages;
    let is_past = |replica: &Replica<'_>| {
        let at_second = replica
            .task
            .is_some_and(|(_, pull)| pull.stage == Stage::Second && pull.generation == generation);
        replica.state.generation >= generation || at_second
    };
    let waiting: Vec<Timestamp> = replicas
        .iter()
        .filter(|replica| replica.is_between() && replica.state.staged == generation)
        .filter_map(|replica| replica.state.staged_at)
        .collect();
    let Some(first) = waiting.iter().min() else { return Ok(()) };
    if replicas.iter().any(is_past) {
        return Ok(());
    }
    let mut others = 0;
    let mut soon = None::<Timestamp>;
    for replica in replicas.iter().filter(|replica| replica.state.staged < generation) {
        let node = replica.copy.node;
        match draft.world.away(&node.name, draft.now) {
            _ if !works(node) => continue,
            _ if replica.state.current.is_none()
                && replica.rests(draft, parts, generation).is_some() =>
            {
                continue;
            }
            Away::Yes => continue,
            Away::Soon(at) => soon = Some(soon.map_or(at, |soon| soon.min(at))),
            Away::No => {}
        }
        others += 1;
    }
    let all = waiting.len() + others;
    let enough = stages.quorum.map_or(all, |n| usize::try_from(n).unwrap_or(all)).min(all);
    let until = *first + stages.wait;
    if waiting.len() >= enough || draft.now >= until {
        return Ok(());
    }
    let text = format!(
        "the first stage is with {} of {enough} replicas: the second starts when they have it, or at \
         {until}",
        waiting.len()
    );
    let until = soon.map_or(until, |soon| soon.min(until));
    Err(Blocked { rule: "two_stage", text, until: Some(until) })
}

/// Refuses a run of the master while replicas are at their two stages, for a time: else a mirror that
/// changes often would have them begin with the first again and again.
pub(super) fn check_between(
    draft: &Draft<'_>,
    parts: &Parts<'_>,
    state: &MirrorState,
    replicas: &[Replica<'_>],
) -> Result<(), Blocked> {
    let mut are_at_it = false;
    let mut staged = None::<Timestamp>;
    for replica in replicas {
        let Some((_, pull)) = replica.task else { continue };
        let is_at_it = replica.is_busy() || replica.is_between();
        let is_here = draft.world.away(&replica.copy.node.name, draft.now) != Away::Yes;
        if pull.stage == Stage::Whole || !is_at_it || !is_here || !works(replica.copy.node) {
            continue;
        }
        are_at_it = true;
        let since = replica.state.staged_at.filter(|_| replica.state.staged == state.generation);
        staged = staged.into_iter().chain(since).min();
    }
    let wait = parts.mirror.options.stages.wait;
    // Once for the barrier, and once for the stages themselves.
    let until = staged.unwrap_or(state.generation_at) + wait + wait;
    if !are_at_it || draft.now >= until {
        return Ok(());
    }
    let text = format!("replicas are at their two stages: it starts after them, or at {until}");
    Err(Blocked { rule: "two_stage", text, until: Some(until) })
}
