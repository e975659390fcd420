//! How values of a sync's own kinds are read and written.

use crate::id::quote;
use crate::reject::Invalid;
use crate::removal::RemovalLimit;
use crate::setting::text::{optional, within};
use crate::sync::options::{Chmod, Chown, DeleteLimit, SyncOptions, TransferOptions};
use crate::time::Millis;

pub(super) fn every(text: &str) -> Result<Option<Millis>, Invalid> {
    let value: Option<Millis> = optional(text)?;
    value.map(|v| within(v, SyncOptions::EVERY_MIN, SyncOptions::EVERY_MAX)).transpose()
}

pub(super) fn max_lag(text: &str) -> Result<Option<Millis>, Invalid> {
    let value: Option<Millis> = optional(text)?;
    value.map(|v| within(v, SyncOptions::MAX_LAG_MIN, SyncOptions::MAX_LAG_MAX)).transpose()
}

/// `1000`, `25%`, `1000,25%` or `none`, and the window of the limit before.
pub(super) fn delete_limit(text: &str, window: Millis) -> Result<Option<DeleteLimit>, Invalid> {
    if text == "none" {
        return Ok(None);
    }
    let RemovalLimit { count, percent } = text.parse()?;
    Ok(Some(DeleteLimit { count, percent, window }))
}

pub(super) fn delete_limit_text(limit: Option<&DeleteLimit>) -> String {
    limit.map_or("none".to_owned(), |DeleteLimit { count, percent, window: _ }| {
        RemovalLimit { count: *count, percent: *percent }.to_string()
    })
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
