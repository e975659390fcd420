//! A primary's steps: its lease, its promotion, its restart in place, and what is kept right while it
//! runs. Nothing here writes without a lease.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_model::cluster::options::HbaMode;
use lockstep_model::cluster::{ClusterPlace, Goal, MemberState, Primary, Quorum};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::closed::{Closed, is_synchronous};
use super::decision::{leased_term, quorums};
use super::seen::Seen;
use super::settlement::Settlement;
use super::steps::Restart;
use super::warnings::About;
use super::{Work, since};
use crate::pg::boottime;
use crate::pg::copy;
use crate::pg::instance::{Instance, Role, StartAs, Status};
use crate::pg::lease::{Ahead, Duty, Held};
use crate::pg::retention;
use crate::pg::salvage;

/// For the keeper to take a duty up.
const TAKEN_MAX: Duration = Duration::from_secs(1);
/// Out of recovery, once everything is replayed.
const PROMOTE_MAX: Duration = Duration::from_secs(600);
const QUORUM_MAX: Duration = Duration::from_secs(5);
const CHECKPOINT_MAX: Duration = Duration::from_secs(3600);
/// Between two looks at slots.
const SLOTS_INTERVAL: Duration = Duration::from_secs(2);
/// Between two looks at what starts postgres.
const MANAGER_INTERVAL: Duration = Duration::from_secs(30);
const NO_CGROUP: &str = "this machine has no cgroup hierarchy of version 2, without which no primary can be fenced: mount it, and restart lockstep-agent";

impl Work {
    /// Has the keeper keep what the goal needs, and knows what is held when it returns.
    pub async fn keep_lease(
        &mut self,
        place: &ClusterPlace,
        instance: &Instance,
        held: &mut watch::Receiver<Held>,
    ) {
        let books = self.books.read();
        let term = leased_term(place, &books);
        let (Some(term), Some(cgroup)) = (term, instance.cgroup_dir()) else {
            let warning = if term.is_some() { NO_CGROUP } else { "" };
            self.memory.warnings.set(About::Cgroup, warning);
            self.expect_lease(place, instance);
            return self.keeper.keep(None);
        };
        self.memory.warnings.set(About::Cgroup, "");
        self.keeper.keep(Some(Duty {
            term,
            is_held: books.holding == Some(term),
            holds_nothing: books.holding.is_none(),
            options: place.options.lease.clone(),
            quorums: quorums(place, &books),
            promotable: place.promotable.clone(),
            peers: place.peers.iter().map(|peer| peer.peer.clone()).collect(),
            cgroup,
        }));
        let taken = held.wait_for(|held| held.lease.is_some_and(|lease| lease.term >= term));
        // A keeper that hangs gives no lease.
        let _ = timeout(TAKEN_MAX, taken).await;
    }

    /// Of a member that may be promoted by itself.
    fn expect_lease(&self, place: &ClusterPlace, instance: &Instance) {
        let is_candidate = matches!(place.goal, Goal::Standby { .. } | Goal::Sealed { .. })
            && place.promotable.contains(&self.site.me);
        if let Some(cgroup) = instance.cgroup_dir().filter(|_| is_candidate) {
            self.keeper.expect(Ahead { cgroup, fence: place.options.lease.fence });
        }
    }

    async fn hold(&self, place: &ClusterPlace) -> Result<(), String> {
        let term = place.term;
        let kept = self.books.change(move |books| books.hold(term)).await;
        kept.map_err(|e| e.to_string())
    }

    /// Leaves recovery with everything that it received, under its lease.
    pub async fn promote(
        &mut self,
        place: &ClusterPlace,
        instance: &Instance,
        seen: &Seen,
    ) -> Result<(), String> {
        let Goal::Primary(Primary { at_least, timeline, quorum, .. }) = &place.goal else {
            return Ok(());
        };
        let status = seen.status.as_ref().ok_or("postgres does not tell its position")?;
        if status.lsn.max(status.replayed.unwrap_or_default()) < *at_least {
            return Err(format!("its log ends at {}, before {at_least}", status.lsn));
        }
        // Who acknowledges is in force before the first commit; all else can follow it.
        if quorum.is_off() {
            self.hold(place).await?;
        } else {
            let conf = self.conf(place, instance, Role::Primary(quorum))?;
            let (configured, held) = tokio::join!(instance.configure(&conf), self.hold(place));
            configured?;
            held?;
            self.memory.conf = Some(conf);
        }
        self.memory.closed = None;
        self.memory.sealed = None;
        let taken = place.lineage.timeline().max(timeline.saturating_sub(1));
        instance.promote(taken, PROMOTE_MAX).await?;
        salvage::clear(instance)?;
        let promoted = instance.clone();
        // Others may rewind from here once it is through.
        self.memory.settling = Some(tokio::spawn(async move {
            if let Err(error) = promoted.checkpoint(CHECKPOINT_MAX).await {
                tracing::warn!(%error, "no checkpoint after the promotion");
            }
        }));
        Ok(())
    }

    /// Again after a crash, in its own term.
    pub async fn start_primary(
        &mut self,
        place: &ClusterPlace,
        instance: &Instance,
    ) -> Result<(), String> {
        self.memory.offered = None;
        // With its start, rows become visible whose commits waited for standbys that never had them.
        let waits = place.options.hba_mode == HbaMode::Managed && is_synchronous(place);
        self.memory.closed = waits.then(Closed::default);
        let conf = self.conf(place, instance, self.role(place))?;
        self.memory.conf = None;
        instance.configure(&conf).await?;
        self.hold(place).await?;
        let now = boottime::now();
        self.memory.restart.get_or_insert(Restart { moved: now, segment: None });
        self.memory.end = None;
        let started = instance.start(StartAs::Primary, self.books.read().system_id).await;
        if started.is_ok() {
            self.memory.conf = Some(conf);
        } else if let Some(restart) = &self.memory.restart
            && since(restart.moved) > place.options.failover.restart_limit
        {
            self.memory.restart_failed = Some(place.term);
        }
        started
    }

    pub async fn adopt(
        &mut self,
        place: &ClusterPlace,
        instance: &Instance,
        seen: &Seen,
    ) -> Result<(), String> {
        instance.adopt().await?;
        let id = seen.control().map(|control| control.system_id);
        let (term, copy) = (place.term, place.copy);
        let kept = self.books.change(move |books| {
            books.system_id = books.system_id.or(id);
            books.copy = copy;
            books.hold(term);
        });
        kept.await.map_err(|e| e.to_string())
    }

    /// Has the files and the running instance say what the goal says.
    pub async fn configure(
        &mut self,
        place: &ClusterPlace,
        instance: &Instance,
        seen: &Seen,
    ) -> Result<(), String> {
        let conf = self.conf(place, instance, self.role(place))?;
        if matches!(place.goal, Goal::Standby { .. }) {
            salvage::clear(instance)?;
        }
        self.memory.conf = None;
        let configured = instance.configure(&conf).await?;
        self.memory.warnings.set(About::Settings, configured.refused.unwrap_or_default());
        self.memory.conf = Some(conf);
        self.memory.sealed = None;
        if let Goal::Primary(primary) = &place.goal {
            self.hold(place).await?;
            if seen.status.as_ref().and_then(|s| s.quorum.as_ref()) != Some(&primary.quorum) {
                instance.set_quorum(&primary.quorum, QUORUM_MAX).await?;
                self.memory.settlement = Settlement::default();
            }
        }
        Ok(())
    }

    /// What is looked after while it is where it is to be.
    pub async fn keep_up(&mut self, place: &ClusterPlace, instance: &Instance, seen: &Seen) {
        let lacks_signal = !seen.found.standby_signal && self.memory.runs;
        let signal = match seen.control().is_some() && lacks_signal {
            // A start was interrupted: the next one by hand must not open it writable.
            true => instance.put_standby_signal(),
            false => Ok(()),
        };
        self.memory.warnings.note(About::Signal, signal);
        if self.memory.runs && seen.state != MemberState::Starting {
            self.memory.probe.turn(instance, &place.options.checks).await;
        }
        self.look_at_manager(instance).await;
        let Some(status) = &seen.status else { return };
        self.memory.survey.turn(instance, place).await;
        match (seen.state, &place.goal) {
            (MemberState::Primary, Goal::Primary(primary)) => {
                self.memory.restart = None;
                self.note_replies(status);
                self.keep_roles(instance).await;
                self.settle_quorum(status, &primary.quorum).await;
                self.open(place, status);
                self.prepare(instance, primary.prepare);
                self.keep_slots(place, instance, status).await;
            }
            (MemberState::Standby, Goal::Standby { .. }) => {
                if !self.memory.settled_copy
                    && status.receiver.as_ref().is_some_and(|row| row.streaming)
                {
                    let settled = copy::settle(&self.site.dir, place.options.rejoin.keep_old).await;
                    self.memory.settled_copy = true;
                    self.memory.warnings.note(About::OldCopy, settled);
                }
                self.keep_slots(place, instance, status).await;
            }
            _ => {}
        }
    }

    /// Who starts it at boot is seen before the next boot.
    async fn look_at_manager(&mut self, instance: &Instance) {
        if self.memory.manager_at.is_none_or(|last| last.elapsed() >= MANAGER_INTERVAL) {
            self.memory.manager_at = Some(Instant::now());
            self.memory.warnings.note(About::Manager, instance.check_manager().await);
        }
    }

    fn note_replies(&self, status: &Status) {
        let now = boottime::now();
        let streaming = status.standbys.iter().filter(|row| row.streaming);
        let replies: BTreeMap<_, _> =
            streaming.map(|row| (row.node.clone(), now.before(row.reply_age))).collect();
        self.keeper.replied(replies);
    }

    async fn keep_roles(&mut self, instance: &Instance) {
        if !self.memory.has_roles {
            let made = instance.ensure_roles().await;
            self.memory.has_roles = made.is_ok();
            let made = made.map_err(|error| format!("its roles: {error}"));
            self.memory.warnings.note(About::Roles, made);
        }
    }

    async fn settle_quorum(&mut self, status: &Status, wanted: &Quorum) {
        let before = self.books.read().quorum;
        let (in_force, rows) = (status.quorum.as_ref(), &status.standbys);
        if !self.memory.settlement.turn(wanted, &before, in_force, status.lsn, rows) {
            return;
        }
        let quorum = wanted.clone();
        let kept = self.books.change(move |books| books.quorum = quorum).await;
        if kept.is_ok() {
            self.memory.settlement = Settlement::default();
        }
        self.memory.warnings.note(About::Books, kept);
    }

    /// Lets everybody in once whoever may be promoted has what this one shows.
    fn open(&mut self, place: &ClusterPlace, status: &Status) {
        let Some(closed) = &mut self.memory.closed else { return };
        let quorums = quorums(place, &self.books.read());
        let is_replicated = closed.turn(&quorums, status.flushed, &status.standbys);
        if is_replicated || !is_synchronous(place) {
            self.memory.closed = None;
        }
    }

    fn prepare(&mut self, instance: &Instance, wanted: bool) {
        if !wanted {
            (self.memory.prepared, self.memory.is_prepared) = (None, false);
            return;
        }
        if self.memory.is_prepared {
            return;
        }
        match &self.memory.prepared {
            None => {
                let instance = instance.clone();
                self.memory.prepared =
                    Some(tokio::spawn(
                        async move { instance.checkpoint(CHECKPOINT_MAX).await.is_ok() },
                    ));
            }
            Some(task) if task.is_finished() => {
                self.memory.prepared = None;
                self.memory.is_prepared = true;
            }
            Some(_) => {}
        }
    }

    async fn keep_slots(&mut self, place: &ClusterPlace, instance: &Instance, status: &Status) {
        let now = boottime::now();
        self.memory.absences.note(place, &status.slots, now);
        let due = self.memory.slots_at.is_none_or(|last| last.elapsed() >= SLOTS_INTERVAL);
        if !place.options.replication.slots || !due {
            return;
        }
        self.memory.slots_at = Some(Instant::now());
        let (flushed, replayed) = (status.flushed, status.replayed);
        let wishes = retention::wishes(place, flushed, replayed, &self.memory.absences, now);
        let kept = instance.ensure_slots(&wishes).await;
        let kept = kept.map_err(|error| format!("its slots: {error}"));
        self.memory.warnings.note(About::Slots, kept);
    }
}
