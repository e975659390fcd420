//! What a sync does by itself at times of a schedule, and how far that was followed. The planner
//! alone follows it: nodes are not told.

use std::collections::BTreeMap;

use crate::id::{NodeName, SyncName};
use crate::schedule::{Policy, Progress, Rule, Schedule, ZoneName};
use crate::words::words;

words!(
    /// What a schedule may bring about.
    Pass, "pass", {
    /// A complete pass.
    Resync = "resync",
    /// A comparison of contents too, and repair.
    Scrub = "scrub",
    /// A comparison, and repair.
    Verify = "verify",
});

/// Rules for each, and what they share.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Schedules {
    pub resync: Option<Rule>,
    pub scrub: Option<Rule>,
    pub verify: Option<Rule>,
    pub zone: ZoneName,
    pub policy: Policy,
}

impl Schedules {
    pub fn rule(&self, pass: Pass) -> Option<&Rule> {
        match pass {
            Pass::Resync => self.resync.as_ref(),
            Pass::Scrub => self.scrub.as_ref(),
            Pass::Verify => self.verify.as_ref(),
        }
    }

    pub fn schedule(&self, pass: Pass) -> Option<Schedule> {
        let rule = self.rule(pass)?.clone();
        let Self { zone, policy, .. } = self;
        Some(Schedule { rule, zone: zone.clone(), start: None, end: None, policy: policy.clone() })
    }

    pub fn is_empty(&self) -> bool {
        Pass::ALL.iter().all(|pass| self.rule(*pass).is_none())
    }
}

/// How far the schedules of a sync were followed for one of its targets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncState {
    pub sync: SyncName,
    pub target: NodeName,
    /// Never empty.
    pub passes: BTreeMap<Pass, Progress>,
}
