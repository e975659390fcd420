//! The last lines that a task wrote, and readers that follow them. A slow reader loses lines and is
//! told how many; the writer never waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Most lines kept of one task.
pub const OUTPUT_LINES_MAX: usize = 1000;
/// Longest line kept, in bytes; the rest is cut.
pub const OUTPUT_LINE_BYTES_MAX: usize = 1024;
/// Most lines that one read returns.
const READ_LINES_MAX: usize = 200;

/// Where a task writes. Clones write to the same place.
#[derive(Clone, Default)]
pub struct Output {
    ring: Arc<Ring>,
}

#[derive(Default)]
struct Ring {
    lines: Mutex<Lines>,
    /// Told of each line and of the end.
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<String>,
    /// How many there were before the first one kept.
    dropped: u64,
    ended: bool,
}

impl Ring {
    /// The lines are whole between any two statements, so a panic elsewhere does not spoil them.
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cut at its longest; control characters become spaces.
pub fn one_line(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(OUTPUT_LINE_BYTES_MAX)];
    cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Output {
    /// Adds one line, as [`one_line`] makes it.
    pub fn line(&self, text: &str) {
        let line = one_line(text);
        let mut lines = self.ring.lock();
        if lines.kept.len() == OUTPUT_LINES_MAX {
            lines.kept.pop_front();
            lines.dropped += 1;
        }
        lines.kept.push_back(line);
        drop(lines);
        self.ring.changed.send_replace(());
    }

    /// No line will come any more.
    pub fn end(&self) {
        self.ring.lock().ended = true;
        self.ring.changed.send_replace(());
    }

    /// Reads from the first line kept; with `follow` until the end, else what there is.
    pub fn tail(&self, follow: bool) -> Tail {
        let changed = self.ring.changed.subscribe();
        Tail { ring: self.ring.clone(), changed, next: 0, follow }
    }
}

/// One reader.
pub struct Tail {
    ring: Arc<Ring>,
    changed: watch::Receiver<()>,
    /// Number of the line to be read next, counted from the task's first.
    next: u64,
    follow: bool,
}

impl Tail {
    /// Some lines, at least one; None at the end.
    pub async fn read(&mut self) -> Option<Vec<String>> {
        loop {
            self.changed.borrow_and_update();
            let (lines, ended) = self.take();
            if !lines.is_empty() {
                return Some(lines);
            }
            if ended || !self.follow || self.changed.changed().await.is_err() {
                return None;
            }
        }
    }

    fn take(&mut self) -> (Vec<String>, bool) {
        let lines = self.ring.lock();
        let mut taken = Vec::new();
        if lines.dropped > self.next {
            taken.push(format!("… {} earlier lines are not kept", lines.dropped - self.next));
            self.next = lines.dropped;
        }
        let skip = usize::try_from(self.next - lines.dropped).unwrap_or(usize::MAX);
        let fresh = lines.kept.iter().skip(skip).take(READ_LINES_MAX);
        let before = taken.len();
        taken.extend(fresh.cloned());
        self.next += (taken.len() - before) as u64;
        (taken, lines.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_gets_what_is_kept_and_is_told_of_the_rest() {
        let output = Output::default();
        for n in 0..OUTPUT_LINES_MAX + 3 {
            output.line(&format!("line {n}"));
        }
        let mut tail = output.tail(false);
        let mut all = Vec::new();
        while let Some(lines) = tail.read().await {
            assert!(lines.len() <= READ_LINES_MAX + 1);
            all.extend(lines);
        }
        assert_eq!(all.len(), OUTPUT_LINES_MAX + 1);
        assert_eq!(all[0], "… 3 earlier lines are not kept");
        assert_eq!(all[1], "line 3");
        assert_eq!(all.last().unwrap(), &format!("line {}", OUTPUT_LINES_MAX + 2));
    }

    #[tokio::test]
    async fn a_follower_waits_for_the_end() {
        let output = Output::default();
        let mut tail = output.tail(true);
        output.line("one\u{1b}[31m");
        assert_eq!(tail.read().await.unwrap(), ["one [31m"]);
        let reader = tokio::spawn(async move { (tail.read().await, tail.read().await) });
        tokio::task::yield_now().await;
        output.line(&"é".repeat(OUTPUT_LINE_BYTES_MAX));
        tokio::task::yield_now().await;
        output.end();
        let (line, end) = reader.await.unwrap();
        assert_eq!(line.unwrap(), ["é".repeat(OUTPUT_LINE_BYTES_MAX / 2)]);
        assert_eq!(end, None);
    }
}
