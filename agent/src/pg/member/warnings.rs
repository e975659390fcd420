//! What is not as it should be and stops nothing, one line for each thing that was tried. A line stays
//! until the same thing goes well; it decides nothing.

use std::collections::BTreeMap;

/// What a line is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum About {
    Cgroup,
    Settings,
    Signal,
    OldCopy,
    Roles,
    Books,
    Slots,
    Manager,
}

#[derive(Default)]
pub struct Warnings(BTreeMap<About, String>);

impl Warnings {
    /// Empty: nothing is wrong with it.
    pub fn set(&mut self, about: About, text: impl Into<String>) {
        let text = text.into();
        if text.is_empty() {
            self.0.remove(&about);
        } else {
            self.0.insert(about, text);
        }
    }

    /// What came of trying.
    pub fn note<T, E: ToString>(&mut self, about: About, tried: Result<T, E>) {
        self.set(about, tried.err().map(|error| error.to_string()).unwrap_or_default());
    }

    pub fn lines(&self) -> impl Iterator<Item = &String> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_until_the_same_thing_goes_well() {
        let mut warnings = Warnings::default();
        let failed: Result<(), _> = Err("no room");
        warnings.note(About::Slots, failed);
        warnings.set(About::Cgroup, "");
        warnings.note(About::Roles, Ok::<(), String>(()));
        assert_eq!(warnings.lines().collect::<Vec<_>>(), ["no room"], "others went well");
        warnings.note(About::Slots, Ok::<(), String>(()));
        assert_eq!(warnings.lines().count(), 0);
    }
}
