//! `lockstep-agent join`: a token becomes this node's identity. Until the controller has answered
//! the new key waits aside, so that the same command may simply be given again.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_model::node::NodeAddress;
use lockstep_model::{HostPort, Timestamp};
use lockstep_proto::v1;
use lockstep_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use lockstep_transport::dial::{self, DialError};
use lockstep_transport::durable;
use lockstep_transport::identity::{Identity, IdentityError, disk};
use lockstep_transport::tls::Caller;
use lockstep_transport::token::{self, JoinToken};
use tokio::time::timeout;

use crate::config;
use crate::identity;
use crate::link;
use crate::lock::{DataDirLock, LockError};

/// Where the new key waits for its certificate.
const JOINING: &str = "joining";
/// What `--replace` found goes here, in place of what an earlier one put there.
const BEFORE: &str = "before";
/// What an agent remembers, and a new identity begins without.
const MEMORIES: [&str; 5] = ["ledger", "sync", "told", link::CONTROLLERS, link::expulsion::FILE];
const ENROLL_TIMEOUT: Duration = Duration::from_secs(20);

/// What a person asked for.
#[derive(Clone, Debug)]
pub struct Wish {
    pub controllers: Vec<HostPort>,
    pub token: JoinToken,
    pub data_dir: PathBuf,
    pub listen: Option<SocketAddr>,
    pub advertise: Vec<NodeAddress>,
    pub replace: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Joined {
    /// `spiffe://prod/node/web1`
    pub spiffe_id: String,
    pub not_after: Timestamp,
    pub config: PathBuf,
    /// A config file was there; it was left as it is.
    pub config_kept: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(
        "this machine is {who} already; to give it another identity use --replace, or another --data-dir"
    )]
    Joined { who: String },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot join: {0}")]
    Dial(#[from] DialError),
    #[error("the controller refuses to let us in: {0}")]
    Refused(String),
    #[error(
        "the answer was lost: {0}; give the same command again, the token still works for this machine"
    )]
    Lost(String),
    #[error("the token is for {0}, not for a node; use it with lockstepctl")]
    NotNode(String),
    #[error("{file}: {source}")]
    Io { file: String, source: io::Error },
}

fn io_error(path: &Path, source: io::Error) -> JoinError {
    JoinError::Io { file: path.display().to_string(), source }
}

/// Nothing of an earlier identity is touched before the new one is complete.
pub async fn join(wish: Wish) -> Result<Joined, JoinError> {
    let _lock = DataDirLock::take(&wish.data_dir)?;
    let home = wish.data_dir.join(identity::DIR);
    if disk::exists(&home) && !wish.replace {
        let loaded = disk::load(&home).map(|i| i.spiffe.to_string());
        let who = loaded.unwrap_or_else(|_| "a node".to_owned());
        return Err(JoinError::Joined { who });
    }
    if wish.token.id().as_str().starts_with(token::FOR_USER) {
        return Err(JoinError::NotNode("a user".to_owned()));
    }
    let joining = wish.data_dir.join(JOINING);
    let identity = enroll(&wish, &joining).await?;
    if let Err(identity::RenewError::NotNode(subject)) = identity::node_name(&identity) {
        return Err(JoinError::NotNode(subject.to_string()));
    }
    disk::save(&joining, &identity)?;
    put_in_place(&wish.data_dir, &joining, &home)?;
    let config = wish.data_dir.join(config::FILE);
    let config_kept = config.exists();
    if !config_kept {
        let text = config::write(&wish.controllers, wish.listen, &wish.advertise);
        durable::write(&config, text.as_bytes()).map_err(|e| io_error(&config, e))?;
    }
    let (spiffe_id, not_after) = (identity.spiffe.to_string(), identity.not_after);
    Ok(Joined { spiffe_id, not_after, config, config_kept })
}

async fn enroll(wish: &Wish, joining: &Path) -> Result<Identity, JoinError> {
    let token = &wish.token;
    let csr = disk::load_or_make_key(joining)?.request().map_err(IdentityError::Key)?;
    let caller = Caller::Guest { root_sha256: token.root_sha256() };
    let channel = dial::connect(&wish.controllers, &caller).await?;
    let (token_id, token_secret) = (token.id().to_string(), token.secret().to_vec());
    let request = v1::EnrollRequest { token_id, token_secret, csr };
    let mut client = EnrollmentServiceClient::new(channel);
    let answer = timeout(ENROLL_TIMEOUT, client.enroll(request)).await;
    let answer = answer.map_err(|_| JoinError::Lost("it took too long".to_owned()))?;
    let v1::EnrollResponse { spiffe_id: _, chain, trust_bundle, expires_at: _ } =
        answer.map_err(refusal)?.into_inner();
    let roots = trust_bundle.unwrap_or_default().roots;
    Ok(Identity::from_der(disk::load_or_make_key(joining)?, chain, roots)?)
}

fn refusal(status: tonic::Status) -> JoinError {
    let text = status.message().to_owned();
    match status.code() {
        tonic::Code::Unavailable
        | tonic::Code::DeadlineExceeded
        | tonic::Code::Cancelled
        | tonic::Code::Unknown => JoinError::Lost(text),
        _ => JoinError::Refused(text),
    }
}

/// By one rename, so there is never half an identity. What was remembered under the former one goes
/// first: no peer knows the new key by it, and another fleet's tasks must not meet it.
fn put_in_place(data_dir: &Path, joining: &Path, home: &Path) -> Result<(), JoinError> {
    MEMORIES.iter().try_for_each(|name| set_aside(data_dir, name))?;
    set_aside(data_dir, identity::DIR)?;
    fs::rename(joining, home).map_err(|e| io_error(home, e))
}

fn set_aside(data_dir: &Path, name: &str) -> Result<(), JoinError> {
    let from = data_dir.join(name);
    if !from.exists() {
        return Ok(());
    }
    let before = data_dir.join(BEFORE);
    fs::create_dir_all(&before).map_err(|e| io_error(&before, e))?;
    let to = before.join(name);
    let removed = match fs::symlink_metadata(&to) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(&to),
        Ok(_) => fs::remove_file(&to),
        Err(_) => Ok(()),
    };
    removed.and_then(|()| fs::rename(&from, &to)).map_err(|e| io_error(&to, e))
}

#[cfg(test)]
mod tests;
