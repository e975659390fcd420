//! What tasks and runs wrote, on its way to the controller that asked. A reader that is slow holds up
//! nobody but itself.

use lockstep_model::mirror::RunId;
use lockstep_proto::v1;
use lockstep_proto::v1::agent_message::Kind as Say;
use tokio::sync::mpsc;

use crate::mirror::Logs;
use crate::runner::Tail;

/// Most bytes of a log in one message.
const PART_BYTES_MAX: usize = 32 << 10;

pub(super) enum Reader {
    Task(Tail),
    /// A log that is kept.
    Run(Logs, RunId),
    /// Nothing but why.
    None(&'static str),
}

/// Waits for the network as long as it takes; the session ends it with itself.
pub(super) async fn send(out: mpsc::Sender<v1::AgentMessage>, tail: u64, reader: Reader) {
    let say = async |output| {
        let message = v1::AgentMessage { kind: Some(Say::TaskOutput(output)) };
        out.send(message).await.is_ok()
    };
    let some = |lines| v1::TaskOutput { tail, lines, ..v1::TaskOutput::default() };
    let last = v1::TaskOutput { tail, end: true, ..v1::TaskOutput::default() };
    match reader {
        Reader::Task(mut reader) => {
            while let Some(lines) = reader.read().await {
                if !say(some(lines)).await {
                    return;
                }
            }
            say(last).await;
        }
        Reader::Run(logs, run) => {
            let read = tokio::task::spawn_blocking(move || logs.read(&run)).await;
            match read.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(lines) => {
                    for lines in parts(lines) {
                        if !say(some(lines)).await {
                            return;
                        }
                    }
                    say(last).await;
                }
                Err(missing) => {
                    say(v1::TaskOutput { missing, ..last }).await;
                }
            }
        }
        Reader::None(why) => {
            say(v1::TaskOutput { lines: vec![why.to_owned()], ..last }).await;
        }
    }
}

fn parts(lines: Vec<String>) -> Vec<Vec<String>> {
    let (mut parts, mut bytes) = (Vec::<Vec<String>>::new(), usize::MAX);
    for line in lines {
        bytes = bytes.saturating_add(line.len() + 2);
        if bytes > PART_BYTES_MAX {
            parts.push(Vec::new());
            bytes = line.len() + 2;
        }
        if let Some(part) = parts.last_mut() {
            part.push(line);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_in_parts_and_whole() {
        let lines: Vec<String> = (0..3000).map(|n| format!("line {n:5} {:30}", "")).collect();
        let parts = parts(lines.clone());
        assert!(parts.len() > 2 && parts.iter().all(|part| part.len() * 42 <= PART_BYTES_MAX));
        assert_eq!(parts.concat(), lines);
        assert!(super::parts(Vec::new()).is_empty());
    }
}
