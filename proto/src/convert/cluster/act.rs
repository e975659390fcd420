//! What is to be done once to an instance.

use lockstep_model::cluster::{Act, ClusterAct};
use lockstep_model::id::quote;
use lockstep_model::{Invalid, Millis};

use crate::convert::{parse, required};
use crate::v1::{self, cluster_act};

/// What people may ask for; the external fence is the planner's alone.
pub fn asked_act(word: &str, pending: bool) -> Result<Act, Invalid> {
    let act = match word {
        "restart" => return Ok(Act::Restart { pending }),
        "reload" => Act::Reload,
        "checkpoint" => Act::Checkpoint,
        "rewind" => Act::Rewind,
        "verify" => Act::Verify,
        _ => {
            let problem = "must be restart, reload, checkpoint, rewind or verify";
            return Err(Invalid::new("act", format!("{problem}, not {}", quote(word))));
        }
    };
    match pending {
        true => Err(Invalid::new("pending", "is for restarts only")),
        false => Ok(act),
    }
}

impl TryFrom<v1::ClusterAct> for ClusterAct {
    type Error = Invalid;
    fn try_from(act: v1::ClusterAct) -> Result<Self, Invalid> {
        use cluster_act::Act as Wire;
        let v1::ClusterAct { cluster, act } = act;
        let act = match required("act", act)? {
            Wire::Restart(v1::RestartAct { pending }) => Act::Restart { pending },
            Wire::Reload(v1::ReloadAct {}) => Act::Reload,
            Wire::Checkpoint(v1::CheckpointAct {}) => Act::Checkpoint,
            Wire::Rewind(v1::RewindAct {}) => Act::Rewind,
            Wire::Verify(v1::VerifyAct {}) => Act::Verify,
            Wire::Fence(v1::FenceAct { node, timeout_ms }) => {
                Act::Fence { node: parse("node", &node)?, timeout: Millis(timeout_ms) }
            }
        };
        Ok(Self { cluster: parse("cluster", &cluster)?, act })
    }
}

impl From<ClusterAct> for v1::ClusterAct {
    fn from(act: ClusterAct) -> Self {
        use cluster_act::Act as Wire;
        let ClusterAct { cluster, act } = act;
        let act = match act {
            Act::Restart { pending } => Wire::Restart(v1::RestartAct { pending }),
            Act::Reload => Wire::Reload(v1::ReloadAct {}),
            Act::Checkpoint => Wire::Checkpoint(v1::CheckpointAct {}),
            Act::Rewind => Wire::Rewind(v1::RewindAct {}),
            Act::Verify => Wire::Verify(v1::VerifyAct {}),
            Act::Fence { node, timeout } => {
                Wire::Fence(v1::FenceAct { node: node.to_string(), timeout_ms: timeout.0 })
            }
        };
        Self { cluster: cluster.to_string(), act: Some(act) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_asks_for_a_fence_by_name() {
        assert_eq!(asked_act("restart", true), Ok(Act::Restart { pending: true }));
        assert_eq!(asked_act("rewind", false), Ok(Act::Rewind));
        assert_eq!(asked_act("fence", false).unwrap_err().field, "act");
        assert_eq!(asked_act("reload", true).unwrap_err().field, "pending");
    }
}
