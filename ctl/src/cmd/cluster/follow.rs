//! Waiting until members follow and until a change of primaries has ended, telling on stderr what is
//! waited for each time that this changes.

use std::future::Future;

use lockstep_proto::v1;
use tokio::time::Instant;

use super::{get, show};
use crate::client::Client;
use crate::error::Failure;
use crate::{render, wait};

/// The state of a primary, and of a standby that is readable.
const PRIMARY: &str = "primary";
const STANDBY: &str = "standby";
const STEADY: &str = "steady";

/// Ends when the cluster is steady and every member that is managed has its part.
pub async fn until_all_follow(client: &Client, name: &str) -> Result<(), Failure> {
    follow(client, name, |cluster| {
        let members = cluster.members.iter().filter(|member| member.admin == "managed");
        let waiting: Vec<String> = members.filter_map(|member| missing(cluster, member)).collect();
        match waiting.is_empty() {
            true => ready(cluster),
            false => Err(waiting.join("; ")),
        }
    })
    .await
}

/// Ends when one member has its part.
pub async fn until_follows(client: &Client, name: &str, node: &str) -> Result<(), Failure> {
    follow(client, name, |cluster| {
        let member = cluster.members.iter().find(|member| member.node == node);
        match member.map(|member| missing(cluster, member)) {
            None => Err(format!("{node} is no member any more")),
            Some(Some(missing)) => Err(missing),
            Some(None) => Ok(()),
        }
    })
    .await
}

/// As `until_follows`, and shows nothing in the end.
pub async fn until_back(client: &Client, name: &str, node: &str) -> Result<(), Failure> {
    let is_back = |cluster: &v1::Cluster| {
        let member = cluster.members.iter().find(|member| member.node == node);
        member.and_then(|member| missing(cluster, member)).map_or(Ok(()), Err)
    };
    watch(client, name, is_back).await.map(|_| ())
}

/// Ends when each of `nodes` that is connected has said something after this was asked.
pub async fn until_said(client: &Client, name: &str, nodes: &[String]) -> Result<(), Failure> {
    let asked = Instant::now();
    let has_said = |cluster: &v1::Cluster| {
        let since = asked.elapsed().as_millis();
        let old = |member: &&v1::ClusterMember| {
            member.connected && nodes.contains(&member.node) && u128::from(member.age_ms) >= since
        };
        let waiting = cluster.members.iter().find(old);
        waiting.map_or(Ok(()), |member| Err(format!("{} says what it sees", member.node)))
    };
    watch(client, name, has_said).await.map(|_| ())
}

async fn follow(
    client: &Client,
    name: &str,
    is_done: impl Fn(&v1::Cluster) -> Result<(), String>,
) -> Result<(), Failure> {
    let cluster = watch(client, name, is_done).await?;
    render::show(client.format, &cluster, || show::details(&cluster))
}

/// The cluster when it is done.
async fn watch(
    client: &Client,
    name: &str,
    is_done: impl Fn(&v1::Cluster) -> Result<(), String>,
) -> Result<v1::Cluster, Failure> {
    let is_done = &is_done;
    let followed = wait::telling(|| async move {
        let Some(cluster) = patiently(get(client, name).await)? else {
            return Ok(Err(AWAY.to_owned()));
        };
        Ok(is_done(&cluster).map(|()| cluster))
    });
    or_interrupted(name, followed).await
}

/// Waits for the end of the first change of primaries after the `before`th.
pub async fn until_changed(
    client: &Client,
    name: &str,
    before: u64,
) -> Result<v1::Failover, Failure> {
    let followed = wait::telling(|| async move {
        let Some(cluster) = patiently(get(client, name).await)? else {
            return Ok(Err(AWAY.to_owned()));
        };
        let last = cluster.last_failover.clone().filter(|last| last.number > before);
        match last {
            Some(last) if last.end != "running" => Ok(Ok(last)),
            Some(_) => Ok(Err(stage(&cluster))),
            None if is_dropped(&cluster) => {
                let why = render::or_dash(&cluster.reason);
                let problem =
                    format!("nothing was done, {} stays primary: {why}", holder(&cluster));
                Err(Failure::failed(problem))
            }
            None => Ok(Err(stage(&cluster))),
        }
    });
    or_interrupted(name, followed).await
}

const AWAY: &str = "the controller does not answer; asking again";

/// A controller that is away is asked again: what was begun is in its store.
fn patiently(asked: Result<v1::Cluster, Failure>) -> Result<Option<v1::Cluster>, Failure> {
    match asked {
        Ok(cluster) => Ok(Some(cluster)),
        Err(failure) if failure.is_unreachable() => Ok(None),
        Err(failure) => Err(failure),
    }
}

async fn or_interrupted<T>(
    name: &str,
    followed: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = followed => done,
        pressed = tokio::signal::ctrl_c() => {
            pressed?;
            let text = format!("it goes on: lockstepctl cluster show {name} tells how far it is");
            Err(Failure::interrupted(text))
        }
    }
}

fn holder(cluster: &v1::Cluster) -> &str {
    cluster.state.as_ref().map_or("", |state| &state.holder)
}

/// It was asked for, and is neither waiting nor under way.
fn is_dropped(cluster: &v1::Cluster) -> bool {
    cluster.state.as_ref().is_some_and(|state| state.wanted.is_none() && state.stage == STEADY)
}

fn ready(cluster: &v1::Cluster) -> Result<(), String> {
    match cluster.state.as_ref().map(|state| state.stage.as_str()) {
        Some(STEADY) => Ok(()),
        _ => Err(stage(cluster)),
    }
}

/// "electing, because of crash: db2 waits for …"
fn stage(cluster: &v1::Cluster) -> String {
    let stage = cluster.state.as_ref().map_or("unknown", |state| &state.stage);
    match cluster.reason.as_str() {
        "" => stage.to_owned(),
        reason => format!("{stage}: {reason}"),
    }
}

/// What a member lacks until it has its part; None: nothing.
fn missing(cluster: &v1::Cluster, member: &v1::ClusterMember) -> Option<String> {
    let report = member.report.clone().unwrap_or_default();
    let has_part = match holder(cluster) == member.node {
        true => report.state == PRIMARY,
        false => {
            report.state == STANDBY && report.upstream.is_some() && member.copied == member.copy
        }
    };
    if has_part {
        return None;
    }
    let warnings = report.warnings.iter().map(String::as_str);
    let why = [member.reason.as_str(), report.problem.as_str()];
    let why = why.into_iter().chain(warnings).find(|why| !why.is_empty());
    let state = show::doing(member);
    Some(match why {
        Some(why) => format!("{} {state}: {why}", member.node),
        None => format!("{} {state}", member.node),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> v1::Cluster {
        let member = |node: &str, state: &str| v1::ClusterMember {
            node: node.to_owned(),
            connected: true,
            report: Some(v1::MemberReport { state: state.to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let state = v1::ClusterState {
            holder: "db1".to_owned(),
            stage: STEADY.to_owned(),
            ..Default::default()
        };
        v1::Cluster {
            state: Some(state),
            members: vec![member("db1", PRIMARY), member("db2", STANDBY)],
            ..Default::default()
        }
    }

    #[test]
    fn a_member_has_its_part_when_it_writes_or_streams() {
        let mut cluster = cluster();
        assert_eq!(missing(&cluster, &cluster.members[0]), None);
        assert_eq!(missing(&cluster, &cluster.members[1]).as_deref(), Some("db2 standby"));
        let stream = v1::WalStream { from: "db1".to_owned(), age_ms: 10, end: String::new() };
        let report = cluster.members[1].report.as_mut().unwrap();
        report.upstream = Some(stream);
        assert_eq!(missing(&cluster, &cluster.members[1]), None);
        cluster.members[1].copy = 2;
        assert!(missing(&cluster, &cluster.members[1]).is_some(), "its copy is an older one");
        cluster.members[1].report.as_mut().unwrap().warnings.push("no cgroups".to_owned());
        let text = missing(&cluster, &cluster.members[1]);
        assert_eq!(text.as_deref(), Some("db2 standby: no cgroups"));
    }

    #[test]
    fn what_was_asked_for_is_dropped_when_nothing_of_it_is_left() {
        let mut cluster = cluster();
        assert!(is_dropped(&cluster));
        let state = cluster.state.as_mut().unwrap();
        state.wanted = Some(v1::WantedSwitch::default());
        assert!(!is_dropped(&cluster));
    }
}
