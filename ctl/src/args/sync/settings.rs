//! The settings of a sync as options of the command line, made from the model's one table. Reads no
//! file: what `--exclude-from` names is read in `cmd::sync::filters`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueEnum, value_parser};
use lockstep_model::setting::Value;
use lockstep_model::sync::{Filter, Pattern, SyncOptions};

use crate::args::settings::{self, Emptiers, beside};

/// What was given, and nothing else.
#[derive(Clone, Debug, Default)]
pub struct SettingArgs {
    /// Without filters. An empty text empties a repeated setting.
    pub values: Vec<Value>,
    /// In the order of the command line. Empty: no filters; None: not named.
    pub rules: Option<Vec<Rule>>,
}

/// What becomes filters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rule {
    Filter(Filter),
    /// A file of rules, which exclude or include unless they say so themselves.
    File {
        path: PathBuf,
        include: bool,
    },
    Preset(Preset),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Preset {
    /// Temporary, swap and lock files of editors and office programs.
    Editors,
}

const FILTER: &str = "filter";

/// Repeated settings, and the option that empties each.
const EMPTIERS: &Emptiers = &[
    (FILTER, "no-filter"),
    ("priority", "no-priority"),
    ("ignore", "no-ignore"),
    ("hook", "no-hook"),
];

impl Args for SettingArgs {
    fn augment_args(command: Command) -> Command {
        let command = settings::add::<SyncOptions>(command, EMPTIERS);
        sugar()
            .into_iter()
            .fold(command, |command, arg| command.arg(arg.conflicts_with("no-filter")))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Other ways to say filters. They and `--filter` are taken in the order in which they stand.
fn sugar() -> [Arg; 5] {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        let arg = Arg::new(name).long(name).value_name(value).help(help);
        beside(arg).action(ArgAction::Append)
    };
    let pattern = |text: &str| text.parse::<Pattern>().map_err(|problem| problem.problem);
    [
        option("exclude", "PATTERN", "As --filter '- PATTERN'").value_parser(pattern),
        option("include", "PATTERN", "As --filter '+ PATTERN'").value_parser(pattern),
        option(
            "exclude-from",
            "FILE",
            "Patterns of a file as rsync reads it, one a line; - is stdin",
        )
        .value_parser(value_parser!(PathBuf)),
        option("include-from", "FILE", "As --exclude-from, for patterns to keep")
            .value_parser(value_parser!(PathBuf)),
        option("exclude-preset", "NAME", "Leave out what is known under a name")
            .value_parser(value_parser!(Preset)),
    ]
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let values = settings::read::<SyncOptions>(matches, EMPTIERS, |name| name != FILTER);
        Ok(Self { values, rules: rules(matches) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn rules(matches: &ArgMatches) -> Option<Vec<Rule>> {
    let mut found: Vec<(usize, Option<Rule>)> = Vec::new();
    let filter = |include| {
        move |pattern: &Pattern| Some(Rule::Filter(Filter { include, pattern: pattern.clone() }))
    };
    let file = |include| move |path: &PathBuf| Some(Rule::File { path: path.clone(), include });
    // Checked before; an empty one only says that there shall be none.
    let line = |text: &String| text.parse().ok().map(Rule::Filter);
    collect(matches, FILTER, &mut found, line);
    collect(matches, "exclude", &mut found, filter(false));
    collect(matches, "include", &mut found, filter(true));
    collect(matches, "exclude-from", &mut found, file(false));
    collect(matches, "include-from", &mut found, file(true));
    collect(matches, "exclude-preset", &mut found, |preset: &Preset| Some(Rule::Preset(*preset)));
    if found.is_empty() && !matches.get_flag("no-filter") {
        return None;
    }
    found.sort_by_key(|(index, _)| *index);
    Some(found.into_iter().filter_map(|(_, rule)| rule).collect())
}

fn collect<T: Clone + Send + Sync + 'static>(
    matches: &ArgMatches,
    id: &str,
    found: &mut Vec<(usize, Option<Rule>)>,
    rule: impl Fn(&T) -> Option<Rule>,
) {
    let indices = matches.indices_of(id).into_iter().flatten();
    let values = matches.get_many::<T>(id).into_iter().flatten();
    found.extend(indices.zip(values).map(|(index, value)| (index, rule(value))));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<SettingArgs, String> {
        let command = SettingArgs::augment_args(Command::new("x").no_binary_name(true));
        let matches = command.try_get_matches_from(args).map_err(|e| e.to_string())?;
        SettingArgs::from_arg_matches(&matches).map_err(|e| e.to_string())
    }

    fn texts(args: &[&str]) -> Vec<String> {
        let values = parse(args).unwrap().values;
        values.iter().map(|Value { name, text }| format!("{name}={text}")).collect()
    }

    #[test]
    fn only_what_is_named_is_given() {
        assert_eq!(texts(&[]), [""; 0]);
        assert_eq!(parse(&[]).unwrap().rules, None);
        assert_eq!(
            texts(&["--hard-links", "--bwlimit", "10M", "--perms=no", "--delete", "never"]),
            ["delete=never", "perms=no", "hard-links=yes", "bwlimit=10M"]
        );
        assert_eq!(
            texts(&["--priority", "/a", "--priority", "b*", "--no-hook"]),
            ["priority=/a", "priority=b*", "hook="]
        );
    }

    #[test]
    fn filters_keep_the_order_in_which_they_are_typed() {
        let given = parse(&[
            "--include",
            "/keep/",
            "--exclude-from",
            "list",
            "--filter",
            "- *.tmp",
            "--exclude-preset",
            "editors",
            "--include-from",
            "more",
            "--exclude",
            "*",
        ]);
        let filter = |text: &str| Rule::Filter(text.parse().unwrap());
        let file = |path: &str, include| Rule::File { path: path.into(), include };
        assert_eq!(
            given.unwrap().rules.unwrap(),
            [
                filter("+ /keep/"),
                file("list", false),
                filter("- *.tmp"),
                Rule::Preset(Preset::Editors),
                file("more", true),
                filter("- *"),
            ]
        );
        assert_eq!(parse(&["--no-filter"]).unwrap().rules, Some(vec![]));
        assert_eq!(parse(&["--filter", ""]).unwrap().rules, Some(vec![]));
    }

    #[test]
    fn every_repeated_setting_can_be_emptied() {
        let emptied: Vec<_> = EMPTIERS.iter().map(|(name, _)| *name).collect();
        assert_eq!(emptied, settings::repeated::<SyncOptions>());
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_option() {
        for (args, says) in [
            (&["--delete", "maybe"][..], "--delete"),
            (&["--hard-links=2"], "--hard-links"),
            (&["--delay", "1500ms"], "whole seconds"),
            (&["--filter", "*.tmp"], "'- '"),
            (&["--filter", ". /etc/passwd"], "'- '"),
            (&["--exclude", "a\nb"], "--exclude"),
            (&["--chmod", "$(id)"], "--chmod"),
            (&["--exclude-preset", "all"], "editors"),
            (&["--no-filter", "--exclude", "x"], "--exclude"),
            (&["--sentinel", "../../etc/passwd"], "--sentinel"),
            (&["--hook", "/bin/sh"], "--hook"),
        ] {
            let problem = parse(args).unwrap_err();
            assert!(problem.contains(says), "{args:?}: {problem}");
        }
    }
}
