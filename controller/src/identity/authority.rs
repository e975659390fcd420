//! The CA as the running controller uses it: signs for others, renews the controller's own
//! certificate, and loads what `ca rotate` and `ca retire` did to the files. It decides nothing
//! about callers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::identity::Subject;
use lockstep_model::{Code, FleetName, Millis, NodeName, Reject, Timestamp};
use lockstep_transport::clock;
use lockstep_transport::identity::{Identity, IdentityError, IdentityHandle};
use lockstep_transport::keys::{PrivateKey, read_request};
use tokio::sync::watch;

use super::ca::{self, Ca, CaError, Issued};

/// How often the files and the own certificate are looked at: a tenth of a leaf's life within these.
const CHECK_MIN: Duration = Duration::from_millis(200);
const CHECK_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("CA: {0}")]
    Ca(#[from] CaError),
    #[error("the controller's own certificate: {0}")]
    Own(#[from] IdentityError),
}

/// Where the CA is, and how it signs.
#[derive(Clone, Debug)]
pub struct AuthorityConfig {
    pub dir: PathBuf,
    pub fleet: FleetName,
    /// The controller's own name.
    pub name: NodeName,
    pub leaf_life: Millis,
}

pub struct Authority {
    config: AuthorityConfig,
    ca: watch::Sender<Arc<Ca>>,
    own: IdentityHandle,
}

impl Authority {
    pub fn open(config: AuthorityConfig, now: Timestamp) -> Result<Self, AuthorityError> {
        let ca = Ca::load(&config.dir, &config.fleet, now)?;
        let own = IdentityHandle::new(own_identity(&config, &ca, now)?);
        Ok(Self { config, ca: watch::Sender::new(Arc::new(ca)), own })
    }

    /// As whom the controller speaks; follows renewals.
    pub fn identity(&self) -> &IdentityHandle {
        &self.own
    }

    pub fn ca(&self) -> Arc<Ca> {
        self.ca.borrow().clone()
    }

    /// What members are to trust, DER, newest first.
    pub fn roots(&self) -> Vec<Vec<u8>> {
        self.ca().roots().iter().map(|root| root.to_vec()).collect()
    }

    /// Told of every change of the roots.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Ca>> {
        self.ca.subscribe()
    }

    /// A certificate for the public key of a request. The request's own names mean nothing.
    pub fn issue(&self, subject: &Subject, csr: &[u8], now: Timestamp) -> Result<Issued, Reject> {
        let key = read_request(csr)
            .map_err(|e| Reject::new(Code::InvalidArgument, "bad_csr", "csr", e.to_string()))?;
        self.ca().issue(subject, &key, self.config.leaf_life, now).map_err(|error| {
            tracing::error!(%error, %subject, "cannot issue a certificate");
            let message = "the controller cannot sign now: see its log";
            Reject::new(Code::Internal, "cannot_sign", subject, message)
        })
    }

    /// Runs until dropped. A failure is logged and tried again; what was good before stays in use.
    pub async fn keep(&self) {
        let check =
            Duration::from(Millis(self.config.leaf_life.0 / 10)).clamp(CHECK_MIN, CHECK_MAX);
        loop {
            tokio::time::sleep(check).await;
            if let Err(error) = self.look(clock::now()) {
                tracing::error!(%error, dir = %self.config.dir.display(), "cannot keep the CA; the former state stays in use");
            }
        }
    }

    fn look(&self, now: Timestamp) -> Result<(), AuthorityError> {
        let ca = self.ca();
        let roots_changed = ca::root_numbers(&self.config.dir)? != ca.root_numbers();
        if roots_changed || now >= ca.renew_at() {
            let fresh = Arc::new(Ca::load(&self.config.dir, &self.config.fleet, now)?);
            self.own.replace(own_identity(&self.config, &fresh, now)?);
            tracing::info!(roots = ?fresh.root_numbers(), "loaded the CA anew");
            self.ca.send_replace(fresh);
        } else if now >= self.own.current().renew_at() {
            self.own.replace(own_identity(&self.config, &ca, now)?);
            tracing::info!("renewed the controller's own certificate");
        }
        Ok(())
    }
}

/// The key is made here and never stored: nobody pins a controller's.
fn own_identity(
    config: &AuthorityConfig,
    ca: &Ca,
    now: Timestamp,
) -> Result<Identity, AuthorityError> {
    let key = PrivateKey::generate().map_err(CaError::from)?;
    let subject = Subject::Controller(config.name.clone());
    let Issued { mut chain, .. } = ca.issue(&subject, key.signer(), config.leaf_life, now)?;
    // The newest root is presented anyway; the older one goes along for tokens that name it.
    chain.extend(ca.roots().iter().skip(1).cloned());
    Ok(Identity::new(key, chain, ca.roots().to_vec())?)
}
