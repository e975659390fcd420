//! How far a pull is, in words: for tables, for lines, and for bars.

use lockstep_model::Millis;
use lockstep_proto::v1;

use super::runs;
use crate::render;

/// Of a node with the newest generation being `newest`: current, behind, empty, failed, or what its
/// pull does now.
pub fn state(node: &v1::MirrorNode, newest: u64) -> String {
    let last = node.last_run.as_ref();
    let is_over = |pull: &&v1::PullProgress| {
        last.is_some_and(|run| run.ended_at.is_some() && run.number >= pull.number)
    };
    let pull = node.report.as_ref().and_then(|report| report.pull.as_ref());
    // An end is known before the agent's next report.
    if let Some(pull) = pull.filter(|pull| !is_over(pull)) {
        return phase(pull);
    }
    let failed = last.is_some_and(|run| run.ended_at.is_some() && !runs::is_ok(run));
    let word = match () {
        () if failed => "failed",
        () if node.current && newest > 0 => "current",
        () if node.generation == 0 => "empty",
        () => "behind",
    };
    word.to_owned()
}

/// "content 40%"
pub fn phase(pull: &v1::PullProgress) -> String {
    let word = render::word(pull.phase().as_str_name(), "PULL_PHASE_");
    match pull.percent {
        Some(percent) => format!("{word} {percent}%"),
        None => word,
    }
}

/// "120 files, 3.00 MiB, 1.00 MiB/s, 20s left"
pub fn figures(pull: &v1::PullProgress) -> String {
    let rate = format!("{}/s", render::bytes(pull.rate_bytes_per_s));
    let left = pull.eta_ms.map(|ms| format!(", {} left", Millis(ms))).unwrap_or_default();
    format!("{} files, {}, {rate}{left}", pull.done_files, render::bytes(pull.done_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_is_told_in_words() {
        let mut pull = v1::PullProgress {
            percent: Some(40),
            done_bytes: 3 << 20,
            done_files: 120,
            rate_bytes_per_s: 1 << 20,
            eta_ms: Some(20_000),
            ..Default::default()
        };
        pull.set_phase(v1::PullPhase::Content);
        assert_eq!(phase(&pull), "content 40%");
        assert_eq!(figures(&pull), "120 files, 3.00 MiB, 1.00 MiB/s, 20s left");
        pull.percent = None;
        pull.set_phase(v1::PullPhase::Counting);
        assert_eq!(phase(&pull), "counting");
        let node = v1::MirrorNode {
            report: Some(v1::MirrorReport { pull: Some(pull), ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(state(&node, 1), "counting");
        let ended_at = Some(pbjson_types::Timestamp::default());
        let node =
            v1::MirrorNode { last_run: Some(v1::Run { ended_at, ..Default::default() }), ..node };
        assert_eq!(state(&node, 1), "failed");
    }
}
