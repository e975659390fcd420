//! Every vector of the oracle. Where ours differs, the difference stands in `DEVIATIONS`, and a
//! vector that belongs to none of them fails.

use jiff::civil::DateTime;
use lockstep_model::schedule::Moment;
use serde_json::Value;

use super::*;
use crate::schedule::zone::Place;

const GIVEN: &str = include_str!("oracle.jsonl");
const RANDOM: &str = include_str!("oracle-random.jsonl");

/// A time that a clock leaves out: the oracle names it with the distance from UTC before the gap, if
/// it does not lose the day; ours is the first instant after the gap.
fn ours(expected: &str, zone: &Zone) -> Timestamp {
    let clock: DateTime = expected[..19].parse().unwrap();
    match zone.place(clock) {
        Place::Skipped { at, .. } => Timestamp(u64::try_from(at).unwrap() * 1000),
        _ => at(expected),
    }
}

/// What the oracle takes and we refuse, by words of the refusal. docs/schedules.md has the list.
const DEVIATIONS: [(&str, &str); 4] = [
    ("nothing given is every second", "nothing is given"),
    ("what stands behind a name is not looked at", "step behind a name"),
    ("what stands behind a name is not looked at", "is not understood"),
    ("what can never fire is searched to the last year", "can never fire"),
];

struct Vector {
    fields: Vec<(String, String)>,
    zone: String,
    now: String,
    start_date: Option<String>,
    end_date: Option<String>,
    /// None: refused.
    fires: Option<Vec<Option<String>>>,
}

fn vectors(text: &str) -> Vec<Vector> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let read = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let cron = value["cron"].as_object().unwrap();
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let date = |name: &str| cron.get(name).map(text);
        let fires = value["fires"].as_array();
        Vector {
            fields: cron
                .iter()
                .filter(|(name, _)| !name.ends_with("_date"))
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            zone: text(&value["tz"]),
            now: text(&value["now"]),
            start_date: date("start_date"),
            end_date: date("end_date"),
            fires: fires.map(|f| f.iter().map(|f| f.as_str().map(str::to_owned)).collect()),
        }
    };
    lines.map(read).collect()
}

fn schedule_of(vector: &Vector) -> Result<Schedule, Invalid> {
    let fields = vector.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut schedule = schedule("second=*", &vector.zone);
    schedule.rule = Rule::of_fields(fields)?;
    let zone = Zone::find(&schedule.zone)?;
    let read = |field: &str, text: &Option<String>| -> Result<Option<Moment>, Invalid> {
        text.as_ref().map(|text| when::read(field, text, &zone, Timestamp(0))).transpose()
    };
    schedule.start = read("start_date", &vector.start_date)?;
    schedule.end = read("end_date", &vector.end_date)?;
    Ok(schedule)
}

/// A reading of the zone's clock, a part of a second rounded up: the earlier instant if it has two.
fn instant(clock: &str, zone: &Zone) -> Timestamp {
    let clock: DateTime = clock.parse().unwrap();
    let more = u64::from(clock.subsec_nanosecond() > 0);
    Timestamp(u64::try_from(zone.place(clock).first()).unwrap() * 1000 + more)
}

/// How many vectors are like the oracle, and how many deviate, by deviation.
fn hold(text: &str) -> (usize, [usize; DEVIATIONS.len()]) {
    let mut alike = 0;
    let mut deviating = [0; DEVIATIONS.len()];
    for vector in vectors(text) {
        let named = format!("{:?} in {} at {}", vector.fields, vector.zone, vector.now);
        let schedule = match (schedule_of(&vector), &vector.fires) {
            (Ok(schedule), Some(_)) => schedule,
            (Ok(_), None) => panic!("{named}: the oracle refuses it"),
            (Err(_), None) => {
                alike += 1;
                continue;
            }
            (Err(error), Some(_)) => {
                let error = error.to_string();
                let known = DEVIATIONS.iter().position(|(_, words)| error.contains(words));
                let known = known.unwrap_or_else(|| panic!("{named}: {error}"));
                deviating[known] += 1;
                continue;
            }
        };
        let timetable = Timetable::new(&schedule).unwrap();
        let mut next = timetable.next_from(instant(&vector.now, timetable.zone()));
        for (i, expected) in vector.fires.as_ref().unwrap().iter().enumerate() {
            let expected = expected.as_ref().map(|text| ours(text, timetable.zone()));
            assert_eq!(next, expected, "{named}: the one at {i}");
            next = next.and_then(|at| timetable.next_after(at));
        }
        alike += 1;
    }
    (alike, deviating)
}

#[test]
fn the_given_vectors() {
    // Nothing given; mon-fri/2.
    assert_eq!(hold(GIVEN), (41, [1, 1, 0, 0]));
}

#[test]
fn random_vectors() {
    assert_eq!(hold(RANDOM), (800, [0, 0, 4, 6]));
}

/// What the version of the oracle gave that the oldest of the replaced tools used, all from one
/// moment on: by the manual of that tool and by running it.
#[test]
fn the_older_versions_vectors() {
    for (rule, expected) in [
        ("minute=*", "08-13T10:21:00 08-13T10:22:00"),
        ("minute=*/5", "08-13T10:25:00 08-13T10:30:00"),
        ("hour=*/2", "08-13T12:00:00 08-13T14:00:00"),
        ("hour=*/2 minute=*", "08-13T10:21:00 08-13T10:22:00"),
        ("day=1 minute=20", "09-01T00:20:00 09-01T01:20:00"),
        ("day_of_week=mon-fri hour=5 minute=30", "08-14T05:30:00 08-15T05:30:00 08-18T05:30:00"),
        ("day_of_week=sun,wed", "08-17T00:00:00 08-20T00:00:00 08-24T00:00:00"),
        ("day=last", "08-31T00:00:00 09-30T00:00:00"),
        ("day=last sun", "08-31T00:00:00 09-28T00:00:00 10-26T00:00:00"),
        (
            "month=6-8,11-12 day=3rd fri hour=0-3",
            "08-15T00:00:00 08-15T01:00:00 08-15T02:00:00 08-15T03:00:00 11-21T00:00:00",
        ),
        ("day=5th fri", "08-29T00:00:00 10-31T00:00:00 01-30T00:00:00"),
        ("week=40", "09-29T00:00:00 09-30T00:00:00 10-01T00:00:00"),
        ("week=*/13 day_of_week=0", "09-29T00:00:00 12-29T00:00:00 03-30T00:00:00"),
        ("minute=7/10", "08-13T10:27:00 08-13T10:37:00"),
        (
            "minute=10-20/3",
            "08-13T11:10:00 08-13T11:13:00 08-13T11:16:00 08-13T11:19:00 08-13T12:10:00",
        ),
        ("year=2016 month=2 day=29", "02-29T00:00:00"),
        // Refused there for the blanks inside.
        ("minute=5,10 ,15", "08-13T11:05:00 08-13T11:10:00 08-13T11:15:00"),
    ] {
        let count = expected.split(' ').count();
        let found = fires(rule, "UTC", "2014-08-13T10:20:37Z", count);
        let found: Vec<&str> = found.iter().map(|text| &text[5..19]).collect();
        assert_eq!(found.join(" "), expected, "{rule}");
    }
    assert_eq!(fires("year=2016 month=2 day=29", "UTC", "2014-08-13T10:20:37Z", 9).len(), 1);
}
