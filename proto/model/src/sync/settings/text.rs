//! How values of settings are read and written; each reader's error says what it must be.

use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;
use crate::sync::options::{Chmod, Chown, DeleteLimit, SyncOptions, TransferOptions};
use crate::time::Millis;

pub fn yes_no(text: &str) -> Result<bool, Invalid> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(Invalid::new("flag", format!("must be yes or no, not {}", quote(text)))),
    }
}

pub(super) fn word(yes: bool) -> Vec<String> {
    vec![if yes { "yes" } else { "no" }.to_owned()]
}

/// `none`, or a value.
pub(super) fn optional<T: FromStr<Err = Invalid>>(text: &str) -> Result<Option<T>, Invalid> {
    if text == "none" { Ok(None) } else { text.parse().map(Some) }
}

pub(super) fn or_none<T: ToString>(value: Option<&T>) -> Vec<String> {
    vec![value.map_or("none".to_owned(), ToString::to_string)]
}

pub(super) fn exact_or_none(value: Option<Millis>) -> Vec<String> {
    vec![value.map_or("none".to_owned(), Millis::exact)]
}

pub(super) fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

pub(super) fn within(value: Millis, least: Millis, most: Millis) -> Result<Millis, Invalid> {
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => {
            let problem = format!("must be {} to {}", least.exact(), most.exact());
            Err(Invalid::new("time", problem))
        }
    }
}

pub(super) fn every(text: &str) -> Result<Option<Millis>, Invalid> {
    let value: Option<Millis> = optional(text)?;
    value.map(|v| within(v, SyncOptions::EVERY_MIN, SyncOptions::EVERY_MAX)).transpose()
}

pub(super) fn count(text: &str, least: u32, most: u32) -> Result<Option<u32>, Invalid> {
    if text == "none" {
        return Ok(None);
    }
    let value = text.parse().ok().filter(|n| (least..=most).contains(n));
    let problem =
        || format!("must be a number from {least} to {most}, or none, not {}", quote(text));
    value.map(Some).ok_or_else(|| Invalid::new("number", problem()))
}

/// `1000`, `25%`, `1000,25%` or `none`, and the window of the limit before.
pub(super) fn delete_limit(text: &str, window: Millis) -> Result<Option<DeleteLimit>, Invalid> {
    if text == "none" {
        return Ok(None);
    }
    let wrong = || {
        let problem =
            format!("must look like 1000, 25% or 1000,25%, or be none, not {}", quote(text));
        Invalid::new("delete-limit", problem)
    };
    let mut limit = DeleteLimit { count: None, percent: None, window };
    for part in text.split(',') {
        let slot_taken = match part.strip_suffix('%') {
            Some(digits) => {
                let percent = digits.parse().ok().filter(|p| *p <= 100).ok_or_else(wrong)?;
                limit.percent.replace(percent).is_some()
            }
            None => limit.count.replace(part.parse().map_err(|_| wrong())?).is_some(),
        };
        if slot_taken {
            return Err(wrong());
        }
    }
    Ok(Some(limit))
}

pub(super) fn delete_limit_text(limit: Option<&DeleteLimit>) -> String {
    let Some(DeleteLimit { count, percent, window: _ }) = limit else { return "none".to_owned() };
    let parts = [count.map(|n| n.to_string()), percent.map(|p| format!("{p}%"))];
    parts.into_iter().flatten().collect::<Vec<_>>().join(",")
}

pub(super) fn chmod(text: &str) -> Result<Chmod, Invalid> {
    let fits = (1..=256).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit() || b"DFugoarwxXst+-=,".contains(&b))
        && !text.starts_with('-');
    let problem = || format!("must be rsync's, such as D755,F644, not {}", quote(text));
    if fits { Ok(Chmod(text.to_owned())) } else { Err(Invalid::new("chmod", problem())) }
}

pub(super) fn chown(text: &str) -> Result<Chown, Invalid> {
    // By number, as owners are kept: a target's confined receiver knows no names.
    let id = |part: &str| part.len() <= 10 && part.bytes().all(|b| b.is_ascii_digit());
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let fits = id(user) && id(group) && !(user.is_empty() && group.is_empty());
    let problem = || format!("must be UID, UID:GID or :GID, in numbers, not {}", quote(text));
    if fits { Ok(Chown(text.to_owned())) } else { Err(Invalid::new("chown", problem())) }
}

pub(super) fn parsed<T: FromStr<Err = Invalid>>(text: &str) -> Result<T, Invalid> {
    text.parse()
}

pub(super) fn shown<T: ToString>(value: &T) -> Vec<String> {
    vec![value.to_string()]
}

pub(super) fn delay(text: &str) -> Result<Millis, Invalid> {
    let delay = within(text.parse()?, Millis(0), SyncOptions::DELAY_MAX)?;
    match delay.0 % 1000 {
        0 => Ok(delay),
        _ => Err(Invalid::new("delay", "must be whole seconds")),
    }
}

pub(super) fn timeout(text: &str) -> Result<Millis, Invalid> {
    let most = TransferOptions::TIMEOUT_MAX;
    let timeout = within(text.parse()?, Millis::from_secs(1), most)?;
    match timeout.0 % 1000 {
        0 => Ok(timeout),
        _ => Err(Invalid::new("io-timeout", "must be whole seconds")),
    }
}

pub(super) fn optional_of<T>(
    read: fn(&str) -> Result<T, Invalid>,
) -> impl Fn(&str) -> Result<Option<T>, Invalid> {
    move |text| if text == "none" { Ok(None) } else { read(text).map(Some) }
}
