//! The gate of every RPC: who calls, by the certificate of the connection, and whether lockstep-plan's
//! table lets him. It is asked before a byte of the arguments is looked at, and logs each refusal.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use lockstep_model::identity::Principal;
use lockstep_model::record::Actor;
use lockstep_model::{Code, Reject};
use lockstep_plan::authorize::authorize;
use lockstep_proto::status;
use lockstep_transport::certificate::PeerCert;
use lockstep_transport::connections::PeerInfo;
use lockstep_transport::telemetry::{TRACEPARENT, set_parent};
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Instrument;

use crate::driver::DriverHandle;

/// Who calls, as the services see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    pub actor: Actor,
    /// None without a certificate.
    pub principal: Option<Principal>,
}

impl Caller {
    /// The caller that the gate let in.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, Reject> {
        request.extensions().get::<Self>().cloned().ok_or_else(|| {
            let message = "the call did not come through the gate; this is a bug";
            Reject::new(Code::Internal, "no_caller", "caller", message)
        })
    }

    /// The certificate's holder; there is one wherever the table asks for one.
    pub fn principal(&self) -> Result<&Principal, Reject> {
        self.principal.as_ref().ok_or_else(|| {
            let message = "a client certificate is needed: join with a token first";
            Reject::new(Code::Unauthenticated, "no_certificate", "caller", message)
        })
    }
}

/// Puts the gate before a server.
#[derive(Clone)]
pub struct Gate {
    pub driver: DriverHandle,
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;
    fn layer(&self, inner: S) -> Gated<S> {
        Gated { inner, driver: self.driver.clone() }
    }
}

#[derive(Clone)]
pub struct Gated<S> {
    inner: S,
    driver: DriverHandle,
}

impl<S, E> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = E>,
    S::Future: Send + 'static,
    E: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = E;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, E>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().to_owned();
        let peer = request.extensions().get::<PeerInfo>();
        let from = peer.map(|peer| peer.addr.to_string()).unwrap_or_default();
        let principal = peer.and_then(|peer| peer.peer.as_ref()).map(PeerCert::principal);
        let allowed = self.driver.read(|world| authorize(world, &method, principal.as_ref()));
        let actor = match allowed {
            Ok(actor) => actor,
            Err(why) => {
                let who = principal.map_or("unknown".to_owned(), |p| p.subject.to_string());
                tracing::warn!(target: "audit", %who, from, method, reason = why.reason, %why, "refused a call");
                let refusal = status::from_reject(&why).into_http();
                return Box::pin(std::future::ready(Ok(refusal)));
            }
        };
        let span = tracing::info_span!("rpc", method, who = %actor);
        if let Some(parent) = request.headers().get(TRACEPARENT).and_then(|v| v.to_str().ok()) {
            set_parent(&span, parent);
        }
        request.extensions_mut().insert(Caller { actor, principal });
        Box::pin(self.inner.call(request).instrument(span))
    }
}
