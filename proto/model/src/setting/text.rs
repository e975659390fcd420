//! How values of settings are read and written; each reader's error says what it must be.

use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;
use crate::time::Millis;

pub fn yes_no(text: &str) -> Result<bool, Invalid> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(Invalid::new("flag", format!("must be yes or no, not {}", quote(text)))),
    }
}

pub fn word(yes: bool) -> Vec<String> {
    vec![if yes { "yes" } else { "no" }.to_owned()]
}

/// `none`, or a value.
pub fn optional<T: FromStr<Err = Invalid>>(text: &str) -> Result<Option<T>, Invalid> {
    if text == "none" { Ok(None) } else { text.parse().map(Some) }
}

pub fn or_none<T: ToString>(value: Option<&T>) -> Vec<String> {
    vec![value.map_or("none".to_owned(), ToString::to_string)]
}

pub fn exact_or_none(value: Option<Millis>) -> Vec<String> {
    vec![value.map_or("none".to_owned(), Millis::exact)]
}

pub fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

pub fn within(value: Millis, least: Millis, most: Millis) -> Result<Millis, Invalid> {
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => {
            let problem = format!("must be {} to {}", least.exact(), most.exact());
            Err(Invalid::new("time", problem))
        }
    }
}

pub fn count(text: &str, least: u32, most: u32) -> Result<Option<u32>, Invalid> {
    if text == "none" {
        return Ok(None);
    }
    let value = text.parse().ok().filter(|n| (least..=most).contains(n));
    let problem =
        || format!("must be a number from {least} to {most}, or none, not {}", quote(text));
    value.map(Some).ok_or_else(|| Invalid::new("number", problem()))
}

pub fn parsed<T: FromStr<Err = Invalid>>(text: &str) -> Result<T, Invalid> {
    text.parse()
}

pub fn shown<T: ToString>(value: &T) -> Vec<String> {
    vec![value.to_string()]
}

pub fn optional_of<T>(
    read: fn(&str) -> Result<T, Invalid>,
) -> impl Fn(&str) -> Result<Option<T>, Invalid> {
    move |text| if text == "none" { Ok(None) } else { read(text).map(Some) }
}
