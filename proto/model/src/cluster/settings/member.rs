//! The settings of a member: the table and its defaults.

use super::text::{DAY, SECOND, group, host, port, up_to};
use crate::cluster::options::{MemberOptions, Tag};
use crate::reject::Invalid;
use crate::setting::text::{exact_or_none, optional, optional_of, or_none, shown, within};
use crate::setting::{Setting, Settings, at_most, flag, many, one};
use crate::time::Millis;

impl Default for MemberOptions {
    fn default() -> Self {
        Self {
            priority: Self::PRIORITY_DEFAULT,
            never_promote: false,
            no_load_balance: false,
            no_sync: false,
            clone_from: false,
            upstream: None,
            delay: None,
            group: None,
            data_dir: None,
            wal_dir: None,
            port: None,
            host: None,
            bin: None,
            manager: None,
            tags: Vec::new(),
        }
    }
}

impl Settings for MemberOptions {
    const TABLE: &'static [Setting<Self>] = MEMBER;

    fn check_together(&self) -> Result<(), Invalid> {
        at_most("tag", self.tags.len(), Self::TAGS_MAX)
    }
}

const MEMBER: &[Setting<MemberOptions>] = &[
    one!(
        "priority",
        "N",
        priority,
        up_to(1000),
        shown,
        "Among members with the same data the larger one is promoted"
    ),
    flag!("never-promote", never_promote, "It never becomes primary"),
    flag!("no-load-balance", no_load_balance, "Health checks of replicas leave it out"),
    flag!("no-sync", no_sync, "Commits never wait for it"),
    flag!(
        "clone-from",
        clone_from,
        "Other members are copied from it, while it streams, rather than from the primary"
    ),
    one!(
        "upstream",
        "NODE",
        upstream,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "It follows that member rather than the primary; none: the primary"
    ),
    one!(
        "delay",
        "TIME",
        delay,
        optional_of(|text| within(text.parse()?, SECOND, Millis(30 * DAY.0))),
        |v: &Option<Millis>| exact_or_none(*v),
        "It applies changes so much later"
    ),
    one!(
        "group",
        "NAME",
        group,
        optional_of(group),
        |v: &Option<_>| or_none(v.as_ref()),
        "Members with the same fail together, as in one rack: commits wait for other groups first"
    ),
    one!(
        "data-dir",
        "DIR",
        data_dir,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "In place of the cluster's"
    ),
    one!(
        "wal-dir",
        "DIR",
        wal_dir,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "In place of the cluster's"
    ),
    one!(
        "port",
        "PORT",
        port,
        optional_of(port),
        |v: &Option<u16>| or_none(v.as_ref()),
        "In place of the cluster's"
    ),
    one!(
        "host",
        "HOST",
        host,
        optional_of(host),
        |v: &Option<_>| or_none(v.as_ref()),
        "Where the others reach its postgres; none: the first address of its agent"
    ),
    one!(
        "postgres-bin",
        "DIR",
        bin,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "In place of the cluster's"
    ),
    one!(
        "manager",
        "HOW",
        manager,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "In place of the cluster's"
    ),
    many!("tag", "KEY=VALUE", tags, Tag, "Shown, and asked for by health checks as tag_KEY=VALUE"),
];
