//! `mirror create`, `update` and schedules: definitions from what was typed.

use std::io::IsTerminal;
use std::path::Path;

use lockstep_model::path::DirPath;
use lockstep_model::setting::Value;
use lockstep_proto::v1;

use super::{changed, get};
use crate::args::Change;
use crate::args::mirror::{Create, Replica, SettingArgs, Update};
use crate::args::schedule::ScheduleArgs;
use crate::client::Client;
use crate::cmd::{schedule, secret};
use crate::error::Failure;
use crate::wait;

pub async fn create(client: &Client, create: Create) -> Result<(), Failure> {
    let Create {
        name,
        upstream,
        master,
        dest,
        replica,
        replica_selector,
        replica_dest,
        password_file,
        owner,
        disabled,
        schedule,
        change,
        settings: SettingArgs(settings),
    } = create;
    if replica_dest.is_some() && replica_selector.is_none() && replica.iter().all(has_path) {
        let problem = "--replica-dest is for replicas without a path, and there is none";
        return Err(Failure::usage(problem));
    }
    let path = replica_dest.unwrap_or_else(|| dest.clone());
    let password = password_file.as_deref().map(upstream_password).transpose()?;
    preview(client, &schedule, &change).await?;
    let request = v1::CreateMirrorRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        upstream: upstream.map(|url| url.to_string()).unwrap_or_default(),
        password: password.unwrap_or_default(),
        master: master.to_string(),
        dest: dest.to_string(),
        replicas: replica.iter().map(|replica| place(replica, &path)).collect(),
        selected: replica_selector.map(|selector| v1::Selected {
            selector: selector.to_string(),
            path: path.to_string(),
        }),
        settings: settings.into_iter().map(Value::into).collect(),
        schedule: schedule.text().map(Into::into),
        disabled,
        owner: owner.map(|owner| owner.to_string()).unwrap_or_default(),
    };
    let answer = client.mirrors().create_mirror(request).await?.into_inner();
    changed(client, &change, answer.result, answer.mirror)
}

/// When `--schedule-preview` asks for it: how the schedule is understood, before it is kept. On a
/// terminal a person may still say no.
pub async fn preview(
    client: &Client,
    schedule: &ScheduleArgs,
    change: &Change,
) -> Result<(), Failure> {
    schedule::preview_first(client, schedule).await?;
    let asks = schedule.schedule_preview.is_some() && std::io::stdin().is_terminal();
    wait::confirm(!asks || change.dry_run, "This schedule will be kept.")
}

fn upstream_password(file: &Path) -> Result<String, Failure> {
    secret::password("--password-file", file)
}

fn has_path(replica: &Replica) -> bool {
    replica.path.is_some()
}

fn place(replica: &Replica, path: &DirPath) -> v1::Place {
    let path = replica.path.as_ref().unwrap_or(path);
    v1::Place { node: replica.node.to_string(), path: path.to_string() }
}

pub async fn update(client: &Client, update: Update) -> Result<(), Failure> {
    let Update {
        name,
        upstream,
        no_upstream,
        master,
        dest,
        replica,
        add_replica,
        remove_replica,
        replica_selector,
        no_replica_selector,
        replica_dest,
        password_file,
        no_password,
        owner,
        no_owner,
        change,
        settings: SettingArgs(settings),
    } = update;
    let edits = Edits { replica, add_replica, remove_replica };
    let takes_path = replica_selector.is_some() || edits.any_without_path();
    let mut change = change;
    let places = match edits.is_empty() && replica_selector.is_none() && replica_dest.is_none() {
        true => Places::default(),
        false => {
            let there = get(client, name.as_str()).await?;
            let old = there.selected.clone().filter(|_| !no_replica_selector);
            if replica_dest.is_some() && !takes_path && old.is_none() {
                return Err(Failure::usage(
                    "--replica-dest is for replicas that are named or selected without a path, and \
                     there is none",
                ));
            }
            // What is added to or taken away is what was read.
            change.if_revision = change.if_revision.or(Some(there.revision));
            let path = default_path(&there, dest.as_ref(), replica_dest.as_ref())?;
            let selector = replica_selector.map(|selector| selector.to_string());
            let moved = replica_dest.is_some().then(|| old.map(|old| old.selector)).flatten();
            let selector = selector.or(moved);
            Places {
                replicas: (!edits.is_empty()).then(|| edits.apply(&there.replicas, &path)),
                selected: selector
                    .map(|selector| v1::Selected { selector, path: path.to_string() }),
            }
        }
    };
    let selected = match no_replica_selector {
        true => Some(v1::Selected::default()),
        false => places.selected,
    };
    let password = match no_password {
        true => Some(String::new()),
        false => password_file.as_deref().map(upstream_password).transpose()?,
    };
    let upstream = upstream.map(|url| url.to_string());
    let owner = owner.map(|owner| owner.to_string());
    let request = v1::UpdateMirrorRequest {
        mutation: change.mutation()?,
        name: name.to_string(),
        settings: settings.into_iter().map(Value::into).collect(),
        upstream: if no_upstream { Some(String::new()) } else { upstream },
        password,
        master: master.map(|node| node.to_string()),
        dest: dest.map(|dest| dest.to_string()),
        replicas: places.replicas.map(|places| v1::PlaceList { places }),
        selected,
        owner: if no_owner { Some(String::new()) } else { owner },
    };
    let nothing = v1::UpdateMirrorRequest {
        mutation: request.mutation.clone(),
        name: request.name.clone(),
        ..Default::default()
    };
    if request == nothing {
        return Err(Failure::usage(
            "nothing to change was named: see lockstepctl mirror update --help",
        ));
    }
    let answer = client.mirrors().update_mirror(request).await?.into_inner();
    changed(client, &change, answer.result, answer.mirror)
}

#[derive(Default)]
struct Places {
    replicas: Option<Vec<v1::Place>>,
    selected: Option<v1::Selected>,
}

/// What is to become of the replicas that are named.
struct Edits {
    replica: Vec<Replica>,
    add_replica: Vec<Replica>,
    remove_replica: Vec<lockstep_model::NodeName>,
}

impl Edits {
    fn is_empty(&self) -> bool {
        self.replica.is_empty() && self.add_replica.is_empty() && self.remove_replica.is_empty()
    }

    fn any_without_path(&self) -> bool {
        self.replica.iter().chain(&self.add_replica).any(|replica| !has_path(replica))
    }

    fn apply(&self, there: &[v1::Place], path: &DirPath) -> Vec<v1::Place> {
        if !self.replica.is_empty() {
            return self.replica.iter().map(|replica| place(replica, path)).collect();
        }
        let is_kept = |old: &&v1::Place| {
            !self.remove_replica.iter().any(|node| node.as_str() == old.node)
                && !self.add_replica.iter().any(|new| new.node.as_str() == old.node)
        };
        let kept = there.iter().filter(is_kept).cloned();
        kept.chain(self.add_replica.iter().map(|replica| place(replica, path))).collect()
    }
}

/// Where a replica's tree is that is given without a directory: where the selected ones' are, or the
/// master's.
fn default_path(
    there: &v1::Mirror,
    dest: Option<&DirPath>,
    replica_dest: Option<&DirPath>,
) -> Result<DirPath, Failure> {
    if let Some(path) = replica_dest {
        return Ok(path.clone());
    }
    let selected = there.selected.as_ref().map(|selected| selected.path.parse());
    match (selected, dest) {
        (Some(path), _) => Ok(path?),
        (None, Some(path)) => Ok(path.clone()),
        (None, None) => Ok(there.dest.parse()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_added_and_removed_one_by_one() {
        let replicas = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let there = [("ftp1", "/a"), ("ftp2", "/b")];
        let there = there.map(|(n, p)| v1::Place { node: n.to_owned(), path: p.to_owned() });
        let apply = |replica: &[&str], add: &[&str], remove: &[&str]| {
            let edits = Edits {
                replica: replicas(replica),
                add_replica: replicas(add),
                remove_replica: remove.iter().map(|name| name.parse().unwrap()).collect(),
            };
            let places = edits.apply(&there, &"/d".parse().unwrap());
            places.iter().map(|p| format!("{}:{}", p.node, p.path)).collect::<Vec<_>>()
        };
        assert_eq!(apply(&["ftp9"], &[], &[]), ["ftp9:/d"]);
        assert_eq!(apply(&[], &["ftp3:/x"], &["ftp1"]), ["ftp2:/b", "ftp3:/x"]);
        assert_eq!(apply(&[], &["ftp2"], &[]), ["ftp1:/a", "ftp2:/d"]);
    }
}
