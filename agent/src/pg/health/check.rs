//! What each check asks, and whether a member passes it. Pure.

use lockstep_model::Millis;
use lockstep_model::cluster::options::MemberOptions;
use lockstep_model::cluster::report::Trouble;
use lockstep_model::cluster::{Lsn, MemberReport, MemberState};
use lockstep_model::rate::Size;

use super::View;
use super::query::Query;

/// Paths below a member's, and their other names.
pub(super) const NAMES: &[(&str, Check)] = &[
    ("", Check::Primary),
    ("primary", Check::Primary),
    ("master", Check::Primary),
    ("read-write", Check::Primary),
    ("leader", Check::Leader),
    ("standby-leader", Check::StandbyLeader),
    ("standby_leader", Check::StandbyLeader),
    ("replica", Check::Replica),
    ("read-only", Check::ReadOnly),
    ("sync", Check::Sync),
    ("synchronous", Check::Sync),
    ("quorum", Check::Sync),
    ("read-only-sync", Check::ReadOnlySync),
    ("read-only-quorum", Check::ReadOnlySync),
    ("async", Check::Async),
    ("asynchronous", Check::Async),
    ("health", Check::Health),
    ("liveness", Check::Liveness),
    ("readiness", Check::Readiness),
    ("patroni", Check::Status),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    /// It takes writes and has the right to, now.
    Primary,
    /// It has the right to.
    Leader,
    /// There are no clusters of standbys only: nobody passes.
    StandbyLeader,
    Replica,
    /// A replica or the primary.
    ReadOnly,
    /// A replica that commits wait for. All such are `ANY k`, so that `sync` and `quorum` are one.
    Sync,
    ReadOnlySync,
    Async,
    /// postgres runs and answers.
    Health,
    /// The agent looks after it.
    Liveness,
    /// The primary, or a replica that keeps up.
    Readiness,
    /// Always passed: for those who read the status.
    Status,
}

impl Check {
    /// `path`: without a slash at its head or end.
    pub fn find(path: &str) -> Option<Self> {
        NAMES.iter().find(|(name, _)| *name == path).map(|(_, check)| *check)
    }

    /// The error says why not, in one line.
    pub fn pass(self, view: &View, query: &Query) -> Result<(), String> {
        match self {
            Self::Status => Ok(()),
            Self::Liveness => alive(view),
            Self::StandbyLeader => Err("there are no standby clusters here".to_owned()),
            Self::Leader => leader(view),
            Self::Primary => primary(view),
            Self::Health => running(said(view)?),
            Self::Replica => replica(view, query).and_then(|()| tagged(view, query)),
            Self::ReadOnly => {
                either(primary(view), || replica(view, query)).and_then(|()| tagged(view, query))
            }
            Self::Sync => sync(view, query).and_then(|()| tagged(view, query)),
            Self::ReadOnlySync => {
                either(primary(view), || sync(view, query)).and_then(|()| tagged(view, query))
            }
            Self::Async => match view.place.sync {
                true => Err("commits wait for it".to_owned()),
                false => replica(view, query).and_then(|()| tagged(view, query)),
            },
            Self::Readiness => either(leader(view), || ready(view, query)),
        }
    }
}

fn either(
    primary: Result<(), String>,
    other: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    primary.or_else(|_| other())
}

fn said(view: &View) -> Result<&MemberReport, String> {
    view.report.as_deref().ok_or_else(|| "the agent has not looked at it yet".to_owned())
}

/// A restart of the agent may help one that is not, and harms no database. While the cluster is paused
/// nothing is done about anything.
fn alive(view: &View) -> Result<(), String> {
    if view.place.paused {
        return Ok(());
    }
    let unseen = view.unseen.ok_or("the agent does not look after it")?;
    let options = &view.place.options;
    // A look may wait for an answer of postgres.
    let most = options.lease.length.max(Millis(2 * options.checks.timeout.0));
    let leads = view.report.as_ref().is_some_and(|report| report.holds.is_some());
    match unseen <= if leads { most } else { Millis(2 * most.0) } {
        true => Ok(()),
        false => Err(format!("the agent has not looked at it for {unseen}")),
    }
}

fn leader(view: &View) -> Result<(), String> {
    match said(view)?.holds {
        None => Err("it is not the primary".to_owned()),
        Some(_) if view.may_write => Ok(()),
        Some(term) => Err(format!("its lease of term {term} has ended")),
    }
}

fn primary(view: &View) -> Result<(), String> {
    leader(view)?;
    let report = said(view)?;
    if report.state != MemberState::Primary {
        return Err(format!("it takes no writes: it is {}", report.state));
    }
    match report.trouble {
        // Those that are connected work.
        Trouble::None | Trouble::Busy => Ok(()),
        trouble @ (Trouble::Hung
        | Trouble::DiskFull
        | Trouble::ReadOnlyFs
        | Trouble::Recovering) => Err(format!("it takes no writes: {trouble}")),
    }
}

fn running(report: &MemberReport) -> Result<(), String> {
    use MemberState as S;
    let runs =
        matches!(report.state, S::Standby | S::Sealed | S::Promoting | S::Primary | S::Rogue);
    match report.trouble {
        Trouble::Hung => Err("postgres does not answer".to_owned()),
        _ if runs => Ok(()),
        _ => Err(format!("postgres is {}", report.state)),
    }
}

fn is_replica(report: &MemberReport) -> bool {
    matches!(report.state, MemberState::Standby | MemberState::Sealed)
}

fn replica(view: &View, query: &Query) -> Result<(), String> {
    let report = said(view)?;
    running(report)?;
    if !is_replica(report) {
        return Err(format!("it is no replica: it is {}", report.state));
    }
    if !view.place.serve {
        return Err("this node is drained or disabled".to_owned());
    }
    if view.place.member.no_load_balance {
        return Err("no-load-balance is set".to_owned());
    }
    if let Some(wanted) = &query.replication_state
        && *wanted != replication_state(report)
    {
        return Err(format!("it is {}", replication_state(report)));
    }
    query.lag.map_or(Ok(()), |most| keeps_up(report, most, false))
}

/// As Patroni names it.
pub fn replication_state(report: &MemberReport) -> &'static str {
    if report.upstream.is_some() { "streaming" } else { "in archive recovery" }
}

fn sync(view: &View, query: &Query) -> Result<(), String> {
    replica(view, query)?;
    match view.place.sync && said(view)?.upstream.is_some() {
        true => Ok(()),
        false => Err("commits do not wait for it".to_owned()),
    }
}

fn ready(view: &View, query: &Query) -> Result<(), String> {
    let report = said(view)?;
    running(report)?;
    if !view.place.serve {
        return Err("this node is drained or disabled".to_owned());
    }
    if !is_replica(report) || report.upstream.is_none() {
        return Err("it does not stream".to_owned());
    }
    keeps_up(report, query.lag.unwrap_or(view.place.options.failover.max_lag), query.written)
}

fn keeps_up(report: &MemberReport, Size(most): Size, written: bool) -> Result<(), String> {
    match lag(report, written) {
        Some(lag) if lag <= most => Ok(()),
        Some(lag) => Err(format!("it is {lag} bytes behind")),
        None => Err("it receives nothing, so nobody knows how far it is behind".to_owned()),
    }
}

/// Bytes behind its upstream, in what it applied or else wrote.
pub fn lag(report: &MemberReport, written: bool) -> Option<u64> {
    let stream = report.upstream.as_ref()?;
    let received = report.lsn.unwrap_or(Lsn(0));
    let has = if written { received } else { report.replayed? };
    Some(stream.end.max(received).since(has))
}

fn tagged(view: &View, query: &Query) -> Result<(), String> {
    let tags = tags(&view.place.member);
    for (key, value) in &query.tags {
        let own = tags.iter().find(|(own, _)| own == key).map(|(_, value)| value);
        if !own.is_some_and(|own| own.eq_ignore_ascii_case(value)) {
            return Err(format!("its tag {key} is {}", own.map_or("not set", String::as_str)));
        }
    }
    Ok(())
}

/// The site's own, and those that follow from settings under the names that checks know.
pub fn tags(options: &MemberOptions) -> Vec<(String, String)> {
    let flags = [
        ("nofailover", options.never_promote),
        ("noloadbalance", options.no_load_balance),
        ("nosync", options.no_sync),
        ("clonefrom", options.clone_from),
    ];
    let flags = flags.into_iter().filter(|(_, set)| *set);
    let flags = flags.map(|(name, _)| (name.to_owned(), "true".to_owned()));
    let own = options.tags.iter().map(|tag| (tag.key.clone(), tag.value.clone()));
    own.chain(flags).collect()
}
