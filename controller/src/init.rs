//! What is done by hand on the controller's own machine while it does not run: the first set-up, and
//! a token for an admin who lost every other way in. Requests take the same road as over the wire.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use lockstep_model::identity::{Role, TokenFor};
use lockstep_model::record::{Actor, Fleet, Record, Txn, Write};
use lockstep_model::request::Request;
use lockstep_model::{FleetName, HostPort, Reject, Revision, Timestamp, UserName};
use lockstep_plan::World;
use lockstep_plan::admit::{TOKEN_TTL_MAX, admit};
use lockstep_transport::durable;
use lockstep_transport::token::JoinToken;

use crate::config::CONFIG_FILE;
use crate::identity::ca::{Ca, CaError};
use crate::identity::draw;
use crate::server::CA_DIR;
use crate::store::{CommitError, STORE_DIR, SledStore, Store, StoreError};

/// The user that `init` makes.
pub const FIRST_ADMIN: &str = "admin";

#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Rejected(#[from] Reject),
    #[error("{0}")]
    Invalid(#[from] lockstep_model::Invalid),
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("CA: {0}")]
    Ca(#[from] CaError),
    #[error("store: {0}")]
    Store(#[from] StoreError),
    #[error("store: {0}")]
    Commit(#[from] CommitError),
}

/// What `init` is told.
#[derive(Clone, Debug)]
pub struct Setup {
    pub data_dir: PathBuf,
    pub fleet: FleetName,
    pub listen: SocketAddr,
    pub advertise: Vec<HostPort>,
}

impl Setup {
    /// Where people reach the controller, as far as can be told from here.
    pub fn address(&self) -> String {
        if let Some(first) = self.advertise.first() {
            return first.to_string();
        }
        let ip = self.listen.ip();
        let host = match ip.is_unspecified() {
            false => return self.listen.to_string(),
            true => host_name(),
        };
        format!("{host}:{}", self.listen.port())
    }
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { IpAddr::from([127, 0, 0, 1]).to_string() } else { name }
}

/// Makes what the data directory holds: CA, store, first admin, config file. It is made in a draft
/// below the directory, which may be a mount point or the only place its user may write, and moved
/// into place when it is whole. Returns the admin's token.
pub async fn init(setup: &Setup, now: Timestamp) -> Result<JoinToken, InitError> {
    let dir = &setup.data_dir;
    let existed = check_is_free(dir)?;
    let draft = dir.join(DRAFT);
    let made = async {
        remove(&draft).map_err(at(&draft))?;
        durable::make_secret_dir(&draft).map_err(at(&draft))?;
        let token = fill(&draft, setup, now).await?;
        for name in PARTS {
            fs::rename(draft.join(name), dir.join(name)).map_err(at(&dir.join(name)))?;
        }
        remove(&draft).map_err(at(&draft))?;
        durable::sync_dir(dir).map_err(at(dir))?;
        Ok(token)
    }
    .await;
    if made.is_err() {
        // What was made is of no use; that it cannot be removed is no second error.
        for name in PARTS.into_iter().chain([DRAFT]) {
            let _ = remove(&dir.join(name));
        }
        if !existed {
            let _ = fs::remove_dir(dir);
        }
    }
    made
}

/// Below the data directory, while it is filled.
const DRAFT: &str = ".init";
/// What `init` makes, in the order it is moved into place: without a store nothing else counts.
const PARTS: [&str; 3] = [CA_DIR, CONFIG_FILE, STORE_DIR];

fn at(path: &Path) -> impl Fn(io::Error) -> InitError + use<> {
    let path = path.display().to_string();
    move |source| InitError::Io { path: path.clone(), source }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

/// Whether the directory exists. It may hold nothing but the draft of a try that was broken off, and
/// what every fresh file system has.
fn check_is_free(dir: &Path) -> Result<bool, InitError> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(at(dir))?,
    };
    for entry in entries {
        let name = entry.map_err(at(dir))?.file_name();
        if name != DRAFT && name != "lost+found" {
            return Err(InitError::Refused(format!(
                "{} is not empty, it holds {name:?}; `lockstep-controller run --data-dir` starts a fleet that is there, \
                 a new one needs an empty directory",
                dir.display()
            )));
        }
    }
    Ok(true)
}

async fn fill(draft: &Path, setup: &Setup, now: Timestamp) -> Result<JoinToken, InitError> {
    let ca = Ca::create(&draft.join(CA_DIR), &setup.fleet, now)?;
    let mut desk = Desk::create(draft).await?;
    let fleet =
        Fleet { name: setup.fleet.clone(), incarnation: draw::incarnation()?, created_at: now };
    desk.write("init", vec![Write::Put(Record::Fleet(fleet))], now).await?;
    let token = desk.let_admin_in(&FIRST_ADMIN.parse()?, ca.root_sha256(), "init", now).await?;
    let config = draft.join(CONFIG_FILE);
    durable::write_secret(&config, config_text(setup).as_bytes()).map_err(at(&config))?;
    Ok(token)
}

fn config_text(setup: &Setup) -> String {
    let Setup { data_dir, fleet, listen, advertise } = setup;
    let advertise: Vec<String> = advertise.iter().map(|at| format!("\"{at}\"")).collect();
    let comment = if advertise.is_empty() { "# " } else { "" };
    format!(
        "# The controller of fleet {fleet}. All settings: lockstep-controller run --help\n\
         data-dir = {:?}\nlisten = \"{listen}\"\n{comment}advertise = [{}]\n",
        data_dir.display().to_string(),
        advertise.join(", "),
    )
}

/// A token for an admin, made on the store's own machine: the user is made, enabled and given the
/// role, whatever it was.
pub async fn admin_token(
    data_dir: &Path,
    user: &UserName,
    now: Timestamp,
) -> Result<JoinToken, InitError> {
    let mut desk = Desk::open(data_dir).await?;
    let Some(fleet) = desk.world.fleet().map(|fleet| fleet.value.name.clone()) else {
        return Err(InitError::Refused(
            "the store has no fleet; run `lockstep-controller init`".into(),
        ));
    };
    let ca = Ca::load(&data_dir.join(CA_DIR), &fleet, now)?;
    desk.let_admin_in(user, ca.root_sha256(), "admin-token", now).await
}

/// A store and its world, without a controller.
struct Desk {
    store: SledStore,
    world: World,
}

impl Desk {
    async fn create(dir: &Path) -> Result<Self, InitError> {
        Self::with(SledStore::create(dir)?).await
    }

    async fn open(dir: &Path) -> Result<Self, InitError> {
        Self::with(SledStore::open(dir)?).await
    }

    async fn with(store: SledStore) -> Result<Self, InitError> {
        let snapshot = store.snapshot().await?;
        let world = World::from_records(snapshot.revision, snapshot.records.into_values());
        Ok(Self { store, world })
    }

    async fn write(
        &mut self,
        cause: &str,
        writes: Vec<Write>,
        now: Timestamp,
    ) -> Result<(), InitError> {
        let (base, cause) = (self.world.revision(), cause.to_owned());
        let txn =
            Txn { base, raise_to: Revision::ZERO, at: now, actor: Actor::Offline, cause, writes };
        let change = self.store.commit(txn).await?;
        self.world.apply(&change);
        Ok(())
    }

    async fn carry_out(
        &mut self,
        cause: &str,
        request: Request,
        now: Timestamp,
    ) -> Result<(), InitError> {
        let admitted = admit(&self.world, &Actor::Offline, &request, now)?;
        if admitted.writes.is_empty() {
            return Ok(());
        }
        self.write(cause, admitted.writes, now).await
    }

    async fn let_admin_in(
        &mut self,
        user: &UserName,
        root_sha256: [u8; 32],
        cause: &str,
        now: Timestamp,
    ) -> Result<JoinToken, InitError> {
        let (name, role) = (user.clone(), Role::Admin);
        let steps = match self.world.users().contains_key(user) {
            false => vec![Request::AddUser { name, role }],
            true => vec![
                Request::SetUserDisabled { name: name.clone(), disabled: false },
                Request::SetUserRole { name, role },
            ],
        };
        for request in steps {
            self.carry_out(cause, request, now).await?;
        }
        let grants = TokenFor::User { name: user.clone() };
        let token = draw::token(&grants, root_sha256)?;
        let request = Request::CreateToken {
            id: token.id().clone(),
            secret_sha256: token.secret_sha256(),
            grants,
            ttl: TOKEN_TTL_MAX,
        };
        self.carry_out(cause, request, now).await?;
        Ok(token)
    }
}

#[cfg(test)]
mod tests;
