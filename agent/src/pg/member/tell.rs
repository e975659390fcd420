//! What is told of a member: its report, from what was seen, its books and its lease.

use std::sync::atomic::Ordering;

use lockstep_model::cluster::report::{Released, Stream, Trouble};
use lockstep_model::cluster::{ClusterPlace, Goal, MemberReport, MemberState};

use super::Work;
use super::ladder::Step;
use super::seen::Seen;
use crate::pg::books::Books;
use crate::pg::boottime;
use crate::pg::instance::{Data, Instance, Status};
use crate::pg::lease::Held;
use crate::pg::retention;

const CLOSED: &str =
    "it was started again and lets nobody in until a synchronous standby has what it shows";

impl Work {
    pub fn tell(
        &mut self,
        place: &ClusterPlace,
        _instance: &Instance,
        seen: &Seen,
        held: &Held,
        step: Step,
    ) {
        let books = self.books.read();
        let mut report = self.blank(&books);
        let status = seen.status.as_ref();
        let control = seen.control();
        report.state = shown_state(seen.state, step);
        report.system_id = control.map(|control| control.system_id).or(books.system_id);
        report.version = match (status, control) {
            (Some(status), _) => status.version.clone(),
            (None, Some(control)) => control.major.to_string(),
            (None, None) => String::new(),
        };
        report.lineage = seen.lineage.clone();
        report.lsn = status.map(|status| status.lsn).or(seen.end.as_ref().map(|end| end.end));
        report.replayed = status.and_then(|status| status.replayed);
        report.upstream = status.and_then(|status| stream(place, status));
        let is_primary = seen.state == MemberState::Primary;
        if is_primary && held.is_good(place.term, boottime::now()) {
            report.holds = books.holding;
        }
        if let (true, Some(status)) = (is_primary, status) {
            report.quorum =
                Some(books.quorum.clone()).filter(|own| status.quorum.as_ref() == Some(own));
            report.promotable = books.promotable.iter().cloned().collect();
            report.standbys = status.standbys.clone();
            report.standbys.truncate(MemberReport::STANDBYS_MAX);
            report.rewindable = status.checkpoint_timeline == status.timeline;
            report.prepared = self.memory.is_prepared;
        }
        if let Some(status) = status {
            report.pending_restart = status.pending_restart.clone();
            report.pending_restart.truncate(MemberReport::PENDING_MAX);
            report.findings = self.memory.survey.found().to_vec();
        }
        report.trouble = seen.trouble;
        report.problem = self.problem(seen, held, step);
        self.warn(&mut report, place, seen, held);
        self.closed.store(self.memory.closed.is_some(), Ordering::Relaxed);
        self.site.board.publish(&place.cluster, report);
        self.memory.survey.is_told();
    }

    /// There is no instance that could be looked at: why.
    pub fn tell_unusable(&mut self, place: &ClusterPlace, problem: String) {
        let report = MemberReport { problem, ..self.blank(&self.books.read()) };
        self.site.board.publish(&place.cluster, report);
    }

    /// Elections and switchovers wait for nothing else.
    pub fn tell_released(&self, released: &Released) {
        self.site.board.amend(&self.site.cluster, |report| {
            if report.state != MemberState::Primary {
                // It may have been promoted since: the next look tells of which history its end is.
                report.lineage = Default::default();
            }
            if released.clean {
                report.state = MemberState::Stopped;
            }
            (report.holds, report.lsn) = (None, released.end);
            report.released = Some(released.clone());
        });
    }

    /// As above. Of another timeline than was told, the next look tells.
    pub fn tell_sealed(&self, status: &Status) {
        self.site.board.amend(&self.site.cluster, |report| {
            if report.lineage.timeline() == status.timeline {
                report.state = MemberState::Sealed;
                (report.lsn, report.replayed) = (Some(status.lsn), status.replayed);
                report.upstream = None;
            }
        });
    }

    fn blank(&self, books: &Books) -> MemberReport {
        let memory = &self.memory;
        MemberReport {
            state: MemberState::Missing,
            term: books.promised,
            holds: None,
            released: books.released.clone(),
            system_id: books.system_id,
            version: String::new(),
            lineage: Default::default(),
            lsn: None,
            replayed: None,
            upstream: None,
            quorum: None,
            promotable: Vec::new(),
            standbys: Vec::new(),
            rewindable: false,
            prepared: false,
            copy: books.copy,
            progress: None,
            salvaged_bytes: memory.salvaged.map_or(0, |(_, bytes)| bytes),
            certificate: memory.certificate.clone(),
            pending_restart: Vec::new(),
            trouble: Trouble::None,
            problem: String::new(),
            warnings: Vec::new(),
            findings: Vec::new(),
        }
    }

    fn problem(&self, seen: &Seen, held: &Held, step: Step) -> String {
        if let Data::Foreign(why) = &seen.found.data {
            return why.clone();
        }
        match step {
            Step::Wait(wait) if !wait.problem().is_empty() => wait.problem().to_owned(),
            Step::TakeLease if !held.problem.is_empty() => held.problem.clone(),
            _ => self.memory.problem.clone(),
        }
    }

    fn warn(&self, report: &mut MemberReport, place: &ClusterPlace, seen: &Seen, held: &Held) {
        let mut warn = |warning: String| {
            if !warning.is_empty() && report.warnings.len() < MemberReport::WARNINGS_MAX {
                report.warnings.push(warning);
            }
        };
        self.memory.warnings.lines().cloned().for_each(&mut warn);
        warn(held.problem.clone());
        if seen.state == MemberState::Primary && self.memory.closed.is_some() {
            warn(CLOSED.to_owned());
        }
        let space = &seen.found.space;
        let least = place.options.checks.min_free;
        for (what, free) in [("data", space.data_free), ("log", space.wal_free)] {
            if let Some(free) = free.filter(|free| *free < least) {
                warn(format!("the file system of its {what} has only {free} left"));
            }
        }
        if seen.found.storage_hangs {
            warn("the disk of its data does not answer".to_owned());
        }
        for node in seen.status.iter().flat_map(|status| &status.twice) {
            warn(format!("more than one receiver calls itself {node}"));
        }
        if let Some(status) = &seen.status {
            let slots = retention::warnings(&place.options.replication, &status.slots);
            slots.into_iter().for_each(warn);
        }
    }
}

/// What is being done says more than what was found.
fn shown_state(found: MemberState, step: Step) -> MemberState {
    match step {
        Step::Make | Step::Copy => MemberState::Copying,
        Step::Mend => MemberState::Rewinding,
        Step::Promote => MemberState::Promoting,
        Step::Stop => MemberState::Stopping,
        _ => found,
    }
}

/// By where it receives from, as postgres knows no names of nodes.
fn stream(place: &ClusterPlace, status: &Status) -> Option<Stream> {
    let row = status.receiver.as_ref().filter(|row| row.streaming)?;
    let Goal::Standby { upstream: Some(from) } = &place.goal else { return None };
    let peer = place.peers.iter().find(|peer| peer.peer.node == *from)?;
    let is_there = peer.postgres.host() == row.host && peer.postgres.port == row.port;
    is_there.then(|| Stream { from: from.clone(), age: row.age, end: row.latest_end })
}
