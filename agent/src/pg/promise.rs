//! Promises between members' agents: a primary that does not hear the controller asks the others to
//! take part in no later term for so long. Both ends of the question; what is promised is decided by
//! the member, and kept by it before it answers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lockstep_model::cluster::{ClusterPlace, Term};
use lockstep_model::identity::{Principal, Subject};
use lockstep_model::task::{Peer, TaskSpec};
use lockstep_model::{ClusterName, Millis, NodeName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::ClusterEngine;
use super::lease::AskPromise;
use crate::data::header::{Answer, Question, Request};
use crate::data::{self, Dial, Stream};

/// From the dialing to the answer; what comes later helps no lease.
const ASK_MAX: Duration = Duration::from_secs(2);

/// The other members' agents, over the data port.
pub struct Peers(pub Arc<dyn Dial>);

impl AskPromise for Peers {
    fn ask<'a>(
        &'a self,
        peer: &'a Peer,
        cluster: &'a ClusterName,
        term: Term,
        length: Millis,
    ) -> BoxFuture<'a, Result<Millis, String>> {
        ask(&*self.0, peer, cluster, term, length).boxed()
    }
}

/// How long the peer promised, at most what was asked; counted from before the question.
pub async fn ask(
    dial: &dyn Dial,
    peer: &Peer,
    cluster: &ClusterName,
    term: Term,
    length: Millis,
) -> Result<Millis, String> {
    let asked = async {
        let mut stream = dial.dial(peer).await?;
        let question = Question { cluster: cluster.clone(), term, length };
        match data::ask(&mut stream, Request::Promise(question)).await? {
            Answer::Go => {}
            Answer::Unfilled => return Err("it knows no promises".to_owned()),
            Answer::Refused(why) => return Err(why),
        }
        let promised = stream.read_u64().await.map_err(|error| error.to_string())?;
        let _ = stream.shutdown().await;
        Ok(Millis(promised.min(length.0)))
    };
    match timeout(ASK_MAX, asked).await {
        Ok(answer) => answer.map_err(|why| format!("{} promised nothing: {why}", peer.node)),
        Err(_) => Err(format!("{} does not answer", peer.node)),
    }
}

/// Who promises.
pub trait Promise: Send + Sync {
    /// Durable when it returns; the error is one line.
    fn promise<'a>(
        &'a self,
        caller: &'a NodeName,
        cluster: &'a ClusterName,
        term: Term,
        length: Millis,
    ) -> BoxFuture<'a, Result<Millis, String>>;
}

impl Promise for ClusterEngine {
    fn promise<'a>(
        &'a self,
        caller: &'a NodeName,
        cluster: &'a ClusterName,
        term: Term,
        length: Millis,
    ) -> BoxFuture<'a, Result<Millis, String>> {
        Self::promise(self, caller, cluster, term, length).boxed()
    }
}

/// Answers one question on an authenticated connection.
pub async fn serve(
    mut stream: impl Stream,
    caller: &Principal,
    question: &Question,
    in_force: &[TaskSpec],
    member: &dyn Promise,
) {
    let Question { cluster, term, length } = question;
    let promised = match admit(in_force, cluster, caller) {
        Ok(node) => member.promise(node, cluster, *term, *length).await,
        Err(why) => {
            return data::refuse(&mut stream, caller, Some(cluster.into()), &why).await;
        }
    };
    let told = async {
        match promised {
            Ok(Millis(length)) => {
                Answer::Go.write(&mut stream).await?;
                stream.write_u64(length).await?;
            }
            Err(why) => Answer::Refused(why).write(&mut stream).await?,
        }
        stream.shutdown().await
    };
    // A caller that is gone asks again.
    let _ = timeout(ASK_MAX, told).await;
}

/// Another member of a cluster that this node is a member of, with the key it is known by.
fn admit<'a>(
    in_force: &'a [TaskSpec],
    cluster: &ClusterName,
    caller: &Principal,
) -> Result<&'a NodeName, String> {
    let place_of = |spec: &'a TaskSpec| match spec {
        TaskSpec::ClusterPlace(place) if place.cluster == *cluster => Some(place.as_ref()),
        _ => None,
    };
    let place: &ClusterPlace = in_force
        .iter()
        .find_map(place_of)
        .ok_or_else(|| format!("this node is no member of {cluster}"))?;
    let is_caller = |peer: &&Peer| {
        peer.key_hash == caller.key_hash && caller.subject == Subject::Node(peer.node.clone())
    };
    let peer = place.peers.iter().map(|member| &member.peer).find(is_caller);
    peer.map(|peer| &peer.node).ok_or_else(|| {
        format!("{} is no member of {cluster} as this node knows it", caller.subject)
    })
}

#[cfg(test)]
mod tests;
