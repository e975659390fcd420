//! The words of `mirror`. What they do is in `cmd::mirror`.

mod settings;

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args as ClapArgs, Subcommand};
use lockstep_model::id::quote;
use lockstep_model::label::Selector;
use lockstep_model::mirror::{Allow, RunId};
use lockstep_model::path::DirPath;
use lockstep_model::sync::Remote;
use lockstep_model::{Invalid, MirrorName, NodeName, TokenId, UserName};

pub use self::settings::SettingArgs;
use super::schedule::ScheduleArgs;
use super::{Change, Wait};

#[derive(Subcommand, Debug)]
pub enum MirrorCommand {
    /// Pull a project from its upstream to a master, and from there to every replica.
    #[command(after_help = "Examples:
  lockstepctl mirror create fedora --upstream rsync://rsync.example.org/fedora/linux \\
      --master master1 --dest /data/ftp/.1 --replica-selector role=mirror \\
      --schedule 'minute=*/30' --start-date '2014-05-7 18:00' --delete after
  lockstepctl mirror create debian --upstream rsync://me@ftp.example.org/debian \\
      --password-file - --master master1 --dest /data/ftp/.1 --replica ftp1 \\
      --replica ftp2:/srv/ftp --two-stage --schedule '*/15 * * * *' --schedule-preview 5
  lockstepctl mirror create ours --master master1 --dest /data/ftp/.1 --replica ftp1 --owner ann
      no upstream: ann fills /data/ftp/.1/ours and says: lockstepctl mirror ready ours

The tree is the directory NAME in --dest. -h leaves the settings out; lockstepctl mirror
settings lists them.")]
    Create(Box<Create>),
    /// All mirrors: when they ran last, when they run next, how many replicas have all.
    List,
    /// One mirror, node by node.
    Show { name: MirrorName },
    /// Change settings, places or the password; what is not named stays as it is.
    #[command(after_help = "Examples:
  lockstepctl mirror update fedora --bwlimit 20M --replica-delete delay
  lockstepctl mirror update fedora --rsync-option --exclude=*.iso --rsync-option --exclude=debug/
      the new options take the place of all old ones
  lockstepctl mirror update fedora --add-replica ftp3
  lockstepctl mirror update fedora --dest /data2/ftp/.2
      the tree is moved there")]
    Update(Box<Update>),
    /// Give it another name.
    #[command(
        after_help = "Example:\n  lockstepctl mirror rename fedora fedora-linux --move-files"
    )]
    Rename {
        name: MirrorName,
        to: MirrorName,
        /// The tree's directory gets the name too, on every node.
        #[arg(long)]
        move_files: bool,
        #[command(flatten)]
        change: Change,
    },
    /// A whole new schedule, of which nothing of the old one is kept; enabled or not stays.
    #[command(after_help = "Examples:
  lockstepctl mirror reschedule fedora --schedule 'hour=*/4 minute=20' --splay 5m --schedule-preview 5
  lockstepctl mirror reschedule fedora --no-schedule")]
    Reschedule {
        name: MirrorName,
        #[command(flatten)]
        schedule: ScheduleArgs,
        /// It runs only when it is asked to.
        #[arg(long, conflicts_with = "schedule")]
        no_schedule: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Let it run by its schedule, and feed its replicas.
    #[command(
        after_help = "Examples:\n  lockstepctl mirror enable fedora\n  lockstepctl mirror enable --all"
    )]
    Enable(Switch),
    /// It neither runs by its schedule nor feeds replicas; what runs now goes on.
    #[command(
        after_help = "Examples:\n  lockstepctl mirror disable fedora\n  lockstepctl mirror disable --all"
    )]
    Disable(Switch),
    /// Forget it; files stay everywhere unless --delete-files is given.
    #[command(after_help = "Example:\n  lockstepctl mirror delete fedora --delete-files --yes")]
    Delete {
        name: MirrorName,
        /// Remove the trees too, on master and replicas.
        #[arg(long)]
        delete_files: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Pull now, with the cascade, and print the run's id.
    #[command(after_help = "Examples:
  lockstepctl mirror sync fedora
  lockstepctl mirror sync fedora --wait --timeout 2h
  lockstepctl mirror sync fedora --only ftp2
  lockstepctl mirror sync fedora --allow delete
      the removals that a guard holds are meant, this once
  lockstepctl mirror sync fedora --from ftp1
      the master lost its tree: it takes that of a replica

During a run it asks for exactly one more. With --wait the exit code tells how the run went, cascade
included, and without --timeout it is waited for without end.")]
    Sync(Sync),
    /// The tree of a mirror without upstream is complete: distribute it.
    #[command(after_help = "Example:\n  lockstepctl mirror ready our-project --wait")]
    Ready {
        name: MirrorName,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        change: Change,
    },
    /// What ran, newest last: on which node, how long, how much and how it ended.
    #[command(after_help = "Examples:
  lockstepctl mirror runs fedora
  lockstepctl mirror runs --node ftp2 --limit 200 -o json")]
    Runs {
        /// Of this one; of all unless given.
        name: Option<MirrorName>,
        /// Only its parts of runs.
        #[arg(long)]
        node: Option<NodeName>,
        /// How many runs, the newest.
        #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// How much its tree was after each complete pull, newest last, as far as runs are kept.
    #[command(after_help = "Examples:
  lockstepctl mirror sizes fedora
  lockstepctl mirror sizes fedora --node ftp2 -o json")]
    Sizes {
        name: MirrorName,
        /// On that node; on the master unless given.
        #[arg(long)]
        node: Option<NodeName>,
    },
    /// Tokens with which an upstream's own programs ask for runs of one mirror over HTTP.
    #[command(subcommand)]
    PushToken(PushTokenCommand),
    /// What a run printed on one node, which keeps the logs of a mirror's last 14 runs.
    #[command(after_help = "Examples:
  lockstepctl mirror logs fedora/17
  lockstepctl mirror logs fedora/17 -f
  lockstepctl mirror logs fedora/17 --node ftp2")]
    Logs {
        /// As `mirror sync` and `mirror runs` tell it: fedora/17.
        run: RunId,
        /// That node's; the master's unless given.
        #[arg(long)]
        node: Option<NodeName>,
        /// Go on until it ends; the exit code then tells how.
        #[arg(short, long)]
        follow: bool,
    },
    /// Every mirror on every node: state, and how old the tree is.
    #[command(
        after_help = "Examples:\n  lockstepctl mirror matrix\n  lockstepctl mirror matrix -o json"
    )]
    Matrix,
    /// The settings that a mirror may have, what they mean and their defaults; asks nobody.
    Settings,
}

#[derive(Subcommand, Debug)]
pub enum PushTokenCommand {
    /// Make a token; it is shown this once.
    #[command(after_help = "Example:\n  lockstepctl mirror push-token create fedora")]
    Create {
        mirror: MirrorName,
        #[command(flatten)]
        change: Change,
    },
    /// The tokens of a mirror, without their secrets.
    #[command(after_help = "Example:\n  lockstepctl mirror push-token list fedora")]
    List { mirror: MirrorName },
    /// From now on nobody pushes with it.
    #[command(
        after_help = "Example:\n  lockstepctl mirror push-token delete fedora push-0123456789"
    )]
    Delete {
        mirror: MirrorName,
        id: TokenId,
        #[command(flatten)]
        change: Change,
    },
}

impl MirrorCommand {
    /// Goes on until something else ends it, however long that takes.
    pub fn follows(&self) -> bool {
        match self {
            Self::Sync(sync) => sync.wait.wait,
            Self::Ready { wait, .. } => wait.wait,
            Self::Logs { follow, .. } => *follow,
            _ => false,
        }
    }
}

const REPLICA: &str = "NODE[:/PATH]";
const UPSTREAM: &str = "URL";

#[derive(ClapArgs, Debug)]
pub struct Create {
    pub name: MirrorName,
    /// rsync://[USER@]HOST[:PORT]/MODULE[/PATH] or ssh://[USER@]HOST[:PORT]/PATH; unless given, the
    /// owner fills the tree and says when it is ready.
    #[arg(long, value_name = UPSTREAM, value_parser = Remote::upstream)]
    pub upstream: Option<Remote>,
    /// The node that pulls from the upstream.
    #[arg(long, value_name = "NODE")]
    pub master: NodeName,
    /// Directory that the tree's is in, on the master.
    #[arg(long, value_name = "/PATH")]
    pub dest: DirPath,
    /// A node that pulls from the master, and where to if not to --replica-dest; repeatable.
    #[arg(long, value_name = REPLICA)]
    pub replica: Vec<Replica>,
    /// Every node with these labels is a replica too, as long as it has them: role=mirror,!old.
    #[arg(long, value_name = "SELECTOR")]
    pub replica_selector: Option<Selector>,
    /// Directory on replicas that are given without one; the master's unless given.
    #[arg(long, value_name = "/PATH")]
    pub replica_dest: Option<DirPath>,
    /// The upstream's password: the first line of this file, or of stdin with -. It is kept sealed.
    #[arg(long, requires = "upstream", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// May change, run and remove it besides operators.
    #[arg(long, value_name = "USER")]
    pub owner: Option<UserName>,
    /// No run before `mirror enable`, unless asked for.
    #[arg(long)]
    pub disabled: bool,
    #[command(flatten)]
    pub schedule: ScheduleArgs,
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub settings: SettingArgs,
}

#[derive(ClapArgs, Debug)]
pub struct Update {
    pub name: MirrorName,
    /// Pull from there from now on.
    #[arg(long, value_name = UPSTREAM, value_parser = Remote::upstream)]
    pub upstream: Option<Remote>,
    /// None any more: its owner fills the tree.
    #[arg(long, conflicts_with_all = ["upstream", "password_file"])]
    pub no_upstream: bool,
    /// Another node pulls from the upstream.
    #[arg(long, value_name = "NODE")]
    pub master: Option<NodeName>,
    /// Move the master's tree to this directory.
    #[arg(long, value_name = "/PATH")]
    pub dest: Option<DirPath>,
    /// In place of all that are named; repeatable.
    #[arg(long, value_name = REPLICA, conflicts_with_all = ["add_replica", "remove_replica"])]
    pub replica: Vec<Replica>,
    /// One more; repeatable. One that is there is moved.
    #[arg(long, value_name = REPLICA)]
    pub add_replica: Vec<Replica>,
    /// One less; files on it stay. Repeatable.
    #[arg(long, value_name = "NODE")]
    pub remove_replica: Vec<NodeName>,
    /// Select other nodes by label.
    #[arg(long, value_name = "SELECTOR")]
    pub replica_selector: Option<Selector>,
    /// Select nobody any more.
    #[arg(long, conflicts_with = "replica_selector")]
    pub no_replica_selector: bool,
    /// Directory on replicas that are named or selected here without one.
    #[arg(long, value_name = "/PATH")]
    pub replica_dest: Option<DirPath>,
    /// The upstream's new password: the first line of this file, or of stdin with -.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Forget the password.
    #[arg(long, conflicts_with = "password_file")]
    pub no_password: bool,
    /// May change, run and remove it besides operators.
    #[arg(long, value_name = "USER")]
    pub owner: Option<UserName>,
    /// Nobody besides operators.
    #[arg(long, conflicts_with = "owner")]
    pub no_owner: bool,
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub settings: SettingArgs,
}

#[derive(ClapArgs, Debug)]
pub struct Switch {
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub name: Option<MirrorName>,
    /// Every mirror that you may switch.
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub change: Change,
}

#[derive(ClapArgs, Debug)]
pub struct Sync {
    pub name: MirrorName,
    /// Only this replica, from the master as it is; repeatable.
    #[arg(long, value_name = "NODE")]
    pub only: Vec<NodeName>,
    /// The master takes the tree of this replica, and not the upstream's.
    #[arg(long, value_name = "NODE", conflicts_with = "only")]
    pub from: Option<NodeName>,
    /// Let through what a guard would hold, this once: empty, delete, space; comma-joined.
    #[arg(long, value_name = "WHAT", default_value = "", hide_default_value = true)]
    pub allow: Allowed,
    #[command(flatten)]
    pub wait: Wait,
    #[command(flatten)]
    pub change: Change,
}

/// `ftp1`, `ftp2:/srv/ftp`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replica {
    pub node: NodeName,
    pub path: Option<DirPath>,
}

impl FromStr for Replica {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (node, path) = match text.split_once(':') {
            Some((node, path)) => (node, Some(path.parse()?)),
            None => (text, None),
        };
        Ok(Self { node: node.parse()?, path })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Allowed(pub Allow);

impl FromStr for Allowed {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut allow = Allow::default();
        for word in text.split(',').filter(|_| !text.is_empty()) {
            match word {
                "empty" => allow.empty = true,
                "delete" => allow.delete = true,
                "space" => allow.space = true,
                _ => {
                    let problem = format!("knows empty, delete and space, not {}", quote(word));
                    return Err(Invalid::new("allow", problem));
                }
            }
        }
        Ok(Self(allow))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guards_let_through_is_named() {
        let read = |text: &str| text.parse::<Allowed>().map(|allowed| allowed.0);
        assert_eq!(read(""), Ok(Allow::default()));
        let both = Allow { empty: true, delete: false, space: true };
        assert_eq!(read("space,empty"), Ok(both));
        for wrong in ["all", "empty,", "Delete", "empty delete"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_replica_is_a_node_with_a_directory_or_without() {
        let read = |text: &str| text.parse::<Replica>();
        assert_eq!(read("ftp1").unwrap().path, None);
        assert_eq!(read("ftp1:/srv/ftp/").unwrap().path, "/srv/ftp".parse().ok());
        for wrong in ["", ":/x", "ftp1:", "ftp1:x", "ftp1:/a/../b", "-o"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
