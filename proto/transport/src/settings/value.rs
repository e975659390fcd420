//! The kinds of values a setting can have: what may be written, and the typed value it means. Pure.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The longest text of one value, in bytes.
pub const TEXT_MAX: usize = 4096;
/// The most items of one list.
pub const LIST_MAX: usize = 256;
/// How much of a refused value a message repeats, in characters.
const SHOWN_MAX: usize = 60;

/// What may be written for a setting. Bounds are inclusive.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text without control characters.
    Text,
    /// `true` or `false`.
    Switch,
    Count {
        min: u64,
        max: u64,
    },
    /// A whole number with its unit: `500ms`, `10s`, `15m`, `12h`, `30d`.
    Duration {
        min: Duration,
        max: Duration,
    },
    /// Bytes, as a whole number with its unit: `512B`, `64KiB`, `64MiB`, `2GiB`.
    Size {
        min: u64,
        max: u64,
    },
    /// An IP address and port to listen on.
    Socket,
    /// A name or IP address and port to connect to.
    Endpoint,
    /// An absolute path.
    Path,
    OneOf(&'static [&'static str]),
    /// Text that a function checks; it returns what is wrong, `shape` says what is right.
    Checked {
        shape: &'static str,
        check: fn(&str) -> Result<(), String>,
    },
    /// Written as a TOML array, or separated by commas.
    List(&'static Kind),
}

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    Text(String),
    Switch(bool),
    Number(i64),
    List(Vec<Raw>),
    /// A TOML type that no setting has, such as a date or a table.
    Other(&'static str),
}

/// A value that was understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    Switch(bool),
    /// Also sizes, in bytes.
    Count(u64),
    Duration(Duration),
    Socket(SocketAddr),
    Path(PathBuf),
    List(Vec<Value>),
}

impl Raw {
    /// For messages: short, on one line.
    pub fn shown(&self) -> String {
        match self {
            Self::Text(text) => {
                let short: String = text.chars().take(SHOWN_MAX).collect();
                let more = if short.len() < text.len() { "…" } else { "" };
                format!("{short:?}{more}")
            }
            Self::Switch(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::List(_) => "this list".into(),
            Self::Other(name) => format!("a {name}"),
        }
    }
}

impl Kind {
    pub fn is_list(&self) -> bool {
        matches!(self, Self::List(_))
    }

    /// What to write, in words: "an IP address with its port".
    pub fn shape(&self) -> String {
        match self {
            Self::Text => "non-empty text".into(),
            Self::Switch => "true or false".into(),
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::Duration { min, max } => {
                format!("a duration from {} to {}", write_duration(*min), write_duration(*max))
            }
            Self::Size { min, max } => {
                format!("a size from {} to {}", write_size(*min), write_size(*max))
            }
            Self::Socket => "an IP address with its port".into(),
            Self::Endpoint => "a host name or IP address with its port".into(),
            Self::Path => "an absolute path".into(),
            Self::OneOf(words) => format!("one of {}", words.join(", ")),
            Self::Checked { shape, .. } => (*shape).into(),
            Self::List(item) => format!("a list, each item {}", item.shape()),
        }
    }

    /// Understands a written value; the error says what was expected, and fits after "is not".
    pub fn parse(&self, raw: &Raw) -> Result<Value, String> {
        match (self, raw) {
            (Self::List(item), Raw::List(items)) => {
                if items.len() > LIST_MAX {
                    return Err(format!("a list of at most {LIST_MAX} items"));
                }
                let parse = |raw: &Raw| {
                    let told =
                        |expected| format!("a list, each item {expected}; {} is not", raw.shown());
                    item.parse(raw).map_err(told)
                };
                Ok(Value::List(items.iter().map(parse).collect::<Result<_, _>>()?))
            }
            (Self::List(_), Raw::Text(text)) => {
                let items = text.split(',').map(|item| Raw::Text(item.trim().to_owned()));
                self.parse(&Raw::List(items.collect()))
            }
            (Self::Switch, Raw::Switch(value)) => Ok(Value::Switch(*value)),
            (Self::Count { .. }, Raw::Number(number)) => self.parse_text(&number.to_string()),
            (_, Raw::Text(text)) => self.parse_text(text),
            _ => Err(self.shape()),
        }
    }

    fn parse_text(&self, text: &str) -> Result<Value, String> {
        if text.len() > TEXT_MAX || text.chars().any(char::is_control) {
            return Err(format!("text of at most {TEXT_MAX} bytes without control characters"));
        }
        let value = match self {
            Self::Text => (!text.is_empty()).then(|| Value::Text(text.into())),
            Self::Switch => text.parse().ok().map(Value::Switch),
            Self::Count { min, max } => {
                read_digits(text).filter(|n| (min..=max).contains(&n)).map(Value::Count)
            }
            Self::Duration { min, max } => {
                read_duration(text).filter(|d| (min..=max).contains(&d)).map(Value::Duration)
            }
            Self::Size { min, max } => {
                read_size(text).filter(|n| (min..=max).contains(&n)).map(Value::Count)
            }
            Self::Socket => text.parse().ok().map(Value::Socket),
            Self::Endpoint => is_endpoint(text).then(|| Value::Text(text.into())),
            Self::Path => is_clean_path(text).then(|| Value::Path(text.into())),
            Self::OneOf(words) => words.contains(&text).then(|| Value::Text(text.into())),
            Self::Checked { shape, check } => {
                let value = check(text).map(|()| Value::Text(text.into()));
                return value.map_err(|problem| format!("{shape} ({problem})"));
            }
            Self::List(_) => None,
        };
        value.ok_or_else(|| self.shape())
    }
}

fn read_digits(text: &str) -> Option<u64> {
    // `parse` alone would take "+5".
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const SIZE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

fn read_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    read_digits(number)?.checked_mul(*factor)
}

fn read_duration(text: &str) -> Option<Duration> {
    read_unit(text, &DURATION_UNITS).map(Duration::from_millis)
}

fn read_size(text: &str) -> Option<u64> {
    read_unit(text, &SIZE_UNITS)
}

fn write_unit(amount: u64, units: &[(&str, u64)]) -> String {
    let fits =
        units.iter().rev().find(|(_, factor)| amount >= *factor && amount.is_multiple_of(*factor));
    let (unit, factor) = fits.unwrap_or(&units[0]);
    format!("{}{unit}", amount / factor)
}

/// As it would be written in the config file; whole milliseconds.
pub(super) fn write_duration(duration: Duration) -> String {
    write_unit(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
}

fn write_size(bytes: u64) -> String {
    write_unit(bytes, &SIZE_UNITS)
}

fn is_endpoint(text: &str) -> bool {
    if text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0) {
        return true;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let port = read_digits(port).is_some_and(|port| (1..=65_535).contains(&port));
    host.len() <= 253 && host.split('.').all(label) && port
}

fn is_clean_path(text: &str) -> bool {
    text.starts_with('/') && !text.split('/').any(|part| part == "..")
}

/// A type that a [`Value`] can be taken as.
pub trait FromValue: Sized {
    /// None where the setting's kind makes values of another type.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty: $pattern:pat => $result:expr),* $(,)?) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                match value { $pattern => $result, _ => None }
            }
        }
    )*};
}

from_value! {
    String: Value::Text(text) => Some(text.clone()),
    bool: Value::Switch(value) => Some(*value),
    u64: Value::Count(value) => Some(*value),
    u32: Value::Count(value) => (*value).try_into().ok(),
    u16: Value::Count(value) => (*value).try_into().ok(),
    usize: Value::Count(value) => (*value).try_into().ok(),
    Duration: Value::Duration(value) => Some(*value),
    SocketAddr: Value::Socket(value) => Some(*value),
    PathBuf: Value::Path(value) => Some(value.clone()),
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::List(items) => items.iter().map(T::from_value).collect(),
            _ => None,
        }
    }
}
