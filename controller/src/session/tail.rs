//! Output of a task on its way from an agent to a reader. A reader that is too slow is cut off; the
//! agent is never held up by one.

use lockstep_model::{Code, NodeName, Reject};
use tokio::sync::mpsc;

/// Most parts that wait for a reader.
const PARTS_MAX: usize = 256;

/// Some lines; `end` when no more will come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TailPart {
    pub lines: Vec<String>,
    pub end: bool,
    /// Why the node has nothing; empty when it has.
    pub missing: String,
}

/// The reader's side.
pub struct Tail {
    node: NodeName,
    parts: mpsc::Receiver<TailPart>,
    ended: bool,
}

impl Tail {
    pub(super) fn new(node: NodeName) -> (mpsc::Sender<TailPart>, Self) {
        let (sender, parts) = mpsc::channel(PARTS_MAX);
        (sender, Self { node, parts, ended: false })
    }

    /// The next lines; None after the last.
    pub async fn next(&mut self) -> Option<Result<Vec<String>, Reject>> {
        if self.ended {
            return None;
        }
        match self.parts.recv().await {
            Some(TailPart { lines, end, missing }) => {
                self.ended = end || !missing.is_empty();
                Some(match missing.is_empty() {
                    true => Ok(lines),
                    false => Err(self.missing(&missing)),
                })
            }
            None => {
                self.ended = true;
                let message = format!(
                    "the output of node {} broke off: the agent's stream ended, or this reader was \
                     too slow",
                    self.node
                );
                let subject = format!("node/{}", self.node);
                Some(Err(Reject::new(Code::Unavailable, "tail_broken", subject, message)))
            }
        }
    }

    fn missing(&self, why: &str) -> Reject {
        let node = &self.node;
        let message = format!("node {node} has no log of this run any more: {why}");
        Reject::not_found(format!("node/{node}"), message)
    }
}
