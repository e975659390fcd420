//! What an agent finds of its instance, and what it says of it; and what it keeps right while nothing
//! is to be done.

use lockstep_agent::pg::books::Books;
use lockstep_agent::pg::member::decision::{self, is_in_force};
use lockstep_agent::pg::member::ladder::Step;
use lockstep_model::Millis;
use lockstep_model::cluster::report::{StandbyRow, Stream, SyncState, Trouble};
use lockstep_model::cluster::{
    ClusterPlace, Goal, Lineage, Lsn, MemberReport, MemberState, SystemId,
};

use super::Sim;
use super::event::Then;
use super::host::{Conf, Host};
use super::mutation::Mutation;
use super::postgres::Run;
use super::stream::Up;

pub const SYSTEM: SystemId = SystemId(4711);

/// Between two reports of which only positions are new.
const INTERVAL_MS: u64 = 300;
/// An instance that answers nothing for so long counts as hung.
const HUNG_MS: u64 = 6000;

pub struct Seen {
    pub state: MemberState,
    /// Of data without processes, when it was looked for.
    pub end: Option<(Lineage, Lsn)>,
    /// It answers.
    pub answers: bool,
    pub trouble: Trouble,
}

impl Sim {
    pub fn look(&mut self, node: usize, place: &ClusterPlace) -> Seen {
        let now = self.now();
        let (is_gone, attached) = (!self.is_left(node), self.is(Mutation::SealedAttached));
        let host = &mut self.hosts[node];
        let mut seen =
            Seen { state: MemberState::Missing, end: None, answers: false, trouble: Trouble::None };
        seen.state = judge(host, place, is_gone, attached, &mut seen.end);
        let hung = host.postgres.hung;
        seen.answers = matches!(host.postgres.run, Run::Recovery | Run::Primary) && hung.is_none();
        if hung.is_some_and(|since| now >= since + HUNG_MS) {
            seen.trouble = Trouble::Hung;
        }
        seen
    }

    /// The configuration of the goal, and whether it is in force.
    pub fn is_configured(&self, node: usize, place: &ClusterPlace, seen: &Seen) -> bool {
        let host = &self.hosts[node];
        let quorum = seen.answers.then_some(Some(&host.postgres.quorum));
        let conf = host.agent.as_ref().and_then(|agent| agent.memory.conf.as_ref());
        is_in_force(place, &host.disk.books, quorum) && conf == Some(&conf_of(place))
    }

    /// While it is where it is to be.
    pub fn keep_up(&mut self, node: usize, place: &ClusterPlace, seen: &Seen) {
        let Goal::Primary(primary) = &place.goal else { return };
        if seen.state != MemberState::Primary || !seen.answers {
            return;
        }
        let now = self.now();
        let rows = self.rows(node);
        let at_once = self.is(Mutation::SettledAtOnce);
        let host = &mut self.hosts[node];
        let clock = host.clock(now);
        let (wanted, before) = (&primary.quorum, host.disk.books.quorum.clone());
        let Some(agent) = &mut host.agent else { return };
        let streaming = rows.iter().filter(|row| row.streaming);
        agent.replies =
            streaming.map(|row| (row.node.clone(), clock.before(row.reply_age))).collect();
        agent.memory.prepared = primary.prepare && host.postgres.checkpointed;
        let end = host.disk.data.as_ref().map_or(Lsn(0), |data| data.end());
        let in_force = Some(&host.postgres.quorum);
        let counts = agent.memory.settlement.turn(wanted, &before, in_force, end, &rows);
        if counts || (at_once && before != *wanted && in_force == Some(wanted)) {
            agent.memory.settlement = Default::default();
            let quorum = wanted.clone();
            let change = move |books: &mut Books| books.quorum = quorum;
            self.keep(node, Box::new(change), Then::Nothing);
        }
    }

    fn rows(&self, node: usize) -> Vec<StandbyRow> {
        let now = self.now();
        let row = |(of, sender): (&usize, &super::postgres::Sender)| StandbyRow {
            node: self.names[of].clone(),
            streaming: true,
            sync_state: SyncState::Quorum,
            sent: Lsn(sender.sent as u64),
            flushed: Lsn(sender.flushed as u64),
            replayed: Lsn(sender.flushed as u64),
            replay_lag: None,
            reply_age: Millis(now - sender.heard),
        };
        self.hosts[node].postgres.senders.iter().map(row).collect()
    }

    pub fn report(&mut self, node: usize, place: &ClusterPlace, seen: &Seen, step: Step) {
        let now = self.now();
        let standbys = match seen.state {
            MemberState::Primary if seen.answers => self.rows(node),
            _ => Vec::new(),
        };
        let wrong = self.is(Mutation::WrongPosition) && seen.state == MemberState::Sealed;
        let host = &mut self.hosts[node];
        let clock = host.clock(now);
        let postgres = &host.postgres;
        let (books, data) = (&host.disk.books, host.disk.data.as_ref());
        let Some(agent) = &mut host.agent else { return };
        let is_primary = seen.state == MemberState::Primary;
        let known = data.filter(|_| seen.answers).map(|data| data.end());
        let known = known.or(seen.end.as_ref().map(|(_, end)| *end));
        let known = if wrong { known.map(|end| Lsn(end.0 + 1000)) } else { known };
        let known = agent.memory.claim.filter(|_| seen.state == MemberState::Sealed).or(known);
        let upstream = postgres.receiver.as_ref().filter(|_| seen.answers).and_then(|row| {
            let from = self.names[&row.from].clone();
            let is_told =
                matches!(&place.goal, Goal::Standby { upstream: Some(up) } if *up == from);
            is_told.then(|| Stream { from, age: Millis(now - row.heard), end: row.end })
        });
        let report = MemberReport {
            state: shown_state(seen.state, step),
            term: books.promised,
            holds: books.holding.filter(|_| is_primary && agent.held.is_good(place.term, clock)),
            released: books.released.clone(),
            system_id: data.map(|_| SYSTEM).or(books.system_id),
            version: "15.18".to_owned(),
            lineage: data.map(|data| data.lineage()).unwrap_or_default(),
            lsn: known,
            replayed: known,
            upstream,
            quorum: Some(books.quorum.clone())
                .filter(|own| is_primary && seen.answers && postgres.quorum == *own),
            promotable: match is_primary && seen.answers {
                true => books.promotable.iter().cloned().collect(),
                false => Vec::new(),
            },
            standbys,
            rewindable: is_primary && postgres.checkpointed,
            prepared: is_primary && agent.memory.prepared,
            copy: books.copy,
            progress: None,
            salvaged_bytes: 0,
            certificate: String::new(),
            pending_restart: Vec::new(),
            trouble: seen.trouble,
            problem: agent.memory.problem.clone(),
            warnings: Vec::new(),
            findings: Default::default(),
        };
        let due = match &agent.said {
            Some((said, at)) => is_urgent(said, &report) || now >= at + INTERVAL_MS,
            None => true,
        };
        if due {
            agent.said = Some((report.clone(), now));
            self.send_up(node, Up::Report(Box::new(report)));
        }
    }
}

/// `is_gone`: no process is found; `attached`: nobody looks whether a sealed one receives.
fn judge(
    host: &mut Host,
    place: &ClusterPlace,
    is_gone: bool,
    attached: bool,
    end: &mut Option<(Lineage, Lsn)>,
) -> MemberState {
    let books = &host.disk.books;
    let Some(agent) = &mut host.agent else { return MemberState::Missing };
    let Some(data) = &host.disk.data else {
        return if books.fenced { MemberState::Fenced } else { MemberState::Missing };
    };
    if host.postgres.dying && !is_gone {
        return MemberState::Unfenced;
    }
    match if is_gone { Run::Down } else { host.postgres.run } {
        Run::Down => {
            if host.disk.rewinding {
                return MemberState::Rewinding;
            }
            if books.fenced {
                return MemberState::Fenced;
            }
            agent.memory.has_end |= decision::needs_end(place, books);
            *end = agent.memory.has_end.then(|| (data.lineage(), data.end()));
            let known = end.as_ref().map(|(lineage, end)| (lineage, *end));
            decision::judge_dead(place, books, data.clean, known)
        }
        Run::Starting { .. } => MemberState::Starting,
        Run::Stopping => MemberState::Stopping,
        Run::Recovery if host.postgres.hung.is_some() => MemberState::Standby,
        Run::Recovery => {
            let sealed = agent.memory.sealed;
            let overlooked = attached && sealed.is_some();
            let receives = host.postgres.receiver.is_some() && !overlooked;
            let lineage = data.lineage();
            decision::judge_recovery(place, sealed, receives, Some(&lineage), data.end())
        }
        Run::Primary => decision::judge_writable(place, books),
    }
}

pub fn conf_of(place: &ClusterPlace) -> Conf {
    match &place.goal {
        Goal::Primary(primary) => Conf::Primary(primary.quorum.clone()),
        Goal::Standby { .. } => {
            Conf::Follows(decision::upstream(place).map(|peer| peer.peer.node.clone()))
        }
        _ => Conf::Sealed,
    }
}

fn shown_state(found: MemberState, step: Step) -> MemberState {
    match step {
        Step::Make | Step::Copy => MemberState::Copying,
        Step::Mend => MemberState::Rewinding,
        Step::Promote => MemberState::Promoting,
        Step::Stop => MemberState::Stopping,
        _ => found,
    }
}

/// As the agent's link sees it: everything but what flows.
fn is_urgent(before: &MemberReport, now: &MemberReport) -> bool {
    let dead = [MemberState::Sealed, MemberState::Crashed, MemberState::Stopped];
    let from = |report: &MemberReport| report.upstream.as_ref().map(|up| up.from.clone());
    let lsn = |report: &MemberReport| report.lsn.filter(|_| dead.contains(&report.state));
    let key = |report: &MemberReport| {
        (
            (report.state, report.term, report.holds, report.released.clone()),
            (report.quorum.clone(), report.promotable.clone(), lsn(report), from(report)),
            (report.rewindable, report.prepared, report.trouble, report.lineage.clone()),
            (report.copy, report.standbys.len()),
        )
    };
    key(before) != key(now)
}
