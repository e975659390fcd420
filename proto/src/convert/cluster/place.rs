//! A node's part in a cluster, and its end.

use lockstep_model::Invalid;
use lockstep_model::cluster::{
    ClusterPlace, ClusterRelease, MEMBERS_MAX, MemberPeer, MemberReport, Term,
};

use super::part::{from_lineage, from_system_id, lineage, options, settings, system_id};
use crate::convert::{each, optional, parse, parse_each, required};
use crate::v1;

impl TryFrom<v1::ClusterPlace> for ClusterPlace {
    type Error = Invalid;
    fn try_from(place: v1::ClusterPlace) -> Result<Self, Invalid> {
        let v1::ClusterPlace {
            cluster,
            term,
            goal,
            system_id: id,
            holder,
            lineage: forks,
            copy,
            settings,
            member_settings,
            peers,
            promotable,
            sync,
            paused,
            serve,
        } = place;
        Ok(Self {
            cluster: parse("cluster", &cluster)?,
            term: Term(term),
            goal: required("goal", goal)?.try_into()?,
            system_id: system_id(id),
            holder: optional("holder", &holder)?,
            lineage: lineage(forks)?,
            copy,
            options: options("settings", settings)?,
            member: options("member_settings", member_settings)?,
            peers: each("peers", MEMBERS_MAX, peers)?,
            promotable: parse_each("promotable", MEMBERS_MAX, &promotable)?,
            sync,
            paused,
            serve,
        })
    }
}

impl From<ClusterPlace> for v1::ClusterPlace {
    fn from(place: ClusterPlace) -> Self {
        let ClusterPlace {
            cluster,
            term,
            goal,
            system_id,
            holder,
            lineage,
            copy,
            options,
            member,
            peers,
            promotable,
            sync,
            paused,
            serve,
        } = place;
        Self {
            cluster: cluster.to_string(),
            term: term.0,
            goal: Some(goal.into()),
            system_id: from_system_id(system_id),
            holder: holder.map(|holder| holder.to_string()).unwrap_or_default(),
            lineage: from_lineage(&lineage),
            copy,
            settings: settings(&options),
            member_settings: settings(&member),
            peers: peers.into_iter().map(Into::into).collect(),
            promotable: promotable.iter().map(ToString::to_string).collect(),
            sync,
            paused,
            serve,
        }
    }
}

impl TryFrom<v1::MemberPeer> for MemberPeer {
    type Error = Invalid;
    fn try_from(peer: v1::MemberPeer) -> Result<Self, Invalid> {
        let v1::MemberPeer { peer, postgres, certificate, clone_from } = peer;
        if certificate.len() > MemberReport::CERTIFICATE_MAX {
            let problem = format!("must have at most {} bytes", MemberReport::CERTIFICATE_MAX);
            return Err(Invalid::new("certificate", problem));
        }
        Ok(Self {
            peer: required("peer", peer)?.try_into()?,
            postgres: parse("postgres", &postgres)?,
            certificate,
            clone_from,
        })
    }
}

impl From<MemberPeer> for v1::MemberPeer {
    fn from(peer: MemberPeer) -> Self {
        let MemberPeer { peer, postgres, certificate, clone_from } = peer;
        Self { peer: Some(peer.into()), postgres: postgres.to_string(), certificate, clone_from }
    }
}

impl TryFrom<v1::ClusterRelease> for ClusterRelease {
    type Error = Invalid;
    fn try_from(release: v1::ClusterRelease) -> Result<Self, Invalid> {
        let v1::ClusterRelease { cluster, delete } = release;
        Ok(Self { cluster: parse("cluster", &cluster)?, delete })
    }
}

impl From<ClusterRelease> for v1::ClusterRelease {
    fn from(release: ClusterRelease) -> Self {
        let ClusterRelease { cluster, delete } = release;
        Self { cluster: cluster.to_string(), delete }
    }
}
