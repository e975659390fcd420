//! The text form of every option of a sync: one table for the command line, the wire, the store and
//! the manual. A value that is written is read back as the same.

pub(super) mod text;

use super::filter::Filter;
use super::hook::Hook;
use super::options::{Chmod, Chown, DeleteLimit, DeletePolicy, SyncOptions};
use crate::id::quote;
use crate::reject::Invalid;
use crate::time::Millis;
use text::{
    chmod, chown, count, delay, delete_limit, delete_limit_text, every, exact_or_none, optional,
    optional_of, or_none, parsed, shown, texts, timeout, within, word, yes_no,
};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    /// What stands for a value in help texts; empty for yes or no.
    pub value: &'static str,
    pub help: &'static str,
    /// May be given more than once; order is kept.
    pub repeated: bool,
    read: fn(&mut SyncOptions, &str) -> Result<(), Invalid>,
    write: fn(&SyncOptions) -> Vec<String>,
    reset: fn(&mut SyncOptions, SyncOptions),
}

impl Setting {
    pub fn is_flag(&self) -> bool {
        self.value.is_empty()
    }
}

/// `name`, and a text that its row reads.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Value {
    pub name: String,
    pub text: String,
}

/// Most values of one sync.
pub const VALUES_MAX: usize = 512;

impl SyncOptions {
    pub fn from_values<'a>(
        values: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Invalid> {
        let mut options = Self::default();
        options.set(values)?;
        options.check()?;
        Ok(options)
    }

    /// Only what differs from the default, in the table's order.
    pub fn values(&self) -> Vec<Value> {
        let plain = Self::default();
        let differs = |row: &&Setting| (row.write)(self) != (row.write)(&plain);
        let of = |row: &Setting| {
            let name = row.name;
            (row.write)(self).into_iter().map(move |text| Value { name: name.to_owned(), text })
        };
        SETTINGS.iter().filter(differs).flat_map(of).collect()
    }

    /// Every setting with its text, defaults too.
    pub fn all_values(&self) -> Vec<(&'static str, Vec<String>)> {
        SETTINGS.iter().map(|row| (row.name, (row.write)(self))).collect()
    }

    /// Those that are named are replaced as a whole, the others stay. An empty text of a repeated
    /// one empties it. Not checked against each other.
    pub fn set<'a>(
        &mut self,
        values: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), Invalid> {
        let mut begun: Vec<&str> = Vec::new();
        for (name, text) in values {
            let row = find(name)?;
            let again = begun.contains(&row.name);
            if again && !row.repeated {
                return Err(Invalid::new(name, "is given twice"));
            }
            if !again {
                begun.push(row.name);
                (row.reset)(self, Self::default());
                if row.repeated && text.is_empty() {
                    continue;
                }
            }
            (row.read)(self, text).map_err(|problem| Invalid::new(name, problem.problem))?;
        }
        Ok(())
    }

    /// Each value by itself, and what no single setting can tell.
    pub fn check(&self) -> Result<(), Invalid> {
        for Value { name, text } in self.values() {
            let read = find(&name)?.read;
            read(&mut Self::default(), &text).map_err(|e| Invalid::new(name, e.problem))?;
        }
        let most = |name, len: usize, max| match len > max {
            true => Err(Invalid::new(name, format!("must be at most {max}, not {len}"))),
            false => Ok(()),
        };
        most("filter", self.filters.len(), Self::FILTERS_MAX)?;
        most("priority", self.priority.len(), Self::PATTERNS_MAX)?;
        most("ignore", self.ignore.len(), Self::PATTERNS_MAX)?;
        most("hook", self.hooks.len(), Self::HOOKS_MAX)?;
        if self.remove_source_files && self.delete != DeletePolicy::Never {
            return Err(Invalid::new(
                "remove-source-files",
                "needs delete=never: else what is removed at the source is removed on targets",
            ));
        }
        if self.once && self.marker.is_some() {
            return Err(Invalid::new("once", "and marker exclude each other"));
        }
        if self.transfer.inplace && self.transfer.sparse {
            return Err(Invalid::new("inplace", "and sparse exclude each other"));
        }
        Ok(())
    }
}

/// The row of a name, or an error that says which there are.
pub fn find(name: &str) -> Result<&'static Setting, Invalid> {
    SETTINGS.iter().find(|row| row.name == name).ok_or_else(|| {
        let names: Vec<&str> = SETTINGS.iter().map(|row| row.name).collect();
        let problem = format!("{} is unknown; there are {}", quote(name), names.join(", "));
        Invalid::new("setting", problem)
    })
}

macro_rules! flag {
    ($name:literal, $($field:ident).+, $help:literal) => {
        Setting {
            name: $name,
            value: "",
            help: $help,
            repeated: false,
            read: |o, text| { o.$($field).+ = yes_no(text)?; Ok(()) },
            write: |o| word(o.$($field).+),
            reset: |o, plain| o.$($field).+ = plain.$($field).+,
        }
    };
}

macro_rules! one {
    ($name:literal, $value:literal, $($field:ident).+, $read:expr, $write:expr, $help:literal) => {
        Setting {
            name: $name,
            value: $value,
            help: $help,
            repeated: false,
            read: |o, text| { o.$($field).+ = $read(text)?; Ok(()) },
            write: |o| $write(&o.$($field).+),
            reset: |o, plain| o.$($field).+ = plain.$($field).+,
        }
    };
}

macro_rules! many {
    ($name:literal, $value:literal, $field:ident, $type:ty, $help:literal) => {
        Setting {
            name: $name,
            value: $value,
            help: $help,
            repeated: true,
            read: |o, text| {
                o.$field.push(text.parse::<$type>()?);
                Ok(())
            },
            write: |o| texts(&o.$field),
            reset: |o, _| o.$field.clear(),
        }
    };
}

/// In the order of the manual.
pub const SETTINGS: &[Setting] = &[
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
];

#[cfg(test)]
mod tests;
