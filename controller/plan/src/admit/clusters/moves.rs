//! Switchovers and failovers that somebody asks for: what can be known to go wrong is refused here;
//! what is so when it begins is looked at again by the rules.

use lockstep_model::cluster::{
    Cause, Election, Failover, Lineage, Member, MemberAdmin, MemberReport, MemberState, Stage,
    state::{FailoverEnd, WantedSwitch},
};
use lockstep_model::node::NodeAdmin;
use lockstep_model::record::{Actor, Record, Write};
use lockstep_model::{Invalid, Millis, NodeName, Reject, Timestamp};

use super::{At, part, precondition, put_state, subject};
use crate::admit::Admitted;
use crate::clusters::{Asked, elect};

/// A switchover may be asked for so long before its time.
const AHEAD_MAX: Millis = Millis::from_secs(366 * 24 * 3600);
/// Longest name of who asked, in bytes.
const BY_MAX: usize = 256;

pub(super) fn switchover(
    at: &At<'_>,
    who: &Actor,
    to: Option<&NodeName>,
    when: Option<Timestamp>,
) -> Result<Admitted, Reject> {
    let name = at.name();
    check_managed(at, "switchover")?;
    check_time(at, when)?;
    at.check_quiet("ask for another switchover")?;
    let Some(holder) = &at.state.holder else { return Err(not_made(at)) };
    if at.state.stage == Stage::Creating {
        return Err(not_made(at));
    }
    if to == Some(holder) {
        return Ok(Admitted::already(format!("{holder} is the primary of cluster {name} already")));
    }
    if let Some(wanted) = &at.state.wanted {
        if (wanted.to.as_ref(), wanted.at) == (to, when) {
            return Ok(Admitted::already("this switchover is asked for already"));
        }
        let time = wanted.at.map_or("now".to_owned(), |at| format!("at {at}"));
        let message = format!(
            "another switchover is asked for {time}: lockstepctl cluster switchover {name} --cancel \
             first"
        );
        return Err(precondition("under_way", subject(name), message));
    }
    check_targets(at, to, when.is_some(), holder)?;
    let wanted = WantedSwitch { to: to.cloned(), at: when, by: by(who) };
    let target = to.map_or("the best standby".to_owned(), ToString::to_string);
    let time = when.map_or(String::new(), |when| format!(" at {when}"));
    let detail = format!("switchover of cluster {name} to {target} asked for{time}");
    let mut state = at.state.clone();
    state.wanted = Some(wanted);
    Ok(Admitted { writes: vec![put_state(state)], detail, ..Admitted::default() })
}

/// The named one, or at least one, can take over without losing anything.
fn check_targets(
    at: &At<'_>,
    to: Option<&NodeName>,
    later: bool,
    holder: &NodeName,
) -> Result<(), Reject> {
    let name = at.name();
    let fit = |member: &Member| {
        may_lead(at, member, to.is_some())?;
        // How things are then is looked at then.
        if later { Ok(()) } else { follows(at, member, holder) }
    };
    let refuse = |node: &NodeName, why: String| {
        let message = format!("{node} cannot take over: {why}");
        precondition("no_candidate", part(name, node), message)
    };
    if let Some(to) = to {
        return fit(at.member(to)?).map_err(|why| refuse(to, why));
    }
    if !later && said(at, holder).is_none() {
        let message = format!(
            "the primary {holder} is not heard of: lockstepctl cluster failover {name} makes another \
             one without it"
        );
        return Err(precondition("no_primary", subject(name), message));
    }
    let others = at.cluster.members.iter().filter(|member| member.node != *holder);
    let mut whys = Vec::new();
    for member in others {
        match fit(member) {
            Ok(()) => return Ok(()),
            Err(why) => whys.push(format!("{}: {why}", member.node)),
        }
    }
    Err(nobody(at, whys))
}

pub(super) fn cancel(at: &At<'_>) -> Result<Admitted, Reject> {
    let name = at.name();
    if at.state.wanted.is_none() {
        if let Stage::Preparing(_) | Stage::Handing(_) = at.state.stage {
            let message = "it has begun, and ends with one of the two as primary: wait for its end";
            return Err(precondition("under_way", subject(name), message.to_owned()));
        }
        return Ok(Admitted::already(format!("no switchover of cluster {name} is asked for")));
    }
    let mut state = at.state.clone();
    state.wanted = None;
    let detail = format!("the switchover of cluster {name} is cancelled");
    Ok(Admitted { writes: vec![put_state(state)], detail, ..Admitted::default() })
}

/// Draws the next term, which nobody holds: the record of an election, before any node hears of it.
pub(super) fn failover(
    at: &At<'_>,
    who: &Actor,
    to: Option<&NodeName>,
    allow_loss: bool,
) -> Result<Admitted, Reject> {
    let name = at.name();
    check_managed(at, "failover")?;
    if let Stage::Electing(election) = &at.state.stage {
        return join(at, who, election.clone(), to, allow_loss);
    }
    let (Some(holder), false) = (&at.state.holder, at.state.stage == Stage::Creating) else {
        return Err(not_made(at));
    };
    if let Stage::Promoting(_) = at.state.stage {
        let message = format!(
            "{holder} is being promoted: wait for it; lockstepctl explain cluster/{name} says what \
             it waits for"
        );
        return Err(precondition("under_way", subject(name), message));
    }
    if to == Some(holder) {
        let message = format!(
            "{holder} is the primary: name another member, or lockstepctl cluster restart {name} \
             {holder}"
        );
        return Err(precondition("is_primary", part(name, holder), message));
    }
    check_candidates(at, to, Some(holder))?;
    if !allow_loss {
        check_lossless(at, holder)?;
    }
    let asked = Asked { to: to.cloned(), allow_loss, by: by(who) };
    let (mut state, report) = elect(at.cluster, at.state, Cause::Asked, &asked, at.now);
    state.wanted = None;
    let mut writes = Vec::new();
    // A switchover under way is over.
    if let Stage::Preparing(going) | Stage::Handing(going) = &at.state.stage
        && let Some(report) = at.world.failover(name, going.number)
    {
        let note = format!("a failover was asked for, {}", state.number);
        let report = Failover { end: FailoverEnd::Overtaken, note, ..report.clone() };
        writes.push(Write::Put(Record::Failover(Box::new(report))));
    }
    writes.push(Write::Put(Record::Failover(Box::new(report))));
    writes.push(put_state(state));
    let detail = format!("failover of cluster {name} begins; lockstepctl cluster history {name}");
    Ok(Admitted { writes, detail, ..Admitted::default() })
}

/// An election is under way: who it is to be, and what it may lose, may be said yet.
fn join(
    at: &At<'_>,
    who: &Actor,
    election: Election,
    to: Option<&NodeName>,
    allow_loss: bool,
) -> Result<Admitted, Reject> {
    let name = at.name();
    let asked = Election {
        to: to.cloned().or(election.to.clone()),
        allow_loss: allow_loss || election.allow_loss,
        ..election.clone()
    };
    if asked == election {
        return Ok(Admitted::already(format!("a failover of cluster {name} is under way already")));
    }
    check_candidates(at, to, None)?;
    let mut writes = Vec::new();
    if let Some(report) = at.world.failover(name, election.number) {
        let report = Failover { by: by(who), ..report.clone() };
        writes.push(Write::Put(Record::Failover(Box::new(report))));
    }
    let mut state = at.state.clone();
    state.stage = Stage::Electing(asked);
    writes.push(put_state(state));
    let detail = format!("the failover of cluster {name} that is under way goes by this");
    Ok(Admitted { writes, detail, ..Admitted::default() })
}

/// Somebody is there who may be promoted.
fn check_candidates(
    at: &At<'_>,
    to: Option<&NodeName>,
    holder: Option<&NodeName>,
) -> Result<(), Reject> {
    let fit = |member: &Member| {
        may_lead(at, member, to.is_some())?;
        has_data(at, member)
    };
    if let Some(to) = to {
        return fit(at.member(to)?).map_err(|why| {
            let message = format!("{to} cannot take over: {why}");
            precondition("no_candidate", part(at.name(), to), message)
        });
    }
    let mut whys = Vec::new();
    for member in at.cluster.members.iter().filter(|member| Some(&member.node) != holder) {
        match fit(member) {
            Ok(()) => return Ok(()),
            Err(why) => whys.push(format!("{}: {why}", member.node)),
        }
    }
    Err(nobody(at, whys))
}

/// Whether it can be proven that nothing acknowledged is lost: by enough standbys of every quorum,
/// or by the old primary's agent, which tells where its log ended and gives what is missing.
fn check_lossless(at: &At<'_>, holder: &NodeName) -> Result<(), Reject> {
    let name = at.name();
    let there = |node: &&NodeName| said(at, node).is_some();
    let proven = at.state.all_quorums().all(|quorum| {
        let needed = quorum.seals_needed();
        needed.is_some_and(|needed| quorum.of.iter().filter(there).count() >= needed)
    });
    if proven {
        return Ok(());
    }
    let tells = said(at, holder).is_some();
    if tells && at.cluster.options.salvage.enabled {
        return Ok(());
    }
    let why = match tells {
        true => format!(
            "salvage is off: lockstepctl cluster switchover {name} loses nothing while {holder} works"
        ),
        false => format!("{holder} is not connected, and too few standbys have every commit"),
    };
    let message = format!(
        "it cannot be excluded that commits are lost: {why}; --allow-data-loss accepts that"
    );
    Err(precondition("may_lose_data", subject(name), message))
}

/// Apart from what its agent says.
fn may_lead(at: &At<'_>, member: &Member, by_name: bool) -> Result<(), String> {
    let (name, node) = (at.name(), &member.node);
    if member.leaving.is_some() {
        return Err("it is leaving the cluster".to_owned());
    }
    if member.admin != MemberAdmin::Managed {
        return Err(format!("it is {}, by an operator", member.admin));
    }
    if member.options.never_promote {
        return Err(format!(
            "it has never-promote: lockstepctl cluster edit {name} --member {node}:never-promote=no \
             first"
        ));
    }
    if member.options.delay.is_some() && !by_name {
        return Err("it applies changes late, and is promoted only by name".to_owned());
    }
    let admin = at.world.nodes().get(node).map(|node| node.value.admin);
    match admin {
        Some(NodeAdmin::Enabled | NodeAdmin::Draining) => Ok(()),
        Some(admin) => Err(format!("its node is {admin}")),
        None => Err("its node is not there".to_owned()),
    }
}

/// It can say where its log ends.
fn has_data(at: &At<'_>, member: &Member) -> Result<(), String> {
    let report = said(at, &member.node).ok_or("its agent is not connected")?;
    let copied = at.state.members.get(&member.node).map_or(0, |known| known.copied);
    if copied != member.copy || report.copy != member.copy {
        return Err("it has no complete copy of the data yet".to_owned());
    }
    match report.state {
        MemberState::Standby
        | MemberState::Sealed
        | MemberState::Primary
        | MemberState::Starting => Ok(()),
        state => Err(format!("it is {state}{}", because(report))),
    }
}

/// It streams, on the same timeline, and is close behind.
fn follows(at: &At<'_>, member: &Member, holder: &NodeName) -> Result<(), String> {
    has_data(at, member)?;
    let (Some(report), Some(primary)) = (said(at, &member.node), said(at, holder)) else {
        return Err(format!("the primary {holder} is not heard of"));
    };
    if report.state != MemberState::Standby {
        return Err(format!("it is {}{}", report.state, because(report)));
    }
    if report.upstream.is_none() {
        return Err(format!("it does not stream{}", because(report)));
    }
    let timeline = Lineage::timeline;
    if timeline(&report.lineage) != timeline(&primary.lineage) {
        return Err(format!(
            "it is on timeline {}, the primary on {}",
            timeline(&report.lineage),
            timeline(&primary.lineage)
        ));
    }
    let (Some(has), Some(end)) = (report.lsn, primary.lsn) else {
        return Err("its position is not known".to_owned());
    };
    let (lag, most) = (end.since(has), at.cluster.options.failover.max_lag);
    if lag > most.0 {
        return Err(format!("it is {lag} bytes behind, more than max-lag {most}"));
    }
    Ok(())
}

/// What a member says on its open stream.
fn said<'a>(at: &At<'a>, node: &NodeName) -> Option<&'a MemberReport> {
    let heard = at.world.member_said(at.name(), node).filter(|heard| heard.current)?;
    Some(&heard.report)
}

fn because(report: &MemberReport) -> String {
    if report.problem.is_empty() { String::new() } else { format!(": {}", report.problem) }
}

fn check_managed(at: &At<'_>, what: &str) -> Result<(), Reject> {
    if !at.cluster.paused {
        return Ok(());
    }
    let name = at.name();
    let message = format!(
        "cluster {name} is paused, and no {what} begins: lockstepctl cluster resume {name}"
    );
    Err(precondition("paused", subject(name), message))
}

fn check_time(at: &At<'_>, when: Option<Timestamp>) -> Result<(), Reject> {
    let problem = match when {
        Some(when) if when <= at.now => format!("{when} is past: it is {}", at.now),
        Some(when) if when > at.now + AHEAD_MAX => format!("{when} is more than a year ahead"),
        _ => return Ok(()),
    };
    Err(Invalid::new("at", problem).into())
}

fn not_made(at: &At<'_>) -> Reject {
    let name = at.name();
    let message = format!(
        "cluster {name} has no primary yet: lockstepctl explain cluster/{name} says what it waits for"
    );
    precondition("no_primary", subject(name), message)
}

fn nobody(at: &At<'_>, whys: Vec<String>) -> Reject {
    let name = at.name();
    let whys = match whys.is_empty() {
        true => format!("it has no standby: lockstepctl cluster add-standby {name} NODE"),
        false => whys.join("; "),
    };
    let message = format!("no member of cluster {name} can take over: {whys}");
    precondition("no_candidate", subject(name), message)
}

fn by(who: &Actor) -> String {
    let mut text = who.to_string();
    text.truncate(text.floor_char_boundary(BY_MAX));
    text
}
