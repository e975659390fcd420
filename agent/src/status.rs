//! `lockstep-agent status`: what the disk says of this node. It asks nobody and changes nothing.

use std::fmt::Write;
use std::path::Path;

use lockstep_model::task::TaskSpec;
use lockstep_model::{HostPort, Timestamp};
use lockstep_transport::identity::{IdentityError, disk};

use crate::identity;
use crate::ledger::{Entry, Ledger, LedgerError, Memory, State};
use crate::link::{self, Controllers};

#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// For people, several lines. `controllers` are those of the settings, if these can be read.
pub fn describe(
    data_dir: &Path,
    controllers: &[HostPort],
    now: Timestamp,
) -> Result<String, StatusError> {
    let identity = disk::load(&data_dir.join(identity::DIR))?;
    let mut text = String::new();
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{key:<12} {value}");
    };
    line("identity", &identity.spiffe);
    line("key", &identity.key_hash);
    let expired = if now > identity.not_after { " (expired)" } else { "" };
    line("certificate", &format_args!("until {}{expired}", identity.not_after));
    line("renewal", &identity.renew_at());
    if let Ok(why) = std::fs::read_to_string(data_dir.join(link::expulsion::FILE)) {
        line("expelled", &why);
    }
    let list = Controllers::open(data_dir.join(link::CONTROLLERS), controllers.to_vec()).list();
    line("controllers", &list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    let (memory, _) = Memory::open(data_dir.join("told"));
    let told = memory.told();
    line("last told", &format_args!("revision {} of store {}", told.revision, told.incarnation));
    let ledger = data_dir.join("ledger");
    if !ledger.exists() {
        return Ok(text);
    }
    let (ledger, damages) = Ledger::open(&ledger)?;
    for damage in damages {
        line("warning", &damage);
    }
    for entry in ledger.entries() {
        line("task", &format_args!("{} {} {}", entry.slot(), entry.task.id, describe_task(entry)));
    }
    for spec in ledger.in_force() {
        line("in force", &describe_spec(spec));
    }
    Ok(text)
}

fn describe_task(entry: &Entry) -> String {
    let kind = entry.task.spec.kind();
    match &entry.state {
        State::Live(phase) => format!("{kind} {}", format!("{phase:?}").to_lowercase()),
        State::Ended { outcome, acked } => {
            let told = if *acked { "" } else { ", not acknowledged yet" };
            let why = if outcome.message.is_empty() {
                String::new()
            } else {
                format!(": {}", outcome.message)
            };
            format!("{kind} {}{told}{why}", outcome.kind)
        }
    }
}

fn describe_spec(spec: &TaskSpec) -> String {
    match spec {
        TaskSpec::SyncSource(source) => {
            let targets: Vec<_> = source.receivers.iter().map(|to| to.node.as_str()).collect();
            format!("{}: source at {}, to {}", source.sync, source.path, targets.join(", "))
        }
        TaskSpec::SyncTarget(target) => {
            let from = target.source.as_ref().map_or("nobody", |peer| peer.node.as_str());
            let drained = if target.serve { "" } else { ", drained" };
            format!("{}: target at {}, from {from}{drained}", target.sync, target.path)
        }
        TaskSpec::MirrorPlace(place) => {
            let drained = if place.serve { "" } else { ", drained" };
            let readers = place.readers.len();
            format!(
                "mirror {}: {} at {}, {readers} readers{drained}",
                place.mirror, place.hop, place.tree
            )
        }
        TaskSpec::ClusterPlace(place) => {
            format!("cluster {}: {}, term {}", place.cluster, place.goal.as_str(), place.term)
        }
        TaskSpec::SyncRelease { .. }
        | TaskSpec::ClusterRelease(_)
        | TaskSpec::ClusterAct(_)
        | TaskSpec::SyncResync { .. }
        | TaskSpec::SyncVerify(_)
        | TaskSpec::SyncUnhold { .. }
        | TaskSpec::SyncBarrier(_)
        | TaskSpec::MirrorRelease(_)
        | TaskSpec::MirrorPull(_)
        | TaskSpec::MirrorHooks(_) => spec.slot().to_string(),
    }
}
