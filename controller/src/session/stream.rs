//! One agent's stream after its first words: tells it the live tasks of its node, passes on what it
//! says, acknowledges outcomes once they are stored, and notices silence. Decides nothing: what the
//! agent has to do is read from the world, each time it changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use futures_util::stream::{FuturesUnordered, StreamExt};
use lockstep_model::cluster::{Answer, Grant, Renewal};
use lockstep_model::identity::Subject;
use lockstep_model::observation::Observation;
use lockstep_model::record::Actor;
use lockstep_model::request::Request;
use lockstep_model::task::TaskSpec;
use lockstep_model::{Code, Invalid, NodeName, Reject, Revision, TaskId};
use lockstep_proto::convert::agent::{sync_report, task_end, task_update};
use lockstep_proto::convert::cluster::cluster_update;
use lockstep_proto::convert::mirror::mirror_update;
use lockstep_proto::status;
use lockstep_proto::v1::{self, agent_message, controller_message};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::{Status, Streaming};

use super::admission::trust_bundle;
use super::{
    Goodbye, Inbox, Order, STORE_BEHIND, SessionConfig, SessionId, TailOf, TailPart, passwords,
};
use crate::driver::{Ask, Done};

/// Most messages that wait for the network.
const OUTBOUND_MAX: usize = 64;
/// An agent that takes nothing for so long is cut off.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Heartbeats that may be missing before the stream counts as dead.
const MISSED_MAX: u32 = 3;
/// Most tails at once of one agent.
const TAILS_MAX: usize = 32;
/// Most outcomes of one agent that are being stored; then it has to wait with whatever it says.
const ENDS_MAX: usize = 64;
/// Most pings without an answer.
const PINGS_MAX: usize = 64;

type Message = controller_message::Kind;
/// Break ends the session.
type Step = ControlFlow<End>;

/// Why a session ended.
enum End {
    Closed,
    Silent,
    Stalled,
    Goodbye(Goodbye),
    /// The driver is gone, or the agent broke a rule.
    Refused(Reject),
    Broken(Status),
}

impl End {
    fn why(&self) -> String {
        match self {
            Self::Closed => "the agent closed its stream".to_owned(),
            Self::Silent => format!("no sign of life for {MISSED_MAX} heartbeats"),
            Self::Stalled => format!("took no message for {} s", STALL_MAX.as_secs()),
            Self::Goodbye(goodbye) => format!("{}: {}", goodbye.reason, goodbye.message),
            Self::Refused(reject) => reject.to_string(),
            Self::Broken(status) => format!("stream broke: {}", status.message()),
        }
    }
}

/// The way to the agent.
pub(super) struct Outbound(mpsc::Sender<Result<v1::ControllerMessage, Status>>);

impl Outbound {
    pub fn new() -> (Self, mpsc::Receiver<Result<v1::ControllerMessage, Status>>) {
        let (sender, messages) = mpsc::channel(OUTBOUND_MAX);
        (Self(sender), messages)
    }

    /// Into the empty queue.
    pub fn say_first(&self, message: Message) {
        let _ = self.0.try_send(Ok(v1::ControllerMessage { kind: Some(message) }));
    }

    async fn say(&self, message: Message) -> Step {
        let message = Ok(v1::ControllerMessage { kind: Some(message) });
        match timeout(STALL_MAX, self.0.send(message)).await {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) => ControlFlow::Break(End::Closed),
            Err(_) => ControlFlow::Break(End::Stalled),
        }
    }

    /// The last word, if there is room for it.
    fn say_last(&self, last: Result<Message, Status>) {
        let _ = self.0.try_send(last.map(|kind| v1::ControllerMessage { kind: Some(kind) }));
    }
}

/// The inside of one stream.
pub struct Session {
    config: Arc<SessionConfig>,
    node: NodeName,
    id: SessionId,
    inbox: Inbox,
    outbound: Outbound,
    /// Live tasks the agent was offered on this stream, and whether it was told to cancel them.
    offered: BTreeMap<TaskId, bool>,
    pings: HashMap<u64, oneshot::Sender<()>>,
    tails: HashMap<u64, mpsc::Sender<TailPart>>,
    /// Outcomes that are being stored.
    ends: FuturesUnordered<BoxFuture<'static, (TaskId, Result<Done, Reject>)>>,
    /// As above, of members' places: a new one is not to wait for them.
    ends_of_places: FuturesUnordered<BoxFuture<'static, (TaskId, Result<Done, Reject>)>>,
    /// Members' places among the offered.
    places: BTreeSet<TaskId>,
    /// Numbers of pings and tails.
    next: u64,
}

impl Session {
    pub(super) fn new(
        config: Arc<SessionConfig>,
        node: NodeName,
        id: SessionId,
        inbox: Inbox,
        outbound: Outbound,
    ) -> Self {
        Self {
            config,
            node,
            id,
            inbox,
            outbound,
            offered: BTreeMap::new(),
            pings: HashMap::new(),
            tails: HashMap::new(),
            ends: FuturesUnordered::new(),
            ends_of_places: FuturesUnordered::new(),
            places: BTreeSet::new(),
            next: 1,
        }
    }

    /// Runs until the stream ends, and tells the driver why it did.
    pub async fn run(mut self, mut inbound: Streaming<v1::AgentMessage>) {
        let end = match self.talk(&mut inbound).await {
            ControlFlow::Break(end) => end,
            ControlFlow::Continue(()) => End::Closed,
        };
        let why = end.why();
        match end {
            End::Goodbye(goodbye) => self.outbound.say_last(Ok(Message::Goodbye(goodbye.into()))),
            End::Refused(reject) => self.outbound.say_last(Err(status::from_reject(&reject))),
            End::Silent => self.outbound.say_last(Err(Status::deadline_exceeded(why.clone()))),
            End::Closed | End::Stalled | End::Broken(_) => {}
        }
        drop(self.outbound);
        self.config.driver.detach(self.node, self.id, why).await;
    }

    async fn talk(&mut self, inbound: &mut Streaming<v1::AgentMessage>) -> Step {
        let mut beats = interval(self.config.heartbeat.into());
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missed = 0;
        let mut ca = self.config.authority.subscribe();
        let tasks_changed = self.inbox.tasks_changed.clone();
        self.mirror().await?;
        loop {
            tokio::select! {
                message = inbound.message(), if self.ends.len() + self.ends_of_places.len() < ENDS_MAX => {
                    missed = 0;
                    match message {
                        Ok(Some(message)) => self.hear(message).await?,
                        Ok(None) => return ControlFlow::Break(End::Closed),
                        Err(status) => return ControlFlow::Break(End::Broken(status)),
                    }
                }
                Some((id, stored)) = self.ends.next() => self.acknowledge(id, stored).await?,
                Some((id, stored)) = self.ends_of_places.next() => {
                    self.acknowledge(id, stored).await?;
                }
                // What follows from an outcome comes after its acknowledgement.
                () = tasks_changed.notified(), if self.ends.is_empty() => self.mirror().await?,
                Some(order) = self.inbox.orders.recv() => self.obey(order).await?,
                Ok(()) = self.inbox.goodbye.changed() => {
                    let goodbye = self.inbox.goodbye.borrow().clone();
                    if let Some(goodbye) = goodbye {
                        return ControlFlow::Break(End::Goodbye(goodbye));
                    }
                }
                Ok(()) = ca.changed() => {
                    let bundle = trust_bundle(&self.config.authority);
                    self.outbound.say(Message::TrustBundle(bundle)).await?;
                }
                _ = beats.tick() => {
                    if missed > MISSED_MAX {
                        return ControlFlow::Break(End::Silent);
                    }
                    missed += 1;
                    self.beat().await?;
                }
            }
        }
    }

    /// Offers every live task once, the oldest first, and passes on that someone wants one to end.
    async fn mirror(&mut self) -> Step {
        let (revision, live, news) = self.config.driver.read(|world| {
            // What an old copy takes for live may be done, or be the opposite of what is wanted.
            let offers = world.store_behind().is_none();
            let tasks = || world.live_tasks_of(&self.node).map(|task| &task.value);
            let news: Vec<_> = tasks()
                .filter(|task| offers && self.offered.get(&task.id) != Some(&task.cancel_requested))
                .cloned()
                .collect();
            let live: BTreeMap<TaskId, bool> =
                tasks().filter(|_| offers).map(|task| (task.id, task.cancel_requested)).collect();
            (world.revision(), live, news)
        });
        self.places.retain(|id| live.contains_key(id));
        let offered = std::mem::replace(&mut self.offered, live);
        for task in news {
            if let TaskSpec::ClusterPlace(_) = task.spec {
                self.places.insert(task.id);
            }
            if !offered.contains_key(&task.id) {
                let mut offer = v1::OfferTask::of(&task, revision);
                // Offered when there is one; without it only to be cancelled.
                if !passwords::add(&self.config, &task, &mut offer) && !task.cancel_requested {
                    self.offered.remove(&task.id);
                    continue;
                }
                self.outbound.say(Message::OfferTask(offer)).await?;
            }
            if task.cancel_requested {
                let cancel = v1::CancelTask { id: task.id.to_string() };
                self.outbound.say(Message::CancelTask(cancel)).await?;
            }
        }
        ControlFlow::Continue(())
    }

    async fn beat(&mut self) -> Step {
        self.pings.retain(|_, reply| !reply.is_closed());
        let left: Vec<u64> =
            self.tails.iter().filter(|(_, parts)| parts.is_closed()).map(|(n, _)| *n).collect();
        for tail in left {
            self.stop_tail(tail).await?;
        }
        let Revision(revision) = self.config.driver.read(|world| world.revision());
        self.outbound.say(Message::Heartbeat(v1::Heartbeat { revision })).await
    }

    async fn obey(&mut self, order: Order) -> Step {
        let number = self.next;
        self.next += 1;
        match order {
            // Dropping the reply, or the parts, tells the one who asked.
            Order::Ping(reply) if self.pings.len() < PINGS_MAX => {
                self.pings.insert(number, reply);
                self.outbound.say(Message::Ping(v1::Ping { nonce: number })).await
            }
            Order::Tail { of, parts } if self.tails.len() < TAILS_MAX => {
                self.tails.insert(number, parts);
                let (id, follow, run) = match of {
                    TailOf::Task { id, follow } => (id.to_string(), follow, String::new()),
                    TailOf::Run(run) => (String::new(), false, run.to_string()),
                };
                let tail = v1::TailOutput { tail: number, id, follow, stop: false, run };
                self.outbound.say(Message::TailOutput(tail)).await
            }
            Order::Ping(_) | Order::Tail { .. } => ControlFlow::Continue(()),
        }
    }

    async fn hear(&mut self, message: v1::AgentMessage) -> Step {
        use agent_message::Kind;
        let said = match message.kind {
            Some(Kind::Heartbeat(v1::Heartbeat { revision: _ })) => {
                return refuse(self.config.driver.heard(&self.node).await);
            }
            Some(Kind::NodeReport(report)) => report.try_into().map(Observation::Node),
            Some(Kind::SyncReport(report)) => sync_report(report),
            Some(Kind::MirrorUpdate(update)) => mirror_update(update),
            Some(Kind::ClusterUpdate(update)) => cluster_update(update),
            Some(Kind::LeaseRenewal(renewal)) => return self.renew_lease(renewal).await,
            Some(Kind::TaskUpdate(update)) => {
                task_update(update).map(|(id, phase)| Observation::Task { id, phase })
            }
            Some(Kind::TaskEnd(end)) => return self.end_task(end).await,
            Some(Kind::TaskOutput(output)) => return self.pass_output(output).await,
            Some(Kind::Pong(v1::Pong { nonce })) => {
                if let Some(reply) = self.pings.remove(&nonce) {
                    let _ = reply.send(()); // who asked may have gone
                }
                return ControlFlow::Continue(());
            }
            Some(Kind::Hello(_)) => Err(Invalid::new("hello", "must come once, and first")),
            // Of a newer agent, which has to live with not being understood.
            None => return ControlFlow::Continue(()),
        };
        match said {
            Ok(said) => refuse(self.config.driver.observe(&self.node, self.id, said).await),
            Err(error) => self.ignore(&error),
        }
    }

    /// Answered at once, from memory.
    async fn renew_lease(&mut self, renewal: v1::LeaseRenewal) -> Step {
        let renewal = match Renewal::try_from(renewal) {
            Ok(renewal) => renewal,
            Err(error) => return self.ignore(&error),
        };
        let renewed = self.config.driver.renew_lease(&self.node, self.id, &renewal);
        // Another stream of the node took over, and asks for itself.
        let Some((granted, is_news)) = renewed else { return ControlFlow::Continue(()) };
        let answer = match granted {
            Ok(Some(length)) => Answer::For(length),
            Ok(None) => Answer::WithoutEnd,
            Err(why) => {
                let Renewal { cluster, term, .. } = &renewal;
                tracing::debug!(node = %self.node, %cluster, %term, %why, "refused a lease");
                Answer::Refused(why.to_string())
            }
        };
        let grant = Grant::answering(renewal, answer);
        self.outbound.say(Message::LeaseGrant(grant.into())).await?;
        match is_news {
            true => refuse(self.config.driver.heard(&self.node).await),
            false => ControlFlow::Continue(()),
        }
    }

    /// One message that makes no sense is no reason to end what works.
    fn ignore(&self, error: &Invalid) -> Step {
        tracing::warn!(node = %self.node, %error, "ignored a message of an agent");
        ControlFlow::Continue(())
    }

    async fn end_task(&mut self, end: v1::TaskEnd) -> Step {
        let (id, outcome) = match task_end(end) {
            Ok(ended) => ended,
            Err(error) => return self.ignore(&error),
        };
        let actor = Actor::Subject(Subject::Node(self.node.clone()));
        let request = Request::EndTask { node: self.node.clone(), id, outcome };
        let ask = Ask::new(actor, "AgentService/TaskEnd", request);
        match self.config.driver.tell_ahead(ask).await {
            Ok(stored) => {
                let stored = stored.map(move |stored| (id, stored)).boxed();
                match self.places.remove(&id) {
                    true => self.ends_of_places.push(stored),
                    false => self.ends.push(stored),
                }
                ControlFlow::Continue(())
            }
            Err(reject) => ControlFlow::Break(End::Refused(reject)),
        }
    }

    /// Only once it is stored, so that the agent may forget it.
    async fn acknowledge(&mut self, id: TaskId, stored: Result<Done, Reject>) -> Step {
        match stored {
            Ok(_) => {
                let ack = v1::OutcomeAck { id: id.to_string() };
                self.outbound.say(Message::OutcomeAck(ack)).await
            }
            // Kept by the agent; it connects anew when the store is adopted.
            Err(reject) if reject.reason == STORE_BEHIND => ControlFlow::Continue(()),
            // Another node's task: kept saying, it would never be true.
            Err(reject) if reject.code == Code::PermissionDenied => {
                tracing::warn!(node = %self.node, task = %id, why = %reject, "ignored an outcome");
                ControlFlow::Continue(())
            }
            Err(reject) => ControlFlow::Break(End::Refused(reject)),
        }
    }

    async fn pass_output(&mut self, output: v1::TaskOutput) -> Step {
        let v1::TaskOutput { tail, lines, end, missing } = output;
        let Some(parts) = self.tails.get(&tail) else { return ControlFlow::Continue(()) };
        let passed = parts.try_send(TailPart { lines, end, missing }).is_ok();
        if end {
            self.tails.remove(&tail);
        } else if !passed {
            return self.stop_tail(tail).await;
        }
        ControlFlow::Continue(())
    }

    /// Its reader is gone, or too slow.
    async fn stop_tail(&mut self, tail: u64) -> Step {
        self.tails.remove(&tail);
        let stop = v1::TailOutput { tail, stop: true, ..v1::TailOutput::default() };
        self.outbound.say(Message::TailOutput(stop)).await
    }
}

fn refuse(result: Result<(), Reject>) -> Step {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(reject) => ControlFlow::Break(End::Refused(reject)),
    }
}
