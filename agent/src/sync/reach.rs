//! How a target is reached: through its agent, or by plain ssh or rsync where it has none. What only
//! an agent can do asks for the agent here, and is nothing without one.

use lockstep_model::NodeName;
use lockstep_model::rate::Rate;
use lockstep_model::task::{Peer, Receiver, Route};

use crate::data::limit::Limiter;

/// Clones share the limit.
#[derive(Clone)]
pub struct Reach {
    pub node: NodeName,
    pub route: Route,
    /// The target's own limit.
    pub limit: Limiter,
}

impl From<&Receiver> for Reach {
    fn from(receiver: &Receiver) -> Self {
        let Receiver { node, route, bwlimit } = receiver;
        let limit = Limiter::new(bwlimit.map(Rate::bytes_per_s));
        Self { node: node.clone(), route: route.clone(), limit }
    }
}

impl Reach {
    /// None when there is nobody to be told or asked anything.
    pub fn agent(&self) -> Option<&Peer> {
        match &self.route {
            Route::Agent(peer) => Some(peer),
            Route::Remote(_) => None,
        }
    }

    /// Whether it is the same way to the same target.
    pub fn leads_to(&self, receiver: &Receiver) -> bool {
        self.node == receiver.node && self.route == receiver.route
    }
}
