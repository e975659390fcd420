//! A sync as people read it.

use std::collections::BTreeMap;

use lockstep_model::Millis;
use lockstep_model::rate::Rate;
use lockstep_proto::v1;

use super::targets::{has_agent, node};
use crate::cmd::settings;
use crate::render;

pub fn list(syncs: &[v1::Sync]) -> String {
    let rows: Vec<Vec<String>> = syncs.iter().map(row).collect();
    let header = ["name", "source", "engine", "targets", "idle", "worst lag", "problem"];
    match rows.is_empty() {
        true => render::table(&header, rows),
        false => render::columns(&header, &rows),
    }
}

fn row(sync: &v1::Sync) -> Vec<String> {
    let deliveries = || sync.targets.iter().filter_map(|t| t.delivery.as_ref());
    let idle = deliveries().filter(|d| d.state() == v1::DeliveryState::Idle).count();
    let lag = deliveries().map(|d| d.lag_ms).max().unwrap_or(0);
    let troubled = sync.targets.iter().filter(|target| !target.reason.is_empty()).count();
    let problem = match (problem(sync), troubled) {
        (problem, _) if !problem.is_empty() => problem,
        (_, 0) => String::new(),
        (_, 1) => "1 target waits".to_owned(),
        (_, many) => format!("{many} targets wait"),
    };
    vec![
        sync.name.clone(),
        source(sync),
        engine(sync),
        sync.targets.len().to_string(),
        idle.to_string(),
        Millis(lag).to_string(),
        problem,
    ]
}

fn source(sync: &v1::Sync) -> String {
    let place = sync.source.clone().unwrap_or_default();
    format!("{}:{}", place.node, place.path)
}

fn engine(sync: &v1::Sync) -> String {
    match &sync.source_report {
        Some(report) => render::word(report.engine().as_str_name(), "ENGINE_STATE_"),
        None => "unknown".to_owned(),
    }
}

fn problem(sync: &v1::Sync) -> String {
    let reported = sync.source_report.as_ref().map_or("", |report| report.problem.as_str());
    if reported.is_empty() { sync.source_reason.clone() } else { reported.to_owned() }
}

pub fn details(sync: &v1::Sync) -> String {
    let report = sync.source_report.clone().unwrap_or_default();
    let options = sync.options.clone().unwrap_or_default();
    let selected = sync.selected.as_ref();
    let selected = selected.map(|s| format!("nodes with {} at {}", s.selector, s.path));
    let head = render::fields([
        ("name", sync.name.clone()),
        ("source", source(sync)),
        ("engine", engine(sync)),
        ("paused", if sync.paused { "yes" } else { "" }.to_owned()),
        ("problem", problem(sync)),
        ("warnings", report.warnings.join("; ")),
        ("journal head", report.head.to_string()),
        ("settings", settings::line(&options.settings)),
        ("selects", selected.unwrap_or_default()),
        ("applied", if sync.source_applied { "yes" } else { "not yet" }.to_owned()),
        ("resync", upcoming(sync, "resync")),
        ("verify", upcoming(sync, "verify")),
        ("scrub", upcoming(sync, "scrub")),
        ("revision", sync.revision.to_string()),
    ]);
    format!("{head}\n\n{}", targets(sync))
}

/// What a schedule of its brings, and when.
fn upcoming(sync: &v1::Sync, pass: &str) -> String {
    let Some(found) = sync.upcoming.iter().find(|upcoming| upcoming.pass == pass) else {
        return String::new();
    };
    let left = found.next.as_ref().map(|next| format!("{}: ", render::ahead(Some(next))));
    format!("{}{}", left.unwrap_or_default(), found.text)
}

fn targets(sync: &v1::Sync) -> String {
    targets_with(sync, "", &|_| String::new())
}

/// A row per target, with one more figure of each.
pub fn targets_with(
    sync: &v1::Sync,
    name: &str,
    figure: &dyn Fn(&v1::SyncTargetStatus) -> String,
) -> String {
    let header = [
        "target",
        "by",
        "from",
        "state",
        "applied",
        "filled",
        "queue",
        "paths",
        "lag",
        "sent",
        name,
        "limit",
        "eta",
        "last success",
        "verified",
        "drift",
        "reason",
    ];
    let rows: Vec<Vec<String>> = in_tree(sync)
        .into_iter()
        .map(|(depth, target)| {
            let mut cells = cells(sync, target, figure(target));
            if let Some(first) = cells.first_mut() {
                first.insert_str(0, &"  ".repeat(depth));
            }
            cells
        })
        .collect();
    match rows.is_empty() {
        true => render::table(&["target", "state"], rows),
        false => render::columns(&header, &rows),
    }
}

/// Each target below the one that feeds it, and how deep: those that the source feeds are not.
fn in_tree(sync: &v1::Sync) -> Vec<(usize, &v1::SyncTargetStatus)> {
    let mut fed: BTreeMap<&str, Vec<&v1::SyncTargetStatus>> = BTreeMap::new();
    let is_target = |name: &str| sync.targets.iter().any(|target| node(target) == name);
    for target in &sync.targets {
        let parent = if is_target(&target.parent) { target.parent.as_str() } else { "" };
        fed.entry(parent).or_default().push(target);
    }
    let mut rows = Vec::new();
    let mut next: Vec<_> = fed.remove("").into_iter().flatten().rev().map(|t| (0, t)).collect();
    while let Some((depth, target)) = next.pop() {
        rows.push((depth, target));
        let below = fed.remove(node(target)).into_iter().flatten().rev();
        next.extend(below.map(|target| (depth + 1, target)));
    }
    // Told at different times, two may feed each other.
    rows.extend(fed.into_values().flatten().map(|target| (0, target)));
    rows
}

fn cells(sync: &v1::Sync, target: &v1::SyncTargetStatus, figure: String) -> Vec<String> {
    let source = sync.source.as_ref().map_or("", |source| &source.node);
    let head = head(sync, target);
    let delivery = target.delivery.as_ref();
    let of = |f: &dyn Fn(&v1::Delivery) -> String| delivery.map(f).unwrap_or_default();
    let when = |yes: bool, text: &dyn Fn() -> String| if yes { text() } else { String::new() };
    let filled = target.report.as_ref().map(|report| if report.filled { "yes" } else { "no" });
    let applied = match target.applied {
        _ if !has_agent(target) => "no agent",
        true => "yes",
        false => "not yet",
    };
    let bwlimit = target.target.as_ref().and_then(|t| Rate::new(t.bwlimit));
    vec![
        place(target),
        when(sync.selected.is_some(), &|| {
            if target.selected { "selector" } else { "name" }.to_owned()
        }),
        when(target.parent != source, &|| target.parent.clone()),
        of(&|d| render::word(d.state().as_str_name(), "DELIVERY_STATE_")),
        applied.to_owned(),
        filled.unwrap_or_default().to_owned(),
        of(&|d| head.map_or_else(String::new, |head| head.saturating_sub(d.acked).to_string())),
        of(&|d| d.waiting_paths.map_or("all".to_owned(), |paths| paths.to_string())),
        of(&|d| Millis(d.lag_ms).to_string()),
        of(&|d| render::bytes(d.sent_bytes)),
        figure,
        bwlimit.map(|rate| rate.to_string()).unwrap_or_default(),
        of(&eta),
        of(&|d| when(d.last_success_at.is_some(), &|| render::ago(d.last_success_at.as_ref()))),
        of(&|d| when(d.verified_at.is_some(), &|| render::ago(d.verified_at.as_ref()))),
        of(&|d| when(d.drift > 0, &|| d.drift.to_string())),
        target.reason.clone(),
    ]
}

/// What is left of a complete pass, and how much of it is through.
fn eta(delivery: &v1::Delivery) -> String {
    let left = delivery.eta_ms.map(|ms| Millis(ms).to_string());
    let done = delivery.done_percent.map(|percent| format!("{percent}%"));
    left.into_iter().chain(done).collect::<Vec<_>>().join(" ")
}

/// What the target is measured by, also behind a relay: the journal of the source. None while the
/// relay does not know how far that is.
fn head(sync: &v1::Sync, target: &v1::SyncTargetStatus) -> Option<u64> {
    let source = sync.source.as_ref().map_or("", |source| &source.node);
    let is_behind_relay = !target.parent.is_empty() && target.parent != source;
    let is_known = target.delivery.as_ref().is_some_and(|delivery| delivery.acked > 0);
    let head = sync.source_report.as_ref().map(|report| report.head);
    head.filter(|_| is_known || !is_behind_relay)
}

pub fn place(target: &v1::SyncTargetStatus) -> String {
    let at = target.target.as_ref().map_or("", |target| &target.at);
    let sign = if at.starts_with('/') { ':' } else { '=' };
    format!("{}{sign}{at}", node(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_stands_below_the_one_that_feeds_it() {
        let target = |node: &str, parent: &str| v1::SyncTargetStatus {
            target: Some(v1::Target { node: node.to_owned(), at: "/x".to_owned(), bwlimit: 0 }),
            parent: parent.to_owned(),
            ..Default::default()
        };
        let edges = [
            ("w1", "w3"),
            ("w2", "m"),
            ("w3", "m"),
            ("w4", "w1"),
            ("w5", "w2"),
            ("w6", "gone"),
            ("w7", "w8"),
            ("w8", "w7"),
        ];
        let targets = edges.map(|(node, parent)| target(node, parent)).to_vec();
        let sync = v1::Sync { targets, ..Default::default() };
        let rows: Vec<String> =
            in_tree(&sync).into_iter().map(|(depth, t)| format!("{depth} {}", node(t))).collect();
        assert_eq!(rows, ["0 w2", "1 w5", "0 w3", "1 w1", "2 w4", "0 w6", "0 w8", "0 w7"]);
    }
}
