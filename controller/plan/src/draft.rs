//! A plan in the making: collects groups of writes, reasons and the time to wake, and holds the
//! limits of a transaction. Decides nothing.

use std::collections::BTreeSet;

use lockstep_model::reason::Reason;
use lockstep_model::record::{Key, Record, Write};
use lockstep_model::task::{Slot, Task, TaskSpec};
use lockstep_model::{ClusterName, Millis, MirrorName, NodeName, TaskId, Timestamp};

use crate::mirrors::Rest;
use crate::{Plan, World};

pub(crate) struct Draft<'a> {
    pub world: &'a World,
    pub now: Timestamp,
    writes_max: usize,
    keys: BTreeSet<Key>,
    born: u32,
    given: BTreeSet<(NodeName, Slot)>,
    /// Reasons are not kept, only when to look again.
    silent: bool,
    plan: Plan,
}

impl<'a> Draft<'a> {
    pub fn new(world: &'a World, now: Timestamp, writes_max: usize) -> Self {
        Self {
            world,
            now,
            writes_max,
            keys: BTreeSet::new(),
            born: 0,
            given: BTreeSet::new(),
            silent: false,
            plan: Plan::default(),
        }
    }

    /// Writes that stand or fall together. What no longer fits waits for the next round; false then.
    pub fn write(&mut self, rule: &'static str, group: impl Into<Vec<Write>>) -> bool {
        let group = group.into();
        if self.plan.cut || self.plan.writes.len() + group.len() > self.writes_max {
            self.plan.cut = true;
            return false;
        }
        for write in group {
            let fresh = self.keys.insert(write.key());
            debug_assert!(fresh, "{rule} writes {} a second time", write.key());
            if fresh {
                self.plan.writes.push((rule, write));
            }
        }
        true
    }

    /// Nothing more fits.
    pub fn is_cut(&self) -> bool {
        self.plan.cut
    }

    pub fn writes(&self, key: &Key) -> bool {
        self.keys.contains(key)
    }

    pub fn delete_task(&mut self, rule: &'static str, node: &NodeName, id: TaskId) {
        let _ = self.write(rule, [Write::Delete(Key::Task(node.clone(), id))]);
    }

    /// A new task. `old`, when given, is written with it, so that a slot never has two live tasks.
    pub fn give(&mut self, rule: &'static str, new: NewTask, old: Option<Task>) {
        let task = self.born(new);
        match old {
            Some(old) => self.write(rule, [Write::Put(Record::Task(old)), task]),
            None => self.write(rule, [task]),
        };
    }

    /// A new task, for a group of writes. A slot that has a live task is not to be given another.
    pub fn born(&mut self, new: NewTask) -> Write {
        let id = TaskId { revision: self.world.revision().next(), n: self.born };
        self.born += 1;
        self.given.insert((new.node.clone(), new.spec.slot()));
        Write::Put(Record::Task(new.born(id, self.now)))
    }

    /// Whether the slot was given a task by a rule before this one.
    pub fn gave(&self, node: &NodeName, slot: &Slot) -> bool {
        !self.given.is_empty() && self.given.contains(&(node.clone(), slot.clone()))
    }

    pub fn wait(
        &mut self,
        subject: String,
        rule: &'static str,
        text: String,
        until: Option<Timestamp>,
    ) {
        if let Some(until) = until {
            self.wake(until);
        }
        if !self.silent {
            self.plan.reasons.push(Reason { subject, rule, text, until });
        }
    }

    /// Does `look`, without keeping reasons when `silent`; when time alone changes what it found,
    /// and whether it found nothing to do.
    pub fn apart(
        &mut self,
        silent: bool,
        look: impl FnOnce(&mut Self),
    ) -> (Option<Timestamp>, bool) {
        let outer = (self.plan.wake_at.take(), self.silent, self.plan.writes.len());
        self.silent = silent;
        look(self);
        let until = self.plan.wake_at;
        self.silent = outer.1;
        if let Some(at) = outer.0 {
            self.wake(at);
        }
        (until, !self.plan.cut && self.plan.writes.len() == outer.2)
    }

    pub fn rest(&mut self, name: MirrorName, rest: Rest) {
        self.plan.rests.mirrors.push((name, rest));
    }

    pub fn rest_cluster(&mut self, name: ClusterName, until: Option<Timestamp>) {
        self.plan.rests.clusters.push((name, until));
    }

    /// Plan again at `at`, when not before.
    pub fn wake(&mut self, at: Timestamp) {
        let earliest = self.plan.wake_at.map_or(at, |before| before.min(at));
        self.plan.wake_at = Some(earliest);
    }

    pub fn finish(self) -> Plan {
        self.plan
    }
}

/// A task before it has its id.
pub(crate) struct NewTask {
    pub node: NodeName,
    pub spec: TaskSpec,
    pub attempt: u32,
    pub run_limit: Millis,
    pub traceparent: Option<String>,
}

impl NewTask {
    pub fn born(self, id: TaskId, created_at: Timestamp) -> Task {
        let Self { node, spec, attempt, run_limit, traceparent } = self;
        Task {
            id,
            node,
            spec,
            attempt,
            created_at,
            run_limit,
            cancel_requested: false,
            ended: None,
            traceparent,
        }
    }
}
