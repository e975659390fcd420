//! The workers of a source, one per target: started, changed and ended one by one, so that none
//! feels what happens to another. It knows nothing of lsyncd.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use lockstep_model::rate::Rate;
use lockstep_model::sync::Delivery;
use lockstep_model::task::{Outcome, OutcomeKind, Receiver, SyncSource};
use lockstep_model::{NodeName, Timestamp};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cursor::Cursor;
use crate::data::below::Standing;
use crate::data::lane::Lane;
use crate::journal::Entry;
use crate::sync::context::Context;
use crate::sync::reach::Reach;
use crate::sync::shared::Shared;
use crate::sync::target::Place;
use crate::sync::verifying::{Copy, Record, record_file};
use crate::sync::worker::{Order, Worker, forget};

/// Ordered passes that wait for one target.
const ORDERS_MAX: usize = 4;

pub struct Crew {
    context: Arc<Context>,
    /// Of the cursors, one file per target.
    dir: PathBuf,
    workers: BTreeMap<NodeName, Member>,
    /// Targets that others feed, or nobody yet.
    others: Vec<NodeName>,
    stop: CancellationToken,
}

struct Member {
    to: Reach,
    shared: Arc<Shared>,
    /// Open while it delivers to an agent.
    lane: Option<Lane>,
    orders: mpsc::Sender<Order>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Member {
    fn report(&self, feeder: Option<Place>, now: Timestamp) -> Delivery {
        let report = self.shared.report(&self.to.node, feeder, now);
        let sent_bytes = self.lane.as_ref().map_or(report.sent_bytes, Lane::sent_bytes);
        Delivery { sent_bytes, ..report }
    }

    async fn end(self) {
        self.stop.cancel();
        drop(self.lane);
        if let Err(error) = self.task.await {
            tracing::error!(target = %self.to.node, %error, "a delivery worker ended badly");
        }
    }
}

impl Crew {
    /// One worker per target, each from its own cursor; returns the sequence that the journal is to
    /// be read from. `head` is the journal's last entry.
    pub fn start(
        context: Arc<Context>,
        dir: PathBuf,
        spec: &SyncSource,
        head: u64,
        stop: CancellationToken,
    ) -> (Self, u64) {
        let others = spec.others.clone();
        let mut crew = Self { context, dir, workers: BTreeMap::new(), others, stop };
        crew.forget_others(&spec.receivers);
        let mut from = head;
        for receiver in &spec.receivers {
            let cursor = crew.load_cursor(&receiver.node, head);
            from = from.min(cursor.acked);
            crew.add(receiver.into(), cursor);
        }
        (crew, from)
    }

    /// What is kept of targets that went while nothing ran: somebody else may feed them since, and
    /// what is known of them here is not so any more when they return.
    fn forget_others(&self, targets: &[Receiver]) {
        let is_target = |file: &str| targets.iter().any(|receiver| receiver.node.as_str() == file);
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(node) = name.to_str().and_then(|name| name.split('@').next()) else {
                continue;
            };
            if !is_target(node) {
                forget(&self.dir.join(node));
            }
        }
    }

    fn cursor_file(&self, node: &NodeName) -> PathBuf {
        self.dir.join(node.as_str())
    }

    fn load_cursor(&self, node: &NodeName, head: u64) -> Cursor {
        match Cursor::load(&self.cursor_file(node)) {
            // The journal it counts in is gone: only a pass can tell.
            Some(cursor) if cursor.acked > head => Cursor { acked: head, full: true, ..cursor },
            Some(cursor) => cursor,
            None => Cursor::fresh(head),
        }
    }

    fn add(&mut self, to: Reach, cursor: Cursor) {
        let shared = Arc::new(Shared::new(&cursor));
        shared.set_record(Record::load(&record_file(&self.context, &to.node)));
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let stop = self.stop.child_token();
        let Context { engine, sync, limit, .. } = &*self.context;
        let lane = to.agent().map(|peer| engine.lanes.open(sync, peer, &to.limit, limit));
        let worker = Worker::new(
            self.context.clone(),
            to.clone(),
            shared.clone(),
            cursor,
            self.cursor_file(&to.node),
            received,
            stop.clone(),
        );
        let task = tokio::spawn(worker.run());
        let node = to.node.clone();
        self.workers.insert(node, Member { to, shared, lane, orders, stop, task });
    }

    /// Exactly the targets of `spec` from now on. `read_upto` is what those before were given already.
    pub async fn become_these(&mut self, spec: &SyncSource, read_upto: u64) {
        let targets = &spec.receivers;
        self.others.clone_from(&spec.others);
        let keeps = |node: &NodeName| targets.iter().any(|receiver| receiver.node == *node);
        let gone: Vec<NodeName> =
            self.workers.keys().filter(|node| !keeps(node)).cloned().collect();
        for node in gone {
            if let Some(worker) = self.workers.remove(&node) {
                worker.end().await;
            }
            forget(&self.cursor_file(&node));
            let _ = std::fs::remove_file(record_file(&self.context, &node));
        }
        for receiver in targets {
            let Receiver { node, .. } = receiver;
            let changed = self.workers.get(node).is_some_and(|w| !w.to.leads_to(receiver));
            if changed && let Some(worker) = self.workers.remove(node) {
                worker.end().await;
            }
            if !self.workers.contains_key(node) {
                let cursor = self.load_cursor(node, read_upto);
                // What lies between was read and given to others already.
                let behind = cursor.acked < read_upto;
                let cursor = Cursor { acked: read_upto, full: cursor.full || behind, ..cursor };
                self.add(receiver.into(), cursor);
            }
        }
    }

    /// The limits of bandwidth, also for what is under way.
    pub fn set_rates(&self, spec: &SyncSource) {
        self.context.limit.set(spec.options.bwlimit.map(Rate::bytes_per_s));
        for receiver in &spec.receivers {
            if let Some(worker) = self.workers.get(&receiver.node) {
                worker.to.limit.set(receiver.bwlimit.map(Rate::bytes_per_s));
            }
        }
    }

    /// A pass to one target; an order that cannot be taken is answered at once.
    pub fn order(&self, target: &NodeName, order: Order) {
        let refused = match self.workers.get(target) {
            None => Some((order, format!("{target} is no target of {}", self.context.sync))),
            Some(worker) => match worker.orders.try_send(order) {
                Ok(()) => None,
                Err(error) => {
                    Some((error.into_inner(), format!("too many passes to {target} wait")))
                }
            },
        };
        if let Some((order, why)) = refused {
            let _ = order.done.send(Outcome::new(OutcomeKind::Failed, why));
        }
    }

    pub fn absorb(&self, entries: &[Entry], now: Timestamp) {
        for worker in self.workers.values() {
            worker.shared.absorb(entries, now);
        }
    }

    /// What every target has acknowledged; None without targets.
    pub fn acked(&self) -> Option<u64> {
        self.workers.values().map(|worker| worker.shared.acked()).min()
    }

    /// The sequence up to which every target has everything, also those that others feed; None
    /// without targets, or when one owes a pass.
    pub fn complete_upto(&self) -> Option<u64> {
        self.standing().into_values().reduce(|one, other| Some(one?.min(other?))).flatten()
    }

    /// Whether every target has everything up to `seq`; false without targets.
    pub fn have_all(&self, seq: u64) -> bool {
        self.complete_upto().is_some_and(|upto| upto >= seq)
    }

    /// How far each target has everything, also those behind others; None for one that owes a pass,
    /// or of which nobody tells.
    pub fn standing(&self) -> Standing {
        let feeder = self.context.place();
        let mut all: Standing = self.others.iter().map(|node| (node.clone(), None)).collect();
        let mut fed = Standing::new();
        for (node, worker) in &self.workers {
            let (own, behind) = worker.shared.standing(feeder);
            fed.insert(node.clone(), own);
            for (node, upto) in behind {
                // Who is in the tree is told to the source alone.
                if feeder.is_some() || all.contains_key(&node) {
                    let known = all.entry(node).or_default();
                    *known = upto.max(*known);
                }
            }
        }
        all.append(&mut fed);
        all
    }

    /// What may be compared.
    pub fn copies(&self) -> Vec<Copy> {
        let copy = |Member { to, shared, .. }: &Member| Copy {
            context: self.context.clone(),
            node: to.node.clone(),
            peer: to.agent().cloned(),
            shared: shared.clone(),
        };
        self.workers.values().map(copy).collect()
    }

    /// Of copies that differ whatever is brought to them.
    pub fn warnings(&self) -> Vec<String> {
        let warning = |worker: &Member| {
            let (left, node) = (worker.shared.record().left(), &worker.to.node);
            (left > 0).then(|| format!("{left} entries of {node} still differ after a repair"))
        };
        self.workers.values().filter_map(warning).collect()
    }

    /// The board that a target's worker is told by.
    pub fn shared(&self, node: &NodeName) -> Option<&Arc<Shared>> {
        self.workers.get(node).map(|worker| &worker.shared)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &NodeName> {
        self.workers.keys()
    }

    /// Who may be brought something yet.
    pub fn set_gates(&self, is_open: impl Fn(&NodeName) -> bool) {
        for (node, worker) in &self.workers {
            let open = is_open(node);
            worker.shared.gate.send_if_modified(|now| std::mem::replace(now, open) != open);
        }
    }

    /// Targets that are no further than `acked` give up the single changes for a pass.
    pub fn need_pass(&self, acked: u64) {
        let last = self.workers.values().filter(|worker| worker.shared.acked() <= acked);
        last.for_each(|worker| worker.shared.need_pass());
    }

    pub fn report(&self, now: Timestamp) -> Vec<Delivery> {
        let feeder = self.context.place();
        self.workers.values().map(|worker| worker.report(feeder, now)).collect()
    }

    /// Ends all at once: one that is slow to end does not hold up the others.
    pub async fn end(self) {
        self.workers.values().for_each(|worker| worker.stop.cancel());
        for worker in self.workers.into_values() {
            worker.end().await;
        }
    }
}
