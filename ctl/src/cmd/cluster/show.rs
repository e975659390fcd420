//! A cluster as people read it.

use lockstep_model::Millis;
use lockstep_model::cluster::ClusterOptions;
use lockstep_model::setting::Settings;
use lockstep_proto::v1;

use super::history;
use crate::cmd::settings;
use crate::render;

pub fn list(clusters: &[v1::Cluster]) -> String {
    let header = ["name", "primary", "standbys", "sync", "term", "timeline", "state", "problem"];
    let rows: Vec<Vec<String>> = clusters.iter().map(row).collect();
    match rows.is_empty() {
        true => render::table(&header, rows),
        false => render::columns(&header, &rows),
    }
}

fn row(cluster: &v1::Cluster) -> Vec<String> {
    let state = cluster.state.clone().unwrap_or_default();
    let standbys = cluster.members.iter().filter(|member| member.node != state.holder);
    let (all, streaming) = standbys.fold((0, 0), |(all, streaming), member| {
        (all + 1, streaming + usize::from(upstream(member).is_some()))
    });
    vec![
        cluster.name.clone(),
        state.holder.clone(),
        format!("{streaming}/{all}"),
        sync(&state),
        state.term.to_string(),
        timeline(&state.lineage),
        stage(cluster),
        problem(cluster),
    ]
}

fn problem(cluster: &v1::Cluster) -> String {
    match (cluster.reason.as_str(), warnings(cluster).as_slice()) {
        ("", []) => String::new(),
        ("", [one]) => one.clone(),
        ("", many) => {
            format!("{} warnings: lockstepctl cluster check {}", many.len(), cluster.name)
        }
        (reason, _) => reason.to_owned(),
    }
}

/// Of the cluster, and of its members with their names.
fn warnings(cluster: &v1::Cluster) -> Vec<String> {
    let of = |member: &v1::ClusterMember| {
        let said = member.report.iter().flat_map(|report| &report.warnings);
        said.map(|warning| format!("{}: {warning}", member.node)).collect::<Vec<_>>()
    };
    let members = cluster.members.iter().flat_map(of);
    cluster.warnings.iter().cloned().chain(members).collect()
}

pub fn details(cluster: &v1::Cluster) -> String {
    let state = cluster.state.clone().unwrap_or_default();
    let last = cluster.last_failover.as_ref().map(history::line).unwrap_or_default();
    let head = render::fields([
        ("name", cluster.name.clone()),
        ("state", stage(cluster)),
        ("primary", state.holder.clone()),
        ("term", state.term.to_string()),
        ("lease", cluster.lease.as_ref().map(lease).unwrap_or_default()),
        ("sync", quorums(&state)),
        ("promotable", state.promotable.join(", ")),
        ("timeline", timeline(&state.lineage)),
        ("version", known(u64::from(state.major))),
        ("system id", known(state.system_id)),
        ("notices", notices(cluster)),
        ("settings", settings::line(&cluster.settings)),
        ("switchover", state.wanted.as_ref().map(wanted).unwrap_or_default()),
        ("last change", last),
        ("problem", cluster.reason.clone()),
        ("created", render::time(cluster.created_at.as_ref())),
        ("revision", cluster.revision.to_string()),
    ]);
    let warnings = warnings(cluster).into_iter().map(|warning| format!("\nwarning: {warning}"));
    format!("{head}\n\n{}\n{}", members(cluster), warnings.collect::<String>())
}

/// How soon failures are known of, by the settings; empty: they are a newer controller's.
fn notices(cluster: &v1::Cluster) -> String {
    let values = cluster.settings.iter().map(|set| (set.name.as_str(), set.value.as_str()));
    let Ok(options) = ClusterOptions::from_values(values) else { return String::new() };
    let (lost, hung) = (options.lease.suspect, options.checks.hang_known_within());
    format!("a crash at once, a lost node after {}, a hang within {}", lost.exact(), hung.exact())
}

fn known(number: u64) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

fn timeline(lineage: &[v1::TimelineFork]) -> String {
    lineage.last().map(|fork| fork.timeline.to_string()).unwrap_or_default()
}

/// "steady", "electing, because of crash", "paused"; with where it goes.
fn stage(cluster: &v1::Cluster) -> String {
    let state = cluster.state.clone().unwrap_or_default();
    let mut text = state.stage.clone();
    if let Some(election) = &state.election {
        text.push_str(&format!(", because of {}", election.cause));
    }
    if let Some(step) = &state.r#move {
        text.push_str(&format!(" to {}", step.to));
    }
    if !cluster.leaving.is_empty() {
        text.push_str(&format!(", {} under way", cluster.leaving));
    }
    if cluster.paused {
        text.push_str(", paused");
    }
    text
}

fn lease(lease: &v1::ClusterLease) -> String {
    let left = match lease.left_ms {
        None => "without end".to_owned(),
        Some(0) => "ended".to_owned(),
        Some(left) => format!("{} left", Millis(left).exact()),
    };
    let heard = Millis(lease.heard_age_ms).exact();
    format!("term {} of {}, {left}, heard {heard} ago", lease.term, lease.holder)
}

/// The newest quorum in short.
fn sync(state: &v1::ClusterState) -> String {
    match state.quorums.last() {
        None | Some(v1::ClusterQuorum { k: 0, .. }) => "off".to_owned(),
        Some(v1::ClusterQuorum { k, of }) => format!("{k} of {}", of.len()),
    }
}

/// All that may be in force, and the change between them.
fn quorums(state: &v1::ClusterState) -> String {
    let text = |quorum: &v1::ClusterQuorum| match quorum.k {
        0 => "off".to_owned(),
        k => format!("any {k} of {}", quorum.of.join(", ")),
    };
    state.quorums.iter().map(text).collect::<Vec<_>>().join(", changing to ")
}

fn wanted(wanted: &v1::WantedSwitch) -> String {
    let to = if wanted.to.is_empty() { "the best standby" } else { &wanted.to };
    let at = match &wanted.at {
        Some(at) => format!("{}, {}", render::time(Some(at)), render::ahead(Some(at))),
        None => "now".to_owned(),
    };
    format!("to {to}, {at}, asked by {}", wanted.by)
}

fn members(cluster: &v1::Cluster) -> String {
    let header = [
        "node",
        "role",
        "state",
        "postgres",
        "version",
        "timeline",
        "lsn",
        "lag",
        "sync",
        "from",
        "applied",
        "settings",
        "pending restart",
        "reason",
    ];
    let rows: Vec<Vec<String>> =
        cluster.members.iter().map(|member| cells(cluster, member)).collect();
    render::columns(&header, &rows)
}

fn cells(cluster: &v1::Cluster, member: &v1::ClusterMember) -> Vec<String> {
    let report = member.report.clone().unwrap_or_default();
    let holder = cluster.state.as_ref().map_or("", |state| &state.holder);
    let role = match (member.admin.as_str(), member.node == holder) {
        ("managed", true) => "primary",
        ("managed", false) => "standby",
        (admin, _) => admin,
    };
    let pending: Vec<&str> = report.pending_restart.iter().map(|row| row.name.as_str()).collect();
    let reason = match (member.reason.as_str(), report.problem.as_str()) {
        ("", problem) => problem,
        (reason, _) => reason,
    };
    vec![
        member.node.clone(),
        role.to_owned(),
        doing(member),
        member.postgres.clone(),
        report.version.clone(),
        timeline(&report.lineage),
        report.lsn.clone(),
        if member.node == holder { String::new() } else { lag(member) },
        member.sync_state.clone(),
        upstream(member).unwrap_or_default(),
        if member.applied { "yes" } else { "not yet" }.to_owned(),
        settings::line(&member.settings),
        pending.join(", "),
        reason.to_owned(),
    ]
}

/// "0 B", "12 KiB, 3s": what it has not got, and how far behind it is in applying.
fn lag(member: &v1::ClusterMember) -> String {
    let bytes = member.lag_bytes.map(render::bytes);
    let time = member.replay_lag_ms.filter(|ms| *ms > 0).map(|ms| Millis(ms).exact());
    bytes.into_iter().chain(time).collect::<Vec<_>>().join(", ")
}

fn upstream(member: &v1::ClusterMember) -> Option<String> {
    member.report.as_ref()?.upstream.as_ref().map(|stream| stream.from.clone())
}

/// What a member does now: "standby", "copying 40%, 120.00 MiB", "primary, disk-full", "away".
pub fn doing(member: &v1::ClusterMember) -> String {
    let Some(report) = &member.report else {
        return if member.connected { "not heard yet" } else { "away" }.to_owned();
    };
    let mut text = report.state.clone();
    if let Some(progress) = &report.progress {
        let done = render::bytes(progress.done_bytes);
        let percent = progress.total_bytes.filter(|total| *total > 0).map(|total| {
            format!(" {}%", (progress.done_bytes.saturating_mul(100) / total).min(100))
        });
        text.push_str(&format!(", {}{}, {done}", progress.what, percent.unwrap_or_default()));
    }
    if !matches!(report.trouble.as_str(), "" | "none") {
        text.push_str(&format!(", {}", report.trouble));
    }
    match member.connected {
        true => text,
        false => format!("away, {text} {} ago", Millis(member.age_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> v1::Cluster {
        let quorum = |k: u32, of: &[&str]| v1::ClusterQuorum {
            k,
            of: of.iter().map(|name| (*name).to_owned()).collect(),
        };
        let state = v1::ClusterState {
            holder: "db1".to_owned(),
            stage: "steady".to_owned(),
            term: 3,
            quorums: vec![quorum(1, &["db2", "db3"])],
            lineage: vec![v1::TimelineFork { timeline: 2, begins: "0/5000000".to_owned() }],
            ..Default::default()
        };
        let report = |state: &str| v1::MemberReport {
            state: state.to_owned(),
            lsn: "0/5000060".to_owned(),
            ..Default::default()
        };
        let member = |node: &str, state: &str| v1::ClusterMember {
            node: node.to_owned(),
            admin: "managed".to_owned(),
            connected: true,
            applied: true,
            report: Some(report(state)),
            ..Default::default()
        };
        let mut standby = member("db2", "standby");
        standby.lag_bytes = Some(2048);
        standby.replay_lag_ms = Some(1500);
        standby.sync_state = "quorum".to_owned();
        let stream = v1::WalStream { from: "db1".to_owned(), age_ms: 1, end: String::new() };
        standby.report.as_mut().unwrap().upstream = Some(stream);
        let mut copying = member("db3", "copying");
        let progress = v1::MemberProgress {
            what: "clone".to_owned(),
            done_bytes: 1 << 20,
            total_bytes: Some(4 << 20),
            for_ms: 100,
        };
        copying.report.as_mut().unwrap().progress = Some(progress);
        v1::Cluster {
            name: "main".to_owned(),
            state: Some(state),
            members: vec![member("db1", "primary"), standby, copying],
            ..Default::default()
        }
    }

    #[test]
    fn a_row_tells_who_writes_and_who_follows() {
        let text = list(&[cluster()]);
        for words in ["main", "db1", "1/2", "1 of 2", "steady"] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
        assert!(!text.contains("PROBLEM"), "{text}");
    }

    #[test]
    fn details_tell_each_member() {
        let mut cluster = cluster();
        let text = details(&cluster);
        for words in [
            "any 1 of db2, db3",
            "timeline: 2",
            "2.00 KiB, 1500ms",
            "quorum",
            "copying, clone 25%, 1.00 MiB",
        ] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
        cluster.members[1].connected = false;
        cluster.members[1].age_ms = 65_000;
        cluster.members[0].report.as_mut().unwrap().warnings.push("the disk fills".to_owned());
        let text = details(&cluster);
        assert!(text.contains("warning: db1: the disk fills"), "{text}");
        assert!(list(&[cluster.clone()]).contains("db1: the disk fills"));
        assert!(text.contains("away, standby 1m5s ago"), "{text}");
    }
}
