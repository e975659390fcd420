//! What a mirror tells rsync: options from an allow-list, in the three parts of a hop. An option that
//! runs a program, leaves the tree or is Lockstep's own to give cannot be made.

mod hop;
pub mod table;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::str::FromStr;

pub use hop::{Delete, Hop};

use crate::id::quote;
use crate::reject::Invalid;
use table::{Row, Rule};

/// One option of the allow-list with its value, `--exclude=*.iso` or `-B1000`, or letters that take
/// none, `-avH`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RsyncOption {
    text: String,
    given: Vec<Given>,
}

/// One option as rsync sees it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Given {
    /// As in the table.
    name: &'static str,
    value: Option<String>,
}

impl RsyncOption {
    /// Most letters behind one dash.
    const LETTERS_MAX: usize = 32;

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for RsyncOption {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        match read(text)? {
            Read::Whole(option) => Ok(option),
            Read::Unfinished { joint, .. } => {
                Err(wrong(format!("{text} needs a value: {text}{joint}VALUE")))
            }
        }
    }
}

impl fmt::Display for RsyncOption {
    /// Read back as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

enum Read {
    Whole(RsyncOption),
    /// Its value is the next word, and `joint` stands between.
    Unfinished {
        joint: &'static str,
    },
}

fn wrong(problem: String) -> Invalid {
    Invalid::new("rsync option", problem)
}

fn read(text: &str) -> Result<Read, Invalid> {
    if text.len() > value::LENGTH_MAX || text.chars().any(char::is_control) {
        let most = value::LENGTH_MAX;
        let problem = format!("must have at most {most} bytes and no control characters");
        return Err(wrong(format!("{problem}, not {}", quote(text))));
    }
    let whole = |given| Read::Whole(RsyncOption { text: text.to_owned(), given });
    if let Some(long) = text.strip_prefix("--") {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        let row = table::by_name(name).filter(|row| row.name.len() > 1);
        let Some(row) = row else { return Err(unknown(text, name)) };
        return Ok(match (take(row, &format!("--{name}"), value)?, value) {
            (Some(given), _) => whole(vec![given]),
            (None, _) => Read::Unfinished { joint: "=" },
        });
    }
    let Some(letters) = text.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
        let problem = format!("{} is not an option: it does not begin with - or --", quote(text));
        return Err(wrong(problem));
    };
    let mut given = Vec::new();
    for (at, letter) in letters.char_indices() {
        let shown = format!("-{letter}");
        let row = table::by_letter(letter).ok_or_else(|| unknown(text, &shown))?;
        let rest = &letters[at + letter.len_utf8()..];
        let is_last = matches!(row.rule, Rule::Value(_));
        match take(row, &shown, (is_last && !rest.is_empty()).then_some(rest))? {
            None => return Ok(Read::Unfinished { joint: "" }),
            Some(one) => given.push(one),
        }
        if is_last {
            break;
        }
    }
    if given.len() > RsyncOption::LETTERS_MAX {
        let most = RsyncOption::LETTERS_MAX;
        return Err(wrong(format!("{} has more than {most} letters", quote(text))));
    }
    Ok(whole(given))
}

fn unknown(text: &str, name: &str) -> Invalid {
    // `--exclude *.iso` as one word.
    let known = name.split_once(' ').and_then(|(name, _)| table::by_name(name));
    if let Some(Row { name, rule: Rule::Value(_), .. }) = known {
        return wrong(format!("write --{name}=VALUE, not {}", quote(text)));
    }
    wrong(format!("{} is not an option of rsync; names are not shortened", quote(text)))
}

/// None: its value is missing.
fn take(row: &'static Row, shown: &str, value: Option<&str>) -> Result<Option<Given>, Invalid> {
    let given = |value: Option<&str>| Given { name: row.name, value: value.map(str::to_owned) };
    match (row.rule, value) {
        (Rule::Refused(why), _) => Err(wrong(format!("{shown} is not allowed: {why}"))),
        (Rule::Flag, None) => Ok(Some(given(None))),
        (Rule::Flag, Some(_)) => Err(wrong(format!("{shown} takes no value"))),
        (Rule::Value(_), None) => Ok(None),
        (Rule::Value(check), Some(value)) => match check(value) {
            None => Ok(Some(given(Some(value)))),
            Some(must) => Err(wrong(format!("{shown} {must}, not {}", quote(value)))),
        },
    }
}

/// Options in order, repeats kept: for rsync the last one counts, and each exclude.
///
/// As text they are words with blanks between. A word, or part of one, that stands in `'…'` or `"…"`
/// may hold blanks; the quote itself is written twice in there, and a backslash is a backslash. A
/// value stands behind `=`, or is the next word. No words: no options.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct RsyncOptions(pub Vec<RsyncOption>);

impl RsyncOptions {
    /// Most options of one part.
    pub const COUNT_MAX: usize = 64;
}

impl FromStr for RsyncOptions {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut words = split(text)?.into_iter();
        let mut options = Vec::new();
        while let Some(word) = words.next() {
            options.push(match (read(&word)?, words.as_slice()) {
                (Read::Whole(option), _) => option,
                (Read::Unfinished { .. }, []) => word.parse()?,
                (Read::Unfinished { joint }, _) => {
                    format!("{word}{joint}{}", words.next().unwrap_or_default()).parse()?
                }
            });
            if options.len() > Self::COUNT_MAX {
                return Err(wrong(format!("at most {} may be given", Self::COUNT_MAX)));
            }
        }
        Ok(Self(options))
    }
}

impl fmt::Display for RsyncOptions {
    /// Read back as the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, RsyncOption { text, .. }) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { " " } else { "" })?;
            match text.contains([' ', '\'', '"']) {
                true => write!(f, "'{}'", text.replace('\'', "''"))?,
                false => f.write_str(text)?,
            }
        }
        Ok(())
    }
}

fn split(text: &str) -> Result<Vec<String>, Invalid> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        None => return Err(wrong(format!("{c} is never closed"))),
                        Some(inner) if inner != c => word.push(inner),
                        Some(_) if rest.next_if_eq(&c).is_some() => word.push(c),
                        Some(_) => break,
                    }
                }
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}
