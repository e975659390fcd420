//! Settings as options of the command line, made from the model's tables. Knows no single setting.

use clap::{Arg, ArgAction, ArgMatches, Command};
use lockstep_model::setting::{Setting, Settings, Value};

const HEADING: &str = "Settings";

/// Repeated settings, and the option that empties each.
pub type Emptiers = [(&'static str, &'static str)];

/// Puts the option among those that only the long help shows.
pub fn beside(arg: Arg) -> Arg {
    arg.help_heading(HEADING).hide_short_help(true)
}

/// An option per setting, and one for each that can be emptied.
pub fn add<O: Settings>(command: Command, emptiers: &Emptiers) -> Command {
    let command = O::TABLE.iter().fold(command, |command, row| command.arg(option(row)));
    emptiers.iter().fold(command, |command, (name, none)| {
        let help = format!("Empty {name}");
        let none = Arg::new(*none).long(*none).action(ArgAction::SetTrue).help(help);
        command.arg(beside(none).conflicts_with(*name))
    })
}

/// What was given of those that `is_meant`, and nothing else. An empty text empties a setting.
pub fn read<O: Settings>(
    matches: &ArgMatches,
    emptiers: &Emptiers,
    is_meant: impl Fn(&str) -> bool,
) -> Vec<Value> {
    let mut values = Vec::new();
    for row in O::TABLE.iter().filter(|row| is_meant(row.name)) {
        let texts = matches.get_many::<String>(row.name).into_iter().flatten();
        let value = |text: &String| Value { name: row.name.to_owned(), text: text.clone() };
        values.extend(texts.map(value));
    }
    for (name, none) in emptiers.iter().filter(|(name, _)| is_meant(name)) {
        if matches.get_flag(none) {
            values.push(Value { name: (*name).to_owned(), text: String::new() });
        }
    }
    values
}

fn option<O: Settings>(row: &'static Setting<O>) -> Arg {
    let default = O::default().all_values();
    let default = default.into_iter().find(|(name, _)| *name == row.name);
    let default = default.map(|(_, texts)| texts.join(" ")).unwrap_or_default();
    let help = match default.as_str() {
        "" => row.help.to_owned(),
        text => format!("{} [default: {text}]", row.help),
    };
    let arg = beside(Arg::new(row.name).long(row.name).help(help))
        .value_parser(move |text: &str| check(row, text));
    if row.is_flag() {
        let arg = arg.value_name("yes|no").num_args(0..=1).require_equals(true);
        return arg.default_missing_value("yes").action(ArgAction::Set);
    }
    let action = if row.repeated { ArgAction::Append } else { ArgAction::Set };
    // rsync's options and rules begin with a hyphen themselves.
    let is_hyphened = row.name.ends_with("filter") || row.value.starts_with("OPTION");
    arg.value_name(row.value).action(action).allow_hyphen_values(is_hyphened)
}

/// Of one value by itself.
fn check<O: Settings>(row: &Setting<O>, text: &str) -> Result<String, String> {
    let checked = O::default().set([(row.name, text)]);
    checked.map(|()| text.to_owned()).map_err(|problem| problem.problem)
}

/// The repeated settings of a table, as the emptiers have to name them.
#[cfg(test)]
pub fn repeated<O: Settings>() -> Vec<&'static str> {
    O::TABLE.iter().filter(|row| row.repeated).map(|row| row.name).collect()
}
