//! The words of `sync`. What they do is in `cmd::sync`.

mod settings;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use lockstep_model::label::Selector;
use lockstep_model::path::DirPath;
use lockstep_model::rate::Rate;
use lockstep_model::sync::{HookName, Place};
use lockstep_model::{NodeName, SyncName};

pub use self::settings::{Preset, Rule, SettingArgs};
use super::{Change, Wait};
use crate::target::Wanted;

#[derive(Subcommand, Debug)]
pub enum SyncCommand {
    /// Keep a directory of one node in step on others.
    #[command(after_help = "Examples:
  lockstepctl sync create webroot --source master1:/srv/www --target web1 --target web2:/srv/htdocs --wait
  lockstepctl sync create docs --source master1:/srv/docs --target-selector role=webhead --exclude '*.tmp'
  lockstepctl sync create web --source master1:/srv/www --source master1:/srv/docs --target web1
      two syncs, web-www and web-docs

-h leaves the settings out; lockstepctl sync settings lists them.")]
    Create(Box<Create>),
    /// All syncs: source, targets, how far they are.
    List,
    /// One sync, target by target.
    Show { name: SyncName },
    /// Change settings, or who is selected; what is not named stays as it is.
    #[command(after_help = "Examples:
  lockstepctl sync update webroot --bwlimit 10M --delay 5s --wait
  lockstepctl sync update webroot --exclude-preset editors --exclude '/cache/'
      the new filters take the place of all old ones
  lockstepctl sync update webroot --no-filter
  lockstepctl sync update webroot --target-selector role=webhead --dest /srv/www")]
    Update(Box<Update>),
    /// Deliver nothing until it is resumed; changes wait in the source's journal.
    Pause(OneChange),
    /// End a pause.
    Resume(OneChange),
    /// Have every node take up its part anew, and with --wait tell how it went on each.
    #[command(after_help = "Example:\n  lockstepctl sync reload webroot --wait")]
    Reload(OneChange),
    /// More targets; the others and lsyncd notice nothing.
    #[command(after_help = "Examples:
  lockstepctl sync add-target webroot web3 --wait
  lockstepctl sync add-target webroot web4:/srv/www 10.0.0.9 --bwlimit 2M")]
    AddTarget {
        name: SyncName,
        #[arg(required = true, value_name = TARGET, help = TARGET_HELP)]
        target: Vec<Wanted>,
        /// Most that is sent to each of these, a second: 500K, 10M; also of those that are there.
        #[arg(long, value_name = "RATE")]
        bwlimit: Option<Rate>,
        #[arg(long, value_enum, default_value_t = Transport::Mtls, help = TRANSPORT_HELP)]
        transport: Transport,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        change: Change,
    },
    /// Some targets less; files on them stay.
    #[command(after_help = "Example:\n  lockstepctl sync remove-target webroot web2 --wait")]
    RemoveTarget {
        name: SyncName,
        /// Its name, or an address of its own.
        #[arg(required = true)]
        node: Vec<Wanted>,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        change: Change,
    },
    /// Forget it; files stay everywhere.
    #[command(after_help = "Example:\n  lockstepctl sync delete webroot --wait")]
    Delete {
        name: SyncName,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        change: Change,
    },
    /// A complete pass now, to all targets or those named.
    #[command(after_help = "Example:\n  lockstepctl sync resync webroot --target web2 --wait")]
    Resync {
        #[command(flatten)]
        run: Run,
        #[command(flatten)]
        wait: Wait,
    },
    /// Wait until targets have everything that was written to the source before now.
    #[command(after_help = "Examples:
  lockstepctl sync wait webroot --timeout 10m
  lockstepctl sync wait webroot --at-least 2 && echo published")]
    Wait(Barrier),
    /// Tell how copies differ from the source; nothing is changed.
    #[command(after_help = "Examples:
  lockstepctl sync diff webroot
  lockstepctl sync diff webroot --target web1 --path assets --content -o json

Exit code 0: equal, 7: something differs, 1: it could not be compared.")]
    Diff {
        #[command(flatten)]
        compare: Compare,
    },
    /// Compare copies with the source, and bring what differs.
    #[command(after_help = "Example:\n  lockstepctl sync verify webroot --content --wait")]
    Verify {
        #[command(flatten)]
        compare: Compare,
        #[command(flatten)]
        wait: Wait,
    },
    /// Let through this once what a guard holds; see the reason in `sync show` first.
    #[command(after_help = "Example:\n  lockstepctl sync release webroot --target web1")]
    Release {
        #[command(flatten)]
        run: Run,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Print the named targets, one a line, with the comments that were imported.
    #[command(after_help = "Example:\n  lockstepctl sync export webroot > heads")]
    Export { name: SyncName },
    /// Set the named targets to those of a list, one a line; what is not in it is removed.
    #[command(after_help = "Examples:
  lockstepctl sync import webroot --file heads --dry-run
  lockstepctl sync import webroot --file /etc/lsyncd/servers.conf

A line holds NODE, NODE:/PATH, an address of a node, or a URL, and may go on with bwlimit=RATE.
Lines that begin with # and empty ones are kept.")]
    Import {
        name: SyncName,
        /// The list; - is stdin.
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Directory on nodes that are listed without one; unless given that of the selector, or
        /// the source's.
        #[arg(long, value_name = "/PATH")]
        dest: Option<DirPath>,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        change: Change,
    },
    /// Ask for source, targets and directory, and create the sync.
    #[command(after_help = "Examples:
  lockstepctl sync generate
  printf '%s\\n' master1:/srv/www web1,web2 '' | lockstepctl sync generate --print")]
    Generate {
        /// Of the new sync; the source directory's unless given.
        #[arg(long)]
        name: Option<SyncName>,
        /// Print the command that would create it.
        #[arg(long)]
        print: bool,
    },
    /// Show how the targets stand, again and again, until Ctrl-C or its end.
    #[command(after_help = "Example:\n  lockstepctl sync watch webroot")]
    Watch { name: SyncName },
    /// The settings that a sync may have, what they mean and their defaults; asks nobody.
    Settings,
}

impl SyncCommand {
    /// Goes on until something else ends it, however long that takes, or sees to its time itself.
    pub fn follows(&self) -> bool {
        self.cancels() || matches!(self, Self::Watch { .. } | Self::Generate { .. })
    }

    /// What it began ends with it.
    pub fn cancels(&self) -> bool {
        matches!(self, Self::Diff { .. } | Self::Wait(_))
    }
}

const TARGET: &str = "TARGET";
const TARGET_HELP: &str = "NODE, NODE:/PATH, or an address of a node instead of its name";
const TRANSPORT_HELP: &str = "How a target that is not given as a URL is reached";

#[derive(ClapArgs, Debug)]
pub struct Create {
    pub name: SyncName,
    /// More than one: a sync per source, each named NAME-LAST_PART_OF_PATH.
    #[arg(long, required = true, value_name = "NODE:/PATH")]
    pub source: Vec<Place>,
    #[arg(long, value_name = TARGET, help = TARGET_HELP)]
    pub target: Vec<Wanted>,
    /// Every node with these labels is a target too, as long as it has them: role=webhead,!old.
    #[arg(long, value_name = "SELECTOR")]
    pub target_selector: Option<Selector>,
    /// Directory on targets that are given without one; the source's unless given.
    #[arg(long, value_name = "/PATH")]
    pub dest: Option<DirPath>,
    #[arg(long, value_enum, default_value_t = Transport::Mtls, help = TRANSPORT_HELP)]
    pub transport: Transport,
    /// Deliver nothing before `sync resume`.
    #[arg(long)]
    pub paused: bool,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub settings: SettingArgs,
}

#[derive(ClapArgs, Debug)]
pub struct Update {
    pub name: SyncName,
    /// Select other nodes by label.
    #[arg(long, value_name = "SELECTOR")]
    pub target_selector: Option<Selector>,
    /// Directory on the selected nodes; unless given as it is, or the source's.
    #[arg(long, value_name = "/PATH")]
    pub dest: Option<DirPath>,
    /// Select nobody any more.
    #[arg(long, conflicts_with_all = ["target_selector", "dest"])]
    pub no_target_selector: bool,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub settings: SettingArgs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Transport {
    /// Mutual TLS between agents.
    Mtls,
    /// Plain ssh: [USER@]HOST:/PATH.
    Ssh,
    /// A plain rsync daemon: [USER@]HOST:/MODULE/PATH.
    Rsync,
}

#[derive(ClapArgs, Debug)]
pub struct OneChange {
    pub name: SyncName,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub change: Change,
}

/// Of commands that begin a run per target.
#[derive(ClapArgs, Debug)]
pub struct Run {
    pub name: SyncName,
    /// Only this one; repeatable.
    #[arg(long, value_name = "NODE")]
    pub target: Vec<NodeName>,
    #[command(flatten)]
    pub change: Change,
}

#[derive(ClapArgs, Debug)]
pub struct Compare {
    #[command(flatten)]
    pub run: Run,
    /// Only what is there, below the sync's directory; repeatable.
    #[arg(long, value_name = "PATH")]
    pub path: Vec<std::ffi::OsString>,
    /// Read all files on both sides, and not only compare sizes, times and attributes.
    #[arg(long)]
    pub content: bool,
}

#[derive(ClapArgs, Debug)]
pub struct Barrier {
    pub name: SyncName,
    /// All targets; so it is unless --at-least is given.
    #[arg(long, conflicts_with = "at_least")]
    pub all: bool,
    /// So many targets are enough.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub at_least: Option<u32>,
    /// Then run this file of the hook directory of the source's agent.
    #[arg(long, value_name = "NAME")]
    pub hook: Option<HookName>,
    #[command(flatten)]
    pub change: Change,
}
