//! Laws of the window, and the rules for what holds in a table.

use proptest::prelude::*;

use super::*;

const LIMIT: DeleteLimit =
    DeleteLimit { count: Some(1000), percent: Some(25), window: Millis(600_000) };
const COUNT: DeleteLimit = DeleteLimit { percent: None, ..LIMIT };
const T0: Timestamp = Timestamp(1_000_000_000);

fn at(ms: u64) -> Timestamp {
    Timestamp(T0.0 + ms)
}

fn of(total: u64) -> Removals {
    Removals { total, trimmed: true, ..Removals::default() }
}

#[test]
fn what_holds() {
    let share = DeleteLimit { count: None, percent: Some(25), ..LIMIT };
    let none = DeleteLimit { count: None, percent: None, ..LIMIT };
    // Limit, entries on the target, trimmed before, by, to be removed, held.
    let cases = [
        (Some(LIMIT), 100, true, By::Pass, 100, false),
        (Some(LIMIT), 1_000_000, true, By::Pass, 5000, false),
        (Some(LIMIT), 10_000, true, By::Pass, 2501, true),
        (Some(LIMIT), 10_000, true, By::Batch, 2501, true),
        (Some(LIMIT), 10_000, true, By::Pass, 2500, false),
        (Some(LIMIT), 0, true, By::Batch, 1001, true),
        (Some(LIMIT), 0, true, By::Batch, 1000, false),
        // What a target had before it was one.
        (Some(LIMIT), 100, false, By::Pass, 26, true),
        (Some(LIMIT), 1_000_000, false, By::Pass, 1001, true),
        (Some(LIMIT), 20, false, By::Pass, 10, false),
        (Some(LIMIT), 100, false, By::Batch, 26, false),
        (Some(COUNT), 10, true, By::Batch, 1001, true),
        (Some(share), 1000, true, By::Batch, 251, true),
        (Some(share), 1000, true, By::Batch, 250, false),
        (Some(none), 1000, true, By::Batch, 1000, false),
        (None, 1000, false, By::Pass, 1000, false),
        (Some(DeleteLimit { count: Some(0), ..COUNT }), 1000, true, By::Batch, 1, true),
        (Some(DeleteLimit { count: Some(0), ..COUNT }), 1000, true, By::Batch, 0, false),
    ];
    for (limit, total, trimmed, by, entries, held) in cases {
        let mut removals = Removals { trimmed, ..of(total) };
        let answer = removals.ask(by, entries, limit.as_ref(), T0);
        assert_eq!(answer.is_err(), held, "{limit:?} {total} {trimmed} {by:?} {entries}");
        assert_eq!(removals.hold().is_some(), held);
    }
}

fn remove(removals: &mut Removals, entries: u64, now: Timestamp) -> bool {
    let may = removals.ask(By::Batch, entries, Some(&COUNT), now).is_ok();
    if may {
        removals.begin(By::Batch, entries);
        removals.finish(By::Batch, entries, Some(&COUNT), now);
    }
    may
}

#[test]
fn a_hold_ends_by_a_release_or_by_less_to_remove_and_not_by_time() {
    let mut removals = of(0);
    assert!(remove(&mut removals, 600, T0));
    assert!(!remove(&mut removals, 600, at(1)));
    assert!(!remove(&mut removals, 600, at(10_000_000)), "waiting is no consent");
    let mut restored = removals.clone();
    assert!(remove(&mut restored, 400, at(2)));
    let released = removals.release(at(10_000_001));
    assert_eq!(released, Some(600));
    assert!(removals.clone().ask(By::Batch, 1601, Some(&COUNT), at(10_000_002)).is_err());
    assert!(remove(&mut removals, 1600, at(10_000_002)), "what was announced plus the limit");
    assert!(!remove(&mut removals, 1, at(10_000_003)), "once");
    let mut late = of(0);
    assert!(!remove(&mut late, 2000, T0));
    late.release(T0);
    assert!(!remove(&mut late, 2000, at(600_000)), "a release does not wait for ever");
    assert_eq!(of(0).release(T0), None);
}

#[test]
fn a_run_that_failed_is_counted_once() {
    let mut removals = of(0);
    for _ in 0..20 {
        assert!(removals.ask(By::Batch, 700, Some(&COUNT), T0).is_ok(), "an unreachable target");
        removals.begin(By::Batch, 700);
    }
    // It broke off when 500 were gone.
    assert!(removals.ask(By::Batch, 200, Some(&COUNT), T0).is_ok());
    assert!(removals.ask(By::Batch, 501, Some(&COUNT), T0).is_err());
    // A pass that broke off tells nothing about a batch.
    let mut removals = of(0);
    removals.begin(By::Pass, 900);
    assert!(removals.ask(By::Batch, 200, Some(&COUNT), T0).is_ok());
}

#[test]
fn the_reason_says_everything() {
    let mut removals = of(4000);
    removals.window.push_back((T0, 300));
    assert!(removals.ask(By::Pass, 2000, Some(&LIMIT), at(5)).is_err());
    assert_eq!(
        removals.explain(&LIMIT, "webroot", "web1").unwrap(),
        "2000 entries would be removed, after 300 within 600 s: the limit is 1000 entries and 25 % \
         of its 4000 entries; look why, then undo it on the source or let it go with: lockstepctl \
         sync release webroot --target web1"
    );
}

proptest! {
    #[test]
    fn no_window_ever_holds_more_than_the_limit(
        steps in proptest::collection::vec((0u64..200_000, 0u64..700), 1..120),
    ) {
        let mut removals = of(0);
        let (mut now, mut done) = (T0, Vec::new());
        for (pause, entries) in steps {
            now = Timestamp(now.0 + pause);
            if remove(&mut removals, entries, now) {
                done.push((now, entries));
            } else {
                // The source was repaired.
                removals.drop_hold();
            }
            let recent = done.iter().filter(|(at, _)| now.since(*at) < COUNT.window);
            prop_assert!(recent.map(|(_, n)| n).sum::<u64>() <= 1000);
            prop_assert!(removals.window.len() <= STEPS_MAX);
        }
    }

    #[test]
    fn removals_come_back_and_damaged_ones_do_not(
        steps in proptest::collection::vec((0u64..200_000, 0u64..2000), 0..20),
        flip in any::<prop::sample::Index>(), bit in 0u32..7,
    ) {
        let (mut removals, mut now) = (of(7), T0);
        for (pause, entries) in steps {
            now = Timestamp(now.0 + pause);
            if !remove(&mut removals, entries, now) && entries % 2 == 0 {
                removals.release(now);
            }
        }
        let text = removals.encode();
        prop_assert_eq!(Removals::decode(&text), Some(removals));
        let mut bytes = text.into_bytes();
        let flip = flip.index(bytes.len());
        bytes[flip] ^= 1 << bit;
        prop_assert_eq!(Removals::decode(&String::from_utf8(bytes).unwrap()), None);
    }
}
