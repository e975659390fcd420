//! Clusters, one line each.

use lockstep_model::cluster::state::{MemberRecord, Move};
use lockstep_model::cluster::{
    Cluster, ClusterState, Election, Failover, Former, Member, MemberAdmin, Stage,
};
use lockstep_model::setting::{Settings, Value};

use super::{NAMES_MAX, list};

pub(super) fn of_cluster(cluster: &Cluster) -> String {
    let Cluster { name: _, adopt: _, members, options, paused, created_at: _, leaving } = cluster;
    let mut text = format!("members {}", list(members.iter().map(of_member)));
    for Value { name, text: value } in options.values().iter().take(NAMES_MAX) {
        text.push_str(&format!(", {name}={value}"));
    }
    if *paused {
        text.push_str(", paused");
    }
    if let Some(leaving) = leaving {
        text.push_str(&format!(", {leaving}"));
    }
    text
}

fn of_member(member: &Member) -> String {
    let Member { node, options: _, admin, copy, leaving } = member;
    let mut text = node.to_string();
    if *admin != MemberAdmin::Managed {
        text.push_str(&format!(" {admin}"));
    }
    if *copy > 1 {
        text.push_str(&format!(" copy {copy}"));
    }
    if let Some(leaving) = leaving {
        text.push_str(&format!(" to {leaving}"));
    }
    text
}

pub(super) fn of_state(state: &ClusterState) -> String {
    let ClusterState {
        cluster: _,
        system_id: _,
        major: _,
        term,
        holder,
        stage,
        quorums,
        formers,
        timeline: _,
        promotable,
        lineage,
        longest_lease,
        crashes: _,
        wanted,
        number: _,
        members,
        incarnation: _,
    } = state;
    let holder = holder.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    let mut text = format!(
        "{}, term {term}, held by {holder}; timeline {}, sync {}, promotable {}",
        of_stage(stage),
        lineage.timeline(),
        list(quorums.iter().map(ToString::to_string)),
        list(promotable.iter().map(ToString::to_string)),
    );
    if !formers.is_empty() {
        let node = |former: &Former| {
            former.node.as_ref().map_or("several".to_owned(), ToString::to_string)
        };
        let formers = list(formers.iter().map(node));
        text.push_str(&format!(", commits of {formers} count still"));
    }
    if longest_lease.is_none() {
        text.push_str(", leases without end");
    }
    if let Some(wanted) = wanted {
        let to = wanted.to.as_ref().map_or("the best".to_owned(), ToString::to_string);
        let at = wanted.at.map_or(String::new(), |at| format!(" at {at}"));
        text.push_str(&format!(", switchover to {to}{at} asked for by {}", wanted.by));
    }
    let copies = members.iter().map(|(node, MemberRecord { copied, failed_term })| {
        let failed = failed_term.map_or(String::new(), |term| format!(" failed in {term}"));
        format!("{node} {copied}{failed}")
    });
    text.push_str(&format!(", copies {}", list(copies)));
    text
}

fn of_stage(stage: &Stage) -> String {
    let name = stage.as_str();
    match stage {
        Stage::Creating | Stage::Steady => name.to_owned(),
        Stage::Preparing(Move { to, .. }) | Stage::Handing(Move { to, .. }) => {
            format!("{name} to {to}")
        }
        Stage::Electing(Election { cause, excluded, .. })
        | Stage::Promoting(Election { cause, excluded, .. }) => {
            let excluded = excluded.map_or("not excluded yet".to_owned(), |how| how.to_string());
            format!("{name} because of {cause}, old holder {excluded}")
        }
    }
}

pub(super) fn of_failover(report: &Failover) -> String {
    let name = |node: &Option<_>| node.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    let (from, to) = (name(&report.from), name(&report.to));
    let by = if report.by.is_empty() { String::new() } else { format!(", by {}", report.by) };
    let note = if report.note.is_empty() { String::new() } else { format!(": {}", report.note) };
    format!(
        "number {}, {}: {from} to {to}, term {}, {}{by}{note}",
        report.number, report.cause, report.term, report.end
    )
}
