//! Upstreams of a mirror besides its first one: each fills a directory of the tree of its own, in the
//! same runs. What is in such a directory is no other upstream's to bring or to remove.

use std::fmt;
use std::str::FromStr;

use crate::id::quote;
use crate::reject::Invalid;
use crate::sync::Remote;
use crate::sync::filter::FilePath;

/// `images/iso=rsync://iso.example.org/fedora-iso?password=NAME`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FurtherUpstream {
    /// Of the tree.
    pub dir: FilePath,
    /// With a secret of the master's own directory, if it needs one.
    pub remote: Remote,
}

impl FurtherUpstream {
    /// True when one of the two directories is the other or lies inside it.
    pub fn overlaps(&self, dir: &FilePath) -> bool {
        let within = |inner: &FilePath, outer: &FilePath| {
            let rest = inner.as_str().strip_prefix(outer.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        within(&self.dir, dir) || within(dir, &self.dir)
    }
}

impl FromStr for FurtherUpstream {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |problem: String| Invalid::new("further-upstream", problem);
        let (dir, url) = text.split_once('=').unwrap_or((text, ""));
        let fits = !dir.contains("://") && !dir.starts_with(".lockstep");
        let dir = dir.parse().ok().filter(|_| fits).ok_or_else(|| {
            let like = "iso=rsync://HOST/MODULE, with a directory of the tree in front";
            wrong(format!("must look like {like}, not {}", quote(text)))
        })?;
        Ok(Self { dir, remote: Remote::upstream(url).map_err(|e| wrong(e.problem))? })
    }
}

impl fmt::Display for FurtherUpstream {
    /// Read back as the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.dir, self.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_read_as_written_and_what_is_no_directory_of_the_tree_is_refused() {
        let text = "images/iso=rsync://me@iso.example.org:873/fedora-iso?password=iso";
        let further: FurtherUpstream = text.parse().unwrap();
        assert_eq!(further.to_string(), text);
        for wrong in [
            "",
            "rsync://host/module",
            "rsync://host/module?password=x",
            "=rsync://host/module",
            "/etc=rsync://host/module",
            "a/../b=rsync://host/module",
            ".lockstep=rsync://host/module",
            "iso=http://host/module",
            "iso=",
            "iso",
        ] {
            assert_eq!(wrong.parse::<FurtherUpstream>().unwrap_err().field, "further-upstream");
        }
    }

    #[test]
    fn directories_overlap_by_whole_names() {
        let at = |dir: &str| format!("{dir}=rsync://host/module").parse::<FurtherUpstream>();
        let overlaps = |a: &str, b: &str| at(a).unwrap().overlaps(&b.parse().unwrap());
        assert!(overlaps("a", "a/b") && overlaps("a/b", "a") && overlaps("a", "a"));
        assert!(!overlaps("a", "ab") && !overlaps("a/b", "a/c"));
    }
}
