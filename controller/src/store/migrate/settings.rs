//! Schema 2: the options of a sync are named settings, its targets have names of their own, and a
//! target is told the options too.

use lockstep_model::{Invalid, Millis};
use lockstep_proto::store_v1 as wire;
use wire::record::Kind;
use wire::task::Spec;

use super::Raw;

pub fn run(raw: &mut Raw) -> Result<(), Invalid> {
    for (_, record) in raw.values_mut() {
        match &mut record.kind {
            Some(Kind::Sync(sync)) => {
                let places = std::mem::take(&mut sync.targets).into_iter();
                sync.named.extend(places.map(|wire::Place { node, path }| wire::Target {
                    node,
                    at: path,
                    bwlimit: 0,
                }));
                options(&mut sync.options)?;
            }
            Some(Kind::Task(task)) => match &mut task.spec {
                Some(Spec::SyncSource(source)) => {
                    let peers = std::mem::take(&mut source.targets).into_iter();
                    source.receivers.extend(peers.map(|peer| wire::Receiver {
                        node: peer.node.clone(),
                        route: Some(wire::receiver::Route::Agent(peer)),
                        bwlimit: 0,
                        is_relay: false,
                    }));
                    options(&mut source.options)?;
                }
                Some(Spec::SyncTarget(target)) => {
                    target.options.get_or_insert_default();
                }
                _ => {}
            },
            _ => {}
        }
    }
    Ok(())
}

fn options(options: &mut Option<wire::SyncOptions>) -> Result<(), Invalid> {
    let Some(options) = options else { return Ok(()) };
    let delete = match wire::DeletePolicy::try_from(options.delete) {
        Ok(wire::DeletePolicy::Always) => "always",
        Ok(wire::DeletePolicy::Never) => "never",
        Ok(wire::DeletePolicy::Startup) => "startup",
        Ok(wire::DeletePolicy::Running) => "running",
        Ok(wire::DeletePolicy::Unspecified) | Err(_) => {
            return Err(Invalid::new("delete", "is missing or unknown to this version"));
        }
    };
    let setting = |name: &str, value: String| wire::Setting { name: name.to_owned(), value };
    let mut settings = vec![
        setting("delete", delete.to_owned()),
        setting("delay", Millis(options.delay_ms).exact()),
    ];
    let excludes = std::mem::take(&mut options.excludes).into_iter();
    settings.extend(excludes.map(|pattern| setting("filter", format!("- {pattern}"))));
    *options = wire::SyncOptions { settings, ..wire::SyncOptions::default() };
    Ok(())
}
