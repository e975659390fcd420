//! What PDT or IST means on a date: what the zone at home calls so, else the one distance from UTC
//! that zones anywhere call so then. More than one is for the person to decide.

use std::collections::BTreeMap;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use lockstep_model::id::quote;

use crate::schedule::zone::{Place, Zone};

pub fn resolve(name: &str, near: DateTime, home: &Zone) -> Result<Zone, String> {
    let fixed = |seconds: i32| {
        let offset = Offset::from_seconds(seconds).map_err(|e| e.to_string())?;
        Zone::fixed(offset).map_err(|e| e.problem)
    };
    if let Some(seconds) = called(name, near, home) {
        return fixed(seconds);
    }
    let mut readings: BTreeMap<i32, String> = BTreeMap::new();
    for zone in Zone::all() {
        if let Some(seconds) = called(name, near, &zone) {
            readings.entry(seconds).or_insert_with(|| zone.name().to_string());
        }
    }
    let mut distances = readings.keys();
    match (distances.next(), distances.next()) {
        (Some(only), None) => fixed(*only),
        (None, _) => Err(format!(
            "no zone is called {} on {}; write the distance from UTC, such as +02:00",
            quote(name),
            near.date()
        )),
        (Some(_), Some(_)) => {
            let shown: Result<Vec<String>, String> = readings
                .iter()
                .map(|(seconds, zone)| Ok(format!("{} ({zone})", fixed(*seconds)?.name())))
                .collect();
            Err(format!("{} may be {}; write which", quote(name), shown?.join(" or ")))
        }
    }
}

/// The distance from UTC in seconds at which clocks of `zone` show `near` and call it `name`.
fn called(name: &str, near: DateTime, zone: &Zone) -> Option<i32> {
    let instants = match zone.place(near) {
        Place::Once(at) | Place::Skipped { at, .. } => [at, at],
        Place::Twice { first, second, .. } => [first, second],
    };
    instants.into_iter().find(|at| zone.abbreviation(*at) == name).map(|at| zone.offset(at))
}
