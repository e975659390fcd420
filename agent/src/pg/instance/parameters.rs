//! The file with the cluster's own settings, which postgres may refuse: the last ones that it started
//! with are kept, and ones that it did not start with are remembered and not tried again.

use std::path::PathBuf;

use super::conf::PARAMETERS_FILE;
use super::files;
use super::layout::Layout;

/// Beside Lockstep's other files for the instance.
const GOOD_FILE: &str = "parameters.good";
const REFUSED_FILE: &str = "parameters.refused";
/// Before the settings in the file of those refused: why.
const WHY: &str = "# refused: ";
const WHY_MAX: usize = 1000;

/// What became of settings.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Written {
    pub changed: bool,
    pub why: Option<String>,
}

pub struct State {
    current: Option<String>,
    refused: Option<String>,
}

fn current(layout: &Layout) -> PathBuf {
    layout.config.join(PARAMETERS_FILE)
}

impl State {
    pub fn read(layout: &Layout) -> Result<Self, String> {
        let owner = &layout.owner;
        Ok(Self {
            current: files::read(&current(layout), owner)?,
            refused: files::read(&layout.private.join(REFUSED_FILE), owner)?,
        })
    }

    /// Some: there is nothing to be tried.
    pub fn settled(&self, text: &str) -> Option<Written> {
        if let Some((why, settings)) = self.refused.as_deref().and_then(|r| r.split_once('\n'))
            && settings == text
        {
            let why = why.strip_prefix(WHY).unwrap_or(why).to_owned();
            return Some(Written { changed: false, why: Some(why) });
        }
        (self.current.as_deref() == Some(text)).then(Written::default)
    }

    pub fn put(&self, layout: &Layout, text: &str) -> Result<Written, String> {
        let changed = files::write(&current(layout), text, 0o600, &layout.owner)?;
        Ok(Written { changed, why: None })
    }

    /// What is in force stays.
    pub fn refuse(&self, layout: &Layout, text: &str, why: &str) -> Result<Written, String> {
        note_refused(layout, text, why)?;
        Ok(Written { changed: false, why: Some(why.to_owned()) })
    }
}

fn note_refused(layout: &Layout, text: &str, why: &str) -> Result<(), String> {
    let why: String =
        why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WHY_MAX).collect();
    let noted = format!("{WHY}{why}\n{text}");
    files::write(&layout.private.join(REFUSED_FILE), &noted, 0o600, &layout.owner).map(drop)
}

/// The file's text.
pub fn in_force(layout: &Layout) -> Result<String, String> {
    Ok(files::read(&current(layout), &layout.owner)?.unwrap_or_default())
}

/// postgres started with what there is.
pub fn accept(layout: &Layout) -> Result<(), String> {
    match files::read(&current(layout), &layout.owner)? {
        Some(text) => {
            files::write(&layout.private.join(GOOD_FILE), &text, 0o600, &layout.owner).map(drop)
        }
        None => Ok(()),
    }
}

/// postgres did not start: true when other settings were known to work, which are in place now.
pub fn go_back(layout: &Layout) -> Result<bool, String> {
    let now = files::read(&current(layout), &layout.owner)?;
    let good = files::read(&layout.private.join(GOOD_FILE), &layout.owner)?;
    match (now, good) {
        (Some(now), Some(good)) if now != good => {
            note_refused(layout, &now, "postgres did not start with them")?;
            files::write(&current(layout), &good, 0o600, &layout.owner)
        }
        _ => Ok(false),
    }
}
