//! Every state under every goal: each way ends, and none writes without a lease.

use std::collections::BTreeSet;

use lockstep_model::cluster::{Lsn, Primary, Quorum};

use super::*;

const STATES: [MemberState; 17] = [
    MemberState::Missing,
    MemberState::Copying,
    MemberState::Rewinding,
    MemberState::Stopped,
    MemberState::Crashed,
    MemberState::Starting,
    MemberState::Standby,
    MemberState::Sealed,
    MemberState::Promoting,
    MemberState::Primary,
    MemberState::Rogue,
    MemberState::Stopping,
    MemberState::Fenced,
    MemberState::Unfenced,
    MemberState::Diverged,
    MemberState::Foreign,
    MemberState::Missing,
];

fn goals() -> Vec<Goal> {
    let mut all = vec![
        Goal::HandOver,
        Goal::Standby { upstream: None },
        Goal::Standby { upstream: Some("db1".parse().unwrap()) },
        Goal::Sealed { salvage: None },
        Goal::Sealed { salvage: Some("db1".parse().unwrap()) },
        Goal::Fenced,
        Goal::Stopped,
        Goal::Maintenance,
    ];
    for origin in [Origin::Existing, Origin::Initdb, Origin::Adopt] {
        for crash in [CrashPlan::Restart, CrashPlan::Release] {
            let at_least = Lsn(0);
            let quorum = Quorum::OFF;
            let (timeline, prepare) = (0, false);
            let primary = Primary { origin, at_least, timeline, quorum, crash, prepare };
            all.push(Goal::Primary(primary));
        }
    }
    all
}

/// Every combination of facts that can be.
fn all_facts(goal: &Goal) -> impl Iterator<Item = Facts> {
    let upstream = matches!(goal, Goal::Standby { upstream: Some(_) });
    let salvage = matches!(goal, Goal::Sealed { salvage: Some(_) });
    (0u32..1 << 12).filter_map(move |bits| {
        let bit = |n: u32| bits >> n & 1 == 1;
        let facts = Facts {
            holds: bit(0),
            holds_this: bit(1),
            gave_up: bit(2),
            leased: bit(3),
            copy_due: bit(4),
            upstream,
            configured: bit(5),
            salvage_due: salvage && bit(6),
            mendable: bit(7),
            restartable: bit(8),
            first: bit(9),
            runs: false,
            unclear: bit(10),
            unattested: bit(10),
            in_recovery: bit(11),
        };
        let can_be = (!facts.holds_this || facts.holds && !facts.gave_up)
            && !(facts.first && (facts.holds || facts.gave_up || facts.unclear));
        can_be.then_some(facts)
    })
}

fn runs(state: MemberState) -> bool {
    use MemberState as S;
    matches!(
        state,
        S::Starting | S::Standby | S::Promoting | S::Primary | S::Rogue | S::Stopping | S::Unfenced
    )
}

/// What a step comes to when it works.
fn after(step: Step, found: MemberState, goal: &Goal, mut facts: Facts) -> (MemberState, Facts) {
    use MemberState as S;
    let state = match step {
        Step::Make => S::Stopped,
        Step::Copy => {
            (facts.copy_due, facts.unclear, facts.unattested) = (false, false, false);
            S::Stopped
        }
        Step::Mend => {
            (facts.unclear, facts.unattested) = (false, false);
            S::Stopped
        }
        Step::Adopt => {
            (facts.holds, facts.holds_this, facts.first) = (true, true, false);
            S::Primary
        }
        Step::StartStandby => S::Standby,
        Step::StartSealed => S::Sealed,
        Step::StartPrimary | Step::Promote => {
            (facts.holds, facts.holds_this, facts.configured) = (true, true, true);
            S::Primary
        }
        Step::TakeLease => {
            facts.leased = true;
            found
        }
        Step::Configure => {
            facts.configured = true;
            facts.holds_this |= found == S::Primary;
            facts.holds |= found == S::Primary;
            if matches!(goal, Goal::Standby { .. }) && found == S::Sealed {
                S::Standby
            } else {
                found
            }
        }
        Step::Seal | Step::ReadEnd => S::Sealed,
        Step::Salvage => {
            facts.salvage_due = false;
            S::Sealed
        }
        Step::Stop => S::Stopped,
        Step::Fence => S::Crashed,
        Step::Release => {
            facts.gave_up |= facts.holds_this;
            (facts.holds, facts.holds_this) = (false, false);
            found
        }
        Step::Attest => {
            facts.unattested = false;
            found
        }
        Step::Mark => S::Fenced,
        Step::Unmark => S::Stopped,
        Step::Stay | Step::Wait(_) => found,
    };
    facts.runs = runs(state) || matches!(step, Step::StartSealed | Step::Seal | Step::Salvage);
    (state, facts)
}

/// Each way ends where it is to be, or says what it waits for; none goes round in a circle.
#[test]
fn every_state_finds_its_way_under_every_goal() {
    let mut ways = 0;
    for goal in goals() {
        for start in STATES {
            for facts in all_facts(&goal) {
                let mut at = (start, Facts { runs: runs(start), ..facts });
                let mut way = Vec::new();
                loop {
                    let step = step(at.0, &goal, at.1);
                    way.push((at.0, step));
                    if matches!(step, Step::Stay | Step::Wait(_)) {
                        break;
                    }
                    assert!(way.len() < 12, "{goal:?} {facts:?}: {way:?}");
                    at = after(step, at.0, &goal, at.1);
                }
                ways += 1;
            }
        }
    }
    assert!(ways > 10_000);
}

/// I3 and the first promise, as far as the ladder goes.
#[test]
fn nothing_writes_without_a_lease_and_no_writer_is_kept_under_another_goal() {
    use MemberState as S;
    let mut seen = BTreeSet::new();
    for goal in goals() {
        for state in STATES {
            // Sealed on disk, or running.
            let sealed = all_facts(&goal).filter(|_| state == S::Sealed);
            let sealed = sealed.map(|facts| Facts { runs: true, ..facts });
            let all = all_facts(&goal).map(|facts| Facts { runs: runs(state), ..facts });
            for facts in all.chain(sealed) {
                let step = step(state, &goal, facts);
                seen.insert(step);
                if matches!(step, Step::Promote | Step::StartPrimary | Step::Adopt) {
                    assert!(matches!(goal, Goal::Primary(_)), "{state:?} {goal:?}");
                    assert!(facts.leased || state == S::Promoting, "{state:?} {facts:?}");
                    assert!(!facts.gave_up, "{state:?} {facts:?}");
                }
                let is_other =
                    matches!(goal, Goal::Standby { .. } | Goal::Sealed { .. } | Goal::Fenced);
                if is_other && matches!(state, S::Primary | S::Rogue | S::Promoting) {
                    assert_eq!(step, Step::Fence, "{goal:?} {facts:?}");
                }
                if matches!(step, Step::StartStandby | Step::StartSealed) {
                    let again = step == Step::StartSealed && facts.holds_this && facts.in_recovery;
                    let is_promoted = again && matches!(goal, Goal::Primary(_));
                    let told = "released first";
                    assert!(!facts.holds || is_promoted, "{told}: {state:?} {goal:?} {facts:?}");
                }
                if state == S::Foreign {
                    assert_eq!(step, Step::Wait(Wait::Foreign));
                }
            }
        }
    }
    // No step that is never taken.
    let all = [
        Step::Make,
        Step::Adopt,
        Step::Copy,
        Step::Mend,
        Step::StartStandby,
        Step::StartSealed,
        Step::StartPrimary,
        Step::TakeLease,
        Step::Promote,
        Step::Configure,
        Step::Seal,
        Step::ReadEnd,
        Step::Salvage,
        Step::Stop,
        Step::Fence,
        Step::Release,
        Step::Attest,
        Step::Mark,
        Step::Unmark,
        Step::Stay,
    ];
    for step in all {
        assert!(seen.contains(&step), "{step:?}");
    }
}
