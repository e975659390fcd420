//! The words of `node` and `task`.

use clap::{Args as ClapArgs, Subcommand};
use lockstep_model::{NodeName, TaskId};

use super::Change;

#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    /// All nodes: health, labels, addresses.
    #[command(
        after_help = "Examples:\n  lockstepctl node list\n  lockstepctl node list --selector 'role=webhead,!old' -o json"
    )]
    List {
        /// key=value, key!=value, key, !key, comma-joined: all must hold.
        #[arg(short = 'l', long)]
        selector: Option<String>,
    },
    /// One node: what is wrong on it, its tools, its addresses.
    Show { node: NodeName },
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
    /// Have a disabled node work again.
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
pub enum TaskCommand {
    /// All tasks that are kept: for which node, in which slot, how they ended.
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
    /// One task: its state, and how it ended.
    Show { id: TaskId },
    /// What it printed, as far as its agent still holds it.
    Logs {
        id: TaskId,
        /// Go on until it ends; the exit code then tells how.
        #[arg(short, long)]
        follow: bool,
    },
    /// End it on its node; what it did stays done.
    Cancel {
        id: TaskId,
        #[command(flatten)]
        wait: Wait,
        #[command(flatten)]
        change: Change,
    },
}
