//! The kernel's limits on inotify: what they are, whether the needs of this node's syncs fit into
//! them, and the command that raises them. It reads and advises, and never changes a limit.

pub mod count;
pub mod place;

use std::fs;
use std::io::Read;
use std::path::Path;

/// From this share of a limit on it is told, in percent.
const NEAR_PERCENT: u64 = 80;
/// The least that is advised.
const WATCHES_MIN: u64 = 65_536;
const INSTANCES_MIN: u64 = 1024;
const QUEUED_MIN: u64 = 65_536;
/// Longest limit that is read, in bytes.
const NUMBER_LEN_MAX: u64 = 32;
/// Where a limit is kept over reboots.
const KEPT_IN: &str = "/etc/sysctl.d/60-lockstep.conf";

/// What watching takes: a watch per directory and an instance per process that watches.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Need {
    pub watches: u64,
    pub instances: u64,
}

/// What a watcher was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shortage {
    Watches,
    Instances,
}

/// How needs relate to the limits; the text tells an operator what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fit {
    Fits,
    Near(String),
    Short(String),
}

impl Fit {
    pub fn advice(self) -> Option<String> {
        match self {
            Self::Fits => None,
            Self::Near(text) | Self::Short(text) => Some(text),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Limit {
    /// What sysctl calls it.
    key: &'static str,
    most: u64,
}

/// The limits as they are now. They count per user: other programs of the agent's user draw on them
/// too, and what those hold is not known here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    watches: Limit,
    instances: Limit,
    queued: Limit,
}

impl Limits {
    pub fn read() -> Self {
        Self::read_below(Path::new("/proc/sys"))
    }

    fn read_below(sys: &Path) -> Self {
        let read = |key: &'static str| {
            let mut text = String::new();
            // Bounded, which also spares a look at its size: this is read again and again.
            let file = fs::File::open(sys.join(key.replace('.', "/")));
            let read = file.and_then(|file| file.take(NUMBER_LEN_MAX).read_to_string(&mut text));
            let most = read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or(u64::MAX);
            Limit { key, most }
        };
        // A user namespace has limits of its own beside the machine's. On the machine itself both
        // names are one number.
        let lower = |machine, namespace| match (read(machine), read(namespace)) {
            (machine, namespace) if namespace.most < machine.most => namespace,
            (machine, _) => machine,
        };
        Self {
            watches: lower("fs.inotify.max_user_watches", "user.max_inotify_watches"),
            instances: lower("fs.inotify.max_user_instances", "user.max_inotify_instances"),
            queued: read("fs.inotify.max_queued_events"),
        }
    }

    pub fn weigh(&self, need: Need) -> Fit {
        let watches = weigh(
            &self.watches,
            need.watches,
            WATCHES_MIN,
            "inotify watches, one for each directory of this node's syncs",
        );
        let instances = weigh(
            &self.instances,
            need.instances,
            INSTANCES_MIN,
            "inotify instances, one for each lsyncd of this node",
        );
        match (watches, instances) {
            (Fit::Short(text), _) | (_, Fit::Short(text)) => Fit::Short(text),
            (Fit::Near(text), _) | (_, Fit::Near(text)) => Fit::Near(text),
            (Fit::Fits, Fit::Fits) => Fit::Fits,
        }
    }

    /// A watcher was refused although `held`, what this node's syncs have with it, fits.
    pub fn refused(&self, what: Shortage, held: Need) -> String {
        let (limit, held, least, name) = match what {
            Shortage::Watches => (&self.watches, held.watches, WATCHES_MIN, "watches"),
            Shortage::Instances => (&self.instances, held.instances, INSTANCES_MIN, "instances"),
        };
        let advised = advise(held.max(limit.most), least);
        format!(
            "lsyncd ended: no inotify {name} are left. This node's syncs need {held} of {}, other \
             programs of the same user have the rest: {}",
            limit.most,
            raise(limit, advised)
        )
    }

    /// What to do when the kernel's queue of changes overflows.
    pub fn queue_advice(&self) -> String {
        raise(&self.queued, advise(self.queued.most, QUEUED_MIN))
    }
}

fn weigh(limit: &Limit, need: u64, least: u64, what: &str) -> Fit {
    let Limit { most, .. } = *limit;
    let raise = || raise(limit, advise(need, least));
    if need > most {
        Fit::Short(format!(
            "not watching: {need} are needed of {what}, and the limit is {most}: {}",
            raise()
        ))
    } else if need.saturating_mul(100) >= most.saturating_mul(NEAR_PERCENT) {
        Fit::Near(format!("{need} of {most} are needed of {what}: {}", raise()))
    } else {
        Fit::Fits
    }
}

/// A round number with room for as much again.
fn advise(need: u64, least: u64) -> u64 {
    need.saturating_mul(2).max(least).checked_next_power_of_two().unwrap_or(need)
}

fn raise(limit: &Limit, advised: u64) -> String {
    let key = limit.key;
    format!("raise it with `sysctl {key}={advised}` and keep it in {KEPT_IN}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(watches: u64, instances: u64) -> Limits {
        let dir = tempfile::tempdir().unwrap();
        for (below, values) in [
            ("fs/inotify", vec![("max_user_watches", 8192), ("max_user_instances", 128)]),
            ("user", vec![("max_inotify_watches", watches), ("max_inotify_instances", instances)]),
        ] {
            fs::create_dir_all(dir.path().join(below)).unwrap();
            for (name, value) in values {
                fs::write(dir.path().join(below).join(name), format!("{value}\n")).unwrap();
            }
        }
        Limits::read_below(dir.path())
    }

    #[test]
    fn the_lower_of_machine_and_namespace_counts_and_is_named() {
        let need = |watches, instances| Need { watches, instances };
        let said = |fit: Fit, words: &[&str]| {
            let text = fit.advice().unwrap();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        let wide = limits(1 << 31, 1 << 31);
        assert_eq!(wide.weigh(need(6553, 102)), Fit::Fits);
        let near = wide.weigh(need(6554, 1));
        assert!(matches!(near, Fit::Near(_)), "{near:?}");
        said(near, &["6554 of 8192", "`sysctl fs.inotify.max_user_watches=65536`", KEPT_IN]);
        assert!(matches!(wide.weigh(need(8192, 1)), Fit::Near(_)));
        let short = wide.weigh(need(40_000, 1));
        assert!(matches!(short, Fit::Short(_)), "{short:?}");
        said(short, &["40000", "8192", "`sysctl fs.inotify.max_user_watches=131072`"]);
        let narrow = limits(100, 3);
        assert!(matches!(narrow.weigh(need(101, 1)), Fit::Short(_)));
        said(narrow.weigh(need(101, 1)), &["`sysctl user.max_inotify_watches=65536`"]);
        said(narrow.weigh(need(9, 4)), &["4 are", "`sysctl user.max_inotify_instances=1024`"]);
        // Whoever cannot watch hears of that first.
        said(narrow.weigh(need(90, 4)), &["max_inotify_instances"]);
    }

    #[test]
    fn a_refusal_advises_more_than_there_is() {
        let held = Need { watches: 10, instances: 1 };
        let text = limits(200_000, 200).refused(Shortage::Watches, held);
        assert!(text.contains("10 of 8192") && text.contains("max_user_watches=65536"), "{text}");
        let text = limits(200_000, 200).refused(Shortage::Instances, held);
        assert!(text.contains("1 of 128") && text.contains("max_user_instances=1024"), "{text}");
        assert!(Limits::read().queue_advice().contains("sysctl fs.inotify.max_queued_events="));
        // Whatever cannot be read is no limit.
        let none = Limits::read_below(Path::new("/nonexistent"));
        assert_eq!(none.weigh(Need { watches: 1 << 40, instances: 1 << 20 }), Fit::Fits);
    }
}
