//! Never do two members acknowledge commits in overlapping time, whatever mode it is.

use std::collections::BTreeMap;

use crate::sim::history::{Fact, History};

pub fn check(history: &History) -> Option<String> {
    // Of each opening of a member: its first and last acknowledgement.
    let mut spans: BTreeMap<(usize, u64), (u64, u64)> = BTreeMap::new();
    for (at, fact) in &history.facts {
        if let Fact::Acknowledged { node, opening, .. } = fact {
            spans.entry((*node, *opening)).or_insert((*at, *at)).1 = *at;
        }
    }
    let mut spans: Vec<_> = spans.into_iter().collect();
    spans.sort_by_key(|(_, (first, _))| *first);
    spans.windows(2).find_map(|pair| {
        let [((one, _), (_, last)), ((other, _), (first, _))] = pair else { return None };
        (one != other && first <= last).then(|| {
            format!(
                "db{} acknowledged until {last} ms, db{} from {first} ms on",
                one + 1,
                other + 1
            )
        })
    })
}
