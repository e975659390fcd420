//! What of a sync's options a comparison heeds: attributes that the sync carries over, names that
//! it leaves out, and whether what only a target has is wrong there. Pure.

use std::path::Path;
use std::sync::Arc;

use lockstep_model::sync::options::Symlinks;
use lockstep_model::sync::{DeletePolicy, SyncOptions};

use crate::rsync::exclude::{self, Excludes};
use crate::verify::entry::Key;
use crate::verify::{Filter, Keep, Side};

#[derive(Clone)]
pub struct Terms {
    keep: Keep,
    /// What only a target has is drift.
    pub extras: bool,
    excluded: Filter,
    /// Equal on two agents that know the same options.
    rules: u128,
    /// Why copies cannot be compared.
    pub unfit: Option<&'static str>,
}

impl From<&SyncOptions> for Terms {
    fn from(options: &SyncOptions) -> Self {
        let transfer = &options.transfer;
        let keep = Keep {
            perms: transfer.perms && transfer.chmod.is_none(),
            owner: transfer.owner && transfer.chown.is_none(),
            group: transfer.group && transfer.chown.is_none(),
            times: transfer.times,
            dir_times: transfer.times,
            // Which links are safe only rsync knows.
            links: transfer.symlinks == Symlinks::Keep,
            devices: transfer.devices,
            specials: transfer.devices,
            xattrs: transfer.xattrs,
            acls: transfer.acls,
            system_xattrs: false,
        };
        let filters = Excludes::new(&options.filters);
        let ignored = Excludes::of(&options.ignore);
        let excluded =
            move |path: &[u8], is_dir| filters.cover(path, is_dir) || ignored.cover(path, is_dir);
        let ignore: String = options.ignore.iter().map(|pattern| format!("{pattern}\n")).collect();
        let text = format!("{}\0{ignore}\0{:x}", exclude::file(&options.filters), keep.bits());
        Self {
            keep,
            // With any other policy entries may stay that the source does not have any more.
            extras: options.delete == DeletePolicy::Always,
            excluded: Arc::new(excluded),
            rules: Key::new(&[0; 32]).text(text.as_bytes()),
            unfit: (transfer.symlinks == Symlinks::Follow)
                .then_some("links are followed, so copies are not like the source"),
        }
    }
}

impl Terms {
    /// Our side of a comparison. Only root can keep owners and devices.
    pub fn side(&self, root: &Path, is_root: bool) -> Side {
        let keep = Keep {
            owner: self.keep.owner && is_root,
            group: self.keep.group && is_root,
            devices: self.keep.devices && is_root,
            system_xattrs: self.keep.xattrs && is_root,
            ..self.keep
        };
        let excluded = self.excluded.clone();
        Side { root: root.to_owned(), keep, rules: self.rules, excluded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(change: impl FnOnce(&mut SyncOptions)) -> Terms {
        let mut options = SyncOptions::default();
        change(&mut options);
        Terms::from(&options)
    }

    #[test]
    fn only_what_is_carried_over_is_compared() {
        let plain = terms(|_| {});
        assert!(plain.extras && plain.unfit.is_none());
        assert_eq!(plain.keep, Keep::ARCHIVE);
        assert!(!terms(|o| o.delete = DeletePolicy::Running).extras);
        assert!(!terms(|o| o.transfer.symlinks = Symlinks::Safe).keep.links);
        assert!(terms(|o| o.transfer.symlinks = Symlinks::Follow).unfit.is_some());
        let side = plain.side(Path::new("/srv"), false);
        assert!(!side.keep.owner && !side.keep.devices && side.keep.perms);
    }

    #[test]
    fn both_sides_must_know_the_same_rules() {
        let plain = terms(|_| {});
        let delay = terms(|o| o.delay = lockstep_model::Millis(0));
        assert_eq!(plain.rules, delay.rules);
        let filtered = terms(|o| o.filters = vec!["- *.tmp".parse().unwrap()]);
        let ignoring = terms(|o| o.ignore = vec!["*.tmp".parse().unwrap()]);
        let acls = terms(|o| o.transfer.acls = true);
        let rules = [plain.rules, filtered.rules, ignoring.rules, acls.rules];
        assert!(rules.iter().enumerate().all(|(at, rule)| !rules[..at].contains(rule)));
        for terms in [filtered, ignoring] {
            assert!((terms.excluded)(b"a/x.tmp", false) && !(terms.excluded)(b"a/x", false));
        }
    }
}
