//! Keeps this node's identity good: renews the certificate in time, on a connection of its own, and
//! takes new roots. What is open goes on with what it began with. It never makes another key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::identity::Subject;
use lockstep_model::{HostPort, Millis, NodeName};
use lockstep_proto::v1;
use lockstep_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use lockstep_transport::certificate::from_der;
use lockstep_transport::clock;
use lockstep_transport::dial::{self, DialError};
use lockstep_transport::identity::{Identity, IdentityError, IdentityHandle, disk};
use lockstep_transport::tls::Caller;
use lockstep_transport::verify::Expect;
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::backoff::Backoff;

/// Directory of the identity in the data directory.
pub const DIR: &str = "identity";
/// For the answer to one renewal.
const RENEW_TIMEOUT: Duration = Duration::from_secs(20);
/// The wall clock is looked at this often, since it may be set while we wait for a date.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// A new root reaches all nodes at once; their renewals are to come one after another.
const ROOT_RENEW_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error("cannot renew the certificate: {0}")]
    Dial(#[from] DialError),
    #[error("the controller does not renew our certificate: {0}")]
    Refused(String),
    #[error("cannot renew the certificate: {0}")]
    Call(String),
    #[error("the controller gave no answer within {} s", RENEW_TIMEOUT.as_secs())]
    Silent,
    #[error("the controller's answer is of no use: {0}")]
    Answer(#[from] IdentityError),
    #[error("this is the identity of {0}, not of a node; join again with a node's token")]
    NotNode(Subject),
}

/// What a person does about a certificate that is refused.
pub const JOIN_AGAIN: &str =
    "if this does not end, make a new token and run: lockstep-agent join --replace";

/// The node that an identity is for.
pub fn node_name(identity: &Identity) -> Result<&NodeName, RenewError> {
    match &identity.spiffe.subject {
        Subject::Node(name) => Ok(name),
        other => Err(RenewError::NotNode(other.clone())),
    }
}

/// The identity on disk and in use. Clones are the same one.
#[derive(Clone)]
pub struct Keeper {
    pub handle: IdentityHandle,
    dir: PathBuf,
    /// Two changes at once would each save half of the other.
    saving: Arc<tokio::sync::Mutex<()>>,
}

impl RenewError {
    /// Trying again will hardly help.
    fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Dial(DialError::Refused { .. }))
    }
}

impl Keeper {
    /// Blocks on the disk.
    pub fn load(dir: &Path) -> Result<Self, IdentityError> {
        let handle = IdentityHandle::new(disk::load(dir)?);
        Ok(Self { handle, dir: dir.to_owned(), saving: Arc::default() })
    }

    /// As whom we call controllers.
    pub fn caller(&self) -> Caller {
        Caller::Member { identity: self.handle.clone(), expect: Expect::Controller }
    }

    /// Trusts exactly these roots from now on; durable before it counts. Roots that our own
    /// certificate does not end in are refused: they would cut us off.
    pub async fn trust(&self, bundle: v1::TrustBundle) -> Result<(), IdentityError> {
        let v1::TrustBundle { roots } = bundle;
        self.change(None, Some(roots)).await
    }

    async fn change(
        &self,
        chain: Option<Vec<Vec<u8>>>,
        roots: Option<Vec<Vec<u8>>>,
    ) -> Result<(), IdentityError> {
        let _saving = self.saving.lock().await;
        let current = self.handle.current();
        let chain = chain.map_or_else(|| current.chain().to_vec(), from_der);
        let roots = match roots {
            Some(roots) if !roots.is_empty() => from_der(roots),
            _ => current.roots().to_vec(),
        };
        if chain == current.chain() && roots == current.roots() {
            return Ok(());
        }
        let dir = self.dir.clone();
        let saved = tokio::task::spawn_blocking(move || {
            let identity = current.with(chain, roots)?;
            disk::save(&dir, &identity)?;
            Ok::<_, IdentityError>(identity)
        });
        match saved.await {
            Ok(identity) => self.handle.replace(identity?),
            // Only at the end of the runtime.
            Err(_) => std::future::pending().await,
        }
        Ok(())
    }

    /// Renews whenever it is time; ends never. `controllers` gives the list at the time of a call.
    pub async fn keep(&self, controllers: impl Fn() -> Vec<HostPort>, seed: u64) {
        let mut backoff = Backoff::new(seed);
        loop {
            self.until_due(&mut backoff).await;
            match self.renew(&controllers()).await {
                Ok(()) => {
                    let current = self.handle.current();
                    tracing::info!(until = %current.not_after, "certificate renewed");
                    // One that is due at once would have us ask without a pause.
                    match current.renew_at() > clock::now() {
                        true => backoff.reset(),
                        false => sleep(backoff.wait()).await,
                    }
                }
                Err(error) if error.is_refusal() => {
                    tracing::error!(%error, "certificate not renewed; {JOIN_AGAIN}");
                    sleep(backoff.spread(LOOK_INTERVAL)).await;
                }
                Err(error) => {
                    let until = self.handle.current().not_after;
                    tracing::warn!(%error, %until, "certificate not renewed; trying again");
                    sleep(backoff.wait()).await;
                }
            }
        }
    }

    /// Until the certificate's own date, or soon after a root was added: the one that ours ends in
    /// may then be on its way out.
    async fn until_due(&self, backoff: &mut Backoff) {
        let mut changes = self.handle.subscribe();
        let known = self.handle.current();
        let mut due = known.renew_at();
        loop {
            let wait = Duration::from(due.since(clock::now()));
            if wait.is_zero() {
                return;
            }
            // Our own handle keeps the other end of `changes` alive.
            tokio::select! {
                () = sleep(wait.min(LOOK_INTERVAL)) => {}
                _ = changes.changed() => {
                    let current = self.handle.current();
                    if current.roots().iter().any(|root| !known.roots().contains(root)) {
                        due = due.min(clock::now() + Millis::of(backoff.spread(ROOT_RENEW_WITHIN)));
                    }
                }
            }
        }
    }

    async fn renew(&self, controllers: &[HostPort]) -> Result<(), RenewError> {
        let identity = self.handle.current();
        let csr = identity.request().map_err(IdentityError::Key)?;
        let channel = dial::connect(controllers, &self.caller()).await?;
        let mut client = EnrollmentServiceClient::new(channel);
        let answer = timeout(RENEW_TIMEOUT, client.renew(v1::RenewRequest { csr })).await;
        let answer = answer.map_err(|_| RenewError::Silent)?;
        let answer = answer.map_err(|status| {
            let text = status.message().to_owned();
            match status.code() {
                Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition => {
                    RenewError::Refused(text)
                }
                _ => RenewError::Call(text),
            }
        })?;
        let v1::RenewResponse { chain, trust_bundle, expires_at: _ } = answer.into_inner();
        if chain.is_empty() {
            return Err(RenewError::Answer(IdentityError::Chain("holds no certificate")));
        }
        self.change(Some(chain), trust_bundle.map(|bundle| bundle.roots)).await?;
        Ok(())
    }
}
