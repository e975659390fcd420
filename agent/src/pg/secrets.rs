//! Passwords of Lockstep's own roles on this node: they come with the offer of a place and stay in
//! files of the agent's own, so that a member works without the controller. They are in no ledger,
//! log or listing.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use lockstep_model::ClusterName;
use lockstep_transport::durable;
use zeroize::Zeroizing;

pub use super::instance::Secrets;

/// None: there are none yet. `dir`: the cluster's, of the agent's own.
pub fn load(dir: &Path) -> io::Result<Option<Secrets>> {
    let text = match durable::read_secret(&dir.join(FILE)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let mut lines = text.lines();
    let mut next = || Zeroizing::new(lines.next().unwrap_or_default().to_owned());
    Ok(Some(Secrets { superuser: next(), replication: next() }))
}

/// Durable when it returns.
pub fn save(dir: &Path, secrets: &Secrets) -> io::Result<()> {
    let text = Zeroizing::new(format!("{}\n{}\n", *secrets.superuser, *secrets.replication));
    durable::write_secret(&dir.join(FILE), text.as_bytes())
}

const FILE: &str = "secrets";

/// What offers brought, until the place that they came with takes them; clones are the same.
#[derive(Clone, Default)]
pub struct Passwords(Arc<Mutex<BTreeMap<ClusterName, Secrets>>>);

impl Passwords {
    /// In place of what was there.
    pub fn put(&self, cluster: &ClusterName, secrets: Secrets) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(cluster.clone(), secrets);
    }

    pub fn take(&self, cluster: &ClusterName) -> Option<Secrets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_written_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), None);
        let secrets = Secrets {
            superuser: Zeroizing::new("top".to_owned()),
            replication: Zeroizing::new("copy".to_owned()),
        };
        save(dir.path(), &secrets).unwrap();
        assert_eq!(load(dir.path()).unwrap(), Some(secrets.clone()));
        assert!(!format!("{secrets:?}").contains("top"));
    }
}
