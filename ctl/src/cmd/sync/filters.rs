//! What `--exclude-from` and the like become: rules in order, as settings. Files are read here, in
//! rsync's format.

use std::io::Read;
use std::path::Path;

use lockstep_model::setting::Value;
use lockstep_model::sync::{Filter, Pattern};

use crate::args::sync::{Preset, Rule, SettingArgs};
use crate::error::Failure;

/// Longest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Named in docs/syncs.md.
pub const EDITORS: &[&str] = &[
    "*~",
    ".*.sw[a-z]",
    ".*.un~",
    "4913",
    "#*#",
    ".#*",
    ".goutputstream-*",
    "*.kate-swp",
    "*___jb_tmp___",
    "*___jb_old___",
    ".~lock.*#",
    "~$*",
];

/// Every setting that was named.
pub fn values(settings: SettingArgs) -> Result<Vec<Value>, Failure> {
    let SettingArgs { mut values, rules } = settings;
    let Some(rules) = rules else { return Ok(values) };
    let value = |text: String| Value { name: "filter".to_owned(), text };
    let mut filters = Vec::new();
    for rule in rules {
        match rule {
            Rule::Filter(filter) => filters.push(filter),
            Rule::Preset(Preset::Editors) => {
                for pattern in EDITORS {
                    filters.push(Filter::exclude(pattern.parse()?));
                }
            }
            Rule::File { path, include } => {
                let text = text_of(&path, FILE_BYTES_MAX)?;
                let read = rules_of(&text, include);
                filters.extend(read.map_err(|e| Failure::usage(e).within(path.display()))?);
            }
        }
    }
    if filters.is_empty() {
        values.push(value(String::new()));
    }
    values.extend(filters.iter().map(|filter| value(filter.to_string())));
    Ok(values)
}

/// A file of a person's, or stdin for "-".
pub fn text_of(path: &Path, bytes_max: u64) -> Result<String, Failure> {
    let failed = |problem: &dyn std::fmt::Display| {
        Failure::usage(problem.to_string()).within(path.display())
    };
    let mut bytes = Vec::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().take(bytes_max + 1).read_to_end(&mut bytes),
        _ => std::fs::File::open(path).and_then(|f| f.take(bytes_max + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|error| failed(&error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(failed(&format_args!("is larger than {bytes_max} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| failed(&"is not UTF-8"))
}

/// A rule per line; blank lines and those that begin with `#` or `;` say nothing.
fn rules_of(text: &str, include: bool) -> Result<Vec<Filter>, String> {
    let mut rules = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let wrong = |why: String| format!("line {}: {why}", index + 1);
        if line == "!" {
            return Err(wrong("'!' cannot clear what stands before; leave that out".to_owned()));
        }
        let rule = match line.get(..2) {
            Some("- " | "+ ") => line.parse::<Filter>(),
            _ => line.parse::<Pattern>().map(|pattern| Filter { include, pattern }),
        };
        rules.push(rule.map_err(|problem| wrong(problem.to_string()))?);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str, include: bool) -> Result<Vec<String>, String> {
        Ok(rules_of(text, include)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_file_is_read_as_rsync_reads_it() {
        let text = "# a comment\n; another\n\n*.tmp\r\n+ /keep/\n- x y \n #no comment\n-dash";
        let excluded = ["- *.tmp", "+ /keep/", "- x y ", "-  #no comment", "- -dash"];
        assert_eq!(texts(text, false).unwrap(), excluded);
        assert_eq!(texts("a\n- b", true).unwrap(), ["+ a", "- b"]);
        assert!(texts("a\n!\n", false).unwrap_err().contains("line 2"));
        assert!(texts("a\nb\tc", false).unwrap_err().contains("line 2"));
        assert!(texts("+ ", false).unwrap_err().contains("pattern"));
    }

    #[test]
    fn rules_become_one_list_in_order() {
        let rules = [
            Rule::Filter("+ *~".parse().unwrap()),
            Rule::Preset(Preset::Editors),
            Rule::Filter("- *".parse().unwrap()),
        ];
        let given = SettingArgs { values: vec![], rules: Some(rules.into()) };
        let values = values(given).unwrap();
        let texts: Vec<&str> = values.iter().map(|value| value.text.as_str()).collect();
        assert_eq!(texts[..2], ["+ *~", "- *~"]);
        assert_eq!(texts.len(), EDITORS.len() + 2);
        assert_eq!(texts.last(), Some(&"- *"));
    }

    #[test]
    fn no_filters_is_not_nothing_named() {
        let emptied = SettingArgs { values: vec![], rules: Some(vec![]) };
        assert_eq!(values(emptied).unwrap()[0].text, "");
        assert_eq!(values(SettingArgs::default()).unwrap(), []);
    }
}
