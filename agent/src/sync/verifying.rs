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
use lockstep_model::{Millis, NodeName, Timestamp};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::shared::Shared;
use super::source::Orders;
use crate::data::header::{Answer, Header, Op};
use crate::journal::{RelPath, is_rel_path};
use crate::verify::{Compare, FINDINGS_MAX, Findings, Of, Progress, compare};
use record::Part;
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
/// A comparison of contents is repaired and recorded piece by piece, each of so many seconds.
const SLICE_SECS: u64 = 600;
/// How long one piece may take.
const SLICE_MAX: Duration = Duration::from_secs(86_400);
/// How often what differs is brought before it is given up: when the first time became a complete
/// pass, that has not looked into files.
const REPAIRS_MAX: usize = 2;
/// Most findings that one line names.
const NAMES_MAX: usize = 3;
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
    pub node: NodeName,
    /// None without an agent there: then rsync alone can compare.
    pub peer: Option<Peer>,
    pub shared: Arc<Shared>,
}

/// How a copy is to be compared.
struct Ask {
    of: Of,
    /// Bytes of content per second; None: metadata only.
    content: Option<u64>,
    repair: bool,
}

/// What was found, and what of it could not be repaired.
struct Verified {
    found: Findings,
    left: Findings,
}

impl Verified {
    fn append(&mut self, later: Self) {
        self.found.append(later.found);
        self.left.append(later.left);
    }

    fn part(&self, ask: &Ask) -> Part {
        let Self { found, left } = self;
        Part {
            is_first: ask.of == Of::Tree,
            content: ask.content.is_some(),
            found: found.list.len() as u64,
            left: left.list.len().max(usize::from(left.truncated)) as u64,
            left_contents: left.list.iter().filter(|finding| finding.is_content()).count() as u64,
            next: found.next.clone(),
        }
    }

    fn outcome(&self) -> Outcome {
        let Self { found, left } = self;
        if left.is_clean() {
            return Outcome::new(OutcomeKind::Ok, found.to_string());
        }
        let names: Vec<String> =
            left.list.iter().take(NAMES_MAX).map(ToString::to_string).collect();
        let more = if left.list.len() > NAMES_MAX { " and more" } else { "" };
        let why = format!("{found}; still there after a repair: {}{more}", names.join(", "));
        Outcome::new(OutcomeKind::Failed, why)
    }
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
    let run = async {
        let of = match paths.is_empty() {
            true => Of::Tree,
            false => Of::Paths(rel_paths(paths)?),
        };
        let is_whole = of == Of::Tree;
        let content = content.then_some(CONTENT_RATE);
        let mut ask = Ask { of, content, repair: *repair };
        let copies = orders.copies().await?;
        let fits = |copy: &Copy| copy.node == *target && copy.peer.is_some();
        let copy = copies.into_iter().find(fits);
        let copy = copy.ok_or_else(|| format!("{target} is no target with an agent"))?;
        let _turn = copy.context.engine.verifies.acquire().await.map_err(|e| e.to_string())?;
        let mut all = Verified { found: Findings::default(), left: Findings::default() };
        loop {
            let verified = verify(orders, &copy, &ask, Some(progress)).await?;
            for finding in &verified.found.list {
                let _ = progress.send(finding.to_string()).await;
            }
            match ask.of {
                Of::Contents(_) => all.append(verified),
                _ => all = verified,
            }
            match all.found.next.clone() {
                Some(next) if *repair || !all.found.truncated => ask.of = Of::Contents(next),
                _ => break,
            }
        }
        if !repair {
            if is_whole {
                ask.of = Of::Tree;
                let part = all.part(&ask);
                note(&copy, |record, _| record.note_found(true, part.found)).await;
                if all.found.is_clean() {
                    note(&copy, |record, now| record.note_repaired(part, now)).await;
                }
            }
            all.left = Findings::default();
        }
        Ok(all.outcome())
    };
    tokio::select! {
        () = cancel.cancelled() => Outcome::new(OutcomeKind::Cancelled, "cancelled"),
        ended = run => ended.unwrap_or_else(|why: String| Outcome::new(OutcomeKind::Failed, why)),
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

/// Compares one copy or a part of it, and if asked has it repaired and records what was found.
async fn verify(
    orders: &Orders,
    copy: &Copy,
    ask: &Ask,
    progress: Option<&mpsc::Sender<String>>,
) -> Result<Verified, String> {
    let limit = if ask.content.is_some() { SLICE_MAX } else { COMPARE_MAX };
    let compare = |of| async move {
        let compared = compare_with(orders, copy, ask.content, of, progress);
        tokio::time::timeout(limit, compared).await.map_err(|_| "it took too long".to_owned())?
    };
    // Runs that break off from now on count anew.
    let status = || copy.shared.status();
    let doubtful = ask.of == Of::Tree && std::mem::take(&mut status().doubtful);
    let found = compare(ask.of.clone()).await;
    let cleared = found.as_ref().is_ok_and(|found| ask.repair || found.is_clean());
    status().doubtful |= doubtful && !cleared;
    let found = found?;
    let mut verified = Verified { left: found.clone(), found };
    if !ask.repair {
        return Ok(verified);
    }
    let records = matches!(ask.of, Of::Tree | Of::Contents(_));
    if records {
        let Part { is_first, found, .. } = verified.part(ask);
        note(copy, |record, _| record.note_found(is_first, found)).await;
    }
    if !verified.found.is_clean() {
        repair(orders, copy, ask, &mut verified, compare).await?;
    }
    if records {
        let part = verified.part(ask);
        note(copy, |record, now| record.note_repaired(part, now)).await;
    }
    Ok(verified)
}

/// Has what was found brought and looks at it again.
async fn repair<F: Future<Output = Result<Findings, String>>>(
    orders: &Orders,
    copy: &Copy,
    ask: &Ask,
    Verified { found, left }: &mut Verified,
    compare: impl Fn(Of) -> F,
) -> Result<(), String> {
    let (sync, target) = (&copy.context.sync, &copy.node);
    tracing::warn!(%sync, %target, findings = %found, "a copy differs from its source and is repaired");
    for _ in 0..REPAIRS_MAX {
        copy.shared.mend(&left.change(), (copy.context.engine.now)());
        let unsettled = |why: String| format!("{found}; repair: {why}");
        settled(orders.clone(), copy.clone()).await.map_err(unsettled)?;
        // What is not listed can be anywhere.
        let of = match left.truncated {
            true => ask.of.clone(),
            false => Of::Found(std::mem::take(&mut left.list)),
        };
        *left = compare(of).await?;
        if left.is_clean() {
            break;
        }
    }
    if !left.is_clean() {
        tracing::warn!(%sync, %target, findings = %left, "a copy still differs after its repair");
    }
    Ok(())
}

async fn compare_with(
    orders: &Orders,
    copy: &Copy,
    content: Option<u64>,
    of: Of,
    progress: Option<&mpsc::Sender<String>>,
) -> Result<Findings, String> {
    let Copy { context, peer, .. } = copy;
    let peer = peer.as_ref().ok_or("it has no agent")?;
    let options = context.options();
    if let Some(why) = options.terms.unfit {
        return Err(why.to_owned());
    }
    if context.engine.targets.filled(&context.sync).is_some_and(|filled| !*filled.borrow()) {
        return Err("the copy that it is fed from is not complete".to_owned());
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
        content,
        most: FINDINGS_MAX,
        of,
        slice_bytes: content.unwrap_or(0).saturating_mul(SLICE_SECS),
        settle: &settle,
        progress: &told,
    };
    compare(stream, &what).await.map_err(|error| error.to_string())
}

/// Until a target has everything that is in the source now. Where the source is a copy itself, all
/// that was brought to it before is told first.
async fn settled(orders: Orders, copy: Copy) -> Result<(), String> {
    let wait = async {
        copy.context.engine.targets.delivery_told(&copy.context.sync).await?;
        let now = orders.now(Some(&copy.node)).await?;
        let mut standing = orders.standing();
        loop {
            if !standing.borrow_and_update().contains_key(&copy.node) {
                return Err("it is no target any more".to_owned());
            }
            // By the journal of this node, which is a relay's own.
            if copy.shared.complete_upto().is_some_and(|upto| upto >= now.seq) {
                return Ok(());
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

/// Changes what is recorded of a copy, now.
async fn note(copy: &Copy, change: impl FnOnce(&mut Record, Timestamp)) {
    let Copy { context, node, shared, .. } = copy;
    let mut record = shared.record();
    change(&mut record, (context.engine.now)());
    shared.set_record(record.clone());
    context.changed.notify_one();
    let file = record_file(context, node);
    let save = move || {
        std::fs::create_dir_all(file.parent().unwrap_or(&file))?;
        record.save(&file)
    };
    let saved = tokio::task::spawn_blocking(save).await;
    if let Err(error) = saved.map_err(std::io::Error::other).and_then(|saved| saved) {
        let (sync, target) = (&context.sync, node);
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

    fn last(self, record: &mut Record) -> &mut Option<Timestamp> {
        match self {
            Self::Verify => &mut record.compared_at,
            Self::Scrub => &mut record.scrubbed_at,
        }
    }

    /// Compares and repairs each copy when its turn has come, one after another, until stopped.
    pub async fn keep(self, orders: Orders, stop: CancellationToken) {
        let run = async {
            let mut retries: HashMap<NodeName, Instant> = HashMap::new();
            let mut seen: HashMap<NodeName, u64> = HashMap::new();
            loop {
                tokio::time::sleep(TICK).await;
                let Ok(copies) = orders.copies().await else { return };
                retries.retain(|node, _| copies.iter().any(|copy| copy.node == *node));
                seen.retain(|node, _| copies.iter().any(|copy| copy.node == *node));
                for copy in copies {
                    let node = copy.node.clone();
                    let waits = retries.get(&node).is_some_and(|at| *at > Instant::now());
                    let Some(every) = self.every(&copy).filter(|_| !waits) else { continue };
                    let own = copy.context.engine.targets.compared(&copy.context.sync);
                    let every = match self {
                        Self::Verify => record::behind_own(every, own, seen.get(&node).copied()),
                        Self::Scrub => every,
                    };
                    if !self.is_due(&copy, every).await {
                        continue;
                    }
                    match self.take_turn(&orders, &copy).await {
                        Ok(()) => {
                            retries.remove(&node);
                            seen.insert(node, own.unwrap_or(0));
                        }
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
        match *self.last(&mut copy.shared.record()) {
            Some(at) => {
                let every = match self {
                    Self::Verify if copy.shared.status().doubtful => every.min(DOUBTFUL_EVERY),
                    _ => every,
                };
                let name = format!("{}/{}", copy.context.sync, copy.node);
                let seed = crc32fast::hash(name.as_bytes());
                record::due_at(at, every, seed.into()) <= now
            }
            None => {
                note(copy, |record, now| *self.last(record) = Some(now)).await;
                false
            }
        }
    }

    async fn take_turn(self, orders: &Orders, copy: &Copy) -> Result<(), String> {
        let engine = &copy.context.engine;
        let turns = match self {
            Self::Verify => &engine.verifies,
            Self::Scrub => &engine.scrubs,
        };
        let _turn = turns.acquire().await.map_err(|error| error.to_string())?;
        if copy.peer.is_none() {
            return self.take_pass(orders, copy).await;
        }
        let ask = |content, of| Ask { of, content, repair: true };
        let ask = match self {
            Self::Verify => ask(None, Of::Tree),
            // One piece, and the others have their turn.
            Self::Scrub => {
                let next = copy.shared.record().next.map_or(Of::Tree, Of::Contents);
                ask(Some(SCRUB_RATE), next)
            }
        };
        verify(orders, copy, &ask, None).await.map(drop)
    }

    /// A complete pass, which compares and brings in one.
    async fn take_pass(self, orders: &Orders, copy: &Copy) -> Result<(), String> {
        let content = self == Self::Scrub;
        let state = copy.shared.status().state;
        if let DeliveryState::Initial | DeliveryState::Filling | DeliveryState::Failing = state {
            return Err(format!("deliveries to it are {}", state.as_str()));
        }
        settled(orders.clone(), copy.clone()).await?;
        let outcome = orders.compare(copy.node.clone(), content).await;
        if outcome.kind != OutcomeKind::Ok {
            return Err(outcome.message);
        }
        let found = copy.shared.status().pass_found;
        let part = Part { is_first: true, content, found, left: 0, left_contents: 0, next: None };
        note(copy, |record, now| {
            record.note_found(true, found);
            record.note_repaired(part, now);
        })
        .await;
        Ok(())
    }
}
