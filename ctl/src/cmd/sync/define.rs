//! `sync create` and `sync update`: definitions from what was typed.

use lockstep_model::SyncName;
use lockstep_model::path::DirPath;
use lockstep_model::setting::{Settings, Value};
use lockstep_model::sync::{Place, SyncOptions, Target};
use lockstep_proto::v1;

use super::{Until, filters, get, settled, targets};
use crate::args::Change;
use crate::args::sync::{Create, Update};
use crate::client::Client;
use crate::error::Failure;
use crate::render;
use crate::target::Wanted;

pub async fn create(client: &Client, create: Create) -> Result<(), Failure> {
    let Create {
        name,
        source,
        target,
        target_selector,
        dest,
        transport,
        paused,
        wait,
        change,
        settings,
    } = create;
    let values = filters::values(settings)?;
    let pairs = values.iter().map(|value| (value.name.as_str(), value.text.as_str()));
    let options = SyncOptions::from_values(pairs)?;
    let sources = named(&name, source, &target, dest.as_ref())?;
    if dest.is_some() && target_selector.is_none() && target.iter().all(Wanted::has_path) {
        return Err(Failure::usage("--dest is for targets without a path, and there is none"));
    }
    let mut requests = Vec::new();
    for (index, (name, source)) in sources.iter().enumerate() {
        let path = dest.as_ref().unwrap_or(&source.path);
        let targets = targets::resolve(client, &target, path, transport).await?;
        requests.push(v1::CreateSyncRequest {
            mutation: one_of(&change, index, sources.len()).mutation()?,
            name: name.to_string(),
            source: Some(source.clone().into()),
            targets: targets.into_iter().map(Target::into).collect(),
            options: Some(options.clone().into()),
            selected: target_selector.as_ref().map(|selector| v1::Selected {
                selector: selector.to_string(),
                path: path.to_string(),
            }),
            paused,
        });
    }
    if requests.len() > 1 && !change.dry_run {
        // So that what the controller refuses is refused before the first one is there.
        let checked = Change { dry_run: true, ..Change::default() };
        for request in &requests {
            let mut request = request.clone();
            request.mutation = checked.mutation()?;
            client.syncs().create_sync(request).await?;
        }
    }
    for request in requests {
        let name = request.name.clone();
        if sources.len() > 1 {
            render::note(&format!("sync {name}:"));
        }
        let answer = client.syncs().create_sync(request).await;
        let answer = answer.map_err(|status| within(&name, sources.len(), status.into()))?;
        let v1::CreateSyncResponse { result, sync } = answer.into_inner();
        settled(client, &change, &wait, Until::Filled, result, sync).await?;
    }
    Ok(())
}

fn within(name: &str, syncs: usize, failure: Failure) -> Failure {
    if syncs == 1 { failure } else { failure.within(format_args!("sync {name}")) }
}

/// The same change once more, told apart from the first.
fn one_of(change: &Change, index: usize, of: usize) -> Change {
    let id = change.request_id.as_ref();
    let id = id.map(|id| if of == 1 { id.clone() } else { format!("{id}-{index}") });
    Change { dry_run: change.dry_run, if_revision: change.if_revision, request_id: id }
}

/// A sync per source. Several go each to the same path everywhere.
fn named(
    name: &SyncName,
    sources: Vec<Place>,
    targets: &[Wanted],
    dest: Option<&DirPath>,
) -> Result<Vec<(SyncName, Place)>, Failure> {
    if let [source] = sources.as_slice() {
        return Ok(vec![(name.clone(), source.clone())]);
    }
    if dest.is_some() || targets.iter().any(Wanted::has_path) {
        return Err(Failure::usage(
            "several --source go each to its own path: leave --dest and the targets' paths out",
        ));
    }
    let mut named: Vec<(SyncName, Place)> = Vec::new();
    for source in sources {
        let last = source.path.as_str().rsplit('/').next().unwrap_or_default();
        let full: SyncName = format!("{name}-{last}")
            .parse()
            .map_err(|e| Failure::usage(format!("--source {source}: {e}")))?;
        let clash = named.iter().find(|(there, place)| {
            *there == full || place.node == source.node && place.path.overlaps(&source.path)
        });
        if let Some((there, place)) = clash {
            return Err(Failure::usage(format!(
                "--source {source}: {place} is sync {there} already; create one of them by itself"
            )));
        }
        named.push((full, source));
    }
    Ok(named)
}

pub async fn update(client: &Client, update: Update) -> Result<(), Failure> {
    let Update { name, target_selector, dest, no_target_selector, wait, change, settings } = update;
    let values = filters::values(settings)?;
    let selected = match (target_selector, dest) {
        _ if no_target_selector => Some(v1::Selected::default()),
        (None, None) => None,
        (selector, dest) => {
            let sync = get(client, name.as_str()).await?;
            let there = sync.selected.clone().map(|selected| selected.selector);
            let selector = selector.map(|selector| selector.to_string()).or(there);
            let selector = selector.ok_or_else(|| {
                Failure::usage(
                    "--dest is for nodes that --target-selector selects, which is not given",
                )
            })?;
            let path = dest.map_or_else(|| targets::default_path(&sync), Ok)?.to_string();
            Some(v1::Selected { selector, path })
        }
    };
    if values.is_empty() && selected.is_none() {
        return Err(Failure::usage(
            "nothing to change was named: see lockstepctl sync update --help",
        ));
    }
    let request = v1::UpdateSyncRequest {
        mutation: change.mutation()?,
        sync: name.to_string(),
        settings: values.into_iter().map(Value::into).collect(),
        selected,
    };
    let answer = client.syncs().update_sync(request).await?.into_inner();
    settled(client, &change, &wait, Until::Applied, answer.result, answer.sync).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sources: &[&str], targets: &[&str]) -> Result<Vec<String>, String> {
        let sources = sources.iter().map(|text| text.parse().unwrap()).collect();
        let targets: Vec<Wanted> = targets.iter().map(|text| text.parse().unwrap()).collect();
        let named = named(&"web".parse().unwrap(), sources, &targets, None);
        let named = named.map_err(|failure| failure.to_string())?;
        Ok(named.iter().map(|(name, _)| name.to_string()).collect())
    }

    #[test]
    fn several_sources_are_several_syncs() {
        assert_eq!(names(&["m:/srv/www"], &["w:/x"]).unwrap(), ["web"]);
        let both = ["m:/srv/www", "m:/srv/docs"];
        assert_eq!(names(&both, &["w", "v"]).unwrap(), ["web-www", "web-docs"]);
        for (sources, targets, says) in [
            (&both, &["w:/x"], "targets' paths"),
            (&["m:/a/www", "m:/b/www"], &["w"], "is sync web-www already"),
            (&["m:/srv", "m:/srv/www"], &["w"], "is sync web-srv already"),
            (&["m:/srv", "m:/My Files"], &["w"], "sync name"),
        ] {
            let problem = names(sources, targets).unwrap_err();
            assert!(problem.contains(says), "{problem}");
        }
    }
}
