//! Dates as people and programs write them, understood whole or refused: no word is dropped, and a
//! text with two readings is refused with both.

mod abbreviation;
#[cfg(test)]
mod tests;
mod word;

use jiff::civil::{Date, DateTime, Time};
use lockstep_model::id::quote;
use lockstep_model::schedule::{Moment, ZoneName};
use lockstep_model::{Invalid, Timestamp};

use super::zone::{Place, Zone, fixed_offset};
use word::{Day, Word, words};

/// Longest text, in bytes.
pub const TEXT_MAX: usize = 128;

/// The instant that `text` names, on a clock of `zone` unless it names a zone itself. `now` is for
/// texts such as `18:00`, which is today's.
///
/// # Errors
/// Names `field`, and what was not understood or has more than one reading.
pub fn read(field: &str, text: &str, zone: &Zone, now: Timestamp) -> Result<Moment, Invalid> {
    if text.len() > TEXT_MAX {
        let problem = format!("has {} bytes, at most {TEXT_MAX} fit", text.len());
        return Err(Invalid::new(field, problem));
    }
    let understood = words(text)
        .and_then(|words| Reading::collect(&words))
        .and_then(|reading| reading.moment(zone, now));
    understood.map_err(|why| Invalid::new(field, format!("{}: {why}", quote(text))))
}

/// What the words say, each thing at most once; only zones may be said twice, if they agree.
#[derive(Default, Debug)]
struct Reading {
    day: Option<Day>,
    month: Option<i8>,
    day_of_month: Option<i8>,
    year: Option<i16>,
    weekday: Option<usize>,
    clock: Option<Clock>,
    afternoon: Option<bool>,
    zones: Vec<String>,
    epoch: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    time: Time,
    /// Whether it was written like `6:30`, so that am or pm may follow.
    hours_of_twelve: bool,
}

impl Reading {
    fn collect(words: &[Word]) -> Result<Self, String> {
        let mut reading = Self::default();
        for word in words {
            reading.take(word)?;
        }
        Ok(reading)
    }

    fn take(&mut self, word: &Word) -> Result<(), String> {
        let once =
            |new: bool, what: &str| if new { Ok(()) } else { Err(format!("says {what} twice")) };
        match word {
            Word::Day(day) => once(self.day.replace(*day).is_none(), "the day"),
            Word::Month(month) => once(self.month.replace(*month).is_none(), "the month"),
            Word::DayOfMonth(day) => once(self.day_of_month.replace(*day).is_none(), "the day"),
            Word::Year(year) => once(self.year.replace(*year).is_none(), "the year"),
            Word::Weekday(day) => once(self.weekday.replace(*day).is_none(), "the weekday"),
            Word::Clock { time, hours_of_twelve } => {
                let clock = Clock { time: *time, hours_of_twelve: *hours_of_twelve };
                once(self.clock.replace(clock).is_none(), "the time")
            }
            Word::Afternoon(pm) => once(self.afternoon.replace(*pm).is_none(), "am or pm"),
            Word::Epoch(seconds) => once(self.epoch.replace(*seconds).is_none(), "the time"),
            Word::Zone(name) => {
                self.zones.push(name.clone());
                if self.zones.len() <= 2 { Ok(()) } else { Err("names three zones".to_owned()) }
            }
            Word::Filler => Ok(()),
        }
    }

    fn moment(self, zone: &Zone, now: Timestamp) -> Result<Moment, String> {
        if let Some(seconds) = self.epoch {
            let alone = matches!(
                self,
                Self { day: None, month: None, day_of_month: None, year: None, clock: None, .. }
            ) && self.zones.is_empty();
            let at = seconds.checked_mul(1000).map(Timestamp).filter(|at| *at <= LAST);
            return match (alone, at) {
                (true, Some(at)) => Ok(Moment { at, zone: ZoneName::utc() }),
                (false, _) => Err("seconds since 1970 stand alone".to_owned()),
                (true, None) => Err("is after the year 9999".to_owned()),
            };
        }
        let time = self.time()?;
        let clock_now = |zone: &Zone| {
            let seconds = i64::try_from(now.0 / 1000).ok()?;
            zone.clock(seconds).map(DateTime::date)
        };
        if self.zones.is_empty() {
            let date = self.date(|| clock_now(zone))?;
            return instant(date.to_datetime(time), zone);
        }
        // A zone that is named decides on its own clock which day today is.
        let mut found: Option<Moment> = None;
        for name in &self.zones {
            let near = self.date(|| clock_now(zone))?.to_datetime(time);
            let named = named_zone(name, near, zone)?;
            let date = self.date(|| clock_now(&named))?;
            let moment = instant(date.to_datetime(time), &named)?;
            if found.as_ref().is_some_and(|before| before.at != moment.at) {
                return Err(format!(
                    "{} and {name} are not the same there",
                    self.zones.join(" and ")
                ));
            }
            found = Some(moment);
        }
        found.ok_or_else(|| "names no zone".to_owned())
    }

    fn time(&self) -> Result<Time, String> {
        match (self.clock, self.afternoon) {
            (None, None) => Ok(Time::midnight()),
            (None, Some(_)) => Err("says am or pm of no time".to_owned()),
            (Some(clock), None) => Ok(clock.time),
            (Some(clock), Some(pm)) => {
                let hour = clock.time.hour();
                if !clock.hours_of_twelve || !(1..=12).contains(&hour) {
                    return Err("am and pm go with hours from 1 to 12".to_owned());
                }
                let hour = hour % 12 + if pm { 12 } else { 0 };
                clock.time.with().hour(hour).build().map_err(|_| "says no time".to_owned())
            }
        }
    }

    fn date(&self, today: impl Fn() -> Option<Date>) -> Result<Date, String> {
        let Self { day, month, day_of_month, year, weekday, .. } = *self;
        let date = match (day, year, month, day_of_month) {
            (Some(Day::On(date)), None, None, None) => date,
            (Some(Day::AfterToday(days)), None, None, None) => {
                let date = today().and_then(|date| {
                    date.checked_add(jiff::SignedDuration::from_hours(24 * days)).ok()
                });
                date.ok_or_else(|| "is after the year 9999".to_owned())?
            }
            (Some(_), ..) => return Err("says the day twice".to_owned()),
            (None, Some(year), Some(month), Some(day)) => Date::new(year, month, day)
                .map_err(|_| format!("{year}-{month:02} has no day {day}"))?,
            (None, None, None, None) if weekday.is_some() => {
                return Err("a weekday needs a date".to_owned());
            }
            (None, None, None, None) if self.clock.is_some() => {
                today().ok_or_else(|| "is after the year 9999".to_owned())?
            }
            (None, year, month, day) => {
                let missing =
                    [("year", year.is_none()), ("month", month.is_none()), ("day", day.is_none())];
                let missing: Vec<_> =
                    missing.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
                return Err(format!("says no {}", missing.join(" and no ")));
            }
        };
        let is = date.weekday().to_monday_zero_offset();
        match weekday {
            Some(said) if i8::try_from(said) != Ok(is) => {
                let name = |at: usize| word::WEEKDAYS.get(at).copied().unwrap_or_default();
                let is = usize::try_from(is).unwrap_or_default();
                Err(format!("{date} is a {}, not a {}", name(is), name(said)))
            }
            _ => Ok(date),
        }
    }
}

/// 9999-12-31T23:59:59Z.
const LAST: Timestamp = Timestamp(253_402_300_799_000);

/// What a word that names a zone means at a time near `near`.
fn named_zone(name: &str, near: DateTime, home: &Zone) -> Result<Zone, String> {
    if let Some(offset) = fixed_offset(name) {
        return Zone::fixed(offset).map_err(|e| e.problem);
    }
    if name.contains('/') || name == "UTC" {
        return name.parse().and_then(|name| Zone::find(&name)).map_err(|e| e.problem);
    }
    abbreviation::resolve(name, near, home)
}

fn instant(clock: DateTime, zone: &Zone) -> Result<Moment, String> {
    let seconds = match zone.place(clock) {
        Place::Once(at) => at,
        Place::Skipped { resumes, .. } => {
            return Err(format!(
                "clocks in {} leave this time out; they go on at {}",
                zone.name(),
                resumes.strftime("%H:%M:%S")
            ));
        }
        Place::Twice { first, second, .. } => {
            let ahead = |at| clock.strftime("%Y-%m-%dT%H:%M:%S").to_string() + &zone.distance(at);
            return Err(format!(
                "this time comes twice in {}: say {} or {}",
                zone.name(),
                ahead(first),
                ahead(second)
            ));
        }
    };
    // Only whole seconds fire, so a part of one says no more than that it is one.
    let ms = match clock.subsec_nanosecond() {
        0 => 0,
        nanos => u64::try_from(nanos / 1_000_000).unwrap_or(0).max(1),
    };
    let at = u64::try_from(seconds).ok().and_then(|s| s.checked_mul(1000)?.checked_add(ms));
    let at = at.map(Timestamp).ok_or_else(|| "is before 1970".to_owned())?;
    Ok(Moment { at, zone: zone.name().clone() })
}
