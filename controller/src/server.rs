//! Puts the controller together: the loop, the TLS port with its services, the health port; and takes
//! it apart again in the right order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::Reject;
use lockstep_model::identity::Subject;
use lockstep_plan::authorize::authenticate;
use lockstep_proto::{DESCRIPTORS, v1};
use lockstep_transport::accept::{Gate, Limits, accept};
use lockstep_transport::certificate::PeerCert;
use lockstep_transport::clock;
use lockstep_transport::connections::Connections;
use lockstep_transport::health::{self as health_port, HealthBoard, READY, Verdict};
use lockstep_transport::plain_http;
use lockstep_transport::tls::Alpn;
use lockstep_transport::verify::ClientPolicy;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Router;
use tonic::transport::{Error as ServeError, Server};
use tower_layer::{Identity, Stack};

use crate::config::Config;
use crate::driver::{BeginError, Driver, DriverHandle, Fatal};
use crate::identity::authority::{Authority, AuthorityConfig, AuthorityError};
use crate::identity::draw;
use crate::identity::vault::{Vault, VaultError};
use crate::service::Api;
use crate::session::{Goodbye, SessionConfig};
use crate::store::{Store, StoreError};
use crate::{authn, health, push};

/// Below the data directory.
pub const CA_DIR: &str = "ca";
/// The name in the controller's certificate, as long as a fleet has one controller.
const CONTROLLER_NAME: &str = "main";

/// Longest request, in bytes: a thousand targets with long paths.
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Longest header list of a request, in bytes.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Most calls at once on one connection, streams included,
const STREAMS_MAX: u32 = 128;
/// and most that wait for their answer's beginning.
const CALLS_MAX: usize = 64;
/// A call's answer begins within this; streams then go on.
const CALL_MAX: Duration = Duration::from_secs(30);
/// A peer that is gone is noticed after at most the sum of both.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long calls and sessions may take to end after the shutdown began.
const DRAIN_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the store has no fleet; run `lockstep-controller init`")]
    NoFleet,
    #[error(transparent)]
    Begin(#[from] BeginError),
    #[error(transparent)]
    NoRandomness(#[from] Reject),
    #[error("cannot listen on {at}: {source}")]
    Listen { at: SocketAddr, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("passwords: {0}")]
    Vault(#[from] VaultError),
    #[error("{0}")]
    Name(#[from] lockstep_model::Invalid),
    #[error("reflection: {0}")]
    Reflection(String),
}

/// A controller that serves.
pub struct Controller {
    pub addr: SocketAddr,
    pub health_addr: SocketAddr,
    /// None: no pushes are listened for.
    pub push_addr: Option<SocketAddr>,
    pub board: HealthBoard,
    driver: DriverHandle,
    looping: JoinHandle<Result<(), Fatal>>,
    serving: JoinHandle<Result<(), ServeError>>,
    /// What runs beside; ended by dropping it.
    _beside: JoinSet<()>,
    connections: Connections,
    tracker: TaskTracker,
    shutdown: CancellationToken,
}

impl Controller {
    pub async fn start(config: &Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let connections = Connections::default();
        let (mut driver_loop, driver) = Driver::load(store, connections.clone()).await?;
        driver_loop.limit(config.pulls.clone());
        let fleet = driver.read(|world| world.fleet().map(|fleet| fleet.value.name.clone()));
        let own = AuthorityConfig {
            dir: config.data_dir.join(CA_DIR),
            fleet: fleet.ok_or(StartError::NoFleet)?,
            name: CONTROLLER_NAME.parse()?,
            leaf_life: config.leaf_life,
        };
        let authority = Arc::new(Authority::open(own, clock::now())?);
        let vault = open_vault(config, &driver)?;
        let listener = listen(config.listen).await?;
        let health_listener = listen(config.health_listen).await?;
        let push_listener = match config.push_listen {
            Some(at) => Some(listen(at).await?),
            None => None,
        };
        let push_addr = push_listener.as_ref().zip(config.push_listen);
        let push_addr = push_addr.map(|(listener, at)| local_addr(listener, at)).transpose()?;
        let addr = local_addr(&listener, config.listen)?;
        let health_addr = local_addr(&health_listener, config.health_listen)?;

        // All that could fail for a reason of the place is done: from here it serves.
        driver_loop.begin(draw::life()?).await?;
        let (board, tracker, shutdown) =
            (HealthBoard::new(), TaskTracker::new(), CancellationToken::new());
        let sessions = Arc::new(SessionConfig {
            driver: driver.clone(),
            authority: authority.clone(),
            vault,
            heartbeat: config.heartbeat,
            controllers: config.advertise.clone(),
        });
        let api = Api::new(sessions, clock::now(), tracker.clone(), shutdown.clone());
        let gate = Gate {
            identity: authority.identity().clone(),
            policy: policy(driver.clone()),
            alpn: Alpn::Grpc,
            limits: Limits::default(),
            connections: connections.clone(),
        };
        let router = router(&driver, api, &board, &shutdown)?;
        let incoming = accept(listener, gate);
        let stopped = shutdown.clone().cancelled_owned();
        let serving = tokio::spawn(router.serve_with_incoming_shutdown(incoming, stopped));
        let looping = tokio::spawn(driver_loop.run());

        let mut beside = JoinSet::new();
        beside.spawn(async move { authority.keep().await });
        beside.spawn(health::watch(board.clone(), driver.clone()));
        beside.spawn(health_port::serve(
            health_listener,
            board.clone(),
            axum::Router::new(),
            shutdown.clone(),
        ));
        if let Some(listener) = push_listener {
            let router = push::router(driver.clone());
            beside.spawn(plain_http::serve(listener, router, shutdown.clone()));
        }
        tracing::info!(%addr, %health_addr, version = crate::VERSION, "controller serves");
        Ok(Self {
            addr,
            health_addr,
            push_addr,
            board,
            driver,
            looping,
            serving,
            _beside: beside,
            connections,
            tracker,
            shutdown,
        })
    }

    /// Serves until `stop`, then says goodbye to everyone; or until the loop cannot go on.
    pub async fn run_until(mut self, stop: impl Future<Output = ()>) -> Result<(), Fatal> {
        tokio::select! {
            () = stop => {}
            ended = &mut self.looping => return flatten(ended),
        }
        tracing::info!("controller stops");
        self.board.set(READY, Verdict::NotServing, "stopping");
        let goodbye =
            Goodbye::new("shutting_down", "the controller stops; it comes back, or another does");
        self.driver.sessions().say_goodbye(&goodbye);
        self.shutdown.cancel();
        self.tracker.close();
        let drained = timeout(DRAIN_MAX, async {
            self.tracker.wait().await;
            let _ = (&mut self.serving).await; // it ends either way
        });
        if drained.await.is_err() {
            tracing::warn!(open = self.connections.count(), "cutting what did not end in time");
        }
        self.connections.close_all();
        self.driver.stop().await;
        flatten(self.looping.await)
    }
}

/// A key that is gone keeps nobody from all else.
fn open_vault(config: &Config, driver: &DriverHandle) -> Result<Arc<Vault>, VaultError> {
    let of: Vec<String> = driver.read(|world| {
        let mirrors = world.secrets().keys().map(|name| format!("mirror/{name}"));
        let clusters = world.cluster_secrets().keys().map(|name| format!("cluster/{name}"));
        mirrors.chain(clusters).collect()
    });
    let vault = Vault::open(&config.data_dir, !of.is_empty())?;
    if !vault.is_open() {
        tracing::error!(
            key = %vault.path().display(), of = of.join(", "),
            "the key of the passwords is gone; these mirrors cannot pull, and the members of these \
             clusters are told nothing new: put its copy back and start anew"
        );
    }
    Ok(Arc::new(vault))
}

/// A loop that panicked is a loop that cannot go on.
fn flatten(ended: Result<Result<(), Fatal>, tokio::task::JoinError>) -> Result<(), Fatal> {
    ended.unwrap_or_else(|error| Err(Fatal::Unknown(error.to_string())))
}

async fn listen(at: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(at).await.map_err(|source| StartError::Listen { at, source })
}

fn local_addr(listener: &TcpListener, at: SocketAddr) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Listen { at, source })
}

/// Strangers may come to join. An expired certificate of a node passes as long as its record holds
/// its key: revocation removes a node, not a controller that was away for too long.
fn policy(driver: DriverHandle) -> ClientPolicy {
    let accept_expired = move |peer: &PeerCert| {
        matches!(peer.spiffe.subject, Subject::Node(_))
            && driver.read(|world| authenticate(world, &peer.principal()).is_ok())
    };
    ClientPolicy { anonymous: true, accept_expired: Arc::new(accept_expired) }
}

fn router(
    driver: &DriverHandle,
    api: Api,
    board: &HealthBoard,
    shutdown: &CancellationToken,
) -> Result<Router<Stack<authn::Gate, Identity>>, StartError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| StartError::Reflection(e.to_string()))?;
    macro_rules! service {
        ($server:path) => {
            <$server>::new(api.clone()).max_decoding_message_size(REQUEST_BYTES_MAX)
        };
    }
    Ok(Server::builder()
        .layer(authn::Gate { driver: driver.clone() })
        .concurrency_limit_per_connection(CALLS_MAX)
        .timeout(CALL_MAX)
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .add_service(board.grpc_service(shutdown.clone()))
        .add_service(reflection)
        .add_service(service!(v1::agent_service_server::AgentServiceServer<Api>))
        .add_service(service!(v1::enrollment_service_server::EnrollmentServiceServer<Api>))
        .add_service(service!(v1::node_service_server::NodeServiceServer<Api>))
        .add_service(service!(v1::token_service_server::TokenServiceServer<Api>))
        .add_service(service!(v1::user_service_server::UserServiceServer<Api>))
        .add_service(service!(v1::sync_service_server::SyncServiceServer<Api>))
        .add_service(service!(v1::mirror_service_server::MirrorServiceServer<Api>))
        .add_service(service!(v1::cluster_service_server::ClusterServiceServer<Api>))
        .add_service(service!(v1::schedule_service_server::ScheduleServiceServer<Api>))
        .add_service(service!(v1::task_service_server::TaskServiceServer<Api>))
        .add_service(service!(v1::log_service_server::LogServiceServer<Api>))
        .add_service(service!(v1::store_service_server::StoreServiceServer<Api>))
        .add_service(service!(v1::status_service_server::StatusServiceServer<Api>)))
}
