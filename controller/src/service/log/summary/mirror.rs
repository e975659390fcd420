//! Mirrors and their runs, one line each.

use lockstep_model::mirror::{Mirror, MirrorState, ReplicaState, Run, Wanted};
use lockstep_model::setting::{Settings, Value};
use lockstep_model::sync::Selected;

use super::{NAMES_MAX, list};

pub(super) fn of_mirror(mirror: &Mirror) -> String {
    let Mirror {
        name: _,
        upstream,
        has_password: _,
        master,
        dest: _,
        dir: _,
        replicas,
        selected,
        options,
        schedule,
        enabled,
        owner,
        push_tokens,
        created_at: _,
        deleting: _,
        was: _,
    } = mirror;
    let upstream = upstream.as_ref().map_or("its owner".to_owned(), ToString::to_string);
    let mut text = format!(
        "{upstream} to {master}:{} to {}",
        mirror.tree(),
        list(replicas.iter().map(ToString::to_string))
    );
    if let Some(Selected { selector, path }) = selected {
        text.push_str(&format!(" and {selector} at {path}"));
    }
    if let Some(schedule) = schedule {
        text.push_str(&format!(", at {} {}", schedule.rule, schedule.zone));
    }
    for Value { name, text: value } in options.values().iter().take(NAMES_MAX) {
        text.push_str(&format!(", {name}={value}"));
    }
    if let Some(owner) = owner {
        text.push_str(&format!(", of {owner}"));
    }
    if !push_tokens.is_empty() {
        text.push_str(&format!(
            ", push tokens {}",
            list(push_tokens.iter().map(|t| t.id.to_string()))
        ));
    }
    if !enabled {
        text.push_str(", disabled");
    }
    text
}

pub(super) fn of_state(state: &MirrorState) -> String {
    let MirrorState {
        mirror: _,
        generation,
        generation_at: _,
        generation_run: _,
        number,
        wanted,
        current,
        complete_at: _,
        progress: _,
        generation_on: _,
        allow: _,
        distributed: _,
    } = state;
    format!("generation {generation}, run {number}{}", runs(wanted.as_ref(), *current))
}

pub(super) fn of_replica(state: &ReplicaState) -> String {
    let ReplicaState {
        mirror: _,
        node: _,
        generation,
        staged,
        staged_at: _,
        wanted,
        current,
        complete_at: _,
    } = state;
    let staged = if staged > generation { format!(", staged {staged}") } else { String::new() };
    format!("generation {generation}{staged}{}", runs(wanted.as_ref(), *current))
}

fn runs(wanted: Option<&Wanted>, current: Option<u64>) -> String {
    let current = current.map_or(String::new(), |number| format!(", {number} under way"));
    let wanted = wanted.map_or(String::new(), |run| format!(", {} wanted", run.number));
    format!("{current}{wanted}")
}

pub(super) fn of_run(run: &Run) -> String {
    let Run {
        id: _,
        node: _,
        hop,
        trigger,
        created_at: _,
        started_at: _,
        attempts,
        generation,
        end,
    } = run;
    let end = match end {
        None => "under way".to_owned(),
        Some(end) if end.message.is_empty() => end.kind.to_string(),
        Some(end) => format!("{}: {}", end.kind, end.message),
    };
    format!("{hop} by {trigger}, generation {generation}, try {attempts}: {end}")
}
