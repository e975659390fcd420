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
use lockstep_transport::token::JoinToken;

use crate::config::CONFIG_FILE;
use crate::identity::ca::{Ca, CaError};
use crate::identity::{draw, files};
use crate::server::CA_DIR;
use crate::store::sled::SledStore;
use crate::store::{CommitError, Store, StoreError};

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

/// Makes the data directory: CA, store, first admin, config file. It appears whole or not at all.
/// Returns the admin's token.
pub async fn init(setup: &Setup, now: Timestamp) -> Result<JoinToken, InitError> {
    let dir = &setup.data_dir;
    let at = |path: &Path| {
        let path = path.display().to_string();
        move |source| InitError::Io { path, source }
    };
    check_is_free(dir)?;
    let parent = dir.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(at(parent))?;
    let name = dir.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let draft = parent.join(format!(".{name}.init-{}", std::process::id()));
    files::make_dir(&draft).map_err(at(&draft))?;
    let made = async {
        let token = fill(&draft, setup, now).await?;
        fs::rename(&draft, dir).map_err(|source| match source.kind() {
            io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices => InitError::Refused(
                format!("{} is a mount point; name a directory inside of it", dir.display()),
            ),
            _ => at(dir)(source),
        })?;
        files::sync_dir(parent).map_err(at(parent))?;
        Ok(token)
    }
    .await;
    if made.is_err() {
        // What was made is of no use; that it cannot be removed is no second error.
        let _ = fs::remove_dir_all(&draft);
    }
    made
}

fn check_is_free(dir: &Path) -> Result<(), InitError> {
    match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(InitError::Io { path: dir.display().to_string(), source }),
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(InitError::Refused(format!(
                "{} is not empty; `lockstep-controller run --data-dir` starts what is there, a new fleet needs an \
                 empty directory",
                dir.display()
            ))),
        },
    }
}

async fn fill(draft: &Path, setup: &Setup, now: Timestamp) -> Result<JoinToken, InitError> {
    let ca = Ca::create(&draft.join(CA_DIR), &setup.fleet, now)?;
    let mut desk = Desk::create(draft).await?;
    let fleet =
        Fleet { name: setup.fleet.clone(), incarnation: draw::incarnation()?, created_at: now };
    desk.write("init", vec![Write::Put(Record::Fleet(fleet))], now).await?;
    let token = desk.let_admin_in(&FIRST_ADMIN.parse()?, ca.root_sha256(), "init", now).await?;
    let config = draft.join(CONFIG_FILE);
    files::write(&config, &config_text(setup))
        .map_err(|source| InitError::Io { path: config.display().to_string(), source })?;
    files::sync_dir(draft)
        .map_err(|source| InitError::Io { path: draft.display().to_string(), source })?;
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
        let token = draw::token(root_sha256)?;
        let request = Request::CreateToken {
            id: token.id().clone(),
            secret_sha256: token.secret_sha256(),
            grants: TokenFor::User { name: user.clone() },
            ttl: TOKEN_TTL_MAX,
        };
        self.carry_out(cause, request, now).await?;
        Ok(token)
    }
}
