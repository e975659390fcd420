//! The data port: keeps it open on the right address, tells which that is, and hands on the
//! connections of members of the fleet. What a caller may do is decided behind it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::HostPort;
use lockstep_model::KeyHash;
use lockstep_model::node::NodeAddress;
use lockstep_model::task::{SyncTarget, TaskSpec};
use lockstep_transport::accept::{Gate, Limits, accept};
use lockstep_transport::connections::{Connections, TlsIo};
use lockstep_transport::identity::IdentityHandle;
use lockstep_transport::tls::Alpn;
use lockstep_transport::verify::ClientPolicy;
use tokio::net::{TcpListener, UdpSocket, lookup_host};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::config::DATA_PORT;
use crate::data::greet;
use crate::data::header::Request;
use crate::pg::{ClusterEngine, promise, salvage};
use crate::sync::SyncEngine;

/// Between two tries to open the port.
const OPEN_RETRY: Duration = Duration::from_secs(2);
/// How often it is seen whether the machine's address is still the one we chose.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the port needs.
pub struct Port<C> {
    pub engine: SyncEngine,
    pub clusters: ClusterEngine,
    pub identity: IdentityHandle,
    /// None: `DATA_PORT` of the local address that reaches a controller.
    pub listen: Option<SocketAddr>,
    /// Empty: where we listen.
    pub advertise: Vec<NodeAddress>,
    /// Of all controllers, best first.
    pub controllers: C,
    pub in_force: watch::Receiver<Arc<[TaskSpec]>>,
    /// Told where others reach the port.
    pub addresses: watch::Sender<Vec<NodeAddress>>,
    pub warnings: watch::Sender<BTreeSet<String>>,
}

impl<C: Fn() -> Vec<HostPort> + Send + Sync> Port<C> {
    /// Keeps the port open; ends never.
    pub async fn keep(self) {
        let mut said = None;
        loop {
            match self.open().await {
                Ok((listener, at)) => {
                    self.warn(&mut said, None);
                    tracing::info!(%at, "data port open");
                    self.serve(listener, at).await;
                }
                Err(why) => self.warn(&mut said, Some(why)),
            }
            sleep(OPEN_RETRY).await;
        }
    }

    async fn open(&self) -> Result<(TcpListener, SocketAddr), String> {
        let at = match self.listen {
            Some(at) => at,
            None => SocketAddr::new(self.find_local().await?, DATA_PORT),
        };
        let listener = TcpListener::bind(at).await;
        let listener = listener.map_err(|e| format!("cannot listen on {at}: {e}"))?;
        let at = listener.local_addr().map_err(|e| e.to_string())?;
        let addresses = self.announced(at).await?;
        self.addresses.send_if_modified(|now| {
            let changed = *now != addresses;
            *now = addresses;
            changed
        });
        Ok((listener, at))
    }

    async fn announced(&self, at: SocketAddr) -> Result<Vec<NodeAddress>, String> {
        if !self.advertise.is_empty() {
            return Ok(self.advertise.clone());
        }
        let ip = if at.ip().is_unspecified() { self.find_local().await? } else { at.ip() };
        let at = HostPort::new(&ip.to_string(), at.port()).map_err(|e| e.to_string())?;
        Ok(vec![NodeAddress { network: String::new(), at }])
    }

    /// The local address that reaches a controller, as the routes say; nothing is sent.
    async fn find_local(&self) -> Result<IpAddr, String> {
        let mut last = "no controller is known".to_owned();
        for controller in (self.controllers)() {
            match route_to(&controller).await {
                Ok(ip) => return Ok(ip),
                Err(why) => last = format!("{controller}: {why}"),
            }
        }
        Err(format!("cannot tell which local address reaches a controller ({last}); set `listen`"))
    }

    async fn serve(&self, listener: TcpListener, at: SocketAddr) {
        let in_force = self.in_force.clone();
        let gate = Gate {
            identity: self.identity.clone(),
            policy: ClientPolicy {
                anonymous: false,
                // A peer's certificate may run out while the controller is away.
                accept_expired: Arc::new(move |cert| is_pinned(&in_force.borrow(), cert.key_hash)),
            },
            alpn: Alpn::Data,
            limits: Limits::default(),
            connections: Connections::default(),
        };
        let mut incoming = accept(listener, gate);
        let moved = self.moved_from(at.ip());
        tokio::pin!(moved);
        loop {
            tokio::select! {
                next = incoming.next() => match next {
                    Some(io) => self.serve_one(io),
                    None => return,
                },
                () = &mut moved => {
                    tracing::warn!(%at, "this machine's address has changed; opening the data port anew");
                    return;
                }
            }
        }
    }

    fn serve_one(&self, mut io: TlsIo) {
        let Some(caller) = io.peer().peer.as_ref().map(|cert| cert.principal()) else { return };
        let (engine, clusters) = (self.engine.clone(), self.clusters.clone());
        let in_force = self.in_force.clone();
        tokio::spawn(async move {
            match greet(&mut io, &caller).await {
                Some(Request::Promise(question)) => {
                    let in_force = in_force.borrow().clone();
                    promise::serve(io, &caller, &question, &in_force, &clusters).await;
                }
                Some(Request::Wal(request)) => {
                    let served = salvage::serve(io, &caller, &request, clusters.stock());
                    Box::pin(served).await;
                }
                Some(request) => Box::pin(engine.serve(io, request, &caller)).await,
                None => {}
            }
        });
    }

    /// Ends when the address that was chosen is no longer the one that would be.
    async fn moved_from(&self, ip: IpAddr) {
        loop {
            sleep(LOOK_INTERVAL).await;
            if self.listen.is_none() && self.find_local().await.is_ok_and(|now| now != ip) {
                return;
            }
        }
    }

    /// The one warning of this port, in place of what it said before.
    fn warn(&self, said: &mut Option<String>, now: Option<String>) {
        let now = now.map(|why| format!("data port: {why}"));
        if *said == now {
            return;
        }
        if let Some(why) = &now {
            tracing::error!(why, "no data port; nothing can be delivered to this node");
        }
        self.warnings.send_modify(|warnings| {
            if let Some(former) = said.take() {
                warnings.remove(&former);
            }
            warnings.extend(now.clone());
        });
        *said = now;
    }
}

/// Whether an assignment that holds lets this key write or read here.
fn is_pinned(in_force: &[TaskSpec], key: KeyHash) -> bool {
    in_force.iter().any(|spec| match spec {
        TaskSpec::SyncTarget(SyncTarget { source: Some(source), .. }) => source.key_hash == key,
        TaskSpec::MirrorPlace(place) => place.readers.iter().any(|peer| peer.key_hash == key),
        TaskSpec::ClusterPlace(place) => {
            place.peers.iter().any(|member| member.peer.key_hash == key)
        }
        _ => false,
    })
}

async fn route_to(controller: &HostPort) -> Result<IpAddr, String> {
    let text = |e: std::io::Error| e.to_string();
    let found = timeout(RESOLVE_TIMEOUT, lookup_host((controller.host(), controller.port))).await;
    let mut found = found.map_err(|_| "the name service does not answer")?.map_err(text)?;
    let to = found.next().ok_or("the name has no address")?;
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(text)?;
    socket.connect(to).await.map_err(text)?;
    socket.local_addr().map(|at| at.ip()).map_err(text)
}

#[cfg(test)]
mod tests {
    use lockstep_model::task::Peer;

    use super::*;

    #[tokio::test]
    async fn the_local_address_is_that_of_the_route() {
        for (controller, local) in [("127.0.0.1:7400", "127.0.0.1"), ("[::1]:7400", "::1")] {
            let found = route_to(&controller.parse().unwrap()).await;
            assert_eq!(found.map(|ip| ip.to_string()).as_deref(), Ok(local));
        }
        assert!(route_to(&"no-such-host.invalid:1".parse().unwrap()).await.is_err());
    }

    #[test]
    fn only_an_assignments_source_may_be_expired() {
        let key = KeyHash([1; 32]);
        let target = |source| {
            let (sync, path) = ("webroot".parse().unwrap(), "/srv/www".parse().unwrap());
            TaskSpec::SyncTarget(SyncTarget { source, ..SyncTarget::new(sync, path) })
        };
        let peer = Peer { node: "m1".parse().unwrap(), key_hash: key, addresses: vec![] };
        assert!(is_pinned(&[target(None), target(Some(peer.clone()))], key));
        assert!(!is_pinned(&[target(Some(peer))], KeyHash([2; 32])));
        assert!(!is_pinned(&[target(None)], key));
        assert!(!is_pinned(&[], key));
    }
}
