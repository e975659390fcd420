//! The command line: what may be written. It does nothing.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use lockstep_agent::config::TABLE;
use lockstep_agent::host::launch::Launch;
use lockstep_agent::pg::guard::GuardArgs;
use lockstep_agent::pg::salvage::Restore;
use lockstep_agent::rsh::RshArgs;
use lockstep_model::node::NodeAddress;

/// A wrong command line that clap does not see; exits as wrong settings do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Keeps this node in step with what a Lockstep controller wants of it.
#[derive(Parser)]
#[command(name = "lockstep-agent", version, arg_required_else_help = true)]
pub struct Cli {
    /// Identity, ledger, journals and state of this agent.
    /// [env: LOCKSTEP_DATA_DIR] [default: /var/lib/lockstep-agent]
    #[arg(id = "data-dir", long = "data-dir", value_name = "PATH", global = true)]
    pub data_dir: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the agent; what `join` made must be there.
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Become a node of a fleet, by a token that an admin made with `lockstepctl token create`.
    #[command(after_help = JOIN_EXAMPLES)]
    Join(Join),
    /// Show this node's identity, controllers and tasks, from what is on disk.
    Status,
    /// What rsync calls in place of ssh; not for people.
    #[command(hide = true)]
    Rsh(RshArgs),
    /// What ends a primary whose lease has ended, with or without its agent; not for people.
    #[command(hide = true)]
    Guard(GuardArgs),
    /// Becomes another program, as another user and in a cgroup of its own; not for people.
    #[command(hide = true)]
    Launch(Launch),
    /// What postgres calls to restore log that was saved of a dead instance; not for people.
    #[command(name = "restore-wal", hide = true)]
    RestoreWal(Restore),
}

const RUN_EXAMPLES: &str = "\
Settings come from flags, then LOCKSTEP_* variables, then the config file, then defaults.

Examples:
  lockstep-agent run
  lockstep-agent run --check-config
  lockstep-agent run --data-dir /srv/agent --health-listen 10.0.0.7:7403

Exit codes: 0 stopped by SIGTERM or SIGINT, 1 failed, 2 the settings are refused.";

const JOIN_EXAMPLES: &str = "\
Examples:
  lockstep-agent join --controller c1.example.org:7400 --token-file /root/token
  lockstepctl token create --node web3 | ssh web3 lockstep-agent join --controller c1:7400 --token -

When the answer is lost, give the same command again: the token still works for this machine.
Exit codes: 0 joined, 1 failed, 2 the command line is refused.";

#[derive(Args)]
pub struct Run {
    /// The config file [env: LOCKSTEP_CONFIG] [default: agent.toml in the data directory]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Check the settings, show those in effect, and end
    #[arg(long)]
    pub check_config: bool,
}

#[derive(Args)]
pub struct Join {
    /// A controller's address; the port is 7400 if none is written. May be repeated
    #[arg(long = "controller", value_name = "HOST[:PORT]", required = true)]
    pub controllers: Vec<String>,
    /// The token, or - to read it from standard input, where other users cannot see it
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub token: Option<String>,
    /// A file that holds the token
    #[arg(long, value_name = "PATH", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// Where other agents deliver data, kept in the config file
    /// [default: port 7402 of the address that reaches the controller]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// How other agents reach that, kept in the config file; best first, may be repeated
    #[arg(long, value_name = "[NETWORK=]HOST:PORT")]
    pub advertise: Vec<NodeAddress>,
    /// Give this machine another identity; the former one is put aside
    #[arg(long)]
    pub replace: bool,
}

/// All of it, with a flag for each setting of a run.
pub fn command() -> clap::Command {
    // The data directory is everybody's and stands above.
    let settings = TABLE.to_clap_args().into_iter().filter(|arg| arg.get_id() != "data-dir");
    Cli::command().mut_subcommand("run", |run| run.args(settings))
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
        let line = ["lockstep-agent", "run", "--data-dir", "/x", "--log-format", "json"];
        let matches = command().get_matches_from(line);
        let flags = TABLE.flags(matches.subcommand_matches("run").unwrap());
        let flag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(flags, [flag("data-dir", "/x"), flag("log-format", "json")]);
        assert_eq!(Cli::from_arg_matches(&matches).unwrap().data_dir.as_deref(), Some("/x"));
    }

    #[test]
    fn rsync_may_add_what_it_wants_to_run() {
        let line = [
            "lockstep-agent",
            "--data-dir",
            "/x",
            "rsh",
            "--sync",
            "w",
            "--pass",
            "web1",
            "rsync",
            "--server",
            "--daemon",
            ".",
        ];
        let matches = command().get_matches_from(line);
        let cli = Cli::from_arg_matches(&matches).unwrap();
        assert!(matches!(cli.command, Command::Rsh(_)));
        assert_eq!(cli.data_dir.as_deref(), Some("/x"));
    }
}
