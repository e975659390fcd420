//! How the steps of the ladder are taken, but for a primary's. Each may be ended at any moment, and is
//! then judged by a new look.

use std::sync::Arc;
use std::time::Duration;

use lockstep_model::Millis;
use lockstep_model::cluster::report::{Progress, ProgressKind};
use lockstep_model::cluster::{Act, ClusterPlace, Goal, Lineage, MemberState, Term};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::closed::Closed;
use super::decision::{role, upstream};
use super::ladder::Step;
use super::probe::Probe;
use super::seen::Seen;
use super::settlement::Settlement;
use super::survey::Survey;
use super::warnings::{About, Warnings};
use super::{Order, Work, since};
use crate::pg::boottime::{self, Boottime};
use crate::pg::copy::{self, Moved, Replace};
use crate::pg::instance::{
    Conf, FenceEnd, Instance, Layout, Processes, Programs, Role, Secrets, StartAs, StopMode,
};
use crate::pg::retention::Absences;
use crate::pg::rewind::{self, RewindError};
use crate::pg::salvage::{self, Offered, Wish};
use crate::pg::wal::WalEnd;

/// For a walreceiver to be gone once nobody is named to it.
const SEAL_MAX: Duration = Duration::from_secs(3);
const SEAL_STEP: Duration = Duration::from_millis(2);
/// A clean stop waits for standbys and archiver.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Between two words on how far something long is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// What the actor knows beside its books; gone with it.
#[derive(Default)]
pub struct Memory {
    pub state: Option<MemberState>,
    /// A postmaster lives.
    pub runs: bool,
    /// The process that receives, of a standby.
    pub receiver: Option<i32>,
    /// It receives nothing since this term.
    pub sealed: Option<Term>,
    /// Of data that has not been started since.
    pub end: Option<Arc<WalEnd>>,
    /// The end cannot be found.
    pub endless: bool,
    pub offered: Option<Offered>,
    /// In force.
    pub conf: Option<Conf>,
    pub lineage: Lineage,
    pub restart: Option<Restart>,
    /// It lets nobody in: what its crash recovery replayed may be with no other member.
    pub closed: Option<Closed>,
    /// A restart in place in this term led nowhere.
    pub restart_failed: Option<Term>,
    /// Looks in a row that were not answered.
    pub hung: u32,
    /// When the postmaster was found stopped by a signal first, if it still is.
    pub stopped: Option<Boottime>,
    pub probe: Probe,
    pub survey: Survey,
    pub salvaged: Option<(Term, u64)>,
    pub problem: String,
    pub warnings: Warnings,
    /// Tells how far something long is; until the next look.
    pub telling: JoinSet<()>,
    pub fence: Millis,
    /// A checkpoint after a promotion.
    pub settling: Option<JoinHandle<()>>,
    /// The checkpoint before a switchover, and whether it is through.
    pub prepared: Option<JoinHandle<bool>>,
    pub is_prepared: bool,
    pub settlement: Settlement,
    pub has_roles: bool,
    pub certificate: String,
    /// A copy that streams has been settled.
    pub settled_copy: bool,
    pub slots_at: Option<Instant>,
    /// When what starts it was looked at last.
    pub manager_at: Option<Instant>,
    pub absences: Absences,
}

/// A restart in place under way.
pub struct Restart {
    /// When it got on last.
    pub moved: Boottime,
    /// What was being replayed then.
    pub segment: Option<String>,
}

impl Work {
    /// The instance of the place; another one when its layout or passwords changed.
    pub async fn open_instance(&mut self, place: &ClusterPlace) -> Result<Instance, String> {
        self.memory.fence = place.options.lease.fence;
        let layout = Layout::find(&place.cluster, &place.options, &place.member)?;
        let secrets: Arc<Secrets> = self.secrets.borrow_and_update().clone();
        let known = self.instance.borrow().clone();
        if let Some(known) = known
            && *known.layout() == layout
            && *known.secrets() == *secrets
        {
            return Ok(known);
        }
        if secrets.superuser.is_empty() {
            return Err("the passwords of its roles have not come yet".to_owned());
        }
        let programs = Programs { agent: self.site.agent.clone(), host: self.site.host.clone() };
        let instance = Instance::open(layout, self.site.me.clone(), programs, secrets)?;
        instance.settle().await?;
        copy::repair(&instance, &self.site.dir).await?;
        self.memory.certificate = instance.certificate().unwrap_or_default();
        self.memory.conf = None;
        self.memory.closed = instance.is_closed().then(Closed::default);
        self.instance.send_replace(Some(instance.clone()));
        Ok(instance)
    }

    /// Ok: another look tells how far it is.
    pub async fn take(
        &mut self,
        place: &ClusterPlace,
        instance: &Instance,
        seen: &Seen,
        step: Step,
    ) -> Result<(), String> {
        match step {
            Step::Make => self.make(place, instance).await,
            Step::Adopt => self.adopt(place, instance, seen).await,
            Step::Copy => self.copy(place, instance, seen).await,
            Step::Mend => self.mend(place, instance, seen).await,
            Step::StartStandby | Step::StartSealed => self.start_standby(place, instance).await,
            Step::StartPrimary => self.start_primary(place, instance).await,
            Step::Promote => self.promote(place, instance, seen).await,
            Step::Configure => self.configure(place, instance, seen).await,
            Step::Seal => self.seal(place, instance).await,
            Step::ReadEnd => {
                let end = self.find_end(instance, seen.control().cloned()).await;
                end.map(drop)
            }
            Step::Salvage => self.salvage(place, instance, seen).await,
            Step::Stop => {
                instance.stop(StopMode::Fast, STOP_MAX).await?;
                match place.goal {
                    // Somebody waits for it to be told.
                    Goal::HandOver => self.release(instance).await,
                    _ => Ok(()),
                }
            }
            Step::Fence => self.fence(instance).await,
            Step::Release => self.release(instance).await,
            Step::Attest => {
                self.attest(place, instance, seen).await;
                Ok(())
            }
            Step::Mark => {
                instance.put_standby_signal()?;
                self.mark(true).await
            }
            Step::Unmark => self.mark(false).await,
            Step::TakeLease | Step::Stay | Step::Wait(_) => Ok(()),
        }
    }

    async fn mark(&self, fenced: bool) -> Result<(), String> {
        let kept = self.books.change(move |books| books.fenced = fenced).await;
        kept.map_err(|e| e.to_string())
    }

    pub async fn fence(&mut self, instance: &Instance) -> Result<(), String> {
        self.forget();
        match instance.fence(self.memory.fence.into()).await {
            FenceEnd::Fenced => Ok(()),
            FenceEnd::Unfenced(pids) => {
                Err(format!("processes {pids:?} of postgres do not end: look at its disk"))
            }
        }
    }

    /// What was true of a run that ends.
    fn forget(&mut self) {
        let memory = &mut self.memory;
        (memory.sealed, memory.end) = (None, None);
        memory.settlement = Settlement::default();
        memory.conf = None;
        memory.closed = None;
        memory.has_roles = false;
        memory.warnings.set(About::Roles, "");
        memory.warnings.set(About::Slots, "");
        memory.is_prepared = false;
        memory.probe = Probe::default();
        memory.survey = Survey::default();
    }

    async fn make(&mut self, place: &ClusterPlace, instance: &Instance) -> Result<(), String> {
        let options = &place.options;
        instance.initdb(&options.initdb, options.checksums).await?;
        let control = instance.data().await;
        let id = match control {
            crate::pg::instance::Data::There(control) => control.system_id,
            _ => return Err("initdb left no database".to_owned()),
        };
        instance.put_standby_signal()?;
        let copy = place.copy;
        let kept = self.books.change(move |books| {
            books.system_id = Some(id);
            books.copy = copy;
        });
        kept.await.map_err(|e| e.to_string())
    }

    async fn copy(
        &mut self,
        place: &ClusterPlace,
        instance: &Instance,
        seen: &Seen,
    ) -> Result<(), String> {
        let upstream = upstream(place).ok_or("nobody to copy from is named")?;
        if seen.found.processes != Processes::None {
            self.fence(instance).await?;
        }
        self.memory.offered = None;
        self.keeper.clear().await?;
        let sources = copy::sources(place, &upstream.peer.node);
        let progress = self.under_way(ProgressKind::Clone);
        let order =
            copy::Order { place, sources: &sources, replace: Replace::Own, own: &self.site.dir };
        let stop = CancellationToken::new();
        let _ended = stop.clone().drop_guard();
        let copied = copy::clone(instance, order, &progress, &stop).await;
        copied.map_err(|e| e.to_string())?;
        self.memory.settled_copy = false;
        self.follows_anew(instance, Some(place.copy)).await
    }

    /// Its data is a copy now, or was taken back: no primary wrote what is there.
    async fn follows_anew(&mut self, instance: &Instance, copy: Option<u64>) -> Result<(), String> {
        self.forget();
        instance.put_standby_signal()?;
        let id = match instance.data().await {
            crate::pg::instance::Data::There(control) => Some(control.system_id),
            _ => None,
        };
        let kept = self.books.change(move |books| {
            books.copy = copy.unwrap_or(books.copy);
            books.system_id = books.system_id.or(id);
            books.led = false;
        });
        kept.await.map_err(|e| e.to_string())
    }

    async fn mend(
        &mut self,
        place: &ClusterPlace,
        instance: &Instance,
        seen: &Seen,
    ) -> Result<(), String> {
        let source = upstream(place).ok_or("nobody to come back to is named")?;
        if seen.found.processes != Processes::None {
            self.fence(instance).await?;
        }
        self.memory.offered = None;
        self.keeper.clear().await?;
        if !place.options.rejoin.rewind {
            return self.copy(place, instance, seen).await;
        }
        let _shown = self.under_way(ProgressKind::Rewind);
        let order = rewind::Order { place, source, own: &self.site.dir };
        let stop = CancellationToken::new();
        let _ended = stop.clone().drop_guard();
        match rewind::rewind(instance, order, &stop).await {
            Ok(_) => self.follows_anew(instance, None).await,
            Err(RewindError::Impossible(why)) if place.options.rejoin.clone => {
                tracing::warn!(cluster = %place.cluster, why, "cannot be rewound; copied anew");
                self.copy(place, instance, seen).await
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// What is told of something long until the step ends, however it ends.
    pub fn under_way(&mut self, what: ProgressKind) -> watch::Sender<Moved> {
        let (progress, moved) = watch::channel(Moved::default());
        let (board, cluster) = (self.site.board.clone(), self.site.cluster.clone());
        let began = boottime::now();
        let mut telling = JoinSet::new();
        telling.spawn(async move {
            loop {
                let Moved { done_bytes, total_bytes } = *moved.borrow();
                let for_ms = since(began);
                board.progress(&cluster, Progress { what, done_bytes, total_bytes, for_ms });
                sleep(PROGRESS_INTERVAL).await;
            }
        });
        self.memory.telling = telling;
        progress
    }

    async fn start_standby(
        &mut self,
        place: &ClusterPlace,
        instance: &Instance,
    ) -> Result<(), String> {
        self.memory.offered = None;
        // A deadline of what was primary here is no standby's; one that is to be promoted in its own
        // term keeps it.
        if self.books.read().holding.is_none() {
            self.keeper.clear().await?;
        }
        let role = match &place.goal {
            Goal::Standby { .. } => role(place),
            _ => Role::Sealed,
        };
        let sealed = matches!(role, Role::Sealed);
        let conf = self.conf(place, instance, role)?;
        self.forget();
        if !sealed {
            salvage::clear(instance)?;
        }
        instance.configure(&conf).await?;
        let expected = self.books.read().system_id;
        instance.start(StartAs::Standby, expected).await?;
        // While its goal is to be primary, the configuration that counts is the primary's.
        self.memory.conf = Some(conf);
        if sealed {
            self.memory.sealed = Some(place.term);
        }
        if self.books.read().led && !sealed {
            let kept = self.books.change(|books| books.led = false).await;
            kept.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Receives from nobody any more when it returns, and never did since its position was read.
    async fn seal(&mut self, place: &ClusterPlace, instance: &Instance) -> Result<(), String> {
        let conf = self.conf(place, instance, Role::Sealed)?;
        // Given up in the middle, it is neither what it was nor this.
        self.memory.conf = None;
        instance.configure(&conf).await?;
        self.memory.conf = Some(conf);
        let end = Instant::now() + SEAL_MAX;
        loop {
            let status = instance.status(SEAL_MAX).await.map_err(|e| e.to_string());
            match status {
                Ok(status) if status.receiver.is_none() => {
                    self.memory.sealed = Some(place.term);
                    self.tell_sealed(&status);
                    return Ok(());
                }
                // A seal kills rather than waits: then its position is read from the disk.
                _ if Instant::now() >= end => return self.fence(instance).await,
                _ => sleep(SEAL_STEP).await,
            }
        }
    }

    async fn salvage(
        &mut self,
        place: &ClusterPlace,
        instance: &Instance,
        seen: &Seen,
    ) -> Result<(), String> {
        let Goal::Sealed { salvage: Some(from) } = &place.goal else { return Ok(()) };
        let peer = place.peers.iter().find(|peer| peer.peer.node == *from);
        let peer = peer.ok_or_else(|| format!("it is not known how to reach {from}"))?;
        let replayed = seen.status.as_ref().and_then(|status| status.replayed);
        let wish = Wish {
            cluster: &place.cluster,
            term: place.term,
            limit: place.options.salvage.timeout,
            lineage: &seen.lineage,
            from: replayed.unwrap_or_default(),
            bytes_max: place.options.salvage.max_bytes.0,
        };
        let progress = self.under_way(ProgressKind::Salvage);
        let stop = CancellationToken::new();
        let _ended = stop.clone().drop_guard();
        let dial = &*self.site.dial;
        let saved = salvage::fetch(instance, dial, &peer.peer, wish, &progress, &stop).await?;
        let limit = Duration::from(place.options.salvage.timeout);
        let end = Instant::now() + limit;
        loop {
            let status = instance.status(limit).await.map_err(|e| e.to_string())?;
            let replayed = status.replayed.unwrap_or_default();
            if replayed >= saved.end {
                self.memory.salvaged = Some((place.term, saved.bytes));
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!(
                    "what was saved is replayed only up to {replayed}, not {}",
                    saved.end
                ));
            }
            sleep(SEAL_STEP).await;
        }
    }

    /// Between two turns, by somebody's order.
    pub async fn obey(&mut self, order: Order) {
        let instance = self.instance.borrow().clone();
        if order.act == Act::Verify && self.memory.runs {
            // Beside everything else: a lease is looked after meanwhile.
            return self.memory.survey.ask(order.done);
        }
        let done = match instance {
            None => Err("there is no instance here yet".to_owned()),
            Some(instance) => match &order.act {
                Act::Reload => instance.reload().await.map(drop),
                Act::Checkpoint => instance.checkpoint(STOP_MAX).await.map_err(|e| e.to_string()),
                Act::Restart { pending } => self.restart(&instance, *pending).await,
                Act::Rewind => {
                    // The next start compares it with the cluster, and takes it back where needed.
                    self.restart(&instance, false).await
                }
                Act::Verify => Err("postgres does not run".to_owned()),
                Act::Fence { .. } => Err("that is no order to an instance".to_owned()),
            },
        };
        // Whoever asked may have gone.
        let _ = order.done.send(done);
    }

    /// Stops it cleanly; the ladder brings it back as what it is to be.
    async fn restart(&mut self, instance: &Instance, pending: bool) -> Result<(), String> {
        if pending {
            let status = instance.status(STOP_MAX).await.map_err(|e| e.to_string())?;
            if status.pending_restart.is_empty() {
                return Ok(());
            }
        }
        self.forget();
        instance.stop(StopMode::Fast, STOP_MAX).await
    }

    pub fn is_settling(&self) -> bool {
        self.memory.settling.as_ref().is_some_and(|task| !task.is_finished())
            || self.memory.prepared.is_some()
            || self.memory.settlement.is_under_way()
            || self.memory.closed.is_some()
    }
}
