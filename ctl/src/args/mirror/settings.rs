//! The settings of a mirror as options of the command line, made from the model's one table.

use clap::{ArgMatches, Args, Command, FromArgMatches};
use lockstep_model::mirror::MirrorOptions;
use lockstep_model::setting::Value;

use crate::args::settings::{self, Emptiers};

/// What was given, and nothing else. An empty text empties a repeated setting.
#[derive(Clone, Debug, Default)]
pub struct SettingArgs(pub Vec<Value>);

/// Repeated settings, and the option that empties each.
const EMPTIERS: &Emptiers = &[
    ("rsync-option", "no-rsync-option"),
    ("filter", "no-filter"),
    ("further-upstream", "no-further-upstream"),
    ("replica-rsync-option", "no-replica-rsync-option"),
    ("replica-filter", "no-replica-filter"),
    ("late", "no-late"),
    ("hook", "no-hook"),
];

impl Args for SettingArgs {
    fn augment_args(command: Command) -> Command {
        settings::add::<MirrorOptions>(command, EMPTIERS)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(settings::read::<MirrorOptions>(matches, EMPTIERS, |_| true)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Vec<String>, String> {
        let command = SettingArgs::augment_args(Command::new("x").no_binary_name(true));
        let matches = command.try_get_matches_from(args).map_err(|e| e.to_string())?;
        let given = SettingArgs::from_arg_matches(&matches).map_err(|e| e.to_string())?;
        Ok(given.0.iter().map(|Value { name, text }| format!("{name}={text}")).collect())
    }

    #[test]
    fn every_repeated_setting_can_be_emptied() {
        let emptied: Vec<_> = EMPTIERS.iter().map(|(name, _)| *name).collect();
        assert_eq!(emptied, settings::repeated::<MirrorOptions>());
    }

    #[test]
    fn options_of_rsync_are_taken_as_they_are_typed() {
        assert_eq!(
            parse(&[
                "--rsync-option",
                "--exclude=*.iso",
                "--rsync-option=-z",
                "--rsync-option",
                "--exclude=a b",
                "--delete",
                "after",
                "--rsync-defaults",
                "-rlptH",
                "--filter",
                "- *.tmp",
                "--two-stage",
            ])
            .unwrap(),
            [
                "rsync-defaults=-rlptH",
                "rsync-option=--exclude=*.iso",
                "rsync-option=-z",
                "rsync-option=--exclude=a b",
                "delete=after",
                "filter=- *.tmp",
                "two-stage=yes",
            ]
        );
        assert_eq!(
            parse(&["--rsync-defaults", "", "--no-rsync-option"]).unwrap(),
            ["rsync-defaults=", "rsync-option="]
        );
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_option() {
        for (args, says) in [
            (&["--rsync-option", "-e"][..], "-e is not allowed"),
            (&["--rsync-option", "--rsync-path=/tmp/x"], "--rsync-path is not allowed"),
            (&["--rsync-option", "--daemon"], "--daemon is not allowed"),
            (&["--rsync-option", "--exclud=x"], "--exclud"),
            (&["--delete", "maybe"], "--delete"),
            (&["--rsync-optoin", "-z"], "--rsync-option"),
            (&["--hook", "/bin/sh"], "--hook"),
        ] {
            let problem = parse(args).unwrap_err();
            assert!(problem.contains(says), "{args:?}: {problem}");
        }
    }
}
