//! What people want of a cluster, and its passwords.

use lockstep_model::cluster::{Cluster, ClusterSecret, MEMBERS_MAX, Member};
use lockstep_model::record::Secret;
use lockstep_model::{Invalid, Timestamp};

use super::part::{options, settings};
use crate::store::field::{check_count, from_option, optional, parse};
use crate::store_v1 as wire;

impl From<&Cluster> for wire::Cluster {
    fn from(cluster: &Cluster) -> Self {
        let Cluster { name, adopt, members, options, paused, created_at, leaving } = cluster;
        Self {
            name: name.to_string(),
            adopt: *adopt,
            members: members.iter().map(Into::into).collect(),
            settings: settings(options),
            paused: *paused,
            created_at_ms: created_at.0,
            leaving: from_option(leaving.as_ref()),
        }
    }
}

impl TryFrom<wire::Cluster> for Cluster {
    type Error = Invalid;
    fn try_from(cluster: wire::Cluster) -> Result<Self, Invalid> {
        let wire::Cluster { name, adopt, members, settings, paused, created_at_ms, leaving } =
            cluster;
        check_count("members", members.len(), MEMBERS_MAX)?;
        let members: Vec<Member> =
            members.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        if !members.is_sorted_by(|a, b| a.node < b.node) {
            return Err(Invalid::new("members", "must be sorted by name, each name once"));
        }
        Ok(Self {
            name: parse("name", &name)?,
            adopt,
            members,
            options: options("settings", settings)?,
            paused,
            created_at: Timestamp(created_at_ms),
            leaving: optional("leaving", &leaving)?,
        })
    }
}

impl From<&Member> for wire::ClusterMember {
    fn from(member: &Member) -> Self {
        let Member { node, options, admin, copy, leaving } = member;
        Self {
            node: node.to_string(),
            settings: settings(options),
            admin: admin.to_string(),
            copy: *copy,
            leaving: from_option(leaving.as_ref()),
        }
    }
}

impl TryFrom<wire::ClusterMember> for Member {
    type Error = Invalid;
    fn try_from(member: wire::ClusterMember) -> Result<Self, Invalid> {
        let wire::ClusterMember { node, settings, admin, copy, leaving } = member;
        Ok(Self {
            node: parse("members.node", &node)?,
            options: options("members.settings", settings)?,
            admin: parse("members.admin", &admin)?,
            copy,
            leaving: optional("members.leaving", &leaving)?,
        })
    }
}

impl From<&ClusterSecret> for wire::ClusterSecret {
    fn from(secret: &ClusterSecret) -> Self {
        let ClusterSecret { cluster, superuser, replication } = secret;
        Self {
            cluster: cluster.to_string(),
            superuser: superuser.clone(),
            replication: replication.clone(),
        }
    }
}

impl TryFrom<wire::ClusterSecret> for ClusterSecret {
    type Error = Invalid;
    fn try_from(secret: wire::ClusterSecret) -> Result<Self, Invalid> {
        let wire::ClusterSecret { cluster, superuser, replication } = secret;
        check_count("superuser", superuser.len(), Secret::SEALED_MAX)?;
        check_count("replication", replication.len(), Secret::SEALED_MAX)?;
        Ok(Self { cluster: parse("cluster", &cluster)?, superuser, replication })
    }
}
