//! How much a mirror's tree on a node was after each of its complete pulls. It computes from the runs
//! that are kept, and keeps nothing.

use lockstep_proto::v1;
use serde::Serialize;

use super::runs;
use crate::render;

/// A node's tree after a run, as `-o json` prints it.
#[derive(Serialize, PartialEq, Debug)]
pub struct Size {
    run: String,
    node: String,
    at: Option<pbjson_types::Timestamp>,
    /// Files, directories and links below the top.
    entries: u64,
    /// Of the tree's files.
    bytes: u64,
    /// More or less than after the pull before, in bytes; None: that is not known.
    change_bytes: Option<i64>,
    received_bytes: u64,
    /// Left on the file system.
    free_bytes: u64,
}

/// Of runs, newest first; the oldest comes first. `node` empty: the master's.
pub fn sizes(runs: &[v1::Run], node: &str) -> Vec<Size> {
    let is_meant = |run: &&v1::Run| match node {
        "" => run.hop() == v1::HopKind::Upstream,
        node => run.node == node,
    };
    let complete = runs.iter().rev().filter(is_meant).filter(|run| runs::is_ok(run));
    let mut sizes: Vec<Size> = Vec::new();
    for (run, pulled) in complete.filter_map(|run| Some((run, run.pulled.as_ref()?))) {
        // Another master has a tree of its own.
        let before = sizes.iter().rfind(|size| size.node == run.node).map(|size| size.bytes);
        sizes.push(Size {
            run: run.id.clone(),
            node: run.node.clone(),
            at: run.ended_at,
            entries: pulled.entries,
            bytes: pulled.tree_bytes,
            change_bytes: before.map(|before| difference(before, pulled.tree_bytes)),
            received_bytes: pulled.received_bytes,
            free_bytes: pulled.free_bytes,
        });
    }
    sizes
}

fn difference(before: u64, now: u64) -> i64 {
    let size = i64::try_from(before.abs_diff(now)).unwrap_or(i64::MAX);
    if now < before { -size } else { size }
}

pub fn table(sizes: &[Size]) -> String {
    let header = ["run", "node", "at", "entries", "size", "change", "received", "free"];
    let row = |size: &Size| {
        vec![
            size.run.clone(),
            size.node.clone(),
            render::time(size.at.as_ref()),
            size.entries.to_string(),
            render::bytes(size.bytes),
            size.change_bytes.map_or("-".to_owned(), change),
            render::bytes(size.received_bytes),
            render::bytes(size.free_bytes),
        ]
    };
    render::table(&header, sizes.iter().map(row))
}

fn change(bytes: i64) -> String {
    let sign = match bytes {
        0 => return "0".to_owned(),
        1.. => '+',
        _ => '-',
    };
    format!("{sign}{}", render::bytes(bytes.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: &str, node: &str, hop: v1::HopKind, bytes: Option<u64>) -> v1::Run {
        let mut run = v1::Run {
            id: id.to_owned(),
            node: node.to_owned(),
            ended_at: Some(pbjson_types::Timestamp { seconds: 100, nanos: 0 }),
            pulled: Some(v1::Pulled {
                tree_bytes: bytes.unwrap_or_default(),
                ..v1::Pulled::default()
            }),
            ..v1::Run::default()
        };
        run.set_hop(hop);
        run.set_outcome(match bytes {
            Some(_) => v1::OutcomeKind::Ok,
            None => v1::OutcomeKind::Failed,
        });
        run
    }

    #[test]
    fn only_complete_pulls_count_and_each_is_compared_with_that_nodes_last() {
        let (up, down) = (v1::HopKind::Upstream, v1::HopKind::Replica);
        let runs = [
            run("a/4", "m2", up, Some(7)),
            run("a/3", "m", up, Some(1024)),
            run("a/3", "w", down, Some(9)),
            run("a/2", "m", up, None),
            run("a/1", "m", up, Some(4096)),
        ];
        let found: Vec<_> =
            sizes(&runs, "").into_iter().map(|s| (s.run, s.bytes, s.change_bytes)).collect();
        let expected = [("a/1", 4096, None), ("a/3", 1024, Some(-3072)), ("a/4", 7, None)]
            .map(|(run, bytes, change)| (run.to_owned(), bytes, change));
        assert_eq!(found, expected);
        assert_eq!(sizes(&runs, "w").len(), 1);
        let text = table(&sizes(&runs, ""));
        assert!(text.contains("-3.00 KiB") && text.contains("4.00 KiB"), "{text}");
    }
}
