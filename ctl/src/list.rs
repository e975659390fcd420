//! A list of targets as a file: one a line, `#` comments and blank lines kept. What it means to the
//! controller is decided in `cmd::sync::list`. Pure.

use std::fmt;

use lockstep_model::id::quote;
use lockstep_model::rate::Rate;
use lockstep_model::sync::{Comment, Target};
use lockstep_model::{Invalid, NodeName};

use crate::target::Wanted;

/// Longest file of a list, in bytes.
pub const LIST_BYTES_MAX: u64 = 1 << 20;

/// A line of it, less what is blank.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// Empty, or begins with `#`.
    Comment(String),
    Target(Entry),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub at: Spot,
    pub wanted: Wanted,
    pub bwlimit: Option<Rate>,
}

/// Both count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spot {
    pub line: usize,
    pub column: usize,
}

#[derive(PartialEq, Eq, Debug)]
pub struct Problem {
    pub at: Spot,
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.at.line, self.at.column, self.what)
    }
}

/// A comment behind a target becomes a line of its own before it.
pub fn read(text: &str) -> Result<Vec<Line>, Problem> {
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let (words, comment) = split(line, index + 1)?;
        if let Some((at, text)) = comment {
            let comment = Comment { before: None, text };
            comment.check().map_err(|e| Problem { at, what: e.to_string() })?;
            lines.push(Line::Comment(comment.text));
        } else if words.is_empty() {
            lines.push(Line::Comment(String::new()));
        }
        if let Some(((at, first), rest)) = words.split_first() {
            lines.push(Line::Target(entry(*at, first, rest)?));
        }
    }
    Ok(lines)
}

fn entry(at: Spot, target: &str, rest: &[(Spot, String)]) -> Result<Entry, Problem> {
    let wanted = target.parse().map_err(|e: Invalid| Problem { at, what: e.to_string() })?;
    let mut entry = Entry { at, wanted, bwlimit: None };
    for (at, word) in rest {
        let wrong = |what: String| Problem { at: *at, what };
        let Some(rate) = word.strip_prefix("bwlimit=") else {
            let what =
                format!("{} is unknown; behind a target only bwlimit=RATE may stand", quote(word));
            return Err(wrong(what));
        };
        let rate = rate.parse().map_err(|e: Invalid| wrong(e.to_string()))?;
        if entry.bwlimit.replace(rate).is_some() {
            return Err(wrong("bwlimit is given twice".to_owned()));
        }
    }
    Ok(entry)
}

type Words = (Vec<(Spot, String)>, Option<(Spot, String)>);

/// Words apart by blanks, or in quotes with `\"` and `\\`, and the comment at the end.
fn split(text: &str, line: usize) -> Result<Words, Problem> {
    let mut words = Vec::new();
    let mut chars = text.chars().enumerate().peekable();
    while let Some(&(index, first)) = chars.peek() {
        let at = Spot { line, column: index + 1 };
        let mut word = String::new();
        match first {
            ' ' | '\t' | '\r' => {
                chars.next();
                continue;
            }
            '#' => {
                let rest: String = chars.map(|(_, c)| c).collect();
                return Ok((words, Some((at, rest.trim_end().to_owned()))));
            }
            '"' => {
                chars.next();
                let unended = || Problem { at, what: "the quote has no end".to_owned() };
                loop {
                    match chars.next().ok_or_else(unended)?.1 {
                        '"' => break,
                        '\\' => word.push(chars.next().ok_or_else(unended)?.1),
                        other => word.push(other),
                    }
                }
            }
            _ => {
                while let Some((_, c)) = chars.next_if(|(_, c)| !matches!(c, ' ' | '\t' | '\r')) {
                    word.push(c);
                }
            }
        }
        words.push((at, word));
    }
    Ok((words, None))
}

/// What `read` reads as the same: the targets in their order, each comment before its target.
pub fn write(targets: &[Target], comments: &[Comment]) -> String {
    let mut text = String::new();
    let is_target = |name: &NodeName| targets.iter().any(|target| target.node == *name);
    for target in targets {
        for comment in comments.iter().filter(|c| c.before.as_ref() == Some(&target.node)) {
            text.push_str(&format!("{}\n", comment.text));
        }
        text.push_str(&quoted(&target.to_string()));
        if let Some(rate) = target.bwlimit {
            text.push_str(&format!(" bwlimit={rate}"));
        }
        text.push('\n');
    }
    // Also those of targets that are none any more.
    for comment in comments.iter().filter(|c| !c.before.as_ref().is_some_and(is_target)) {
        text.push_str(&format!("{}\n", comment.text));
    }
    text
}

fn quoted(word: &str) -> String {
    if !word.contains([' ', '\t', '"']) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target() -> impl Strategy<Value = Target> {
        let at = prop_oneof![
            "/[a-z #\"\\\\é]{0,8}[a-z]".prop_map(String::from),
            "(ssh|rsync)://([a-z]{1,4}@)?[a-z]{1,8}/[a-z #\"]{0,8}[a-z]".prop_map(|url: String| {
                if url.starts_with("rsync") { url.replace([' ', '#', '"'], "-") } else { url }
            }),
        ];
        ("[a-z][a-z0-9-]{0,6}", at, proptest::option::of(1024..9_000_000_u64)).prop_filter_map(
            "not a target",
            |(node, at, rate)| {
                let bwlimit = rate.and_then(Rate::new);
                Target::parse(&node, &at).ok().map(|target| Target { bwlimit, ..target })
            },
        )
    }

    /// As `cmd::sync::list` has it of what was read.
    fn back(lines: Vec<Line>) -> (Vec<Target>, Vec<Comment>) {
        let (mut targets, mut comments) = (Vec::new(), Vec::new());
        let mut waiting = Vec::new();
        for line in lines {
            match line {
                Line::Comment(text) => waiting.push(text),
                Line::Target(Entry { wanted, bwlimit, .. }) => {
                    let path = "/unused".parse().unwrap();
                    let target =
                        wanted.target(&path, crate::args::sync::Transport::Mtls, &vec![]).unwrap();
                    let before = Some(target.node.clone());
                    let comment = |text| Comment { before: before.clone(), text };
                    comments.extend(waiting.drain(..).map(comment));
                    targets.push(Target { bwlimit, ..target });
                }
            }
        }
        comments.extend(waiting.into_iter().map(|text| Comment { before: None, text }));
        (targets, comments)
    }

    proptest! {
        #[test]
        fn a_list_is_read_as_it_was_written(
            mut targets in proptest::collection::vec(target(), 0..6),
            texts in proptest::collection::vec((0..7_usize, "(#[ -~é]{0,9}[!-~])?"), 0..6),
        ) {
            targets.sort_by(|a, b| a.node.cmp(&b.node));
            targets.dedup_by(|a, b| a.node == b.node);
            let mut comments: Vec<Comment> = texts
                .into_iter()
                .map(|(at, text)| Comment { before: targets.get(at).map(|t| t.node.clone()), text })
                .collect();
            let place = |c: &Comment| targets.iter().position(|t| Some(&t.node) == c.before.as_ref());
            comments.sort_by_key(|c| place(c).unwrap_or(usize::MAX));
            let text = write(&targets, &comments);
            prop_assert_eq!(back(read(&text).unwrap()), (targets, comments), "{}", text);
        }

        #[test]
        fn nothing_that_stands_in_a_file_panics(text in "\\PC{0,60}(\n\\PC{0,60}){0,3}") {
            let _ = read(&text);
        }
    }

    #[test]
    fn an_old_list_of_hosts_is_read() {
        let lines = read("# web heads\n\n  10.0.0.1  \r\nweb2\t# rack 2\nweb3:/srv bwlimit=2M\n");
        let wanted = |text: &str| text.parse::<Wanted>().unwrap();
        let entry = |line, column, text: &str, bwlimit| {
            Line::Target(Entry { at: Spot { line, column }, wanted: wanted(text), bwlimit })
        };
        let comment = |text: &str| Line::Comment(text.to_owned());
        assert_eq!(
            lines.unwrap(),
            [
                comment("# web heads"),
                comment(""),
                entry(3, 3, "10.0.0.1", None),
                comment("# rack 2"),
                entry(4, 1, "web2", None),
                entry(5, 1, "web3:/srv", Rate::new(2 << 20)),
            ]
        );
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (text, says) in [
            ("web1\n  we!b", "line 2, column 3: node name"),
            ("web1 web2", "line 1, column 6: \"web2\" is unknown"),
            ("web1:/srv/my www", "line 1, column 14: \"www\" is unknown"),
            ("\"web1:/srv/my www", "line 1, column 1: the quote has no end"),
            ("web1 bwlimit=x", "line 1, column 6: rate"),
            ("web1 bwlimit=1M bwlimit=1M", "line 1, column 17: bwlimit is given twice"),
            ("é web1:srv", "line 1, column 1: node name"),
            ("-e.sh", "line 1, column 1: node name"),
        ] {
            let problem = read(text).unwrap_err().to_string();
            assert!(problem.starts_with(says), "{text}: {problem}");
        }
    }
}
