//! `sync diff` and `sync verify`: comparisons that agents carry out, and what they found.

use std::os::unix::ffi::OsStringExt;
use std::pin::pin;
use std::time::Duration;

use lockstep_proto::v1;
use lockstep_proto::v1::run_sync_request::Run as What;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{run, task};
use crate::args::Wait;
use crate::args::sync::Compare;
use crate::client::Client;
use crate::error::Failure;
use crate::{render, wait};

/// One difference, as `-o json` prints it: a line each.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    target: String,
    /// missing, extra, differs or unreadable.
    kind: String,
    /// In which way it differs: mode, size, content and the like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<String>,
    /// Below the sync's directory; unusual bytes are escaped, as `\xff`.
    path: String,
}

/// Finds out, and changes nothing. Given up, it leaves nothing behind.
pub async fn diff(
    client: &Client,
    compare: Compare,
    limit: Option<Duration>,
) -> Result<(), Failure> {
    let mut late = pin!(wait::late(limit, "not compared"));
    let begun = tokio::select! {
        late = &mut late => return Err(late),
        begun = start(client, &compare, false) => begun?,
    };
    if compare.run.change.dry_run {
        return Ok(());
    }
    let followed = follow(client, &begun.tasks, late).await?;
    if followed.differ.is_empty() {
        return Ok(());
    }
    Err(Failure::differs(format!("not equal: {}", followed.differ.join(", "))))
}

pub async fn verify(client: &Client, compare: Compare, wait: Wait) -> Result<(), Failure> {
    let begun = start(client, &compare, true).await?;
    if !wait.wait || compare.run.change.dry_run {
        return render::show(client.format, &begun, || task::table(&begun.tasks));
    }
    // What it has to repair is of use without anybody who waits.
    follow(client, &begun.tasks, std::future::pending()).await.map(|_| ())
}

async fn start(
    client: &Client,
    compare: &Compare,
    repair: bool,
) -> Result<v1::RunSyncResponse, Failure> {
    let Compare { run, path, content } = compare;
    let paths = path.iter().map(|path| path.clone().into_vec()).collect();
    let verify = v1::VerifyRun { content: *content, repair, paths };
    run::start(client, run, What::Verify(verify)).await
}

/// What comparisons found, when all of them, and their repairs, could be carried out.
struct Followed {
    /// Targets that were not equal to the source.
    differ: Vec<String>,
}

/// To their end, or until Ctrl-C or `late` ends them.
async fn follow(
    client: &Client,
    tasks: &[v1::Task],
    late: impl Future<Output = Failure>,
) -> Result<Followed, Failure> {
    let ids: Vec<&str> = tasks.iter().map(|task| task.id.as_str()).collect();
    task::cancelled_with(client, &ids, late, read(client, tasks)).await
}

async fn read(client: &Client, tasks: &[v1::Task]) -> Result<Followed, Failure> {
    const WAITING_MAX: usize = 256;
    let target = |task: &v1::Task| task.slot.rsplit('/').next().unwrap_or_default().to_owned();
    let width = tasks.iter().map(|task| target(task).len()).max().unwrap_or(0);
    let (found, mut findings) = mpsc::channel(WAITING_MAX);
    for task in tasks {
        let (tasks, id, target, found) =
            (client.tasks(), task.id.clone(), target(task), found.clone());
        tokio::spawn(async move {
            let (lines, mut from_lines) = mpsc::unbounded_channel();
            let read = async move {
                task::lines(tasks, &id, move |line| {
                    let _ = lines.send(line);
                })
                .await;
            };
            let pass_on = async {
                while let Some(line) = from_lines.recv().await {
                    if found.send((target.clone(), line)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::join!(read, pass_on);
        });
    }
    drop(found);
    let mut differ: Vec<String> = Vec::new();
    while let Some((target, line)) = findings.recv().await {
        let Some(finding) = finding(&target, &line) else {
            tracing::info!(target, "{line}");
            continue;
        };
        render::show_next(client.format, &finding, || text(&finding, width))?;
        if !differ.contains(&target) {
            differ.push(target);
        }
    }
    let mut failed = Vec::new();
    for begun in tasks {
        let ended = task::outcome(client, &begun.id).await?;
        let message = ended.outcome.clone().unwrap_or_default().message;
        let target = target(begun);
        if !task::is_ok(&ended) {
            failed.push(format!("{target}: {}: {message}", task::state(&ended)));
            continue;
        }
        render::note(&format!("{target}: {message}"));
        // Lines may be lost, the sum is not.
        if !message.starts_with("equal") && !differ.contains(&target) {
            differ.push(target);
        }
    }
    match failed.is_empty() {
        true => Ok(Followed { differ }),
        false => Err(Failure::failed(failed.join("; "))),
    }
}

/// `missing PATH`, `differs(mode,size) PATH`; None for a line that tells of progress.
fn finding(target: &str, line: &str) -> Option<Finding> {
    let (word, path) = line.split_once(' ')?;
    let (kind, attributes) = match word.split_once('(') {
        Some((kind, rest)) => (kind, rest.strip_suffix(')')?),
        None => (word, ""),
    };
    if !matches!(kind, "missing" | "extra" | "differs" | "unreadable") {
        return None;
    }
    let attributes = attributes.split([',', ' ']).filter(|a| !a.is_empty()).map(str::to_owned);
    Some(Finding {
        target: target.to_owned(),
        kind: kind.to_owned(),
        attributes: attributes.collect(),
        path: path.to_owned(),
    })
}

fn text(finding: &Finding, width: usize) -> String {
    let Finding { target, kind, attributes, path } = finding;
    let ways = if attributes.is_empty() { "" } else { &format!("  ({})", attributes.join(", ")) };
    format!("{target:width$}  {kind:10}  {path}{ways}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_agents_are_findings_or_progress() {
        let found = |line| finding("web1", line).map(|f| text(&f, 5));
        assert_eq!(found("missing a b").unwrap(), "web1   missing     a b");
        assert_eq!(
            found("differs(mode,content) x\\xff").unwrap(),
            "web1   differs     x\\xff  (mode, content)"
        );
        assert_eq!(found("extra .").unwrap(), "web1   extra       .");
        for progress in ["compared 7 entries, 0 bytes", "", "missing", "3 lines were lost"] {
            assert_eq!(found(progress), None, "{progress}");
        }
    }
}
