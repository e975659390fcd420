//! Health for load balancers: one board of named answers, told over gRPC (`grpc.health.v1.Health`)
//! and over plain HTTP from the same state. This file holds the board; it decides nothing, the
//! programs set the answers.

mod grpc;
mod plain;
mod pulse;

use std::collections::BTreeMap;

use axum::Router;
use axum::routing::any;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::plain_http;
pub use crate::plain_http::CONNECTIONS_MAX;

pub use grpc::{HealthService, WATCHES_MAX};
pub use pulse::Pulse;

/// The most names on one board.
pub const NAMES_MAX: usize = 4096;
/// The longest reason, in characters; the rest is cut.
pub const REASON_MAX: usize = 200;

/// The process runs and its main loop turns.
pub const LIVE: &str = "live";
/// The process does its whole work; also the answer to gRPC's empty service name.
pub const READY: &str = "ready";
/// The state of this node as a member of the fleet; over HTTP also `/node/health`.
pub const NODE: &str = "node";

/// May a load balancer send traffic?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Serving,
    NotServing,
}

/// What the board says about one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    /// One line for a person.
    pub reason: String,
}

/// The named answers. Clones share them.
#[derive(Clone, Debug)]
pub struct HealthBoard {
    answers: watch::Sender<BTreeMap<String, Answer>>,
}

impl Default for HealthBoard {
    fn default() -> Self {
        Self::new()
    }
}

impl HealthBoard {
    /// A board that says `live`, and not yet `ready`.
    pub fn new() -> Self {
        let board = Self { answers: watch::Sender::new(BTreeMap::new()) };
        board.set(LIVE, Verdict::Serving, "running");
        board.set(READY, Verdict::NotServing, "starting");
        board
    }

    /// Sets an answer and tells the watchers of that name if the verdict changed. Names are paths
    /// without the leading slash, such as `sync/webroot` or `cluster/main/primary`. A reason is
    /// made one line and cut at [`REASON_MAX`]; a name more than [`NAMES_MAX`] is logged and not
    /// kept.
    pub fn set(&self, name: &str, verdict: Verdict, reason: &str) {
        let answer = Answer { verdict, reason: one_line(reason) };
        self.answers.send_if_modified(|answers| {
            if answers.get(name) == Some(&answer) {
                return false;
            }
            if !answers.contains_key(name) && answers.len() >= NAMES_MAX {
                tracing::error!(name, "health board is full; this name will be unknown");
                return false;
            }
            answers.insert(name.to_owned(), answer);
            true
        });
    }

    /// Forgets a name; asked again it is unknown.
    pub fn remove(&self, name: &str) {
        self.answers.send_if_modified(|answers| answers.remove(name).is_some());
    }

    pub fn get(&self, name: &str) -> Option<Answer> {
        self.answers.borrow().get(name).cloned()
    }

    /// All answers, by name.
    pub fn list(&self) -> Vec<(String, Answer)> {
        self.answers.borrow().iter().map(|(name, answer)| (name.clone(), answer.clone())).collect()
    }
}

/// Serves the board over plain HTTP, as `plain_http::serve` does. `more`: paths that are answered
/// otherwise than by the board.
pub async fn serve(
    listener: TcpListener,
    board: HealthBoard,
    more: Router,
    shutdown: CancellationToken,
) {
    let router = more
        .route_service("/grpc.health.v1.Health/{method}", board.grpc_service(shutdown.clone()))
        .fallback_service(any(plain::answer).with_state(board));
    plain_http::serve(listener, router, shutdown).await;
}

fn one_line(reason: &str) -> String {
    let plain = reason.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(REASON_MAX).collect()
}

#[cfg(test)]
mod tests;
