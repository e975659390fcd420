//! Comparing the copies of a source, as people order it and as the options' schedule says, and
//! having the workers repair what differs. What drift is, `verify` decides; nothing is written here
//! but the record of it.

mod record;
mod terms;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lockstep_model::sync::DeliveryState;
use lockstep_model::task::{Outcome, OutcomeKind, Peer, SyncVerify};
use lockstep_model::{Millis, NodeName};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::shared::Shared;
use super::source::Orders;
use crate::data::header::{Answer, Header, Op};
use crate::journal::{RelPath, is_rel_path};
use crate::verify::{Compare, FINDINGS_MAX, Findings, Progress, compare};
pub use record::Record;
pub use terms::Terms;

/// Most comparisons at once, over all syncs of the node.
pub const VERIFIES_MAX: usize = 2;
/// Most scheduled comparisons of contents at once, over all syncs of the node.
pub const SCRUBS_MAX: usize = 1;
/// Bytes per second that a scheduled comparison of contents reads, on each side.
const SCRUB_RATE: u64 = 8 << 20;
/// The same for one that a person waits for.
const CONTENT_RATE: u64 = 128 << 20;
/// How long a target may take to catch up before a comparison is given up.
const SETTLE_MAX: Duration = Duration::from_secs(600);
/// How often a waiting comparison looks whether deliveries are held.
const SETTLE_TICK: Duration = Duration::from_secs(1);
/// How long a comparison of metadata may take.
const COMPARE_MAX: Duration = Duration::from_secs(6 * 3600);
/// How long a comparison of contents may take.
const SCRUB_MAX: Duration = Duration::from_secs(7 * 86_400);
/// How often it is looked whose turn it is.
const TICK: Duration = Duration::from_secs(2);
/// How soon after the last comparison a copy has its turn to which a run broke off.
const DOUBTFUL_EVERY: Millis = Millis::from_secs(600);
/// Bounds of the pause after a scheduled comparison that failed.
const RETRY_MIN: Millis = Millis::from_secs(10);
const RETRY_MAX: Millis = Millis::from_secs(600);

/// A target's copy, as its source knows it.
#[derive(Clone)]
pub struct Copy {
    pub context: Arc<Context>,
    pub peer: Peer,
    pub shared: Arc<Shared>,
}

/// How a copy is to be compared.
struct Ask {
    /// Bytes of content per second; None: metadata only.
    content: Option<u64>,
    repair: bool,
    /// None: everything.
    paths: Option<Vec<RelPath>>,
}

/// Where the records of a sync's copies are, below its state directory.
pub fn record_file(context: &Context, node: &NodeName) -> PathBuf {
    context.dir.join("verified").join(node.as_str())
}

/// A comparison that was ordered; what differs goes to `progress`, a line each.
pub async fn carry_out(
    orders: &Orders,
    order: &SyncVerify,
    progress: &mpsc::Sender<String>,
    cancel: &CancellationToken,
) -> Outcome {
    let SyncVerify { target, content, repair, paths, .. } = order;
    let failed = |why: String| Outcome::new(OutcomeKind::Failed, why);
    let run = async {
        let ask = Ask {
            content: content.then_some(CONTENT_RATE),
            repair: *repair,
            paths: (!paths.is_empty()).then(|| rel_paths(paths)).transpose()?,
        };
        let copies = orders.copies().await?;
        let copy = copies.into_iter().find(|copy| copy.peer.node == *target);
        let copy = copy.ok_or_else(|| format!("{target} is no target with an agent"))?;
        let _turn = copy.context.engine.verifies.acquire().await.map_err(|e| e.to_string())?;
        verify(orders, &copy, ask, Some(progress)).await
    };
    let ended = tokio::select! {
        () = cancel.cancelled() => return Outcome::new(OutcomeKind::Cancelled, "cancelled"),
        ended = run => ended,
    };
    match ended {
        Ok(findings) => {
            for finding in &findings.list {
                let _ = progress.send(finding.to_string()).await;
            }
            Outcome::new(OutcomeKind::Ok, findings.to_string())
        }
        Err(why) => failed(why),
    }
}

/// As people write them: with or without a `/` at the end.
fn rel_paths(paths: &[Vec<u8>]) -> Result<Vec<RelPath>, String> {
    let one = |path: &Vec<u8>| {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let is_root = matches!(path, b"" | b".");
        let fits = is_root || is_rel_path(path);
        let why = || format!("path: {} is not below the sync's directory", path.escape_ascii());
        fits.then(|| if is_root { [].into() } else { path.into() }).ok_or_else(why)
    };
    paths.iter().map(one).collect()
}

/// Compares one copy, has it repaired if asked, and records what was found.
async fn verify(
    orders: &Orders,
    copy: &Copy,
    ask: Ask,
    progress: Option<&mpsc::Sender<String>>,
) -> Result<Findings, String> {
    let Copy { context, peer, shared } = copy;
    let limit = if ask.content.is_some() { SCRUB_MAX } else { COMPARE_MAX };
    let (is_whole, is_scrub, repair) = (ask.paths.is_none(), ask.content.is_some(), ask.repair);
    // Runs that break off from now on count anew.
    let doubtful = std::mem::take(&mut shared.status().doubtful);
    let compared = tokio::time::timeout(limit, compare_with(orders, copy, ask, progress)).await;
    let compared = compared.unwrap_or_else(|_| Err("it took too long".to_owned()));
    let cleared = is_whole && compared.as_ref().is_ok_and(|found| repair || found.is_clean());
    shared.status().doubtful |= doubtful && !cleared;
    let findings = compared?;
    if repair && !findings.is_clean() {
        let (sync, target) = (&context.sync, &peer.node);
        tracing::warn!(%sync, %target, %findings, "a copy differs from its source and is repaired");
        shared.mend(&findings.change(), (context.engine.now)());
        settled(orders.clone(), copy.clone()).await.map_err(|why| format!("repair: {why}"))?;
    }
    if is_whole {
        let now = (context.engine.now)();
        let mut record = shared.record();
        record.compared_at = Some(now);
        record.scrubbed_at = if is_scrub { Some(now) } else { record.scrubbed_at };
        record.drift = findings.list.len() as u64;
        if findings.is_clean() || repair {
            record.verified_at = Some(now);
        }
        note(copy, record).await;
    }
    Ok(findings)
}

async fn compare_with(
    orders: &Orders,
    copy: &Copy,
    ask: Ask,
    progress: Option<&mpsc::Sender<String>>,
) -> Result<Findings, String> {
    let Copy { context, peer, shared } = copy;
    let options = context.options();
    if let Some(why) = options.terms.unfit {
        return Err(why.to_owned());
    }
    if matches!(shared.status().state, DeliveryState::Initial | DeliveryState::Filling) {
        return Err("it has not been filled yet".to_owned());
    }
    let mut stream = context.engine.dial.dial(peer).await?;
    let header = Header { sync: context.sync.clone(), op: Op::Verify };
    match crate::data::ask(&mut stream, &header).await? {
        Answer::Go => {}
        Answer::Unfilled => return Err("it has not been filled yet".to_owned()),
        Answer::Refused(why) => return Err(why),
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| error.to_string())?;
    let told = |Progress { entries, bytes }: Progress| {
        if let Some(progress) = progress {
            let _ = progress.try_send(format!("compared {entries} entries, {bytes} bytes"));
        }
    };
    let settle = || -> BoxFuture<'static, Result<(), String>> {
        Box::pin(settled(orders.clone(), copy.clone()))
    };
    let what = Compare {
        side: &options.terms.side(&context.source, true),
        key,
        extras: options.terms.extras,
        content: ask.content,
        most: FINDINGS_MAX,
        paths: ask.paths,
        settle: &settle,
        progress: &told,
    };
    compare(stream, &what).await.map_err(|error| error.to_string())
}

/// Until a target has everything that is in the source now.
async fn settled(orders: Orders, copy: Copy) -> Result<(), String> {
    let wait = async {
        let now = orders.now().await?;
        let mut standing = orders.standing();
        loop {
            match standing.borrow_and_update().get(&copy.peer.node) {
                None => return Err("it is no target any more".to_owned()),
                Some(Some(upto)) if *upto >= now.seq => return Ok(()),
                Some(_) => {}
            }
            if let state @ (DeliveryState::Held | DeliveryState::Paused) =
                copy.shared.status().state
            {
                return Err(format!("deliveries to it are {}", state.as_str()));
            }
            let changed = tokio::time::timeout(SETTLE_TICK, standing.changed()).await;
            if let Ok(Err(_)) = changed {
                return Err("the sync was stopped".to_owned());
            }
        }
    };
    let late = |_| format!("the target did not catch up within {}", Millis::of(SETTLE_MAX));
    tokio::time::timeout(SETTLE_MAX, wait).await.map_err(late)?
}

async fn note(copy: &Copy, record: Record) {
    let Copy { context, peer, shared } = copy;
    shared.set_record(record);
    context.changed.notify_one();
    let file = record_file(context, &peer.node);
    let save = move || {
        std::fs::create_dir_all(file.parent().unwrap_or(&file))?;
        record.save(&file)
    };
    let saved = tokio::task::spawn_blocking(save).await;
    if let Err(error) = saved.map_err(std::io::Error::other).and_then(|saved| saved) {
        let (sync, target) = (&context.sync, &peer.node);
        tracing::error!(%sync, %target, %error, "cannot record a comparison");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    Verify,
    Scrub,
}

impl Schedule {
    fn every(self, copy: &Copy) -> Option<Millis> {
        let options = copy.context.options();
        match self {
            Self::Verify => options.verify_every,
            Self::Scrub => options.scrub_every,
        }
    }

    fn last(self, record: &mut Record) -> &mut Option<lockstep_model::Timestamp> {
        match self {
            Self::Verify => &mut record.compared_at,
            Self::Scrub => &mut record.scrubbed_at,
        }
    }

    /// Compares and repairs each copy when its turn has come, one after another, until stopped.
    pub async fn keep(self, orders: Orders, stop: CancellationToken) {
        let run = async {
            let mut retries: HashMap<NodeName, Instant> = HashMap::new();
            loop {
                tokio::time::sleep(TICK).await;
                let Ok(copies) = orders.copies().await else { return };
                retries.retain(|node, _| copies.iter().any(|copy| copy.peer.node == *node));
                for copy in copies {
                    let node = copy.peer.node.clone();
                    let waits = retries.get(&node).is_some_and(|at| *at > Instant::now());
                    let Some(every) = self.every(&copy).filter(|_| !waits) else { continue };
                    if !self.is_due(&copy, every).await {
                        continue;
                    }
                    match self.take_turn(&orders, &copy).await {
                        Ok(_) => drop(retries.remove(&node)),
                        Err(why) => {
                            let sync = &copy.context.sync;
                            tracing::warn!(%sync, target = %node, why, "cannot compare a copy");
                            let pause = Millis(every.0 / 10).clamp(RETRY_MIN, RETRY_MAX);
                            retries.insert(node, Instant::now() + pause.into());
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = run => {}
        }
    }

    /// A copy that was never compared has its turn one interval later.
    async fn is_due(self, copy: &Copy, every: Millis) -> bool {
        let now = (copy.context.engine.now)();
        let mut record = copy.shared.record();
        let last = self.last(&mut record);
        match *last {
            Some(at) => {
                let every = match self {
                    Self::Verify if copy.shared.status().doubtful => every.min(DOUBTFUL_EVERY),
                    _ => every,
                };
                let name = format!("{}/{}", copy.context.sync, copy.peer.node);
                let seed = crc32fast::hash(name.as_bytes());
                record::due_at(at, every, seed.into()) <= now
            }
            None => {
                *last = Some(now);
                note(copy, record).await;
                false
            }
        }
    }

    async fn take_turn(self, orders: &Orders, copy: &Copy) -> Result<Findings, String> {
        let engine = &copy.context.engine;
        let (turns, content) = match self {
            Self::Verify => (&engine.verifies, None),
            Self::Scrub => (&engine.scrubs, Some(SCRUB_RATE)),
        };
        let _turn = turns.acquire().await.map_err(|error| error.to_string())?;
        verify(orders, copy, Ask { content, repair: true, paths: None }, None).await
    }
}
