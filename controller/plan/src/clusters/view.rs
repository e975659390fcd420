//! One cluster with everything that its rules may ask: the records, what members say and how old
//! that is, and who could do what. Answers questions; decides nothing.

use std::collections::BTreeSet;

use lockstep_model::cluster::{
    Cluster, ClusterPlace, ClusterState, Failover, Member, MemberAdmin, MemberReport, MemberState,
    Quorum,
};
use lockstep_model::node::{Node, NodeAdmin};
use lockstep_model::task::{Slot, Task, TaskSpec};
use lockstep_model::{Millis, NodeName, Timestamp};

use crate::World;
use crate::leases::Uptime;
use crate::seen::{Away, Heard};

#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub world: &'a World,
    pub cluster: &'a Cluster,
    pub state: &'a ClusterState,
    pub now: Timestamp,
}

impl<'a> View<'a> {
    /// The same cluster after a decision.
    pub fn with<'b>(&self, state: &'b ClusterState) -> View<'b>
    where
        'a: 'b,
    {
        View { state, ..*self }
    }

    pub fn up(&self) -> Uptime {
        self.world.leases().now()
    }

    /// The time of day when the clock of leases will show `up`.
    pub fn at(&self, up: Uptime) -> Timestamp {
        self.now + up.since(self.up())
    }

    pub fn suspect(&self) -> Millis {
        self.cluster.options.lease.suspect
    }

    pub fn node(&self, name: &NodeName) -> Option<&'a Node> {
        self.world.nodes().get(name).map(|node| &node.value)
    }

    /// Its record, while the node may be told something.
    pub fn member(&self, name: &NodeName) -> Option<&'a Member> {
        let node = self.node(name)?;
        self.cluster.member(name).filter(|_| node.admin != NodeAdmin::Expelled)
    }

    /// Members of the same group fail together; those without one are in one place too.
    pub fn group(&self, name: &NodeName) -> Option<&'a str> {
        self.cluster.member(name)?.options.group.as_deref()
    }

    pub fn others(&self, than: &NodeName) -> impl Iterator<Item = &'a Member> + use<'a> {
        let than = than.clone();
        self.cluster.members.iter().filter(move |member| member.node != than)
    }

    pub fn is_managed(&self, name: &NodeName) -> bool {
        let works = |node: &Node| matches!(node.admin, NodeAdmin::Enabled | NodeAdmin::Draining);
        self.node(name).is_some_and(works)
            && self
                .cluster
                .member(name)
                .is_some_and(|m| m.admin == MemberAdmin::Managed && m.leaving.is_none())
    }

    /// What it said last, on whatever stream.
    pub fn last(&self, name: &NodeName) -> Option<&'a Heard<MemberReport>> {
        self.world.member_said(&self.cluster.name, name)
    }

    /// What it says on the stream that is open.
    pub fn says(&self, name: &NodeName) -> Option<&'a MemberReport> {
        self.last(name).filter(|heard| heard.current).map(|heard| &heard.report)
    }

    /// What it says on the stream that is open, if it said it after `began`: one whose host is gone
    /// looks connected for some time.
    pub fn says_since(&self, name: &NodeName, began: Timestamp) -> Option<&'a MemberReport> {
        let most = self.now.since(began).min(self.suspect());
        let heard = self.last(name).filter(|heard| heard.current)?;
        (self.up().since(heard.at) < most).then_some(&heard.report)
    }

    pub fn is_connected(&self, name: &NodeName) -> bool {
        self.world.seen(name).is_some_and(|seen| seen.is_connected())
    }

    pub fn is_away(&self, name: &NodeName) -> bool {
        self.world.away(name, self.now) == Away::Yes
    }

    /// It said something lately: a controller that is cut off itself hears nobody.
    pub fn is_heard(&self, name: &NodeName) -> bool {
        let recent = Millis(2 * self.suspect().0);
        let contact = self.world.seen(name).map(|seen| seen.last_contact_at);
        self.is_connected(name)
            && (self.last(name).is_some_and(|heard| self.up().since(heard.at) <= recent)
                || contact.is_some_and(|at| self.now.since(at) <= recent))
    }

    pub fn is_copied(&self, member: &Member) -> bool {
        let record = self.state.members.get(&member.node);
        record.is_some_and(|record| record.copied == member.copy)
    }

    /// By its records: it has a copy of the data and may become primary by itself.
    pub fn may_lead(&self, member: &Member) -> bool {
        self.is_managed(&member.node)
            && self.node(&member.node).is_some_and(|node| node.admin == NodeAdmin::Enabled)
            && !member.options.never_promote
            && member.options.delay.is_none()
            && self.is_copied(member)
    }

    pub fn holder(&self) -> Option<&'a NodeName> {
        self.state.holder.as_ref()
    }

    pub fn holder_says(&self) -> Option<&'a MemberReport> {
        self.says(self.holder()?)
    }

    /// It says that it receives from the holder.
    pub fn follows(&self, name: &NodeName) -> bool {
        let from = |report: &MemberReport| report.upstream.as_ref().map(|up| up.from.clone());
        self.says(name).is_some_and(|report| {
            report.state == MemberState::Standby && from(report).as_ref() == self.holder()
        })
    }

    /// It follows, and neither its word nor what it has of the holder is old.
    pub fn streams(&self, name: &NodeName) -> bool {
        let recent = Millis(2 * self.suspect().0);
        let is_fresh = |heard: &Heard<MemberReport>| {
            let age = heard.report.upstream.as_ref().map_or(recent, |up| up.age);
            self.up().since(heard.at) <= recent && age < recent
        };
        self.follows(name) && self.last(name).is_some_and(is_fresh)
    }

    /// Nothing that the primary said lets one think otherwise: that nobody receives anything from one
    /// that dies is no reason to change what it does then, or who acknowledges.
    pub fn sends_to(&self, name: &NodeName) -> bool {
        let Some(report) = self.holder_says() else { return true };
        let row = report.standbys.iter().find(|row| row.node == *name);
        report.state != MemberState::Primary || row.is_some_and(|row| row.streaming)
    }

    /// The newest that a node was told of the cluster, unless it has nothing to do with it.
    pub fn told(&self, name: &NodeName) -> Option<&'a ClusterPlace> {
        match &self.task(name)?.spec {
            TaskSpec::ClusterPlace(place) => Some(place),
            _ => None,
        }
    }

    pub fn task(&self, name: &NodeName) -> Option<&'a Task> {
        self.world.newest(name, &Slot::Cluster(self.cluster.name.clone()))
    }

    /// What the primary is told.
    pub fn quorum(&self) -> &'a Quorum {
        static NOBODY: Quorum = Quorum::OFF;
        self.state.quorums.last().unwrap_or(&NOBODY)
    }

    /// No change of the quorum is under way, and commits wait for somebody.
    pub fn is_protected(&self) -> bool {
        self.state.is_settled() && !self.quorum().is_off()
    }

    pub fn report(&self, number: u64) -> Option<&'a Failover> {
        self.world.failover(&self.cluster.name, number)
    }

    /// Whether each quorum of the last holder that may be in force has so many members in `found` that no commit can be
    /// acknowledged without them.
    pub fn covers(&self, found: &BTreeSet<&NodeName>) -> bool {
        self.state.quorums.iter().all(|quorum| {
            let there = quorum.of.iter().filter(|node| found.contains(node)).count();
            quorum.seals_needed().is_some_and(|needed| there >= needed)
        })
    }

    /// `cluster/main`
    pub fn subject(&self) -> String {
        format!("cluster/{}", self.cluster.name)
    }

    /// `cluster/main/db1`
    pub fn part(&self, node: &NodeName) -> String {
        format!("cluster/{}/{node}", self.cluster.name)
    }
}
