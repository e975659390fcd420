//! Which step of a pull comes next, and whether the guards let it. Pure: what a step told comes in,
//! the next step or a refusal comes out. Until a step is let through nothing of the tree is removed.

use lockstep_model::mirror::rsync::Delete;
use lockstep_model::mirror::{Allow, Pulled};
use lockstep_model::rate::Size;
use lockstep_model::removal::RemovalLimit;

use super::argv::Step;
use super::ending::Ended;
use super::output::Output;

/// What a pull is held to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Guards {
    pub limit: Option<RemovalLimit>,
    pub min_free: Size,
    pub allow: Allow,
}

/// Where the content goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Into the tree that is there.
    Tree,
    /// Into a tree that has nothing yet, or nothing that is known.
    First,
    /// Into a new directory, files linked from the tree that is there; a dry run is against that.
    Snapshot,
}

/// A pull under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Course {
    /// `none` in the first of two stages.
    delete: Delete,
    place: Place,
    /// A snapshot is built although nothing is new.
    anyway: bool,
    guards: Guards,
    has_content: bool,
    pulled: Pulled,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    Run(Step),
    /// The tree is complete; with [`Place::Snapshot`] and nothing changed there is no new one.
    Done,
    Refused(Refusal),
}

/// Why a pull goes no further. The tree has all that it had.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error(
        "there is nothing to pull: the other side is empty, or everything is left out by filters; \
         if that is right: --allow empty"
    )]
    Empty,
    #[error(
        "{entries} of {before} entries would be removed, and the limit is {limit}; if that is \
         right: --allow delete"
    )]
    Removals { entries: u64, before: u64, limit: RemovalLimit },
    #[error(
        "{needed} bytes are to come and {free} are free, of which {min_free} must stay: make room, \
         or --allow space"
    )]
    Space { needed: u64, free: u64, min_free: u64 },
}

impl Course {
    pub fn new(delete: Delete, place: Place, guards: Guards) -> Self {
        Self { delete, place, anyway: false, guards, has_content: false, pulled: Pulled::default() }
    }

    pub fn built_anyway(self, anyway: bool) -> Self {
        Self { anyway, ..self }
    }

    /// `free` bytes are left on the file system, here and below.
    pub fn first(&self, free: u64) -> Next {
        if let Err(refusal) = self.fits(0, free) {
            return Next::Refused(refusal);
        }
        let counts = self.place != Place::Tree || self.removes_early();
        Next::Run(if counts { Step::Count } else { Step::Content })
    }

    /// After a step that is complete.
    pub fn next(&mut self, step: Step, ended: &Ended, output: &Output, free: u64) -> Next {
        self.add(step, output);
        self.weigh(step, ended, output, free).unwrap_or_else(Next::Refused)
    }

    /// What the steps so far have done, a failed one too if it was added. Times, the exit code and
    /// what is free are not in it.
    pub fn pulled(&self) -> Pulled {
        self.pulled
    }

    /// Takes in what a step did.
    pub fn add(&mut self, step: Step, output: &Output) {
        let Output { stats, changed, .. } = output;
        let pulled = &mut self.pulled;
        pulled.received_bytes += stats.received_bytes;
        if stats.files > 0 {
            // The top is none of them.
            pulled.entries = stats.files - 1;
            pulled.tree_bytes = stats.total_bytes;
        }
        // A new directory differs from nothing in everything; the dry run told from the tree.
        let against_tree = match step {
            Step::Count => self.place == Place::Snapshot,
            Step::Content | Step::Removing { .. } => self.place != Place::Snapshot,
        };
        if against_tree {
            pulled.created += stats.created;
            pulled.deleted += stats.deleted;
            pulled.changed |= changed;
        }
        if step != Step::Count {
            pulled.files += stats.brought;
        }
    }

    fn weigh(
        &mut self,
        step: Step,
        ended: &Ended,
        out: &Output,
        free: u64,
    ) -> Result<Next, Refusal> {
        let stats = &out.stats;
        if stats.files <= 1 && !self.guards.allow.empty {
            return Err(Refusal::Empty);
        }
        Ok(match step {
            Step::Count => {
                if !self.has_content {
                    self.fits(stats.brought_bytes, free)?;
                }
                let most = stats.deleted;
                self.may_remove(most, stats.before())?;
                match self.place {
                    Place::Snapshot if !self.pulled.changed && !self.anyway => Next::Done,
                    Place::Tree | Place::First if self.has_content || self.removes_early() => {
                        Next::Run(Step::Removing { most })
                    }
                    _ => Next::Run(Step::Content),
                }
            }
            Step::Content => {
                self.has_content = true;
                let before = stats.before().saturating_add(ended.left);
                // Of what is left to remove only the bounds are known.
                let most = ended.left.saturating_mul(2);
                if self.place == Place::Snapshot || most == 0 {
                    return Ok(Next::Done);
                }
                self.may_remove(ended.left, before)?;
                Next::Run(match self.may_remove(most, before) {
                    Ok(()) => Step::Removing { most },
                    Err(_) => Step::Count,
                })
            }
            Step::Removing { .. } => Next::Done,
        })
    }

    fn removes_early(&self) -> bool {
        match self.delete {
            Delete::None | Delete::After | Delete::Excluded => false,
            Delete::Plain | Delete::Del | Delete::Before | Delete::During | Delete::Delay => true,
        }
    }

    fn fits(&self, needed: u64, free: u64) -> Result<(), Refusal> {
        let min_free = self.guards.min_free.0;
        match self.guards.allow.space || needed.saturating_add(min_free) <= free {
            true => Ok(()),
            false => Err(Refusal::Space { needed, free, min_free }),
        }
    }

    /// So many of the entries that were there before.
    fn may_remove(&self, entries: u64, before: u64) -> Result<(), Refusal> {
        let Some(limit) = self.guards.limit.filter(|_| entries > 0 && !self.guards.allow.delete)
        else {
            return Ok(());
        };
        let over = [
            limit.count.map(|most| entries > most.into()),
            limit
                .percent
                .map(|most| entries.saturating_mul(100) > before.saturating_mul(most.into())),
        ];
        // When both are there, both must be passed.
        let mut set = over.iter().flatten().peekable();
        match set.peek().is_some() && set.all(|over| *over) {
            true => Err(Refusal::Removals { entries, before, limit }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
