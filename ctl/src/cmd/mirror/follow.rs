//! A run while it goes on: a bar per node on a terminal, a line for each change elsewhere, and how it
//! ended as the exit code.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lockstep_proto::v1;
use serde::Serialize;

use super::{progress, runs};
use crate::client::Client;
use crate::error::Failure;
use crate::render;

/// Pause before a broken stream is asked for again, and how often in a row.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_MAX: u32 = 60;

/// A run that was waited for, as `-o json` prints it.
#[derive(Serialize)]
struct Ended {
    run: String,
    ok: bool,
    parts: Vec<v1::Run>,
    /// Replicas that are behind, and away or without their directory.
    waiting: Vec<String>,
}

/// `mirror sync --wait`: ends with the run, its cascade included.
pub async fn to_the_end(client: &Client, run: &str) -> Result<(), Failure> {
    render::note(&format!("run {run}"));
    let mut view = View::new();
    let watched = watch(client, run, |now| {
        view.show(now);
        false
    });
    let last = or_interrupted(run, watched).await;
    view.end();
    let v1::WatchRunResponse { parts, waiting, done: _, ok } = last?;
    let ended = Ended { run: run.to_owned(), ok, parts, waiting };
    render::show(client.format, &ended, || runs::table(&ended.parts))?;
    verdict(run, ok, &ended.parts, &ended.waiting)
}

/// What a run printed on a node, its head's when `node` is empty; with `follow` until it ends.
pub async fn logs(client: &Client, run: &str, node: &str, follow: bool) -> Result<(), Failure> {
    if !follow {
        return tail(client, run, node, false, &View::Silent).await;
    }
    let view = View::new();
    let mut bars = view.clone();
    let is_meant = |part: &v1::Run| node.is_empty() || part.node == node;
    let watched = watch(client, run, |now| {
        bars.show(now);
        now.parts.iter().any(|part| part.node == node && part.ended_at.is_some())
    });
    let both = async {
        let (last, read) = tokio::join!(watched, tail(client, run, node, true, &view));
        let last = last?;
        match read {
            // The outcome still tells.
            Err(failure) if !failure.is_refused() => render::note(&format!("output: {failure}")),
            Err(failure) => return Err(failure),
            Ok(()) => {}
        }
        Ok(last)
    };
    let last = or_interrupted(run, both).await;
    view.end();
    let v1::WatchRunResponse { mut parts, waiting, done, ok } = last?;
    parts.retain(is_meant);
    match node.is_empty() {
        true => verdict(run, ok, &parts, &waiting),
        false if parts.is_empty() && done => {
            Err(Failure::failed(format!("run {run} has no part on {node}")))
        }
        false => verdict(run, parts.iter().all(runs::is_ok), &parts, &[]),
    }
}

async fn tail(
    client: &Client,
    run: &str,
    node: &str,
    follow: bool,
    view: &View,
) -> Result<(), Failure> {
    let request = v1::TailRunRequest { run: run.to_owned(), node: node.to_owned(), follow };
    let mut lines = client.mirrors().tail_run(request).await?.into_inner();
    while let Some(message) = lines.message().await? {
        let show = || render::show_next(client.format, &message, || message.lines.join("\n"));
        view.above(show)?;
    }
    Ok(())
}

/// What is told of a run when it ends, or when `each` has seen enough. A controller that restarts meanwhile is asked again.
async fn watch(
    client: &Client,
    run: &str,
    mut each: impl FnMut(&v1::WatchRunResponse) -> bool,
) -> Result<v1::WatchRunResponse, Failure> {
    let mut again = 0;
    loop {
        let request = v1::WatchRunRequest { run: run.to_owned(), follow: true };
        let broken = match client.mirrors().watch_run(request).await {
            Err(status) => Failure::from(status),
            Ok(answer) => {
                let mut answers = answer.into_inner();
                loop {
                    match answers.message().await {
                        Ok(Some(now)) => {
                            again = 0;
                            if each(&now) || now.done {
                                return Ok(now);
                            }
                        }
                        Ok(None) => break Failure::unreachable("the controller ended the stream"),
                        // Whatever broke it, the next call tells what is so.
                        Err(status) => {
                            let broken = Failure::from(status);
                            if broken.is_refused() || broken.is_denied() {
                                return Err(broken);
                            }
                            break Failure::unreachable(broken.to_string());
                        }
                    }
                }
            }
        };
        if !broken.is_unreachable() || again == AGAIN_MAX {
            return Err(broken);
        }
        if again == 0 {
            render::note(&format!("{broken}; the run goes on, asking again"));
        }
        again += 1;
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Ctrl-C ends the watching and not the run.
async fn or_interrupted<T>(
    run: &str,
    followed: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = followed => done,
        pressed = tokio::signal::ctrl_c() => {
            pressed?;
            Err(Failure::interrupted(format!(
                "run {run} goes on: lockstepctl mirror logs {run} -f watches it again"
            )))
        }
    }
}

fn verdict(run: &str, ok: bool, parts: &[v1::Run], waiting: &[String]) -> Result<(), Failure> {
    if !waiting.is_empty() {
        let mirror = run.split('/').next().unwrap_or(run);
        render::note(&format!(
            "not there yet, and will pull when they can, as lockstepctl mirror show {mirror} tells: {}",
            waiting.join(", ")
        ));
    }
    if ok {
        return Ok(());
    }
    let failed = parts.iter().filter(|part| part.ended_at.is_some() && !runs::is_ok(part));
    let failed: Vec<String> =
        failed.map(|part| format!("{}: {}", part.node, part.message)).collect();
    match failed.is_empty() {
        true => Err(Failure::failed(format!("run {run} did not reach {}", waiting.join(", ")))),
        false => Err(Failure::failed(format!("run {run} failed on {}", failed.join("; ")))),
    }
}

/// Both write to stderr.
#[derive(Clone)]
enum View {
    Bars {
        all: MultiProgress,
        nodes: HashMap<String, ProgressBar>,
    },
    /// What was last said of each node.
    Lines {
        said: HashMap<String, String>,
    },
    Silent,
}

impl View {
    fn new() -> Self {
        match std::io::stderr().is_terminal() {
            true => Self::Bars { all: MultiProgress::new(), nodes: HashMap::new() },
            false => Self::Lines { said: HashMap::new() },
        }
    }

    fn show(&mut self, now: &v1::WatchRunResponse) {
        match self {
            Self::Bars { all, nodes } => {
                for part in &now.parts {
                    let bar = nodes.entry(part.node.clone()).or_insert_with(|| all.add(bar(part)));
                    draw(bar, part);
                }
            }
            Self::Lines { said } => {
                for part in &now.parts {
                    let line = line(part);
                    if said.get(&part.node) != Some(&line) {
                        render::note(&format!("{} {line}", part.node));
                        said.insert(part.node.clone(), line);
                    }
                }
            }
            Self::Silent => {}
        }
    }

    /// Prints while no bar stands in the way.
    fn above<T>(&self, print: impl FnOnce() -> T) -> T {
        match self {
            Self::Bars { all, .. } => all.suspend(print),
            Self::Lines { .. } | Self::Silent => print(),
        }
    }

    fn end(&self) {
        if let Self::Bars { nodes, .. } = self {
            nodes.values().for_each(ProgressBar::abandon);
        }
    }
}

fn bar(part: &v1::Run) -> ProgressBar {
    let bar = ProgressBar::new(100).with_prefix(part.node.clone());
    match ProgressStyle::with_template("{prefix:16} [{bar:24}] {msg}") {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

fn draw(bar: &ProgressBar, part: &v1::Run) {
    if part.ended_at.is_some() {
        bar.set_position(if runs::is_ok(part) { 100 } else { bar.position() });
        return bar.set_message(ending(part));
    }
    let Some(pull) = &part.progress else { return bar.set_message(runs::state(part)) };
    bar.set_position(u64::from(pull.percent.unwrap_or(0)));
    bar.set_message(format!("{}, {}", progress::phase(pull), progress::figures(pull)));
}

/// Changes with phases and every tenth of the way.
fn line(part: &v1::Run) -> String {
    if part.ended_at.is_some() {
        return ending(part);
    }
    let Some(mut pull) = part.progress else { return runs::state(part) };
    pull.percent = pull.percent.map(|percent| percent / 10 * 10);
    progress::phase(&pull)
}

fn ending(part: &v1::Run) -> String {
    let state = runs::state(part);
    let took = runs::took(part);
    match (&part.pulled, part.message.as_str()) {
        (Some(pulled), "") => {
            let received = render::bytes(pulled.received_bytes);
            format!("{state} after {took}: {} files, {received}", pulled.files)
        }
        (None, "") => format!("{state} after {took}"),
        (_, message) => format!("{state} after {took}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<pbjson_types::Timestamp> {
        Some(pbjson_types::Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn lines_change_with_phases_and_tenths_and_tell_the_end() {
        let mut pull = v1::PullProgress { percent: Some(41), ..Default::default() };
        pull.set_phase(v1::PullPhase::Content);
        let mut part = v1::Run { started_at: at(10), progress: Some(pull), ..Default::default() };
        assert_eq!(line(&part), "content 40%");
        part.progress = None;
        assert_eq!(line(&part), "under way");
        part.ended_at = at(75);
        part.set_outcome(v1::OutcomeKind::Ok);
        part.pulled = Some(v1::Pulled { files: 3, received_bytes: 2048, ..Default::default() });
        assert_eq!(line(&part), "ok after 1m5s: 3 files, 2.00 KiB");
        part.set_outcome(v1::OutcomeKind::Failed);
        part.message = "wrong password".to_owned();
        assert_eq!(line(&part), "failed after 1m5s: wrong password");
        let failure = verdict("fedora/3", false, &[part], &[]).unwrap_err();
        assert_eq!(failure.to_string(), "run fedora/3 failed on : wrong password");
    }
}
