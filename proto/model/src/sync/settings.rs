//! The settings of a sync.

mod text;

use super::filter::Filter;
use super::hook::Hook;
use super::options::{Chmod, Chown, DeleteLimit, DeletePolicy, Engine, SyncOptions};
use crate::reject::Invalid;
use crate::schedule::Policy;
use crate::setting::text::{
    count, exact_or_none, optional, optional_of, or_none, parsed, shown, within,
};
use crate::setting::{Setting, Settings, at_most, flag, many, one};
use crate::time::Millis;
use text::{chmod, chown, delay, delete_limit, delete_limit_text, every, max_lag, timeout};

impl Settings for SyncOptions {
    const TABLE: &'static [Setting<Self>] = SETTINGS;

    fn check_together(&self) -> Result<(), Invalid> {
        at_most("filter", self.filters.len(), Self::FILTERS_MAX)?;
        at_most("priority", self.priority.len(), Self::PATTERNS_MAX)?;
        at_most("ignore", self.ignore.len(), Self::PATTERNS_MAX)?;
        at_most("hook", self.hooks.len(), Self::HOOKS_MAX)?;
        if self.remove_source_files && self.delete != DeletePolicy::Never {
            return Err(Invalid::new(
                "remove-source-files",
                "needs delete=never: else what is removed at the source is removed on targets",
            ));
        }
        if self.once && self.marker.is_some() {
            return Err(Invalid::new("once", "and marker exclude each other"));
        }
        if self.engine == Engine::Classic {
            let unfit = [
                ("once", self.once),
                ("marker", self.marker.is_some()),
                ("remove-source-files", self.remove_source_files),
                ("fanout", self.fanout.is_some()),
            ];
            if let Some((name, _)) = unfit.into_iter().find(|(_, is_set)| *is_set) {
                let problem =
                    format!("classic and {name} exclude each other: {name} needs the journal");
                return Err(Invalid::new("engine", problem));
            }
        }
        if self.transfer.inplace && self.transfer.sparse {
            return Err(Invalid::new("inplace", "and sparse exclude each other"));
        }
        Ok(())
    }
}

const SETTINGS: &[Setting<SyncOptions>] = &[
    one!(
        "delete",
        "WHEN",
        delete,
        parsed,
        shown,
        "When to remove on targets what the source does not have: always, never, startup (in complete passes), running (as it happens)"
    ),
    many!(
        "filter",
        "RULE",
        filters,
        Filter,
        "'- PATTERN' leaves out, '+ PATTERN' keeps; rsync's patterns, the first match decides"
    ),
    one!(
        "delay",
        "TIME",
        delay,
        delay,
        |v: &Millis| vec![v.exact()],
        "How long changes are collected before they are sent, 0s to 10m in whole seconds"
    ),
    one!(
        "initial",
        "WHAT",
        initial,
        parsed,
        shown,
        "fill: a new target gets everything first; skip: it is taken as complete"
    ),
    one!(
        "engine",
        "WHICH",
        engine,
        parsed,
        shown,
        "journal: one lsyncd, and a journal from which all targets are served; classic: an lsyncd for each target"
    ),
    flag!("once", once, "One complete pass per target, and no watching"),
    one!(
        "marker",
        "FILE",
        marker,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Send changes when this file of the source is written, and not as they happen"
    ),
    many!(
        "priority",
        "PATTERN",
        priority,
        super::filter::Pattern,
        "Changes of names that match go first"
    ),
    many!(
        "ignore",
        "PATTERN",
        ignore,
        super::filter::Pattern,
        "Drop events of names that match, such as editors' temporary files; complete passes bring what is there"
    ),
    one!(
        "symlinks",
        "HOW",
        transfer.symlinks,
        parsed,
        shown,
        "keep, follow (what they point to), skip, or safe (leave out those that point outside)"
    ),
    flag!("perms", transfer.perms, "Keep modes"),
    flag!("times", transfer.times, "Keep modification times"),
    flag!("owner", transfer.owner, "Keep owners, by number"),
    flag!("group", transfer.group, "Keep groups, by number"),
    flag!("devices", transfer.devices, "Keep device and special files"),
    flag!("hard-links", transfer.hard_links, "Keep hard links"),
    flag!("acls", transfer.acls, "Keep ACLs"),
    flag!("xattrs", transfer.xattrs, "Keep extended attributes"),
    flag!("sparse", transfer.sparse, "Write long runs of zeros as holes"),
    flag!("compress", transfer.compress, "Compress on the wire"),
    flag!("checksum", transfer.checksum, "Compare contents and not size and time"),
    flag!("whole-file", transfer.whole_file, "Send files whole, without rsync's delta algorithm"),
    flag!("inplace", transfer.inplace, "Write into the target's file itself"),
    flag!("partial", transfer.partial, "Keep interrupted files on the target and complete them"),
    one!(
        "chmod",
        "MODES",
        transfer.chmod,
        optional_of(chmod),
        |v: &Option<Chmod>| vec![v.as_ref().map_or("none", Chmod::as_str).to_owned()],
        "Modes on targets, as rsync's --chmod: D755,F644"
    ),
    one!(
        "chown",
        "UID:GID",
        transfer.chown,
        optional_of(chown),
        |v: &Option<Chown>| vec![v.as_ref().map_or("none", Chown::as_str).to_owned()],
        "Owner and group on targets by number, as rsync's --chown: 33:33"
    ),
    one!(
        "io-timeout",
        "TIME",
        transfer.timeout,
        timeout,
        |v: &Millis| vec![v.exact()],
        "End a transfer in which nothing moves for so long, 1s to 1h"
    ),
    Setting {
        name: "delete-limit",
        value: "LIMIT",
        help: "Ask a person before more is removed on a target within delete-window: entries, a share, or both (then both must be passed): 1000, 25%, 1000,25%, none",
        repeated: false,
        read: |o, text| {
            let window = o.delete_limit.unwrap_or_default().window;
            o.delete_limit = delete_limit(text, window)?;
            Ok(())
        },
        write: |o| vec![delete_limit_text(o.delete_limit.as_ref())],
        reset: |_, _| {},
    },
    Setting {
        name: "delete-window",
        value: "TIME",
        help: "What is removed within this time counts together, 1s to 1d",
        repeated: false,
        read: |o, text| {
            let window = within(text.parse()?, Millis::from_secs(1), DeleteLimit::WINDOW_MAX)?;
            if let Some(limit) = &mut o.delete_limit {
                limit.window = window;
            }
            Ok(())
        },
        write: |o| vec![o.delete_limit.unwrap_or_default().window.exact()],
        reset: |_, _| {},
    },
    one!(
        "sentinel",
        "FILE",
        sentinel,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Delete nothing unless this file of the source is there"
    ),
    one!(
        "bwlimit",
        "RATE",
        bwlimit,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Bytes per second of all its targets together: 500K, 10M, none"
    ),
    one!(
        "transfers",
        "COUNT",
        transfers,
        |text: &str| count(text, 1, SyncOptions::TRANSFERS_MAX),
        |v: &Option<u32>| or_none(v.as_ref()),
        "Transfers at once, 1 to 100, or none: the node's limit alone"
    ),
    one!(
        "verify-every",
        "TIME",
        verify_every,
        every,
        |v: &Option<Millis>| exact_or_none(*v),
        "Compare every copy with the source so often, and repair; none: never"
    ),
    one!(
        "scrub-every",
        "TIME",
        scrub_every,
        every,
        |v: &Option<Millis>| exact_or_none(*v),
        "Compare contents too so often, slowly; none: never"
    ),
    many!(
        "hook",
        "HOOK",
        hooks,
        Hook,
        "Run this executable of the agent's hook directory: NAME [on=changed|filled] [at=target|source] [failure=ignore|alert|retry] [timeout=1m] [repeatable=yes]"
    ),
    flag!(
        "remove-source-files",
        remove_source_files,
        "Remove a file from the source once all targets have it; needs delete=never"
    ),
    one!(
        "fanout",
        "COUNT",
        fanout,
        |text: &str| count(text, 2, SyncOptions::FANOUT_MAX),
        |v: &Option<u32>| or_none(v.as_ref()),
        "The source feeds so many targets, and these feed the others; none: the source feeds all"
    ),
    one!(
        "max-lag",
        "TIME",
        max_lag,
        max_lag,
        |v: &Option<Millis>| exact_or_none(*v),
        "Tell load balancers not to ask a copy that is further behind, 3s to 7d; none: however far it is"
    ),
    one!(
        "resync-schedule",
        "RULE",
        schedules.resync,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Complete passes to all targets at these times: fields such as 'day_of_week=sun hour=3', or crontab text; none: never"
    ),
    one!(
        "verify-schedule",
        "RULE",
        schedules.verify,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Compare every copy with the source at these times, and repair, besides verify-every; none: never"
    ),
    one!(
        "scrub-schedule",
        "RULE",
        schedules.scrub,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Compare contents too at these times, besides scrub-every; none: never"
    ),
    one!(
        "schedule-timezone",
        "ZONE",
        schedules.zone,
        parsed,
        shown,
        "Whose clock the schedules speak of: Europe/Berlin, +05:30"
    ),
    one!(
        "schedule-missed",
        "WHAT",
        schedules.policy.missed,
        parsed,
        shown,
        "Of scheduled passes whose time passed longer than schedule-grace ago: skip them, run once for all, or all"
    ),
    one!(
        "schedule-grace",
        "TIME",
        schedules.policy.grace,
        |text: &str| within(text.parse()?, Millis(0), Policy::GRACE_MAX),
        |v: &Millis| vec![v.exact()],
        "A scheduled pass that starts so late is on time, 0s to 7d"
    ),
    one!(
        "schedule-overlap",
        "WHAT",
        schedules.policy.overlap,
        parsed,
        shown,
        "Of a scheduled pass whose time comes while the target's one before goes on: skip it, or queue exactly one"
    ),
    one!(
        "schedule-splay",
        "TIME",
        schedules.policy.splay,
        |text: &str| within(text.parse()?, Millis(0), Policy::SPLAY_MAX),
        |v: &Millis| vec![v.exact()],
        "Spread the targets' scheduled passes over so much time, 0s to 1d"
    ),
];

#[cfg(test)]
mod tests;
