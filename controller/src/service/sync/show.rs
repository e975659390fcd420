//! A sync as it is shown: its record, who its targets are, what its nodes confirmed and what they
//! say. Reads only.

use std::collections::HashMap;

use lockstep_model::reason::Reason;
use lockstep_model::record::Versioned;
use lockstep_model::sync::report::{Delivery, SyncReport};
use lockstep_model::sync::{Sync, Target};
use lockstep_model::task::{Slot, TaskSpec};
use lockstep_model::{NodeName, SyncName, Timestamp};
use lockstep_plan::World;
use lockstep_plan::explain::of_sync;
use lockstep_plan::members::{Member, Uses, feeder, members};
use lockstep_plan::passes::{Upcoming, upcoming};
use lockstep_proto::convert::to_wire_time;
use lockstep_proto::v1;

/// `uses` is made once for many syncs.
pub(super) fn show(
    world: &World,
    uses: &Uses,
    reasons: &[Reason],
    sync: &Versioned<Sync>,
    now: Timestamp,
) -> v1::Sync {
    let Versioned { revision, value: sync } = sync;
    let reasons = of_sync(world, uses, reasons, sync, now);
    let Sync {
        name,
        source,
        targets: _,
        selected,
        options,
        paused,
        generation,
        comments,
        created_at,
    } = sync;
    let mut why: HashMap<&str, &str> = HashMap::new();
    for reason in &reasons {
        why.entry(&reason.subject).or_insert(&reason.text);
    }
    let reason = |node: &NodeName| {
        why.get(format!("sync/{name}/{node}").as_str()).map(|text| (*text).to_owned())
    };
    let reported = |node: &NodeName| world.seen(node).and_then(|seen| seen.sync(name));
    let source_reported = reported(&source.node);
    let source_report = source_reported.and_then(|reported| match &reported.report {
        SyncReport::Source(report) => Some(report),
        SyncReport::Target(_) => None,
    });
    let target = |member: Member<'_>| {
        let parent = feeder(world, sync, member.node);
        v1::SyncTargetStatus {
            applied: member.path().is_none() || is_applied(world, name, member.node),
            report: reported(member.node)
                .and_then(|reported| reported.report.target())
                .map(|report| v1::TargetReport { relay: None, ..report.clone().into() }),
            delivery: delivery(world, name, parent, member.node).cloned().map(Into::into),
            reason: reason(member.node).unwrap_or_default(),
            selected: member.selected,
            parent: parent.to_string(),
            target: Some(
                Target {
                    node: member.node.clone(),
                    at: member.at.into_owned(),
                    bwlimit: member.bwlimit,
                }
                .into(),
            ),
        }
    };
    v1::Sync {
        name: name.to_string(),
        source: Some(source.clone().into()),
        options: Some(options.clone().into()),
        targets: members(world, uses, sync).0.into_iter().map(target).collect(),
        created_at: Some(to_wire_time(*created_at)),
        revision: revision.0,
        source_applied: is_applied(world, name, &source.node),
        source_report: source_report.cloned().map(Into::into),
        source_reported_at: source_reported.map(|reported| to_wire_time(reported.at)),
        selected: selected.clone().map(Into::into),
        paused: *paused,
        comments: comments.iter().cloned().map(Into::into).collect(),
        generation: *generation,
        source_reason: reason(&source.node).unwrap_or_default(),
        upcoming: upcoming(world, sync, now).into_iter().map(show_upcoming).collect(),
    }
}

fn show_upcoming(upcoming: Upcoming<'_>) -> v1::UpcomingPass {
    let Upcoming { pass, rule, next, text } = upcoming;
    v1::UpcomingPass {
        pass: pass.to_string(),
        rule: rule.to_owned(),
        next: next.map(to_wire_time),
        text,
    }
}

/// What the node that feeds a target says of it.
fn delivery<'a>(
    world: &'a World,
    sync: &SyncName,
    parent: &NodeName,
    target: &NodeName,
) -> Option<&'a Delivery> {
    let report = world.seen(parent)?.sync(sync)?.report.source()?;
    report.deliveries.iter().find(|delivery| delivery.target == *target)
}

/// The planner gives a task for every difference, so the newest one's success says it all.
fn is_applied(world: &World, sync: &SyncName, node: &NodeName) -> bool {
    world
        .newest(node, &Slot::Sync(sync.clone()))
        .is_some_and(|task| task.succeeded() && !matches!(task.spec, TaskSpec::SyncRelease { .. }))
}
