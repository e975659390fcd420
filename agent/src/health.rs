//! What this node tells load balancers of copies and mirrors' trees. A copy that is complete keeps serving: a lost source or a
//! lost controller takes nothing out. Only a drain, an expulsion, being no target any more does, and
//! a lag that the source told above an explicit limit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_model::cluster::ClusterPlace;
use lockstep_model::mirror::MirrorReport;
use lockstep_model::sync::{SyncReport, TargetReport};
use lockstep_model::task::{MirrorPlace, SyncTarget, TaskSpec};
use lockstep_transport::health::{HealthBoard, NODE, Verdict};
use tokio::sync::watch;

use crate::link::{Status, SyncReports};
use crate::mirror::MirrorReports;

type Said = (Verdict, String);

/// A target of a sync, by what holds and what its engine says. `report` None: the engine has not
/// said anything yet.
fn target_answer(target: &SyncTarget, report: Option<&TargetReport>, link: &Status) -> Said {
    if let Status::Expelled { why } = link {
        return (Verdict::NotServing, format!("expelled: {why}"));
    }
    if !target.serve {
        return (Verdict::NotServing, "this node is drained or disabled".to_owned());
    }
    match report {
        Some(TargetReport { filled: true, behind: true, .. }) => {
            (Verdict::NotServing, "the copy lags more than max-lag".to_owned())
        }
        Some(TargetReport { filled: true, problem, .. }) if problem.is_empty() => {
            (Verdict::Serving, "the copy is complete".to_owned())
        }
        Some(TargetReport { filled: true, problem, .. }) => {
            (Verdict::Serving, format!("the copy was complete; {problem}"))
        }
        _ => (Verdict::NotServing, "the first complete copy has not arrived".to_owned()),
    }
}

/// A mirror's tree, master's and replica's alike.
fn tree_answer(place: &MirrorPlace, report: Option<&MirrorReport>, link: &Status) -> Said {
    if let Status::Expelled { why } = link {
        return (Verdict::NotServing, format!("expelled: {why}"));
    }
    if !place.serve {
        return (Verdict::NotServing, "this node is drained or disabled".to_owned());
    }
    match report {
        Some(MirrorReport { filled: true, problem, .. }) if problem.is_empty() => {
            (Verdict::Serving, "the tree is complete".to_owned())
        }
        Some(MirrorReport { filled: true, problem, .. }) => {
            (Verdict::Serving, format!("the tree was complete; {problem}"))
        }
        _ => (Verdict::NotServing, "the first complete tree has not arrived".to_owned()),
    }
}

fn node_answer(in_force: &[TaskSpec], link: &Status) -> Said {
    let targets = in_force.iter().filter_map(as_target).map(|target| target.serve);
    let trees = in_force.iter().filter_map(as_place).map(|place| place.serve);
    let members = in_force.iter().filter_map(as_member).map(|place| place.serve);
    let mut serve = targets.chain(trees).chain(members).peekable();
    let drained = serve.peek().is_some() && serve.all(|serve| !serve);
    match link {
        Status::Expelled { why } => (Verdict::NotServing, format!("expelled: {why}")),
        _ if drained => (Verdict::NotServing, "this node is drained or disabled".to_owned()),
        Status::Connected { controller } => {
            (Verdict::Serving, format!("connected to {controller}"))
        }
        Status::Connecting => (Verdict::Serving, "connecting to a controller".to_owned()),
        Status::Away { why } => (Verdict::Serving, format!("works without the controller; {why}")),
    }
}

fn as_target(spec: &TaskSpec) -> Option<&SyncTarget> {
    match spec {
        TaskSpec::SyncTarget(target) => Some(target),
        _ => None,
    }
}

fn as_place(spec: &TaskSpec) -> Option<&MirrorPlace> {
    match spec {
        TaskSpec::MirrorPlace(place) => Some(place),
        _ => None,
    }
}

fn as_member(spec: &TaskSpec) -> Option<&ClusterPlace> {
    match spec {
        TaskSpec::ClusterPlace(place) => Some(place),
        _ => None,
    }
}

/// What the engines say.
pub struct Reports {
    pub syncs: watch::Receiver<SyncReports>,
    pub mirrors: watch::Receiver<MirrorReports>,
}

/// Keeps the board true; ends when its sources end.
pub async fn keep(
    board: HealthBoard,
    mut in_force: watch::Receiver<Arc<[TaskSpec]>>,
    Reports { mut syncs, mut mirrors }: Reports,
    mut link: watch::Receiver<Status>,
) {
    let mut shown = BTreeSet::new();
    loop {
        {
            let specs = in_force.borrow_and_update().clone();
            let (syncs, mirrors) = (syncs.borrow_and_update(), mirrors.borrow_and_update());
            let link = link.borrow_and_update();
            let mut answers = target_answers(&specs, &syncs, &link);
            answers.extend(tree_answers(&specs, &mirrors, &link));
            for (name, (verdict, reason)) in &answers {
                board.set(name, *verdict, reason);
            }
            let names: BTreeSet<String> = answers.into_keys().collect();
            for gone in shown.difference(&names) {
                board.remove(gone);
            }
            shown = names;
            let (verdict, reason) = node_answer(&specs, &link);
            board.set(NODE, verdict, &reason);
        }
        let changed = tokio::select! {
            changed = in_force.changed() => changed,
            changed = syncs.changed() => changed,
            changed = mirrors.changed() => changed,
            changed = link.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

fn target_answers(
    specs: &[TaskSpec],
    reports: &SyncReports,
    link: &Status,
) -> BTreeMap<String, Said> {
    let answer = |target: &SyncTarget| {
        let report = match reports.get(&target.sync) {
            Some(SyncReport::Target(report)) => Some(report),
            _ => None,
        };
        (format!("sync/{}", target.sync), target_answer(target, report, link))
    };
    specs.iter().filter_map(as_target).map(answer).collect()
}

fn tree_answers(
    specs: &[TaskSpec],
    reports: &MirrorReports,
    link: &Status,
) -> BTreeMap<String, Said> {
    let answer = |place: &MirrorPlace| {
        let said = tree_answer(place, reports.get(&place.mirror), link);
        (format!("mirror/{}", place.mirror), said)
    };
    specs.iter().filter_map(as_place).map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(serve: bool) -> SyncTarget {
        let (sync, path) = ("webroot".parse().unwrap(), "/srv/www".parse().unwrap());
        SyncTarget { serve, ..SyncTarget::new(sync, path) }
    }

    fn report(filled: bool, problem: &str) -> TargetReport {
        TargetReport { filled, problem: problem.to_owned(), ..Default::default() }
    }

    #[test]
    fn only_a_complete_copy_serves_and_only_a_drain_ends_it() {
        for (serve, report, serving, words) in [
            (true, None, false, "has not arrived"),
            (true, Some(report(false, "")), false, "has not arrived"),
            (true, Some(report(true, "")), true, "complete"),
            (true, Some(report(true, "the source is away")), true, "the source is away"),
            (true, Some(TargetReport { behind: true, ..report(true, "") }), false, "max-lag"),
            (false, Some(report(true, "")), false, "drained"),
            (false, None, false, "drained"),
        ] {
            let away = Status::Away { why: "cannot reach c1:7400".into() };
            let (verdict, reason) = target_answer(&target(serve), report.as_ref(), &away);
            assert_eq!(verdict == Verdict::Serving, serving, "{serve} {report:?}");
            assert!(reason.contains(words), "{reason}");
        }
        let expelled = Status::Expelled { why: "by user/ann".into() };
        let (verdict, _) = target_answer(&target(true), Some(&report(true, "")), &expelled);
        assert_eq!(verdict, Verdict::NotServing);
    }

    #[test]
    fn a_lost_controller_takes_no_node_out() {
        let away = Status::Away { why: "cannot reach c1:7400".into() };
        let expelled = Status::Expelled { why: "by admin".into() };
        let connected = Status::Connected { controller: "c1:7400".parse().unwrap() };
        let (serving, drained) =
            (TaskSpec::SyncTarget(target(true)), TaskSpec::SyncTarget(target(false)));
        for (specs, link, expected) in [
            (vec![], &Status::Connecting, Verdict::Serving),
            (vec![serving.clone()], &away, Verdict::Serving),
            (vec![serving.clone(), drained.clone()], &connected, Verdict::Serving),
            (vec![drained], &connected, Verdict::NotServing),
            (vec![serving], &expelled, Verdict::NotServing),
        ] {
            assert_eq!(node_answer(&specs, link).0, expected, "{specs:?} {link:?}");
        }
    }

    #[tokio::test]
    async fn the_board_follows() {
        let board = HealthBoard::new();
        let (specs, in_force) = watch::channel(Arc::from([TaskSpec::SyncTarget(target(true))]));
        let (reports, syncs) = watch::channel(SyncReports::new());
        let (link, status) = watch::channel(Status::Connecting);
        let (_trees, mirrors) = watch::channel(MirrorReports::new());
        let reports_of = Reports { syncs, mirrors };
        let keeper = tokio::spawn(keep(board.clone(), in_force, reports_of, status));
        let until = async |verdict: Option<Verdict>| {
            let reached = async {
                while board.get("sync/webroot").map(|a| a.verdict) != verdict {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(10), reached).await.unwrap();
        };
        until(Some(Verdict::NotServing)).await;
        let filled = SyncReport::Target(report(true, ""));
        reports.send_replace([("webroot".parse().unwrap(), filled)].into());
        until(Some(Verdict::Serving)).await;
        specs.send_replace(Arc::from([]));
        until(None).await;
        drop(link);
        keeper.await.unwrap();
    }
}
