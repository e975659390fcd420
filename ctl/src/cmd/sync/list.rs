//! `sync export` and `sync import`: the named targets as a file.

use std::path::Path;

use lockstep_model::SyncName;
use lockstep_model::path::DirPath;
use lockstep_model::sync::{Comment, Target};
use lockstep_proto::v1;

use super::{Until, filters, get, settled, targets};
use crate::args::sync::Transport;
use crate::args::{Change, Wait};
use crate::client::Client;
use crate::error::Failure;
use crate::list::{LIST_BYTES_MAX, Line, Problem, read, write};
use crate::render;
use crate::target::{Known, Wanted};

pub fn export(sync: &v1::Sync) -> Result<(), Failure> {
    let named = sync.targets.iter().filter(|target| !target.selected);
    let named = named.filter_map(|target| target.target.clone());
    let targets: Vec<Target> = named.map(Target::try_from).collect::<Result<_, _>>()?;
    let comments = sync.comments.iter().cloned();
    let comments: Vec<Comment> = comments.map(Comment::try_from).collect::<Result<_, _>>()?;
    render::raw(write(&targets, &comments).as_bytes())
}

pub async fn import(
    client: &Client,
    name: &SyncName,
    file: &Path,
    dest: Option<DirPath>,
    wait: &Wait,
    change: &Change,
) -> Result<(), Failure> {
    let text = filters::text_of(file, LIST_BYTES_MAX)?;
    let wrong = |problem: Problem| Failure::usage(problem.to_string()).within(file.display());
    let lines = read(&text).map_err(wrong)?;
    let sync = get(client, name.as_str()).await?;
    let path = dest.map_or_else(|| targets::default_path(&sync), Ok)?;
    let wanted: Vec<Wanted> = lines.iter().filter_map(wanted).collect();
    let known = targets::known_for(client, &wanted).await?;
    let (targets, comments) = meaning(lines, &path, &known).map_err(wrong)?;
    let request = v1::SetTargetsRequest {
        mutation: change.mutation()?,
        sync: name.to_string(),
        targets: targets.into_iter().map(Target::into).collect(),
        comments: comments.into_iter().map(Comment::into).collect(),
    };
    let answer = client.syncs().set_targets(request).await?.into_inner();
    settled(client, change, wait, Until::Filled, answer.result, answer.sync).await
}

fn wanted(line: &Line) -> Option<Wanted> {
    match line {
        Line::Target(entry) => Some(entry.wanted.clone()),
        Line::Comment(_) => None,
    }
}

/// The same target twice is one; a comment belongs to the target that stands behind it.
fn meaning(
    lines: Vec<Line>,
    path: &DirPath,
    known: &Known,
) -> Result<(Vec<Target>, Vec<Comment>), Problem> {
    let mut targets: Vec<(usize, Target)> = Vec::new();
    let mut comments = Vec::new();
    let mut waiting = Vec::new();
    for line in lines {
        let entry = match line {
            Line::Comment(text) => {
                waiting.push(text);
                continue;
            }
            Line::Target(entry) => entry,
        };
        let wrong = |what: String| Problem { at: entry.at, what };
        let target = entry.wanted.target(path, Transport::Mtls, known);
        let target = target.map_err(|problem| wrong(problem.problem))?;
        let target = Target { bwlimit: entry.bwlimit, ..target };
        let before = Some(target.node.clone());
        comments.extend(waiting.drain(..).map(|text| Comment { before: before.clone(), text }));
        match targets.iter().find(|(_, there)| there.node == target.node) {
            None => targets.push((entry.at.line, target)),
            Some((_, there)) if *there == target => {}
            Some((line, there)) => {
                return Err(wrong(format!("{target} differs from {there} in line {line}")));
            }
        }
    }
    comments.extend(waiting.into_iter().map(|text| Comment { before: None, text }));
    Ok((targets.into_iter().map(|(_, target)| target).collect(), comments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(text: &str) -> Result<String, String> {
        let known = vec![("web1".parse().unwrap(), vec!["10.0.0.1".to_owned()])];
        let lines = read(text).map_err(|problem| problem.to_string())?;
        let (targets, comments) = meaning(lines, &"/srv/www".parse().unwrap(), &known)
            .map_err(|problem| problem.to_string())?;
        Ok(write(&targets, &comments))
    }

    #[test]
    fn an_old_list_is_a_new_one_after_its_import() {
        let old = "# heads\n10.0.0.1\n\nweb2 # rack 2\nweb2\n# end\n";
        let new = "# heads\nweb1:/srv/www\n\n# rack 2\nweb2:/srv/www\n# end\n";
        assert_eq!(import(old).unwrap(), new);
        assert_eq!(import(new).unwrap(), new);
    }

    #[test]
    fn what_the_list_contradicts_is_told_with_its_place() {
        for (text, says) in [
            (
                "web1\n 10.0.0.1:/x",
                "line 2, column 2: web1:/x differs from web1:/srv/www in line 1",
            ),
            ("web2\n10.0.0.9", "line 2, column 1: no node is called or reached as 10.0.0.9"),
            ("web2\nroot@web1", "line 2, column 1: a user is for targets without an agent"),
        ] {
            let problem = import(text).unwrap_err();
            assert!(problem.starts_with(says), "{problem}");
        }
    }
}
