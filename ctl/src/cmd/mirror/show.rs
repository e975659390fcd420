//! A mirror as people read it.

use lockstep_proto::v1;

use super::{progress, runs};
use crate::cmd::{schedule, settings};
use crate::render;

pub fn list(mirrors: &[v1::Mirror]) -> String {
    let header =
        ["name", "upstream", "master", "replicas", "complete", "next run", "owner", "problem"];
    let rows: Vec<Vec<String>> = mirrors.iter().map(row).collect();
    match rows.is_empty() {
        true => render::table(&header, rows),
        false => render::columns(&header, &rows),
    }
}

fn row(mirror: &v1::Mirror) -> Vec<String> {
    let replicas = &mirror.on_replicas;
    let current = replicas.iter().filter(|replica| replica.current).count();
    let behind = replicas.iter().filter(|replica| !replica.reason.is_empty()).count();
    let problem = match (mirror.reason.as_str(), behind) {
        ("", 0) => String::new(),
        ("", 1) => "1 replica waits".to_owned(),
        ("", many) => format!("{many} replicas wait"),
        (reason, _) => reason.to_owned(),
    };
    let next = match mirror.enabled {
        true => mirror.next_run_at.as_ref().map(|at| render::ahead(Some(at))),
        false => Some("disabled".to_owned()),
    };
    vec![
        mirror.name.clone(),
        mirror.upstream.clone(),
        mirror.master.clone(),
        format!("{current}/{}", replicas.len()),
        render::ago(mirror.complete_at.as_ref()),
        next.unwrap_or_default(),
        mirror.owner.clone(),
        problem,
    ]
}

pub fn details(mirror: &v1::Mirror) -> String {
    let when = |yes: bool, text: &str| if yes { text.to_owned() } else { String::new() };
    let selected = mirror.selected.as_ref();
    let selected = selected.map(|s| format!("nodes with {} at {}", s.selector, s.path));
    let time = |at: &Option<pbjson_types::Timestamp>| {
        at.as_ref().map(|at| format!("{}, {}", render::time(Some(at)), render::ago(Some(at))))
    };
    let next = mirror.next_run_at.as_ref();
    let next = next.map(|at| format!("{}, {}", render::time(Some(at)), render::ahead(Some(at))));
    let wanted = match mirror.wanted_run {
        0 => String::new(),
        number => format!("{}/{number}", mirror.name),
    };
    let generation = match mirror.generation {
        0 => "none yet".to_owned(),
        number => format!("{number} since {}", time(&mirror.generation_at).unwrap_or_default()),
    };
    let schedule = mirror.schedule.as_ref();
    let head = render::fields([
        ("name", mirror.name.clone()),
        ("upstream", render::or_dash(&mirror.upstream)),
        ("password", when(mirror.has_password, "kept")),
        ("master", format!("{}:{}", mirror.master, mirror.tree)),
        ("selects", selected.unwrap_or_default()),
        ("settings", settings::line(&mirror.settings)),
        ("schedule", schedule.map_or_else(|| "none".to_owned(), schedule::line)),
        ("fields", fields(mirror)),
        ("enabled", if mirror.enabled { "yes" } else { "no" }.to_owned()),
        ("next run", next.unwrap_or_default()),
        ("waits", wanted),
        ("owner", mirror.owner.clone()),
        ("generation", generation),
        ("complete", time(&mirror.complete_at).unwrap_or_default()),
        ("problem", mirror.reason.clone()),
        ("created", render::time(mirror.created_at.as_ref())),
        ("revision", mirror.revision.to_string()),
    ]);
    format!("{head}\n\n{}", nodes(mirror))
}

/// What the schedule takes each of its fields for, in the order of its rules.
fn fields(mirror: &v1::Mirror) -> String {
    const ORDER: [&str; 8] =
        ["year", "month", "day", "week", "day_of_week", "hour", "minute", "second"];
    let field = |name: &&str| Some(format!("{name}={}", mirror.schedule_fields.get(*name)?));
    ORDER.iter().filter_map(field).collect::<Vec<_>>().join(" ")
}

fn nodes(mirror: &v1::Mirror) -> String {
    let header = [
        "node", "tree", "by", "state", "applied", "has", "complete", "last run", "took", "exit",
        "received", "warnings", "reason",
    ];
    let master = mirror.on_master.iter().map(|node| (node, true));
    let replicas = mirror.on_replicas.iter().map(|node| (node, false));
    let rows: Vec<Vec<String>> =
        master.chain(replicas).map(|(node, is_master)| cells(mirror, node, is_master)).collect();
    render::columns(&header, &rows)
}

fn cells(mirror: &v1::Mirror, node: &v1::MirrorNode, is_master: bool) -> Vec<String> {
    let report = node.report.clone().unwrap_or_default();
    let by = match (is_master, node.selected) {
        (true, _) => "master",
        (false, true) => "selector",
        (false, false) => "name",
    };
    let last = node.last_run.clone().unwrap_or_default();
    let reason = match (report.problem.as_str(), node.reason.as_str()) {
        (problem, "") => problem,
        (_, reason) => reason,
    };
    vec![
        node.node.clone(),
        node.tree.clone(),
        by.to_owned(),
        progress::state(node, mirror.generation),
        if node.applied { "yes" } else { "not yet" }.to_owned(),
        node.generation.to_string(),
        render::ago(node.complete_at.as_ref()),
        last.id.clone(),
        runs::took(&last),
        runs::exit(&last),
        last.pulled.as_ref().map(|p| render::bytes(p.received_bytes)).unwrap_or_default(),
        report.warnings.join("; "),
        reason.to_owned(),
    ]
}
