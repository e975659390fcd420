//! An agent that says exactly what a test tells it to, over the real stream.

use lockstep_proto::status::{Refusal, read};
use lockstep_proto::v1;
use lockstep_proto::v1::agent_message::Kind as Says;
use lockstep_proto::v1::agent_service_client::AgentServiceClient;
use lockstep_proto::v1::controller_message::Kind as Hears;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::fleet::{Fleet, Member, PATIENCE};

pub struct Agent {
    says: mpsc::Sender<v1::AgentMessage>,
    hears: Streaming<v1::ControllerMessage>,
    pub welcome: v1::Welcome,
}

pub fn hello(instance: u64) -> v1::Hello {
    v1::Hello {
        version: lockstep_controller::VERSION.to_owned(),
        features: vec!["sync".to_owned()],
        instance,
        // Of another store: one that remembers nothing would be told everything anew.
        told_incarnation: 1,
        told_revision: 1,
        addresses: vec!["127.0.0.1:7402".to_owned()],
        report: Some(v1::NodeReport::default()),
        ..v1::Hello::default()
    }
}

impl Agent {
    pub async fn connect(fleet: &Fleet, member: &Member, instance: u64) -> Self {
        Self::try_connect(fleet.channel(member).await, Says::Hello(hello(instance))).await.unwrap()
    }

    /// With any first message.
    pub async fn try_connect(channel: Channel, first: Says) -> Result<Self, Refusal> {
        let (says, messages) = mpsc::channel(64);
        says.send(v1::AgentMessage { kind: Some(first) }).await.unwrap();
        let mut client = AgentServiceClient::new(channel);
        let answer = timeout(PATIENCE, client.connect(ReceiverStream::new(messages))).await;
        let mut hears = answer.expect("an answer").map_err(|s| read(&s))?.into_inner();
        let first = timeout(PATIENCE, hears.message()).await.expect("a first message");
        match first.map_err(|s| read(&s))?.and_then(|message| message.kind) {
            Some(Hears::Welcome(welcome)) => Ok(Self { says, hears, welcome }),
            other => panic!("the first message is {other:?}"),
        }
    }

    pub async fn say(&self, message: Says) {
        self.say_raw(v1::AgentMessage { kind: Some(message) }).await;
    }

    pub async fn say_raw(&self, message: v1::AgentMessage) {
        timeout(PATIENCE, self.says.send(message)).await.expect("room").expect("a stream");
    }

    pub async fn beat(&self) {
        self.say(Says::Heartbeat(v1::Heartbeat::default())).await;
    }

    /// The next message but heartbeats, each of which is answered; None at the end of the stream.
    pub async fn hear(&mut self) -> Option<Hears> {
        loop {
            let next = timeout(PATIENCE, self.hears.message()).await.expect("a message");
            match next {
                Ok(Some(v1::ControllerMessage { kind: Some(Hears::Heartbeat(_)) })) => {
                    let _ = self
                        .says
                        .send(v1::AgentMessage {
                            kind: Some(Says::Heartbeat(v1::Heartbeat::default())),
                        })
                        .await;
                }
                Ok(Some(v1::ControllerMessage { kind })) => {
                    return Some(kind.expect("a known message"));
                }
                Ok(None) | Err(_) => return None,
            }
        }
    }

    pub async fn offer(&mut self) -> v1::OfferTask {
        match self.hear().await {
            Some(Hears::OfferTask(offer)) => offer,
            other => panic!("an offer, not {other:?}"),
        }
    }

    pub async fn goodbye(&mut self) -> String {
        loop {
            match self.hear().await {
                Some(Hears::Goodbye(goodbye)) => return goodbye.reason,
                Some(_) => {}
                None => panic!("a goodbye, not the end of the stream"),
            }
        }
    }

    /// Ends a task and waits for the acknowledgement.
    pub async fn end(&mut self, id: &str, kind: v1::OutcomeKind) {
        self.say(end(id, kind)).await;
        match self.hear().await {
            Some(Hears::OutcomeAck(ack)) => assert_eq!(ack.id, id),
            other => panic!("an acknowledgement of {id}, not {other:?}"),
        }
    }

    /// Answers heartbeats until the stream ends.
    pub async fn wait_end(&mut self) {
        while self.hear().await.is_some() {}
    }
}

pub fn end(id: &str, kind: v1::OutcomeKind) -> Says {
    let outcome = v1::TaskOutcome { kind: kind.into(), ..Default::default() };
    Says::TaskEnd(v1::TaskEnd { id: id.to_owned(), outcome: Some(outcome) })
}
