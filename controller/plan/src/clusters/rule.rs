//! What a row of the rules' table is, and what may come of looking at it.

use lockstep_model::Timestamp;
use lockstep_model::cluster::{Act, Cluster, ClusterState, Failover};
use lockstep_model::id::NodeName;

use super::view::View;

pub(super) struct Rule {
    /// As it stands in the log and in `explain`.
    pub name: &'static str,
    /// Stages in which it may fire; empty: in any.
    pub from: &'static [&'static str],
    /// Where it leads; empty: the stage stays.
    pub to: &'static [&'static str],
    /// For the manual: what it looks for and what it does.
    pub what: &'static str,
    pub look: fn(&View<'_>) -> Found,
}

pub(super) enum Found {
    /// It is not about this situation.
    Nothing,
    /// It would fire, but for this; later rules are looked at.
    Wait(Wait),
    /// Nothing is waited for, but time alone may make it fire.
    Watch(Timestamp),
    /// Nothing is decided while this is so.
    Stop(Wait),
    /// And nobody is told anything.
    Freeze(Wait),
    Fire(Box<Turn>),
}

/// What is waited for, and what would end it.
pub(super) struct Wait {
    pub text: String,
    /// When time alone ends it.
    pub until: Option<Timestamp>,
}

impl Wait {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), until: None }
    }

    pub fn until(text: impl Into<String>, until: Timestamp) -> Self {
        Self { text: text.into(), until: Some(until) }
    }
}

impl Found {
    pub fn wait(text: impl Into<String>) -> Self {
        Self::Wait(Wait::new(text))
    }

    pub fn wait_until(text: impl Into<String>, until: Timestamp) -> Self {
        Self::Wait(Wait::until(text, until))
    }
}

/// A decision: all of it is one transaction, with the tasks that follow from it.
pub(super) struct Turn {
    pub state: ClusterState,
    /// When it changes too.
    pub cluster: Option<Cluster>,
    /// Those that change.
    pub reports: Vec<Failover>,
    /// Given beside the members' places.
    pub act: Option<(NodeName, Act)>,
}

impl Turn {
    pub fn to(state: ClusterState) -> Self {
        Self { state, cluster: None, reports: Vec::new(), act: None }
    }

    pub fn report(mut self, report: Option<Failover>) -> Self {
        self.reports.extend(report);
        self
    }

    pub fn fire(self) -> Found {
        Found::Fire(Box::new(self))
    }
}
