//! One stream with one controller: tells what changed, hears what is wanted, and notices silence.
//! What it tells is always taken from what is, so a new stream needs nothing of the last one.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use lockstep_model::node::NodeReport;
use lockstep_model::observation::Told;
use lockstep_model::task::{Outcome, OutcomeKind, TaskPhase, TaskSpec};
use lockstep_model::{HostPort, Incarnation, LifeId, Revision, TaskId};
use lockstep_proto::status;
use lockstep_proto::v1;
use lockstep_proto::v1::agent_message::Kind as Say;
use lockstep_proto::v1::agent_service_client::AgentServiceClient;
use lockstep_proto::v1::controller_message::Kind as Heard;
use lockstep_transport::dial::{DialError, dial_error_in};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::clusters::{self, Teller};
use super::output::{self, Reader};
use super::{FEATURES, Link, Sources, SyncReports};
use crate::ledger::Offer;
use crate::ledger::file::MESSAGE_BYTES_MAX;
use crate::mirror::MirrorReports;
use crate::runner::News;

/// From the request to the controller's first message.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// A controller may choose a heartbeat between these.
const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60);
/// Silence of so many heartbeats, and at least `SILENCE_MIN`, ends a stream.
const SILENCE_BEATS: u32 = 3;
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// Messages that wait for the network; when they wait too long the stream is dead.
const OUT_MAX: usize = 64;
/// Reports of syncs and mirrors go out at most this often, the latest of each.
const REPORT_INTERVAL: Duration = Duration::from_millis(300);
/// Most readers of tasks' output at once.
const TAILS_MAX: usize = 16;

/// Why a stream ended, or never began.
pub(super) enum End {
    Shutdown,
    AddressesChanged,
    Dial(DialError),
    Lost(String),
    /// The controller said why it does not want us.
    Refused(String),
    Expelled(String),
    Replaced(String),
}

fn lost(why: impl Into<String>) -> End {
    End::Lost(why.into())
}

pub(super) async fn converse(
    link: &Link,
    controller: &HostPort,
    channel: Channel,
    shutdown: &CancellationToken,
) -> End {
    let talk = async {
        let (mut session, heard) = Session::open(link, channel).await?;
        link.tell_connected(controller);
        session.run(heard).await
    };
    tokio::select! {
        () = shutdown.cancelled() => End::Shutdown,
        end = talk => end.unwrap_or_else(|end| end),
    }
}

struct Session<'a> {
    link: &'a Link,
    out: mpsc::Sender<v1::AgentMessage>,
    heartbeat: Duration,
    silence: Duration,
    /// What the controller says of its store may be kept: it is no old copy, as far as it knows.
    keeps_told: bool,
    said_tasks: BTreeMap<TaskId, News>,
    said_syncs: SyncReports,
    said_mirrors: MirrorReports,
    members: Teller,
    said_report: NodeReport,
    tails: BTreeMap<u64, AbortOnDropHandle<()>>,
}

impl<'a> Session<'a> {
    /// Hello and Welcome.
    async fn open(
        link: &'a Link,
        channel: Channel,
    ) -> Result<(Self, Streaming<v1::ControllerMessage>), End> {
        let (out, outgoing) = mpsc::channel(OUT_MAX);
        let mut session = Self {
            link,
            out,
            heartbeat: HEARTBEAT_MAX,
            silence: WELCOME_TIMEOUT,
            keeps_told: false,
            said_tasks: BTreeMap::new(),
            said_syncs: BTreeMap::new(),
            said_mirrors: BTreeMap::new(),
            members: Teller::default(),
            said_report: link.sources.report.borrow().clone(),
            tails: BTreeMap::new(),
        };
        let hello = session.hello();
        session.say(Say::Hello(hello)).await?;
        let mut client =
            AgentServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let greet = async {
            let answer = client.connect(ReceiverStream::new(outgoing)).await;
            let mut heard = answer.map_err(refusal)?.into_inner();
            let first = heard.message().await.map_err(refusal)?;
            Ok((heard, first))
        };
        let greeted = timeout(WELCOME_TIMEOUT, greet).await;
        let (heard, first) =
            greeted.map_err(|_| lost("the controller does not answer in time"))??;
        match first.and_then(|message| message.kind) {
            Some(Heard::Welcome(welcome)) => session.take_welcome(welcome).await?,
            Some(Heard::Goodbye(goodbye)) => return Err(farewell(goodbye)),
            _ => return Err(lost("its first message is no Welcome; is it a Lockstep controller?")),
        }
        Ok((session, heard))
    }

    fn hello(&mut self) -> v1::Hello {
        let sources = &self.link.sources;
        let live = |(id, news): (&TaskId, &News)| match news {
            News::Live(phase) => Some((*id, news.clone(), *phase)),
            News::Ended(_) => None,
        };
        let unsettled = sources.runner.unsettled().borrow().clone();
        let mut tasks = Vec::new();
        for (id, news, phase) in unsettled.iter().filter_map(live) {
            self.said_tasks.insert(id, news);
            tasks.push(update(id, phase));
        }
        let told = self.link.memory.lock().unwrap_or_else(PoisonError::into_inner).told();
        let report = self.said_report.clone();
        v1::Hello {
            version: report.version.clone(),
            features: FEATURES.map(str::to_owned).to_vec(),
            instance: self.link.instance,
            told_incarnation: told.incarnation.0,
            told_revision: told.revision.0,
            told_life: told.life.0,
            addresses: sources.addresses.borrow().iter().map(ToString::to_string).collect(),
            report: Some(report.into()),
            tasks,
        }
    }

    async fn take_welcome(&mut self, welcome: v1::Welcome) -> Result<(), End> {
        let v1::Welcome {
            version,
            features: _,
            incarnation,
            revision,
            heartbeat_ms,
            trust_bundle,
            controllers,
            life,
            in_doubt,
        } = welcome;
        tracing::debug!(version, incarnation, life, revision, in_doubt, heartbeat_ms, "welcomed");
        self.heartbeat = Duration::from_millis(heartbeat_ms).clamp(HEARTBEAT_MIN, HEARTBEAT_MAX);
        self.silence = (self.heartbeat * SILENCE_BEATS).max(SILENCE_MIN);
        self.keeps_told = !in_doubt;
        let (incarnation, life) = (Incarnation(incarnation), LifeId(life));
        self.hear_told(move |_| Told { incarnation, life, revision: Revision(revision) }).await;
        if let Some(bundle) = trust_bundle {
            self.take_roots(bundle).await;
        }
        let list = self.link.controllers.clone();
        let learnt = tokio::task::spawn_blocking(move || {
            list.lock().unwrap_or_else(PoisonError::into_inner).learn(&controllers)
        });
        if let Ok(Err(error)) = learnt.await {
            tracing::warn!(%error, "cannot keep the list of controllers");
        }
        Ok(())
    }

    async fn run(&mut self, mut heard: Streaming<v1::ControllerMessage>) -> Result<End, End> {
        let sources = &self.link.sources;
        let mut tasks = sources.runner.unsettled();
        let mut report = sources.report.clone();
        let mut syncs = sources.syncs.clone();
        let mut mirrors = sources.mirrors.clone();
        let mut members = sources.clusters.reports.clone();
        let mut renewals = sources.clusters.renewals.lock().await;
        // Asked before there was anybody to hear it.
        while renewals.try_recv().is_ok() {}
        let mut addresses = sources.addresses.clone();
        addresses.mark_unchanged();
        self.tell_tasks().await?;
        self.tell_syncs().await?;
        self.tell_mirrors().await?;
        self.tell_members().await?;
        let mut beat = interval(self.heartbeat);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_heard = Instant::now();
        let mut reported = last_heard;
        let mut reports_due: Option<Instant> = None;
        loop {
            let due = reports_due.unwrap_or(last_heard);
            let next = Instant::now().max(reported + REPORT_INTERVAL);
            let members_due = self.members.due();
            tokio::select! {
                Some(renewal) = renewals.recv() => {
                    self.say(Say::LeaseRenewal(renewal.into())).await?;
                }
                message = timeout_at(last_heard + self.silence, heard.message()) => {
                    let message = message.map_err(|_| {
                        lost(format!("the controller was silent for {:?}", self.silence))
                    })?;
                    let message = message.map_err(refusal)?;
                    let message = message.ok_or_else(|| lost("the controller ended the stream"))?;
                    last_heard = Instant::now();
                    self.hear(message).await?;
                }
                _ = beat.tick() => self.say(Say::Heartbeat(v1::Heartbeat { revision: 0 })).await?,
                // The senders live as long as the agent; without one there is nothing to tell.
                Ok(()) = tasks.changed() => self.tell_tasks().await?,
                Ok(()) = report.changed() => self.tell_report().await?,
                Ok(()) = syncs.changed() => reports_due = Some(reports_due.unwrap_or(next)),
                Ok(()) = mirrors.changed() => reports_due = Some(reports_due.unwrap_or(next)),
                Ok(()) = members.changed() => {
                    self.members.note(&members.borrow_and_update(), Instant::now());
                }
                () = sleep_until(members_due.unwrap_or(last_heard)), if members_due.is_some() => {
                    self.tell_members().await?;
                }
                () = sleep_until(due), if reports_due.is_some() => {
                    (reports_due, reported) = (None, Instant::now());
                    self.tell_syncs().await?;
                    self.tell_mirrors().await?;
                }
                Ok(()) = addresses.changed() => return Ok(End::AddressesChanged),
            }
        }
    }

    async fn say(&self, kind: Say) -> Result<(), End> {
        let message = v1::AgentMessage { kind: Some(kind) };
        match timeout(self.silence, self.out.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(lost("the stream has ended")),
            Err(_) => Err(lost(format!("the controller takes nothing for {:?}", self.silence))),
        }
    }

    async fn hear(&mut self, message: v1::ControllerMessage) -> Result<(), End> {
        let Some(kind) = message.kind else {
            tracing::warn!(
                "the controller said something that this version does not know; ignored"
            );
            return Ok(());
        };
        match kind {
            Heard::Welcome(_) => return Err(lost("the controller said Welcome twice")),
            Heard::Heartbeat(v1::Heartbeat { revision }) => {
                self.hear_revision(Revision(revision)).await;
            }
            Heard::OfferTask(offer) => self.take_offer(offer).await?,
            Heard::CancelTask(v1::CancelTask { id }) => match id.parse::<TaskId>() {
                Ok(id) => {
                    if let Some(news) = self.link.sources.runner.cancel(id).await {
                        self.tell_task(id, news).await?;
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot cancel"),
            },
            Heard::OutcomeAck(v1::OutcomeAck { id }) => match id.parse() {
                Ok(id) => self.link.sources.runner.ack(id).await,
                Err(error) => tracing::warn!(%error, "cannot note an acknowledgement"),
            },
            Heard::TailOutput(tail) => self.take_tail(tail),
            Heard::Ping(v1::Ping { nonce }) => self.say(Say::Pong(v1::Pong { nonce })).await?,
            Heard::TrustBundle(bundle) => self.take_roots(bundle).await,
            Heard::LeaseGrant(grant) => self.link.sources.clusters.take(grant),
            Heard::Goodbye(goodbye) => return Err(farewell(goodbye)),
        }
        Ok(())
    }

    async fn take_offer(&mut self, mut offer: v1::OfferTask) -> Result<(), End> {
        let revision = Revision(offer.revision);
        let id = match offer.id.parse::<TaskId>() {
            Ok(id) => id,
            Err(error) => {
                tracing::error!(%error, "the controller offered a task without a number; ignored");
                return Ok(());
            }
        };
        let known = offer.spec.as_ref().is_some_and(|spec| spec.kind.is_some());
        let password = std::mem::take(&mut offer.password);
        let replication = std::mem::take(&mut offer.replication_password);
        let offer = Offer::try_from(offer);
        match &offer {
            Ok(Offer { spec: TaskSpec::MirrorPull(pull), .. }) if pull.has_password => {
                self.link.sources.passwords.put(&pull.mirror, password);
            }
            // A controller that has lost its key tells none: those that are kept stay.
            Ok(Offer { spec: TaskSpec::ClusterPlace(place), .. })
                if !password.is_empty() && !replication.is_empty() =>
            {
                let secrets = clusters::secrets(password, replication);
                self.link.sources.clusters.keep(&place.cluster, secrets);
            }
            _ => {}
        }
        let answer = async {
            match offer {
                _ if !known => {
                    let why = format!(
                        "the agent, version {}, does not know this kind of task; upgrade it",
                        env!("CARGO_PKG_VERSION")
                    );
                    News::Ended(Outcome::new(OutcomeKind::Unsupported, why))
                }
                Ok(offer) => self.link.sources.runner.offer(offer).await,
                Err(error) => News::Ended(Outcome::new(OutcomeKind::Failed, error.to_string())),
            }
        };
        // Both wait for the disk.
        let (news, ()) = tokio::join!(answer, self.hear_revision(revision));
        if let News::Ended(outcome) = &news {
            tracing::info!(%id, kind = %outcome.kind, message = outcome.message, "answered an offer");
        }
        self.tell_task(id, news).await
    }

    fn take_tail(&mut self, request: v1::TailOutput) {
        let v1::TailOutput { tail, id, follow, stop, run } = request;
        self.tails.remove(&tail);
        if stop {
            return;
        }
        self.tails.retain(|_, reader| !reader.is_finished());
        let Sources { runner, logs, .. } = &self.link.sources;
        let of_task = || id.parse().ok().and_then(|id| runner.tail(id, follow)).map(Reader::Task);
        let of_run = || run.parse().ok().map(|run| Reader::Run(logs.clone(), run));
        let reader = match self.tails.len() {
            TAILS_MAX.. => {
                Reader::None("… too many readers of output on this node; try again later")
            }
            _ => of_run()
                .or_else(of_task)
                .unwrap_or(Reader::None("… this node keeps no output of this task")),
        };
        let task = tokio::spawn(output::send(self.out.clone(), tail, reader));
        self.tails.insert(tail, AbortOnDropHandle::new(task));
    }

    async fn take_roots(&self, bundle: v1::TrustBundle) {
        if let Err(error) = self.link.keeper.trust(bundle).await {
            tracing::error!(%error, "cannot take the controller's list of roots; keeping the old one");
        }
    }

    /// Of the same life as the last one heard.
    async fn hear_revision(&self, revision: Revision) {
        self.hear_told(move |last| Told { revision, ..last }).await;
    }

    async fn hear_told(&self, told: impl FnOnce(Told) -> Told + Send + 'static) {
        if !self.keeps_told {
            return;
        }
        let memory = self.link.memory.clone();
        let heard = tokio::task::spawn_blocking(move || {
            let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            let told = told(memory.told());
            memory.hear(told)
        });
        if let Ok(Err(error)) = heard.await {
            tracing::warn!(%error, "cannot keep the controller's revision");
        }
    }

    async fn tell_tasks(&mut self) -> Result<(), End> {
        let unsettled = self.link.sources.runner.unsettled().borrow().clone();
        self.said_tasks.retain(|id, _| unsettled.contains_key(id));
        for (id, news) in unsettled.iter() {
            if self.said_tasks.get(id) != Some(news) {
                self.tell_task(*id, news.clone()).await?;
            }
        }
        Ok(())
    }

    async fn tell_task(&mut self, id: TaskId, news: News) -> Result<(), End> {
        let say = match news.clone() {
            News::Live(phase) => Say::TaskUpdate(update(id, phase)),
            News::Ended(outcome) => {
                Say::TaskEnd(v1::TaskEnd { id: id.to_string(), outcome: Some(outcome.into()) })
            }
        };
        self.said_tasks.insert(id, news);
        self.say(say).await
    }

    async fn tell_report(&mut self) -> Result<(), End> {
        let report = self.link.sources.report.borrow().clone();
        if report == self.said_report {
            return Ok(());
        }
        self.said_report = report.clone();
        self.say(Say::NodeReport(report.into())).await
    }

    async fn tell_syncs(&mut self) -> Result<(), End> {
        let syncs = self.link.sources.syncs.borrow().clone();
        let gone = self.said_syncs.keys().filter(|sync| !syncs.contains_key(*sync));
        let gone = gone.map(|sync| v1::SyncReport { sync: sync.to_string(), role: None });
        let fresh =
            syncs.iter().filter(|(sync, report)| self.said_syncs.get(*sync) != Some(*report));
        let fresh = fresh.map(|(sync, report)| v1::SyncReport {
            sync: sync.to_string(),
            role: Some(report.clone().into()),
        });
        for report in gone.chain(fresh).collect::<Vec<_>>() {
            self.say(Say::SyncReport(report)).await?;
        }
        self.said_syncs = syncs;
        Ok(())
    }

    async fn tell_mirrors(&mut self) -> Result<(), End> {
        let mirrors = self.link.sources.mirrors.borrow().clone();
        let gone = self.said_mirrors.keys().filter(|mirror| !mirrors.contains_key(*mirror));
        let gone = gone.map(|mirror| v1::MirrorUpdate { mirror: mirror.to_string(), report: None });
        let fresh = mirrors
            .iter()
            .filter(|(mirror, report)| self.said_mirrors.get(*mirror) != Some(*report));
        let fresh = fresh.map(|(mirror, report)| v1::MirrorUpdate {
            mirror: mirror.to_string(),
            report: Some(report.clone().into()),
        });
        for update in gone.chain(fresh).collect::<Vec<_>>() {
            self.say(Say::MirrorUpdate(update)).await?;
        }
        self.said_mirrors = mirrors;
        Ok(())
    }

    async fn tell_members(&mut self) -> Result<(), End> {
        let now = self.link.sources.clusters.reports.borrow().clone();
        for update in self.members.tell(now, Instant::now()) {
            self.say(Say::ClusterUpdate(update)).await?;
        }
        Ok(())
    }
}

fn update(id: TaskId, phase: TaskPhase) -> v1::TaskUpdate {
    v1::TaskUpdate { id: id.to_string(), state: v1::TaskState::from(phase).into() }
}

/// What a controller's last status means.
fn refusal(status: tonic::Status) -> End {
    if let Some(error) = dial_error_in(&status) {
        return End::Dial(error);
    }
    let status::Refusal { code, reason, subject: _, message } = status::read(&status);
    match reason.as_str() {
        "node_expelled" => End::Expelled(message),
        _ if code == Code::Unimplemented => lost("it is no Lockstep controller"),
        "" => lost(format!("the stream broke: {message}")),
        _ => End::Refused(message),
    }
}

fn farewell(goodbye: v1::Goodbye) -> End {
    let v1::Goodbye { reason, message } = goodbye;
    match reason.as_str() {
        "expelled" => End::Expelled(message),
        "replaced" => End::Replaced(message),
        _ => lost(format!("the controller said goodbye: {message}")),
    }
}
