//! The words of `cluster`. What they do is in `cmd::cluster`.

mod settings;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use lockstep_model::{ClusterName, NodeName, Timestamp};

pub use self::settings::{ClusterArgs, MemberArgs, MemberValue};
use super::Change;

#[derive(Subcommand, Debug)]
pub enum ClusterCommand {
    /// Make a database with initdb, or take over one that runs, and copy it to standbys.
    #[command(after_help = "Examples:
  lockstepctl cluster create main --primary db1 --standby db2 --standby db3
  lockstepctl cluster create main --primary db1 --standby db2 --sync 1 --on-sync-shortage degrade \\
      --parameter max_connections=200 --hba 'hostssl app app 10.0.0.0/8 scram-sha-256'
  lockstepctl cluster create main --primary db1 --standby db2 --adopt \\
      --data-dir /var/lib/postgresql/15/main --postgres-bin /usr/lib/postgresql/15/bin
      db1's running database is taken over with what is in it
  lockstepctl cluster create main --primary db1 --standby db2 --standby db3 \\
      --member db3:never-promote=yes --member db3:delay=1h

-h leaves the settings out; lockstepctl cluster settings lists them.")]
    Create(Box<Create>),
    /// All clusters: primary, standbys, how commits are acknowledged, what is wrong.
    List,
    /// One cluster, member by member: role, state, timeline, positions, lag.
    Show { name: ClusterName },
    /// Why a cluster is as it is, or what it waits for.
    #[command(after_help = "Example:\n  lockstepctl cluster explain main")]
    Explain { name: ClusterName },
    /// Failovers and switchovers, newest last; with a number all of one.
    #[command(
        after_help = "Examples:\n  lockstepctl cluster history main\n  lockstepctl cluster history main 3"
    )]
    History {
        name: ClusterName,
        /// Only this one, with the position of every member.
        number: Option<u64>,
        /// How many, the newest.
        #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
    },
    /// What would go wrong one day: settings, disks, slots, certificates, settings that wait.
    #[command(after_help = "Examples:
  lockstepctl cluster check main
  lockstepctl cluster check main --now
      has the agents look once more first

The exit code is 1 when there is something to mend.")]
    Check {
        name: ClusterName,
        /// Have the agents look at everything once more first.
        #[arg(long)]
        now: bool,
    },
    /// Hand the primary's part to a standby, without losing anything.
    #[command(after_help = "Examples:
  lockstepctl cluster switchover main
  lockstepctl cluster switchover main --to db2
  lockstepctl cluster switchover main --at '2026-12-01 02:00'
      in this machine's time zone; UTC with a Z at the end
  lockstepctl cluster switchover main --cancel
      one that has not begun")]
    Switchover(Switchover),
    /// Promote a standby without waiting for the primary's word.
    #[command(after_help = "Examples:
  lockstepctl cluster failover main
  lockstepctl cluster failover main --to db2 --allow-data-loss --yes

Nothing is promoted before it is known that the old primary acknowledges nothing any more.")]
    Failover(Failover),
    /// Copy the database to one more node, and have it follow.
    #[command(after_help = "Examples:
  lockstepctl cluster add-standby main db4
  lockstepctl cluster add-standby main db4 --priority 50 --delay 1h --no-wait")]
    AddStandby(Box<AddStandby>),
    /// A standby less; its data stays unless --delete-data is given.
    #[command(after_help = "Example:\n  lockstepctl cluster remove main db4")]
    Remove {
        #[command(flatten)]
        of: Of,
        /// Remove its data directory too.
        #[arg(long)]
        delete_data: bool,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Copy a standby's data anew; the old data goes once the new copy is proven.
    #[command(after_help = "Example:\n  lockstepctl cluster reclone main db2 --yes")]
    Reclone {
        #[command(flatten)]
        of: Of,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        wait: Patience,
    },
    /// Look whether a standby's data went another way, and rewind it if so.
    #[command(after_help = "Example:\n  lockstepctl cluster rewind main db2")]
    Rewind {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        wait: Patience,
    },
    /// Restart postgres on some members or all: standbys first, the primary last.
    #[command(after_help = "Examples:
  lockstepctl cluster restart main
  lockstepctl cluster restart main --pending
      only where a setting waits for it
  lockstepctl cluster restart main --switchover
      the primary is a standby before it is restarted
  lockstepctl cluster restart main db2")]
    Restart {
        #[command(flatten)]
        on: On,
        /// Only members with a setting that waits for a restart.
        #[arg(long)]
        pending: bool,
        /// Hand the primary's part over before the primary is restarted.
        #[arg(long)]
        switchover: bool,
    },
    /// Have postgres read its configuration again.
    Reload(On),
    /// Start members that were stopped.
    Start(Of),
    /// Stop postgres cleanly on a member, until it is started; a primary hands over first.
    #[command(after_help = "Example:\n  lockstepctl cluster stop main db2")]
    Stop(Of),
    /// End every process of a member, until it is unfenced; of a primary after a failover.
    #[command(after_help = "Example:\n  lockstepctl cluster fence main db2")]
    Fence(Of),
    /// Take a fenced member back.
    Unfence(Of),
    /// Decide nothing more of this cluster; all is still reported.
    Pause(Whole),
    /// Decide again.
    Resume(Whole),
    /// Leave a member alone while somebody works on it.
    #[command(after_help = "Examples:
  lockstepctl cluster maintenance main db2
  lockstepctl cluster maintenance main db2 --off")]
    Maintenance {
        #[command(flatten)]
        of: Of,
        /// Take it back.
        #[arg(long)]
        off: bool,
    },
    /// Have nothing to do with the cluster any more; its databases run on.
    #[command(after_help = "Example:\n  lockstepctl cluster release main --yes")]
    Release(Leave),
    /// Stop the cluster and remove its data on every member.
    #[command(after_help = "Example:\n  lockstepctl cluster delete main --yes")]
    Delete(Leave),
    /// Change settings of the cluster or of members; what is not named stays as it is.
    #[command(after_help = "Examples:
  lockstepctl cluster edit main --sync 1 --lease 3s
  lockstepctl cluster edit main --parameter max_connections=300 --parameter shared_buffers=1GB
      the new parameters take the place of all old ones; show names those that wait for a restart
  lockstepctl cluster edit main --member db3:never-promote=yes --member db3:delay=none")]
    Edit(Box<Edit>),
    /// The settings that a cluster and its members may have, what they mean and their defaults; asks
    /// nobody.
    Settings {
        /// Those of single members.
        #[arg(long)]
        member: bool,
    },
    /// Connection string for applications: libpq finds the primary among all members.
    #[command(after_help = "Examples:
  lockstepctl cluster url main
  psql \"$(lockstepctl cluster url main --database app --user app)\"
  lockstepctl cluster url main --any
      any member, a standby where one answers")]
    Url {
        name: ClusterName,
        #[arg(long, value_name = "NAME", default_value = "postgres")]
        database: String,
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// For reading: a standby if there is one.
        #[arg(long)]
        any: bool,
    },
}

impl ClusterCommand {
    /// Goes on until something else ends it, however long that takes.
    pub fn follows(&self) -> bool {
        match self {
            Self::Create(create) => create.wait.waits(),
            Self::AddStandby(add) => add.wait.waits(),
            Self::Switchover(switch) => switch.waits(),
            Self::Failover(failover) => failover.wait.waits(),
            Self::Reclone { wait, .. } | Self::Rewind { wait, .. } => wait.waits(),
            // One member after the other, and nobody goes on with it when this command ends.
            Self::Restart { .. } => true,
            _ => false,
        }
    }
}

/// Of commands that are waited for unless somebody says no.
#[derive(ClapArgs, Debug, Default)]
pub struct Patience {
    /// Return at once, and not when it has taken effect.
    #[arg(long)]
    pub no_wait: bool,
}

impl Patience {
    pub fn waits(&self) -> bool {
        !self.no_wait
    }
}

/// The cluster as a whole.
#[derive(ClapArgs, Debug)]
pub struct Whole {
    pub name: ClusterName,
    #[command(flatten)]
    pub change: Change,
}

/// One member.
#[derive(ClapArgs, Debug)]
pub struct Of {
    pub name: ClusterName,
    pub node: NodeName,
    #[command(flatten)]
    pub change: Change,
}

/// Some members, or all.
#[derive(ClapArgs, Debug)]
pub struct On {
    pub name: ClusterName,
    /// All members unless given.
    pub nodes: Vec<NodeName>,
    #[command(flatten)]
    pub change: Change,
}

#[derive(ClapArgs, Debug)]
pub struct Leave {
    pub name: ClusterName,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub change: Change,
}

#[derive(ClapArgs, Debug)]
pub struct Create {
    pub name: ClusterName,
    /// The node that is primary first.
    #[arg(long, value_name = "NODE")]
    pub primary: NodeName,
    /// A node that follows; repeatable.
    #[arg(long, value_name = "NODE")]
    pub standby: Vec<NodeName>,
    /// The primary's database runs already: take it over rather than make one.
    #[arg(long)]
    pub adopt: bool,
    /// A setting of one member: db3:never-promote=yes; repeatable.
    #[arg(long, value_name = MEMBER)]
    pub member: Vec<MemberValue>,
    /// Password of Lockstep's own superuser: the first line of this file, or of stdin with -; drawn
    /// unless given.
    #[arg(long, value_name = "FILE")]
    pub set_superuser_password_file: Option<PathBuf>,
    #[command(flatten)]
    pub wait: Patience,
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub settings: ClusterArgs,
}

const MEMBER: &str = "NODE:NAME=VALUE";

#[derive(ClapArgs, Debug)]
pub struct Switchover {
    pub name: ClusterName,
    /// The standby that takes over; the best one unless given.
    #[arg(long, value_name = "NODE")]
    pub to: Option<NodeName>,
    /// Not before: '2026-12-01 02:00'.
    #[arg(long, value_name = "DATE", value_parser = instant)]
    pub at: Option<Timestamp>,
    /// Take back one that has not begun.
    #[arg(long, conflicts_with_all = ["to", "at"])]
    pub cancel: bool,
    #[command(flatten)]
    pub wait: Patience,
    #[command(flatten)]
    pub change: Change,
}

impl Switchover {
    pub fn waits(&self) -> bool {
        self.wait.waits() && self.at.is_none() && !self.cancel
    }
}

#[derive(ClapArgs, Debug)]
pub struct Failover {
    pub name: ClusterName,
    /// The standby to promote; the best one unless given.
    #[arg(long, value_name = "NODE")]
    pub to: Option<NodeName>,
    /// Promote it even where acknowledged commits are lost.
    #[arg(long)]
    pub allow_data_loss: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    #[command(flatten)]
    pub wait: Patience,
    #[command(flatten)]
    pub change: Change,
}

#[derive(ClapArgs, Debug)]
pub struct AddStandby {
    pub name: ClusterName,
    pub node: NodeName,
    #[command(flatten)]
    pub wait: Patience,
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub settings: MemberArgs,
}

#[derive(ClapArgs, Debug)]
pub struct Edit {
    pub name: ClusterName,
    /// A setting of one member: db3:priority=50; repeatable.
    #[arg(long, value_name = MEMBER)]
    pub member: Vec<MemberValue>,
    #[command(flatten)]
    pub change: Change,
    #[command(flatten)]
    pub settings: ClusterArgs,
}

/// With a zone's offset as it says, else on this machine's clock.
fn instant(text: &str) -> Result<Timestamp, String> {
    let exact = text.parse::<jiff::Timestamp>().ok();
    let zone = jiff::tz::TimeZone::system();
    let local = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(zone).ok();
    let found = exact.or_else(|| local().map(|zoned| zoned.timestamp()));
    let ms = found.and_then(|at| u64::try_from(at.as_millisecond()).ok());
    let problem = || "must look like '2026-12-01 02:00' or 2026-12-01T02:00:00Z".to_owned();
    ms.map(Timestamp).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_read_with_and_without_a_zone() {
        assert_eq!(instant("1970-01-02T00:00:00Z"), Ok(Timestamp(86_400_000)));
        assert_eq!(instant("1970-01-02 00:00+01:00"), Ok(Timestamp(82_800_000)));
        assert!(instant("2026-12-01 02:00").is_ok());
        for wrong in ["", "tomorrow", "2026-13-01 02:00", "02:00", "1960-01-01T00:00:00Z"] {
            assert!(instant(wrong).is_err(), "{wrong}");
        }
    }
}
