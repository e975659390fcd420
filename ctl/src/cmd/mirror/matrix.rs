//! `mirror matrix`: every mirror on every node, with the age of what is there.

use lockstep_model::Millis;
use lockstep_proto::convert::from_wire_time;
use lockstep_proto::v1;
use lockstep_transport::clock;
use serde::Serialize;

use super::progress;
use crate::render;

/// One mirror on one node, as `-o json` prints it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Cell {
    mirror: String,
    node: String,
    /// master or replica
    role: &'static str,
    /// current, behind, empty, failed, or the phase of the pull under way.
    state: String,
    current: bool,
    generation: u64,
    /// The master's.
    newest_generation: u64,
    /// Since the last complete pull ended, or None before the first.
    age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete_at: Option<pbjson_types::Timestamp>,
    last_run: String,
    reason: String,
}

pub fn cells(mirrors: &[v1::Mirror]) -> Vec<Cell> {
    let of = |mirror: &v1::Mirror, node: &v1::MirrorNode, role| {
        let age = |at| clock::now().since(from_wire_time(at)).0;
        Cell {
            mirror: mirror.name.clone(),
            node: node.node.clone(),
            role,
            state: progress::state(node, mirror.generation),
            current: node.current,
            generation: node.generation,
            newest_generation: mirror.generation,
            age_ms: node.complete_at.as_ref().map(age),
            complete_at: node.complete_at,
            last_run: node.last_run.as_ref().map(|run| run.id.clone()).unwrap_or_default(),
            reason: node.reason.clone(),
        }
    };
    let mut cells = Vec::new();
    for mirror in mirrors {
        cells.extend(mirror.on_master.iter().map(|node| of(mirror, node, "master")));
        cells.extend(mirror.on_replicas.iter().map(|node| of(mirror, node, "replica")));
    }
    cells
}

/// A row per mirror and a column per node; `*` marks the master's.
pub fn table(cells: &[Cell]) -> String {
    let mut nodes: Vec<&str> = cells.iter().map(|cell| cell.node.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut mirrors: Vec<&str> = cells.iter().map(|cell| cell.mirror.as_str()).collect();
    mirrors.dedup();
    let header: Vec<&str> = std::iter::once("mirror").chain(nodes.iter().copied()).collect();
    let cell = |mirror: &str, node: &str| {
        let found = cells.iter().find(|cell| cell.mirror == mirror && cell.node == node);
        found.map_or_else(|| "-".to_owned(), shown)
    };
    let rows = mirrors.iter().map(|mirror| {
        let cells = nodes.iter().map(|node| cell(mirror, node));
        std::iter::once((*mirror).to_owned()).chain(cells).collect::<Vec<_>>()
    });
    render::table(&header, rows)
}

fn shown(cell: &Cell) -> String {
    let mark = if cell.role == "master" { "*" } else { "" };
    let age = cell.age_ms.map(|ms| format!(" {}", Millis(ms))).unwrap_or_default();
    format!("{mark}{}{age}", cell.state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, generation: u64, current: bool) -> v1::MirrorNode {
        v1::MirrorNode { node: name.to_owned(), generation, current, ..Default::default() }
    }

    #[test]
    fn each_node_has_a_column_and_each_mirror_a_row() {
        let mirror = |name: &str, master: &str, replicas: Vec<v1::MirrorNode>| v1::Mirror {
            name: name.to_owned(),
            generation: 2,
            on_master: Some(node(master, 2, true)),
            on_replicas: replicas,
            ..Default::default()
        };
        let mirrors = [
            mirror("fedora", "m1", vec![node("ftp1", 2, true), node("ftp2", 1, false)]),
            mirror("debian", "m1", vec![node("ftp2", 0, false)]),
        ];
        let text = table(&cells(&mirrors));
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows,
            [
                ["MIRROR", "FTP1", "FTP2", "M1"],
                ["fedora", "current", "behind", "*current"],
                ["debian", "-", "empty", "*current"],
            ]
        );
    }
}
