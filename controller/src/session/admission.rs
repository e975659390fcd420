//! The first words of a stream: what an agent must say, and which agents are let in. Ends with a
//! session that the driver knows, or with a refusal that says what to do.

use std::sync::Arc;
use std::time::Duration;

use lockstep_model::identity::{Principal, Subject};
use lockstep_model::observation::Told;
use lockstep_model::record::Actor;
use lockstep_model::request::Request;
use lockstep_model::{Code, HostPort, Invalid, Millis, NodeName, Reject};
use lockstep_proto::convert::agent::Hello;
use lockstep_proto::v1::{self, agent_message, controller_message};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::stream::Outbound;
use super::{STORE_BEHIND, Session, SessionHandle, SessionId};
use crate::driver::{Ask, Attach, Attached, DriverHandle, already_connected};
use crate::identity::authority::Authority;
use crate::identity::vault::Vault;
use crate::{FEATURES, VERSION};

/// How long the first message may take.
const HELLO_MAX: Duration = Duration::from_secs(10);
/// How long an older stream of the same node has to show that its agent is there.
const PROBE_MAX: Duration = Duration::from_secs(2);

/// What all sessions have in common.
pub struct SessionConfig {
    pub driver: DriverHandle,
    pub authority: Arc<Authority>,
    /// Passwords go to the agents that need them.
    pub vault: Arc<Vault>,
    /// How often both sides say that they are there.
    pub heartbeat: Millis,
    /// Where controllers are reached; agents keep the list.
    pub controllers: Vec<HostPort>,
}

/// Lets an agent in, or not.
pub async fn open(
    config: &Arc<SessionConfig>,
    principal: Principal,
    inbound: &mut Streaming<v1::AgentMessage>,
) -> Result<(Session, mpsc::Receiver<Result<v1::ControllerMessage, Status>>), Reject> {
    let Subject::Node(node) = &principal.subject else {
        let message = "only agents connect here";
        return Err(Reject::new(
            Code::PermissionDenied,
            "not_allowed",
            &principal.subject,
            message,
        ));
    };
    let node = node.clone();
    let first = timeout(HELLO_MAX, inbound.message()).await;
    let Ok(Ok(Some(v1::AgentMessage { kind: Some(agent_message::Kind::Hello(hello)) }))) = first
    else {
        let message = format!("the first message must be Hello, within {} s", HELLO_MAX.as_secs());
        return Err(Reject::new(
            Code::InvalidArgument,
            "no_hello",
            format!("node/{node}"),
            message,
        ));
    };
    // Before anything else of it is understood: another version may mean something else by it.
    check_version(&node, &hello.version)?;
    let hello = Hello::try_from(hello).map_err(|e| Reject::from(e.within("hello")))?;
    let replaces = find_room(config, &node, hello.instance).await?;

    let announce = Request::Announce { node: node.clone(), addresses: hello.addresses.clone() };
    let actor = Actor::Subject(principal.subject.clone());
    match config.driver.tell(Ask::new(actor, "AgentService/Hello", announce)).await {
        // Nothing is written to an old copy, but everyone has to be heard before it is adopted.
        Err(reject) if reject.reason == STORE_BEHIND => {}
        announced => drop(announced?),
    }

    let (handle, inbox) = SessionHandle::new(hello.instance, principal.key_hash);
    let id = handle.id;
    let attach = Attach { principal, node: node.clone(), hello, handle, replaces };
    let attached = config.driver.attach(attach).await?;

    let (outbound, messages) = Outbound::new();
    outbound.say_first(controller_message::Kind::Welcome(welcome(config, attached)));
    Ok((Session::new(config.clone(), node, id, inbox, outbound), messages))
}

fn welcome(config: &SessionConfig, attached: Attached) -> v1::Welcome {
    let Attached { told: Told { incarnation, life, revision }, in_doubt } = attached;
    v1::Welcome {
        version: VERSION.to_owned(),
        features: FEATURES.map(str::to_owned).to_vec(),
        incarnation: incarnation.0,
        revision: revision.0,
        life: life.0,
        in_doubt,
        heartbeat_ms: config.heartbeat.0,
        trust_bundle: Some(trust_bundle(&config.authority)),
        controllers: config.controllers.iter().map(ToString::to_string).collect(),
    }
}

pub(super) fn trust_bundle(authority: &Authority) -> v1::TrustBundle {
    v1::TrustBundle { roots: authority.roots() }
}

/// The session that this one may replace, if there is one: of the same agent, or of one that does
/// not answer any more.
async fn find_room(
    config: &SessionConfig,
    node: &NodeName,
    instance: u64,
) -> Result<Option<SessionId>, Reject> {
    let Some(old) = config.driver.sessions().get(node) else { return Ok(None) };
    if old.instance != instance && old.ping(PROBE_MAX).await.is_ok() {
        return Err(already_connected(node));
    }
    Ok(Some(old.id))
}

/// One minor version apart works both ways.
fn check_version(node: &NodeName, theirs: &str) -> Result<(), Reject> {
    let (Some(own), Some(other)) = (major_minor(VERSION), major_minor(theirs)) else {
        let problem = format!("must look like {VERSION}");
        return Err(Invalid::new("hello.version", problem).into());
    };
    if own.0 == other.0 && own.1.abs_diff(other.1) <= 1 {
        return Ok(());
    }
    let (older, newer) = if other < own { ("agent", VERSION) } else { ("controller", theirs) };
    let message = format!(
        "agent {theirs} and controller {VERSION} are more than one minor version apart: bring the \
         {older} nearer to {newer}, one minor version at a time"
    );
    Err(Reject::new(Code::FailedPrecondition, "version_skew", format!("node/{node}"), message))
}

fn major_minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major_minor("0.1.0"), Some((0, 1)));
        assert_eq!(major_minor("12.34.5-rc1"), Some((12, 34)));
        for text in ["", "1", "a.b", "1.", "-1.2", "1.x.2"] {
            assert_eq!(major_minor(text), None, "{text:?}");
        }
    }

    #[test]
    fn one_minor_version_apart_is_let_in() {
        let node: NodeName = "web1".parse().unwrap();
        let (major, minor) = major_minor(VERSION).unwrap();
        let reason = |major: u64, minor: u64| {
            check_version(&node, &format!("{major}.{minor}.7")).err().map(|e| e.reason)
        };
        assert_eq!(reason(major, minor), None);
        assert_eq!(reason(major, minor + 1), None);
        assert_eq!(reason(major, minor + 2), Some("version_skew"));
        assert_eq!(reason(major + 1, minor), Some("version_skew"));
        let garbage = check_version(&node, "newest").err();
        assert_eq!(garbage.map(|e| e.reason), Some("invalid"));
    }
}
