//! Data that went another way taken back to where the cluster went on, by pg_rewind, without losing log
//! that is in no archive. The member is stopped before and after.

mod attempt;
mod unarchived;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockstep_model::cluster::{ClusterPlace, Lineage, MemberPeer};
use tokio_util::sync::CancellationToken;

use self::attempt::Attempts;
use super::divergence::{Relation, compare};
use super::instance::{Control, Data, Instance, Processes};
use super::tool::{self, ToolError};
use super::upstream::Upstream;
use super::wal::{Begin, WalEnd, find_end};

pub use attempt::{forget, is_unfinished};

#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    pub place: &'a ClusterPlace,
    /// A primary whose checkpoint after its promotion is through.
    pub source: &'a MemberPeer,
    /// The agent's own directory of the cluster, not postgres'.
    pub own: &'a Path,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RewindError {
    /// It never will be: copy it anew.
    #[error("{0}")]
    Impossible(String),
    /// Worth another try.
    #[error("{0}")]
    Failed(String),
    #[error("the rewind was stopped")]
    Stopped,
}

/// What it came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rewound {
    /// It was a part of the source's history as it was.
    NotNeeded,
    Done,
}

/// Afterwards the data is a part of the source's history, by our own comparison, and a stopped standby
/// whose configuration has to be written again. One that was interrupted before is tried once more.
pub async fn rewind(
    instance: &Instance,
    order: Order<'_>,
    stop: &CancellationToken,
) -> Result<Rewound, RewindError> {
    let upstream = Upstream { instance, place: order.place, peer: order.source };
    let work = Rewind { upstream, order, stop };
    tokio::select! {
        done = work.run() => match done {
            Err(_) if stop.is_cancelled() => Err(RewindError::Stopped),
            done => done,
        },
        // pg_rewind itself ends in good order, inside.
        () = async { stop.cancelled().await; tokio::time::sleep(STOP_MAX).await } => {
            Err(RewindError::Stopped)
        }
    }
}

/// How long what is under way may take to end when it is stopped.
const STOP_MAX: Duration = Duration::from_secs(10);

/// The end of a stopped instance's log. `flushed` as for `wal::find_end`.
pub async fn end_of_log(
    instance: &Instance,
    control: &Control,
    flushed: Option<lockstep_model::cluster::Lsn>,
) -> Result<WalEnd, String> {
    struct StopOnDrop(Arc<AtomicBool>);
    impl Drop for StopOnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let begin =
        Begin::of(control).ok_or("pg_control tells a size of segments that there is not")?;
    let stop = Arc::new(AtomicBool::new(false));
    let (seen, pg_wal) = (stop.clone(), instance.layout().pg_wal());
    let _ended = StopOnDrop(stop);
    let found = tokio::task::spawn_blocking(move || find_end(&pg_wal, &begin, flushed, &seen));
    found.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

struct Rewind<'a> {
    upstream: Upstream<'a>,
    order: Order<'a>,
    stop: &'a CancellationToken,
}

impl Rewind<'_> {
    async fn run(&self) -> Result<Rewound, RewindError> {
        let instance = self.upstream.instance;
        let attempts = Attempts::read(self.order.own).map_err(RewindError::Failed)?;
        if attempts.are_all_used() {
            let why = "pg_rewind was interrupted twice: the data is neither old nor new";
            return Err(RewindError::Impossible(why.to_owned()));
        }
        let control = self.look().await?;
        let lineage = self.ask_source().await?;
        // What was begun has to be ended, whatever the log says.
        if attempts.is_none() {
            let end = end_of_log(instance, &control, None).await.map_err(RewindError::Failed)?;
            match compare(&end.lineage, end.end, &lineage) {
                relation if relation.may_follow() => return Ok(Rewound::NotNeeded),
                Relation::Stranger => {
                    let why = "its history has nothing in common with the cluster's";
                    return Err(RewindError::Impossible(why.to_owned()));
                }
                _ => {}
            }
            if !control.rewindable() {
                let why = "neither data checksums nor wal_log_hints were on: it cannot be rewound";
                return Err(RewindError::Impossible(why.to_owned()));
            }
            self.keep_unarchived().await?;
            if !control.state.is_clean() {
                self.recover().await?;
            }
        }
        attempts.begin(self.order.own).map_err(RewindError::Failed)?;
        self.pg_rewind().await?;
        self.prove(&lineage).await?;
        instance.put_standby_signal().map_err(RewindError::Failed)?;
        forget(self.order.own).map_err(RewindError::Failed)?;
        Ok(Rewound::Done)
    }

    async fn look(&self) -> Result<Control, RewindError> {
        let instance = self.upstream.instance;
        if instance.processes().await != Processes::None {
            return Err(RewindError::Failed("postgres runs: it cannot be rewound".to_owned()));
        }
        match instance.data().await {
            Data::There(control) if Some(control.system_id) == self.order.place.system_id => {
                Ok(*control)
            }
            Data::There(control) => {
                let why = format!("the data is of another database, {}", control.system_id);
                Err(RewindError::Impossible(why))
            }
            Data::Missing => Err(RewindError::Impossible("there is no data".to_owned())),
            Data::Foreign(why) => Err(RewindError::Impossible(why)),
        }
    }

    /// The history of a source that may be rewound from: before the checkpoint that follows its
    /// promotion, pg_rewind finds nothing to do and says that all is well.
    async fn ask_source(&self) -> Result<Lineage, RewindError> {
        let (failed, node) = (RewindError::Failed, self.upstream.node());
        self.upstream.prepare().map_err(failed)?;
        let identity = self.upstream.identify(self.stop).await.map_err(failed)?;
        if Some(identity.system_id) != self.order.place.system_id {
            return Err(failed(format!("{node} has database {}", identity.system_id)));
        }
        let sql = "select pg_is_in_recovery(), timeline_id from pg_control_checkpoint()";
        let rows = self.upstream.query(sql, self.stop).await.map_err(failed)?;
        let timeline = identity.lineage.timeline().to_string();
        match rows.first().map(|row| &row[..]) {
            Some([recovers, _]) if recovers == "t" => Err(failed(format!("{node} is no primary"))),
            Some([_, checkpointed]) if *checkpointed == timeline => Ok(identity.lineage),
            Some(_) => {
                Err(failed(format!("{node} has not written a checkpoint since its promotion")))
            }
            None => Err(failed(format!("{node} does not tell its checkpoint"))),
        }
    }

    async fn keep_unarchived(&self) -> Result<(), RewindError> {
        let layout = self.upstream.instance.layout().clone();
        let kept = tokio::task::spawn_blocking(move || unarchived::keep(&layout)).await;
        let kept = kept.map_err(|e| RewindError::Failed(e.to_string()))?;
        let kept = kept.map_err(RewindError::Failed)?;
        if kept > 0 {
            let dir = unarchived::dir(self.upstream.instance.layout());
            tracing::warn!(cluster = %self.order.place.cluster, kept, dir = %dir.display(), "log that is in no archive was kept aside before a rewind");
        }
        Ok(())
    }

    /// pg_rewind's own way would recycle log that it then misses.
    async fn recover(&self) -> Result<(), RewindError> {
        let limit = Duration::from_millis(self.order.place.options.failover.restart_limit.0);
        tokio::select! {
            () = self.stop.cancelled() => Err(RewindError::Stopped),
            done = self.upstream.instance.recover_alone(limit) => {
                done.map_err(|why| RewindError::Impossible(format!("crash recovery: {why}")))
            }
        }
    }

    async fn pg_rewind(&self) -> Result<(), RewindError> {
        let instance = self.upstream.instance;
        let source = self.upstream.conninfo_of_database("lockstep rewind");
        let data = instance.layout().data.display().to_string();
        let args = ["--no-ensure-shutdown", "--source-server", &source, "--target-pgdata", &data];
        match tool::run(instance, "pg_rewind", &args, None, self.stop).await {
            Ok(said) if said.status.success() => Ok(()),
            Ok(said) => {
                let why = format!("pg_rewind: {}", tool::last_words(&said.messages));
                Err(RewindError::Failed(why))
            }
            Err(ToolError::Stopped) => Err(RewindError::Stopped),
            Err(error @ ToolError::Start { .. }) => Err(RewindError::Impossible(error.to_string())),
            Err(error) => Err(RewindError::Failed(error.to_string())),
        }
    }

    /// That pg_rewind found nothing to do, or says that all is well, is no proof.
    async fn prove(&self, source: &Lineage) -> Result<(), RewindError> {
        let instance = self.upstream.instance;
        let control = self.look().await?;
        if control.timeline == source.timeline() {
            let own = instance.lineage(control.timeline).map_err(RewindError::Failed)?;
            if own == *source {
                return Ok(());
            }
        }
        let end = end_of_log(instance, &control, None).await.map_err(RewindError::Failed)?;
        match compare(&end.lineage, end.end, source) {
            relation if relation.may_follow() => Ok(()),
            relation => Err(RewindError::Impossible(format!(
                "pg_rewind ended well and the data still is another history: {relation:?}"
            ))),
        }
    }
}
