//! What a member is to be.

use lockstep_model::Invalid;
use lockstep_model::cluster::{Goal, Primary};

use super::part::text;
use crate::convert::{optional, parse, required};
use crate::v1::{self, cluster_place};

impl TryFrom<cluster_place::Goal> for Goal {
    type Error = Invalid;
    fn try_from(goal: cluster_place::Goal) -> Result<Self, Invalid> {
        use cluster_place::Goal as Wire;
        Ok(match goal {
            Wire::Primary(goal) => Self::Primary(goal.try_into()?),
            Wire::HandOver(v1::HandOverGoal {}) => Self::HandOver,
            Wire::Standby(v1::StandbyGoal { upstream }) => {
                Self::Standby { upstream: optional("upstream", &upstream)? }
            }
            Wire::Sealed(v1::SealedGoal { salvage }) => {
                Self::Sealed { salvage: optional("salvage", &salvage)? }
            }
            Wire::Fenced(v1::FencedGoal {}) => Self::Fenced,
            Wire::Stopped(v1::StoppedGoal {}) => Self::Stopped,
            Wire::Maintenance(v1::MaintenanceGoal {}) => Self::Maintenance,
        })
    }
}

impl From<Goal> for cluster_place::Goal {
    fn from(goal: Goal) -> Self {
        match goal {
            Goal::Primary(goal) => Self::Primary(goal.into()),
            Goal::HandOver => Self::HandOver(v1::HandOverGoal {}),
            Goal::Standby { upstream } => {
                Self::Standby(v1::StandbyGoal { upstream: text(upstream) })
            }
            Goal::Sealed { salvage } => Self::Sealed(v1::SealedGoal { salvage: text(salvage) }),
            Goal::Fenced => Self::Fenced(v1::FencedGoal {}),
            Goal::Stopped => Self::Stopped(v1::StoppedGoal {}),
            Goal::Maintenance => Self::Maintenance(v1::MaintenanceGoal {}),
        }
    }
}

impl TryFrom<v1::PrimaryGoal> for Primary {
    type Error = Invalid;
    fn try_from(goal: v1::PrimaryGoal) -> Result<Self, Invalid> {
        let v1::PrimaryGoal { origin, at_least, timeline, quorum, crash, prepare } = goal;
        let quorum = required("quorum", quorum)?;
        Ok(Self {
            origin: parse("origin", &origin)?,
            at_least: parse("at_least", &at_least)?,
            timeline,
            quorum: quorum.try_into().map_err(|e: Invalid| e.within("quorum"))?,
            crash: parse("crash", &crash)?,
            prepare,
        })
    }
}

impl From<Primary> for v1::PrimaryGoal {
    fn from(goal: Primary) -> Self {
        let Primary { origin, at_least, timeline, quorum, crash, prepare } = goal;
        Self {
            origin: origin.to_string(),
            at_least: at_least.to_string(),
            timeline,
            quorum: Some((&quorum).into()),
            crash: crash.to_string(),
            prepare,
        }
    }
}
