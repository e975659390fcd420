//! A history as a timeline that a person can read.

use lockstep_model::record::{Actor, Record, Write};
use lockstep_model::request::Request;

use super::Told;
use super::history::Fact;

pub fn tell(told: &Told) -> String {
    let mut out = format!("{}\n\n", told.scenario);
    let mut acknowledged: Option<(usize, u64, u64, u64)> = None;
    for (at, fact) in &told.history.facts {
        if let Fact::Acknowledged { node, entry, .. } = fact {
            match &mut acknowledged {
                Some((of, _, last, count)) if of == node => (*last, *count) = (*entry, *count + 1),
                other => {
                    out.push_str(&other.take().map_or(String::new(), runs));
                    *other = Some((*node, *at, *entry, 1));
                }
            }
            continue;
        }
        let Some(text) = show(fact) else { continue };
        if matters(fact) {
            out.push_str(&acknowledged.take().map_or(String::new(), runs));
        }
        out.push_str(&line(*at, &text));
    }
    out.push_str(&acknowledged.take().map_or(String::new(), runs));
    if let Some(violation) = &told.violation {
        out.push_str(&format!("\nVIOLATED {}: {}\n", violation.check, violation.text));
    }
    out
}

fn line(at: u64, text: &str) -> String {
    format!("{:>8}.{:03}  {text}\n", at / 1000, at % 1000)
}

fn runs((node, at, last, count): (usize, u64, u64, u64)) -> String {
    line(at, &format!("db{} acknowledges {count} commits, the last is {last}", node + 1))
}

fn matters(fact: &Fact) -> bool {
    !matches!(fact, Fact::Note(_) | Fact::Recorded(_) | Fact::Promised { .. } | Fact::Disks(_))
}

fn show(fact: &Fact) -> Option<String> {
    Some(match fact {
        Fact::Opened { node, .. } => format!("db{} OPENS: it takes writes", node + 1),
        Fact::Closed { node, .. } => format!("db{} CLOSES", node + 1),
        Fact::Promoted { node, timeline, log } => {
            format!("db{} left recovery at {}, timeline {timeline}", node + 1, log.len())
        }
        Fact::Mixed { node, from } => format!("db{} MIXES its log with db{}'s", node + 1, from + 1),
        Fact::Recorded(change) => {
            let state = change.writes.iter().find_map(|write| match write {
                Write::Put(Record::ClusterState(state)) => Some(format!(
                    ": term {}, {}, holder {}, quorums [{}]",
                    state.term,
                    state.stage.as_str(),
                    state.holder.as_ref().map_or("nobody".to_owned(), ToString::to_string),
                    state.quorums.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
                )),
                _ => None,
            });
            if state.is_none() && change.actor != Actor::Planner {
                return None;
            }
            format!("recorded [{}]{}", change.cause, state.unwrap_or_default())
        }
        Fact::Restored => "THE STORE IS AN OLD COPY".to_owned(),
        Fact::LossAllowed => "somebody accepts that commits are lost".to_owned(),
        Fact::Fault { what, .. } => format!("*** {what}"),
        Fact::Healed => "*** everything is healed".to_owned(),
        Fact::Restless => "THE PLAN DOES NOT COME TO REST".to_owned(),
        Fact::Note(text) => text.clone(),
        Fact::Ended(end) => {
            let members: String =
                end.members.iter().map(|(well, text)| format!("\n    {well} {text}")).collect();
            let reasons: String = end.reasons.iter().map(|text| format!("\n    {text}")).collect();
            format!("the end: {}, {} live tasks{members}{reasons}", end.stage, end.live_tasks)
        }
        Fact::Acknowledged { .. } | Fact::Promised { .. } | Fact::Quiet { .. } | Fact::Disks(_) => {
            return None;
        }
    })
}

pub fn request(request: &Request) -> String {
    let shown = format!("{request:?}");
    shown.chars().take(160).collect()
}
