//! Many idle agents in one process: each with a key, a certificate and an mTLS stream of its own,
//! as real ones have, and nothing to do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
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
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Enrollments under way at once.
const JOINING_MAX: usize = 16;
const OUT_MAX: usize = 8;

pub struct Crowd {
    controller: Vec<HostPort>,
    identities: Vec<IdentityHandle>,
}

/// Connected; the streams end with it.
pub struct Connected {
    tasks: JoinSet<Result<()>>,
}

impl Crowd {
    /// Makes a token for each by an admin's channel, and joins.
    pub async fn join(controller: &HostPort, admin: &Channel, size: usize) -> Result<Self> {
        let controller = vec![controller.clone()];
        let joined = stream::iter(0..size)
            .map(|n| join_one(&controller, admin, format!("idle-{n}")))
            .buffer_unordered(JOINING_MAX);
        let identities = joined.try_collect().await?;
        Ok(Self { controller, identities })
    }

    /// All dial at once, as after a lost controller; returns when all are welcome.
    pub async fn connect(&self) -> Result<Connected> {
        let mut tasks = JoinSet::new();
        let (welcome, mut welcomed) = watch::channel(0);
        let welcome = Arc::new(welcome);
        for (n, identity) in self.identities.iter().enumerate() {
            let caller = Caller::Member { identity: identity.clone(), expect: Expect::Controller };
            let (controller, welcome) = (self.controller.clone(), welcome.clone());
            tasks.spawn(async move { be_idle(&controller, &caller, n as u64 + 1, &welcome).await });
        }
        let all = self.identities.len();
        tokio::select! {
            waited = welcomed.wait_for(|count| *count == all) => drop(waited?),
            Some(ended) = tasks.join_next() => {
                ended??;
                bail!("a stream ended");
            }
        }
        Ok(Connected { tasks })
    }
}

impl Connected {
    /// An error if one of them has lost its stream.
    pub fn check(&mut self) -> Result<()> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(ended) => ended?.and_then(|()| bail!("a stream ended")),
        }
    }
}

async fn join_one(
    controller: &[HostPort],
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
    let channel = dial::connect(controller, &caller).await?;
    let request = v1::EnrollRequest {
        token_id: token.id().to_string(),
        token_secret: token.secret().to_vec(),
        csr: key.request()?,
    };
    let answer = EnrollmentServiceClient::new(channel).enroll(request).await?.into_inner();
    let roots = answer.trust_bundle.unwrap_or_default().roots;
    Ok(IdentityHandle::new(Identity::from_der(key, answer.chain, roots)?))
}

/// Says Hello, and then what an agent without work says.
async fn be_idle(
    controller: &[HostPort],
    caller: &Caller,
    instance: u64,
    welcome: &watch::Sender<usize>,
) -> Result<()> {
    let channel = dial::connect(controller, caller).await?;
    let (out, outgoing) = mpsc::channel(OUT_MAX);
    let say = |kind| v1::AgentMessage { kind: Some(kind) };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let report = v1::NodeReport { version: version.clone(), ..Default::default() };
    let hello = v1::Hello { version, instance, report: Some(report), ..Default::default() };
    out.send(say(Say::Hello(hello))).await?;
    let stream = AgentServiceClient::new(channel).connect(ReceiverStream::new(outgoing)).await?;
    let mut heard = stream.into_inner();
    let first = heard.message().await?.and_then(|message| message.kind);
    let Some(Heard::Welcome(v1::Welcome { heartbeat_ms, .. })) = first else {
        bail!("not welcome: {first:?}");
    };
    welcome.send_modify(|count| *count += 1);
    let mut beat = tokio::time::interval(Duration::from_millis(heartbeat_ms));
    loop {
        tokio::select! {
            _ = beat.tick() => out.send(say(Say::Heartbeat(v1::Heartbeat { revision: 0 }))).await?,
            message = heard.message() => {
                let message = message?.context("the controller ended the stream")?;
                if let Some(Heard::Ping(v1::Ping { nonce })) = message.kind {
                    out.send(say(Say::Pong(v1::Pong { nonce }))).await?;
                }
            }
        }
    }
}
