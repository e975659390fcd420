//! Specs of clusters' tasks.

use lockstep_model::cluster::{
    Act, ClusterAct, ClusterPlace, ClusterRelease, Goal, MEMBERS_MAX, MemberPeer, MemberReport,
    Primary, Term,
};
use lockstep_model::{Invalid, Millis};

use super::part::{from_lineage, from_system_id, lineage, options, settings, system_id};
use crate::store::field::{check_count, from_option, missing, optional, parse, parse_all};
use crate::store_v1::{self as wire, cluster_act, cluster_place};

impl From<&ClusterPlace> for wire::ClusterPlace {
    fn from(place: &ClusterPlace) -> Self {
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
            system_id: from_system_id(*system_id),
            holder: from_option(holder.as_ref()),
            lineage: from_lineage(lineage),
            copy: *copy,
            settings: settings(options),
            member_settings: settings(member),
            peers: peers.iter().map(Into::into).collect(),
            promotable: promotable.iter().map(ToString::to_string).collect(),
            sync: *sync,
            paused: *paused,
            serve: *serve,
            goal: Some(goal.into()),
        }
    }
}

impl TryFrom<wire::ClusterPlace> for ClusterPlace {
    type Error = Invalid;
    fn try_from(place: wire::ClusterPlace) -> Result<Self, Invalid> {
        let wire::ClusterPlace {
            cluster,
            term,
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
            goal,
        } = place;
        check_count("peers", peers.len(), MEMBERS_MAX)?;
        Ok(Self {
            cluster: parse("cluster", &cluster)?,
            term: Term(term),
            goal: goal.ok_or_else(|| missing("goal"))?.try_into()?,
            system_id: system_id(id),
            holder: optional("holder", &holder)?,
            lineage: lineage(forks)?,
            copy,
            options: options("settings", settings)?,
            member: options("member_settings", member_settings)?,
            peers: peers.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            promotable: parse_all("promotable", promotable, MEMBERS_MAX)?,
            sync,
            paused,
            serve,
        })
    }
}

impl From<&Goal> for cluster_place::Goal {
    fn from(goal: &Goal) -> Self {
        match goal {
            Goal::Primary(goal) => Self::Primary(goal.into()),
            Goal::HandOver => Self::HandOver(wire::ClusterNothing {}),
            Goal::Standby { upstream } => Self::Standby(from_option(upstream.as_ref())),
            Goal::Sealed { salvage } => Self::Sealed(from_option(salvage.as_ref())),
            Goal::Fenced => Self::Fenced(wire::ClusterNothing {}),
            Goal::Stopped => Self::Stopped(wire::ClusterNothing {}),
            Goal::Maintenance => Self::Maintenance(wire::ClusterNothing {}),
        }
    }
}

impl TryFrom<cluster_place::Goal> for Goal {
    type Error = Invalid;
    fn try_from(goal: cluster_place::Goal) -> Result<Self, Invalid> {
        use cluster_place::Goal as Wire;
        Ok(match goal {
            Wire::Primary(goal) => Self::Primary(goal.try_into()?),
            Wire::HandOver(wire::ClusterNothing {}) => Self::HandOver,
            Wire::Standby(upstream) => Self::Standby { upstream: optional("standby", &upstream)? },
            Wire::Sealed(salvage) => Self::Sealed { salvage: optional("sealed", &salvage)? },
            Wire::Fenced(wire::ClusterNothing {}) => Self::Fenced,
            Wire::Stopped(wire::ClusterNothing {}) => Self::Stopped,
            Wire::Maintenance(wire::ClusterNothing {}) => Self::Maintenance,
        })
    }
}

impl From<&Primary> for wire::PrimaryGoal {
    fn from(goal: &Primary) -> Self {
        let Primary { origin, at_least, timeline, quorum, crash, prepare } = goal;
        Self {
            origin: origin.to_string(),
            at_least: at_least.to_string(),
            timeline: *timeline,
            quorum: Some(quorum.into()),
            crash: crash.to_string(),
            prepare: *prepare,
        }
    }
}

impl TryFrom<wire::PrimaryGoal> for Primary {
    type Error = Invalid;
    fn try_from(goal: wire::PrimaryGoal) -> Result<Self, Invalid> {
        let wire::PrimaryGoal { origin, at_least, timeline, quorum, crash, prepare } = goal;
        Ok(Self {
            origin: parse("primary.origin", &origin)?,
            at_least: parse("primary.at_least", &at_least)?,
            timeline,
            quorum: quorum.ok_or_else(|| missing("primary.quorum"))?.try_into()?,
            crash: parse("primary.crash", &crash)?,
            prepare,
        })
    }
}

impl From<&MemberPeer> for wire::MemberPeer {
    fn from(peer: &MemberPeer) -> Self {
        let MemberPeer { peer, postgres, certificate, clone_from } = peer;
        Self {
            peer: Some(peer.into()),
            postgres: postgres.to_string(),
            certificate: certificate.clone(),
            clone_from: *clone_from,
        }
    }
}

impl TryFrom<wire::MemberPeer> for MemberPeer {
    type Error = Invalid;
    fn try_from(peer: wire::MemberPeer) -> Result<Self, Invalid> {
        let wire::MemberPeer { peer, postgres, certificate, clone_from } = peer;
        check_count("peers.certificate", certificate.len(), MemberReport::CERTIFICATE_MAX)?;
        Ok(Self {
            peer: peer.ok_or_else(|| missing("peers.peer"))?.try_into()?,
            postgres: parse("peers.postgres", &postgres)?,
            certificate,
            clone_from,
        })
    }
}

impl From<&ClusterRelease> for wire::ClusterRelease {
    fn from(release: &ClusterRelease) -> Self {
        let ClusterRelease { cluster, delete } = release;
        Self { cluster: cluster.to_string(), delete: *delete }
    }
}

impl TryFrom<wire::ClusterRelease> for ClusterRelease {
    type Error = Invalid;
    fn try_from(release: wire::ClusterRelease) -> Result<Self, Invalid> {
        let wire::ClusterRelease { cluster, delete } = release;
        Ok(Self { cluster: parse("cluster", &cluster)?, delete })
    }
}

impl From<&ClusterAct> for wire::ClusterAct {
    fn from(act: &ClusterAct) -> Self {
        use cluster_act::Act as Wire;
        let ClusterAct { cluster, act } = act;
        let act = match act {
            Act::Restart { pending } => Wire::Restart(wire::RestartAct { pending: *pending }),
            Act::Reload => Wire::Reload(wire::ClusterNothing {}),
            Act::Checkpoint => Wire::Checkpoint(wire::ClusterNothing {}),
            Act::Rewind => Wire::Rewind(wire::ClusterNothing {}),
            Act::Verify => Wire::Verify(wire::ClusterNothing {}),
            Act::Fence { node, timeout: Millis(timeout_ms) } => {
                Wire::Fence(wire::FenceAct { node: node.to_string(), timeout_ms: *timeout_ms })
            }
        };
        Self { cluster: cluster.to_string(), act: Some(act) }
    }
}

impl TryFrom<wire::ClusterAct> for ClusterAct {
    type Error = Invalid;
    fn try_from(act: wire::ClusterAct) -> Result<Self, Invalid> {
        use cluster_act::Act as Wire;
        let wire::ClusterAct { cluster, act } = act;
        let act = match act.ok_or_else(|| missing("act"))? {
            Wire::Restart(wire::RestartAct { pending }) => Act::Restart { pending },
            Wire::Reload(wire::ClusterNothing {}) => Act::Reload,
            Wire::Checkpoint(wire::ClusterNothing {}) => Act::Checkpoint,
            Wire::Rewind(wire::ClusterNothing {}) => Act::Rewind,
            Wire::Verify(wire::ClusterNothing {}) => Act::Verify,
            Wire::Fence(wire::FenceAct { node, timeout_ms }) => {
                Act::Fence { node: parse("fence.node", &node)?, timeout: Millis(timeout_ms) }
            }
        };
        Ok(Self { cluster: parse("cluster", &cluster)?, act })
    }
}
