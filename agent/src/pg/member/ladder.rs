//! What a member does next: from what is found and what is wanted, one step. Pure. Every pair of a
//! state and a goal has its row here, and no row leads round in a circle.

use lockstep_model::cluster::{CrashPlan, Goal, MemberState, Origin};

/// What decides beside state and goal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(clippy::struct_excessive_bools)] // facts that are independent of each other
pub struct Facts {
    /// It was primary in a term that it has not given up.
    pub holds: bool,
    /// And that is the goal's term.
    pub holds_this: bool,
    /// It gave the goal's term up.
    pub gave_up: bool,
    /// Its lease of the goal's term is good.
    pub leased: bool,
    /// Its data is not the copy that is wanted.
    pub copy_due: bool,
    /// Somebody to follow is named, and known.
    pub upstream: bool,
    /// Configured for its goal.
    pub configured: bool,
    /// A dead instance's log is wanted and not there yet.
    pub salvage_due: bool,
    /// It can be brought back from a way of its own by a rewind or a new copy.
    pub mendable: bool,
    /// A restart in place is worth a try.
    pub restartable: bool,
    /// Nobody was primary before: what is there is the beginning.
    pub first: bool,
    /// A postmaster lives.
    pub runs: bool,
    /// A primary wrote it, and where the next one began is not known.
    pub unclear: bool,
    /// A primary wrote it, is dead, and nobody was offered the end of its log.
    pub unattested: bool,
    /// It was in recovery when it ended: started writable it would go on without a new timeline.
    pub in_recovery: bool,
}

/// One step; each is repeated until it worked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Step {
    /// initdb.
    Make,
    /// Take a running primary over.
    Adopt,
    /// A complete copy from the upstream.
    Copy,
    /// pg_rewind, or a copy where that cannot be.
    Mend,
    /// Start in recovery, following the upstream.
    StartStandby,
    /// Start in recovery, receiving nothing.
    StartSealed,
    /// Start writable again after a crash, under the lease.
    StartPrimary,
    /// Ask for the lease and wait for it.
    TakeLease,
    /// Leave recovery, under the lease.
    Promote,
    /// Have the configuration of the goal in force.
    Configure,
    /// Receive nothing any more.
    Seal,
    /// Where a dead instance's log ends, without starting it.
    ReadEnd,
    /// Bring a dead instance's last log and replay it.
    Salvage,
    /// Stop, with everything sent and a checkpoint at the end.
    Stop,
    /// Stop at once: a standby that is not to run needs no checkpoint.
    Fence,
    /// Attest that no process is left and that none can start writable.
    Release,
    /// Find the end of the dead primary's log, and offer it to the others.
    Attest,
    /// Durably not to run.
    Mark,
    /// To run again.
    Unmark,
    /// It is where it is to be.
    Stay,
    /// Only something else can bring it on: why.
    Wait(Wait),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Wait {
    /// The directory holds other data.
    Foreign,
    /// A primary is wanted of no data.
    NoData,
    /// Nobody to copy from or to follow.
    NoUpstream,
    /// Until it takes sessions, or has stopped.
    Progress,
    /// It gave up this term; only a later one can use it again.
    GaveUp,
    /// It went another way, and settings forbid every way back.
    NotMendable,
    /// A dead primary is left as it is, so that what only it has can be fetched.
    Untouched,
}

impl Wait {
    /// For people; empty: nothing is wrong.
    pub fn problem(self) -> &'static str {
        match self {
            Self::Foreign => {
                "the data directory holds other data: put it aside, or set data-dir of this member"
            }
            Self::NoData => {
                "there is no data to be primary of: restore it, or fail over to a member that has it"
            }
            Self::NoUpstream => "there is nobody to copy from yet",
            Self::NotMendable => {
                "its data went another way, and neither rewind nor a new copy is allowed: lockstepctl cluster reclone"
            }
            Self::Progress | Self::GaveUp | Self::Untouched => "",
        }
    }
}

/// The table.
pub fn step(found: MemberState, goal: &Goal, facts: Facts) -> Step {
    use MemberState as S;
    let is_sealed_on_disk = found == S::Sealed && !facts.runs;
    // Only while it is to be sealed is that more than being stopped.
    let found = match goal {
        Goal::Sealed { .. } => found,
        _ if is_sealed_on_disk => S::Stopped,
        _ => found,
    };
    // What holds under every goal, before anything else.
    match found {
        S::Foreign => return Step::Wait(Wait::Foreign),
        S::Unfenced if *goal != Goal::Maintenance => return Step::Fence,
        S::Rogue if !may_write(goal, facts) => return Step::Fence,
        _ => {}
    }
    let is_dead = is_sealed_on_disk
        || matches!(found, S::Stopped | S::Crashed | S::Fenced | S::Missing | S::Diverged);
    // What was primary and is to be so no more in that term attests its end first.
    if is_dead && facts.holds && !keeps_holding(found, goal, facts) {
        return Step::Release;
    }
    if is_dead && facts.unattested && !facts.holds {
        return Step::Attest;
    }
    match goal {
        Goal::Primary(primary) => to_primary(found, primary.origin, facts),
        Goal::HandOver => to_hand_over(found, facts),
        Goal::Standby { .. } => to_standby(found, facts),
        Goal::Sealed { .. } => to_sealed(found, facts),
        Goal::Fenced => to_fenced(found),
        Goal::Stopped => to_stopped(found),
        Goal::Maintenance => Step::Stay,
    }
}

/// Somebody else made it writable, and is to be let.
fn may_write(goal: &Goal, facts: Facts) -> bool {
    match goal {
        Goal::Primary(primary) => primary.origin == Origin::Adopt && !facts.gave_up,
        Goal::Maintenance => true,
        _ => false,
    }
}

/// A dead primary keeps its term to be started again in it.
fn keeps_holding(found: MemberState, goal: &Goal, facts: Facts) -> bool {
    match goal {
        Goal::Primary(primary) => {
            let restart = primary.crash == CrashPlan::Restart || found == MemberState::Stopped;
            facts.holds_this && restart && facts.restartable
        }
        Goal::Maintenance => true,
        _ => false,
    }
}

fn to_primary(found: MemberState, origin: Origin, facts: Facts) -> Step {
    use MemberState as S;
    if facts.gave_up {
        return match found {
            S::Starting | S::Standby | S::Sealed | S::Promoting | S::Primary | S::Rogue => {
                Step::Fence
            }
            _ => Step::Wait(Wait::GaveUp),
        };
    }
    match found {
        S::Missing | S::Copying => match origin {
            Origin::Initdb => Step::Make,
            Origin::Existing | Origin::Adopt => Step::Wait(Wait::NoData),
        },
        S::Rewinding => Step::Wait(Wait::NotMendable),
        S::Fenced => Step::Unmark,
        // Its promotion did not come about, and is made again.
        S::Stopped | S::Crashed | S::Diverged if facts.holds_this && facts.in_recovery => {
            Step::StartSealed
        }
        S::Stopped | S::Crashed | S::Diverged if facts.holds_this || facts.first => {
            match facts.leased {
                true => Step::StartPrimary,
                false => Step::TakeLease,
            }
        }
        S::Stopped | S::Crashed | S::Diverged => Step::StartSealed,
        S::Starting | S::Stopping => Step::Wait(Wait::Progress),
        S::Standby | S::Sealed if !facts.leased => Step::TakeLease,
        S::Standby | S::Sealed | S::Promoting => Step::Promote,
        S::Rogue if !facts.leased => Step::TakeLease,
        S::Rogue => Step::Adopt,
        S::Primary if !facts.leased => Step::TakeLease,
        S::Primary if !facts.configured => Step::Configure,
        S::Primary => Step::Stay,
        S::Unfenced => Step::Fence,
        S::Foreign => Step::Wait(Wait::Foreign),
    }
}

fn to_hand_over(found: MemberState, facts: Facts) -> Step {
    use MemberState as S;
    match found {
        S::Primary => Step::Stop,
        S::Starting if facts.holds => Step::Stop,
        S::Stopping => Step::Wait(Wait::Progress),
        S::Promoting | S::Rogue | S::Unfenced => Step::Fence,
        _ => Step::Stay,
    }
}

fn to_standby(found: MemberState, facts: Facts) -> Step {
    use MemberState as S;
    let copy = if facts.upstream { Step::Copy } else { Step::Wait(Wait::NoUpstream) };
    match found {
        S::Missing | S::Copying => copy,
        S::Fenced => Step::Unmark,
        S::Promoting | S::Primary | S::Rogue | S::Unfenced => Step::Fence,
        // It is of a primary that lives on here: dead first, whatever comes then.
        S::Starting | S::Standby | S::Sealed if facts.holds => Step::Fence,
        S::Stopped | S::Crashed | S::Starting | S::Standby | S::Sealed | S::Diverged
            if facts.copy_due && facts.upstream =>
        {
            Step::Copy
        }
        S::Rewinding | S::Diverged if !facts.mendable => Step::Wait(Wait::NotMendable),
        S::Rewinding | S::Diverged if !facts.upstream => Step::Wait(Wait::NoUpstream),
        S::Rewinding | S::Diverged => Step::Mend,
        S::Stopped | S::Crashed if facts.unclear => Step::Wait(Wait::Untouched),
        S::Stopped | S::Crashed => Step::StartStandby,
        S::Starting if !facts.configured => Step::Configure,
        S::Starting | S::Stopping => Step::Wait(Wait::Progress),
        S::Sealed => Step::Configure,
        S::Standby if !facts.configured => Step::Configure,
        S::Standby => Step::Stay,
        S::Foreign => Step::Wait(Wait::Foreign),
    }
}

fn to_sealed(found: MemberState, facts: Facts) -> Step {
    use MemberState as S;
    match found {
        S::Missing | S::Copying | S::Rewinding | S::Diverged => Step::Stay,
        S::Fenced => Step::Unmark,
        S::Promoting | S::Primary | S::Rogue | S::Unfenced => Step::Fence,
        S::Starting | S::Stopping => Step::Fence,
        S::Standby | S::Sealed if facts.holds => Step::Fence,
        S::Stopped | S::Crashed => Step::ReadEnd,
        S::Standby => Step::Seal,
        S::Sealed if facts.salvage_due && !facts.runs => Step::StartSealed,
        S::Sealed if facts.salvage_due => Step::Salvage,
        S::Sealed => Step::Stay,
        S::Foreign => Step::Wait(Wait::Foreign),
    }
}

fn to_fenced(found: MemberState) -> Step {
    use MemberState as S;
    match found {
        S::Missing | S::Copying | S::Rewinding | S::Stopped | S::Crashed | S::Diverged => {
            Step::Mark
        }
        S::Starting
        | S::Standby
        | S::Sealed
        | S::Promoting
        | S::Primary
        | S::Rogue
        | S::Stopping
        | S::Unfenced => Step::Fence,
        S::Fenced => Step::Stay,
        S::Foreign => Step::Wait(Wait::Foreign),
    }
}

fn to_stopped(found: MemberState) -> Step {
    use MemberState as S;
    match found {
        S::Missing
        | S::Copying
        | S::Rewinding
        | S::Diverged
        | S::Stopped
        | S::Crashed
        | S::Fenced => Step::Stay,
        S::Starting | S::Standby | S::Sealed | S::Primary => Step::Stop,
        S::Stopping => Step::Wait(Wait::Progress),
        S::Promoting | S::Rogue | S::Unfenced => Step::Fence,
        S::Foreign => Step::Wait(Wait::Foreign),
    }
}

#[cfg(test)]
mod tests;
