//! The words of the command line. What they do is in `cmd`.

pub mod cluster;
pub mod mirror;
pub mod schedule;
pub mod settings;
pub mod sync;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use lockstep_model::identity::Role;
use lockstep_model::{HostPort, Invalid, Millis, NodeName, TokenId, UserName};

pub use self::cluster::ClusterCommand;
pub use self::mirror::MirrorCommand;
pub use self::schedule::ScheduleCommand;
pub use self::sync::SyncCommand;
pub use self::work::{NodeChange, NodeCommand, TaskCommand, Wait};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  tried and failed; cluster check: something is to be mended
  2  the command line or a local file is wrong; nothing was sent
  3  refused by the controller: not found, exists, not allowed in this state
  4  not logged in, or without the right
  5  no controller could be reached
  6  --timeout passed
  7  sync diff: a copy differs from its source
130  Ctrl-C";

/// The command line of a Lockstep fleet.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 100, after_help = EXIT_CODES, propagate_version = true)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(ClapArgs, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// What stdout shows.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// Which controller, of those of `lockstepctl context list`.
    #[arg(long, global = true, env = "LOCKSTEP_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Where contexts and keys are kept; default $XDG_CONFIG_HOME/lockstep or ~/.config/lockstep.
    #[arg(long, global = true, env = "LOCKSTEP_CONFIG_DIR", value_name = "DIR")]
    pub config_dir: Option<PathBuf>,
    /// How long the whole command may take, such as 10s or 5m; 60s unless given, endless where it
    /// follows something.
    #[arg(long, global = true, value_parser = duration, value_name = "TIME")]
    pub timeout: Option<Duration>,
    /// What is logged to stderr: error, warn, info, debug, or target=level,…
    #[arg(
        long,
        global = true,
        env = "LOCKSTEP_LOG",
        default_value = "warn",
        value_name = "FILTER"
    )]
    pub log: String,
    /// Send spans to this OTLP/gRPC collector.
    #[arg(long, global = true, env = "LOCKSTEP_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

impl Global {
    pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Yaml,
}

/// Of every command that changes something.
#[derive(ClapArgs, Debug, Default)]
pub struct Change {
    /// Check everything, change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Refuse unless this is still the resource's revision (shown by -o json).
    #[arg(long, value_name = "REVISION")]
    pub if_revision: Option<u64>,
    /// Makes the command safe to repeat: the same id within a day is the same request.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Turn a single-use token into a key and a context of this machine.
    #[command(
        after_help = "Examples:\n  lockstepctl login --controller ctl.example.org --token ls1.…\n  lockstepctl login --controller ctl.example.org --token - < token.txt"
    )]
    Login(Login),
    /// Controllers that this machine knows.
    #[command(subcommand)]
    Context(ContextCommand),
    /// The controller's version, revision and counts, and who you are to it.
    Status,
    /// Invitations for nodes and users.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Machines.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Directories kept in step.
    #[command(subcommand)]
    Sync(SyncCommand),
    /// Projects pulled from an upstream to a master, and from there to replicas.
    #[command(subcommand)]
    Mirror(MirrorCommand),
    /// PostgreSQL databases: one primary, and standbys that follow it.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// When things happen by themselves.
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// What nodes were told to do, and what became of it.
    #[command(subcommand)]
    Task(TaskCommand),
    /// People and programs that may use lockstepctl.
    #[command(subcommand)]
    User(UserCommand),
    /// Show changes as they happen, until Ctrl-C.
    #[command(
        after_help = "Examples:\n  lockstepctl watch\n  lockstepctl watch sync/webroot --after 120 -o json"
    )]
    Watch(Watch),
    /// What changed, by whom and why: newest last.
    #[command(after_help = "Examples:\n  lockstepctl log\n  lockstepctl log node/web1 --limit 20")]
    Log(Log),
    /// Why something is as it is, or what it waits for.
    #[command(
        after_help = "Examples:\n  lockstepctl explain\n  lockstepctl explain sync/webroot\n  lockstepctl explain mirror/fedora\n  lockstepctl explain cluster/main\n  lockstepctl explain node/web1"
    )]
    Explain(Explain),
    /// The controller's store: backup, and taking over an old copy.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Print a completion script for a shell.
    #[command(
        after_help = "Example:\n  lockstepctl completions bash > /etc/bash_completion.d/lockstepctl"
    )]
    Completions { shell: clap_complete::Shell },
}

impl Command {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Login(_) => "login",
            Self::Context(_) => "context",
            Self::Status => "status",
            Self::Token(_) => "token",
            Self::Node(_) => "node",
            Self::Sync(_) => "sync",
            Self::Mirror(_) => "mirror",
            Self::Cluster(_) => "cluster",
            Self::Schedule(_) => "schedule",
            Self::Task(_) => "task",
            Self::User(_) => "user",
            Self::Watch(_) => "watch",
            Self::Log(_) => "log",
            Self::Explain(_) => "explain",
            Self::Store(_) => "store",
            Self::Completions { .. } => "completions",
        }
    }
}

#[derive(ClapArgs, Debug)]
pub struct Login {
    /// host or host:port; port 7400 unless given. Repeat for more than one controller.
    #[arg(long, required = true, value_parser = controller, value_name = "HOST[:PORT]")]
    pub controller: Vec<HostPort>,
    /// The token, or "-" to read it from stdin, so that no process list shows it.
    #[arg(long)]
    pub token: String,
    /// Name of the new context; the fleet's name unless given.
    #[arg(long)]
    pub name: Option<String>,
}

#[derive(Subcommand, Debug)]
pub enum ContextCommand {
    /// All of them; the current one is marked.
    List,
    /// Use this one from now on.
    Use { name: String },
    /// Forget it, its key included.
    Remove {
        name: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Subcommand, Debug)]
pub enum TokenCommand {
    /// Make an invitation; it is shown this once.
    #[command(
        after_help = "Examples:\n  lockstepctl token create --node web3 --label role=webhead\n  lockstepctl token create --user anna --ttl 1h"
    )]
    Create {
        /// A node of this name may join.
        #[arg(long, conflicts_with = "user", required_unless_present = "user")]
        node: Option<NodeName>,
        /// This user gets a new key.
        #[arg(long)]
        user: Option<UserName>,
        /// First labels of the node, as key=value; repeatable.
        #[arg(long, requires = "node", value_name = "KEY=VALUE")]
        label: Vec<String>,
        /// How long it may be used; 1s to 24h.
        #[arg(long, value_parser = duration, default_value = "15m", value_name = "TIME")]
        ttl: Duration,
        #[command(flatten)]
        change: Change,
    },
    /// Those that were made, without their secrets: for whom, until when, used or not.
    List,
    /// From now on nobody gets in with it.
    Delete {
        id: TokenId,
        #[command(flatten)]
        change: Change,
    },
}

#[derive(Subcommand, Debug)]
pub enum UserCommand {
    /// Make a user and a single-use token for `lockstepctl login`.
    #[command(after_help = "Example:\n  lockstepctl user add anna --role operator")]
    Add {
        name: UserName,
        /// admin, operator, owner or viewer.
        #[arg(long)]
        role: Role,
        /// How long the token may be used; 1s to 24h.
        #[arg(long, value_parser = duration, default_value = "15m", value_name = "TIME")]
        ttl: Duration,
        #[command(flatten)]
        change: Change,
    },
    /// All users: role, enabled or not.
    List,
    /// Give a user another role.
    #[command(after_help = "Example:\n  lockstepctl user role anna viewer")]
    Role {
        name: UserName,
        role: Role,
        #[command(flatten)]
        change: Change,
    },
    /// End the user's streams and refuse its certificate.
    Disable {
        name: UserName,
        #[command(flatten)]
        change: Change,
    },
    /// Take a disabled user back.
    Enable {
        name: UserName,
        #[command(flatten)]
        change: Change,
    },
}

#[derive(ClapArgs, Debug)]
pub struct Watch {
    /// A key or the start of one, such as sync/webroot.
    pub scope: Option<String>,
    /// Begin after this revision instead of now.
    #[arg(long, value_name = "REVISION")]
    pub after: Option<u64>,
}

#[derive(ClapArgs, Debug)]
pub struct Log {
    /// A key or the start of one, such as node/web1.
    pub scope: Option<String>,
    /// How many, the newest.
    #[arg(short = 'n', long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Entries older than this revision.
    #[arg(long, value_name = "REVISION")]
    pub before: Option<u64>,
}

#[derive(ClapArgs, Debug)]
pub struct Explain {
    /// sync/NAME, mirror/NAME, cluster/NAME, node/NAME or task/ID; everything that waits unless given.
    pub subject: Option<String>,
}

#[derive(Subcommand, Debug)]
pub enum StoreCommand {
    /// A consistent backup to stdout, as NDJSON; secrets in it stay sealed.
    #[command(
        after_help = "Example:\n  lockstepctl store export > fleet.ndjson\n\nRestore with: lockstep-controller store import --data-dir DIR fleet.ndjson"
    )]
    Export {
        /// With the log, not only the records.
        #[arg(long)]
        with_log: bool,
    },
    /// Accept a store that agents know to be an old copy; what it lacks is lost.
    Adopt {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        change: Change,
    },
}

fn controller(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text, 7400).map_err(|e| e.to_string())
}

/// `500ms`, `10s`, `5m`, `2h`, `7d`.
fn duration(text: &str) -> Result<Duration, Invalid> {
    text.parse::<Millis>().map(Into::into)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    /// An argument with the id of a global one would take its place, and panic only when it is read.
    #[test]
    fn no_command_takes_the_id_of_a_global_option() {
        fn check(command: &clap::Command, globals: &[clap::Id]) {
            for sub in command.get_subcommands() {
                for arg in sub.get_arguments() {
                    assert!(
                        !globals.contains(arg.get_id()),
                        "{}: {}",
                        sub.get_name(),
                        arg.get_id()
                    );
                }
                check(sub, globals);
            }
        }
        let command = Args::command();
        let globals = command.get_arguments().filter(|arg| arg.is_global_set());
        let globals: Vec<_> = globals.map(|arg| arg.get_id().clone()).collect();
        assert!(globals.len() > 4);
        check(&command, &globals);
    }

    /// One without words of its own would show those of a struct that it has in common with others.
    #[test]
    fn every_command_says_what_it_does() {
        fn walk(command: &clap::Command, path: &str, said: &mut BTreeMap<String, String>) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                let about = sub.get_about().unwrap_or_else(|| panic!("{path} says nothing"));
                let other = said.insert(about.to_string(), path.clone());
                assert_eq!(other, None, "{path} says the same");
                walk(sub, &path, said);
            }
        }
        let mut said = BTreeMap::new();
        walk(&Args::command(), "lockstepctl", &mut said);
        assert!(said.len() > 80, "{}", said.len());
    }

    #[test]
    fn every_example_can_be_typed() {
        fn walk(command: &clap::Command, found: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let help = help.replace("\\\n", " ");
            let examples = help.lines().filter_map(|line| line.strip_prefix("  lockstepctl "));
            found.extend(examples.map(str::to_owned));
            command.get_subcommands().for_each(|sub| walk(sub, found));
        }
        let mut found = Vec::new();
        walk(&Args::command(), &mut found);
        assert!(found.len() > 80, "{}", found.len());
        for example in found {
            let words = ["lockstepctl".to_owned()].into_iter().chain(words(&example));
            Args::try_parse_from(words).unwrap_or_else(|e| panic!("{example}: {e}"));
        }
    }

    /// Of a shell's line, up to a pipe or a redirection.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quote = None;
        for c in line.chars() {
            let word = words.last_mut().unwrap();
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (None, ' ') if word.is_empty() => {}
                (None, ' ') => words.push(String::new()),
                (None, '|' | '<' | '>' | '&') => break,
                (_, c) => word.push(c),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }
}
