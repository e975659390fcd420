//! Settings with a text form each: one table per kind of thing for the command line, the wire, the
//! store and the manual. A value that is written is read back as the same.

pub(crate) mod text;

use crate::id::quote;
use crate::reject::Invalid;

/// One row of the table of `O`.
#[derive(Debug)]
pub struct Setting<O> {
    pub name: &'static str,
    /// What stands for a value in help texts; empty for yes or no.
    pub value: &'static str,
    pub help: &'static str,
    /// May be given more than once; order is kept.
    pub repeated: bool,
    pub(crate) read: fn(&mut O, &str) -> Result<(), Invalid>,
    pub(crate) write: fn(&O) -> Vec<String>,
    pub(crate) reset: fn(&mut O, O),
}

impl<O> Setting<O> {
    pub fn is_flag(&self) -> bool {
        self.value.is_empty()
    }
}

/// `name`, and a text that its row reads.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Value {
    pub name: String,
    pub text: String,
}

/// Most values of one thing.
pub const VALUES_MAX: usize = 512;

/// Options that are given as settings.
pub trait Settings: Default + 'static {
    /// In the order of the manual.
    const TABLE: &'static [Setting<Self>];

    /// What no single setting can tell.
    fn check_together(&self) -> Result<(), Invalid>;

    fn from_values<'a>(
        values: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Invalid> {
        let mut options = Self::default();
        options.set(values)?;
        options.check()?;
        Ok(options)
    }

    /// Only what differs from the default, in the table's order.
    fn values(&self) -> Vec<Value> {
        let plain = Self::default();
        let differs = |row: &&Setting<Self>| (row.write)(self) != (row.write)(&plain);
        let of = |row: &Setting<Self>| {
            let name = row.name;
            (row.write)(self).into_iter().map(move |text| Value { name: name.to_owned(), text })
        };
        Self::TABLE.iter().filter(differs).flat_map(of).collect()
    }

    /// Every setting with its text, defaults too.
    fn all_values(&self) -> Vec<(&'static str, Vec<String>)> {
        Self::TABLE.iter().map(|row| (row.name, (row.write)(self))).collect()
    }

    /// Those that are named are replaced as a whole, the others stay. An empty text of a repeated
    /// one empties it. Not checked against each other.
    fn set<'a>(
        &mut self,
        values: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), Invalid> {
        let mut begun: Vec<&str> = Vec::new();
        for (name, text) in values {
            let row = Self::find(name)?;
            let again = begun.contains(&row.name);
            if again && !row.repeated {
                return Err(Invalid::new(name, "is given twice"));
            }
            if !again {
                begun.push(row.name);
                (row.reset)(self, Self::default());
                if row.repeated && text.is_empty() {
                    continue;
                }
            }
            (row.read)(self, text).map_err(|problem| Invalid::new(name, problem.problem))?;
        }
        Ok(())
    }

    /// Each value by itself, and all of them together.
    fn check(&self) -> Result<(), Invalid> {
        for Value { name, text } in self.values() {
            let read = Self::find(&name)?.read;
            read(&mut Self::default(), &text).map_err(|e| Invalid::new(name, e.problem))?;
        }
        self.check_together()
    }

    /// The row of a name, or an error that says which there are.
    fn find(name: &str) -> Result<&'static Setting<Self>, Invalid> {
        Self::TABLE.iter().find(|row| row.name == name).ok_or_else(|| {
            let names: Vec<&str> = Self::TABLE.iter().map(|row| row.name).collect();
            let problem = format!("{} is unknown; there are {}", quote(name), names.join(", "));
            Invalid::new("setting", problem)
        })
    }
}

/// Why a list may not be as long as it is.
pub(crate) fn at_most(name: &'static str, len: usize, max: usize) -> Result<(), Invalid> {
    match len > max {
        true => Err(Invalid::new(name, format!("must be at most {max}, not {len}"))),
        false => Ok(()),
    }
}

macro_rules! flag {
    ($name:literal, $($field:ident).+, $help:literal) => {
        $crate::setting::Setting {
            name: $name,
            value: "",
            help: $help,
            repeated: false,
            read: |o, text| { o.$($field).+ = $crate::setting::text::yes_no(text)?; Ok(()) },
            write: |o| $crate::setting::text::word(o.$($field).+),
            reset: |o, plain| o.$($field).+ = plain.$($field).+,
        }
    };
}

macro_rules! one {
    ($name:literal, $value:literal, $($field:ident).+, $read:expr, $write:expr, $help:literal) => {
        $crate::setting::Setting {
            name: $name,
            value: $value,
            help: $help,
            repeated: false,
            read: |o, text| { o.$($field).+ = $read(text)?; Ok(()) },
            write: |o| $write(&o.$($field).+),
            reset: |o, plain| o.$($field).+ = plain.$($field).+,
        }
    };
}

macro_rules! many {
    ($name:literal, $value:literal, $field:ident, $type:ty, $help:literal) => {
        $crate::setting::Setting {
            name: $name,
            value: $value,
            help: $help,
            repeated: true,
            read: |o, text| {
                o.$field.push(text.parse::<$type>()?);
                Ok(())
            },
            write: |o| $crate::setting::text::texts(&o.$field),
            reset: |o, _| o.$field.clear(),
        }
    };
}

pub(crate) use {flag, many, one};
