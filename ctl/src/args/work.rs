//! The words of `node`, `sync` and `task`.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use lockstep_model::sync::{DeletePolicy, Pattern, Place};
use lockstep_model::{NodeName, SyncName, TaskId};

use super::{Change, duration};

#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    #[command(
        after_help = "Examples:\n  lockstepctl node list\n  lockstepctl node list --selector 'role=webhead,!old' -o json"
    )]
    List {
        /// key=value, key!=value, key, !key, comma-joined: all must hold.
        #[arg(short = 'l', long)]
        selector: Option<String>,
    },
    Show {
        node: NodeName,
    },
    /// Set labels with key=value, remove them with key-.
    #[command(after_help = "Example:\n  lockstepctl node label web1 role=webhead rack=r2 old-")]
    Label {
        node: NodeName,
        #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
        labels: Vec<String>,
        #[command(flatten)]
        change: Change,
    },
    /// Tell load balancers NOT_SERVING; its copies stay in step.
    Drain(NodeChange),
    /// End a drain.
    Resume(NodeChange),
    /// No work at all until enabled again.
    Disable(NodeChange),
    Enable(NodeChange),
    /// End its streams and transfers now and refuse its certificate for ever.
    Expel {
        #[command(flatten)]
        of: NodeChange,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Forget an expelled or disabled node, so that its name may join again.
    Remove {
        #[command(flatten)]
        of: NodeChange,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// A round trip through the controller to the node's agent and back.
    Ping {
        node: NodeName,
        /// How many.
        #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
    },
}

#[derive(ClapArgs, Debug)]
pub struct NodeChange {
    pub node: NodeName,
    #[command(flatten)]
    pub change: Change,
}

/// Of commands whose effect takes a while.
#[derive(ClapArgs, Debug)]
pub struct Wait {
    /// Return only when it has taken effect, within --timeout.
    #[arg(long)]
    pub wait: bool,
}

#[derive(Subcommand, Debug)]
pub enum SyncCommand {
    /// Keep a directory of one node in step on others.
    #[command(
        after_help = "Examples:\n  lockstepctl sync create webroot --source master1:/srv/www --target web1:/srv/www --target web2:/srv/www\n  lockstepctl sync create docs --source master1:/srv/docs --target web1:/var/docs --exclude '*.tmp' --wait"
    )]
    Create {
        name: SyncName,
        #[arg(long, value_name = "NODE:/PATH")]
        source: Place,
        #[arg(long, value_name = "NODE:/PATH")]
        target: Vec<Place>,
        /// rsync pattern to leave out; repeatable, order kept.
        #[arg(long, value_name = "PATTERN")]
        exclude: Vec<Pattern>,
        /// When to remove what the source does not have: always, never, startup, running.
        #[arg(long, default_value_t = DeletePolicy::Always, value_name = "WHEN")]
        delete: DeletePolicy,
        /// How long changes are collected before they are sent; whole seconds.
        #[arg(long, value_parser = duration, default_value = "1s", value_name = "TIME")]
        delay: Duration,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        change: Change,
    },
    List,
    /// One sync, target by target.
    Show {
        name: SyncName,
    },
    #[command(after_help = "Example:\n  lockstepctl sync add-target webroot web3:/srv/www --wait")]
    AddTarget {
        name: SyncName,
        #[arg(required = true, value_name = "NODE:/PATH")]
        target: Vec<Place>,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        change: Change,
    },
    /// Files on the node stay.
    RemoveTarget {
        name: SyncName,
        #[arg(required = true)]
        node: Vec<NodeName>,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        change: Change,
    },
    /// Files stay everywhere.
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
        name: SyncName,
        #[arg(long, value_name = "NODE")]
        target: Vec<NodeName>,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        change: Change,
    },
    /// Wait until all targets have everything that the source's journal holds now.
    Wait {
        name: SyncName,
    },
}

#[derive(Subcommand, Debug)]
pub enum TaskCommand {
    #[command(
        after_help = "Examples:\n  lockstepctl task list\n  lockstepctl task list --node web1 --live"
    )]
    List {
        #[arg(long)]
        node: Option<NodeName>,
        /// A slot or the start of one, such as sync/webroot.
        #[arg(long)]
        slot: Option<String>,
        /// Only those without an outcome.
        #[arg(long)]
        live: bool,
    },
    Show {
        id: TaskId,
    },
    /// What it printed, as far as its agent still holds it.
    Logs {
        id: TaskId,
        /// Go on until it ends; the exit code then tells how.
        #[arg(short, long)]
        follow: bool,
    },
    Cancel {
        id: TaskId,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        change: Change,
    },
}
