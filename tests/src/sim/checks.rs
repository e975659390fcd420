//! What must hold, seen from beside it all: from a history alone, without a rule or an agent's code.

mod end;
mod loss;
mod protection;
mod service;
mod terms;
mod writers;

use super::Violation;
use super::history::History;

type Check = fn(&History) -> Option<String>;

const ALL: &[(&str, Check)] = &[
    ("two-writers", writers::check),
    ("lost-commits", loss::check),
    ("protection", protection::check),
    ("terms", terms::check),
    ("timelines", loss::check_timelines),
    ("service", service::check),
    ("explained", service::check_explained),
    ("end", end::check),
];

/// The first promise that was broken.
pub fn check(history: &History) -> Option<Violation> {
    ALL.iter().find_map(|(name, check)| check(history).map(|text| Violation { check: name, text }))
}
