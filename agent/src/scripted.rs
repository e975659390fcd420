//! A controller whose every word a test decides: real mTLS, real gRPC, no brain.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockstep_model::HostPort;
use lockstep_model::identity::Subject;
use lockstep_proto::v1;
use lockstep_proto::v1::agent_message::Kind as Said;
use lockstep_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use lockstep_proto::v1::controller_message::Kind as Say;
use lockstep_proto::v1::enrollment_service_server::{EnrollmentService, EnrollmentServiceServer};
use lockstep_transport::accept::{Gate, Limits, accept};
use lockstep_transport::connections::Connections;
use lockstep_transport::keys::read_request;
use lockstep_transport::test_ca::{Dates, TestCa};
use lockstep_transport::tls::Alpn;
use lockstep_transport::verify::ClientPolicy;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Longer than anything here takes; only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

type Answer<T> = Result<T, Status>;
type Enroll = Box<dyn Fn(&v1::EnrollRequest) -> Answer<Subject> + Send>;

/// What a test decides of certificates.
pub struct Script {
    pub enroll: Enroll,
    pub renew: Answer<Dates>,
    /// CSRs of each call, whatever was answered.
    pub requests: Vec<Vec<u8>>,
    /// The answer to an Enroll is made, and then lost.
    pub lose_answers: usize,
}

pub struct Controller {
    pub address: HostPort,
    pub ca: Arc<TestCa>,
    pub connections: Connections,
    pub script: Arc<Mutex<Script>>,
    sessions: mpsc::Receiver<Session>,
    task: AbortHandle,
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.task.abort();
        self.connections.close_all();
    }
}

/// One stream of an agent, after its Hello.
pub struct Session {
    pub hello: v1::Hello,
    said: Streaming<v1::AgentMessage>,
    say: mpsc::Sender<Result<v1::ControllerMessage, Status>>,
}

impl Controller {
    pub async fn start(ca: Arc<TestCa>) -> Self {
        Self::start_at("127.0.0.1:0", ca).await
    }

    pub async fn start_at(address: &str, ca: Arc<TestCa>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let connections = Connections::default();
        let gate = Gate {
            identity: ca.controller(),
            policy: ClientPolicy { anonymous: true, ..ClientPolicy::members() },
            alpn: Alpn::Grpc,
            limits: Limits::default(),
            connections: connections.clone(),
        };
        let script = Arc::new(Mutex::new(Script {
            enroll: Box::new(|_| Err(Status::unauthenticated("no tokens today"))),
            renew: Ok(Dates::GOOD),
            requests: Vec::new(),
            lose_answers: 0,
        }));
        let (opened, sessions) = mpsc::channel(8);
        let service = Service {
            opened,
            ca: ca.clone(),
            script: script.clone(),
            connections: connections.clone(),
        };
        let serving = tonic::transport::Server::builder()
            .add_service(AgentServiceServer::new(service.clone()))
            .add_service(EnrollmentServiceServer::new(service))
            .serve_with_incoming(accept(listener, gate));
        let task = tokio::spawn(serving).abort_handle();
        Self { address, ca, connections, script, sessions, task }
    }

    /// The next stream, not welcomed yet.
    pub async fn session(&mut self) -> Session {
        timeout(PATIENCE, self.sessions.recv()).await.expect("an agent comes in time").unwrap()
    }

    /// The next stream, welcomed.
    pub async fn welcomed(&mut self) -> Session {
        let session = self.session().await;
        session.say(Say::Welcome(welcome())).await;
        session
    }

    pub fn cut(&self) {
        assert!(self.connections.close_all() > 0, "there was something to cut");
    }

    pub fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().unwrap())
    }
}

pub fn welcome() -> v1::Welcome {
    v1::Welcome {
        version: "0.1.0".into(),
        incarnation: 7,
        revision: 1,
        heartbeat_ms: 200,
        ..v1::Welcome::default()
    }
}

impl Session {
    pub async fn say(&self, kind: Say) {
        let message = v1::ControllerMessage { kind: Some(kind) };
        self.say.send(Ok(message)).await.expect("the stream lives");
    }

    /// Ends the stream with an error.
    pub async fn refuse(self, status: Status) {
        self.say.send(Err(status)).await.expect("the stream lives");
    }

    /// Says it until the stream ends; for heartbeats beside a test.
    pub fn keep_beating(&self) {
        let say = self.say.clone();
        tokio::spawn(async move {
            let beat = Say::Heartbeat(v1::Heartbeat { revision: 1 });
            let message = v1::ControllerMessage { kind: Some(beat) };
            while say.send(Ok(message.clone())).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }

    /// The next thing said that is no heartbeat and no report of the node; None at the end.
    pub async fn next(&mut self) -> Option<Said> {
        loop {
            let said = timeout(PATIENCE, self.said.message()).await.expect("something is said");
            match said.ok()??.kind.unwrap() {
                Said::Heartbeat(_) | Said::NodeReport(_) => {}
                said => return Some(said),
            }
        }
    }

    /// How the next end of a task is told.
    pub async fn task_end(&mut self) -> (String, v1::OutcomeKind, String) {
        loop {
            match self.next().await.expect("the stream lives") {
                Said::TaskEnd(v1::TaskEnd { id, outcome }) => {
                    let outcome = outcome.unwrap();
                    return (id, outcome.kind(), outcome.message);
                }
                Said::TaskUpdate(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Waits for so many heartbeats.
    pub async fn heartbeats(&mut self, mut count: usize) {
        while count > 0 {
            let said = timeout(PATIENCE, self.said.message()).await.expect("something is said");
            let said = said.unwrap().unwrap().kind.unwrap();
            count -= usize::from(matches!(said, Said::Heartbeat(_)));
        }
    }

    /// The warnings of the next report of the node that has any, Hello's included.
    pub async fn warnings(&mut self) -> Vec<String> {
        let mut report = self.hello.report.clone();
        loop {
            if let Some(report) = report.filter(|report| !report.warnings.is_empty()) {
                return report.warnings;
            }
            let said = timeout(PATIENCE, self.said.message()).await.expect("something is said");
            report = match said.unwrap().unwrap().kind.unwrap() {
                Said::NodeReport(report) => Some(report),
                _ => None,
            };
        }
    }
}

#[derive(Clone)]
struct Service {
    opened: mpsc::Sender<Session>,
    ca: Arc<TestCa>,
    script: Arc<Mutex<Script>>,
    connections: Connections,
}

impl Service {
    fn issue(
        &self,
        csr: &[u8],
        subject: Subject,
        dates: Dates,
    ) -> Answer<(Vec<Vec<u8>>, v1::TrustBundle)> {
        let key = read_request(csr).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let chain = self.ca.issue(subject, &key, dates);
        let bytes = |certificate: CertificateDer<'_>| certificate.to_vec();
        let roots = vec![bytes(self.ca.root())];
        Ok((chain.into_iter().map(bytes).collect(), v1::TrustBundle { roots }))
    }
}

#[tonic::async_trait]
impl AgentService for Service {
    type ConnectStream = ReceiverStream<Result<v1::ControllerMessage, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Answer<Response<Self::ConnectStream>> {
        let mut said = request.into_inner();
        let Some(v1::AgentMessage { kind: Some(Said::Hello(hello)) }) = said.message().await?
        else {
            return Err(Status::invalid_argument("no Hello"));
        };
        let (say, outgoing) = mpsc::channel(64);
        let opened = self.opened.send(Session { hello, said, say });
        opened.await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

#[tonic::async_trait]
impl EnrollmentService for Service {
    async fn enroll(
        &self,
        request: Request<v1::EnrollRequest>,
    ) -> Answer<Response<v1::EnrollResponse>> {
        let request = request.into_inner();
        let (subject, lose) = {
            let mut script = self.script.lock().unwrap();
            script.requests.push(request.csr.clone());
            let lose = script.lose_answers > 0;
            script.lose_answers = script.lose_answers.saturating_sub(1);
            ((script.enroll)(&request)?, lose)
        };
        if lose {
            self.connections.close_all();
        }
        let (chain, bundle) = self.issue(&request.csr, subject, Dates::GOOD)?;
        let trust_bundle = Some(bundle);
        Ok(Response::new(v1::EnrollResponse { chain, trust_bundle, ..Default::default() }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Answer<Response<v1::RenewResponse>> {
        let v1::RenewRequest { csr } = request.into_inner();
        let dates = {
            let mut script = self.script.lock().unwrap();
            script.requests.push(csr.clone());
            script.renew.clone()?
        };
        let (chain, bundle) = self.issue(&csr, Subject::Node("web1".parse().unwrap()), dates)?;
        let trust_bundle = Some(bundle);
        Ok(Response::new(v1::RenewResponse { chain, trust_bundle, ..Default::default() }))
    }

    async fn get_trust_bundle(
        &self,
        _: Request<v1::GetTrustBundleRequest>,
    ) -> Answer<Response<v1::GetTrustBundleResponse>> {
        Err(Status::unimplemented("agents do not ask"))
    }
}
