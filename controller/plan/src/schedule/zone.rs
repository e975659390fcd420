//! Time zones, from the tables in the program: what a clock shows at an instant, and at which
//! instants it shows a time. Instants are seconds since the epoch.

use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp as JiffTimestamp};
use lockstep_model::id::quote;
use lockstep_model::schedule::ZoneName;
use lockstep_model::{Invalid, Timestamp};

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Farthest fixed distance from UTC.
const OFFSET_MAX_S: i32 = 18 * 3600;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Zone {
    name: ZoneName,
    table: TimeZone,
}

/// Where a time of the clock lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Once(i64),
    /// The clock leaves it out: it is set forward at `at`, to `resumes`.
    Skipped {
        at: i64,
        resumes: DateTime,
    },
    /// The clock is set back; what is `repeated` begins with the first time and ends before the
    /// second.
    Twice {
        first: i64,
        second: i64,
        repeated: (DateTime, DateTime),
    },
}

impl Place {
    /// When the clock shows the time first, or shows a later one for the first time.
    pub fn first(self) -> i64 {
        match self {
            Self::Once(at) | Self::Skipped { at, .. } | Self::Twice { first: at, .. } => at,
        }
    }
}

impl Zone {
    /// By its name in any case, or a fixed distance such as `+05:30`.
    pub fn find(name: &ZoneName) -> Result<Self, Invalid> {
        let text = name.as_str();
        if let Some(offset) = fixed_offset(text) {
            return Self::fixed(offset);
        }
        let known = TimeZoneDatabase::bundled().get(text).ok().filter(|zone| !zone.is_unknown());
        let Some(table) = known else {
            let problem = format!(
                "{} is no known time zone; give one such as Europe/Berlin, UTC or +05:30",
                quote(text)
            );
            return Err(Invalid::new("timezone", problem));
        };
        let name = table.iana_name().unwrap_or("UTC").parse()?;
        Ok(Self { name, table })
    }

    pub fn fixed(offset: Offset) -> Result<Self, Invalid> {
        if offset == Offset::UTC {
            return Ok(Self { name: ZoneName::utc(), table: TimeZone::UTC });
        }
        let name = distance(offset.seconds()).parse()?;
        Ok(Self { name, table: TimeZone::fixed(offset) })
    }

    /// As the table spells it.
    pub fn name(&self) -> &ZoneName {
        &self.name
    }

    /// What the clock shows. None after the year 9999.
    pub fn clock(&self, at: i64) -> Option<DateTime> {
        shifted(EPOCH, at.checked_add(self.offset(at).into())?)
    }

    /// Ahead of UTC, in seconds.
    pub fn offset(&self, at: i64) -> i32 {
        self.table.to_offset(nearest(at)).seconds()
    }

    pub fn place(&self, clock: DateTime) -> Place {
        let utc = clock.duration_since(EPOCH).as_secs();
        let instant = |offset: Offset| utc - i64::from(offset.seconds());
        match self.table.to_ambiguous_timestamp(clock).offset() {
            AmbiguousOffset::Unambiguous { offset } => Place::Once(instant(offset)),
            AmbiguousOffset::Gap { before, after } => {
                let set = self.set_after(instant(after));
                match shifted(EPOCH, set + i64::from(after.seconds())) {
                    Some(resumes) => Place::Skipped { at: set, resumes },
                    None => Place::Once(instant(before)),
                }
            }
            AmbiguousOffset::Fold { before, after } => {
                let (first, second) = (instant(before), instant(after));
                let set = self.set_after(first);
                let shows = |offset: Offset| shifted(EPOCH, set + i64::from(offset.seconds()));
                match (shows(after), shows(before)) {
                    (Some(begin), Some(end)) => {
                        Place::Twice { first, second, repeated: (begin, end) }
                    }
                    _ => Place::Once(first),
                }
            }
        }
    }

    /// When the clock is set the next time after `at`.
    fn set_after(&self, at: i64) -> i64 {
        let next = self.table.following(nearest(at)).next();
        next.map_or(at, |transition| transition.timestamp().as_second())
    }

    /// An instant shown back: `2014-05-08T01:00:00Z (2014-05-07 18:00:00 PDT, America/Vancouver)`.
    pub fn show(&self, at: Timestamp) -> String {
        let name = self.name.as_str();
        match self.show_clock(at) {
            Some(clock) if fixed_offset(name).is_some() => format!("{at} ({clock})"),
            Some(clock) if self.table != TimeZone::UTC => format!("{at} ({clock}, {name})"),
            _ => at.to_string(),
        }
    }

    /// What the clock shows: `2014-05-07 18:00:00 PDT`. None after the year 9999.
    pub fn show_clock(&self, at: Timestamp) -> Option<String> {
        let seconds = i64::try_from(at.0 / 1000).ok()?;
        let clock = self.clock(seconds)?.strftime("%Y-%m-%d %H:%M:%S");
        let short = self.abbreviation(seconds);
        let zone = if fixed_offset(&short).is_some() { self.distance(seconds) } else { short };
        Some(format!("{clock} {zone}"))
    }

    /// What clocks there call their distance from UTC at `at`: `PDT`, or in digits.
    pub fn abbreviation(&self, at: i64) -> String {
        self.table.to_offset_info(nearest(at)).abbreviation().to_owned()
    }

    /// Ahead of UTC at `at`: `-07:00`.
    pub fn distance(&self, at: i64) -> String {
        distance(self.offset(at))
    }

    /// Every zone that the tables know.
    pub fn all() -> impl Iterator<Item = Self> {
        let names: Vec<String> =
            TimeZoneDatabase::bundled().available().map(|name| name.to_string()).collect();
        names.into_iter().filter_map(|name| Self::find(&name.parse().ok()?).ok())
    }
}

fn distance(seconds: i32) -> String {
    let (sign, rest) = (if seconds < 0 { '-' } else { '+' }, seconds.abs());
    format!("{sign}{:02}:{:02}", rest / 3600, rest / 60 % 60)
}

/// `Z`, `+05`, `+0530` or `+05:30`.
pub fn fixed_offset(text: &str) -> Option<Offset> {
    if text.eq_ignore_ascii_case("z") {
        return Some(Offset::UTC);
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match (digits.split_once(':'), digits.len()) {
        (Some(parts), _) => parts,
        (None, 4) => digits.split_at_checked(2)?,
        (None, _) => (digits, "00"),
    };
    let number = |text: &str| {
        let two = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        two.then(|| text.parse::<i32>().ok()).flatten()
    };
    let seconds = number(hours)? * 3600 + number(minutes).filter(|m| *m < 60)? * 60;
    (seconds <= OFFSET_MAX_S).then(|| Offset::from_seconds(sign * seconds).ok()).flatten()
}

fn shifted(clock: DateTime, seconds: i64) -> Option<DateTime> {
    clock.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// As near as the tables reach: to the last days of the year 9999.
fn nearest(at: i64) -> JiffTimestamp {
    let (min, max) = (JiffTimestamp::MIN.as_second(), JiffTimestamp::MAX.as_second());
    JiffTimestamp::from_second(at.clamp(min, max)).unwrap_or(JiffTimestamp::MAX)
}
