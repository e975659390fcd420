//! The settings of a cluster and of its members as options of the command line, made from the model's
//! tables.

use std::str::FromStr;

use clap::{ArgMatches, Args, Command, FromArgMatches};
use lockstep_model::cluster::{ClusterOptions, MemberOptions};
use lockstep_model::id::quote;
use lockstep_model::setting::{Settings, Value};
use lockstep_model::{Invalid, NodeName};

use crate::args::settings::{self, Emptiers};

/// What was given of a cluster's settings, and nothing else. An empty text empties a repeated one.
#[derive(Clone, Debug, Default)]
pub struct ClusterArgs(pub Vec<Value>);

/// What was given of a member's settings.
#[derive(Clone, Debug, Default)]
pub struct MemberArgs(pub Vec<Value>);

/// Repeated settings, and the option that empties each.
const OF_CLUSTERS: &Emptiers =
    &[("parameter", "no-parameter"), ("hba", "no-hba"), ("initdb-option", "no-initdb-option")];
const OF_MEMBERS: &Emptiers = &[("tag", "no-tag")];

macro_rules! args_of {
    ($args:ident, $options:ident, $emptiers:ident) => {
        impl Args for $args {
            fn augment_args(command: Command) -> Command {
                settings::add::<$options>(command, $emptiers)
            }

            fn augment_args_for_update(command: Command) -> Command {
                Self::augment_args(command)
            }
        }

        impl FromArgMatches for $args {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self(settings::read::<$options>(matches, $emptiers, |_| true)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}

args_of!(ClusterArgs, ClusterOptions, OF_CLUSTERS);
args_of!(MemberArgs, MemberOptions, OF_MEMBERS);

/// `db3:never-promote=yes`: a setting of one member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberValue {
    pub node: NodeName,
    pub value: Value,
}

impl FromStr for MemberValue {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parts =
            text.split_once(':').and_then(|(node, rest)| Some((node, rest.split_once('=')?)));
        let Some((node, (name, value))) = parts else {
            let problem = format!("must look like db3:never-promote=yes, not {}", quote(text));
            return Err(Invalid::new("member", problem));
        };
        let node = node.parse()?;
        MemberOptions::default().set([(name, value)])?;
        Ok(Self { node, value: Value { name: name.to_owned(), text: value.to_owned() } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<A: Args>(args: &[&str]) -> Result<A, String> {
        let command = A::augment_args(Command::new("x").no_binary_name(true));
        let matches = command.try_get_matches_from(args).map_err(|e| e.to_string())?;
        A::from_arg_matches(&matches).map_err(|e| e.to_string())
    }

    fn texts(values: &[Value]) -> Vec<String> {
        values.iter().map(|Value { name, text }| format!("{name}={text}")).collect()
    }

    #[test]
    fn every_repeated_setting_can_be_emptied() {
        let names =
            |emptiers: &Emptiers| emptiers.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names(OF_CLUSTERS), settings::repeated::<ClusterOptions>());
        assert_eq!(names(OF_MEMBERS), settings::repeated::<MemberOptions>());
    }

    #[test]
    fn settings_are_taken_as_they_are_typed() {
        let args = [
            "--sync",
            "2",
            "--initdb-option",
            "--encoding=UTF8",
            "--parameter",
            "max_connections=200",
            "--hba",
            "hostssl app app 10.0.0.0/8 scram-sha-256",
            "--salvage=no",
            "--keep-old-data",
        ];
        let ClusterArgs(values) = parse(&args).unwrap();
        assert_eq!(
            texts(&values),
            [
                "sync=2",
                "salvage=no",
                "keep-old-data=yes",
                "parameter=max_connections=200",
                "hba=hostssl app app 10.0.0.0/8 scram-sha-256",
                "initdb-option=--encoding=UTF8",
            ]
        );
        let MemberArgs(values) = parse(&["--never-promote", "--delay", "1h", "--no-tag"]).unwrap();
        assert_eq!(texts(&values), ["never-promote=yes", "delay=1h", "tag="]);
    }

    #[test]
    fn a_setting_of_a_member_names_it() {
        let read = |text: &str| text.parse::<MemberValue>();
        let value = read("db3:tag=rack=r1").unwrap();
        assert_eq!((value.node.as_str(), value.value.text.as_str()), ("db3", "rack=r1"));
        for (text, says) in [
            ("db3", "must look like"),
            ("db3:priority", "must look like"),
            ("-x:priority=1", "node name"),
            ("db3:priority=x", "priority"),
            ("db3:prioritaet=1", "unknown"),
        ] {
            let problem = read(text).unwrap_err().to_string();
            assert!(problem.contains(says), "{text}: {problem}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_option() {
        for (args, says) in [
            (&["--sync", "0"][..], "--sync"),
            (&["--parameter", "fsync=off"], "fsync is Lockstep's"),
            (&["--hba", "all"], "--hba"),
            (&["--initdb-option", "--pwfile=/x"], "--initdb-option"),
            (&["--manager", "systemd:x"], "--manager"),
            (&["--lease", "1s"], "--lease"),
        ] {
            let problem = parse::<ClusterArgs>(args).unwrap_err();
            assert!(problem.contains(says), "{args:?}: {problem}");
        }
    }
}
