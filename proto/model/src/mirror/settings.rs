//! The settings of a mirror.

use super::further::FurtherUpstream;
use super::hook::MirrorHook;
use super::options::MirrorOptions;
use super::rsync::{RsyncOption, RsyncOptions};
use super::run::HopKind;
use crate::reject::Invalid;
use crate::setting::text::{count, optional, or_none, parsed, shown, texts, within};
use crate::setting::{Setting, Settings, at_most, flag, many, one};
use crate::sync::filter::{Filter, Pattern};
use crate::time::Millis;

impl Settings for MirrorOptions {
    const TABLE: &'static [Setting<Self>] = SETTINGS;

    fn check_together(&self) -> Result<(), Invalid> {
        let own = self.replica.options.as_deref().unwrap_or_default();
        at_most("rsync-option", self.upstream.options.len(), Self::OPTIONS_MAX)?;
        at_most("replica-rsync-option", own.len(), Self::OPTIONS_MAX)?;
        at_most("filter", self.upstream.filters.len(), Self::FILTERS_MAX)?;
        at_most("replica-filter", self.replica.filters.len(), Self::FILTERS_MAX)?;
        at_most("late", self.stages.late.len(), Self::PATTERNS_MAX)?;
        at_most("hook", self.hooks.len(), Self::HOOKS_MAX)?;
        at_most("further-upstream", self.further.len(), Self::FURTHER_MAX)?;
        self.check_further()?;
        self.hop(HopKind::Upstream).check()?;
        self.hop(HopKind::Replica).check().map_err(|e| e.within("replica"))
    }
}

/// `same` is the upstream's.
fn or_same<T: ToString>(value: Option<&T>) -> Vec<String> {
    vec![value.map_or("same".to_owned(), ToString::to_string)]
}

fn same_or<T: std::str::FromStr<Err = Invalid>>(text: &str) -> Result<Option<T>, Invalid> {
    if text == "same" { Ok(None) } else { text.parse().map(Some) }
}

fn seconds(most: Millis) -> impl Fn(&str) -> Result<Millis, Invalid> {
    move |text| {
        let time = within(text.parse()?, Millis::from_secs(1), most)?;
        match time.0 % 1000 {
            0 => Ok(time),
            _ => Err(Invalid::new("time", "must be whole seconds")),
        }
    }
}

fn number(text: &str, least: u32, most: u32) -> Result<u32, Invalid> {
    let wrong = || Invalid::new("number", format!("must be a number from {least} to {most}"));
    text.parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(wrong)
}

fn exact(value: &Millis) -> Vec<String> {
    vec![value.exact()]
}

const SETTINGS: &[Setting<MirrorOptions>] = &[
    one!(
        "rsync-defaults",
        "OPTIONS",
        upstream.defaults,
        parsed::<RsyncOptions>,
        shown,
        "rsync's options that others are added to; empty: none"
    ),
    Setting {
        name: "rsync-option",
        value: "OPTION",
        help: "A further option of rsync, in order: --exclude=*.iso; those that run programs or leave the tree are refused",
        repeated: true,
        read: |o, text| {
            o.upstream.options.push(text.parse::<RsyncOption>()?);
            Ok(())
        },
        write: |o| texts(&o.upstream.options),
        reset: |o, _| o.upstream.options.clear(),
    },
    one!(
        "delete",
        "WHEN",
        upstream.delete,
        parsed,
        shown,
        "When rsync removes what the other side does not have any more: none, delete, del, before, during, delay, after, excluded"
    ),
    Setting {
        name: "filter",
        value: "RULE",
        help: "'- PATTERN' leaves out, '+ PATTERN' keeps; rsync's patterns, the first match decides",
        repeated: true,
        read: |o, text| {
            o.upstream.filters.push(text.parse::<Filter>()?);
            Ok(())
        },
        write: |o| texts(&o.upstream.filters),
        reset: |o, _| o.upstream.filters.clear(),
    },
    many!(
        "further-upstream",
        "DIR=URL",
        further,
        FurtherUpstream,
        "Fill this directory of the tree from another upstream, in the same runs: iso=rsync://HOST/MODULE?password=NAME, iso=ssh://…"
    ),
    one!(
        "replica-rsync-defaults",
        "OPTIONS",
        replica.defaults,
        same_or::<RsyncOptions>,
        |v: &Option<RsyncOptions>| or_same(v.as_ref()),
        "rsync-defaults of the replicas' pulls; same: the upstream's"
    ),
    Setting {
        name: "replica-rsync-option",
        value: "OPTION",
        help: "rsync-option of the replicas' pulls, in place of the upstream's; none: none",
        repeated: true,
        read: |o, text| {
            let options = o.replica.options.get_or_insert_default();
            if text != "none" {
                options.push(text.parse::<RsyncOption>()?);
            }
            Ok(())
        },
        write: |o| match o.replica.options.as_deref() {
            None => Vec::new(),
            Some([]) => vec!["none".to_owned()],
            Some(options) => texts(options),
        },
        reset: |o, _| o.replica.options = None,
    },
    one!(
        "replica-delete",
        "WHEN",
        replica.delete,
        same_or,
        |v: &Option<_>| or_same(v.as_ref()),
        "delete of the replicas' pulls; same: the upstream's"
    ),
    Setting {
        name: "replica-filter",
        value: "RULE",
        help: "What replicas leave out of what the master has",
        repeated: true,
        read: |o, text| {
            o.replica.filters.push(text.parse::<Filter>()?);
            Ok(())
        },
        write: |o| texts(&o.replica.filters),
        reset: |o, _| o.replica.filters.clear(),
    },
    one!(
        "run-timeout",
        "TIME",
        limits.timeout,
        seconds(MirrorOptions::TIMEOUT_MAX),
        exact,
        "End a try that takes longer, 1s to 30d"
    ),
    one!(
        "io-timeout",
        "TIME",
        limits.io_timeout,
        seconds(MirrorOptions::IO_TIMEOUT_MAX),
        exact,
        "End a try in which nothing moves for so long, 1s to 1d"
    ),
    one!(
        "connect-timeout",
        "TIME",
        limits.connect_timeout,
        seconds(MirrorOptions::IO_TIMEOUT_MAX),
        exact,
        "End a try whose upstream does not answer for so long, 1s to 1d"
    ),
    one!(
        "attempts",
        "COUNT",
        limits.attempts,
        |text: &str| number(text, 1, MirrorOptions::ATTEMPTS_MAX),
        shown,
        "Tries of one run, 1 to 100, with growing pauses; what a person has to mend is not tried again"
    ),
    one!(
        "bwlimit",
        "RATE",
        limits.bwlimit,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Bytes per second from the upstream: 500K, 10M, none"
    ),
    one!(
        "replica-bwlimit",
        "RATE",
        limits.replica_bwlimit,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Bytes per second to each replica: 500K, 10M, none"
    ),
    one!(
        "nice",
        "NUMBER",
        limits.nice,
        |text: &str| number(text, 0, 19).map(|n| n as u8),
        shown,
        "Niceness of rsync, 0 to 19"
    ),
    one!(
        "ionice",
        "CLASS",
        limits.ionice,
        parsed,
        shown,
        "rsync's place among those that wait for the disk: none, best-effort, idle"
    ),
    one!(
        "replicas-at-once",
        "COUNT",
        limits.replicas_at_once,
        |text: &str| count(text, 1, 1000),
        |v: &Option<u32>| or_none(v.as_ref()),
        "Replicas that pull at once, 1 to 1000; none: all"
    ),
    one!(
        "delete-limit",
        "LIMIT",
        guards.delete,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Fail a run that would remove more: entries, a share, or both (then both must be passed): 1000, 25%, 1000,25%, none"
    ),
    one!(
        "min-free",
        "SIZE",
        guards.min_free,
        parsed,
        shown,
        "Start nothing that would leave less on the file system: 10G"
    ),
    flag!(
        "two-stage",
        stages.two,
        "Content first, indices and removals second; no replica starts the second before all have the first"
    ),
    Setting {
        name: "late",
        value: "PATTERN",
        help: "What the first stage leaves out; when none is given, the indices of a Debian archive",
        repeated: true,
        read: |o, text| {
            o.stages.late.push(text.parse::<Pattern>()?);
            Ok(())
        },
        write: |o| texts(&o.stages.late),
        reset: |o, _| o.stages.late.clear(),
    },
    one!(
        "quorum",
        "COUNT",
        stages.quorum,
        |text: &str| count(text, 1, 1000),
        |v: &Option<u32>| or_none(v.as_ref()),
        "So many replicas with the first stage are enough for the second, 1 to 1000; none: all"
    ),
    one!(
        "stage-wait",
        "TIME",
        stages.wait,
        seconds(MirrorOptions::STAGE_WAIT_MAX),
        exact,
        "After so long the second stage starts without the others, 1s to 1d"
    ),
    one!(
        "publish",
        "HOW",
        publish,
        parsed,
        shown,
        "direct: rsync works in the tree that readers see; snapshot: they see each complete tree at once, through a symlink"
    ),
    one!(
        "snapshots",
        "COUNT",
        snapshots,
        |text: &str| number(text, 1, MirrorOptions::SNAPSHOTS_MAX),
        shown,
        "Complete trees to keep with publish=snapshot, 1 to 100"
    ),
    one!(
        "address-family",
        "WHICH",
        family,
        parsed,
        shown,
        "Of the upstream's addresses: any, 4, 6"
    ),
    one!(
        "proxy",
        "HOST:PORT",
        proxy,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "HTTP proxy to the upstream's rsync daemon; none: none"
    ),
    one!(
        "trace",
        "DIR",
        trace,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Directory of the tree where each host leaves a file with name and time: project/trace"
    ),
    many!(
        "hook",
        "HOOK",
        hooks,
        MirrorHook,
        "Run this executable of the agent's hook directory: NAME [on=before|changed|after|failed|distributed] [at=master|replica] [failure=ignore|alert|abort] [timeout=10m] [delay=0s] [repeatable=yes]"
    ),
    one!(
        "replicas-from",
        "URL",
        replicas_from,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Replicas pull from here and not through the agents: rsync://user@master/module/path?password=NAME, ssh://…; none: through the agents"
    ),
    one!(
        "rsyncd-module",
        "MODULE",
        module,
        optional,
        |v: &Option<_>| or_none(v.as_ref()),
        "Let third parties pull from rsync://NODE/NAME: NAME [at=all|master|replica] [allow=HOST,NETWORK] [connections=20] [list=yes]; none: nobody"
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_read_back() {
        for (name, texts) in MirrorOptions::default().all_values() {
            for text in texts {
                let mut options = MirrorOptions::default();
                options.set([(name, text.as_str())]).unwrap();
                assert_eq!(options, MirrorOptions::default(), "{name}={text}");
            }
        }
    }

    #[test]
    fn a_replica_has_the_upstreams_options_unless_it_has_its_own() {
        let values = [("rsync-option", "--checksum"), ("replica-delete", "before")];
        let options = MirrorOptions::from_values(values).unwrap();
        let hop = options.hop(HopKind::Replica);
        assert_eq!(hop.argv(), ["-avH", "--checksum"]);
        assert_eq!(hop.delete.to_string(), "before");
        let options =
            MirrorOptions::from_values([values[0], ("replica-rsync-option", "none")]).unwrap();
        assert_eq!(options.hop(HopKind::Replica).argv(), ["-avH"]);
        assert_eq!(
            MirrorOptions::from_values(
                options.values().iter().map(|v| (v.name.as_str(), v.text.as_str()))
            )
            .unwrap(),
            options
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, text) in [
            ("run-timeout", "0s"),
            ("attempts", "0"),
            ("nice", "20"),
            ("delete", "sometimes"),
            ("hook", "../x"),
            ("proxy", "host"),
            ("trace", "../x"),
            ("rsyncd-module", "a b"),
            ("speed", "1"),
        ] {
            assert!(MirrorOptions::from_values([(name, text)]).is_err(), "{name}={text}");
        }
    }
}
