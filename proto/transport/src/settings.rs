//! One table of settings per program, and from it everything that knows a setting: the config file,
//! the flags, the `LOCKSTEP_*` variables, `--help`, the reference page and the example file. Reads
//! no file and no environment itself: text goes in, typed values or every mistake at once come out.
//!
//! Precedence: flag, then environment, then config file, then default. A setting is spelled the
//! same everywhere: `health-listen` in the file, `--health-listen`, `LOCKSTEP_HEALTH_LISTEN`. A
//! mistake in a source that another one overrides is still a mistake.

mod file;
mod render;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

pub use value::{FromValue, Kind, Raw, Value};

/// The exit code of a program whose settings were refused.
pub const EXIT_SETTINGS: u8 = 2;
/// The longest config file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// At most this many mistakes are listed.
pub const ERRORS_MAX: usize = 100;
/// What every variable starts with.
pub const VARIABLE_PREFIX: &str = "LOCKSTEP_";
/// The variable that names the config file itself; the programs read it before this table is asked.
pub const CONFIG_VARIABLE: &str = "LOCKSTEP_CONFIG";

/// One setting: its only definition.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Words in lower case joined by dashes, such as `health-listen`.
    pub key: &'static str,
    pub kind: Kind,
    /// Written as in the file, without quotes; for a list, its items joined by commas.
    pub default: Option<&'static str>,
    /// Without a value from any source the program does not start.
    pub required: bool,
    /// No flag (argv can be read by others), and never shown.
    pub secret: bool,
    /// One or two sentences for `--help`, the reference and the example.
    pub help: &'static str,
    /// A value that a user could really write, spelled like `default`.
    pub example: &'static str,
}

impl Setting {
    /// An optional setting without a default; the other fields are set by the methods below.
    pub const fn new(
        key: &'static str,
        kind: Kind,
        help: &'static str,
        example: &'static str,
    ) -> Self {
        Self { key, kind, default: None, required: false, secret: false, help, example }
    }

    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// `LOCKSTEP_HEALTH_LISTEN` for `health-listen`.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key.to_ascii_uppercase().replace('-', "_"))
    }

    fn parse(&self, raw: &Raw) -> Result<Value, String> {
        self.kind.parse(raw).map_err(|expected| {
            let (found, expected) = match self.secret {
                true => ("the value (not shown)".into(), self.kind.shape()),
                false => (raw.shown(), expected),
            };
            format!("{found} is not {expected}; write it as in {}", self.written(self.example))
        })
    }
}

/// All settings of one program.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    pub program: &'static str,
    pub settings: &'static [Setting],
    /// `LOCKSTEP_*` variables of our other programs, which may be present and look like ours.
    pub other_variables: &'static [&'static str],
}

/// A config file that was read by the caller.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// How messages call it: its path.
    pub name: &'a str,
    pub text: &'a str,
}

/// One mistake, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct SettingError {
    /// The file's key with its line, the flag, or the variable.
    pub place: String,
    pub problem: String,
}

impl SettingError {
    /// For checks that need more than one value, such as "this address equals that one".
    pub fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

/// Where a value came from, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Default,
    File,
    Variable,
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "config file",
            Self::Variable => "environment",
            Self::Flag => "flag",
        })
    }
}

/// The value of every setting that has one.
#[derive(Clone)]
pub struct Values {
    table: Table,
    values: BTreeMap<&'static str, (Value, Origin)>,
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render_effective())
    }
}

impl Values {
    /// The value of a setting that has a default or is required. Fails only where table and caller
    /// disagree about key or type, which the program's own test sees.
    pub fn get<T: FromValue>(&self, key: &str) -> Result<T, SettingError> {
        self.find(key)?
            .ok_or_else(|| SettingError::new(format!("setting {key}"), "has no value; set it"))
    }

    /// The value of an optional setting.
    pub fn find<T: FromValue>(&self, key: &str) -> Result<Option<T>, SettingError> {
        let wrong = |problem: &str| SettingError::new(format!("setting {key}"), problem);
        if self.table.find(key).is_none() {
            return Err(wrong("is not in the table of settings; this is a bug"));
        }
        match self.values.get(key) {
            None => Ok(None),
            Some((value, _)) => match T::from_value(value) {
                Some(value) => Ok(Some(value)),
                None => Err(wrong("has another type in the table of settings; this is a bug")),
            },
        }
    }

    /// The settings whose values are others in `new`.
    pub fn differing(&self, new: &Self) -> Vec<&'static str> {
        let differs = |key: &&'static str| {
            let [old, new] = [self, new].map(|of| of.values.get(key).map(|(value, _)| value));
            old != new
        };
        self.table.settings.iter().map(|setting| setting.key).filter(differs).collect()
    }

    pub fn origin(&self, key: &str) -> Option<Origin> {
        self.values.get(key).map(|(_, origin)| *origin)
    }
}

/// One value as it was written, with the words that name the place.
struct Given {
    setting: &'static Setting,
    place: String,
    raw: Raw,
}

impl Table {
    pub fn find(&self, key: &str) -> Option<&'static Setting> {
        self.settings.iter().find(|setting| setting.key == key)
    }

    /// Resolves all sources; `environment` as from `std::env::vars_os`, `flags` as (key, value)
    /// pairs, a list's flag once per item. Every mistake of every source is returned, at most
    /// [`ERRORS_MAX`].
    pub fn load(
        &self,
        file: Option<File<'_>>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Values, Vec<SettingError>> {
        let mut errors = Vec::new();
        let mut values = BTreeMap::new();
        let sources = [
            (Origin::Default, self.read_defaults()),
            (Origin::File, file.map_or(Vec::new(), |file| self.read_file(file, &mut errors))),
            (Origin::Variable, self.read_environment(environment, &mut errors)),
            (Origin::Flag, self.read_flags(flags, &mut errors)),
        ];
        let mut tried = Vec::new();
        for (origin, given) in sources {
            for Given { setting, place, raw } in given {
                tried.push(setting.key);
                match setting.parse(&raw) {
                    Ok(value) => drop(values.insert(setting.key, (value, origin))),
                    Err(problem) => errors.push(SettingError { place, problem }),
                }
            }
        }
        for setting in self.settings.iter().filter(|setting| setting.required) {
            if !tried.contains(&setting.key) {
                errors.push(self.missing(setting));
            }
        }
        if errors.is_empty() {
            return Ok(Values { table: *self, values });
        }
        errors.truncate(ERRORS_MAX);
        Err(errors)
    }

    /// Holds the table against its own rules: keys unique and well spelled, defaults and examples
    /// understood. For a test of each program.
    pub fn check(&self) -> Result<(), Vec<SettingError>> {
        let mut errors = Vec::new();
        for (at, setting) in self.settings.iter().enumerate() {
            let mut wrong = |problem: &str| {
                errors.push(SettingError::new(format!("setting {}", setting.key), problem));
            };
            if !setting
                .key
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            {
                wrong("has a key other than lower case words joined by dashes");
            }
            if self.settings[..at].iter().any(|other| other.key == setting.key) {
                wrong("is in the table twice");
            }
            if setting.required && setting.default.is_some() {
                wrong("is required and has a default; keep one");
            }
            for text in [Some(setting.example), setting.default].into_iter().flatten() {
                if let Err(problem) = setting.parse(&Raw::Text(text.into())) {
                    wrong(&problem);
                }
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn missing(&self, setting: &Setting) -> SettingError {
        let flag = if setting.secret { String::new() } else { format!(", --{}", setting.key) };
        let problem = format!(
            "is required; set it in the config file{flag} or {} to {}, for example {}",
            setting.variable(),
            setting.kind.shape(),
            setting.written(setting.example),
        );
        SettingError::new(format!("setting {}", setting.key), problem)
    }

    fn read_defaults(&self) -> Vec<Given> {
        let defaults = self.settings.iter().filter_map(|setting| {
            let raw = Raw::Text(setting.default?.to_owned());
            Some(Given { setting, place: format!("default of {}", setting.key), raw })
        });
        defaults.collect()
    }

    fn read_environment(
        &self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        errors: &mut Vec<SettingError>,
    ) -> Vec<Given> {
        let mut given = Vec::new();
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with(VARIABLE_PREFIX)) else {
                continue;
            };
            // An empty variable is how a unit file or a shell says "not set".
            if value.is_empty() || name == CONFIG_VARIABLE || self.other_variables.contains(&name) {
                continue;
            }
            let place = format!("variable {name}");
            match self.settings.iter().find(|setting| setting.variable() == name) {
                Some(setting) => match value.into_string() {
                    Ok(text) => given.push(Given { setting, place, raw: Raw::Text(text) }),
                    Err(_) => errors.push(SettingError::new(place, "is not UTF-8 text")),
                },
                // A variable that looks like a mistyped setting is refused. Any other belongs to
                // someone else (a Kubernetes service called "lockstep" makes LOCKSTEP_PORT) and is
                // left alone.
                None => {
                    let key = name[VARIABLE_PREFIX.len()..].to_ascii_lowercase();
                    if let Some(near) = self.nearest(&key) {
                        let problem = format!("is unknown; did you mean {}?", near.variable());
                        errors.push(SettingError::new(place, problem));
                    }
                }
            }
        }
        given.sort_by_key(|given| given.setting.key);
        given
    }

    fn read_flags(
        &self,
        flags: impl IntoIterator<Item = (String, String)>,
        errors: &mut Vec<SettingError>,
    ) -> Vec<Given> {
        let mut given: Vec<Given> = Vec::new();
        for (key, text) in flags {
            let place = format!("flag --{key}");
            let Some(setting) = self.find(&key).filter(|setting| !setting.secret) else {
                let known = self.nearest(&key).filter(|near| !near.secret);
                let near = known.map(|near| format!("; did you mean --{}?", near.key));
                errors.push(SettingError::new(
                    place,
                    format!("is unknown{}", near.unwrap_or_default()),
                ));
                continue;
            };
            match given.iter_mut().find(|given| given.setting.key == setting.key) {
                None => given.push(Given { setting, place, raw: Raw::Text(text) }),
                Some(Given { raw: Raw::Text(items), .. }) if setting.kind.is_list() => {
                    items.push(',');
                    items.push_str(&text);
                }
                Some(_) => errors.push(SettingError::new(place, "is given twice; keep one")),
            }
        }
        given
    }

    /// The setting that an unknown word was probably meant to be.
    fn nearest(&self, word: &str) -> Option<&'static Setting> {
        let word = word.to_ascii_lowercase().replace('_', "-");
        let distances = self.settings.iter().map(|setting| (distance(&word, setting.key), setting));
        let (distance, setting) = distances.min_by_key(|(distance, _)| *distance)?;
        (distance <= 2 && distance < setting.key.len() / 2).then_some(setting)
    }
}

/// How many insertions, deletions, replacements and swaps of neighbours lead from one word to the
/// other.
fn distance(a: &str, b: &str) -> usize {
    const WORD_MAX: usize = 64;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > WORD_MAX || b.len() > WORD_MAX {
        return usize::MAX;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests;
