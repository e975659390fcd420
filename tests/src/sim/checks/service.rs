//! Losing the controller alone ends no service; every wait has a reason; the planner comes to rest.

use crate::sim::history::{Fact, Harm, History};

pub fn check(history: &History) -> Option<String> {
    if let Some((at, _)) = history.facts.iter().find(|(_, fact)| matches!(fact, Fact::Restless)) {
        return Some(format!("the plan does not come to rest at {at} ms"));
    }
    let only_control = history.facts.iter().all(|(_, fact)| match fact {
        Fact::Fault { harms, .. } => *harms == Harm::Control,
        _ => true,
    });
    let closed = history.facts.iter().find(|(_, fact)| matches!(fact, Fact::Closed { .. }));
    match closed {
        Some((at, Fact::Closed { node, .. })) if only_control => {
            Some(format!("db{} ended at {at} ms, and only the controller failed", node + 1))
        }
        _ => None,
    }
}

/// A rule that waits for nothing is due within so long.
const DUE_MS: u64 = 2000;

pub fn check_explained(history: &History) -> Option<String> {
    let mut since: Option<u64> = None;
    for (at, fact) in &history.facts {
        match fact {
            Fact::Quiet { steady: false, reasons: 0 } => {
                let began = *since.get_or_insert(*at);
                if *at > began + DUE_MS {
                    return Some(format!(
                        "from {began} to {at} ms it is not as it should be, and nothing says why"
                    ));
                }
            }
            Fact::Quiet { .. } | Fact::Recorded(_) => since = None,
            _ => {}
        }
    }
    None
}
