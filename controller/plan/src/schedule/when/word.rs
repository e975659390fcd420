//! The words of a date: numbers, names, times, zones. Each is known for what it is by itself, or
//! refused.

use jiff::civil::{Date, Time};
use lockstep_model::id::quote;

use crate::schedule::zone::fixed_offset;

/// In the order of jiff's numbers.
pub const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Day {
    On(Date),
    AfterToday(i64),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Word {
    Day(Day),
    /// 1 to 12.
    Month(i8),
    DayOfMonth(i8),
    Year(i16),
    /// 0 is Monday.
    Weekday(usize),
    Clock {
        time: Time,
        /// It may be followed by am or pm.
        hours_of_twelve: bool,
    },
    /// pm rather than am.
    Afternoon(bool),
    Zone(String),
    /// Seconds since 1970.
    Epoch(u64),
    Filler,
}

/// # Errors
/// A word that is nothing of this, or has two readings.
pub fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut found = Vec::new();
    let text = apart(text);
    for piece in text.split_whitespace() {
        read(piece, &mut found)?;
    }
    if found.iter().all(|word| *word == Word::Filler) {
        return Err(format!("is no date; {EXAMPLES}"));
    }
    Ok(found)
}

const EXAMPLES: &str =
    "write it like 2014-05-07 18:00, 2014-05-07T18:00:00+02:00 or 7 May 2014 18:00 Europe/Berlin";

/// Commas part words, except in a time before parts of a second; so do the brackets of a zone, and
/// the T between date and time.
fn apart(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let between_digits = out.ends_with(|c: char| c.is_ascii_digit())
            && chars.peek().is_some_and(char::is_ascii_digit);
        let in_time = || out.rsplit(' ').next().is_some_and(|word| word.contains(':'));
        out.push(match c {
            ',' if between_digits && in_time() => '.',
            ',' | '[' | ']' | '(' | ')' => ' ',
            'T' | 't' if between_digits => ' ',
            _ => c,
        });
    }
    out
}

fn read(piece: &str, found: &mut Vec<Word>) -> Result<(), String> {
    let starts_with_digit = piece.starts_with(|c: char| c.is_ascii_digit());
    let word = if starts_with_digit {
        return number_like(piece, found);
    } else if let Some(seconds) = piece.strip_prefix('@') {
        seconds.parse().ok().map(Word::Epoch)
    } else if piece.starts_with(['+', '-']) {
        fixed_offset(piece).map(|_| Word::Zone(piece.to_owned()))
    } else {
        name(piece)?
    };
    found.push(word.ok_or_else(|| not_understood(piece))?);
    Ok(())
}

fn not_understood(piece: &str) -> String {
    format!("{} is not understood; {EXAMPLES}", quote(piece))
}

fn name(piece: &str) -> Result<Option<Word>, String> {
    let bare = piece.strip_suffix('.').unwrap_or(piece);
    let lower = bare.to_ascii_lowercase();
    let known = |names: &[&str]| {
        let is = |name: &&str| {
            let name = name.to_ascii_lowercase();
            lower == name || lower.len() >= 3 && name.starts_with(&lower)
        };
        names.iter().position(is)
    };
    if let Some(month) = known(&MONTHS) {
        return Ok(i8::try_from(month + 1).ok().map(Word::Month));
    }
    if let Some(weekday) = known(&WEEKDAYS) {
        return Ok(Some(Word::Weekday(weekday)));
    }
    let clock = |hour: i8| {
        let time = Time::new(hour, 0, 0, 0).ok();
        time.map(|time| Word::Clock { time, hours_of_twelve: false })
    };
    let is_zone = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
    Ok(match lower.as_str() {
        "at" | "on" | "of" | "the" => Some(Word::Filler),
        "am" | "a.m" => Some(Word::Afternoon(false)),
        "pm" | "p.m" => Some(Word::Afternoon(true)),
        "today" => Some(Word::Day(Day::AfterToday(0))),
        "tomorrow" => Some(Word::Day(Day::AfterToday(1))),
        "noon" => clock(12),
        "midnight" => clock(0),
        "z" | "utc" | "gmt" | "ut" => Some(Word::Zone("UTC".to_owned())),
        _ if (lower.starts_with("utc") || lower.starts_with("gmt"))
            && lower[3..].starts_with(['+', '-']) =>
        {
            return Err(format!(
                "{0} has two readings, for POSIX means the other side of UTC; write {1} or {2}",
                quote(piece),
                both_ways(&lower[3..], '+'),
                both_ways(&lower[3..], '-'),
            ));
        }
        // Europe/Berlin, or an abbreviation such as PDT, which are written in capitals.
        _ if piece.contains('/') && piece.chars().all(is_zone) => {
            Some(Word::Zone(piece.to_owned()))
        }
        _ if (2..=6).contains(&piece.len()) && piece.bytes().all(|b| b.is_ascii_uppercase()) => {
            Some(Word::Zone(piece.to_owned()))
        }
        _ => None,
    })
}

/// `+3` as `+03:00` and `-03:00`.
fn both_ways(distance: &str, sign: char) -> String {
    let digits = &distance[1..];
    match digits.len() {
        1 => format!("{sign}0{digits}:00"),
        2 => format!("{sign}{digits}:00"),
        _ => format!("{sign}{digits}"),
    }
}

/// Dates, times and bare numbers; a time may have am, pm or a zone attached.
fn number_like(piece: &str, found: &mut Vec<Word>) -> Result<(), String> {
    let unknown = || not_understood(piece);
    let end = piece.find(|c: char| !c.is_ascii_digit()).unwrap_or(piece.len());
    let (digits, rest) = piece.split_at(end);
    let number = digits.parse::<u32>().map_err(|_| unknown())?;
    let small = i8::try_from(number).map_err(|_| unknown());
    // The time behind the T of 20140507T180000Z.
    if matches!(digits.len(), 4 | 6)
        && matches!(found.last(), Some(Word::Day(_)))
        && (rest.is_empty() || fixed_offset(rest).is_some())
    {
        return basic_time(digits, rest, found).ok_or_else(unknown);
    }
    if let Some(sign) = rest.chars().next()
        && "-/.".contains(sign)
    {
        found.push(date(piece, sign)?);
        return Ok(());
    }
    if rest.starts_with(':') {
        return time(piece, found);
    }
    let word = match (rest.to_ascii_lowercase().as_str(), digits.len()) {
        ("", 8) => Some(Word::Day(Day::On(basic_date(digits).ok_or_else(unknown)?))),
        ("", 4) => i16::try_from(number).ok().map(Word::Year),
        ("", 1 | 2) => Some(Word::DayOfMonth(small?)),
        ("st" | "nd" | "rd" | "th", 1 | 2) => {
            let fits = match (number % 10, number / 10 % 10) {
                (1, 0 | 2 | 3) => "st",
                (2, 0 | 2) => "nd",
                (3, 0 | 2) => "rd",
                _ => "th",
            };
            rest.eq_ignore_ascii_case(fits).then_some(Word::DayOfMonth(small?))
        }
        ("am" | "pm", 1 | 2) => {
            found.push(clock(small?, 0, 0, 0).ok_or_else(unknown)?);
            Some(Word::Afternoon(rest.starts_with(['p', 'P'])))
        }
        _ => None,
    };
    found.push(word.ok_or_else(unknown)?);
    Ok(())
}

fn basic_date(digits: &str) -> Option<Date> {
    let (year, rest) = digits.split_at_checked(4)?;
    let (month, day) = rest.split_at_checked(2)?;
    Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
}

fn basic_time(digits: &str, rest: &str, found: &mut Vec<Word>) -> Option<()> {
    let part = |at: usize| digits.get(at..at + 2).map_or(Some(0), |two| two.parse().ok());
    found.push(clock(part(0)?, part(2)?, part(4)?, 0)?);
    if !rest.is_empty() {
        found.push(Word::Zone(rest.to_owned()));
    }
    Some(())
}

fn date(piece: &str, sign: char) -> Result<Word, String> {
    let unknown = || not_understood(piece);
    let parts: Vec<&str> = piece.split(sign).collect();
    let [first, second, third] = parts[..] else { return Err(unknown()) };
    let year = |text: &str| (text.len() == 4).then(|| text.parse::<i16>().ok()).flatten();
    let small = |text: &str| {
        let fits = text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| text.parse::<i8>().ok()).flatten()
    };
    let build = |year, month, day| {
        Date::new(year, month, day).map_err(|_| format!("{} is no day", quote(piece)))
    };
    let on = |date| Ok(Word::Day(Day::On(date)));
    if let (Some(year), Some(month), Some(day)) = (year(first), small(second), small(third)) {
        return on(build(year, month, day)?);
    }
    let Some(year) = year(third) else {
        return match (small(first), small(second), small(third)) {
            (Some(_), Some(_), Some(_)) => {
                Err(format!("{} has no year of four digits", quote(piece)))
            }
            _ => Err(unknown()),
        };
    };
    let first = small(first).ok_or_else(unknown)?;
    // 07-May-2014
    if let Some(Word::Month(month)) = name(second)? {
        return on(build(year, month, first)?);
    }
    let second = small(second).ok_or_else(unknown)?;
    let (day_first, month_first) = (build(year, second, first), build(year, first, second));
    match (day_first, month_first) {
        (Ok(a), Ok(b)) if a != b => {
            Err(format!("{} has two readings; write {a} or {b}", quote(piece)))
        }
        (Ok(date), _) | (_, Ok(date)) => on(date),
        (Err(why), Err(_)) => Err(why),
    }
}

/// `18:00`, `18:00:30.5`, `6:30pm`, `18:00Z`, `18:00+02:00`.
fn time(piece: &str, found: &mut Vec<Word>) -> Result<(), String> {
    let unknown = || not_understood(piece);
    let end = piece.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.');
    let (digits, rest) = piece.split_at(end.unwrap_or(piece.len()));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let parts: Vec<&str> = whole.split(':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] if fraction.is_empty() => (hour, minute, "00"),
        [hour, minute, second] => (hour, minute, second),
        _ => return Err(unknown()),
    };
    if minute.len() != 2 || second.len() != 2 || hour.len() > 2 || fraction.len() > 9 {
        return Err(unknown());
    }
    let number = |text: &str| text.parse::<i8>().map_err(|_| unknown());
    let nanos = format!("{fraction:0<9}").parse().map_err(|_| unknown())?;
    let time = clock(number(hour)?, number(minute)?, number(second)?, nanos);
    found.push(time.ok_or_else(|| format!("{} is no time of a day", quote(piece)))?);
    match rest.to_ascii_lowercase().as_str() {
        "" => (),
        "am" | "pm" => found.push(Word::Afternoon(rest.starts_with(['p', 'P']))),
        _ if fixed_offset(rest).is_some() => found.push(Word::Zone(rest.to_owned())),
        _ => return Err(unknown()),
    }
    Ok(())
}

fn clock(hour: i8, minute: i8, second: i8, nanos: i32) -> Option<Word> {
    let time = Time::new(hour, minute, second, nanos).ok()?;
    Some(Word::Clock { time, hours_of_twelve: true })
}
