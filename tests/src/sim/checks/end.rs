//! When everything works again, everything is well after a bounded time.

use crate::sim::history::{Fact, History};

pub fn check(history: &History) -> Option<String> {
    let (_, Fact::Ended(end)) = history.facts.last()? else {
        return Some("the story has no end".to_owned());
    };
    if end.stage != "steady" || end.live_tasks > 0 {
        return Some(format!("{}, {} live tasks", end.stage, end.live_tasks));
    }
    let unwell = end.members.iter().find(|(well, _)| !well);
    unwell.map(|(_, text)| text.clone())
}
