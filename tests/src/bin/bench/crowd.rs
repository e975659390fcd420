//! Many idle agents in one process: each with a key, a certificate and an mTLS stream of its own, as
//! real ones have, and nothing to do. They come back when their stream is lost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use lockstep_agent::backoff::Backoff;
use lockstep_model::HostPort;
use lockstep_proto::v1;
use lockstep_proto::v1::agent_message::Kind as Say;
use lockstep_proto::v1::agent_service_client::AgentServiceClient;
use lockstep_proto::v1::controller_message::Kind as Heard;
use lockstep_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use lockstep_proto::v1::token_service_client::TokenServiceClient;
use lockstep_transport::dial;
use lockstep_transport::identity::{Identity, IdentityHandle};
use lockstep_transport::keys::PrivateKey;
use lockstep_transport::tls::Caller;
use lockstep_transport::token::JoinToken;
use lockstep_transport::verify::Expect;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Enrollments under way at once.
const JOINING_MAX: usize = 16;
const OUT_MAX: usize = 8;

/// The agents; they end with it.
pub struct Crowd {
    size: usize,
    tally: Arc<watch::Sender<Tally>>,
    cut: watch::Sender<()>,
    _agents: JoinSet<()>,
}

/// Who is welcome. Streams from before the newest round do not count.
#[derive(Default)]
struct Tally {
    round: u64,
    welcome: usize,
    /// Why a stream ended last.
    trouble: Option<String>,
}

/// One agent, over all of its streams.
struct Agent {
    controller: Vec<HostPort>,
    caller: Caller,
    instance: u64,
    told: v1::Welcome,
    tally: Arc<watch::Sender<Tally>>,
    cut: watch::Receiver<()>,
}

/// A certificate for each of `size` nodes, by tokens that an admin's channel makes.
pub async fn enroll(
    controller: &HostPort,
    admin: &Channel,
    size: usize,
) -> Result<Vec<IdentityHandle>> {
    let enrolled = stream::iter(0..size)
        .map(|n| enroll_one(controller, admin, format!("idle-{n}")))
        .buffer_unordered(JOINING_MAX);
    enrolled.try_collect().await
}

async fn enroll_one(
    controller: &HostPort,
    admin: &Channel,
    name: String,
) -> Result<IdentityHandle> {
    let request = v1::CreateTokenRequest {
        r#for: Some(v1::create_token_request::For::Node(name)),
        ..Default::default()
    };
    let made = TokenServiceClient::new(admin.clone()).create_token(request).await?.into_inner();
    let token: JoinToken = made.text.parse()?;
    let key = PrivateKey::generate()?;
    let caller = Caller::Guest { root_sha256: token.root_sha256() };
    let channel = dial::connect(std::slice::from_ref(controller), &caller).await?;
    let request = v1::EnrollRequest {
        token_id: token.id().to_string(),
        token_secret: token.secret().to_vec(),
        csr: key.request()?,
    };
    let answer = EnrollmentServiceClient::new(channel).enroll(request).await?.into_inner();
    let roots = answer.trust_bundle.unwrap_or_default().roots;
    Ok(IdentityHandle::new(Identity::from_der(key, answer.chain, roots)?))
}

impl Crowd {
    /// All dial at once. Needs a runtime.
    pub fn start(controller: &HostPort, identities: Vec<IdentityHandle>) -> Self {
        let tally = Arc::new(watch::Sender::new(Tally::default()));
        let cut = watch::Sender::new(());
        let size = identities.len();
        let mut agents = JoinSet::new();
        for (identity, instance) in identities.into_iter().zip(1..) {
            let agent = Agent {
                controller: vec![controller.clone()],
                caller: Caller::Member { identity, expect: Expect::Controller },
                instance,
                told: v1::Welcome::default(),
                tally: tally.clone(),
                cut: cut.subscribe(),
            };
            agents.spawn(agent.live());
        }
        Self { size, tally, cut, _agents: agents }
    }

    /// Whoever is welcome from now on counts, and only they.
    pub fn count_anew(&self) {
        self.tally.send_modify(|tally| {
            tally.round += 1;
            tally.welcome = 0;
        });
    }

    /// Every agent drops its stream and dials again, all at one moment.
    pub fn cut(&self) {
        self.cut.send_replace(());
    }

    /// Waits until all are welcome.
    pub async fn all_welcome(&self, within: Duration) -> Result<()> {
        let mut tally = self.tally.subscribe();
        let waited = timeout(within, tally.wait_for(|tally| tally.welcome == self.size)).await;
        match waited {
            Ok(found) => found.map(drop).context("the crowd is gone"),
            Err(_) => self.check(),
        }
    }

    /// An error unless all are welcome now.
    pub fn check(&self) -> Result<()> {
        let Tally { welcome, trouble, .. } = &*self.tally.borrow();
        ensure!(*welcome == self.size, "{welcome} of {} are welcome: {trouble:?}", self.size);
        Ok(())
    }
}

impl Agent {
    /// As a real one: again and again, after losses with growing pauses.
    async fn live(mut self) {
        let mut backoff = Backoff::new(self.instance);
        loop {
            let round = self.tally.borrow().round;
            let mut welcome = false;
            let end = self.stream(round, &mut welcome).await;
            self.tally.send_if_modified(|tally| {
                let counted = welcome && tally.round == round;
                tally.welcome -= usize::from(counted);
                tally.trouble = end.as_ref().err().map(|e| format!("{e:#}"));
                counted
            });
            if welcome {
                backoff.reset();
            }
            if end.is_err() {
                sleep(backoff.wait()).await;
            }
        }
    }

    /// Says Hello, and then what an agent without work says, until it is cut.
    async fn stream(&mut self, round: u64, welcome: &mut bool) -> Result<()> {
        let channel = dial::connect(&self.controller, &self.caller).await?;
        let (out, outgoing) = mpsc::channel(OUT_MAX);
        out.send(say(Say::Hello(self.hello()))).await?;
        let mut client = AgentServiceClient::new(channel);
        let mut heard = client.connect(ReceiverStream::new(outgoing)).await?.into_inner();
        let first = heard.message().await?.and_then(|message| message.kind);
        let Some(Heard::Welcome(told)) = first else { bail!("not welcome: {first:?}") };
        self.told = told;
        *welcome = true;
        self.tally.send_if_modified(|tally| {
            let counts = tally.round == round;
            tally.welcome += usize::from(counts);
            counts
        });
        let mut beat = interval(Duration::from_millis(self.told.heartbeat_ms.max(1)));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                cut = self.cut.changed() => return Ok(cut?),
                _ = beat.tick() => out.send(say(Say::Heartbeat(v1::Heartbeat { revision: 0 }))).await?,
                message = heard.message() => {
                    let message = message?.context("the controller ended the stream")?;
                    match message.kind {
                        Some(Heard::Ping(v1::Ping { nonce })) => out.send(say(Say::Pong(v1::Pong { nonce }))).await?,
                        Some(Heard::Heartbeat(v1::Heartbeat { revision })) => self.told.revision = revision,
                        _ => {}
                    }
                }
            }
        }
    }

    fn hello(&self) -> v1::Hello {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        v1::Hello {
            version: version.clone(),
            instance: self.instance,
            told_incarnation: self.told.incarnation,
            told_revision: self.told.revision,
            report: Some(v1::NodeReport { version, ..Default::default() }),
            ..Default::default()
        }
    }
}

fn say(kind: Say) -> v1::AgentMessage {
    v1::AgentMessage { kind: Some(kind) }
}
