//! What a step of a pull says while it runs. Pure: lines of standard output and the time since it
//! began come in, numbers and progress come out. No name of a file can pass for anything else: each
//! stands behind rsync's letters for what changed.

use std::time::Duration;

use lockstep_model::Millis;

use crate::rsync::progress::{Progress, Volume};
use crate::rsync::{Stats, progress};

/// What one step has said so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    pub stats: Stats,
    /// Something is other than it was, or would be: content, a name or an attribute.
    pub changed: bool,
    progress: Progress,
    done: Done,
}

/// How far a step is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Done {
    /// Of the files that were brought.
    pub bytes: u64,
    /// Files that were brought.
    pub files: u64,
}

/// A line of rsync's standard output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// Progress, which is for nobody's log.
    Progress,
    /// An entry that was changed, or its letters alone.
    Changed,
    /// An entry that was removed.
    Removed,
    /// That something stays which was to be removed later anyway.
    Left,
    /// What a log has.
    Other,
}

impl Output {
    /// `counted_bytes`: what the step is to bring, if a dry run told.
    pub fn new(counted_bytes: Option<u64>) -> Self {
        Self {
            stats: Stats::default(),
            changed: false,
            progress: Progress::new(counted_bytes.map_or(Volume::Everything, Volume::Counted)),
            done: Done::default(),
        }
    }

    /// A line without its end, which is CR or LF. `at` is the time since the step began.
    pub fn take(&mut self, text: &str, at: Duration) -> Line {
        if let Some(told) = progress(text) {
            self.progress.take(&told, at, None);
            let number = |word: Option<&str>| word.and_then(|word| word.parse().ok());
            self.done.bytes = number(told.split(' ').next()).unwrap_or(self.done.bytes);
            let files = told.split_once("(xfr#").and_then(|(_, rest)| rest.split(',').next());
            self.done.files = number(files).unwrap_or(self.done.files);
            return Line::Progress;
        }
        let line = classify(text);
        match line {
            Line::Changed | Line::Removed => self.changed = true,
            Line::Other => self.stats.read(text),
            Line::Progress | Line::Left => {}
        }
        line
    }

    pub fn done(&self) -> Done {
        self.done
    }

    /// 0 to 100; None while it is not known how much there is.
    pub fn percent(&self, at: Duration) -> Option<u8> {
        self.progress.estimate(at).map(|estimate| estimate.percent)
    }

    /// None while nothing moves, or while it is not known how much there is.
    pub fn left(&self, at: Duration) -> Option<Millis> {
        self.progress.estimate(at).and_then(|estimate| estimate.left)
    }

    /// Bytes of files per second, lately.
    pub fn rate(&self, at: Duration) -> u64 {
        self.progress.rate(at)
    }
}

fn classify(text: &str) -> Line {
    let bytes = text.as_bytes();
    if text.starts_with("*deleting ") {
        return Line::Removed;
    }
    let kind = bytes
        .first_chunk()
        .is_some_and(|[what, of]| b"<>ch.".contains(what) && b"fdLDS".contains(of));
    let letters = bytes.get(2..11).filter(|_| kind && bytes.get(11).is_none_or(|b| *b == b' '));
    if let Some(letters) = letters {
        let attributes = |b: &u8| b.is_ascii_alphabetic() || b" .+?".contains(b);
        if letters.iter().all(attributes) {
            // All blank: it was looked at, and is as it was.
            let same = letters.iter().all(|b| *b == b' ');
            return if same { Line::Other } else { Line::Changed };
        }
    }
    if text.starts_with("cannot delete non-empty directory: ") {
        return Line::Left;
    }
    Line::Other
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_told_apart() {
        for (text, line) in [
            (">f+++++++++ d/a", Line::Changed),
            (">f+++++++++", Line::Changed),
            (".d..t...... ./", Line::Changed),
            ("cL+++++++++ l -> b", Line::Changed),
            ("hf+++++++++ c => b", Line::Changed),
            (">fcstpoguax x", Line::Changed),
            (".f          the same", Line::Other),
            ("*deleting   old/", Line::Removed),
            ("*deleting  ", Line::Removed),
            ("cannot delete non-empty directory: old", Line::Left),
            ("         12  50%   11.72kB/s    0:00:00 (xfr#1, to-chk=1/3)", Line::Progress),
            ("Number of files: 12 (reg: 9, dir: 3)", Line::Other),
            ("receiving file list ... done", Line::Other),
            ("cf", Line::Other),
            (".fé", Line::Other),
            ("", Line::Other),
        ] {
            assert_eq!(Output::new(None).take(text, Duration::ZERO), line, "{text}");
        }
    }

    #[test]
    fn a_run_is_summed_up() {
        let mut output = Output::new(Some(4000));
        let second = Duration::from_secs(1);
        assert_eq!(output.percent(Duration::ZERO), Some(0));
        output.take("   1000  25%  1.0kB/s    0:00:03 (xfr#1, ir-chk=1000/1002)", second * 4);
        assert_eq!(output.done(), Done { bytes: 1000, files: 1 });
        assert_eq!(output.percent(second * 4), Some(25));
        assert_eq!(output.left(second * 4), Some(Millis::from_secs(12)));
        assert_eq!(output.rate(second * 4), 250);
        assert!(!output.changed);
        // Of a name that looks like numbers only the letters count.
        for line in [">f+++++++++ Number of files: 9", "*deleting   Number of files: 9", ""] {
            output.take(line, second);
        }
        assert!(output.changed);
        assert_eq!(output.stats.files, 0);
        output.take("Number of files: 3 (reg: 2, dir: 1)", second);
        assert_eq!(output.stats.files, 3);
    }

    proptest! {
        #[test]
        fn no_line_panics(lines in proptest::collection::vec("[>.cfd+ a-zé%0-9()#,*:-]{0,30}", 0..4)) {
            let mut output = Output::new(None);
            for line in &lines {
                output.take(line, Duration::from_secs(3));
            }
            let _ = (output.percent(Duration::MAX), output.left(Duration::ZERO), output.rate(Duration::ZERO));
        }
    }
}
