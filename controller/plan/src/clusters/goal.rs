//! What each member is to be, derived from the records alone, but for what agents told that only
//! they know: there the last thing that was said to the node stands while nothing is known. Pure.

use lockstep_model::address::HostPort;
use lockstep_model::cluster::options::OnCrash;
use lockstep_model::cluster::{
    Cause, ClusterPlace, CrashPlan, Election, Goal, Lsn, Member, MemberAdmin, MemberPeer,
    MemberReport, MemberState, Origin, Primary, Stage,
};
use lockstep_model::node::NodeAdmin;
use lockstep_model::task::Peer;
use lockstep_model::{NodeName, Timestamp};

use super::promotable;
use super::reign::newest_timeline;
use super::view::View;
use crate::syncs::addresses;

/// None: it is told nothing new for now.
pub(super) fn place_of(view: &View<'_>, member: &Member) -> Option<ClusterPlace> {
    let (cluster, state) = (view.cluster, view.state);
    let told = view.told(&member.node);
    let goal = goal_of(view, member, told)?;
    Some(ClusterPlace {
        cluster: cluster.name.clone(),
        term: state.term,
        goal,
        system_id: state.system_id,
        holder: state.holder.clone(),
        lineage: state.lineage.clone(),
        copy: copy_of(view, member),
        options: cluster.options.clone(),
        member: member.options.clone(),
        peers: peers(view, &member.node, told),
        promotable: promotable::told(view, told),
        sync: state.all_quorums().all(|quorum| quorum.of.contains(&member.node)),
        paused: cluster.paused && state.longest_lease.is_none(),
        serve: view.node(&member.node).is_some_and(|node| node.admin == NodeAdmin::Enabled),
    })
}

/// Who is being excluded by the election that goes on.
fn excluded<'a>(view: &View<'a>) -> Option<(&'a NodeName, &'a Election)> {
    match &view.state.stage {
        Stage::Electing(election) | Stage::Promoting(election) => {
            let (old, _) = election.from.as_ref()?;
            (view.holder() != Some(old)).then_some((old, election))
        }
        _ => None,
    }
}

fn goal_of(view: &View<'_>, member: &Member, told: Option<&ClusterPlace>) -> Option<Goal> {
    let node = &member.node;
    if view.holder() == Some(node) {
        return holder_goal(view, member, told);
    }
    if let Some((old, election)) = excluded(view)
        && old == node
    {
        // It may be well, and only not be heard: what it says when it is back comes first.
        let serves = |report: &MemberReport| {
            report.state == MemberState::Primary
                && report.holds == election.from.as_ref().map(|(_, term)| *term)
                && view.is_managed(node)
        };
        let may_be_well = election.cause == Cause::NodeLost && view.says(node).is_none_or(serves);
        let electing = election.chosen_at.is_none();
        return (!(electing && may_be_well)).then_some(Goal::Fenced);
    }
    Some(match (member.admin, &view.state.stage) {
        (MemberAdmin::Fenced, _) => Goal::Fenced,
        (MemberAdmin::Stopped, _) => Goal::Stopped,
        (MemberAdmin::Maintenance, _) => Goal::Maintenance,
        (MemberAdmin::Managed, Stage::Electing(election)) => {
            let old = election.from.as_ref().map(|(old, _)| old.clone());
            let gets = election.salvage.as_ref().is_some_and(|(to, _)| to == node);
            Goal::Sealed { salvage: old.filter(|_| gets) }
        }
        (MemberAdmin::Managed, Stage::Creating) => Goal::Standby { upstream: None },
        (MemberAdmin::Managed, stage) => {
            let settled = !matches!(stage, Stage::Promoting(_));
            Goal::Standby { upstream: upstream(view, member, told, settled) }
        }
    })
}

fn holder_goal(view: &View<'_>, member: &Member, told: Option<&ClusterPlace>) -> Option<Goal> {
    let primary = |prepare, at_least| {
        Goal::Primary(Primary {
            origin: match (&view.state.stage, view.cluster.adopt) {
                (Stage::Creating, true) => Origin::Adopt,
                (Stage::Creating, false) => Origin::Initdb,
                _ => Origin::Existing,
            },
            at_least,
            timeline: newest_timeline(view.state),
            quorum: view.quorum().clone(),
            crash: crash_plan(view, told),
            prepare,
        })
    };
    match (&view.state.stage, member.admin) {
        (Stage::Handing(_), _) => Some(Goal::HandOver),
        (Stage::Preparing(_), _) => Some(primary(true, Lsn(0))),
        (Stage::Promoting(election), _) => Some(primary(false, election.at_least)),
        // Somebody else takes over first, if that is possible, which only its own word tells.
        (Stage::Steady, MemberAdmin::Fenced | MemberAdmin::Stopped | MemberAdmin::Maintenance)
            if view.says(&member.node).is_none() && told.is_some() =>
        {
            None
        }
        (Stage::Steady, MemberAdmin::Fenced) => Some(Goal::Fenced),
        (Stage::Steady, MemberAdmin::Stopped) => Some(Goal::Stopped),
        (Stage::Steady, MemberAdmin::Maintenance) => Some(Goal::Maintenance),
        (Stage::Creating | Stage::Steady | Stage::Electing(_), _) => Some(primary(false, Lsn(0))),
    }
}

/// Its data's number; a new copy is not begun while commits may wait for the member's old one.
fn copy_of(view: &View<'_>, member: &Member) -> u64 {
    let waited_for = view.state.all_quorums().any(|quorum| quorum.of.contains(&member.node));
    match view.state.members.get(&member.node) {
        Some(record) if waited_for => record.copied,
        _ => member.copy,
    }
}

/// Whom it follows: the member that it is to, while that one follows the holder itself.
fn upstream(
    view: &View<'_>,
    member: &Member,
    told: Option<&ClusterPlace>,
    settled: bool,
) -> Option<NodeName> {
    let holder = view.holder().cloned();
    let wanted = member.options.upstream.as_ref().filter(|_| settled);
    let Some(wanted) = wanted.filter(|up| Some(*up) != view.holder() && **up != member.node) else {
        return holder;
    };
    let goes_on = match view.says(wanted) {
        Some(report) => report.state == MemberState::Standby && !is_below(view, wanted, member),
        // It may serve on though its agent is not heard: whoever receives from it knows.
        None => !view.is_away(wanted) && follows_by_order(told, wanted) && receives(view, member),
    };
    if goes_on && view.is_managed(wanted) { Some(wanted.clone()) } else { holder }
}

/// By its own word, from whomever; or nothing is known.
fn receives(view: &View<'_>, member: &Member) -> bool {
    view.says(&member.node).is_none_or(|report| report.upstream.is_some())
}

fn follows_by_order(told: Option<&ClusterPlace>, upstream: &NodeName) -> bool {
    let by = told.map(|place| &place.goal);
    matches!(by, Some(Goal::Standby { upstream: Some(told) }) if told == upstream)
}

/// Whether `node` is to follow `member`, over however many others.
fn is_below(view: &View<'_>, node: &NodeName, member: &Member) -> bool {
    let mut at = node;
    for _ in &view.cluster.members {
        let above = view.cluster.member(at).and_then(|found| found.options.upstream.as_ref());
        match above {
            Some(above) if *above == member.node => return true,
            Some(above) => at = above,
            None => return false,
        }
    }
    true
}

/// What to do when postgres dies on a living node, told before it happens.
fn crash_plan(view: &View<'_>, told: Option<&ClusterPlace>) -> CrashPlan {
    let before = match told.map(|place| (place.term, &place.goal)) {
        Some((term, Goal::Primary(primary))) if term == view.state.term => primary.crash,
        _ => CrashPlan::Restart,
    };
    let options = &view.cluster.options.failover;
    let wants = match options.on_crash {
        OnCrash::Restart => false,
        OnCrash::Failover => true,
        OnCrash::Auto => view.is_protected(),
    };
    if !wants || !options.automatic || view.cluster.paused || budget_ends(view).is_some() {
        return CrashPlan::Restart;
    }
    let able = |member: &&Member| {
        view.holder() != Some(&member.node)
            && view.may_lead(member)
            && view.state.promotable.contains(&member.node)
    };
    let mut unknown = false;
    for member in view.cluster.members.iter().filter(able) {
        if view.follows(&member.node) {
            return CrashPlan::Release;
        }
        unknown |= view.last(&member.node).is_none() || view.sends_to(&member.node);
    }
    if unknown { before } else { CrashPlan::Restart }
}

/// No more failovers after crashes before then; None: there is one left.
pub(super) fn budget_ends(view: &View<'_>) -> Option<Timestamp> {
    let options = &view.cluster.options.failover;
    let window = options.window;
    let spent: Vec<&Timestamp> =
        view.state.crashes.iter().filter(|at| view.now.since(**at) < window).collect();
    let budget = usize::try_from(options.budget).unwrap_or(usize::MAX);
    if spent.len() < budget {
        return None;
    }
    // With a budget of nothing it never comes back, but for a change of the setting.
    let frees = spent.get(spent.len() - budget).or(spent.last());
    Some(frees.map_or(Timestamp(u64::MAX), |at| **at + window))
}

/// All other members whom it can reach.
fn peers(view: &View<'_>, node: &NodeName, told: Option<&ClusterPlace>) -> Vec<MemberPeer> {
    view.others(node).filter_map(|other| peer(view, node, other, told)).collect()
}

fn peer(
    view: &View<'_>,
    from: &NodeName,
    to: &Member,
    told: Option<&ClusterPlace>,
) -> Option<MemberPeer> {
    view.member(&to.node)?;
    let (from, there) = (view.node(from)?, view.node(&to.node)?);
    let addresses = addresses(from, there);
    let host = to.options.host.as_deref().or(addresses.first().map(HostPort::host))?;
    let port = to.options.port.unwrap_or(view.cluster.options.instance.port);
    let postgres = HostPort::new(host, port).ok()?;
    let said = view.last(&to.node).map(|heard| &heard.report.certificate);
    let before = || {
        let peers = told.map_or(&[][..], |place| &place.peers);
        peers.iter().find(|peer| peer.peer.node == to.node).map(|peer| &peer.certificate)
    };
    let certificate = said.filter(|said| !said.is_empty()).or_else(before).cloned();
    Some(MemberPeer {
        peer: Peer { node: to.node.clone(), key_hash: there.key_hash, addresses },
        postgres,
        certificate: certificate.unwrap_or_default(),
        clone_from: to.options.clone_from,
    })
}
