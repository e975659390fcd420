//! One line of what a record says, for the log. Never a secret, nor a secret's hash.

mod cluster;
mod mirror;

use lockstep_model::identity::{Token, User};
use lockstep_model::node::Node;
use lockstep_model::past::Life;
use lockstep_model::record::{Fleet, Record, RequestDone};
use lockstep_model::schedule::Progress;
use lockstep_model::setting::{Settings, Value};
use lockstep_model::sync::{Pass, Selected, Sync, SyncState};
use lockstep_model::task::Task;

/// Most names that a line lists.
const NAMES_MAX: usize = 8;

pub(super) fn of(record: &Record) -> String {
    match record {
        Record::Fleet(Fleet { name, incarnation, created_at: _ }) => {
            format!("fleet {name}, incarnation {incarnation}")
        }
        Record::Past(past) => match past.lives.last() {
            Some(Life { id: _, began }) => format!("a controller serves since revision {began}"),
            None => "no controller served yet".to_owned(),
        },
        Record::Node(Node { name: _, labels, admin, key_hash, addresses, created_at: _ }) => {
            let labels = list(labels.iter().map(|(key, value)| format!("{key}={value}")));
            let addresses = list(addresses.iter().map(ToString::to_string));
            format!("{admin}; labels {labels}; addresses {addresses}; key {key_hash}")
        }
        Record::Token(Token {
            id: _,
            secret_sha256: _,
            grants,
            created_at: _,
            expires_at,
            used_by,
        }) => {
            let used = used_by.map_or(String::new(), |key| format!(", used by key {key}"));
            format!("for {} until {expires_at}{used}", grants.subject())
        }
        Record::User(User { name: _, role, disabled, key_hash, created_at: _ }) => {
            let state = if *disabled { "disabled" } else { "enabled" };
            let key = key_hash.map_or("no key yet".to_owned(), |key| format!("key {key}"));
            format!("{role}, {state}, {key}")
        }
        Record::Sync(sync) => of_sync(sync),
        Record::SyncState(state) => of_sync_state(state),
        Record::Mirror(mirror) => mirror::of_mirror(mirror),
        Record::MirrorState(state) => mirror::of_state(state),
        Record::Replica(state) => mirror::of_replica(state),
        Record::Run(run) => mirror::of_run(run),
        Record::Secret(_) | Record::ClusterSecret(_) => "sealed".to_owned(),
        Record::Cluster(cluster) => cluster::of_cluster(cluster),
        Record::ClusterState(state) => cluster::of_state(state),
        Record::Failover(report) => cluster::of_failover(report),
        Record::Task(task) => of_task(task),
        Record::Request(RequestDone { id: _, actor, cause, at: _ }) => {
            format!("{cause} by {actor}")
        }
    }
}

fn of_sync(sync: &Sync) -> String {
    let Sync {
        name: _,
        source,
        targets,
        selected,
        options,
        paused,
        generation: _,
        comments: _,
        created_at: _,
    } = sync;
    let mut text = format!("{source} to {}", list(targets.iter().map(ToString::to_string)));
    if let Some(Selected { selector, path }) = selected {
        text.push_str(&format!(" and {selector} at {path}"));
    }
    for Value { name, text: value } in options.values().iter().take(NAMES_MAX) {
        text.push_str(&format!(", {name}={value}"));
    }
    if *paused {
        text.push_str(", paused");
    }
    text
}

fn of_sync_state(SyncState { sync: _, target: _, passes }: &SyncState) -> String {
    let followed = |(pass, progress): (&Pass, &Progress)| {
        let next = progress.next.map_or("no more".to_owned(), |next| format!("next for {next}"));
        format!("{pass} followed to {}, {next}", progress.considered)
    };
    list(passes.iter().map(followed))
}

fn of_task(task: &Task) -> String {
    let state = match &task.ended {
        Some(ended) if ended.outcome.message.is_empty() => ended.outcome.kind.to_string(),
        Some(ended) => format!("{}: {}", ended.outcome.kind, ended.outcome.message),
        None if task.cancel_requested => "to be cancelled".to_owned(),
        None => "to do".to_owned(),
    };
    format!("{} in {}, try {}: {state}", task.spec.kind(), task.slot(), task.attempt)
}

fn list(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(NAMES_MAX);
    let mut shown: Vec<String> = names.take(NAMES_MAX).collect();
    if shown.is_empty() {
        return "none".to_owned();
    }
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}
