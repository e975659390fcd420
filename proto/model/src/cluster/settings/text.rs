//! How values of a cluster's settings are read and written.

use std::str::FromStr;

use crate::address::HostPort;
use crate::cluster::options::{DebianCluster, Manager, SyncPolicy, Tag, UnitName};
use crate::id::quote;
use crate::reject::Invalid;
use crate::setting::text::within;
use crate::time::Millis;

pub(super) const HALF_SECOND: Millis = Millis(500);
pub(super) const SECOND: Millis = Millis::from_secs(1);
pub(super) const MINUTE: Millis = Millis::from_secs(60);
pub(super) const HOUR: Millis = Millis::from_secs(3600);
pub(super) const DAY: Millis = Millis::from_secs(24 * 3600);

pub(super) fn time(least: Millis, most: Millis) -> impl Fn(&str) -> Result<Millis, Invalid> {
    move |text| within(text.parse()?, least, most)
}

pub(super) fn exact(value: &Millis) -> Vec<String> {
    vec![value.exact()]
}

pub(super) fn port(text: &str) -> Result<u16, Invalid> {
    let problem = || format!("must be a number from 1 to 65535, not {}", quote(text));
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| Invalid::new("port", problem()))
}

pub(super) fn up_to(most: u32) -> impl Fn(&str) -> Result<u32, Invalid> {
    move |text| {
        let problem = || format!("must be a number from 0 to {most}, not {}", quote(text));
        text.parse().ok().filter(|n| *n <= most).ok_or_else(|| Invalid::new("number", problem()))
    }
}

pub(super) fn host(text: &str) -> Result<String, Invalid> {
    Ok(HostPort::new(text, 1)?.host().to_owned())
}

pub(super) fn group(text: &str) -> Result<String, Invalid> {
    let fine = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    match fine {
        true => Ok(text.to_owned()),
        false => Err(Invalid::new("group", "must be 1 to 63 letters, digits, '-', '_' or '.'")),
    }
}

impl std::fmt::Display for SyncPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Count(k) => k.fmt(f),
        }
    }
}

impl FromStr for SyncPolicy {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let problem = || format!("must be auto, off or a number from 1 to 31, not {}", quote(text));
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => text
                .parse()
                .ok()
                .filter(|k| (1..=31).contains(k))
                .map(Self::Count)
                .ok_or_else(|| Invalid::new("sync", problem())),
        }
    }
}

impl std::fmt::Display for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent => f.write_str("agent"),
            Self::Systemd(unit) => write!(f, "systemd:{}", unit.as_str()),
            Self::PgCtlCluster(cluster) => write!(f, "pg_ctlcluster:{}", cluster.as_str()),
        }
    }
}

impl FromStr for Manager {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let plain = |text: &str| {
            (1..=200).contains(&text.len())
                && text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@:\\".contains(&b))
        };
        let found = match text.split_once(':') {
            None if text == "agent" => Some(Self::Agent),
            Some(("systemd", unit)) if plain(unit) && unit.ends_with(".service") => {
                Some(Self::Systemd(UnitName(unit.to_owned())))
            }
            Some(("pg_ctlcluster", cluster)) => cluster
                .split_once('/')
                .filter(|(version, name)| version.parse::<u32>().is_ok() && plain(name))
                .map(|_| Self::PgCtlCluster(DebianCluster(cluster.to_owned()))),
            _ => None,
        };
        let problem = || {
            let shapes = "agent, systemd:NAME.service or pg_ctlcluster:15/main";
            Invalid::new("manager", format!("must be {shapes}, not {}", quote(text)))
        };
        found.ok_or_else(problem)
    }
}

impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl FromStr for Tag {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let plain = |text: &str| {
            (1..=63).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let problem = || format!("must look like KEY=VALUE, not {}", quote(text));
        text.split_once('=')
            .filter(|(key, value)| plain(key) && plain(value))
            .map(|(key, value)| Self { key: key.to_owned(), value: value.to_owned() })
            .ok_or_else(|| Invalid::new("tag", problem()))
    }
}
