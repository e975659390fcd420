//! rsync's filter patterns, so that a batch leaves out what a pass leaves out: rsync itself
//! checks neither the parents of a listed name nor the listed names that are gone. Pure.

use lockstep_model::sync::{Filter, Pattern};

/// How our own names in a source begin: they are never delivered and never deleted.
pub const RESERVED: &str = ".lockstep-";

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Excludes(Vec<Rule>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    include: bool,
    text: Vec<u8>,
    /// Began with `/`: matches from the top only.
    anchored: bool,
    /// Ended in `/`: matches directories only.
    dirs_only: bool,
    /// Compared with the whole path, not with the last name alone.
    whole: bool,
    wild: bool,
}

impl Excludes {
    pub fn new(filters: &[Filter]) -> Self {
        let own = Rule::new(format!("{RESERVED}*").as_bytes());
        Self(std::iter::once(own).chain(filters.iter().flat_map(Rule::all_of)).collect())
    }

    /// What any of these patterns matches.
    pub fn of(patterns: &[Pattern]) -> Self {
        let exclude = |pattern: &Pattern| Filter::exclude(pattern.clone());
        Self(patterns.iter().flat_map(|pattern| Rule::all_of(&exclude(pattern))).collect())
    }

    /// Whether filters were given, beside the one for our own names.
    pub fn has_filters(&self) -> bool {
        self.0.len() > 1
    }

    /// Whether the name or a directory above it is left out. `is_dir` is of the name itself.
    pub fn cover(&self, path: &[u8], is_dir: bool) -> bool {
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        !self.0.is_empty()
            && (ends.into_iter().any(|end| self.match_one(&path[..end], true))
                || self.match_one(path, is_dir))
    }

    fn match_one(&self, path: &[u8], is_dir: bool) -> bool {
        let first = self.0.iter().find(|rule| rule.matches(path, is_dir));
        first.is_some_and(|rule| !rule.include)
    }
}

/// The text of an `--exclude-from` file: `- ` and `+ ` make every line a plain rule.
pub fn file(filters: &[Filter]) -> String {
    let given: String = filters
        .iter()
        .map(|filter| {
            format!(
                "{filter}
"
            )
        })
        .collect();
    format!("- {RESERVED}*\n{given}")
}

impl Rule {
    /// `dir/***` is `dir` and all in it.
    fn all_of(filter: &Filter) -> Vec<Self> {
        let pattern = filter.pattern.as_str().as_bytes();
        let mut rules = vec![Self { include: filter.include, ..Self::new(pattern) }];
        if let Some(dir) = pattern.strip_suffix(b"/***") {
            rules.push(Self { include: filter.include, ..Self::new(&[dir, b"/**"].concat()) });
        }
        rules
    }

    fn new(pattern: &[u8]) -> Self {
        let (anchored, text) = match pattern.strip_prefix(b"/") {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let (text, dirs_only) = match text.strip_suffix(b"/***").or(text.strip_suffix(b"/")) {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let double = text.windows(2).any(|pair| pair == b"**");
        Self {
            include: false,
            text: text.to_owned(),
            anchored,
            dirs_only,
            whole: anchored || double || text.contains(&b'/'),
            wild: text.iter().any(|b| b"*?[".contains(b)),
        }
    }

    fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        if self.dirs_only && !is_dir {
            return false;
        }
        let fits = |part: &[u8]| {
            if self.wild { wild(&self.text, part) } else { part == self.text }
        };
        if !self.whole {
            return fits(path.rsplit(|b| *b == b'/').next().unwrap_or(path));
        }
        if self.text.starts_with(b"**") && !self.anchored {
            // So `**/a` also is the `a` at the top.
            return fits(&[b"/", path].concat());
        }
        if fits(path) {
            return true;
        }
        let starts = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at + 1);
        !self.anchored && starts.into_iter().any(|start| fits(&path[start..]))
    }
}

/// Shell-like matching: `*` stops at `/`, `**` does not, `[…]` is a set.
fn wild(pattern: &[u8], text: &[u8]) -> bool {
    // One backtracking point per kind of star keeps it linear in practice and bounded at all:
    // a mark for `**` outlives the marks for `*` behind it.
    let (mut p, mut t) = (0, 0);
    let mut single: Option<(usize, usize)> = None;
    let mut double: Option<(usize, usize)> = None;
    loop {
        if pattern[p..].starts_with(b"*") {
            let stars = pattern[p..].iter().take_while(|b| **b == b'*').count();
            p += stars;
            if stars > 1 {
                (double, single) = (Some((p, t)), None);
            } else {
                single = Some((p, t));
            }
            continue;
        }
        if t == text.len() && p == pattern.len() {
            return true;
        }
        if t < text.len()
            && p < pattern.len()
            && let Some(used) = one(&pattern[p..], text[t])
        {
            p += used;
            t += 1;
            continue;
        }
        match (single, double) {
            (Some((to, from)), _) if from < text.len() && text[from] != b'/' => {
                (p, t) = (to, from + 1);
                single = Some((to, t));
            }
            (_, Some((to, from))) if from < text.len() => {
                (p, t) = (to, from + 1);
                (double, single) = (Some((to, t)), None);
            }
            _ => return false,
        }
    }
}

/// Matches one byte; the length of pattern used.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => (byte != b'/').then_some(1),
        [b'[', rest @ ..] => set(rest, byte).map(|len| len + 1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [plain, ..] => (*plain == byte).then_some(1),
        [] => None,
    }
}

/// `rest` follows the `[`. A set never matches `/`.
fn set(rest: &[u8], byte: u8) -> Option<usize> {
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    let mut at = usize::from(negated);
    let mut found = false;
    let mut first = true;
    loop {
        let low = match rest.get(at)? {
            b']' if !first => break,
            b'[' if rest.get(at + 1) == Some(&b':') => {
                let len = rest[at + 2..].windows(2).position(|pair| pair == b":]")?;
                found |= class(&rest[at + 2..at + 2 + len], byte)?;
                at += len + 4;
                first = false;
                continue;
            }
            b'\\' => {
                at += 1;
                *rest.get(at)?
            }
            plain => *plain,
        };
        first = false;
        at += 1;
        let is_range =
            rest.get(at) == Some(&b'-') && !matches!(rest.get(at + 1), Some(b']') | None);
        let high = match is_range {
            true => {
                at += if rest[at + 1] == b'\\' { 2 } else { 1 };
                let high = *rest.get(at)?;
                at += 1;
                high
            }
            false => low,
        };
        found |= (low..=high).contains(&byte);
    }
    (found != negated && byte != b'/').then_some(at + 1)
}

fn class(name: &[u8], byte: u8) -> Option<bool> {
    Some(match name {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
