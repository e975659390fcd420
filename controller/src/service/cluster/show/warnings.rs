//! What an operator should mend though all goes on: promises that are not kept now, or could not be if
//! something happened. Reads only.

use std::collections::BTreeSet;

use lockstep_model::cluster::options::{Isolation, ReplicationTls, Shortage};
use lockstep_model::cluster::{Cluster, ClusterState, Stage};
use lockstep_model::node::NodeAdmin;

use super::Shown;
use crate::identity::vault::Purpose;

pub(super) fn of(
    shown: &Shown<'_>,
    cluster: &Cluster,
    state: Option<&ClusterState>,
) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(no_passwords(shown, cluster));
    if cluster.paused {
        found.push("it is paused: nobody takes over when the primary fails".to_owned());
    }
    if let Some(state) = state.filter(|state| state.stage == Stage::Steady) {
        found.extend(unprotected(cluster, state));
        found.extend(alone(cluster, state));
        found.extend(drained(shown, cluster, state));
    }
    found.extend(versions(shown, cluster));
    if cluster.options.replication.tls == ReplicationTls::Off && cluster.members.len() > 1 {
        let text = "replication goes over plain connections: set replication-tls";
        found.push(text.to_owned());
    }
    if cluster.options.lease.on_isolation == Isolation::Stay {
        let text = "on-isolation is stay: a primary that is cut off goes on, and two are possible";
        found.push(text.to_owned());
    }
    found
}

fn no_passwords(shown: &Shown<'_>, cluster: &Cluster) -> Option<String> {
    let name = &cluster.name;
    let sealed = shown.world.cluster_secrets().get(name).map(|secret| &secret.value);
    let opens = sealed.is_some_and(|sealed| {
        let open = |text: &[u8], purpose| shown.vault.unseal(text, purpose).is_some();
        open(&sealed.superuser, Purpose::Superuser(name))
            && open(&sealed.replication, Purpose::Replication(name))
    });
    (!opens).then(|| {
        format!(
            "its passwords cannot be read, and new members cannot be told them: put {} back and \
             start the controller anew",
            shown.vault.path().display()
        )
    })
}

/// Commits wait for fewer standbys than the policy says.
fn unprotected(cluster: &Cluster, state: &ClusterState) -> Option<String> {
    let wanted = cluster.commits_wait_for();
    let now = state.quorums.iter().map(|quorum| quorum.k).min().unwrap_or(0);
    if now >= wanted {
        return None;
    }
    let why = match cluster.options.on_sync_shortage {
        Shortage::Degrade => "too few standbys are left, and on-sync-shortage is degrade",
        Shortage::Wait => "too few standbys ever streamed",
    };
    Some(match now {
        0 => format!("COMMITS ARE NOT PROTECTED: {why}; a failover may lose some"),
        _ => format!("commits wait for {now} standbys, not for {wanted}: {why}"),
    })
}

/// Nobody would take over by itself.
fn alone(cluster: &Cluster, state: &ClusterState) -> Option<String> {
    let holder = state.holder.as_ref();
    let others = state.promotable.iter().filter(|node| Some(*node) != holder).count();
    if others > 0 || !cluster.options.failover.automatic {
        return None;
    }
    let name = &cluster.name;
    Some(format!(
        "no standby may be promoted: nobody takes over when the primary fails (lockstepctl explain \
         cluster/{name})"
    ))
}

/// Readers were sent elsewhere, and writers were not.
fn drained(shown: &Shown<'_>, cluster: &Cluster, state: &ClusterState) -> Option<String> {
    let holder = state.holder.as_ref()?;
    let admin = shown.world.nodes().get(holder)?.value.admin;
    (admin == NodeAdmin::Draining).then(|| {
        format!(
            "the node of its primary, {holder}, is drained, and writes go there still: lockstepctl \
             cluster switchover {}",
            cluster.name
        )
    })
}

/// A newer minor version may not be able to follow an older one's settings, and is mended by a
/// restart of the others.
fn versions(shown: &Shown<'_>, cluster: &Cluster) -> Option<String> {
    let of = |node| shown.world.member_said(&cluster.name, node).map(|heard| &heard.report.version);
    let versions = cluster.members.iter().filter_map(|member| of(&member.node));
    let versions = distinct(versions.map(String::as_str).collect());
    (versions.len() > 1).then(|| format!("members run different versions: {}", versions.join(", ")))
}

/// Of a member that does not run only the major version is known: 15 is no other one than 15.18.
fn distinct(versions: BTreeSet<&str>) -> Vec<&str> {
    let is_part = |version: &str| {
        let parts = |other: &&str| other.strip_prefix(version).is_some_and(|r| r.starts_with('.'));
        version.is_empty() || versions.iter().any(parts)
    };
    versions.iter().copied().filter(|version| !is_part(version)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_known_in_part_only_is_no_other_one() {
        let of = |versions: &[&'static str]| distinct(versions.iter().copied().collect());
        assert_eq!(of(&["15", "15.18", ""]), ["15.18"]);
        assert_eq!(of(&["15.1", "15.18"]), ["15.1", "15.18"]);
        assert_eq!(of(&["1", "15"]), ["1", "15"]);
    }
}
