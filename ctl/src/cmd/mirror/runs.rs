//! Runs as people read them: a row per node's part.

use lockstep_model::Millis;
use lockstep_proto::convert::from_wire_time;
use lockstep_proto::v1;

use super::progress;
use crate::render;

/// Runs in the order in which they began; the parts of each stay together, its head first.
pub fn newest_last(runs: &mut [v1::Run]) {
    let mut first = Vec::new();
    for run in runs.iter().rev() {
        if !first.contains(&run.id) {
            first.push(run.id.clone());
        }
    }
    runs.sort_by_key(|run| first.iter().position(|id| *id == run.id));
}

pub fn table(runs: &[v1::Run]) -> String {
    let header = [
        "run", "node", "hop", "trigger", "start", "end", "took", "tries", "state", "exit", "files",
        "deleted", "received", "speed", "task", "error",
    ];
    let rows: Vec<Vec<String>> = runs.iter().map(row).collect();
    match rows.is_empty() {
        true => render::table(&header, rows),
        false => render::columns(&header, &rows),
    }
}

fn row(run: &v1::Run) -> Vec<String> {
    let pulled = run.pulled.as_ref();
    let of = |f: &dyn Fn(&v1::Pulled) -> String| pulled.map(f).unwrap_or_default();
    let end = run.ended_at.as_ref().map(|at| render::time(Some(at)));
    vec![
        run.id.clone(),
        run.node.clone(),
        render::word(run.hop().as_str_name(), "HOP_KIND_"),
        run.trigger.clone(),
        render::time(run.started_at.as_ref()),
        end.unwrap_or_default(),
        took(run),
        run.attempts.to_string(),
        state(run),
        exit(run),
        of(&|p| p.files.to_string()),
        of(&|p| p.deleted.to_string()),
        of(&|p| render::bytes(p.received_bytes)),
        of(&speed),
        if run.ended_at.is_none() { run.task.clone() } else { String::new() },
        run.message.clone(),
    ]
}

/// "ok", "failed", or what it does now.
pub fn state(run: &v1::Run) -> String {
    match (&run.ended_at, &run.progress) {
        (Some(_), _) => render::word(run.outcome().as_str_name(), "OUTCOME_KIND_"),
        (None, Some(progress)) => progress::phase(progress),
        (None, None) => "under way".to_owned(),
    }
}

pub fn is_ok(run: &v1::Run) -> bool {
    run.ended_at.is_some() && run.outcome() == v1::OutcomeKind::Ok
}

pub fn took(run: &v1::Run) -> String {
    let (Some(start), Some(end)) = (&run.started_at, &run.ended_at) else { return String::new() };
    from_wire_time(end).since(from_wire_time(start)).to_string()
}

pub fn exit(run: &v1::Run) -> String {
    match &run.pulled {
        Some(pulled) => pulled.exit_code.map_or("killed".to_owned(), |code| code.to_string()),
        None => String::new(),
    }
}

/// Over the time in which rsync ran.
fn speed(pulled: &v1::Pulled) -> String {
    let (Some(start), Some(end)) = (&pulled.started_at, &pulled.ended_at) else {
        return String::new();
    };
    let Millis(ms) = from_wire_time(end).since(from_wire_time(start));
    let rate = pulled.received_bytes.saturating_mul(1000) / ms.max(1);
    format!("{}/s", render::bytes(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_stand_in_order_and_their_parts_together() {
        let run = |id: &str, node: &str| v1::Run {
            id: id.to_owned(),
            node: node.to_owned(),
            ..Default::default()
        };
        let mut runs = vec![
            run("a/2", "m"),
            run("a/2", "w1"),
            run("b/1", "m"),
            run("a/1", "m"),
            run("a/1", "w"),
        ];
        newest_last(&mut runs);
        let order: Vec<String> = runs.iter().map(|r| format!("{} {}", r.id, r.node)).collect();
        assert_eq!(order, ["a/1 m", "a/1 w", "b/1 m", "a/2 m", "a/2 w1"]);
    }

    #[test]
    fn a_row_tells_what_a_pull_did() {
        let at = |seconds| Some(pbjson_types::Timestamp { seconds, nanos: 0 });
        let pulled = v1::Pulled {
            started_at: at(100),
            ended_at: at(102),
            exit_code: Some(23),
            files: 7,
            received_bytes: 4096,
            ..Default::default()
        };
        let mut run = v1::Run {
            id: "fedora/17".to_owned(),
            node: "ftp1".to_owned(),
            started_at: at(90),
            ended_at: at(150),
            message: "some files were not transferred".to_owned(),
            pulled: Some(pulled),
            ..Default::default()
        };
        run.set_outcome(v1::OutcomeKind::Failed);
        let text = table(&[run]);
        for words in ["fedora/17", "ftp1", "failed", "23", "1m", "2.00 KiB/s", "not transferred"] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
    }
}
