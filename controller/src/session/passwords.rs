//! The passwords that go with a task when it is offered, read from the vault for that one message.
//! They are in no task, no log and no listing.

use lockstep_model::task::{PullFrom, Task, TaskSpec};
use lockstep_proto::v1;

use super::SessionConfig;
use crate::identity::vault::Purpose;

/// Adds to an offer what its task needs besides its record. False: it cannot be had, and the task is
/// nothing without it.
pub(super) fn add(config: &SessionConfig, task: &Task, offer: &mut v1::OfferTask) -> bool {
    let found = match &task.spec {
        TaskSpec::MirrorPull(pull) => match &pull.from {
            PullFrom::Remote(upstream) if pull.has_password => {
                let sealed = config.driver.read(|world| {
                    world.secrets().get(&pull.mirror).map(|secret| secret.value.sealed.clone())
                });
                let open = |sealed: Vec<u8>| open(config, &sealed, Purpose::Upstream(upstream));
                sealed.and_then(open).map(|password| offer.password = password)
            }
            _ => Some(()),
        },
        TaskSpec::ClusterPlace(place) => {
            let name = &place.cluster;
            let sealed = config
                .driver
                .read(|world| world.cluster_secrets().get(name).map(|secret| secret.value.clone()));
            sealed.and_then(|sealed| {
                let superuser = open(config, &sealed.superuser, Purpose::Superuser(name))?;
                let replication = open(config, &sealed.replication, Purpose::Replication(name))?;
                (offer.password, offer.replication_password) = (superuser, replication);
                Some(())
            })
        }
        _ => Some(()),
    };
    if found.is_none() {
        let (slot, key) = (task.slot(), config.vault.path().display());
        tracing::error!(%slot, task = %task.id, %key, "the password of a task cannot be read");
    }
    // A member keeps those that it was told before, and a failover must not wait for a file.
    found.is_some() || matches!(task.spec, TaskSpec::ClusterPlace(_))
}

fn open(config: &SessionConfig, sealed: &[u8], purpose: Purpose<'_>) -> Option<String> {
    config.vault.unseal(sealed, purpose).map(|password| password.to_string())
}
