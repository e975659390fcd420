//! Checks over gRPC, and on the agent's board: `cluster/<name>/primary`, `replica` and `sync`, kept
//! true as reports come and leases end.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_model::ClusterName;
use lockstep_transport::health::{HealthBoard, Verdict};
use tokio::time::sleep;

use super::query::Query;
use super::{Check, Sources};
use crate::pg::boottime::{self, Boottime};

const NAMES: [(&str, Check); 3] =
    [("primary", Check::Primary), ("replica", Check::Replica), ("sync", Check::Sync)];

/// Keeps the board true; ends when its sources end.
pub async fn keep(board: HealthBoard, mut sources: Sources) {
    let mut shown = BTreeSet::new();
    loop {
        sources.in_force.mark_unchanged();
        sources.reports.mark_unchanged();
        let clusters = sources.clusters();
        let answers: BTreeMap<String, Result<(), String>> =
            clusters.iter().flat_map(|cluster| answers(&sources, cluster)).collect();
        for (name, answer) in &answers {
            match answer {
                Ok(()) => board.set(name, Verdict::Serving, "yes"),
                Err(why) => board.set(name, Verdict::NotServing, why),
            }
        }
        let names: BTreeSet<String> = answers.into_keys().collect();
        for gone in shown.difference(&names) {
            board.remove(gone);
        }
        shown = names;
        let now = boottime::now();
        let ends = clusters.iter().map(|cluster| sources.leases.writes_until(cluster));
        let end = ends.filter(|end| (now..Boottime::NEVER).contains(end)).min();
        let changed = tokio::select! {
            changed = sources.in_force.changed() => changed,
            changed = sources.reports.changed() => changed,
            // Renewed meanwhile or not: one look more than is needed costs nothing.
            () = sleep(end.unwrap_or(now).since(now).into()), if end.is_some() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

fn answers(sources: &Sources, cluster: &ClusterName) -> Vec<(String, Result<(), String>)> {
    let Some(view) = sources.view(cluster) else { return Vec::new() };
    let answer = |(name, check): (&str, Check)| {
        (format!("cluster/{cluster}/{name}"), check.pass(&view, &Query::default()))
    };
    NAMES.map(answer).into()
}
