//! What a comparison found: for people, for programs, and as the changes that repair it. Pure.

use std::fmt;

use super::entry::{Attr, Attrs};
use super::walk::Walked;
use crate::journal::{Change, Changed, RelPath};

/// Most findings that are listed; a comparison stops looking for more.
pub const FINDINGS_MAX: usize = 10_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// On the source only; of a directory, with all that is in it.
    Missing,
    /// On the target only; of a directory, with all that is in it.
    Extra,
    Differs(Attrs),
    /// It could not be read on one side.
    Unreadable,
}

/// One difference that lasted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Empty for the directory of the sync itself.
    pub path: RelPath,
    pub kind: Kind,
    /// Whether the source has a directory there.
    pub is_dir: bool,
}

impl Finding {
    /// What brings the target's copy in order; None when nothing delivered could.
    fn repair(&self) -> Option<Changed> {
        let subtree = self.is_whole() || self.is_content();
        let repairable = self.kind != Kind::Unreadable;
        repairable.then(|| Changed { path: self.path.clone(), subtree })
    }

    /// With all that is below it.
    pub fn is_whole(&self) -> bool {
        let is_whole = match self.kind {
            Kind::Missing => true,
            Kind::Differs(attrs) => attrs.has(Attr::Type),
            Kind::Extra | Kind::Unreadable => false,
        };
        is_whole && self.is_dir
    }

    /// A file that looks the same and is not: rsync sends it only when told to look inside.
    pub fn is_content(&self) -> bool {
        matches!(self.kind, Kind::Differs(attrs) if attrs.has(Attr::Content))
    }
}

/// The word, a blank and the path, whose unusual bytes are escaped as in a Rust byte string.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Missing => f.write_str("missing ")?,
            Kind::Extra => f.write_str("extra ")?,
            Kind::Differs(attrs) => write!(f, "differs({attrs}) ")?,
            Kind::Unreadable => f.write_str("unreadable ")?,
        }
        if self.path.is_empty() {
            return f.write_str(".");
        }
        write!(f, "{}", self.path.escape_ascii())
    }
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Findings {
    /// In order of their paths.
    pub list: Vec<Finding>,
    /// There are more: looking for them was given up.
    pub truncated: bool,
    /// Entries of the source.
    pub source: Walked,
    /// Entries of the target.
    pub target: Walked,
    /// Files whose content was compared.
    pub contents: u64,
    /// Contents of the files after this one were not compared yet; empty: of none.
    pub next: Option<RelPath>,
}

impl Findings {
    pub fn is_clean(&self) -> bool {
        self.list.is_empty() && !self.truncated
    }

    /// How many are missing, extra, differ, and could not be read.
    pub fn counts(&self) -> [usize; 4] {
        self.list.iter().fold([0; 4], |mut counts, finding| {
            counts[match finding.kind {
                Kind::Missing => 0,
                Kind::Extra => 1,
                Kind::Differs(_) => 2,
                Kind::Unreadable => 3,
            }] += 1;
            counts
        })
    }

    /// What repairs them, as the journal of one target would say it. Everything, when they are not
    /// all listed or the directory of the sync itself differs, which has no name in a batch.
    pub fn change(&self) -> Change {
        let whole = |finding: &Finding| finding.path.is_empty() && finding.repair().is_some();
        if self.truncated || self.list.iter().any(whole) {
            return Change::Full;
        }
        Change::Batch(self.list.iter().filter_map(Finding::repair).collect())
    }

    /// Takes in what a later part of the same comparison found.
    pub fn append(&mut self, later: Self) {
        let Self { list, truncated, source: _, target: _, contents, next } = later;
        self.truncated |= truncated || self.list.len() + list.len() > FINDINGS_MAX;
        self.list.extend(list);
        self.list.truncate(FINDINGS_MAX);
        self.contents += contents;
        self.next = next;
    }
}

/// One line for people.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [missing, extra, differs, unreadable] = self.counts();
        if self.is_clean() {
            write!(f, "equal: {} entries", self.source.entries)?;
        } else {
            let least = if self.truncated { "at least " } else { "" };
            write!(f, "{least}{missing} missing, {extra} extra, {differs} differ")?;
            write!(f, " of {} entries", self.source.entries)?;
        }
        if self.contents > 0 {
            write!(f, ", {} contents compared", self.contents)?;
        }
        let unreadable = unreadable as u64 + self.source.unreadable + self.target.unreadable;
        if unreadable > 0 {
            write!(f, ", {unreadable} unreadable")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(path: &[u8], kind: Kind, is_dir: bool) -> Finding {
        Finding { path: path.into(), kind, is_dir }
    }

    #[test]
    fn findings_have_one_form_and_become_changes() {
        let size = Attrs::of(Attr::Mtime).and(Attr::Size);
        let [of_type, of_content] = [Attr::Type, Attr::Content].map(Attrs::of);
        let table = [
            (finding(b"a/b", Kind::Missing, true), "missing a/b", Some(true)),
            (finding(b"a", Kind::Missing, false), "missing a", Some(false)),
            (finding(b"x\ny", Kind::Extra, false), r"extra x\ny", Some(false)),
            (
                finding(b"\xff -", Kind::Differs(size), false),
                r"differs(size,mtime) \xff -",
                Some(false),
            ),
            (finding(b"d", Kind::Differs(of_type), true), "differs(type) d", Some(true)),
            (finding(b"u", Kind::Unreadable, true), "unreadable u", None),
            (finding(b"c", Kind::Differs(of_content), false), "differs(content) c", Some(true)),
        ];
        for (finding, text, subtree) in table {
            assert_eq!(finding.to_string(), text);
            let changed = subtree.map(|subtree| Changed { path: finding.path.clone(), subtree });
            let findings = Findings { list: vec![finding], ..Findings::default() };
            assert_eq!(findings.change(), Change::Batch(changed.into_iter().collect()));
        }
    }

    #[test]
    fn what_has_no_name_or_no_end_is_a_whole_pass() {
        let own = finding(b"", Kind::Differs(Attrs::of(Attr::Mode)), true);
        assert_eq!(own.to_string(), "differs(mode) .");
        let findings = Findings { list: vec![own], ..Findings::default() };
        assert_eq!(findings.change(), Change::Full);
        let findings = Findings { truncated: true, ..Findings::default() };
        assert_eq!(findings.change(), Change::Full);
        assert!(findings.to_string().starts_with("at least 0 missing"));
    }
}
