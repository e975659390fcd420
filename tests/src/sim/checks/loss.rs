//! No acknowledged commit is missing where it was promised to be: with synchronous standbys never,
//! without them where nothing but processes failed. Nothing is promoted that lacks one.

use std::collections::{BTreeMap, BTreeSet};

use crate::sim::history::{Fact, Harm, History};

pub fn check(history: &History) -> Option<String> {
    let allowed = history.facts.iter().find(|(_, fact)| matches!(fact, Fact::LossAllowed));
    // A node whose power or network goes may take with it what nobody else was asked to have.
    let only_processes = !history.facts.iter().any(|(_, fact)| {
        matches!(fact, Fact::Fault { harms, .. } if *harms == Harm::Node || *harms == Harm::Request)
    });
    if allowed.is_some() {
        return None;
    }
    let mut promised: BTreeMap<u64, (usize, u64)> = BTreeMap::new();
    for (at, fact) in &history.facts {
        match fact {
            Fact::Acknowledged { node, entry, waited_for, .. }
                if *waited_for > 0 || only_processes =>
            {
                promised.insert(*entry, (*node, *at));
            }
            Fact::Promoted { node, log, .. } => {
                if let Some(text) = missing(&promised, log) {
                    return Some(format!("db{} was promoted at {at} ms without {text}", node + 1));
                }
            }
            Fact::Ended(end) => {
                let log = end.log.as_deref().unwrap_or_default();
                if let Some(text) = missing(&promised, log).filter(|_| end.log.is_some()) {
                    return Some(format!("in the end the primary lacks {text}"));
                }
            }
            _ => {}
        }
    }
    None
}

fn missing(promised: &BTreeMap<u64, (usize, u64)>, log: &[u64]) -> Option<String> {
    let there: BTreeSet<u64> = log.iter().copied().collect();
    let mut lost = promised.iter().filter(|(entry, _)| !there.contains(entry));
    let (entry, (node, at)) = lost.next()?;
    Some(format!(
        "commit {entry}, acknowledged by db{} at {at} ms, and {} more",
        node + 1,
        lost.count()
    ))
}

/// No two histories under one number of a timeline, and no log that is a mixture of two.
pub fn check_timelines(history: &History) -> Option<String> {
    // Where each timeline begins, and what is before it.
    let mut known: BTreeMap<u32, (usize, &Vec<u64>)> = BTreeMap::new();
    let allowed = history.facts.iter().any(|(_, fact)| matches!(fact, Fact::LossAllowed));
    for (at, fact) in &history.facts {
        match fact {
            Fact::Mixed { node, from } => {
                return Some(format!(
                    "db{} took db{}'s log after its own at {at} ms",
                    node + 1,
                    from + 1
                ));
            }
            Fact::Promoted { node, timeline, log } if !allowed => {
                if let Some((other, _)) = known.insert(*timeline, (*node, log)) {
                    return Some(format!(
                        "db{} and db{} both began timeline {timeline}",
                        other + 1,
                        node + 1
                    ));
                }
            }
            _ => {}
        }
    }
    None
}
