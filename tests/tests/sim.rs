//! Simulated clusters: many stories, those that once showed a mistake, and mistakes made on purpose.

use lockstep_tests::sim::mutation::Mutation;
use lockstep_tests::sim::{OLD_COPIES, tell};

/// In tests/run; `tests/sim` goes on from there.
const SEEDS: u64 = 2000;
const PARTS: u64 = 8;

fn check(seed: u64) {
    let told = tell(seed, None);
    let broken = told.violation.as_ref().map(|broken| format!("{}: {}", broken.check, broken.text));
    let scenario = &told.scenario;
    assert!(
        broken.is_none(),
        "seed {seed} ({scenario}): {broken:?}; tests/sim --seed {seed} tells its story"
    );
}

/// In parts, so that they run beside each other.
macro_rules! parts {
    ($($name:ident = $part:literal,)+) => {
        $(
            #[test]
            fn $name() {
                let begin = 1 + $part * SEEDS / PARTS;
                (begin..begin + SEEDS / PARTS).for_each(check);
            }
        )+
    };
}

parts! {
    stories_keep_every_promise_1 = 0,
    stories_keep_every_promise_2 = 1,
    stories_keep_every_promise_3 = 2,
    stories_keep_every_promise_4 = 3,
    stories_keep_every_promise_5 = 4,
    stories_keep_every_promise_6 = 5,
    stories_keep_every_promise_7 = 6,
    stories_keep_every_promise_8 = 7,
}

/// The store is put back to an older copy: two never write, nothing acknowledged is lost, and once it
/// is accepted all is well.
macro_rules! old_copies {
    ($($name:ident = $part:literal,)+) => {
        $(
            #[test]
            fn $name() {
                let begin = OLD_COPIES + $part * 100;
                (begin..begin + 100).for_each(check);
            }
        )+
    };
}

old_copies! {
    old_copies_keep_every_promise_1 = 0,
    old_copies_keep_every_promise_2 = 1,
    old_copies_keep_every_promise_3 = 2,
    old_copies_keep_every_promise_4 = 3,
}

/// A mark that became durable after its step was ended kept a member from its lease for ever.
#[test]
fn a_mark_that_is_late_keeps_nobody_from_a_lease() {
    check(427);
}

/// A seal that was given up in the middle left a standby that follows nobody.
#[test]
fn a_seal_that_is_given_up_leaves_a_standby_that_follows() {
    check(367);
}

/// Each mistake, and the number of a story that shows it; the same story without it is fine.
const CAUGHT: &[(Mutation, u64)] = &[
    (Mutation::LeaseEndsAtOnce, 2),
    (Mutation::OneVoterLess, 3),
    (Mutation::DivergenceIgnored, 3),
    (Mutation::NoQuorumAtPromotion, 3),
    (Mutation::BooksInMemory, 3),
    (Mutation::SealedAttached, 3),
    (Mutation::SettledAtOnce, 7),
    (Mutation::NoFence, 11),
    (Mutation::AcknowledgeBeforeFlush, 14),
    (Mutation::NoGuard, 26),
    (Mutation::TimelineReused, 29),
    (Mutation::WrongPosition, 90),
    (Mutation::SalvageSkipped, 90),
    (Mutation::PromiseForgotten, 151),
    (Mutation::PromiseInMemory, 208),
    (Mutation::BooksUnsettled, 322),
    (Mutation::ReleasedAlive, 362),
    (Mutation::OnePromise, 456),
    (Mutation::ToldBeforeDurable, 614),
    (Mutation::ToldForgotten, 1_000_008),
];

#[test]
fn mistakes_made_on_purpose_are_found() {
    for (mutation, seed) in CAUGHT {
        check(*seed);
        let told = tell(*seed, Some(*mutation));
        assert!(told.violation.is_some(), "{} is not found by seed {seed}", mutation.as_str());
    }
}
