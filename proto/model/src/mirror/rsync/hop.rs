//! What one hop tells rsync, its parts held against each other.

use std::collections::BTreeSet;

use super::{Given, RsyncOption, RsyncOptions, table, wrong};
use crate::reject::Invalid;
use crate::words::words;

words!(
    /// What becomes of entries that the other side does not have: rsync's seven options, or none.
    Delete, "delete", {
    /// They stay.
    None = "none",
    Plain = "delete",
    Del = "del",
    Before = "before",
    During = "during",
    Delay = "delay",
    After = "after",
    /// As rsync's `--delete-excluded`: what is left out goes too.
    Excluded = "excluded",
});

/// What one hop tells rsync, in the three parts of the old system.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Hop {
    pub defaults: RsyncOptions,
    pub options: RsyncOptions,
    pub delete: Delete,
}

/// Pairs that rsync refuses, or of which one makes nonsense of the other.
const EXCLUSIVE: [(&str, &str, &str); 7] = [
    ("inplace", "partial-dir", "a file is written where it is, or elsewhere first"),
    ("inplace", "delay-updates", "a file is written where it is, or elsewhere first"),
    ("append-verify", "partial-dir", "a file is written where it is, or elsewhere first"),
    ("append-verify", "delay-updates", "a file is written where it is, or elsewhere first"),
    ("inplace", "sparse", "holes are not written into what is there"),
    ("append-verify", "whole-file", "the rest of a file is sent, or all of it"),
    ("existing", "ignore-existing", "nothing would be brought"),
];

/// Of these rsync takes one that concerns users and one that concerns groups.
const OWNERS: [&str; 3] = ["chown", "usermap", "groupmap"];

impl Hop {
    /// More is rsync's debugging.
    const VERBOSE_MAX: usize = 2;

    /// What the parts cannot tell by themselves.
    pub fn check(&self) -> Result<(), Invalid> {
        for part in [&self.defaults, &self.options] {
            if part.0.len() > RsyncOptions::COUNT_MAX {
                return Err(wrong(format!("at most {} may be given", RsyncOptions::COUNT_MAX)));
            }
        }
        if !self.is_on("recursive") {
            let problem = "-r or -a is missing: without it nothing below the top would be brought";
            return Err(wrong(problem.to_owned()));
        }
        if self.given().filter(|given| given.name == "verbose").count() > Self::VERBOSE_MAX {
            return Err(wrong("-v may be given twice at most: more is for debugging".to_owned()));
        }
        for (one, other, why) in EXCLUSIVE {
            if let (Some(one), Some(other)) = (self.by(one), self.by(other)) {
                return Err(wrong(format!("{one} and {other} exclude each other: {why}")));
            }
        }
        for side in ["usermap", "groupmap"] {
            let concerns = |given: &&Given| OWNERS.contains(&given.name) && given.concerns(side);
            let mut all = self.given().filter(concerns).map(Given::to_string);
            if let (Some(one), Some(other)) = (all.next(), all.next()) {
                return Err(wrong(format!("{one} and {other} say the same thing: leave one away")));
            }
        }
        Ok(())
    }

    /// What rsync is told, in order; the option for removals is not among it.
    pub fn argv(&self) -> Vec<String> {
        self.parts().map(|option| option.as_str().to_owned()).collect()
    }

    pub fn keeps_hard_links(&self) -> bool {
        self.is_on("hard-links")
    }

    /// Why each tree cannot be built anew beside the older ones: an option that lets older trees
    /// change, or lets what is new stay away.
    pub fn check_snapshots(&self) -> Result<(), Invalid> {
        const WAY_OUT: &str = "leave it away, or publish=direct";
        for name in ["inplace", "append-verify"] {
            if let Some(given) = self.by(name) {
                return Err(wrong(format!(
                    "{given} writes into files that older snapshots share: {WAY_OUT}"
                )));
            }
        }
        if let Some(given) = self.by("existing") {
            return Err(wrong(format!("{given} brings nothing into a new snapshot: {WAY_OUT}")));
        }
        match self.delete {
            Delete::None => Err(Invalid::new(
                "delete",
                "with publish=snapshot each tree is built anew, and entries that the other side does \
                 not have any more are lost: delete=after says so, publish=direct keeps them",
            )),
            _ => Ok(()),
        }
    }

    /// The names of what is brought are in the log.
    pub fn is_verbose(&self) -> bool {
        self.is_on("verbose")
    }

    /// Long names of all that is asked for, what an option stands for included: what a daemon must
    /// not refuse.
    pub fn names(&self) -> BTreeSet<&'static str> {
        let with_meant = |given: &'_ Given| [given.name].into_iter().chain(given.meant());
        self.given().flat_map(with_meant).filter(|name| name.len() > 1).collect()
    }

    fn parts(&self) -> impl Iterator<Item = &RsyncOption> {
        self.defaults.0.iter().chain(&self.options.0)
    }

    fn given(&self) -> impl Iterator<Item = &Given> {
        self.parts().flat_map(|option| &option.given)
    }

    fn is_on(&self, name: &str) -> bool {
        self.by(name).is_some()
    }

    /// As it was given; None when it was not, or when it was taken back later.
    fn by(&self, name: &str) -> Option<String> {
        self.given().fold(None, |before, given| match given {
            given if given.name == name || given.meant().any(|meant| meant == name) => {
                Some(given.to_string())
            }
            given if given.undoes(name) => None,
            _ => before,
        })
    }
}

impl Given {
    fn meant(&self) -> impl Iterator<Item = &'static str> + use<> {
        table::meant(self.name).iter().copied()
    }

    fn undoes(&self, name: &str) -> bool {
        let of = |given: &str| {
            let undone = given.strip_prefix("no-");
            let letter = table::by_name(name).and_then(|row| row.letter);
            undone.is_some_and(|undone| {
                undone == name
                    || (name == "append-verify" && undone == "append")
                    || letter.is_some_and(|letter| undone.chars().eq([letter]))
            })
        };
        of(self.name) || self.meant().any(of)
    }

    /// Whether it maps users, or groups.
    fn concerns(&self, side: &str) -> bool {
        let value = self.value.as_deref().unwrap_or_default();
        let (user, group) = value.split_once(':').unwrap_or((value, ""));
        match (self.name, side) {
            ("chown", "usermap") => !user.is_empty(),
            ("chown", _) => !group.is_empty(),
            (name, side) => name == side,
        }
    }
}

impl std::fmt::Display for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dashes = if self.name.len() == 1 { "-" } else { "--" };
        write!(f, "{dashes}{}", self.name)
    }
}
