//! A real controller on loopback, with the sled store in a directory of its own, and what tests need
//! to speak to it. It runs on a runtime of its own, so that killing it is as abrupt as a process's
//! end: nothing is said, nothing is flushed, no task goes on.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lockstep_controller::config::{Config, TABLE};
use lockstep_controller::init::{Setup, init};
use lockstep_controller::server::Controller;
use lockstep_controller::store::{SledStore, StoreError};
use lockstep_model::HostPort;
use lockstep_proto::status::{Refusal, read};
use lockstep_proto::v1;
use lockstep_proto::v1::enrollment_service_client::EnrollmentServiceClient;
use lockstep_proto::v1::token_service_client::TokenServiceClient;
use lockstep_transport::clock;
use lockstep_transport::dial;
use lockstep_transport::identity::{Identity, IdentityHandle};
use lockstep_transport::keys::PrivateKey;
use lockstep_transport::tls::Caller;
use lockstep_transport::token::JoinToken;
use lockstep_transport::verify::Expect;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;
use tonic::transport::Channel;

/// Longest that anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Fleet {
    pub dir: TempDir,
    pub admin: Member,
    /// Settings, as flags.
    settings: Vec<(String, String)>,
    running: Option<Running>,
}

struct Running {
    runtime: Runtime,
    address: HostPort,
    push: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<(), String>>,
}

/// Someone with a certificate.
#[derive(Clone)]
pub struct Member {
    pub identity: IdentityHandle,
}

impl Fleet {
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup {
            data_dir: dir.path().join("data"),
            fleet: "test".parse().unwrap(),
            listen: "127.0.0.1:0".parse().unwrap(),
            advertise: Vec::new(),
        };
        let token = init(&setup, clock::now()).await.unwrap();
        let own = [
            ("data-dir", setup.data_dir.to_str().unwrap()),
            ("listen", "127.0.0.1:0"),
            ("health-listen", "127.0.0.1:0"),
        ];
        let settings = own.iter().chain(settings);
        let settings: Vec<_> = settings.map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let running = Some(run(&settings).await);
        let guest = guest(running.as_ref().unwrap(), &token).await;
        let admin = enroll_with(guest, &token, PrivateKey::generate().unwrap()).await.unwrap();
        Self { dir, admin, settings, running }
    }

    pub fn address(&self) -> HostPort {
        self.running.as_ref().unwrap().address.clone()
    }

    /// Where pushes are listened for.
    pub fn push_address(&self) -> SocketAddr {
        self.running.as_ref().unwrap().push.unwrap()
    }

    /// As a SIGKILL would.
    pub fn kill(&mut self) {
        self.running.take().unwrap().runtime.shutdown_background();
    }

    /// As a SIGTERM would.
    pub async fn stop(&mut self) -> Result<(), String> {
        let Running { runtime, stop, ended, .. } = self.running.take().unwrap();
        let _ = stop.send(());
        let ended = timeout(PATIENCE, ended).await.expect("the controller ends").unwrap();
        runtime.shutdown_background();
        ended
    }

    pub async fn restart(&mut self) {
        self.running = Some(run(&self.settings).await);
    }

    pub fn data_dir(&self) -> PathBuf {
        self.settings[0].1.clone().into()
    }

    /// The next start is on another directory.
    pub fn move_to(&mut self, data_dir: &Path) {
        self.settings[0].1 = data_dir.to_str().unwrap().to_owned();
    }

    pub async fn guest(&self, token: &JoinToken) -> Channel {
        guest(self.running.as_ref().unwrap(), token).await
    }

    pub async fn channel(&self, member: &Member) -> Channel {
        self.try_channel(member).await.unwrap()
    }

    pub async fn try_channel(&self, member: &Member) -> Result<Channel, String> {
        let caller =
            Caller::Member { identity: member.identity.clone(), expect: Expect::Controller };
        dial::connect(&[self.address()], &caller).await.map_err(|e| e.to_string())
    }

    pub async fn admin(&self) -> Channel {
        self.channel(&self.admin).await
    }

    pub async fn token(&self, request: v1::CreateTokenRequest) -> JoinToken {
        let mut tokens = TokenServiceClient::new(self.admin().await);
        tokens.create_token(request).await.unwrap().into_inner().text.parse().unwrap()
    }

    pub async fn node_token(&self, name: &str) -> JoinToken {
        let node = v1::create_token_request::For::Node(name.to_owned());
        self.token(v1::CreateTokenRequest { r#for: Some(node), ..Default::default() }).await
    }

    /// A node that has joined.
    pub async fn join(&self, name: &str) -> Member {
        let token = self.node_token(name).await;
        self.enroll(&token, PrivateKey::generate().unwrap()).await.unwrap()
    }

    pub async fn enroll(&self, token: &JoinToken, key: PrivateKey) -> Result<Member, Refusal> {
        enroll_with(self.guest(token).await, token, key).await
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.runtime.shutdown_background();
        }
    }
}

async fn run(settings: &[(String, String)]) -> Running {
    let config = Config::from_values(&TABLE.load(None, [], settings.to_vec()).unwrap()).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel();
    let (started, addresses) = oneshot::channel();
    runtime.spawn(async move {
        // The one before may not have let go of the directory yet.
        let start = Instant::now();
        let store = loop {
            match SledStore::open(&config.data_dir) {
                Ok(store) => break store,
                Err(StoreError::InUse { .. }) if start.elapsed() < PATIENCE => {
                    sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        let controller = Controller::start(&config, Arc::new(store)).await.unwrap();
        let _ = started.send((controller.addr, controller.push_addr));
        let served = controller.run_until(async {
            let _ = stopped.await;
        });
        let _ = end.send(served.await.map_err(|e| e.to_string()));
    });
    let addresses = timeout(PATIENCE, addresses).await.expect("the controller starts");
    let (address, push) = addresses.unwrap();
    let address = HostPort::new(&address.ip().to_string(), address.port()).unwrap();
    Running { runtime, address, push, stop, ended }
}

async fn guest(running: &Running, token: &JoinToken) -> Channel {
    let caller = Caller::Guest { root_sha256: token.root_sha256() };
    dial::connect(std::slice::from_ref(&running.address), &caller).await.unwrap()
}

pub fn enroll_request(token: &JoinToken, key: &PrivateKey) -> v1::EnrollRequest {
    v1::EnrollRequest {
        token_id: token.id().to_string(),
        token_secret: token.secret().to_vec(),
        csr: key.request().unwrap(),
    }
}

async fn enroll_with(
    channel: Channel,
    token: &JoinToken,
    key: PrivateKey,
) -> Result<Member, Refusal> {
    let request = enroll_request(token, &key);
    let answer = EnrollmentServiceClient::new(channel).enroll(request).await;
    let v1::EnrollResponse { chain, trust_bundle, .. } = answer.map_err(|s| read(&s))?.into_inner();
    let roots = trust_bundle.unwrap().roots;
    let identity = Identity::from_der(key, chain, roots).unwrap();
    Ok(Member { identity: IdentityHandle::new(identity) })
}

/// The stable word of a refusal.
pub fn reason<T>(result: Result<T, Status>) -> String {
    match result {
        Ok(_) => "accepted".to_owned(),
        Err(status) => read(&status).reason,
    }
}

/// Looks again until it finds what it looks for.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
